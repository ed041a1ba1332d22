//! Enhanced authentication: AUTH before CONNACK, and again at any time after.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use bytes::Bytes;
use support::{V5, V311, World, text};
use weirmq_core::broker::Settings;
use weirmq_core::hook::{
    AuthenticateRequest, Authentication, Chains, Denial, Hook, HookPoint, HookPoints, Lease, Link, Reply,
};
use weirmq_wire::{Auth, Connect, Disconnect, Packet, ReasonCode};

/// Knows the method `M`, which takes two steps, and asks everybody else for AUTH where it is told to.
#[derive(Default)]
struct Method {
    slow: Arc<AtomicBool>,
    asks_everybody: bool,
    large: bool,
}

impl Hook for Method {
    fn name(&self) -> &str {
        "method"
    }

    fn points(&self) -> HookPoints {
        HookPoints::NONE.with(HookPoint::Authenticate)
    }

    fn authenticate(&self, request: &Arc<AuthenticateRequest>) -> Reply<Authentication> {
        let Some(exchange) = &request.exchange else {
            return Reply::ready(if self.asks_everybody {
                Authentication::Continue { data: None }
            } else {
                Authentication::Next
            });
        };
        let principal = if exchange.data.as_deref() == Some(b"other") { "other" } else { "me" };
        let rights = Some(support::all_rights().into());
        let lease = Lease { principal: Arc::from(principal), rights, ..Lease::default() };
        let answer = match (&*exchange.method, exchange.step) {
            ("M", 0) if self.large => Authentication::Continue { data: Some(Bytes::from(vec![0; 1_000])) },
            ("M", 0) => Authentication::Continue { data: Some(Bytes::from_static(b"riddle")) },
            ("M", _) if exchange.data.as_deref() == Some(b"wrong") => {
                Authentication::Deny(Denial::new(ReasonCode::BadUserNameOrPassword, "secret"))
            }
            ("M", _) => Authentication::Allow { lease, data: None },
            _ => Authentication::Next,
        };
        let slow = Arc::clone(&self.slow);
        let mut answer = Some(answer);
        Reply::Later(Box::pin(std::future::poll_fn(move |_| {
            if slow.load(Ordering::Relaxed) { Poll::Pending } else { Poll::Ready(Ok(answer.take().unwrap())) }
        })))
    }
}

fn world(method: Method) -> World {
    World::with(Settings::default(), [Arc::new(method) as Arc<dyn Hook>])
}

fn auth(code: ReasonCode, method: &str, data: &'static [u8]) -> Packet {
    let mut auth = Auth::new(code, Some(method.into()));
    auth.data = Some(Bytes::from_static(data));
    Packet::Auth(Box::new(auth))
}

fn connect(world: &World, change: impl FnOnce(&mut Connect)) -> support::Client {
    let mut connect = Connect::new(V5, text("c"));
    connect.authentication_method = Some("M".into());
    change(&mut connect);
    let mut client = world.socket(V5);
    client.send(world, Packet::Connect(Box::new(connect)));
    client
}

fn refused(client: &mut support::Client) -> ReasonCode {
    let Some(Packet::ConnAck(connack)) = client.next() else { panic!("CONNACK") };
    assert!(client.is_closed() && client.all().is_empty());
    connack.code
}

use ReasonCode::{ContinueAuthentication, ReAuthenticate};

#[test]
fn whoever_does_not_go_on_with_the_exchange_is_refused() {
    for packet in [
        auth(ContinueAuthentication, "N", b"x"),
        auth(ReAuthenticate, "M", b"x"),
        Packet::PingReq,
        Packet::Connect(Box::new(Connect::new(V5, text("c")))),
    ] {
        let world = world(Method::default());
        let mut client = connect(&world, |_| {});
        assert_eq!(client.next(), Some(auth(ContinueAuthentication, "M", b"riddle")));
        client.send(&world, packet);
        assert_eq!(refused(&mut client), ReasonCode::ProtocolError);
    }
}

#[test]
fn a_wrong_answer_and_an_unknown_method_are_refused() {
    let w = world(Method::default());
    let mut client = connect(&w, |_| {});
    client.next();
    client.send(&w, auth(ContinueAuthentication, "M", b"wrong"));
    assert_eq!(refused(&mut client), ReasonCode::BadUserNameOrPassword);
    w.broker.set_chains(Chains::new([Link::new(Arc::new(Method::default()) as Arc<dyn Hook>)]));
    let mut client = connect(&w, |connect| connect.authentication_method = Some("N".into()));
    assert_eq!(refused(&mut client), ReasonCode::BadAuthenticationMethod);
    assert_eq!(w.broker.footprint().sessions, 0);
}

#[test]
fn a_client_may_leave_in_the_middle() {
    let world = world(Method::default());
    let mut client = connect(&world, |connect| connect.will = support::will("w", "x", 0));
    client.next();
    client.send(&world, Packet::Disconnect(Disconnect::new(ReasonCode::Success)));
    assert!(client.is_closed() && client.all().is_empty());
}

#[test]
fn auth_that_nobody_has_asked_for_is_refused() {
    let slow = Arc::new(AtomicBool::new(true));
    let world = world(Method { slow: Arc::clone(&slow), ..Method::default() });
    let mut client = connect(&world, |_| {});
    client.send(&world, auth(ContinueAuthentication, "M", b"x"));
    assert_eq!(refused(&mut client), ReasonCode::ProtocolError);
    let mut client = world.socket(V5);
    let mut plain = Connect::new(V5, text("plain"));
    plain.clean_start = true;
    client.send(&world, Packet::Connect(Box::new(plain)));
    assert!(matches!(client.next(), Some(Packet::ConnAck(connack)) if connack.code == ReasonCode::Success));
    client.send(&world, auth(ReAuthenticate, "M", b""));
    client.expect_closed(ReasonCode::ProtocolError);
}

#[test]
fn who_offers_no_method_is_never_sent_auth() {
    let world = world(Method { asks_everybody: true, ..Method::default() });
    for version in [V5, V311] {
        let mut client = world.socket(version);
        client.send(&world, Packet::Connect(Box::new(Connect::new(version, text("c")))));
        assert_eq!(refused(&mut client), ReasonCode::NotAuthorized);
    }
}

#[test]
fn auth_keeps_to_the_maximum_packet_size() {
    let world = world(Method { large: true, ..Method::default() });
    let mut client = connect(&world, |connect| connect.packet_size_max = std::num::NonZeroU32::new(100));
    assert_eq!(refused(&mut client), ReasonCode::PacketTooLarge);
}

fn let_in(world: &World) -> support::Client {
    let mut client = connect(world, |connect| connect.will = support::will("w", "gone", 0));
    client.next();
    client.send(world, auth(ContinueAuthentication, "M", b"x"));
    assert!(matches!(client.next(), Some(Packet::ConnAck(connack)) if connack.code == ReasonCode::Success));
    client
}

#[test]
fn a_renewal_goes_on_beside_everything_else_and_one_that_fails_ends_the_connection() {
    let world = world(Method::default());
    let mut watcher = world.client(V311, "watcher");
    watcher.subscribe(&world, "w", 0);
    let mut client = let_in(&world);
    client.send(&world, auth(ReAuthenticate, "M", b""));
    assert_eq!(client.next(), Some(auth(ContinueAuthentication, "M", b"riddle")));
    client.publish(&world, "w", 0, "meanwhile");
    assert_eq!(watcher.payloads(), ["meanwhile"]);
    client.send(&world, auth(ContinueAuthentication, "M", b"x"));
    assert_eq!(client.next(), Some(Packet::Auth(Box::new(Auth::new(ReasonCode::Success, Some("M".into()))))));
    client.send(&world, auth(ReAuthenticate, "M", b""));
    client.next();
    client.send(&world, auth(ContinueAuthentication, "M", b"wrong"));
    client.expect_closed(ReasonCode::NotAuthorized);
    assert_eq!(watcher.payloads(), ["gone"]);
}

#[test]
fn a_renewal_with_another_method_as_another_or_out_of_turn_is_refused() {
    for (packets, code) in [
        (vec![auth(ReAuthenticate, "N", b"")], ReasonCode::ProtocolError),
        (vec![auth(ContinueAuthentication, "M", b"")], ReasonCode::ProtocolError),
        (vec![auth(ReAuthenticate, "M", b""), auth(ReAuthenticate, "M", b"")], ReasonCode::ProtocolError),
        (
            vec![auth(ReAuthenticate, "M", b""), auth(ContinueAuthentication, "M", b"other")],
            ReasonCode::NotAuthorized,
        ),
    ] {
        let world = world(Method::default());
        let mut client = let_in(&world);
        for packet in packets {
            client.send(&world, packet);
        }
        client.expect_closed(code);
    }
}

#[test]
fn a_takeover_in_the_middle_of_an_exchange_leaves_one_session() {
    let world = world(Method::default());
    let mut old = let_in(&world);
    let mut new = connect(&world, |_| {});
    assert!(!old.is_closed(), "nobody is let in yet");
    new.next();
    new.send(&world, auth(ContinueAuthentication, "M", b"x"));
    old.expect_closed(ReasonCode::SessionTakenOver);
    assert!(matches!(new.next(), Some(Packet::ConnAck(_))));
    assert_eq!(world.broker.footprint().sessions, 1);
}
