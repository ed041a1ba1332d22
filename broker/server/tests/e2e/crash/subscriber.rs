//! One that receives, with a client's state for QoS 2 that outlives its connections.

use std::collections::{BTreeMap, HashMap, VecDeque};

use fastrand::Rng;
use weirmq_wire::{Ack, Packet, PacketId, Publish, QoS};

use super::session::{Client, Session, subscribe};

/// What a subscriber is to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Share {
    /// Everything.
    All,
    /// Its part of what a shared group gets.
    Part,
}

/// What has come on one topic.
#[derive(Default)]
pub(super) struct Seen {
    /// The numbers of the messages in the order in which they came, without repetitions.
    pub(super) numbers: Vec<usize>,
    /// How often each came without DUP.
    pub(super) fresh: HashMap<usize, usize>,
}

pub(super) struct Subscriber {
    session: Session,
    filters: Vec<String>,
    share: Share,
    is_subscribed: bool,
    /// QoS 2 messages for which PUBREL has not come.
    unreleased: HashMap<PacketId, (String, usize)>,
    /// Acknowledgements that are not sent yet.
    owed: VecDeque<Packet>,
    /// What became of each message, for who has to find out why it came twice.
    trails: BTreeMap<(String, usize), Vec<String>>,
    pub(super) seen: BTreeMap<String, Seen>,
    /// What came out of its turn, and what has come since.
    pub(super) fault: Vec<String>,
    /// Topics of wills, as often as they came.
    pub(super) wills: Vec<String>,
}

impl Subscriber {
    pub(super) fn new(session: Session, filters: &[&str], share: Share) -> Self {
        Self {
            session,
            filters: filters.iter().map(|filter| (*filter).to_owned()).collect(),
            share,
            is_subscribed: false,
            unreleased: HashMap::new(),
            owed: VecDeque::new(),
            trails: BTreeMap::new(),
            seen: BTreeMap::new(),
            fault: Vec::new(),
            wills: Vec::new(),
        }
    }

    pub(super) fn is_subscribed(&self) -> bool {
        self.is_subscribed
    }

    /// Whether it owes no acknowledgement, and none is owed to it.
    pub(super) fn is_settled(&self) -> bool {
        self.owed.is_empty() && self.unreleased.is_empty()
    }

    pub(super) fn share(&self) -> Share {
        self.share
    }

    pub(super) fn numbers(&self, topic: &str) -> &[usize] {
        self.seen.get(topic).map_or(&[], |seen| &seen.numbers)
    }

    fn trail(&mut self, topic: &str, number: usize, what: String) {
        let attempts = self.session.attempts();
        self.trails
            .entry((topic.to_owned(), number))
            .or_default()
            .push(format!("connection {attempts}: {what}"));
    }

    fn publish(&mut self, publish: &Publish) {
        let topic = publish.topic.as_str().to_owned();
        let payload = str::from_utf8(&publish.payload).unwrap();
        let number: usize = payload.split_whitespace().next().unwrap().parse().unwrap();
        self.trail(&topic, number, format!("PUBLISH dup={} {:?}", publish.dup, publish.packet_id));
        match (publish.qos, publish.packet_id) {
            (QoS::AtLeastOnce, Some(id)) => self.owed.push_back(Packet::PubAck(Ack::new(id))),
            (QoS::ExactlyOnce, Some(id)) => {
                self.owed.push_back(Packet::PubRec(Ack::new(id)));
                let before = self.unreleased.insert(id, (topic.clone(), number));
                if let Some(before) = before {
                    let name = self.session.name();
                    assert_eq!(before, (topic, number), "{name}: another message with an identifier in use");
                    assert!(publish.dup, "{name}: sent again without DUP");
                    return;
                }
            }
            other => panic!("{}: {other:?}", self.session.name()),
        }
        if topic.starts_with("wills/") {
            self.wills.push(topic);
        } else {
            self.note(topic, number, publish);
        }
    }

    fn note(&mut self, topic: String, number: usize, publish: &Publish) {
        if !self.fault.is_empty() {
            self.fault.push(format!("{topic} {number} dup={} {:?}", publish.dup, publish.packet_id));
            return;
        }
        let trail = self.trails.get(&(topic.clone(), number));
        let place = format!("{}, {topic}, message {number} ({trail:?})", self.session.name());
        let seen = self.seen.entry(topic).or_default();
        if !publish.dup {
            *seen.fresh.entry(number).or_default() += 1;
        }
        match (publish.qos, self.share) {
            (QoS::ExactlyOnce, Share::All) if number == seen.numbers.len() => {}
            (QoS::ExactlyOnce, Share::Part) if seen.numbers.last().is_none_or(|last| *last < number) => {}
            (QoS::ExactlyOnce, _) => {
                let last = seen.numbers.last();
                return self.fault.push(format!("{place}: not once, or not in order, after {last:?}"));
            }
            (_, Share::All) => {
                assert!(number <= seen.numbers.len(), "{place}: {} is missing before", seen.numbers.len());
                if number < seen.numbers.len() {
                    return;
                }
            }
            (_, Share::Part) => {}
        }
        seen.numbers.push(number);
    }
}

impl Client for Subscriber {
    fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    fn open(&mut self) {
        // The broker sends again what these would have answered.
        self.owed.clear();
        if !self.is_subscribed {
            let filters = self.filters.iter().map(|filter| &**filter);
            self.session.send(&subscribe(filters, QoS::ExactlyOnce));
        }
    }

    fn take(&mut self, packet: Packet) {
        match packet {
            Packet::SubAck(answer) => {
                assert!(answer.codes.iter().all(|code| !code.is_error()), "{answer:?}");
                self.is_subscribed = true;
            }
            Packet::Publish(publish) => self.publish(&publish),
            Packet::PubRel(ack) => {
                if let Some((topic, number)) = self.unreleased.remove(&ack.packet_id) {
                    self.trail(&topic, number, format!("PUBREL {}", ack.packet_id));
                }
                self.owed.push_back(Packet::PubComp(Ack::new(ack.packet_id)));
            }
            other => panic!("{}: {other:?}", self.session.name()),
        }
    }

    fn act(&mut self, dice: &mut Rng) {
        let owed: Vec<Packet> = self.owed.drain(..dice.usize(0..=self.owed.len())).collect();
        for packet in owed {
            if let Packet::PubRec(ack) = &packet
                && let Some((topic, number)) = self.unreleased.get(&ack.packet_id).cloned()
            {
                self.trail(&topic, number, format!("sent PUBREC {}", ack.packet_id));
            }
            self.session.send(&packet);
        }
    }
}
