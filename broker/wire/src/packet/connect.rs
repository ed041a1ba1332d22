//! CONNECT: the first packet of a connection (section 3.1).

use std::fmt;
use std::num::{NonZeroU16, NonZeroU32};

use bytes::Bytes;

use crate::basic::{PacketType, QoS, Version};
use crate::error::DecodeError;
use crate::property::{Properties, PropertyId, UserProperties};
use crate::read::{Cursor, Stop};
use crate::text::Text;
use crate::write::{Body, PropertyList, Sink};

/// Who connects, and how they want to be treated. What only MQTT 5 has is at its default for MQTT 3.1.1.
/// Its `Debug` does not show what is secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Connect {
    /// The version of the connection.
    pub version: Version,
    /// Clean Start; in MQTT 3.1.1 Clean Session, which says besides that the session ends with the connection.
    pub clean_start: bool,
    /// Keep Alive in seconds; 0 is off.
    pub keep_alive_s: u16,
    /// Client Identifier. Empty asks the server for one.
    pub client_id: Text,
    /// User Name.
    pub username: Option<Text>,
    /// Password. MQTT 5 allows one without a user name.
    pub password: Option<Bytes>,
    /// What is to be published when the connection is lost.
    pub will: Option<Will>,
    /// Session Expiry Interval in seconds; `None` is 0, and `u32::MAX` is never.
    pub session_expiry_interval_s: Option<u32>,
    /// Receive Maximum: how many unacknowledged PUBLISH packets with QoS 1 and 2 the client takes.
    pub receive_max: NonZeroU16,
    /// Maximum Packet Size that the client takes, in bytes.
    pub packet_size_max: Option<NonZeroU32>,
    /// Topic Alias Maximum: the highest alias that the client takes; 0 is none.
    pub topic_alias_max: u16,
    /// Request Response Information.
    pub request_response_information: bool,
    /// Request Problem Information: `false` keeps Reason String and User Properties out of most answers
    /// `[MQTT-3.1.2-29]`.
    pub request_problem_information: bool,
    /// User Properties.
    pub user_properties: UserProperties,
    /// Authentication Method.
    pub authentication_method: Option<Box<str>>,
    /// Authentication Data.
    pub authentication_data: Option<Bytes>,
}

/// The message that is published when the connection is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    /// Will Topic, unchecked: whether it is a topic name is not a question of format.
    pub topic: Text,
    /// Will Payload. At most 65,535 bytes.
    pub payload: Bytes,
    /// Will QoS.
    pub qos: QoS,
    /// Will Retain.
    pub retain: bool,
    /// Will Delay Interval in seconds.
    pub delay_interval_s: u32,
    /// Message Expiry Interval in seconds.
    pub message_expiry_interval_s: Option<u32>,
    /// What travels with the message.
    pub properties: Properties,
}

/// Receive Maximum where nobody says another (section 3.1.2.11.3).
const RECEIVE_MAX_DEFAULT: NonZeroU16 = NonZeroU16::MAX;

impl Connect {
    /// A CONNECT with everything at its default: Clean Start, no keep alive, no will, nobody in particular.
    #[must_use]
    pub const fn new(version: Version, client_id: Text) -> Self {
        Self {
            version,
            clean_start: true,
            keep_alive_s: 0,
            client_id,
            username: None,
            password: None,
            will: None,
            session_expiry_interval_s: None,
            receive_max: RECEIVE_MAX_DEFAULT,
            packet_size_max: None,
            topic_alias_max: 0,
            request_response_information: false,
            request_problem_information: true,
            user_properties: Vec::new(),
            authentication_method: None,
            authentication_data: None,
        }
    }

    pub(super) fn read(cursor: &mut Cursor) -> Result<Self, Stop> {
        let version = read_protocol(cursor)?;
        // Told at once: the answer to a fault further on depends on it.
        cursor.version.get_or_insert(version);
        let flags = Flags::read(version, cursor)?;
        let mut connect = Self::new(version, Text::default());
        connect.clean_start = flags.clean_start;
        connect.keep_alive_s = cursor.u16()?;
        if version == Version::V5 {
            connect.read_properties(cursor)?;
        }
        connect.client_id = cursor.text()?;
        if let Some((qos, retain)) = flags.will {
            connect.will = Some(Will::read(version, qos, retain, cursor)?);
        }
        if flags.username {
            connect.username = Some(cursor.text()?);
        }
        if flags.password {
            connect.password = Some(cursor.binary()?);
        }
        Ok(connect)
    }

    fn read_properties(&mut self, cursor: &mut Cursor) -> Result<(), Stop> {
        let mut receive_max = None;
        let mut topic_alias_max = None;
        let mut response_information = None;
        let mut problem_information = None;
        cursor.enter_properties()?;
        while let Some(property) = cursor.next_property()? {
            match property {
                PropertyId::SessionExpiryInterval => {
                    cursor.once(property, &mut self.session_expiry_interval_s, Cursor::u32)?;
                }
                PropertyId::ReceiveMaximum => {
                    cursor.once(property, &mut receive_max, |cursor| cursor.non_zero_u16(property))?;
                }
                PropertyId::MaximumPacketSize => {
                    cursor
                        .once(property, &mut self.packet_size_max, |cursor| cursor.non_zero_u32(property))?;
                }
                PropertyId::TopicAliasMaximum => cursor.once(property, &mut topic_alias_max, Cursor::u16)?,
                PropertyId::RequestResponseInformation => {
                    cursor.once(property, &mut response_information, |cursor| cursor.flag(property))?;
                }
                PropertyId::RequestProblemInformation => {
                    cursor.once(property, &mut problem_information, |cursor| cursor.flag(property))?;
                }
                PropertyId::UserProperty => cursor.user_property(&mut self.user_properties)?,
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
        self.receive_max = receive_max.unwrap_or(RECEIVE_MAX_DEFAULT);
        self.topic_alias_max = topic_alias_max.unwrap_or(0);
        self.request_response_information = response_information.unwrap_or(false);
        self.request_problem_information = problem_information.unwrap_or(true);
        Ok(())
    }
}

impl fmt::Debug for Connect {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = |secret: &Option<Bytes>| secret.as_ref().map(|_| "hidden");
        out.debug_struct("Connect")
            .field("version", &self.version)
            .field("clean_start", &self.clean_start)
            .field("keep_alive_s", &self.keep_alive_s)
            .field("client_id", &self.client_id)
            .field("username", &self.username)
            .field("password", &hidden(&self.password))
            .field("will", &self.will)
            .field("session_expiry_interval_s", &self.session_expiry_interval_s)
            .field("receive_max", &self.receive_max)
            .field("packet_size_max", &self.packet_size_max)
            .field("topic_alias_max", &self.topic_alias_max)
            .field("request_response_information", &self.request_response_information)
            .field("request_problem_information", &self.request_problem_information)
            .field("user_properties", &self.user_properties)
            .field("authentication_method", &self.authentication_method)
            .field("authentication_data", &hidden(&self.authentication_data))
            .finish()
    }
}

/// Protocol name and protocol version, refused at the first byte that is not one of ours
/// `[MQTT-3.1.2-1]`, `[MQTT-3.1.2-2]`. MQTT 3.1 called itself `MQIsdp`; it is known so that it can be told
/// from noise, not spoken.
fn read_protocol(cursor: &mut Cursor) -> Result<Version, Stop> {
    let name: &[u8] = match cursor.u16()? {
        4 => b"MQTT",
        6 => b"MQIsdp",
        _ => return Err(DecodeError::ProtocolName.into()),
    };
    for expected in name {
        if cursor.u8()? != *expected {
            return Err(DecodeError::ProtocolName.into());
        }
    }
    match (name, cursor.u8()?) {
        (b"MQTT", 4) => Ok(Version::V311),
        (b"MQTT", 5) => Ok(Version::V5),
        (_, level) => Err(DecodeError::ProtocolVersion(level).into()),
    }
}

/// Connect flags (section 3.1.2.3).
struct Flags {
    clean_start: bool,
    will: Option<(QoS, bool)>,
    username: bool,
    password: bool,
}

impl Flags {
    fn read(version: Version, cursor: &mut Cursor) -> Result<Self, Stop> {
        let byte = cursor.u8()?;
        let bit = |position: u8| byte & (1 << position) != 0;
        if bit(0) {
            return Err(DecodeError::ConnectFlagReserved.into());
        }
        let qos = QoS::try_from(byte >> 3 & 0b11).map_err(|_| DecodeError::WillQoS)?;
        let (will, retain) = (bit(2), bit(5));
        if !will && (qos != QoS::AtMostOnce || retain) {
            return Err(DecodeError::WillFlags.into());
        }
        let (username, password) = (bit(7), bit(6));
        if version == Version::V311 && password && !username {
            return Err(DecodeError::PasswordWithoutUsername.into());
        }
        Ok(Self { clean_start: bit(1), will: will.then_some((qos, retain)), username, password })
    }

    fn of(connect: &Connect) -> u8 {
        let will = connect
            .will
            .as_ref()
            .map_or(0, |will| 1 << 2 | will.qos.as_u8() << 3 | u8::from(will.retain) << 5);
        u8::from(connect.clean_start) << 1
            | will
            | u8::from(connect.password.is_some()) << 6
            | u8::from(connect.username.is_some()) << 7
    }
}

impl Will {
    fn read(version: Version, qos: QoS, retain: bool, cursor: &mut Cursor) -> Result<Self, Stop> {
        let mut will = Self {
            topic: Text::default(),
            payload: Bytes::new(),
            qos,
            retain,
            delay_interval_s: 0,
            message_expiry_interval_s: None,
            properties: Properties::default(),
        };
        if version == Version::V5 {
            will.read_properties(cursor)?;
        }
        will.topic = cursor.text()?;
        will.payload = cursor.binary()?;
        Ok(will)
    }

    fn read_properties(&mut self, cursor: &mut Cursor) -> Result<(), Stop> {
        let mut delay = None;
        cursor.enter_properties()?;
        while let Some(property) = cursor.next_property()? {
            match property {
                PropertyId::WillDelayInterval => cursor.once(property, &mut delay, Cursor::u32)?,
                PropertyId::MessageExpiryInterval => {
                    cursor.once(property, &mut self.message_expiry_interval_s, Cursor::u32)?;
                }
                _ if self.properties.read(property, cursor)? => {}
                _ => return Err(cursor.not_allowed(property)),
            }
        }
        self.delay_interval_s = delay.unwrap_or(0);
        Ok(())
    }
}

impl Body for Connect {
    fn first_byte(&self) -> u8 {
        PacketType::Connect.first_byte()
    }

    fn write<S: Sink>(&self, version: Version, sink: &mut S) {
        sink.text("MQTT");
        sink.u8(if version == Version::V5 { 5 } else { 4 });
        sink.u8(Flags::of(self));
        sink.u16(self.keep_alive_s);
        if version == Version::V5 {
            sink.property_list(self);
        }
        sink.text(&self.client_id);
        if let Some(will) = &self.will {
            if version == Version::V5 {
                sink.property_list(will);
            }
            sink.text(&will.topic);
            sink.binary(&will.payload);
        }
        if let Some(username) = &self.username {
            sink.text(username);
        }
        if let Some(password) = &self.password {
            sink.binary(password);
        }
    }
}

/// What is at its default is left out.
impl PropertyList for Connect {
    fn write<S: Sink>(&self, sink: &mut S) {
        let unless = |default: bool, value: bool| (value != default).then_some(value);
        let receive_max = Some(self.receive_max).filter(|max| *max != RECEIVE_MAX_DEFAULT);
        let topic_alias_max = Some(self.topic_alias_max).filter(|max| *max != 0);
        sink.property_u32(PropertyId::SessionExpiryInterval, self.session_expiry_interval_s);
        sink.property_u16(PropertyId::ReceiveMaximum, receive_max.map(NonZeroU16::get));
        sink.property_u32(PropertyId::MaximumPacketSize, self.packet_size_max.map(NonZeroU32::get));
        sink.property_u16(PropertyId::TopicAliasMaximum, topic_alias_max);
        sink.property_flag(
            PropertyId::RequestResponseInformation,
            unless(false, self.request_response_information),
        );
        sink.property_flag(
            PropertyId::RequestProblemInformation,
            unless(true, self.request_problem_information),
        );
        sink.user_properties(&self.user_properties);
        sink.property_text(PropertyId::AuthenticationMethod, self.authentication_method.as_deref());
        sink.property_binary(PropertyId::AuthenticationData, self.authentication_data.as_deref());
    }
}

impl PropertyList for Will {
    fn write<S: Sink>(&self, sink: &mut S) {
        let delay = Some(self.delay_interval_s).filter(|delay| *delay != 0);
        sink.property_u32(PropertyId::WillDelayInterval, delay);
        sink.property_u32(PropertyId::MessageExpiryInterval, self.message_expiry_interval_s);
        self.properties.write(sink);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::basic::Side;

    fn flags(version: Version, byte: u8) -> Result<Flags, Stop> {
        let bytes = Bytes::copy_from_slice(&[byte]);
        Flags::read(version, &mut Cursor::new(bytes, 0..1, PacketType::Connect, Side::Client, None, 0))
    }

    #[test]
    fn v5_3_1_2_3_connect_flags_are_consistent_or_refused() {
        for byte in 0..=u8::MAX {
            let will = byte & 0b0000_0100 != 0;
            let qos = byte >> 3 & 0b11;
            let good = byte & 1 == 0 && qos != 3 && (will || byte & 0b0011_1000 == 0);
            assert_eq!(flags(Version::V5, byte).is_ok(), good, "{byte:#010b}");
            let password_alone = byte & 0b1100_0000 == 0b0100_0000;
            assert_eq!(flags(Version::V311, byte).is_ok(), good && !password_alone, "{byte:#010b}");
        }
    }
}
