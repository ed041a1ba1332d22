//! What the tests of the store share: a disk that can be broken, records to append, an oracle.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "each test uses its part, and one that meets what it does not expect should stop there"
)]

pub mod map_backend;
pub mod redb_store;
pub mod sim;
pub mod words;

use std::sync::Arc;

use weirmq_store::{
    Compaction, Config, Durability, Event, LogStore, MemoryStore, SEGMENT_BYTES_MIN, Snapshot, Store,
};

/// Small segments, so that little work makes many; nothing happens by itself.
pub fn small() -> Config {
    Config {
        durability: Durability::Fsync,
        segment_bytes: SEGMENT_BYTES_MIN,
        compact_slack_bytes: 0,
        compaction: Compaction::Manual,
        ..Config::default()
    }
}

pub fn open(disk: &sim::SimDisk) -> LogStore {
    LogStore::open_on(Arc::new(disk.clone()), small()).expect("the store opens")
}

pub fn snapshot(store: &dyn Store) -> Snapshot {
    Snapshot::of(store).expect("everything can be read")
}

/// The memory twin after these records.
pub fn twin(records: &[Vec<Event>]) -> MemoryStore {
    let twin = MemoryStore::new();
    for record in records {
        twin.append(record).wait().unwrap();
    }
    twin
}

/// How many of `records` a store has taken that would give the next record this number.
pub fn records_before(records: &[Vec<Event>], next_number: u64) -> usize {
    let mut number = 1;
    let mut count = 0;
    while number < next_number {
        number += records[count].len() as u64;
        count += 1;
    }
    assert_eq!(number, next_number, "the log was cut within a record");
    count
}
