//! A module that uses WASI becomes a component that asks for the plugin interface and nothing else.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that meets what it does not expect should stop there"
)]

use weirmq_kit::seal::{SealError, componentize, seal};
use wit_component::DecodedWasm;
use wit_parser::{Resolve, WorldId};

/// A world of one exported function, for modules that need nothing of the plugin interface themselves.
fn world() -> (Resolve, WorldId) {
    let mut resolve = Resolve::default();
    let text = "package a:b; world w { export run: func(); }";
    let package = resolve.push_str("w.wit", text).unwrap();
    let world = resolve.select_world(&[package], None).unwrap();
    (resolve, world)
}

fn module(imports: &str, body: &str) -> Vec<u8> {
    let text = format!(
        "(module {imports} (memory (export \"memory\") 1) \
         (func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32) (i32.const 1024)) \
         (func (export \"run\") {body}))"
    );
    wat::parse_str(text).unwrap()
}

fn imports(component: &[u8]) -> Vec<String> {
    let DecodedWasm::Component(resolve, world) = wit_component::decode(component).unwrap() else {
        panic!("no component")
    };
    resolve.worlds[world].imports.keys().map(|key| resolve.name_world_key(key)).collect()
}

const PRINTS: &str = "(import \"wasi_snapshot_preview1\" \"fd_write\" \
                      (func $write (param i32 i32 i32 i32) (result i32)))";
const PRINT: &str = "(drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))";

#[test]
fn what_prints_asks_for_the_log_and_the_clock_and_nothing_else() {
    let (resolve, world) = world();
    let sealed = componentize(&module(PRINTS, PRINT), Some((&resolve, world))).unwrap();
    assert_eq!(imports(&sealed), ["weirmq:plugin/log@0.1.0", "weirmq:plugin/clock@0.1.0"]);
}

#[test]
fn what_is_sealed_stays_as_it_is() {
    let (resolve, world) = world();
    let sealed = componentize(&module(PRINTS, PRINT), Some((&resolve, world))).unwrap();
    assert!(seal(&sealed).unwrap() == sealed, "sealed twice");
    let plain = componentize(&module("", ""), Some((&resolve, world))).unwrap();
    assert!(imports(&plain).is_empty(), "what asks for nothing is given nothing");
}

#[test]
fn every_function_of_wasi_preview_1_that_needs_no_file_is_served_or_traps() {
    let functions = [
        ("args_sizes_get", "(param i32 i32)"),
        ("environ_sizes_get", "(param i32 i32)"),
        ("clock_time_get", "(param i32 i64 i32)"),
        ("random_get", "(param i32 i32)"),
        ("poll_oneoff", "(param i32 i32 i32 i32)"),
        ("sched_yield", ""),
        ("fd_read", "(param i32 i32 i32 i32)"),
        ("fd_prestat_get", "(param i32 i32)"),
        ("path_open", "(param i32 i32 i32 i32 i32 i64 i64 i32 i32)"),
    ];
    let (resolve, world) = world();
    for (name, params) in functions {
        let import =
            format!("(import \"wasi_snapshot_preview1\" \"{name}\" (func $f {params} (result i32)))");
        let sealed = componentize(&module(&import, ""), Some((&resolve, world)))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        for import in imports(&sealed) {
            assert!(import.starts_with("weirmq:plugin/"), "{name}: {import}");
        }
    }
}

#[test]
fn a_runtime_that_stops_its_clocks_is_given_clocks_that_call_nobody_then() {
    let imports_of = |name: &str, params: &str, result: &str| {
        format!("(import \"wasi_snapshot_preview1\" \"{name}\" (func ${name} {params} {result}))")
    };
    let text = [
        imports_of("adapter_monotonic_clock_set_paused", "(param i32)", ""),
        imports_of("clock_time_get", "(param i32 i64 i32)", "(result i32)"),
        imports_of("poll_oneoff", "(param i32 i32 i32 i32)", "(result i32)"),
    ]
    .concat();
    let body = "(call $adapter_monotonic_clock_set_paused (i32.const 1)) \
                (drop (call $clock_time_get (i32.const 1) (i64.const 0) (i32.const 8))) \
                (drop (call $poll_oneoff (i32.const 64) (i32.const 128) (i32.const 1) (i32.const 8)))";
    let (resolve, world) = world();
    let sealed = componentize(&module(&text, body), Some((&resolve, world))).unwrap();
    // The clock of the plugin interface itself: WASI's, which call it whenever they are asked, are not in the way.
    assert_eq!(imports(&sealed), ["weirmq:plugin/clock@0.1.0"]);
    assert!(!sealed.windows(11).any(|window| window == b"wasi:clocks"), "no clocks of WASI");
}

#[test]
fn what_is_no_component_and_no_module_of_its_world_is_refused() {
    assert!(matches!(seal(b"not wasm"), Err(SealError::NoComponent(_))));
    assert!(matches!(componentize(&module("", ""), None), Err(SealError::NoWorld)));
    let (resolve, world) = world();
    let other = wat::parse_str("(module)").unwrap();
    let Err(SealError::NoModule(why)) = componentize(&other, Some((&resolve, world))) else {
        panic!("refused")
    };
    assert!(why.contains("run"), "{why}");
}
