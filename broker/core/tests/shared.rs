//! A shared subscription gives each message to one of its members, on that member's terms.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use support::{V5, VERSIONS, World, id};
use weirmq_core::broker::Settings;
use weirmq_core::counters::DropReason;
use weirmq_wire::{PacketType, ReasonCode};

#[test]
fn a_member_s_own_plain_subscription_and_other_groups_are_theirs() {
    for version in VERSIONS {
        let world = World::new();
        let (mut s1, mut s2) = (world.client(version, "s1"), world.client(version, "s2"));
        let mut s4 = world.client(version, "s4");
        s1.subscribe(&world, "$share/g/t", 0);
        s1.subscribe(&world, "t", 0);
        s2.subscribe(&world, "$share/g/t", 0);
        s4.subscribe(&world, "$share/h/+", 0);
        let mut p = world.client(version, "p");
        for _ in 0..100 {
            p.publish(&world, "t", 0, "x");
        }
        let (one, two) = (s1.payloads().len(), s2.payloads().len());
        assert_eq!(one + two, 200, "100 for s1 itself, and 100 for the group");
        assert!(one > 100 && two > 20);
        assert_eq!(s4.payloads().len(), 100);
    }
}

#[test]
fn each_member_gets_its_own_qos_and_identifier() {
    let world = World::new();
    let (mut s0, mut s2) = (world.client(V5, "s0"), world.client(V5, "s2"));
    for (client, qos) in [(&mut s0, 0), (&mut s2, 2)] {
        let identifier = Some(u32::from(qos) + 1);
        client.subscribe_with(&world, "$share/g/t", qos, |subscribe, _| {
            subscribe.subscription_id = identifier;
        });
    }
    let mut p = world.client(V5, "p");
    for number in 1..=10 {
        p.publish_with(&world, "t", 2, "x", |publish| publish.packet_id = Some(id(number)));
    }
    for (client, qos) in [(&mut s0, 0), (&mut s2, 2)] {
        let got = client.drain(&world);
        assert_eq!(got.len(), 5);
        for publish in got {
            assert_eq!(publish.qos.as_u8(), qos);
            assert_eq!(publish.extras.unwrap().subscription_ids, [u32::from(qos) + 1]);
        }
    }
}

#[test]
fn qos_0_goes_to_a_member_that_is_there() {
    for version in VERSIONS {
        let world = World::new();
        let (mut away, _) = world.persistent(version, "away", 100);
        away.subscribe(&world, "$share/g/t", 1);
        let mut here = world.client(version, "here");
        here.subscribe(&world, "$share/g/t", 1);
        away.cut(&world);
        let mut p = world.client(version, "p");
        for qos in [0, 1] {
            for _ in 0..10 {
                p.publish(&world, "t", qos, "x");
            }
            assert_eq!(here.drain(&world).len(), 10);
        }
        here.disconnect(&world);
        p.publish(&world, "t", 0, "x");
        assert_eq!(world.broker.counters().dropped.get(DropReason::NoReceiverOnline), 1);
        p.publish(&world, "t", 1, "waits");
        let (mut away, _) = world.persistent(version, "away", 100);
        assert_eq!(away.payloads(), ["waits"], "QoS 1 waits for a member where none is there");
    }
}

#[test]
fn a_member_whose_queue_is_full_is_passed_over() {
    let mut settings = Settings::default();
    settings.limits.queue_messages_max = 3;
    let world = World::with(settings, []);
    let join = |name: &str| {
        let (mut member, _) =
            world.connect(V5, name, |connect| connect.receive_max = std::num::NonZeroU16::MIN);
        member.subscribe(&world, "$share/g/t", 1);
        member
    };
    let (mut s1, mut s2) = (join("s1"), join("s2"));
    let mut p = world.client(V5, "p");
    for _ in 0..8 {
        p.publish(&world, "t", 1, "x");
    }
    assert_eq!(world.broker.counters().dropped.total(), 0, "one under way and three waiting for each");
    p.publish(&world, "t", 1, "x");
    assert_eq!(world.broker.counters().dropped.get(DropReason::QueueFull), 1);
    assert_eq!(s1.drain(&world).len() + s2.drain(&world).len(), 8);
}

#[test]
fn qos_2_under_way_is_completed_with_its_member_and_nobody_else() {
    for version in VERSIONS {
        let mut world = World::new();
        let (mut s1, _) = world.persistent(version, "s1", 100);
        s1.subscribe(&world, "$share/g/t", 2);
        let mut p = world.client(version, "p");
        p.publish(&world, "t", 2, "x");
        let mut s2 = world.client(version, "s2");
        s2.subscribe(&world, "$share/g/t", 2);
        let got = s1.next_publish();
        s1.ack(&world, PacketType::PubRec, got.packet_id.unwrap());
        s1.cut(&world);
        s2.expect_nothing();
        let (mut s1, _) = world.persistent(version, "s1", 100);
        s1.expect_ack(PacketType::PubRel, got.packet_id.unwrap(), ReasonCode::Success);
        s1.cut(&world);
        // Its session ends: the message ends with it.
        world.advance(700_000.0);
        s2.expect_nothing();
    }
}

#[test]
fn qos_1_under_way_stays_with_its_member() {
    for version in VERSIONS {
        let mut world = World::new();
        let (mut s1, _) = world.persistent(version, "s1", 100);
        s1.subscribe(&world, "$share/g/t", 1);
        world.client(version, "p").publish(&world, "t", 1, "x");
        let mut s2 = world.client(version, "s2");
        s2.subscribe(&world, "$share/g/t", 1);
        s1.next_publish();
        s1.cut(&world);
        s2.expect_nothing();
        let (mut s1, _) = world.persistent(version, "s1", 100);
        assert!(s1.expect_one_publish().dup);
        s1.cut(&world);
        world.advance(700_000.0);
        s2.expect_nothing();
        assert_eq!(world.broker.counters().dropped.get(DropReason::SessionEnded), 1);
    }
}

#[test]
fn what_a_member_refuses_goes_to_nobody_else() {
    let world = World::new();
    let mut s1 = world.client(V5, "s1");
    s1.subscribe(&world, "$share/g/t", 2);
    let mut p = world.client(V5, "p");
    for (qos, kind) in [(1, PacketType::PubAck), (2, PacketType::PubRec)] {
        p.publish_with(&world, "t", qos, "x", |publish| publish.packet_id = Some(id(u16::from(qos))));
        let mut s2 = world.client(V5, &format!("s2 {qos}"));
        s2.subscribe(&world, "$share/g/t", 2);
        let got = s1.next_publish();
        s1.ack_with(&world, kind, got.packet_id.unwrap(), ReasonCode::QuotaExceeded);
        s1.expect_nothing();
        s2.expect_nothing();
        s2.disconnect(&world);
    }
}

#[test]
fn a_group_is_left_like_it_was_joined() {
    for version in VERSIONS {
        let world = World::new();
        let mut s = world.client(version, "s");
        s.subscribe(&world, "$share/g/t", 0);
        s.subscribe(&world, "t", 0);
        s.unsubscribe(&world, "t");
        let mut p = world.client(version, "p");
        p.publish(&world, "t", 0, "shared");
        assert_eq!(s.payloads(), ["shared"]);
        let codes = s.unsubscribe(&world, "$share/other/t");
        if version == V5 {
            assert_eq!(codes, [ReasonCode::NoSubscriptionExisted]);
        }
        s.unsubscribe(&world, "$share/g/t");
        p.publish(&world, "t", 0, "x");
        s.expect_nothing();
        assert_eq!(world.broker.footprint().subscription_nodes, 0);
    }
}

#[test]
fn malformed_shared_filters_are_the_end() {
    for version in VERSIONS {
        for filter in ["$share//t", "$share/g", "$share/g/", "$share/g+/t", "$share/#/t", "$share/g/a#"] {
            let world = World::new();
            let mut s = world.client(version, "s");
            s.subscribe_and_expect_the_end(&world, filter, ReasonCode::MalformedPacket);
        }
    }
}
