//! Why bytes were refused, or why a packet cannot be written.

use crate::basic::PacketType;
use crate::property::PropertyId;
use crate::reason::ReasonCode;
use crate::text::TextError;

/// Why the bytes of a peer were refused. The connection cannot go on after it: where the next packet would
/// begin is not known.
///
/// [`DecodeError::reason_code`] is what the standard would have the peer told. Whether it may be told at all
/// (not before CONNECT, not in MQTT 3.1.1) is the session's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Packet type 0, which is reserved, or 15 in MQTT 3.1.1, where it is.
    #[error("packet type {0} is reserved")]
    PacketTypeReserved(u8),
    /// A packet that only the other side sends.
    #[error("{0} was sent by the wrong side")]
    PacketFromWrongSide(PacketType),
    /// The first packet of a connection was another than CONNECT `[MQTT-3.1.0-1]`.
    #[error("the first packet was {0}, not CONNECT")]
    FirstPacketNotConnect(PacketType),
    /// CONNECT once more, and for a protocol that is not spoken here `[MQTT-3.1.0-2]`. A second CONNECT that
    /// is well-formed is a packet like any other to the decoder.
    #[error("a second CONNECT")]
    SecondConnect,
    /// The lower half of the first byte is not what the standard prescribes `[MQTT-2.1.3-1]`.
    #[error("reserved flags of {0} are wrong")]
    FixedHeaderFlags(PacketType),
    /// QoS 3 in the first byte of a PUBLISH `[MQTT-3.3.1-4]`.
    #[error("PUBLISH with QoS 3")]
    PublishQoS,
    /// DUP in a PUBLISH with QoS 0 `[MQTT-3.3.1-2]`.
    #[error("PUBLISH with DUP and QoS 0")]
    PublishDup,
    /// The packet is larger than this side takes.
    #[error("packet of {bytes} bytes, where {bytes_max} are allowed")]
    PacketTooLarge {
        /// Its size, fixed header included.
        bytes: u32,
        /// The limit.
        bytes_max: u32,
    },
    /// A variable byte integer with more than four bytes, or with more than it needs `[MQTT-1.5.5-1]`.
    #[error("variable byte integer is too long")]
    VariableByteInteger,
    /// The remaining length is not one that this packet can have.
    #[error("{0} cannot have this remaining length")]
    RemainingLength(PacketType),
    /// A field runs past the end of its packet or of its property list.
    #[error("field runs past the end")]
    Truncated,
    /// Bytes behind the last field.
    #[error("bytes behind the last field")]
    TrailingBytes,
    /// A string that MQTT does not allow.
    #[error("string: {0}")]
    Text(TextError),
    /// Packet identifier 0 `[MQTT-2.2.1-3]`.
    #[error("packet identifier 0")]
    PacketIdZero,

    /// CONNECT for another protocol than MQTT `[MQTT-3.1.2-1]`; the standard has no code but 0x84 for it.
    #[error("protocol name is not MQTT")]
    ProtocolName,
    /// CONNECT for a version that is not spoken here `[MQTT-3.1.2-2]`, MQTT 3.1 (`MQIsdp`) included. From the
    /// number follows in which shape an answer would be understood.
    #[error("protocol version {0} is not supported")]
    ProtocolVersion(u8),
    /// The reserved bit of the connect flags `[MQTT-3.1.2-3]`.
    #[error("reserved connect flag is set")]
    ConnectFlagReserved,
    /// Will QoS or Will Retain without Will Flag `[MQTT-3.1.2-11]`, `[MQTT-3.1.2-13]`.
    #[error("will QoS or will retain without a will")]
    WillFlags,
    /// Will QoS 3 `[MQTT-3.1.2-12]`.
    #[error("will QoS 3")]
    WillQoS,
    /// MQTT 3.1.1: a password without a user name `[MQTT-3.1.2-22 of 3.1.1]`.
    #[error("password without user name")]
    PasswordWithoutUsername,

    /// A reserved bit of the acknowledge flags of a CONNACK `[MQTT-3.2.2-1]`.
    #[error("reserved acknowledge flag is set")]
    ConnAckFlags,
    /// Session Present beside a failure `[MQTT-3.2.2-6]`.
    #[error("session present in a CONNACK that refuses")]
    SessionPresentOnError,
    /// A reason code that does not exist, or not in this packet.
    #[error("reason code {code:#04x} in {packet}")]
    ReasonCode {
        /// The packet.
        packet: PacketType,
        /// The number.
        code: u8,
    },
    /// A reason code that only the other side sends in this packet.
    #[error("reason code {code} in {packet} was sent by the wrong side")]
    ReasonCodeFromWrongSide {
        /// The packet.
        packet: PacketType,
        /// The code.
        code: ReasonCode,
    },

    /// MQTT 3.1.1: an empty topic name `[MQTT-4.7.3-1]`.
    #[error("empty topic name")]
    TopicEmpty,
    /// An empty topic name without a Topic Alias to stand for it.
    #[error("empty topic name without topic alias")]
    TopicMissing,
    /// Topic Alias 0 `[MQTT-3.3.2-8]`.
    #[error("topic alias 0")]
    TopicAliasZero,
    /// A Response Topic that is no topic name: wildcards in it `[MQTT-3.3.2-14]`, or nothing `[MQTT-4.7.3-1]`.
    #[error("response topic is not a topic name")]
    ResponseTopic,

    /// SUBSCRIBE `[MQTT-3.8.3-2]` or UNSUBSCRIBE `[MQTT-3.10.3-2]` without a filter, or their answers without
    /// a code.
    #[error("{0} with nothing in it")]
    NoEntries(PacketType),
    /// Reserved bits of the subscription options `[MQTT-3.8.3-5]`; in MQTT 3.1.1 all but two are.
    #[error("reserved subscription option is set")]
    SubscribeOptionsReserved,
    /// A subscription with QoS 3.
    #[error("subscription with QoS 3")]
    SubscribeQoS,
    /// MQTT 3.1.1: a subscription with QoS 3 `[MQTT-3.8.3-4 of 3.1.1]`.
    #[error("subscription with QoS 3")]
    SubscribeQoSV311,
    /// Retain Handling 3.
    #[error("retain handling 3")]
    RetainHandling,
    /// No Local on a shared subscription `[MQTT-3.8.3-4]`.
    #[error("no local on a shared subscription")]
    NoLocalShared,

    /// A property that does not exist.
    #[error("unknown property {0:#04x}")]
    PropertyUnknown(u32),
    /// A property that this packet cannot have.
    #[error("property {property} is not allowed in {packet}")]
    PropertyNotAllowed {
        /// The packet; CONNECT for the properties of a will too.
        packet: PacketType,
        /// The property.
        property: PropertyId,
    },
    /// A property that only the other side sends in this packet.
    #[error("property {0} was sent by the wrong side")]
    PropertyFromWrongSide(PropertyId),
    /// A property twice that may be there once.
    #[error("property {0} twice")]
    PropertyTwice(PropertyId),
    /// A value that the property cannot have.
    #[error("property {0} cannot have this value")]
    PropertyValue(PropertyId),
    /// Authentication Data without Authentication Method.
    #[error("authentication data without authentication method")]
    AuthenticationDataAlone,
    /// AUTH without Authentication Method.
    #[error("AUTH without authentication method")]
    AuthenticationMethodMissing,
    /// More User Properties in one packet than this side takes.
    #[error("too many user properties")]
    UserProperties,
}

impl DecodeError {
    /// The reason code that names it.
    #[must_use]
    pub const fn reason_code(&self) -> ReasonCode {
        match self {
            Self::PacketTypeReserved(_)
            | Self::FixedHeaderFlags(_)
            | Self::PublishQoS
            | Self::PublishDup
            | Self::VariableByteInteger
            | Self::RemainingLength(_)
            | Self::Truncated
            | Self::TrailingBytes
            | Self::Text(_)
            | Self::ConnectFlagReserved
            | Self::WillFlags
            | Self::WillQoS
            | Self::PasswordWithoutUsername
            | Self::ConnAckFlags
            | Self::ReasonCode { .. }
            | Self::TopicEmpty
            | Self::SubscribeOptionsReserved
            | Self::SubscribeQoSV311
            | Self::PropertyUnknown(_)
            | Self::PropertyNotAllowed { .. } => ReasonCode::MalformedPacket,

            Self::PacketFromWrongSide(_)
            | Self::FirstPacketNotConnect(_)
            | Self::SecondConnect
            | Self::PacketIdZero
            | Self::SessionPresentOnError
            | Self::ReasonCodeFromWrongSide { .. }
            | Self::TopicMissing
            | Self::ResponseTopic
            | Self::NoEntries(_)
            | Self::SubscribeQoS
            | Self::RetainHandling
            | Self::NoLocalShared
            | Self::PropertyFromWrongSide(_)
            | Self::PropertyTwice(_)
            | Self::PropertyValue(_)
            | Self::AuthenticationDataAlone
            | Self::AuthenticationMethodMissing => ReasonCode::ProtocolError,

            Self::ProtocolName | Self::ProtocolVersion(_) => ReasonCode::UnsupportedProtocolVersion,
            Self::TopicAliasZero => ReasonCode::TopicAliasInvalid,
            Self::PacketTooLarge { .. } => ReasonCode::PacketTooLarge,
            Self::UserProperties => ReasonCode::QuotaExceeded,
        }
    }
}

/// Why a packet cannot be written. Nothing has been written then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A string or binary value is longer than 65,535 bytes.
    #[error("a string or binary value is longer than 65,535 bytes")]
    FieldTooLong,
    /// A string has U+0000 in it `[MQTT-1.5.4-2]`.
    #[error("a string contains the null character U+0000")]
    NullCharacter,
    /// The remaining length or a property length is over 268,435,455.
    #[error("the packet is larger than MQTT can carry")]
    PacketTooLarge,
    /// A PUBLISH with QoS 1 or 2 without a packet identifier `[MQTT-2.2.1-3]`.
    #[error("PUBLISH with QoS 1 or 2 without packet identifier")]
    PacketIdMissing,
    /// A Subscription Identifier is 0 or over 268,435,455.
    #[error("subscription identifier is not 1 to 268,435,455")]
    SubscriptionId,
    /// This version has no such packet.
    #[error("MQTT 3.1.1 has no {0}")]
    NotInV311(PacketType),
}
