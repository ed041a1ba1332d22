//! Refusals are explained in the broker's own words, where the client wants that and has room for it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::num::NonZeroU32;
use std::sync::Arc;

use support::{V5, V311, VERSIONS, World, id, text};
use weirmq_core::broker::Settings;
use weirmq_core::hook::{
    Action, AuthenticateRequest, Authentication, AuthorizeRequest, Decision, Denial, FilterRequest,
    FilterVerdict, Hook, HookPoint, HookPoints, Lease, Reply,
};
use weirmq_wire::{Connect, Packet, PacketType, ReasonCode, Subscribe, SubscribeOptions, Unsubscribe};

/// Denies what begins with `no`, with a reason that is nobody's business, and whoever is called `no`.
struct Secretive(ReasonCode);

impl Hook for Secretive {
    fn name(&self) -> &str {
        "secretive"
    }

    fn points(&self) -> HookPoints {
        [HookPoint::Authenticate, HookPoint::Authorize, HookPoint::OnUnsubscribe]
            .into_iter()
            .fold(HookPoints::NONE, HookPoints::with)
    }

    fn authenticate(&self, request: &Arc<AuthenticateRequest>) -> Reply<Authentication> {
        Reply::ready(if &*request.client_id == "no" {
            Authentication::Deny(Denial::new(self.0, "secret"))
        } else {
            Authentication::Allow { lease: Lease::default(), data: None }
        })
    }

    fn authorize(&self, request: &Arc<AuthorizeRequest>) -> Reply<Decision> {
        let denied = match &request.action {
            Action::Publish { topic, .. } => topic.starts_with("no"),
            Action::Subscribe { filter, .. } => filter.filter.starts_with("no"),
        };
        Reply::ready(if denied { Decision::Deny(Denial::new(self.0, "secret")) } else { Decision::Allow })
    }

    fn on_unsubscribe(&self, request: &Arc<FilterRequest>) -> Reply<FilterVerdict> {
        Reply::ready(if request.filter.filter.starts_with("no") {
            FilterVerdict::Deny(Denial::new(self.0, "secret"))
        } else {
            FilterVerdict::Pass
        })
    }
}

fn world(code: ReasonCode) -> World {
    World::with(Settings::default(), [Arc::new(Secretive(code)) as Arc<dyn Hook>])
}

/// The Reason Strings of a refused PUBLISH with QoS 1 and 2, SUBSCRIBE and UNSUBSCRIBE, an unknown PUBREL and
/// PUBREC, and of a DISCONNECT.
fn words(world: &World, change: impl FnOnce(&mut Connect)) -> Vec<Option<String>> {
    let (mut c, _) = world.connect(V5, "c", change);
    c.publish(world, "no/secret", 1, "secret");
    c.publish(world, "no/secret", 2, "secret");
    let filters = vec![(text("ok"), SubscribeOptions::default()), (text("no/secret"), Default::default())];
    let packet_id = id(1);
    let user_properties = || vec![("secret".into(), "secret".into())];
    c.send(
        world,
        Packet::Subscribe(Subscribe {
            packet_id,
            subscription_id: None,
            user_properties: user_properties(),
            filters,
        }),
    );
    let filters = vec![text("no/secret")];
    let packet_id = id(2);
    c.send(
        world,
        Packet::Unsubscribe(Unsubscribe { packet_id, user_properties: user_properties(), filters }),
    );
    c.ack(world, PacketType::PubRel, id(99));
    c.ack(world, PacketType::PubRec, id(99));
    c.publish(world, "#", 0, "secret");
    c.all()
        .into_iter()
        .map(|packet| {
            let words = match packet {
                Packet::PubAck(ack) | Packet::PubRec(ack) => {
                    assert_eq!(ack.code, ReasonCode::NotAuthorized);
                    ack.reason_string
                }
                Packet::PubRel(ack) | Packet::PubComp(ack) => {
                    assert_eq!(ack.code, ReasonCode::PacketIdentifierNotFound);
                    ack.reason_string
                }
                Packet::SubAck(suback) => {
                    assert_eq!(suback.codes, [ReasonCode::Success, ReasonCode::NotAuthorized]);
                    suback.reason_string
                }
                Packet::UnsubAck(unsuback) => {
                    assert_eq!(unsuback.codes, [ReasonCode::NotAuthorized]);
                    unsuback.reason_string
                }
                Packet::Disconnect(disconnect) => disconnect.reason_string,
                other => panic!("{other:?}"),
            };
            words.map(String::from)
        })
        .collect()
}

#[test]
fn every_refusal_is_explained_and_no_word_of_a_hook_or_a_peer_is_repeated() {
    let all = words(&world(ReasonCode::NotAuthorized), |_| {});
    assert_eq!(all.len(), 7);
    // That nothing has "secret" in it is the checker's.
    assert!(all.iter().all(|words| words.as_ref().is_some_and(|words| words.len() > 10)), "{all:?}");
}

#[test]
fn request_problem_information_0_silences_them() {
    let all = words(&world(ReasonCode::NotAuthorized), |connect| connect.request_problem_information = false);
    assert_eq!(all, vec![None; 7]);
}

#[test]
fn they_are_left_out_where_they_would_not_fit() {
    for packet_size_max in 20..100 {
        let world = world(ReasonCode::NotAuthorized);
        // The decoder of the harness refuses a packet that is larger.
        let all = words(&world, |connect| connect.packet_size_max = NonZeroU32::new(packet_size_max));
        assert_eq!(all.len(), 7, "at {packet_size_max} bytes");
    }
}

#[test]
fn a_refused_login_is_explained_within_the_maximum_packet_size_of_the_refused() {
    for (packet_size_max, explained) in
        [(None, true), (NonZeroU32::new(200), true), (NonZeroU32::new(20), false)]
    {
        let world = world(ReasonCode::BadUserNameOrPassword);
        let mut connect = Connect::new(V5, text("no"));
        connect.packet_size_max = packet_size_max;
        let mut client = world.socket(V5);
        client.send(&world, Packet::Connect(Box::new(connect)));
        let Some(Packet::ConnAck(connack)) = client.next() else { panic!("CONNACK") };
        assert_eq!(connack.code, ReasonCode::BadUserNameOrPassword);
        assert_eq!(connack.reason_string.is_some(), explained);
        assert!(client.is_closed());
    }
}

#[test]
fn every_code_of_a_hook_becomes_one_that_the_packet_can_carry() {
    for code in ReasonCode::ALL {
        for version in VERSIONS {
            let world = world(*code);
            let mut c = world.client(version, "c");
            for (qos, kind) in [(1, PacketType::PubAck), (2, PacketType::PubRec)] {
                c.publish(&world, "no", qos, "x");
                let (Packet::PubAck(ack) | Packet::PubRec(ack)) = c.next().unwrap() else {
                    panic!("no answer")
                };
                let fits = code.is_error() && code.valid_in(kind);
                if version == V5 {
                    assert_eq!(ack.code, if fits { *code } else { ReasonCode::NotAuthorized }, "{code}");
                }
            }
            let granted = c.subscribe(&world, "no", 0);
            assert!(granted.iter().all(|code| code.is_error()));
            if version == V311 {
                assert_eq!(granted, [ReasonCode::UnspecifiedError]);
            }
            c.unsubscribe(&world, "no");
        }
    }
}

#[test]
fn an_answer_that_a_client_cannot_take_ends_the_connection_before_it_has_an_effect() {
    let world = world(ReasonCode::NotAuthorized);
    let many = || (0..100).map(|number| text(&format!("ok/{number}")));
    let (mut c, _) = world.connect(V5, "c", |connect| connect.packet_size_max = NonZeroU32::new(50));
    let filters = many().map(|filter| (filter, SubscribeOptions::default())).collect();
    let packet_id = id(1);
    let subscribe = Subscribe { packet_id, subscription_id: None, user_properties: Vec::new(), filters };
    c.send(&world, Packet::Subscribe(subscribe));
    c.expect_closed(ReasonCode::PacketTooLarge);
    assert_eq!(world.broker.counters().subscriptions.get(), 0);
    let (mut c, _) = world.connect(V5, "c", |connect| connect.packet_size_max = NonZeroU32::new(50));
    let filters = many().collect();
    c.send(&world, Packet::Unsubscribe(Unsubscribe { packet_id, user_properties: Vec::new(), filters }));
    c.expect_closed(ReasonCode::PacketTooLarge);
}

#[test]
fn nobody_to_receive_a_message_is_no_refusal() {
    let world = World::new();
    let mut p = world.client(V5, "p");
    p.publish(&world, "t", 1, "x");
    p.expect_ack(PacketType::PubAck, id(7), ReasonCode::NoMatchingSubscribers);
    let mut s = world.client(V5, "s");
    s.subscribe(&world, "t", 0);
    p.publish(&world, "t", 1, "x");
    p.expect_ack(PacketType::PubAck, id(7), ReasonCode::Success);
}

#[test]
fn a_packet_identifier_that_belongs_to_a_qos_2_message_is_in_use() {
    let world = World::new();
    let (mut c, _) = world.persistent(V5, "c", 100);
    c.publish_with(&world, "t", 2, "x", |publish| publish.packet_id = Some(id(1)));
    c.expect_ack(PacketType::PubRec, id(1), ReasonCode::NoMatchingSubscribers);
    c.publish_with(&world, "t", 1, "x", |publish| publish.packet_id = Some(id(1)));
    c.expect_ack(PacketType::PubAck, id(1), ReasonCode::PacketIdentifierInUse);
    assert_eq!(c.subscribe(&world, "t", 0), [ReasonCode::PacketIdentifierInUse]);
    c.publish_with(&world, "t", 2, "x", |publish| publish.packet_id = Some(id(2)));
    c.expect_ack(PacketType::PubRec, id(2), ReasonCode::NoMatchingSubscribers);
    assert_eq!(c.unsubscribe(&world, "t"), [ReasonCode::PacketIdentifierInUse]);
    // A client that has begun anew may have forgotten what it sent on an earlier connection.
    c.cut(&world);
    let (mut c, _) = world.persistent(V5, "c", 100);
    assert_eq!(c.subscribe(&world, "t", 0), [ReasonCode::Success]);
    let mut c = world.client(V311, "old");
    c.publish_with(&world, "t", 2, "x", |publish| publish.packet_id = Some(id(1)));
    c.expect_ack(PacketType::PubRec, id(1), ReasonCode::Success);
    assert_eq!(c.subscribe(&world, "t", 0), [ReasonCode::Success]);
}
