//! Several clients of one broker with small limits: packets and bytes of any sort, interleaved, and time that passes.
#![allow(dead_code, reason = "each target uses its own part")]

use std::io::{self, IoSlice};
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use weirmq_core::Work;
use weirmq_core::broker::{Broker, Settings};
use weirmq_core::connection::{Connection, Peer};
use weirmq_core::hook::{
    AuthenticateRequest, Authentication, AuthorizeRequest, Chains, Decision, Hook, HookPoint, HookPoints,
    Lease, Link, Reply,
};
use weirmq_core::limits::{Limits, QueueFull};
use weirmq_core::outbox::{Outbox, Transport};
use weirmq_core::record::{Record, Refused, Sinks};
use weirmq_core::time::{Instant, Now};
use weirmq_wire::{
    Ack, Auth, Connect, Decoder, Disconnect, Packet, PacketId, Publish, PublishExtras, QoS, ReasonCode,
    RetainHandling, Subscribe, SubscribeOptions, Text, Unsubscribe, Version, Will,
};

const CLIENTS: usize = 4;
const PACKET_BYTES_MAX: u32 = 512;
const OUTBOX_BYTES_MAX: usize = 512;
const SESSIONS_MAX: usize = 3;
const SUBSCRIPTIONS_MAX: usize = 4;
const LEVELS_MAX: usize = 4;
const RETAINED_MAX: usize = 4;
/// The largest answer to one packet, which is a PUBACK with a Reason String.
const ANSWER_BYTES_MAX: usize = 128;

const TOPICS: [&str; 8] = ["a", "a/b", "a/b/c", "/", "$x", "will", "b", "a/b/c/d/e"];
const FILTERS: [&str; 8] = ["#", "a/+", "a/#", "$share/g/#", "$share/g/a/b", "will", "+", "a/b/c/d/e"];

/// What the clients do is read off `input`, an operation after the other.
///
/// # Panics
/// Where the broker panics, sends what is no packet or out of turn, grows beyond its limits, or keeps something when
/// everybody is gone.
pub(crate) fn clients(input: &[u8]) {
    let mut script = Script(input);
    let drop_oldest = script.byte().is_some_and(|byte| byte & 1 == 1);
    let mut house = House::new(if drop_oldest { QueueFull::DropOldest } else { QueueFull::RefuseNewest });
    while let Some(op) = script.byte() {
        if house.play(op, &mut script).is_none() {
            break;
        }
        house.check();
    }
    house.close();
}

/// The bytes that are left.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> Option<u8> {
        self.0.split_off_first().copied()
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let count = usize::from(self.byte()?).min(self.0.len());
        self.0.split_off(..count)
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> Option<T> {
        let place = usize::from(self.byte()?);
        all.get(place % all.len()).copied()
    }
}

struct House {
    broker: Arc<Broker>,
    now: Now,
    lines: [Option<Line>; CLIENTS],
}

impl House {
    fn new(queue_full: QueueFull) -> Self {
        let limits = Limits {
            connect_packet_bytes_max: 256,
            packet_bytes_max: PACKET_BYTES_MAX,
            topic_levels_max: LEVELS_MAX,
            user_properties_max: 2,
            subscriptions_max: SUBSCRIPTIONS_MAX,
            receive_max: 3,
            inflight_max: 3,
            topic_alias_max: 2,
            topic_alias_out_max: 2,
            queue_messages_max: 4,
            queue_full,
            outbox_bytes_max: OUTBOX_BYTES_MAX,
            retained_messages_max: RETAINED_MAX,
            sessions_max: SESSIONS_MAX,
            session_expiry_s_max: 1_000,
            session_expiry_v311_s: 100,
            will_delay_s_max: 50,
            plans_per_connection_max: 2,
            ..Limits::default()
        };
        Self { broker: broker(limits), now: now(), lines: [const { None }; CLIENTS] }
    }

    /// `None` where the script ends in the middle.
    fn play(&mut self, op: u8, script: &mut Script<'_>) -> Option<()> {
        let who = usize::from(op) % CLIENTS;
        match op / 4 % 8 {
            0 => {
                let bytes = script.bytes()?;
                let now = self.now;
                self.line(who).feed(bytes, now);
            }
            1 => {
                let packet = connect(who, script)?;
                let now = self.now;
                self.line(who).send(&packet, now);
            }
            2 => {
                let packet = subscribe(script)?;
                let now = self.now;
                self.line(who).send(&packet, now);
            }
            3 => {
                let packet = publish(script)?;
                let now = self.now;
                self.line(who).send(&packet, now);
            }
            4 => {
                let packet = acknowledgement(script)?;
                let now = self.now;
                self.line(who).send(&packet, now);
            }
            5 => self.pass(script.byte()?),
            6 => self.leave(who, script.byte()?),
            _ => self.rest(who, script.byte()?),
        }
        Some(())
    }

    fn line(&mut self, who: usize) -> &mut Line {
        let (broker, now) = (&self.broker, self.now);
        self.lines.get_mut(who).expect("there are as many").get_or_insert_with(|| Line::new(broker, now))
    }

    /// A minute at the most, or days.
    fn pass(&mut self, byte: u8) {
        let span = match byte {
            0xFF => Duration::from_secs(1_000_000),
            byte => Duration::from_millis(u64::from(byte) * 250),
        };
        self.now.at = self.now.at.after(span);
        self.now.unix_ms += u64::try_from(span.as_millis()).unwrap_or(0);
        self.broker.handle_timeout(self.now).into_iter().for_each(drive);
        for line in self.lines.iter_mut().flatten() {
            line.connection.handle_timeout(self.now);
            line.work(self.now);
        }
        self.broker.tidy(self.now);
    }

    fn leave(&mut self, who: usize, how: u8) {
        let now = self.now;
        let Some(mut line) = self.lines.get_mut(who).and_then(Option::take) else { return };
        match how % 4 {
            0 => line.connection.end("cut", now),
            1 => line.connection.shut_down(now),
            2 => {
                let mut packet = Disconnect::new(ReasonCode::Success);
                packet.session_expiry_interval_s = (how & 4 != 0).then_some(u32::from(how));
                line.send(&Packet::Disconnect(packet), now);
            }
            _ => self.broker.kick(name(who), now).1.into_iter().for_each(drive),
        }
        line.hang_up(now);
    }

    fn rest(&mut self, who: usize, what: u8) {
        let now = self.now;
        let line = self.line(who);
        match what % 4 {
            0 => line.pipe.deaf.store(true, Ordering::Relaxed),
            1 => {
                line.pipe.deaf.store(false, Ordering::Relaxed);
                line.outbox.resume();
                line.work(now);
            }
            2 => line.send(&Packet::PingReq, now),
            _ => {
                let filter = FILTERS[usize::from(what / 4) % FILTERS.len()];
                let packet = Unsubscribe {
                    packet_id: PacketId::MIN,
                    user_properties: Vec::new(),
                    filters: vec![text(filter)],
                };
                line.send(&Packet::Unsubscribe(packet), now);
            }
        }
    }

    /// The limits hold, and what was sent is packets.
    fn check(&mut self) {
        let now = self.now;
        for place in &mut self.lines {
            let Some(line) = place else { continue };
            // What others have done may concern it.
            line.work(now);
            line.read();
            let unread_max = OUTBOX_BYTES_MAX * 2 + PACKET_BYTES_MAX as usize + ANSWER_BYTES_MAX;
            assert!(line.outbox.bytes() <= unread_max, "{} bytes wait", line.outbox.bytes());
            if line.connection.is_over() {
                let mut line = place.take().expect("it is there");
                line.hang_up(now);
            }
        }
        let footprint = self.broker.footprint();
        assert!(footprint.sessions <= SESSIONS_MAX, "{footprint:?}");
        assert!(footprint.retained_messages <= RETAINED_MAX, "{footprint:?}");
        assert!(footprint.deadlines <= SESSIONS_MAX, "{footprint:?}");
        let subscriptions = self.broker.counters().subscriptions.get();
        assert!(subscriptions <= (SESSIONS_MAX * SUBSCRIPTIONS_MAX) as u64, "{subscriptions} subscriptions");
        assert!(footprint.subscription_nodes as u64 <= subscriptions * LEVELS_MAX as u64, "{footprint:?}");
    }

    /// Everybody leaves, and everything expires.
    fn close(mut self) {
        for who in 0..CLIENTS {
            self.leave(who, 0);
        }
        self.pass(0xFF);
        let footprint = self.broker.footprint();
        // Out of date, what topics mean is forgotten.
        self.broker.set_chains(Chains::default());
        self.broker.tidy(self.now);
        assert_eq!((footprint.sessions, footprint.subscription_nodes, footprint.deadlines), (0, 0, 0));
        assert_eq!(self.broker.footprint().plans, 0);
        assert_eq!(self.broker.next_deadline(), None);
        let counters = self.broker.counters();
        assert_eq!((counters.clients_connected.get(), counters.subscriptions.get()), (0, 0));
        assert_eq!(Arc::strong_count(&self.broker), 1, "somebody holds on to the broker");
    }
}

// What the clients send

fn connect(who: usize, script: &mut Script<'_>) -> Option<Packet> {
    let (flags, more) = (script.byte()?, script.byte()?);
    let version = if flags & 1 == 0 { Version::V5 } else { Version::V311 };
    let mut connect = Connect::new(version, text(name(who)));
    connect.clean_start = flags & 2 != 0;
    connect.keep_alive_s = if flags & 4 != 0 { 5 } else { 0 };
    if flags & 8 != 0 {
        connect.will = Some(Will {
            topic: text("will"),
            payload: Bytes::from_static(b"gone"),
            qos: qos(flags / 16),
            retain: flags & 64 != 0,
            delay_interval_s: if flags & 128 != 0 && version == Version::V5 { 10 } else { 0 },
            message_expiry_interval_s: None,
            properties: Default::default(),
        });
    }
    if version == Version::V5 {
        connect.session_expiry_interval_s = [None, Some(0), Some(20), Some(u32::MAX)][usize::from(more % 4)];
        connect.receive_max = NonZeroU16::new(u16::from(more / 4 % 4)).unwrap_or(NonZeroU16::MAX);
        connect.packet_size_max = NonZeroU32::new([0, 0, 40, 100][usize::from(more / 16 % 4)]);
        connect.topic_alias_max = u16::from(more / 64 % 2);
        connect.request_problem_information = more & 128 == 0;
    }
    Some(Packet::Connect(Box::new(connect)))
}

fn subscribe(script: &mut Script<'_>) -> Option<Packet> {
    let (filter, options, id) = (script.one_of(&FILTERS)?, script.byte()?, script.byte()?);
    let handling = [RetainHandling::Send, RetainHandling::SendIfNew, RetainHandling::DoNotSend];
    let options = SubscribeOptions {
        qos: qos(options),
        no_local: options & 4 != 0,
        retain_as_published: options & 8 != 0,
        retain_handling: handling[usize::from(options / 16) % 3],
    };
    Some(Packet::Subscribe(Subscribe {
        packet_id: packet_id(id),
        subscription_id: (id & 16 != 0).then_some(u32::from(id) + 1),
        user_properties: Vec::new(),
        filters: vec![(text(filter), options)],
    }))
}

fn publish(script: &mut Script<'_>) -> Option<Packet> {
    let (topic, flags, id) = (script.one_of(&TOPICS)?, script.byte()?, script.byte()?);
    let qos = qos(flags);
    let extras = PublishExtras {
        message_expiry_interval_s: (id & 16 != 0).then_some(u32::from(id / 32)),
        topic_alias: NonZeroU16::new(u16::from(flags / 64)),
        ..PublishExtras::default()
    };
    Some(Packet::Publish(Publish {
        dup: qos != QoS::AtMostOnce && flags & 4 != 0,
        qos,
        retain: flags & 8 != 0,
        topic: text(if flags & 16 != 0 && extras.topic_alias.is_some() { "" } else { topic }),
        packet_id: (qos != QoS::AtMostOnce).then(|| packet_id(id)),
        extras: (extras != PublishExtras::default()).then(|| Box::new(extras)),
        payload: Bytes::from(vec![b'x'; if flags & 32 != 0 { 200 } else { usize::from(id & 1) }]),
    }))
}

fn acknowledgement(script: &mut Script<'_>) -> Option<Packet> {
    let (kind, id) = (script.byte()?, script.byte()?);
    let code = if kind & 8 != 0 { ReasonCode::UnspecifiedError } else { ReasonCode::Success };
    // The identifiers of the broker, which counts from 1.
    let id = PacketId::new(u16::from(id) + 1)?;
    Some(match kind % 8 {
        0 | 1 => Packet::PubAck(Ack::with_code(id, code)),
        2 | 3 => Packet::PubRec(Ack::with_code(id, code)),
        4 => Packet::PubRel(Ack::new(id)),
        5 | 6 => Packet::PubComp(Ack::new(id)),
        _ => Packet::Auth(Box::new(Auth::new(ReasonCode::ReAuthenticate, Some("m".into())))),
    })
}

fn name(who: usize) -> &'static str {
    ["a", "b", "c", "d"][who]
}

fn qos(bits: u8) -> QoS {
    [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::ExactlyOnce][usize::from(bits % 4)]
}

fn packet_id(bits: u8) -> PacketId {
    PacketId::new(u16::from(bits % 16)).unwrap_or(PacketId::MIN)
}

fn text(text: &str) -> Text {
    Text::new(text).expect("it is a text")
}

// The broker's side

/// A broker whose limits are in nobody's way.
pub(crate) fn roomy_broker() -> Arc<Broker> {
    broker(Limits { topic_levels_max: usize::MAX, topic_bytes_max: usize::MAX, ..Limits::default() })
}

fn broker(limits: Limits) -> Arc<Broker> {
    let broker = Broker::new(Settings { limits, ..Settings::default() }, Arc::new(NoSinks));
    broker.set_chains(Chains::new([Link::new(Arc::new(Welcome))]));
    broker
}

fn now() -> Now {
    Now { at: Instant::from_micros(1_000_000_000), unix_ms: 1_700_000_000_000 }
}

struct NoSinks;

impl Sinks for NoSinks {
    fn submit(&self, _: Record) -> Result<(), Refused> {
        Ok(())
    }
}

/// Lets everybody in and allows everything.
struct Welcome;

impl Hook for Welcome {
    fn name(&self) -> &str {
        "welcome"
    }

    fn points(&self) -> HookPoints {
        HookPoints::NONE.with(HookPoint::Authenticate).with(HookPoint::Authorize)
    }

    fn authenticate(&self, _: &Arc<AuthenticateRequest>) -> Reply<Authentication> {
        Reply::ready(Authentication::Allow { lease: Lease::default(), data: None })
    }

    fn authorize(&self, _: &Arc<AuthorizeRequest>) -> Reply<Decision> {
        Reply::ready(Decision::Allow)
    }
}

#[derive(Default)]
struct Pipe {
    bytes: Mutex<Vec<u8>>,
    deaf: AtomicBool,
    woken: AtomicBool,
}

struct Write(Arc<Pipe>);

impl Transport for Write {
    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.0.deaf.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut bytes = self.0.bytes.lock();
        slices.iter().for_each(|slice| bytes.extend_from_slice(slice));
        Ok(slices.iter().map(|slice| slice.len()).sum())
    }

    fn wake(&self) {
        self.0.woken.store(true, Ordering::Relaxed);
    }
}

/// A connection, and what its client sees of it.
pub(crate) struct Line {
    connection: Connection,
    outbox: Arc<Outbox>,
    pipe: Arc<Pipe>,
    unread: BytesMut,
    /// Reads along what the client sends: what the answers are written in follows from it.
    heard: Decoder,
    heard_bytes: BytesMut,
    decoder: Option<Decoder>,
    answers: BytesMut,
    is_greeted: bool,
    is_over: bool,
}

impl Line {
    fn new(broker: &Arc<Broker>, now: Now) -> Self {
        let pipe = Arc::new(Pipe::default());
        let outbox: Arc<Outbox> = Arc::new(Outbox::new(Arc::new(Write(Arc::clone(&pipe)))));
        let peer = Peer { address: None, listener: Arc::from("fuzz") };
        Self {
            connection: Connection::new(Arc::clone(broker), Arc::clone(&outbox), peer, now),
            outbox,
            pipe,
            unread: BytesMut::new(),
            heard: Decoder::server(u32::MAX, usize::MAX),
            heard_bytes: BytesMut::new(),
            decoder: None,
            answers: BytesMut::new(),
            is_greeted: false,
            is_over: false,
        }
    }

    /// A client of MQTT 5 that is let in.
    pub(crate) fn connected(broker: &Arc<Broker>, client_id: &str) -> Self {
        let mut line = Self::new(broker, now());
        line.send(&Packet::Connect(Box::new(Connect::new(Version::V5, text(client_id)))), now());
        assert!(matches!(line.read().as_slice(), [Packet::ConnAck(_)]));
        line
    }

    /// Subscribes to a filter that is one.
    pub(crate) fn subscribe(&mut self, filter: &str) {
        let filters = vec![(text(filter), SubscribeOptions::default())];
        let (packet_id, user_properties) = (PacketId::MIN, Vec::new());
        let packet = Subscribe { packet_id, subscription_id: None, user_properties, filters };
        self.send(&Packet::Subscribe(packet), now());
    }

    /// Publishes to a topic that is one.
    pub(crate) fn publish(&mut self, topic: &str, payload: &'static str, retain: bool) {
        let (topic, payload) = (text(topic), Bytes::from_static(payload.as_bytes()));
        let (dup, qos, packet_id, extras) = (false, QoS::AtMostOnce, None, None);
        self.send(&Packet::Publish(Publish { dup, qos, retain, topic, packet_id, extras, payload }), now());
    }

    /// What has been published to it.
    pub(crate) fn payloads(&mut self) -> Vec<String> {
        let publishes = self.read().into_iter().filter_map(|packet| match packet {
            Packet::Publish(publish) => Some(String::from_utf8_lossy(&publish.payload).into_owned()),
            _ => None,
        });
        publishes.collect()
    }

    fn send(&mut self, packet: &Packet, now: Now) {
        let version = self.heard.version().unwrap_or(Version::V5);
        let mut bytes = Vec::new();
        // What this version has no packet for, its client does not send.
        if packet.encode(version, &mut bytes).is_ok() {
            self.feed(&bytes, now);
        }
    }

    fn feed(&mut self, bytes: &[u8], now: Now) {
        self.heard_bytes.extend_from_slice(bytes);
        while let Ok(Some(_)) = self.heard.decode(&mut self.heard_bytes) {}
        self.unread.extend_from_slice(bytes);
        self.work(now);
    }

    fn work(&mut self, now: Now) {
        let mut context = Context::from_waker(Waker::noop());
        self.connection.input(&mut self.unread, now);
        assert_eq!(self.connection.poll(&mut context, now), Poll::Ready(()), "no hook here takes its time");
        self.connection.flush();
        self.connection.take_works().into_iter().for_each(drive);
        let deaf = || self.pipe.deaf.load(Ordering::Relaxed);
        while !deaf() && self.pipe.woken.swap(false, Ordering::Relaxed) {
            self.connection.handle_room(now);
            self.connection.input(&mut self.unread, now);
            self.connection.flush();
        }
        if self.connection.wants_input() {
            assert!(self.unread.len() < PACKET_BYTES_MAX as usize, "{} bytes are kept", self.unread.len());
        }
    }

    /// Reads what has come, which is packets in their turn.
    fn read(&mut self) -> Vec<Packet> {
        self.answers.extend_from_slice(&std::mem::take(&mut *self.pipe.bytes.lock()));
        if self.answers.is_empty() {
            return Vec::new();
        }
        if self.decoder.is_none() && self.heard.version().is_none() {
            // A protocol that is not spoken here is told in one way or the other.
            let decodes = |version| {
                let mut answers = self.answers.clone();
                Decoder::client(version, u32::MAX).decode(&mut answers).is_ok_and(|packet| packet.is_some())
            };
            assert!(decodes(Version::V5) || decodes(Version::V311), "{:02x?}", self.answers);
            self.answers.clear();
            return Vec::new();
        }
        let version = self.heard.version().unwrap_or(Version::V5);
        let decoder = self.decoder.get_or_insert_with(|| Decoder::client(version, u32::MAX));
        let mut packets = Vec::new();
        while let Some(packet) = decoder.decode(&mut self.answers).expect("the broker sends packets") {
            assert!(!self.is_over, "{packet:?} behind the last packet");
            match &packet {
                Packet::ConnAck(connack) => {
                    assert!(!self.is_greeted, "a second CONNACK");
                    self.is_greeted = true;
                    self.is_over = connack.code != ReasonCode::Success;
                }
                Packet::Disconnect(_) => self.is_over = true,
                _ => {}
            }
            assert!(self.is_greeted || matches!(packet, Packet::Auth(_)), "{packet:?} before CONNACK");
            packets.push(packet);
        }
        assert!(self.answers.is_empty(), "half a packet: {:02x?}", self.answers);
        packets
    }

    fn hang_up(&mut self, now: Now) {
        self.connection.flush();
        self.connection.end("hung up", now);
        self.connection.flush();
        self.connection.take_works().into_iter().for_each(drive);
        self.read();
    }
}

fn drive(mut work: Work) {
    let polled = work.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert_eq!(polled, Poll::Ready(()), "no hook here takes its time");
}
