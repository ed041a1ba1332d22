//! Components for a broker that offers no WASI.
//!
//! The runtimes of most languages ask for WASI: a clock, somewhere to print, a seed for their hash tables. The
//! broker gives a plugin none of it. [`seal`] puts what they cannot do without into the component itself, made of
//! the plugin interface alone: what is printed becomes log entries, the clocks are the broker's, everything else
//! of WASI is empty or traps. [`componentize`] makes such a component of a core module.
//!
//! # Layout
//! - this file: what there is to call
//! - `lay`: the component that serves WASI, as much of it as a given component asks for
//! - `floor.wat`, `floor.wit`: its code, and what it stands on
//! - `pause`, `pause.wat`: clocks for a runtime that looks at them when nothing may be called

mod lay;
mod pause;

use wac_graph::types::Package;
use wac_graph::{CompositionGraph, EncodeOptions};
use wit_component::{ComponentEncoder, DecodedWasm, StringEncoding, embed_component_metadata};
use wit_parser::{Resolve, WorldId};

/// Why there is no sealed component.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// What was given is no component.
    #[error("this is no component: {0}")]
    NoComponent(String),
    /// What was given is no core module of its world.
    #[error("this is no module of its world: {0}")]
    NoModule(String),
    /// What was given is a core module of some world.
    #[error("this core module does not say which world it was written for; name it with --wit and --world")]
    NoWorld,
    /// It asks for something of WASI in a way that nothing here fits.
    #[error("its WASI imports cannot be served: {0}")]
    Unfit(String),
}

/// Makes a sealed component of a core module. `world` is the world that it was written for, unless the module
/// carries the description of its world itself; WASI preview 1 is adapted.
///
/// # Errors
/// [`SealError`] with what does not fit.
pub fn componentize(module: &[u8], world: Option<(&Resolve, WorldId)>) -> Result<Vec<u8>, SealError> {
    use wasi_preview1_component_adapter_provider::{
        WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME as NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER as ADAPTER,
    };
    if world.is_none() && !says_its_world(module) {
        return Err(SealError::NoWorld);
    }
    let encode = || -> Result<Vec<u8>, Box<dyn std::error::Error>> {
        let redirected = pause::redirect(module)?;
        let pauses = redirected.is_some();
        let mut module = redirected.unwrap_or_else(|| module.to_vec());
        if let Some((resolve, world)) = world {
            embed_component_metadata(&mut module, resolve, world, StringEncoding::UTF8, false)?;
        }
        let mut encoder = ComponentEncoder::default();
        encoder.validate(true).module(&module)?.adapter(NAME, ADAPTER)?;
        if pauses {
            encoder.adapter(pause::NAME, &pause::adapter()?)?;
        }
        Ok(encoder.encode()?)
    };
    let component = encode().map_err(|error| SealError::NoModule(with_causes(&*error)))?;
    seal(&component)
}

/// Whether `module` has what bindings put into it: the description of its world.
fn says_its_world(module: &[u8]) -> bool {
    use wasmparser::{Parser, Payload};
    Parser::new(0).parse_all(module).map_while(Result::ok).any(|payload| match payload {
        Payload::CustomSection(section) => section.name().starts_with("component-type"),
        _ => false,
    })
}

/// The same component, asking for nothing of WASI. One that asks for none is answered as it is.
///
/// # Errors
/// [`SealError`] with what does not fit.
pub fn seal(component: &[u8]) -> Result<Vec<u8>, SealError> {
    let decoded =
        wit_component::decode(component).map_err(|error| SealError::NoComponent(format!("{error:#}")))?;
    let DecodedWasm::Component(resolve, world) = decoded else {
        return Err(SealError::NoComponent("it holds interfaces, no code".to_owned()));
    };
    match lay::floor(resolve, world).map_err(SealError::Unfit)? {
        None => Ok(component.to_vec()),
        Some(floor) => compose(component, floor).map_err(|error| SealError::Unfit(with_causes(&*error))),
    }
}

fn compose(component: &[u8], floor: Vec<u8>) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let mut graph = CompositionGraph::new();
    let floor = Package::from_bytes("weirmq:floor", None, floor, graph.types_mut())?;
    let floor = graph.register_package(floor)?;
    let socket = Package::from_bytes("weirmq:guest", None, component.to_vec(), graph.types_mut())?;
    let socket = graph.register_package(socket)?;
    wac_graph::plug(&mut graph, vec![floor], socket)?;
    Ok(graph.encode(EncodeOptions::default())?)
}

/// An error and what it came from, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut causes = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    causes.join(": ")
}
