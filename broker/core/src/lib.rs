//! The MQTT broker without IO: topics, sessions, retained messages, shared groups, routing and the hook
//! seams. Packets and moments in; frames and deadlines out.
//!
//! # Layout
//! - [`topic`]: topic names and filters, and the one matching rule
//! - [`message`]: one application message
//! - [`hook`]: the hook seam that built-ins, plugins and scripts fill
//! - [`limits`]: every limit and its default
//! - [`record`]: what rules hand to sinks
//! - [`time`]: time as an argument

#![forbid(unsafe_code)]

pub mod hook;
pub mod limits;
pub mod message;
pub mod record;
pub mod time;
pub mod topic;
