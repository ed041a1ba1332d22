//! QoS 0 messages that come together to one topic are handed on together, and nobody can tell.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use bytes::Bytes;
use support::{Client, V5, V311, VERSIONS, World, id, qos, text};
use weirmq_core::broker::Settings;
use weirmq_core::counters::DropReason;
use weirmq_core::hook::{Actions, Failure, Hook, HookPoint, HookPoints, Link, Observe};
use weirmq_core::message::Message;
use weirmq_core::time::Now;
use weirmq_core::topic::TopicName;
use weirmq_wire::{Packet, Publish, Version};

/// The bytes of messages with these topics, QoS and payloads.
fn frames<'a>(version: Version, messages: impl IntoIterator<Item = (&'a str, u8, Vec<u8>)>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, (topic, qos_number, payload)) in messages.into_iter().enumerate() {
        let packet = Packet::Publish(Publish {
            dup: false,
            qos: qos(qos_number),
            retain: false,
            topic: text(topic),
            packet_id: (qos_number > 0).then(|| id(number as u16 + 1)),
            extras: None,
            payload: Bytes::from(payload),
        });
        packet.encode(version, &mut bytes).unwrap();
    }
    bytes
}

/// A publisher that has published to "a" before, so that what it sends next goes the short way.
fn publisher(world: &World, version: Version) -> Client {
    let mut publisher = world.client(version, "publisher");
    publisher.publish(world, "a", 0, "first");
    publisher
}

fn received(client: &mut Client) -> Vec<Vec<u8>> {
    client
        .all()
        .into_iter()
        .map(|packet| match packet {
            Packet::Publish(publish) => publish.payload.to_vec(),
            other => panic!("only PUBLISH is expected, not {other:?}"),
        })
        .collect()
}

fn dropped(world: &World, reason: DropReason) -> u64 {
    world.broker.counters().dropped.get(reason)
}

#[test]
fn everybody_gets_what_came_on_his_own_terms() {
    // Few and small, so that they are copied; many, so that they are shared; large parts of their buffer.
    for (messages, bytes) in [(3, 10), (300, 90), (40, 2_000), (3, 70_000)] {
        for version in VERSIONS {
            let world = World::new();
            let mut plain: Vec<Client> = [V311, V5, V311, V5]
                .into_iter()
                .enumerate()
                .map(|(number, version)| world.client(version, &format!("plain-{number}")))
                .collect();
            for client in &mut plain {
                client.subscribe(&world, "a", 1);
            }
            let mut numbered = world.client(V5, "numbered");
            numbered.subscribe_with(&world, "+", 0, |subscribe, _| {
                subscribe.subscription_id = Some(9);
            });
            let mut short = world.connect(V5, "short", |connect| connect.topic_alias_max = 5).0;
            short.subscribe(&world, "#", 0);
            let mut narrow =
                world.connect(V5, "narrow", |connect| connect.packet_size_max = NonZeroU32::new(60)).0;
            narrow.subscribe(&world, "a", 0);
            let mut publisher = publisher(&world, version);
            let payloads: Vec<Vec<u8>> = (0..messages)
                .map(|number| vec![number as u8; if number == 1 { 20 } else { bytes }])
                .collect();
            let block = frames(version, payloads.iter().map(|payload| ("a", 0, payload.clone())));
            publisher.send_bytes(&world, &block);
            let mut expected = vec![b"first".to_vec()];
            expected.extend(payloads);
            for client in plain.iter_mut().chain([&mut short]) {
                assert_eq!(received(client), expected);
            }
            for packet in numbered.all() {
                let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
                assert_eq!(publish.extras.unwrap().subscription_ids, [9]);
                assert_eq!(publish.payload, expected.remove(0));
            }
            let got = received(&mut narrow);
            assert!(got.iter().all(|payload| payload.len() < 60) && got.contains(&vec![1; 20]));
            let too_large = if bytes > 60 { messages as u64 - 1 } else { 0 };
            assert_eq!(dropped(&world, DropReason::PacketTooLarge), too_large);
        }
    }
}

#[test]
fn the_order_holds_whatever_comes_between() {
    for (from, to) in [(V311, V311), (V5, V5), (V311, V5), (V5, V311)] {
        let world = World::new();
        let mut subscriber = world.connect(to, "subscriber", |_| {}).0;
        subscriber.subscribe(&world, "#", 1);
        let mut publisher = publisher(&world, from);
        let pattern = [("a", 0), ("a", 0), ("a", 1), ("a", 0), ("b", 0), ("a", 0), ("b", 1), ("b", 0)];
        let messages = || (0..200_usize).map(|number| (pattern[number % 8].0, pattern[number % 8].1, number));
        let block =
            frames(from, messages().map(|(topic, qos, number)| (topic, qos, vec![number as u8; 100])));
        publisher.send_bytes(&world, &block);
        let got = subscriber.drain(&world);
        let got: Vec<_> =
            got.iter().skip(1).map(|got| (&*got.topic, got.qos.as_u8(), got.payload[0])).collect();
        let sent: Vec<_> = messages().map(|(topic, qos, number)| (topic, qos, number as u8)).collect();
        assert_eq!(got, sent);
    }
}

#[test]
fn an_outbox_takes_as_much_as_it_may_and_every_message_that_it_does_not_take_is_counted() {
    let mut settings = Settings::default();
    settings.limits.outbox_bytes_max = 1_000;
    let world = World::with(settings, []);
    let mut subscriber = world.client(V311, "subscriber");
    subscriber.subscribe(&world, "a", 0);
    let mut publisher = publisher(&world, V311);
    assert_eq!(received(&mut subscriber).len(), 1);
    subscriber.stick(&world, true);
    let block = frames(V311, (0..50_u8).map(|number| ("a", 0, vec![number; 95])));
    publisher.send_bytes(&world, &block);
    publisher.send_bytes(&world, &block);
    // Each is 100 bytes; the one that goes over the limit is the last.
    assert_eq!(dropped(&world, DropReason::SlowConsumer), 100 - 11);
    subscriber.stick(&world, false);
    let got = received(&mut subscriber);
    assert_eq!(got.iter().map(|payload| payload[0]).collect::<Vec<_>>(), (0..11).collect::<Vec<_>>());
    publisher.send_bytes(&world, &frames(V311, [("a", 0, vec![1])]));
    assert_eq!(received(&mut subscriber), [[1]]);
}

#[test]
fn what_nobody_online_gets_is_counted_message_by_message() {
    let world = World::new();
    let (mut away, _) = world.persistent(V5, "away", 1_000);
    away.subscribe(&world, "a", 0);
    away.cut(&world);
    let mut publisher = publisher(&world, V5);
    publisher.send_bytes(&world, &frames(V5, (0..7_u8).map(|number| ("a", 0, vec![number]))));
    assert_eq!(dropped(&world, DropReason::NoReceiverOnline), 8);
}

#[test]
fn who_wants_nothing_of_his_own_gets_nothing_of_his_own() {
    let world = World::new();
    let mut both = world.client(V5, "both");
    both.subscribe_with(&world, "a", 0, |_, options| options.no_local = true);
    both.publish(&world, "a", 0, "first");
    both.send_bytes(&world, &frames(V5, [("a", 0, vec![1]), ("a", 0, vec![2])]));
    both.expect_nothing();
}

#[test]
fn a_fault_behind_good_messages_ends_the_connection_after_they_were_delivered() {
    for version in VERSIONS {
        let world = World::new();
        let mut subscriber = world.client(V311, "subscriber");
        subscriber.subscribe(&world, "a", 0);
        let mut publisher = publisher(&world, version);
        let mut block = frames(version, [("a", 0, vec![1]), ("a", 0, vec![2])]);
        block.extend_from_slice(&[0x36, 0]);
        publisher.send_bytes(&world, &block);
        assert_eq!(received(&mut subscriber), [b"first".to_vec(), vec![1], vec![2]]);
        assert!(publisher.is_closed());
    }
}

/// Counts what it sees.
struct Watcher(Arc<std::sync::atomic::AtomicUsize>);

impl Hook for Watcher {
    fn name(&self) -> &str {
        "watcher"
    }

    fn points(&self) -> HookPoints {
        HookPoints::NONE.with(HookPoint::OnMessage)
    }

    fn on_message(self: Arc<Self>, _: &TopicName) -> Vec<Arc<dyn Observe>> {
        vec![self]
    }
}

impl Observe for Watcher {
    fn name(&self) -> &str {
        "watcher"
    }

    fn observe(&self, _: &Arc<Message>, _: Now, _: &mut Actions) -> Result<(), Failure> {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }
}

#[test]
fn a_rule_that_comes_later_sees_every_message_from_then_on_and_a_subscriber_too() {
    let world = World::new();
    let mut publisher = publisher(&world, V311);
    let block = frames(V311, (0..9_u8).map(|number| ("a", 0, vec![number])));
    publisher.send_bytes(&world, &block);
    let mut subscriber = world.client(V311, "subscriber");
    subscriber.subscribe(&world, "a", 0);
    publisher.send_bytes(&world, &block);
    assert_eq!(received(&mut subscriber).len(), 9);
    let seen = Arc::default();
    let links = [Arc::new(Watcher(Arc::clone(&seen))) as Arc<dyn Hook>, Arc::new(support::Welcome)];
    world.broker.set_chains(weirmq_core::hook::Chains::new(links.map(Link::new)));
    publisher.send_bytes(&world, &block);
    assert_eq!(received(&mut subscriber).len(), 9);
    assert_eq!(seen.load(std::sync::atomic::Ordering::Relaxed), 9);
    subscriber.unsubscribe(&world, "a");
    publisher.send_bytes(&world, &block);
    subscriber.expect_nothing();
}

#[test]
fn members_of_a_group_share_what_comes_together() {
    let world = World::new();
    let mut members = ["one", "two"].map(|name| world.client(V5, name));
    for member in &mut members {
        member.subscribe(&world, "$share/group/a", 0);
    }
    let mut publisher = publisher(&world, V5);
    publisher.send_bytes(&world, &frames(V5, (0..9_u8).map(|number| ("a", 0, vec![number]))));
    let got: usize = members.iter_mut().map(|member| received(member).len()).sum();
    assert_eq!(got, 10);
}

#[test]
fn an_alias_is_no_topic_that_goes_the_short_way() {
    let world = World::new();
    let mut subscriber = world.client(V311, "subscriber");
    subscriber.subscribe(&world, "#", 0);
    let mut publisher = publisher(&world, V5);
    for topic in ["a", ""] {
        publisher.publish_with(&world, topic, 0, "by alias", |publish| {
            publish.extras = support::extras(|extras| extras.topic_alias = NonZeroU16::new(1));
        });
    }
    publisher.send_bytes(&world, &frames(V5, [("a", 0, b"by name".to_vec())]));
    assert_eq!(subscriber.payloads(), ["first", "by alias", "by alias", "by name"]);
}
