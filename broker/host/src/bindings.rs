//! Generated from `plugin-api/wit/v0.1.0`. What the broker passes to a plugin is borrowed, what it gets back is
//! owned.

#![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]

wasmtime::component::bindgen!({
    path: "../../plugin-api/wit/v0.1.0",
    world: "weirmq:plugin/plugin",
    imports: { default: trappable },
    ownership: Borrowing { duplicate_if_necessary: true },
});
