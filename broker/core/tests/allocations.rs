//! A message that is sent and forgotten allocates nothing, once its topic is known; a client that does nothing takes
//! little.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::BytesMut;
use support::{VERSIONS, World, text};
use weirmq_core::broker::Settings;
use weirmq_core::connection::{Connection, Peer};
use weirmq_core::hook::{
    AuthenticateRequest, Authentication, Hook, HookPoint, HookPoints, Lease, Reply, Rights,
};
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

fn subscribe(connection: &mut Connection, world: &World, version: Version) {
    let filters = vec![(text("a/+"), SubscribeOptions::default())];
    let packet_id = support::id(1);
    let subscribe = Subscribe { packet_id, subscription_id: None, user_properties: Vec::new(), filters };
    let bytes = bytes_of(Packet::Subscribe(subscribe), version);
    connection.input(&mut BytesMut::from(&bytes[..]), world.now());
    connection.flush();
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
        subscribe(receiver, &world, version);
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

/// Gives everybody the same rights.
struct Same(Arc<str>, Arc<Rights>);

impl Hook for Same {
    fn name(&self) -> &str {
        "same"
    }

    fn points(&self) -> HookPoints {
        HookPoints::NONE.with(HookPoint::Authenticate)
    }

    fn authenticate(&self, _: &Arc<AuthenticateRequest>) -> Reply<Authentication> {
        let (principal, rights) = (Arc::clone(&self.0), Some(Arc::clone(&self.1)));
        Reply::ready(Authentication::Allow {
            lease: Lease { principal, rights, ..Lease::default() },
            data: None,
        })
    }
}

/// The bytes that each of many clients takes in the core, its connection included, but not its socket.
fn bytes_of_each(version: Version, subscribes: bool) -> i64 {
    const CLIENTS: usize = 400;
    let hook = Same(Arc::from("anybody"), Arc::new(support::all_rights()));
    let world = World::with(Settings::default(), [Arc::new(hook) as Arc<dyn Hook>]);
    let connect = |number: usize| {
        let mut connection = client(&world, version, &format!("client-{number:03}"));
        if subscribes {
            subscribe(&mut connection, &world, version);
        }
        connection.flush();
        connection
    };
    // What there is one of is there before the count.
    let first = connect(CLIENTS);
    let mut all = Vec::with_capacity(CLIENTS);
    let counted = allocation_counter::measure(|| all.extend((0..CLIENTS).map(connect)));
    drop((first, all));
    counted.bytes_current / CLIENTS as i64 + size_of::<Connection>() as i64
}

/// A server has ten thousand of them that do nothing most of the time.
#[test]
fn a_client_that_does_nothing_takes_little() {
    for version in VERSIONS {
        let bytes = [false, true].map(|subscribes| bytes_of_each(version, subscribes));
        eprintln!("{version:?}: {bytes:?}");
        assert!(bytes[0] <= 1_060 && bytes[1] <= 1_340, "{version:?}: {bytes:?}");
    }
}
