//! Every limit holds, does what it says at the limit, and is counted.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use support::{V5, VERSIONS, World, extras, id, text};
use weirmq_core::broker::Settings;
use weirmq_core::counters::{DropReason, Limit};
use weirmq_core::limits::{Limits, QueueFull};
use weirmq_wire::{Connect, Packet, PacketType, ReasonCode};

fn world(change: impl FnOnce(&mut Limits)) -> World {
    let mut settings = Settings::default();
    change(&mut settings.limits);
    World::with(settings, [])
}

fn hits(world: &World, limit: Limit) -> u64 {
    world.broker.counters().limits.get(limit)
}

#[test]
fn a_packet_that_is_too_large_is_the_end() {
    for version in VERSIONS {
        let world = world(|limits| limits.packet_bytes_max = 100);
        let mut p = world.client(version, "p");
        p.publish(&world, "t", 0, &"x".repeat(90));
        assert!(!p.is_closed());
        p.publish(&world, "t", 0, &"x".repeat(100));
        p.expect_closed(ReasonCode::PacketTooLarge);
        assert_eq!(hits(&world, Limit::PacketBytes), 1);
        assert_eq!(world.broker.counters().bad_input.get(), 1);
    }
}

#[test]
fn before_the_login_a_smaller_limit_holds() {
    for version in VERSIONS {
        let world = world(|limits| limits.connect_packet_bytes_max = 50);
        let mut client = world.socket(version);
        let mut connect = Connect::new(version, text(&"x".repeat(60)));
        connect.username = Some(text("a"));
        client.send(&world, Packet::Connect(Box::new(connect)));
        assert!(client.is_closed() && client.all().is_empty(), "not even the version is known");
        assert_eq!(hits(&world, Limit::ConnectPacketBytes), 1);
        assert_eq!(world.broker.counters().connections_refused.get(), 1);
        let mut client = world.client(version, "short");
        client.publish(&world, "t", 0, &"x".repeat(100));
        assert!(!client.is_closed());
    }
}

#[test]
fn topics_that_are_too_long_or_too_deep_are_refused_and_the_connection_stays() {
    for version in VERSIONS {
        for (topic, limit) in [("123456789", Limit::TopicBytes), ("a/b/c/d", Limit::TopicLevels)] {
            let world = world(|limits| {
                limits.topic_bytes_max = 8;
                limits.topic_levels_max = 3;
            });
            let mut s = world.client(version, "s");
            s.subscribe(&world, "#", 0);
            let mut p = world.client(version, "p");
            p.publish(&world, topic, 0, "x");
            p.publish(&world, topic, 1, "x");
            p.expect_ack(PacketType::PubAck, id(7), ReasonCode::TopicNameInvalid);
            p.publish(&world, topic, 2, "x");
            p.expect_ack(PacketType::PubRec, id(7), ReasonCode::TopicNameInvalid);
            s.expect_nothing();
            assert_eq!(hits(&world, limit), 3);
            assert_eq!(world.broker.counters().dropped.get(DropReason::Invalid), 3);
            let refused =
                if version == V5 { ReasonCode::TopicFilterInvalid } else { ReasonCode::UnspecifiedError };
            assert_eq!(p.subscribe(&world, topic, 0), [refused]);
            assert_eq!(p.subscribe(&world, "a/b/+", 0), [ReasonCode::Success]);
        }
    }
}

#[test]
fn too_many_user_properties_are_the_end() {
    let world = world(|limits| limits.user_properties_max = 2);
    let mut p = world.client(V5, "p");
    let with = |count| extras(|extras| extras.message.user = vec![("a".into(), "b".into()); count]);
    p.publish_with(&world, "t", 0, "x", |publish| publish.extras = with(2));
    assert!(!p.is_closed());
    p.publish_with(&world, "t", 0, "x", |publish| publish.extras = with(3));
    p.expect_closed(ReasonCode::QuotaExceeded);
    assert_eq!(hits(&world, Limit::UserProperties), 1);
}

#[test]
fn subscriptions_beyond_the_limit_are_refused_and_those_that_are_there_may_change() {
    for version in VERSIONS {
        let world = world(|limits| limits.subscriptions_max = 2);
        let mut s = world.client(version, "s");
        s.subscribe(&world, "a", 0);
        s.subscribe(&world, "b", 0);
        let refused = if version == V5 { ReasonCode::QuotaExceeded } else { ReasonCode::UnspecifiedError };
        assert_eq!(s.subscribe(&world, "c", 0), [refused]);
        assert_eq!(s.subscribe(&world, "a", 1), [ReasonCode::GrantedQoS1]);
        assert_eq!(hits(&world, Limit::Subscriptions), 1);
        s.unsubscribe(&world, "b");
        assert_eq!(s.subscribe(&world, "c", 0), [ReasonCode::Success]);
        assert_eq!(world.broker.counters().subscriptions.get(), 2);
    }
}

#[test]
fn a_queue_refuses_the_newest_or_drops_the_oldest() {
    for version in VERSIONS {
        for (policy, kept) in
            [(QueueFull::RefuseNewest, ["1", "2", "3"]), (QueueFull::DropOldest, ["3", "4", "5"])]
        {
            for by_bytes in [false, true] {
                let world = world(|limits| {
                    limits.queue_full = policy;
                    if by_bytes {
                        limits.queue_bytes_max = 6;
                    } else {
                        limits.queue_messages_max = 3;
                    }
                });
                let (mut s, _) = world.persistent(version, "s", 100);
                s.subscribe(&world, "q", 1);
                s.cut(&world);
                let mut p = world.client(version, "p");
                for payload in ["1", "2", "3", "4", "5"] {
                    p.publish(&world, "q", 1, payload);
                }
                let drops = world.broker.client("s").unwrap().drops;
                assert!(drops.contains(&(DropReason::QueueFull, 2)));
                assert_eq!(world.broker.counters().dropped.get(DropReason::QueueFull), 2);
                assert_eq!(world.persistent(version, "s", 100).0.payloads(), kept);
            }
        }
    }
}

#[test]
fn a_message_larger_than_the_whole_queue_is_refused_under_either_policy() {
    for policy in [QueueFull::RefuseNewest, QueueFull::DropOldest] {
        let world = world(|limits| {
            limits.queue_full = policy;
            limits.queue_bytes_max = 10;
        });
        let (mut s, _) = world.persistent(V5, "s", 100);
        s.subscribe(&world, "q", 1);
        s.cut(&world);
        world.client(V5, "p").publish(&world, "q", 1, "0123456789");
        assert_eq!(world.broker.counters().dropped.get(DropReason::QueueFull), 1);
        world.persistent(V5, "s", 100).0.expect_nothing();
    }
}

#[test]
fn a_session_too_many_is_refused() {
    for version in VERSIONS {
        let world = world(|limits| limits.sessions_max = 1);
        let (a, _) = world.persistent(version, "a", 100);
        a.cut(&world);
        let mut b = world.socket(version);
        b.send(&world, Packet::Connect(Box::new(Connect::new(version, text("b")))));
        let Some(Packet::ConnAck(connack)) = b.next() else { panic!("CONNACK") };
        assert_eq!(connack.code.connack_v311(), 3);
        if version == V5 {
            assert_eq!(connack.code, ReasonCode::QuotaExceeded);
        }
        assert!(b.is_closed());
        assert_eq!(hits(&world, Limit::Sessions), 1);
        let counters = world.broker.counters();
        assert_eq!((counters.connections_accepted.get(), counters.connections_refused.get()), (1, 1));
        assert!(world.persistent(version, "a", 100).1, "who has one is let in");
    }
}

#[test]
fn a_will_delay_beyond_the_limit_is_shortened() {
    let mut world = world(|limits| limits.will_delay_s_max = 5);
    let mut w = world.client(V5, "w");
    w.subscribe(&world, "will", 0);
    let (a, _) = world.connect(V5, "a", |connect| {
        connect.session_expiry_interval_s = Some(1_000);
        connect.will = support::will("will", "gone", 500);
    });
    a.cut(&world);
    assert_eq!(hits(&world, Limit::WillDelay), 1);
    world.advance(5.1);
    assert_eq!(w.payloads(), ["gone"]);
}

#[test]
fn what_is_under_way_to_a_client_is_bounded_also_where_it_would_take_more() {
    for version in VERSIONS {
        let world = world(|limits| limits.inflight_max = 3);
        let mut s = world.client(version, "s");
        s.subscribe(&world, "q", 1);
        let mut p = world.client(version, "p");
        for _ in 0..10 {
            p.publish(&world, "q", 1, "x");
        }
        assert_eq!(s.all().len(), 3);
    }
}

#[test]
fn aliases_towards_a_client_are_bounded_also_where_it_would_take_more() {
    let world = world(|limits| limits.topic_alias_out_max = 2);
    let (mut s, _) = world.connect(V5, "s", |connect| connect.topic_alias_max = 100);
    s.subscribe(&world, "#", 0);
    let mut p = world.client(V5, "p");
    for number in 0..10 {
        p.publish(&world, &format!("t/{}", number % 5), 0, "x");
    }
    let got = s.drain(&world);
    assert_eq!(got.iter().filter(|publish| publish.extras.is_some()).count(), 4, "two topics, twice each");
}

#[test]
fn a_connection_that_publishes_to_many_topics_forgets_plans_and_nothing_else() {
    for version in VERSIONS {
        let world = world(|limits| limits.plans_per_connection_max = 3);
        let mut s = world.client(version, "s");
        s.subscribe(&world, "t/#", 0);
        let mut p = world.client(version, "p");
        for number in 0..100 {
            p.publish(&world, &format!("t/{}", number % 10), 0, "x");
        }
        assert_eq!(s.payloads().len(), 100);
    }
}

#[test]
fn every_limit_that_is_counted_has_its_own_name() {
    let names: std::collections::HashSet<_> = Limit::ALL.iter().map(|limit| limit.name()).collect();
    assert_eq!(names.len(), Limit::ALL.len());
    let names: std::collections::HashSet<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
    assert_eq!(names.len(), DropReason::ALL.len());
    for (place, limit) in Limit::ALL.iter().enumerate() {
        assert_eq!(*limit as usize, place);
    }
}
