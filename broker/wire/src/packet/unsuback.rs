//! UNSUBACK: an answer per filter of an UNSUBSCRIBE (section 3.11).

use crate::basic::{PacketId, PacketType, Version};
use crate::error::DecodeError;
use crate::property::{PropertyId, UserProperties};
use crate::read::{Cursor, Stop};
use crate::reason::ReasonCode;
use crate::write::{Body, PropertyList, Sink};

/// An answer per filter of an UNSUBSCRIBE. MQTT 3.1.1 has only the packet identifier in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsubAck {
    /// Of the UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// In the order of the filters `[MQTT-3.11.3-1]`.
    pub codes: Vec<ReasonCode>,
    /// Reason String, for people.
    pub reason_string: Option<Box<str>>,
    /// User Properties.
    pub user_properties: UserProperties,
}

impl UnsubAck {
    /// Codes and nothing else.
    #[must_use]
    pub const fn new(packet_id: PacketId, codes: Vec<ReasonCode>) -> Self {
        Self { packet_id, codes, reason_string: None, user_properties: Vec::new() }
    }

    pub(super) fn read(cursor: &mut Cursor) -> Result<Self, Stop> {
        let mut unsuback = Self::new(cursor.packet_id()?, Vec::new());
        if !cursor.is_v5() {
            return Ok(unsuback);
        }
        cursor.enter_properties()?;
        while let Some(property) = cursor.next_property()? {
            match property {
                PropertyId::ReasonString => {
                    cursor.once(property, &mut unsuback.reason_string, Cursor::boxed_str)?
                }
                PropertyId::UserProperty => cursor.user_property(&mut unsuback.user_properties)?,
                _ => return Err(cursor.not_allowed(property)),
            }
        }
        if cursor.left() == 0 {
            return Err(DecodeError::NoEntries(PacketType::UnsubAck).into());
        }
        while cursor.left() > 0 {
            unsuback.codes.push(cursor.reason_code()?);
        }
        Ok(unsuback)
    }
}

impl Body for UnsubAck {
    fn first_byte(&self) -> u8 {
        PacketType::UnsubAck.first_byte()
    }

    fn write<S: Sink>(&self, version: Version, sink: &mut S) {
        sink.u16(self.packet_id.get());
        if version == Version::V311 {
            return;
        }
        sink.property_list(self);
        for code in &self.codes {
            sink.u8(code.as_u8());
        }
    }
}

impl PropertyList for UnsubAck {
    fn write<S: Sink>(&self, sink: &mut S) {
        sink.property_text(PropertyId::ReasonString, self.reason_string.as_deref());
        sink.user_properties(&self.user_properties);
    }
}
