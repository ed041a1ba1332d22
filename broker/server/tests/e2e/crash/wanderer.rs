//! One that subscribes and unsubscribes, and whose subscriptions are looked at after a restart.

use std::net::SocketAddr;

use fastrand::Rng;
use weirmq_wire::{Ack, Connect, Packet, PacketId, QoS, Unsubscribe, Version};

use super::session::{Client, Link, Session, lasting, message, subscribe, text};

/// What is known of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// SUBACK came.
    There,
    /// UNSUBACK came, or it was never asked for.
    Gone,
    /// It was asked for a change, and there was no answer.
    Asked,
}

const NAME: &str = "wanderer";
const FILTERS: usize = 12;
/// What stands behind the others, so that it is known when all of them have come.
const LAST: &str = "wander/last";

pub(super) struct Wanderer {
    session: Session,
    known: [Known; FILTERS],
    /// Which one is being changed, and what it is after that.
    asked: Option<(usize, Known)>,
}

impl Wanderer {
    /// One that has its first subscription.
    pub(super) fn arrive(address: SocketAddr) -> Self {
        let mut session = Session::new(lasting(Version::V5, NAME));
        let (mut link, _) = Link::enter(address, &lasting(Version::V5, NAME));
        session.is_kept = true;
        link.send(&subscribe([LAST], QoS::AtLeastOnce));
        assert!(matches!(link.wait(), Packet::SubAck(_)));
        Self { session, known: [Known::Gone; FILTERS], asked: None }
    }

    /// After a restart the subscriptions are those that were acknowledged. To be called while it is not connected.
    pub(super) fn look(&mut self, address: SocketAddr, round: usize) {
        let (mut link, was_there) = Link::enter(address, &lasting(Version::V5, NAME));
        assert!(was_there, "the session of {NAME} is lost");
        let (mut probe, _) = Link::enter(address, &Connect::new(Version::V5, text("probe")));
        let topics: Vec<_> = (0..FILTERS).map(filter).chain([LAST.to_owned()]).collect();
        for (place, topic) in topics.iter().enumerate() {
            let packet_id = u16::try_from(place + 1).unwrap();
            probe.send(&Packet::Publish(message(topic, packet_id, round.to_string())));
        }
        for _ in &topics {
            assert!(matches!(probe.wait(), Packet::PubAck(_)));
        }
        let mut came = [false; FILTERS];
        loop {
            let Packet::Publish(publish) = link.wait() else { panic!("a PUBLISH is expected") };
            link.send(&Packet::PubAck(Ack::new(publish.packet_id.unwrap())));
            // Others are from rounds before, whose acknowledgement the broker did not live to take.
            if publish.payload == round.to_string() {
                match topics.iter().position(|topic| topic == publish.topic.as_str()) {
                    Some(place) if place < FILTERS => came[place] = true,
                    _ => break,
                }
            }
        }
        // What is acknowledged is settled when this has come.
        link.send(&Packet::PingReq);
        assert!(matches!(link.wait(), Packet::PingResp));
        for (place, came) in came.into_iter().enumerate() {
            let now = if came { Known::There } else { Known::Gone };
            let before = self.known[place];
            assert!(before == now || before == Known::Asked, "{}: {before:?}, but {now:?}", filter(place));
            self.known[place] = now;
        }
    }
}

fn filter(place: usize) -> String {
    format!("wander/{place}")
}

fn unsubscribe(filter: &str) -> Packet {
    let (packet_id, user_properties) = (PacketId::MIN, Vec::new());
    Packet::Unsubscribe(Unsubscribe { packet_id, user_properties, filters: vec![text(filter)] })
}

impl Client for Wanderer {
    fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    fn open(&mut self) {
        self.asked = None;
    }

    fn take(&mut self, packet: Packet) {
        match packet {
            Packet::SubAck(_) | Packet::UnsubAck(_) => {
                let (place, known) = self.asked.take().expect("it was asked for");
                self.known[place] = known;
            }
            Packet::Publish(publish) => {
                let ack = Ack::new(publish.packet_id.unwrap());
                self.session.send(&Packet::PubAck(ack));
            }
            other => panic!("{other:?}"),
        }
    }

    fn act(&mut self, dice: &mut Rng) {
        if self.asked.is_some() {
            return;
        }
        let place = dice.usize(..FILTERS);
        let (packet, known) = if dice.bool() {
            (subscribe([&*filter(place)], QoS::AtLeastOnce), Known::There)
        } else {
            (unsubscribe(&filter(place)), Known::Gone)
        };
        self.session.send(&packet);
        self.known[place] = Known::Asked;
        self.asked = Some((place, known));
    }
}
