//! What tests and benches that look at single calls share: the guests, a question, a message.
#![allow(dead_code, unreachable_pub, reason = "each uses its own part")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;
use weirmq_core::hook::{Action, AuthorizeRequest, Identity, Lease, Reply};
use weirmq_core::message::{Message, Properties, Publisher, QoS};
use weirmq_core::time::{Instant, Now};
use weirmq_core::topic::TopicName;
use weirmq_host::{Host, HostConfig, PluginConfig, PluginHook};

pub const NOW: Now = Now { at: Instant::from_micros(1), unix_ms: 1_700_000_000_000 };
pub const TOPIC: &str = "factory/a/press-1/temperature";

/// The built component `name`.
pub fn guest(name: &str) -> PathBuf {
    let folder = std::env::var_os("WEIRMQ_GUESTS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guests"), PathBuf::from);
    let file = folder.join(format!("{name}.wasm"));
    assert!(file.is_file(), "'{}' is not there: run `cargo xtask guests`", file.display());
    file
}

/// The guest `lean`, or another that wants every message without being told, with deadlines that a busy machine keeps.
pub fn plugin(name: &str, replace: bool) -> Arc<PluginHook> {
    let mut config = PluginConfig::new(name, guest(name));
    if name == "lean" {
        config.config = json!({ "topics": ["#"], "replace": replace }).as_object().unwrap().clone();
    }
    (config.deadline_ms.authorize, config.deadline_ms.on_publish) = (10_000, 10_000);
    Host::new(HostConfig::default()).unwrap().load(&config).unwrap()
}

/// Whether a client that has an address may do `action`.
pub fn request(action: Action) -> Arc<AuthorizeRequest> {
    let identity = Arc::new(Identity {
        client_id: "client-1".into(),
        username: Some("press-1".into()),
        peer: Some("192.0.2.7:51234".parse().unwrap()),
        listener: "main".into(),
        lease: Lease { principal: "press-1".into(), ..Lease::default() },
    });
    Arc::new(AuthorizeRequest { identity, action })
}

/// A message of a client to [`TOPIC`].
pub fn message(payload: impl Into<Bytes>) -> Arc<Message> {
    Arc::new(Message {
        topic: TopicName::new(TOPIC).unwrap(),
        payload: payload.into(),
        qos: QoS::AtMostOnce,
        retain: false,
        properties: Properties::default(),
        publisher: Publisher::Client { client_id: "client-1".into(), principal: "press-1".into() },
        received_unix_ms: NOW.unix_ms,
        expires_at: None,
        hops: 0,
    })
}

/// What was answered at once.
pub fn answered<T>(reply: Reply<T>) -> T {
    match reply {
        Reply::Now(answer) => answer.unwrap(),
        Reply::Later(_) => panic!("a call on the message path must not wait"),
    }
}
