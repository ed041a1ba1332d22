//! A file per kind of work.
//!
//! - `options`: what can be asked for
//! - `flows`: pairs, fan-in, fan-out, a shared group, many subscriptions, a deaf subscriber: one event loop, other topics
//! - `offline`: messages wait for clients that are away, and are sent when they come back
//! - `retained`: retained messages are read back
//! - `idle`: connections that do nothing
//! - `churn`: clients that come, say one thing, and go

mod churn;
mod flows;
mod idle;
mod offline;
mod options;
mod retained;

pub use options::{Kind, Options};

use crate::load::LoadError;
use crate::report::Report;

/// Does what `options` ask, and answers with a result only if it is an honest one.
///
/// # Errors
/// [`LoadError`]: why there is no result.
pub fn run(options: &Options) -> Result<Report, LoadError> {
    let report = match options.scenario {
        Kind::Pairs => flows::pairs(options),
        Kind::FanIn => flows::fan_in(options),
        Kind::FanOut => flows::fan_out(options),
        Kind::Shared => flows::shared(options),
        Kind::ManySubscriptions => flows::many_subscriptions(options),
        Kind::Deaf => flows::deaf(options),
        Kind::Offline => offline::run(options),
        Kind::Retained => retained::run(options),
        Kind::Idle => idle::run(options),
        Kind::Churn => churn::run(options),
    }?;
    report.checked()
}
