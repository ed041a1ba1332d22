//! One application message, immutable once accepted and shared, not copied.

use std::sync::Arc;

use bytes::Bytes;

use crate::time::Instant;
use crate::topic::TopicName;

pub use weirmq_wire::QoS;

/// How many rules a message may have passed from one to the next before it is dropped as a loop.
pub const HOPS_MAX: u8 = 8;

/// An application message as it was accepted, or as a transform made it.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Where it is published to.
    pub topic: TopicName,
    /// What it says. Any bytes.
    pub payload: Bytes,
    /// The QoS it was published with.
    pub qos: QoS,
    /// Whether the publisher asked that it be retained.
    pub retain: bool,
    /// The properties of MQTT 5 that travel with it; empty for MQTT 3.1.1 publishers.
    pub properties: Properties,
    /// Who published it.
    pub publisher: Publisher,
    /// When the broker received it: milliseconds since 1970-01-01T00:00:00Z.
    pub received_unix_ms: u64,
    /// When it stops being deliverable `[MQTT-3.3.2-5]`; `None` is never.
    pub expires_at: Option<Instant>,
    /// How many rules stand between it and the client that caused it; 0 for a client's own message.
    pub hops: u8,
}

/// The MQTT 5 properties that are forwarded unaltered to receivers `[MQTT-3.3.2-4]` and
/// `[MQTT-3.3.2-15]` to `[MQTT-3.3.2-20]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Properties {
    /// Payload Format Indicator: `Some(true)` says that the payload is UTF-8 text.
    pub payload_is_utf8: Option<bool>,
    /// Content Type.
    pub content_type: Option<Box<str>>,
    /// Response Topic: a topic name.
    pub response_topic: Option<Box<str>>,
    /// Correlation Data.
    pub correlation_data: Option<Bytes>,
    /// User Properties in the order in which they were sent, duplicates kept `[MQTT-3.3.2-18]`.
    pub user: Vec<(Box<str>, Box<str>)>,
}

impl Properties {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Who a message comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Publisher {
    /// A client of this broker.
    Client {
        /// Its client identifier: what No Local compares `[MQTT-3.8.3-3]`.
        client_id: Arc<str>,
        /// Who it logged in as, as the authenticate hook named it.
        principal: Arc<str>,
    },
    /// A rule, by name.
    Rule(Arc<str>),
    /// A plugin, by name.
    Plugin(Arc<str>),
    /// The broker itself: `$SYS`.
    Broker,
}

impl Publisher {
    /// The client identifier, when it was a client.
    #[must_use]
    pub fn client_id(&self) -> Option<&Arc<str>> {
        match self {
            Self::Client { client_id, .. } => Some(client_id),
            Self::Rule(_) | Self::Plugin(_) | Self::Broker => None,
        }
    }
}
