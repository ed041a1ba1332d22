//! Compaction beside the work that it must not disturb.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests stop where they fail")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::sim::SimDisk;
use support::{small, snapshot, words};
use weirmq_store::{Compaction, Config, Durability, LogStore, Store};

fn background() -> Config {
    Config { compaction: Compaction::Background, durability: Durability::Os, ..small() }
}

#[test]
fn space_comes_back_by_itself_after_churn() {
    let disk = SimDisk::default();
    let store = LogStore::open_on(Arc::new(disk.clone()), background()).unwrap();
    let kept = store.append(&[words::publish(7, &["keeper"])]);
    let mut numbers = Vec::new();
    for seed in 0..2000 {
        let ticket = store.append(&[words::publish(seed, &["a"])]);
        numbers.push(ticket.number());
        ticket.wait().unwrap();
    }
    let full = disk.bytes();
    for number in numbers {
        store.append(&[words::settled("a", number)]).wait().unwrap();
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    while disk.bytes() > 8 * weirmq_store::SEGMENT_BYTES_MIN as usize {
        assert!(Instant::now() < deadline, "{} of {full} bytes are still there", disk.bytes());
        std::thread::yield_now();
    }
    assert_eq!(store.message("keeper", kept.number()).unwrap().unwrap().0, words::message(7));
    assert!(store.stats().compaction_fault.is_none());
}

#[test]
fn appends_reads_and_compaction_at_once_lose_nothing_and_find_everything() {
    let disk = SimDisk::default();
    let store = LogStore::open_on(Arc::new(disk.clone()), background()).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let workers: Vec<_> = ["a", "b", "c"]
            .into_iter()
            .map(|client| {
                let store = &store;
                scope.spawn(move || {
                    for seed in 0..800 {
                        let number = store.append(&[words::publish(seed, &[client])]).number();
                        assert_eq!(store.message(client, number).unwrap().unwrap().0, words::message(seed));
                        if seed % 10 > 0 {
                            store.append(&[words::settled(client, number)]).wait().unwrap();
                        }
                    }
                })
            })
            .collect();
        let reader = scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                for client in store.clients() {
                    for queued in store.queue(&client, 0, usize::MAX) {
                        // It may be settled by now; if it is there it can be read.
                        store.message(&client, queued.number).unwrap();
                    }
                }
            }
        });
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        done.store(true, Ordering::SeqCst);
        reader.join().unwrap();
    });
    for client in ["a", "b", "c"] {
        let queue = store.queue(client, 0, usize::MAX);
        assert_eq!(queue.len(), 80);
        for (index, queued) in queue.iter().enumerate() {
            let message = store.message(client, queued.number).unwrap().unwrap().0;
            assert_eq!(message, words::message(index as u32 * 10), "in order");
        }
    }
    let before = snapshot(&store);
    store.close().unwrap();
    let store = LogStore::open_on(Arc::new(disk), background()).unwrap();
    assert!(snapshot(&store) == before);
}

#[test]
fn restarts_do_not_leave_more_and_more_segments() {
    let disk = SimDisk::default();
    for round in 0..120 {
        let store = LogStore::open_on(Arc::new(disk.clone()), background()).unwrap();
        store.append(&[words::publish(round, &["a"])]).wait().unwrap();
    }
    let store = LogStore::open_on(Arc::new(disk.clone()), background()).unwrap();
    assert_eq!(store.queue("a", 0, usize::MAX).len(), 120);
    let deadline = Instant::now() + Duration::from_secs(30);
    while store.stats().segments > 40 {
        assert!(Instant::now() < deadline, "{:?}", store.stats());
        std::thread::yield_now();
    }
    // Without a record in between, nothing is begun.
    let segments = store.stats().segments;
    store.close().unwrap();
    for _ in 0..3 {
        LogStore::open_on(Arc::new(disk.clone()), small()).unwrap().close().unwrap();
    }
    let store = LogStore::open_on(Arc::new(disk), small()).unwrap();
    assert!(store.stats().segments <= segments + 1);
}

#[test]
fn the_figures_say_what_was_done() {
    let disk = SimDisk::default();
    let store = LogStore::open_on(Arc::new(disk.clone()), small()).unwrap();
    let at_start = store.stats();
    assert_eq!((at_start.syncs, at_start.queued, at_start.backlog_bytes), (0, 0, 0));
    for seed in 0..200 {
        store.append(&[words::publish(seed, &["a", "b"])]).wait().unwrap();
    }
    let filled = store.stats();
    assert_eq!(filled.queued, 400);
    assert!(filled.syncs >= 200 && filled.last_sync > Duration::ZERO, "{filled:?}");
    assert!(filled.segments > 3 && filled.log_bytes > filled.live_bytes / 2, "{filled:?}");
    assert_eq!((filled.backlog_bytes, filled.undurable_records), (0, 0));
    while !matches!(store.compact_step().unwrap(), weirmq_store::CompactStep::GaveBack { .. }) {}
    let compacted = store.stats();
    assert!(compacted.compaction_copied_bytes > 0 && compacted.compaction_freed_bytes > 0, "{compacted:?}");
    let names: std::collections::BTreeSet<_> = compacted.figures().map(|(name, _)| name).into();
    assert_eq!(names.len(), compacted.figures().len(), "each has a name of its own");
    for (name, value) in [("queued", 400), ("segments", compacted.segments as u64), ("refuses", 0)] {
        assert!(compacted.figures().contains(&(name, value)), "{name}");
    }
}
