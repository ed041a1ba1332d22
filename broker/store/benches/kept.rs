//! What it costs to keep: a QoS 1 message from the read buffer to a session that outlives its connection and is online,
//! and its PUBACK, without a socket; with nothing kept, in the store that is memory alone, and on the log.
//!
//! `cargo bench -p weirmq-store --bench kept`; `TMPDIR` chooses the disk. The system keeps what is written: no fsync is
//! waited for.
#![allow(clippy::unwrap_used, missing_docs, reason = "a bench stops where it fails")]

#[path = "../../core/benches/support/mod.rs"]
mod support;

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use support::{Client, MESSAGES, NoSinks, TOPIC, Welcome, ids, publish};
use weirmq_core::broker::{Broker, Settings};
use weirmq_core::durable::Journal;
use weirmq_core::hook::{Chains, Hook, Link};
use weirmq_store::{Config, Durability, LogStore, MemoryStore};
use weirmq_wire::{PacketType, QoS, ReasonCode, Version, encode_ack};

fn broker(journal: Option<Arc<dyn Journal>>) -> Arc<Broker> {
    let broker = match journal {
        Some(journal) => Broker::with_journal(Settings::default(), Arc::new(NoSinks), journal),
        None => Broker::new(Settings::default(), Arc::new(NoSinks)),
    };
    broker.set_chains(Chains::new([Link::new(Arc::new(Welcome) as Arc<dyn Hook>)]));
    broker
}

fn kept(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("a QoS 1 message to a kept session that is online");
    group.throughput(Throughput::Elements(MESSAGES.into()));
    let folder = tempfile::tempdir().unwrap();
    for name in ["nothing is kept", "in the memory store", "on the log"] {
        let journal: Option<Arc<dyn Journal>> = match name {
            "in the memory store" => Some(Arc::new(MemoryStore::new())),
            "on the log" => {
                let config = Config { durability: Durability::Os, ..Config::default() };
                Some(Arc::new(LogStore::open(folder.path(), config).unwrap()))
            }
            _ => None,
        };
        let broker = broker(journal);
        let mut receiver = Client::connect_kept(&broker, "receiver", true);
        receiver.subscribe(["factory/#".to_owned()]);
        let mut publisher = Client::connect_kept(&broker, "publisher", false);
        let (mut messages, mut got, mut acks) = (Vec::new(), Vec::new(), Vec::new());
        (1..=MESSAGES).for_each(|id| publish(TOPIC, QoS::AtLeastOnce, id, &mut messages));
        receiver.got(&mut got);
        group.bench_function(name, |bench| {
            bench.iter(|| {
                publisher.bytes(&messages);
                receiver.got(&mut got);
                acks.clear();
                ids(black_box(&got), |id| {
                    encode_ack(PacketType::PubAck, id, ReasonCode::Success, Version::V311, &mut acks);
                });
                receiver.bytes(&acks);
            });
        });
        assert_eq!(broker.client("receiver").map(|client| client.pending), Some(0));
    }
    group.finish();
}

criterion_group!(benches, kept);
criterion_main!(benches);
