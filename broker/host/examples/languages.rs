//! Prints what a plugin costs in each language, as a table: the examples of `examples/plugins`, each at its own hook
//! point. `cargo xtask guests --table` builds and runs it in release.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a measurement that cannot be made should say so and stop"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use bytes::Bytes;
use serde_json::{Value, json};
use support::guest;
use tokio::runtime::Runtime;
use weirmq_core::hook::{
    Action, AuthenticateRequest, AuthorizeRequest, Hook, Identity, Lease, Reply, Transformed, Version,
};
use weirmq_core::message::{Message, Properties, Publisher, QoS};
use weirmq_core::time::{Instant, Now};
use weirmq_core::topic::TopicName;
use weirmq_host::{Deadlines, Host, HostConfig, PluginConfig, PluginHook};

/// For how long calls are made.
const MEASURE_FOR: Duration = Duration::from_secs(2);

fn main() {
    println!(
        "| language | hook point | component | load, first | load, compiled before | call, median | p99 | memory |"
    );
    println!("|---|---|--:|--:|--:|--:|--:|--:|");
    let binary_frame = [0x78, 0x56, 0x34, 0x12, 0x2e, 0xfb, 0x10, 0x27, 0xe4, 0x0c, 0x7c, 0x5f];
    let topics = json!({ "topics": ["raw/+/frame"] });
    row("Rust", "rust", json!({ "ann": "sesame" }), |plugin| {
        let (request, runtime) = (login("ann", "sesame"), runtime());
        Box::new(move || answered(&runtime, plugin.authenticate(&request)))
    });
    row("C", "c", topics, |plugin| transform(&plugin, "raw/a/frame", &binary_frame));
    row("Go", "go", json!({ "publish": ["devices/{client_id}/#"] }), |plugin| {
        let request = Arc::new(AuthorizeRequest {
            identity: identity(),
            action: Action::Publish {
                topic: topic("devices/c-1/state"),
                qos: QoS::AtMostOnce,
                retain: false,
            },
        });
        let runtime = runtime();
        Box::new(move || answered(&runtime, plugin.authorize(&request)))
    });
    row("JavaScript", "js", json!({ "tokens": { "tok-1": { "principal": "ann" } } }), |plugin| {
        let (request, runtime) = (login("ann", "tok-1"), runtime());
        Box::new(move || answered(&runtime, plugin.authenticate(&request)))
    });
    row("Python", "python", json!({}), |plugin| {
        transform(&plugin, "sensors/a/reading", br#"{"celsius": 21.5, "humidity": 45}"#)
    });
}

type Call = Box<dyn FnMut()>;

fn row(language: &str, name: &str, config: Value, call: impl FnOnce(Arc<PluginHook>) -> Call) {
    let folder = tempfile::tempdir().unwrap();
    let file = guest(&format!("example-{name}"));
    assert!(file.is_file(), "'{}' is not there: run `cargo xtask guests`", file.display());
    let bytes = std::fs::metadata(&file).unwrap().len();
    let config = PluginConfig {
        memory_mb: 128,
        // What takes long is to be measured, not cut off.
        deadline_ms: Deadlines { init: 60_000, authorize: 1000, on_publish: 1000, ..Deadlines::default() },
        config: config.as_object().unwrap().clone(),
        ..PluginConfig::new(name, file)
    };
    let host = || {
        let cache_folder = Some(folder.path().to_owned());
        Host::new(HostConfig { cache_folder, ..HostConfig::default() }).unwrap()
    };
    let load = |host: &Host| {
        let started = Clock::now();
        let plugin = host.load(&config).unwrap();
        (plugin, started.elapsed())
    };
    let (_, first) = load(&host());
    let host = host();
    let (plugin, again) = load(&host);
    let info = plugin.info();
    let hooks: Vec<&str> = info.hooks.iter().map(|hook| hook.name()).collect();
    let mut times = measure(call(Arc::clone(&plugin)));
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
    println!(
        "| {language} | {} | {} | {} | {} | {} | {} | {} |",
        hooks.join(", "),
        size(bytes),
        shown(first),
        shown(again),
        shown(at(50)),
        shown(at(99)),
        size(plugin.stats().memory_bytes),
    );
}

/// How long single calls take.
fn measure(mut call: Call) -> Vec<Duration> {
    let until = Clock::now() + MEASURE_FOR;
    let mut times = Vec::new();
    while Clock::now() < until {
        let started = Clock::now();
        call();
        times.push(started.elapsed());
    }
    // The first calls find cold caches.
    times.split_off(times.len() / 10)
}

fn transform(plugin: &Arc<PluginHook>, topic_name: &str, payload: &[u8]) -> Call {
    let topic = topic(topic_name);
    let transform = Arc::clone(plugin).on_publish(&topic).unwrap();
    let message = Arc::new(Message {
        topic,
        payload: Bytes::copy_from_slice(payload),
        qos: QoS::AtMostOnce,
        retain: false,
        properties: Properties::default(),
        publisher: Publisher::Client { client_id: "c-1".into(), principal: "ann".into() },
        received_unix_ms: 1_700_000_000_000,
        expires_at: None,
        hops: 0,
    });
    let now = Now { at: Instant::from_micros(1), unix_ms: 1_700_000_000_000 };
    Box::new(move || match transform.transform(&message, now) {
        Reply::Now(answer) => assert!(matches!(answer, Ok(Transformed::Replace(_)))),
        Reply::Later(_) => panic!("a call on the message path must not wait"),
    })
}

fn answered<T>(runtime: &Runtime, reply: Reply<T>) {
    if let Err(failure) = runtime.block_on(reply.get()) {
        panic!("{failure}");
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

fn login(username: &str, password: &str) -> Arc<AuthenticateRequest> {
    Arc::new(AuthenticateRequest {
        client_id: "c-1".into(),
        username: Some(username.into()),
        password: Some(Bytes::copy_from_slice(password.as_bytes())),
        version: Version::V5,
        clean_start: true,
        peer: None,
        listener: "main".into(),
        user_properties: Vec::new(),
        exchange: None,
    })
}

fn identity() -> Arc<Identity> {
    Arc::new(Identity {
        client_id: "c-1".into(),
        username: None,
        peer: None,
        listener: "main".into(),
        lease: Lease { principal: "ann".into(), ..Lease::default() },
    })
}

fn topic(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{} KB", bytes / 1000),
        _ => format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10),
    }
}

fn shown(time: Duration) -> String {
    match time.as_nanos() {
        nanos @ 0..100_000 => format!("{}.{:02} µs", nanos / 1000, nanos / 10 % 100),
        nanos @ 100_000..10_000_000 => format!("{} µs", nanos / 1000),
        nanos => format!("{} ms", nanos / 1_000_000),
    }
}
