//! Small plugins for tests, made from text: the real interface, and nothing behind it.

use wit_component::{ComponentEncoder, StringEncoding};
use wit_parser::{PackageId, Resolve, WorldId};

/// A plugin that serves `authenticate` and always answers `next`. `version` has five characters.
pub(crate) fn authenticating(version: &str) -> Vec<u8> {
    component("auth-plugin", version, NEXT)
}

/// What [`authenticating`] is, with `start` in its core module.
pub(crate) fn starting(version: &str, start: &str) -> Vec<u8> {
    component("auth-plugin", version, &format!("{NEXT} {start}"))
}

/// Answers `next`.
const NEXT: &str = r#"(func (export "weirmq:plugin/authenticate@0.1.0#authenticate") (param i32) (result i32) i32.const 160)"#;

/// What [`authenticating`] is, asking for a clock of WASI besides.
pub(crate) fn asking_for_wasi(version: &str) -> Vec<u8> {
    let text = "package a:b;
        world asking { include weirmq:plugin/auth-plugin@0.1.0; import wasi:clocks/monotonic-clock@0.2.0; }
        package wasi:clocks@0.2.0 { interface monotonic-clock { now: func() -> u64; } }";
    let mut types = interface().0;
    let package = types.push_str("asking.wit", text).unwrap();
    let world = types.select_world(&[package], Some("asking")).unwrap();
    let import = r#"(import "wasi:clocks/monotonic-clock@0.2.0" "now" (func (result i64)))"#;
    encode(&types, world, version, import, NEXT)
}

/// A plugin that is told events and forgets them. `version` has five characters.
pub(crate) fn observing(version: &str) -> Vec<u8> {
    component(
        "lifecycle-plugin",
        version,
        r#"(func (export "weirmq:plugin/lifecycle@0.1.0#events") (result i32) i32.const 192)
            (func (export "weirmq:plugin/lifecycle@0.1.0#on-event") (param i32))"#,
    )
}

fn component(world: &str, version: &str, hook: &str) -> Vec<u8> {
    let (types, package) = interface();
    let world = types.select_world(&[package], Some(world)).unwrap();
    encode(&types, world, version, "", hook)
}

fn interface() -> (Resolve, PackageId) {
    let mut types = Resolve::default();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugin-api/wit/v0.1.0");
    let (package, _) = types.push_dir(folder).unwrap();
    (types, package)
}

fn encode(types: &Resolve, world: WorldId, version: &str, import: &str, hook: &str) -> Vec<u8> {
    assert_eq!(version.len(), 5);
    // 16: name and version; 64: where they are, as `info` answers; 128: `ok`; 160: `next`; 192: an empty list.
    let text = format!(
        r#"(module
            {import}
            (memory (export "memory") 4)
            (global $free (mut i32) (i32.const 4096))
            (data (i32.const 16) "test{version}")
            (data (i32.const 64) "\10\00\00\00\04\00\00\00\14\00\00\00\05\00\00\00")
            (data (i32.const 160) "\03")
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                global.get $free
                (global.set $free (i32.add (global.get $free) (i32.and (i32.add (local.get 3) (i32.const 15)) (i32.const -16)))))
            (func (export "weirmq:plugin/guest@0.1.0#info") (result i32) i32.const 64)
            (func (export "weirmq:plugin/guest@0.1.0#init") (param i32 i32) (result i32) i32.const 128)
            (func (export "weirmq:plugin/guest@0.1.0#health") (result i32) i32.const 128)
            {hook})"#
    );
    let mut module = wat::parse_str(text).unwrap();
    wit_component::embed_component_metadata(&mut module, types, world, StringEncoding::UTF8, false).unwrap();
    ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
}
