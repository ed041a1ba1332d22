//! Property identifiers, and the properties that travel with an application message.

use std::fmt;

use bytes::Bytes;

use crate::error::DecodeError;
use crate::numbered::numbered;
use crate::read::{Cursor, Stop};
use crate::write::Sink;

/// Names and values in the order in which they were sent, duplicates kept `[MQTT-3.3.2-18]`.
pub type UserProperties = Vec<(Box<str>, Box<str>)>;

/// The MQTT 5 properties that are forwarded unaltered to receivers `[MQTT-3.3.2-4]` and
/// `[MQTT-3.3.2-15]` to `[MQTT-3.3.2-20]`. They own what they hold: messages outlive read buffers.
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
    /// User Properties.
    pub user: UserProperties,
}

impl Properties {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.payload_is_utf8.is_none()
            && self.content_type.is_none()
            && self.response_topic.is_none()
            && self.correlation_data.is_none()
            && self.user.is_empty()
    }

    /// Reads `property` if it is one of these, else leaves the cursor where it is and says `false`.
    pub(crate) fn read(&mut self, property: PropertyId, cursor: &mut Cursor) -> Result<bool, Stop> {
        match property {
            PropertyId::PayloadFormatIndicator => {
                cursor.once(property, &mut self.payload_is_utf8, |cursor| cursor.flag(property))?;
            }
            PropertyId::ContentType => cursor.once(property, &mut self.content_type, Cursor::boxed_str)?,
            PropertyId::ResponseTopic => {
                cursor.once(property, &mut self.response_topic, Cursor::boxed_str)?;
                let topic = self.response_topic.as_deref().unwrap_or_default();
                if topic.is_empty() || topic.contains(['+', '#']) {
                    return Err(DecodeError::ResponseTopic.into());
                }
            }
            PropertyId::CorrelationData => {
                cursor.once(property, &mut self.correlation_data, Cursor::binary_copy)?;
            }
            PropertyId::UserProperty => cursor.user_property(&mut self.user)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(crate) fn write<S: Sink>(&self, sink: &mut S) {
        sink.property_flag(PropertyId::PayloadFormatIndicator, self.payload_is_utf8);
        sink.property_text(PropertyId::ContentType, self.content_type.as_deref());
        sink.property_text(PropertyId::ResponseTopic, self.response_topic.as_deref());
        sink.property_binary(PropertyId::CorrelationData, self.correlation_data.as_deref());
        sink.user_properties(&self.user);
    }
}

numbered! {
    /// What a property is: its identifier (section 2.2.2.2).
    PropertyId,
    /// Its name as the standard writes it.
    name;

    PayloadFormatIndicator = 0x01, "Payload Format Indicator";
    MessageExpiryInterval = 0x02, "Message Expiry Interval";
    ContentType = 0x03, "Content Type";
    ResponseTopic = 0x08, "Response Topic";
    CorrelationData = 0x09, "Correlation Data";
    SubscriptionIdentifier = 0x0B, "Subscription Identifier";
    SessionExpiryInterval = 0x11, "Session Expiry Interval";
    AssignedClientIdentifier = 0x12, "Assigned Client Identifier";
    ServerKeepAlive = 0x13, "Server Keep Alive";
    AuthenticationMethod = 0x15, "Authentication Method";
    AuthenticationData = 0x16, "Authentication Data";
    RequestProblemInformation = 0x17, "Request Problem Information";
    WillDelayInterval = 0x18, "Will Delay Interval";
    RequestResponseInformation = 0x19, "Request Response Information";
    ResponseInformation = 0x1A, "Response Information";
    ServerReference = 0x1C, "Server Reference";
    ReasonString = 0x1F, "Reason String";
    ReceiveMaximum = 0x21, "Receive Maximum";
    TopicAliasMaximum = 0x22, "Topic Alias Maximum";
    TopicAlias = 0x23, "Topic Alias";
    MaximumQoS = 0x24, "Maximum QoS";
    RetainAvailable = 0x25, "Retain Available";
    UserProperty = 0x26, "User Property";
    MaximumPacketSize = 0x27, "Maximum Packet Size";
    WildcardSubscriptionAvailable = 0x28, "Wildcard Subscription Available";
    SubscriptionIdentifiersAvailable = 0x29, "Subscription Identifiers Available";
    SharedSubscriptionAvailable = 0x2A, "Shared Subscription Available";
}

impl fmt::Display for PropertyId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v5_2_2_2_2_there_are_27_properties() {
        let known: Vec<_> = (0..=u8::MAX).filter_map(PropertyId::from_u8).collect();
        assert_eq!(known, PropertyId::ALL);
        assert_eq!(known.len(), 27);
    }

    #[test]
    fn properties_are_empty_until_one_is_set() {
        assert!(Properties::default().is_empty());
        assert!(!Properties { payload_is_utf8: Some(false), ..Properties::default() }.is_empty());
        assert!(!Properties { correlation_data: Some(Bytes::new()), ..Properties::default() }.is_empty());
        let user = vec![(Box::from(""), Box::from(""))];
        assert!(!Properties { user, ..Properties::default() }.is_empty());
    }
}
