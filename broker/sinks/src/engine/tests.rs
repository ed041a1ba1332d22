//! What the engine promises of every sink, held against sinks that fail on cue.

mod accounting;
mod carry_over;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use weirmq_core::record::{Record, Refused, Value};

use super::buffer::Buffer;
use super::dead_letter::DeadLetters;
use super::spill::SpillFile;
use super::worker::Worker;
use super::{Entry, Sink, Stop, Verdict, Writing};
use crate::config::{BufferConfig, OnFull};
use crate::testing::{numbered, soon};

/// A sink that does as a closure says.
struct Scripted<F>(F);

impl<F: FnMut(&[i64]) -> Vec<Verdict> + Send + 'static> Sink for Scripted<F> {
    fn write<'a>(&'a mut self, batch: &'a [Arc<Entry>], _: &'a Stop) -> Writing<'a> {
        let verdicts = (self.0)(&numbers(batch));
        Box::pin(async move { verdicts })
    }
}

/// A sink whose writes end only when they are told to stop.
struct Hanging;

impl Sink for Hanging {
    fn write<'a>(&'a mut self, batch: &'a [Arc<Entry>], stop: &'a Stop) -> Writing<'a> {
        Box::pin(async move {
            stop.set().await;
            vec![Verdict::Untried; batch.len()]
        })
    }
}

fn numbers(batch: &[Arc<Entry>]) -> Vec<i64> {
    batch
        .iter()
        .map(|entry| match entry.record.fields[..] {
            [(_, Value::Int(number))] => number,
            _ => panic!("not a numbered record"),
        })
        .collect()
}

/// One sink with all that is behind it.
struct Rig {
    folder: TempDir,
    buffer: Arc<Buffer>,
    dead_letters: Arc<DeadLetters>,
    spill: Arc<SpillFile>,
}

impl Rig {
    fn new(config: BufferConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dead_letters = Arc::new(DeadLetters::new(folder.path(), "s", config.dead_letter_bytes_max));
        let spill = Arc::new(SpillFile::new(folder.path(), "s".into(), config.bytes_max));
        let batch_records_max = config.batch_records_max;
        let buffer = Arc::new(Buffer::new("s".into(), config, batch_records_max));
        Self { folder, buffer, dead_letters, spill }
    }

    fn work(&self, sink: impl Sink) -> (JoinHandle<()>, watch::Sender<bool>) {
        let (stop, stopped) = Stop::new();
        let (buffer, spill) = (Arc::clone(&self.buffer), Arc::clone(&self.spill));
        let worker = Worker::new(Box::new(sink), buffer, Arc::clone(&self.dead_letters), spill, stopped);
        (tokio::spawn(worker.run()), stop)
    }

    fn push(&self, numbers: impl IntoIterator<Item = i64>) {
        for number in numbers {
            self.buffer.push(numbered("s", number), None).unwrap();
        }
    }

    fn dead(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.dead_letters.path()).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// No waiting for batches, short pauses.
fn quick() -> BufferConfig {
    BufferConfig { batch_wait_ms: 0, retry_initial_ms: 1, ..BufferConfig::default() }
}

fn written(batch: &[i64]) -> Vec<Verdict> {
    vec![Verdict::Written; batch.len()]
}

fn down(batch: &[i64]) -> Vec<Verdict> {
    vec![Verdict::retry("down"); batch.len()]
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_down_gets_every_record_in_order_once_it_is_back() {
    let rig = Rig::new(BufferConfig { batch_records_max: 3, ..quick() });
    let got = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&got);
    let mut call = 0;
    let _running = rig.work(Scripted(move |batch: &[i64]| {
        call += 1;
        match call {
            1..=4 => down(batch),
            // Half of it arrives.
            5 => {
                seen.lock().push(batch[0]);
                vec![Verdict::Written, Verdict::retry("down again"), Verdict::Untried]
            }
            _ => {
                seen.lock().extend_from_slice(batch);
                written(batch)
            }
        }
    }));
    rig.push(0..4);
    let stats = soon(rig.buffer.until(|stats| stats.failing.is_some())).await;
    assert_eq!(stats.failing.as_deref(), Some("down"));
    rig.push(4..10);
    let stats = soon(rig.buffer.until(|stats| stats.written == 10)).await;
    assert_eq!(*got.lock(), (0..10).collect::<Vec<_>>());
    assert_eq!(stats.failing, None);
    assert_eq!(stats.retried, 4 * 3 + 1);
    assert_eq!((stats.buffered_records, stats.buffered_bytes, stats.oldest_age), (0, 0, None));
}

#[tokio::test(start_paused = true)]
async fn pauses_grow_and_a_target_may_ask_for_more() {
    let config = BufferConfig { retry_initial_ms: 100, retry_max_ms: 10_000, ..quick() };
    let rig = Rig::new(config);
    let times = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&times);
    let _running = rig.work(Scripted(move |batch: &[i64]| {
        log.lock().push(Instant::now());
        match log.lock().len() {
            1..=3 => down(batch),
            4 => {
                vec![Verdict::Retry { reason: "later".to_owned(), after: Some(Duration::from_secs(7)) }]
            }
            _ => written(batch),
        }
    }));
    rig.push([1]);
    soon(rig.buffer.until(|stats| stats.written == 1)).await;
    let times = times.lock();
    let pauses: Vec<u128> = times.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()).collect();
    for (pause, range) in pauses.iter().zip([50..=101, 100..=201, 200..=401, 7_000..=7_001]) {
        assert!(range.contains(pause), "{pauses:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_tries_nothing_does_not_spin() {
    let rig = Rig::new(BufferConfig { retry_initial_ms: 1_000, ..quick() });
    let mut calls = 0;
    let start = Instant::now();
    let _running = rig.work(Scripted(move |batch: &[i64]| {
        calls += 1;
        // Too few verdicts: those that are missing are not tried.
        if calls == 1 { Vec::new() } else { written(batch) }
    }));
    rig.push([1, 2]);
    soon(rig.buffer.until(|stats| stats.written == 2)).await;
    assert!(start.elapsed() >= Duration::from_millis(500));
}

#[tokio::test]
async fn what_is_rejected_becomes_a_dead_letter_with_its_reason_and_the_rest_arrives() {
    let rig = Rig::new(quick());
    let _running = rig.work(Scripted(|batch: &[i64]| {
        let verdict = |number: &i64| match number {
            2 => Verdict::Rejected("two is not liked".to_owned()),
            _ => Verdict::Written,
        };
        batch.iter().map(verdict).collect()
    }));
    rig.push(1..=3);
    let stats = soon(rig.buffer.until(|stats| stats.written + stats.dead_lettered == 3)).await;
    assert_eq!((stats.written, stats.dead_lettered, stats.failing), (2, 1, None));
    let dead = rig.dead();
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0]["reason"], "two is not liked");
    assert_eq!(dead[0]["rule"], "a-rule");
    assert_eq!(dead[0]["created_unix_ms"], 1_700_000_000_000_u64);
    assert_eq!(dead[0]["fields"], serde_json::json!({ "n": 2 }));
}

#[tokio::test(start_paused = true)]
async fn a_record_that_fails_too_often_or_too_long_becomes_a_dead_letter() {
    for (config, reason) in [
        (BufferConfig { retry_attempts_max: 3, ..quick() }, "given up after 3 attempts: down"),
        (
            BufferConfig { retry_age_max_ms: 1_000, retry_initial_ms: 5_000, retry_max_ms: 5_000, ..quick() },
            "given up after ",
        ),
    ] {
        let rig = Rig::new(config);
        let _running =
            rig.work(Scripted(|batch: &[i64]| if batch[0] == 1 { down(batch) } else { written(batch) }));
        rig.push([1]);
        let stats = soon(rig.buffer.until(|stats| stats.dead_lettered == 1)).await;
        assert_eq!((stats.written, stats.buffered_records), (0, 0));
        let told = rig.dead()[0]["reason"].as_str().unwrap().to_owned();
        assert!(told.starts_with(reason) && told.ends_with(": down"), "{told}");
        rig.push([2]);
        soon(rig.buffer.until(|stats| stats.written == 1)).await;
    }
}

#[tokio::test]
async fn dead_letters_fill_two_files_and_no_more() {
    let rig = Rig::new(BufferConfig { dead_letter_bytes_max: 1_000, batch_records_max: 1, ..quick() });
    let reject = |batch: &[i64]| vec![Verdict::Rejected("no".to_owned()); batch.len()];
    let _running = rig.work(Scripted(reject));
    rig.push(0..100);
    soon(rig.buffer.until(|stats| stats.dead_lettered == 100)).await;
    let files: Vec<u64> = fs::read_dir(rig.folder.path())
        .unwrap()
        .map(|file| file.unwrap().metadata().unwrap().len())
        .collect();
    assert_eq!(files.len(), 2);
    assert!(files.iter().all(|len| (1..=1_000).contains(len)), "{files:?}");
    assert_eq!(rig.dead().last().unwrap()["fields"]["n"], 99);
}

#[tokio::test]
async fn a_dead_letter_after_a_torn_one_has_a_line_of_its_own() {
    let rig = Rig::new(quick());
    fs::write(rig.dead_letters.path(), "{\"reason\":\"to").unwrap();
    let _running = rig.work(Scripted(|_: &[i64]| vec![Verdict::Rejected("no".to_owned())]));
    rig.push([1]);
    soon(rig.buffer.until(|stats| stats.dead_lettered == 1)).await;
    let text = fs::read_to_string(rig.dead_letters.path()).unwrap();
    let last = text.lines().nth(1).unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(last).unwrap()["fields"]["n"], 1);
}

#[tokio::test]
async fn dead_letters_that_cannot_be_written_are_counted_as_lost() {
    let rig = Rig::new(quick());
    fs::create_dir(rig.dead_letters.path()).unwrap();
    let _running = rig.work(Scripted(|_: &[i64]| vec![Verdict::Rejected("no".to_owned())]));
    rig.push([1]);
    let stats = soon(rig.buffer.until(|stats| stats.lost == 1)).await;
    assert_eq!((stats.dead_lettered, stats.buffered_records), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn records_wait_for_each_other_but_a_whole_batch_goes_at_once() {
    let config = BufferConfig { batch_wait_ms: 50, batch_records_max: 3, ..BufferConfig::default() };
    let rig = Rig::new(config);
    let batches = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&batches);
    let start = Instant::now();
    let _running = rig.work(Scripted(move |batch: &[i64]| {
        log.lock().push((batch.to_vec(), start.elapsed().as_millis()));
        written(batch)
    }));
    rig.push(0..3);
    soon(rig.buffer.until(|stats| stats.written == 3)).await;
    assert_eq!(batches.lock().pop(), Some((vec![0, 1, 2], 0)));
    rig.push([3]);
    tokio::time::advance(Duration::from_millis(20)).await;
    rig.push([4]);
    soon(rig.buffer.until(|stats| stats.written == 5)).await;
    let (batch, at_ms) = batches.lock().pop().unwrap();
    assert_eq!(batch, [3, 4]);
    assert!((50..=52).contains(&at_ms), "{at_ms}");
}

#[tokio::test]
async fn a_full_buffer_refuses_the_newest_and_says_how_many_it_holds() {
    let rig = Rig::new(BufferConfig { records_max: 2, ..quick() });
    rig.push([1, 2]);
    let refused = rig.buffer.push(numbered("s", 3), None);
    assert_eq!(refused, Err(Refused::BufferFull { sink: "s".into(), records: 2 }));
    let stats = rig.buffer.stats();
    assert_eq!((stats.accepted, stats.refused.buffer_full, stats.refused.total()), (2, 1, 1));
    assert_eq!(numbers(&rig.buffer.drain()), [1, 2]);
}

#[tokio::test]
async fn a_full_buffer_may_drop_the_oldest_but_never_what_is_being_written() {
    let rig = Rig::new(BufferConfig {
        records_max: 3,
        batch_records_max: 2,
        on_full: OnFull::DropOldest,
        ..quick()
    });
    rig.push([1, 2]);
    assert_eq!(numbers(&rig.buffer.next_batch().await.unwrap()), [1, 2]);
    rig.push([3, 4, 5]);
    assert_eq!(numbers(&rig.buffer.drain()), [1, 2, 5]);
    assert_eq!(rig.buffer.stats().dropped_oldest, 2);
    rig.buffer.settle(written(&[1, 2]));
    rig.push([6, 7]);
    assert_eq!(numbers(&rig.buffer.next_batch().await.unwrap()), [5, 6]);
    rig.push([8]);
    assert_eq!(numbers(&rig.buffer.drain()), [5, 6, 8]);
}

#[tokio::test]
async fn bytes_are_bounded_too() {
    let text = |bytes: usize| Record {
        fields: vec![("text".into(), Value::Text("x".repeat(bytes).into()))],
        ..numbered("s", 0)
    };
    let config = BufferConfig { bytes_max: 10_000, on_full: OnFull::DropOldest, ..quick() };
    let rig = Rig::new(config);
    rig.buffer.push(text(4_000), None).unwrap();
    rig.buffer.push(text(4_000), None).unwrap();
    rig.buffer.push(text(8_000), None).unwrap();
    let stats = rig.buffer.stats();
    assert_eq!((stats.buffered_records, stats.dropped_oldest), (1, 2));
    assert!((8_000..10_000).contains(&stats.buffered_bytes), "{stats:?}");
    assert!(rig.buffer.push(text(10_000), None).is_err());
    let stats = rig.buffer.stats();
    assert_eq!((stats.buffered_records, stats.dropped_oldest, stats.refused.too_large), (1, 2, 1));
}

#[tokio::test]
async fn a_record_too_deep_to_be_read_back_is_refused() {
    let rig = Rig::new(quick());
    let nested = |depth: usize| (0..depth).fold(Value::Null, |value, _| Value::List(vec![value]));
    let record = |depth| Record { fields: vec![("deep".into(), nested(depth))], ..numbered("s", 0) };
    rig.buffer.push(record(32), None).unwrap();
    assert!(rig.buffer.push(record(33), None).is_err());
    assert!(rig.buffer.push(record(5_000), None).is_err());
    assert_eq!(rig.buffer.stats().refused.too_deep, 2);
}

#[tokio::test]
async fn submitting_never_waits_however_long_the_target_hangs() {
    let rig = Rig::new(BufferConfig { records_max: 1_000, batch_records_max: 10, ..quick() });
    let (_worker, _stop) = rig.work(Hanging);
    // On the one thread that the worker too would need.
    let taken = (0..100_000).filter(|number| rig.buffer.push(numbered("s", *number), None).is_ok()).count();
    assert_eq!(taken, 1_000);
    assert_eq!(rig.buffer.stats().refused.buffer_full, 99_000);
}

#[tokio::test(start_paused = true)]
async fn closing_writes_what_is_left_and_ends() {
    let rig = Rig::new(BufferConfig { batch_wait_ms: 60_000, batch_records_max: 3, ..quick() });
    let (worker, _stop) = rig.work(Scripted(written));
    rig.push(0..10);
    rig.buffer.close();
    soon(worker).await.unwrap();
    let stats = rig.buffer.stats();
    assert_eq!((stats.written, stats.buffered_records), (10, 0));
    assert_eq!(rig.buffer.push(numbered("s", 11), None), Err(Refused::Closed));
    assert_eq!(rig.buffer.stats().refused.closed, 1);
}

#[tokio::test(start_paused = true)]
async fn closing_cuts_a_pause_short_for_one_last_attempt() {
    let config = BufferConfig { retry_initial_ms: 600_000, retry_max_ms: 600_000, ..quick() };
    let rig = Rig::new(config);
    let attempts = Arc::new(Mutex::new(0));
    let count = Arc::clone(&attempts);
    let (worker, _stop) = rig.work(Scripted(move |batch: &[i64]| {
        *count.lock() += 1;
        down(batch)
    }));
    rig.push(0..3);
    soon(rig.buffer.until(|stats| stats.failing.is_some())).await;
    let start = Instant::now();
    rig.buffer.close();
    soon(worker).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(1));
    assert_eq!(*attempts.lock(), 2);
    assert_eq!(numbers(&rig.buffer.drain()), [0, 1, 2]);
}

#[tokio::test]
async fn a_stop_ends_a_write_and_nothing_is_missing() {
    let rig = Rig::new(BufferConfig { batch_records_max: 2, ..quick() });
    let (worker, stop) = rig.work(Hanging);
    rig.push(0..5);
    rig.buffer.close();
    stop.send_replace(true);
    soon(worker).await.unwrap();
    assert_eq!(numbers(&rig.buffer.drain()), [0, 1, 2, 3, 4]);
}
