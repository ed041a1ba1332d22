//! The WeirMQ broker around its protocol: configuration, plugins, rules and sinks put together, hot reload,
//! the admin socket, the command line.
//!
//! # Layout
//! - [`cli`]: the commands
//! - [`config`]: the configuration file, its defaults and its errors
//! - [`run`]: `weirmq run`, from the configuration to the last record
//! - [`check`]: `weirmq check`
//! - `chain`: who is asked in which order, and who never is
//! - [`assemble`]: from a configuration to hooks, rules and sinks, and their chains
//! - [`builtin`]: hooks that need no plugin
//! - [`net`]: listeners, connection tasks, the clock
//! - `plugin`: `weirmq plugin check`, `call`, `test` and `bench`
//! - [`reload`]: what changes while the broker runs, and the watching of files
//! - [`admin`]: the admin socket, both ends
//! - [`banner`]: what the broker says when it starts
//! - [`data`]: the data folder and its lock
//! - [`durable`]: the store, and what is brought back from it
//! - [`hash`]: `weirmq hash-password`
//! - [`logging`]: logs to standard error, as text or JSON
//! - `outside`: the broker as plugins see it
//! - `stored_keys`: the store as plugins and rules see it
//! - `store_command`: `weirmq store`
//! - [`signals`]: from signals to an orderly end

#![forbid(unsafe_code)]

pub mod admin;
pub mod assemble;
pub mod banner;
pub mod builtin;
pub(crate) mod chain;
pub mod check;
pub mod cli;
pub mod config;
pub mod data;
pub mod durable;
pub mod hash;
pub mod logging;
pub mod net;
mod outside;
pub(crate) mod plugin;
pub mod reload;
pub mod run;
pub mod signals;
mod store_command;
mod stored_keys;
