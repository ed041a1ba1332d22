//! A file per packet type: its struct, how it is read, how it is written.

mod ack;
mod auth;
mod connack;
mod connect;
mod disconnect;
mod publish;
mod suback;
mod subscribe;
mod unsuback;
mod unsubscribe;

pub use ack::{Ack, encode_ack};
pub use auth::Auth;
pub use connack::ConnAck;
pub use connect::{Connect, Will};
pub use disconnect::Disconnect;
pub(crate) use publish::check_flags as check_publish_flags;
pub use publish::{Publish, PublishExtras, PublishHead};
pub use suback::SubAck;
pub use subscribe::{RetainHandling, Subscribe, SubscribeOptions};
pub use unsuback::UnsubAck;
pub use unsubscribe::Unsubscribe;

use bytes::Bytes;

use crate::basic::{PacketType, Version};
use crate::error::{DecodeError, EncodeError};
use crate::read::{Cursor, Stop};
use crate::write::{self, Body, Sink};

/// One packet, of either version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// CONNECT
    Connect(Box<Connect>),
    /// CONNACK
    ConnAck(Box<ConnAck>),
    /// PUBLISH
    Publish(Publish),
    /// PUBACK
    PubAck(Ack),
    /// PUBREC
    PubRec(Ack),
    /// PUBREL
    PubRel(Ack),
    /// PUBCOMP
    PubComp(Ack),
    /// SUBSCRIBE
    Subscribe(Subscribe),
    /// SUBACK
    SubAck(SubAck),
    /// UNSUBSCRIBE
    Unsubscribe(Unsubscribe),
    /// UNSUBACK
    UnsubAck(UnsubAck),
    /// PINGREQ
    PingReq,
    /// PINGRESP
    PingResp,
    /// DISCONNECT
    Disconnect(Disconnect),
    /// AUTH
    Auth(Box<Auth>),
}

impl Packet {
    /// The same packet, with copies in the place of what it has of the read buffer: for packets that have to wait.
    /// CONNECT, which comes once, is left as it is.
    #[must_use]
    pub fn detached(mut self) -> Self {
        match &mut self {
            Self::Publish(publish) => {
                publish.topic = publish.topic.detached();
                publish.payload = Bytes::copy_from_slice(&publish.payload);
            }
            Self::Subscribe(subscribe) => {
                subscribe.filters.iter_mut().for_each(|(filter, _)| *filter = filter.detached());
            }
            Self::Unsubscribe(unsubscribe) => {
                unsubscribe.filters.iter_mut().for_each(|filter| *filter = filter.detached());
            }
            // The others have nothing of it.
            _ => {}
        }
        self
    }

    /// What it is.
    #[must_use]
    pub const fn kind(&self) -> PacketType {
        match self {
            Self::Connect(_) => PacketType::Connect,
            Self::ConnAck(_) => PacketType::ConnAck,
            Self::Publish(_) => PacketType::Publish,
            Self::PubAck(_) => PacketType::PubAck,
            Self::PubRec(_) => PacketType::PubRec,
            Self::PubRel(_) => PacketType::PubRel,
            Self::PubComp(_) => PacketType::PubComp,
            Self::Subscribe(_) => PacketType::Subscribe,
            Self::SubAck(_) => PacketType::SubAck,
            Self::Unsubscribe(_) => PacketType::Unsubscribe,
            Self::UnsubAck(_) => PacketType::UnsubAck,
            Self::PingReq => PacketType::PingReq,
            Self::PingResp => PacketType::PingResp,
            Self::Disconnect(_) => PacketType::Disconnect,
            Self::Auth(_) => PacketType::Auth,
        }
    }

    /// Appends the packet as `version` writes it. What only MQTT 5 has is left out of an MQTT 3.1.1 packet.
    /// A CONNECT is written for its own version.
    ///
    /// # Errors
    /// [`EncodeError`]; nothing has been appended then.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match self {
            Self::Connect(packet) => write::encode(&**packet, packet.version, out),
            Self::ConnAck(packet) => write::encode(&**packet, version, out),
            Self::Publish(packet) => packet.encode(version, out),
            Self::PubAck(packet) | Self::PubRec(packet) | Self::PubRel(packet) | Self::PubComp(packet) => {
                write::encode(&packet.of_kind(self.kind()), version, out)
            }
            Self::Subscribe(packet) => write::encode(packet, version, out),
            Self::SubAck(packet) => write::encode(packet, version, out),
            Self::Unsubscribe(packet) => write::encode(packet, version, out),
            Self::UnsubAck(packet) => write::encode(packet, version, out),
            Self::PingReq | Self::PingResp => write::encode(&Ping(self.kind()), version, out),
            Self::Disconnect(packet) => write::encode(packet, version, out),
            Self::Auth(packet) => write::encode(&**packet, version, out),
        }
    }

    /// How many bytes [`Self::encode`] appends: what a peer's Maximum Packet Size is compared with.
    ///
    /// # Errors
    /// [`EncodeError`], as [`Self::encode`].
    pub fn encoded_len(&self, version: Version) -> Result<usize, EncodeError> {
        match self {
            Self::Connect(packet) => write::encoded_len(&**packet, packet.version),
            Self::ConnAck(packet) => write::encoded_len(&**packet, version),
            Self::Publish(packet) => packet.head().encoded_len(version),
            Self::PubAck(packet) | Self::PubRec(packet) | Self::PubRel(packet) | Self::PubComp(packet) => {
                write::encoded_len(&packet.of_kind(self.kind()), version)
            }
            Self::Subscribe(packet) => write::encoded_len(packet, version),
            Self::SubAck(packet) => write::encoded_len(packet, version),
            Self::Unsubscribe(packet) => write::encoded_len(packet, version),
            Self::UnsubAck(packet) => write::encoded_len(packet, version),
            Self::PingReq | Self::PingResp => write::encoded_len(&Ping(self.kind()), version),
            Self::Disconnect(packet) => write::encoded_len(packet, version),
            Self::Auth(packet) => write::encoded_len(&**packet, version),
        }
    }

    /// Reads the body of a packet whose first byte was `first`.
    pub(crate) fn read(kind: PacketType, first: u8, cursor: &mut Cursor) -> Result<Self, Stop> {
        let packet = match kind {
            PacketType::Connect => Self::Connect(Box::new(Connect::read(cursor)?)),
            PacketType::ConnAck => Self::ConnAck(Box::new(ConnAck::read(cursor)?)),
            PacketType::Publish => Self::Publish(Publish::read(first, cursor)?),
            PacketType::PubAck => Self::PubAck(Ack::read(cursor)?),
            PacketType::PubRec => Self::PubRec(Ack::read(cursor)?),
            PacketType::PubRel => Self::PubRel(Ack::read(cursor)?),
            PacketType::PubComp => Self::PubComp(Ack::read(cursor)?),
            PacketType::Subscribe => Self::Subscribe(Subscribe::read(cursor)?),
            PacketType::SubAck => Self::SubAck(SubAck::read(cursor)?),
            PacketType::Unsubscribe => Self::Unsubscribe(Unsubscribe::read(cursor)?),
            PacketType::UnsubAck => Self::UnsubAck(UnsubAck::read(cursor)?),
            PacketType::PingReq => Self::PingReq,
            PacketType::PingResp => Self::PingResp,
            PacketType::Disconnect => Self::Disconnect(Disconnect::read(cursor)?),
            PacketType::Auth => Self::Auth(Box::new(Auth::read(cursor)?)),
        };
        cursor.finish()?;
        Ok(packet)
    }
}

/// Refuses at the fixed header what no body could mend: remaining lengths that a packet cannot have.
pub(crate) fn check_remaining_len(
    kind: PacketType,
    version: Option<Version>,
    len: usize,
) -> Result<(), DecodeError> {
    let v311 = version == Some(Version::V311);
    let possible = match kind {
        PacketType::PingReq | PacketType::PingResp => len == 0,
        PacketType::PubAck | PacketType::PubRec | PacketType::PubRel | PacketType::PubComp => {
            if v311 {
                len == 2
            } else {
                len >= 2
            }
        }
        PacketType::ConnAck | PacketType::UnsubAck if v311 => len == 2,
        PacketType::Disconnect if v311 => len == 0,
        _ => true,
    };
    if possible { Ok(()) } else { Err(DecodeError::RemainingLength(kind)) }
}

/// A packet that is all fixed header.
struct Ping(PacketType);

impl Body for Ping {
    fn first_byte(&self) -> u8 {
        self.0.first_byte()
    }

    fn write<S: Sink>(&self, _: Version, _: &mut S) {}
}
