//! What can be said in a record. The names are MQTT's; moments are the calendar's, because they outlive the
//! process: milliseconds since 1970-01-01T00:00:00Z.

use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::time::Duration;

use crate::message::{Message, Properties, Publisher, QoS};
use crate::time::Now;
use crate::topic::TopicName;
use bytes::Bytes;

/// The packet identifier of a QoS 1 or 2 message that is under way.
pub type PacketId = NonZeroU16;

/// The number of a message or a sink record: the store gives them in the order of its log, from 1. The n-th
/// event of a record, counted from 0, has the number of the record's [`Receipt`](super::Receipt) plus n.
pub type Number = u64;

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
    /// A message needs nothing more at this receiver: PUBACK, PUBCOMP, expired, or dropped.
    Settled {
        /// The client identifier of the receiver.
        client: Arc<str>,
        /// Which message.
        number: Number,
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
    pub message: Arc<StoredMessage>,
    /// The sessions that are to have it at QoS 1 or 2.
    pub recipients: Vec<Recipient>,
    /// What it does to what is retained for its topic.
    pub retain: RetainChange,
    /// The packet identifier under which a publisher sent it at QoS 2.
    pub taken_from: Option<Sender>,
}

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
    pub identifiers: Arc<[u32]>,
    /// How far it is. A receiver that is online has it under way from the start.
    pub stage: Stage,
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

/// A message as it is stored: core's, with its expiry on the calendar.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredMessage {
    /// Where it is published to.
    pub topic: TopicName,
    /// What it says.
    pub payload: Bytes,
    /// The QoS it was published with.
    pub qos: QoS,
    /// Whether the publisher asked that it be retained.
    pub retain: bool,
    /// The properties of MQTT 5 that travel with it.
    pub properties: Properties,
    /// Who published it.
    pub publisher: Publisher,
    /// When the broker received it.
    pub received_unix_ms: u64,
    /// When it stops being deliverable; `None` is never.
    pub expires_unix_ms: Option<u64>,
    /// How many rules stand between it and the client that caused it.
    pub hops: u8,
    /// The persistence hooks that have changed the payload, in the order in which they did.
    pub sealed_by: Vec<Arc<str>>,
}

impl StoredMessage {
    /// What is to be stored of `message`.
    #[must_use]
    pub fn of(message: &Message, now: Now) -> Self {
        let expires_unix_ms = message.expires_at.map(|at| {
            let left_ms = u64::try_from(at.since(now.at).as_millis()).unwrap_or(u64::MAX);
            now.unix_ms.saturating_add(left_ms)
        });
        Self {
            topic: message.topic.clone(),
            payload: message.payload.clone(),
            qos: message.qos,
            retain: message.retain,
            properties: message.properties.clone(),
            publisher: message.publisher.clone(),
            received_unix_ms: message.received_unix_ms,
            expires_unix_ms,
            hops: message.hops,
            sealed_by: Vec::new(),
        }
    }

    /// The message again, its payload as it is stored, its expiry on this process's clock. Expired ones have expired.
    #[must_use]
    pub fn into_message(self, now: Now) -> Message {
        let expires_at = self.expires_unix_ms.map(|at_ms| match at_ms.checked_sub(now.unix_ms) {
            Some(left_ms) => now.at.after(Duration::from_millis(left_ms)),
            None => now.at.before(),
        });
        Message {
            topic: self.topic,
            payload: self.payload,
            qos: self.qos,
            retain: self.retain,
            properties: self.properties,
            publisher: self.publisher,
            received_unix_ms: self.received_unix_ms,
            expires_at,
            hops: self.hops,
        }
    }
}
