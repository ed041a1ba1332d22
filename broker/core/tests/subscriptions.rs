//! What a client subscribes to it gets, once, on its terms, until it unsubscribes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use support::{V5, V311, VERSIONS, World, extras, id, text};
use weirmq_wire::{
    Packet, PacketType, ReasonCode, SubAck, Subscribe, SubscribeOptions, UnsubAck, Unsubscribe,
};

#[test]
fn an_answer_has_a_code_for_each_filter_in_their_order_and_the_identifier_of_the_question() {
    for version in VERSIONS {
        let world = World::new();
        let mut s = world.client(version, "s");
        let filters = [("a", 2), ("b/#", 0), ("$SYS/x", 1), ("$other", 1), ("a", 1)]
            .map(|(filter, qos)| {
                (text(filter), SubscribeOptions { qos: support::qos(qos), ..Default::default() })
            })
            .to_vec();
        let packet_id = id(513);
        let subscribe = Subscribe { packet_id, subscription_id: None, user_properties: Vec::new(), filters };
        s.send(&world, Packet::Subscribe(subscribe));
        let denied = if version == V5 { ReasonCode::NotAuthorized } else { ReasonCode::UnspecifiedError };
        use ReasonCode::{GrantedQoS1, GrantedQoS2, Success};
        let Some(Packet::SubAck(SubAck { packet_id: got, codes, .. })) = s.next() else { panic!("SUBACK") };
        assert_eq!((got, codes), (packet_id, vec![GrantedQoS2, Success, GrantedQoS1, denied, GrantedQoS1]));
        let filters = ["a", "never", "b/+", "b/#"].map(text).to_vec();
        let unsubscribe = Unsubscribe { packet_id, user_properties: Vec::new(), filters };
        s.send(&world, Packet::Unsubscribe(unsubscribe));
        let Some(Packet::UnsubAck(UnsubAck { packet_id: got, codes, .. })) = s.next() else {
            panic!("UNSUBACK")
        };
        assert_eq!(got, packet_id);
        if version == V5 {
            use ReasonCode::NoSubscriptionExisted as None;
            assert_eq!(codes, [Success, None, None, Success]);
        }
    }
}

#[test]
fn a_filter_is_unsubscribed_by_every_character_of_it_and_not_by_what_it_matches() {
    for version in VERSIONS {
        let world = World::new();
        let mut s = world.client(version, "s");
        let mut p = world.client(version, "p");
        s.subscribe(&world, "a/+", 0);
        for other in ["a/b", "a/#", "A/+", "a/+/", "+/+"] {
            s.unsubscribe(&world, other);
            p.publish(&world, "a/b", 0, "x");
            assert_eq!(s.payloads(), ["x"], "{other}");
        }
        s.unsubscribe(&world, "a/+");
        p.publish(&world, "a/b", 0, "x");
        s.expect_nothing();
    }
}

#[test]
fn what_is_under_way_is_completed_after_unsubscribing_and_nothing_new_comes() {
    for version in VERSIONS {
        let world = World::new();
        let mut settings = weirmq_core::broker::Settings::default();
        settings.limits.inflight_max = 2;
        let world = if version == V5 { World::with(settings, []) } else { world };
        let mut s = world.client(version, "s");
        s.subscribe(&world, "q", 2);
        let mut p = world.client(version, "p");
        p.publish_with(&world, "q", 1, "1", |publish| publish.packet_id = Some(id(1)));
        p.publish_with(&world, "q", 2, "2", |publish| publish.packet_id = Some(id(2)));
        p.publish_with(&world, "q", 1, "3", |publish| publish.packet_id = Some(id(3)));
        let (first, second) = (s.next_publish(), s.next_publish());
        if version == V311 {
            s.next_publish();
        }
        s.unsubscribe(&world, "q");
        p.publish_with(&world, "q", 1, "4", |publish| publish.packet_id = Some(id(4)));
        s.ack(&world, PacketType::PubAck, first.packet_id.unwrap());
        if version == V5 {
            assert_eq!(s.next_publish().payload, "3", "what was queued before is sent");
        }
        s.ack(&world, PacketType::PubRec, second.packet_id.unwrap());
        s.expect_ack(PacketType::PubRel, second.packet_id.unwrap(), ReasonCode::Success);
        s.ack(&world, PacketType::PubComp, second.packet_id.unwrap());
        s.expect_nothing();
    }
}

#[test]
fn subscribing_again_replaces_the_subscription_and_loses_and_doubles_nothing() {
    for version in VERSIONS {
        let world = World::new();
        let mut s = world.client(version, "s");
        let mut p = world.client(version, "p");
        let mut got = Vec::new();
        for number in 0..300_u16 {
            if number % 3 == 0 {
                let mut bytes = Vec::new();
                let options =
                    SubscribeOptions { qos: support::qos((number % 2) as u8), ..Default::default() };
                let filters = vec![(text("x/#"), options)];
                let packet_id = id(1_000 + number);
                let subscribe =
                    Subscribe { packet_id, subscription_id: None, user_properties: Vec::new(), filters };
                Packet::Subscribe(subscribe).encode(version, &mut bytes).unwrap();
                s.send_raw_subscribe(&world, &bytes, packet_id);
            }
            p.publish_with(&world, "x/y", 1, &number.to_string(), |publish| {
                publish.packet_id = Some(id(number + 1));
            });
        }
        while let Some(packet) = s.next() {
            if let Packet::Publish(publish) = packet {
                let number: u16 = std::str::from_utf8(&publish.payload).unwrap().parse().unwrap();
                let granted = (number - number % 3) % 2;
                assert_eq!(u16::from(publish.qos.as_u8()), granted);
                got.push(number);
                if let Some(packet_id) = publish.packet_id {
                    s.ack(&world, PacketType::PubAck, packet_id);
                }
            }
        }
        assert_eq!(got, (0..300).collect::<Vec<_>>());
        assert_eq!(world.broker.counters().subscriptions.get(), 1);
    }
}

#[test]
fn a_client_that_wants_nothing_of_its_own_gets_what_others_send_on_every_connection() {
    let world = World::new();
    let (mut s, _) = world.persistent(V5, "s", 100);
    s.subscribe_with(&world, "n", 1, |_, options| options.no_local = true);
    let mut other = world.client(V5, "other");
    other.subscribe(&world, "n", 1);
    for _ in 0..2 {
        s.publish(&world, "n", 0, "own");
        assert_eq!(other.payloads(), ["own"]);
        s.expect_nothing();
        other.publish(&world, "n", 0, "other");
        assert_eq!(s.payloads(), ["other"]);
        assert_eq!(other.payloads(), ["other"]);
        s.cut(&world);
        s = world.persistent(V5, "s", 100).0;
    }
    // Another subscription of its own that matches too is on its own terms.
    s.subscribe(&world, "+", 0);
    s.publish(&world, "n", 1, "own");
    assert_eq!(s.next_publish().qos.as_u8(), 0);
    s.expect_ack(PacketType::PubAck, id(7), ReasonCode::Success);
    s.expect_nothing();
}

#[test]
fn v311_overlapping_subscriptions_make_one_message_with_the_highest_qos() {
    let world = World::new();
    let mut s = world.client(V311, "s");
    for (filter, qos) in [("o/#", 0), ("o/+", 2), ("#", 1)] {
        s.subscribe(&world, filter, qos);
    }
    world.client(V311, "p").publish(&world, "o/a", 2, "x");
    assert_eq!(s.expect_one_publish().qos.as_u8(), 2);
}

#[test]
fn topics_match_by_the_letter() {
    for version in VERSIONS {
        for (filter, topic, expected) in [
            ("sport/#", "sport", true),
            ("sport/#", "sport/a/b", true),
            ("+", "a/b", false),
            ("+", "/a", false),
            ("/+", "/a", true),
            ("+/+", "/a", true),
            ("a/+/c", "a//c", true),
            ("#", "$SYS/x", false),
            ("+/x", "$SYS/x", false),
            ("$SYS/#", "$SYS/x", true),
            ("A", "a", false),
            ("\u{e9}", "e\u{301}", false),
            ("a/", "a", false),
            ("#", "/", true),
        ] {
            let world = World::new();
            let mut p = world.client(version, "p");
            p.retain(&world, topic, "retained");
            let mut s = world.client(version, "s");
            s.subscribe(&world, filter, 0);
            p.publish(&world, topic, 0, "live");
            let expected: &[&str] = if expected { &["retained", "live"] } else { &[] };
            assert_eq!(s.payloads(), expected, "{filter} ~ {topic}");
        }
    }
}

#[test]
fn properties_reach_the_receiver_unaltered_and_in_order() {
    let world = World::new();
    let (mut s, _) = world.persistent(V5, "s", 100);
    s.subscribe(&world, "r", 1);
    let mut old = world.client(V311, "old");
    old.subscribe(&world, "r", 1);
    let sent = extras(|extras| {
        extras.message.payload_is_utf8 = Some(true);
        extras.message.content_type = Some("a".into());
        extras.message.response_topic = Some("r".into());
        extras.message.correlation_data = Some(bytes::Bytes::from_static(b"\0\xff"));
        extras.message.user = [("k", "1"), ("k", "2"), ("a", ""), ("k", "1")]
            .map(|(name, value)| (name.into(), value.into()))
            .to_vec();
    });
    let mut p = world.client(V5, "p");
    let with = |publish: &mut weirmq_wire::Publish| {
        publish.extras = sent.clone();
        publish.retain = true;
    };
    p.publish_with(&world, "r", 1, "{}", with);
    assert_eq!(s.next_publish().extras, sent);
    assert_eq!(old.expect_one_publish().extras, None);
    s.cut(&world);
    p.publish_with(&world, "r", 1, "{}", with);
    let (mut s, _) = world.persistent(V5, "s", 100);
    for publish in s.drain(&world) {
        assert_eq!(publish.extras, sent, "through the queue");
    }
    s.subscribe(&world, "#", 0);
    assert_eq!(s.next_publish().extras, sent, "retained");
    old.publish(&world, "r", 0, "plain");
    assert_eq!(s.next_publish().extras, None);
}

#[test]
fn rights_are_asked_for_each_publish_whatever_its_qos() {
    for version in VERSIONS {
        let world = World::new();
        let mut p = world.client(version, "p");
        for qos in 0..=2 {
            p.publish_with(&world, "$forbidden", qos, "x", |publish| {
                publish.packet_id = publish.packet_id.map(|_| id(u16::from(qos)));
            });
        }
        p.expect_ack(PacketType::PubAck, id(1), ReasonCode::NotAuthorized);
        p.expect_ack(PacketType::PubRec, id(2), ReasonCode::NotAuthorized);
        p.expect_nothing();
    }
}
