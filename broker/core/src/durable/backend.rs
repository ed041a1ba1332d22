//! A key-value engine that a store can stand on: what a plugin has to be able to do to keep what the broker keeps.
//! Keys and values are bytes; keys are in the order of their bytes.

use std::sync::Arc;

use bytes::Bytes;

/// Keys with values. One process at a time has it open; seeing to that is the backend's part.
///
/// Calls block, and are made by threads that carry no messages.
pub trait Backend: Send + Sync + 'static {
    /// The value of a key.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, BackendError>;

    /// Makes all changes, or none. They outlive the process, and as much more as the backend promises, when this
    /// returns. No two changes are of the same key.
    ///
    /// # Errors
    /// Why they are not made, or not for sure.
    fn write(&self, changes: &[Change]) -> Result<(), BackendError>;

    /// The keys that are not less than `from`, in order, with their values. At most `max`, and at least one where
    /// there is one.
    ///
    /// # Errors
    /// Why they cannot be read.
    fn scan(&self, from: &[u8], max: usize) -> Result<Vec<(Bytes, Bytes)>, BackendError>;
}

/// A change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub key: Bytes,
    /// Its new value; `None` removes it.
    pub value: Option<Bytes>,
}

/// Why a backend could not do something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct BackendError {
    /// In words, for the log.
    pub reason: Arc<str>,
    /// Whether a disk or a quota is full.
    pub is_full: bool,
}
