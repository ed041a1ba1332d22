//! What the broker offers to a plugin. There is nothing else: no files, no sockets, no environment.
//!
//! A plugin that calls what needs a grant ([`secret`], [`keys`], [`publish`], [`send`], [`revoke`]) is only loaded
//! where the operator grants it.

use crate::Draft;
use crate::bindings::base::weirmq::plugin::{
    clock, config, http, key_value, log, metrics, publish as publishing, random, revoke as revoking, secrets,
};

pub use http::{Error as HttpError, Request, Response};
pub use key_value::Error as KeyError;
pub use log::Level;
pub use publishing::Error as PublishError;
pub use revoking::{Consequence, Whom};

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

/// So many random bytes from the system, fit for keys and nonces; at most 4,096.
#[must_use]
pub fn random(count: u32) -> Vec<u8> {
    random::bytes(count)
}

/// Adds to a number of the plugin's own that only grows. A name has 1 to 64 letters, digits, `_`, `-`, `.`.
pub fn count(name: &str, amount: u64) {
    metrics::counter_add(name, amount);
}

/// Sets a number of the plugin's own that comes and goes.
pub fn gauge(name: &str, value: f64) {
    metrics::gauge_set(name, value);
}

/// Adds one observation to a distribution of the plugin's own.
pub fn observe(name: &str, value: f64) {
    metrics::histogram_record(name, value);
}

/// The secret that the operator has given this name; `None` where none has it.
#[must_use]
pub fn secret(name: &str) -> Option<String> {
    secrets::get(name)
}

/// Keys and values of the plugin's own, shared by its instances, kept beyond reloads and restarts. Needs the grant
/// `key-value`.
pub mod keys {
    use super::{KeyError, key_value};

    /// The value of a key; `None` where it has none.
    ///
    /// # Errors
    /// The key is no valid one, or the store cannot read it.
    pub fn get(key: &str) -> Result<Option<Vec<u8>>, KeyError> {
        key_value::get(key)
    }

    /// Gives a key a value.
    ///
    /// # Errors
    /// Key or value are not valid, the limits of the grant are reached, or the store does not take it.
    pub fn set(key: &str, value: &[u8]) -> Result<(), KeyError> {
        key_value::set(key, value)
    }

    /// Gives a key a value if it has the expected one now (`None`: if it has none). `false` where it had another.
    ///
    /// # Errors
    /// As for [`set`].
    pub fn compare_and_set(key: &str, expected: Option<&[u8]>, value: &[u8]) -> Result<bool, KeyError> {
        key_value::compare_and_set(key, expected, value)
    }

    /// Takes a key and its value away. Whether there was one.
    ///
    /// # Errors
    /// As for [`get`].
    pub fn delete(key: &str) -> Result<bool, KeyError> {
        key_value::delete(key)
    }

    /// The keys that begin with `prefix` and come after `after`, at most `limit` and 1,000.
    ///
    /// # Errors
    /// The store cannot read them.
    pub fn list(prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<String>, KeyError> {
        key_value::list_keys(prefix, after, limit)
    }
}

/// Publishes a message in the plugin's own name, once the call that does it has ended well. Needs the grant `publish`.
///
/// # Errors
/// It is not granted, not valid, or one too many.
pub fn publish(message: &Draft) -> Result<(), PublishError> {
    publishing::publish(message)
}

/// Sends an HTTP request and waits for the answer. Needs the grant `http`.
///
/// # Errors
/// It is not granted or not valid, or no answer came.
pub fn send(request: &Request) -> Result<Response, HttpError> {
    http::send(request)
}

/// Takes back what was allowed. Needs the grant `revoke`.
///
/// # Errors
/// What is wrong with the arguments, in words.
pub fn revoke(whom: &Whom, consequence: Consequence, reason: &str) -> Result<(), String> {
    revoking::revoke(whom, consequence, reason)
}
