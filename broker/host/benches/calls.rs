//! What a call into a plugin costs on the message path, instance reused, deadline armed, answer checked; and what stands
//! under it: the engine's own part, with a guest that does nothing. The guest `lean` does next to nothing, so what is
//! measured is the call; `hostile`, which the tests use, looks through its payload for a command.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench that cannot run should say so and stop")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::json;
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Engine, OptLevel, Store};
use weirmq_core::hook::{Action, AuthorizeRequest, Hook, Identity, Lease, Reply};
use weirmq_core::message::{Message, Properties, Publisher, QoS};
use weirmq_core::time::{Instant, Now};
use weirmq_core::topic::TopicName;
use weirmq_host::{Host, HostConfig, PluginConfig, PluginHook};

criterion_group!(benches, floor, authorize, transform_64_bytes, two_threads);
criterion_main!(benches);

const NOW: Now = Now { at: Instant::from_micros(1), unix_ms: 1_700_000_000_000 };
const TOPIC: &str = "factory/a/press-1/temperature";

/// A component that takes texts and does nothing with them; what it is given for them it has back at once.
const IDLE: &str = r#"(component
    (core module $idle
        (memory (export "memory") 1)
        (global $top (mut i32) (i32.const 1024))
        (func (export "realloc") (param i32 i32 i32 i32) (result i32)
            global.get $top
            (global.set $top (i32.add (global.get $top) (local.get 3))))
        (func (export "nothing"))
        (func (export "one") (param i32 i32) (global.set $top (i32.const 1024)))
        (func (export "eight")
            (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)
            (global.set $top (i32.const 1024))))
    (core instance $idle (instantiate $idle))
    (alias core export $idle "memory" (core memory $memory))
    (alias core export $idle "realloc" (core func $realloc))
    (func (export "nothing") (canon lift (core func $idle "nothing")))
    (func (export "one") (param "a" string)
        (canon lift (core func $idle "one") (memory $memory) (realloc $realloc)))
    (func (export "eight")
        (param "a" string) (param "b" string) (param "c" string) (param "d" string)
        (param "e" string) (param "f" string) (param "g" string) (param "h" string)
        (canon lift (core func $idle "eight") (memory $memory) (realloc $realloc))))"#;

/// What the engine takes for a call, however little is asked: without texts, with one, with eight.
fn floor(criterion: &mut Criterion) {
    let mut config = Config::new();
    config.wasm_component_model(true).epoch_interruption(true).cranelift_opt_level(OptLevel::Speed);
    let engine = Engine::new(&config).unwrap();
    let component = Component::new(&engine, wat::parse_str(IDLE).unwrap()).unwrap();
    let mut store = Store::new(&engine, ());
    store.set_epoch_deadline(1000);
    let instance = Linker::new(&engine).instantiate(&mut store, &component).unwrap();
    let nothing = instance.get_typed_func::<(), ()>(&mut store, "nothing").unwrap();
    criterion
        .bench_function("floor/a call", |bencher| bencher.iter(|| nothing.call(&mut store, ()).unwrap()));
    let one = instance.get_typed_func::<(&str,), ()>(&mut store, "one").unwrap();
    criterion.bench_function("floor/a call with a text", |bencher| {
        bencher.iter(|| one.call(&mut store, (TOPIC,)).unwrap());
    });
    type Eight<'a> = (&'a str, &'a str, &'a str, &'a str, &'a str, &'a str, &'a str, &'a str);
    let eight = instance.get_typed_func::<Eight<'_>, ()>(&mut store, "eight").unwrap();
    criterion.bench_function("floor/a call with eight texts", |bencher| {
        bencher.iter(|| eight.call(&mut store, [TOPIC; 8].into()).unwrap());
    });
}

fn authorize(criterion: &mut Criterion) {
    let request = request();
    for name in ["lean", "hostile"] {
        let plugin = plugin(name, false);
        criterion.bench_function(&format!("wasm/authorize, {name}"), |bencher| {
            bencher.iter(|| answered(plugin.authorize(&request)));
        });
    }
}

fn transform_64_bytes(criterion: &mut Criterion) {
    for (name, replace, command) in [
        ("lean", false, "as it is"),
        ("lean", true, "as it is"),
        ("hostile", false, "as it is"),
        ("hostile", true, "upper"),
    ] {
        let plugin = plugin(name, replace);
        let transform = plugin.on_publish(&TopicName::new(TOPIC).unwrap()).unwrap();
        let message = Arc::new(message(command));
        let verb = if replace { "replace" } else { "pass" };
        criterion.bench_function(&format!("wasm/transform 64 bytes, {name}: {verb}"), |bencher| {
            bencher.iter(|| answered(transform.transform(&message, NOW)));
        });
    }
}

/// The same transform while another thread makes the same calls: what two workers share would show.
fn two_threads(criterion: &mut Criterion) {
    let plugin = plugin("lean", false);
    let transform = plugin.on_publish(&TopicName::new(TOPIC).unwrap()).unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let message = Arc::new(message("as it is"));
            while !is_over.load(Ordering::Relaxed) {
                answered(transform.transform(&message, NOW));
            }
        });
        let message = Arc::new(message("as it is"));
        criterion.bench_function("wasm/transform 64 bytes, lean: pass, beside another thread", |bencher| {
            bencher.iter(|| answered(transform.transform(&message, NOW)));
        });
        is_over.store(true, Ordering::Relaxed);
    });
}

fn request() -> Arc<AuthorizeRequest> {
    let identity = Arc::new(Identity {
        client_id: "client-1".into(),
        username: Some("press-1".into()),
        peer: Some("192.0.2.7:51234".parse().unwrap()),
        listener: "main".into(),
        lease: Lease { principal: "press-1".into(), ..Lease::default() },
    });
    let topic = TopicName::new(TOPIC).unwrap();
    let action = Action::Publish { topic, qos: QoS::AtLeastOnce, retain: false };
    Arc::new(AuthorizeRequest { identity, action })
}

fn message(command: &str) -> Message {
    Message {
        topic: TopicName::new(TOPIC).unwrap(),
        payload: Bytes::from(format!("{command:<64}")),
        qos: QoS::AtMostOnce,
        retain: false,
        properties: Properties::default(),
        publisher: Publisher::Client { client_id: "client-1".into(), principal: "press-1".into() },
        received_unix_ms: NOW.unix_ms,
        expires_at: None,
        hops: 0,
    }
}

fn plugin(name: &str, replace: bool) -> Arc<PluginHook> {
    let folder = std::env::var_os("WEIRMQ_GUESTS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guests"), PathBuf::from);
    let file = folder.join(format!("{name}.wasm"));
    assert!(file.is_file(), "'{}' is not there: run `cargo xtask guests`", file.display());
    let mut config = PluginConfig::new(name, file);
    if name == "lean" {
        config.config = json!({ "topics": ["#"], "replace": replace }).as_object().unwrap().clone();
    }
    // On a busy machine a call may be away from its processor for longer than it may take.
    (config.deadline_ms.authorize, config.deadline_ms.on_publish) = (1000, 1000);
    Host::new(HostConfig::default()).unwrap().load(&config).unwrap()
}

fn answered<T>(reply: Reply<T>) -> T {
    match reply {
        Reply::Now(answer) => answer.unwrap(),
        Reply::Later(_) => panic!("a call on the message path must not wait"),
    }
}
