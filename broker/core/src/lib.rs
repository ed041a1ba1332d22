//! The MQTT broker without IO: topics, sessions, retained messages, shared groups, routing and the hook
//! seams. Packets and moments in; frames and deadlines out.
//!
//! # Layout
//! - [`topic`]: topic names and filters, and the one matching rule
//! - [`message`]: one application message
//! - [`limits`]: every limit and its default
//! - [`hook`]: the hook seam that built-ins, plugins and scripts fill
//! - [`record`]: what rules hand to sinks
//! - [`durable`]: what must outlive the process, and the seam to whoever keeps it
//! - [`connection`]: one connection: packets and time in, frames and deadlines out
//! - [`broker`]: what all connections share
//! - [`session`]: what MQTT keeps for a client identifier
//! - `answer`: what a client is told of a refusal, and the terms that it has set for what it is sent
//! - `outbound`: what waits for a client, and what is under way to it
//! - `publish`: the way of a message: transforms, rules, receivers
//! - `keeping`: what is to be recorded of one message
//! - `relay`: the short way of messages that are handed on as they came
//! - `chain`: questions put to hooks one after the other
//! - `plan`: everything that a topic means right now
//! - `subscriptions`, `retained`: found through `tree`
//! - `batch`: what a connection's packets leave to be done once
//! - `sparse`: what most clients never need
//! - `events`: telling observers what happens to single messages
//! - [`outbox`]: frames that wait to be written, and the writing of them
//! - [`counters`]: what is counted
//! - [`revoke`]: taking back what was allowed
//! - [`time`]: time as an argument

#![forbid(unsafe_code)]

mod answer;
mod batch;
pub mod broker;
mod chain;
pub mod connection;
pub mod counters;
pub mod durable;
mod events;
pub mod hook;
mod keeping;
pub mod limits;
pub mod message;
mod outbound;
pub mod outbox;
mod plan;
mod publish;
pub mod record;
mod relay;
mod retained;
pub mod revoke;
pub mod session;
mod sparse;
mod subscriptions;
pub mod time;
pub mod topic;
mod tree;

pub use publish::Work;
