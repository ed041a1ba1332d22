//! What the store costs, against what the same disk can do in the same run. Figures are of use as ratios.
//!
//! `cargo bench -p weirmq-store`, all of it or what is named behind `--bench store --`; `TMPDIR` chooses the disk.
//! For one core: `taskset -c 0 cargo bench ...`; on a machine that others use: `chrt -f 10 cargo bench ...`.
#![allow(clippy::unwrap_used, missing_docs, reason = "a bench stops where it fails")]

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use weirmq_core::message::{Message, Properties, Publisher, QoS};
use weirmq_core::topic::TopicName;
use weirmq_store::event::{Identifiers, Published, Recipient, RetainChange, Stage, StoredMessage};
use weirmq_store::{CompactStep, Compaction, Config, Durability, Event, LogStore, Store};

const BATCH: usize = 256;
const PAYLOAD_BYTES: usize = 128;
/// Turns of a comparison.
const TURNS: usize = 1_000;

fn publish(clients: &[Arc<str>], payload_bytes: usize) -> Event {
    Event::Published(Published {
        stored: StoredMessage {
            message: Arc::new(Message {
                topic: TopicName::new("factory/hall-3/press-17/temperature").unwrap(),
                payload: Bytes::from(vec![b'x'; payload_bytes]),
                qos: QoS::AtLeastOnce,
                retain: false,
                properties: Properties::default(),
                publisher: Publisher::Client { client_id: "press-17".into(), principal: "press-17".into() },
                received_unix_ms: 1_764_000_000_000,
                expires_at: None,
                hops: 0,
            }),
            expires_unix_ms: None,
            sealed_by: Vec::new(),
        },
        recipients: clients
            .iter()
            .map(|client| Recipient {
                client: Arc::clone(client),
                qos: QoS::AtLeastOnce,
                retain: false,
                identifiers: Identifiers::default(),
                stage: Stage::Waiting,
            })
            .collect(),
        retain: RetainChange::Keep,
        taken_from: None,
    })
}

fn client(number: usize) -> Arc<str> {
    format!("client-{number:05}").into()
}

fn open(folder: &Path, durability: Durability) -> LogStore {
    LogStore::open(folder, Config { durability, ..Config::default() }).unwrap()
}

fn per_second(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

/// What one side of a comparison took, turn by turn.
#[derive(Default)]
struct Turns(Vec<Duration>);

impl Turns {
    fn take(&mut self, work: impl FnOnce()) {
        let started = Instant::now();
        work();
        self.0.push(started.elapsed());
    }

    fn sum(&self) -> Duration {
        self.0.iter().sum()
    }

    /// The turn that this part of all turns is not slower than.
    fn at(&self, part: f64) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        sorted.get((sorted.len() as f64 * part) as usize).copied().unwrap_or_default()
    }
}

/// The store against the bare disk, each turn of which is `per_turn` messages.
fn compare(what: &str, per_turn: usize, store: &Turns, bare: &Turns) {
    let speed = |turns: &Turns| per_second(turns.0.len() * per_turn, turns.sum());
    let ratio = |store: Duration, bare: Duration| bare.as_secs_f64() / store.as_secs_f64();
    println!(
        "{what}: {:.0} msg/s; bare append and fdatasync of the same bytes: {:.0} msg/s; ratio {:.2} \
         (fastest tenth {:.2}: {:.0?} to {:.0?}; median {:.2}: {:.0?} to {:.0?})",
        speed(store),
        speed(bare),
        ratio(store.sum(), bare.sum()),
        ratio(store.at(0.1), bare.at(0.1)),
        store.at(0.1),
        bare.at(0.1),
        ratio(store.at(0.5), bare.at(0.5)),
        store.at(0.5),
        bare.at(0.5),
    );
}

/// 256 publishers that wait for their tickets, against a write of the same bytes and fdatasync, turn by turn.
fn batches_against_the_bare_disk() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("store"), Durability::Fsync);
    let mut bare = File::create(folder.path().join("bare")).unwrap();
    let event = publish(&[client(0)], PAYLOAD_BYTES);
    let batch = |store: &LogStore| {
        let tickets: Vec<_> = (0..BATCH).map(|_| store.append(std::slice::from_ref(&event))).collect();
        tickets.into_iter().for_each(|ticket| ticket.wait().unwrap());
    };
    batch(&store);
    let before = store.stats().log_bytes;
    batch(&store);
    let bytes = vec![b'x'; (store.stats().log_bytes - before) as usize];
    let (mut of_store, mut of_bare) = (Turns::default(), Turns::default());
    let syncs_before = store.stats().syncs;
    for _ in 0..TURNS {
        of_store.take(|| batch(&store));
        of_bare.take(|| {
            bare.write_all(&bytes).unwrap();
            bare.sync_data().unwrap();
        });
    }
    compare(&format!("batches of {BATCH}, fsync"), BATCH, &of_store, &of_bare);
    let syncs = store.stats().syncs - syncs_before;
    println!("  fsyncs per batch: {:.2}", syncs as f64 / TURNS as f64);
}

/// As above, with publishers that do not wait for each other: 256 tickets are waited for while the next 256
/// records are appended, as when many connections publish.
fn overlapping_batches_against_the_bare_disk() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("store"), Durability::Fsync);
    let mut bare = File::create(folder.path().join("bare")).unwrap();
    let event = publish(&[client(0)], PAYLOAD_BYTES);
    let batch = || (0..BATCH).map(|_| store.append(std::slice::from_ref(&event))).collect::<Vec<_>>();
    batch().into_iter().for_each(|ticket| ticket.wait().unwrap());
    let before = store.stats().log_bytes;
    batch().into_iter().for_each(|ticket| ticket.wait().unwrap());
    let bytes = vec![b'x'; (store.stats().log_bytes - before) as usize];
    let (mut of_store, mut of_bare) = (Turns::default(), Turns::default());
    let rounds = 20;
    for _ in 0..TURNS / rounds {
        of_store.take(|| {
            let mut waiting = batch();
            for _ in 1..rounds {
                let next = batch();
                waiting.into_iter().for_each(|ticket| ticket.wait().unwrap());
                waiting = next;
            }
            waiting.into_iter().for_each(|ticket| ticket.wait().unwrap());
        });
        of_bare.take(|| {
            for _ in 0..rounds {
                bare.write_all(&bytes).unwrap();
                bare.sync_data().unwrap();
            }
        });
    }
    compare(&format!("overlapping batches of {BATCH}, fsync"), rounds * BATCH, &of_store, &of_bare);
}

/// As fast as it goes, each message acknowledged by its receiver at once.
fn interval_mode() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), Durability::Interval(Duration::from_millis(100)));
    let clients = [client(0)];
    let event = publish(&clients, PAYLOAD_BYTES);
    let [receiver] = clients;
    let count = 1_000_000;
    let started = Instant::now();
    let mut oldest = std::collections::VecDeque::new();
    for _ in 0..count {
        oldest.push_back(store.append(std::slice::from_ref(&event)));
        if oldest.len() > 4_096 {
            oldest.pop_front().unwrap().wait().unwrap();
        }
    }
    oldest.into_iter().for_each(|ticket| ticket.wait().unwrap());
    let took = started.elapsed();
    let speed = per_second(count, took);
    println!(
        "interval: {speed:.0} msg/s published and queued; {:.1} times the 300,000 asked for",
        speed / 300_000.0
    );
    let started = Instant::now();
    let mut last = None;
    for queued in store.queue(&receiver, 0, usize::MAX) {
        let settled = Event::Settled { client: Arc::clone(&receiver), number: queued.number, more: 0 };
        last = Some(store.append(std::slice::from_ref(&settled)));
    }
    last.unwrap().wait().unwrap();
    println!("interval: {:.0} acknowledgements/s", per_second(count, started.elapsed()));
}

fn opening() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), Durability::Os);
    let events: Vec<_> = (0..100).map(|number| publish(&[client(number)], PAYLOAD_BYTES)).collect();
    let mut last = None;
    for event in events.iter().cycle().take(1_000_000) {
        loop {
            let ticket = store.append(std::slice::from_ref(event));
            if ticket.number() > 0 {
                last = Some(ticket);
                break;
            }
            // The backlog is full.
            last.take().unwrap().wait().unwrap();
        }
    }
    last.unwrap().wait().unwrap();
    store.close().unwrap();
    let started = Instant::now();
    let store = open(folder.path(), Durability::Os);
    let took = started.elapsed();
    let recovery = store.recovery();
    println!(
        "opening: {} queued messages, {} bytes of log, in {took:.2?}; {:.2} of the 2 s allowed",
        recovery.queued,
        recovery.bytes,
        took.as_secs_f64() / 2.0,
    );
    let started = Instant::now();
    let mut read = 0;
    for number in 0..10 {
        let client = client(number);
        for queued in store.queue(&client, 0, usize::MAX) {
            store.message(&client, queued.number).unwrap().unwrap();
            read += 1;
        }
    }
    println!("reading back: {:.0} msg/s", per_second(read, started.elapsed()));
}

fn fan_out() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), Durability::Os);
    let clients: Vec<_> = (0..1_000).map(client).collect();
    let payload_bytes = 64 * 1024;
    let before = store.stats().log_bytes;
    store.append(&[publish(&clients, payload_bytes)]).wait().unwrap();
    let bytes = store.stats().log_bytes - before;
    println!(
        "fan-out to 1,000 sessions: {bytes} bytes for a payload of {payload_bytes}; the payload once, and {} bytes \
         per session",
        (bytes - payload_bytes as u64) / 1_000,
    );
}

/// How long an append takes at worst while a log of live messages is copied forward.
fn pause() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { durability: Durability::Os, compaction: Compaction::Manual, ..Config::default() };
    let store = LogStore::open(folder.path(), config).unwrap();
    let event = publish(&[client(0)], PAYLOAD_BYTES);
    let append = |store: &LogStore| drop(store.append(std::slice::from_ref(&event)));
    for _ in 0..600_000 {
        append(&store);
    }
    store.sync().wait().unwrap();
    let worst = |store: &LogStore, going: &dyn Fn() -> bool| {
        let mut all = Vec::new();
        while going() {
            let started = Instant::now();
            append(store);
            all.push(started.elapsed());
            std::thread::yield_now();
        }
        all.sort_unstable();
        let at = |part: f64| all.get((all.len() as f64 * part) as usize).copied().unwrap_or_default();
        format!("{:.1?} (99.9 %), {:.1?} (worst)", at(0.999), all.last().copied().unwrap_or_default())
    };
    let quiet_until = Instant::now() + Duration::from_millis(500);
    let quiet = worst(&store, &|| Instant::now() < quiet_until);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let started = Instant::now();
            let (mut bytes, mut given_back) = (0, 0);
            while given_back == 0 {
                match store.compact_step().unwrap() {
                    CompactStep::Copied { bytes: step } => bytes += step,
                    CompactStep::GaveBack { .. } => given_back += 1,
                    CompactStep::Idle => break,
                }
            }
            println!("compaction: {bytes} live bytes copied in {:.2?}", started.elapsed());
            done.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        let busy = worst(&store, &|| !done.load(std::sync::atomic::Ordering::SeqCst));
        println!("append: {quiet} without, {busy} with compaction");
    });
}

/// What there is to measure, by name.
const ALL: [(&str, fn()); 7] = [
    ("batches", batches_against_the_bare_disk),
    ("overlapping", overlapping_batches_against_the_bare_disk),
    ("interval", interval_mode),
    ("opening", opening),
    ("fan-out", fan_out),
    ("pause", pause),
    ("settled", settled),
];

fn main() {
    let named: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    for (name, measure) in ALL {
        if named.is_empty() || named.iter().any(|wanted| wanted == name) {
            measure();
        }
    }
}

/// With criterion, to be compared with the run before.
fn settled() {
    let mut criterion = Criterion::default().sample_size(20);
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), Durability::Interval(Duration::from_millis(100)));
    let receiver = client(0);
    let event = publish(std::slice::from_ref(&receiver), PAYLOAD_BYTES);
    let mut group = criterion.benchmark_group("interval");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("256 published, awaited and settled", |bencher| {
        bencher.iter(|| {
            let tickets: Vec<_> = (0..BATCH).map(|_| store.append(std::slice::from_ref(&event))).collect();
            for ticket in tickets {
                let number = ticket.number();
                ticket.wait().unwrap();
                drop(store.append(&[Event::Settled { client: Arc::clone(&receiver), number, more: 0 }]));
            }
        });
    });
    group.finish();
    criterion.final_summary();
}
