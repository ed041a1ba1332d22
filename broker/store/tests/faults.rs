//! The operating system refuses: the N-th call, for every N; a full disk; an fsync that fails.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests stop where they fail")]

mod support;

use std::io::ErrorKind;
use std::sync::Arc;

use support::sim::{Fail, Loss, SimDisk};
use support::{records_before, small, snapshot, twin, words};
use weirmq_store::{Config, Durability, Event, LogStore, Store, StoreError};

/// Does what can be done while the disk fails. How many records were acknowledged, and what failed.
fn work(disk: &SimDisk, records: &[Vec<Event>], durability: Durability) -> (usize, Option<StoreError>) {
    let mut acknowledged = 0;
    let mut failed = None;
    let config = Config { durability, ..small() };
    let Ok(store) = LogStore::open_on(Arc::new(disk.clone()), config) else { return (0, None) };
    for (index, record) in records.iter().enumerate() {
        match store.append(record).wait() {
            Ok(()) => {
                assert!(failed.is_none(), "a poisoned store has acknowledged");
                acknowledged = index + 1;
            }
            Err(error) => failed = failed.or(Some(error)),
        }
        if index % 2 == 1 {
            drop(store.compact_step());
        }
        // Reads may fail with the disk, and must not do more than that.
        drop(store.retained("topic/1"));
    }
    if let Some(error) = &failed {
        assert!(matches!(error, StoreError::Poisoned { .. }), "{error}");
        assert_eq!(store.stats().refuses.as_ref(), Some(error), "the reason stays");
        assert!(store.close().is_err());
    }
    (acknowledged, failed)
}

fn check(disk: &SimDisk, records: &[Vec<Event>], acknowledged: usize, what: &str) {
    let recovered = {
        let store = LogStore::open_on(Arc::new(disk.clone()), small())
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        let left = records_before(records, store.stats().next_number);
        assert!(left >= acknowledged, "{what}: {left} of {acknowledged} acknowledged records are left");
        assert!(snapshot(&store) == snapshot(&twin(&records[..left])), "{what}: another state");
        left
    };
    // What a store has shown after it was opened is durable, also what a failed fsync had dropped.
    let image = disk.after_power_loss(disk.trace_len(), Loss::All);
    let store = LogStore::open_on(Arc::new(image), small()).unwrap();
    assert_eq!(records_before(records, store.stats().next_number), recovered, "{what}: lost after recovery");
}

fn fail_every(until: impl Fn(usize) -> usize, kind: ErrorKind) {
    // In one the commit thread writes, in the other whoever appends.
    for durability in [Durability::Fsync, Durability::Os] {
        fail_every_with(durability, &until, kind);
    }
}

fn fail_every_with(durability: Durability, until: impl Fn(usize) -> usize, kind: ErrorKind) {
    let records = words::records(60, 5);
    let mut poisoned = 0;
    for from in 1.. {
        let disk = SimDisk::default();
        disk.fail(Some(Fail { from, until: until(from), kind }));
        let (acknowledged, failed) = work(&disk, &records, durability);
        poisoned += usize::from(failed.is_some());
        let all = disk.calls() < from;
        disk.fail(None);
        check(&disk, &records, acknowledged, &format!("{durability:?}, call {from}"));
        if all {
            assert_eq!(acknowledged, records.len());
            break;
        }
    }
    assert!(poisoned > 50, "failures were met: {poisoned}");
}

#[test]
fn whichever_call_fails_once_nothing_acknowledged_is_lost_and_nothing_is_acknowledged_after() {
    fail_every(|from| from + 1, ErrorKind::Other);
}

#[test]
fn from_whichever_call_on_all_fail_nothing_acknowledged_is_lost() {
    fail_every(|_| usize::MAX, ErrorKind::Other);
}

#[test]
fn a_disk_that_is_full_at_any_byte_stops_acknowledgements_and_comes_back() {
    let records = words::records(60, 6);
    let whole = SimDisk::default();
    work(&whole, &records, Durability::Fsync);
    let mut full = 0;
    for space in (0..whole.bytes() + 4096).step_by(61) {
        let disk = SimDisk::default();
        disk.space(Some(space));
        let (acknowledged, failed) = work(&disk, &records, Durability::Fsync);
        if let Some(error) = failed {
            assert!(error.is_full(), "{error}");
            full += 1;
        }
        disk.space(None);
        check(&disk, &records, acknowledged, &format!("{space} bytes"));
    }
    assert!(full > 20, "full disks were met: {full}");
}

#[test]
fn a_full_disk_at_start_changes_nothing() {
    let disk = SimDisk::default();
    let store = support::open(&disk);
    store.append(&[words::publish(1, &["a"])]).wait().unwrap();
    drop(store);
    let before = disk.files();
    disk.space(Some(disk.bytes()));
    let error = LogStore::open_on(Arc::new(disk.clone()), small()).unwrap_err();
    assert!(error.to_string().contains("/sim/0000000002.log"), "{error}");
    assert!(disk.files() == before);
}

#[test]
fn reads_go_on_when_the_store_is_poisoned() {
    let disk = SimDisk::default();
    // In this mode an append is one call, and nothing is done behind it.
    let store =
        LogStore::open_on(Arc::new(disk.clone()), Config { durability: Durability::Os, ..small() }).unwrap();
    let kept = store.append(&[words::publish(1, &["a"])]);
    let kept_number = kept.number();
    kept.wait().unwrap();
    disk.fail(Some(Fail { from: disk.calls() + 1, until: disk.calls() + 2, kind: ErrorKind::Other }));
    let lost = store.append(&[words::publish(2, &["a"])]);
    let lost_number = lost.number();
    assert!(matches!(lost.wait(), Err(StoreError::Poisoned { .. })));
    assert_eq!(
        store.append(&[words::publish(3, &["a"])]).number(),
        0,
        "it is as if it had not been appended"
    );
    for (number, seed) in [(kept_number, 1), (lost_number, 2)] {
        assert_eq!(store.message("a", number).unwrap().unwrap().0, words::message(seed));
    }
}

#[test]
fn a_record_that_finds_the_backlog_full_is_refused_and_leaves_no_trace() {
    let disk = SimDisk::default();
    let config = Config { backlog_bytes_max: 1, durability: Durability::Os, ..small() };
    let store = LogStore::open_on(Arc::new(disk.clone()), config).unwrap();
    let tickets: Vec<_> = (0..2000).map(|_| store.append(&[words::publish(3, &["a"])])).collect();
    let taken = tickets.iter().filter(|ticket| ticket.number() > 0).count();
    for ticket in tickets {
        let taken = ticket.number() > 0;
        match ticket.wait() {
            Ok(()) => assert!(taken),
            Err(error) => assert!(!taken && matches!(error, StoreError::Backlog { .. }) && error.is_full()),
        }
    }
    assert_eq!(store.queue("a", 0, usize::MAX).len(), taken);
    store.append(&[words::publish(3, &["a"])]).wait().unwrap();
}

#[test]
fn whichever_two_calls_fail_while_a_store_is_opened_nothing_of_it_is_lost() {
    let records = words::records(60, 12);
    let whole = SimDisk::default();
    let store = support::open(&whole);
    for record in &records {
        store.append(record).wait().unwrap();
    }
    // As `kill -9` leaves it.
    let files = whole.files();
    let held = snapshot(&store);
    let opened = SimDisk::with(&files);
    LogStore::open_on(Arc::new(opened.clone()), small()).unwrap();
    let calls = opened.calls();
    let mut failed = 0;
    for first in 1..=calls {
        for second in first + 1..=calls + 1 {
            let disk = SimDisk::with(&files);
            let fail = |from| Some(Fail { from, until: from + 1, kind: ErrorKind::Other });
            disk.fail(fail(first));
            disk.fail_too(fail(second));
            failed += usize::from(LogStore::open_on(Arc::new(disk.clone()), small()).is_err());
            disk.fail(None);
            disk.fail_too(None);
            let store = LogStore::open_on(Arc::new(disk), small())
                .unwrap_or_else(|error| panic!("calls {first} and {second}: {error}"));
            assert!(snapshot(&store) == held, "calls {first} and {second}: another state");
        }
    }
    assert!(failed > 200, "openings failed: {failed}");
}
