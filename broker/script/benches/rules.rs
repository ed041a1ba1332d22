//! What a rule costs a message: nanoseconds per call, beside the same predicate in native Rust.
//!
//! `cargo bench -p weirmq-script`. Runs on a thread with [`WORKER_STACK_BYTES`] of stack, as the broker's
//! workers do, except where it says otherwise.

#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::sync::Arc;

use criterion::Criterion;
use weirmq_core::hook::{Actions, Hook, Observe, Reply};
use weirmq_core::message::{Message, Properties, Publisher, QoS};
use weirmq_core::time::{Instant, Now};
use weirmq_core::topic::{TopicFilter, TopicName};
use weirmq_script::{Config, Engine, ScriptHook, WORKER_STACK_BYTES};

const PAYLOAD: &str = r#"{"device":"press-1","line":"a","seq":18232,"ok":true,"celsius":71.5,"humidity":40.25,
"battery":3.71,"firmware":"2.4.1","position":{"x":12.5,"y":3.25,"z":0.5},"tags":["hall-3","north"]}"#;

const NOW: Now = Now { at: Instant::from_micros(0), unix_ms: 1_700_000_000_000 };

fn main() {
    let bench = std::thread::Builder::new().stack_size(WORKER_STACK_BYTES).spawn(|| {
        let mut criterion = Criterion::default().configure_from_args();
        handlers(&mut criterion);
        transforms(&mut criterion);
        binding(&mut criterion);
        criterion.final_summary();
    });
    bench.unwrap().join().unwrap();
    let mut criterion = Criterion::default().configure_from_args();
    small_stack(&mut criterion);
    criterion.final_summary();
}

fn hook(source: &str) -> Arc<ScriptHook> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("bench.rhai"), source).unwrap();
    let (hook, report) =
        Engine::load(Config { folder: folder.path().to_owned(), ..Config::default() }).unwrap();
    assert!(report.is_good(), "{report}");
    hook
}

fn message() -> Arc<Message> {
    Arc::new(Message {
        topic: TopicName::new("factory/a/press-1/temperature").unwrap(),
        payload: PAYLOAD.into(),
        qos: QoS::AtMostOnce,
        retain: false,
        properties: Properties::default(),
        publisher: Publisher::Client { client_id: "press-1".into(), principal: "press-1".into() },
        received_unix_ms: NOW.unix_ms,
        expires_at: None,
        hops: 0,
    })
}

fn observer(source: &str) -> Arc<dyn Observe> {
    hook(source).on_message(&message().topic).remove(0)
}

/// One message through one handler.
fn observe(criterion: &mut Criterion, name: &str, handler: &str) {
    let rule =
        observer(&format!(r#"on("factory/{{line}}/{{machine}}/temperature", |msg| {{ {handler} }});"#));
    let message = message();
    criterion.bench_function(name, |bench| {
        bench.iter(|| {
            let mut actions = Actions::default();
            rule.observe(black_box(&message), NOW, &mut actions).unwrap();
            actions
        });
    });
}

fn handlers(criterion: &mut Criterion) {
    let message = message();
    criterion.bench_function("predicate in native Rust, serde_json, that field only", |bench| {
        #[derive(serde::Deserialize)]
        struct Reading {
            celsius: f64,
        }
        bench.iter(|| {
            let reading: Reading = serde_json::from_slice(black_box(&message.payload)).unwrap();
            reading.celsius > 80.0
        });
    });
    observe(criterion, "on: empty handler", "");
    observe(
        criterion,
        "on: one JSON field, read lazily, does not match",
        "if msg.json.celsius > 80.0 { publish(\"b\", 1); }",
    );
    observe(
        criterion,
        "on: the whole payload parsed into a map first",
        "let all = msg.json.value(); if all.celsius > 80.0 { publish(\"b\", 1); }",
    );
    observe(
        criterion,
        "on: a record with two captures and one field",
        "sink(\"history\", #{ line: msg.line, machine: msg.machine, celsius: msg.json.celsius });",
    );
    observe(
        criterion,
        "on: publishes a JSON map",
        "publish(`alerts/${msg.line}`, #{ celsius: msg.json.celsius });",
    );
}

fn transforms(criterion: &mut Criterion) {
    let message = message();
    for (name, body) in [
        ("transform: passes after one JSON field", "if msg.json.celsius > 1000.0 { drop(\"implausible\"); }"),
        (
            "transform: replaces with a JSON map",
            "replace(msg.topic, #{ celsius: msg.json.celsius, unit: \"celsius\" });",
        ),
    ] {
        let hook = hook(&format!(r#"transform("factory/#", |msg| {{ {body} }});"#));
        let transform = hook.on_publish(&message.topic).unwrap();
        criterion.bench_function(name, |bench| {
            bench.iter(|| match transform.transform(black_box(&message), NOW) {
                Reply::Now(answer) => answer.unwrap(),
                Reply::Later(_) => unreachable!("a rule does no IO"),
            });
        });
    }
}

/// What a rule costs a topic that it does not want: once per topic, nothing per message.
fn binding(criterion: &mut Criterion) {
    let message = message();
    let hook = hook(r#"on("factory/+/+/humidity", |msg| {});"#);
    criterion.bench_function("non-matching rule, once per topic", |bench| {
        bench.iter(|| Arc::clone(&hook).on_message(black_box(&message.topic)));
    });
    let filter = TopicFilter::new("factory/+/+/humidity").unwrap();
    criterion
        .bench_function("the filter alone", |bench| bench.iter(|| filter.matches(black_box(&message.topic))));
}

/// On a thread with less stack each run is given one of its own.
fn small_stack(criterion: &mut Criterion) {
    observe(criterion, "on: empty handler, on a thread with a small stack", "");
}
