//! What is counted about a sink.

use std::time::Duration;

/// The counters of one sink since its start, and the state of its buffer. Every record that was submitted is in
/// exactly one of: refused, waiting, written, dead-lettered, lost, dropped, spilled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SinkStats {
    /// The sink's name.
    pub name: String,
    /// Records taken into the buffer.
    pub accepted: u64,
    /// Records taken over from the spill file of the run before; not counted as accepted.
    pub restored: u64,
    /// Records that are where they belong.
    pub written: u64,
    /// Failed attempts that were tried again, counted per record.
    pub retried: u64,
    /// Records not taken into the buffer, by reason.
    pub refused: Refusals,
    /// Records that made way for newer ones in a full buffer.
    pub dropped_oldest: u64,
    /// Records put into the file of dead letters.
    pub dead_lettered: u64,
    /// Records that should have become dead letters when that file could not be written, and records of a
    /// shutdown whose spill file could not be written: they are in the log only as a number.
    pub lost: u64,
    /// Records put into the spill file at shutdown.
    pub spilled: u64,
    /// Records waiting now, those being written included.
    pub buffered_records: usize,
    /// What they take in memory, in bytes, by estimate.
    pub buffered_bytes: usize,
    /// How long the oldest of them has been waiting.
    pub oldest_age: Option<Duration>,
    /// What the last failure said, until something is written again.
    pub failing: Option<String>,
}

/// Records that a buffer did not take, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Refusals {
    /// The buffer was full.
    pub buffer_full: u64,
    /// The record alone is larger than the buffer may be.
    pub too_large: u64,
    /// The record's lists and maps are nested more than 32 deep.
    pub too_deep: u64,
    /// The sinks were shut down.
    pub closed: u64,
}

impl Refusals {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.buffer_full
            .saturating_add(self.too_large)
            .saturating_add(self.too_deep)
            .saturating_add(self.closed)
    }
}
