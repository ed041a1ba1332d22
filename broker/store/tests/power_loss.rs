//! The power is lost at every moment of a day in the life of a store.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests stop where they fail")]

mod support;

use support::sim::{Loss, SimDisk};
use support::{open, records_before, snapshot, twin, words};
use weirmq_store::{Event, Snapshot, Store};

const LOSSES: [Loss; 8] = [
    Loss::All,
    Loss::Nothing,
    Loss::Torn,
    Loss::LastOnly,
    Loss::Random(1),
    Loss::Random(99),
    Loss::Random(12_345),
    Loss::Random(987_654_321),
];

/// What was done, and how much of it was acknowledged after how many calls to the disk.
struct Day {
    disk: SimDisk,
    records: Vec<Vec<Event>>,
    acknowledged: Vec<(usize, usize)>,
}

impl Day {
    /// Batches of appends that wait together, compaction, and two restarts.
    fn live(records: Vec<Vec<Event>>) -> Self {
        let disk = SimDisk::default();
        let mut acknowledged = Vec::new();
        let mut store = open(&disk);
        for (index, batch) in records.chunks(3).enumerate() {
            let tickets: Vec<_> = batch.iter().map(|record| store.append(record)).collect();
            tickets.into_iter().for_each(|ticket| ticket.wait().unwrap());
            acknowledged.push((disk.trace_len(), index * 3 + batch.len()));
            if index % 2 == 1 {
                store.compact_step().unwrap();
            }
            if index % 20 == 19 {
                store.close().unwrap();
                store = open(&disk);
            }
        }
        drop(store);
        Self { disk, records, acknowledged }
    }

    fn acknowledged_after(&self, calls: usize) -> usize {
        self.acknowledged
            .iter()
            .take_while(|(at, _)| *at <= calls)
            .map(|(_, count)| *count)
            .last()
            .unwrap_or(0)
    }

    fn states(&self) -> Vec<Snapshot> {
        (0..=self.records.len()).map(|count| snapshot(&twin(&self.records[..count]))).collect()
    }
}

#[test]
fn power_loss_at_every_write_boundary_leaves_a_prefix_with_everything_acknowledged() {
    let day = Day::live(words::records(150, 7));
    let states = day.states();
    let mut cuts = 0;
    for calls in 0..=day.disk.trace_len() {
        for loss in LOSSES {
            let image = day.disk.after_power_loss(calls, loss);
            let store = open(&image);
            let left = records_before(&day.records, store.stats().next_number);
            let acknowledged = day.acknowledged_after(calls);
            assert!(left >= acknowledged, "{calls} calls, {loss:?}: {left} of {acknowledged} are left");
            assert!(snapshot(&store) == states[left], "{calls} calls, {loss:?}: another state");
            cuts += usize::from(store.recovery().cut.is_some());
        }
    }
    assert!(cuts > 100, "torn ends were met and reported: {cuts}");
}

#[test]
fn power_loss_during_recovery_loses_nothing_either() {
    let day = Day::live(words::records(40, 8));
    let states = day.states();
    for calls in (0..=day.disk.trace_len()).step_by(3) {
        for loss in [Loss::Torn, Loss::Random(5)] {
            let image = day.disk.after_power_loss(calls, loss);
            let before = image.trace_len();
            let recovered = {
                let store = open(&image);
                records_before(&day.records, store.stats().next_number)
            };
            for again in before..=image.trace_len() {
                for loss in [Loss::All, Loss::Nothing, Loss::Random(77)] {
                    let store = open(&image.after_power_loss(again, loss));
                    let left = records_before(&day.records, store.stats().next_number);
                    assert!(
                        left == recovered || left >= day.acknowledged_after(calls),
                        "{calls}, {again}, {loss:?}"
                    );
                    assert!(snapshot(&store) == states[left], "{calls}, {again}, {loss:?}: another state");
                }
            }
        }
    }
}
