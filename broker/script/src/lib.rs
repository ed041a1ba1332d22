//! Rules in Rhai: a folder of scripts that look at messages, change them, publish further ones and hand
//! records to sinks. Saved is live; a rule that fails, fails alone.
//!
//! [`Engine::load`] compiles a folder and gives a [`ScriptHook`] for the broker's chains;
//! [`ScriptHook::reload`] takes over what has changed. [`check`] and [`run_tests`] do their work offline.
//! What scripts can say is written down in `rules/README.md`.
//!
//! # Layout
//! - [`config`]: the folder and the budgets
//! - [`hook`]: the folder as a hook; checking and testing
//! - [`report`]: what loading, checking and testing tell the operator
//! - `load`: from files to rules
//! - `rule`: one rule and the running of it
//! - `flow`: a message on its way through transforms
//! - `run`: one run's budget, and what it has asked for so far
//! - [`state`]: what the rules of a file remember
//! - `words`: what scripts can say
//! - `view`: the message as scripts see it
//! - `json`: JSON read in place, field by field
//! - `convert`: from a script's values to payloads, records and drafts
//! - `guard`: what is refused before a file runs
//! - `standard`: the names of functions
//! - `pattern`: filters with captures
//! - `testing`: tests in rule files
//! - `fault`: what went wrong, in words
//! - `engine`: what all rules share
//! - `suggest`: the nearest known name

#![forbid(unsafe_code)]

pub mod config;
mod convert;
mod engine;
mod fault;
mod flow;
mod guard;
pub mod hook;
mod json;
mod load;
mod pattern;
pub mod report;
mod rule;
mod run;
mod standard;
pub mod state;
mod suggest;
mod testing;
mod view;
mod words;

pub use config::Config;
pub use hook::{Engine, ScriptHook, check, run_tests};
pub use report::{LoadError, Report, RuleInfo, RuleKind, ScriptError, TestOutcome, TestReport};

/// The stack that a thread which runs rules should have under the default limits, in bytes. It is address
/// space, not memory: pages that no script needs are never touched. On a thread with less, each run is given
/// a stack of its own, which costs some microseconds (`cargo bench -p weirmq-script`).
pub const WORKER_STACK_BYTES: usize = 64 * 1024 * 1024;
