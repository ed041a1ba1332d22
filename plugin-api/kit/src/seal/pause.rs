//! A runtime that says when its clocks must stand still is given clocks that do.

use std::convert::Infallible;

use wasm_encoder::ImportSection;
use wasm_encoder::reencode::{Error, Reencode, utils};
use wasmparser::{Import, Imports, Parser, Payload};
use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The name that a module imports the clocks of [`adapter`] from.
pub(super) const NAME: &str = "weirmq_clocks";
/// What a module imports WASI preview 1 from.
const PREVIEW1: &str = "wasi_snapshot_preview1";
/// What a runtime says it with.
const SET_PAUSED: &str = "adapter_monotonic_clock_set_paused";
/// What it then must not wait for.
const FUNCTIONS: [&str; 3] = [SET_PAUSED, "clock_time_get", "poll_oneoff"];
const CODE: &str = include_str!("pause.wat");

/// `module` with its clocks from [`NAME`], where its runtime says when they must stand still.
pub(super) fn redirect(module: &[u8]) -> Result<Option<Vec<u8>>, String> {
    if !pauses(module) {
        return Ok(None);
    }
    let mut redirected = wasm_encoder::Module::new();
    Redirect.parse_core_module(&mut redirected, Parser::new(0), module).map_err(|error| error.to_string())?;
    Ok(Some(redirected.finish()))
}

/// Serves [`FUNCTIONS`] from the plugin interface.
pub(super) fn adapter() -> Result<Vec<u8>, String> {
    let said = |error: &dyn std::fmt::Display| format!("{error:#}");
    let mut module = wat::parse_str(CODE).map_err(|error| said(&error))?;
    let mut types = Resolve::default();
    let package = types.push_str("floor.wit", super::lay::WORLDS).map_err(|error| said(&error))?;
    let world = types.select_world(&[package], Some("clocks")).map_err(|error| said(&error))?;
    embed_component_metadata(&mut module, &types, world, StringEncoding::UTF8, false)
        .map_err(|error| said(&error))?;
    Ok(module)
}

fn pauses(module: &[u8]) -> bool {
    let sections = Parser::new(0).parse_all(module).map_while(Result::ok);
    let mut imports = sections.filter_map(|payload| match payload {
        Payload::ImportSection(section) => Some(section),
        _ => None,
    });
    imports.any(|section| {
        let mut imports = section.into_imports().map_while(Result::ok);
        imports.any(|import| import.module == PREVIEW1 && import.name == SET_PAUSED)
    })
}

struct Redirect;

impl Reencode for Redirect {
    type Error = Infallible;

    fn parse_imports(
        &mut self,
        section: &mut ImportSection,
        imports: Imports<'_>,
    ) -> Result<(), Error<Infallible>> {
        match imports {
            Imports::Single(at, import) if import.module == PREVIEW1 && FUNCTIONS.contains(&import.name) => {
                utils::parse_imports(self, section, Imports::Single(at, Import { module: NAME, ..import }))
            }
            imports => utils::parse_imports(self, section, imports),
        }
    }
}
