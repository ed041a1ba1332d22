//! What nobody waits for is not written at once, but in a while, or with what comes next; and whoever waits for it all
//! the same has it kept.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests stop where they fail")]

mod support;

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use support::sim::SimDisk;
use support::{small, words};
use weirmq_core::durable::{Journal, Receipt, Records, Waiter};
use weirmq_store::{Compaction, Config, Durability, Event, LogStore, Store};

const PATIENCE: Duration = Duration::from_secs(20);
/// What nothing hurries is never written before this.
const LINGERS: Duration = Duration::from_millis(5);

fn each_durability(check: impl Fn(&SimDisk, &LogStore)) {
    for durability in [Durability::Fsync, Durability::Os, Durability::Interval(Duration::from_secs(1))] {
        let disk = SimDisk::default();
        // No segment ends here, which would hurry everything.
        let config = Config { durability, compaction: Compaction::Manual, ..Config::default() };
        let store = LogStore::open_on(Arc::new(disk.clone()), config).unwrap();
        Store::append(&store, &[words::publish(1, &["a"])]).wait().unwrap();
        check(&disk, &store);
    }
}

fn append(store: &LogStore, is_awaited: bool) -> Receipt {
    append_event(store, words::publish(2, &["a"]), is_awaited)
}

fn append_event(store: &LogStore, event: Event, is_awaited: bool) -> Receipt {
    let mut records = Records::one(vec![event]);
    if !is_awaited {
        records.set_unawaited();
    }
    Journal::append(store, &records).unwrap()
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits like a connection does.
fn wait(store: &LogStore, position: u64) {
    let (mut waiter, waker) = (Waiter::default(), Waker::from(Arc::new(Unpark(std::thread::current()))));
    let mut kept = std::pin::pin!(poll_fn(|context| store.poll_kept(position, &mut waiter, context)));
    let until = Instant::now() + PATIENCE;
    while kept.as_mut().poll(&mut Context::from_waker(&waker)) != Poll::Ready(Ok(())) {
        let left = until.checked_duration_since(Instant::now()).unwrap_or_else(|| panic!("it is not kept"));
        std::thread::park_timeout(left);
    }
}

#[test]
fn it_is_written_with_what_comes_next() {
    each_durability(|disk, store| {
        let calls = |lingering: usize| {
            let before = disk.trace_len();
            for _ in 0..lingering {
                append(store, false);
            }
            let lingers = disk.trace_len() == before;
            wait(store, append(store, true).position);
            (lingers, disk.trace_len() - before)
        };
        let alone = (0..100).map(|_| calls(0).1).min().unwrap();
        // Where this thread is held up in between, it is written before.
        let shares = (0..1_000).any(|_| matches!(calls(3), (true, with_others) if with_others <= alone));
        assert!(shares, "it is written at once, or by itself");
    });
}

#[test]
fn it_is_written_in_a_while_where_nothing_comes() {
    each_durability(|_, store| {
        for _ in 0..3 {
            append(store, false);
            let until = Instant::now() + PATIENCE;
            while store.stats().backlog_bytes > 0 {
                assert!(Instant::now() < until, "it is not written");
                std::thread::yield_now();
            }
        }
    });
}

#[test]
fn it_is_written_sooner_where_it_is_much() {
    let mut large = words::publish(2, &["a"]);
    let Event::Published(published) = &mut large else { panic!("{large:?}") };
    Arc::make_mut(&mut published.stored.message).payload = vec![1; 4096].into();
    each_durability(|_, store| {
        let is_soon = || {
            let begun = Instant::now();
            for _ in 0..8 {
                append_event(store, large.clone(), false);
            }
            while store.stats().backlog_bytes > 0 {
                assert!(begun.elapsed() < PATIENCE, "it is not written");
                std::thread::yield_now();
            }
            begun.elapsed() < LINGERS
        };
        assert!((0..1_000).any(|_| is_soon()), "it lingers");
    });
}

#[test]
fn whoever_waits_for_it_all_the_same_has_it_kept_sooner() {
    each_durability(|_, store| {
        let is_soon = || {
            let begun = Instant::now();
            wait(store, append(store, false).position);
            begun.elapsed() < LINGERS
        };
        assert!((0..1_000).any(|_| is_soon()), "it lingers");
    });
}

#[test]
fn the_end_of_the_store_writes_it() {
    for durability in [Durability::Fsync, Durability::Os] {
        let disk = SimDisk::default();
        let store = LogStore::open_on(Arc::new(disk.clone()), Config { durability, ..small() }).unwrap();
        append(&store, false);
        drop(store);
        assert_eq!(support::open(&disk).stats().queued, 1);
    }
}
