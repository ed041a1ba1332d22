//! What was allowed is taken back while clients are connected, and leases bound what clients take.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use support::{V5, VERSIONS, World, drive};
use weirmq_core::broker::Settings;
use weirmq_core::counters::DropReason;
use weirmq_core::hook::{
    Action, AuthenticateRequest, Authentication, AuthorizeRequest, Decision, Draft, Hook, HookPoint,
    HookPoints, Lease, Quotas, Reply,
};
use weirmq_core::message::{Properties, Publisher, QoS};
use weirmq_core::revoke::{Consequence, Whom};
use weirmq_wire::ReasonCode;

/// Lets everybody in as who they are, and allows topics that begin with `secret` only while it is told to.
#[derive(Default)]
struct Policy {
    secrets_are_open: AtomicBool,
    quotas: Quotas,
}

impl Hook for Policy {
    fn name(&self) -> &str {
        "policy"
    }

    fn points(&self) -> HookPoints {
        HookPoints::NONE.with(HookPoint::Authenticate).with(HookPoint::Authorize)
    }

    fn authenticate(&self, request: &Arc<AuthenticateRequest>) -> Reply<Authentication> {
        // Clients of one letter more belong to one principal.
        let principal = Arc::from(&request.client_id[..1]);
        let lease = Lease { principal, quotas: self.quotas, ..Lease::default() };
        Reply::ready(Authentication::Allow { lease, data: None })
    }

    fn authorize(&self, request: &Arc<AuthorizeRequest>) -> Reply<Decision> {
        let text = match &request.action {
            Action::Publish { topic, .. } => topic.to_string(),
            Action::Subscribe { filter, .. } => filter.to_string(),
        };
        let open = self.secrets_are_open.load(Ordering::Relaxed) || !text.starts_with("secret");
        Reply::ready(if open { Decision::Allow } else { Decision::Next })
    }
}

fn world(quotas: Quotas) -> (World, Arc<Policy>) {
    let policy = Arc::new(Policy { secrets_are_open: AtomicBool::new(true), quotas });
    (World::with(Settings::default(), [Arc::clone(&policy) as Arc<dyn Hook>]), policy)
}

fn revoke(world: &World, whom: &Whom, consequence: Consequence) -> usize {
    let (sessions, works) = world.broker.revoke(whom, consequence, world.now());
    works.into_iter().for_each(drive);
    sessions
}

#[test]
fn a_lease_that_is_ended_disconnects_those_that_it_is_about_and_nobody_else() {
    for (whom, gone) in [
        (Whom::Client("a1".into()), [true, false, false]),
        (Whom::Principal("a".into()), [true, true, false]),
        (Whom::Everyone, [true, true, true]),
    ] {
        for version in VERSIONS {
            let (world, _) = world(Quotas::default());
            let mut clients = ["a1", "a2", "b1"].map(|name| world.client(version, name));
            let sessions = revoke(&world, &whom, Consequence::End(ReasonCode::NotAuthorized));
            assert_eq!(sessions, gone.iter().filter(|gone| **gone).count());
            for (client, gone) in clients.iter_mut().zip(gone) {
                if gone && version == V5 {
                    client.expect_closed(ReasonCode::NotAuthorized);
                }
                assert_eq!(client.is_closed(), gone);
            }
        }
    }
}

#[test]
fn asked_again_a_client_that_lost_a_subscription_is_disconnected_and_does_not_get_it_back() {
    let (world, policy) = world(Quotas::default());
    let (mut one, _) = world.persistent(V5, "a1", 3600);
    let mut other = world.client(V5, "b1");
    one.subscribe(&world, "secret/#", 1);
    one.subscribe(&world, "open/#", 1);
    other.subscribe(&world, "open/#", 1);
    policy.secrets_are_open.store(false, Ordering::Relaxed);
    assert_eq!(revoke(&world, &Whom::Everyone, Consequence::AskAgain), 2);
    one.expect_closed(ReasonCode::NotAuthorized);
    assert!(!other.is_closed(), "it has nothing that it may not have");
    let (_, present) = world.persistent(V5, "a1", 3600);
    assert!(present, "the session goes on");
    assert_eq!(world.broker.client("a1").unwrap().subscriptions, 1);
}

#[test]
fn asked_again_a_publisher_that_may_no_more_is_refused_at_once() {
    let (world, policy) = world(Quotas::default());
    let mut p = world.client(V5, "p");
    p.publish(&world, "secret/x", 0, "1");
    assert_eq!(world.broker.counters().dropped.get(DropReason::Denied), 0);
    policy.secrets_are_open.store(false, Ordering::Relaxed);
    p.publish(&world, "secret/x", 0, "2");
    assert_eq!(world.broker.counters().dropped.get(DropReason::Denied), 0, "the answer is remembered");
    revoke(&world, &Whom::Client("p".into()), Consequence::AskAgain);
    p.publish(&world, "secret/x", 0, "3");
    assert_eq!(world.broker.counters().dropped.get(DropReason::Denied), 1);
}

#[test]
fn what_a_plugin_publishes_is_delivered_in_its_name_and_loops_end() {
    let (world, _) = world(Quotas::default());
    let mut s = world.client(V5, "s");
    s.subscribe(&world, "alerts/#", 1);
    let plugin: Arc<str> = "watch".into();
    let draft = |topic: &str| Draft {
        topic: topic.to_owned(),
        payload: "hot".into(),
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: Properties::default(),
        expires_in: None,
    };
    let publish = |topic, hops| world.broker.publish_for_plugin(&plugin, draft(topic), hops, world.now());
    drive(publish("alerts/x", 1).ok().unwrap());
    assert_eq!(&*s.expect_one_publish().payload, b"hot");
    assert!(publish("alerts/x", 9).is_err(), "nine hops are a loop");
    assert!(publish("$SYS/x", 1).is_err(), "such topics are the broker's own");
    assert!(publish("a/#", 1).is_err());
    let dropped = &world.broker.counters().dropped;
    assert_eq!((dropped.get(DropReason::Loop), dropped.get(DropReason::Invalid)), (1, 2));
    assert_eq!(Publisher::Plugin(plugin).client_id(), None);
}

#[test]
fn a_client_publishes_no_faster_than_its_lease_says_and_loses_nothing() {
    let quotas = Quotas { publish_rate_max: NonZeroU32::new(10), ..Quotas::default() };
    let (mut world, _) = world(quotas);
    let mut s = world.client(V5, "s");
    s.subscribe(&world, "t", 0);
    let mut p = world.client(V5, "p");
    for number in 0..30 {
        p.publish(&world, "t", 0, &number.to_string());
    }
    let at_once = s.payloads().len();
    assert!((9..=11).contains(&at_once), "a second's worth: {at_once}");
    let mut got = at_once;
    for _ in 0..30 {
        world.advance(0.1);
        p.pass(&world);
        got += s.payloads().len();
    }
    assert_eq!(got, 30, "and the others in time");
    assert!(!p.is_closed());
}

#[test]
fn a_client_subscribes_to_no_more_than_its_lease_says() {
    let quotas = Quotas { subscriptions_max: Some(2), ..Quotas::default() };
    let (world, _) = world(quotas);
    let mut s = world.client(V5, "s");
    assert_eq!(s.subscribe(&world, "a", 0), [ReasonCode::Success]);
    assert_eq!(s.subscribe(&world, "b", 0), [ReasonCode::Success]);
    assert_eq!(s.subscribe(&world, "c", 0), [ReasonCode::QuotaExceeded]);
    assert_eq!(s.subscribe(&world, "a", 1), [ReasonCode::GrantedQoS1], "that is no further one");
}

#[test]
fn a_right_that_is_lost_while_the_client_is_away_delivers_nothing_when_it_comes_back() {
    for by_revocation in [true, false] {
        let (world, policy) = world(Quotas::default());
        let (mut s, _) = world.persistent(V5, "s", 3600);
        let mut p = world.client(V5, "p");
        s.subscribe(&world, "secret/#", 2);
        s.subscribe(&world, "open/#", 2);
        // One of each is under way, and unacknowledged.
        for topic in ["secret/sent", "open/sent"] {
            p.publish(&world, topic, 1, topic);
        }
        assert_eq!(s.payloads().len(), 2);
        s.cut(&world);
        for topic in ["secret/queued", "open/queued"] {
            p.publish(&world, topic, 1, topic);
        }
        policy.secrets_are_open.store(false, Ordering::Relaxed);
        if by_revocation {
            revoke(&world, &Whom::Everyone, Consequence::AskAgain);
        }
        let (mut s, present) = world.persistent(V5, "s", 3600);
        assert!(present, "the session goes on");
        assert_eq!(s.payloads(), ["open/sent", "open/queued"]);
        assert_eq!(world.broker.client("s").unwrap().subscriptions, 1);
        assert_eq!(world.broker.counters().dropped.get(DropReason::Denied), 2, "counted, not lost");
        policy.secrets_are_open.store(true, Ordering::Relaxed);
        p.publish(&world, "secret/later", 1, "x");
        s.expect_nothing();
    }
}

#[test]
fn what_another_subscription_still_allows_is_delivered() {
    let (world, policy) = world(Quotas::default());
    let (mut s, _) = world.persistent(V5, "s", 3600);
    let mut p = world.client(V5, "p");
    s.subscribe(&world, "secret/a", 1);
    s.subscribe(&world, "+/a", 1);
    s.cut(&world);
    p.publish(&world, "secret/a", 1, "x");
    policy.secrets_are_open.store(false, Ordering::Relaxed);
    let (mut s, _) = world.persistent(V5, "s", 3600);
    assert_eq!(&*s.expect_one_publish().payload, b"x");
}
