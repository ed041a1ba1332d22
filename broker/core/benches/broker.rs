//! What the broker itself costs, without a socket: a PUBLISH from the read buffer into the outboxes of its receivers,
//! and the making of plans among many subscriptions.
//!
//! `cargo bench -p weirmq-core`. Beside the messages stands the copying of their bytes, below which nothing can be.
#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use parking_lot::Mutex;
use weirmq_core::broker::{Broker, Settings};
use weirmq_core::connection::{Connection, Peer};
use weirmq_core::hook::{
    Action, Actions, AuthenticateRequest, Authentication, AuthorizeRequest, Chains, Decision, Failure, Hook,
    HookPoint, HookPoints, Lease, Link, Observe, PublishRight, Reply, Rights, SubscribeRight,
};
use weirmq_core::message::Message;
use weirmq_core::outbox::{Outbox, Transport};
use weirmq_core::record::{Record, Refused, Sinks};
use weirmq_core::time::{Instant, Now};
use weirmq_core::topic::{TopicFilter, TopicName};
use weirmq_wire::{
    Connect, Packet, PacketId, PacketType, Publish, QoS, ReasonCode, Subscribe, SubscribeOptions, Text,
    Version, encode_ack,
};

const NOW: Now = Now { at: Instant::from_micros(1_000_000), unix_ms: 1_700_000_000_000 };
/// As many as a busy read finds in the buffer.
const MESSAGES: u16 = 100;
const PAYLOAD: [u8; 64] = [b'x'; 64];

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

/// Lets everybody in, and says of each topic that they may publish there. It is asked once.
#[derive(Default)]
struct Asked(AtomicUsize);

impl Hook for Asked {
    fn name(&self) -> &str {
        "asked"
    }

    fn points(&self) -> HookPoints {
        HookPoints::NONE.with(HookPoint::Authenticate).with(HookPoint::Authorize)
    }

    fn authenticate(&self, _: &Arc<AuthenticateRequest>) -> Reply<Authentication> {
        Reply::ready(Authentication::Allow { lease: Lease::default(), data: None })
    }

    fn authorize(&self, request: &Arc<AuthorizeRequest>) -> Reply<Decision> {
        if matches!(request.action, Action::Publish { .. }) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        Reply::ready(Decision::Allow)
    }
}

/// A rule that looks at every message and does nothing.
struct Looks;

impl Hook for Looks {
    fn name(&self) -> &str {
        "looks"
    }

    fn points(&self) -> HookPoints {
        HookPoints::NONE.with(HookPoint::OnMessage)
    }

    fn on_message(self: Arc<Self>, _: &TopicName) -> Vec<Arc<dyn Observe>> {
        vec![self]
    }
}

impl Observe for Looks {
    fn name(&self) -> &str {
        "looks"
    }

    fn observe(&self, message: &Arc<Message>, _: Now, _: &mut Actions) -> Result<(), Failure> {
        black_box(message);
        Ok(())
    }
}

struct NoSinks;

impl Sinks for NoSinks {
    fn submit(&self, _: Record) -> Result<(), Refused> {
        Ok(())
    }
}

/// A socket that takes everything. What it takes can be looked at where acknowledgements have to be made for it.
#[derive(Default)]
struct Drain {
    kept: Option<Mutex<Vec<u8>>>,
}

impl Transport for Drain {
    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if let Some(kept) = &self.kept {
            slices.iter().for_each(|slice| kept.lock().extend_from_slice(slice));
        }
        Ok(slices.iter().map(|slice| black_box(slice).len()).sum())
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
    fn connect(broker: &Arc<Broker>, name: &str, keeps: bool) -> Self {
        let drain = Arc::new(Drain { kept: keeps.then(Mutex::default) });
        let outbox: Arc<Outbox> = Arc::new(Outbox::new(Arc::clone(&drain)));
        let peer = Peer { address: None, listener: Arc::from("bench") };
        let connection = Connection::new(Arc::clone(broker), outbox, peer, NOW);
        let mut client = Self { connection, drain, input: BytesMut::with_capacity(64 * 1024) };
        let connect = Connect::new(Version::V311, Text::new(name).unwrap());
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
    }

    fn subscribe(&mut self, filters: impl IntoIterator<Item = String>) {
        let options = SubscribeOptions { qos: QoS::ExactlyOnce, ..SubscribeOptions::default() };
        let filters = filters.into_iter().map(|filter| (Text::new(&filter).unwrap(), options)).collect();
        let packet_id = PacketId::MIN;
        let packet = Subscribe { packet_id, subscription_id: None, user_properties: Vec::new(), filters };
        self.packet(&Packet::Subscribe(packet));
    }
}

fn broker(hooks: impl IntoIterator<Item = Arc<dyn Hook>>) -> Arc<Broker> {
    let mut settings = Settings::default();
    settings.limits.subscriptions_max = usize::MAX;
    settings.limits.packet_bytes_max = 128 << 20;
    let broker = Broker::new(settings, Arc::new(NoSinks));
    let links = hooks.into_iter().chain([Arc::new(Welcome) as Arc<dyn Hook>]).map(Link::new);
    broker.set_chains(Chains::new(links));
    broker
}

fn publish(topic: &str, qos: QoS, id: u16, out: &mut Vec<u8>) {
    let packet = Packet::Publish(Publish {
        dup: false,
        qos,
        retain: false,
        topic: Text::new(topic).unwrap(),
        packet_id: PacketId::new(id).filter(|_| qos > QoS::AtMostOnce),
        extras: None,
        payload: Bytes::from_static(&PAYLOAD),
    });
    packet.encode(Version::V311, out).unwrap();
}

/// Messages to these topics in turn.
fn block(topics: &[&str], qos: QoS) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (id, topic) in (1..=MESSAGES).zip(topics.iter().cycle()) {
        publish(topic, qos, id, &mut bytes);
    }
    bytes
}

/// The acknowledgements of `MESSAGES` messages.
fn acks(kind: PacketType) -> Vec<u8> {
    let mut bytes = Vec::new();
    for id in (1..=MESSAGES).filter_map(PacketId::new) {
        encode_ack(kind, id, ReasonCode::Success, Version::V311, &mut bytes);
    }
    bytes
}

fn messages(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("a message through core");
    group.throughput(Throughput::Elements(MESSAGES.into()));
    let one = block(&["factory/a/press-1/value"], QoS::AtMostOnce);
    let two = block(&["factory/a/press-1/value", "factory/a/press-2/value"], QoS::AtMostOnce);
    let mut copy = Vec::with_capacity(one.len());
    group.bench_function("limit: its bytes are copied", |bench| {
        bench.iter(|| {
            copy.clear();
            copy.extend_from_slice(black_box(&one));
            black_box(&copy);
        });
    });
    for (name, bytes, looks, receivers) in [
        ("QoS 0, one topic", &one, false, 1),
        ("QoS 0, one topic, 100 receivers", &one, false, 100),
        ("QoS 0, two topics in turn", &two, false, 1),
        ("QoS 0, a rule looks at it", &one, true, 1),
    ] {
        let broker = broker(looks.then(|| Arc::new(Looks) as Arc<dyn Hook>));
        let mut receivers: Vec<Client> =
            (0..receivers).map(|number| Client::connect(&broker, &format!("s{number}"), false)).collect();
        receivers.iter_mut().for_each(|client| client.subscribe(["factory/a/+/value".to_owned()]));
        let mut publisher = Client::connect(&broker, "publisher", false);
        group.bench_function(name, |bench| bench.iter(|| publisher.bytes(bytes)));
        // With a filter on the command line nothing was sent.
        assert_eq!(broker.counters().dropped.total(), 0);
    }
    let asked = Arc::new(Asked::default());
    let broker = broker([Arc::clone(&asked) as Arc<dyn Hook>]);
    let mut receiver = Client::connect(&broker, "receiver", false);
    receiver.subscribe(["factory/a/+/value".to_owned()]);
    let mut publisher = Client::connect(&broker, "publisher", false);
    group.bench_function("QoS 0, one topic, authorized by a hook before", |bench| {
        bench.iter(|| publisher.bytes(&one));
    });
    assert!(asked.0.load(Ordering::Relaxed) <= 1, "what a hook has said is remembered");
    group.finish();
}

/// All packets of both directions, the acknowledgements of the receiver included.
fn sessions(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("a message through both sessions");
    group.throughput(Throughput::Elements(MESSAGES.into()));
    for (name, qos) in [("QoS 1", QoS::AtLeastOnce), ("QoS 2", QoS::ExactlyOnce)] {
        let broker = broker([]);
        let mut receiver = Client::connect(&broker, "receiver", true);
        receiver.subscribe(["#".to_owned()]);
        receiver.drain.kept.as_ref().unwrap().lock().clear();
        let mut publisher = Client::connect(&broker, "publisher", false);
        let (bytes, released) = (block(&["factory/a/press-1/value"], qos), acks(PacketType::PubRel));
        let steps: &[PacketType] = match qos {
            QoS::ExactlyOnce => &[PacketType::PubRec, PacketType::PubComp],
            _ => &[PacketType::PubAck],
        };
        let (mut got, mut answers) = (Vec::new(), Vec::new());
        group.bench_function(name, |bench| {
            bench.iter(|| {
                publisher.bytes(&bytes);
                if qos == QoS::ExactlyOnce {
                    publisher.bytes(&released);
                }
                // The identifiers that the broker gives go on from block to block.
                got.clear();
                std::mem::swap(&mut *receiver.drain.kept.as_ref().unwrap().lock(), &mut got);
                for kind in steps {
                    answers.clear();
                    ids(&got, |id| encode_ack(*kind, id, ReasonCode::Success, Version::V311, &mut answers));
                    receiver.bytes(&answers);
                }
                receiver.drain.kept.as_ref().unwrap().lock().clear();
            });
        });
        assert_eq!(broker.client("receiver").map(|client| client.pending), Some(0));
    }
    group.finish();
}

/// The packet identifiers of the PUBLISH packets in `bytes`, all of which have the same size.
fn ids(bytes: &[u8], mut each: impl FnMut(PacketId)) {
    let topic_len = "factory/a/press-1/value".len();
    let frame_len = 2 + 2 + topic_len + 2 + PAYLOAD.len();
    for frame in
        bytes.chunks_exact(frame_len).filter(|frame| frame.first().is_some_and(|byte| byte >> 4 == 3))
    {
        if let Some(&[high, low]) = frame.get(4 + topic_len..6 + topic_len) {
            PacketId::new(u16::from_be_bytes([high, low])).into_iter().for_each(&mut each);
        }
    }
}

/// The first message to a topic finds out who receives it. How many subscriptions there are must not matter, only how
/// many match.
fn plans(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("a plan is made");
    for (filters, matching) in [(1_000, 1), (100_000, 1), (1_000_000, 1), (1_000, 10), (1_000, 100)] {
        let broker = broker([]);
        let mut others = Client::connect(&broker, "others", false);
        others.subscribe((0..filters).map(|number| {
            let (site, device) = (number / 1_000, number % 1_000);
            match number % 3 {
                0 => format!("site/{site}/device/{device}/value"),
                1 => format!("site/{site}/+/{device}/value"),
                _ => format!("site/{site}/device/{device}/#"),
            }
        }));
        let mut receivers: Vec<Client> =
            (0..matching).map(|number| Client::connect(&broker, &format!("s{number}"), false)).collect();
        receivers.iter_mut().for_each(|client| client.subscribe(["site/+/machine/#".to_owned()]));
        let mut publisher = Client::connect(&broker, "publisher", false);
        let mut number = 0_u64;
        let mut bytes = Vec::new();
        group.bench_function(format!("{filters} filters, {matching} of others match"), |bench| {
            bench.iter(|| {
                bytes.clear();
                publish(&format!("site/7/machine/{number}/value"), QoS::AtMostOnce, 1, &mut bytes);
                publisher.bytes(&bytes);
                number += 1;
            });
        });
        assert!(broker.counters().messages_sent.get() >= number * matching);
    }
    group.finish();
}

fn topics(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("a filter matches");
    let topic = "factory/a/press-1/temperature";
    for filter in ["factory/a/press-1/temperature", "factory/+/+/temperature", "factory/#"] {
        let parsed = TopicFilter::new(filter).unwrap();
        group.bench_function(filter, |bench| bench.iter(|| black_box(&parsed).matches(black_box(topic))));
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20);
    targets = messages, sessions, plans, topics
}
criterion_main!(benches);
