//! The short way sees what the long way decodes, or nothing.
#![allow(clippy::unwrap_used)]

mod common;

use bytes::{Bytes, BytesMut};
use common::{Reader, arbitrary, hex};
use proptest::collection::vec;
use proptest::prelude::*;
use weirmq_wire::{Packet, Publish, Side, Text, Version};

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

#[test]
fn nothing_is_seen_before_connect_nor_above_the_limit_nor_behind_a_fault() {
    let publish = hex("3004 0001 61 78");
    assert_eq!(Reader::Fresh.decoder().glance(&publish), None);
    let mut decoder = Reader::Server(Version::V311).decoder();
    assert!(decoder.glance(&publish).is_some());
    decoder.set_packet_bytes_max(5);
    assert_eq!(decoder.glance(&publish), None);
    decoder.set_packet_bytes_max(6);
    assert!(decoder.glance(&publish).is_some());
    assert!(decoder.decode(&mut BytesMut::from(&hex("0000")[..])).is_err());
    assert_eq!(decoder.glance(&publish), None);
}
