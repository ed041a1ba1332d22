//! One connection: bytes and time in, frames and deadlines out. The life of a connection reads from top to
//! bottom: [`Connection::input`], [`Connection::poll`], [`Connection::handle_timeout`], [`Connection::end`].
//!
//! Nothing here waits. A hook that takes its time leaves a future behind ([`Connection::is_waiting`]) that the
//! caller drives with [`Connection::poll`]; meanwhile acknowledgements and pings are answered, and what must
//! keep its order stands in a bounded backlog.
//!
//! # Layout
//! - this file: what comes in, what is waited for, how it ends
//! - `connect`: CONNECT, the login, AUTH
//! - `publish`: PUBLISH and the acknowledgements of both directions
//! - `pace`: how fast it may publish
//! - `shortcut`: the short ways of what most packets are
//! - `topics`: what is remembered of the topics that were published to
//! - `subscribe`: SUBSCRIBE and UNSUBSCRIBE
//! - `owed`: answers that wait until what they promise is kept

mod connect;
mod owed;
mod pace;
mod publish;
mod shortcut;
mod subscribe;
mod topics;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;
use tracing::{debug, info};
use weirmq_wire::{DecodeError, Decoder, Packet, PacketId, PacketType, ReasonCode, Version};

use crate::answer::{self, Terms};
use crate::batch::Batch;
use crate::broker::{Broker, Ending, encode};
use crate::counters::{DropReason, Limit};
use crate::hook::Identity;
use crate::message::QoS;
use crate::outbox::Outbox;
use crate::publish::Work;
use crate::session::Session;
use crate::sparse::Seldom;
use crate::time::{Instant, Now};

use connect::Handshake;
use owed::Owe;
use pace::Pace;
use topics::Topics;

/// Packets that may wait behind a login that is not decided: a client may send on before CONNACK
/// `[MQTT-3.1.4-5]`, but until it is let in that must cost little.
const BACKLOG_BEFORE_LOGIN_MAX: usize = 16;

/// One client's connection.
pub struct Connection {
    broker: Arc<Broker>,
    number: u64,
    /// Until its client is let in: its identity says it from then on.
    peer: Option<Box<Peer>>,
    decoder: Decoder,
    outbox: Arc<Outbox>,
    batch: Batch,
    phase: Phase,
    /// The client's terms, from its CONNECT on.
    terms: Terms,
    waiting: Option<Waiting>,
    /// Packets that wait behind a hook; `None` where none ever did.
    backlog: Seldom<VecDeque<Packet>>,
    /// How many PUBLISH packets with QoS 1 and 2 stand in the backlog: they count against Receive Maximum
    /// `[MQTT-3.3.4-7]`, as does the one that is with a hook.
    held: usize,
    /// The QoS of the PUBLISH that is with a hook.
    asked: Option<QoS>,
    works: Seldom<Vec<Work>>,
    owed: Option<Box<owed::Owed>>,
    /// Whether the client ended it.
    ended_by_client: bool,
}

/// Where a connection comes from.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The peer's address, where the transport has one.
    pub address: Option<SocketAddr>,
    /// The name of the listener.
    pub listener: Arc<str>,
}

enum Phase {
    /// Nothing has come yet.
    Connecting { until: Instant },
    /// CONNECT has come; the login is not decided.
    LoggingIn { until: Instant, handshake: Box<Handshake> },
    /// Let in.
    Open(Box<Open>),
    /// Over.
    Closed,
}

/// What a connection knows once its client is let in. Most are idle: what only some need is in a place of its own.
struct Open {
    session: Arc<Session>,
    identity: Arc<Identity>,
    last_packet_at: Instant,
    lease_until: Option<Instant>,
    /// 0 is none.
    keep_alive_s: u16,
    /// Whether its CONNECT gave its session an expiry: only then may DISCONNECT give it another.
    has_expiry: bool,
    /// Where its lease bounds how fast it publishes.
    pace: Seldom<Pace>,
    /// Where it authenticates with AUTH packets.
    enhanced: Seldom<Enhanced>,
    /// How many QoS 2 messages this connection has sent and not released.
    taken: usize,
    /// From its first PUBLISH on.
    topics: Seldom<Topics>,
}

/// Enhanced authentication of a client that is let in.
struct Enhanced {
    method: Box<str>,
    /// The re-authentication that is under way.
    renewal: Option<connect::Exchange>,
}

/// A question to hooks that is not answered yet.
type Waiting = Pin<Box<dyn Future<Output = Resolved> + Send>>;

/// The answer.
enum Resolved {
    Login(Box<connect::Login>),
    Renewal(crate::hook::Authentication),
    Published(publish::Published),
    Subscribed(subscribe::Subscribed),
    Unsubscribed(subscribe::Unsubscribed),
}

impl Connection {
    /// A connection that has just been accepted. What it writes goes to `outbox`.
    pub fn new(broker: Arc<Broker>, outbox: Arc<Outbox>, peer: Peer, now: Now) -> Self {
        let limits = broker.limits();
        let until = now.at.after(Duration::from_millis(limits.connect_timeout_ms));
        let decoder = Decoder::server(limits.connect_packet_bytes_max, limits.user_properties_max);
        Self {
            number: broker.next_number(),
            batch: broker.batch(),
            peer: Some(Box::new(peer)),
            decoder,
            outbox,
            phase: Phase::Connecting { until },
            terms: Terms::UNKNOWN,
            waiting: None,
            backlog: None,
            held: 0,
            asked: None,
            works: None,
            owed: None,
            ended_by_client: false,
            broker,
        }
    }

    /// Takes whole packets off the front of `bytes` and handles them. What is left over is the beginning of a
    /// packet, or waits because [`Connection::wants_input`] is false: call again when it is true.
    pub fn input(&mut self, bytes: &mut BytesMut, now: Now) {
        let buffer_bytes = bytes.capacity();
        while self.wants_input() {
            if self.shortcut(bytes, buffer_bytes, now) {
                self.heard(now);
                continue;
            }
            match self.decoder.decode(bytes) {
                Ok(Some(packet)) => {
                    self.heard(now);
                    self.take(packet, now);
                }
                Ok(None) => return,
                Err(error) => return self.bad_input(error, now),
            }
        }
        if self.is_choked() {
            self.outbox.want_room();
        }
    }

    /// A packet has come.
    fn heard(&mut self, now: Now) {
        if let Phase::Open(open) = &mut self.phase {
            open.last_packet_at = now.at;
        }
    }

    /// Where it comes from.
    fn peer(&self) -> Peer {
        match (&self.phase, &self.peer) {
            (_, Some(peer)) => Peer::clone(peer),
            (Phase::Open(open), None) => {
                Peer { address: open.identity.peer, listener: Arc::clone(&open.identity.listener) }
            }
            (_, None) => Peer { address: None, listener: Arc::default() },
        }
    }

    /// Whether packets are taken: not when too many wait behind a hook, nor while the client leaves what it is
    /// answered unread, nor when all is over.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        !self.is_over() && self.has_place() && !self.is_choked() && !self.is_paced()
    }

    /// Whether its client publishes faster than its lease lets it.
    fn is_paced(&self) -> bool {
        let pace = match &self.phase {
            Phase::Open(open) => open.pace.as_deref(),
            _ => None,
        };
        pace.is_some_and(|pace| pace.waits_until().is_some())
    }

    /// Whether a further packet may wait behind a hook, and its answer until what it promises is kept.
    fn has_place(&self) -> bool {
        let backlog_max = match self.phase {
            Phase::Open(_) => self.broker.limits().backlog_packets_max,
            _ => BACKLOG_BEFORE_LOGIN_MAX,
        };
        let backlog = self.backlog.as_ref().map_or(0, |backlog| backlog.len());
        backlog < backlog_max && self.owes() < self.broker.limits().backlog_packets_max
    }

    /// Whether the client leaves so much unread that nothing more is heard of it. What others send it stops at the
    /// limit itself: as much again is answers to what it sends.
    fn is_choked(&self) -> bool {
        self.outbox.bytes() > self.broker.limits().outbox_bytes_max.saturating_mul(2)
    }

    /// Whether a hook has been asked and has not answered, or something is not kept yet that must be: drive it with
    /// [`Connection::poll`].
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.waiting.is_some() || self.owes() > 0 || self.holds()
    }

    /// Asks the hook that is waited for, and goes on where it has answered; sends what is kept by now. Ready when nothing
    /// is waited for.
    pub fn poll(&mut self, context: &mut Context<'_>, now: Now) -> Poll<()> {
        let hooks = self.poll_hooks(context, now);
        let kept = self.poll_kept(context, now);
        if hooks.is_ready() { kept } else { hooks }
    }

    fn poll_hooks(&mut self, context: &mut Context<'_>, now: Now) -> Poll<()> {
        while let Some(waiting) = &mut self.waiting {
            // What is taken over goes no further: the client sends it again where it has to.
            if self.outbox.is_closed() {
                self.waiting = None;
                break;
            }
            match waiting.as_mut().poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(resolved) => {
                    self.waiting = None;
                    self.go_on(resolved, now);
                    self.work_off_backlog(now);
                }
            }
        }
        Poll::Ready(())
    }

    /// When [`Connection::handle_timeout`] has something to do, if nothing comes before.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Connecting { until } | Phase::LoggingIn { until, .. } => Some(*until),
            Phase::Open(open) => {
                let read_on = open.pace.as_ref().and_then(|pace| pace.waits_until());
                [open.silent_until(), open.lease_until, read_on].into_iter().flatten().min()
            }
            Phase::Closed => None,
        }
    }

    /// Time has passed. What was left over by [`Connection::input`] is to be put in again.
    pub fn handle_timeout(&mut self, now: Now) {
        if let Phase::Open(open) = &mut self.phase
            && let Some(pace) = &mut open.pace
        {
            pace.go_on(now.at);
        }
        // One that takes no answers is as good as silent.
        let listens = !self.is_over() && self.has_place() && !self.is_paced();
        match &mut self.phase {
            // A client is not silent while nobody listens.
            Phase::Open(open) if !listens => open.last_packet_at = now.at,
            _ => {}
        }
        match &self.phase {
            Phase::Connecting { until } | Phase::LoggingIn { until, .. } if *until <= now.at => {
                self.broker.counters().limits.count(Limit::ConnectTimeout);
                self.close(None, "it did not log in in time", now);
            }
            Phase::Open(open) if open.silent_until().is_some_and(|until| until <= now.at) => {
                self.close(
                    Some(ReasonCode::KeepAliveTimeout),
                    "nothing came for one and a half times the keep-alive",
                    now,
                );
            }
            Phase::Open(open) if open.lease_until.is_some_and(|until| until <= now.at) => {
                self.close(Some(ReasonCode::NotAuthorized), "its login has expired", now);
            }
            _ => {}
        }
    }

    /// The outbox has room again: sends what has waited for it. What was left over by [`Connection::input`] is to be
    /// put in again.
    pub fn handle_room(&mut self, now: Now) {
        let Phase::Open(open) = &self.phase else { return };
        let session = Arc::clone(&open.session);
        self.with_live(&session, |broker, Ways { outbound, .. }, live, batch| {
            outbound.pump(live, now.at, batch, &mut |reason, message| {
                broker.dropped(Some(&session), message, reason)
            });
        });
        self.replay_retained(now);
    }

    /// Whether it is over: once its outbox is written, the socket is to be closed.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Closed) || self.outbox.is_closed()
    }

    /// Whether its client is let in.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }

    /// The client identifier, once it is let in.
    #[must_use]
    pub fn client_id(&self) -> Option<&str> {
        match &self.phase {
            Phase::Open(open) => Some(&open.session.client_id),
            _ => None,
        }
    }

    /// Whether the client ended it, by DISCONNECT or by leaving: it waits for nothing more.
    #[must_use]
    pub fn is_ended_by_client(&self) -> bool {
        self.ended_by_client
    }

    /// The transport is gone, for the reason given in words.
    pub fn end(&mut self, reason: &str, now: Now) {
        if !matches!(self.phase, Phase::Closed) {
            self.ended_by_client = !self.outbox.is_closed();
            self.finish(Ending::Lost, reason, now);
        }
    }

    /// The broker shuts down. What the client has sent so far is handled, and acknowledged, but for what is not kept yet:
    /// that the client sends again.
    pub fn shut_down(&mut self, now: Now) {
        self.close(Some(ReasonCode::ServerShuttingDown), "the broker shuts down", now);
    }

    /// Work that goes on without the connection, such as publishing its will. Must be driven to its end.
    #[must_use]
    pub fn take_works(&mut self) -> Vec<Work> {
        self.works.take().map_or_else(Vec::new, |works| *works)
    }

    /// Writes what this connection's packets have put into outboxes, its own and others'. To be called when
    /// all that was read is used up.
    pub fn flush(&mut self) {
        self.batch.flush();
        self.settle_owed();
    }

    /// Whether everybody who receives what was published has more than `bytes` waiting: then it is published faster
    /// than anybody takes it. One who is slow alone costs its own queue, and nobody else time.
    #[must_use]
    pub fn is_congested(&self, bytes: usize) -> bool {
        self.batch.is_congested(bytes, &self.outbox)
    }

    /// Handles `packet` now, or has it wait behind what is not answered.
    fn take(&mut self, packet: Packet, now: Now) {
        if matches!(&packet, Packet::Publish(publish) if self.is_too_many(publish.qos, publish.packet_id)) {
            self.broker.counters().limits.count(Limit::ReceiveMaximum);
            let reason = "more QoS 1 and 2 messages under way than Receive Maximum";
            return self.close(Some(ReasonCode::ReceiveMaximumExceeded), reason, now);
        }
        let keeps_order = match &packet {
            Packet::PubAck(_) | Packet::PubRec(_) | Packet::PubComp(_) | Packet::PingReq => !self.is_open(),
            _ => true,
        };
        // Before the client is let in, AUTH answers AUTH: one that comes unasked is not kept for later.
        let unasked = packet.kind() == PacketType::Auth && !self.is_open();
        if self.waiting.is_some() && unasked {
            self.refuse(ReasonCode::ProtocolError, "AUTH that nobody has asked for", now);
        } else if self.waiting.is_some() && keeps_order {
            self.keep(packet, now);
        } else {
            self.handle(packet, now);
            self.work_off_backlog(now);
        }
    }

    /// Whether the quota of the client is used up for such a PUBLISH `[MQTT-3.3.4-7]`, `[MQTT-4.9.0-1]`.
    fn is_too_many(&self, qos: QoS, packet_id: Option<PacketId>) -> bool {
        let (Phase::Open(open), Some(id)) = (&self.phase, packet_id) else { return false };
        let asked = self.asked.is_some_and(|qos| qos > QoS::AtMostOnce);
        let under_way = open.taken + self.held + usize::from(asked) + self.owed_pubacks();
        if self.terms.version == Version::V311 || under_way < usize::from(self.broker.limits().receive_max) {
            return false;
        }
        // A repetition takes no further place.
        let mine = open.session.lock().unreleased.get(&id) == Some(&self.number);
        qos != QoS::ExactlyOnce || !mine
    }

    /// Has `packet` wait for its turn.
    fn keep(&mut self, packet: Packet, now: Now) {
        let kind = packet.kind();
        if let Phase::LoggingIn { handshake, .. } = &self.phase {
            // Who authenticates with AUTH sends nothing else meanwhile [MQTT-3.1.2-30].
            if handshake.is_enhanced() && kind == PacketType::Disconnect {
                return self.close(None, "the client disconnected", now);
            }
            if handshake.is_enhanced() || kind == PacketType::Connect {
                let reason = format!("{kind} before CONNACK");
                return self.refuse(ReasonCode::ProtocolError, &reason, now);
            }
        }
        self.held += usize::from(is_acknowledged(&packet));
        // It may wait for long, and must not keep the read buffer that it came in.
        self.backlog.get_or_insert_default().push_back(packet.detached());
    }

    fn work_off_backlog(&mut self, now: Now) {
        while self.waiting.is_none() && self.is_open() && !self.is_over() {
            let first = self.backlog.as_mut().and_then(|backlog| backlog.pop_front());
            let Some(packet) = first else { return };
            self.held -= usize::from(is_acknowledged(&packet));
            self.handle(packet, now);
        }
    }

    fn handle(&mut self, packet: Packet, now: Now) {
        let kind = packet.kind();
        match (&self.phase, packet) {
            (Phase::Closed, _) => {}
            (Phase::Connecting { .. }, Packet::Connect(connect)) => self.connect(*connect, now),
            (Phase::LoggingIn { .. }, Packet::Auth(auth)) => self.login_goes_on(*auth, now),
            // The client may send on before CONNACK: what it sends is handled once it is let in.
            (Phase::LoggingIn { .. }, packet) => self.keep(packet, now),
            (Phase::Open(_), Packet::Publish(publish)) => self.publish(publish, now),
            (Phase::Open(_), Packet::PubAck(ack)) => self.puback(&ack, now),
            (Phase::Open(_), Packet::PubRec(ack)) => self.pubrec(&ack, now),
            (Phase::Open(_), Packet::PubRel(ack)) => self.pubrel(&ack),
            (Phase::Open(_), Packet::PubComp(ack)) => self.pubcomp(&ack, now),
            (Phase::Open(_), Packet::Subscribe(subscribe)) => self.subscribe(subscribe, now),
            (Phase::Open(_), Packet::Unsubscribe(unsubscribe)) => self.unsubscribe(unsubscribe, now),
            (Phase::Open(_), Packet::PingReq) => drop(self.send(Packet::PingResp)),
            (Phase::Open(_), Packet::Disconnect(disconnect)) => self.disconnect(&disconnect, now),
            (Phase::Open(_), Packet::Auth(auth)) => self.renew(*auth, now),
            _ => self.close(Some(ReasonCode::ProtocolError), format!("{kind} was not to be sent then"), now),
        }
    }

    /// Puts a question to hooks, and goes on at once where the answer is there.
    fn ask(&mut self, mut question: Waiting, now: Now) {
        match question.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(resolved) => self.go_on(resolved, now),
            Poll::Pending => {
                // Others need not wait for what is done already.
                self.flush();
                self.waiting = Some(question);
            }
        }
    }

    fn go_on(&mut self, resolved: Resolved, now: Now) {
        match resolved {
            Resolved::Login(login) => self.login_decided(*login, now),
            Resolved::Renewal(answer) => self.renewal_decided(answer, now),
            Resolved::Published(published) => self.published(published, now),
            Resolved::Subscribed(subscribed) => self.subscribed(subscribed, now),
            Resolved::Unsubscribed(unsubscribed) => self.unsubscribed(unsubscribed, now),
        }
    }

    /// DISCONNECT from the client `[MQTT-3.14.4-1]`, `[MQTT-3.14.4-3]`.
    fn disconnect(&mut self, disconnect: &weirmq_wire::Disconnect, now: Now) {
        let Phase::Open(open) = &self.phase else { return };
        if let Some(seconds) = disconnect.session_expiry_interval_s {
            let session = Arc::clone(&open.session);
            if !open.has_expiry && seconds != 0 {
                let reason = "DISCONNECT gives a session an expiry that CONNECT gave none";
                return self.close(Some(ReasonCode::ProtocolError), reason, now);
            }
            let granted = connect::granted_expiry(&self.broker, seconds);
            let mut state = session.lock();
            if state.live_as(self.number).is_some() {
                state.expiry = granted;
            }
        }
        let ending = if disconnect.code == ReasonCode::Success { Ending::Orderly } else { Ending::Lost };
        self.outbox.close();
        self.ended_by_client = true;
        self.finish(ending, "the client disconnected", now);
    }

    /// Bytes came that are no packet, or none that may come.
    fn bad_input(&mut self, error: DecodeError, now: Now) {
        if !self.is_open() {
            // The end of a connection that is open is counted and logged where it is closed.
            self.broker.counters().bad_input.add_one();
            let peer = self.peer();
            info!(
                peer = peer.address.map(tracing::field::display),
                listener = &*peer.listener,
                code = %error.reason_code(),
                %error,
                "bad input before login; the connection is closed"
            );
        }
        let limits = &self.broker.counters().limits;
        match error {
            DecodeError::PacketTooLarge { .. } if self.is_open() => limits.count(Limit::PacketBytes),
            DecodeError::PacketTooLarge { .. } => limits.count(Limit::ConnectPacketBytes),
            DecodeError::UserProperties => limits.count(Limit::UserProperties),
            _ => {}
        }
        let reason = format!("bad input: {error}");
        match self.phase {
            Phase::Connecting { .. } => self.refuse_bad_connect(&error, now),
            Phase::LoggingIn { .. } => self.refuse(error.reason_code(), &reason, now),
            // What the codec says about a fault is its own words and the numbers in question.
            _ => self.close_saying(Some(error.reason_code()), Some(&error.to_string()), &reason, now),
        }
    }

    /// Ends the connection from this side. `code` is what an MQTT 5 client that was let in is told, with the
    /// reason where it is a fixed text of the broker's own: one that was put together may repeat what came from
    /// others, and is for the log.
    fn close(&mut self, code: Option<ReasonCode>, reason: impl Into<Cow<'static, str>>, now: Now) {
        match reason.into() {
            Cow::Borrowed(reason) => self.close_saying(code, Some(reason), reason, now),
            Cow::Owned(reason) => self.close_saying(code, None, &reason, now),
        }
    }

    /// Ends the connection from this side. `words` is the Reason String, where the code does not say enough.
    fn close_saying(&mut self, code: Option<ReasonCode>, words: Option<&str>, reason: &str, now: Now) {
        if self.is_open() && code.is_some_and(is_the_peers_fault) {
            self.broker.counters().bad_input.add_one();
        }
        match (code, &self.phase) {
            (Some(code), Phase::Open(_)) if self.terms.version == Version::V5 => {
                let mut disconnect = weirmq_wire::Disconnect::new(code);
                disconnect.server_reference = self.broker.server_reference(code);
                let packet = Packet::Disconnect(disconnect);
                let words = words.or_else(|| answer::words_of(&packet));
                self.send_saying(packet, words);
            }
            (_, Phase::Connecting { .. } | Phase::LoggingIn { .. }) => {
                self.broker.counters().connections_refused.add_one();
            }
            _ => {}
        }
        self.batch.add(&self.outbox);
        self.outbox.close();
        self.finish(Ending::Lost, reason, now);
    }

    fn finish(&mut self, ending: Ending, reason: &str, now: Now) {
        if let Phase::Open(open) = std::mem::replace(&mut self.phase, Phase::Closed) {
            info!(
                client = &*open.session.client_id,
                peer = open.identity.peer.map(tracing::field::display),
                listener = &*open.identity.listener,
                reason,
                "disconnected"
            );
            let will = self.broker.close_session(&open.session, self.number, ending, reason, now);
            self.leave(will);
        } else {
            debug!(
                peer = self.peer().address.map(tracing::field::display),
                reason, "connection closed before login"
            );
        }
        self.waiting = None;
        self.forget_owed();
        // What is acknowledged the client sends again; of the rest nobody else knows.
        let is_lost =
            |packet: &Packet| matches!(packet, Packet::Publish(publish) if publish.qos == QoS::AtMostOnce);
        let lost = usize::from(self.asked == Some(QoS::AtMostOnce))
            + self
                .backlog
                .take()
                .iter()
                .flat_map(|backlog| backlog.iter())
                .filter(|packet| is_lost(packet))
                .count();
        self.broker.counters().dropped.count_many(DropReason::PublisherGone, lost as u64);
        (self.held, self.asked) = (0, None);
    }

    /// Leaves work to be driven on without the connection.
    fn leave(&mut self, works: impl IntoIterator<Item = Work>) {
        for work in works {
            self.works.get_or_insert_default().push(work);
        }
    }

    /// Hands a packet of the broker's own to the outbox. Answers whether it is one that the client takes: what is
    /// larger than its Maximum Packet Size is not sent `[MQTT-3.1.2-24]`.
    fn send(&mut self, packet: Packet) -> bool {
        let words = answer::words_of(&packet);
        self.send_saying(packet, words)
    }

    fn send_saying(&mut self, packet: Packet, words: Option<&str>) -> bool {
        let Some(packet) = self.terms.word(packet, words) else { return false };
        let version = self.terms.version;
        if self.outbox.push(|out| encode(&packet, version, out)) {
            self.batch.add(&self.outbox);
        }
        true
    }

    /// Sends an answer that the client waits for; one that it cannot take is the end of the connection.
    fn answer(&mut self, packet: Packet, now: Now) {
        if self.must_wait() {
            self.owe(Owe::Packet(Box::new(packet)));
        } else if !self.send(packet) {
            let reason = "the answer is larger than the client's Maximum Packet Size";
            self.close(Some(ReasonCode::PacketTooLarge), reason, now);
        }
    }

    /// Does something with what is on its way to this connection's client; nothing where the session has
    /// another connection by now.
    fn with_live<R>(
        &mut self,
        session: &Session,
        act: impl FnOnce(&Broker, Ways<'_>, &mut crate::session::Live, &mut Batch) -> R,
    ) -> Option<R> {
        let mut state = session.lock();
        let crate::session::State { outbound, live, promised, .. } = &mut *state;
        let live = live.as_mut().filter(|live| live.connection == self.number)?;
        let outcome = act(&self.broker, Ways { outbound, promised }, live, &mut self.batch);
        session.set_holds(state.outbound.is_holding());
        Some(outcome)
    }
}

/// Why a connection ends that does something to a session which another has by now.
const TAKEN_OVER: &str = "another connection took the session over";

/// What a connection changes of its session while it handles packets.
struct Ways<'a> {
    outbound: &'a mut crate::outbound::Outbound,
    promised: &'a mut Option<Arc<crate::durable::slot::Hold>>,
}

/// Whether a connection that ends with `code` ends because of what the peer has sent.
const fn is_the_peers_fault(code: ReasonCode) -> bool {
    !matches!(
        code,
        ReasonCode::NotAuthorized
            | ReasonCode::KeepAliveTimeout
            | ReasonCode::ServerShuttingDown
            | ReasonCode::SessionTakenOver
            | ReasonCode::AdministrativeAction
            | ReasonCode::UseAnotherServer
            | ReasonCode::ServerMoved
    )
}

/// Whether `packet` is a PUBLISH that is acknowledged.
fn is_acknowledged(packet: &Packet) -> bool {
    matches!(packet, Packet::Publish(publish) if publish.packet_id.is_some())
}

impl Open {
    /// When the client is taken for lost, if nothing comes before `[MQTT-3.1.2-22]`.
    fn silent_until(&self) -> Option<Instant> {
        let silence = Duration::from_millis(u64::from(self.keep_alive_s) * 1_500);
        (self.keep_alive_s > 0).then(|| self.last_packet_at.after(silence))
    }
}

impl Drop for Connection {
    /// A connection that is dropped without an [`Connection::end`] must not leave its session behind as if it
    /// were there. Its will waits for nobody then: whoever drops a connection so is shutting down.
    fn drop(&mut self) {
        if let Phase::Open(open) = std::mem::replace(&mut self.phase, Phase::Closed) {
            let now = Now { at: open.last_packet_at, unix_ms: 0 };
            drop(self.broker.close_session(
                &open.session,
                self.number,
                Ending::Abandoned,
                "its task was dropped",
                now,
            ));
        }
    }
}
