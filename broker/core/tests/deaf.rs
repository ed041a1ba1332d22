//! A client that sends and does not read what it is answered.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use support::{V5, VERSIONS, World, id};
use weirmq_core::broker::Settings;
use weirmq_wire::{Packet, PacketType};

const OUTBOX_BYTES_MAX: usize = 1_000;

fn world() -> World {
    let mut settings = Settings::default();
    settings.limits.outbox_bytes_max = OUTBOX_BYTES_MAX;
    World::with(settings, [])
}

#[test]
fn answers_that_nobody_reads_do_not_pile_up() {
    for version in VERSIONS {
        let world = world();
        let mut client = world.client(version, "deaf");
        client.stick(&world, true);
        for _ in 0..100_000 {
            client.send(&world, Packet::PingReq);
        }
        assert!(client.waiting_bytes() <= 2 * OUTBOX_BYTES_MAX + 100, "{} bytes", client.waiting_bytes());
        assert!(!client.is_closed());
        client.stick(&world, false);
        assert_eq!(client.all().len(), 100_000, "it is listened to again once it reads");
    }
}

#[test]
fn acknowledgements_of_a_receiver_that_is_slow_are_heard() {
    let world = world();
    let mut slow = world.client(V5, "slow");
    slow.subscribe(&world, "q", 1);
    let mut p = world.client(V5, "p");
    p.publish(&world, "q", 1, "first");
    let first = slow.next_publish().packet_id.unwrap();
    slow.stick(&world, true);
    for _ in 0..50 {
        p.publish(&world, "q", 1, &"x".repeat(100));
        p.expect_ack(PacketType::PubAck, id(7), weirmq_wire::ReasonCode::Success);
    }
    let before = world.broker.counters().messages_sent.get();
    slow.ack(&world, PacketType::PubAck, first);
    assert_eq!(slow.unheard_bytes(), 0, "what others send it is no reason not to listen");
    assert_eq!(world.broker.counters().messages_sent.get(), before, "its outbox is full");
}
