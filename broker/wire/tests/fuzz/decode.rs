//! Bytes at the decoder, of both sides and both versions, cut wherever.

use bytes::BytesMut;
use weirmq_wire::{DecodeError, Decoder, Packet, Version};

const PACKET_BYTES_MAX: u32 = 4096;
const USER_PROPERTIES_MAX: usize = 4;

/// CONNECT, clean start, client id "t".
const CONNECT_V5: &[u8] = b"\x10\x0e\0\x04MQTT\x05\x02\0\x3c\0\0\x01t";
const CONNECT_V311: &[u8] = b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01t";

/// The first byte says who reads, the second how the rest is cut.
///
/// # Panics
/// Where bytes get another answer when they arrive in other pieces, or where a packet that was taken is not written
/// again as the same packet.
pub(crate) fn decode(input: &[u8]) {
    let [reader, cuts, bytes @ ..] = input else { return };
    let whole = answers(*reader, [bytes]);
    assert_eq!(answers(*reader, bytes.chunks(1)), whole, "byte by byte");
    assert_eq!(answers(*reader, pieces(bytes, *cuts)), whole, "cut by {cuts}");
    let (packets, version, _) = whole;
    for packet in packets {
        again(*reader, &packet, version);
    }
}

fn decoder(reader: u8) -> Decoder {
    let mut server = Decoder::server(PACKET_BYTES_MAX, USER_PROPERTIES_MAX);
    let connect = match reader % 5 {
        0 => return server,
        1 => return Decoder::client(Version::V5, PACKET_BYTES_MAX),
        2 => return Decoder::client(Version::V311, PACKET_BYTES_MAX),
        3 => CONNECT_V5,
        _ => CONNECT_V311,
    };
    assert!(matches!(server.decode(&mut BytesMut::from(connect)), Ok(Some(Packet::Connect(_)))));
    server
}

/// The packets, the version that they are of, and what was wrong in the end.
type Answers = (Vec<Packet>, Option<Version>, Option<DecodeError>);

fn answers<'a>(reader: u8, pieces: impl IntoIterator<Item = &'a [u8]>) -> Answers {
    let mut decoder = decoder(reader);
    let (mut input, mut packets) = (BytesMut::new(), Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            let before = input.len();
            match decoder.decode(&mut input) {
                Ok(Some(packet)) => packets.push(packet),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(decoder.decode(&mut input), Err(error), "a decoder stays failed");
                    return (packets, decoder.version(), Some(error));
                }
            }
            assert!(input.len() < before, "a packet takes bytes");
        }
        assert!(input.len() < PACKET_BYTES_MAX as usize, "more bytes are kept than a packet may have");
    }
    (packets, decoder.version(), None)
}

/// Pieces of one to eight bytes, as `cuts` has it.
fn pieces(bytes: &[u8], cuts: u8) -> Vec<&[u8]> {
    let (mut rest, mut seed, mut pieces) = (bytes, u32::from(cuts), Vec::new());
    while !rest.is_empty() {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (piece, behind) = rest.split_at(rest.len().min(1 + (seed >> 29) as usize));
        pieces.push(piece);
        rest = behind;
    }
    pieces
}

fn again(reader: u8, packet: &Packet, version: Option<Version>) {
    let version = match packet {
        Packet::Connect(connect) => connect.version,
        _ => version.expect("who has sent a packet has a version"),
    };
    let mut bytes = Vec::new();
    packet.encode(version, &mut bytes).expect("what was read can be written");
    assert_eq!(packet.encoded_len(version), Ok(bytes.len()), "{packet:?}");
    let reader = match (reader % 5, version) {
        (0, _) if matches!(packet, Packet::Connect(_)) => 0,
        (0, Version::V5) => 3,
        (0, Version::V311) => 4,
        (other, _) => other,
    };
    if bytes.len() <= PACKET_BYTES_MAX as usize {
        assert_eq!(answers(reader, [&bytes[..]]).0, std::slice::from_ref(packet));
    }
}
