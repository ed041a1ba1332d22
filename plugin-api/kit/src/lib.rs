//! What an author of plugins needs beside a compiler.
//!
//! # Layout
//! - [`project`]: a folder to begin from, in each language
//! - [`bindings`]: the plugin interface in C and Go, generated
//! - [`seal`]: components for a broker that offers no WASI
//! - [`command`]: these as commands, for `weirmq plugin` and `cargo xtask plugin`

#![forbid(unsafe_code)]

pub mod bindings;
pub mod command;
pub mod project;
pub mod seal;
