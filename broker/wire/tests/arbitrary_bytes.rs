//! Bytes that nobody meant: no panic, and the same answer however they are cut.

mod common;

use common::{Reader, arbitrary, decode_every_way, decode_pieces};
use proptest::collection::vec;
use proptest::prelude::*;
use weirmq_wire::{DecodeError, Packet, Version};

fn reader() -> impl Strategy<Value = Reader> {
    prop_oneof![
        Just(Reader::Fresh),
        arbitrary::version().prop_map(Reader::Server),
        arbitrary::version().prop_map(Reader::Client),
    ]
}

/// Bytes that get past the fixed header more often than any bytes would.
fn framed() -> impl Strategy<Value = Vec<u8>> {
    (any::<u8>(), vec(prop_oneof![0_u8..4, any::<u8>()], 0..60)).prop_map(|(first, body)| {
        let length = u8::try_from(body.len()).unwrap_or(0);
        [&[first, length], &body[..]].concat()
    })
}

proptest! {
    #![proptest_config(common::config(2000))]

    #[test]
    fn any_bytes_are_answered_the_same_however_they_are_cut(
        reader in reader(),
        bytes in prop_oneof![vec(any::<u8>(), 0..40), framed()],
    ) {
        decode_every_way(reader, &bytes);
    }

    #[test]
    fn a_packet_with_one_byte_changed_is_answered_the_same_however_it_is_cut(
        (packet, version, side) in arbitrary::packet(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = Vec::new();
        prop_assert!(packet.encode(version, &mut bytes).is_ok());
        prop_assume!(bytes.len() < 1000);
        if let Some(changed) = bytes.get_mut(at.index(packet.encoded_len(version).unwrap_or(1))) {
            *changed = byte;
        }
        decode_every_way(Reader::of(side, version), &bytes);
    }

    #[test]
    fn a_connect_with_one_byte_changed_is_answered_the_same_however_it_is_cut(
        connect in arbitrary::version().prop_flat_map(arbitrary::connect),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let (version, packet) = (connect.version, Packet::Connect(Box::new(connect)));
        let mut bytes = Vec::new();
        prop_assert!(packet.encode(version, &mut bytes).is_ok());
        let at = at.index(bytes.len());
        if let Some(changed) = bytes.get_mut(at) {
            *changed = byte;
        }
        decode_every_way(Reader::Fresh, &bytes);
    }

    #[test]
    fn what_was_accepted_is_written_again_as_something_that_is_accepted(
        version in arbitrary::version(),
        bytes in framed(),
    ) {
        for reader in [Reader::Server(version), Reader::Client(version)] {
            let (packets, _) = decode_pieces(reader.decoder(), [&bytes[..]]);
            for packet in packets {
                let mut again = Vec::new();
                prop_assert!(packet.encode(version, &mut again).is_ok());
                prop_assert_eq!(decode_pieces(reader.decoder(), [&again[..]]).0, vec![packet]);
            }
        }
    }
}

/// What comes after the first 4 KiB is looked at once, when all of it is there; the answer is the same.
#[test]
fn a_fault_behind_the_part_that_is_parsed_ahead_is_found_in_the_end() {
    let mut body = vec![0, 1, 0];
    for _ in 0..1000 {
        body.extend_from_slice(b"\0\x03a/b\x01");
    }
    body.extend_from_slice(b"\0\x03a/b\x40");
    let mut bytes = vec![0x82];
    let len = body.len();
    bytes.extend_from_slice(&[(len & 0x7F) as u8 | 0x80, (len >> 7) as u8]);
    bytes.extend_from_slice(&body);
    let reader = Reader::Server(Version::V5);
    let whole = decode_pieces(reader.decoder(), [&bytes[..]]);
    assert_eq!(whole.1, Some(DecodeError::SubscribeOptionsReserved));
    assert_eq!(decode_pieces(reader.decoder(), bytes.chunks(1)), whole);
}
