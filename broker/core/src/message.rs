//! One application message, immutable once accepted and shared, not copied.

use std::sync::Arc;

use bytes::Bytes;

use crate::time::Instant;
use crate::topic::TopicName;

pub use weirmq_wire::{Properties, QoS};

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

impl Message {
    /// What it takes in a queue, in bytes: topic, payload and properties.
    #[must_use]
    pub fn size(&self) -> usize {
        let size = self.topic.as_str().len() + self.payload.len();
        if self.properties.is_empty() { size } else { size + properties_size(&self.properties) }
    }

    /// Whether it is too late to deliver it `[MQTT-3.3.2-5]`. In the moment in which it expires it is not: what
    /// has a Message Expiry Interval of 0 is for those who can be sent it at once.
    #[must_use]
    pub fn is_expired(&self, now: Instant) -> bool {
        self.expires_at.is_some_and(|expires_at| expires_at < now)
    }

    /// The Message Expiry Interval that a receiver is told, in seconds: what is left of it, rounded up
    /// `[MQTT-3.3.2-6]`.
    #[must_use]
    pub fn expiry_left_s(&self, now: Instant) -> Option<u32> {
        let left = self.expires_at?.since(now).as_millis().div_ceil(1_000);
        Some(u32::try_from(left).unwrap_or(u32::MAX))
    }
}

fn properties_size(properties: &Properties) -> usize {
    let text = |text: &Option<Box<str>>| text.as_ref().map_or(0, |text| text.len());
    let user: usize = properties.user.iter().map(|(name, value)| name.len() + value.len()).sum();
    text(&properties.content_type)
        + text(&properties.response_topic)
        + properties.correlation_data.as_ref().map_or(0, Bytes::len)
        + user
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A message of the broker's own, for tests that look at nothing else.
    pub(crate) fn message(topic: &str, payload: &str) -> Arc<Message> {
        Arc::new(Message {
            topic: TopicName::new(topic).unwrap(),
            payload: Bytes::copy_from_slice(payload.as_bytes()),
            qos: QoS::AtMostOnce,
            retain: false,
            properties: Properties::default(),
            publisher: Publisher::Broker,
            received_unix_ms: 0,
            expires_at: None,
            hops: 0,
        })
    }

    #[test]
    fn the_expiry_that_is_left_is_rounded_up_and_never_below_zero() {
        let mut message = (*message("a", "")).clone();
        message.expires_at = Some(Instant::from_micros(3_000_000));
        let left = |micros| message.expiry_left_s(Instant::from_micros(micros));
        assert_eq!(
            [left(0), left(1), left(2_000_000), left(2_000_001), left(9_000_000)].map(Option::unwrap),
            [3, 3, 1, 1, 0]
        );
    }
}
