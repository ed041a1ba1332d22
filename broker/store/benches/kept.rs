//! What it costs to keep: a QoS 1 message from the read buffer to a session that outlives its connection and is online,
//! and its PUBACK, without a socket; with nothing kept, in the store that is memory alone, and on the log.
//!
//! `cargo bench -p weirmq-store --bench kept`; `TMPDIR` chooses the disk. The system keeps what is written: no fsync is
//! waited for.
#![allow(clippy::unwrap_used, missing_docs, reason = "a bench stops where it fails")]

use std::hint::black_box;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Waker};

use bytes::BytesMut;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use parking_lot::Mutex;
use weirmq_core::broker::{Broker, Settings};
use weirmq_core::connection::{Connection, Peer};
use weirmq_core::durable::Journal;
use weirmq_core::hook::{
    AuthenticateRequest, Authentication, Chains, Hook, HookPoint, HookPoints, Lease, Link, PublishRight,
    Reply, Rights, SubscribeRight,
};
use weirmq_core::outbox::{Outbox, Transport};
use weirmq_core::record::{Record, Refused, Sinks};
use weirmq_core::time::{Instant, Now};
use weirmq_core::topic::TopicFilter;
use weirmq_store::{Config, Durability, LogStore, MemoryStore};
use weirmq_wire::{
    Connect, Packet, PacketId, PacketType, Publish, QoS, ReasonCode, Subscribe, SubscribeOptions, Text,
    Version, encode_ack,
};

const NOW: Now = Now { at: Instant::from_micros(1_000_000), unix_ms: 1_700_000_000_000 };
/// As many as a busy read finds in the buffer.
const MESSAGES: u16 = 100;
const PAYLOAD: [u8; 64] = [b'x'; 64];
const TOPIC: &str = "factory/a/press-1/value";

/// Lets everybody in and allows everything.
struct Welcome;

impl Hook for Welcome {
    fn name(&self) -> &str {
        "welcome"
    }

    fn points(&self) -> HookPoints {
        HookPoints::NONE.with(HookPoint::Authenticate)
    }

    fn authenticate(&self, _: &Arc<AuthenticateRequest>) -> Reply<Authentication> {
        let filter = TopicFilter::new("#").unwrap();
        let publish = vec![PublishRight { filter: filter.clone(), qos_max: QoS::ExactlyOnce, retain: true }];
        let subscribe = vec![SubscribeRight { filter, qos_max: QoS::ExactlyOnce }];
        let lease = Lease { rights: Some(Arc::new(Rights { publish, subscribe })), ..Lease::default() };
        Reply::ready(Authentication::Allow { lease, data: None })
    }
}

struct NoSinks;

impl Sinks for NoSinks {
    fn submit(&self, _: Record) -> Result<(), Refused> {
        Ok(())
    }
}

/// A socket that takes everything, and shows what it took.
#[derive(Default)]
struct Drain(Mutex<Vec<u8>>);

impl Transport for Drain {
    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        slices.iter().for_each(|slice| self.0.lock().extend_from_slice(slice));
        Ok(slices.iter().map(|slice| slice.len()).sum())
    }

    fn wake(&self) {}
}

/// A client, and the broker's side of it.
struct Client {
    connection: Connection,
    drain: Arc<Drain>,
    input: BytesMut,
}

impl Client {
    fn connect(broker: &Arc<Broker>, name: &str) -> Self {
        let drain = Arc::new(Drain::default());
        let outbox = Arc::new(Outbox::new(Arc::clone(&drain) as Arc<dyn Transport>));
        let peer = Peer { address: None, listener: Arc::from("bench") };
        let connection = Connection::new(Arc::clone(broker), outbox, peer, NOW);
        let mut client = Self { connection, drain, input: BytesMut::with_capacity(64 * 1024) };
        let mut connect = Connect::new(Version::V311, Text::new(name).unwrap());
        connect.clean_start = false;
        client.packet(&Packet::Connect(Box::new(connect)));
        assert!(client.connection.is_open());
        client
    }

    fn packet(&mut self, packet: &Packet) {
        let mut bytes = Vec::new();
        packet.encode(Version::V311, &mut bytes).unwrap();
        self.bytes(&bytes);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.input.reserve(bytes.len());
        self.input.extend_from_slice(bytes);
        self.connection.input(&mut self.input, NOW);
        self.connection.flush();
        while self.connection.is_waiting() {
            let _ = self.connection.poll(&mut Context::from_waker(Waker::noop()), NOW);
        }
    }

    /// What was sent to it since this was asked last.
    fn got(&mut self, bytes: &mut Vec<u8>) {
        bytes.clear();
        std::mem::swap(&mut *self.drain.0.lock(), bytes);
    }
}

fn broker(journal: Option<Arc<dyn Journal>>) -> Arc<Broker> {
    let broker = match journal {
        Some(journal) => Broker::with_journal(Settings::default(), Arc::new(NoSinks), journal),
        None => Broker::new(Settings::default(), Arc::new(NoSinks)),
    };
    broker.set_chains(Chains::new([Link::new(Arc::new(Welcome) as Arc<dyn Hook>)]));
    broker
}

fn messages() -> Vec<u8> {
    let mut bytes = Vec::new();
    for id in (1..=MESSAGES).map(PacketId::new) {
        let publish = Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: Text::new(TOPIC).unwrap(),
            packet_id: id,
            extras: None,
            payload: PAYLOAD.to_vec().into(),
        };
        Packet::Publish(publish).encode(Version::V311, &mut bytes).unwrap();
    }
    bytes
}

/// PUBACK for the PUBLISH packets in `bytes`, all of which have the same size.
fn acknowledge(bytes: &[u8], out: &mut Vec<u8>) {
    let head_len = 2 + 2 + TOPIC.len();
    out.clear();
    for frame in bytes.chunks_exact(head_len + 2 + PAYLOAD.len()) {
        let &[high, low] = frame.get(head_len..head_len + 2).unwrap() else { continue };
        let id = PacketId::new(u16::from_be_bytes([high, low])).unwrap();
        encode_ack(PacketType::PubAck, id, ReasonCode::Success, Version::V311, out);
    }
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
        let mut receiver = Client::connect(&broker, "receiver");
        let options = SubscribeOptions { qos: QoS::AtLeastOnce, ..SubscribeOptions::default() };
        receiver.packet(&Packet::Subscribe(Subscribe {
            packet_id: PacketId::MIN,
            subscription_id: None,
            user_properties: Vec::new(),
            filters: vec![(Text::new("factory/#").unwrap(), options)],
        }));
        let mut publisher = Client::connect(&broker, "publisher");
        let (messages, mut got, mut acks) = (messages(), Vec::new(), Vec::new());
        receiver.got(&mut got);
        group.bench_function(name, |bench| {
            bench.iter(|| {
                publisher.bytes(&messages);
                publisher.got(&mut got);
                receiver.got(&mut got);
                acknowledge(black_box(&got), &mut acks);
                receiver.bytes(&acks);
            });
        });
        assert_eq!(broker.client("receiver").map(|client| client.pending), Some(0));
    }
    group.finish();
}

criterion_group!(benches, kept);
criterion_main!(benches);
