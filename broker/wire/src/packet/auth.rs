//! AUTH: one step of enhanced authentication (section 3.15). MQTT 5 only.

use bytes::Bytes;

use crate::basic::{PacketType, Version};
use crate::error::{DecodeError, EncodeError};
use crate::property::{PropertyId, UserProperties};
use crate::read::{Cursor, Stop};
use crate::reason::ReasonCode;
use crate::write::{Body, PropertyList, Sink};

/// One step of enhanced authentication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// Continue, start again, or (from the server) success.
    pub code: ReasonCode,
    /// Authentication Method. Absent only in a success without any property.
    pub method: Option<Box<str>>,
    /// Authentication Data.
    pub data: Option<Bytes>,
    /// Reason String, for people.
    pub reason_string: Option<Box<str>>,
    /// User Properties.
    pub user_properties: UserProperties,
}

impl Auth {
    /// A step of `method`.
    #[must_use]
    pub const fn new(code: ReasonCode, method: Option<Box<str>>) -> Self {
        Self { code, method, data: None, reason_string: None, user_properties: Vec::new() }
    }

    /// A remaining length of 0 stands for success without properties (section 3.15.2.1).
    pub(super) fn read(cursor: &mut Cursor) -> Result<Self, Stop> {
        let mut auth = Self::new(ReasonCode::Success, None);
        if cursor.left() == 0 {
            // What it stands for is what only a server says.
            let (packet, code) = (PacketType::Auth, ReasonCode::Success);
            let allowed = code.valid_from(packet, cursor.sender());
            return if allowed {
                Ok(auth)
            } else {
                Err(DecodeError::ReasonCodeFromWrongSide { packet, code }.into())
            };
        }
        auth.code = cursor.reason_code()?;
        let properties_len = cursor.enter_properties()?;
        while let Some(property) = cursor.next_property()? {
            match property {
                PropertyId::AuthenticationMethod => {
                    cursor.once(property, &mut auth.method, Cursor::boxed_str)?
                }
                PropertyId::AuthenticationData => {
                    cursor.once(property, &mut auth.data, Cursor::binary_copy)?
                }
                PropertyId::ReasonString => {
                    cursor.once(property, &mut auth.reason_string, Cursor::boxed_str)?
                }
                PropertyId::UserProperty => cursor.user_property(&mut auth.user_properties)?,
                _ => return Err(cursor.not_allowed(property)),
            }
        }
        let bare_success = auth.code == ReasonCode::Success && properties_len == 0;
        if auth.method.is_none() && !bare_success {
            return Err(DecodeError::AuthenticationMethodMissing.into());
        }
        Ok(auth)
    }
}

impl Body for Auth {
    fn first_byte(&self) -> u8 {
        PacketType::Auth.first_byte()
    }

    fn write<S: Sink>(&self, version: Version, sink: &mut S) {
        if version == Version::V311 {
            return sink.refuse(EncodeError::NotInV311(PacketType::Auth));
        }
        let bare_success = self.code == ReasonCode::Success
            && self.method.is_none()
            && self.data.is_none()
            && self.reason_string.is_none()
            && self.user_properties.is_empty();
        if !bare_success {
            sink.u8(self.code.as_u8());
            sink.property_list(self);
        }
    }
}

impl PropertyList for Auth {
    fn write<S: Sink>(&self, sink: &mut S) {
        sink.property_text(PropertyId::AuthenticationMethod, self.method.as_deref());
        sink.property_binary(PropertyId::AuthenticationData, self.data.as_deref());
        sink.property_text(PropertyId::ReasonString, self.reason_string.as_deref());
        sink.user_properties(&self.user_properties);
    }
}
