//! A message that is sent and forgotten allocates nothing, once its topic is known.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::BytesMut;
use support::{VERSIONS, World, text};
use weirmq_core::broker::Settings;
use weirmq_core::connection::{Connection, Peer};
use weirmq_core::hook::{Hook, HookPoint, HookPoints};
use weirmq_core::outbox::{Outbox, Transport};
use weirmq_wire::{Connect, Packet, Publish, QoS, Subscribe, SubscribeOptions, Version};

/// A socket that takes everything and keeps nothing.
struct Drain;

impl Transport for Drain {
    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(slices.iter().map(|slice| slice.len()).sum())
    }

    fn wake(&self) {}
}

fn bytes_of(packet: Packet, version: Version) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(version, &mut bytes).unwrap();
    bytes
}

fn client(world: &World, version: Version, name: &str) -> Connection {
    let peer = Peer { address: None, listener: Arc::from("test") };
    let outbox: Arc<Outbox> = Arc::new(Outbox::new(Arc::new(Drain)));
    let mut connection = Connection::new(Arc::clone(&world.broker), outbox, peer, world.now());
    let connect = bytes_of(Packet::Connect(Box::new(Connect::new(version, text(name)))), version);
    connection.input(&mut BytesMut::from(&connect[..]), world.now());
    connection
}

/// Is told of clients, and of no message.
struct Watch;

impl Hook for Watch {
    fn name(&self) -> &str {
        "watch"
    }

    fn points(&self) -> HookPoints {
        HookPoints::NONE.with(HookPoint::Lifecycle)
    }
}

/// So many messages of `payload` bytes in one read, as often as it takes to be steady, then counted.
fn allocations(version: Version, messages: usize, payload: usize, receivers: usize) -> u64 {
    // Whoever watches clients does not make messages dearer.
    let world = World::with(Settings::default(), [Arc::new(Watch) as Arc<dyn Hook>]);
    let mut all: Vec<Connection> =
        (0..receivers).map(|number| client(&world, version, &format!("receiver-{number}"))).collect();
    for receiver in &mut all {
        let filters = vec![(text("a/+"), SubscribeOptions::default())];
        let subscribe = Subscribe {
            packet_id: support::id(1),
            subscription_id: None,
            user_properties: Vec::new(),
            filters,
        };
        let bytes = bytes_of(Packet::Subscribe(subscribe), version);
        receiver.input(&mut BytesMut::from(&bytes[..]), world.now());
        receiver.flush();
    }
    let mut publisher = client(&world, version, "publisher");
    let publish = Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: text("a/b"),
        packet_id: None,
        extras: None,
        payload: vec![1; payload].into(),
    };
    let block = bytes_of(Packet::Publish(publish), version).repeat(messages);
    let mut buffer = BytesMut::with_capacity(68 * 1024);
    let mut send = || {
        buffer.reserve(block.len());
        buffer.extend_from_slice(&block);
        publisher.input(&mut buffer, world.now());
        publisher.flush();
        assert!(buffer.is_empty());
    };
    (0..10).for_each(|_| send());
    let counted = allocation_counter::measure(|| (0..10).for_each(|_| send()));
    let sent = world.broker.counters().messages_sent.get();
    assert_eq!(sent, (20 * messages * receivers) as u64, "every message was handed on");
    counted.count_total
}

#[test]
fn a_qos_0_message_allocates_nothing_in_the_steady_state() {
    for version in VERSIONS {
        for (messages, payload) in [(1, 64), (100, 64), (50, 1_024)] {
            for receivers in [1, 3] {
                assert_eq!(
                    allocations(version, messages, payload, receivers),
                    0,
                    "{messages} of {payload} bytes to {receivers}"
                );
            }
        }
    }
}

/// One copy for all receivers, and the count of those that share it.
#[test]
fn what_many_share_is_allocated_once_for_all_that_came_together() {
    assert!(allocations(Version::V311, 100, 64, 50) <= 2 * 10);
}
