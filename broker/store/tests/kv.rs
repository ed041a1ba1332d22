//! The store on a key-value backend: through crashes, with a backend that fails at any call, that is slow, or that
//! has something else in it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests stop where they fail")]

mod support;

use std::sync::Arc;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use support::map_backend::MapBackend;
use support::{records_before, snapshot, twin, words};
use weirmq_core::durable::backend::{Backend, BackendError, Change};
use weirmq_store::conformance::{self, Nonconformity};
use weirmq_store::{Config, Event, KvStore, LogStore, OpenError, Store, StoreError, portable};

const BACKLOG: usize = 1024 * 1024;

fn open(backend: &MapBackend) -> KvStore {
    KvStore::open("map", Arc::new(backend.clone()), BACKLOG).unwrap()
}

/// The same records every time.
fn records(count: usize) -> Vec<Vec<Event>> {
    let records = vec(words::record(), count..=count).new_tree(&mut TestRunner::deterministic());
    records.unwrap().current()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_crash_leaves_what_was_acknowledged_and_whole_records_only(
        steps in vec((words::record(), any::<bool>(), any::<bool>(), proptest::bool::weighted(0.1)), 1..80)
    ) {
        let mut backend = MapBackend::default();
        let mut store = open(&backend);
        let mut kept: Vec<Vec<Event>> = Vec::new();
        let mut acknowledged = 0;
        for (record, waits, holds, crashes) in steps {
            backend.hold(holds && !waits);
            let ticket = store.append(&record);
            kept.push(record);
            if waits {
                ticket.wait().unwrap();
                acknowledged = kept.len();
            }
            if crashes {
                let image = backend.image();
                backend.hold(false);
                store = open(&image);
                backend = image;
                let left = records_before(&kept, store.next_number());
                prop_assert!(left >= acknowledged, "{left} of {acknowledged} acknowledged records are left");
                kept.truncate(left);
                acknowledged = left;
                prop_assert_eq!(snapshot(&store), snapshot(&twin(&kept)));
            }
        }
        prop_assert_eq!(snapshot(&store), snapshot(&twin(&kept)));
        backend.hold(false);
    }
}

#[test]
fn whichever_call_fails_nothing_is_acknowledged_from_then_on_and_what_was_before_is_there() {
    let records = records(30);
    for call in 1..=34 {
        for is_full in [false, true] {
            let backend = MapBackend::default();
            backend.fail_at(call, is_full);
            let opened = KvStore::open("map", Arc::new(backend.clone()), BACKLOG);
            let mut acknowledged = 0;
            match opened {
                Err(error) => {
                    let said = "the store backend map failed: told to fail; remove the cause, or configure another \
                                backend";
                    assert_eq!((error.to_string().as_str(), call), (said, 1));
                }
                Ok(store) => {
                    let mut failed = None;
                    for record in &records {
                        match (store.append(record).wait(), &failed) {
                            (Ok(()), None) => acknowledged += 1,
                            (Err(error), None) => failed = Some(error),
                            (outcome, Some(error)) => assert_eq!(outcome.as_ref(), Err(error)),
                        }
                    }
                    if let Some(error) = failed {
                        assert_eq!(error.is_full(), is_full);
                        assert!(matches!(error, StoreError::Poisoned { .. }), "{error}");
                    }
                }
            }
            let store = open(&backend.image());
            assert_eq!(records_before(&records, store.next_number()), acknowledged);
            assert_eq!(snapshot(&store), snapshot(&twin(&records[..acknowledged])));
        }
    }
}

#[test]
fn many_records_are_one_batch_and_a_backend_that_is_too_slow_bounds_what_waits() {
    let backend = MapBackend::default();
    let store = open(&backend);
    let opening = backend.calls();
    backend.hold(true);
    let value = Bytes::from(vec![7; 10_000]);
    let mut tickets = Vec::new();
    let refused = loop {
        let key = Bytes::from(tickets.len().to_string());
        let ticket = store.append(&[Event::KeySet { namespace: "n".into(), key, value: value.clone() }]);
        match ticket.outcome() {
            Some(Err(error)) => break error,
            _ => tickets.push(ticket),
        }
        assert!(tickets.len() < 1_000, "nothing bounds it");
    };
    assert_eq!(refused, StoreError::Backlog { bytes_max: BACKLOG });
    let taken = tickets.len();
    backend.hold(false);
    tickets.into_iter().for_each(|ticket| ticket.wait().unwrap());
    assert!(backend.calls() - opening <= 2, "one batch, or the first record and one batch");
    store.append(&[Event::KeySet { namespace: "n".into(), key: "z".into(), value }]).wait().unwrap();
    assert_eq!(open(&backend).keys("n", b"", usize::MAX).len(), taken + 1);
}

#[test]
fn nothing_is_left_of_what_is_over() {
    let backend = MapBackend::default();
    let store = open(&backend);
    for record in records(200) {
        store.append(&record).wait().unwrap();
    }
    let all = snapshot(&store);
    let mut end: Vec<Event> = Vec::new();
    end.extend(all.sessions.into_keys().map(|client| Event::SessionEnded { client }));
    end.extend(
        all.retained
            .into_values()
            .map(|message| Event::RetainedCleared { topic: message.message.topic.clone() }),
    );
    end.extend(all.sinks.into_iter().flat_map(|(sink, records)| {
        records.into_iter().map(move |(number, _)| Event::SinkSettled { sink: sink.clone(), number })
    }));
    end.extend(all.keys.into_iter().flat_map(|(namespace, values)| {
        values.into_keys().map(move |key| Event::KeyRemoved { namespace: namespace.clone(), key })
    }));
    assert!(backend.len() > 10);
    store.append(&end).wait().unwrap();
    assert_eq!(backend.len(), 1, "the mark alone: {:?}", backend.keys());
}

#[test]
fn what_is_not_a_store_is_refused_with_its_key() {
    let refusal = |backend: &MapBackend| {
        KvStore::open("map", Arc::new(backend.clone()), BACKLOG).map(drop).unwrap_err()
    };
    let foreign = MapBackend::default();
    foreign.put(b"user:1", b"x");
    assert!(matches!(refusal(&foreign), OpenError::BackendDamaged { key, .. } if key == "user:1"));
    let newer = MapBackend::default();
    newer.put(&[0], &[9, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert!(matches!(refusal(&newer), OpenError::NewerFormat { version: 9, .. }));

    let whole = MapBackend::default();
    let store = open(&whole);
    for record in records(60) {
        store.append(&record).wait().unwrap();
    }
    drop(store);
    let messages: Vec<_> = whole.keys().into_iter().filter(|key| key[0] == 4).collect();
    assert!(!messages.is_empty());
    for key in messages {
        let damaged = whole.image();
        damaged.remove(&key);
        let said = refusal(&damaged).to_string();
        assert!(said.contains("its message is missing; restore it from a backup"), "{said}");
    }
    // Every value that is cut off is told, where it says anything by its form.
    for key in whole.keys().into_iter().filter(|key| [0, 1, 2, 4, 5, 6].contains(&key[0])) {
        let damaged = whole.image();
        damaged.put(&key, b"");
        assert!(matches!(refusal(&damaged), OpenError::BackendDamaged { .. }), "{key:?}");
    }
}

/// A backend with a fault of its own.
struct Faulty {
    map: MapBackend,
    fault: Fault,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    LosesEmptyValues,
    CutsKeys,
    ForgetsToRemove,
    ScansFromBehind,
    GivesMoreThanAsked,
    EndsEarly,
    OrdersByLength,
    ForgetsWhenClosed,
}

impl Backend for Faulty {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, BackendError> {
        let value = self.map.get(key)?;
        Ok(value.filter(|value| self.fault != Fault::LosesEmptyValues || !value.is_empty()))
    }

    fn write(&self, changes: &[Change]) -> Result<(), BackendError> {
        let changes =
            changes.iter().filter(|change| self.fault != Fault::ForgetsToRemove || change.value.is_some());
        let cut = |change: &Change| match self.fault {
            Fault::CutsKeys => {
                Change { key: change.key.slice(..change.key.len().min(255)), ..change.clone() }
            }
            _ => change.clone(),
        };
        self.map.write(&changes.map(cut).collect::<Vec<_>>())
    }

    fn scan(&self, from: &[u8], max: usize) -> Result<Vec<(Bytes, Bytes)>, BackendError> {
        let mut found = match self.fault {
            Fault::ScansFromBehind => self.map.scan(&[from, b"\0"].concat(), max)?,
            Fault::GivesMoreThanAsked => self.map.scan(from, max + 1)?,
            Fault::EndsEarly if from > &b"k"[..] => Vec::new(),
            _ => self.map.scan(from, max)?,
        };
        if self.fault == Fault::OrdersByLength {
            found.sort_by_key(|(key, _)| key.len());
        }
        Ok(found)
    }
}

#[test]
fn a_backend_is_held_to_what_the_store_relies_on() {
    let hold = |fault: Fault| {
        let map = MapBackend::default();
        let outcome = conformance::hold(|| {
            let map = if fault == Fault::ForgetsWhenClosed { MapBackend::default() } else { map.clone() };
            Ok(Arc::new(Faulty { map, fault }))
        });
        (outcome, map.len())
    };
    assert_eq!(hold(Fault::None), (Ok(()), 0), "it is left empty");
    for fault in [
        Fault::LosesEmptyValues,
        Fault::CutsKeys,
        Fault::ForgetsToRemove,
        Fault::ScansFromBehind,
        Fault::GivesMoreThanAsked,
        Fault::EndsEarly,
        Fault::OrdersByLength,
        Fault::ForgetsWhenClosed,
    ] {
        let (outcome, _) = hold(fault);
        assert!(matches!(outcome, Err(Nonconformity::Wrong { .. })), "{fault:?}: {outcome:?}");
    }
    let used = MapBackend::default();
    used.put(b"mine", b"x");
    let outcome = conformance::hold(|| Ok(Arc::new(used.clone())));
    assert_eq!(outcome, Err(Nonconformity::NotEmpty { key: "mine".to_owned() }));
    assert_eq!(used.len(), 1);
    let failing = MapBackend::default();
    failing.fail_at(5, false);
    let outcome = conformance::hold(|| Ok(Arc::new(failing.clone())));
    assert!(matches!(outcome, Err(Nonconformity::Failed { .. })), "{outcome:?}");
}

#[test]
fn a_store_is_copied_from_the_log_into_a_backend_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let log = |name: &str| LogStore::open(&folder.path().join(name), Config::default()).unwrap();
    let from = log("from");
    for record in records(200) {
        from.append(&record).wait().unwrap();
    }
    let backend = MapBackend::default();
    let into = open(&backend);
    portable::copy(&from, &into).unwrap();
    drop(into);
    let into = open(&backend);
    let back = log("back");
    portable::copy(&into, &back).unwrap();
    // Numbers are others, and so is what says nothing.
    let lines = |store: &dyn Store| {
        let mut out = Vec::new();
        portable::export(store, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let number = |line: &str| match line.split_once("\"number\":") {
            Some((before, rest)) => {
                format!("{before}{}", rest.trim_start_matches(|c: char| c.is_ascii_digit()))
            }
            None => line.to_owned(),
        };
        text.lines().filter(|line| !line.starts_with("{\"store\"")).map(number).collect::<Vec<_>>()
    };
    assert!(lines(&from).len() > 20);
    assert_eq!(lines(&from), lines(&into));
    assert_eq!(lines(&from), lines(&back));
    assert_eq!(portable::copy(&from, &back), Err(portable::CopyError::NotEmpty));
}
