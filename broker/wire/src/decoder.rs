//! Framing, direction, "CONNECT first", and the rule for packets that are not whole yet.

use bytes::{Buf, Bytes, BytesMut};

use crate::basic::{PacketId, PacketType, Side, Version};
use crate::error::DecodeError;
use crate::packet::{self, Ack, Packet};
use crate::read::{Cursor, Stop};

/// How much of a packet that is not whole is parsed ahead, in bytes. It is parsed anew with every arrival, so
/// this bounds what somebody who sends single bytes can cost.
const AHEAD_BYTES_MAX: usize = 4096;

/// Bytes in, packets out, for one direction of one connection.
///
/// It refuses at the first byte that shows a fault: a wrong first byte before the length has arrived, a packet
/// that is too large before its body, a body that is broken in its first 4 KiB before the rest of it. Bytes
/// that arrive in pieces are answered as if they had arrived at once. After an error it stays failed.
#[derive(Debug)]
pub struct Decoder {
    sender: Side,
    /// Known from the start to the client, and to the server once a CONNECT has told.
    version: Option<Version>,
    /// Whether the CONNECT is behind; a client's decoder does not wait for one.
    connected: bool,
    packet_bytes_max: u32,
    user_properties_max: u32,
    failed: Option<DecodeError>,
}

impl Decoder {
    /// Reads what a client sends, beginning with its CONNECT. Packets over `packet_bytes_max`, fixed header
    /// included, are refused, and so are packets with more than `user_properties_max` User Properties.
    #[must_use]
    pub const fn server(packet_bytes_max: u32, user_properties_max: usize) -> Self {
        Self {
            sender: Side::Client,
            version: None,
            connected: false,
            packet_bytes_max,
            // There is one decoder for every connection: a number that no packet comes near is cut short.
            user_properties_max: if user_properties_max > u32::MAX as usize {
                u32::MAX
            } else {
                user_properties_max as u32
            },
            failed: None,
        }
    }

    /// Reads what a server sends to a client that speaks `version`.
    #[must_use]
    pub const fn client(version: Version, packet_bytes_max: u32) -> Self {
        Self {
            sender: Side::Server,
            version: Some(version),
            connected: true,
            packet_bytes_max,
            user_properties_max: u32::MAX,
            failed: None,
        }
    }

    /// Changes the limit, for packets whose length has not been decided about yet.
    pub const fn set_packet_bytes_max(&mut self, packet_bytes_max: u32) {
        self.packet_bytes_max = packet_bytes_max;
    }

    /// The version of the connection: known as soon as the protocol version of the CONNECT has been read, even
    /// where that CONNECT is refused further on.
    #[must_use]
    pub const fn version(&self) -> Option<Version> {
        self.version
    }

    /// The version of the connection, if its CONNECT is behind, `sender` is who is listened to, and nothing was
    /// refused.
    pub(crate) fn listens_to(&self, sender: Side) -> Option<Version> {
        let listens = self.connected && self.sender == sender && self.failed.is_none();
        self.version.filter(|_| listens)
    }

    /// Whether a packet of so many bytes is within the limit.
    pub(crate) fn takes(&self, packet_len: usize) -> bool {
        // Four bytes of length cannot say more than 28 bits.
        u32::try_from(packet_len).unwrap_or(u32::MAX) <= self.packet_bytes_max
    }

    /// Takes one whole packet off the front of `input`. `None`: more bytes are needed. To be called again
    /// until it says so.
    ///
    /// # Errors
    /// [`DecodeError`] where the bytes are refused; the same again on every later call.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Packet>, DecodeError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        match self.next(input) {
            Ok(packet) => Ok(Some(packet)),
            Err(Stop::Incomplete) => Ok(None),
            Err(Stop::Fault(error)) => {
                self.failed = Some(error);
                Err(error)
            }
        }
    }

    fn next(&mut self, input: &mut BytesMut) -> Result<Packet, Stop> {
        let header = self.fixed_header(input)?;
        if input.len() < header.packet_len {
            if input.len() <= AHEAD_BYTES_MAX {
                self.body(&header, Bytes::copy_from_slice(input))?;
            }
            return Err(Stop::Incomplete);
        }
        if let Some(packet) = header.short_packet(input)? {
            input.advance(header.packet_len);
            return Ok(packet);
        }
        let packet = self.body(&header, input.split_to(header.packet_len).freeze())?;
        self.connected = true;
        Ok(packet)
    }

    fn fixed_header(&self, input: &[u8]) -> Result<FixedHeader, Stop> {
        let (&first, behind) = input.split_first().ok_or(Stop::Incomplete)?;
        let kind = self.packet_type(first)?;
        let (remaining, length_len) = remaining_len(behind)?;
        let packet_len = 1 + length_len + remaining;
        if !self.takes(packet_len) {
            let bytes = u32::try_from(packet_len).unwrap_or(u32::MAX);
            return Err(DecodeError::PacketTooLarge { bytes, bytes_max: self.packet_bytes_max }.into());
        }
        packet::check_remaining_len(kind, self.version, remaining)?;
        Ok(FixedHeader { first, kind, body_at: 1 + length_len, packet_len })
    }

    /// What the first byte alone can be refused for.
    fn packet_type(&self, first: u8) -> Result<PacketType, DecodeError> {
        let kind = PacketType::from_first_byte(first).ok_or(DecodeError::PacketTypeReserved(0))?;
        if !self.connected && kind != PacketType::Connect {
            return Err(DecodeError::FirstPacketNotConnect(kind));
        }
        if kind == PacketType::Auth && self.version == Some(Version::V311) {
            return Err(DecodeError::PacketTypeReserved(kind as u8));
        }
        if !kind.sent_by(self.sender, self.version.unwrap_or(Version::V5)) {
            return Err(DecodeError::PacketFromWrongSide(kind));
        }
        if kind == PacketType::Publish {
            packet::check_publish_flags(first)?;
        } else if first != kind.first_byte() {
            return Err(DecodeError::FixedHeaderFlags(kind));
        }
        Ok(kind)
    }

    fn body(&mut self, header: &FixedHeader, bytes: Bytes) -> Result<Packet, Stop> {
        let body = header.body_at..header.packet_len;
        let mut cursor = Cursor::new(
            bytes,
            body,
            header.kind,
            self.sender,
            self.version,
            self.user_properties_max as usize,
        );
        let packet = Packet::read(header.kind, header.first, &mut cursor);
        self.version = cursor.version;
        match packet {
            Err(Stop::Fault(DecodeError::ProtocolName | DecodeError::ProtocolVersion(_)))
                if self.connected =>
            {
                Err(DecodeError::SecondConnect.into())
            }
            packet => packet,
        }
    }
}

struct FixedHeader {
    first: u8,
    kind: PacketType,
    body_at: usize,
    /// All of the packet.
    packet_len: usize,
}

impl FixedHeader {
    /// The packets that are all over after two or four bytes. They keep nothing of the read buffer, so it is
    /// not shared for their sake: a client that only receives and acknowledges never makes it grow anew.
    fn short_packet(&self, input: &[u8]) -> Result<Option<Packet>, DecodeError> {
        let ack = match self.kind {
            PacketType::PingReq => return Ok(Some(Packet::PingReq)),
            PacketType::PingResp => return Ok(Some(Packet::PingResp)),
            PacketType::PubAck => Packet::PubAck,
            PacketType::PubRec => Packet::PubRec,
            PacketType::PubRel => Packet::PubRel,
            PacketType::PubComp => Packet::PubComp,
            _ => return Ok(None),
        };
        let Some(&[high, low]) = input.get(self.body_at..self.packet_len) else { return Ok(None) };
        let id = PacketId::new(u16::from_be_bytes([high, low])).ok_or(DecodeError::PacketIdZero)?;
        Ok(Some(ack(Ack::new(id))))
    }
}

/// The remaining length, and how many bytes it took `[MQTT-1.5.5-1]`.
pub(crate) fn remaining_len(bytes: &[u8]) -> Result<(usize, usize), Stop> {
    let mut value = 0;
    for position in 0..4 {
        let byte = *bytes.get(position).ok_or(Stop::Incomplete)?;
        value |= usize::from(byte & 0x7F) << (7 * position);
        if byte & 0x80 == 0 {
            let padded = byte == 0 && position > 0;
            return if padded {
                Err(DecodeError::VariableByteInteger.into())
            } else {
                Ok((value, position + 1))
            };
        }
    }
    Err(DecodeError::VariableByteInteger.into())
}
