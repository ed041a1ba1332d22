//! Neither side sends more at once than the other takes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::collections::HashSet;
use std::num::{NonZeroU16, NonZeroU32};

use support::{V5, V311, VERSIONS, World, extras, id};
use weirmq_core::broker::Settings;
use weirmq_core::counters::{DropReason, Limit};
use weirmq_wire::{Packet, PacketType, ReasonCode};

fn settings(receive_max: u16) -> Settings {
    let mut settings = Settings::default();
    settings.limits.receive_max = receive_max;
    settings
}

#[test]
fn more_qos_2_messages_than_receive_maximum_are_the_end() {
    let world = World::with(settings(2), []);
    let mut p = world.client(V5, "p");
    for number in [1, 2] {
        p.publish_with(&world, "q", 2, "x", |publish| publish.packet_id = Some(id(number)));
        p.expect_ack(PacketType::PubRec, id(number), ReasonCode::NoMatchingSubscribers);
    }
    p.publish_with(&world, "q", 2, "x", |publish| {
        publish.dup = true;
        publish.packet_id = Some(id(2));
    });
    p.expect_ack(PacketType::PubRec, id(2), ReasonCode::Success);
    p.publish(&world, "q", 0, "QoS 0 is free");
    p.publish_with(&world, "q", 2, "x", |publish| publish.packet_id = Some(id(3)));
    p.expect_closed(ReasonCode::ReceiveMaximumExceeded);
    assert_eq!(world.broker.counters().limits.get(Limit::ReceiveMaximum), 1);
}

#[test]
fn qos_1_counts_too_and_what_is_released_or_refused_does_not() {
    let world = World::with(settings(2), []);
    let mut p = world.client(V5, "p");
    for number in [1, 2] {
        p.publish_with(&world, "q", 2, "x", |publish| publish.packet_id = Some(id(number)));
    }
    p.ack(&world, PacketType::PubRel, id(1));
    p.all();
    for number in 10..20 {
        p.publish_with(&world, "q", 1, "x", |publish| publish.packet_id = Some(id(number)));
        p.expect_ack(PacketType::PubAck, id(number), ReasonCode::NoMatchingSubscribers);
    }
    p.publish_with(&world, "q", 2, "x", |publish| publish.packet_id = Some(id(3)));
    p.all();
    p.publish_with(&world, "q", 1, "x", |publish| publish.packet_id = Some(id(4)));
    p.expect_closed(ReasonCode::ReceiveMaximumExceeded);
}

#[test]
fn the_quota_begins_anew_with_a_connection() {
    let world = World::with(settings(2), []);
    let (mut p, _) = world.persistent(V5, "p", 100);
    for number in [1, 2] {
        p.publish_with(&world, "q", 2, "x", |publish| publish.packet_id = Some(id(number)));
    }
    p.cut(&world);
    let (mut p, present) = world.persistent(V5, "p", 100);
    assert!(present);
    // Its PUBRELs are owed still; they are no PUBLISH.
    p.publish_with(&world, "q", 2, "x", |publish| publish.packet_id = Some(id(3)));
    p.expect_ack(PacketType::PubRec, id(3), ReasonCode::NoMatchingSubscribers);
    for number in [1, 2, 3] {
        p.ack(&world, PacketType::PubRel, id(number));
        p.expect_ack(PacketType::PubComp, id(number), ReasonCode::Success);
    }
}

#[test]
fn v311_has_no_receive_maximum() {
    let world = World::with(settings(2), []);
    let mut p = world.client(V311, "p");
    for number in 1..=100 {
        p.publish_with(&world, "q", 2, "x", |publish| publish.packet_id = Some(id(number)));
        p.expect_ack(PacketType::PubRec, id(number), ReasonCode::Success);
    }
}

#[test]
fn a_pubcomp_frees_a_place_and_a_pubrec_only_where_it_refuses() {
    let world = World::new();
    let (mut s, _) = world.connect(V5, "s", |connect| connect.receive_max = NonZeroU16::MIN);
    s.subscribe(&world, "q", 2);
    let mut p = world.client(V5, "p");
    for number in 1..=3 {
        p.publish_with(&world, "q", 2, &number.to_string(), |publish| publish.packet_id = Some(id(number)));
    }
    let first = s.expect_one_publish().packet_id.unwrap();
    s.ack(&world, PacketType::PubRec, first);
    s.expect_ack(PacketType::PubRel, first, ReasonCode::Success);
    s.expect_nothing();
    s.ack(&world, PacketType::PubComp, first);
    let second = s.expect_one_publish().packet_id.unwrap();
    s.ack_with(&world, PacketType::PubRec, second, ReasonCode::QuotaExceeded);
    assert_eq!(s.expect_one_publish().payload, "3");
}

#[test]
fn what_is_owed_after_a_reconnect_keeps_to_the_new_quota_but_no_pubrel_waits_for_it() {
    let world = World::new();
    let (mut s, _) = world.persistent(V5, "s", 100);
    s.subscribe(&world, "q", 2);
    let mut p = world.client(V5, "p");
    for number in 1..=4 {
        p.publish_with(&world, "q", 2, &number.to_string(), |publish| publish.packet_id = Some(id(number)));
    }
    let got: Vec<_> = (0..4).map(|_| s.next_publish().packet_id.unwrap()).collect();
    s.ack(&world, PacketType::PubRec, got[3]);
    s.all();
    s.cut(&world);
    let (mut s, _) = world.connect(V5, "s", |connect| {
        connect.clean_start = false;
        connect.session_expiry_interval_s = Some(100);
        connect.receive_max = NonZeroU16::MIN;
    });
    let again = s.next_publish();
    assert_eq!((again.packet_id, again.dup), (Some(got[0]), true));
    s.expect_ack(PacketType::PubRel, got[3], ReasonCode::Success);
    s.expect_nothing();
    s.ack(&world, PacketType::PubComp, got[3]);
    s.expect_nothing();
    s.ack_with(&world, PacketType::PubRec, got[0], ReasonCode::UnspecifiedError);
    assert_eq!(s.expect_one_publish().packet_id, Some(got[1]), "in their order");
}

#[test]
fn a_message_too_large_for_its_receiver_is_left_out_and_counted() {
    let world = World::new();
    let (mut s, _) = world.connect(V5, "s", |connect| connect.packet_size_max = NonZeroU32::new(40));
    s.subscribe(&world, "b", 1);
    let mut p = world.client(V5, "p");
    for length in [10, 100, 10] {
        p.publish(&world, "b", 1, &"x".repeat(length));
        p.expect_ack(PacketType::PubAck, id(7), ReasonCode::Success);
    }
    let got = s.drain(&world);
    assert_eq!(got.iter().map(|publish| publish.payload.len()).collect::<Vec<_>>(), [10, 10]);
    assert!(got.iter().all(|publish| publish.packet_id.is_some()));
    assert_eq!(world.broker.counters().dropped.get(DropReason::PacketTooLarge), 1);
    let drops = world.broker.client("s").unwrap().drops;
    assert!(drops.contains(&(DropReason::PacketTooLarge, 1)));
}

#[test]
fn a_topic_alias_does_not_make_a_message_too_large() {
    let world = World::new();
    let (mut s, _) = world.connect(V5, "s", |connect| {
        connect.packet_size_max = NonZeroU32::new(30);
        connect.topic_alias_max = 10;
    });
    s.subscribe(&world, "abc", 0);
    let mut p = world.client(V5, "p");
    // 2 + 2 + 3 + 1 bytes come before the payload, and naming an alias takes 3 more. Once the client knows the
    // alias, the topic takes no more than that.
    for length in [22, 23, 19, 22, 23] {
        p.publish(&world, "abc", 0, &"x".repeat(length));
    }
    let got: Vec<_> = s.drain(&world).iter().map(|publish| publish.payload.len()).collect();
    assert_eq!(got, [22, 19, 22]);
}

#[test]
fn aliases_towards_a_client_are_its_connection_s_and_no_more_than_it_takes() {
    let mut world = World::new();
    let connect = |world: &World, topic_alias_max| {
        let (s, _) = world.connect(V5, "s", |connect| {
            connect.clean_start = false;
            connect.session_expiry_interval_s = Some(100);
            connect.topic_alias_max = topic_alias_max;
        });
        s
    };
    let mut p = world.client(V5, "p");
    for topic_alias_max in [2, 2, 0, 1] {
        let mut s = connect(&world, topic_alias_max);
        s.subscribe(&world, "t/#", 1);
        for round in 0..3 {
            for topic in ["t/a", "t/b", "t/c"] {
                p.publish(&world, topic, 1, &format!("{round}"));
            }
        }
        let got = s.drain(&world);
        let topics: Vec<_> = got.iter().map(|publish| publish.topic.to_string()).collect();
        assert_eq!(topics, ["t/a", "t/b", "t/c"].repeat(3));
        let aliases: HashSet<_> = got.iter().filter_map(|p| p.extras.as_ref()?.topic_alias).collect();
        assert_eq!(aliases.len(), usize::from(topic_alias_max));
        s.cut(&world);
        world.advance(1.0);
    }
}

/// 70,000 messages: identifiers go round, are never 0, never used twice at once, whatever the order of the
/// acknowledgements. The checker of the harness looks at each of them.
#[test]
fn packet_identifiers_go_round_and_are_never_in_use_twice() {
    for version in VERSIONS {
        let mut settings = Settings::default();
        settings.limits.inflight_max = 100;
        let world = World::with(settings, []);
        let mut s = world.client(version, "s");
        s.subscribe(&world, "q", 1);
        let mut p = world.client(version, "p");
        let mut waiting = Vec::new();
        let (mut got, mut random, mut kept) = (0, 0x1234_5678_u32, None);
        for number in 0..70_000 {
            p.publish(&world, "q", 1, "x");
            p.all();
            while let Some(packet) = s.next() {
                let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
                got += 1;
                waiting.push(publish.packet_id.unwrap());
            }
            if number == 10 {
                // One is not acknowledged for more than a round.
                kept = waiting.pop();
            }
            if waiting.len() >= 90 {
                while waiting.len() > 10 {
                    random ^= random << 13;
                    random ^= random >> 17;
                    random ^= random << 5;
                    let place = random as usize % waiting.len();
                    s.ack(&world, PacketType::PubAck, waiting.swap_remove(place));
                }
            }
        }
        for packet_id in waiting.into_iter().chain(kept) {
            s.ack(&world, PacketType::PubAck, packet_id);
        }
        got += s.drain(&world).len();
        assert_eq!(got, 70_000);
        assert_eq!(world.broker.counters().messages_sent.get(), 70_000);
        assert_eq!(world.broker.counters().messages_received.get(), 70_000);
        assert_eq!(world.broker.counters().dropped.total(), 0);
    }
}

#[test]
fn an_acknowledgement_of_something_else_frees_nothing() {
    for version in VERSIONS {
        let mut settings = Settings::default();
        settings.limits.inflight_max = 1;
        let world = World::with(settings, []);
        let mut s = world.client(version, "s");
        s.subscribe(&world, "q", 1);
        let mut p = world.client(version, "p");
        p.publish(&world, "q", 1, "1");
        p.publish(&world, "q", 1, "2");
        let first = s.expect_one_publish().packet_id.unwrap();
        s.ack(&world, PacketType::PubAck, id(first.get() + 1));
        s.ack(&world, PacketType::PubComp, first);
        s.expect_nothing();
        s.ack(&world, PacketType::PubRec, id(first.get() + 1));
        s.expect_ack(PacketType::PubRel, id(first.get() + 1), ReasonCode::PacketIdentifierNotFound);
        s.ack(&world, PacketType::PubAck, first);
        assert_eq!(s.expect_one_publish().payload, "2");
        s.ack(&world, PacketType::PubAck, first);
        s.expect_nothing();
    }
}

#[test]
fn a_client_that_reads_nothing_loses_qos_0_and_keeps_qos_1() {
    for version in VERSIONS {
        let mut settings = Settings::default();
        settings.limits.outbox_bytes_max = 1_000;
        let world = World::with(settings, []);
        let mut s = world.client(version, "s");
        s.subscribe(&world, "q", 1);
        s.stick(&world, true);
        let mut p = world.client(version, "p");
        for number in 0..50 {
            p.publish(&world, "q", number % 2, &format!("{number:0100}"));
        }
        let lost = world.broker.counters().dropped.get(DropReason::SlowConsumer);
        assert!(lost > 15, "{lost}");
        s.stick(&world, false);
        let got = s.drain(&world);
        assert_eq!(got.iter().filter(|publish| publish.qos.as_u8() == 1).count(), 25);
        assert_eq!(got.len() as u64 + lost, 50);
    }
}

#[test]
fn what_is_for_a_broken_socket_is_counted_or_waits() {
    for version in VERSIONS {
        let world = World::new();
        let (mut s, _) = world.persistent(version, "s", 100);
        s.subscribe(&world, "q", 1);
        *s.pipe.broken.lock() = true;
        let mut p = world.client(version, "p");
        p.publish(&world, "q", 1, "1");
        p.publish(&world, "q", 0, "lost");
        p.publish(&world, "q", 1, "2");
        let drops = world.broker.client("s").unwrap().drops;
        assert!(drops.contains(&(DropReason::NoReceiverOnline, 1)));
        s.cut(&world);
        let got = world.persistent(version, "s", 100).0.payloads();
        assert_eq!(got, ["1", "2"]);
    }
}

#[test]
fn a_message_that_a_client_refuses_is_not_sent_again() {
    let world = World::new();
    let (mut s, _) = world.persistent(V5, "s", 100);
    s.subscribe(&world, "q", 2);
    let mut p = world.client(V5, "p");
    for (qos, kind) in [(1, PacketType::PubAck), (2, PacketType::PubRec)] {
        p.publish_with(&world, "q", qos, "x", |publish| publish.packet_id = Some(id(u16::from(qos))));
        let got = s.expect_one_publish();
        s.ack_with(&world, kind, got.packet_id.unwrap(), ReasonCode::UnspecifiedError);
        s.expect_nothing();
        s.cut(&world);
        s = world.persistent(V5, "s", 100).0;
        s.expect_nothing();
    }
}

#[test]
fn nothing_is_sent_again_while_a_connection_stays() {
    for version in VERSIONS {
        let mut world = World::new();
        let mut s = world.client(version, "s");
        s.subscribe(&world, "q", 2);
        let mut p = world.client(version, "p");
        p.publish(&world, "q", 1, "1");
        p.publish(&world, "q", 2, "2");
        assert_eq!(s.all().len(), 2);
        for _ in 0..100 {
            world.advance(60.0);
            s.pass(&world);
            s.expect_nothing();
        }
    }
}

#[test]
fn the_dup_flag_of_the_publisher_goes_no_further() {
    for version in VERSIONS {
        let world = World::new();
        let mut s = world.client(version, "s");
        s.subscribe(&world, "q", 2);
        let mut p = world.client(version, "p");
        for qos in [1, 2] {
            p.publish_with(&world, "q", qos, "x", |publish| publish.dup = true);
            assert!(!s.next_publish().dup);
        }
    }
}

#[test]
fn a_publisher_s_alias_that_is_too_high_or_names_nothing_is_the_end() {
    let alias = |number| extras(|extras| extras.topic_alias = NonZeroU16::new(number));
    for (max, number, code) in [
        (32, 33, ReasonCode::TopicAliasInvalid),
        (0, 1, ReasonCode::TopicAliasInvalid),
        (32, 32, ReasonCode::ProtocolError),
    ] {
        let mut settings = Settings::default();
        settings.limits.topic_alias_max = max;
        let world = World::with(settings, []);
        let mut s = world.client(V5, "s");
        s.subscribe(&world, "#", 0);
        let mut p = world.client(V5, "p");
        let topic = if code == ReasonCode::ProtocolError { "" } else { "al" };
        p.publish_with(&world, topic, 0, "x", |publish| publish.extras = alias(number));
        p.expect_closed(code);
        s.expect_nothing();
    }
    // Every alias up to the limit is good, may be given another topic, and ends with the connection.
    let world = World::new();
    let mut s = world.client(V5, "s");
    s.subscribe(&world, "#", 0);
    let (mut p, _) = world.persistent(V5, "p", 100);
    for number in 1..=32 {
        p.publish_with(&world, "al", 0, "1", |publish| publish.extras = alias(number));
        p.publish_with(&world, &format!("al/{number}"), 0, "2", |publish| publish.extras = alias(number));
        p.publish_with(&world, "", 0, "3", |publish| publish.extras = alias(number));
        let topics: Vec<_> = s.drain(&world).iter().map(|publish| publish.topic.to_string()).collect();
        assert_eq!(topics, ["al".to_owned(), format!("al/{number}"), format!("al/{number}")]);
    }
    p.cut(&world);
    let (mut p, present) = world.persistent(V5, "p", 100);
    assert!(present);
    p.publish_with(&world, "", 0, "x", |publish| publish.extras = alias(1));
    p.expect_closed(ReasonCode::ProtocolError);
    s.expect_nothing();
}

/// What many clients do: all their acknowledgements in one segment.
#[test]
fn acknowledgements_that_come_in_one_read_are_answered_like_single_ones() {
    for version in VERSIONS {
        let world = World::new();
        let mut s = world.client(version, "s");
        s.subscribe(&world, "q", 2);
        let mut p = world.client(version, "p");
        // More than are handled at once, and some of which nobody knows.
        let all: Vec<u16> = (1..=150).collect();
        for number in &all {
            p.publish_with(&world, "q", 2, "x", |publish| publish.packet_id = Some(id(*number)));
        }
        p.all();
        p.acks(&world, PacketType::PubRel, all.iter().copied().chain([500, 7]));
        for number in &all {
            p.expect_ack(PacketType::PubComp, id(*number), ReasonCode::Success);
        }
        for number in [500, 7] {
            p.expect_ack(PacketType::PubComp, id(number), ReasonCode::PacketIdentifierNotFound);
        }
        p.expect_nothing();
        s.work(&world);
        s.all();
        s.acks(&world, PacketType::PubRec, [1, 900, 2]);
        s.expect_ack(PacketType::PubRel, id(1), ReasonCode::Success);
        s.expect_ack(PacketType::PubRel, id(900), ReasonCode::PacketIdentifierNotFound);
        s.expect_ack(PacketType::PubRel, id(2), ReasonCode::Success);
        s.acks(&world, PacketType::PubRec, 3..=150);
        s.acks(&world, PacketType::PubComp, all);
        assert_eq!(world.broker.client("s").map(|client| client.pending), Some(0), "{version:?}");
    }
}

#[test]
fn acknowledgements_in_one_read_make_room_for_as_many_as_wait() {
    let world = World::new();
    let mut s = world.connect(V5, "s", |connect| connect.receive_max = id(3)).0;
    s.subscribe(&world, "q", 1);
    let mut p = world.client(V5, "p");
    for number in 0..10 {
        p.publish(&world, "q", 1, &number.to_string());
    }
    s.work(&world);
    assert_eq!(s.payloads(), ["0", "1", "2"]);
    s.acks(&world, PacketType::PubAck, [1, 77, 2, 3]);
    assert_eq!(s.payloads(), ["3", "4", "5"]);
}
