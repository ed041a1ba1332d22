//! A client that sends, and does not read what it is answered.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use support::{V5, VERSIONS, World, id, text};
use weirmq_core::broker::Settings;
use weirmq_core::connection::{Connection, Peer};
use weirmq_core::outbox::{Outbox, Transport};
use weirmq_wire::{Connect, Packet, Publish, QoS, Subscribe, SubscribeOptions, Version};

const OUTBOX_BYTES_MAX: usize = 1_000;
const PING: [u8; 2] = [0xC0, 0];

/// A socket whose client reads or does not.
#[derive(Default)]
struct Socket {
    reads: AtomicBool,
    written: AtomicUsize,
    woken: AtomicBool,
}

struct End(Arc<Socket>);

impl Transport for End {
    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if !self.0.reads.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let bytes = slices.iter().map(|slice| slice.len()).sum();
        self.0.written.fetch_add(bytes, Ordering::Relaxed);
        Ok(bytes)
    }

    fn wake(&self) {
        self.0.woken.store(true, Ordering::Relaxed);
    }
}

struct Deaf {
    socket: Arc<Socket>,
    outbox: Arc<Outbox>,
    connection: Connection,
}

impl Deaf {
    fn connected(world: &World, version: Version, keep_alive_s: u16) -> Self {
        Self::named(world, version, keep_alive_s, "deaf")
    }

    fn named(world: &World, version: Version, keep_alive_s: u16, client_id: &str) -> Self {
        let socket = Arc::new(Socket::default());
        let outbox: Arc<Outbox> = Arc::new(Outbox::new(Arc::new(End(Arc::clone(&socket)))));
        let peer = Peer { address: None, listener: Arc::from("test") };
        let connection = Connection::new(Arc::clone(&world.broker), Arc::clone(&outbox), peer, world.now());
        let mut connect = Connect::new(version, text(client_id));
        connect.keep_alive_s = keep_alive_s;
        let mut bytes = Vec::new();
        Packet::Connect(Box::new(connect)).encode(version, &mut bytes).unwrap();
        let mut deaf = Self { socket, outbox, connection };
        deaf.connection.input(&mut BytesMut::from(&bytes[..]), world.now());
        deaf.connection.flush();
        assert!(deaf.connection.is_open());
        deaf
    }
}

fn world() -> World {
    let mut settings = Settings::default();
    settings.limits.outbox_bytes_max = OUTBOX_BYTES_MAX;
    World::with(settings, [])
}

#[test]
fn answers_that_nobody_reads_do_not_pile_up_and_none_is_lost() {
    for version in VERSIONS {
        let world = world();
        let mut deaf = Deaf::connected(&world, version, 0);
        let connack = deaf.outbox.bytes();
        let mut bytes = BytesMut::from(&PING.repeat(10_000)[..]);
        deaf.connection.input(&mut bytes, world.now());
        deaf.connection.flush();
        assert!(deaf.outbox.bytes() <= 2 * OUTBOX_BYTES_MAX + 2, "{} bytes wait", deaf.outbox.bytes());
        assert!(!deaf.connection.wants_input() && !deaf.connection.is_over());
        deaf.socket.reads.store(true, Ordering::Relaxed);
        deaf.outbox.resume();
        while deaf.socket.woken.swap(false, Ordering::Relaxed) {
            deaf.connection.handle_room(world.now());
            deaf.connection.input(&mut bytes, world.now());
            deaf.connection.flush();
        }
        assert!(bytes.is_empty());
        assert_eq!(deaf.socket.written.load(Ordering::Relaxed), connack + PING.len() * 10_000);
    }
}

#[test]
fn who_takes_no_answers_is_silent_after_its_keep_alive() {
    let mut world = world();
    let mut deaf = Deaf::connected(&world, V5, 10);
    let mut bytes = BytesMut::from(&PING.repeat(10_000)[..]);
    deaf.connection.input(&mut bytes, world.now());
    world.advance(16.0);
    deaf.connection.input(&mut bytes, world.now());
    deaf.connection.handle_timeout(world.now());
    assert!(deaf.connection.is_over());
}

#[test]
fn a_publisher_is_slowed_down_where_all_receivers_are_behind_and_not_by_one_of_them() {
    let world = World::with(Settings::default(), []);
    let feed = |deaf: &mut Deaf, packet: Packet| {
        let mut bytes = Vec::new();
        packet.encode(V5, &mut bytes).unwrap();
        deaf.connection.input(&mut BytesMut::from(&bytes[..]), world.now());
    };
    let mut publisher = Deaf::connected(&world, V5, 0);
    let mut subscribers = ["one", "two"].map(|name| Deaf::named(&world, V5, 0, name));
    for subscriber in &mut subscribers {
        subscriber.socket.reads.store(true, Ordering::Relaxed);
        subscriber.outbox.resume();
        let filters = vec![(text("t"), SubscribeOptions::default())];
        let (packet_id, user_properties) = (id(1), Vec::new());
        feed(
            subscriber,
            Packet::Subscribe(Subscribe { packet_id, subscription_id: None, user_properties, filters }),
        );
        subscriber.connection.flush();
    }
    let behind = |subscriber: &Deaf| subscriber.socket.reads.store(false, Ordering::Relaxed);
    let mut is_congested = |payload: usize| {
        let publish = Publish {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            topic: text("t"),
            packet_id: None,
            extras: None,
            payload: Bytes::from("x".repeat(payload)),
        };
        feed(&mut publisher, Packet::Publish(publish));
        let congested = publisher.connection.is_congested(1_000);
        publisher.connection.flush();
        congested
    };
    assert!(!is_congested(900));
    behind(&subscribers[0]);
    assert!(!is_congested(900));
    assert!(!is_congested(900), "the other one keeps up");
    behind(&subscribers[1]);
    assert!(!is_congested(900));
    assert!(is_congested(900));
}
