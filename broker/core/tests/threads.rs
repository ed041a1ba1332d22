//! Many threads at once: nothing is lost, doubled or out of order, and nobody waits for ever.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that meets what it does not expect should stop there"
)]

mod support;

use std::collections::HashMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use support::{Client, V5, VERSIONS, World, id, text};
use weirmq_wire::{Packet, PacketType, Subscribe, SubscribeOptions, Version};

const PUBLISHERS: usize = 3;
const MESSAGES: usize = 3_000;
const PATIENCE: Duration = Duration::from_secs(60);

/// What one subscriber has got: the last number of each publisher.
#[derive(Default)]
struct Got(HashMap<String, usize>);

impl Got {
    /// Takes a message, which must be the next of its publisher or, where it is a repetition, an earlier one.
    fn take(&mut self, topic: &str, number: usize, dup: bool) {
        let next = self.0.entry(topic.to_owned()).or_default();
        if number == *next {
            *next += 1;
        } else {
            assert!(dup && number < *next, "{topic}: {number} came where {next} was to come (dup: {dup})");
        }
    }

    fn is_complete(&self) -> bool {
        self.0.len() == PUBLISHERS && self.0.values().all(|next| *next == MESSAGES)
    }
}

/// Reads what has come, and acknowledges all of it but, where `lazy`, the last.
fn read(client: &mut Client, world: &World, got: &mut Got, lazy: bool) {
    let packets = client.all();
    let count = packets.len();
    for (place, packet) in packets.into_iter().enumerate() {
        match packet {
            Packet::Publish(publish) => {
                let number = std::str::from_utf8(&publish.payload).unwrap().parse().unwrap();
                got.take(&publish.topic, number, publish.dup);
                if !(lazy && place + 1 == count) {
                    client.ack(world, PacketType::PubAck, publish.packet_id.unwrap());
                }
            }
            Packet::PingResp => {}
            other => panic!("{other:?}"),
        }
    }
}

fn subscribe(world: &World, version: Version, client_id: &str, progress: &AtomicUsize) {
    let (mut client, _) = world.persistent(version, client_id, 1_000);
    client.subscribe(world, "t/+", 1);
    progress.fetch_add(1, Ordering::SeqCst);
    let (mut got, started) = (Got::default(), Instant::now());
    let mut rounds = 0_usize;
    while !got.is_complete() {
        assert!(started.elapsed() < PATIENCE, "{client_id} has {:?}", got.0);
        rounds += 1;
        let leaves = rounds.is_multiple_of(50);
        read(&mut client, world, &mut got, leaves);
        if leaves {
            let old = client;
            if rounds.is_multiple_of(100) {
                old.cut(world);
            }
            // Otherwise the new connection takes over from one that is still there.
            let (new, present) = world.persistent(version, client_id, 1_000);
            assert!(present);
            client = new;
        }
        std::thread::yield_now();
    }
    client.disconnect(world);
}

#[test]
fn subscribers_that_come_go_and_take_over_get_every_message_in_order() {
    for version in VERSIONS {
        let world = World::new();
        let (ready, done) = (AtomicUsize::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let subscribers: Vec<_> = ["a", "b", "c"]
                .map(|name| {
                    let (world, ready) = (&world, &ready);
                    scope.spawn(move || subscribe(world, version, name, ready))
                })
                .into();
            while ready.load(Ordering::SeqCst) < subscribers.len() {
                std::thread::yield_now();
            }
            for publisher in 0..PUBLISHERS {
                let world = &world;
                scope.spawn(move || {
                    let mut client = world.client(version, &format!("p{publisher}"));
                    for number in 0..MESSAGES {
                        client.publish(world, &format!("t/{publisher}"), 1, &number.to_string());
                        client.expect_ack(PacketType::PubAck, id(7), weirmq_wire::ReasonCode::Success);
                    }
                });
            }
            let (world, done) = (&world, &done);
            scope.spawn(move || {
                // Changes of subscriptions make plans out of date all the time.
                while !done.load(Ordering::Relaxed) {
                    let mut client = world.client(V5, "churn");
                    for filter in ["t/#", "$share/g/t/+"] {
                        let subscribe = Subscribe {
                            packet_id: id(1),
                            subscription_id: None,
                            user_properties: Vec::new(),
                            filters: vec![(text(filter), SubscribeOptions::default())],
                        };
                        // A message may come before the SUBACK: what comes is not looked at.
                        client.send(world, Packet::Subscribe(subscribe));
                    }
                    client.cut(world);
                }
            });
            for subscriber in subscribers {
                let ended = subscriber.join();
                if ended.is_err() {
                    done.store(true, Ordering::Relaxed);
                }
                ended.unwrap();
            }
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!(world.broker.counters().clients_connected.get(), 0, "everybody has left");
    }
}

#[test]
fn a_storm_of_connections_with_one_client_id_leaves_one() {
    let world = World::new();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    let (client, _) = world.persistent(V5, "same", 1_000);
                    drop(client);
                }
            });
        }
    });
    let (mut last, present) = world.persistent(V5, "same", 1_000);
    assert!(present);
    last.subscribe(&world, "t", 0);
    assert_eq!(world.broker.footprint().sessions, 1);
    assert_eq!(world.broker.counters().clients_connected.get(), 1);
}

#[test]
fn a_qos_2_message_that_two_connections_of_a_client_bring_at_once_is_taken_once() {
    let world = World::new();
    let mut s = world.client(V5, "s");
    s.subscribe(&world, "t", 0);
    for number in 0..400 {
        let (mut old, _) = world.persistent(V5, "p", 1_000);
        let payload = number.to_string();
        let start = Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                old.publish(&world, "t", 2, &payload);
            });
            start.wait();
            let (mut new, present) = world.persistent(V5, "p", 1_000);
            assert!(present);
            new.publish_with(&world, "t", 2, &payload, |publish| publish.dup = true);
            new.expect_ack(PacketType::PubRec, id(7), weirmq_wire::ReasonCode::Success);
            new.ack(&world, PacketType::PubRel, id(7));
            new.expect_ack(PacketType::PubComp, id(7), weirmq_wire::ReasonCode::Success);
        });
        assert_eq!(s.payloads(), [payload]);
    }
}
