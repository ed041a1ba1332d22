//! Silence and slowness have an end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use support::{V5, V311, VERSIONS, World, text};
use weirmq_core::broker::Settings;
use weirmq_core::counters::Limit;
use weirmq_wire::{Connect, Packet, ReasonCode};

#[test]
fn a_keep_alive_of_0_is_none() {
    for version in VERSIONS {
        let mut world = World::new();
        let mut a = world.client(version, "a");
        assert_eq!(a.deadline(), None);
        world.advance(1_000_000.0);
        a.pass(&world);
        assert!(!a.is_closed());
    }
}

#[test]
fn a_keep_alive_beyond_the_bound_is_replaced_and_told() {
    for asked_s in [0, 1_000] {
        let mut settings = Settings::default();
        settings.limits.keep_alive_s_max = 10;
        let mut world = World::with(settings, []);
        let mut connect = Connect::new(V5, text("a"));
        connect.keep_alive_s = asked_s;
        let mut a = world.socket(V5);
        a.send(&world, Packet::Connect(Box::new(connect)));
        let Some(Packet::ConnAck(connack)) = a.next() else { panic!("CONNACK") };
        assert_eq!(connack.server_keep_alive_s, Some(10));
        assert_eq!(world.broker.counters().limits.get(Limit::KeepAlive), 1);
        world.advance(15.1);
        a.pass(&world);
        a.expect_closed(ReasonCode::KeepAliveTimeout);
        // A client of MQTT 3.1.1 cannot be told of another: its own holds.
        let (mut b, _) = world.connect(V311, "b", |connect| connect.keep_alive_s = asked_s);
        world.advance(100.0);
        b.pass(&world);
        assert!(!b.is_closed());
    }
}

#[test]
fn a_keep_alive_within_the_bound_is_the_client_s_own() {
    let mut settings = Settings::default();
    settings.limits.keep_alive_s_max = 10;
    let mut world = World::with(settings, []);
    let (mut a, _) = world.connect(V5, "a", |connect| connect.keep_alive_s = 4);
    world.advance(5.9);
    a.pass(&world);
    assert!(!a.is_closed());
    world.advance(0.2);
    a.pass(&world);
    assert!(a.is_closed());
}

#[test]
fn who_does_not_log_in_in_time_is_closed_without_a_word() {
    for bytes in [&b""[..], b"\x10\x0d\x00\x04MQ"] {
        let mut world = World::new();
        let mut a = world.socket(V5);
        a.send_bytes(&world, bytes);
        world.advance(9.9);
        a.pass(&world);
        assert!(!a.is_closed());
        world.advance(0.2);
        a.pass(&world);
        assert!(a.is_closed() && a.all().is_empty());
        assert_eq!(world.broker.counters().limits.get(Limit::ConnectTimeout), 1);
        assert_eq!(world.broker.counters().connections_refused.get(), 1);
    }
}

#[test]
fn a_ping_is_answered_in_every_state() {
    for version in VERSIONS {
        let world = World::new();
        let (mut s, _) = world.connect(version, "s", |connect| {
            if version == V5 {
                connect.receive_max = std::num::NonZeroU16::MIN;
            }
        });
        s.subscribe(&world, "q", 1);
        let mut p = world.client(version, "p");
        for _ in 0..300 {
            p.publish(&world, "q", 1, "x");
        }
        s.all();
        s.send(&world, Packet::PingReq);
        assert_eq!(s.next(), Some(Packet::PingResp));
        assert_eq!(s.subscribe(&world, "other", 0), [ReasonCode::Success], "nor does a SUBSCRIBE wait");
    }
}
