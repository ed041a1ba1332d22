//! What the broker offers to a plugin. There is nothing else: no files, no sockets, no environment.

use crate::bindings::base::weirmq::plugin::{clock, config, log};

pub use log::Level;

/// Writes one entry to the broker's log, under the plugin's name. Text beyond 4,096 bytes is cut; of one call
/// into the plugin the first 32 entries are kept.
pub fn log(level: Level, text: &str) {
    log::log(level, text);
}

/// The value of one top-level key of the plugin's configuration as JSON text; `None` when it is not set.
#[must_use]
pub fn config_value(key: &str) -> Option<String> {
    config::get(key)
}

/// Milliseconds since 1970-01-01T00:00:00Z, as the machine's calendar has it. May jump.
#[must_use]
pub fn now_unix_ms() -> u64 {
    clock::now_unix_ms()
}

/// Microseconds from an arbitrary origin. Never goes back.
#[must_use]
pub fn monotonic_us() -> u64 {
    clock::monotonic_us()
}
