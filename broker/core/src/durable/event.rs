//! What can be said in a record. The names are MQTT's; moments are the calendar's, because they outlive the
//! process: milliseconds since 1970-01-01T00:00:00Z.

use std::num::{NonZeroU16, NonZeroU32};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use crate::message::{Message, Properties, QoS};
use crate::time::Now;
use crate::topic::TopicName;
use bytes::Bytes;
use smallvec::SmallVec;

/// The packet identifier of a QoS 1 or 2 message that is under way.
pub type PacketId = NonZeroU16;

/// The number of a message or a sink record: the store gives them in the order of its log, from 1. The n-th
/// event of a record, counted from 0, has the number of the record's [`Receipt`](super::Receipt) plus n.
pub type Number = u64;

/// `first` and so many numbers that follow it.
#[must_use]
pub fn numbers(first: Number, more: u32) -> RangeInclusive<Number> {
    first..=first.saturating_add(more.into())
}

/// One thing that came true.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A session began, was resumed, or something about it changed: what is said takes the place of what was
    /// said before. Subscriptions and messages stay. A session that *begins* is to be recorded as
    /// [`Event::SessionEnded`] and this in one record, so that it inherits nothing.
    SessionSet {
        /// The client identifier.
        client: Arc<str>,
        /// What is known of the session.
        session: SessionHeader,
    },
    /// A session ended, with its subscriptions, its messages and its packet identifiers.
    SessionEnded {
        /// The client identifier.
        client: Arc<str>,
    },
    /// A subscription was made, or replaced.
    Subscribed {
        /// The client identifier.
        client: Arc<str>,
        /// The filter, with `$share/{name}/` if it is shared.
        filter: Arc<str>,
        /// What was granted.
        subscription: Subscription,
    },
    /// A subscription was taken back.
    Unsubscribed {
        /// The client identifier.
        client: Arc<str>,
        /// The filter, as it was subscribed.
        filter: Arc<str>,
    },
    /// A message was accepted.
    Published(Published),
    /// A message that waited was given a packet identifier.
    UnderWay {
        /// The client identifier of the receiver.
        client: Arc<str>,
        /// Which message.
        number: Number,
        /// Its packet identifier.
        packet_id: PacketId,
    },
    /// The receiver of a QoS 2 message answered PUBREC: only PUBREL is owed.
    Released {
        /// The client identifier of the receiver.
        client: Arc<str>,
        /// Which message.
        number: Number,
    },
    /// A message needs nothing more at this receiver: PUBACK, PUBCOMP, expired, or dropped. What a client acknowledges
    /// together was often recorded together, and is said once.
    Settled {
        /// The client identifier of the receiver.
        client: Arc<str>,
        /// Which message, or the first of several.
        number: Number,
        /// How many of the numbers that follow it are settled too.
        more: u32,
    },
    /// A QoS 2 packet identifier of a publisher is taken, until it is released. For a message that nobody
    /// receives; else it is said in [`Published::taken_from`].
    Taken {
        /// Whose identifier, and which.
        from: Sender,
    },
    /// The publisher released its QoS 2 packet identifier: PUBREL.
    Freed {
        /// Whose identifier, and which.
        from: Sender,
    },
    /// What was retained for a topic expired or was taken away, without a message.
    RetainedCleared {
        /// The topic.
        topic: TopicName,
    },
    /// A record waits for a sink.
    SinkAppended {
        /// The sink.
        sink: Arc<str>,
        /// The record, encoded as the sink wants it back.
        record: Bytes,
    },
    /// A sink is done with a record.
    SinkSettled {
        /// The sink.
        sink: Arc<str>,
        /// Which record.
        number: Number,
    },
    /// A key of a plugin's or a rule's namespace has a value.
    KeySet {
        /// The namespace.
        namespace: Arc<str>,
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
    },
    /// A key was removed.
    KeyRemoved {
        /// The namespace.
        namespace: Arc<str>,
        /// The key.
        key: Bytes,
    },
}

/// A message that was accepted, who is to have it, and what else it means.
#[derive(Debug, Clone, PartialEq)]
pub struct Published {
    /// The message: written once, however many receive it.
    pub stored: StoredMessage,
    /// The sessions that are to have it at QoS 1 or 2.
    pub recipients: Recipients,
    /// What it does to what is retained for its topic.
    pub retain: RetainChange,
    /// The packet identifier under which a publisher sent it at QoS 2.
    pub taken_from: Option<Sender>,
}

/// Most messages have one.
pub type Recipients = SmallVec<[Recipient; 1]>;

/// What a message does to what is retained for its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RetainChange {
    /// Nothing.
    #[default]
    Keep,
    /// It takes its place.
    Replace,
    /// It takes it away: a payload of no bytes `[MQTT-3.3.1-6]`.
    Clear,
}

/// A publisher's packet identifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// The client identifier.
    pub client: Arc<str>,
    /// The packet identifier.
    pub packet_id: PacketId,
}

/// A session that is to have a message, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// The client identifier.
    pub client: Arc<str>,
    /// The lower of the published and the granted QoS.
    pub qos: QoS,
    /// RETAIN as it is to be sent.
    pub retain: bool,
    /// The identifiers of the subscriptions that matched.
    pub identifiers: Identifiers,
    /// How far it is. A receiver that is online has it under way from the start.
    pub stage: Stage,
}

/// Subscription Identifiers. None at all, as is usual, takes no memory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identifiers(Option<Arc<[u32]>>);

impl Identifiers {
    /// They, if there are any.
    #[must_use]
    pub fn into_shared(self) -> Option<Arc<[u32]>> {
        self.0
    }
}

impl std::ops::Deref for Identifiers {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        self.0.as_deref().unwrap_or_default()
    }
}

impl From<Option<Arc<[u32]>>> for Identifiers {
    fn from(identifiers: Option<Arc<[u32]>>) -> Self {
        Self(identifiers.filter(|identifiers| !identifiers.is_empty()))
    }
}

impl FromIterator<u32> for Identifiers {
    fn from_iter<I: IntoIterator<Item = u32>>(identifiers: I) -> Self {
        let mut identifiers = identifiers.into_iter().peekable();
        Self(identifiers.peek().is_some().then(|| identifiers.collect()))
    }
}

/// How a receiver is to get a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QoSAndRetain {
    /// The lower of the published and the granted QoS.
    pub qos: QoS,
    /// RETAIN as it is to be sent.
    pub retain: bool,
}

/// How far a message is on its way to one receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It waits.
    Waiting,
    /// It was given a packet identifier, and may have been sent.
    UnderWay(PacketId),
    /// PUBREC came: only PUBREL is owed.
    Released(PacketId),
}

/// What is known of a session besides its subscriptions and messages.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionHeader {
    /// Who it belongs to.
    pub principal: Arc<str>,
    /// How many seconds it outlives its connection; `u32::MAX` is for ever.
    pub expiry_s: u32,
    /// When it ends; `None` while it is connected, and for ever.
    pub ends_at_unix_ms: Option<u64>,
    /// Its will, while it may still have to be published.
    pub will: Option<Box<StoredWill>>,
    /// When the will is due; `None` while it is connected.
    pub will_due_unix_ms: Option<u64>,
}

/// A will as the client registered it.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredWill {
    /// Where it is published to.
    pub topic: TopicName,
    /// What it says.
    pub payload: Bytes,
    /// The QoS to publish it with.
    pub qos: QoS,
    /// Whether it is to be retained.
    pub retain: bool,
    /// Its properties.
    pub properties: Properties,
    /// Its Message Expiry Interval, in seconds.
    pub expiry_s: Option<u32>,
    /// Its Will Delay Interval, in seconds.
    pub delay_s: u32,
}

/// What a subscription was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscription {
    /// The QoS that was granted.
    pub qos: QoS,
    /// Own messages are not sent back `[MQTT-3.8.3-3]`.
    pub no_local: bool,
    /// RETAIN is forwarded as published `[MQTT-3.3.1-12]`, `[MQTT-3.3.1-13]`.
    pub retain_as_published: bool,
    /// Subscription Identifier.
    pub identifier: Option<NonZeroU32>,
}

/// A message as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredMessage {
    /// The message, its payload as it is stored. Its expiry is not that of this process's clock.
    pub message: Arc<Message>,
    /// When it stops being deliverable; `None` is never.
    pub expires_unix_ms: Option<u64>,
    /// The persistence hooks that have changed the payload, in the order in which they did.
    pub sealed_by: Vec<Arc<str>>,
}

impl StoredMessage {
    /// What is to be stored of a message, which is `message` as these hooks have left it.
    #[must_use]
    pub fn of(message: Arc<Message>, sealed_by: Vec<Arc<str>>, now: Now) -> Self {
        let expires_unix_ms = message.expires_at.map(|at| {
            let left_ms = u64::try_from(at.since(now.at).as_millis()).unwrap_or(u64::MAX);
            now.unix_ms.saturating_add(left_ms)
        });
        Self { message, expires_unix_ms, sealed_by }
    }

    /// The message again, its payload as it is stored, its expiry on this process's clock. Expired ones have expired.
    #[must_use]
    pub fn into_message(self, now: Now) -> Message {
        let mut message = Arc::unwrap_or_clone(self.message);
        message.expires_at = self.expires_unix_ms.map(|at_ms| match at_ms.checked_sub(now.unix_ms) {
            Some(left_ms) => now.at.after(Duration::from_millis(left_ms)),
            None => now.at.before(),
        });
        message
    }
}
