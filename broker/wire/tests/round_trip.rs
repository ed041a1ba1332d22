//! What is written is read back the same, whoever sends it, in both versions.
#![allow(clippy::unwrap_used)]

mod common;

use bytes::BytesMut;
use common::arbitrary;
use common::{Reader, decode_pieces};
use proptest::prelude::*;
use weirmq_wire::{Packet, PacketType, Publish, PublishHead, Version, encode_ack};

proptest! {
    #![proptest_config(common::config(2000))]

    #[test]
    fn every_packet_survives_the_wire((packet, version, side) in arbitrary::packet()) {
        let mut bytes = Vec::new();
        packet.encode(version, &mut bytes).unwrap();
        prop_assert_eq!(packet.encoded_len(version), Ok(bytes.len()));
        let answer = decode_pieces(Reader::of(side, version).decoder(), [&bytes[..]]);
        prop_assert_eq!(answer, (vec![packet], None));
    }

    #[test]
    fn a_detached_packet_is_the_same_and_keeps_nothing_of_the_read_buffer(
        (packet, version, side) in arbitrary::packet()
    ) {
        let mut bytes = Vec::with_capacity(4096);
        packet.encode(version, &mut bytes).unwrap();
        let mut input = bytes::BytesMut::from(&bytes[..]);
        let decoded = Reader::of(side, version).decoder().decode(&mut input).unwrap().unwrap();
        let rest = input.freeze();
        let detached = decoded.detached();
        prop_assert_eq!(&detached, &packet);
        prop_assert!(rest.is_unique() || rest.is_empty() && matches!(packet, Packet::Connect(_)));
    }

    #[test]
    fn packets_that_follow_each_other_survive_any_chunking(
        (version, side, packets) in arbitrary::packet().prop_flat_map(|(first, version, side)| {
            let more = proptest::collection::vec(arbitrary::packet(), 0..6).prop_map(move |more| {
                let mut packets = vec![first.clone()];
                packets.extend(more.into_iter().filter(|it| (it.1, it.2) == (version, side)).map(|it| it.0));
                packets
            });
            (Just(version), Just(side), more)
        }),
        chunk in 1_usize..50,
    ) {
        let mut bytes = Vec::new();
        for packet in &packets {
            packet.encode(version, &mut bytes).unwrap();
        }
        let answer = decode_pieces(Reader::of(side, version).decoder(), bytes.chunks(chunk));
        prop_assert_eq!(answer, (packets, None));
    }

    #[test]
    fn a_head_and_a_payload_are_a_publish((packet, version, _) in arbitrary::packet()) {
        if let Packet::Publish(publish) = packet {
            head_equals_packet(publish, version)?;
        }
    }

    #[test]
    fn the_shortcut_writes_what_the_packet_writes((packet, version, _) in arbitrary::packet()) {
        let (Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack)) = &packet else {
            return Ok(());
        };
        if ack.reason_string.is_none() && ack.user_properties.is_empty() {
            let (mut long, mut short) = (Vec::new(), Vec::new());
            packet.encode(version, &mut long).unwrap();
            encode_ack(packet.kind(), ack.packet_id, ack.code, version, &mut short);
            prop_assert_eq!(long, short);
        }
    }
}

fn head_equals_packet(publish: Publish, version: Version) -> Result<(), TestCaseError> {
    let head: PublishHead<'_> = publish.head();
    let mut parts = Vec::new();
    head.encode(version, &mut parts).unwrap();
    parts.extend_from_slice(&publish.payload);
    prop_assert_eq!(head.encoded_len(version), Ok(parts.len()));
    let mut whole = Vec::new();
    Packet::Publish(publish).encode(version, &mut whole).unwrap();
    prop_assert_eq!(parts, whole);
    Ok(())
}

#[test]
fn payloads_are_slices_of_the_read_buffer() {
    let mut input = BytesMut::from(&common::hex("3009 0001 61 00 68656c6c6f")[..]);
    let buffer = input.as_ptr() as usize;
    let Ok(Some(Packet::Publish(publish))) = Reader::Server(Version::V5).decoder().decode(&mut input) else {
        unreachable!("it is a PUBLISH");
    };
    assert_eq!(publish.topic.as_ptr() as usize, buffer + 4);
    assert_eq!(publish.payload.as_ptr() as usize, buffer + 6);
    assert_eq!(publish.extras, None);
}

/// A buffer that is shared with a packet cannot be used again before the packet is gone.
#[test]
fn acknowledgements_and_pings_keep_nothing_of_the_read_buffer() {
    let mut decoder = Reader::Server(Version::V5).decoder();
    let mut input = BytesMut::with_capacity(64);
    let buffer = input.as_ptr();
    let mut kept = Vec::new();
    for _ in 0..1000 {
        input.extend_from_slice(&common::hex("4002 0001 c000"));
        while let Some(packet) = decoder.decode(&mut input).unwrap() {
            kept.push(packet);
        }
    }
    assert_eq!(kept.len(), 2000);
    input.reserve(64);
    assert_eq!(input.as_ptr(), buffer);
}

#[test]
fn all_kinds_have_a_name() {
    assert!(PacketType::ALL.iter().enumerate().all(|(at, kind)| *kind as usize == at + 1));
}
