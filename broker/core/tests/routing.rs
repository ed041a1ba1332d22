//! Messages reach whom they concern, on the terms of the subscription.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use support::{V5, V311, VERSIONS, World, extras, id, will};
use weirmq_wire::{Packet, PacketType, ReasonCode};

#[test]
fn a_message_reaches_who_subscribes_to_it_and_nobody_else() {
    for version in VERSIONS {
        let world = World::new();
        let (mut a, mut b) = (world.client(version, "a"), world.client(version, "b"));
        let mut publisher = world.client(version, "p");
        a.subscribe(&world, "センサー/+/リビングルーム", 0);
        b.subscribe(&world, "センサー/湿度/#", 0);
        publisher.publish(&world, "センサー/温度/リビングルーム", 0, "21.5");
        let got = a.next_publish();
        assert_eq!((&*got.topic, &*got.payload), ("センサー/温度/リビングルーム", &b"21.5"[..]));
        b.expect_nothing();
        publisher.expect_nothing();
    }
}

#[test]
fn the_delivered_qos_is_the_lower_of_published_and_granted() {
    for version in VERSIONS {
        for published in 0..=2 {
            for granted in 0..=2 {
                let world = World::new();
                let mut s = world.client(version, "s");
                let mut p = world.client(version, "p");
                s.subscribe(&world, "t", granted);
                p.publish(&world, "t", published, "x");
                assert_eq!(s.next_publish().qos.as_u8(), published.min(granted));
            }
        }
    }
}

#[test]
fn overlapping_subscriptions_make_one_message_with_the_highest_qos_and_all_identifiers() {
    let world = World::new();
    let mut s = world.client(V5, "s");
    s.subscribe_with(&world, "o/#", 0, |subscribe, _| subscribe.subscription_id = Some(1));
    s.subscribe_with(&world, "o/+", 2, |subscribe, _| subscribe.subscription_id = Some(2));
    world.client(V5, "p").publish(&world, "o/a", 2, "x");
    let got = s.next_publish();
    assert_eq!(got.qos.as_u8(), 2);
    let mut identifiers = got.extras.unwrap().subscription_ids;
    identifiers.sort_unstable();
    assert_eq!(identifiers, [1, 2]);
    s.expect_nothing();
}

#[test]
fn qos_2_is_taken_once_however_often_it_is_sent() {
    for version in VERSIONS {
        let world = World::new();
        let mut s = world.client(version, "s");
        s.subscribe(&world, "q", 0);
        let (mut p, _) = world.persistent(version, "p", 100);
        p.publish(&world, "q", 2, "x");
        p.expect_ack(PacketType::PubRec, id(7), ReasonCode::Success);
        p.publish_with(&world, "q", 2, "x", |publish| publish.dup = true);
        p.expect_ack(PacketType::PubRec, id(7), ReasonCode::Success);
        p.cut(&world);
        let (mut p, present) = world.persistent(version, "p", 100);
        assert!(present);
        p.publish_with(&world, "q", 2, "x", |publish| publish.dup = true);
        p.expect_ack(PacketType::PubRec, id(7), ReasonCode::Success);
        assert_eq!(s.payloads(), ["x"]);
        p.ack(&world, PacketType::PubRel, id(7));
        p.expect_ack(PacketType::PubComp, id(7), ReasonCode::Success);
        p.ack(&world, PacketType::PubRel, id(7));
        p.expect_ack(PacketType::PubComp, id(7), ReasonCode::PacketIdentifierNotFound);
        p.publish(&world, "q", 2, "y");
        assert_eq!(s.payloads(), ["y"]);
    }
}

#[test]
fn what_is_unacknowledged_is_sent_again_in_order_with_the_same_identifier() {
    for version in VERSIONS {
        let world = World::new();
        let (mut s, _) = world.persistent(version, "s", 100);
        s.subscribe(&world, "q", 2);
        let mut p = world.client(version, "p");
        for payload in ["1", "2", "3"] {
            p.publish(&world, "q", 2, payload);
            p.ack(&world, PacketType::PubRel, id(7));
        }
        let first = s.next_publish();
        let second = s.next_publish();
        s.next_publish();
        s.ack(&world, PacketType::PubRec, first.packet_id.unwrap());
        s.expect_ack(PacketType::PubRel, first.packet_id.unwrap(), ReasonCode::Success);
        s.cut(&world);
        p.publish(&world, "q", 1, "4");
        let (mut s, present) = world.persistent(version, "s", 100);
        assert!(present);
        s.expect_ack(PacketType::PubRel, first.packet_id.unwrap(), ReasonCode::Success);
        let again = s.next_publish();
        assert_eq!((again.packet_id, again.dup, &*again.payload), (second.packet_id, true, &b"2"[..]));
        assert_eq!(&*s.next_publish().payload, b"3");
        let fresh = s.next_publish();
        assert_eq!((fresh.dup, &*fresh.payload), (false, &b"4"[..]));
        s.expect_nothing();
    }
}

#[test]
fn no_more_is_under_way_than_receive_maximum() {
    let world = World::new();
    let (mut s, _) =
        world.connect(V5, "s", |connect| connect.receive_max = std::num::NonZeroU16::new(2).unwrap());
    s.subscribe(&world, "f", 1);
    let mut p = world.client(V5, "p");
    for payload in ["1", "2", "3", "4", "5"] {
        p.publish(&world, "f", 1, payload);
    }
    p.publish(&world, "f", 0, "unhindered");
    let got: Vec<_> = (0..3).map(|_| s.next_publish()).collect();
    assert_eq!(got.iter().map(|p| p.payload.to_vec()).collect::<Vec<_>>(), [&b"1"[..], b"2", b"unhindered"]);
    s.send(&world, Packet::PingReq);
    assert_eq!(s.next(), Some(Packet::PingResp));
    s.expect_nothing();
    s.ack(&world, PacketType::PubAck, got[0].packet_id.unwrap());
    assert_eq!(&*s.next_publish().payload, b"3");
    s.ack_with(&world, PacketType::PubAck, got[1].packet_id.unwrap(), ReasonCode::UnspecifiedError);
    assert_eq!(&*s.next_publish().payload, b"4");
    s.expect_nothing();
}

#[test]
fn topic_aliases_of_the_publisher_do_not_reach_the_receiver() {
    let world = World::new();
    let mut s = world.client(V5, "s");
    s.subscribe(&world, "al", 0);
    let mut p = world.client(V5, "p");
    let alias = |number| extras(|extras| extras.topic_alias = std::num::NonZeroU16::new(number));
    p.publish_with(&world, "al", 0, "1", |publish| publish.extras = alias(1));
    p.publish_with(&world, "", 0, "2", |publish| publish.extras = alias(1));
    for payload in ["1", "2"] {
        let got = s.next_publish();
        assert_eq!((&*got.topic, &*got.payload, got.extras), ("al", payload.as_bytes(), None));
    }
    p.publish_with(&world, "", 0, "3", |publish| publish.extras = alias(2));
    p.expect_closed(ReasonCode::ProtocolError);
    let mut p = world.client(V5, "p");
    p.publish_with(&world, "al", 0, "4", |publish| publish.extras = alias(33));
    p.expect_closed(ReasonCode::TopicAliasInvalid);
    s.expect_nothing();
}

#[test]
fn retained_messages_are_kept_replaced_and_taken_away() {
    for version in VERSIONS {
        let world = World::new();
        let mut live = world.client(version, "live");
        live.subscribe(&world, "r", 0);
        let mut p = world.client(version, "p");
        let late = |expected: &[&str]| {
            let mut late = world.client(version, "late");
            late.subscribe(&world, "#", 0);
            let got = late.all();
            assert_eq!(got.len(), expected.len());
            for (packet, expected) in got.iter().zip(expected) {
                let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
                assert_eq!((&*publish.payload, publish.retain), (expected.as_bytes(), true));
            }
        };
        p.retain(&world, "r", "1");
        late(&["1"]);
        p.publish(&world, "r", 0, "2");
        late(&["1"]);
        p.retain(&world, "r", "");
        late(&[]);
        for payload in ["1", "2", ""] {
            let got = live.next_publish();
            assert_eq!((&*got.payload, got.retain), (payload.as_bytes(), false));
        }
    }
}

#[test]
fn a_will_is_published_when_the_connection_is_lost_and_not_after_a_goodbye() {
    for version in VERSIONS {
        let world = World::new();
        let mut w = world.client(version, "w");
        w.subscribe(&world, "will/#", 0);
        let (a, _) = world.connect(version, "a", |connect| connect.will = will("will/a", "gone", 0));
        a.disconnect(&world);
        w.expect_nothing();
        let (a, _) = world.connect(version, "a", |connect| connect.will = will("will/a", "gone", 0));
        a.cut(&world);
        assert_eq!(w.payloads(), ["gone"]);
    }
}

#[test]
fn a_delayed_will_waits_and_is_forgotten_when_the_client_comes_back() {
    let mut world = World::new();
    let mut w = world.client(V5, "w");
    w.subscribe(&world, "will", 0);
    let with_will = |world: &World, delay_s, expiry_s, clean| {
        world.connect(V5, "a", |connect| {
            connect.clean_start = clean;
            connect.session_expiry_interval_s = Some(expiry_s);
            connect.will = will("will", "gone", delay_s);
        })
    };
    with_will(&world, 3, 10, false).0.cut(&world);
    world.advance(1.0);
    let (a, present) = with_will(&world, 3, 10, false);
    assert!(present);
    world.advance(5.0);
    w.expect_nothing();
    a.cut(&world);
    world.advance(2.9);
    w.expect_nothing();
    world.advance(0.2);
    assert_eq!(w.payloads(), ["gone"]);
    with_will(&world, 3, 1, true).0.cut(&world);
    world.advance(0.9);
    w.expect_nothing();
    world.advance(0.2);
    assert_eq!(w.payloads(), ["gone"], "the session ends before the delay is over");
    with_will(&world, 3, 10, false).0.cut(&world);
    world.advance(1.0);
    let (_a, present) = with_will(&world, 3, 10, true);
    assert!(!present);
    world.advance(9.0);
    w.expect_nothing();
}

#[test]
fn takeover_delivers_to_the_new_connection_only() {
    for version in VERSIONS {
        let world = World::new();
        let (mut old, _) = world.persistent(version, "t", 100);
        old.subscribe(&world, "x", 1);
        let (mut new, present) = world.persistent(version, "t", 100);
        assert!(present);
        old.expect_closed(ReasonCode::SessionTakenOver);
        world.client(version, "p").publish(&world, "x", 1, "1");
        assert_eq!(new.payloads(), ["1"]);
        assert!(old.all().is_empty());
        // The old connection's own end does not touch the session.
        old.cut(&world);
        world.client(version, "p").publish(&world, "x", 1, "2");
        assert_eq!(new.payloads(), ["2"]);
    }
}

#[test]
fn sessions_expire_when_they_are_told_to() {
    let mut world = World::new();
    let (mut s, _) = world.persistent(V5, "s", 2);
    s.subscribe(&world, "q", 1);
    s.cut(&world);
    world.client(V5, "p").publish(&world, "q", 1, "x");
    world.advance(1.0);
    let (mut s, present) = world.persistent(V5, "s", 2);
    assert!(present);
    assert_eq!(s.payloads(), ["x"]);
    s.cut(&world);
    world.advance(2.5);
    let (mut s, present) = world.persistent(V5, "s", 2);
    assert!(!present);
    s.expect_nothing();
}

#[test]
fn a_message_counts_its_expiry_down_and_is_gone_after_it() {
    for version in VERSIONS {
        let mut world = World::new();
        let (mut s, _) = world.persistent(version, "s", 100);
        s.subscribe(&world, "e", 1);
        s.cut(&world);
        let mut p = world.client(V5, "p");
        let three = |publish: &mut weirmq_wire::Publish| {
            publish.extras = extras(|extras| extras.message_expiry_interval_s = Some(3));
        };
        p.publish_with(&world, "e", 1, "x", three);
        world.advance(1.5);
        let (mut s, _) = world.persistent(version, "s", 100);
        let got = s.next_publish();
        assert_eq!(
            got.extras.and_then(|extras| extras.message_expiry_interval_s),
            (version == V5).then_some(2)
        );
        s.ack(&world, PacketType::PubAck, got.packet_id.unwrap());
        s.cut(&world);
        p.publish_with(&world, "e", 1, "y", three);
        world.advance(4.0);
        let (mut s, _) = world.persistent(version, "s", 100);
        s.expect_nothing();
    }
}

#[test]
fn a_shared_subscription_gives_each_message_to_one_member() {
    let world = World::new();
    let (mut s1, mut s2) = (world.client(V5, "s1"), world.client(V311, "s2"));
    let (mut s3, mut s4) = (world.client(V5, "s3"), world.client(V5, "s4"));
    s1.subscribe(&world, "$share/g/t", 1);
    s2.subscribe(&world, "$share/g/t", 1);
    s3.subscribe(&world, "t", 0);
    s4.subscribe(&world, "$share/h/t", 0);
    let mut p = world.client(V5, "p");
    for number in 0..100 {
        p.publish(&world, "t", 1, &number.to_string());
    }
    let (one, two) = (s1.payloads(), s2.payloads());
    assert_eq!(one.len() + two.len(), 100);
    assert!(one.len() > 20 && two.len() > 20);
    assert_eq!(s3.payloads().len(), 100);
    assert_eq!(s4.payloads().len(), 100);
}

#[test]
fn a_client_that_is_silent_is_disconnected_after_one_and_a_half_keep_alives() {
    for version in VERSIONS {
        let mut world = World::new();
        let (mut a, _) = world.connect(version, "a", |connect| connect.keep_alive_s = 2);
        world.advance(2.5);
        a.send(&world, Packet::PingReq);
        assert_eq!(a.next(), Some(Packet::PingResp));
        world.advance(2.9);
        // The first byte of a packet is no packet.
        a.send_bytes(&world, &[0xc0]);
        a.pass(&world);
        assert!(!a.is_closed());
        world.advance(0.2);
        a.pass(&world);
        a.expect_closed(ReasonCode::KeepAliveTimeout);
    }
}

#[test]
fn nothing_is_left_of_clients_that_have_gone() {
    let mut world = World::new();
    let before = world.broker.footprint();
    for round in 0..200 {
        let (mut s, _) = world.persistent(VERSIONS[round % 2], &format!("s{round}"), 1);
        s.subscribe(&world, &format!("a/{round}/+"), 1);
        s.subscribe(&world, "$share/g/a/#", 1);
        let mut p = world.client(V5, "p");
        p.publish(&world, &format!("a/{round}/b"), 2, "x");
        s.cut(&world);
        p.disconnect(&world);
    }
    world.advance(700_000.0);
    world.broker.tidy(world.now());
    assert_eq!(world.broker.footprint(), before);
    assert_eq!(world.broker.counters().subscriptions.get(), 0);
    assert_eq!(world.broker.counters().clients_connected.get(), 0);
}
