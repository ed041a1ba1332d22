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
//! - [`backend`]: a plugin that keeps what the broker keeps
//! - `load`: from a file to a version that is ready to serve
//! - `instance`: one live instance, its limits, calls that end in time
//! - `instances`: the live instances of one version
//! - `native`: shared libraries behind the C interface
//! - `convert`: between the broker's words and the interface's, with every answer checked
//! - [`grant`]: what a plugin asks for, and what the operator grants
//! - `imports`, [`services`]: what the broker does for plugins when they ask
//! - `shadow`: another version beside the one that serves, to see what it would answer
//! - `quarantine`: leaving a plugin alone that keeps failing
//! - `stats`: counts and durations of calls
//! - `pool`, `ticker`: the host's threads
//! - `bindings`: generated from the interface

#![deny(unsafe_code)]

pub mod backend;
// The generated code calls typed functions whose types it has checked before.
#[allow(unsafe_code)]
mod bindings;
mod brief;
pub mod config;
mod convert;
pub mod error;
pub mod grant;
pub mod host;
mod imports;
mod instance;
mod instances;
mod load;
// The boundary to C: the only place of the broker where code of its own may be unsafe.
#[allow(unsafe_code)]
mod native;
mod peer;
pub mod plugin;
mod pool;
mod quarantine;
pub mod services;
mod shadow;
mod stats;
mod ticker;

use weirmq_core::hook::HookPoint;

pub use backend::PluginBackend;
pub use config::{
    Deadlines, FailurePolicy, HostConfig, OnFailure, PluginConfig, PluginKind, QuarantineConfig, ShadowConfig,
};
pub use error::{HostError, LoadError};
pub use grant::{Grant, HostGrant, KeyValueGrant, KeyValueLimits, Manifest, Need, SecretSource};
pub use host::Host;
pub use load::Inspection;
pub use plugin::{Change, Latency, PluginHook, PluginInfo, PluginStats};
pub use services::key_value::MemoryKeys;
pub use services::metrics::Figure;
pub use services::{Consequence, Outside, Revocation, Whom};
pub use shadow::{Difference, ShadowStats};

/// The version of the plugin interface, `weirmq:plugin@...`, that this host serves.
pub const API_VERSION: &str = "0.1.0";

/// The hook points that plugins can serve in this version of the interface: all but [`HookPoint::OnMessage`], which is
/// for rules. The export of each has its name.
pub const HOOKS: [HookPoint; 9] = [
    HookPoint::Authenticate,
    HookPoint::Authorize,
    HookPoint::OnPublish,
    HookPoint::OnDeliver,
    HookPoint::OnSubscribe,
    HookPoint::OnUnsubscribe,
    HookPoint::Persistence,
    HookPoint::Lifecycle,
    HookPoint::Timer,
];
