//! The lines. What is read is checked field by field, so that an error can name the key.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::de::{self, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use weirmq_core::message::{Properties, Publisher, QoS};
use weirmq_core::topic::{Subscribable, TopicName};

use crate::event::{
    Number, PacketId, Recipient, SessionHeader, Stage, StoredMessage, StoredWill, Subscription,
};

/// The longest text that MQTT can carry, in bytes.
const TEXT_BYTES_MAX: usize = 65_535;

/// The largest Subscription Identifier of MQTT 5.
const IDENTIFIER_MAX: u32 = 268_435_455;

/// A line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Line {
    Store(Head),
    Session(Session),
    Message(Message),
    Retained(Content),
    SinkRecord(SinkRecord),
    Key(Key),
    End(End),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Head {
    pub(super) version: u16,
    pub(super) next_number: Number,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct End {
    pub(super) lines: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Session {
    pub(super) client: Text,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) facts: Option<Facts>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) subscriptions: Vec<Subscribed>,
    /// QoS 2 packet identifiers that it has taken as a publisher.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) taken: Vec<PacketId>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Facts {
    principal: Text,
    expiry_s: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ends_at_unix_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    will: Option<Will>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    will_due_unix_ms: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Will {
    topic: Topic,
    payload: Blob,
    qos: Quality,
    retain: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expiry_s: Option<u32>,
    delay_s: u32,
    #[serde(default, skip_serializing_if = "PropertiesLine::is_empty")]
    properties: PropertiesLine,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Subscribed {
    pub(super) filter: Filter,
    qos: Quality,
    no_local: bool,
    retain_as_published: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    identifier: Option<Identifier>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Message {
    pub(super) number: Number,
    pub(super) content: Content,
    pub(super) recipients: Vec<To>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Content {
    topic: Topic,
    payload: Blob,
    qos: Quality,
    retain: bool,
    publisher: From,
    received_unix_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_unix_ms: Option<u64>,
    hops: u8,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    sealed_by: Vec<Text>,
    #[serde(default, skip_serializing_if = "PropertiesLine::is_empty")]
    properties: PropertiesLine,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct To {
    pub(super) client: Text,
    qos: Quality,
    retain: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    identifiers: Vec<Identifier>,
    stage: How,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum How {
    Waiting,
    UnderWay(PacketId),
    Released(PacketId),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum From {
    Client { id: Text, principal: Text },
    Rule(Text),
    Plugin(Text),
    Broker,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PropertiesLine {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payload_is_utf8: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content_type: Option<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    response_topic: Option<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    correlation_data: Option<Blob>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    user: Vec<(Text, Text)>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SinkRecord {
    pub(super) sink: Text,
    pub(super) number: Number,
    pub(super) record: Blob,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Key {
    pub(super) namespace: Text,
    pub(super) key: Blob,
    pub(super) value: Blob,
}

impl Facts {
    pub(super) fn of(header: &SessionHeader) -> Self {
        Self {
            principal: Text::of(&header.principal),
            expiry_s: header.expiry_s,
            ends_at_unix_ms: header.ends_at_unix_ms,
            will: header.will.as_deref().map(|will| Will {
                topic: Topic(will.topic.clone()),
                payload: Blob(will.payload.clone()),
                qos: Quality(will.qos),
                retain: will.retain,
                expiry_s: will.expiry_s,
                delay_s: will.delay_s,
                properties: PropertiesLine::of(&will.properties),
            }),
            will_due_unix_ms: header.will_due_unix_ms,
        }
    }

    pub(super) fn into_header(self) -> SessionHeader {
        SessionHeader {
            principal: self.principal.0,
            expiry_s: self.expiry_s,
            ends_at_unix_ms: self.ends_at_unix_ms,
            will: self.will.map(|will| {
                Box::new(StoredWill {
                    topic: will.topic.0,
                    payload: will.payload.0,
                    qos: will.qos.0,
                    retain: will.retain,
                    properties: will.properties.into_properties(),
                    expiry_s: will.expiry_s,
                    delay_s: will.delay_s,
                })
            }),
            will_due_unix_ms: self.will_due_unix_ms,
        }
    }
}

impl Subscribed {
    pub(super) fn of(filter: &Arc<str>, subscription: &Subscription) -> Self {
        Self {
            filter: Filter(Arc::clone(filter)),
            qos: Quality(subscription.qos),
            no_local: subscription.no_local,
            retain_as_published: subscription.retain_as_published,
            identifier: subscription.identifier.map(|identifier| Identifier(identifier.get())),
        }
    }

    pub(super) fn subscription(&self) -> Subscription {
        Subscription {
            qos: self.qos.0,
            no_local: self.no_local,
            retain_as_published: self.retain_as_published,
            identifier: self.identifier.as_ref().and_then(|identifier| NonZeroU32::new(identifier.0)),
        }
    }
}

impl Content {
    pub(super) fn of(stored: &StoredMessage) -> Self {
        let message = &stored.message;
        Self {
            topic: Topic(message.topic.clone()),
            payload: Blob(message.payload.clone()),
            qos: Quality(message.qos),
            retain: message.retain,
            publisher: match &message.publisher {
                Publisher::Client { client_id, principal } => {
                    From::Client { id: Text::of(client_id), principal: Text::of(principal) }
                }
                Publisher::Rule(name) => From::Rule(Text::of(name)),
                Publisher::Plugin(name) => From::Plugin(Text::of(name)),
                Publisher::Broker => From::Broker,
            },
            received_unix_ms: message.received_unix_ms,
            expires_unix_ms: stored.expires_unix_ms,
            hops: message.hops,
            sealed_by: stored.sealed_by.iter().map(Text::of).collect(),
            properties: PropertiesLine::of(&message.properties),
        }
    }

    pub(super) fn into_message(self) -> StoredMessage {
        let message = weirmq_core::message::Message {
            topic: self.topic.0,
            payload: self.payload.0,
            qos: self.qos.0,
            retain: self.retain,
            properties: self.properties.into_properties(),
            publisher: match self.publisher {
                From::Client { id, principal } => {
                    Publisher::Client { client_id: id.0, principal: principal.0 }
                }
                From::Rule(name) => Publisher::Rule(name.0),
                From::Plugin(name) => Publisher::Plugin(name.0),
                From::Broker => Publisher::Broker,
            },
            received_unix_ms: self.received_unix_ms,
            expires_at: None,
            hops: self.hops,
        };
        StoredMessage {
            message: Arc::new(message),
            expires_unix_ms: self.expires_unix_ms,
            sealed_by: self.sealed_by.into_iter().map(|name| name.0).collect(),
        }
    }
}

impl To {
    pub(super) fn of(recipient: &Recipient) -> Self {
        Self {
            client: Text::of(&recipient.client),
            qos: Quality(recipient.qos),
            retain: recipient.retain,
            identifiers: recipient.identifiers.iter().map(|identifier| Identifier(*identifier)).collect(),
            stage: match recipient.stage {
                Stage::Waiting => How::Waiting,
                Stage::UnderWay(packet_id) => How::UnderWay(packet_id),
                Stage::Released(packet_id) => How::Released(packet_id),
            },
        }
    }

    pub(super) fn into_recipient(self) -> Recipient {
        Recipient {
            client: self.client.0,
            qos: self.qos.0,
            retain: self.retain,
            identifiers: self.identifiers.into_iter().map(|identifier| identifier.0).collect(),
            stage: match self.stage {
                How::Waiting => Stage::Waiting,
                How::UnderWay(packet_id) => Stage::UnderWay(packet_id),
                How::Released(packet_id) => Stage::Released(packet_id),
            },
        }
    }
}

impl PropertiesLine {
    fn of(properties: &Properties) -> Self {
        let text = |text: &Option<Box<str>>| text.as_deref().map(|text| Text(Arc::from(text)));
        Self {
            payload_is_utf8: properties.payload_is_utf8,
            content_type: text(&properties.content_type),
            response_topic: text(&properties.response_topic),
            correlation_data: properties.correlation_data.clone().map(Blob),
            user: properties
                .user
                .iter()
                .map(|(name, value)| (Text(Arc::from(&**name)), Text(Arc::from(&**value))))
                .collect(),
        }
    }

    fn into_properties(self) -> Properties {
        let mut properties = Properties {
            payload_is_utf8: self.payload_is_utf8,
            content_type: self.content_type.map(Text::into_box),
            response_topic: self.response_topic.map(Text::into_box),
            correlation_data: self.correlation_data.map(|data| data.0),
            ..Properties::default()
        };
        for (name, value) in self.user {
            properties.user.push((name.into_box(), value.into_box()));
        }
        properties
    }

    fn is_empty(&self) -> bool {
        self.payload_is_utf8.is_none()
            && self.content_type.is_none()
            && self.response_topic.is_none()
            && self.correlation_data.is_none()
            && self.user.is_empty()
    }
}

/// A text as MQTT can carry it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[derive(Clone)]
pub(super) struct Text(pub(super) Arc<str>);

impl Text {
    pub(super) fn of(text: &Arc<str>) -> Self {
        Self(Arc::clone(text))
    }

    fn into_box(self) -> Box<str> {
        Box::from(&*self.0)
    }
}

impl TryFrom<String> for Text {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(format!("a text of {} bytes is longer than {TEXT_BYTES_MAX} bytes", text.len()));
        }
        Ok(Self(text.into()))
    }
}

impl std::convert::From<Text> for String {
    fn from(text: Text) -> Self {
        (*text.0).to_owned()
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Topic(TopicName);

impl TryFrom<String> for Topic {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        TopicName::new(&text).map(Self).map_err(|error| format!("'{text}' is no topic: {error}"))
    }
}

impl std::convert::From<Topic> for String {
    fn from(topic: Topic) -> Self {
        topic.0.as_str().to_owned()
    }
}

/// A filter, with its share name if it has one.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Filter(pub(super) Arc<str>);

impl TryFrom<String> for Filter {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match Subscribable::parse(&text) {
            Ok(_) => Ok(Self(text.into())),
            Err(error) => Err(format!("'{text}' is no filter: {error}")),
        }
    }
}

impl std::convert::From<Filter> for String {
    fn from(filter: Filter) -> Self {
        (*filter.0).to_owned()
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
struct Quality(QoS);

impl TryFrom<u8> for Quality {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, String> {
        QoS::try_from(number).map(Self).map_err(|_| format!("{number} is no QoS: it is 0, 1 or 2"))
    }
}

impl std::convert::From<Quality> for u8 {
    fn from(qos: Quality) -> Self {
        qos.0.as_u8()
    }
}

/// A Subscription Identifier.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
struct Identifier(u32);

impl TryFrom<u32> for Identifier {
    type Error = String;

    fn try_from(number: u32) -> Result<Self, String> {
        if (1..=IDENTIFIER_MAX).contains(&number) {
            return Ok(Self(number));
        }
        Err(format!("{number} is no subscription identifier: it is from 1 to {IDENTIFIER_MAX}"))
    }
}

impl std::convert::From<Identifier> for u32 {
    fn from(identifier: Identifier) -> Self {
        identifier.0
    }
}

/// Bytes: as text where they are one that people can read, else as `{"base64": "..."}`.
#[derive(Debug)]
pub(super) struct Blob(pub(super) Bytes);

impl Blob {
    fn as_text(&self) -> Option<&str> {
        let is_readable = |text: &&str| !text.contains(|c: char| c.is_control() && !"\n\r\t".contains(c));
        std::str::from_utf8(&self.0).ok().filter(is_readable)
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.as_text() {
            Some(text) => serializer.serialize_str(text),
            None => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("base64", &BASE64_STANDARD.encode(&self.0))?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrBase64;
        impl<'de> Visitor<'de> for TextOrBase64 {
            type Value = Blob;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a text, or {\"base64\": \"...\"}")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Blob, E> {
                Ok(Blob(Bytes::copy_from_slice(text.as_bytes())))
            }

            fn visit_string<E: de::Error>(self, text: String) -> Result<Blob, E> {
                Ok(Blob(text.into()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Blob, A::Error> {
                let Some((key, text)) = map.next_entry::<String, String>()? else {
                    return Err(de::Error::missing_field("base64"));
                };
                if key != "base64" {
                    return Err(de::Error::unknown_field(&key, &["base64"]));
                }
                if let Some(key) = map.next_key::<String>()? {
                    return Err(de::Error::unknown_field(&key, &[]));
                }
                let bytes = BASE64_STANDARD.decode(text).map_err(de::Error::custom)?;
                Ok(Blob(bytes.into()))
            }
        }
        deserializer.deserialize_any(TextOrBase64)
    }
}
