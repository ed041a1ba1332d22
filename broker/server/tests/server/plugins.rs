//! Small plugins for tests, made from text: the real interface, and nothing behind it.

use wit_component::{ComponentEncoder, StringEncoding};
use wit_parser::Resolve;

/// A plugin that serves `authenticate` and always answers `next`. `version` has five characters.
pub(crate) fn authenticating(version: &str) -> Vec<u8> {
    component(
        "auth-plugin",
        version,
        r#"(func (export "weirmq:plugin/authenticate@0.1.0#authenticate") (param i32) (result i32) i32.const 160)"#,
    )
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
    assert_eq!(version.len(), 5);
    // 16: name and version; 64: where they are, as `info` answers; 128: `ok`; 160: `next`; 192: an empty list.
    let text = format!(
        r#"(module
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
    let mut interface = Resolve::default();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugin-api/wit/v0.1.0");
    let (package, _) = interface.push_dir(folder).unwrap();
    let world = interface.select_world(&[package], Some(world)).unwrap();
    wit_component::embed_component_metadata(&mut module, &interface, world, StringEncoding::UTF8, false)
        .unwrap();
    ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
}
