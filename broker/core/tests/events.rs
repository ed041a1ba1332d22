//! Events about single messages: told to those who asked for them, made for nobody else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::{Arc, Mutex};

use support::{V5, VERSIONS, Welcome, World, drive};
use weirmq_core::broker::Settings;
use weirmq_core::hook::{Chains, Draft, Event, EventKind, EventKinds, Hook, HookPoint, HookPoints, Link};
use weirmq_core::limits::{Limits, QueueFull};
use weirmq_core::message::{Properties, QoS};
use weirmq_core::time::Now;
use weirmq_wire::{PacketType, ReasonCode};

/// Writes down what it is told.
struct Scribe {
    kinds: EventKinds,
    told: Mutex<Vec<String>>,
}

impl Scribe {
    fn of(kinds: &[EventKind]) -> Arc<Self> {
        Arc::new(Self { kinds: kinds.iter().copied().collect(), told: Mutex::default() })
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.told.lock().unwrap())
    }
}

impl Hook for Scribe {
    fn name(&self) -> &str {
        "scribe"
    }

    fn points(&self) -> HookPoints {
        HookPoints::NONE.with(HookPoint::Lifecycle)
    }

    fn events(&self) -> EventKinds {
        self.kinds
    }

    fn on_event(&self, event: &Event, _: Now) {
        let line = match event {
            Event::MessageDelivered { client_id, topic } => format!("{client_id} is handed {topic}"),
            Event::MessageAcked { client_id, topic } => format!("{client_id} acks {topic}"),
            Event::MessageDropped { client_id: Some(client_id), topic, reason } => {
                format!("{client_id} loses {topic}: {reason}")
            }
            Event::MessageDropped { client_id: None, topic, reason } => {
                format!("nobody gets {topic}: {reason}")
            }
            other => format!("{:?}", other.kind()),
        };
        self.told.lock().unwrap().push(line);
    }
}

const ALL: [EventKind; 3] = [EventKind::MessageDropped, EventKind::MessageDelivered, EventKind::MessageAcked];

fn world(scribe: &Arc<Scribe>, limits: Limits) -> World {
    let settings = Settings { limits, ..Settings::default() };
    World::with(settings, [Arc::clone(scribe) as Arc<dyn Hook>])
}

#[test]
fn a_message_is_told_of_when_it_is_handed_over_and_when_it_is_acknowledged_whichever_way_it_goes() {
    for version in VERSIONS {
        let scribe = Scribe::of(&ALL);
        let world = world(&scribe, Limits::default());
        let (mut s, mut p) = (world.client(version, "s"), world.client(version, "p"));
        s.subscribe(&world, "t/#", 2);
        // The second QoS 0 message goes the short way.
        for payload in ["0", "0"] {
            p.publish(&world, "t/0", 0, payload);
        }
        assert_eq!(scribe.take(), ["s is handed t/0"; 2]);
        s.payloads();
        p.publish(&world, "t/1", 1, "1");
        let publish = s.next_publish();
        s.ack(&world, PacketType::PubAck, publish.packet_id.unwrap());
        assert_eq!(scribe.take(), ["s is handed t/1", "s acks t/1"]);
        p.publish(&world, "t/2", 2, "2");
        let publish = s.next_publish();
        assert_eq!(scribe.take(), ["s is handed t/2"]);
        s.ack(&world, PacketType::PubRec, publish.packet_id.unwrap());
        assert_eq!(scribe.take(), ["s acks t/2"], "it has it from PUBREC on");
        s.ack(&world, PacketType::PubComp, publish.packet_id.unwrap());
        assert_eq!(scribe.take(), [""; 0], "once is enough");
    }
}

#[test]
fn what_is_sent_again_is_told_of_once_and_what_a_client_refuses_is_not_acknowledged() {
    let scribe = Scribe::of(&ALL);
    let world = world(&scribe, Limits::default());
    let (mut s, _) = world.persistent(V5, "s", 60);
    let mut p = world.client(V5, "p");
    s.subscribe(&world, "t", 2);
    p.publish(&world, "t", 1, "1");
    assert_eq!(scribe.take(), ["s is handed t"]);
    s.cut(&world);
    let (mut s, _) = world.persistent(V5, "s", 60);
    let again = s.next_publish();
    assert!(again.dup);
    assert_eq!(scribe.take(), [""; 0]);
    s.ack_with(&world, PacketType::PubAck, again.packet_id.unwrap(), ReasonCode::QuotaExceeded);
    // MQTT has no more to say about a PUBACK with an error than that the message is done with.
    assert_eq!(scribe.take(), ["s acks t"]);
}

#[test]
fn a_message_that_is_dropped_is_told_of_with_its_reason_where_it_is_counted() {
    let scribe = Scribe::of(&ALL);
    let limits = Limits { queue_messages_max: 1, queue_full: QueueFull::DropOldest, ..Limits::default() };
    let mut world = world(&scribe, limits);
    let (mut s, _) = world.persistent(V5, "s", 60);
    let mut p = world.client(V5, "p");
    s.subscribe(&world, "#", 1);
    s.cut(&world);
    for (topic, qos) in [("a", 0), ("b", 1), ("c", 1)] {
        p.publish(&world, topic, qos, "x");
    }
    assert_eq!(scribe.take(), ["s loses a: no_receiver_online", "s loses b: queue_full"]);
    world.advance(61.0);
    assert_eq!(scribe.take(), ["s loses c: session_ended"]);
    assert_eq!(world.broker.counters().dropped.total(), 3);
}

#[test]
fn who_asked_for_other_events_is_not_told_and_what_plugins_publish_is_told_to_nobody() {
    let scribe = Scribe::of(&[EventKind::Connected]);
    let world = world(&scribe, Limits::default());
    let mut s = world.client(V5, "s");
    s.subscribe(&world, "t", 0);
    let mut p = world.client(V5, "p");
    p.publish(&world, "t", 0, "x");
    assert_eq!(scribe.take(), ["Connected"; 2]);
    // Asked for from now on, by new chains.
    let scribe = Scribe::of(&ALL);
    world.broker.set_chains(Chains::new([
        Link::new(Arc::new(Welcome)),
        Link::new(Arc::clone(&scribe) as Arc<dyn Hook>),
    ]));
    p.publish(&world, "t", 0, "x");
    assert_eq!(scribe.take(), ["s is handed t"]);
    let draft = Draft {
        topic: "t".to_owned(),
        payload: "x".into(),
        qos: QoS::AtMostOnce,
        retain: false,
        properties: Properties::default(),
        expires_in: None,
    };
    drive(world.broker.publish_for_plugin(&"plugin".into(), draft, 1, world.now()).ok().unwrap());
    assert_eq!(s.payloads().len(), 3, "it is delivered");
    assert_eq!(scribe.take(), [""; 0], "a plugin that publishes because of events would go round for ever");
}
