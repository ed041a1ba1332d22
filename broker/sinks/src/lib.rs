//! Sinks: where the records that rules make leave the broker, to an embedded database, to a webhook, to a file.
//!
//! A [`SinkSet`] takes records on the message path without ever waiting, and puts each into the bounded buffer
//! of the sink that it names. Behind each buffer one worker takes batches, hands them to the sink, and answers
//! for what becomes of them: written, tried again later with growing pauses, or put aside as a dead letter with
//! the reason. What a shutdown leaves unwritten goes into a file and is delivered after the next start.
//!
//! # Delivery
//! - A record is delivered **at least once** while the process lives or is shut down in order; a record that is
//!   in a buffer when the process is killed is lost, and a record whose answer was lost is sent again (webhooks
//!   carry an `Idempotency-Key` that stays the same).
//! - One sink's records keep their order, except where a webhook is configured with `concurrency` above 1.
//! - Nothing is dropped silently: every record that is not delivered is counted with its reason
//!   ([`SinkStats`]) and logged, at a bounded rate.
//!
//! # Layout
//! - [`SinkSet`] (`set.rs`): all sinks of a broker, and what it tells about them
//! - [`SinksConfig`] (`registry.rs`): the kinds of sink, one line each
//! - [`config`]: what the configuration of every kind has in common
//! - [`mod@sqlite`], [`mod@webhook`], [`mod@file`]: a folder per kind, all of one shape: `config.rs`, `sink.rs`, `tests.rs`
//! - `engine/`: buffer, worker, back-off, dead letters, spill files; knows no kind
//! - `check.rs`: what can be said against a configuration before anything is opened
//! - `json.rs`: records as JSON, for people and, exactly, for spill files
//!
//! # A new kind of sink
//! A folder, declared below as every Rust module is, and one line in `registry.rs`. The configuration type
//! implements `SinkConfig` and the sink implements `engine::Sink`; buffering, batching, retrying, dead letters,
//! statistics, `weirmq check` and the banner follow from that. A test holds every folder to this shape.

#![forbid(unsafe_code)]

pub mod config;
pub mod file;
pub mod sqlite;
pub mod webhook;

mod check;
mod disk;
mod engine;
mod json;
mod registry;
mod set;
#[cfg(test)]
mod testing;

pub use config::{Problem, Severity};
pub use engine::stats::{Refusals, SinkStats};
pub use registry::SinksConfig;
pub use set::{SetStats, ShutdownReport, SinkInfo, SinkRemains, SinkSet, StartError};
