//! Retained messages reach who subscribes later, once, on the terms of the subscription.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use support::{V5, V311, VERSIONS, World, extras, id, text};
use weirmq_core::broker::Settings;
use weirmq_core::counters::DropReason;
use weirmq_wire::{Packet, PacketType, ReasonCode, RetainHandling, Subscribe, SubscribeOptions};

fn subscribe(client: &mut support::Client, world: &World, handling: RetainHandling) -> usize {
    client.subscribe_with(world, "r/#", 0, |_, options| options.retain_handling = handling);
    client.payloads().len()
}

#[test]
fn retain_handling_says_when_they_are_sent() {
    let world = World::new();
    world.client(V5, "p").retain(&world, "r", "x");
    let (mut s, _) = world.persistent(V5, "s", 100);
    use RetainHandling::{DoNotSend, Send, SendIfNew};
    assert_eq!(subscribe(&mut s, &world, DoNotSend), 0);
    assert_eq!(subscribe(&mut s, &world, SendIfNew), 0, "the subscription was there");
    assert_eq!(subscribe(&mut s, &world, Send), 1);
    assert_eq!(subscribe(&mut s, &world, Send), 1);
    s.unsubscribe(&world, "r/#");
    assert_eq!(subscribe(&mut s, &world, SendIfNew), 1);
    assert_eq!(subscribe(&mut s, &world, SendIfNew), 0);
    s.cut(&world);
    let (mut s, present) = world.persistent(V5, "s", 100);
    assert!(present);
    s.expect_nothing();
    assert_eq!(subscribe(&mut s, &world, SendIfNew), 0, "it outlives the connection");
}

#[test]
fn v311_subscribing_again_sends_them_again() {
    let world = World::new();
    world.client(V311, "p").retain(&world, "r", "x");
    let mut s = world.client(V311, "s");
    for _ in 0..2 {
        s.subscribe(&world, "r", 0);
        assert!(s.expect_one_publish().retain);
    }
}

#[test]
fn the_retain_flag_is_forwarded_only_where_the_subscription_asks_for_it() {
    let world = World::new();
    let (mut plain, mut as_published) = (world.client(V5, "plain"), world.client(V5, "as published"));
    let mut old = world.client(V311, "old");
    plain.subscribe(&world, "r", 0);
    old.subscribe(&world, "r", 0);
    as_published.subscribe_with(&world, "r", 0, |_, options| options.retain_as_published = true);
    let mut p = world.client(V5, "p");
    p.retain(&world, "r", "1");
    p.publish(&world, "r", 0, "2");
    for (client, expected) in
        [(&mut plain, [false, false]), (&mut old, [false, false]), (&mut as_published, [true, false])]
    {
        assert_eq!([client.next_publish().retain, client.next_publish().retain], expected);
    }
    let mut late = world.client(V5, "late");
    late.subscribe(&world, "r", 0);
    let got = late.expect_one_publish();
    assert!(got.retain && got.payload == "1");
}

#[test]
fn they_come_with_the_identifier_of_the_subscription_and_the_lower_qos() {
    for retained in 0..=2 {
        for granted in 0..=2 {
            let world = World::new();
            let mut p = world.client(V5, "p");
            p.publish_with(&world, "r", retained, "x", |publish| publish.retain = true);
            let mut s = world.client(V5, "s");
            s.subscribe_with(&world, "r", granted, |subscribe, _| subscribe.subscription_id = Some(7));
            let got = s.expect_one_publish();
            assert_eq!(got.qos.as_u8(), retained.min(granted));
            assert_eq!(got.extras.unwrap().subscription_ids, [7]);
        }
    }
}

#[test]
fn a_message_without_payload_takes_away_what_is_retained_and_is_a_message_like_any_other() {
    for version in VERSIONS {
        let world = World::new();
        let mut p = world.client(version, "p");
        for qos in 0..=2 {
            p.publish_with(&world, "r", qos, "x", |publish| publish.retain = true);
            if qos == 2 {
                p.ack(&world, PacketType::PubRel, id(7));
            }
            assert_eq!(world.broker.footprint().retained_messages, 1);
            p.retain(&world, "r", "");
            assert_eq!(world.broker.footprint().retained_messages, 0);
            assert_eq!(world.broker.footprint().retained_bytes, 0);
        }
    }
}

#[test]
fn they_are_not_for_shared_subscriptions() {
    let world = World::new();
    world.client(V5, "p").retain(&world, "r", "x");
    let mut s = world.client(V5, "s");
    s.subscribe(&world, "$share/g/r", 0);
    s.expect_nothing();
}

#[test]
fn a_client_that_wants_nothing_of_its_own_is_not_sent_what_it_retained() {
    let world = World::new();
    let mut a = world.client(V5, "a");
    a.retain(&world, "r/own", "own");
    world.client(V5, "b").retain(&world, "r/other", "other");
    a.subscribe_with(&world, "r/#", 0, |_, options| options.no_local = true);
    assert_eq!(a.payloads(), ["other"]);
}

#[test]
fn a_filter_twice_in_one_subscribe_is_two_subscribes() {
    for version in VERSIONS {
        let world = World::new();
        world.client(version, "p").retain(&world, "r", "x");
        let mut s = world.client(version, "s");
        let filter = |qos| (text("r"), SubscribeOptions { qos, ..SubscribeOptions::default() });
        s.send(
            &world,
            Packet::Subscribe(Subscribe {
                packet_id: id(1),
                subscription_id: None,
                user_properties: Vec::new(),
                filters: vec![filter(support::qos(2)), filter(support::qos(1))],
            }),
        );
        let Some(Packet::SubAck(suback)) = s.next() else { panic!("SUBACK") };
        assert_eq!(suback.codes, [ReasonCode::GrantedQoS2, ReasonCode::GrantedQoS1]);
        assert_eq!(s.payloads(), ["x", "x"]);
        world.client(version, "q").publish(&world, "r", 2, "live");
        assert_eq!(s.expect_one_publish().qos.as_u8(), 1, "the last one holds");
    }
}

#[test]
fn however_many_there_are_they_arrive_as_fast_as_the_client_takes_them() {
    for qos in [0, 1] {
        for version in VERSIONS {
            let mut settings = Settings::default();
            settings.limits.outbox_bytes_max = 10_000;
            settings.limits.queue_messages_max = 10;
            let world = World::with(settings, []);
            let mut p = world.client(V5, "p");
            for number in 0..5_000 {
                p.publish_with(&world, &format!("r/{number}"), qos, "some text", |publish| {
                    publish.retain = true
                });
                p.all();
            }
            let mut s = world.client(version, "s");
            s.stick(&world, true);
            let mut bytes = Vec::new();
            let filters =
                vec![(text("r/#"), SubscribeOptions { qos: support::qos(1), ..Default::default() })];
            let packet_id = id(1);
            let subscribe =
                Subscribe { packet_id, subscription_id: None, user_properties: Vec::new(), filters };
            Packet::Subscribe(subscribe).encode(version, &mut bytes).unwrap();
            let before = world.broker.counters().messages_sent.get();
            s.send_raw_subscribe(&world, &bytes, packet_id);
            assert!(world.broker.counters().messages_sent.get() - before < 1_000, "the rest waits");
            s.stick(&world, false);
            assert!(matches!(s.next(), Some(Packet::SubAck(_))));
            let got = s.drain(&world);
            assert_eq!(got.len(), 5_000);
            assert!(got.iter().all(|publish| publish.retain));
            assert_eq!(world.broker.counters().dropped.total(), 0);
        }
    }
}

#[test]
fn unsubscribing_ends_what_still_waits() {
    let world = World::new();
    let mut p = world.client(V5, "p");
    for number in 0..1_000 {
        p.publish_with(&world, &format!("r/{number}"), 1, "x", |publish| publish.retain = true);
    }
    let (mut s, _) = world.connect(V5, "s", |connect| connect.receive_max = std::num::NonZeroU16::MIN);
    s.subscribe(&world, "r/#", 1);
    let first = s.expect_one_publish();
    s.unsubscribe(&world, "r/#");
    s.ack(&world, PacketType::PubAck, first.packet_id.unwrap());
    assert!(s.drain(&world).len() < 300, "what was queued is sent, what was not is not");
}

#[test]
fn past_the_limits_a_message_is_delivered_and_not_retained() {
    for (messages_max, bytes_max) in [(2, usize::MAX), (usize::MAX, 30)] {
        let mut settings = Settings::default();
        settings.limits.retained_messages_max = messages_max;
        settings.limits.retained_bytes_max = bytes_max;
        let world = World::with(settings, []);
        let mut live = world.client(V5, "live");
        live.subscribe(&world, "r/#", 0);
        let mut p = world.client(V5, "p");
        for topic in ["r/1", "r/2", "r/3"] {
            p.publish_with(&world, topic, 0, "12345678", |publish| {
                publish.retain = true;
                publish.extras = extras(|extras| extras.message.content_type = Some("ct".into()));
            });
        }
        assert_eq!(live.payloads().len(), 3);
        assert_eq!(world.broker.footprint().retained_messages, 2);
        assert_eq!(world.broker.counters().dropped.get(DropReason::RetainedFull), 1);
        p.retain(&world, "r/1", "");
        p.retain(&world, "r/3", "12345678");
        assert_eq!(world.broker.footprint().retained_messages, 2, "there is room again");
    }
}

#[test]
fn the_newest_one_of_a_topic_is_the_one() {
    for version in VERSIONS {
        let world = World::new();
        let mut p = world.client(version, "p");
        for number in 0..10 {
            p.publish_with(&world, "r", number % 3, &number.to_string(), |publish| {
                publish.retain = true;
                publish.packet_id = publish.packet_id.map(|_| id(u16::from(number) + 1));
            });
        }
        let mut s = world.client(version, "s");
        s.subscribe(&world, "+", 2);
        assert_eq!(s.expect_one_publish().payload, "9");
    }
}
