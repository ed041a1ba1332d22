//! From the network to the broker and back: listeners, connection tasks, the clock.
//!
//! # Layout
//! - [`listener`]: accepting, within the limits on connections
//! - [`connection`]: the task of one connection
//! - [`serve`]: everything that runs while the broker serves, and how it ends
//! - `buffer`: what a connection reads into
//! - `roll`: the connections that there are, to be woken when the broker shuts down and before their deadlines
//! - [`clock`]: the only place that asks what time it is

mod buffer;
pub mod clock;
pub mod connection;
pub mod listener;
mod roll;
pub mod serve;
mod sys;
