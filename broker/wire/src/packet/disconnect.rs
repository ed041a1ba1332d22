//! DISCONNECT: the last packet of a connection (section 3.14).

use crate::basic::{PacketType, Side, Version};
use crate::error::DecodeError;
use crate::property::{PropertyId, UserProperties};
use crate::read::{Cursor, Stop};
use crate::reason::ReasonCode;
use crate::write::{Body, PropertyList, Sink};

/// Why a connection ends. MQTT 3.1.1 has nothing in it, and only clients send it there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disconnect {
    /// Why.
    pub code: ReasonCode,
    /// Session Expiry Interval in seconds: never from a server `[MQTT-3.14.2-2]`.
    pub session_expiry_interval_s: Option<u32>,
    /// Reason String, for people.
    pub reason_string: Option<Box<str>>,
    /// User Properties.
    pub user_properties: UserProperties,
    /// Server Reference, where to go instead: never from a client.
    pub server_reference: Option<Box<str>>,
}

impl Disconnect {
    /// A DISCONNECT that says `code` and nothing else.
    #[must_use]
    pub const fn new(code: ReasonCode) -> Self {
        Self {
            code,
            session_expiry_interval_s: None,
            reason_string: None,
            user_properties: Vec::new(),
            server_reference: None,
        }
    }

    /// The reason code may be left out when it is 0x00, and the property length when there are no properties
    /// (section 3.14.2.1).
    pub(super) fn read(cursor: &mut Cursor) -> Result<Self, Stop> {
        let mut disconnect = Self::new(ReasonCode::Success);
        if cursor.left() == 0 {
            return Ok(disconnect);
        }
        disconnect.code = cursor.reason_code()?;
        if cursor.left() == 0 {
            return Ok(disconnect);
        }
        cursor.enter_properties()?;
        while let Some(property) = cursor.next_property()? {
            match (property, cursor.sender()) {
                (PropertyId::SessionExpiryInterval, Side::Server)
                | (PropertyId::ServerReference, Side::Client) => {
                    return Err(DecodeError::PropertyFromWrongSide(property).into());
                }
                (PropertyId::SessionExpiryInterval, Side::Client) => {
                    cursor.once(property, &mut disconnect.session_expiry_interval_s, Cursor::u32)?;
                }
                (PropertyId::ServerReference, Side::Server) => {
                    cursor.once(property, &mut disconnect.server_reference, Cursor::boxed_str)?;
                }
                (PropertyId::ReasonString, _) => {
                    cursor.once(property, &mut disconnect.reason_string, Cursor::boxed_str)?;
                }
                (PropertyId::UserProperty, _) => cursor.user_property(&mut disconnect.user_properties)?,
                _ => return Err(cursor.not_allowed(property)),
            }
        }
        Ok(disconnect)
    }
}

impl Body for Disconnect {
    fn first_byte(&self) -> u8 {
        PacketType::Disconnect.first_byte()
    }

    fn write<S: Sink>(&self, version: Version, sink: &mut S) {
        if version == Version::V311 {
            return;
        }
        let has_properties = self.session_expiry_interval_s.is_some()
            || self.reason_string.is_some()
            || !self.user_properties.is_empty()
            || self.server_reference.is_some();
        if has_properties || self.code != ReasonCode::Success {
            sink.u8(self.code.as_u8());
        }
        if has_properties {
            sink.property_list(self);
        }
    }
}

impl PropertyList for Disconnect {
    fn write<S: Sink>(&self, sink: &mut S) {
        sink.property_u32(PropertyId::SessionExpiryInterval, self.session_expiry_interval_s);
        sink.property_text(PropertyId::ReasonString, self.reason_string.as_deref());
        sink.user_properties(&self.user_properties);
        sink.property_text(PropertyId::ServerReference, self.server_reference.as_deref());
    }
}
