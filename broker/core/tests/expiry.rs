//! A message is not delivered after its time, wherever it waits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use support::{V5, V311, VERSIONS, World, extras, id};
use weirmq_core::broker::Settings;
use weirmq_core::counters::{DropReason, Limit};
use weirmq_wire::{PacketType, Publish, ReasonCode};

fn expiring(seconds: u32) -> impl Fn(&mut Publish) {
    move |publish| publish.extras = extras(|extras| extras.message_expiry_interval_s = Some(seconds))
}

fn told(publish: &Publish) -> Option<u32> {
    publish.extras.as_ref().and_then(|extras| extras.message_expiry_interval_s)
}

#[test]
fn a_retained_message_counts_down_and_is_gone_after_it() {
    for version in VERSIONS {
        let mut world = World::new();
        let mut p = world.client(V5, "p");
        p.publish_with(&world, "r", 0, "x", |publish| {
            publish.retain = true;
            expiring(10)(publish);
        });
        world.advance(3.5);
        let mut s = world.client(version, "s");
        s.subscribe(&world, "r", 0);
        assert_eq!(told(&s.expect_one_publish()), (version == V5).then_some(7));
        world.advance(7.0);
        s.subscribe(&world, "r", 0);
        s.subscribe(&world, "#", 0);
        s.expect_nothing();
        world.broker.tidy(world.now());
        assert_eq!(world.broker.footprint().retained_messages, 0);
        assert_eq!(world.broker.footprint().retained_bytes, 0);
    }
}

#[test]
fn what_waits_for_a_slow_client_expires_and_is_counted() {
    let mut world = World::new();
    let (mut s, _) = world.connect(V5, "s", |connect| connect.receive_max = std::num::NonZeroU16::MIN);
    s.subscribe(&world, "q", 1);
    let mut p = world.client(V5, "p");
    for (payload, seconds) in [("1", 100), ("2", 3), ("3", 100)] {
        p.publish_with(&world, "q", 1, payload, expiring(seconds));
    }
    let first = s.expect_one_publish();
    world.advance(4.0);
    s.ack(&world, PacketType::PubAck, first.packet_id.unwrap());
    let third = s.expect_one_publish();
    assert_eq!((third.payload.as_ref(), told(&third)), (&b"3"[..], Some(96)));
    assert_eq!(world.broker.counters().dropped.get(DropReason::Expired), 1);
    assert!(world.broker.client("s").unwrap().drops.contains(&(DropReason::Expired, 1)));
}

#[test]
fn a_message_that_was_sent_is_completed_however_long_that_takes() {
    for version in VERSIONS {
        for qos in [1, 2] {
            let mut world = World::new();
            let (mut s, _) = world.persistent(version, "s", 1_000);
            s.subscribe(&world, "q", 2);
            world.client(V5, "p").publish_with(&world, "q", qos, "x", expiring(3));
            let first = s.expect_one_publish();
            s.cut(&world);
            world.advance(100.0);
            let (mut s, _) = world.persistent(version, "s", 1_000);
            let again = s.expect_one_publish();
            assert_eq!((again.packet_id, again.dup), (first.packet_id, true));
        }
    }
}

#[test]
fn a_qos_2_message_from_a_client_is_completed_after_it_expired() {
    let mut world = World::new();
    let mut p = world.client(V5, "p");
    p.publish_with(&world, "q", 2, "x", expiring(1));
    p.expect_ack(PacketType::PubRec, id(7), ReasonCode::NoMatchingSubscribers);
    world.advance(10.0);
    p.ack(&world, PacketType::PubRel, id(7));
    p.expect_ack(PacketType::PubComp, id(7), ReasonCode::Success);
}

#[test]
fn an_interval_of_0_is_for_those_who_are_there() {
    for version in VERSIONS {
        let mut world = World::new();
        let mut here = world.client(version, "here");
        here.subscribe(&world, "q", 1);
        let (mut away, _) = world.persistent(version, "away", 100);
        away.subscribe(&world, "q", 1);
        away.cut(&world);
        world.client(V5, "p").publish_with(&world, "q", 1, "x", expiring(0));
        assert_eq!(here.payloads(), ["x"]);
        world.advance(0.001);
        world.persistent(version, "away", 100).0.expect_nothing();
    }
}

#[test]
fn a_bound_on_expiry_holds_for_who_asks_for_more_and_for_who_asks_for_none() {
    let mut settings = Settings::default();
    settings.limits.message_expiry_s_max = 10;
    let world = World::with(settings, []);
    let mut s = world.client(V5, "s");
    s.subscribe(&world, "q", 0);
    let mut p = world.client(V5, "p");
    p.publish_with(&world, "q", 0, "x", expiring(60));
    p.publish(&world, "q", 0, "x");
    p.publish_with(&world, "q", 0, "x", expiring(5));
    world.client(V311, "old").publish(&world, "q", 0, "x");
    let got: Vec<_> = s.drain(&world).iter().map(told).collect();
    assert_eq!(got, [Some(10), Some(10), Some(5), Some(10)]);
    assert_eq!(world.broker.counters().limits.get(Limit::MessageExpiry), 1);
}

#[test]
fn a_store_that_is_full_of_what_has_expired_has_room() {
    let mut settings = Settings::default();
    settings.limits.retained_messages_max = 2;
    let mut world = World::with(settings, []);
    let mut p = world.client(V5, "p");
    for topic in ["1", "2"] {
        p.publish_with(&world, topic, 0, "x", |publish| {
            publish.retain = true;
            expiring(1)(publish);
        });
    }
    world.advance(2.0);
    p.retain(&world, "3", "x");
    assert_eq!(world.broker.footprint().retained_messages, 1);
    assert_eq!(world.broker.counters().dropped.total(), 0);
}

#[test]
fn a_queue_that_is_full_of_what_has_expired_has_room() {
    let mut settings = Settings::default();
    settings.limits.queue_messages_max = 2;
    let mut world = World::with(settings, []);
    let (mut s, _) = world.persistent(V5, "s", 1_000);
    s.subscribe(&world, "q", 1);
    s.cut(&world);
    let mut p = world.client(V5, "p");
    p.publish_with(&world, "q", 1, "1", expiring(1));
    p.publish_with(&world, "q", 1, "2", expiring(1));
    world.advance(2.0);
    p.publish(&world, "q", 1, "3");
    assert_eq!(world.persistent(V5, "s", 1_000).0.payloads(), ["3"]);
    let dropped = &world.broker.counters().dropped;
    assert_eq!((dropped.get(DropReason::Expired), dropped.get(DropReason::QueueFull)), (2, 0));
}
