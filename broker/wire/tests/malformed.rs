//! Every way in which a packet can be wrong, with the exact reason, and the byte that gives it away.
//!
//! Each row is named after the statement it breaks. A `|` stands directly behind the byte at which the packet
//! must be refused: one byte less, and the decoder must still be waiting.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::{CONNECT_V5, PACKET_BYTES_MAX, Reader, decode_every_way, decode_pieces, hex};
use weirmq_wire::PacketType::*;
use weirmq_wire::ReasonCode as Code;
use weirmq_wire::{DecodeError, PropertyId, ReasonCode, TextError, Version};

type Row = (&'static str, &'static str, DecodeError);

const SERVER_V5: Reader = Reader::Server(Version::V5);
const SERVER_V311: Reader = Reader::Server(Version::V311);
const CLIENT_V5: Reader = Reader::Client(Version::V5);
const CLIENT_V311: Reader = Reader::Client(Version::V311);

fn check(reader: Reader, rows: &[Row]) {
    for (name, text, error) in rows {
        let bytes = hex(text);
        let (front, _) = text.split_once('|').unwrap_or_else(|| panic!("{name}: no mark"));
        let shown_at = hex(front).len();
        let (packets, answer) = decode_every_way(reader, &bytes);
        assert_eq!((packets.len(), answer), (0, Some(*error)), "{name}");
        let (_, before) = decode_pieces(reader.decoder(), [&bytes[..shown_at - 1]]);
        assert_eq!(before, None, "{name}: refused before the fault");
        let (_, there) = decode_pieces(reader.decoder(), [&bytes[..shown_at]]);
        assert_eq!(there, Some(*error), "{name}: not refused at the fault");
    }
}

#[test]
fn fixed_headers() {
    check(
        SERVER_V5,
        &[
            ("v5_2_1_2_packet_type_0_is_reserved", "00| 00", DecodeError::PacketTypeReserved(0)),
            ("v5_2_1_2_connack_from_a_client", "20| 03 00 00 00", DecodeError::PacketFromWrongSide(ConnAck)),
            ("v5_2_1_2_suback_from_a_client", "90| 04 0001 00 00", DecodeError::PacketFromWrongSide(SubAck)),
            (
                "v5_2_1_2_unsuback_from_a_client",
                "b0| 04 0001 00 00",
                DecodeError::PacketFromWrongSide(UnsubAck),
            ),
            ("v5_2_1_2_pingresp_from_a_client", "d0| 00", DecodeError::PacketFromWrongSide(PingResp)),
            ("v5_2_1_3_1_reserved_flag_bits_of_connect", "11| 00", DecodeError::FixedHeaderFlags(Connect)),
            ("v5_2_1_3_1_reserved_flag_bits_of_puback", "42| 02 0009", DecodeError::FixedHeaderFlags(PubAck)),
            ("v5_2_1_3_1_reserved_flag_bits_of_pubrec", "51| 02 0009", DecodeError::FixedHeaderFlags(PubRec)),
            ("v5_3_6_1_1_reserved_flag_bits_of_pubrel", "60| 02 0009", DecodeError::FixedHeaderFlags(PubRel)),
            (
                "v5_2_1_3_1_reserved_flag_bits_of_pubcomp",
                "78| 02 0009",
                DecodeError::FixedHeaderFlags(PubComp),
            ),
            (
                "v5_3_8_1_1_reserved_flag_bits_of_subscribe",
                "80| 00",
                DecodeError::FixedHeaderFlags(Subscribe),
            ),
            ("v5_3_8_1_1_more_flag_bits_of_subscribe", "83| 00", DecodeError::FixedHeaderFlags(Subscribe)),
            (
                "v5_3_10_1_1_reserved_flag_bits_of_unsubscribe",
                "a0| 00",
                DecodeError::FixedHeaderFlags(Unsubscribe),
            ),
            ("v5_2_1_3_1_reserved_flag_bits_of_pingreq", "c1| 00", DecodeError::FixedHeaderFlags(PingReq)),
            (
                "v5_3_14_1_1_reserved_flag_bits_of_disconnect",
                "e1| 00",
                DecodeError::FixedHeaderFlags(Disconnect),
            ),
            ("v5_3_15_1_1_reserved_flag_bits_of_auth", "f1| 00", DecodeError::FixedHeaderFlags(Auth)),
            ("v5_3_3_1_4_qos_3", "36| 00", DecodeError::PublishQoS),
            ("v5_3_3_1_4_qos_3_with_dup", "3e| 00", DecodeError::PublishQoS),
            ("v5_3_3_1_2_dup_with_qos_0", "38| 04 0001 61 00", DecodeError::PublishDup),
            ("v5_2_1_4_remaining_length_of_five_bytes", "30 ffffffff| 01", DecodeError::VariableByteInteger),
            (
                "v5_1_5_5_1_remaining_length_not_minimal",
                "30 8400| 0001 61 00",
                DecodeError::VariableByteInteger,
            ),
            ("v5_1_5_5_1_remaining_length_0_not_minimal", "c0 80808000|", DecodeError::VariableByteInteger),
            ("v5_3_12_1_pingreq_with_a_body", "c0 01| 00", DecodeError::RemainingLength(PingReq)),
            (
                "v5_3_2_2_15_larger_than_allowed",
                "30 ffffff7f| 0001",
                DecodeError::PacketTooLarge { bytes: 268_435_460, bytes_max: PACKET_BYTES_MAX },
            ),
        ],
    );
}

#[test]
fn first_packets() {
    check(
        Reader::Fresh,
        &[
            ("v5_2_1_2_packet_type_0_is_reserved", "00| 00", DecodeError::PacketTypeReserved(0)),
            ("v5_3_1_0_1_pingreq_first", "c0| 00", DecodeError::FirstPacketNotConnect(PingReq)),
            ("v5_3_1_0_1_publish_first", "30| 04 0001 61 00", DecodeError::FirstPacketNotConnect(Publish)),
            ("v5_3_1_0_1_auth_first", "f0| 00", DecodeError::FirstPacketNotConnect(Auth)),
            ("v5_3_1_0_1_disconnect_first", "e0| 00", DecodeError::FirstPacketNotConnect(Disconnect)),
            ("v5_3_1_0_1_connack_first", "20| 00", DecodeError::FirstPacketNotConnect(ConnAck)),
            ("v5_2_1_3_1_reserved_flag_bits", "11| 0e", DecodeError::FixedHeaderFlags(Connect)),
        ],
    );
}

#[test]
fn connect_in_both_versions() {
    check(
        Reader::Fresh,
        &[
            ("v5_3_1_2_without_a_body", "10 00|", DecodeError::Truncated),
            (
                "v5_3_1_2_1_protocol_name_of_another_length",
                "10 0e 0005| 4d51545454 05",
                DecodeError::ProtocolName,
            ),
            ("v5_3_1_2_1_protocol_name_in_lower_case", "10 0e 0004 6d| 717474 05", DecodeError::ProtocolName),
            (
                "v5_3_1_2_1_protocol_name_wrong_at_its_end",
                "10 0e 0004 4d515458| 05",
                DecodeError::ProtocolName,
            ),
            ("v5_3_1_2_1_http", "47| 4554202f20", DecodeError::FirstPacketNotConnect(PubAck)),
            (
                "v5_3_1_2_2_mqtt_3_1",
                "10 0f 0006 4d5149736470 03| 02 003c 0001 74",
                DecodeError::ProtocolVersion(3),
            ),
            (
                "v5_3_1_2_2_version_3",
                "10 0d 0004 4d515454 03| 02 003c 0001 74",
                DecodeError::ProtocolVersion(3),
            ),
            (
                "v5_3_1_2_2_version_6",
                "10 0d 0004 4d515454 06| 02 003c 0001 74",
                DecodeError::ProtocolVersion(6),
            ),
            (
                "v5_3_1_2_3_reserved_flag",
                "10 0e 0004 4d515454 05 03| 003c 00 0001 74",
                DecodeError::ConnectFlagReserved,
            ),
            (
                "v311_3_1_2_3_reserved_flag",
                "10 0d 0004 4d515454 04 03| 003c 0001 74",
                DecodeError::ConnectFlagReserved,
            ),
            (
                "v5_3_1_2_11_will_qos_without_will",
                "10 0e 0004 4d515454 05 0a| 003c 00 0001 74",
                DecodeError::WillFlags,
            ),
            (
                "v311_3_1_2_13_will_qos_without_will",
                "10 0d 0004 4d515454 04 12| 003c 0001 74",
                DecodeError::WillFlags,
            ),
            (
                "v5_3_1_2_13_will_retain_without_will",
                "10 0e 0004 4d515454 05 22| 003c 00 0001 74",
                DecodeError::WillFlags,
            ),
            ("v5_3_1_2_12_will_qos_3", "10 0e 0004 4d515454 05 1e| 003c 00 0001 74", DecodeError::WillQoS),
            ("v311_3_1_2_14_will_qos_3", "10 0d 0004 4d515454 04 1e| 003c 0001 74", DecodeError::WillQoS),
            (
                "v311_3_1_2_22_password_without_user_name",
                "10 0f 0004 4d515454 04 42| 003c 0001 74 0000",
                DecodeError::PasswordWithoutUsername,
            ),
            ("v5_3_1_3_without_client_id", "10 0b 0004 4d515454 05 02 003c 00|", DecodeError::Truncated),
            (
                "v5_3_1_3_client_id_past_the_end",
                "10 0e 0004 4d515454 05 02 003c 00 0002| 74",
                DecodeError::Truncated,
            ),
            (
                "v5_3_1_3_bytes_behind",
                "10 0f 0004 4d515454 05 02 003c 00 0001 74| 00",
                DecodeError::TrailingBytes,
            ),
            (
                "v311_3_1_3_bytes_behind",
                "10 0e 0004 4d515454 04 02 003c 0001 74| 00",
                DecodeError::TrailingBytes,
            ),
            (
                "v311_3_1_3_user_name_missing",
                "10 0d 0004 4d515454 04 82 003c 0001 74|",
                DecodeError::Truncated,
            ),
            (
                "v311_3_1_3_password_missing",
                "10 0f 0004 4d515454 04 c2 003c 0001 74 0000|",
                DecodeError::Truncated,
            ),
            ("v311_3_1_3_will_missing", "10 0d 0004 4d515454 04 06 003c 0001 74|", DecodeError::Truncated),
            (
                "v311_3_1_3_will_payload_missing",
                "10 10 0004 4d515454 04 06 003c 0001 74 0001 77|",
                DecodeError::Truncated,
            ),
        ],
    );
}

#[test]
fn strings() {
    let utf8 = DecodeError::Text(TextError::Utf8);
    let null = DecodeError::Text(TextError::Null);
    check(
        Reader::Fresh,
        &[
            ("v5_1_5_4_1_overlong_in_a_client_id", "10 0f 0004 4d515454 05 02 003c 00 0002 c0| af", utf8),
            ("v5_1_5_4_1_surrogate_in_a_client_id", "10 10 0004 4d515454 05 02 003c 00 0003 eda0| 80", utf8),
            ("v5_1_5_4_1_cut_short_in_a_client_id", "10 0f 0004 4d515454 05 02 003c 00 0002 e282|", utf8),
            ("v5_1_5_4_2_null_in_a_client_id", "10 0f 0004 4d515454 05 02 003c 00 0002 00| 61", null),
            ("v5_1_5_4_2_null_in_a_user_name", "10 12 0004 4d515454 05 82 003c 00 0001 74 0002 6100|", null),
            ("v5_1_5_4_2_null_in_a_will_topic", "10 12 0004 4d515454 04 06 003c 0001 74 0001 00| 0000", null),
            (
                "v5_1_5_7_1_null_in_the_name_of_a_user_property",
                "10 14 0004 4d515454 05 02 003c 06 26 0001 00| 0000 0001 74",
                null,
            ),
            (
                "v5_1_5_7_1_bad_utf8_in_the_value_of_a_user_property",
                "10 14 0004 4d515454 05 02 003c 06 26 0000 0001 ff| 0001 74",
                utf8,
            ),
            (
                "v5_1_5_4_1_bad_utf8_in_an_authentication_method",
                "10 12 0004 4d515454 05 02 003c 04 15 0001 80| 0001 74",
                utf8,
            ),
        ],
    );
    check(
        SERVER_V5,
        &[
            ("v5_3_3_2_1_null_in_a_topic_name", "30 05 0002 6100| 00", null),
            ("v5_3_3_2_1_bad_utf8_in_a_topic_name", "30 05 0002 61ff| 00", utf8),
            ("v5_3_3_2_19_bad_utf8_in_a_content_type", "30 08 0001 61 04 03 0001 ff|", utf8),
            ("v5_3_3_2_13_bad_utf8_in_a_response_topic", "30 08 0001 61 04 08 0001 ff|", utf8),
            ("v5_3_8_3_1_bad_utf8_in_a_filter", "82 07 0001 00 0001 ff| 00", utf8),
            ("v5_3_10_3_1_bad_utf8_in_a_filter", "a2 06 0001 00 0001 ff|", utf8),
            ("v5_3_14_2_null_in_a_reason_string", "e0 06 00 04 1f 0001 00|", null),
        ],
    );
    check(SERVER_V311, &[("v311_1_5_3_2_null_in_a_topic_name", "30 04 0002 6100|", null)]);
}

#[test]
fn properties_of_connect() {
    let twice = DecodeError::PropertyTwice;
    let value = DecodeError::PropertyValue;
    let not_allowed = |property| DecodeError::PropertyNotAllowed { packet: Connect, property };
    check(
        Reader::Fresh,
        &[
            (
                "v5_2_2_2_2_unknown",
                "10 10 0004 4d515454 05 02 003c 02 04| 00 0001 74",
                DecodeError::PropertyUnknown(4),
            ),
            (
                "v5_2_2_2_2_unknown_0",
                "10 10 0004 4d515454 05 02 003c 02 00| 00 0001 74",
                DecodeError::PropertyUnknown(0),
            ),
            (
                "v5_2_2_2_2_unknown_of_two_bytes",
                "10 10 0004 4d515454 05 02 003c 02 8101| 0001 74",
                DecodeError::PropertyUnknown(129),
            ),
            (
                "v5_1_5_5_1_identifier_not_minimal",
                "10 11 0004 4d515454 05 02 003c 03 9900| 00 0001 74",
                DecodeError::VariableByteInteger,
            ),
            (
                "v5_1_5_5_1_length_not_minimal",
                "10 0f 0004 4d515454 05 02 003c 8000| 0001 74",
                DecodeError::VariableByteInteger,
            ),
            (
                "v5_2_2_2_1_length_past_the_end",
                "10 0e 0004 4d515454 05 02 003c 04| 0001 74",
                DecodeError::Truncated,
            ),
            ("v5_2_2_2_1_length_missing", "10 0a 0004 4d515454 05 02 003c|", DecodeError::Truncated),
            (
                "v5_2_2_2_1_value_past_the_end_of_the_list",
                "10 11 0004 4d515454 05 02 003c 03 11| 0000 0001 74",
                DecodeError::Truncated,
            ),
            (
                "v5_2_2_2_1_string_past_the_end_of_the_list",
                "10 12 0004 4d515454 05 02 003c 04 15 0002| 61 0001 74",
                DecodeError::Truncated,
            ),
            (
                "v5_2_2_2_2_not_allowed",
                "10 10 0004 4d515454 05 02 003c 02 01| 00 0001 74",
                not_allowed(PropertyId::PayloadFormatIndicator),
            ),
            (
                "v5_2_2_2_2_reason_string",
                "10 11 0004 4d515454 05 02 003c 03 1f| 0000 0001 74",
                not_allowed(PropertyId::ReasonString),
            ),
            (
                "v5_3_1_2_11_2_session_expiry_twice",
                "10 18 0004 4d515454 05 02 003c 0a 11 00000001 11| 00000001 0001 74",
                twice(PropertyId::SessionExpiryInterval),
            ),
            (
                "v5_3_1_2_11_3_receive_maximum_twice",
                "10 14 0004 4d515454 05 02 003c 06 21 0001 21| 0001 0001 74",
                twice(PropertyId::ReceiveMaximum),
            ),
            (
                "v5_3_1_2_11_3_receive_maximum_0",
                "10 11 0004 4d515454 05 02 003c 03 21 0000| 0001 74",
                value(PropertyId::ReceiveMaximum),
            ),
            (
                "v5_3_1_2_11_4_maximum_packet_size_0",
                "10 13 0004 4d515454 05 02 003c 05 27 00000000| 0001 74",
                value(PropertyId::MaximumPacketSize),
            ),
            (
                "v5_3_1_2_11_5_topic_alias_maximum_twice",
                "10 14 0004 4d515454 05 02 003c 06 22 0000 22| 0000 0001 74",
                twice(PropertyId::TopicAliasMaximum),
            ),
            (
                "v5_3_1_2_11_6_request_response_information_2",
                "10 10 0004 4d515454 05 02 003c 02 19 02| 0001 74",
                value(PropertyId::RequestResponseInformation),
            ),
            (
                "v5_3_1_2_11_7_request_problem_information_2",
                "10 10 0004 4d515454 05 02 003c 02 17 02| 0001 74",
                value(PropertyId::RequestProblemInformation),
            ),
            (
                "v5_3_1_2_11_9_authentication_method_twice",
                "10 14 0004 4d515454 05 02 003c 06 15 0000 15| 0000 0001 74",
                twice(PropertyId::AuthenticationMethod),
            ),
            (
                "v5_3_1_2_11_10_authentication_data_without_method",
                "10 12 0004 4d515454 05 02 003c 04 16 0001 61| 0001 74",
                DecodeError::AuthenticationDataAlone,
            ),
            (
                "user_properties_over_the_limit",
                "10 3b 0004 4d515454 05 02 003c 2d
                 26 0000 0000 26 0000 0000 26 0000 0000 26 0000 0000
                 26 0000 0000 26 0000 0000 26 0000 0000 26 0000 0000 26| 0000 0000 0001 74",
                DecodeError::UserProperties,
            ),
        ],
    );
}

#[test]
fn properties_of_wills() {
    let not_allowed = |property| DecodeError::PropertyNotAllowed { packet: Connect, property };
    check(
        Reader::Fresh,
        &[
            (
                "v5_3_1_3_2_2_will_delay_twice",
                "10 1d 0004 4d515454 05 06 003c 00 0001 74 0a 18 00000000 18| 00000000 0001 77 0000",
                DecodeError::PropertyTwice(PropertyId::WillDelayInterval),
            ),
            (
                "v5_3_1_3_2_3_payload_format_2",
                "10 16 0004 4d515454 05 06 003c 00 0001 74 02 01 02| 0001 77 0000",
                DecodeError::PropertyValue(PropertyId::PayloadFormatIndicator),
            ),
            (
                "v5_3_3_2_14_response_topic_with_a_wildcard",
                "10 19 0004 4d515454 05 06 003c 00 0001 74 05 08 0002 612b| 0001 77 0000",
                DecodeError::ResponseTopic,
            ),
            (
                "v5_2_2_2_2_topic_alias",
                "10 17 0004 4d515454 05 06 003c 00 0001 74 03 23| 0001 0001 77 0000",
                not_allowed(PropertyId::TopicAlias),
            ),
            (
                "v5_2_2_2_2_subscription_identifier",
                "10 16 0004 4d515454 05 06 003c 00 0001 74 02 0b| 01 0001 77 0000",
                not_allowed(PropertyId::SubscriptionIdentifier),
            ),
        ],
    );
}

#[test]
fn publish_from_a_client() {
    check(
        SERVER_V5,
        &[
            ("v5_3_3_2_without_a_body", "30 00|", DecodeError::Truncated),
            ("v5_3_3_2_topic_past_the_end", "30 04 0003| 61 00", DecodeError::Truncated),
            ("v5_2_2_1_3_packet_identifier_0", "32 07 0001 61 0000| 00 78", DecodeError::PacketIdZero),
            ("v5_3_3_2_2_packet_identifier_missing", "32 03 0001 61|", DecodeError::Truncated),
            ("v5_3_3_2_3_property_length_missing", "30 03 0001 61|", DecodeError::Truncated),
            ("v5_3_3_2_1_empty_topic_without_alias", "30 04 0000 00| 78", DecodeError::TopicMissing),
            (
                "v5_3_3_2_1_empty_topic_with_another_property",
                "30 06 0000 02 01 01| 78",
                DecodeError::TopicMissing,
            ),
            ("v5_3_3_2_8_topic_alias_0", "30 07 0001 61 03 23 0000| 78", DecodeError::TopicAliasZero),
            (
                "v5_3_3_2_3_4_topic_alias_twice",
                "30 0a 0001 61 06 23 0001 23| 0001 78",
                DecodeError::PropertyTwice(PropertyId::TopicAlias),
            ),
            (
                "v5_3_3_4_6_subscription_identifier_from_a_client",
                "30 07 0001 61 02 0b| 01 78",
                DecodeError::PropertyFromWrongSide(PropertyId::SubscriptionIdentifier),
            ),
            (
                "v5_3_3_2_3_2_payload_format_2",
                "30 07 0001 61 02 01 02| 78",
                DecodeError::PropertyValue(PropertyId::PayloadFormatIndicator),
            ),
            (
                "v5_3_3_2_3_2_payload_format_twice",
                "30 09 0001 61 04 01 01 01| 01 78",
                DecodeError::PropertyTwice(PropertyId::PayloadFormatIndicator),
            ),
            (
                "v5_3_3_2_3_3_message_expiry_twice",
                "30 0e 0001 61 0a 02 00000001 02| 00000001",
                DecodeError::PropertyTwice(PropertyId::MessageExpiryInterval),
            ),
            (
                "v5_3_3_2_14_response_topic_with_hash",
                "30 08 0001 61 04 08 0001 23|",
                DecodeError::ResponseTopic,
            ),
            (
                "v5_3_3_2_14_response_topic_with_plus",
                "30 08 0001 61 04 08 0001 2b|",
                DecodeError::ResponseTopic,
            ),
            ("v5_4_7_3_1_response_topic_empty", "30 07 0001 61 03 08 0000|", DecodeError::ResponseTopic),
            (
                "v5_3_3_2_3_5_response_topic_twice",
                "30 0c 0001 61 08 08 0001 61 08| 0001 61",
                DecodeError::PropertyTwice(PropertyId::ResponseTopic),
            ),
            (
                "v5_3_3_2_3_6_correlation_data_twice",
                "30 0a 0001 61 06 09 0000 09| 0000",
                DecodeError::PropertyTwice(PropertyId::CorrelationData),
            ),
            (
                "v5_3_3_2_3_9_content_type_twice",
                "30 0a 0001 61 06 03 0000 03| 0000",
                DecodeError::PropertyTwice(PropertyId::ContentType),
            ),
            (
                "v5_2_2_2_2_session_expiry",
                "30 09 0001 61 05 11| 00000000",
                DecodeError::PropertyNotAllowed {
                    packet: Publish,
                    property: PropertyId::SessionExpiryInterval,
                },
            ),
        ],
    );
    check(
        SERVER_V311,
        &[
            ("v311_4_7_3_1_empty_topic", "30 03 0000| 78", DecodeError::TopicEmpty),
            ("v311_2_3_1_1_packet_identifier_0", "32 06 0001 61 0000| 78", DecodeError::PacketIdZero),
            ("v311_3_3_1_4_qos_3", "36| 00", DecodeError::PublishQoS),
            ("v311_3_3_1_2_dup_with_qos_0", "38| 00", DecodeError::PublishDup),
        ],
    );
}

#[test]
fn acknowledgements() {
    let code = |packet, code| DecodeError::ReasonCode { packet, code };
    check(
        SERVER_V5,
        &[
            ("v5_3_4_2_without_packet_identifier", "40 00|", DecodeError::RemainingLength(PubAck)),
            ("v5_3_4_2_half_a_packet_identifier", "50 01| 00", DecodeError::RemainingLength(PubRec)),
            ("v5_2_2_1_3_packet_identifier_0", "40 02 0000|", DecodeError::PacketIdZero),
            ("v5_3_4_2_1_unknown_reason_code", "40 03 0001 05|", code(PubAck, 0x05)),
            ("v5_3_4_2_1_reason_code_of_another_packet", "40 03 0001 92|", code(PubAck, 0x92)),
            ("v5_3_5_2_1_reason_code_of_another_packet", "50 03 0001 01|", code(PubRec, 0x01)),
            ("v5_3_6_2_1_reason_code_of_another_packet", "62 03 0001 10|", code(PubRel, 0x10)),
            ("v5_3_7_2_1_reason_code_of_another_packet", "70 03 0001 80|", code(PubComp, 0x80)),
            (
                "v5_3_4_2_2_property_not_allowed",
                "40 09 0001 00 05 11| 00000000",
                DecodeError::PropertyNotAllowed {
                    packet: PubAck,
                    property: PropertyId::SessionExpiryInterval,
                },
            ),
            (
                "v5_3_4_2_2_2_reason_string_twice",
                "40 0a 0001 00 06 1f 0000 1f| 0000",
                DecodeError::PropertyTwice(PropertyId::ReasonString),
            ),
            ("v5_3_4_2_2_bytes_behind", "40 05 0001 00 00| 00", DecodeError::TrailingBytes),
            ("v5_3_4_2_2_property_length_past_the_end", "40 04 0001 00 01|", DecodeError::Truncated),
        ],
    );
    check(
        SERVER_V311,
        &[
            ("v311_3_4_2_reason_code", "40 03| 0001 00", DecodeError::RemainingLength(PubAck)),
            ("v311_3_7_2_half_a_packet_identifier", "70 01| 00", DecodeError::RemainingLength(PubComp)),
            (
                "v311_3_6_1_1_reserved_flag_bits_of_pubrel",
                "60| 02 0001",
                DecodeError::FixedHeaderFlags(PubRel),
            ),
        ],
    );
}

#[test]
fn subscribe_and_unsubscribe() {
    check(
        SERVER_V5,
        &[
            ("v5_3_8_3_2_no_filters", "82 03 0001 00|", DecodeError::NoEntries(Subscribe)),
            ("v5_2_2_1_3_packet_identifier_0", "82 07 0000| 00 0001 61 00", DecodeError::PacketIdZero),
            ("v5_3_8_3_5_reserved_bit_6", "82 07 0001 00 0001 61 40|", DecodeError::SubscribeOptionsReserved),
            ("v5_3_8_3_5_reserved_bit_7", "82 07 0001 00 0001 61 80|", DecodeError::SubscribeOptionsReserved),
            ("v5_3_8_3_1_qos_3", "82 07 0001 00 0001 61 03|", DecodeError::SubscribeQoS),
            ("v5_3_8_3_1_retain_handling_3", "82 07 0001 00 0001 61 30|", DecodeError::RetainHandling),
            (
                "v5_3_8_3_4_no_local_on_a_shared_subscription",
                "82 10 0001 00 000a 2473686172652f672f74 04|",
                DecodeError::NoLocalShared,
            ),
            ("v5_3_8_3_options_missing", "82 06 0001 00 0001 61|", DecodeError::Truncated),
            (
                "v5_3_8_3_second_filter_past_the_end",
                "82 0a 0001 00 0001 61 00 0002| 61",
                DecodeError::Truncated,
            ),
            (
                "v5_3_8_2_1_2_subscription_identifier_0",
                "82 09 0001 02 0b 00| 0001 61 00",
                DecodeError::PropertyValue(PropertyId::SubscriptionIdentifier),
            ),
            (
                "v5_3_8_2_1_2_subscription_identifier_twice",
                "82 0b 0001 04 0b 01 0b| 02 0001 61 00",
                DecodeError::PropertyTwice(PropertyId::SubscriptionIdentifier),
            ),
            (
                "v5_3_8_2_1_2_subscription_identifier_too_large",
                "82 0d 0001 06 0b ffffffff| 01 0001 61 00",
                DecodeError::VariableByteInteger,
            ),
            (
                "v5_3_8_2_1_property_not_allowed",
                "82 0a 0001 03 1f| 0000 0001 61 00",
                DecodeError::PropertyNotAllowed { packet: Subscribe, property: PropertyId::ReasonString },
            ),
            ("v5_3_10_3_2_no_filters", "a2 03 0001 00|", DecodeError::NoEntries(Unsubscribe)),
            ("v5_2_2_1_3_packet_identifier_0", "a2 06 0000| 00 0001 61", DecodeError::PacketIdZero),
            (
                "v5_3_10_2_1_property_not_allowed",
                "a2 08 0001 02 0b| 01 0001 61",
                DecodeError::PropertyNotAllowed {
                    packet: Unsubscribe,
                    property: PropertyId::SubscriptionIdentifier,
                },
            ),
        ],
    );
    check(
        SERVER_V311,
        &[
            ("v311_3_8_3_3_no_filters", "82 02 0001|", DecodeError::NoEntries(Subscribe)),
            ("v311_3_8_3_4_reserved_bits", "82 06 0001 0001 61 04|", DecodeError::SubscribeOptionsReserved),
            ("v311_3_8_3_4_qos_3", "82 06 0001 0001 61 03|", DecodeError::SubscribeQoSV311),
            ("v311_3_10_3_2_no_filters", "a2 02 0001|", DecodeError::NoEntries(Unsubscribe)),
            ("v311_3_8_1_1_reserved_flag_bits", "80| 00", DecodeError::FixedHeaderFlags(Subscribe)),
        ],
    );
}

#[test]
fn disconnect_and_auth() {
    check(
        SERVER_V5,
        &[
            (
                "v5_3_14_2_1_unknown_reason_code",
                "e0 01 01|",
                DecodeError::ReasonCode { packet: Disconnect, code: 1 },
            ),
            (
                "v5_3_14_2_1_reason_code_of_servers",
                "e0 01 8e|",
                DecodeError::ReasonCodeFromWrongSide { packet: Disconnect, code: Code::SessionTakenOver },
            ),
            (
                "v5_3_14_2_2_server_reference_from_a_client",
                "e0 05 00 03 1c| 0000",
                DecodeError::PropertyFromWrongSide(PropertyId::ServerReference),
            ),
            (
                "v5_3_14_2_2_2_session_expiry_twice",
                "e0 0c 00 0a 11 00000000 11| 00000000",
                DecodeError::PropertyTwice(PropertyId::SessionExpiryInterval),
            ),
            ("v5_3_14_2_2_bytes_behind", "e0 03 00 00| 00", DecodeError::TrailingBytes),
            (
                "v5_3_15_2_1_success_from_a_client",
                "f0 00|",
                DecodeError::ReasonCodeFromWrongSide { packet: Auth, code: Code::Success },
            ),
            (
                "v5_3_15_2_1_unknown_reason_code",
                "f0 02 80| 00",
                DecodeError::ReasonCode { packet: Auth, code: 0x80 },
            ),
            ("v5_3_15_2_2_property_length_missing", "f0 01 18|", DecodeError::Truncated),
            ("v5_3_15_2_2_2_method_missing", "f0 02 18 00|", DecodeError::AuthenticationMethodMissing),
            (
                "v5_3_15_2_2_3_data_without_method",
                "f0 05 18 03 16 0000|",
                DecodeError::AuthenticationMethodMissing,
            ),
            (
                "v5_3_15_2_2_2_method_twice",
                "f0 0a 18 08 15 0001 6d 15| 0001 6d",
                DecodeError::PropertyTwice(PropertyId::AuthenticationMethod),
            ),
            (
                "v5_3_1_0_2_second_connect_of_another_protocol",
                "10 0d 0004 4d515454 06|",
                DecodeError::SecondConnect,
            ),
        ],
    );
    check(
        SERVER_V311,
        &[
            ("v311_2_2_1_packet_type_15_is_reserved", "f0| 00", DecodeError::PacketTypeReserved(15)),
            ("v311_3_14_1_1_reserved_flag_bits", "e1| 00", DecodeError::FixedHeaderFlags(Disconnect)),
            ("v311_3_14_1_with_a_body", "e0 01| 00", DecodeError::RemainingLength(Disconnect)),
        ],
    );
}

#[test]
fn what_servers_send() {
    let value = DecodeError::PropertyValue;
    check(
        CLIENT_V5,
        &[
            ("v5_2_1_2_connect_from_a_server", "10| 00", DecodeError::PacketFromWrongSide(Connect)),
            ("v5_2_1_2_subscribe_from_a_server", "82| 00", DecodeError::PacketFromWrongSide(Subscribe)),
            ("v5_2_1_2_pingreq_from_a_server", "c0| 00", DecodeError::PacketFromWrongSide(PingReq)),
            ("v5_3_2_2_1_acknowledge_flags", "20 03 02| 00 00", DecodeError::ConnAckFlags),
            (
                "v5_3_2_2_6_session_present_with_an_error",
                "20 03 01 87| 00",
                DecodeError::SessionPresentOnError,
            ),
            (
                "v5_3_2_2_8_reason_code_of_another_packet",
                "20 03 00 8e| 00",
                DecodeError::ReasonCode { packet: ConnAck, code: 0x8E },
            ),
            ("v5_3_2_2_3_3_receive_maximum_0", "20 06 00 00 03 21 0000|", value(PropertyId::ReceiveMaximum)),
            ("v5_3_2_2_3_4_maximum_qos_2", "20 05 00 00 02 24 02|", value(PropertyId::MaximumQoS)),
            ("v5_3_2_2_3_5_retain_available_2", "20 05 00 00 02 25 02|", value(PropertyId::RetainAvailable)),
            (
                "v5_3_2_2_3_6_packet_size_0",
                "20 08 00 00 05 27 00000000|",
                value(PropertyId::MaximumPacketSize),
            ),
            (
                "v5_3_2_2_3_18_authentication_data_alone",
                "20 06 00 00 03 16 0000|",
                DecodeError::AuthenticationDataAlone,
            ),
            (
                "v5_3_3_2_3_8_subscription_identifier_0",
                "30 06 0001 61 02 0b 00|",
                value(PropertyId::SubscriptionIdentifier),
            ),
            ("v5_3_9_3_no_codes", "90 03 0001 00|", DecodeError::NoEntries(SubAck)),
            ("v5_3_9_3_code", "90 04 0001 00 03|", DecodeError::ReasonCode { packet: SubAck, code: 3 }),
            ("v5_3_11_3_no_codes", "b0 03 0001 00|", DecodeError::NoEntries(UnsubAck)),
            (
                "v5_3_14_2_2_session_expiry_from_a_server",
                "e0 07 00 05 11| 00000000",
                DecodeError::PropertyFromWrongSide(PropertyId::SessionExpiryInterval),
            ),
            (
                "v5_3_14_2_1_with_will_from_a_server",
                "e0 01 04|",
                DecodeError::ReasonCodeFromWrongSide { packet: Disconnect, code: Code::DisconnectWithWill },
            ),
            (
                "v5_3_15_2_1_re_authenticate_from_a_server",
                "f0 02 19| 00",
                DecodeError::ReasonCodeFromWrongSide { packet: Auth, code: Code::ReAuthenticate },
            ),
        ],
    );
    check(
        CLIENT_V311,
        &[
            ("v311_3_14_disconnect_from_a_server", "e0| 00", DecodeError::PacketFromWrongSide(Disconnect)),
            ("v311_3_2_1_connack_length", "20 03| 00 00 00", DecodeError::RemainingLength(ConnAck)),
            (
                "v311_3_2_2_3_return_code",
                "20 02 00 06|",
                DecodeError::ReasonCode { packet: ConnAck, code: 6 },
            ),
            ("v311_3_9_3_2_code", "90 03 0001 87|", DecodeError::ReasonCode { packet: SubAck, code: 0x87 }),
            ("v311_3_11_1_unsuback_length", "b0 03| 0001 00", DecodeError::RemainingLength(UnsubAck)),
        ],
    );
}

#[test]
fn reason_codes_of_errors() {
    for (error, code) in [
        (DecodeError::PacketTypeReserved(0), ReasonCode::MalformedPacket),
        (DecodeError::FixedHeaderFlags(Subscribe), ReasonCode::MalformedPacket),
        (DecodeError::PublishQoS, ReasonCode::MalformedPacket),
        (DecodeError::Text(TextError::Null), ReasonCode::MalformedPacket),
        (DecodeError::SubscribeOptionsReserved, ReasonCode::MalformedPacket),
        (DecodeError::SubscribeQoSV311, ReasonCode::MalformedPacket),
        (DecodeError::PropertyUnknown(4), ReasonCode::MalformedPacket),
        (DecodeError::FirstPacketNotConnect(PingReq), ReasonCode::ProtocolError),
        (DecodeError::SecondConnect, ReasonCode::ProtocolError),
        (DecodeError::PacketIdZero, ReasonCode::ProtocolError),
        (DecodeError::PropertyTwice(PropertyId::TopicAlias), ReasonCode::ProtocolError),
        (DecodeError::NoLocalShared, ReasonCode::ProtocolError),
        (DecodeError::SubscribeQoS, ReasonCode::ProtocolError),
        (DecodeError::TopicMissing, ReasonCode::ProtocolError),
        (DecodeError::ResponseTopic, ReasonCode::ProtocolError),
        (DecodeError::ProtocolName, ReasonCode::UnsupportedProtocolVersion),
        (DecodeError::ProtocolVersion(3), ReasonCode::UnsupportedProtocolVersion),
        (DecodeError::TopicAliasZero, ReasonCode::TopicAliasInvalid),
        (DecodeError::PacketTooLarge { bytes: 2, bytes_max: 1 }, ReasonCode::PacketTooLarge),
        (DecodeError::UserProperties, ReasonCode::QuotaExceeded),
    ] {
        assert_eq!(error.reason_code(), code, "{error}");
    }
}

/// Whoever answers has to know in which version, also where the CONNECT itself is refused.
#[test]
fn the_version_is_known_as_soon_as_it_was_read() {
    let bytes = hex(CONNECT_V5);
    for (len, version) in [(8, None), (9, Some(Version::V5)), (10, Some(Version::V5))] {
        let mut decoder = Reader::Fresh.decoder();
        let mut input = bytes::BytesMut::from(&bytes[..len]);
        assert_eq!(decoder.decode(&mut input), Ok(None));
        assert_eq!(decoder.version(), version);
    }
}
