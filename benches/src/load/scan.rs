//! Packets found in what was read, without a copy. Only what a load is made of is looked into: PUBLISH and the
//! four acknowledgements. The codec of the broker is for everything else; it makes a packet out of each, which
//! would cost the generator more than the broker under test.

use weirmq_wire::{DecodeError, PacketType, ReasonCode, Version};

/// A packet from the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// PUBLISH.
    Publish {
        /// 0 to 2.
        qos: u8,
        /// Whether it is a retained message, read back.
        retain: bool,
        /// 0 with QoS 0.
        id: u16,
        /// What it says.
        payload: &'a [u8],
    },
    /// PUBACK, PUBREC, PUBREL or PUBCOMP.
    Ack {
        /// Which.
        kind: PacketType,
        /// Of which message.
        id: u16,
        /// Whether it says that the message was refused.
        refused: Option<u8>,
    },
    /// Another packet, whole.
    Other(&'a [u8]),
}

/// The first packet of `input` and its size. `None`: it is not whole yet.
///
/// # Errors
/// [`DecodeError`] where it is no packet.
pub fn scan(input: &[u8], version: Version) -> Result<Option<(Frame<'_>, usize)>, DecodeError> {
    let Some((&first, behind)) = input.split_first() else { return Ok(None) };
    let Some((remaining, length_len)) = variable_int(behind)? else { return Ok(None) };
    let size = 1 + length_len + remaining;
    let (Some(whole), Some(body)) = (input.get(..size), input.get(1 + length_len..size)) else {
        return Ok(None);
    };
    let frame = match first >> 4 {
        3 => publish(first, body, version).ok_or(DecodeError::RemainingLength(PacketType::Publish))?,
        4 => ack(PacketType::PubAck, body)?,
        5 => ack(PacketType::PubRec, body)?,
        6 => ack(PacketType::PubRel, body)?,
        7 => ack(PacketType::PubComp, body)?,
        _ => Frame::Other(whole),
    };
    Ok(Some((frame, size)))
}

/// `None`: the body is shorter than what it must hold.
fn publish(first: u8, body: &[u8], version: Version) -> Option<Frame<'_>> {
    let (topic_len, behind) = body.split_first_chunk()?;
    let mut rest = behind.get(usize::from(u16::from_be_bytes(*topic_len))..)?;
    let qos = first >> 1 & 0b11;
    let mut id = 0;
    if qos != 0 {
        let (number, behind) = rest.split_first_chunk()?;
        id = u16::from_be_bytes(*number);
        rest = behind;
    }
    if version == Version::V5 {
        let (len, length_len) = variable_int(rest).ok()??;
        rest = rest.get(length_len + len..)?;
    }
    Some(Frame::Publish { qos, retain: first & 1 != 0, id, payload: rest })
}

fn ack(kind: PacketType, body: &[u8]) -> Result<Frame<'_>, DecodeError> {
    let (id, rest) = body.split_first_chunk().ok_or(DecodeError::RemainingLength(kind))?;
    let refused = rest.first().copied().filter(|code| *code >= ReasonCode::UnspecifiedError as u8);
    Ok(Frame::Ack { kind, id: u16::from_be_bytes(*id), refused })
}

/// A variable byte integer and its size; `None` where it is not whole.
fn variable_int(bytes: &[u8]) -> Result<Option<(usize, usize)>, DecodeError> {
    let mut value = 0;
    for (place, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * place);
        if byte & 0x80 == 0 {
            return Ok(Some((value, place + 1)));
        }
    }
    if bytes.len() < 4 { Ok(None) } else { Err(DecodeError::VariableByteInteger) }
}

#[cfg(test)]
mod tests {
    use weirmq_wire::{Ack, ConnAck, Packet, PacketId, PublishExtras, QoS, Text};

    use super::*;

    fn encoded(packet: &Packet, version: Version) -> Vec<u8> {
        let mut out = Vec::new();
        packet.encode(version, &mut out).unwrap();
        out
    }

    #[test]
    fn what_the_codec_writes_is_found_whole_and_only_when_it_is_whole() {
        let id = PacketId::new(9).unwrap();
        let publish = |qos, extras| {
            Packet::Publish(weirmq_wire::Publish {
                dup: false,
                qos,
                retain: false,
                topic: Text::new("a/b").unwrap(),
                packet_id: (qos != QoS::AtMostOnce).then_some(id),
                extras,
                payload: vec![1_u8; 300].into(),
            })
        };
        let extras =
            Box::new(PublishExtras { message_expiry_interval_s: Some(3), ..PublishExtras::default() });
        for version in [Version::V311, Version::V5] {
            for packet in [publish(QoS::AtMostOnce, None), publish(QoS::ExactlyOnce, Some(extras.clone()))] {
                let bytes = encoded(&packet, version);
                for short in 0..bytes.len() {
                    assert_eq!(scan(&bytes[..short], version), Ok(None));
                }
                let Ok(Some((Frame::Publish { qos, id, payload, .. }, size))) = scan(&bytes, version) else {
                    panic!("a PUBLISH")
                };
                assert_eq!((size, payload), (bytes.len(), &[1_u8; 300][..]));
                assert_eq!(id, if qos == 0 { 0 } else { 9 });
            }
            let other = encoded(&Packet::ConnAck(Box::new(ConnAck::new(ReasonCode::Success))), version);
            assert_eq!(scan(&other, version), Ok(Some((Frame::Other(&other), other.len()))));
        }
    }

    #[test]
    fn a_refusal_is_told_from_an_acknowledgement() {
        let id = PacketId::new(9).unwrap();
        for (code, refused) in [
            (ReasonCode::Success, None),
            (ReasonCode::NoMatchingSubscribers, None),
            (ReasonCode::QuotaExceeded, Some(0x97)),
        ] {
            let bytes = encoded(&Packet::PubAck(Ack::with_code(id, code)), Version::V5);
            let frame = Frame::Ack { kind: PacketType::PubAck, id: 9, refused };
            assert_eq!(scan(&bytes, Version::V5), Ok(Some((frame, bytes.len()))));
        }
    }

    #[test]
    fn a_publish_that_is_too_short_for_its_topic_is_refused() {
        assert!(scan(&[0x30, 2, 0, 9], Version::V311).is_err());
        assert!(scan(&[0x30, 0x80, 0x80, 0x80, 0x80], Version::V311).is_err());
    }
}
