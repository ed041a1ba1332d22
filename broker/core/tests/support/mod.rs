//! A broker, its clients and the time, without a socket: tests read as stories.
//!
//! Every byte that a client gets is decoded by the client's side of the codec and held to the rules that hold
//! for every server at every time (`checker`).
#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

mod checker;
pub mod paper;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use weirmq_core::broker::{Broker, Settings};
use weirmq_core::connection::{Connection, Peer};
use weirmq_core::durable::Journal;
use weirmq_core::hook::{
    AuthenticateRequest, Authentication, Chains, Hook, HookPoint, HookPoints, Lease, Link, PublishRight,
    Reply, Rights, SubscribeRight,
};
use weirmq_core::outbox::{Outbox, Transport};
use weirmq_core::record::{Record, Refused, Sinks};
use weirmq_core::time::{Instant, Now};
use weirmq_core::topic::TopicFilter;
use weirmq_wire::{
    Ack, Connect, Decoder, Disconnect, Packet, PacketId, PacketType, Publish, PublishExtras, QoS, ReasonCode,
    SubAck, Subscribe, SubscribeOptions, Text, Unsubscribe, Version, Will,
};

pub use weirmq_wire::Version::{V5, V311};

/// Both versions, for rules that hold in both.
pub const VERSIONS: [Version; 2] = [V311, V5];

pub fn text(text: &str) -> Text {
    Text::new(text).unwrap()
}

pub fn id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

pub fn qos(number: u8) -> QoS {
    QoS::try_from(number).unwrap()
}

/// The broker under test, and the time.
pub struct World {
    pub broker: Arc<Broker>,
    pub records: Arc<Records>,
    now: Now,
}

/// Sinks that keep what they are given.
#[derive(Default)]
pub struct Records(pub Mutex<Vec<Record>>);

impl Sinks for Records {
    fn submit(&self, record: Record) -> Result<(), Refused> {
        self.0.lock().push(record);
        Ok(())
    }
}

/// Lets everybody in and allows everything, the user name being the principal.
pub struct Welcome;

pub fn all_rights() -> Rights {
    let filters = ["#", "$SYS/#"].map(|filter| TopicFilter::new(filter).unwrap());
    Rights {
        publish: filters
            .iter()
            .map(|filter| PublishRight { filter: filter.clone(), qos_max: QoS::ExactlyOnce, retain: true })
            .collect(),
        subscribe: filters
            .iter()
            .map(|filter| SubscribeRight { filter: filter.clone(), qos_max: QoS::ExactlyOnce })
            .collect(),
    }
}

impl Hook for Welcome {
    fn name(&self) -> &str {
        "welcome"
    }

    fn points(&self) -> HookPoints {
        HookPoints::NONE.with(HookPoint::Authenticate)
    }

    fn authenticate(&self, request: &Arc<AuthenticateRequest>) -> Reply<Authentication> {
        let principal = Arc::from(request.username.as_deref().unwrap_or_default());
        let lease = Lease { principal, rights: Some(all_rights().into()), ..Lease::default() };
        Reply::ready(Authentication::Allow { lease, data: None })
    }
}

impl World {
    /// With the default settings, everybody welcome.
    pub fn new() -> Self {
        Self::with(Settings::default(), [])
    }

    /// With other settings and further hooks, which come before the one that welcomes everybody.
    pub fn with(settings: Settings, hooks: impl IntoIterator<Item = Arc<dyn Hook>>) -> Self {
        let records = Arc::new(Records::default());
        let broker = Broker::new(settings, Arc::clone(&records) as Arc<dyn Sinks>);
        Self::of(broker, records, hooks)
    }

    /// As [`World::with`], with a broker that keeps in `journal` what must outlive it.
    pub fn keeping(
        journal: Arc<dyn Journal>,
        settings: Settings,
        hooks: impl IntoIterator<Item = Arc<dyn Hook>>,
    ) -> Self {
        let records = Arc::new(Records::default());
        let broker = Broker::with_journal(settings, Arc::clone(&records) as Arc<dyn Sinks>, journal);
        Self::of(broker, records, hooks)
    }

    fn of(
        broker: Arc<Broker>,
        records: Arc<Records>,
        hooks: impl IntoIterator<Item = Arc<dyn Hook>>,
    ) -> Self {
        let links = hooks.into_iter().chain([Arc::new(Welcome) as Arc<dyn Hook>]).map(Link::new);
        broker.set_chains(Chains::new(links));
        let now = Now { at: Instant::from_micros(1_000_000_000), unix_ms: 1_700_000_000_000 };
        Self { broker, records, now }
    }

    pub fn now(&self) -> Now {
        self.now
    }

    /// The same world in another process: what it calls the present begins anew, the calendar has gone on.
    pub fn started_at(mut self, now: Now) -> Self {
        self.now = now;
        self
    }

    /// Lets time pass for the broker. Connections see it with [`Client::pass`].
    pub fn advance(&mut self, seconds: f64) {
        self.pass_unnoticed(seconds);
        let works = self.broker.handle_timeout(self.now);
        works.into_iter().for_each(drive);
    }

    /// Lets time pass that the broker is not told of.
    pub fn pass_unnoticed(&mut self, seconds: f64) {
        let span = Duration::from_secs_f64(seconds);
        self.now.at = self.now.at.after(span);
        self.now.unix_ms += span.as_millis() as u64;
    }

    /// A socket that has sent nothing yet.
    pub fn socket(&self, version: Version) -> Client {
        let pipe = Arc::new(Pipe::default());
        let outbox: Arc<Outbox> = Arc::new(Outbox::new(Arc::new(Write(Arc::clone(&pipe)))));
        let kept = Arc::clone(&outbox);
        let peer = Peer { address: None, listener: Arc::from("test") };
        let connection = Connection::new(Arc::clone(&self.broker), outbox, peer, self.now);
        Client {
            gave_way: 0,
            connection: Some(connection),
            outbox: kept,
            pipe,
            version,
            decoder: Decoder::client(version, u32::MAX),
            read: BytesMut::new(),
            unread: BytesMut::new(),
            packets: VecDeque::new(),
            checker: checker::Checker::new(version),
        }
    }

    /// A client that is connected with a clean session, and has read its CONNACK.
    pub fn client(&self, version: Version, client_id: &str) -> Client {
        self.connect(version, client_id, |_| {}).0
    }

    /// A client that is connected as `change` says. Answers whether a session was present.
    pub fn connect(
        &self,
        version: Version,
        client_id: &str,
        change: impl FnOnce(&mut Connect),
    ) -> (Client, bool) {
        let mut connect = Connect::new(version, text(client_id));
        change(&mut connect);
        let mut client = self.socket(version);
        client.send(self, Packet::Connect(Box::new(connect)));
        let Some(Packet::ConnAck(connack)) = client.next() else { panic!("a CONNACK is expected") };
        assert_eq!(connack.code, ReasonCode::Success);
        (client, connack.session_present)
    }

    /// A client whose session outlives its connection by so many seconds; answers whether it was there.
    pub fn persistent(&self, version: Version, client_id: &str, expiry_s: u32) -> (Client, bool) {
        self.connect(version, client_id, |connect| {
            connect.clean_start = false;
            connect.session_expiry_interval_s = (version == V5).then_some(expiry_s);
        })
    }
}

/// Notes that it was woken.
#[derive(Default)]
struct Called(AtomicBool);

impl std::task::Wake for Called {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Drives work to its end; hooks of tests that answer later have answered by then.
pub fn drive(mut work: weirmq_core::Work) {
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..10_000 {
        if work.as_mut().poll(&mut context).is_ready() {
            return;
        }
    }
    panic!("the work does not end");
}

/// The wire between a connection and its client.
#[derive(Default)]
pub struct Pipe {
    bytes: Mutex<Vec<u8>>,
    /// The client reads nothing.
    pub stuck: Mutex<bool>,
    /// The socket is broken, and nobody has noticed.
    pub broken: Mutex<bool>,
    /// The connection's task is asked to look.
    woken: Mutex<bool>,
}

struct Write(Arc<Pipe>);

impl Transport for Write {
    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if *self.0.broken.lock() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if *self.0.stuck.lock() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut bytes = self.0.bytes.lock();
        slices.iter().for_each(|slice| bytes.extend_from_slice(slice));
        Ok(slices.iter().map(|slice| slice.len()).sum())
    }

    fn wake(&self) {
        *self.0.woken.lock() = true;
    }
}

/// A client's side of a connection.
pub struct Client {
    /// How often its connection, polled by its task, has let others have their turn.
    pub gave_way: usize,
    connection: Option<Connection>,
    outbox: Arc<Outbox>,
    pub pipe: Arc<Pipe>,
    pub version: Version,
    decoder: Decoder,
    read: BytesMut,
    unread: BytesMut,
    packets: VecDeque<Packet>,
    checker: checker::Checker,
}

impl Client {
    fn connection(&mut self) -> &mut Connection {
        self.connection.as_mut().expect("the connection is there")
    }

    /// Sends a packet.
    pub fn send(&mut self, world: &World, packet: Packet) {
        if let Packet::Connect(connect) = &packet {
            self.decoder.set_packet_bytes_max(connect.packet_size_max.map_or(u32::MAX, |max| max.get()));
        }
        self.checker.sent(&packet);
        let mut bytes = Vec::new();
        packet.encode(self.version, &mut bytes).unwrap();
        self.send_bytes(world, &bytes);
    }

    /// Sends acknowledgements of one kind, all in one read.
    pub fn acks(&mut self, world: &World, kind: PacketType, ids: impl IntoIterator<Item = u16>) {
        let mut bytes = Vec::new();
        for number in ids {
            let packet = ack_packet(kind, Ack::new(id(number)));
            self.checker.sent(&packet);
            packet.encode(self.version, &mut bytes).unwrap();
        }
        self.send_bytes(world, &bytes);
    }

    /// Sends a packet in pieces of so many bytes.
    pub fn send_in_pieces(&mut self, world: &World, packet: Packet, bytes: usize) {
        self.checker.sent(&packet);
        let mut all = Vec::new();
        packet.encode(self.version, &mut all).unwrap();
        all.chunks(bytes).for_each(|piece| self.send_bytes(world, piece));
    }

    /// Sends bytes as they are.
    pub fn send_bytes(&mut self, world: &World, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
        self.work(world);
    }

    /// Sends the bytes of a SUBSCRIBE with one filter, whose answer is read later.
    pub fn send_raw_subscribe(&mut self, world: &World, bytes: &[u8], packet_id: PacketId) {
        self.checker.asks(packet_id, 1);
        self.send_bytes(world, bytes);
    }

    /// Lets the broker's side do what it can.
    pub fn work(&mut self, world: &World) {
        let Some(connection) = self.connection.as_mut() else { return };
        let called = Arc::new(Called::default());
        let waker = Waker::from(Arc::clone(&called));
        let mut context = Context::from_waker(&waker);
        loop {
            connection.input(&mut self.unread, world.now);
            let mut polled = connection.poll(&mut context, world.now);
            // Who gives way to others has itself called at once.
            while polled.is_pending() && called.0.swap(false, Ordering::Relaxed) {
                self.gave_way += 1;
                polled = connection.poll(&mut context, world.now);
            }
            if polled.is_pending() || self.unread.is_empty() {
                break;
            }
            let left = self.unread.len();
            connection.input(&mut self.unread, world.now);
            if self.unread.len() == left {
                break;
            }
        }
        connection.flush();
        connection.take_works().into_iter().for_each(drive);
        while std::mem::take(&mut *self.pipe.woken.lock()) && !*self.pipe.stuck.lock() {
            connection.handle_room(world.now);
            connection.flush();
        }
    }

    /// Whether a hook keeps the connection waiting.
    pub fn is_waiting(&mut self) -> bool {
        self.connection().is_waiting()
    }

    /// When the connection wants to be looked at.
    pub fn deadline(&mut self) -> Option<Instant> {
        self.connection().deadline()
    }

    /// The broker shuts down.
    pub fn shut_down(&mut self, world: &World) {
        let now = world.now;
        self.connection().shut_down(now);
        self.work(world);
    }

    /// Reads nothing, or reads again.
    pub fn stick(&mut self, world: &World, stuck: bool) {
        *self.pipe.stuck.lock() = stuck;
        if !stuck {
            self.outbox.resume();
            self.work(world);
        }
    }

    /// Tells the connection that time has passed.
    pub fn pass(&mut self, world: &World) {
        let now = world.now;
        self.connection().handle_timeout(now);
        self.work(world);
    }

    /// The next packet from the broker.
    pub fn next(&mut self) -> Option<Packet> {
        if let Some(connection) = self.connection.as_mut() {
            connection.flush();
        }
        self.read.extend_from_slice(&std::mem::take(&mut *self.pipe.bytes.lock()));
        while let Some(mut packet) =
            self.decoder.decode(&mut self.read).expect("the broker's packets are well-formed")
        {
            self.checker.received(&mut packet);
            self.packets.push_back(packet);
        }
        self.packets.pop_front()
    }

    /// How many bytes the broker means to write still.
    pub fn unwritten(&self) -> usize {
        self.outbox.bytes()
    }

    /// The bytes that have come and were not read as packets.
    pub fn raw(&mut self) -> Vec<u8> {
        std::mem::take(&mut *self.pipe.bytes.lock())
    }

    /// All packets that have come.
    pub fn all(&mut self) -> Vec<Packet> {
        std::iter::from_fn(|| self.next()).collect()
    }

    /// The next packet, which must be a PUBLISH.
    pub fn next_publish(&mut self) -> Publish {
        match self.next() {
            Some(Packet::Publish(publish)) => publish,
            other => panic!("a PUBLISH is expected, not {other:?}"),
        }
    }

    /// One PUBLISH has come, and nothing else.
    pub fn expect_one_publish(&mut self) -> Publish {
        let publish = self.next_publish();
        self.expect_nothing();
        publish
    }

    /// All packets that have come, each of which must be a PUBLISH; QoS 1 and 2 are acknowledged at once.
    pub fn drain(&mut self, world: &World) -> Vec<Publish> {
        let mut got = Vec::new();
        while let Some(packet) = self.next() {
            match packet {
                Packet::Publish(publish) => {
                    match (publish.qos, publish.packet_id) {
                        (QoS::AtLeastOnce, Some(id)) => self.ack(world, PacketType::PubAck, id),
                        (QoS::ExactlyOnce, Some(id)) => self.ack(world, PacketType::PubRec, id),
                        _ => {}
                    }
                    got.push(publish);
                }
                Packet::PubRel(ack) => self.ack(world, PacketType::PubComp, ack.packet_id),
                other => panic!("only PUBLISH is expected, not {other:?}"),
            }
        }
        got
    }

    /// The next packet, which must be a DISCONNECT.
    pub fn next_disconnect(&mut self) -> Disconnect {
        match self.next() {
            Some(Packet::Disconnect(disconnect)) => disconnect,
            other => panic!("a DISCONNECT is expected, not {other:?}"),
        }
    }

    /// The payloads of the PUBLISH packets that have come, nothing else having come.
    pub fn payloads(&mut self) -> Vec<String> {
        self.all()
            .into_iter()
            .map(|packet| match packet {
                Packet::Publish(publish) => String::from_utf8(publish.payload.to_vec()).unwrap(),
                other => panic!("only PUBLISH is expected, not {other:?}"),
            })
            .collect()
    }

    /// Nothing has come, and the connection is open.
    pub fn expect_nothing(&mut self) {
        let all = self.all();
        assert!(all.is_empty(), "nothing is expected, but {all:?} came");
        assert!(!self.is_closed(), "the connection is closed");
    }

    /// Whether the broker has ended the connection.
    pub fn is_closed(&mut self) -> bool {
        self.connection.as_ref().is_none_or(Connection::is_over)
    }

    /// The broker has ended the connection, telling `code` where the version can.
    pub fn expect_closed(&mut self, code: ReasonCode) {
        assert!(self.is_closed(), "the connection is still open");
        let all = self.all();
        match (self.version, all.last()) {
            (V5, Some(Packet::Disconnect(disconnect))) => assert_eq!(disconnect.code, code),
            (V311, None) => {}
            (V311, Some(other)) if !matches!(other, Packet::Disconnect(_)) => {}
            other => panic!("no DISCONNECT, but {other:?}"),
        }
    }

    /// The transport breaks.
    pub fn cut(mut self, world: &World) {
        self.cut_in_place(world);
    }

    pub fn cut_in_place(&mut self, world: &World) {
        if let Some(mut connection) = self.connection.take() {
            connection.end("the connection was cut", world.now);
            connection.take_works().into_iter().for_each(drive);
        }
    }

    /// Says goodbye.
    pub fn disconnect(mut self, world: &World) {
        self.send(world, Packet::Disconnect(Disconnect::new(ReasonCode::Success)));
        self.cut_in_place(world);
    }

    pub fn publish(&mut self, world: &World, topic: &str, qos_number: u8, payload: &str) {
        self.publish_with(world, topic, qos_number, payload, |_| {});
    }

    pub fn publish_with(
        &mut self,
        world: &World,
        topic: &str,
        qos_number: u8,
        payload: &str,
        change: impl FnOnce(&mut Publish),
    ) {
        let mut publish = Publish {
            dup: false,
            qos: qos(qos_number),
            retain: false,
            topic: text(topic),
            packet_id: (qos_number > 0).then(|| id(7)),
            extras: None,
            payload: Bytes::copy_from_slice(payload.as_bytes()),
        };
        change(&mut publish);
        self.send(world, Packet::Publish(publish));
    }

    /// Publishes with QoS 0 and RETAIN.
    pub fn retain(&mut self, world: &World, topic: &str, payload: &str) {
        self.publish_with(world, topic, 0, payload, |publish| publish.retain = true);
    }

    pub fn subscribe(&mut self, world: &World, filter: &str, qos_number: u8) -> Vec<ReasonCode> {
        self.subscribe_with(world, filter, qos_number, |_, _| {})
    }

    /// Subscribes and answers the codes of the SUBACK, which must be the next packet.
    pub fn subscribe_with(
        &mut self,
        world: &World,
        filter: &str,
        qos_number: u8,
        change: impl FnOnce(&mut Subscribe, &mut SubscribeOptions),
    ) -> Vec<ReasonCode> {
        let mut options = SubscribeOptions { qos: qos(qos_number), ..SubscribeOptions::default() };
        let mut subscribe = Subscribe {
            packet_id: id(1),
            subscription_id: None,
            user_properties: Vec::new(),
            filters: Vec::new(),
        };
        change(&mut subscribe, &mut options);
        subscribe.filters.push((text(filter), options));
        self.send(world, Packet::Subscribe(subscribe));
        match self.next() {
            Some(Packet::SubAck(SubAck { packet_id, codes, .. })) => {
                assert_eq!(packet_id, id(1));
                codes
            }
            other => panic!("a SUBACK is expected, not {other:?}"),
        }
    }

    /// Subscribes, and is disconnected for it.
    pub fn subscribe_and_expect_the_end(&mut self, world: &World, filter: &str, code: ReasonCode) {
        let filters = vec![(text(filter), SubscribeOptions::default())];
        self.send(
            world,
            Packet::Subscribe(Subscribe {
                packet_id: id(1),
                subscription_id: None,
                user_properties: Vec::new(),
                filters,
            }),
        );
        self.expect_closed(code);
    }

    pub fn unsubscribe(&mut self, world: &World, filter: &str) -> Vec<ReasonCode> {
        let unsubscribe =
            Unsubscribe { packet_id: id(2), user_properties: Vec::new(), filters: vec![text(filter)] };
        self.send(world, Packet::Unsubscribe(unsubscribe));
        match self.next() {
            Some(Packet::UnsubAck(unsuback)) => unsuback.codes,
            other => panic!("an UNSUBACK is expected, not {other:?}"),
        }
    }

    /// Sends an acknowledgement.
    pub fn ack(&mut self, world: &World, kind: PacketType, packet_id: PacketId) {
        self.ack_with(world, kind, packet_id, ReasonCode::Success);
    }

    pub fn ack_with(&mut self, world: &World, kind: PacketType, packet_id: PacketId, code: ReasonCode) {
        self.send(world, ack_packet(kind, Ack::with_code(packet_id, code)));
    }

    /// The next packet, which must be an acknowledgement of this kind.
    pub fn expect_ack(&mut self, kind: PacketType, packet_id: PacketId, code: ReasonCode) {
        let packet = self.next().expect("an acknowledgement is expected");
        assert_eq!(packet.kind(), kind, "{packet:?}");
        let (Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack)) = packet
        else {
            panic!("{packet:?} is no acknowledgement");
        };
        assert_eq!(ack.packet_id, packet_id);
        if self.version == V5 {
            assert_eq!(ack.code, code);
        }
    }
}

fn ack_packet(kind: PacketType, ack: Ack) -> Packet {
    match kind {
        PacketType::PubAck => Packet::PubAck(ack),
        PacketType::PubRec => Packet::PubRec(ack),
        PacketType::PubRel => Packet::PubRel(ack),
        PacketType::PubComp => Packet::PubComp(ack),
        other => panic!("{other:?} is no acknowledgement"),
    }
}

/// The extras of a PUBLISH, changed.
pub fn extras(change: impl FnOnce(&mut PublishExtras)) -> Option<Box<PublishExtras>> {
    let mut extras = PublishExtras::default();
    change(&mut extras);
    Some(Box::new(extras))
}

/// A will to `topic`.
pub fn will(topic: &str, payload: &str, delay_s: u32) -> Option<Will> {
    Some(Will {
        topic: text(topic),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        qos: QoS::AtMostOnce,
        retain: false,
        delay_interval_s: delay_s,
        message_expiry_interval_s: None,
        properties: weirmq_wire::Properties::default(),
    })
}
