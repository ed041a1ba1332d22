//! What the tests share: bytes written as hex, a decoder for each end, arbitrary packets.
#![allow(dead_code, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

pub(crate) mod arbitrary;

use bytes::BytesMut;
use proptest::test_runner::Config;
use weirmq_wire::{DecodeError, Decoder, Packet, Side, Version};

/// Large enough for every packet here.
pub(crate) const PACKET_BYTES_MAX: u32 = 1 << 20;
/// Small enough to be exceeded in a line of hex.
pub(crate) const USER_PROPERTIES_MAX: usize = 8;

/// CONNECT, clean start, keep alive 60, client id "t", of MQTT 5 and of MQTT 3.1.1.
pub(crate) const CONNECT_V5: &str = "100e 00044d515454 05 02 003c 00 0001 74";
pub(crate) const CONNECT_V311: &str = "100d 00044d515454 04 02 003c 0001 74";

/// Who reads, and what has been read before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// A server that waits for a CONNECT.
    Fresh,
    /// A server behind a CONNECT.
    Server(Version),
    /// A client.
    Client(Version),
}

impl Reader {
    pub(crate) fn of(side: Side, version: Version) -> Self {
        match side {
            Side::Client => Self::Server(version),
            Side::Server => Self::Client(version),
        }
    }

    pub(crate) fn decoder(self) -> Decoder {
        let mut server = Decoder::server(PACKET_BYTES_MAX, USER_PROPERTIES_MAX);
        match self {
            Self::Fresh => server,
            Self::Client(version) => Decoder::client(version, PACKET_BYTES_MAX),
            Self::Server(version) => {
                let connect = if version == Version::V5 { CONNECT_V5 } else { CONNECT_V311 };
                let mut input = BytesMut::from(&hex(connect)[..]);
                assert!(matches!(server.decode(&mut input), Ok(Some(Packet::Connect(_)))));
                assert_eq!(server.version(), Some(version));
                server
            }
        }
    }
}

/// Everything that a decoder says about bytes that arrive in these pieces.
pub(crate) type Answer = (Vec<Packet>, Option<DecodeError>);

pub(crate) fn decode_pieces<'a>(mut decoder: Decoder, pieces: impl IntoIterator<Item = &'a [u8]>) -> Answer {
    let mut input = BytesMut::new();
    let mut packets = Vec::new();
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut input) {
                Ok(Some(packet)) => packets.push(packet),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(decoder.decode(&mut input), Err(error), "a decoder stays failed");
                    return (packets, Some(error));
                }
            }
        }
    }
    (packets, None)
}

/// Decodes whole, byte by byte and split at every offset, and finds no difference.
pub(crate) fn decode_every_way(reader: Reader, bytes: &[u8]) -> Answer {
    let whole = decode_pieces(reader.decoder(), [bytes]);
    assert_eq!(decode_pieces(reader.decoder(), bytes.chunks(1)), whole, "byte by byte: {bytes:02x?}");
    for at in 0..=bytes.len() {
        let (front, back) = bytes.split_at(at);
        assert_eq!(decode_pieces(reader.decoder(), [front, back]), whole, "split at {at}: {bytes:02x?}");
    }
    whole
}

pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    assert!(digits.len().is_multiple_of(2), "half a byte in {text:?}");
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// Failures are told, not written into the source folder; what they teach becomes a row of a table.
pub(crate) fn config(cases: u32) -> Config {
    Config { failure_persistence: None, ..Config::with_cases(cases) }
}
