//! What a call into a plugin costs on the message path, instance reused, deadline armed, answer checked; and what stands
//! under it: the engine's own part, with a guest that does nothing. The guest `lean` does next to nothing, so what is
//! measured is the call; `hostile`, which the tests use, looks through its payload for a command.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench that cannot run should say so and stop")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::sync::atomic::{AtomicBool, Ordering};

use criterion::{Criterion, criterion_group, criterion_main};
use support::{NOW, TOPIC, answered, message, plugin, request};
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Engine, OptLevel, Store};
use weirmq_core::hook::{Action, Hook};
use weirmq_core::message::QoS;
use weirmq_core::topic::TopicName;

criterion_group!(benches, floor, authorize, transform_64_bytes, two_threads);
criterion_main!(benches);

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
    let topic = TopicName::new(TOPIC).unwrap();
    let request = request(Action::Publish { topic, qos: QoS::AtLeastOnce, retain: false });
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
        let message = message(format!("{command:<64}"));
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
            let message = message(format!("{:<64}", "as it is"));
            while !is_over.load(Ordering::Relaxed) {
                answered(transform.transform(&message, NOW));
            }
        });
        let message = message(format!("{:<64}", "as it is"));
        criterion.bench_function("wasm/transform 64 bytes, lean: pass, beside another thread", |bencher| {
            bencher.iter(|| answered(transform.transform(&message, NOW)));
        });
        is_over.store(true, Ordering::Relaxed);
    });
}
