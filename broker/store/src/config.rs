//! Durability and every limit of the store.

use std::time::Duration;

/// The largest record, in bytes: the largest MQTT packet with room for its receivers. A larger one is refused
/// with [`StoreError::TooLarge`](crate::StoreError::TooLarge).
pub const RECORD_BYTES_MAX: usize = 320 * 1024 * 1024;

/// The smallest size at which a segment may be ended.
pub const SEGMENT_BYTES_MIN: u32 = 4 * 1024;

/// The largest size at which a segment may be ended: offsets in a segment are 32 bits.
pub const SEGMENT_BYTES_MAX: u32 = 1024 * 1024 * 1024;

/// What a resolved [`Ticket`](crate::Ticket) promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The record survives power loss: its ticket resolves after the fsync that covers it. One fsync serves
    /// all who wait.
    Fsync,
    /// The record survives `kill -9`: its ticket resolves when the operating system has it. Power loss takes
    /// at most what was appended since the last fsync, which is never longer ago than this.
    Interval(Duration),
    /// The record survives `kill -9`: its ticket resolves when the operating system has it. When it reaches
    /// the disk is the operating system's affair.
    Os,
}

/// Who runs compaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compaction {
    /// A thread of the store's own, whenever the log is worth it.
    Background,
    /// The caller, by [`LogStore::compact_step`](crate::LogStore::compact_step).
    Manual,
}

/// How a log store behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// What a resolved ticket promises.
    pub durability: Durability,
    /// A segment is ended before the record that would make it larger than this. Between
    /// [`SEGMENT_BYTES_MIN`] and [`SEGMENT_BYTES_MAX`], and brought there if it is not. One file descriptor
    /// per segment stays open.
    pub segment_bytes: u32,
    /// Bytes that are appended and not written yet; past it a record is refused with
    /// [`StoreError::Backlog`](crate::StoreError::Backlog), and is as if it had not been appended.
    pub backlog_bytes_max: usize,
    /// The log is compacted when its ended segments are larger than twice what is live and this.
    pub compact_slack_bytes: u64,
    /// Who runs compaction.
    pub compaction: Compaction,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            durability: Durability::Fsync,
            segment_bytes: 64 * 1024 * 1024,
            backlog_bytes_max: 64 * 1024 * 1024,
            compact_slack_bytes: 64 * 1024 * 1024,
            compaction: Compaction::Background,
        }
    }
}

impl Config {
    /// The size at which a segment ends, within bounds.
    pub(crate) fn segment_bytes(&self) -> u32 {
        self.segment_bytes.clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX)
    }
}
