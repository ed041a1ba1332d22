//! What MQTT keeps for a client identifier: subscriptions, messages that wait, messages under way in both
//! directions, a will. It outlives connections as long as its expiry says.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use weirmq_wire::{Ack, Packet, PacketId, PacketType, PublishHead, ReasonCode, Version, encode_ack};

use crate::answer::{self, Terms};
use crate::batch::Batch;
use crate::broker::encode;
use crate::counters::{DropReason, SessionDrops};
use crate::durable::event::SessionHeader;
pub(crate) use crate::durable::event::StoredWill as Will;
use crate::durable::slot::Hold;
use crate::hook::Identity;
use crate::outbound::{Outbound, Parcel};
use crate::outbox::Outbox;
use crate::sparse::SparseMap;
use crate::subscriptions::Options;
use crate::time::{Instant, Now};
use crate::topic::{Subscribable, TopicName};

/// The session of one client identifier.
#[derive(Debug)]
pub struct Session {
    /// Its number: later sessions have higher ones.
    pub(crate) number: u64,
    /// The client identifier.
    pub(crate) client_id: Arc<str>,
    /// What was not delivered to it.
    pub(crate) drops: SessionDrops,
    state: Mutex<State>,
    /// [`State::ended`], for those who do not lock.
    over: AtomicBool,
    /// Whether messages are held back until they are kept.
    holds: AtomicBool,
}

/// What changes about a session.
#[derive(Debug)]
pub(crate) struct State {
    /// Who it belongs to.
    pub(crate) identity: Arc<Identity>,
    /// Its connection, while there is one.
    pub(crate) live: Option<Live>,
    /// How long it outlives its connection.
    pub(crate) expiry: SessionExpiry,
    /// Its will, while it may still have to be published.
    pub(crate) will: Option<Box<Will>>,
    /// Its subscriptions.
    pub(crate) subscriptions: SparseMap<Subscribable, Options>,
    /// QoS 2 messages that were taken from the client and not released yet `[MQTT-4.3.3-10]`, each with the
    /// number of the connection that sent it last: against the quota of that one it counts `[MQTT-4.9.0-2]`.
    pub(crate) unreleased: SparseMap<PacketId, u64>,
    /// What is on its way to the client.
    pub(crate) outbound: Outbound,
    /// Without a connection: when the will is due.
    pub(crate) will_at: Option<Instant>,
    /// Without a connection: when it ends.
    pub(crate) ends_at: Option<Instant>,
    /// The moment at which the broker has promised to look at it.
    pub(crate) scheduled_at: Option<Instant>,
    /// It is over: nothing is to be put into it any more.
    pub(crate) ended: bool,
    /// It is kept, and outlives the process.
    pub(crate) kept: bool,
    /// What was noted last of its packet identifiers, on whichever connection: before that is kept, the next connection
    /// is told nothing.
    pub(crate) promised: Option<Arc<Hold>>,
    /// Its beginning is kept: a CONNACK has said so.
    pub(crate) confirmed: bool,
    /// It comes from before the last start, and its client has not been back: nobody knows its rights.
    pub(crate) restored: bool,
}

/// How long a session outlives its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionExpiry {
    /// Not at all, or so many seconds.
    After(u32),
    /// It does not end by itself.
    Never,
}

impl SessionExpiry {
    /// From the Session Expiry Interval `[MQTT-3.1.2-23]`; 0xFFFFFFFF is never.
    pub(crate) fn from_seconds(seconds: u32) -> Self {
        if seconds == u32::MAX { Self::Never } else { Self::After(seconds) }
    }

    /// The Session Expiry Interval that says this.
    pub(crate) fn seconds(self) -> u32 {
        match self {
            Self::After(seconds) => seconds,
            Self::Never => u32::MAX,
        }
    }

    /// Whether the session ends with its connection.
    pub(crate) fn is_zero(self) -> bool {
        self == Self::After(0)
    }

    /// When a session whose connection ends now is over; `None` is never.
    pub(crate) fn from(self, now: Instant) -> Option<Instant> {
        match self {
            Self::After(seconds) => Some(now.after(Duration::from_secs(seconds.into()))),
            Self::Never => None,
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// A session's connection.
#[derive(Debug)]
pub(crate) struct Live {
    /// Which of all connections it is.
    pub(crate) connection: u64,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) terms: Terms,
    /// How many QoS 1 and 2 messages may be unacknowledged.
    pub(crate) receive_max: u16,
    /// How many are.
    pub(crate) unacknowledged: u16,
    pub(crate) aliases: Aliases,
    /// Above this, the outbox takes no more of what can wait or be dropped.
    pub(crate) outbox_bytes_max: usize,
}

/// The topic aliases that the broker has set up towards a client.
#[derive(Debug)]
pub(crate) struct Aliases {
    known: SparseMap<TopicName, NonZeroU16>,
    max: u16,
}

impl Aliases {
    /// Up to `max` of them.
    pub(crate) fn new(max: u16) -> Self {
        Self { known: SparseMap::default(), max }
    }

    /// Whether the client takes none.
    pub(crate) fn is_empty(&self) -> bool {
        self.max == 0
    }

    /// The alias of `topic`, and whether the client knows it already. The first topics have the aliases: they
    /// stay what they are.
    fn of(&self, topic: &TopicName) -> Option<(NonZeroU16, bool)> {
        if self.max == 0 {
            return None;
        }
        if let Some(alias) = self.known.get(topic) {
            return Some((*alias, true));
        }
        let next = u16::try_from(self.known.len()).ok()?.checked_add(1)?;
        if next > self.max { None } else { NonZeroU16::new(next).map(|alias| (alias, false)) }
    }
}

impl Live {
    /// Whether the outbox takes what can wait or be dropped.
    pub(crate) fn has_room(&self) -> bool {
        self.outbox.bytes() <= self.outbox_bytes_max && !self.outbox.is_closed()
    }

    /// Hands one PUBLISH to the outbox.
    pub(crate) fn send(
        &mut self,
        parcel: &Parcel,
        packet_id: Option<PacketId>,
        dup: bool,
        now: Instant,
        batch: &mut Batch,
    ) -> Result<(), DropReason> {
        let message = &parcel.message;
        let version = self.terms.version;
        let bytes_max = self.terms.packet_bytes_max as usize;
        let mut alias = self.aliases.of(&message.topic);
        let mut head = PublishHead {
            dup,
            qos: parcel.qos,
            retain: parcel.retain,
            topic: if matches!(alias, Some((_, true))) { "" } else { &message.topic },
            packet_id,
            properties: Some(&message.properties),
            message_expiry_interval_s: message.expiry_left_s(now),
            topic_alias: alias.map(|(alias, _)| alias),
            subscription_ids: parcel.identifiers.as_deref().unwrap_or_default(),
            payload_len: message.payload.len(),
        };
        let mut length = head.encoded_len(version).map_err(|_| DropReason::PacketTooLarge)?;
        if length > bytes_max && matches!(alias, Some((_, false))) {
            // Naming an alias makes the packet longer: it must not be what makes it too long.
            (alias, head.topic_alias) = (None, None);
            length = head.encoded_len(version).map_err(|_| DropReason::PacketTooLarge)?;
        }
        if length > bytes_max {
            return Err(DropReason::PacketTooLarge);
        }
        let mut failed = false;
        let new = self
            .outbox
            .push_with_payload(|out| failed = head.encode(version, out).is_err(), &message.payload);
        debug_assert!(!failed, "a head that has a length can be encoded");
        if let Some((alias, false)) = alias {
            self.aliases.known.insert(message.topic.clone(), alias);
        }
        batch.sent(1, message.payload.len());
        if new {
            batch.add(&self.outbox);
        }
        Ok(())
    }

    /// Hands one acknowledgement to the outbox.
    pub(crate) fn acknowledge(&self, kind: PacketType, id: PacketId, code: ReasonCode, batch: &mut Batch) {
        if acknowledge(&self.outbox, &self.terms, kind, id, code) {
            batch.add(&self.outbox);
        }
    }
}

/// Whether an acknowledgement has no words with it: MQTT 3.1.1 knows none, and what refuses nothing needs none.
pub(crate) fn is_wordless(version: Version, code: ReasonCode) -> bool {
    version == Version::V311 || !code.is_error()
}

/// Hands acknowledgements without words to `outbox`, all with one push. Answers whether the outbox must be flushed and
/// nobody knows yet.
pub(crate) fn acknowledge_all(
    outbox: &Outbox,
    version: Version,
    acks: impl IntoIterator<Item = (PacketType, PacketId, ReasonCode)>,
) -> bool {
    outbox.push(|out| acks.into_iter().for_each(|(kind, id, code)| encode_ack(kind, id, code, version, out)))
}

/// Hands one acknowledgement to `outbox`, with the broker's words where it refuses something. Answers whether the
/// outbox must be flushed and nobody knows yet.
pub(crate) fn acknowledge(
    outbox: &Outbox,
    terms: &Terms,
    kind: PacketType,
    id: PacketId,
    code: ReasonCode,
) -> bool {
    let version = terms.version;
    if is_wordless(version, code) {
        return acknowledge_all(outbox, version, [(kind, id, code)]);
    }
    let ack = Ack::with_code(id, code);
    let packet = match kind {
        PacketType::PubRec => Packet::PubRec(ack),
        PacketType::PubRel => Packet::PubRel(ack),
        PacketType::PubComp => Packet::PubComp(ack),
        _ => Packet::PubAck(ack),
    };
    let words = answer::words_of(&packet);
    terms.word(packet, words).is_some_and(|packet| outbox.push(|out| encode(&packet, version, out)))
}

impl Session {
    /// A new session.
    pub(crate) fn new(number: u64, identity: Arc<Identity>, expiry: SessionExpiry) -> Self {
        let client_id = Arc::clone(&identity.client_id);
        let state = State {
            identity,
            live: None,
            expiry,
            will: None,
            subscriptions: SparseMap::default(),
            unreleased: SparseMap::default(),
            outbound: Outbound::new(&client_id),
            will_at: None,
            ends_at: None,
            scheduled_at: None,
            ended: false,
            kept: false,
            promised: None,
            confirmed: false,
            restored: false,
        };
        Self {
            number,
            client_id,
            drops: SessionDrops::default(),
            state: Mutex::new(state),
            over: AtomicBool::new(false),
            holds: AtomicBool::new(false),
        }
    }

    /// Whether it has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Whether messages are held back until they are kept.
    pub(crate) fn holds(&self) -> bool {
        self.holds.load(Ordering::Acquire)
    }

    /// Says whether messages are held back. To be called with its state locked.
    pub(crate) fn set_holds(&self, holds: bool) {
        self.holds.store(holds, Ordering::Release);
    }

    /// Ends it. Answers whether it had not ended before. To be called with its state locked.
    pub(crate) fn set_over(&self, state: &mut State) -> bool {
        self.over.store(true, Ordering::Release);
        !std::mem::replace(&mut state.ended, true)
    }

    /// Its state, for as long as the guard lives. Nothing else is locked while it is held but an outbox.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl State {
    /// Its connection, if it is the one with this number.
    pub(crate) fn live_as(&mut self, connection: u64) -> Option<&mut Live> {
        self.live.as_mut().filter(|live| live.connection == connection)
    }

    /// What is kept of it besides its subscriptions and messages.
    pub(crate) fn header(&self, now: Now) -> SessionHeader {
        let unix_ms = |at: Instant| now.unix_ms.saturating_add(millis(at.since(now.at)));
        SessionHeader {
            principal: Arc::clone(&self.identity.lease.principal),
            expiry_s: self.expiry.seconds(),
            ends_at_unix_ms: self.ends_at.filter(|_| self.live.is_none()).map(unix_ms),
            will: self.will.clone(),
            will_due_unix_ms: self.will_at.map(unix_ms),
        }
    }

    /// When the broker has to look at it, having no connection.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        [self.will_at, self.ends_at].into_iter().flatten().min()
    }
}
