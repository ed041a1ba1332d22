//! PUBACK, PUBREC, PUBREL, PUBCOMP: four packets of one shape (sections 3.4 to 3.7).

use crate::basic::{PacketId, PacketType, Version};
use crate::property::{PropertyId, UserProperties};
use crate::read::{Cursor, Stop};
use crate::reason::ReasonCode;
use crate::write::{Body, PropertyList, Sink};

/// The body of a PUBACK, PUBREC, PUBREL or PUBCOMP. MQTT 3.1.1 has only the packet identifier in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// Of the PUBLISH that it is about.
    pub packet_id: PacketId,
    /// How it went.
    pub code: ReasonCode,
    /// Reason String, for people.
    pub reason_string: Option<Box<str>>,
    /// User Properties.
    pub user_properties: UserProperties,
}

impl Ack {
    /// All is well.
    #[must_use]
    pub const fn new(packet_id: PacketId) -> Self {
        Self::with_code(packet_id, ReasonCode::Success)
    }

    /// It went as `code` says.
    #[must_use]
    pub const fn with_code(packet_id: PacketId, code: ReasonCode) -> Self {
        Self { packet_id, code, reason_string: None, user_properties: Vec::new() }
    }

    /// The reason code may be left out when it is 0x00, and the property length when there are no properties
    /// (section 3.4.2.1).
    pub(super) fn read(cursor: &mut Cursor) -> Result<Self, Stop> {
        let mut ack = Self::new(cursor.packet_id()?);
        if cursor.left() == 0 || !cursor.is_v5() {
            return Ok(ack);
        }
        ack.code = cursor.reason_code()?;
        if cursor.left() == 0 {
            return Ok(ack);
        }
        cursor.enter_properties()?;
        while let Some(property) = cursor.next_property()? {
            match property {
                PropertyId::ReasonString => {
                    cursor.once(property, &mut ack.reason_string, Cursor::boxed_str)?
                }
                PropertyId::UserProperty => cursor.user_property(&mut ack.user_properties)?,
                _ => return Err(cursor.not_allowed(property)),
            }
        }
        Ok(ack)
    }

    pub(super) fn of_kind(&self, kind: PacketType) -> AckOfKind<'_> {
        AckOfKind { kind, ack: self }
    }
}

/// Appends an acknowledgement without properties in its shortest form: 4 bytes, or 5 where there is a code
/// to tell and MQTT 5 to tell it in.
pub fn encode_ack(
    kind: PacketType,
    packet_id: PacketId,
    code: ReasonCode,
    version: Version,
    out: &mut Vec<u8>,
) {
    let [high, low] = packet_id.get().to_be_bytes();
    if version == Version::V311 || code == ReasonCode::Success {
        out.extend_from_slice(&[kind.first_byte(), 2, high, low]);
    } else {
        out.extend_from_slice(&[kind.first_byte(), 3, high, low, code.as_u8()]);
    }
}

/// An acknowledgement and which of the four it is.
pub(super) struct AckOfKind<'a> {
    kind: PacketType,
    ack: &'a Ack,
}

impl Body for AckOfKind<'_> {
    fn first_byte(&self) -> u8 {
        self.kind.first_byte()
    }

    fn write<S: Sink>(&self, version: Version, sink: &mut S) {
        let ack = self.ack;
        sink.u16(ack.packet_id.get());
        if version == Version::V311 {
            return;
        }
        let has_properties = ack.reason_string.is_some() || !ack.user_properties.is_empty();
        if has_properties || ack.code != ReasonCode::Success {
            sink.u8(ack.code.as_u8());
        }
        if has_properties {
            sink.property_list(ack);
        }
    }
}

impl PropertyList for Ack {
    fn write<S: Sink>(&self, sink: &mut S) {
        sink.property_text(PropertyId::ReasonString, self.reason_string.as_deref());
        sink.user_properties(&self.user_properties);
    }
}
