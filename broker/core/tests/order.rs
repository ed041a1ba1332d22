//! Messages arrive in the order in which they were published, and QoS 2 exactly once, whatever happens between.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use support::{V5, VERSIONS, World, id};
use weirmq_core::broker::Settings;
use weirmq_core::counters::Limit;
use weirmq_core::hook::{Hook, HookPoint, HookPoints, Reply, Transform, Transformed};
use weirmq_core::message::Message;
use weirmq_core::time::Now;
use weirmq_core::topic::TopicName;
use weirmq_wire::{Packet, PacketType, QoS, ReasonCode};

#[test]
fn through_reconnects_and_a_small_window_each_qos_stays_in_order() {
    for version in VERSIONS {
        let mut settings = Settings::default();
        settings.limits.inflight_max = 20;
        let world = World::with(settings, []);
        let (mut s, _) = world.persistent(version, "s", 100);
        s.subscribe(&world, "q", 2);
        let mut p = world.client(version, "p");
        let mut got: [Vec<u32>; 3] = Default::default();
        let mut release = Vec::new();
        for number in 0..1_000_u32 {
            for qos in 0..=2 {
                p.publish(&world, "q", qos, &number.to_string());
                if qos == 2 {
                    p.ack(&world, PacketType::PubRel, id(7));
                }
            }
            p.all();
            if number % 400 == 399 {
                s.cut(&world);
                s = world.persistent(version, "s", 100).0;
            }
            // Answers only now and then, so that much is always under way.
            if number % 7 != 0 && number < 990 {
                continue;
            }
            while let Some(packet) = s.next() {
                match packet {
                    Packet::Publish(publish) => {
                        let number = std::str::from_utf8(&publish.payload).unwrap().parse().unwrap();
                        let list = &mut got[usize::from(publish.qos.as_u8())];
                        if !publish.dup || list.last().is_none_or(|last| *last < number) {
                            list.push(number);
                        }
                        match (publish.qos, publish.packet_id) {
                            (QoS::AtLeastOnce, Some(id)) => s.ack(&world, PacketType::PubAck, id),
                            (QoS::ExactlyOnce, Some(id)) => s.ack(&world, PacketType::PubRec, id),
                            _ => {}
                        }
                    }
                    Packet::PubRel(ack) => release.push(ack.packet_id),
                    other => panic!("{other:?}"),
                }
                for packet_id in release.drain(..) {
                    s.ack(&world, PacketType::PubComp, packet_id);
                }
            }
        }
        let all: Vec<u32> = (0..1_000).collect();
        assert_eq!(got[1], all);
        assert_eq!(got[2], all);
        assert!(got[0].is_sorted_by(|left, right| left < right));
    }
}

/// A transform that answers when it is allowed to.
struct Slow(Arc<AtomicBool>);

impl Hook for Slow {
    fn name(&self) -> &str {
        "slow"
    }

    fn points(&self) -> HookPoints {
        HookPoints::NONE.with(HookPoint::OnPublish)
    }

    fn on_publish(self: Arc<Self>, _: &TopicName) -> Option<Arc<dyn Transform>> {
        Some(self)
    }
}

impl Transform for Slow {
    fn transform(&self, _: &Arc<Message>, _: Now) -> Reply<Transformed> {
        let waits = Arc::clone(&self.0);
        Reply::Later(Box::pin(std::future::poll_fn(move |_| {
            if waits.load(Ordering::Relaxed) { Poll::Pending } else { Poll::Ready(Ok(Transformed::Pass)) }
        })))
    }
}

fn slow(change: impl FnOnce(&mut Settings)) -> (World, Arc<AtomicBool>) {
    let waits = Arc::new(AtomicBool::new(true));
    let mut settings = Settings::default();
    change(&mut settings);
    (World::with(settings, [Arc::new(Slow(Arc::clone(&waits))) as Arc<dyn Hook>]), waits)
}

#[test]
fn what_waits_behind_a_slow_hook_counts_against_receive_maximum() {
    for qos in [1, 2] {
        let (world, waits) = slow(|settings| settings.limits.receive_max = 3);
        let mut s = world.client(V5, "s");
        s.subscribe(&world, "#", 0);
        let mut p = world.client(V5, "p");
        let send = |p: &mut support::Client, number| {
            p.publish_with(&world, "q", qos, "x", |publish| publish.packet_id = Some(id(number)));
        };
        for number in 1..=3 {
            send(&mut p, number);
        }
        assert!(p.is_waiting() && !p.is_closed());
        waits.store(false, Ordering::Relaxed);
        p.work(&world);
        assert_eq!(p.all().len(), 3);
        assert_eq!(s.payloads().len(), 3);
        waits.store(true, Ordering::Relaxed);
        if qos == 2 {
            for number in 1..=3 {
                p.ack(&world, PacketType::PubRel, id(number));
            }
            p.all();
        }
        for number in 4..=7 {
            send(&mut p, number);
        }
        p.expect_closed(ReasonCode::ReceiveMaximumExceeded);
        assert_eq!(world.broker.counters().limits.get(Limit::ReceiveMaximum), 1);
    }
}

#[test]
fn a_qos_2_message_that_a_takeover_finds_with_a_hook_is_delivered_once() {
    for version in VERSIONS {
        let (world, waits) = slow(|_| {});
        let mut s = world.client(version, "s");
        s.subscribe(&world, "#", 0);
        let (mut old, _) = world.persistent(version, "p", 100);
        old.publish(&world, "q", 2, "x");
        let (mut new, present) = world.persistent(version, "p", 100);
        assert!(present);
        waits.store(false, Ordering::Relaxed);
        old.work(&world);
        new.publish_with(&world, "q", 2, "x", |publish| publish.dup = true);
        new.expect_ack(PacketType::PubRec, id(7), ReasonCode::Success);
        assert_eq!(s.payloads(), ["x"]);
    }
}

#[test]
fn a_client_is_not_silent_while_nobody_listens_to_it() {
    for version in VERSIONS {
        let (mut world, waits) = slow(|settings| settings.limits.backlog_packets_max = 2);
        let (mut p, _) = world.connect(version, "p", |connect| connect.keep_alive_s = 10);
        for _ in 0..10 {
            p.publish(&world, "q", 0, "x");
        }
        for _ in 0..10 {
            world.advance(10.0);
            p.send(&world, Packet::PingReq);
            p.pass(&world);
            assert!(!p.is_closed(), "its pings wait unread");
        }
        waits.store(false, Ordering::Relaxed);
        for _ in 0..20 {
            p.work(&world);
        }
        assert_eq!(p.all().len(), 10, "they are answered");
        world.advance(15.1);
        p.pass(&world);
        assert!(p.is_closed());
    }
}

#[test]
fn a_message_that_was_refused_is_a_new_one_when_it_comes_again() {
    let world = World::new();
    let mut s = world.client(V5, "s");
    s.subscribe(&world, "#", 0);
    let mut p = world.client(V5, "p");
    for _ in 0..2 {
        p.publish(&world, "$no", 2, "refused");
        p.expect_ack(PacketType::PubRec, id(7), ReasonCode::NotAuthorized);
    }
    p.publish(&world, "yes", 2, "taken");
    p.expect_ack(PacketType::PubRec, id(7), ReasonCode::Success);
    assert_eq!(s.payloads(), ["taken"]);
}

#[test]
fn an_identifier_that_is_acknowledged_stands_for_a_new_message() {
    for version in VERSIONS {
        let world = World::new();
        let mut s = world.client(version, "s");
        s.subscribe(&world, "#", 0);
        let mut p = world.client(version, "p");
        for round in 0..3 {
            p.publish_with(&world, "q", 1, "x", |publish| publish.dup = round > 0);
            p.expect_ack(PacketType::PubAck, id(7), ReasonCode::Success);
            assert_eq!(s.payloads(), ["x"], "whatever its DUP flag says");
            p.publish(&world, "q", 2, "y");
            p.expect_ack(PacketType::PubRec, id(7), ReasonCode::Success);
            p.ack(&world, PacketType::PubRel, id(7));
            p.expect_ack(PacketType::PubComp, id(7), ReasonCode::Success);
            assert_eq!(s.payloads(), ["y"]);
        }
    }
}
