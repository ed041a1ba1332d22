//! A call into a component on the way of messages allocates nothing on the broker's side, but for what is answered.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;
use weirmq_core::hook::{Action, AuthorizeRequest, Decision, Hook, Identity, Lease, Reply, Transformed};
use weirmq_core::message::{Message, Properties, Publisher, QoS};
use weirmq_core::time::{Instant, Now};
use weirmq_core::topic::{Subscribable, TopicName};
use weirmq_host::{Host, HostConfig, PluginConfig, PluginHook};

fn lean(replace: bool) -> Arc<PluginHook> {
    let folder = std::env::var_os("WEIRMQ_GUESTS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guests"), PathBuf::from);
    let file = folder.join("lean.wasm");
    assert!(file.is_file(), "'{}' is not there: run `cargo xtask guests`", file.display());
    let mut config = PluginConfig::new("lean", file);
    config.config = json!({ "topics": ["#"], "replace": replace }).as_object().unwrap().clone();
    (config.deadline_ms.authorize, config.deadline_ms.on_publish) = (10_000, 10_000);
    Host::new(HostConfig::default()).unwrap().load(&config).unwrap()
}

/// What a call allocates, once it has been made a few times.
fn allocations<T>(mut call: impl FnMut() -> Reply<T>) -> u64 {
    let mut answered = || match call() {
        Reply::Now(answer) => drop(answer.unwrap()),
        Reply::Later(_) => panic!("a call on the message path must not wait"),
    };
    (0..64).for_each(|_| answered());
    allocation_counter::measure(|| (0..64).for_each(|_| answered())).count_total / 64
}

#[test]
fn a_question_about_rights_allocates_nothing() {
    let plugin = lean(false);
    let identity = Arc::new(Identity {
        client_id: "client-1".into(),
        username: Some("press-1".into()),
        peer: Some("192.0.2.7:51234".parse().unwrap()),
        listener: "main".into(),
        lease: Lease { principal: "press-1".into(), ..Lease::default() },
    });
    for action in [
        Action::Publish { topic: TopicName::new("a/b").unwrap(), qos: QoS::AtLeastOnce, retain: false },
        Action::Subscribe { filter: Subscribable::parse("$share/g/a/+").unwrap(), qos: QoS::AtMostOnce },
    ] {
        let request = Arc::new(AuthorizeRequest { identity: Arc::clone(&identity), action });
        assert!(matches!(plugin.authorize(&request), Reply::Now(Ok(Decision::Allow))));
        assert_eq!(allocations(|| plugin.authorize(&request)), 0);
    }
}

#[test]
fn a_message_that_is_passed_allocates_nothing_and_another_payload_is_all_that_one_allocates() {
    let topic = TopicName::new("a/b").unwrap();
    let message = Arc::new(Message {
        topic: topic.clone(),
        payload: Bytes::from_static(&[b'x'; 64]),
        qos: QoS::AtMostOnce,
        retain: false,
        properties: Properties::default(),
        publisher: Publisher::Client { client_id: "client-1".into(), principal: "press-1".into() },
        received_unix_ms: 1_700_000_000_000,
        expires_at: None,
        hops: 0,
    });
    let now = Now { at: Instant::from_micros(1), unix_ms: 1_700_000_000_000 };
    let passes = lean(false).on_publish(&topic).unwrap();
    assert!(matches!(passes.transform(&message, now), Reply::Now(Ok(Transformed::Pass))));
    assert_eq!(allocations(|| passes.transform(&message, now)), 0);
    let replaces = lean(true).on_publish(&topic).unwrap();
    assert!(matches!(replaces.transform(&message, now), Reply::Now(Ok(Transformed::WithPayload(_)))));
    assert_eq!(allocations(|| replaces.transform(&message, now)), 1);
}
