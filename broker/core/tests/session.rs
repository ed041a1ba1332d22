//! A session lives as long as it was told to, and what is in it with it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use support::{V5, V311, VERSIONS, World, id, text};
use weirmq_core::broker::Settings;
use weirmq_core::counters::{DropReason, Limit};
use weirmq_wire::{ConnAck, Connect, Disconnect, Packet, PacketType, ReasonCode};

fn connack(world: &World, change: impl FnOnce(&mut Connect)) -> (support::Client, ConnAck) {
    let mut connect = Connect::new(V5, text("s"));
    change(&mut connect);
    let mut client = world.socket(V5);
    client.send(world, Packet::Connect(Box::new(connect)));
    let Some(Packet::ConnAck(connack)) = client.next() else { panic!("CONNACK") };
    (client, *connack)
}

#[test]
fn session_present_says_whether_there_was_one() {
    let world = World::new();
    let with = |clean, expiry_s| {
        connack(&world, |connect| {
            connect.clean_start = clean;
            connect.session_expiry_interval_s = expiry_s;
        })
    };
    for (clean, expiry_s, present) in
        [(true, Some(100), false), (false, Some(100), true), (true, None, false), (false, None, false)]
    {
        let (mut client, answer) = with(clean, expiry_s);
        assert_eq!(answer.session_present, present, "clean start {clean}, expiry {expiry_s:?}");
        if !present {
            world.client(V5, "p").publish(&world, "old", 1, "x");
            client.expect_nothing();
        }
        client.subscribe(&world, "old", 1);
        client.cut(&world);
    }
    assert_eq!(world.broker.footprint().sessions, 0);
}

#[test]
fn v311_clean_session_decides_whether_a_session_outlives_its_connection() {
    let world = World::new();
    for (clean, present) in [(false, false), (false, true), (true, false), (false, false)] {
        let (client, got) = world.connect(V311, "s", |connect| connect.clean_start = clean);
        assert_eq!(got, present);
        client.cut(&world);
    }
}

#[test]
fn messages_for_a_session_without_a_connection_wait_in_order() {
    for version in VERSIONS {
        let world = World::new();
        let (mut s, _) = world.persistent(version, "s", 100);
        s.subscribe(&world, "q", 2);
        s.cut(&world);
        let mut p = world.client(version, "p");
        for number in 0..10 {
            for qos in 0..=2 {
                p.publish(&world, "q", qos, &format!("{qos} {number}"));
                if qos == 2 {
                    p.ack(&world, PacketType::PubRel, id(7));
                }
            }
        }
        let (mut s, present) = world.persistent(version, "s", 100);
        assert!(present);
        let got: Vec<String> = s
            .drain(&world)
            .iter()
            .map(|publish| String::from_utf8(publish.payload.to_vec()).unwrap())
            .collect();
        let expected: Vec<String> =
            (0..10).flat_map(|number| [format!("1 {number}"), format!("2 {number}")]).collect();
        assert_eq!(got, expected);
        let drops = world.broker.client("s").unwrap().drops;
        assert!(drops.contains(&(DropReason::NoReceiverOnline, 10)), "QoS 0 does not wait, and is counted");
        assert_eq!(world.broker.client("nobody"), None);
    }
}

#[test]
fn disconnect_may_change_the_expiry_but_not_give_one_to_a_session_without() {
    let world = World::new();
    let goodbye = |seconds| {
        let mut disconnect = Disconnect::new(ReasonCode::Success);
        disconnect.session_expiry_interval_s = Some(seconds);
        Packet::Disconnect(disconnect)
    };
    let (mut s, _) = world.persistent(V5, "s", 100);
    s.send(&world, goodbye(0));
    assert!(s.is_closed());
    assert_eq!(world.broker.footprint().sessions, 0, "the session ends at once");
    let mut w = world.client(V5, "w");
    w.subscribe(&world, "will", 0);
    let (mut s, _) = world.connect(V5, "s", |connect| connect.will = support::will("will", "gone", 0));
    s.send(&world, goodbye(1));
    s.expect_closed(ReasonCode::ProtocolError);
    assert_eq!(w.payloads(), ["gone"], "such a DISCONNECT is none");
    let (mut s, _) = world.connect(V5, "s", |_| {});
    s.send(&world, goodbye(0));
    assert!(s.is_closed() && s.all().is_empty());
}

#[test]
fn an_expiry_of_0xffffffff_is_never_where_the_configuration_allows_it() {
    let mut settings = Settings::default();
    settings.limits.session_expiry_s_max = u32::MAX;
    let mut world = World::with(settings, []);
    let (s, answer) = connack(&world, |connect| connect.session_expiry_interval_s = Some(u32::MAX));
    assert_eq!(answer.session_expiry_interval_s, None, "granted as asked");
    s.cut(&world);
    world.advance(10_000_000_000.0);
    assert_eq!(world.broker.footprint().sessions, 1);
}

#[test]
fn an_expiry_beyond_the_limit_is_shortened_and_told() {
    let mut settings = Settings::default();
    settings.limits.session_expiry_s_max = 10;
    let mut world = World::with(settings, []);
    let (mut s, answer) = connack(&world, |connect| connect.session_expiry_interval_s = Some(u32::MAX));
    assert_eq!(answer.session_expiry_interval_s, Some(10));
    let mut disconnect = Disconnect::new(ReasonCode::Success);
    disconnect.session_expiry_interval_s = Some(1_000);
    s.send(&world, Packet::Disconnect(disconnect));
    assert_eq!(world.broker.counters().limits.get(Limit::SessionExpiry), 2);
    world.advance(9.0);
    assert_eq!(world.broker.footprint().sessions, 1);
    world.advance(1.1);
    assert_eq!(world.broker.footprint().sessions, 0);
}

#[test]
fn v311_sessions_end_after_the_time_that_the_configuration_gives_them() {
    let mut settings = Settings::default();
    settings.limits.session_expiry_v311_s = 60;
    let mut world = World::with(settings, []);
    world.persistent(V311, "s", 0).0.cut(&world);
    world.advance(59.0);
    let (s, present) = world.persistent(V311, "s", 0);
    assert!(present);
    s.cut(&world);
    world.advance(61.0);
    assert!(!world.persistent(V311, "s", 0).1);
}

#[test]
fn what_still_waits_when_a_session_ends_is_counted() {
    let mut world = World::new();
    let (mut s, _) = world.persistent(V5, "s", 10);
    s.subscribe(&world, "q", 1);
    s.cut(&world);
    let mut p = world.client(V5, "p");
    p.publish(&world, "q", 1, "1");
    p.publish(&world, "q", 1, "2");
    world.advance(11.0);
    assert_eq!(world.broker.counters().dropped.get(DropReason::SessionEnded), 2);
}

#[test]
fn retained_messages_are_no_part_of_a_session() {
    for version in VERSIONS {
        let world = World::new();
        let mut a = world.client(version, "a");
        a.retain(&world, "r", "kept");
        a.disconnect(&world);
        assert_eq!(world.broker.footprint().sessions, 0);
        let mut s = world.client(version, "s");
        s.subscribe(&world, "r", 0);
        assert_eq!(s.payloads(), ["kept"]);
    }
}

#[test]
fn a_session_stays_while_its_connection_does_however_short_its_expiry() {
    for version in VERSIONS {
        let mut world = World::new();
        let (mut s, _) = world.persistent(version, "s", 1);
        s.subscribe(&world, "q", 1);
        world.advance(1_000_000.0);
        world.client(version, "p").publish(&world, "q", 1, "x");
        assert_eq!(s.payloads(), ["x"]);
    }
}

#[test]
fn connect_subscribe_publish_disconnect_leave_nothing_behind_however_often() {
    let mut world = World::new();
    let before = world.broker.footprint();
    let rounds = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };
    for round in 0..rounds {
        let version = VERSIONS[round % 2];
        let expiry_s = u32::from(round % 3 == 0);
        let mut client = world.persistent(version, &format!("c{}", round % 7), expiry_s).0;
        client.all();
        let topic = format!("t/{}/x", round % 11);
        client.subscribe(&world, if round % 5 == 0 { "t/+/x" } else { &topic }, 1);
        client.publish(&world, &topic, (round % 3) as u8, "x");
        client.all();
        if round % 2 == 0 {
            client.disconnect(&world)
        } else {
            client.cut(&world)
        }
        if round % 1_000 == 0 {
            world.advance(700_000.0);
        }
    }
    world.advance(700_000.0);
    world.broker.tidy(world.now());
    assert_eq!(world.broker.footprint(), before);
    let counters = world.broker.counters();
    assert_eq!((counters.subscriptions.get(), counters.clients_connected.get()), (0, 0));
    assert_eq!(world.broker.next_deadline(), None);
}
