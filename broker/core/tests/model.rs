//! The broker beside a model of it that fits one screen: several clients of both versions connect, are cut off, take
//! over, subscribe, publish and acknowledge in whatever order, and each must have got exactly what the model says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::collections::BTreeMap;

use proptest::prelude::*;
use support::{V5, V311, World, id, will};
use weirmq_core::broker::Settings;
use weirmq_core::topic::TopicFilter;
use weirmq_wire::{Connect, Disconnect, Packet, PacketType, Publish, QoS, ReasonCode, SubscribeOptions};

const CLIENTS: [&str; 3] = ["a", "b", "c"];
const TOPICS: [&str; 3] = ["t/1", "t/2", "u"];
const FILTERS: [&str; 5] = ["t/1", "t/+", "#", "u", "t/#"];
const WINDOW: usize = 3;

#[derive(Debug, Clone)]
enum Step {
    Connect { client: usize, v5: bool, clean: bool, expiry_s: u32, will: bool },
    Cut { client: usize },
    Disconnect { client: usize },
    Subscribe { client: usize, filter: usize, qos: u8, no_local: bool },
    Unsubscribe { client: usize, filter: usize },
    Publish { client: usize, topic: usize, qos: u8, retain: bool, empty: bool },
    Acknowledge { client: usize },
    Wait { seconds: u32 },
}

fn step() -> impl Strategy<Value = Step> {
    let client = 0..CLIENTS.len();
    prop_oneof![
        3 => (client.clone(), any::<bool>(), any::<bool>(), prop_oneof![Just(0), Just(100)], any::<bool>())
            .prop_map(|(client, v5, clean, expiry_s, will)| Step::Connect { client, v5, clean, expiry_s, will }),
        1 => client.clone().prop_map(|client| Step::Cut { client }),
        1 => client.clone().prop_map(|client| Step::Disconnect { client }),
        4 => (client.clone(), 0..FILTERS.len(), 0..3_u8, any::<bool>())
            .prop_map(|(client, filter, qos, no_local)| Step::Subscribe { client, filter, qos, no_local }),
        1 => (client.clone(), 0..FILTERS.len())
            .prop_map(|(client, filter)| Step::Unsubscribe { client, filter }),
        8 => (client.clone(), 0..TOPICS.len(), 0..3_u8, prop::bool::weighted(0.3), prop::bool::weighted(0.1))
            .prop_map(|(client, topic, qos, retain, empty)| Step::Publish { client, topic, qos, retain, empty }),
        3 => client.prop_map(|client| Step::Acknowledge { client }),
        1 => prop_oneof![Just(50), Just(150)].prop_map(|seconds| Step::Wait { seconds }),
    ]
}

/// A message as a receiver sees it: payload, QoS, RETAIN.
type Seen = (String, u8, bool);

#[derive(Default)]
struct Model {
    now_s: u32,
    sessions: BTreeMap<usize, Session>,
    /// By topic: payload, QoS, publisher.
    retained: BTreeMap<usize, (String, u8, usize)>,
    /// In which order they were published.
    order: Vec<usize>,
}

#[derive(Default)]
struct Session {
    connected: bool,
    v5: bool,
    expiry_s: u32,
    ends_at_s: u32,
    will: Option<String>,
    filters: BTreeMap<usize, (u8, bool)>,
    /// QoS 1 and 2 that are not acknowledged; the first `WINDOW` are sent.
    waiting: Vec<Seen>,
    /// QoS 0 of this connection that was not looked at.
    at_once: Vec<Seen>,
}

fn matches(filter: usize, topic: usize) -> bool {
    TopicFilter::new(FILTERS[filter]).unwrap().matches(TOPICS[topic])
}

impl Session {
    fn get(&mut self, seen: Seen) {
        if seen.1 > 0 {
            self.waiting.push(seen);
        } else if self.connected {
            self.at_once.push(seen);
        }
    }

    fn expected(&self) -> (Vec<Seen>, Vec<Seen>) {
        (self.at_once.clone(), self.waiting.iter().take(WINDOW).cloned().collect())
    }
}

impl Model {
    fn publish(&mut self, publisher: usize, topic: usize, qos: u8, payload: &str) {
        for (client, session) in &mut self.sessions {
            let granted = session
                .filters
                .iter()
                .filter(|(filter, (_, no_local))| {
                    matches(**filter, topic) && !(*no_local && *client == publisher)
                })
                .map(|(_, (qos, _))| *qos)
                .max();
            if let Some(granted) = granted {
                session.get((payload.to_owned(), qos.min(granted), false));
            }
        }
    }

    fn retain(&mut self, publisher: usize, topic: usize, qos: u8, payload: &str) {
        self.order.retain(|other| *other != topic);
        self.retained.remove(&topic);
        if !payload.is_empty() {
            self.retained.insert(topic, (payload.to_owned(), qos, publisher));
            self.order.push(topic);
        }
    }

    /// The connection of a client is over; answers the will that is to be published.
    fn part(&mut self, client: usize, orderly: bool, replaced: bool) -> Option<String> {
        let session = self.sessions.get_mut(&client)?;
        session.connected = false;
        session.at_once.clear();
        session.ends_at_s = self.now_s.saturating_add(session.expiry_s);
        let will = session.will.take().filter(|_| !orderly);
        if session.expiry_s == 0 || replaced {
            self.sessions.remove(&client);
        }
        will
    }
}

/// The broker's side, and what its clients have got and not acknowledged.
struct Run {
    world: World,
    model: Model,
    clients: BTreeMap<usize, (support::Client, Vec<Publish>)>,
    number: usize,
    packet_id: u16,
}

impl Run {
    fn next_id(&mut self) -> weirmq_wire::PacketId {
        self.packet_id = self.packet_id % 60_000 + 1;
        id(self.packet_id)
    }

    fn connected(&self, client: usize) -> bool {
        self.model.sessions.get(&client).is_some_and(|session| session.connected)
    }

    fn take(&mut self, step: Step) {
        // Every message has a moment of its own.
        self.world.advance(0.001);
        match step {
            Step::Connect { client, v5, clean, expiry_s, will } => {
                self.connect(client, v5, clean, expiry_s, will)
            }
            Step::Cut { client } if self.connected(client) => {
                self.clients.remove(&client).unwrap().0.cut(&self.world);
                if let Some(will) = self.model.part(client, false, false) {
                    self.model.publish(client, 0, 1, &will);
                }
            }
            Step::Disconnect { client } if self.connected(client) => {
                self.clients
                    .get_mut(&client)
                    .unwrap()
                    .0
                    .send(&self.world, Packet::Disconnect(Disconnect::new(ReasonCode::Success)));
                self.look();
                self.clients.remove(&client).unwrap().0.cut(&self.world);
                self.model.part(client, true, false);
            }
            Step::Subscribe { client, filter, qos, no_local } if self.connected(client) => {
                self.subscribe(client, filter, qos, no_local);
            }
            Step::Unsubscribe { client, filter } if self.connected(client) => {
                let packet_id = self.next_id();
                let filters = vec![support::text(FILTERS[filter])];
                let packet = weirmq_wire::Unsubscribe { packet_id, user_properties: Vec::new(), filters };
                let (there, _) = self.clients.get_mut(&client).unwrap();
                there.send(&self.world, Packet::Unsubscribe(packet));
                self.model.sessions.get_mut(&client).unwrap().filters.remove(&filter);
            }
            Step::Publish { client, topic, qos, retain, empty } if self.connected(client) => {
                self.number += 1;
                let payload = if empty { String::new() } else { self.number.to_string() };
                let packet_id = self.next_id();
                let (there, _) = self.clients.get_mut(&client).unwrap();
                there.publish_with(&self.world, TOPICS[topic], qos, &payload, |publish| {
                    publish.retain = retain;
                    publish.packet_id = publish.packet_id.map(|_| packet_id);
                });
                if qos == 2 {
                    there.ack(&self.world, PacketType::PubRel, packet_id);
                }
                if retain {
                    self.model.retain(client, topic, qos, &payload);
                }
                self.model.publish(client, topic, qos, &payload);
            }
            Step::Acknowledge { client } if self.connected(client) => self.acknowledge(client),
            Step::Wait { seconds } => {
                self.world.advance(f64::from(seconds));
                self.model.now_s += seconds;
                let now_s = self.model.now_s;
                self.model.sessions.retain(|_, session| session.connected || session.ends_at_s > now_s);
            }
            _ => {}
        }
        self.look();
        self.compare();
    }

    fn connect(&mut self, client: usize, v5: bool, clean: bool, expiry_s: u32, with_will: bool) {
        let version = if v5 { V5 } else { V311 };
        self.number += 1;
        let payload = format!("will {}", self.number);
        let mut connect = Connect::new(version, support::text(CLIENTS[client]));
        connect.clean_start = clean;
        connect.session_expiry_interval_s = v5.then_some(expiry_s);
        if with_will {
            connect.will = will(TOPICS[0], &payload, 0);
            connect.will.as_mut().unwrap().qos = QoS::AtLeastOnce;
        }
        let mut there = self.world.socket(version);
        there.send(&self.world, Packet::Connect(Box::new(connect)));
        let Some(Packet::ConnAck(connack)) = there.next() else { panic!("CONNACK") };
        let mut old_will = None;
        if self.connected(client) {
            let (mut old, _) = self.clients.remove(&client).unwrap();
            assert!(old.is_closed());
            old.cut(&self.world);
            old_will = self.model.part(client, false, clean);
        }
        if clean {
            self.model.sessions.remove(&client);
        }
        let present = self.model.sessions.contains_key(&client);
        assert_eq!(connack.session_present, present);
        let session = self.model.sessions.entry(client).or_default();
        session.connected = true;
        session.v5 = v5;
        session.expiry_s = match (v5, clean) {
            (true, _) => expiry_s,
            (false, true) => 0,
            (false, false) => 604_800,
        };
        session.will = with_will.then_some(payload);
        self.clients.insert(client, (there, Vec::new()));
        if let Some(will) = old_will {
            self.model.publish(client, 0, 1, &will);
        }
    }

    fn subscribe(&mut self, client: usize, filter: usize, qos: u8, no_local: bool) {
        let no_local = no_local && self.model.sessions[&client].v5;
        let packet_id = self.next_id();
        let options = SubscribeOptions { qos: support::qos(qos), no_local, ..SubscribeOptions::default() };
        let filters = vec![(support::text(FILTERS[filter]), options)];
        let packet =
            weirmq_wire::Subscribe { packet_id, subscription_id: None, user_properties: Vec::new(), filters };
        self.clients.get_mut(&client).unwrap().0.send(&self.world, Packet::Subscribe(packet));
        let Model { sessions, retained, order, .. } = &mut self.model;
        let session = sessions.get_mut(&client).unwrap();
        session.filters.insert(filter, (qos, no_local));
        for topic in order.iter().filter(|topic| matches(filter, **topic)) {
            let (payload, published, publisher) = &retained[topic];
            if !(no_local && *publisher == client) {
                session.get((payload.clone(), qos.min(*published), true));
            }
        }
    }

    fn acknowledge(&mut self, client: usize) {
        let (there, got) = self.clients.get_mut(&client).unwrap();
        for publish in std::mem::take(got) {
            let Some(packet_id) = publish.packet_id else { continue };
            if publish.qos == QoS::AtLeastOnce {
                there.ack(&self.world, PacketType::PubAck, packet_id);
            } else {
                there.ack(&self.world, PacketType::PubRec, packet_id);
                there.ack(&self.world, PacketType::PubComp, packet_id);
            }
        }
        let session = self.model.sessions.get_mut(&client).unwrap();
        session.at_once.clear();
        let sent = session.waiting.len().min(WINDOW);
        session.waiting.drain(..sent);
    }

    /// Takes in what has come.
    fn look(&mut self) {
        for (there, got) in self.clients.values_mut() {
            for packet in there.all() {
                match packet {
                    Packet::Publish(publish) => got.push(publish),
                    Packet::SubAck(suback) => assert!(suback.codes.iter().all(|code| !code.is_error())),
                    Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubComp(ack) => {
                        assert!(!ack.code.is_error());
                    }
                    Packet::PubRel(_) | Packet::UnsubAck(_) => {}
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    fn compare(&self) {
        for (client, session) in self.model.sessions.iter().filter(|(_, session)| session.connected) {
            let (_, got) = &self.clients[client];
            let seen = |publish: &Publish| {
                let payload = String::from_utf8(publish.payload.to_vec()).unwrap();
                (payload, publish.qos.as_u8(), publish.retain)
            };
            let (waits, at_once): (Vec<_>, Vec<_>) = got.iter().map(seen).partition(|seen| seen.1 > 0);
            assert_eq!((at_once, waits), session.expected(), "client {}", CLIENTS[*client]);
        }
        let footprint = self.world.broker.footprint();
        assert_eq!(footprint.sessions, self.model.sessions.len());
        assert_eq!(footprint.retained_messages, self.model.retained.len());
        let filters: usize = self.model.sessions.values().map(|session| session.filters.len()).sum();
        assert_eq!(self.world.broker.counters().subscriptions.get(), filters as u64);
        assert_eq!(self.world.broker.counters().clients_connected.get(), self.clients.len() as u64);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn the_broker_does_what_the_model_does(steps in proptest::collection::vec(step(), 1..80)) {
        let mut settings = Settings::default();
        settings.limits.inflight_max = WINDOW as u16;
        let world = World::with(settings, []);
        let (model, clients) = (Model::default(), BTreeMap::new());
        let mut run = Run { world, model, clients, number: 0, packet_id: 0 };
        for step in steps {
            run.take(step);
        }
    }
}
