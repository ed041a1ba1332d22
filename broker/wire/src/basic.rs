//! The small words: quality of service, version, packet type, packet identifier, side.

use std::fmt;
use std::num::NonZeroU16;

/// The identifier of a packet that expects an answer. Never 0 `[MQTT-2.2.1-3]`.
pub type PacketId = NonZeroU16;

/// Quality of Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum QoS {
    /// 0: sent once, never acknowledged.
    #[default]
    AtMostOnce = 0,
    /// 1: sent until acknowledged.
    AtLeastOnce = 1,
    /// 2: a four-part handshake.
    ExactlyOnce = 2,
}

impl QoS {
    /// Its number, 0 to 2.
    #[must_use]
    pub const fn as_u8(self) -> u8 {
        self as u8
    }
}

/// A number that is no [`QoS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("QoS is 0, 1 or 2, not {0}")]
pub struct QoSError(pub u8);

impl TryFrom<u8> for QoS {
    type Error = QoSError;

    fn try_from(number: u8) -> Result<Self, QoSError> {
        match number {
            0 => Ok(Self::AtMostOnce),
            1 => Ok(Self::AtLeastOnce),
            2 => Ok(Self::ExactlyOnce),
            _ => Err(QoSError(number)),
        }
    }
}

/// Protocol version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// MQTT 3.1.1, protocol level 4.
    V311,
    /// MQTT 5.0, protocol version 5.
    V5,
}

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::V311 => "3.1.1",
            Self::V5 => "5.0",
        })
    }
}

/// One of the two ends of a connection: who sends a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// Who opened the connection and sends CONNECT.
    Client,
    /// Who answers with CONNACK.
    Server,
}

/// What a packet is: the upper half of its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum PacketType {
    /// Client to server: the first packet of a connection.
    Connect = 1,
    /// Server to client: the answer to it.
    ConnAck = 2,
    /// Either way: an application message.
    Publish = 3,
    /// Either way: the answer to a PUBLISH with QoS 1.
    PubAck = 4,
    /// Either way: QoS 2, first answer.
    PubRec = 5,
    /// Either way: QoS 2, the sender lets go of the packet identifier.
    PubRel = 6,
    /// Either way: QoS 2, done.
    PubComp = 7,
    /// Client to server.
    Subscribe = 8,
    /// Server to client.
    SubAck = 9,
    /// Client to server.
    Unsubscribe = 10,
    /// Server to client.
    UnsubAck = 11,
    /// Client to server.
    PingReq = 12,
    /// Server to client.
    PingResp = 13,
    /// Client to server; with MQTT 5 either way.
    Disconnect = 14,
    /// Either way, MQTT 5 only.
    Auth = 15,
}

impl PacketType {
    /// All of them, by number.
    pub const ALL: [Self; 15] = [
        Self::Connect,
        Self::ConnAck,
        Self::Publish,
        Self::PubAck,
        Self::PubRec,
        Self::PubRel,
        Self::PubComp,
        Self::Subscribe,
        Self::SubAck,
        Self::Unsubscribe,
        Self::UnsubAck,
        Self::PingReq,
        Self::PingResp,
        Self::Disconnect,
        Self::Auth,
    ];

    /// Its name as the standard writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::ConnAck => "CONNACK",
            Self::Publish => "PUBLISH",
            Self::PubAck => "PUBACK",
            Self::PubRec => "PUBREC",
            Self::PubRel => "PUBREL",
            Self::PubComp => "PUBCOMP",
            Self::Subscribe => "SUBSCRIBE",
            Self::SubAck => "SUBACK",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::UnsubAck => "UNSUBACK",
            Self::PingReq => "PINGREQ",
            Self::PingResp => "PINGRESP",
            Self::Disconnect => "DISCONNECT",
            Self::Auth => "AUTH",
        }
    }

    /// The type in the upper half of a packet's first byte; 0 is reserved.
    pub(crate) const fn from_first_byte(byte: u8) -> Option<Self> {
        Some(match byte >> 4 {
            1 => Self::Connect,
            2 => Self::ConnAck,
            3 => Self::Publish,
            4 => Self::PubAck,
            5 => Self::PubRec,
            6 => Self::PubRel,
            7 => Self::PubComp,
            8 => Self::Subscribe,
            9 => Self::SubAck,
            10 => Self::Unsubscribe,
            11 => Self::UnsubAck,
            12 => Self::PingReq,
            13 => Self::PingResp,
            14 => Self::Disconnect,
            15 => Self::Auth,
            _ => return None,
        })
    }

    /// The first byte of a packet of this type, with the flags that the standard reserves
    /// `[MQTT-2.1.3-1]`. A PUBLISH has flags of its own.
    pub(crate) const fn first_byte(self) -> u8 {
        let flags = match self {
            Self::PubRel | Self::Subscribe | Self::Unsubscribe => 0b0010,
            _ => 0,
        };
        (self as u8) << 4 | flags
    }

    /// Whether `side` may send it. AUTH, and DISCONNECT from a server, came with MQTT 5.
    pub(crate) const fn sent_by(self, side: Side, version: Version) -> bool {
        match self {
            Self::Connect | Self::Subscribe | Self::Unsubscribe | Self::PingReq => {
                matches!(side, Side::Client)
            }
            Self::ConnAck | Self::SubAck | Self::UnsubAck | Self::PingResp => matches!(side, Side::Server),
            Self::Publish | Self::PubAck | Self::PubRec | Self::PubRel | Self::PubComp => true,
            Self::Disconnect => matches!(side, Side::Client) || matches!(version, Version::V5),
            Self::Auth => matches!(version, Version::V5),
        }
    }
}

impl fmt::Display for PacketType {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}
