//! A client identifier has one connection: the new one, with the session as the old one left it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use support::{V5, V311, VERSIONS, World, id, text, will};
use weirmq_wire::{Connect, Disconnect, Packet, PacketType, ReasonCode};

#[test]
fn the_old_connection_is_told_and_closed() {
    for version in VERSIONS {
        let world = World::new();
        let mut old = world.client(version, "t");
        let _new = world.client(version, "t");
        old.expect_closed(ReasonCode::SessionTakenOver);
        assert_eq!(world.broker.counters().clients_connected.get(), 1);
        assert_eq!(world.broker.footprint().sessions, 1);
    }
}

#[test]
fn a_session_is_gone_on_with_across_versions() {
    let world = World::new();
    let (mut s, _) = world.persistent(V5, "s", 100);
    s.subscribe(&world, "q", 1);
    s.cut(&world);
    world.client(V5, "p").publish_with(&world, "q", 1, "x", |publish| {
        publish.extras = support::extras(|extras| extras.message.content_type = Some("text".into()));
    });
    let (mut s, present) = world.persistent(V311, "s", 100);
    assert!(present);
    assert_eq!(s.payloads(), ["x"]);
}

#[test]
fn the_will_of_a_session_that_goes_on_is_sent_when_it_has_no_delay() {
    for (delay_s, wills) in [(0, 1), (5, 0)] {
        let mut world = World::new();
        let mut w = world.client(V5, "w");
        w.subscribe(&world, "will", 0);
        let connect = |world: &World| {
            world.connect(V5, "t", |connect| {
                connect.clean_start = false;
                connect.session_expiry_interval_s = Some(100);
                connect.will = will("will", "gone", delay_s);
            })
        };
        let (_old, _) = connect(&world);
        let (_new, present) = connect(&world);
        assert!(present);
        world.advance(50.0);
        assert_eq!(w.payloads().len(), wills, "with a delay of {delay_s} s");
    }
}

#[test]
fn the_will_of_a_session_that_ends_by_takeover_is_sent_whatever_its_delay() {
    for (expiry_s, clean) in [(0, false), (100, true)] {
        let world = World::new();
        let mut w = world.client(V5, "w");
        w.subscribe(&world, "will", 0);
        let connect = |clean| {
            world.connect(V5, "t", |connect| {
                connect.clean_start = clean;
                connect.session_expiry_interval_s = Some(expiry_s);
                connect.will = will("will", "gone", 5);
            })
        };
        let (_old, _) = connect(false);
        let (_new, present) = connect(clean);
        assert!(!present);
        assert_eq!(w.payloads(), ["gone"]);
    }
}

#[test]
fn v311_the_will_of_the_old_connection_is_sent() {
    let world = World::new();
    let mut w = world.client(V311, "w");
    w.subscribe(&world, "will", 0);
    let connect = || world.connect(V311, "t", |connect| connect.will = will("will", "gone", 0));
    let (_old, _) = connect();
    let (_new, _) = connect();
    assert_eq!(w.payloads(), ["gone"]);
}

/// A session belongs to who opened it: what waits in it is not for somebody else who knows the identifier.
#[test]
fn another_principal_does_not_get_the_session_and_the_will_of_the_old_one_is_sent() {
    for version in VERSIONS {
        let world = World::new();
        let mut w = world.client(version, "w");
        w.subscribe(&world, "will", 0);
        let connect = |user: &'static str| {
            world.connect(version, "t", |connect| {
                connect.clean_start = false;
                connect.username = Some(text(user));
                connect.session_expiry_interval_s = (version == V5).then_some(100);
                connect.will = will("will", user, if version == V5 { 5 } else { 0 });
            })
        };
        let (mut old, _) = connect("alice");
        old.subscribe(&world, "private", 1);
        let (mut new, present) = connect("mallory");
        assert!(!present);
        world.client(version, "p").publish(&world, "private", 1, "x");
        new.expect_nothing();
        assert_eq!(w.payloads(), ["alice"]);
    }
}

#[test]
fn retained_messages_that_still_wait_go_to_the_new_connection_and_are_not_sent_anew() {
    let world = World::new();
    let mut p = world.client(V5, "p");
    for number in 0..3 {
        p.publish_with(&world, &format!("r/{number}"), 1, "x", |publish| publish.retain = true);
    }
    let narrow = |world: &World| {
        world.connect(V5, "s", |connect| {
            connect.clean_start = false;
            connect.session_expiry_interval_s = Some(100);
            connect.receive_max = std::num::NonZeroU16::MIN;
        })
    };
    let (mut old, _) = narrow(&world);
    old.subscribe(&world, "r/#", 1);
    let first = old.next_publish();
    old.ack(&world, PacketType::PubAck, first.packet_id.unwrap());
    old.expect_one_publish();
    let (mut new, present) = narrow(&world);
    assert!(present);
    let rest = new.drain(&world);
    assert_eq!(rest.len(), 2, "the one that was not acknowledged, and the one that waited");
    assert!(rest[0].dup && !rest[1].dup && rest.iter().all(|publish| publish.retain));
}

#[test]
fn a_kick_storm_leaves_one_survivor_and_no_message_twice() {
    for version in VERSIONS {
        let world = World::new();
        let mut s = world.client(version, "s");
        s.subscribe(&world, "q", 2);
        let (mut current, _) = world.persistent(version, "t", 100);
        current.subscribe(&world, "in", 2);
        let mut p = world.client(version, "p");
        let mut old = Vec::new();
        for round in 0..50 {
            p.publish(&world, "in", 2, &format!("in {round}"));
            p.expect_ack(PacketType::PubRec, id(7), ReasonCode::Success);
            p.ack(&world, PacketType::PubRel, id(7));
            p.expect_ack(PacketType::PubComp, id(7), ReasonCode::Success);
            current.publish(&world, "q", 2, "once");
            let (next, present) = world.persistent(version, "t", 100);
            assert!(present);
            old.push(std::mem::replace(&mut current, next));
        }
        for mut connection in old {
            assert!(connection.is_closed());
            connection.all();
            connection.cut(&world);
        }
        current.publish_with(&world, "q", 2, "once", |publish| publish.dup = true);
        assert_eq!(s.drain(&world).len(), 1);
        let mut expected = (0..50).map(|round| format!("in {round}"));
        for packet in current.all() {
            if let Packet::Publish(publish) = packet {
                assert_eq!(publish.payload, expected.next().unwrap().as_bytes());
            }
        }
        assert_eq!(expected.next(), None);
        assert_eq!(world.broker.counters().clients_connected.get(), 3);
    }
}

#[test]
fn a_clean_start_takes_over_and_begins_anew() {
    for version in VERSIONS {
        let world = World::new();
        let (mut old, _) = world.persistent(version, "t", 100);
        old.subscribe(&world, "x", 1);
        let (mut new, present) = world.connect(version, "t", |connect| connect.clean_start = true);
        assert!(!present);
        old.expect_closed(ReasonCode::SessionTakenOver);
        world.client(version, "p").publish(&world, "x", 1, "1");
        new.expect_nothing();
    }
}

#[test]
fn a_client_that_is_kicked_is_told_and_its_will_is_sent() {
    for version in VERSIONS {
        let world = World::new();
        let mut w = world.client(version, "w");
        w.subscribe(&world, "will", 0);
        let (mut a, _) = world.connect(version, "a", |connect| connect.will = will("will", "gone", 0));
        let (was_there, work) = world.broker.kick("a", world.now());
        assert!(was_there);
        work.into_iter().for_each(support::drive);
        a.expect_closed(ReasonCode::AdministrativeAction);
        assert_eq!(w.payloads(), ["gone"]);
        assert!(!world.broker.kick("a", world.now()).0);
        assert!(!world.broker.kick("nobody", world.now()).0);
    }
}

#[test]
fn what_the_old_connection_sends_late_has_no_effect() {
    for version in VERSIONS {
        let world = World::new();
        let mut s = world.client(version, "s");
        s.subscribe(&world, "#", 0);
        let mut old = world.client(version, "t");
        let _new = world.client(version, "t");
        old.publish(&world, "late", 0, "x");
        s.expect_nothing();
        old.send(&world, Packet::Disconnect(Disconnect::new(ReasonCode::Success)));
        assert_eq!(world.broker.counters().clients_connected.get(), 2);
    }
}

#[test]
fn the_session_of_an_identifier_is_found_by_every_byte_of_it() {
    for version in VERSIONS {
        let world = World::new();
        let (a, _) = world.persistent(version, "Client", 100);
        a.cut(&world);
        for (other, expected) in [("client", false), ("Client ", false), ("Client", true)] {
            let mut connect = Connect::new(version, text(other));
            connect.clean_start = false;
            connect.session_expiry_interval_s = (version == V5).then_some(100);
            let mut client = world.socket(version);
            client.send(&world, Packet::Connect(Box::new(connect)));
            let Some(Packet::ConnAck(connack)) = client.next() else { panic!("CONNACK") };
            assert_eq!(connack.session_present, expected, "{other}");
        }
    }
}
