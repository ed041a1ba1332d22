//! PUBLISH: one application message on its way (section 3.3). Half of all packets are this one.

use std::num::NonZeroU16;

use bytes::Bytes;

use crate::basic::{PacketId, PacketType, QoS, Side, Version};
use crate::error::{DecodeError, EncodeError};
use crate::property::{Properties, PropertyId};
use crate::read::{Cursor, Stop};
use crate::text::Text;
use crate::write::{self, Body, PropertyList, Sink};

/// One application message on its way. Topic and payload are slices of the read buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// Whether it may have been sent before. Written only with QoS 1 and 2 `[MQTT-3.3.1-2]`.
    pub dup: bool,
    /// Its quality of service.
    pub qos: QoS,
    /// Whether it is to be retained, or was.
    pub retain: bool,
    /// Topic name, unchecked. Empty in MQTT 5 where a Topic Alias stands for it.
    pub topic: Text,
    /// There with QoS 1 and 2, and only there `[MQTT-2.2.1-2]`.
    pub packet_id: Option<PacketId>,
    /// The properties, where there is any.
    pub extras: Option<Box<PublishExtras>>,
    /// What it says. Any bytes.
    pub payload: Bytes,
}

/// The properties of a PUBLISH.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PublishExtras {
    /// What travels with the message.
    pub message: Properties,
    /// Message Expiry Interval in seconds.
    pub message_expiry_interval_s: Option<u32>,
    /// Topic Alias.
    pub topic_alias: Option<NonZeroU16>,
    /// Subscription Identifiers: never from a client.
    pub subscription_ids: Vec<u32>,
}

impl Publish {
    /// All of it but its payload.
    #[must_use]
    pub fn head(&self) -> PublishHead<'_> {
        let extras = self.extras.as_deref();
        PublishHead {
            dup: self.dup,
            qos: self.qos,
            retain: self.retain,
            topic: &self.topic,
            packet_id: self.packet_id,
            properties: extras.map(|extras| &extras.message),
            message_expiry_interval_s: extras.and_then(|extras| extras.message_expiry_interval_s),
            topic_alias: extras.and_then(|extras| extras.topic_alias),
            subscription_ids: extras.map_or(&[], |extras| &extras.subscription_ids),
            payload_len: self.payload.len(),
        }
    }

    pub(super) fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let head = self.head();
        out.reserve(head.encoded_len(version)?);
        head.encode(version, out)?;
        out.extend_from_slice(&self.payload);
        Ok(())
    }

    /// Reads the body; `first` has been through [`check_flags`].
    pub(super) fn read(first: u8, cursor: &mut Cursor) -> Result<Self, Stop> {
        let qos = QoS::try_from(first >> 1 & 0b11).map_err(|_| DecodeError::PublishQoS)?;
        let topic = cursor.text()?;
        if topic.is_empty() && !cursor.is_v5() {
            return Err(DecodeError::TopicEmpty.into());
        }
        let packet_id = if qos == QoS::AtMostOnce { None } else { Some(cursor.packet_id()?) };
        let extras = if cursor.is_v5() { PublishExtras::read(cursor)? } else { None };
        if topic.is_empty() && extras.as_ref().is_none_or(|extras| extras.topic_alias.is_none()) {
            return Err(DecodeError::TopicMissing.into());
        }
        Ok(Self {
            dup: first & 0b1000 != 0,
            qos,
            retain: first & 0b0001 != 0,
            topic,
            packet_id,
            extras,
            payload: cursor.rest()?,
        })
    }
}

/// The flags in the first byte of a PUBLISH `[MQTT-3.3.1-2]`, `[MQTT-3.3.1-4]`.
pub(crate) fn check_flags(first: u8) -> Result<(), DecodeError> {
    match QoS::try_from(first >> 1 & 0b11) {
        Err(_) => Err(DecodeError::PublishQoS),
        Ok(QoS::AtMostOnce) if first & 0b1000 != 0 => Err(DecodeError::PublishDup),
        Ok(_) => Ok(()),
    }
}

impl PublishExtras {
    fn read(cursor: &mut Cursor) -> Result<Option<Box<Self>>, Stop> {
        cursor.enter_properties()?;
        // Made with the first property: most packets have none.
        let mut some = None;
        while let Some(property) = cursor.next_property()? {
            let extras: &mut Self = some.get_or_insert_with(Box::default);
            match property {
                PropertyId::MessageExpiryInterval => {
                    cursor.once(property, &mut extras.message_expiry_interval_s, Cursor::u32)?;
                }
                PropertyId::TopicAlias => cursor.once(property, &mut extras.topic_alias, read_topic_alias)?,
                PropertyId::SubscriptionIdentifier if cursor.sender() == Side::Client => {
                    return Err(DecodeError::PropertyFromWrongSide(property).into());
                }
                PropertyId::SubscriptionIdentifier => extras.subscription_ids.push(cursor.subscription_id()?),
                _ if extras.message.read(property, cursor)? => {}
                _ => return Err(cursor.not_allowed(property)),
            }
        }
        Ok(some)
    }
}

fn read_topic_alias(cursor: &mut Cursor) -> Result<NonZeroU16, Stop> {
    NonZeroU16::new(cursor.u16()?).ok_or_else(|| DecodeError::TopicAliasZero.into())
}

/// All of a PUBLISH but its payload, borrowed: what is written once per receiver, or once per shape for
/// all that share it. Writing it allocates nothing but room in the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishHead<'a> {
    /// Whether it may have been sent before. Written only with QoS 1 and 2 `[MQTT-3.3.1-2]`.
    pub dup: bool,
    /// Its quality of service.
    pub qos: QoS,
    /// Whether it was retained.
    pub retain: bool,
    /// Topic name, without U+0000: it is not looked at again here.
    pub topic: &'a str,
    /// There with QoS 1 and 2. Not written with QoS 0.
    pub packet_id: Option<PacketId>,
    /// What travels with the message. Not written in MQTT 3.1.1, nor is what follows.
    pub properties: Option<&'a Properties>,
    /// Message Expiry Interval in seconds: what is left of it `[MQTT-3.3.2-6]`.
    pub message_expiry_interval_s: Option<u32>,
    /// Topic Alias.
    pub topic_alias: Option<NonZeroU16>,
    /// Subscription Identifiers.
    pub subscription_ids: &'a [u32],
    /// The length of the payload that the caller appends.
    pub payload_len: usize,
}

impl PublishHead<'_> {
    /// The size of the whole packet, payload included: what a client's Maximum Packet Size is compared with.
    ///
    /// # Errors
    /// [`EncodeError`], as [`Self::encode`].
    pub fn encoded_len(&self, version: Version) -> Result<usize, EncodeError> {
        write::encoded_len(self, version)
    }

    /// Appends everything up to the payload, which the caller appends.
    ///
    /// # Errors
    /// [`EncodeError`]; nothing has been appended then.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        write::encode(self, version, out)
    }

    fn has_properties(&self) -> bool {
        self.properties.is_some_and(|properties| !properties.is_empty())
            || self.message_expiry_interval_s.is_some()
            || self.topic_alias.is_some()
            || !self.subscription_ids.is_empty()
    }
}

impl Body for PublishHead<'_> {
    fn first_byte(&self) -> u8 {
        let dup = self.dup && self.qos != QoS::AtMostOnce;
        PacketType::Publish.first_byte() | u8::from(dup) << 3 | self.qos.as_u8() << 1 | u8::from(self.retain)
    }

    fn payload_len(&self) -> usize {
        self.payload_len
    }

    fn write<S: Sink>(&self, version: Version, sink: &mut S) {
        sink.text(self.topic);
        if self.qos != QoS::AtMostOnce {
            match self.packet_id {
                Some(id) => sink.u16(id.get()),
                None => sink.refuse(EncodeError::PacketIdMissing),
            }
        }
        match version {
            Version::V311 => {}
            Version::V5 if self.has_properties() => sink.property_list(self),
            Version::V5 => sink.u8(0),
        }
    }
}

impl PropertyList for PublishHead<'_> {
    fn write<S: Sink>(&self, sink: &mut S) {
        sink.property_u16(PropertyId::TopicAlias, self.topic_alias.map(NonZeroU16::get));
        sink.property_u32(PropertyId::MessageExpiryInterval, self.message_expiry_interval_s);
        for id in self.subscription_ids {
            sink.subscription_id(*id);
        }
        if let Some(properties) = self.properties {
            properties.write(sink);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_are_written_as_they_were_read_or_refused() {
        for first in 0x30..=0x3F {
            let qos = first >> 1 & 0b11;
            let good = qos != 3 && (qos != 0 || first & 0b1000 == 0);
            assert_eq!(check_flags(first).is_ok(), good, "{first:#04x}");
            if let (true, Ok(qos)) = (good, QoS::try_from(qos)) {
                let head = PublishHead {
                    dup: first & 0b1000 != 0,
                    qos,
                    retain: first & 1 != 0,
                    topic: "",
                    packet_id: None,
                    properties: None,
                    message_expiry_interval_s: None,
                    topic_alias: None,
                    subscription_ids: &[],
                    payload_len: 0,
                };
                assert_eq!(head.first_byte(), first);
            }
        }
    }

    /// It is moved and matched on for every message.
    #[test]
    fn a_publish_stays_small() {
        assert!(size_of::<Publish>() <= 88, "{}", size_of::<Publish>());
        assert!(size_of::<crate::Packet>() <= 96, "{}", size_of::<crate::Packet>());
    }
}
