//! The component that serves WASI, as much of it as a given component asks for.

use std::fmt::Write;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::abi::{AbiVariant, WasmType};
use wit_parser::{InterfaceId, Resolve, WorldId, WorldItem, WorldKey};

const CODE: &str = include_str!("floor.wat");
/// The worlds of what is put into a component.
pub(super) const WORLDS: &str = include_str!("floor.wit");
/// The resources that the floor makes handles of: their names in the code, their interfaces, their names there.
const RESOURCES: [(&str, &str, &str); 3] = [
    ("$new_input_stream", "wasi:io/streams", "input-stream"),
    ("$new_output_stream", "wasi:io/streams", "output-stream"),
    ("$new_pollable", "wasi:io/poll", "pollable"),
];

/// A component that exports what `guest` imports of WASI; `None` where it imports nothing of it.
pub(super) fn floor(guest_types: Resolve, guest: WorldId) -> Result<Option<Vec<u8>>, String> {
    let said = |error: &dyn std::fmt::Display| format!("{error:#}");
    let mut types = Resolve::default();
    let package = types.push_str("floor.wit", WORLDS).map_err(|error| said(&error))?;
    let map = types.merge(guest_types).map_err(|error| said(&error))?;
    let guest = map.map_world(guest, Default::default()).map_err(|error| said(&error))?;
    let world = types.select_world(&[package], Some("floor")).map_err(|error| said(&error))?;
    let asked = asked_of_wasi(&types, guest);
    if asked.is_empty() {
        return Ok(None);
    }
    for (key, item) in &asked {
        if let Some(world) = types.worlds.get_mut(world) {
            world.exports.insert(key.clone(), item.clone());
        }
    }
    let interfaces: Vec<InterfaceId> = asked
        .iter()
        .filter_map(|(_, item)| match item {
            WorldItem::Interface { id, .. } => Some(*id),
            _ => None,
        })
        .collect();
    let mut module = wat::parse_str(code(&types, &interfaces)).map_err(|error| said(&error))?;
    embed_component_metadata(&mut module, &types, world, StringEncoding::UTF8, false)
        .map_err(|error| said(&error))?;
    ComponentEncoder::default()
        .validate(true)
        .module(&module)
        .and_then(|encoder| encoder.encode())
        .map(Some)
        .map_err(|error| said(&error))
}

/// The interfaces of WASI among the imports of `guest`, in an order in which each comes after those it uses.
fn asked_of_wasi(types: &Resolve, guest: WorldId) -> Vec<(WorldKey, WorldItem)> {
    let Some(world) = types.worlds.get(guest) else { return Vec::new() };
    world
        .imports
        .iter()
        .filter(|(key, _)| types.name_world_key(key).starts_with("wasi:"))
        .map(|(key, item)| (key.clone(), item.clone()))
        .collect()
}

/// The text of a module that serves `interfaces`: the floor's own functions under the names that are asked for,
/// and a trap under every other.
fn code(types: &Resolve, interfaces: &[InterfaceId]) -> String {
    let names: Vec<String> = interfaces.iter().filter_map(|id| types.id_of(*id)).collect();
    let has = |id: &InterfaceId, resource: &str| {
        types.interfaces.get(*id).is_some_and(|interface| interface.types.contains_key(resource))
    };
    let owner = |bare: &str, resource: &str| {
        let mut all = interfaces.iter().zip(&names);
        all.find(|(id, name)| without_version(name) == bare && has(id, resource)).map(|(_, name)| name)
    };
    let mut text = String::from(
        "(module\n\
         (import \"weirmq:plugin/log@0.1.0\" \"log\" (func $log (param i32 i32 i32)))\n\
         (import \"weirmq:plugin/clock@0.1.0\" \"now-unix-ms\" (func $now_unix_ms (result i64)))\n\
         (import \"weirmq:plugin/clock@0.1.0\" \"monotonic-us\" (func $monotonic_us (result i64)))\n",
    );
    let mut rest = String::new();
    for (name, interface, resource) in RESOURCES {
        let _ = match owner(interface, resource) {
            Some(full) => writeln!(
                text,
                "(import \"[export]{full}\" \"[resource-new]{resource}\" (func {name} (param i32) (result i32)))"
            ),
            None => writeln!(rest, "(func {name} (param i32) (result i32) unreachable)"),
        };
    }
    for (id, name) in interfaces.iter().zip(&names) {
        let Some(interface) = types.interfaces.get(*id) else { continue };
        for function in interface.functions.values() {
            let bare = format!("{}#{}", without_version(name), function.name);
            if CODE.contains(&export(&bare)) {
                continue;
            }
            let signature = types.wasm_signature(AbiVariant::GuestExport, function);
            let export = export(&format!("{name}#{}", function.name));
            let (params, results) = (list("param", &signature.params), list("result", &signature.results));
            let _ = writeln!(rest, "(func {export}{params}{results} unreachable)");
        }
    }
    text.push_str(&with_versions(types, interfaces, &names));
    text.push_str(&rest);
    text.push(')');
    text
}

/// The floor's code with the exports that are asked for under their full names, and without the others.
fn with_versions(types: &Resolve, interfaces: &[InterfaceId], names: &[String]) -> String {
    let asked = |export: &str| {
        let (interface, function) = export.split_once('#')?;
        let position = names.iter().position(|name| without_version(name) == interface)?;
        let served = types.interfaces.get(*interfaces.get(position)?)?;
        let full = names.get(position)?;
        served.functions.contains_key(function).then(|| format!("{full}#{function}"))
    };
    let mut text = String::with_capacity(CODE.len());
    let mut rest = CODE;
    while let Some((before, behind)) = rest.split_once("(export \"wasi:") {
        text.push_str(before);
        let Some((name, after)) = behind.split_once("\")") else { break };
        if let Some(full) = asked(&format!("wasi:{name}")) {
            text.push_str(&export(&full));
        }
        rest = after;
    }
    text.push_str(rest);
    text
}

fn export(name: &str) -> String {
    format!("(export \"{name}\")")
}

fn without_version(name: &str) -> &str {
    name.split_once('@').map_or(name, |(bare, _)| bare)
}

fn list(word: &str, types: &[WasmType]) -> String {
    types.iter().fold(String::new(), |text, ty| {
        let name = match ty {
            WasmType::I64 | WasmType::PointerOrI64 => "i64",
            WasmType::F32 => "f32",
            WasmType::F64 => "f64",
            WasmType::I32 | WasmType::Pointer | WasmType::Length => "i32",
        };
        format!("{text} ({word} {name})")
    })
}
