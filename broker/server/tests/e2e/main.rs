//! The broker as its users have it: the binary, real clients, the real plugin, real SQLite, a real webhook.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that meets what it does not expect should stop there"
)]

mod bad_disk;
mod clients;
mod crash;
mod faults;
mod lifecycle;
mod quickstart;
mod rqlite_store;
mod runtime;
mod sqlite_store;
mod state;
mod store;
mod support;
mod wire;
