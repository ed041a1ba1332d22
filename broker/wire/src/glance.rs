//! The short ways for what most packets are: a PUBLISH without properties, and acknowledgements with nothing but their
//! packet identifier, that have arrived whole.

use crate::basic::{PacketId, PacketType, QoS, Side, Version};
use crate::decoder::{Decoder, remaining_len};
use crate::packet;

/// A PUBLISH without properties, as it stands in the read buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Glance<'a> {
    /// DUP.
    pub dup: bool,
    /// QoS.
    pub qos: QoS,
    /// RETAIN.
    pub retain: bool,
    /// The topic name as bytes; nothing has been said about what they are, but that there are some. Whoever finds
    /// them equal to a topic that was decoded before knows all about them.
    pub topic: &'a [u8],
    /// There with QoS 1 and 2, and only there.
    pub packet_id: Option<PacketId>,
    /// What it says.
    pub payload: &'a [u8],
    /// All of the packet.
    pub frame: &'a [u8],
}

/// Acknowledgements of one kind that follow one another, each with nothing but its packet identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acks<'a> {
    /// PUBACK, PUBREC, PUBREL or PUBCOMP.
    pub kind: PacketType,
    frames: &'a [[u8; ACK_BYTES]],
}

/// The size of an acknowledgement with nothing but its packet identifier.
const ACK_BYTES: usize = 4;

impl Acks<'_> {
    /// What they acknowledge, in order.
    pub fn ids(&self) -> impl Iterator<Item = PacketId> + Clone {
        self.frames.iter().filter_map(|[.., high, low]| PacketId::new(u16::from_be_bytes([*high, *low])))
    }

    /// How many bytes they take.
    #[must_use]
    pub const fn bytes_len(&self) -> usize {
        self.frames.len() * ACK_BYTES
    }
}

impl Decoder {
    /// The acknowledgements that `input` begins with, up to `max` of them, if they have arrived whole and
    /// [`Decoder::decode`] takes them. Nothing is taken off `input`. `None` says nothing, as with [`Decoder::glance`].
    #[must_use]
    pub fn glance_at_acks<'a>(&self, input: &'a [u8], max: usize) -> Option<Acks<'a>> {
        let &first = input.first()?;
        let kind = match PacketType::from_first_byte(first)? {
            kind @ (PacketType::PubAck | PacketType::PubRec | PacketType::PubRel | PacketType::PubComp) => {
                kind
            }
            _ => return None,
        };
        self.listens_to(Side::Client)?;
        if first != kind.first_byte() || !self.takes(ACK_BYTES) {
            return None;
        }
        let (frames, _) = input.as_chunks();
        let is_another = |frame: &[u8; ACK_BYTES]| matches!(*frame, [a, 2, high, low] if a == first && (high, low) != (0, 0));
        let count = frames.iter().take(max).take_while(|frame| is_another(frame)).count();
        let frames = frames.get(..count).filter(|frames| !frames.is_empty())?;
        Some(Acks { kind, frames })
    }

    /// The PUBLISH without properties that `input` begins with, if it is one that has arrived whole and that
    /// [`Decoder::decode`] takes provided that its topic is a text. Nothing is taken off `input`, and whoever uses what
    /// is seen takes it off himself. `None` says nothing: then it is for `decode` to find out what is there.
    #[must_use]
    pub fn glance<'a>(&self, input: &'a [u8]) -> Option<Glance<'a>> {
        let version = self.listens_to(Side::Client)?;
        let (&first, behind) = input.split_first()?;
        if PacketType::from_first_byte(first) != Some(PacketType::Publish) {
            return None;
        }
        packet::check_publish_flags(first).ok()?;
        let (remaining, length_len) = remaining_len(behind).ok()?;
        let frame = input.get(..1 + length_len + remaining)?;
        if !self.takes(frame.len()) {
            return None;
        }
        let (topic_len, rest) = frame.get(1 + length_len..)?.split_first_chunk()?;
        let (topic, rest) = rest.split_at_checked(u16::from_be_bytes(*topic_len).into())?;
        if topic.is_empty() {
            return None;
        }
        let qos = QoS::try_from(first >> 1 & 0b11).ok()?;
        let (packet_id, rest) = match qos {
            QoS::AtMostOnce => (None, rest),
            _ => {
                let (id, rest) = rest.split_first_chunk()?;
                (Some(PacketId::new(u16::from_be_bytes(*id))?), rest)
            }
        };
        let payload = match version {
            Version::V311 => rest,
            Version::V5 => rest.strip_prefix(&[0])?,
        };
        let (dup, retain) = (first & 0b1000 != 0, first & 0b0001 != 0);
        Some(Glance { dup, qos, retain, topic, packet_id, payload, frame })
    }
}
