//! Packets in hex, as the standards and our list of checks write them, and what they say.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use bytes::BytesMut;
use common::{CONNECT_V5, CONNECT_V311, Reader, decode_every_way, hex};
use weirmq_wire::{
    Ack, ConnAck, Connect, Decoder, Disconnect, EncodeError, Packet, PacketId, PacketType, Properties,
    Publish, PublishExtras, PublishHead, QoS, ReasonCode, RetainHandling, SubAck, Text, UnsubAck, Version,
    encode_ack,
};

const V5: Reader = Reader::Server(Version::V5);
const V311: Reader = Reader::Server(Version::V311);

fn one(reader: Reader, text: &str) -> Packet {
    let (mut packets, error) = decode_every_way(reader, &hex(text));
    assert_eq!((packets.len(), error), (1, None), "{text}");
    packets.remove(0)
}

fn connect(text: &str) -> Connect {
    let Packet::Connect(connect) = one(Reader::Fresh, text) else { panic!("{text} is no CONNECT") };
    *connect
}

fn publish(reader: Reader, text: &str) -> Publish {
    let Packet::Publish(publish) = one(reader, text) else { panic!("{text} is no PUBLISH") };
    publish
}

fn written(packet: &Packet, version: Version) -> Vec<u8> {
    let mut out = Vec::new();
    packet.encode(version, &mut out).unwrap();
    assert_eq!(packet.encoded_len(version), Ok(out.len()));
    out
}

fn id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

#[test]
fn connects_of_the_building_blocks() {
    let plain = Connect { keep_alive_s: 60, ..Connect::new(Version::V5, Text::new("t").unwrap()) };
    assert_eq!(connect(CONNECT_V5), plain);
    assert_eq!(connect(CONNECT_V311), Connect { version: Version::V311, ..plain });
}

#[test]
fn s02_connects_with_session_expiry() {
    let a = connect("101300044d5154540502003c051100000064000173");
    assert_eq!((a.clean_start, a.session_expiry_interval_s), (true, Some(100)));
    let b = connect("101300044d5154540500003c051100000064000173");
    assert_eq!((b.clean_start, b.session_expiry_interval_s), (false, Some(100)));
    let c = connect("100e00044d5154540502003c00000173");
    assert_eq!((c.clean_start, c.session_expiry_interval_s), (true, None));
    assert_eq!(c.client_id, "s");
}

#[test]
fn s07_s08_empty_client_ids_are_passed_up() {
    assert_eq!(connect("100d00044d5154540502003c000000").client_id, "");
    assert_eq!(connect("100c00044d5154540400003c0000").client_id, "");
}

#[test]
fn s41_connect_with_an_authentication_method() {
    let connect = connect("101600044d5154540502003c081500014d16000131000174");
    assert_eq!(connect.authentication_method.as_deref(), Some("M"));
    assert_eq!(connect.authentication_data.as_deref(), Some(&b"1"[..]));
}

#[test]
fn v5_password_without_user_name_is_allowed() {
    let connect = connect("10 11 0004 4d515454 05 42 003c 00 0001 74 0001 70");
    assert_eq!((connect.username, connect.password.as_deref()), (None, Some(&b"p"[..])));
}

#[test]
fn secrets_are_not_shown() {
    let connect = connect("10 17 0004 4d515454 05 c2 003c 00 0001 74 0001 75 0004 70737764");
    assert_eq!(connect.password.as_deref(), Some(&b"pswd"[..]));
    assert!(!format!("{connect:?}").contains("pswd"));
}

#[test]
fn v5_1_5_4_3_a_byte_order_mark_in_a_topic_is_kept() {
    assert_eq!(publish(V311, "30 05 0003 efbbbf").topic.as_bytes(), b"\xef\xbb\xbf");
}

#[test]
fn s13_s14_publish_with_an_alias() {
    let set = publish(V5, "30090002616c0323000178");
    assert_eq!((&*set.topic, &set.payload[..]), ("al", &b"x"[..]));
    assert_eq!(set.extras.unwrap().topic_alias, std::num::NonZeroU16::new(1));
    assert_eq!(publish(V5, "300700000323000178").topic, "");
}

#[test]
fn s16_retained_publish_and_its_deletion() {
    let set = publish(V311, "310400017231");
    assert!(set.retain && set.payload == "1");
    assert!(publish(V311, "3103000172").payload.is_empty());
}

#[test]
fn s20_publish_with_a_message_expiry() {
    let publish = publish(V5, "320c000165000105020000000378");
    assert_eq!((publish.qos, publish.packet_id), (QoS::AtLeastOnce, Some(id(1))));
    assert_eq!(publish.extras.unwrap().message_expiry_interval_s, Some(3));
}

#[test]
fn s21_user_properties_keep_order_and_duplicates() {
    let publish = publish(
        V5,
        "302e000170280101020000003c0300016a0800017209000200ff2600016b0001312600016b0001322600016100007b7d",
    );
    let user = [("k", "1"), ("k", "2"), ("a", "")].map(|(name, value)| (Box::from(name), Box::from(value)));
    let message = Properties {
        payload_is_utf8: Some(true),
        content_type: Some(Box::from("j")),
        response_topic: Some(Box::from("r")),
        correlation_data: Some(bytes::Bytes::from_static(b"\x00\xff")),
        user: user.to_vec(),
    };
    let extras = PublishExtras { message, message_expiry_interval_s: Some(60), ..PublishExtras::default() };
    assert_eq!(publish.extras, Some(Box::new(extras)));
    assert_eq!(publish.payload, "{}");
}

#[test]
fn s26_a_repeated_publish_with_qos_2() {
    let publish = publish(V5, "340700017100070078");
    assert_eq!((publish.dup, publish.qos, publish.packet_id), (false, QoS::ExactlyOnce, Some(id(7))));
    assert!(one_publish_dup("3c0700017100070078"));
}

fn one_publish_dup(text: &str) -> bool {
    publish(V5, text).dup
}

#[test]
fn s17_s19_s34_s35_subscribes() {
    let subscribe = |text| match one(V5, text) {
        Packet::Subscribe(subscribe) => subscribe,
        other => panic!("{other:?}"),
    };
    let retain_handling = |text| subscribe(text).filters[0].1.retain_handling;
    assert_eq!(retain_handling("820700010000017200"), RetainHandling::Send);
    assert_eq!(retain_handling("820700010000017210"), RetainHandling::SendIfNew);
    assert_eq!(retain_handling("820700010000017220"), RetainHandling::DoNotSend);
    assert_eq!(subscribe("82090001020b0700017200").subscription_id, Some(7));
    let three = subscribe("821800010000046f6b2f310100046e6f2f310100046f6b2f3202");
    let filters: Vec<_> =
        three.filters.iter().map(|(filter, options)| (&**filter, options.qos.as_u8())).collect();
    assert_eq!(filters, [("ok/1", 1), ("no/1", 1), ("ok/2", 2)]);
    let own = subscribe("820700010000016e05");
    assert!(own.filters[0].1.no_local && own.filters[0].1.qos == QoS::AtLeastOnce);
}

#[test]
fn s37_unsubscribe() {
    let Packet::Unsubscribe(packet) = one(V5, "a2110001000003612f2b0003612f6200027a7a") else { panic!() };
    assert_eq!(packet.filters, ["a/+", "a/b", "zz"].map(|filter| Text::new(filter).unwrap()));
}

#[test]
fn s03_s04_short_forms_of_disconnect() {
    let disconnect = |text| match one(V5, text) {
        Packet::Disconnect(packet) => packet,
        other => panic!("{other:?}"),
    };
    assert_eq!(disconnect("e000"), Disconnect::new(ReasonCode::Success));
    assert_eq!(disconnect("e00104"), Disconnect::new(ReasonCode::DisconnectWithWill));
    assert_eq!(disconnect("e0020400"), Disconnect::new(ReasonCode::DisconnectWithWill));
    assert_eq!(disconnect("e00700051100000000").session_expiry_interval_s, Some(0));
    assert_eq!(one(V311, "e000"), Packet::Disconnect(Disconnect::new(ReasonCode::Success)));
}

#[test]
fn v5_3_4_2_short_forms_of_acknowledgements() {
    assert_eq!(one(V5, "40020009"), Packet::PubAck(Ack::new(id(9))));
    assert_eq!(one(V5, "4003000900"), Packet::PubAck(Ack::new(id(9))));
    assert_eq!(one(V5, "400400090000"), Packet::PubAck(Ack::new(id(9))));
    let not_found = Ack::with_code(id(9), ReasonCode::PacketIdentifierNotFound);
    assert_eq!(one(V5, "7003000992"), Packet::PubComp(not_found));
    assert_eq!(one(V311, "62020009"), Packet::PubRel(Ack::new(id(9))));
}

#[test]
fn a_bridge_may_say_that_nobody_listens() {
    let nobody = Ack::with_code(id(9), ReasonCode::NoMatchingSubscribers);
    assert_eq!(one(V5, "4003000910"), Packet::PubAck(nobody));
}

#[test]
fn acknowledgements_are_written_in_their_shortest_form() {
    let denied = Packet::PubRec(Ack::with_code(id(9), ReasonCode::NotAuthorized));
    assert_eq!(written(&denied, Version::V5), hex("50 03 0009 87"));
    assert_eq!(written(&denied, Version::V311), hex("50 02 0009"));
    assert_eq!(written(&Packet::PubRel(Ack::new(id(9))), Version::V5), hex("62 02 0009"));
    let mut out = Vec::new();
    encode_ack(PacketType::PubRel, id(9), ReasonCode::PacketIdentifierNotFound, Version::V5, &mut out);
    assert_eq!(out, hex("62 03 0009 92"));
}

#[test]
fn a_second_connect_is_passed_up() {
    assert!(matches!(one(V5, CONNECT_V311), Packet::Connect(_)));
    let mut decoder = V5.decoder();
    decoder.decode(&mut BytesMut::from(&hex(CONNECT_V311)[..])).unwrap();
    assert_eq!(decoder.version(), Some(Version::V5));
}

#[test]
fn connacks() {
    let refused = Packet::ConnAck(Box::new(ConnAck::new(ReasonCode::NotAuthorized)));
    assert_eq!(written(&refused, Version::V5), hex("20 03 00 87 00"));
    assert_eq!(written(&refused, Version::V311), hex("20 02 00 05"));
    let identifier = Packet::ConnAck(Box::new(ConnAck::new(ReasonCode::ClientIdentifierNotValid)));
    assert_eq!(written(&identifier, Version::V311), hex("20 02 00 02"));
    let limited = ConnAck {
        session_present: true,
        qos_max: Some(QoS::AtLeastOnce),
        retain_available: Some(false),
        ..ConnAck::new(ReasonCode::Success)
    };
    assert_eq!(written(&Packet::ConnAck(Box::new(limited)), Version::V5), hex("20 07 01 00 04 24 01 25 00"));
}

#[test]
fn v5_3_2_2_6_session_present_is_not_written_beside_a_failure() {
    let connack = ConnAck { session_present: true, ..ConnAck::new(ReasonCode::ServerBusy) };
    assert_eq!(written(&Packet::ConnAck(Box::new(connack)), Version::V5), hex("20 03 00 89 00"));
}

#[test]
fn s34_s37_answers_to_filters() {
    let codes = vec![ReasonCode::GrantedQoS1, ReasonCode::NotAuthorized, ReasonCode::GrantedQoS2];
    let suback = Packet::SubAck(SubAck::new(id(1), codes));
    assert_eq!(written(&suback, Version::V5), hex("90 06 0001 00 01 87 02"));
    assert_eq!(written(&suback, Version::V311), hex("90 05 0001 01 80 02"));
    let codes =
        vec![ReasonCode::Success, ReasonCode::NoSubscriptionExisted, ReasonCode::NoSubscriptionExisted];
    let unsuback = Packet::UnsubAck(UnsubAck::new(id(1), codes));
    assert_eq!(written(&unsuback, Version::V5), hex("b0 06 0001 00 00 11 11"));
    assert_eq!(written(&unsuback, Version::V311), hex("b0 02 0001"));
}

#[test]
fn s52_properties_stay_in_their_version() {
    let properties = Properties { content_type: Some(Box::from("j")), ..Properties::default() };
    let head = PublishHead {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: true,
        topic: "a",
        packet_id: Some(id(5)),
        properties: Some(&properties),
        message_expiry_interval_s: None,
        topic_alias: None,
        subscription_ids: &[7],
        payload_len: 2,
    };
    let head_of = |head: PublishHead<'_>, version| {
        let mut out = Vec::new();
        head.encode(version, &mut out).unwrap();
        out
    };
    assert_eq!(head_of(head, Version::V311), hex("31 05 0001 61"));
    assert_eq!(head_of(head, Version::V5), hex("31 0c 0001 61 06 0b07 03 0001 6a"));
    let bare = PublishHead { properties: None, subscription_ids: &[], ..head };
    assert_eq!(head_of(bare, Version::V5), hex("31 06 0001 61 00"));
    let empty = Properties::default();
    assert_eq!(
        head_of(PublishHead { properties: Some(&empty), ..bare }, Version::V5),
        head_of(bare, Version::V5)
    );
    let dup = PublishHead { dup: true, ..bare };
    assert_eq!(head_of(dup, Version::V5), head_of(bare, Version::V5), "DUP goes with QoS 1 and 2 only");
}

#[test]
fn what_cannot_be_written_leaves_the_buffer_alone() {
    let head = PublishHead {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: "a",
        packet_id: Some(id(1)),
        properties: None,
        message_expiry_interval_s: None,
        topic_alias: None,
        subscription_ids: &[],
        payload_len: 0,
    };
    let long = "x".repeat(65_536);
    let null = Properties { content_type: Some(Box::from("a\0")), ..Properties::default() };
    let mut out = vec![1];
    for (head, error) in [
        (PublishHead { packet_id: None, ..head }, EncodeError::PacketIdMissing),
        (PublishHead { topic: &long, ..head }, EncodeError::FieldTooLong),
        (PublishHead { properties: Some(&null), ..head }, EncodeError::NullCharacter),
        (PublishHead { subscription_ids: &[0], ..head }, EncodeError::SubscriptionId),
        (PublishHead { subscription_ids: &[268_435_456], ..head }, EncodeError::SubscriptionId),
        (PublishHead { payload_len: 268_435_450, ..head }, EncodeError::PacketTooLarge),
    ] {
        assert_eq!(head.encode(Version::V5, &mut out), Err(error));
        assert_eq!(head.encoded_len(Version::V5), Err(error));
    }
    let auth = Packet::Auth(Box::new(weirmq_wire::Auth::new(ReasonCode::Success, None)));
    assert_eq!(auth.encode(Version::V311, &mut out), Err(EncodeError::NotInV311(PacketType::Auth)));
    assert_eq!(written(&auth, Version::V5), hex("f000"));
    assert_eq!(out, [1]);
    let largest = PublishHead { payload_len: 268_435_449, ..head };
    assert_eq!(largest.encoded_len(Version::V5), Ok(268_435_460));
}

#[test]
fn a_packet_of_just_the_allowed_size_is_taken() {
    let bytes = hex("3004 0001 61 78");
    let mut decoder = Decoder::client(Version::V311, 6);
    assert!(matches!(decoder.decode(&mut BytesMut::from(&bytes[..])), Ok(Some(Packet::Publish(_)))));
    decoder.set_packet_bytes_max(5);
    let error = decoder.decode(&mut BytesMut::from(&bytes[..2])).unwrap_err();
    assert_eq!(error.reason_code(), ReasonCode::PacketTooLarge);
}

#[test]
fn a_connect_and_what_follows_it_in_one_read() {
    let bytes = [hex(CONNECT_V5), hex("820700010000017200"), hex("c000"), hex("00")].concat();
    let (packets, error) = decode_every_way(Reader::Fresh, &bytes);
    let kinds: Vec<_> = packets.iter().map(Packet::kind).collect();
    assert_eq!(kinds, [PacketType::Connect, PacketType::Subscribe, PacketType::PingReq]);
    assert_eq!(error, Some(weirmq_wire::DecodeError::PacketTypeReserved(0)));
}
