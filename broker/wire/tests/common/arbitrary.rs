//! Arbitrary packets that the standard allows.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use weirmq_wire::{
    Ack, Auth, ConnAck, Connect, Disconnect, Packet, PacketId, PacketType, Properties, Publish,
    PublishExtras, QoS, ReasonCode, RetainHandling, Side, SubAck, Subscribe, SubscribeOptions, Text,
    UnsubAck, Unsubscribe, UserProperties, Version, Will,
};

use super::USER_PROPERTIES_MAX;

pub(crate) fn version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V311), Just(Version::V5)]
}

/// A packet, its version, and who sends it.
pub(crate) fn packet() -> impl Strategy<Value = (Packet, Version, Side)> {
    (version(), prop_oneof![Just(Side::Client), Just(Side::Server)])
        .prop_flat_map(|(version, side)| (packet_from(version, side), Just(version), Just(side)))
}

fn packet_from(version: Version, side: Side) -> BoxedStrategy<Packet> {
    let both = prop_oneof![
        4 => publish(version, side).prop_map(Packet::Publish),
        1 => ack(version, side, PacketType::PubAck).prop_map(Packet::PubAck),
        1 => ack(version, side, PacketType::PubRec).prop_map(Packet::PubRec),
        1 => ack(version, side, PacketType::PubRel).prop_map(Packet::PubRel),
        1 => ack(version, side, PacketType::PubComp).prop_map(Packet::PubComp),
    ];
    let one = match side {
        Side::Client => prop_oneof![
            connect(version).prop_map(|packet| Packet::Connect(Box::new(packet))),
            subscribe(version).prop_map(Packet::Subscribe),
            unsubscribe(version).prop_map(Packet::Unsubscribe),
            Just(Packet::PingReq),
            disconnect(version, side).prop_map(Packet::Disconnect),
        ]
        .boxed(),
        Side::Server => prop_oneof![
            connack(version).prop_map(|packet| Packet::ConnAck(Box::new(packet))),
            suback(version).prop_map(Packet::SubAck),
            unsuback(version).prop_map(Packet::UnsubAck),
            Just(Packet::PingResp),
        ]
        .boxed(),
    };
    match (version, side) {
        (Version::V311, _) => prop_oneof![both, one].boxed(),
        (Version::V5, Side::Client) => prop_oneof![4 => both, 4 => one, 1 => auth(side)].boxed(),
        (Version::V5, Side::Server) => {
            let disconnect = disconnect(version, side).prop_map(Packet::Disconnect);
            prop_oneof![4 => both, 4 => one, 1 => auth(side), 1 => disconnect].boxed()
        }
    }
}

fn string() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[a-z/]{0,12}", 1 => "[^\\x00]{0,12}", 1 => Just("\u{feff}x".to_owned())]
}

fn text() -> impl Strategy<Value = Text> {
    string().prop_map(|string| Text::new(&string).unwrap())
}

fn boxed() -> impl Strategy<Value = Box<str>> {
    string().prop_map(String::into_boxed_str)
}

fn topic() -> impl Strategy<Value = Text> {
    "[a-z/$é]{1,12}".prop_map(|string| Text::new(&string).unwrap())
}

fn binary() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..20).prop_map(Bytes::from)
}

fn user() -> impl Strategy<Value = UserProperties> {
    prop_oneof![2 => Just(Vec::new()), 1 => vec((boxed(), boxed()), 0..=USER_PROPERTIES_MAX / 2)]
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(|id| PacketId::new(id).unwrap())
}

fn qos() -> impl Strategy<Value = QoS> {
    (0_u8..3).prop_map(|number| QoS::try_from(number).unwrap())
}

fn subscription_id() -> impl Strategy<Value = u32> {
    prop_oneof![1_u32..300, Just(268_435_455)]
}

/// What MQTT 3.1.1 has no place for is nothing there.
fn in_v5<T: std::fmt::Debug + Clone + Default + 'static>(
    version: Version,
    strategy: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<T> {
    if version == Version::V5 { strategy.boxed() } else { Just(T::default()).boxed() }
}

fn properties() -> impl Strategy<Value = Properties> {
    let response_topic = topic().prop_map(|topic| Box::from(topic.as_str()));
    (option::of(any::<bool>()), option::of(boxed()), option::of(response_topic), option::of(binary()), user())
        .prop_map(|(payload_is_utf8, content_type, response_topic, correlation_data, user)| Properties {
            payload_is_utf8,
            content_type,
            response_topic,
            correlation_data,
            user,
        })
}

fn publish(version: Version, side: Side) -> impl Strategy<Value = Publish> {
    let ids =
        if side == Side::Client { Just(Vec::new()).boxed() } else { vec(subscription_id(), 0..3).boxed() };
    let alias = option::of((1..=u16::MAX).prop_map(|alias| NonZeroU16::new(alias).unwrap()));
    let extras = (properties(), option::of(any::<u32>()), alias, ids).prop_map(
        |(message, message_expiry_interval_s, topic_alias, subscription_ids)| PublishExtras {
            message,
            message_expiry_interval_s,
            topic_alias,
            subscription_ids,
        },
    );
    let extras = in_v5(version, option::of(extras));
    // Long enough that the remaining length takes two bytes and three.
    let payload = prop_oneof![8 => vec(any::<u8>(), 0..300), 1 => Just(vec![7; 20_000])];
    (qos(), any::<bool>(), any::<bool>(), topic(), packet_id(), extras, payload, any::<bool>()).prop_map(
        |(qos, dup, retain, topic, id, extras, payload, aliased)| {
            let has_alias = extras.as_ref().is_some_and(|extras| extras.topic_alias.is_some());
            Publish {
                dup: dup && qos != QoS::AtMostOnce,
                qos,
                retain,
                topic: if aliased && has_alias { Text::default() } else { topic },
                packet_id: (qos != QoS::AtMostOnce).then_some(id),
                extras: extras.filter(|extras| *extras != PublishExtras::default()).map(Box::new),
                payload: Bytes::from(payload),
            }
        },
    )
}

/// A code that this packet may carry from this side. The tables are the decoder's own; that they are right is
/// tested elsewhere.
fn code(packet: PacketType, side: Side) -> impl Strategy<Value = ReasonCode> {
    let one_way = move |code: &ReasonCode| match (packet, side) {
        (PacketType::Disconnect, Side::Client) => {
            matches!(code.as_u8(), 0 | 4 | 0x80..=0x83 | 0x90 | 0x93..=0x99)
        }
        (PacketType::Disconnect, Side::Server) => *code != ReasonCode::DisconnectWithWill,
        _ => true,
    };
    let codes: Vec<_> =
        ReasonCode::ALL.iter().copied().filter(|code| code.valid_in(packet)).filter(one_way).collect();
    prop_oneof![Just(ReasonCode::Success), proptest::sample::select(codes)]
}

fn ack(version: Version, side: Side, kind: PacketType) -> impl Strategy<Value = Ack> {
    let code =
        if version == Version::V5 { code(kind, side).boxed() } else { Just(ReasonCode::Success).boxed() };
    (packet_id(), code, in_v5(version, option::of(boxed())), in_v5(version, user())).prop_map(
        |(packet_id, code, reason_string, user_properties)| Ack {
            packet_id,
            code,
            reason_string,
            user_properties,
        },
    )
}

fn will(version: Version) -> impl Strategy<Value = Will> {
    let delay = in_v5(version, any::<u32>());
    let expiry = in_v5(version, option::of(any::<u32>()));
    (topic(), binary(), qos(), any::<bool>(), delay, expiry, in_v5(version, properties())).prop_map(
        |(topic, payload, qos, retain, delay_interval_s, message_expiry_interval_s, properties)| Will {
            topic,
            payload,
            qos,
            retain,
            delay_interval_s,
            message_expiry_interval_s,
            properties,
        },
    )
}

pub(crate) fn connect(version: Version) -> impl Strategy<Value = Connect> {
    let common = (
        any::<bool>(),
        any::<u16>(),
        text(),
        option::of(text()),
        option::of(binary()),
        option::of(will(version)),
    );
    let limits = (
        in_v5(version, option::of(any::<u32>())),
        in_v5(version, 0..u16::MAX),
        in_v5(version, option::of(any::<u32>())),
        in_v5(version, any::<u16>()),
        in_v5(version, any::<(bool, bool)>()),
    );
    let method = option::of((boxed(), option::of(binary())));
    let rest = (in_v5(version, user()), in_v5(version, method));
    (common, limits, rest).prop_map(move |(common, limits, (user_properties, method))| {
        let (clean_start, keep_alive_s, client_id, username, password, will) = common;
        let (session_expiry_interval_s, receive_max, packet_size_max, topic_alias_max, information) = limits;
        let password = password.filter(|_| version == Version::V5 || username.is_some());
        let (authentication_method, authentication_data) = method.unzip();
        Connect {
            version,
            clean_start,
            keep_alive_s,
            client_id,
            username,
            password,
            will,
            session_expiry_interval_s,
            receive_max: NonZeroU16::new(receive_max).unwrap_or(NonZeroU16::MAX),
            packet_size_max: packet_size_max.and_then(NonZeroU32::new),
            topic_alias_max,
            request_response_information: information.0,
            request_problem_information: !information.1,
            user_properties,
            authentication_method,
            authentication_data: authentication_data.flatten(),
        }
    })
}

fn connack(version: Version) -> BoxedStrategy<ConnAck> {
    let v311 = [
        ReasonCode::Success,
        ReasonCode::UnsupportedProtocolVersion,
        ReasonCode::ClientIdentifierNotValid,
        ReasonCode::ServerUnavailable,
        ReasonCode::BadUserNameOrPassword,
        ReasonCode::NotAuthorized,
    ];
    let code = match version {
        Version::V311 => proptest::sample::select(v311.to_vec()).boxed(),
        Version::V5 => code(PacketType::ConnAck, Side::Server).boxed(),
    };
    let first = (any::<bool>(), code).prop_map(|(session_present, code)| ConnAck {
        session_present: session_present && code == ReasonCode::Success,
        ..ConnAck::new(code)
    });
    if version == Version::V311 {
        return first.boxed();
    }
    let numbers = any::<(Option<u32>, Option<u16>, Option<bool>, Option<u32>, Option<u16>, Option<u16>)>();
    let flags = any::<[Option<bool>; 4]>();
    let strings = [(); 4].map(|()| option::of(boxed()));
    let method = option::of((boxed(), option::of(binary())));
    (first, numbers, flags, strings, user(), method)
        .prop_map(|(first, numbers, flags, strings, user_properties, method)| {
            let [assigned_client_id, reason_string, response_information, server_reference] = strings;
            let (authentication_method, authentication_data) = method.unzip();
            ConnAck {
                session_expiry_interval_s: numbers.0,
                receive_max: numbers.1.and_then(NonZeroU16::new),
                qos_max: numbers.2.map(|one| if one { QoS::AtLeastOnce } else { QoS::AtMostOnce }),
                packet_size_max: numbers.3.and_then(NonZeroU32::new),
                topic_alias_max: numbers.4,
                server_keep_alive_s: numbers.5,
                retain_available: flags[0],
                wildcard_subscription_available: flags[1],
                subscription_identifiers_available: flags[2],
                shared_subscription_available: flags[3],
                assigned_client_id,
                reason_string,
                response_information,
                server_reference,
                user_properties,
                authentication_method,
                authentication_data: authentication_data.flatten(),
                ..first
            }
        })
        .boxed()
}

fn options(version: Version) -> BoxedStrategy<SubscribeOptions> {
    if version == Version::V311 {
        return qos().prop_map(|qos| SubscribeOptions { qos, ..SubscribeOptions::default() }).boxed();
    }
    let handling = prop_oneof![
        Just(RetainHandling::Send),
        Just(RetainHandling::SendIfNew),
        Just(RetainHandling::DoNotSend)
    ];
    (qos(), any::<bool>(), any::<bool>(), handling)
        .prop_map(|(qos, no_local, retain_as_published, retain_handling)| SubscribeOptions {
            qos,
            no_local,
            retain_as_published,
            retain_handling,
        })
        .boxed()
}

fn subscribe(version: Version) -> impl Strategy<Value = Subscribe> {
    let id = in_v5(version, option::of(subscription_id()));
    (packet_id(), id, in_v5(version, user()), vec((text(), options(version)), 1..5)).prop_map(
        |(packet_id, subscription_id, user_properties, filters)| Subscribe {
            packet_id,
            subscription_id,
            user_properties,
            filters,
        },
    )
}

fn unsubscribe(version: Version) -> impl Strategy<Value = Unsubscribe> {
    (packet_id(), in_v5(version, user()), vec(text(), 1..5))
        .prop_map(|(packet_id, user_properties, filters)| Unsubscribe { packet_id, user_properties, filters })
}

fn suback(version: Version) -> impl Strategy<Value = SubAck> {
    let v311 =
        [ReasonCode::Success, ReasonCode::GrantedQoS1, ReasonCode::GrantedQoS2, ReasonCode::UnspecifiedError];
    let code = match version {
        Version::V311 => proptest::sample::select(v311.to_vec()).boxed(),
        Version::V5 => code(PacketType::SubAck, Side::Server).boxed(),
    };
    (packet_id(), vec(code, 1..5), in_v5(version, option::of(boxed())), in_v5(version, user())).prop_map(
        |(packet_id, codes, reason_string, user_properties)| SubAck {
            packet_id,
            codes,
            reason_string,
            user_properties,
        },
    )
}

fn unsuback(version: Version) -> impl Strategy<Value = UnsubAck> {
    let codes = in_v5(version, vec(code(PacketType::UnsubAck, Side::Server), 1..5));
    (packet_id(), codes, in_v5(version, option::of(boxed())), in_v5(version, user())).prop_map(
        |(packet_id, codes, reason_string, user_properties)| UnsubAck {
            packet_id,
            codes,
            reason_string,
            user_properties,
        },
    )
}

fn disconnect(version: Version, side: Side) -> BoxedStrategy<Disconnect> {
    if version == Version::V311 {
        return Just(Disconnect::new(ReasonCode::Success)).boxed();
    }
    let expiry = option::of(any::<u32>());
    (code(PacketType::Disconnect, side), expiry, option::of(boxed()), user(), option::of(boxed()))
        .prop_map(move |(code, expiry, reason_string, user_properties, server_reference)| Disconnect {
            code,
            session_expiry_interval_s: expiry.filter(|_| side == Side::Client),
            reason_string,
            user_properties,
            server_reference: server_reference.filter(|_| side == Side::Server),
        })
        .boxed()
}

fn auth(side: Side) -> impl Strategy<Value = Packet> {
    let other = match side {
        Side::Client => ReasonCode::ReAuthenticate,
        Side::Server => ReasonCode::Success,
    };
    let code = prop_oneof![Just(ReasonCode::ContinueAuthentication), Just(other)];
    let full = (code, boxed(), option::of(binary()), option::of(boxed()), user()).prop_map(
        |(code, method, data, reason_string, user_properties)| Auth {
            data,
            reason_string,
            user_properties,
            ..Auth::new(code, Some(method))
        },
    );
    let bare = Auth::new(ReasonCode::Success, None);
    let auth = match side {
        Side::Client => full.boxed(),
        Side::Server => prop_oneof![4 => full, 1 => Just(bare)].boxed(),
    };
    auth.prop_map(|auth| Packet::Auth(Box::new(auth)))
}
