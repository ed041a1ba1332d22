//! SUBACK: an answer per filter of a SUBSCRIBE (section 3.9).

use crate::basic::{PacketId, PacketType, Version};
use crate::error::DecodeError;
use crate::property::{PropertyId, UserProperties};
use crate::read::{Cursor, Stop};
use crate::reason::ReasonCode;
use crate::write::{Body, PropertyList, Sink};

/// An answer per filter of a SUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubAck {
    /// Of the SUBSCRIBE.
    pub packet_id: PacketId,
    /// In the order of the filters `[MQTT-3.9.3-1]`. MQTT 3.1.1 knows 0x00, 0x01, 0x02 and 0x80; every
    /// other code is written as 0x80 there.
    pub codes: Vec<ReasonCode>,
    /// Reason String, for people.
    pub reason_string: Option<Box<str>>,
    /// User Properties.
    pub user_properties: UserProperties,
}

impl SubAck {
    /// Codes and nothing else.
    #[must_use]
    pub const fn new(packet_id: PacketId, codes: Vec<ReasonCode>) -> Self {
        Self { packet_id, codes, reason_string: None, user_properties: Vec::new() }
    }

    pub(super) fn read(cursor: &mut Cursor) -> Result<Self, Stop> {
        let mut suback = Self::new(cursor.packet_id()?, Vec::new());
        if cursor.is_v5() {
            cursor.enter_properties()?;
            while let Some(property) = cursor.next_property()? {
                match property {
                    PropertyId::ReasonString => {
                        cursor.once(property, &mut suback.reason_string, Cursor::boxed_str)?;
                    }
                    PropertyId::UserProperty => cursor.user_property(&mut suback.user_properties)?,
                    _ => return Err(cursor.not_allowed(property)),
                }
            }
        }
        if cursor.left() == 0 {
            return Err(DecodeError::NoEntries(PacketType::SubAck).into());
        }
        while cursor.left() > 0 {
            let code = cursor.reason_code()?;
            if !cursor.is_v5() && code != in_v311(code) {
                return Err(DecodeError::ReasonCode { packet: PacketType::SubAck, code: code.as_u8() }.into());
            }
            suback.codes.push(code);
        }
        Ok(suback)
    }
}

/// `[MQTT-3.9.3-2 of 3.1.1]`
fn in_v311(code: ReasonCode) -> ReasonCode {
    match code {
        ReasonCode::Success | ReasonCode::GrantedQoS1 | ReasonCode::GrantedQoS2 => code,
        _ => ReasonCode::UnspecifiedError,
    }
}

impl Body for SubAck {
    fn first_byte(&self) -> u8 {
        PacketType::SubAck.first_byte()
    }

    fn write<S: Sink>(&self, version: Version, sink: &mut S) {
        sink.u16(self.packet_id.get());
        if version == Version::V5 {
            sink.property_list(self);
        }
        for code in &self.codes {
            let code = if version == Version::V5 { *code } else { in_v311(*code) };
            sink.u8(code.as_u8());
        }
    }
}

impl PropertyList for SubAck {
    fn write<S: Sink>(&self, sink: &mut S) {
        sink.property_text(PropertyId::ReasonString, self.reason_string.as_deref());
        sink.user_properties(&self.user_properties);
    }
}
