//! The `payload-encryption` plugin: what is written down is not what was sent, and only its keys open it.

use std::collections::BTreeMap;

use weirmq_core::hook::{Persist, Persisted};
use weirmq_host::{LoadError, SecretSource};

use super::*;

// 32 bytes each, in Base64.
const FIRST: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const SECOND: &str = "Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=";

/// The configuration with `config` for the plugin, and the secrets `first`, `second` and `short`.
fn with_secrets(folder: &TempDir, config: &Value) -> PluginConfig {
    let secret = |name: &str, text: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        (name.to_owned(), SecretSource::File(file))
    };
    let secrets = BTreeMap::from([secret("first", FIRST), secret("second", SECOND), secret("short", "AAEC")]);
    PluginConfig { secrets, ..configured("payload-encryption", guest("payload-encryption"), config) }
}

fn load(config: &Value) -> Result<Arc<dyn Persist>, LoadError> {
    let plugin = HOST.load(&with_secrets(&folder(), config))?;
    Ok(plugin.persistence(&TopicName::new("a/b").unwrap()).unwrap())
}

fn keys(names: &[&str]) -> Value {
    json!({ "keys": names.iter().map(|name| json!({ "id": name, "secret": name })).collect::<Vec<_>>() })
}

fn stored(plugin: &dyn Persist, payload: &[u8]) -> Bytes {
    match plugin.before_store(&Arc::new(message("a/b", payload))).unwrap() {
        Persisted::Replace(stored) => stored,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_read_back_is_what_was_sent_and_what_is_stored_is_not() {
    let plugin = load(&keys(&["first"])).unwrap();
    for payload in [&b""[..], b"a secret reading", &[0xff; 100_000]] {
        let stored = stored(&*plugin, payload);
        assert!(payload.is_empty() || !stored.windows(payload.len()).any(|part| part == payload));
        assert_eq!(plugin.after_load(&message("a/b", &stored)).unwrap(), payload);
    }
    assert_ne!(stored(&*plugin, b"same"), stored(&*plugin, b"same"), "a nonce for each");
}

#[test]
fn what_was_changed_cut_or_moved_is_not_delivered() {
    let plugin = load(&keys(&["first"])).unwrap();
    let whole = stored(&*plugin, b"a secret reading");
    for at in 0..whole.len() {
        let mut changed = whole.to_vec();
        changed[at] ^= 1;
        assert!(plugin.after_load(&message("a/b", &changed)).is_err(), "byte {at}");
        assert!(plugin.after_load(&message("a/b", &whole[..at])).is_err(), "cut at {at}");
    }
    let moved = plugin.after_load(&message("a/c", &whole)).unwrap_err();
    assert!(moved.detail.contains("does not open it"), "{moved}");
    assert!(plugin.after_load(&message("a/b", b"in clear")).is_err());
}

#[test]
fn an_old_key_opens_what_it_has_encrypted_until_it_is_taken_away() {
    let old = stored(&*load(&keys(&["first"])).unwrap(), b"reading");
    let both = load(&keys(&["second", "first"])).unwrap();
    assert_eq!(both.after_load(&message("a/b", &old)).unwrap(), "reading");
    let new = stored(&*both, b"reading");
    let only_new = load(&keys(&["second"])).unwrap();
    assert_eq!(only_new.after_load(&message("a/b", &new)).unwrap(), "reading");
    let missing = only_new.after_load(&message("a/b", &old)).unwrap_err();
    assert!(missing.detail.contains("'first'"), "{missing}");
}

#[test]
fn a_mistake_in_the_configuration_is_named() {
    for (config, part) in [
        (json!({ "keys": [] }), "keys: there is none"),
        (keys(&["third"]), "keys[0].secret: there is no secret 'third'"),
        (keys(&["first", "short"]), "keys[1].secret: it has 3 bytes"),
        (keys(&["first", "first"]), "keys[1].id"),
        (json!({ "keys": [{ "id": "", "secret": "first" }] }), "keys[0].id"),
        (json!({ "topics": ["a/#/b"], "keys": [{ "id": "a", "secret": "first" }] }), "topics[0]: 'a/#/b'"),
        (json!({ "kesy": [] }), "kesy"),
    ] {
        match load(&config).err().unwrap() {
            LoadError::Refused { reason, .. } => assert!(reason.contains(part), "{part}: {reason}"),
            other => panic!("{part}: {other}"),
        }
    }
}
