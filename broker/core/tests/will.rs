//! A will is published when its client is lost, on the terms of its CONNECT, and once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::{V5, V311, VERSIONS, World, text, will};
use weirmq_core::broker::Settings;
use weirmq_core::hook::{AuthenticateRequest, Authentication, Hook, HookPoint, HookPoints, Lease, Reply};
use weirmq_wire::{Connect, Disconnect, Packet, QoS, ReasonCode};

fn watcher(world: &World) -> support::Client {
    let mut w = world.client(V5, "w");
    w.subscribe(world, "will/#", 2);
    w
}

#[test]
fn a_disconnect_that_asks_for_it_has_the_will_published() {
    let world = World::new();
    let mut w = watcher(&world);
    let (mut a, _) = world.connect(V5, "a", |connect| connect.will = will("will/a", "gone", 0));
    a.send(&world, Packet::Disconnect(Disconnect::new(ReasonCode::DisconnectWithWill)));
    assert!(a.is_closed());
    a.cut(&world);
    assert_eq!(w.payloads(), ["gone"], "once");
}

#[test]
fn a_protocol_error_a_silence_and_a_loss_have_the_will_published_once() {
    for version in VERSIONS {
        for cause in ["error", "silence", "loss"] {
            let mut world = World::new();
            let mut w = watcher(&world);
            let (mut a, _) = world.connect(version, "a", |connect| {
                connect.keep_alive_s = 2;
                connect.will = will("will/a", cause, 0);
            });
            match cause {
                "error" => a.send_bytes(&world, b"\xf1\x00"),
                "silence" => {
                    world.advance(3.1);
                    a.pass(&world);
                }
                _ => a.cut_in_place(&world),
            }
            a.cut_in_place(&world);
            assert_eq!(w.payloads(), [cause]);
            world.advance(1_000.0);
            w.expect_nothing();
        }
    }
}

#[test]
fn a_client_without_a_will_leaves_without_a_word() {
    for version in VERSIONS {
        let world = World::new();
        let mut s = world.client(version, "s");
        s.subscribe(&world, "#", 0);
        world.client(version, "a").cut(&world);
        s.expect_nothing();
    }
}

#[test]
fn a_will_is_sent_with_its_qos_its_properties_in_order_and_its_expiry() {
    let world = World::new();
    let mut w = watcher(&world);
    let (a, _) = world.connect(V5, "a", |connect| {
        let mut the_will = will("will/a", "gone", 0).unwrap();
        the_will.qos = QoS::ExactlyOnce;
        the_will.message_expiry_interval_s = Some(60);
        the_will.properties.payload_is_utf8 = Some(true);
        the_will.properties.content_type = Some("text".into());
        the_will.properties.response_topic = Some("re".into());
        the_will.properties.correlation_data = Some(bytes::Bytes::from_static(b"\0\xff"));
        the_will.properties.user =
            [("b", "1"), ("a", "2"), ("b", "1")].map(|(n, v)| (n.into(), v.into())).to_vec();
        connect.will = Some(the_will);
    });
    a.cut(&world);
    let got = w.next_publish();
    assert_eq!((got.qos, got.retain), (QoS::ExactlyOnce, false));
    let extras = got.extras.unwrap();
    assert_eq!(extras.message_expiry_interval_s, Some(60));
    let names: Vec<_> = extras.message.user.iter().map(|(name, value)| format!("{name}{value}")).collect();
    assert_eq!(names, ["b1", "a2", "b1"]);
    assert_eq!(extras.message.payload_is_utf8, Some(true));
    assert_eq!(extras.message.content_type.as_deref(), Some("text"));
    assert_eq!(extras.message.response_topic.as_deref(), Some("re"));
    assert_eq!(extras.message.correlation_data.as_deref(), Some(&b"\0\xff"[..]));
}

#[test]
fn a_will_is_retained_only_where_it_asks_for_that() {
    for version in VERSIONS {
        for retain in [false, true] {
            let world = World::new();
            let (a, _) = world.connect(version, "a", |connect| {
                connect.will = will("will/a", "gone", 0);
                connect.will.as_mut().unwrap().retain = retain;
            });
            a.cut(&world);
            let mut late = world.client(version, "late");
            late.subscribe(&world, "will/#", 0);
            assert_eq!(late.payloads().len(), usize::from(retain));
        }
    }
}

#[test]
fn a_will_is_not_sent_to_its_own_client_where_that_wants_nothing_of_its_own() {
    let world = World::new();
    let connect = |world: &World| {
        world.connect(V5, "a", |connect| {
            connect.clean_start = false;
            connect.session_expiry_interval_s = Some(100);
            connect.will = will("will/a", "gone", 0);
        })
    };
    let (mut a, _) = connect(&world);
    let mut other = world.client(V5, "other");
    for client in [&mut a, &mut other] {
        client.subscribe_with(&world, "will/#", 1, |_, options| options.no_local = true);
    }
    a.cut(&world);
    let (mut a, present) = connect(&world);
    assert!(present);
    a.expect_nothing();
    assert_eq!(other.payloads(), ["gone"]);
}

/// Lets clients in for a while.
struct Guest;

impl Hook for Guest {
    fn name(&self) -> &str {
        "guest"
    }

    fn points(&self) -> HookPoints {
        HookPoints::NONE.with(HookPoint::Authenticate)
    }

    fn authenticate(&self, request: &Arc<AuthenticateRequest>) -> Reply<Authentication> {
        let expires_in = (&*request.client_id == "guest").then(|| Duration::from_secs(60));
        let lease = Lease { rights: Some(support::all_rights().into()), expires_in, ..Lease::default() };
        Reply::ready(Authentication::Allow { lease, data: None })
    }
}

#[test]
fn a_client_whose_login_expires_is_told_and_its_will_is_sent() {
    for version in VERSIONS {
        let mut world = World::with(Settings::default(), [Arc::new(Guest) as Arc<dyn Hook>]);
        let mut w = watcher(&world);
        let (mut a, _) = world.connect(version, "guest", |connect| connect.will = will("will/a", "gone", 0));
        world.advance(59.0);
        a.pass(&world);
        assert!(!a.is_closed());
        assert!(a.deadline().is_some());
        world.advance(1.1);
        a.pass(&world);
        a.expect_closed(ReasonCode::NotAuthorized);
        assert_eq!(w.payloads(), ["gone"]);
    }
}

#[test]
fn a_will_whose_topic_is_none_is_refused_with_its_client() {
    for (topic, code) in [("will/#", ReasonCode::MalformedPacket), ("", ReasonCode::MalformedPacket)] {
        for version in VERSIONS {
            let world = World::new();
            let mut client = world.socket(version);
            let mut connect = Connect::new(version, text("c"));
            connect.will = will(topic, "x", 0);
            client.send(&world, Packet::Connect(Box::new(connect)));
            assert!(client.is_closed());
            match (version, client.next()) {
                (V5, Some(Packet::ConnAck(connack))) => assert_eq!(connack.code, code),
                (V311, None) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn a_will_whose_topic_is_beyond_the_limits_is_refused_with_its_client() {
    let mut settings = Settings::default();
    settings.limits.topic_levels_max = 2;
    let world = World::with(settings, []);
    let mut client = world.socket(V5);
    let mut connect = Connect::new(V5, text("c"));
    connect.will = will("a/b/c", "x", 0);
    client.send(&world, Packet::Connect(Box::new(connect)));
    let Some(Packet::ConnAck(connack)) = client.next() else { panic!("CONNACK") };
    assert_eq!(connack.code, ReasonCode::TopicNameInvalid);
}

#[test]
fn a_broker_that_shuts_down_says_so_and_wills_are_sent() {
    for version in VERSIONS {
        let world = World::new();
        let mut w = watcher(&world);
        let (mut a, _) = world.connect(version, "a", |connect| connect.will = will("will/a", "gone", 0));
        a.shut_down(&world);
        a.expect_closed(ReasonCode::ServerShuttingDown);
        assert_eq!(w.payloads(), ["gone"]);
    }
}
