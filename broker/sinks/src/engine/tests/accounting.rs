//! The books balance, whatever happens in whatever order.

use proptest::prelude::*;

use super::super::buffer::Buffer;
use super::super::stats::SinkStats;
use super::super::{Entry, EntryIds, Verdict};
use super::{numbers, quick};
use crate::config::{BufferConfig, OnFull};
use crate::testing::numbered;

/// What a test of the books does next.
#[derive(Debug, Clone)]
enum Step {
    Push(usize),
    Restore(usize),
    Lend,
    Settle(Vec<u8>),
    Bury(bool),
    Close,
    Spill(bool),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0_usize..1_500).prop_map(Step::Push),
        1 => (0_usize..4).prop_map(Step::Restore),
        4 => Just(Step::Lend),
        4 => prop::collection::vec(0_u8..4, 0..6).prop_map(Step::Settle),
        2 => any::<bool>().prop_map(Step::Bury),
        1 => Just(Step::Close),
        1 => any::<bool>().prop_map(Step::Spill),
    ]
}

/// Does steps as a worker would, and counts for itself.
struct Model {
    buffer: Buffer,
    ids: EntryIds,
    submitted: u64,
    lent: Option<Vec<i64>>,
    to_bury: usize,
    ended: bool,
    written: Vec<i64>,
}

impl Model {
    fn new(config: BufferConfig) -> Self {
        let batch_records_max = config.batch_records_max;
        Self {
            buffer: Buffer::new("s".into(), config, batch_records_max),
            ids: EntryIds::new(),
            submitted: 0,
            lent: None,
            to_bury: 0,
            ended: false,
            written: Vec::new(),
        }
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Push(bytes) => {
                let number = i64::try_from(self.submitted).unwrap();
                self.submitted += 1;
                let mut record = numbered("s", number);
                record.rule = "r".into();
                record.fields[0].0 = "n".repeat(bytes).into();
                let _counted = self.buffer.push(record, None);
            }
            Step::Restore(count) if self.submitted == 0 && !self.ended => {
                let entry = |_| Entry { record: numbered("s", -1), id: self.ids.next() };
                self.buffer.restore((0..count).map(|number| (entry(number), None)));
            }
            Step::Lend
                if self.lent.is_none() && self.to_bury == 0 && self.buffer.stats().buffered_records > 0 =>
            {
                self.lent = self.buffer.next_batch().await.map(|batch| numbers(&batch));
            }
            Step::Settle(verdicts) => {
                if let Some(lent) = self.lent.take() {
                    self.settle(&lent, &verdicts);
                }
            }
            Step::Bury(in_file) if self.to_bury > 0 => {
                self.buffer.buried(in_file);
                self.to_bury = 0;
            }
            Step::Close => self.buffer.close(),
            Step::Spill(in_file) => {
                self.buffer.close();
                let unwritten = self.buffer.drain().len();
                assert_eq!(unwritten, self.buffer.stats().buffered_records);
                self.buffer.spilled(in_file);
                (self.lent, self.to_bury, self.ended) = (None, 0, true);
            }
            Step::Restore(_) | Step::Lend | Step::Bury(_) => {}
        }
    }

    fn settle(&mut self, lent: &[i64], verdicts: &[u8]) {
        let verdict = |code: &u8| match code {
            0 => Verdict::Written,
            1 => Verdict::Rejected("no".to_owned()),
            2 => Verdict::retry("down"),
            _ => Verdict::Untried,
        };
        let done = lent.iter().zip(verdicts).filter(|(_, code)| **code == 0);
        self.written.extend(done.map(|(number, _)| *number));
        let settled = self.buffer.settle(verdicts.iter().map(verdict).collect());
        self.to_bury = settled.dead.len();
    }
}

fn assert_books_balance(stats: &SinkStats, submitted: u64, config: &BufferConfig) {
    assert_eq!(stats.accepted + stats.refused.total(), submitted, "{stats:?}");
    let ends = stats.written + stats.dead_lettered + stats.lost + stats.dropped_oldest + stats.spilled;
    assert_eq!(stats.accepted + stats.restored, ends + stats.buffered_records as u64, "{stats:?}");
    if stats.restored == 0 {
        assert!(stats.buffered_records <= config.records_max, "{stats:?}");
        assert!(stats.buffered_bytes <= config.bytes_max, "{stats:?}");
    }
    assert_eq!(stats.buffered_records == 0, stats.buffered_bytes == 0, "{stats:?}");
    assert_eq!(stats.buffered_records == 0, stats.oldest_age.is_none(), "{stats:?}");
}

proptest! {
    #[test]
    fn every_record_is_in_exactly_one_place(
        steps in prop::collection::vec(any_step(), 0..120),
        drop_oldest in any::<bool>(),
        attempts_max in 0_u32..4,
    ) {
        let config = BufferConfig {
            records_max: 6,
            bytes_max: 6_000,
            batch_records_max: 4,
            retry_attempts_max: attempts_max,
            on_full: if drop_oldest { OnFull::DropOldest } else { OnFull::RefuseNewest },
            ..quick()
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut model = Model::new(config.clone());
            for step in steps {
                model.take(step).await;
                assert_books_balance(&model.buffer.stats(), model.submitted, &config);
            }
            let mut numbers = model.written;
            numbers.retain(|number| *number >= 0);
            let count = numbers.len();
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), count, "a record was written twice");
        });
    }
}
