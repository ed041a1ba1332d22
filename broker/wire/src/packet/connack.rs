//! CONNACK: the answer to CONNECT (section 3.2).

use std::num::{NonZeroU16, NonZeroU32};

use bytes::Bytes;

use crate::basic::{PacketType, QoS, Version};
use crate::error::DecodeError;
use crate::property::{PropertyId, UserProperties};
use crate::read::{Cursor, Stop};
use crate::reason::ReasonCode;
use crate::write::{Body, PropertyList, Sink};

/// The answer to CONNECT. MQTT 3.1.1 has only the first two in it, and the code as
/// [`ReasonCode::connack_v311`]; what is `None` is left out, and means the default of the standard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnAck {
    /// Whether the server had a session for the client. Never written beside a failure `[MQTT-3.2.2-6]`.
    pub session_present: bool,
    /// How it went.
    pub code: ReasonCode,
    /// Session Expiry Interval in seconds, where it is another than the client asked for.
    pub session_expiry_interval_s: Option<u32>,
    /// Receive Maximum of the server; `None` is 65,535.
    pub receive_max: Option<NonZeroU16>,
    /// Maximum QoS: 0 or 1. `Some(ExactlyOnce)` cannot be said on the wire and is left out.
    pub qos_max: Option<QoS>,
    /// Retain Available; `None` is yes.
    pub retain_available: Option<bool>,
    /// Maximum Packet Size that the server takes, in bytes; `None` is any.
    pub packet_size_max: Option<NonZeroU32>,
    /// Assigned Client Identifier.
    pub assigned_client_id: Option<Box<str>>,
    /// Topic Alias Maximum of the server; `None` is 0.
    pub topic_alias_max: Option<u16>,
    /// Reason String, for people.
    pub reason_string: Option<Box<str>>,
    /// User Properties.
    pub user_properties: UserProperties,
    /// Wildcard Subscription Available; `None` is yes.
    pub wildcard_subscription_available: Option<bool>,
    /// Subscription Identifiers Available; `None` is yes.
    pub subscription_identifiers_available: Option<bool>,
    /// Shared Subscription Available; `None` is yes.
    pub shared_subscription_available: Option<bool>,
    /// Server Keep Alive in seconds, where it is another than the client asked for.
    pub server_keep_alive_s: Option<u16>,
    /// Response Information.
    pub response_information: Option<Box<str>>,
    /// Server Reference: where to go instead.
    pub server_reference: Option<Box<str>>,
    /// Authentication Method.
    pub authentication_method: Option<Box<str>>,
    /// Authentication Data.
    pub authentication_data: Option<Bytes>,
}

impl ConnAck {
    /// A CONNACK that says `code` and nothing else.
    #[must_use]
    pub const fn new(code: ReasonCode) -> Self {
        Self {
            session_present: false,
            code,
            session_expiry_interval_s: None,
            receive_max: None,
            qos_max: None,
            retain_available: None,
            packet_size_max: None,
            assigned_client_id: None,
            topic_alias_max: None,
            reason_string: None,
            user_properties: Vec::new(),
            wildcard_subscription_available: None,
            subscription_identifiers_available: None,
            shared_subscription_available: None,
            server_keep_alive_s: None,
            response_information: None,
            server_reference: None,
            authentication_method: None,
            authentication_data: None,
        }
    }

    pub(super) fn read(cursor: &mut Cursor) -> Result<Self, Stop> {
        let session_present = match cursor.u8()? {
            0 => false,
            1 => true,
            _ => return Err(DecodeError::ConnAckFlags.into()),
        };
        let code = if cursor.is_v5() { cursor.reason_code()? } else { read_return_code(cursor)? };
        if session_present && code != ReasonCode::Success {
            return Err(DecodeError::SessionPresentOnError.into());
        }
        let mut connack = Self { session_present, ..Self::new(code) };
        if cursor.is_v5() {
            connack.read_properties(cursor)?;
        }
        Ok(connack)
    }

    fn read_properties(&mut self, cursor: &mut Cursor) -> Result<(), Stop> {
        cursor.enter_properties()?;
        while let Some(property) = cursor.next_property()? {
            match property {
                PropertyId::SessionExpiryInterval => {
                    cursor.once(property, &mut self.session_expiry_interval_s, Cursor::u32)?;
                }
                PropertyId::ReceiveMaximum => {
                    cursor.once(property, &mut self.receive_max, |cursor| cursor.non_zero_u16(property))?;
                }
                PropertyId::MaximumQoS => {
                    let at_least_once = |cursor: &mut Cursor| cursor.flag(property);
                    let qos = |one| if one { QoS::AtLeastOnce } else { QoS::AtMostOnce };
                    cursor.once(property, &mut self.qos_max, |cursor| at_least_once(cursor).map(qos))?;
                }
                PropertyId::RetainAvailable => read_flag(property, &mut self.retain_available, cursor)?,
                PropertyId::MaximumPacketSize => {
                    cursor
                        .once(property, &mut self.packet_size_max, |cursor| cursor.non_zero_u32(property))?;
                }
                PropertyId::AssignedClientIdentifier => {
                    cursor.once(property, &mut self.assigned_client_id, Cursor::boxed_str)?;
                }
                PropertyId::TopicAliasMaximum => {
                    cursor.once(property, &mut self.topic_alias_max, Cursor::u16)?;
                }
                PropertyId::ReasonString => {
                    cursor.once(property, &mut self.reason_string, Cursor::boxed_str)?
                }
                PropertyId::UserProperty => cursor.user_property(&mut self.user_properties)?,
                PropertyId::WildcardSubscriptionAvailable => {
                    read_flag(property, &mut self.wildcard_subscription_available, cursor)?;
                }
                PropertyId::SubscriptionIdentifiersAvailable => {
                    read_flag(property, &mut self.subscription_identifiers_available, cursor)?;
                }
                PropertyId::SharedSubscriptionAvailable => {
                    read_flag(property, &mut self.shared_subscription_available, cursor)?;
                }
                PropertyId::ServerKeepAlive => {
                    cursor.once(property, &mut self.server_keep_alive_s, Cursor::u16)?;
                }
                PropertyId::ResponseInformation => {
                    cursor.once(property, &mut self.response_information, Cursor::boxed_str)?;
                }
                PropertyId::ServerReference => {
                    cursor.once(property, &mut self.server_reference, Cursor::boxed_str)?;
                }
                PropertyId::AuthenticationMethod => {
                    cursor.once(property, &mut self.authentication_method, Cursor::boxed_str)?;
                }
                PropertyId::AuthenticationData => {
                    cursor.once(property, &mut self.authentication_data, Cursor::binary_copy)?;
                }
                _ => return Err(cursor.not_allowed(property)),
            }
        }
        if self.authentication_data.is_some() && self.authentication_method.is_none() {
            return Err(DecodeError::AuthenticationDataAlone.into());
        }
        Ok(())
    }
}

fn read_return_code(cursor: &mut Cursor) -> Result<ReasonCode, Stop> {
    let code = cursor.u8()?;
    let error = DecodeError::ReasonCode { packet: PacketType::ConnAck, code };
    ReasonCode::from_connack_v311(code).ok_or_else(|| error.into())
}

fn read_flag(property: PropertyId, slot: &mut Option<bool>, cursor: &mut Cursor) -> Result<(), Stop> {
    cursor.once(property, slot, |cursor| cursor.flag(property))
}

impl Body for ConnAck {
    fn first_byte(&self) -> u8 {
        PacketType::ConnAck.first_byte()
    }

    fn write<S: Sink>(&self, version: Version, sink: &mut S) {
        sink.u8(u8::from(self.session_present && self.code == ReasonCode::Success));
        if version == Version::V311 {
            return sink.u8(self.code.connack_v311());
        }
        sink.u8(self.code.as_u8());
        sink.property_list(self);
    }
}

impl PropertyList for ConnAck {
    fn write<S: Sink>(&self, sink: &mut S) {
        let qos_max = self.qos_max.filter(|qos| *qos != QoS::ExactlyOnce);
        sink.property_u32(PropertyId::SessionExpiryInterval, self.session_expiry_interval_s);
        sink.property_u16(PropertyId::ReceiveMaximum, self.receive_max.map(NonZeroU16::get));
        sink.property_qos(PropertyId::MaximumQoS, qos_max);
        sink.property_flag(PropertyId::RetainAvailable, self.retain_available);
        sink.property_u32(PropertyId::MaximumPacketSize, self.packet_size_max.map(NonZeroU32::get));
        sink.property_text(PropertyId::AssignedClientIdentifier, self.assigned_client_id.as_deref());
        sink.property_u16(PropertyId::TopicAliasMaximum, self.topic_alias_max);
        sink.property_text(PropertyId::ReasonString, self.reason_string.as_deref());
        sink.user_properties(&self.user_properties);
        sink.property_flag(PropertyId::WildcardSubscriptionAvailable, self.wildcard_subscription_available);
        sink.property_flag(
            PropertyId::SubscriptionIdentifiersAvailable,
            self.subscription_identifiers_available,
        );
        sink.property_flag(PropertyId::SharedSubscriptionAvailable, self.shared_subscription_available);
        sink.property_u16(PropertyId::ServerKeepAlive, self.server_keep_alive_s);
        sink.property_text(PropertyId::ResponseInformation, self.response_information.as_deref());
        sink.property_text(PropertyId::ServerReference, self.server_reference.as_deref());
        sink.property_text(PropertyId::AuthenticationMethod, self.authentication_method.as_deref());
        sink.property_binary(PropertyId::AuthenticationData, self.authentication_data.as_deref());
    }
}
