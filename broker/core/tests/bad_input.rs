//! What a peer may not send ends its connection with the right reason, and touches nobody else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use support::{V5, V311, VERSIONS, World, text};
use weirmq_wire::{Connect, Packet, ReasonCode, Version};

/// A client that is connected, and one who would notice if anything came through.
fn pair(version: Version) -> (World, support::Client, support::Client) {
    let world = World::new();
    let mut bystander = world.client(version, "bystander");
    bystander.subscribe(&world, "#", 0);
    let client = world.client(version, "c");
    (world, client, bystander)
}

fn refused(version: Version, bytes: &[u8], code: ReasonCode) {
    // Whole, and byte by byte.
    for whole in [true, false] {
        let (world, mut client, mut bystander) = pair(version);
        if whole {
            client.send_bytes(&world, bytes);
        } else {
            for byte in bytes {
                client.send_bytes(&world, &[*byte]);
            }
        }
        client.expect_closed(code);
        bystander.expect_nothing();
        assert_eq!(world.broker.counters().bad_input.get(), 1, "{bytes:02x?}");
    }
}

#[test]
fn reserved_flag_bits_are_malformed() {
    for version in VERSIONS {
        for bytes in [
            &b"\xe1\x00"[..],
            b"\xc1\x00",
            b"\x42\x02\x00\x09",
            b"\x51\x02\x00\x09",
            b"\x60\x02\x00\x09",
            b"\x71\x02\x00\x09",
            b"\x80\x06\x00\x01\x00\x01a\x00",
            b"\xa0\x05\x00\x01\x00\x01a",
            b"\x36\x05\x00\x01a\x00\x01",
            b"\x38\x03\x00\x01a",
        ] {
            refused(version, bytes, ReasonCode::MalformedPacket);
        }
    }
    refused(V5, b"\xf1\x00", ReasonCode::MalformedPacket);
    refused(V311, b"\xf0\x00", ReasonCode::MalformedPacket);
}

#[test]
fn packets_of_a_server_are_a_protocol_error() {
    for version in VERSIONS {
        for bytes in [&b"\x20\x02\x00\x00"[..], b"\x90\x03\x00\x01\x00", b"\xb0\x02\x00\x01", b"\xd0\x00"] {
            refused(version, bytes, ReasonCode::ProtocolError);
        }
    }
}

#[test]
fn lengths_that_are_too_long_are_malformed() {
    for version in VERSIONS {
        refused(version, b"\x30\xff\xff\xff\xff\x01", ReasonCode::MalformedPacket);
        refused(version, b"\xc0\x80\x00", ReasonCode::MalformedPacket);
        refused(version, b"\xc0\x01\x00", ReasonCode::MalformedPacket);
    }
}

#[test]
fn packet_identifier_0_is_a_protocol_error() {
    refused(V311, b"\x32\x05\x00\x01a\x00\x00", ReasonCode::ProtocolError);
    refused(V5, b"\x32\x06\x00\x01a\x00\x00\x00", ReasonCode::ProtocolError);
    refused(V311, b"\x82\x06\x00\x00\x00\x01a\x00", ReasonCode::ProtocolError);
    refused(V5, b"\x82\x07\x00\x00\x00\x00\x01a\x00", ReasonCode::ProtocolError);
    refused(V311, b"\xa2\x05\x00\x00\x00\x01a", ReasonCode::ProtocolError);
    refused(V5, b"\xa2\x06\x00\x00\x00\x00\x01a", ReasonCode::ProtocolError);
    for version in VERSIONS {
        refused(version, b"\x40\x02\x00\x00", ReasonCode::ProtocolError);
    }
}

#[test]
fn topic_names_that_are_none_are_malformed() {
    for topic in ["a/+", "#", "a#", "+"] {
        for version in VERSIONS {
            for qos in 0..=2 {
                let (world, mut client, mut bystander) = pair(version);
                client.publish(&world, topic, qos, "x");
                client.expect_closed(ReasonCode::MalformedPacket);
                bystander.expect_nothing();
            }
        }
    }
    refused(V311, b"\x30\x02\x00\x00", ReasonCode::MalformedPacket);
    refused(V5, b"\x30\x03\x00\x00\x00", ReasonCode::ProtocolError);
    refused(V311, b"\x30\x03\x00\x01\x00", ReasonCode::MalformedPacket);
    refused(V5, b"\x30\x04\x00\x01\x00\x00", ReasonCode::MalformedPacket);
}

#[test]
fn filters_that_are_none_are_malformed() {
    for filter in ["a/#/b", "a#", "a+", "+a/b", "#/a", ""] {
        for version in VERSIONS {
            let (world, mut client, _bystander) = pair(version);
            client.subscribe_and_expect_the_end(&world, filter, ReasonCode::MalformedPacket);
            assert_eq!(world.broker.counters().subscriptions.get(), 1, "the bystander's");
        }
    }
    refused(V311, b"\xa2\x06\x00\x01\x00\x02a#", ReasonCode::MalformedPacket);
    refused(V5, b"\xa2\x07\x00\x01\x00\x00\x02a#", ReasonCode::MalformedPacket);
}

#[test]
fn a_subscribe_that_asks_for_nothing_or_for_what_there_is_not_is_refused() {
    refused(V311, b"\x82\x02\x00\x01", ReasonCode::ProtocolError);
    refused(V5, b"\x82\x03\x00\x01\x00", ReasonCode::ProtocolError);
    refused(V311, b"\xa2\x02\x00\x01", ReasonCode::ProtocolError);
    refused(V5, b"\xa2\x03\x00\x01\x00", ReasonCode::ProtocolError);
    for options in [0x03, 0x04, 0x80] {
        refused(V311, &[&b"\x82\x06\x00\x01\x00\x01a"[..], &[options]].concat(), ReasonCode::MalformedPacket);
    }
    for (options, code) in [
        (0x03, ReasonCode::ProtocolError),
        (0x30, ReasonCode::ProtocolError),
        (0x40, ReasonCode::MalformedPacket),
        (0x80, ReasonCode::MalformedPacket),
    ] {
        refused(V5, &[&b"\x82\x07\x00\x01\x00\x00\x01a"[..], &[options]].concat(), code);
    }
    // No Local on a shared subscription.
    refused(V5, b"\x82\x10\x00\x01\x00\x00\x0a$share/g/t\x04", ReasonCode::ProtocolError);
    refused(V5, b"\x30\x07\x00\x01a\x02\x0b\x01x", ReasonCode::ProtocolError);
    // Subscription Identifier 0.
    refused(V5, b"\x82\x09\x00\x01\x02\x0b\x00\x00\x01a\x00", ReasonCode::ProtocolError);
}

#[test]
fn properties_twice_unknown_or_out_of_place_are_refused() {
    refused(V5, b"\x30\x0e\x00\x01a\x0a\x02\x00\x00\x00\x01\x02\x00\x00\x00\x01", ReasonCode::ProtocolError);
    refused(V5, b"\x30\x06\x00\x01a\x02\x7f\x00", ReasonCode::MalformedPacket);
    refused(V5, b"\x30\x06\x00\x01a\x02\x25\x01", ReasonCode::MalformedPacket);
    refused(V5, b"\x30\x06\x00\x01a\x02\x01\x02", ReasonCode::ProtocolError);
    refused(V5, b"\x30\x07\x00\x01a\x03\x23\x00\x00", ReasonCode::TopicAliasInvalid);
    refused(V5, b"\x30\x08\x00\x01a\x04\x08\x00\x01#", ReasonCode::ProtocolError);
    refused(V5, b"\x30\x09\x00\x01a\x05\x03\x00\x02\xc0\x80", ReasonCode::MalformedPacket);
    refused(V5, b"\x30\x0b\x00\x01a\x07\x26\x00\x01a\x00\x01\x00", ReasonCode::MalformedPacket);
    refused(V5, b"\x40\x03\x00\x01\x7f", ReasonCode::MalformedPacket);
}

#[test]
fn strings_that_are_no_utf_8_are_malformed_and_a_byte_order_mark_is_kept() {
    for version in VERSIONS {
        for string in [&b"\xc0\x80"[..], b"\xed\xa0\x80", b"a\x00", b"\xff", b"\xe2\x82", b"\xf4\x90\x80\x80"]
        {
            let mut bytes = vec![0x30, 0, 0, string.len() as u8];
            bytes.extend_from_slice(string);
            if version == V5 {
                bytes.push(0);
            }
            bytes[1] = (bytes.len() - 2) as u8;
            refused(version, &bytes, ReasonCode::MalformedPacket);
        }
        let (world, mut client, mut bystander) = pair(version);
        client.publish(&world, "\u{feff}a\u{feff}", 0, "x");
        assert_eq!(&*bystander.expect_one_publish().topic, "\u{feff}a\u{feff}");
    }
}

#[test]
fn whatever_comes_before_connect_is_closed_without_a_word() {
    for bytes in [
        &b"\xc0\x00"[..],
        b"\x30\x04\x00\x01ax",
        b"\xf0\x00",
        b"\xe0\x00",
        b"\x00\x00",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
    ] {
        let world = World::new();
        let mut client = world.socket(V5);
        client.send_bytes(&world, bytes);
        assert!(client.is_closed() && client.all().is_empty(), "{bytes:02x?}");
        assert_eq!(world.broker.counters().bad_input.get(), 1);
    }
}

#[test]
fn a_second_connect_is_a_protocol_error() {
    for version in VERSIONS {
        let (world, mut client, mut bystander) = pair(version);
        client.send(&world, Packet::Connect(Box::new(Connect::new(version, text("c")))));
        client.expect_closed(ReasonCode::ProtocolError);
        bystander.expect_nothing();
        assert_eq!(world.broker.footprint().sessions, 1, "the bystander's");
    }
}

#[test]
fn a_version_that_is_not_spoken_is_told_in_a_shape_that_is_understood() {
    for (bytes, answer) in [
        (&b"\x10\x0d\x00\x04MQTT\x06\x02\x00\x3c\x00\x01t"[..], &b"\x20\x03\x00\x84\x00"[..]),
        (b"\x10\x0d\x00\x04MQTT\x03\x02\x00\x3c\x00\x01t", b"\x20\x02\x00\x01"),
        (b"\x10\x0f\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x01t", b"\x20\x02\x00\x01"),
        (b"\x10\x0d\x00\x04mqtt\x04\x02\x00\x3c\x00\x01t", b""),
    ] {
        let world = World::new();
        let mut client = world.socket(V5);
        client.send_bytes(&world, bytes);
        assert!(client.is_closed());
        assert_eq!(client.raw(), answer, "{bytes:02x?}");
    }
}

#[test]
fn v5_a_connect_that_is_malformed_is_answered_and_v311_is_not() {
    for (bytes, answer) in [
        (&b"\x10\x0e\x00\x04MQTT\x05\x03\x00\x3c\x00\x00\x01t"[..], &b"\x20\x03\x00\x81\x00"[..]),
        (b"\x10\x11\x00\x04MQTT\x05\x02\x00\x3c\x03\x21\x00\x00\x00\x01t", b"\x20\x03\x00\x82\x00"),
        (b"\x10\x0d\x00\x04MQTT\x04\x03\x00\x3c\x00\x01t", b""),
        (b"\x10\x0d\x00\x04MQTT\x04\x40\x00\x3c\x00\x01t", b""),
        (b"\x10\x0d\x00\x04MQTT\x04\x1a\x00\x3c\x00\x01t", b""),
    ] {
        let world = World::new();
        let mut client = world.socket(V5);
        client.send_bytes(&world, bytes);
        assert!(client.is_closed());
        assert_eq!(client.raw(), answer, "{bytes:02x?}");
        assert_eq!(world.broker.counters().connections_refused.get(), 1);
    }
}

#[test]
fn disconnect_with_bytes_behind_it_or_a_code_that_is_none_is_refused() {
    refused(V311, b"\xe0\x01\x00", ReasonCode::MalformedPacket);
    refused(V5, b"\xe0\x01\x03", ReasonCode::MalformedPacket);
    refused(V5, b"\xe0\x01\x8e", ReasonCode::ProtocolError);
}

#[test]
fn what_is_behind_a_fault_has_no_effect() {
    for version in VERSIONS {
        let (world, mut client, mut bystander) = pair(version);
        let mut bytes = b"\xc1\x00".to_vec();
        bytes.extend_from_slice(if version == V5 { b"\x31\x04\x00\x01a\x00" } else { b"\x31\x03\x00\x01a" });
        client.send_bytes(&world, &bytes);
        client.expect_closed(ReasonCode::MalformedPacket);
        bystander.expect_nothing();
    }
}
