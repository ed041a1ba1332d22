//! Hooks decide, change and observe, and what they do wrong is answered for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;

use bytes::Bytes;
use support::{V5, V311, VERSIONS, World, id, text, will};
use weirmq_core::broker::Settings;
use weirmq_core::counters::{DropReason, Limit};
use weirmq_core::hook::{
    Action, Actions, AuthenticateRequest, Authentication, AuthorizeRequest, Decision, Denial, Draft, Failure,
    FailureKind, Hook, HookPoint, HookPoints, Lease, Observe, Reply, Transform, Transformed,
};
use weirmq_core::message::Message;
use weirmq_core::time::Now;
use weirmq_core::topic::TopicName;
use weirmq_wire::{Auth, Connect, Packet, PacketType, ReasonCode};

/// Knows one user, and one method of enhanced authentication with two steps.
struct Login;

impl Hook for Login {
    fn name(&self) -> &str {
        "login"
    }

    fn points(&self) -> HookPoints {
        HookPoints::NONE.with(HookPoint::Authenticate)
    }

    fn authenticate(&self, request: &Arc<AuthenticateRequest>) -> Reply<Authentication> {
        if let Some(exchange) = &request.exchange {
            let lease = Lease { rights: Some(support::all_rights().into()), ..Lease::default() };
            let answer = match (&*exchange.method, exchange.step, exchange.data.as_deref()) {
                ("M", 0, _) => Authentication::Continue { data: Some(Bytes::from_static(b"riddle")) },
                ("M", 1, Some(b"answer")) => {
                    Authentication::Allow { lease, data: Some(Bytes::from_static(b"welcome")) }
                }
                ("M", ..) => Authentication::Deny(Denial::new(ReasonCode::NotAuthorized, "wrong answer")),
                _ => Authentication::Next,
            };
            return Reply::ready(answer);
        }
        Reply::ready(match (request.username.as_deref(), request.password.as_deref()) {
            (Some("alice"), Some(b"right")) => Authentication::Next,
            (Some("alice"), _) => {
                Authentication::Deny(Denial::new(ReasonCode::BadUserNameOrPassword, "wrong password"))
            }
            (Some("broken"), _) => return Reply::failed(Failure::new(FailureKind::Deadline, "too slow")),
            _ => Authentication::Next,
        })
    }
}

fn connect(
    world: &World,
    version: weirmq_wire::Version,
    change: impl FnOnce(&mut Connect),
) -> support::Client {
    let mut connect = Connect::new(version, text("c"));
    change(&mut connect);
    let mut client = world.socket(version);
    client.send(world, Packet::Connect(Box::new(connect)));
    client
}

fn refused_with(client: &mut support::Client) -> ReasonCode {
    let Some(Packet::ConnAck(connack)) = client.next() else { panic!("a CONNACK is expected") };
    assert!(client.is_closed());
    assert!(client.all().is_empty());
    connack.code
}

#[test]
fn a_wrong_password_gets_the_reason_code_of_its_version() {
    let world = World::with(Settings::default(), [Arc::new(Login) as Arc<dyn Hook>]);
    for (version, expected) in
        [(V5, ReasonCode::BadUserNameOrPassword), (V311, ReasonCode::BadUserNameOrPassword)]
    {
        let mut client = connect(&world, version, |connect| {
            connect.username = Some(text("alice"));
            connect.password = Some(Bytes::from_static(b"wrong"));
        });
        assert_eq!(refused_with(&mut client).connack_v311(), expected.connack_v311());
        let mut client = connect(&world, version, |connect| {
            connect.username = Some(text("alice"));
            connect.password = Some(Bytes::from_static(b"right"));
        });
        assert!(
            matches!(client.next(), Some(Packet::ConnAck(connack)) if connack.code == ReasonCode::Success)
        );
    }
}

#[test]
fn a_login_that_fails_is_a_login_refused() {
    let world = World::with(Settings::default(), [Arc::new(Login) as Arc<dyn Hook>]);
    for version in VERSIONS {
        let mut client = connect(&world, version, |connect| connect.username = Some(text("broken")));
        assert_eq!(refused_with(&mut client).connack_v311(), ReasonCode::NotAuthorized.connack_v311());
    }
}

#[test]
fn what_is_sent_before_a_refusal_has_no_effect() {
    let world = World::with(Settings::default(), [Arc::new(Login) as Arc<dyn Hook>]);
    let mut client = world.socket(V311);
    let mut bytes = Vec::new();
    let mut connect = Connect::new(V311, text("c"));
    connect.username = Some(text("broken"));
    Packet::Connect(Box::new(connect)).encode(V311, &mut bytes).unwrap();
    bytes.extend_from_slice(b"\x31\x04\x00\x01rx");
    client.send_bytes(&world, &bytes);
    refused_with(&mut client);
    assert_eq!(world.broker.footprint().retained_messages, 0);
}

#[test]
fn enhanced_authentication_goes_step_by_step() {
    let world = World::with(Settings::default(), [Arc::new(Login) as Arc<dyn Hook>]);
    let with_method = |method: &'static str| {
        move |connect: &mut Connect| connect.authentication_method = Some(method.into())
    };
    let mut client = connect(&world, V5, with_method("M"));
    let auth = |code, data: &'static [u8]| {
        let mut auth = Auth::new(code, Some("M".into()));
        auth.data = Some(Bytes::from_static(data));
        Packet::Auth(Box::new(auth))
    };
    assert_eq!(client.next(), Some(auth(ReasonCode::ContinueAuthentication, b"riddle")));
    client.send(&world, auth(ReasonCode::ContinueAuthentication, b"answer"));
    let Some(Packet::ConnAck(connack)) = client.next() else { panic!("CONNACK") };
    assert_eq!(
        (connack.authentication_method.as_deref(), connack.authentication_data.as_deref()),
        (Some("M"), Some(&b"welcome"[..]))
    );
    client.send(&world, auth(ReasonCode::ReAuthenticate, b""));
    assert_eq!(client.next(), Some(auth(ReasonCode::ContinueAuthentication, b"riddle")));
    client.send(&world, auth(ReasonCode::ContinueAuthentication, b"answer"));
    assert_eq!(client.next(), Some(auth(ReasonCode::Success, b"welcome")));
    client.send(&world, auth(ReasonCode::ReAuthenticate, b""));
    client.next();
    client.send(&world, auth(ReasonCode::ContinueAuthentication, b"nonsense"));
    client.expect_closed(ReasonCode::NotAuthorized);
    let mut client = connect(&world, V5, with_method("N"));
    // The hook of the harness lets everybody in; without it nobody knows the method.
    assert!(matches!(client.next(), Some(Packet::ConnAck(_))));
    let mut client = connect(&world, V5, with_method("M"));
    client.next();
    client.send(&world, auth(ReasonCode::ContinueAuthentication, b"wrong"));
    assert_eq!(refused_with(&mut client), ReasonCode::NotAuthorized);
}

/// Lets everybody in without rights, and allows topics that begin with `ok`.
#[derive(Default)]
struct Gate {
    asked: AtomicUsize,
}

impl Hook for Gate {
    fn name(&self) -> &str {
        "gate"
    }

    fn points(&self) -> HookPoints {
        HookPoints::NONE.with(HookPoint::Authenticate).with(HookPoint::Authorize)
    }

    fn authenticate(&self, _: &Arc<AuthenticateRequest>) -> Reply<Authentication> {
        Reply::ready(Authentication::Allow { lease: Lease::default(), data: None })
    }

    fn authorize(&self, request: &Arc<AuthorizeRequest>) -> Reply<Decision> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let allowed = match &request.action {
            Action::Publish { topic, .. } => topic.starts_with("ok"),
            Action::Subscribe { filter, .. } => filter.filter.starts_with("ok"),
        };
        Reply::ready(if allowed { Decision::Allow } else { Decision::Next })
    }
}

#[test]
fn each_filter_is_authorized_for_itself_and_a_denied_publish_is_answered_and_not_delivered() {
    for version in VERSIONS {
        let gate = Arc::new(Gate::default());
        let world = World::with(Settings::default(), [Arc::clone(&gate) as Arc<dyn Hook>]);
        let mut s = world.client(version, "s");
        let filters =
            ["ok/1", "no/1", "ok/2"].map(|filter| (text(filter), weirmq_wire::SubscribeOptions::default()));
        let subscribe = weirmq_wire::Subscribe {
            packet_id: id(1),
            subscription_id: None,
            user_properties: Vec::new(),
            filters: filters.to_vec(),
        };
        s.send(&world, Packet::Subscribe(subscribe));
        let Some(Packet::SubAck(suback)) = s.next() else { panic!("SUBACK") };
        let denied = if version == V5 { ReasonCode::NotAuthorized } else { ReasonCode::UnspecifiedError };
        assert_eq!(suback.codes, [ReasonCode::Success, denied, ReasonCode::Success]);
        let mut p = world.client(version, "p");
        let before = gate.asked.load(Ordering::Relaxed);
        for (qos, kind) in [(1, PacketType::PubAck), (2, PacketType::PubRec)] {
            for _ in 0..3 {
                p.publish(&world, "no/1", qos, "x");
                p.expect_ack(kind, id(7), ReasonCode::NotAuthorized);
            }
        }
        p.publish(&world, "no/1", 0, "x");
        p.expect_nothing();
        assert_eq!(gate.asked.load(Ordering::Relaxed) - before, 3, "asked once per QoS, then remembered");
        p.publish(&world, "ok/1", 1, "x");
        p.expect_ack(PacketType::PubAck, id(7), ReasonCode::Success);
        assert_eq!(s.payloads(), ["x"]);
        // In MQTT 3.1.1 the QoS 2 message counts as taken, so its repetitions never reach the gate.
        let denials = if version == V5 { 7 } else { 5 };
        assert_eq!(world.broker.counters().dropped.get(DropReason::Denied), denials);
        let mut client = connect(&world, version, |connect| connect.will = will("no/will", "x", 0));
        assert_eq!(refused_with(&mut client).connack_v311(), ReasonCode::NotAuthorized.connack_v311());
    }
}

/// Transforms by the first level of the topic; answers later while `slow` is set.
struct Mill {
    slow: Arc<AtomicBool>,
}

struct Bound(Arc<AtomicBool>);

impl Hook for Mill {
    fn name(&self) -> &str {
        "mill"
    }

    fn points(&self) -> HookPoints {
        HookPoints::NONE.with(HookPoint::OnPublish)
    }

    fn on_publish(self: Arc<Self>, topic: &TopicName) -> Option<Arc<dyn Transform>> {
        topic.starts_with("mill/").then(|| Arc::new(Bound(Arc::clone(&self.slow))) as Arc<dyn Transform>)
    }
}

impl Transform for Bound {
    fn transform(&self, message: &Arc<Message>, _: Now) -> Reply<Transformed> {
        let verb = message.topic.as_str().trim_start_matches("mill/").to_owned();
        let draft = |topic: &str| Draft { topic: topic.to_owned(), ..Draft::of(message) };
        let answer = match &*verb {
            "pass" => Transformed::Pass,
            "replace" => Transformed::Replace(Box::new(draft("out/replaced"))),
            "payload" => Transformed::WithPayload(Bytes::from_static(b"another")),
            "garbage" => Transformed::Replace(Box::new(draft("out/+/bad"))),
            "drop" => Transformed::Drop(Denial::new(ReasonCode::PayloadFormatInvalid, "no good")),
            "several" => Transformed::Several(vec![draft("out/1"), draft("out/2")]),
            "twice" => Transformed::Several(vec![draft("mill/pass"), draft("mill/pass")]),
            "fail" => return Reply::failed(Failure::new(FailureKind::Crash, "trap")),
            _ => Transformed::Pass,
        };
        let slow = Arc::clone(&self.0);
        if !slow.load(Ordering::Relaxed) {
            return Reply::ready(answer);
        }
        let mut answer = Some(answer);
        Reply::Later(Box::pin(std::future::poll_fn(move |_| {
            if slow.load(Ordering::Relaxed) { Poll::Pending } else { Poll::Ready(Ok(answer.take().unwrap())) }
        })))
    }
}

fn mill() -> (World, Arc<AtomicBool>) {
    let slow = Arc::new(AtomicBool::new(false));
    let world =
        World::with(Settings::default(), [Arc::new(Mill { slow: Arc::clone(&slow) }) as Arc<dyn Hook>]);
    (world, slow)
}

#[test]
fn transforms_pass_replace_drop_and_multiply_and_what_they_do_wrong_is_denied() {
    let (world, _) = mill();
    let mut s = world.client(V5, "s");
    s.subscribe(&world, "#", 0);
    let mut p = world.client(V5, "p");
    for (verb, code, topics) in [
        ("pass", ReasonCode::Success, &["mill/pass"][..]),
        ("replace", ReasonCode::Success, &["out/replaced"]),
        ("payload", ReasonCode::Success, &["mill/payload"]),
        ("several", ReasonCode::Success, &["out/1", "out/2"]),
        ("drop", ReasonCode::PayloadFormatInvalid, &[]),
        ("garbage", ReasonCode::ImplementationSpecificError, &[]),
        ("fail", ReasonCode::ImplementationSpecificError, &[]),
    ] {
        p.publish(&world, &format!("mill/{verb}"), 1, verb);
        p.expect_ack(PacketType::PubAck, id(7), code);
        let got: Vec<String> = std::iter::from_fn(|| s.next())
            .map(|packet| match packet {
                Packet::Publish(publish) => publish.topic.to_string(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(got, topics, "{verb}");
    }
    let dropped = &world.broker.counters().dropped;
    assert_eq!(dropped.get(DropReason::HookDropped), 1);
    assert_eq!(dropped.get(DropReason::Invalid), 1);
    assert_eq!(dropped.get(DropReason::HookFailed), 1);
}

#[test]
fn what_is_made_of_a_message_gives_way_to_others_in_between() {
    let (world, _) = mill();
    let mut p = world.client(V5, "p");
    p.publish(&world, "mill/pass", 1, "x");
    assert_eq!(p.gave_way, 0, "a message itself is handled at once");
    // The first of two turns is given when the packet is left to the connection's task, which is not counted.
    p.publish(&world, "mill/twice", 1, "x");
    assert_eq!(p.gave_way, 2 - 1);
    let world = World::with(Settings::default(), [Arc::new(Echo) as Arc<dyn Hook>]);
    let mut p = world.client(V5, "p");
    p.publish(&world, "ping/1", 1, "x");
    assert_eq!(p.gave_way, usize::from(weirmq_core::message::HOPS_MAX) - 1);
}

#[test]
fn a_slow_hook_keeps_the_order_and_only_what_must_wait_waits() {
    for version in VERSIONS {
        let (world, slow) = mill();
        let mut s = world.client(version, "s");
        s.subscribe(&world, "#", 0);
        let mut p = world.client(version, "p");
        p.subscribe(&world, "to/p", 1);
        slow.store(true, Ordering::Relaxed);
        for payload in ["1", "2", "3"] {
            p.publish(&world, "mill/pass", 1, payload);
        }
        p.publish(&world, "quick", 1, "4");
        s.expect_nothing();
        p.send(&world, Packet::PingReq);
        assert_eq!(p.next(), Some(Packet::PingResp), "a ping is answered all the same");
        let mut other = world.client(version, "other");
        other.publish(&world, "to/p", 1, "for p");
        let got = p.next_publish();
        p.ack(&world, PacketType::PubAck, got.packet_id.unwrap());
        assert_eq!(s.payloads(), ["for p"], "others are not held up");
        slow.store(false, Ordering::Relaxed);
        p.work(&world);
        assert_eq!(s.payloads(), ["1", "2", "3", "4"]);
        for _ in 0..4 {
            p.expect_ack(PacketType::PubAck, id(7), ReasonCode::Success);
        }
    }
}

#[test]
fn what_waits_behind_a_slow_hook_is_bounded() {
    let mut settings = Settings::default();
    settings.limits.backlog_packets_max = 3;
    let slow = Arc::new(AtomicBool::new(true));
    let world = World::with(settings, [Arc::new(Mill { slow: Arc::clone(&slow) }) as Arc<dyn Hook>]);
    let mut p = world.client(V5, "p");
    for _ in 0..10 {
        p.publish(&world, "mill/pass", 0, "x");
    }
    assert_eq!(
        world.broker.counters().messages_received.get(),
        1,
        "one is with the hook, three wait, the rest is not read"
    );
    slow.store(false, Ordering::Relaxed);
    p.work(&world);
    p.work(&world);
    p.work(&world);
    assert_eq!(world.broker.counters().messages_received.get(), 10);
}

#[test]
fn what_a_lost_connection_leaves_with_a_hook_is_counted_where_nobody_sends_it_again() {
    let (world, slow) = mill();
    slow.store(true, Ordering::Relaxed);
    let mut p = world.client(V5, "p");
    p.publish(&world, "mill/pass", 0, "with the hook");
    p.publish(&world, "quick", 0, "behind it");
    p.publish(&world, "quick", 1, "sent again by the client");
    p.cut(&world);
    assert_eq!(world.broker.counters().dropped.get(DropReason::PublisherGone), 2);
    let (mut p, mut s) = (world.client(V5, "p"), world.client(V5, "s"));
    s.subscribe(&world, "#", 0);
    slow.store(false, Ordering::Relaxed);
    p.publish(&world, "mill/pass", 0, "x");
    p.disconnect(&world);
    assert_eq!(s.payloads(), ["x"]);
    assert_eq!(world.broker.counters().dropped.get(DropReason::PublisherGone), 2);
}

/// A rule that answers `ping/N` with `ping/N`: it would go round for ever.
struct Echo;

impl Hook for Echo {
    fn name(&self) -> &str {
        "rules"
    }

    fn points(&self) -> HookPoints {
        HookPoints::NONE.with(HookPoint::OnMessage)
    }

    fn on_message(self: Arc<Self>, topic: &TopicName) -> Vec<Arc<dyn Observe>> {
        if topic.starts_with("ping/") { vec![self] } else { Vec::new() }
    }
}

impl Observe for Echo {
    fn observe(&self, message: &Arc<Message>, _: Now, actions: &mut Actions) -> Result<(), Failure> {
        if &*message.payload == b"fail" {
            return Err(Failure::new(FailureKind::Crash, "thrown"));
        }
        actions.publish.push((Arc::from("echo"), Draft::of(message)));
        Ok(())
    }

    fn name(&self) -> &str {
        "echo"
    }
}

#[test]
fn rules_that_call_each_other_come_to_an_end_and_one_that_fails_fails_alone() {
    let world = World::with(Settings::default(), [Arc::new(Echo) as Arc<dyn Hook>]);
    let mut s = world.client(V5, "s");
    s.subscribe(&world, "ping/#", 0);
    let mut p = world.client(V5, "p");
    p.publish(&world, "ping/1", 1, "x");
    p.expect_ack(PacketType::PubAck, id(7), ReasonCode::Success);
    assert_eq!(s.payloads().len(), 1 + usize::from(weirmq_core::message::HOPS_MAX));
    assert_eq!(world.broker.counters().dropped.get(DropReason::Loop), 1);
    p.publish(&world, "ping/1", 1, "fail");
    p.expect_ack(PacketType::PubAck, id(7), ReasonCode::Success);
    assert_eq!(s.payloads(), ["fail"]);
}

/// A rule that answers each message of `fan` with many more of them.
struct Fan;

impl Hook for Fan {
    fn name(&self) -> &str {
        "rules"
    }

    fn points(&self) -> HookPoints {
        HookPoints::NONE.with(HookPoint::OnMessage)
    }

    fn on_message(self: Arc<Self>, topic: &TopicName) -> Vec<Arc<dyn Observe>> {
        if topic.starts_with("fan") { vec![self] } else { Vec::new() }
    }
}

impl Observe for Fan {
    fn observe(&self, message: &Arc<Message>, _: Now, actions: &mut Actions) -> Result<(), Failure> {
        actions.publish.extend((0..64).map(|_| (Arc::from("fan"), Draft::of(message))));
        Ok(())
    }

    fn name(&self) -> &str {
        "fan"
    }
}

#[test]
fn what_rules_make_of_one_message_is_bounded_in_number_and_in_bytes() {
    for (bytes_max, expected) in [(usize::MAX, 100), (10 * "fanx".len(), 10)] {
        let mut settings = Settings::default();
        settings.limits.derived_messages_max = 100;
        settings.limits.derived_bytes_max = bytes_max;
        let world = World::with(settings, [Arc::new(Fan) as Arc<dyn Hook>]);
        let mut s = world.client(V5, "s");
        s.subscribe(&world, "fan", 0);
        let mut p = world.client(V5, "p");
        for _ in 0..2 {
            p.publish(&world, "fan", 1, "x");
            p.expect_ack(PacketType::PubAck, id(7), ReasonCode::Success);
            assert_eq!(s.payloads().len(), 1 + expected, "each message has a budget of its own");
        }
        let counters = world.broker.counters();
        assert!(counters.dropped.get(DropReason::Loop) > 0);
        assert_eq!(counters.limits.get(Limit::Derived), counters.dropped.get(DropReason::Loop));
    }
}
