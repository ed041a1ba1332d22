//! From the network to the broker and back: listeners, connection tasks, the clock.
//!
//! # Layout
//! - [`listener`]: accepting, within the limits on connections
//! - [`connection`]: the task of one connection
//! - [`serve`]: everything that runs while the broker serves, and how it ends
//! - `buffer`: what a connection reads into
//! - `down`: how connections come to know that the broker shuts down
//! - [`clock`]: the only place that asks what time it is

mod buffer;
pub mod clock;
pub mod connection;
mod down;
pub mod listener;
pub mod serve;
mod sys;
