//! The log, the memory twin, redb and the store on a key-value backend are told the same, and must hold the same: through restarts, power loss
//! and compaction.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests stop where they fail")]

mod support;

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use support::map_backend::MapBackend;
use support::sim::{Loss, SimDisk};
use support::{open, records_before, redb_store::RedbStore, snapshot, twin, words};
use weirmq_core::durable::{Journal, Records};
use weirmq_store::{CompactStep, Event, KvStore, LogStore, MemoryStore, Store};

#[derive(Debug, Clone)]
enum Step {
    /// Appends records together, and waits until they are kept or not.
    Append(Vec<Vec<Event>>, bool),
    Compact(u8),
    Restart,
    PowerLoss(Loss),
}

fn step() -> impl Strategy<Value = Step> {
    let loss = prop_oneof![
        Just(Loss::All),
        Just(Loss::Nothing),
        Just(Loss::Torn),
        Just(Loss::LastOnly),
        any::<u64>().prop_map(Loss::Random)
    ];
    prop_oneof![
        20 => (words::record(), any::<bool>()).prop_map(|(record, waits)| Step::Append(vec![record], waits)),
        10 => (vec(words::record(), 2..5), any::<bool>()).prop_map(|(records, waits)| Step::Append(records, waits)),
        4 => (1_u8..6).prop_map(Step::Compact),
        1 => Just(Step::Restart),
        2 => loss.prop_map(Step::PowerLoss),
    ]
}

struct Four {
    disk: SimDisk,
    log: LogStore,
    memory: MemoryStore,
    redb: RedbStore,
    map: MapBackend,
    kv: KvStore,
    records: Vec<Vec<Event>>,
    /// So many of the last of them need not be kept yet.
    unacknowledged: usize,
}

impl Four {
    fn new() -> Self {
        let disk = SimDisk::default();
        let log = open(&disk);
        let (memory, redb) = (MemoryStore::new(), RedbStore::new());
        let map = MapBackend::default();
        let kv = open_kv(&map);
        Self { disk, log, memory, redb, map, kv, records: Vec::new(), unacknowledged: 0 }
    }

    fn append(&mut self, records: Vec<Vec<Event>>, waits: bool) {
        let (number, ticket) = match &records[..] {
            [record] => {
                let ticket = Store::append(&self.log, record);
                assert_eq!(Store::append(&self.kv, record).number(), ticket.number());
                (ticket.number(), Some(ticket))
            }
            _ => {
                let mut all = together(&records);
                if !waits {
                    all.set_unawaited();
                }
                let receipt = Journal::append(&self.log, &all).unwrap();
                assert_eq!(Journal::append(&self.kv, &all).unwrap().number, receipt.number);
                (receipt.number, None)
            }
        };
        let mut next = number;
        for record in &records {
            assert_eq!(Store::append(&self.memory, record).number(), next);
            assert_eq!(self.redb.append(record).number(), next);
            next += record.len() as u64;
        }
        self.unacknowledged += records.len();
        self.records.extend(records);
        if waits {
            ticket.unwrap_or_else(|| self.log.sync()).wait().unwrap();
            self.unacknowledged = 0;
        }
    }

    fn restart(&mut self) {
        let other = SimDisk::default();
        drop(std::mem::replace(&mut self.log, open(&other)));
        self.log = open(&self.disk);
        self.unacknowledged = 0;
        drop(std::mem::replace(&mut self.kv, open_kv(&MapBackend::default())));
        self.kv = open_kv(&self.map);
    }

    /// The power is lost now: what is acknowledged stays, of the rest a prefix.
    fn power_loss(&mut self, loss: Loss) {
        let calls = self.disk.trace_len();
        let image = self.disk.after_power_loss(calls, loss);
        // What has resolved after the picture was taken may be missing from it.
        let acknowledged = self.records.len() - self.unacknowledged;
        self.log = open(&image);
        self.disk = image;
        let left = records_before(&self.records, self.log.stats().next_number);
        assert!(left >= acknowledged, "{left} of {acknowledged} acknowledged records are left");
        self.records.truncate(left);
        self.unacknowledged = 0;
        self.memory = twin(&self.records);
        self.redb = RedbStore::new();
        for record in &self.records {
            self.redb.append(record).wait().unwrap();
        }
        // It loses its power in tests/kv.rs; here it follows the log.
        self.map = MapBackend::default();
        self.kv = open_kv(&self.map);
        for record in &self.records {
            drop(Store::append(&self.kv, record));
        }
    }

    fn compare(&self) {
        let log = snapshot(&self.log);
        pretty_assertions(&log, &snapshot(&self.memory));
        pretty_assertions(&log, &snapshot(&self.redb));
        pretty_assertions(&log, &snapshot(&self.kv));
    }
}

fn together(records: &[Vec<Event>]) -> Records {
    let mut all = Records::default();
    for record in records {
        record.iter().for_each(|event| all.push(event.clone()));
        all.end();
    }
    all
}

fn open_kv(map: &MapBackend) -> KvStore {
    KvStore::open("map", Arc::new(map.clone()), 1 << 30).unwrap()
}

fn pretty_assertions(left: &weirmq_store::Snapshot, right: &weirmq_store::Snapshot) {
    assert!(left == right, "\n{left:#?}\nis not\n{right:#?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn all_stores_hold_the_same_through_restarts_power_loss_and_compaction(steps in vec(step(), 1..80)) {
        let mut four = Four::new();
        for step in steps {
            match step {
                Step::Append(records, waits) => {
                    four.append(records, waits);
                    continue;
                }
                Step::Compact(steps) => {
                    for _ in 0..steps {
                        four.log.compact_step().unwrap();
                    }
                }
                Step::Restart => four.restart(),
                Step::PowerLoss(loss) => four.power_loss(loss),
            }
            four.compare();
        }
        four.compare();
        four.power_loss(Loss::All);
        four.compare();
    }

    #[test]
    fn a_log_that_is_compacted_all_the_way_holds_the_same_and_little_else(records in vec(words::record(), 1..120)) {
        let mut four = Four::new();
        for record in records {
            four.append(vec![record], false);
        }
        for _ in 0..2 {
            let last = four.log.stats().segments;
            let mut given_back = 0;
            while given_back + 1 < last {
                match four.log.compact_step().unwrap() {
                    CompactStep::GaveBack { .. } => given_back += 1,
                    CompactStep::Copied { .. } => {}
                    CompactStep::Idle => break,
                }
            }
            four.compare();
            four.restart();
            four.compare();
        }
        let stats = four.log.stats();
        prop_assert!(
            stats.log_bytes <= stats.live_bytes + 4 * u64::from(weirmq_store::SEGMENT_BYTES_MIN),
            "{stats:?}"
        );
    }
}
