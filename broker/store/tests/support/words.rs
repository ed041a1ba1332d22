//! Records for tests: by hand, and by proptest. Messages and sessions are made from a seed that they carry, so
//! that an oracle need keep no more than the seed.

use std::num::NonZeroU32;
use std::sync::Arc;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use weirmq_core::message::{Message, Properties, Publisher, QoS};
use weirmq_core::topic::TopicName;
use weirmq_store::Event;
use weirmq_store::event::{
    Identifiers, PacketId, Published, Recipient, Recipients, RetainChange, Sender, SessionHeader, Stage,
    StoredMessage, StoredWill, Subscription,
};

pub fn id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

pub fn qos(number: u8) -> QoS {
    QoS::try_from(number % 3).unwrap()
}

/// Messages from this seed on are like each other but for their payload and when they were received.
const PLAIN: u32 = 1_000;

/// The message that this seed stands for; it says so itself.
pub fn message(seed: u32) -> StoredMessage {
    if seed >= PLAIN {
        return plain(seed);
    }
    let publisher = match seed % 4 {
        0 => Publisher::Client { client_id: "sender".into(), principal: "someone".into() },
        1 => Publisher::Rule("a rule".into()),
        2 => Publisher::Plugin("a plugin".into()),
        _ => Publisher::Broker,
    };
    let properties = Properties {
        payload_is_utf8: (seed.is_multiple_of(3)).then_some(seed.is_multiple_of(2)),
        content_type: (seed.is_multiple_of(5)).then(|| "text/plain".into()),
        response_topic: (seed.is_multiple_of(7)).then(|| "answer/here".into()),
        correlation_data: (seed % 3 == 1).then(|| Bytes::from(seed.to_le_bytes().to_vec())),
        user: (0..seed % 3).map(|n| (n.to_string().into(), "value".into())).collect(),
    };
    let message = Message {
        topic: TopicName::new(&format!("topic/{}", seed % 3)).unwrap(),
        payload: vec![seed as u8; (seed % 97) as usize * (1 + (seed % 2) as usize * 4)].into(),
        qos: qos(seed as u8),
        retain: seed % 2 == 1,
        properties,
        publisher,
        received_unix_ms: seed.into(),
        expires_at: None,
        hops: (seed % 8) as u8,
    };
    StoredMessage {
        message: Arc::new(message),
        expires_unix_ms: (seed.is_multiple_of(4)).then_some(1 << 41),
        sealed_by: if seed.is_multiple_of(5) { vec!["seal".into()] } else { Vec::new() },
    }
}

fn plain(seed: u32) -> StoredMessage {
    let message = Message {
        topic: TopicName::new("topic/plain").unwrap(),
        payload: vec![seed as u8; (seed % 97) as usize].into(),
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: Properties::default(),
        publisher: Publisher::Client { client_id: "sender".into(), principal: "someone".into() },
        received_unix_ms: seed.into(),
        expires_at: None,
        hops: 0,
    };
    StoredMessage { message: Arc::new(message), expires_unix_ms: None, sealed_by: Vec::new() }
}

/// The session that this seed stands for; it says so itself.
pub fn session(seed: u32) -> SessionHeader {
    let will = StoredWill {
        topic: TopicName::new("last/words").unwrap(),
        payload: Bytes::from_static(b"gone"),
        qos: qos(seed as u8),
        retain: seed.is_multiple_of(2),
        properties: message(seed).message.properties.clone(),
        expiry_s: (seed.is_multiple_of(3)).then_some(60),
        delay_s: seed % 50,
    };
    SessionHeader {
        principal: format!("principal {}", seed % 3).into(),
        expiry_s: seed,
        ends_at_unix_ms: (seed.is_multiple_of(2)).then_some(1 << 42),
        will: (seed % 4 < 2).then(|| Box::new(will)),
        will_due_unix_ms: (seed % 4 == 1).then_some(1 << 40),
    }
}

pub fn recipient(client: &str) -> Recipient {
    Recipient {
        client: client.into(),
        qos: QoS::AtLeastOnce,
        retain: false,
        identifiers: Identifiers::default(),
        stage: Stage::Waiting,
    }
}

/// A message for these clients.
pub fn publish(seed: u32, clients: &[&str]) -> Event {
    Event::Published(Published {
        stored: message(seed),
        recipients: clients.iter().map(|client| recipient(client)).collect(),
        retain: RetainChange::Keep,
        taken_from: None,
    })
}

pub fn settled(client: &str, number: u64) -> Event {
    Event::Settled { client: client.into(), number, more: 0 }
}

fn client() -> impl Strategy<Value = Arc<str>> {
    prop::sample::select(vec!["a", "b", "c"]).prop_map(Arc::from)
}

fn stage() -> impl Strategy<Value = Stage> {
    prop_oneof![
        4 => Just(Stage::Waiting),
        2 => (1_u16..6).prop_map(|n| Stage::UnderWay(id(n))),
        1 => (1_u16..6).prop_map(|n| Stage::Released(id(n))),
    ]
}

fn recipients() -> impl Strategy<Value = Recipients> {
    let one = (0_u8..3, any::<bool>(), vec(1_u32..300, 0..3), stage());
    vec(one, 0..4).prop_map(|all| {
        let clients = ["a", "b", "c"];
        all.into_iter()
            .zip(clients)
            .map(|((number, retain, identifiers, stage), client)| Recipient {
                client: client.into(),
                qos: qos(number),
                retain,
                identifiers: identifiers.into_iter().collect(),
                stage,
            })
            .collect()
    })
}

fn sender() -> impl Strategy<Value = Sender> {
    (client(), 1_u16..6).prop_map(|(client, number)| Sender { client, packet_id: id(number) })
}

fn published() -> impl Strategy<Value = Event> {
    let retain = prop::sample::select(vec![RetainChange::Keep, RetainChange::Replace, RetainChange::Clear]);
    (0_u32..1000, recipients(), retain, prop::option::weighted(0.2, sender())).prop_map(
        |(seed, recipients, retain, taken_from)| {
            Event::Published(Published { stored: message(seed), recipients, retain, taken_from })
        },
    )
}

/// Messages of which some are written in few words: they are like one before them.
fn alike() -> impl Strategy<Value = Vec<Event>> {
    let clients = prop::sample::subsequence(vec!["a", "b", "c"], 0..3);
    let stages = vec(prop_oneof![Just(Stage::Waiting), (1_u16..6).prop_map(|n| Stage::UnderWay(id(n)))], 3);
    (clients, vec((PLAIN..2 * PLAIN, stages), 2..8)).prop_map(|(clients, messages)| {
        let of = |(seed, stages): (u32, Vec<Stage>)| {
            let recipients = clients.iter().zip(stages);
            Event::Published(Published {
                stored: message(seed),
                recipients: recipients.map(|(to, stage)| Recipient { stage, ..recipient(to) }).collect(),
                retain: RetainChange::Keep,
                taken_from: None,
            })
        };
        messages.into_iter().map(of).collect()
    })
}

fn subscribed() -> impl Strategy<Value = Event> {
    (client(), 0_u32..4, 0_u8..3, any::<bool>(), any::<bool>(), 0_u32..400).prop_map(
        |(client, filter, number, no_local, retain_as_published, identifier)| Event::Subscribed {
            client,
            filter: format!("filter/{filter}/#").into(),
            subscription: Subscription {
                qos: qos(number),
                no_local,
                retain_as_published,
                identifier: NonZeroU32::new(identifier),
            },
        },
    )
}

fn keyed() -> impl Strategy<Value = Event> {
    let key = (0_u8..4).prop_map(|n| Bytes::from(vec![n; 3]));
    let namespace = prop::sample::select(vec!["n", "m"]).prop_map(Arc::from);
    (namespace, key, prop::option::weighted(0.7, vec(any::<u8>(), 0..200))).prop_map(
        |(namespace, key, value): (Arc<str>, _, _)| match value {
            Some(value) => Event::KeySet { namespace, key, value: value.into() },
            None => Event::KeyRemoved { namespace, key },
        },
    )
}

fn settled_more() -> impl Strategy<Value = u32> {
    prop_oneof![3 => Just(0), 1 => 1_u32..20]
}

/// Any event; numbers are such that some of them are known.
pub fn event() -> impl Strategy<Value = Event> {
    let number = || 1_u64..120;
    let sink = || prop::sample::select(vec!["s", "t"]).prop_map(Arc::<str>::from);
    prop_oneof![
        8 => published(),
        2 => (client(), 0_u32..1000).prop_map(|(client, seed)| Event::SessionSet { client, session: session(seed) }),
        1 => client().prop_map(|client| Event::SessionEnded { client }),
        2 => subscribed(),
        1 => (client(), 0_u32..4).prop_map(|(client, n)| Event::Unsubscribed { client, filter: format!("filter/{n}/#").into() }),
        3 => (client(), number(), 1_u16..6).prop_map(|(client, number, n)| Event::UnderWay { client, number, packet_id: id(n) }),
        2 => (client(), number()).prop_map(|(client, number)| Event::Released { client, number }),
        6 => (client(), number(), settled_more()).prop_map(|(client, number, more)| Event::Settled { client, number, more }),
        1 => sender().prop_map(|from| Event::Taken { from }),
        1 => sender().prop_map(|from| Event::Freed { from }),
        1 => (0_u32..3).prop_map(|seed| Event::RetainedCleared { topic: message(seed).message.topic.clone() }),
        2 => (sink(), vec(any::<u8>(), 0..100)).prop_map(|(sink, record)| Event::SinkAppended { sink, record: record.into() }),
        2 => (sink(), number()).prop_map(|(sink, number)| Event::SinkSettled { sink, number }),
        2 => keyed(),
    ]
}

pub fn record() -> impl Strategy<Value = Vec<Event>> {
    prop_oneof![4 => vec(event(), 1..4), 1 => alike()]
}

/// A fixed mix of records, the same for the same seed.
pub fn records(count: usize, seed: u8) -> Vec<Vec<Event>> {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    vec(record(), count).new_tree(&mut runner).unwrap().current()
}
