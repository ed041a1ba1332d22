//! What all scenarios are made of.
//!
//! - `stamp`: what a payload carries so that it can be checked and timed
//! - `template`: PUBLISH packets made ahead
//! - `scan`: packets found in what was read, without a copy
//! - `sequence`: lost, duplicated and reordered messages
//! - `latency`: the histogram
//! - `meter`: CPU and memory of a process
//! - `client`: connecting and subscribing, one after the other, before the load
//! - `link`, `poll`: sockets that do not block, and the wait for them

mod client;
mod latency;
mod link;
mod meter;
mod poll;
mod scan;
mod sequence;
mod stamp;
mod template;

pub use client::{Client, Hello};
pub use latency::{Latency, Percentiles};
pub use link::{Link, Scratch};
pub use meter::{CpuSpan, rss_bytes};
pub use poll::{Poll, Ready};
pub use scan::{Frame, scan};
pub use sequence::{Faults, GroupSequence, Sequence};
pub use stamp::{STAMP_BYTES, Stamp};
pub use template::Template;

use std::io;

use weirmq_wire::{DecodeError, EncodeError, TextError};

/// Why a run ends without a result.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A socket, or a file below `/proc`.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system says.
        source: io::Error,
    },
    /// The broker sent something that is no MQTT.
    #[error("the broker sent a packet that is none: {0}")]
    Decode(#[from] DecodeError),
    /// The options ask for a packet that cannot be written.
    #[error("a packet cannot be written: {0}")]
    Encode(#[from] EncodeError),
    /// The options ask for a text that MQTT cannot carry.
    #[error("a topic or client identifier cannot be used: {0}")]
    Text(#[from] TextError),
    /// The broker refused or broke off.
    #[error("{0}")]
    Broker(String),
    /// The options make no sense together.
    #[error("{0}")]
    Options(String),
}

impl LoadError {
    /// An input or output error, with what was tried.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
