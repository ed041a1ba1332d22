//! Plugins behind the hook seam: Wasm components, each call within a budget, replaced while the broker runs.
//!
//! A plugin is a component built for `plugin-api/wit`. [`Host::load`] makes a [`PluginHook`] of it, which is a
//! [`weirmq_core::hook::Hook`] like any other. What a plugin does wrong costs its own call: it comes back as a
//! [`weirmq_core::hook::Failure`], and the broker's chains apply the policy that is configured for it.
//!
//! # Layout
//! - [`host`]: the host, its engine and threads
//! - [`plugin`]: a plugin in service
//! - [`config`]: configuration and limits
//! - [`error`]: why a plugin is not taken into service
//! - `load`: from a file to a version that is ready to serve
//! - `instance`: one live instance, its limits, calls that end in time
//! - `instances`: the live instances of one version
//! - `convert`: between the broker's words and the interface's, with every answer checked
//! - `quarantine`: leaving a plugin alone that keeps failing
//! - `pool`, `ticker`: the host's threads
//! - `bindings`: generated from the interface

#![deny(unsafe_code)]

// The generated code calls typed functions whose types it has checked before.
#[allow(unsafe_code)]
mod bindings;
pub mod config;
mod convert;
pub mod error;
pub mod host;
mod instance;
mod instances;
mod load;
pub mod plugin;
mod pool;
mod quarantine;
mod ticker;

pub use config::{Deadlines, FailurePolicy, HostConfig, OnFailure, PluginConfig, QuarantineConfig};
pub use error::{HostError, LoadError};
pub use host::Host;
pub use plugin::{Change, PluginHook, PluginInfo, PluginStats};

/// The version of the plugin interface, `weirmq:plugin@...`, that this host serves.
pub const API_VERSION: &str = "0.1.0";
