//! What was acknowledged outlives the broker's process, however it ends.
//!
//! The choices of a run follow from its seed, which a failing test prints: `WEIRMQ_CRASH_SEED=N` takes them again (the
//! moment at which the process dies in its own work stays its own). `WEIRMQ_CRASH_ROUNDS=N` is how many rounds each of
//! the tests under load has, where the normal suite has a few:
//! `WEIRMQ_CRASH_ROUNDS=200 cargo test -p weirmq --test e2e crash`.

mod load;
mod publisher;
pub(crate) mod session;
mod subscriber;
mod wanderer;

use std::hash::{BuildHasher, RandomState};

use std::time::{Duration, Instant};

use weirmq_wire::{Connect, Packet, PublishExtras, QoS, Version};

use crate::support::{Broker, Place, eventually};
use load::{Ending, Load, backend_place, place, retained};
use session::{Link, lasting, message, subscribe, text, will};

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

/// Says its number where a test fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the same choices again: WEIRMQ_CRASH_SEED={}", self.0);
        }
    }
}

fn survive(durability: &str, ending: Ending, rounds: u64) {
    let seed = Seed(number("WEIRMQ_CRASH_SEED").unwrap_or_else(|| RandomState::new().hash_one(durability)));
    survive_in(place(durability), seed, ending, rounds);
}

fn survive_in(place: Place, seed: Seed, ending: Ending, rounds: u64) {
    let (mut load, mut broker) = Load::begin(place, seed.0);
    for round in 0..number("WEIRMQ_CRASH_ROUNDS").unwrap_or(rounds) {
        broker = load.round(round as usize, broker, ending);
    }
    load.finish(broker);
}

#[test]
fn nothing_acknowledged_is_lost_and_qos_2_comes_once_through_kill_9_with_fsync() {
    survive("fsync", Ending::Kill, 16);
}

#[test]
fn nothing_acknowledged_is_lost_and_qos_2_comes_once_through_kill_9_with_interval() {
    survive("interval", Ending::Kill, 16);
}

#[test]
fn nothing_acknowledged_is_lost_and_qos_2_comes_once_through_kill_9_with_os() {
    survive("os", Ending::Kill, 16);
}

#[test]
fn nothing_acknowledged_is_lost_and_qos_2_comes_once_through_kill_9_in_a_store_backend() {
    let seed = Seed(number("WEIRMQ_CRASH_SEED").unwrap_or_else(|| RandomState::new().hash_one("backend")));
    survive_in(backend_place(), seed, Ending::Kill, 12);
}

#[test]
fn nothing_acknowledged_is_lost_and_qos_2_comes_once_through_orderly_restarts() {
    survive("fsync", Ending::Orderly, 8);
}

/// Lets a client in and has its connection lost; the broker knows when this returns.
fn come_and_go(broker: &Broker, connect: &Connect) {
    drop(Link::enter(broker.address, connect));
    broker.log.wait_for(&["disconnected", connect.client_id.as_str()]);
}

#[test]
fn what_has_a_time_goes_by_the_calendar_while_nobody_runs() {
    let place = place("os");
    let broker = place.start();
    let watcher = lasting(Version::V5, "watcher");
    let (mut link, _) = Link::enter(broker.address, &watcher);
    link.send(&subscribe(["times/#"], QoS::ExactlyOnce));
    assert!(matches!(link.wait(), Packet::SubAck(_)));
    drop(link);
    broker.log.wait_for(&["disconnected", "watcher"]);
    let mut late = lasting(Version::V5, "late");
    late.will = Some(will("times/will", 8));
    let gone_at = Instant::now();
    come_and_go(&broker, &late);
    let mut brief = lasting(Version::V5, "brief");
    brief.session_expiry_interval_s = Some(2);
    come_and_go(&broker, &brief);
    let mut clean = lasting(Version::V5, "clean");
    clean.session_expiry_interval_s = None;
    let (_clean, _) = Link::enter(broker.address, &clean);
    let (mut p, _) = Link::enter(broker.address, &Connect::new(Version::V5, text("p")));
    let published_at = Instant::now();
    for (packet_id, (topic, expiry_s)) in (1..).zip([("times/short", 3), ("times/long", 600)]) {
        let mut publish = message(topic, packet_id, String::new());
        let message_expiry_interval_s = Some(expiry_s);
        publish.extras = Some(Box::new(PublishExtras { message_expiry_interval_s, ..Default::default() }));
        p.send(&Packet::Publish(publish));
        assert!(matches!(p.wait(), Packet::PubAck(_)));
    }
    drop(broker);

    let down_until = Instant::now() + Duration::from_secs(5);
    eventually("five seconds without a broker", || (Instant::now() > down_until).then_some(()));
    let started_at = Instant::now();
    let broker = place.start();
    assert!(!Link::enter(broker.address, &brief).1, "its time was up");
    assert!(!Link::enter(broker.address, &clean).1, "it ended with its connection");
    let (mut link, was_there) = Link::enter(broker.address, &watcher);
    assert!(was_there);
    let Packet::Publish(long) = link.wait() else { panic!("a PUBLISH is expected") };
    assert_eq!(long.topic.as_str(), "times/long");
    let left_s = long.extras.unwrap().message_expiry_interval_s.unwrap();
    let passed_s = u32::try_from(published_at.elapsed().as_secs()).unwrap();
    assert!((600 - passed_s - 1..=595).contains(&left_s), "{left_s} after {passed_s}");
    let Packet::Publish(will) = link.wait() else { panic!("a PUBLISH is expected") };
    assert_eq!(will.topic.as_str(), "times/will");
    assert!(gone_at.elapsed() >= Duration::from_secs(8), "{:?}", gone_at.elapsed());
    assert!(started_at.elapsed() < Duration::from_secs(8), "its delay did not begin anew");
}

#[test]
fn with_memory_everything_ends_with_the_process() {
    let place = place("memory");
    let broker = place.start();
    let connect = lasting(Version::V5, "s");
    let (mut link, _) = Link::enter(broker.address, &connect);
    link.send(&subscribe(["#"], QoS::ExactlyOnce));
    assert!(matches!(link.wait(), Packet::SubAck(_)));
    drop(link);
    let (mut p, _) = Link::enter(broker.address, &Connect::new(Version::V5, text("p")));
    let mut publish = message("kept", 1, "x".to_owned());
    publish.retain = true;
    p.send(&Packet::Publish(publish));
    assert!(matches!(p.wait(), Packet::PubAck(_)));
    assert_eq!(retained(broker.address, "kept").len(), 1);
    assert!(Link::enter(broker.address, &connect).1);
    drop(broker);
    let broker = place.start();
    assert!(!Link::enter(broker.address, &connect).1);
    assert!(retained(broker.address, "#").is_empty());
}
