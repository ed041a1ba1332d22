//! The promises of the plugin host, held with real components: the plugins that ship, the examples in
//! other languages, the `hostile` fixture that misbehaves on command, and small components in text form.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that meets what it does not expect should stop there"
)]

mod asking;
mod backend;
mod bad_files;
mod brief;
mod budgets;
mod compat;
mod hooks;
mod http_login;
mod json_schema;
mod jwt;
mod languages;
mod login;
mod native;
mod payload_encryption;
mod quarantine;
mod reload;
mod shadow;
mod topic_policy;

#[path = "../support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use serde_json::{Value, json};
use support::guest;
use tempfile::TempDir;
use weirmq_core::hook::{
    Action, AuthenticateRequest, Authentication, AuthorizeRequest, Decision, Failure, FailureKind,
    FilterRequest, FilterVerdict, Hook, HookPoint, HookPoints, Identity, Lease, Reply, Transform,
    Transformed, Version,
};
use weirmq_core::message::{Message, Properties, Publisher, QoS};
use weirmq_core::time::{Instant, Now};
use weirmq_core::topic::{Subscribable, TopicName};
use weirmq_host::{Deadlines, Host, HostConfig, PluginConfig, PluginHook};

/// One host for all tests, with a cache, so that each guest is compiled once.
static HOST: LazyLock<Host> = LazyLock::new(|| Host::new(cached()).unwrap());

fn cached() -> HostConfig {
    let cache_folder = Some(Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled-plugins"));
    HostConfig { cache_folder, ..HostConfig::default() }
}

/// The configuration of `name` with `config` for the plugin, and with deadlines that a busy machine keeps.
fn configured(name: &str, file: impl Into<PathBuf>, config: &Value) -> PluginConfig {
    let patient = 30_000;
    PluginConfig {
        deadline_ms: Deadlines {
            init: patient,
            authenticate: patient,
            authorize: patient,
            on_publish: patient,
            on_subscribe: patient,
            on_unsubscribe: patient,
            on_deliver: patient,
            persistence: patient,
            lifecycle: patient,
            timer: patient,
            store_backend: patient,
        },
        config: config.as_object().unwrap().clone(),
        ..PluginConfig::new(name, file)
    }
}

/// The hostile fixture, serving everything.
fn hostile() -> Arc<PluginHook> {
    HOST.load(&configured("hostile", guest("hostile"), &json!({}))).unwrap()
}

/// The hostile fixture with `change` made to its configuration.
fn hostile_with(change: impl FnOnce(&mut PluginConfig)) -> Arc<PluginHook> {
    let mut config = configured("hostile", guest("hostile"), &json!({}));
    change(&mut config);
    HOST.load(&config).unwrap()
}

/// Another version of the hostile fixture: generation `name`, doing `start` when it starts.
fn write_generation(file: &Path, name: &str, start: &str) {
    let mut bytes = std::fs::read(guest("hostile")).unwrap();
    let mut marker = format!("hostile-marker:{name}:{start}").into_bytes();
    marker.resize(32, b'.');
    let at = bytes.windows(15).position(|window| window == b"hostile-marker:").unwrap();
    bytes[at..at + 32].copy_from_slice(&marker);
    std::fs::write(file, bytes).unwrap();
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn wait<T>(reply: Reply<T>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(reply.get())
}

fn request(username: &str, password: &str) -> AuthenticateRequest {
    AuthenticateRequest {
        client_id: "client-1".into(),
        username: Some(username.into()),
        password: Some(Bytes::copy_from_slice(password.as_bytes())),
        version: Version::V5,
        clean_start: true,
        peer: Some("192.0.2.7:4711".parse().unwrap()),
        listener: "main".into(),
        user_properties: vec![("a".into(), "b".into())],
        exchange: None,
    }
}

fn authenticate(plugin: &PluginHook, request: AuthenticateRequest) -> Result<Authentication, Failure> {
    wait(plugin.authenticate(&Arc::new(request)))
}

/// Who `command` as a user name is let in as.
fn principal(plugin: &PluginHook, command: &str) -> String {
    match authenticate(plugin, request(command, "")).unwrap() {
        Authentication::Allow { lease, .. } => lease.principal.to_string(),
        other => panic!("{other:?}"),
    }
}

fn identity() -> Arc<Identity> {
    Arc::new(Identity {
        client_id: "client-1".into(),
        username: Some("somebody".into()),
        peer: None,
        listener: "main".into(),
        lease: Lease { principal: "somebody".into(), ..Lease::default() },
    })
}

fn authorize(plugin: &PluginHook, topic: &str) -> Result<Decision, Failure> {
    let topic = TopicName::new(topic).unwrap();
    let action = Action::Publish { topic, qos: QoS::AtLeastOnce, retain: false };
    wait(plugin.authorize(&Arc::new(AuthorizeRequest { identity: identity(), action })))
}

fn filter_request(filter: &str) -> Arc<FilterRequest> {
    let filter = Subscribable::parse(filter).unwrap();
    Arc::new(FilterRequest { identity: identity(), filter, qos: Some(QoS::AtLeastOnce) })
}

fn subscribe(plugin: &PluginHook, filter: &str) -> Result<FilterVerdict, Failure> {
    wait(plugin.on_subscribe(&filter_request(filter)))
}

fn message(topic: &str, payload: &[u8]) -> Message {
    Message {
        topic: TopicName::new(topic).unwrap(),
        payload: Bytes::copy_from_slice(payload),
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: Properties::default(),
        publisher: Publisher::Client { client_id: "client-1".into(), principal: "somebody".into() },
        received_unix_ms: 1_700_000_000_000,
        expires_at: None,
        hops: 0,
    }
}

fn now() -> Now {
    Now { at: Instant::from_micros(1_000_000), unix_ms: 1_700_000_000_000 }
}

fn bound(plugin: &Arc<PluginHook>, topic: &str) -> Arc<dyn Transform> {
    Arc::clone(plugin).on_publish(&TopicName::new(topic).unwrap()).unwrap()
}

fn transform(plugin: &Arc<PluginHook>, payload: &str) -> Result<Transformed, Failure> {
    let message = Arc::new(message("a/b", payload.as_bytes()));
    Ok(wait(bound(plugin, "a/b").transform(&message, now()))?.spelt_out(&message, now()))
}

/// Waits until `holds`, not for ever.
fn eventually(holds: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "it did not come to be");
        std::thread::yield_now();
    }
}

fn kind<T: std::fmt::Debug>(answer: Result<T, Failure>) -> FailureKind {
    answer.unwrap_err().kind
}
