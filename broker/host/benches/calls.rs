//! What a call into a plugin costs on the message path, instance reused, deadline armed, answer checked.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench that cannot run should say so and stop")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use weirmq_core::hook::{Action, AuthorizeRequest, Hook, Identity, Lease, Reply};
use weirmq_core::message::{Message, Properties, Publisher, QoS};
use weirmq_core::time::{Instant, Now};
use weirmq_core::topic::TopicName;
use weirmq_host::{Host, HostConfig, PluginConfig, PluginHook};

criterion_group!(benches, authorize, transform_64_bytes);
criterion_main!(benches);

fn authorize(criterion: &mut Criterion) {
    let plugin = plugin();
    let lease = Lease { principal: "press-1".into(), ..Lease::default() };
    let identity = Arc::new(Identity {
        client_id: "client-1".into(),
        username: Some("press-1".into()),
        peer: None,
        listener: "main".into(),
        lease,
    });
    let topic = TopicName::new("factory/a/press-1/temperature").unwrap();
    let action = Action::Publish { topic, qos: QoS::AtLeastOnce, retain: false };
    let request = Arc::new(AuthorizeRequest { identity, action });
    criterion
        .bench_function("wasm/authorize", |bencher| bencher.iter(|| answered(plugin.authorize(&request))));
}

fn transform_64_bytes(criterion: &mut Criterion) {
    let plugin = plugin();
    let topic = TopicName::new("factory/a/press-1/temperature").unwrap();
    let transform = plugin.on_publish(&topic).unwrap();
    for (name, command) in [("pass", "as it is"), ("replace", "upper")] {
        let message = Arc::new(Message {
            topic: topic.clone(),
            payload: Bytes::from(format!("{command:<64}")),
            qos: QoS::AtMostOnce,
            retain: false,
            properties: Properties::default(),
            publisher: Publisher::Client { client_id: "client-1".into(), principal: "press-1".into() },
            received_unix_ms: 1_700_000_000_000,
            expires_at: None,
            hops: 0,
        });
        let now = Now { at: Instant::from_micros(1), unix_ms: 1_700_000_000_000 };
        criterion.bench_function(&format!("wasm/transform 64 bytes, {name}"), |bencher| {
            bencher.iter(|| answered(transform.transform(&message, now)));
        });
    }
}

fn plugin() -> Arc<PluginHook> {
    let folder = std::env::var_os("WEIRMQ_GUESTS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guests"), PathBuf::from);
    let file = folder.join("hostile.wasm");
    assert!(file.is_file(), "'{}' is not there: run `cargo xtask guests`", file.display());
    let host = Host::new(HostConfig::default()).unwrap();
    host.load(&PluginConfig::new("hostile", file)).unwrap()
}

fn answered<T>(reply: Reply<T>) -> T {
    match reply {
        Reply::Now(answer) => answer.unwrap(),
        Reply::Later(_) => panic!("a call on the message path must not wait"),
    }
}
