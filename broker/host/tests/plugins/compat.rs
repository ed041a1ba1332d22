//! Components that were built for former versions of the interface, and must load and be called for ever after.

use weirmq_core::hook::{Delivery, HookPoint, Persisted};
use weirmq_host::{Grant, HostGrant, KeyValueGrant, SecretSource};

use super::*;

/// The component `name` of `plugin-api/compat`.
fn kept(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugin-api/compat").join(name)
}

#[test]
fn every_hook_point_of_0_1_0_is_called_as_it_was() {
    let plugin = HOST.load(&configured("kept-hooks", kept("0.1.0-hooks.wasm"), &json!({}))).unwrap();
    let expected = HookPoint::ALL.into_iter().filter(|point| *point != HookPoint::OnMessage).collect();
    assert_eq!(plugin.points(), expected);
    assert_eq!(principal(&plugin, "somebody"), "somebody");
    assert_eq!(authorize(&plugin, "fine"), Ok(Decision::Allow));
    assert!(matches!(transform(&plugin, "upper"), Ok(Transformed::Replace(_))));
    assert_eq!(subscribe(&plugin, "a/b"), Ok(FilterVerdict::Pass));
    let topic = TopicName::new("a/b").unwrap();
    let deliver = Arc::clone(&plugin).on_deliver(&topic).unwrap();
    let delivered = deliver.deliver(&Arc::new(message("a/b", b"upper")), &identity(), now());
    assert!(matches!(delivered, Ok(Delivery::Replace(_))));
    let persist = Arc::clone(&plugin).persistence(&topic).unwrap();
    let Ok(Persisted::Replace(sealed)) = persist.before_store(&Arc::new(message("a/b", b"21.5"))) else {
        panic!("it was sealed")
    };
    assert_eq!(persist.after_load(&message("a/b", &sealed)).as_deref(), Ok(&b"21.5"[..]));
    plugin.on_timer(now());
    eventually(|| plugin.figures().iter().any(|(name, _)| name == "ticks"));
    assert_eq!(plugin.stats().failures, []);
}

#[test]
fn every_interface_that_0_1_0_offers_is_there() {
    let folder = folder();
    let token = folder.path().join("token");
    std::fs::write(&token, "s3cret").unwrap();
    let mut config = configured("kept-imports", kept("0.1.0-imports.wasm"), &json!({}));
    config.secrets.insert("token".to_owned(), SecretSource::File(token));
    config.grant = Grant {
        http: vec![HostGrant::Named("127.0.0.1:1".to_owned())],
        publish: vec!["alerts/#".to_owned()],
        key_value: KeyValueGrant::Is(true),
        revoke: true,
    };
    let plugin = HOST.load(&config).unwrap();
    assert_eq!(principal(&plugin, "secret token"), "s3cret");
    assert_eq!(principal(&plugin, "set a b; get a"), "b");
    assert_eq!(principal(&plugin, "random 8"), "8 true");
    assert_eq!(principal(&plugin, "publish elsewhere x"), "Err(Error::NotGranted)");
    assert!(principal(&plugin, "http http://127.0.0.1:1/").contains("Unreachable"));
    assert!(principal(&plugin, "revoke everyone 0").starts_with("Err"));
}
