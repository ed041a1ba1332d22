//! Generated from `plugin-api/wit/v0.1.0`. What the broker passes to a plugin is borrowed, what it gets back is
//! owned.

#![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]

wasmtime::component::bindgen!({
    path: "../../plugin-api/wit/v0.1.0",
    inline: "
        package weirmq:host;
        world everything {
            include weirmq:plugin/plugin@0.1.0;
            include weirmq:plugin/with-authorize-in-brief@0.1.0;
            include weirmq:plugin/with-on-publish-in-brief@0.1.0;
        }
    ",
    world: "weirmq:host/everything",
    imports: { default: trappable },
    ownership: Borrowing { duplicate_if_necessary: true },
});
