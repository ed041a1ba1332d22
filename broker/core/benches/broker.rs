//! What the broker itself costs, without a socket: a PUBLISH from the read buffer into the outboxes of its receivers,
//! and the making of plans among many subscriptions.
//!
//! `cargo bench -p weirmq-core`. Beside the messages stands the copying of their bytes, below which nothing can be.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use support::{Client, MESSAGES, NoSinks, TOPIC, Welcome, ids, publish};
use weirmq_core::broker::{Broker, Settings};
use weirmq_core::hook::{
    Action, Actions, AuthenticateRequest, Authentication, AuthorizeRequest, Chains, Decision, Failure, Hook,
    HookPoint, HookPoints, Lease, Link, Observe, Reply,
};
use weirmq_core::message::Message;
use weirmq_core::time::Now;
use weirmq_core::topic::{TopicFilter, TopicName};
use weirmq_wire::{PacketId, PacketType, QoS, ReasonCode, Version, encode_ack};

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

fn broker(hooks: impl IntoIterator<Item = Arc<dyn Hook>>) -> Arc<Broker> {
    let mut settings = Settings::default();
    settings.limits.subscriptions_max = usize::MAX;
    settings.limits.packet_bytes_max = 128 << 20;
    let broker = Broker::new(settings, Arc::new(NoSinks));
    let links = hooks.into_iter().chain([Arc::new(Welcome) as Arc<dyn Hook>]).map(Link::new);
    broker.set_chains(Chains::new(links));
    broker
}

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
    let one = block(&[TOPIC], QoS::AtMostOnce);
    let two = block(&[TOPIC, "factory/a/press-2/value"], QoS::AtMostOnce);
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
        receiver.got(&mut Vec::new());
        let mut publisher = Client::connect(&broker, "publisher", false);
        let (bytes, released) = (block(&[TOPIC], qos), acks(PacketType::PubRel));
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
                receiver.got(&mut got);
                for kind in steps {
                    answers.clear();
                    ids(&got, |id| encode_ack(*kind, id, ReasonCode::Success, Version::V311, &mut answers));
                    receiver.bytes(&answers);
                }
                receiver.got(&mut got);
            });
        });
        assert_eq!(broker.client("receiver").map(|client| client.pending), Some(0));
    }
    group.finish();
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
