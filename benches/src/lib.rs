//! The load harness: what a broker does per second and what a message costs it, measured from outside over
//! TCP, for WeirMQ and for the brokers that it is compared with.
//!
//! Nothing here knows which broker it talks to. What a run reports is only reported when every message that
//! was sent arrived once and in order; otherwise the run has failed.
//!
//! # Layout
//! - [`load`]: what all scenarios are made of: frames made ahead, sockets, the sequence check, histograms,
//!   `/proc`
//! - [`flow`]: publishers and subscribers in one event loop, closed or at a fixed rate
//! - [`scenario`]: a file per kind of work, and the [`scenario::Options`] that they share
//! - [`report`]: what a run says, for machines and for people
//! - [`compare`]: brokers side by side: starting and ending them, rounds, medians, the table
//!
//! Two programs are made of it: `weirmq-load` puts one load on one broker, `weirmq-compare` (which
//! `cargo xtask bench` runs) starts brokers and has `weirmq-load` load them in turn.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]

pub mod compare;
pub mod flow;
pub mod load;
pub mod report;
pub mod scenario;
