//! Components that were built for former versions of the interface, and must load and be called for ever after.

use weirmq_core::durable::backend::{Backend, Change};
use weirmq_core::hook::{Delivery, HookPoint, Persisted};
use weirmq_host::{Grant, HostGrant, KeyValueGrant, PluginBackend, SecretSource};

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
fn what_0_1_0_is_asked_in_few_words_is_asked_as_it_was() {
    let plugin = HOST.load(&configured("kept-brief", kept("0.1.0-in-brief.wasm"), &json!({}))).unwrap();
    assert_eq!(plugin.info().in_brief, [HookPoint::Authorize, HookPoint::OnPublish].into_iter().collect());
    assert_eq!(authorize(&plugin, "fine"), Ok(Decision::Allow));
    assert_eq!(authorize(&plugin, "next"), Ok(Decision::Next));
    let Ok(Decision::Deny(denial)) = authorize(&plugin, "retell") else { panic!("it was denied") };
    for told in [r#"client-id: "client-1""#, r#"principal: "somebody""#, r#"topic: "retell""#] {
        assert!(denial.reason.contains(told), "{}", denial.reason);
    }
    let answer = wait(bound(&plugin, "a/b").transform(&Arc::new(message("a/b", b"upper")), now()));
    assert_eq!(answer, Ok(Transformed::WithPayload("UPPER".into())));
    assert!(matches!(transform(&plugin, "drop"), Ok(Transformed::Drop(_))));
    assert!(matches!(transform(&plugin, "other-topic"), Ok(Transformed::Replace(_))));
    assert!(matches!(transform(&plugin, "several"), Ok(Transformed::Several(drafts)) if drafts.len() == 2));
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

#[test]
fn a_store_backend_of_0_1_0_is_called_as_it_was() {
    // As many results as statements; rows for a query.
    let port = super::asking::server(|request| {
        let body = request.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let statements = serde_json::from_str::<Vec<Value>>(body).unwrap();
        let results = match statements[0][0].as_str() {
            Some(sql) if sql.starts_with("SELECT value") => json!([{ "values": [["djE="]] }]),
            Some(sql) if sql.starts_with("SELECT key, value") => json!([{ "values": [["6b31", "djE="]] }]),
            _ => statements.iter().map(|_| json!({})).collect(),
        };
        super::asking::ok(&json!({ "results": results }).to_string())
    });
    let url = format!("http://127.0.0.1:{port}");
    let folder = folder();
    std::fs::write(folder.path().join("token"), "Basic c0ffee").unwrap();
    let settings = json!({ "url": url, "authorization": "token" });
    let mut config = configured("kept-backend", kept("0.1.0-store-backend.wasm"), &settings);
    config.secrets.insert("token".to_owned(), SecretSource::File(folder.path().join("token")));
    config.grant.http = vec![HostGrant::Named(format!("127.0.0.1:{port}"))];
    let backend = PluginBackend::load(&HostConfig::default(), &config).unwrap();
    assert_eq!(backend.version(), "rqlite-store 0.1.0");
    let put = Change { key: "k1".into(), value: Some("v1".into()) };
    backend.write(&[put, Change { key: "k2".into(), value: None }]).unwrap();
    assert_eq!(backend.get(b"k1"), Ok(Some("v1".into())));
    assert_eq!(backend.scan(b"", 9), Ok(vec![("k1".into(), "v1".into())]));
    assert_eq!(HOST.check(&config).unwrap().served(), ["store-backend"]);
}
