//! The short way sees what the long way decodes, or nothing.
#![allow(clippy::unwrap_used)]

mod common;

use bytes::{Bytes, BytesMut};
use common::{Reader, arbitrary, hex};
use proptest::collection::vec;
use proptest::prelude::*;
use weirmq_wire::{Ack, Acks, Packet, PacketType, Publish, Side, Text, Version};

/// Holds what is seen of `bytes` to what is decoded from them.
fn check(version: Version, bytes: &[u8]) -> Result<(), TestCaseError> {
    let mut decoder = Reader::Server(version).decoder();
    let Some(seen) = decoder.glance(bytes) else { return Ok(()) };
    let mut input = BytesMut::from(bytes);
    let Ok(topic) = Text::try_from(Bytes::copy_from_slice(seen.topic)) else {
        prop_assert!(decoder.decode(&mut input).is_err());
        return Ok(());
    };
    let publish = Publish {
        dup: seen.dup,
        qos: seen.qos,
        retain: seen.retain,
        topic,
        packet_id: seen.packet_id,
        extras: None,
        payload: Bytes::copy_from_slice(seen.payload),
    };
    prop_assert_eq!(decoder.decode(&mut input), Ok(Some(Packet::Publish(publish))));
    prop_assert_eq!(input.len(), bytes.len() - seen.frame.len());
    Ok(())
}

proptest! {
    #![proptest_config(common::config(4000))]

    #[test]
    fn a_publish_without_properties_is_seen_and_nothing_else(
        (packet, version, side) in arbitrary::packet(),
        behind in vec(any::<u8>(), 0..4),
    ) {
        let mut bytes = Vec::new();
        packet.encode(version, &mut bytes).unwrap();
        let whole = bytes.len();
        bytes.extend(behind);
        let plain = matches!(&packet, Packet::Publish(publish)
            if publish.extras.is_none() && !publish.topic.is_empty());
        let decoder = Reader::of(side, version).decoder();
        prop_assert_eq!(decoder.glance(&bytes).is_some(), plain && side == Side::Client);
        prop_assert_eq!(decoder.glance(bytes.get(..whole - 1).unwrap()), None, "it is not there yet");
        check(version, &bytes)?;
    }

    #[test]
    fn with_one_byte_changed_it_is_what_the_long_way_decodes_or_not_seen(
        (packet, version, _) in arbitrary::packet(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = Vec::new();
        packet.encode(version, &mut bytes).unwrap();
        let at = at.index(bytes.len().min(12));
        bytes.get_mut(at).into_iter().for_each(|changed| *changed = byte);
        check(version, &bytes)?;
    }
}

/// The first byte of an acknowledgement, which may have wrong flags, what is behind it, and whether it has a code too.
fn ack() -> impl Strategy<Value = Vec<u8>> {
    let first = prop::sample::select(vec![0x40, 0x40, 0x50, 0x62, 0x70, 0x42, 0x60, 0xC0]);
    (first, 0_u8..3, any::<bool>(), 0_u8..8).prop_map(|(first, id, is_high, with_code)| {
        let (high, low) = if is_high { (id, 0) } else { (0, id) };
        match with_code {
            0 => vec![first, 3, high, low, 0],
            _ => vec![first, 2, high, low],
        }
    })
}

proptest! {
    #![proptest_config(common::config(4000))]

    #[test]
    fn acknowledgements_that_follow_one_another_are_seen_as_they_are_decoded(
        frames in vec(ack(), 0..6),
        version in prop::sample::select(vec![Version::V311, Version::V5]),
        cut in 0_usize..4,
        max in 0_usize..5,
    ) {
        let mut bytes = frames.concat();
        bytes.truncate(bytes.len().saturating_sub(cut));
        let mut decoder = Reader::Server(version).decoder();
        let seen = decoder.glance_at_acks(&bytes, max);
        let ids: Vec<_> = seen.iter().flat_map(Acks::ids).collect();
        prop_assert_eq!(seen.map_or(0, |seen| seen.bytes_len()), ids.len() * 4);
        let mut input = BytesMut::from(&bytes[..]);
        for id in &ids {
            let wrapped: fn(Ack) -> Packet = match seen.unwrap().kind {
                PacketType::PubAck => Packet::PubAck,
                PacketType::PubRec => Packet::PubRec,
                PacketType::PubRel => Packet::PubRel,
                _ => Packet::PubComp,
            };
            prop_assert_eq!(decoder.decode(&mut input), Ok(Some(wrapped(Ack::new(*id)))));
        }
        // There are as many as there can be.
        let is_another = matches!(input[..], [first @ (0x40 | 0x50 | 0x62 | 0x70), 2, high, low, ..]
            if (high, low) != (0, 0) && bytes.first() == Some(&first));
        prop_assert_eq!(is_another && ids.len() < max, false);
    }
}

#[test]
fn nothing_is_seen_before_connect_nor_above_the_limit_nor_behind_a_fault() {
    let publish = hex("3004 0001 61 78");
    let ack = hex("4002 0001");
    assert_eq!(Reader::Fresh.decoder().glance(&publish), None);
    assert_eq!(Reader::Fresh.decoder().glance_at_acks(&ack, 1), None);
    let mut decoder = Reader::Server(Version::V311).decoder();
    assert!(decoder.glance(&publish).is_some());
    decoder.set_packet_bytes_max(5);
    assert_eq!(decoder.glance(&publish), None);
    decoder.set_packet_bytes_max(6);
    assert!(decoder.glance(&publish).is_some());
    assert!(decoder.glance_at_acks(&ack, 1).is_some());
    decoder.set_packet_bytes_max(3);
    assert_eq!(decoder.glance_at_acks(&ack, 1), None);
    assert!(decoder.decode(&mut BytesMut::from(&hex("0000")[..])).is_err());
    assert_eq!(decoder.glance(&publish), None);
    assert_eq!(decoder.glance_at_acks(&ack, 1), None);
}
