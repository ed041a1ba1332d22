//! What a broker has to do, as simply as it can be said: lists that are walked from end to end, one matching rule,
//! no hooks, no batches. It follows the standard, and where that leaves a choice, `DECISIONS.md`:
//! - a will that waits is not sent when its client comes back in time, be it with a clean start;
//! - overlapping subscriptions of a session make one message, with the highest QoS and all identifiers;
//! - what waits when its subscription ends is still delivered;
//! - QoS 0 does not wait: nobody there, or a full outbox, and it is dropped and counted;
//! - retained messages that SUBSCRIBE asks for are not held to the limits of the queue;
//! - a shared group takes turns: the next in turn that can be sent a message at once, else the next with room in
//!   its queue, of these rather one that is connected.
//!
//! It tells for each connection what it must be sent ([`Reference::take_expected`]). Packet identifiers are the
//! broker's choice: they are learnt when a message is first seen ([`Reference::learn`]) and held against it later.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use bytes::Bytes;
use weirmq_core::counters::DropReason;
use weirmq_core::limits::{Limits, QueueFull};
use weirmq_core::topic::{Subscribable, TopicFilter};
use weirmq_wire::{
    Ack, ConnAck, Disconnect, Packet, PacketId, PacketType, Publish, PublishExtras, ReasonCode,
    RetainHandling, SubAck, UnsubAck, Version,
};

use crate::story::{Connecting, How, Publishing, Size, WILL_TOPIC, WillWish, Wish};
use crate::support::{id, qos, text};

/// Which of all messages that were ever given a packet identifier.
pub(crate) type Ticket = usize;

/// What a client must be sent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Expected {
    ConnAck {
        present: bool,
        code: ReasonCode,
        expiry_s: Option<u32>,
    },
    Publish(Delivery),
    PubRel(Ticket),
    /// An acknowledgement of what the client has sent.
    Answer(PacketType, PacketId, ReasonCode),
    SubAck(PacketId, Vec<ReasonCode>),
    UnsubAck(PacketId, Vec<ReasonCode>),
    PingResp,
    Disconnect(ReasonCode),
}

/// A message as one client must get it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Delivery {
    pub(crate) topic: &'static str,
    pub(crate) payload: String,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
    pub(crate) identifiers: Vec<u32>,
    pub(crate) expiry_s: Option<u32>,
    pub(crate) ticket: Option<Ticket>,
    /// Sent because SUBSCRIBE has asked for retained messages: no order among these and others is promised.
    pub(crate) asked_for: bool,
}

pub(crate) struct Reference {
    limits: Limits,
    now_ms: u64,
    /// By number: in the order in which they began.
    sessions: BTreeMap<usize, Session>,
    sessions_begun: usize,
    groups: Vec<Group>,
    retained: Vec<Rc<Message>>,
    /// All that there ever were, by number.
    connections: Vec<Connection>,
    drops: HashMap<DropReason, u64>,
    ids: Vec<Option<PacketId>>,
    /// How often a client was to be given a payload with QoS 2.
    once: HashMap<(usize, String), usize>,
    messages: usize,
}

struct Session {
    who: usize,
    connection: Option<usize>,
    expiry_s: u32,
    will: Option<Will>,
    will_at: Option<u64>,
    ends_at: Option<u64>,
    subscriptions: Vec<Subscription>,
    queue: Vec<Parcel>,
    inflight: Vec<Inflight>,
    replays: Vec<Replay>,
    /// QoS 2 messages that were taken and not released, with the connection that sent them last.
    unreleased: Vec<(PacketId, usize)>,
}

#[derive(Clone)]
struct Will {
    payload: String,
    wish: WillWish,
}

#[derive(Clone)]
struct Subscription {
    to: Subscribable,
    qos: u8,
    no_local: bool,
    retain_as_published: bool,
    identifier: Option<u32>,
}

struct Group {
    to: Subscribable,
    turn: usize,
}

struct Message {
    topic: &'static str,
    payload: String,
    qos: u8,
    retain: bool,
    publisher: usize,
    received_ms: u64,
    expires_ms: Option<u64>,
}

#[derive(Clone)]
struct Parcel {
    message: Rc<Message>,
    qos: u8,
    retain: bool,
    identifiers: Vec<u32>,
    asked_for: bool,
}

struct Inflight {
    ticket: Ticket,
    qos: u8,
    /// Until PUBREC; then PUBREL is owed.
    parcel: Option<Parcel>,
    /// Sent on this connection, and on an earlier one.
    sent: bool,
    before: bool,
    /// Its PUBLISH was sent on this connection, and counts against Receive Maximum.
    counted: bool,
}

struct Replay {
    subscription: Subscription,
    found: Option<Vec<Rc<Message>>>,
}

struct Connection {
    who: usize,
    version: Version,
    open: bool,
    deaf: bool,
    /// What a deaf client has not read.
    unread_bytes: usize,
    outbox_bytes_max: usize,
    receive_max: usize,
    packet_bytes_max: usize,
    has_expiry: bool,
    keep_alive_s: u16,
    last_packet_ms: u64,
    expected: Vec<Expected>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Orderly,
    Lost,
    TakenOver,
    Replaced,
}

impl Message {
    fn size(&self) -> usize {
        self.topic.len() + self.payload.len()
    }

    fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_ms.is_some_and(|at| at < now_ms)
    }
}

impl Connection {
    fn has_room(&self) -> bool {
        !self.deaf || self.unread_bytes <= self.outbox_bytes_max
    }

    fn emit(&mut self, expected: Expected) {
        if self.deaf {
            self.unread_bytes += self.size(&expected);
        }
        self.expected.push(expected);
    }

    fn answer(&mut self, kind: PacketType, id: PacketId, code: ReasonCode) {
        self.emit(Expected::Answer(kind, id, code));
    }

    /// Sends a message, unless it is too large for the client.
    fn send(&mut self, parcel: &Parcel, ticket: Option<Ticket>, dup: bool, now_ms: u64) -> bool {
        let message = &parcel.message;
        let left = |at: u64| u32::try_from(at.saturating_sub(now_ms).div_ceil(1_000)).unwrap();
        let in_v5 = self.version == Version::V5;
        let mut identifiers = if in_v5 { parcel.identifiers.clone() } else { Vec::new() };
        identifiers.sort_unstable();
        let delivery = Expected::Publish(Delivery {
            topic: message.topic,
            payload: message.payload.clone(),
            qos: parcel.qos,
            retain: parcel.retain,
            dup,
            identifiers,
            expiry_s: message.expires_ms.map(left).filter(|_| in_v5),
            ticket,
            asked_for: parcel.asked_for,
        });
        let fits = self.size(&delivery) <= self.packet_bytes_max;
        if fits {
            self.emit(delivery);
        }
        fits
    }

    fn size(&self, expected: &Expected) -> usize {
        let packet = match expected {
            Expected::ConnAck { code, .. } => Packet::ConnAck(Box::new(ConnAck::new(*code))),
            Expected::Publish(delivery) => Packet::Publish(Publish {
                dup: delivery.dup,
                qos: qos(delivery.qos),
                retain: delivery.retain,
                topic: text(delivery.topic),
                packet_id: delivery.ticket.map(|_| id(1)),
                extras: Some(Box::new(PublishExtras {
                    message_expiry_interval_s: delivery.expiry_s,
                    subscription_ids: delivery.identifiers.clone(),
                    ..PublishExtras::default()
                })),
                payload: Bytes::copy_from_slice(delivery.payload.as_bytes()),
            }),
            Expected::PubRel(_) => Packet::PubRel(Ack::new(id(1))),
            Expected::Answer(kind, id, code) => ack(*kind, *id, *code),
            Expected::SubAck(id, codes) => Packet::SubAck(SubAck::new(*id, codes.clone())),
            Expected::UnsubAck(id, codes) => Packet::UnsubAck(UnsubAck::new(*id, codes.clone())),
            Expected::PingResp => Packet::PingResp,
            Expected::Disconnect(code) => Packet::Disconnect(Disconnect::new(*code)),
        };
        packet.encoded_len(self.version).unwrap()
    }
}

pub(crate) fn ack(kind: PacketType, id: PacketId, code: ReasonCode) -> Packet {
    let ack = Ack::with_code(id, code);
    match kind {
        PacketType::PubAck => Packet::PubAck(ack),
        PacketType::PubRec => Packet::PubRec(ack),
        PacketType::PubRel => Packet::PubRel(ack),
        PacketType::PubComp => Packet::PubComp(ack),
        other => panic!("{other} is no acknowledgement"),
    }
}

impl Session {
    fn is_receiving(&self, connection: &Connection) -> bool {
        let counted = self.inflight.iter().filter(|entry| entry.counted).count();
        self.inflight.iter().all(|entry| entry.sent)
            && counted < connection.receive_max
            && connection.has_room()
    }

    fn takes_now(&self, connection: &Connection, waits: bool) -> bool {
        if waits { self.queue.is_empty() && self.is_receiving(connection) } else { connection.has_room() }
    }

    fn has_room(&self, size: usize, limits: &Limits) -> bool {
        let bytes: usize = self.queue.iter().map(|parcel| parcel.message.size()).sum();
        self.queue.len() < limits.queue_messages_max && bytes + size <= limits.queue_bytes_max
    }
}

// What the clients do

impl Reference {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            now_ms: 0,
            sessions: BTreeMap::new(),
            sessions_begun: 0,
            groups: Vec::new(),
            retained: Vec::new(),
            connections: Vec::new(),
            drops: HashMap::new(),
            ids: Vec::new(),
            once: HashMap::new(),
            messages: 0,
        }
    }

    /// Answers the number of the connection, and the payload of its will.
    pub(crate) fn connect(&mut self, who: usize, how: &Connecting) -> (usize, Option<String>) {
        let v5 = how.version == Version::V5;
        let will = how.will.map(|wish| match how.version {
            Version::V5 => wish,
            Version::V311 => WillWish { delay_s: 0, expiry_s: None, ..wish },
        });
        let will = will.map(|wish| Will { payload: self.payload(Size::Small), wish });
        let will_payload = will.as_ref().map(|will| will.payload.clone());
        let mut wills = Vec::new();
        if let Some(number) = self.session_of(who) {
            let resumed = !how.clean;
            if let Some(connection) = self.session(number).connection {
                if self.connections[connection].version == Version::V5 {
                    self.connections[connection].emit(Expected::Disconnect(ReasonCode::SessionTakenOver));
                }
                let ending = if resumed { Ending::TakenOver } else { Ending::Replaced };
                wills.extend(self.close(connection, ending));
            } else if !resumed {
                // The client is back in time: a will that waits is not sent.
                self.end(number);
            }
        }
        let asked_s = match (how.version, how.clean) {
            (Version::V5, _) => how.expiry_s.unwrap_or(0),
            (Version::V311, true) => 0,
            (Version::V311, false) => self.limits.session_expiry_v311_s,
        };
        let granted_s = asked_s.min(self.limits.session_expiry_s_max);
        let connection = self.connections.len();
        let receive_max = if v5 { how.receive_max.unwrap_or(u16::MAX) } else { u16::MAX };
        self.connections.push(Connection {
            who,
            version: how.version,
            open: true,
            deaf: false,
            unread_bytes: 0,
            outbox_bytes_max: self.limits.outbox_bytes_max,
            receive_max: receive_max.min(self.limits.inflight_max).into(),
            packet_bytes_max: how.packet_bytes_max.filter(|_| v5).map_or(usize::MAX, |max| max as usize),
            has_expiry: asked_s > 0,
            keep_alive_s: how.keep_alive_s,
            last_packet_ms: self.now_ms,
            expected: Vec::new(),
        });
        let found = self.session_of(who);
        if found.is_none() && self.sessions.len() >= self.limits.sessions_max {
            let live = &mut self.connections[connection];
            live.open = false;
            let code = ReasonCode::QuotaExceeded;
            live.emit(Expected::ConnAck { present: false, code, expiry_s: None });
            return (connection, will_payload);
        }
        let number = found.unwrap_or_else(|| self.begin(who));
        let session = self.sessions.get_mut(&number).unwrap();
        session.connection = Some(connection);
        session.expiry_s = granted_s;
        session.will = will;
        (session.will_at, session.ends_at) = (None, None);
        for entry in &mut session.inflight {
            entry.before |= entry.sent;
            (entry.sent, entry.counted) = (false, false);
        }
        self.connections[connection].emit(Expected::ConnAck {
            present: found.is_some(),
            code: ReasonCode::Success,
            expiry_s: Some(granted_s).filter(|granted| v5 && *granted != asked_s),
        });
        self.settle(number);
        wills.into_iter().for_each(|(who, will)| self.publish_will(who, will));
        (connection, will_payload)
    }

    pub(crate) fn cut(&mut self, connection: usize) {
        self.lose(connection, None);
    }

    pub(crate) fn disconnect(&mut self, connection: usize, with_will: bool, expiry_s: Option<u32>) {
        self.heard(connection);
        let Some(number) = self.session_at(connection) else { return };
        if let Some(seconds) = expiry_s {
            if seconds != 0 && !self.connections[connection].has_expiry {
                return self.lose(connection, Some(ReasonCode::ProtocolError));
            }
            self.sessions.get_mut(&number).unwrap().expiry_s = seconds.min(self.limits.session_expiry_s_max);
        }
        let ending = if with_will { Ending::Lost } else { Ending::Orderly };
        let will = self.close(connection, ending);
        will.into_iter().for_each(|(who, will)| self.publish_will(who, will));
    }

    pub(crate) fn subscribe(
        &mut self,
        connection: usize,
        packet_id: PacketId,
        identifier: Option<u32>,
        filters: &[Wish],
    ) {
        self.heard(connection);
        let Some(number) = self.session_at(connection) else { return };
        if self.is_in_use(number, packet_id) {
            let codes = vec![ReasonCode::PacketIdentifierInUse; filters.len()];
            return self.connections[connection].emit(Expected::SubAck(packet_id, codes));
        }
        let mut codes = Vec::new();
        for wish in filters {
            let subscription = Subscription {
                to: Subscribable::parse(wish.filter).unwrap(),
                qos: wish.qos,
                no_local: wish.no_local,
                retain_as_published: wish.retain_as_published,
                identifier,
            };
            codes.push(self.enter(number, subscription, wish.handling));
        }
        self.connections[connection].emit(Expected::SubAck(packet_id, codes));
        self.settle(number);
    }

    pub(crate) fn unsubscribe(&mut self, connection: usize, packet_id: PacketId, filters: &[&str]) {
        self.heard(connection);
        let Some(number) = self.session_at(connection) else { return };
        if self.is_in_use(number, packet_id) {
            let codes = vec![ReasonCode::PacketIdentifierInUse; filters.len()];
            return self.connections[connection].emit(Expected::UnsubAck(packet_id, codes));
        }
        let mut codes = Vec::new();
        for filter in filters {
            let from = Subscribable::parse(filter).unwrap();
            let session = self.sessions.get_mut(&number).unwrap();
            codes.push(if session.subscriptions.iter().any(|subscription| subscription.to == from) {
                session.subscriptions.retain(|subscription| subscription.to != from);
                if from.share.is_none() {
                    session.replays.retain(|replay| replay.subscription.to.filter != from.filter);
                }
                ReasonCode::Success
            } else {
                ReasonCode::NoSubscriptionExisted
            });
        }
        self.forget_groups();
        self.connections[connection].emit(Expected::UnsubAck(packet_id, codes));
    }

    /// Answers the payload.
    pub(crate) fn publish(&mut self, connection: usize, what: &Publishing) -> String {
        let payload = self.payload(what.size);
        self.heard(connection);
        let Some(number) = self.session_at(connection) else { return payload };
        let v5 = self.connections[connection].version == Version::V5;
        let packet_id = id(what.packet_id);
        let unreleased = &mut self.sessions.get_mut(&number).unwrap().unreleased;
        let mine = unreleased.contains(&(packet_id, connection));
        let taken = unreleased.iter().filter(|(_, by)| *by == connection).count();
        let is_repetition = what.qos == 2 && mine;
        if v5 && what.qos > 0 && taken >= self.limits.receive_max.into() && !is_repetition {
            self.lose(connection, Some(ReasonCode::ReceiveMaximumExceeded));
            return payload;
        }
        if what.qos == 2
            && let Some((_, by)) = unreleased.iter_mut().find(|(id, _)| *id == packet_id)
        {
            *by = connection;
            self.connections[connection].answer(PacketType::PubRec, packet_id, ReasonCode::Success);
            return payload;
        }
        if what.qos == 1 && v5 && mine {
            let code = ReasonCode::PacketIdentifierInUse;
            self.connections[connection].answer(PacketType::PubAck, packet_id, code);
            return payload;
        }
        let message = Message {
            topic: what.topic,
            payload: payload.clone(),
            qos: what.qos,
            retain: what.retain,
            publisher: self.connections[connection].who,
            received_ms: self.now_ms,
            expires_ms: self.expires_ms(what.expiry_s.filter(|_| v5)),
        };
        let code = match self.route(message) {
            0 => ReasonCode::NoMatchingSubscribers,
            _ => ReasonCode::Success,
        };
        match what.qos {
            0 => {}
            1 => self.connections[connection].answer(PacketType::PubAck, packet_id, code),
            _ => {
                self.sessions.get_mut(&number).unwrap().unreleased.push((packet_id, connection));
                self.connections[connection].answer(PacketType::PubRec, packet_id, code);
            }
        }
        payload
    }

    pub(crate) fn release(&mut self, connection: usize, packet_id: PacketId) {
        self.heard(connection);
        let Some(number) = self.session_at(connection) else { return };
        let unreleased = &mut self.sessions.get_mut(&number).unwrap().unreleased;
        let before = unreleased.len();
        unreleased.retain(|(id, _)| *id != packet_id);
        let was_there = unreleased.len() < before;
        let code = if was_there { ReasonCode::Success } else { ReasonCode::PacketIdentifierNotFound };
        self.connections[connection].answer(PacketType::PubComp, packet_id, code);
    }

    /// What the client has got on this connection and not acknowledged for good, with its identifier.
    pub(crate) fn unacknowledged(&self, connection: usize) -> Vec<(Ticket, PacketId)> {
        let Some(number) = self.session_at(connection) else { return Vec::new() };
        let unread: Vec<Ticket> =
            self.connections[connection].expected.iter().filter_map(ticket_of).collect();
        let session = self.session(number);
        let got = session.inflight.iter().filter(|entry| entry.sent && !unread.contains(&entry.ticket));
        got.filter_map(|entry| self.ids[entry.ticket].map(|id| (entry.ticket, id))).collect()
    }

    /// The acknowledgement that `how` makes of a message, and its code.
    pub(crate) fn acknowledgement(
        &self,
        connection: usize,
        ticket: Ticket,
        how: How,
    ) -> (PacketType, ReasonCode) {
        let session = self.session(self.session_at(connection).unwrap());
        let entry = session.inflight.iter().find(|entry| entry.ticket == ticket).unwrap();
        let due = match (entry.qos, &entry.parcel) {
            (1, _) => PacketType::PubAck,
            (_, Some(_)) => PacketType::PubRec,
            (_, None) => PacketType::PubComp,
        };
        let may_refuse = self.connections[connection].version == Version::V5;
        match how {
            How::Well | How::Strange => (due, ReasonCode::Success),
            How::Refuse if may_refuse => (PacketType::PubRec, ReasonCode::UnspecifiedError),
            How::Refuse | How::PubRec => (PacketType::PubRec, ReasonCode::Success),
            How::PubAck => (PacketType::PubAck, ReasonCode::Success),
            How::PubComp => (PacketType::PubComp, ReasonCode::Success),
        }
    }

    /// The client acknowledges a message, or `None` that it never got.
    pub(crate) fn acknowledge(
        &mut self,
        connection: usize,
        kind: PacketType,
        code: ReasonCode,
        ticket: Option<Ticket>,
        packet_id: PacketId,
    ) {
        self.heard(connection);
        let Some(number) = self.session_at(connection) else { return };
        let session = self.sessions.get_mut(&number).unwrap();
        let live = &mut self.connections[connection];
        let place = session.inflight.iter().position(|entry| Some(entry.ticket) == ticket && entry.sent);
        let state =
            place.map(|place| (session.inflight[place].qos, session.inflight[place].parcel.is_some()));
        match (kind, state) {
            (PacketType::PubAck, Some((1, _))) | (PacketType::PubComp, Some((2, false))) => {
                drop(session.inflight.remove(place.unwrap()))
            }
            (PacketType::PubRec, Some((2, _))) if code.is_error() => {
                drop(session.inflight.remove(place.unwrap()));
            }
            (PacketType::PubRec, Some((2, _))) => {
                session.inflight[place.unwrap()].parcel = None;
                live.emit(Expected::PubRel(ticket.unwrap()));
            }
            (PacketType::PubRec, _) if !code.is_error() => {
                live.answer(PacketType::PubRel, packet_id, ReasonCode::PacketIdentifierNotFound);
            }
            _ => {}
        }
        self.settle(number);
    }

    pub(crate) fn deaf(&mut self, connection: usize, deaf: bool) {
        let live = &mut self.connections[connection];
        live.deaf = deaf;
        live.unread_bytes = 0;
        if let Some(number) = self.session_at(connection) {
            self.settle(number);
        }
    }

    pub(crate) fn ping(&mut self, connection: usize) {
        self.heard(connection);
        self.connections[connection].emit(Expected::PingResp);
    }

    /// Time passes for the sessions without a connection.
    pub(crate) fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        let deadline = |session: &Session| session.will_at.into_iter().chain(session.ends_at).min();
        let mut due: Vec<(u64, usize)> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.connection.is_none())
            .filter_map(|(number, session)| Some((deadline(session)?, *number)))
            .filter(|(at, _)| *at <= self.now_ms)
            .collect();
        due.sort_unstable();
        let mut wills = Vec::new();
        for (_, number) in due {
            if self.session(number).ends_at.is_some_and(|at| at <= self.now_ms) {
                wills.extend(self.end(number));
            } else {
                let session = self.sessions.get_mut(&number).unwrap();
                session.will_at = None;
                wills.extend(session.will.take().map(|will| (session.who, will)));
            }
        }
        wills.into_iter().for_each(|(who, will)| self.publish_will(who, will));
    }

    /// What has expired is forgotten.
    pub(crate) fn tidy(&mut self) {
        let now_ms = self.now_ms;
        self.retained.retain(|message| !message.is_expired(now_ms));
    }

    /// A connection looks at the clock.
    pub(crate) fn look_at_the_clock(&mut self, connection: usize) {
        let live = &self.connections[connection];
        let silent_ms = u64::from(live.keep_alive_s) * 1_500;
        if live.open && silent_ms > 0 && live.last_packet_ms + silent_ms <= self.now_ms {
            self.lose(connection, Some(ReasonCode::KeepAliveTimeout));
        }
    }
}

// What is asked about it

impl Reference {
    pub(crate) fn is_open(&self, connection: usize) -> bool {
        self.connections[connection].open
    }

    pub(crate) fn is_deaf(&self, connection: usize) -> bool {
        self.connections[connection].deaf
    }

    pub(crate) fn is_choked(&self, connection: usize) -> bool {
        let live = &self.connections[connection];
        live.unread_bytes > 2 * live.outbox_bytes_max
    }

    pub(crate) fn take_expected(&mut self, connection: usize) -> Vec<Expected> {
        std::mem::take(&mut self.connections[connection].expected)
    }

    pub(crate) fn drops(&self, reason: DropReason) -> u64 {
        self.drops.get(&reason).copied().unwrap_or(0)
    }

    pub(crate) fn id_of(&self, ticket: Ticket) -> Option<PacketId> {
        self.ids[ticket]
    }

    pub(crate) fn learn(&mut self, ticket: Ticket, id: PacketId) {
        self.ids[ticket] = Some(id);
    }

    /// How often a client may be given a payload with QoS 2.
    pub(crate) fn times(&self, who: usize, payload: &str) -> usize {
        self.once.get(&(who, payload.to_owned())).copied().unwrap_or(0)
    }

    pub(crate) fn subscriptions(&self) -> usize {
        self.sessions.values().map(|session| session.subscriptions.len()).sum()
    }

    pub(crate) fn retained(&self) -> usize {
        self.retained.len()
    }

    pub(crate) fn sessions(&self) -> usize {
        self.sessions.len()
    }
}

// How it comes to that

impl Reference {
    fn session(&self, number: usize) -> &Session {
        &self.sessions[&number]
    }

    fn session_of(&self, who: usize) -> Option<usize> {
        self.sessions.iter().find(|(_, session)| session.who == who).map(|(number, _)| *number)
    }

    fn session_at(&self, connection: usize) -> Option<usize> {
        let mut sessions = self.sessions.iter();
        sessions.find(|(_, session)| session.connection == Some(connection)).map(|(number, _)| *number)
    }

    fn heard(&mut self, connection: usize) {
        self.connections[connection].last_packet_ms = self.now_ms;
    }

    fn dropped(&mut self, reason: DropReason) {
        *self.drops.entry(reason).or_default() += 1;
    }

    /// Every message has a payload of its own, but those that are empty.
    fn payload(&mut self, size: Size) -> String {
        self.messages += 1;
        let number = self.messages;
        match size {
            Size::Small => format!("m{number}"),
            Size::Large => format!("{:-<60}", format!("m{number}")),
            Size::Empty => String::new(),
        }
    }

    fn expires_ms(&self, asked_s: Option<u32>) -> Option<u64> {
        let bound = Some(self.limits.message_expiry_s_max).filter(|bound| *bound > 0);
        let seconds = asked_s.into_iter().chain(bound).min()?;
        Some(self.now_ms + u64::from(seconds) * 1_000)
    }

    /// Whether the client may not give this identifier to anything else.
    fn is_in_use(&self, number: usize, packet_id: PacketId) -> bool {
        let session = self.session(number);
        session.connection.is_some_and(|connection| {
            self.connections[connection].version == Version::V5
                && session.unreleased.contains(&(packet_id, connection))
        })
    }

    fn begin(&mut self, who: usize) -> usize {
        let number = self.sessions_begun;
        self.sessions_begun += 1;
        let session = Session {
            who,
            connection: None,
            expiry_s: 0,
            will: None,
            will_at: None,
            ends_at: None,
            subscriptions: Vec::new(),
            queue: Vec::new(),
            inflight: Vec::new(),
            replays: Vec::new(),
            unreleased: Vec::new(),
        };
        self.sessions.insert(number, session);
        number
    }

    /// The connection is lost, or the broker ends it for a reason.
    fn lose(&mut self, connection: usize, code: Option<ReasonCode>) {
        if let Some(code) = code.filter(|_| self.connections[connection].version == Version::V5) {
            self.connections[connection].emit(Expected::Disconnect(code));
        }
        let will = self.close(connection, Ending::Lost);
        will.into_iter().for_each(|(who, will)| self.publish_will(who, will));
    }

    /// Parts a session from its connection; gives back the will that is to be published now.
    fn close(&mut self, connection: usize, ending: Ending) -> Option<(usize, Will)> {
        self.connections[connection].open = false;
        let number = self.session_at(connection)?;
        let now_ms = self.now_ms;
        let session = self.sessions.get_mut(&number).unwrap();
        session.connection = None;
        if ending == Ending::Orderly {
            session.will = None;
        }
        if session.expiry_s == 0 || ending == Ending::Replaced {
            return self.end(number);
        }
        session.ends_at = Some(now_ms + u64::from(session.expiry_s) * 1_000);
        let delay_s = session.will.as_ref()?.wish.delay_s;
        if delay_s > 0 {
            // Where another connection goes on with the session it is taken back by that.
            session.will_at = Some(now_ms + u64::from(delay_s) * 1_000);
            return None;
        }
        session.will.take().map(|will| (session.who, will))
    }

    /// A session is over; gives back its will, which is published when the session ends at the latest.
    fn end(&mut self, number: usize) -> Option<(usize, Will)> {
        let session = self.sessions.remove(&number).unwrap();
        let lost = session.queue.len() + session.inflight.len();
        *self.drops.entry(DropReason::SessionEnded).or_default() += lost as u64;
        self.forget_groups();
        session.will.map(|will| (session.who, will))
    }

    fn publish_will(&mut self, who: usize, will: Will) {
        self.route(Message {
            topic: WILL_TOPIC,
            payload: will.payload,
            qos: will.wish.qos,
            retain: will.wish.retain,
            publisher: who,
            received_ms: self.now_ms,
            expires_ms: self.expires_ms(will.wish.expiry_s),
        });
    }

    fn enter(&mut self, number: usize, subscription: Subscription, handling: RetainHandling) -> ReasonCode {
        let granted = [ReasonCode::Success, ReasonCode::GrantedQoS1, ReasonCode::GrantedQoS2];
        let granted = granted[usize::from(subscription.qos)];
        let max = self.limits.subscriptions_max;
        let session = self.sessions.get_mut(&number).unwrap();
        let place = session.subscriptions.iter().position(|other| other.to == subscription.to);
        match place {
            Some(place) => session.subscriptions[place] = subscription.clone(),
            None if session.subscriptions.len() >= max => return ReasonCode::QuotaExceeded,
            None => session.subscriptions.push(subscription.clone()),
        }
        let wanted = match handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => place.is_none(),
            RetainHandling::DoNotSend => false,
        };
        if subscription.to.share.is_some() {
            if !self.groups.iter().any(|group| group.to == subscription.to) {
                self.groups.push(Group { to: subscription.to, turn: 0 });
            }
        } else if wanted {
            if session.replays.len() >= max {
                let filter = &subscription.to.filter;
                session.replays.retain(|replay| replay.subscription.to.filter != *filter);
            }
            session.replays.push(Replay { subscription, found: None });
        }
        granted
    }

    fn forget_groups(&mut self) {
        let sessions = &self.sessions;
        self.groups.retain(|group| {
            sessions.values().flat_map(|session| &session.subscriptions).any(|other| other.to == group.to)
        });
    }

    /// Retains a message and hands it to who subscribes to it; answers how many.
    fn route(&mut self, message: Message) -> usize {
        let message = Rc::new(message);
        if message.retain {
            self.retain(&message);
        }
        let mut receivers = Vec::new();
        for (number, session) in &self.sessions {
            let own = session.who == message.publisher;
            let matching: Vec<&Subscription> = session
                .subscriptions
                .iter()
                .filter(|it| it.to.share.is_none() && it.to.filter.matches(message.topic))
                .filter(|it| !(it.no_local && own))
                .collect();
            receivers.extend(grant(&matching).map(|grant| (*number, grant)));
        }
        let mut matched = receivers.len();
        for (number, grant) in receivers {
            self.offer(number, &message, &grant);
        }
        for place in 0..self.groups.len() {
            if !self.groups[place].to.filter.matches(message.topic) {
                continue;
            }
            matched += 1;
            match self.choose(place, &message) {
                Some((number, subscription)) => {
                    self.offer(number, &message, &grant(&[&subscription]).unwrap());
                }
                None => self.dropped(DropReason::NoReceiverOnline),
            }
        }
        matched
    }

    fn choose(&mut self, place: usize, message: &Message) -> Option<(usize, Subscription)> {
        let group = &mut self.groups[place];
        let mut members: Vec<(usize, Subscription)> = Vec::new();
        for (number, session) in &self.sessions {
            let its = session.subscriptions.iter().find(|it| it.to == group.to);
            members.extend(its.map(|its| (*number, its.clone())));
        }
        let turn = group.turn % members.len();
        group.turn += 1;
        members.rotate_left(turn);
        let mut best: Option<((bool, bool), (usize, Subscription))> = None;
        for (number, its) in members {
            let session = self.session(number);
            let waits = message.qos.min(its.qos) > 0;
            let live = session.connection.map(|connection| &self.connections[connection]);
            if live.is_some_and(|live| session.takes_now(live, waits)) {
                return Some((number, its));
            }
            let goodness = (session.has_room(message.size(), &self.limits), live.is_some());
            if waits && best.as_ref().is_none_or(|(other, _)| *other < goodness) {
                best = Some((goodness, (number, its)));
            }
        }
        best.map(|(_, member)| member)
    }

    fn retain(&mut self, message: &Rc<Message>) {
        let others = self.retained.iter().filter(|other| other.topic != message.topic).count();
        if !message.payload.is_empty() && others >= self.limits.retained_messages_max {
            return self.dropped(DropReason::RetainedFull);
        }
        self.retained.retain(|other| other.topic != message.topic);
        if !message.payload.is_empty() {
            self.retained.push(Rc::clone(message));
        }
    }

    /// A message comes to a session: it is sent, or waits, or is dropped.
    fn offer(&mut self, number: usize, message: &Rc<Message>, grant: &Grant) {
        let now_ms = self.now_ms;
        let parcel = Parcel {
            message: Rc::clone(message),
            qos: message.qos.min(grant.qos),
            retain: message.retain && grant.retain_as_published,
            identifiers: grant.identifiers.clone(),
            asked_for: false,
        };
        if message.is_expired(now_ms) {
            return self.dropped(DropReason::Expired);
        }
        let session = self.sessions.get_mut(&number).unwrap();
        if parcel.qos == 2 {
            *self.once.entry((session.who, message.payload.clone())).or_default() += 1;
        }
        let live = session.connection.map(|connection| &self.connections[connection]);
        match live {
            None if parcel.qos == 0 => return self.dropped(DropReason::NoReceiverOnline),
            Some(live) if parcel.qos == 0 && !live.has_room() => {
                return self.dropped(DropReason::SlowConsumer);
            }
            Some(live) if session.takes_now(live, parcel.qos > 0) => return self.start(number, parcel),
            _ => {}
        }
        let mut gone = Vec::new();
        if !session.has_room(message.size(), &self.limits) {
            let before = session.queue.len();
            session.queue.retain(|parcel| !parcel.message.is_expired(now_ms));
            gone.extend(vec![DropReason::Expired; before - session.queue.len()]);
        }
        while !session.has_room(message.size(), &self.limits)
            && self.limits.queue_full == QueueFull::DropOldest
            && !session.queue.is_empty()
        {
            session.queue.remove(0);
            gone.push(DropReason::QueueFull);
        }
        if session.has_room(message.size(), &self.limits) {
            session.queue.push(parcel);
        } else {
            gone.push(DropReason::QueueFull);
        }
        gone.into_iter().for_each(|reason| self.dropped(reason));
    }

    /// Sends a message for the first time.
    fn start(&mut self, number: usize, parcel: Parcel) {
        let session = self.sessions.get_mut(&number).unwrap();
        let live = &mut self.connections[session.connection.unwrap()];
        let ticket = (parcel.qos > 0).then_some(self.ids.len());
        if !live.send(&parcel, ticket, false, self.now_ms) {
            return self.dropped(DropReason::PacketTooLarge);
        }
        if let Some(ticket) = ticket {
            self.ids.push(None);
            session.inflight.push(Inflight {
                ticket,
                qos: parcel.qos,
                parcel: Some(parcel),
                sent: true,
                before: false,
                counted: true,
            });
        }
    }

    /// Sends a session's client as much as it takes.
    fn settle(&mut self, number: usize) {
        self.send_again(number);
        while let Some(parcel) = self.next_in_queue(number) {
            if parcel.message.is_expired(self.now_ms) {
                self.dropped(DropReason::Expired);
            } else {
                self.start(number, parcel);
            }
        }
        self.send_retained(number);
    }

    fn send_again(&mut self, number: usize) {
        let session = self.sessions.get_mut(&number).unwrap();
        let Some(connection) = session.connection else { return };
        let live = &mut self.connections[connection];
        let mut counted = session.inflight.iter().filter(|entry| entry.counted).count();
        let mut held_back = false;
        let mut too_large = Vec::new();
        for entry in session.inflight.iter_mut().filter(|entry| !entry.sent) {
            let Some(parcel) = &entry.parcel else {
                live.emit(Expected::PubRel(entry.ticket));
                entry.sent = true;
                continue;
            };
            held_back |= counted >= live.receive_max || !live.has_room();
            if held_back {
                continue;
            }
            if live.send(parcel, Some(entry.ticket), entry.before, self.now_ms) {
                (entry.sent, entry.counted) = (true, true);
                counted += 1;
            } else {
                too_large.push(entry.ticket);
            }
        }
        session.inflight.retain(|entry| !too_large.contains(&entry.ticket));
        too_large.iter().for_each(|_| self.dropped(DropReason::PacketTooLarge));
    }

    fn next_in_queue(&mut self, number: usize) -> Option<Parcel> {
        let session = self.sessions.get_mut(&number)?;
        let ready = session.is_receiving(&self.connections[session.connection?]);
        (ready && !session.queue.is_empty()).then(|| session.queue.remove(0))
    }

    fn send_retained(&mut self, number: usize) {
        loop {
            let session = self.sessions.get_mut(&number).unwrap();
            let Some(connection) = session.connection else { return };
            let who = session.who;
            let Some(replay) = session.replays.first_mut() else { return };
            let its = replay.subscription.clone();
            let (now_ms, retained) = (self.now_ms, &self.retained);
            let found = replay.found.get_or_insert_with(|| {
                let mut found = matching(retained, &its.to.filter, now_ms);
                found.retain(|message| !(its.no_local && message.publisher == who));
                found
            });
            if found.is_empty() {
                session.replays.remove(0);
                continue;
            }
            let live = &self.connections[connection];
            if !live.has_room() {
                return;
            }
            let message = found.remove(0);
            if message.is_expired(now_ms) {
                continue;
            }
            let parcel = Parcel {
                qos: message.qos.min(its.qos),
                retain: true,
                identifiers: its.identifier.into_iter().collect(),
                asked_for: true,
                message,
            };
            if parcel.qos == 2 {
                *self.once.entry((who, parcel.message.payload.clone())).or_default() += 1;
            }
            if session.takes_now(live, parcel.qos > 0) {
                self.start(number, parcel);
            } else {
                session.queue.push(parcel);
            }
        }
    }
}

/// What several subscriptions of a session come to; `None` for none.
struct Grant {
    qos: u8,
    retain_as_published: bool,
    identifiers: Vec<u32>,
}

fn grant(subscriptions: &[&Subscription]) -> Option<Grant> {
    Some(Grant {
        qos: subscriptions.iter().map(|its| its.qos).max()?,
        retain_as_published: subscriptions.iter().any(|its| its.retain_as_published),
        identifiers: subscriptions.iter().filter_map(|its| its.identifier).collect(),
    })
}

fn matching(retained: &[Rc<Message>], filter: &TopicFilter, now_ms: u64) -> Vec<Rc<Message>> {
    let good = |message: &&Rc<Message>| filter.matches(message.topic) && !message.is_expired(now_ms);
    let mut found: Vec<Rc<Message>> = retained.iter().filter(good).cloned().collect();
    found.sort_by_key(|message| message.received_ms);
    found
}

fn ticket_of(expected: &Expected) -> Option<Ticket> {
    match expected {
        Expected::Publish(delivery) => delivery.ticket,
        Expected::PubRel(ticket) => Some(*ticket),
        _ => None,
    }
}
