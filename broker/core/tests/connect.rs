//! CONNECT and its answer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use support::{V5, V311, VERSIONS, World, text};
use weirmq_core::broker::Settings;
use weirmq_core::hook::{AuthenticateRequest, Authentication, Denial, Hook, HookPoint, HookPoints, Reply};
use weirmq_wire::{ConnAck, Connect, Packet, QoS, ReasonCode, Version};

fn answer(world: &World, version: Version, change: impl FnOnce(&mut Connect)) -> (support::Client, ConnAck) {
    let mut connect = Connect::new(version, text("c"));
    change(&mut connect);
    let mut client = world.socket(version);
    client.send(world, Packet::Connect(Box::new(connect)));
    let Some(Packet::ConnAck(connack)) = client.next() else { panic!("CONNACK") };
    (client, *connack)
}

#[test]
fn a_client_without_an_identifier_is_given_one_that_nobody_else_has() {
    let world = World::new();
    let anonymous = |change: fn(&mut Connect)| {
        answer(&world, V5, |connect| {
            connect.client_id = text("");
            change(connect);
        })
    };
    let (_one, first) = anonymous(|_| {});
    let (two, second) = anonymous(|connect| connect.session_expiry_interval_s = Some(100));
    let assigned = second.assigned_client_id.unwrap();
    assert_ne!(first.assigned_client_id.unwrap(), assigned);
    two.cut(&world);
    let (_two, again) = answer(&world, V5, |connect| {
        connect.client_id = text(&assigned);
        connect.clean_start = false;
    });
    assert!(again.session_present && again.assigned_client_id.is_none());
    let (_named, named) = answer(&world, V5, |_| {});
    assert_eq!(named.assigned_client_id, None);
}

#[test]
fn v311_an_empty_identifier_goes_with_clean_session_only() {
    let world = World::new();
    let mut client = world.socket(V311);
    client.send_bytes(&world, b"\x10\x0c\x00\x04MQTT\x04\x00\x00\x3c\x00\x00");
    assert!(client.is_closed());
    assert_eq!(client.raw(), b"\x20\x02\x00\x02");
    let (mut a, _) = world.connect(V311, "", |_| {});
    let (mut b, _) = world.connect(V311, "", |_| {});
    assert!(!a.is_closed() && !b.is_closed(), "they are two");
}

#[test]
fn every_identifier_of_letters_and_digits_is_taken_and_longer_ones_too() {
    for version in VERSIONS {
        let world = World::new();
        for name in ["0123456789abcdefghijklm", "nopqrstuvwxyzABCDEFGHIJ", "KLMNOPQRSTUVWXYZ", "日本語/+#$"]
        {
            let mut client = world.client(version, name);
            client.subscribe(&world, "a", 0);
        }
        world.client(version, &"x".repeat(10_000));
    }
}

#[test]
fn a_configuration_without_anything_turned_off_announces_nothing_but_its_limits() {
    let world = World::new();
    let (_c, connack) = answer(&world, V5, |_| {});
    let mut expected = ConnAck::new(ReasonCode::Success);
    let limits = world.broker.limits();
    expected.receive_max = NonZeroU16::new(limits.receive_max);
    expected.packet_size_max = NonZeroU32::new(limits.packet_bytes_max);
    expected.topic_alias_max = Some(limits.topic_alias_max);
    assert_eq!(connack, expected);
    let (_old, connack) = answer(&world, V311, |connect| connect.client_id = text("old"));
    assert_eq!(connack, ConnAck::new(ReasonCode::Success));
}

#[test]
fn what_is_turned_off_is_announced_and_refused() {
    let mut settings = Settings::default();
    settings.capabilities.qos_max = QoS::AtLeastOnce;
    settings.capabilities.retain = false;
    settings.capabilities.wildcard_subscriptions = false;
    settings.capabilities.subscription_identifiers = false;
    settings.capabilities.shared_subscriptions = false;
    let world = World::with(settings, []);
    let (_c, connack) = answer(&world, V5, |_| {});
    assert_eq!(connack.qos_max, Some(QoS::AtLeastOnce));
    assert_eq!(connack.retain_available, Some(false));
    assert_eq!(connack.wildcard_subscription_available, Some(false));
    assert_eq!(connack.subscription_identifiers_available, Some(false));
    assert_eq!(connack.shared_subscription_available, Some(false));
    for version in VERSIONS {
        let client = || world.client(version, "x");
        assert_eq!(client().subscribe(&world, "a", 2), [ReasonCode::GrantedQoS1]);
        let mut c = client();
        c.publish(&world, "a", 2, "x");
        c.expect_closed(ReasonCode::QoSNotSupported);
        let mut c = client();
        c.retain(&world, "a", "x");
        c.expect_closed(ReasonCode::RetainNotSupported);
        for (filter, code) in [
            ("a/+", ReasonCode::WildcardSubscriptionsNotSupported),
            ("#", ReasonCode::WildcardSubscriptionsNotSupported),
            ("$share/g/a", ReasonCode::SharedSubscriptionsNotSupported),
        ] {
            if version == V5 {
                client().subscribe_and_expect_the_end(&world, filter, code);
            } else {
                assert_eq!(client().subscribe(&world, filter, 0), [ReasonCode::UnspecifiedError]);
            }
        }
        for (qos, retain, code) in
            [(2, false, ReasonCode::QoSNotSupported), (0, true, ReasonCode::RetainNotSupported)]
        {
            let mut connect = Connect::new(version, text("w"));
            connect.will = support::will("w", "x", 0);
            connect.will.as_mut().unwrap().qos = support::qos(qos);
            connect.will.as_mut().unwrap().retain = retain;
            let mut client = world.socket(version);
            client.send(&world, Packet::Connect(Box::new(connect)));
            assert!(client.is_closed());
            match client.next() {
                Some(Packet::ConnAck(connack)) if version == V5 => assert_eq!(connack.code, code),
                None if version == V311 => {}
                other => panic!("{other:?}"),
            }
        }
    }
    let mut c = world.client(V5, "x");
    let mut subscribe = weirmq_wire::Subscribe {
        packet_id: support::id(1),
        subscription_id: Some(1),
        user_properties: Vec::new(),
        filters: vec![(text("a"), Default::default())],
    };
    c.send(&world, Packet::Subscribe(subscribe.clone()));
    c.expect_closed(ReasonCode::SubscriptionIdentifiersNotSupported);
    subscribe.subscription_id = None;
    let mut c = world.client(V5, "x");
    c.send(&world, Packet::Subscribe(subscribe));
    assert!(matches!(c.next(), Some(Packet::SubAck(_))));
    assert_eq!(world.broker.footprint().retained_messages, 0);
}

#[test]
fn response_information_is_for_those_who_ask_and_have_room_for_it() {
    let settings =
        || Settings { response_information: Some("re/{client_id}/".into()), ..Settings::default() };
    let world = World::with(settings(), []);
    let ask = |connect: &mut Connect| connect.request_response_information = true;
    assert_eq!(answer(&world, V5, ask).1.response_information.as_deref(), Some("re/c/"));
    assert_eq!(answer(&world, V5, |_| {}).1.response_information, None);
    let narrow = |connect: &mut Connect| {
        ask(connect);
        connect.packet_size_max = NonZeroU32::new(20);
    };
    assert_eq!(answer(&world, V5, narrow).1.response_information, None);
    let world = World::new();
    assert_eq!(answer(&world, V5, ask).1.response_information, None);
}

#[test]
fn who_cannot_take_the_connack_is_closed_without_a_word() {
    let world = World::new();
    let mut connect = Connect::new(V5, text("c"));
    connect.packet_size_max = NonZeroU32::new(10);
    let mut client = world.socket(V5);
    client.send(&world, Packet::Connect(Box::new(connect)));
    assert!(client.is_closed() && client.all().is_empty());
    assert_eq!(world.broker.footprint().sessions, 0);
}

/// Sends everybody to another server.
struct Elsewhere(ReasonCode);

impl Hook for Elsewhere {
    fn name(&self) -> &str {
        "elsewhere"
    }

    fn points(&self) -> HookPoints {
        HookPoints::NONE.with(HookPoint::Authenticate)
    }

    fn authenticate(&self, _: &Arc<AuthenticateRequest>) -> Reply<Authentication> {
        Reply::ready(Authentication::Deny(Denial::new(self.0, "secret")))
    }
}

#[test]
fn a_client_that_is_sent_elsewhere_is_told_where() {
    for code in [ReasonCode::UseAnotherServer, ReasonCode::ServerMoved, ReasonCode::Banned] {
        let settings = Settings { server_reference: Some("other:1883".into()), ..Settings::default() };
        let world = World::with(settings, [Arc::new(Elsewhere(code)) as Arc<dyn Hook>]);
        let (mut client, connack) = answer(&world, V5, |_| {});
        assert_eq!(connack.code, code);
        let expected = (code != ReasonCode::Banned).then_some("other:1883");
        assert_eq!(connack.server_reference.as_deref(), expected);
        assert!(client.is_closed());
    }
}

#[test]
fn every_denial_becomes_a_code_that_connack_can_carry() {
    for code in ReasonCode::ALL {
        for version in VERSIONS {
            let world = World::with(Settings::default(), [Arc::new(Elsewhere(*code)) as Arc<dyn Hook>]);
            let mut client = world.socket(version);
            client.send(&world, Packet::Connect(Box::new(Connect::new(version, text("c")))));
            assert!(client.is_closed());
            let all = client.all();
            // The codec of the harness refuses codes that are not in the table.
            match (version, &all[..]) {
                (_, [Packet::ConnAck(connack)]) => {
                    assert!(connack.code.is_error() && !connack.session_present);
                }
                (V311, []) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn what_is_sent_along_with_connect_is_handled_in_order_after_it() {
    for version in VERSIONS {
        let world = World::new();
        let mut s = world.client(version, "s");
        s.subscribe(&world, "#", 0);
        let mut bytes = Vec::new();
        Packet::Connect(Box::new(Connect::new(version, text("p")))).encode(version, &mut bytes).unwrap();
        for payload in [b"1", b"2"] {
            bytes.extend_from_slice(if version == V5 {
                b"\x30\x05\x00\x01a\x00"
            } else {
                b"\x30\x04\x00\x01a"
            });
            bytes.extend_from_slice(payload);
        }
        bytes.extend_from_slice(b"\xe0\x00");
        let mut p = world.socket(version);
        p.send_bytes(&world, &bytes);
        assert!(p.is_closed());
        assert!(matches!(p.all()[..], [Packet::ConnAck(_)]));
        assert_eq!(s.payloads(), ["1", "2"]);
    }
}

#[test]
fn connections_are_counted_as_let_in_refused_and_there() {
    let world = World::new();
    let a = world.client(V5, "a");
    let _b = world.client(V311, "b");
    a.disconnect(&world);
    let mut bad = world.socket(V5);
    bad.send_bytes(&world, b"\xc0\x00");
    world.socket(V5).cut(&world);
    let counters = world.broker.counters();
    assert_eq!(counters.connections_accepted.get(), 2);
    assert_eq!(counters.connections_refused.get(), 1);
    assert_eq!(counters.clients_connected.get(), 1);
}
