//! What is kept, what waits for it, and what is said when it cannot be kept.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;

use bytes::Bytes;
use parking_lot::Mutex;
use support::paper::Paper;
use support::*;
use weirmq_core::broker::Settings;
use weirmq_core::durable::event::{Event, Published, RetainChange, Stage};
use weirmq_core::durable::keys::Changes;
use weirmq_core::hook::{
    Actions, Denial, Draft, Failure, FailureKind, Hook, HookPoint, HookPoints, Observe, Persist, Persisted,
    Reply, Transform, Transformed,
};
use weirmq_core::message::{Message, Properties};
use weirmq_core::record::{Record, Value};
use weirmq_core::time::Now;
use weirmq_core::topic::TopicName;
use weirmq_wire::{
    Ack, Connect, Disconnect, Packet, PacketType, QoS, ReasonCode, Subscribe, SubscribeOptions,
};

fn world(journal: &Arc<Paper>) -> World {
    World::keeping(Arc::clone(journal) as _, Settings::default(), [])
}

/// A world with a subscriber that is away: `away`, to `t` with QoS 2. Everything so far is kept.
fn with_subscriber(journal: &Arc<Paper>) -> World {
    let world = world(journal);
    journal.keep_at_once(true);
    let (mut away, _) = world.persistent(V5, "away", 1_000);
    away.subscribe(&world, "t", 2);
    away.cut(&world);
    journal.keep_at_once(false);
    world
}

/// A world with a receiver that is there: `s`, to `filter` with QoS 2. Everything so far is kept.
fn with_receiver(journal: &Arc<Paper>, filter: &str) -> (World, Client) {
    let world = world(journal);
    journal.keep_at_once(true);
    let (mut s, _) = world.persistent(V5, "s", 1_000);
    s.subscribe(&world, filter, 2);
    journal.keep_at_once(false);
    (world, s)
}

/// One who asks for the session of `client_id`, and has no answer yet.
fn knock(world: &World, client_id: &str) -> Client {
    let mut connect = Connect::new(V5, text(client_id));
    (connect.clean_start, connect.session_expiry_interval_s) = (false, Some(1_000));
    let mut client = world.socket(V5);
    client.send(world, Packet::Connect(Box::new(connect)));
    client
}

/// A SUBSCRIBE with QoS 2 whose answer is looked at later.
fn subscribe(packet_id: u16, filter: &str) -> Packet {
    let options = SubscribeOptions { qos: QoS::ExactlyOnce, ..SubscribeOptions::default() };
    Packet::Subscribe(Subscribe {
        packet_id: id(packet_id),
        subscription_id: None,
        user_properties: Vec::new(),
        filters: vec![(text(filter), options)],
    })
}

fn published(record: &[Event]) -> Vec<&Published> {
    record
        .iter()
        .filter_map(|event| match event {
            Event::Published(published) => Some(published),
            _ => None,
        })
        .collect()
}

#[test]
fn an_acknowledgement_waits_until_the_message_is_kept_and_keeps_its_order() {
    for version in VERSIONS {
        let journal = Paper::slow();
        let world = with_subscriber(&journal);
        let mut p = world.client(version, "p");
        p.publish_with(&world, "t", 1, "1", |publish| publish.packet_id = Some(id(1)));
        p.publish_with(&world, "nobody", 1, "2", |publish| publish.packet_id = Some(id(2)));
        p.publish_with(&world, "t", 1, "3", |publish| publish.packet_id = Some(id(3)));
        p.expect_nothing();
        p.send(&world, Packet::PingReq);
        assert_eq!(p.next().unwrap().kind(), PacketType::PingResp, "a ping waits for nothing");
        journal.keep();
        p.work(&world);
        p.expect_ack(PacketType::PubAck, id(1), ReasonCode::Success);
        p.expect_ack(PacketType::PubAck, id(2), ReasonCode::NoMatchingSubscribers);
        p.expect_ack(PacketType::PubAck, id(3), ReasonCode::Success);
        p.expect_nothing();
    }
}

#[test]
fn nothing_that_need_not_survive_is_recorded_or_waited_for() {
    let journal = Paper::slow();
    let world = world(&journal);
    let (mut p, mut s) = (world.client(V5, "p"), world.client(V311, "s"));
    s.subscribe(&world, "t", 2);
    for qos in 0..=2 {
        p.publish(&world, "t", qos, "x");
        assert_eq!(p.all().len(), usize::from(qos > 0), "QoS {qos} is acknowledged at once");
        if qos == 2 {
            p.ack(&world, PacketType::PubRel, id(7));
            p.expect_ack(PacketType::PubComp, id(7), ReasonCode::Success);
        }
    }
    assert_eq!(s.drain(&world).len(), 3);
    s.disconnect(&world);
    assert_eq!(journal.count(), 0, "{:?}", journal.records());
}

#[test]
fn one_record_has_the_message_once_its_receivers_what_is_retained_and_the_packet_identifier() {
    let journal = Paper::quick();
    let world = world(&journal);
    for name in ["a", "b"] {
        let (mut s, _) = world.persistent(V5, name, 1_000);
        s.subscribe(&world, "t", 1);
        s.cut(&world);
    }
    let (mut here, _) = world.persistent(V5, "here", 1_000);
    here.subscribe(&world, "#", 2);
    let (mut p, _) = world.persistent(V5, "p", 1_000);
    let before = journal.count();
    p.publish_with(&world, "t", 2, "x", |publish| publish.retain = true);
    p.expect_ack(PacketType::PubRec, id(7), ReasonCode::Success);
    let records = journal.records();
    let [record] = &records[before..] else { panic!("one record: {:?}", &records[before..]) };
    let [message] = &published(record)[..] else { panic!("{record:?}") };
    assert_eq!((&*message.stored.message.payload, message.retain), (&b"x"[..], RetainChange::Replace));
    let mut receivers: Vec<_> = message.recipients.iter().map(|to| (&*to.client, to.qos, to.stage)).collect();
    receivers.sort_by_key(|(name, ..)| *name);
    assert_eq!(
        receivers,
        [
            ("a", QoS::AtLeastOnce, Stage::Waiting),
            ("b", QoS::AtLeastOnce, Stage::Waiting),
            ("here", QoS::ExactlyOnce, Stage::UnderWay(id(1))),
        ]
    );
    assert!(record.iter().any(|event| matches!(event, Event::Taken { from } if from.packet_id == id(7))));
}

#[test]
fn a_qos_2_identifier_is_taken_and_freed_before_that_is_acknowledged() {
    let journal = Paper::slow();
    let world = with_subscriber(&journal);
    journal.keep_at_once(true);
    let (mut p, _) = world.persistent(V5, "p", 1_000);
    journal.keep_at_once(false);
    p.publish(&world, "t", 2, "x");
    p.expect_nothing();
    // The publisher comes back and asks again before the first is kept.
    p.cut(&world);
    let mut p = knock(&world, "p");
    p.publish_with(&world, "t", 2, "x", |publish| publish.dup = true);
    p.expect_nothing();
    journal.keep();
    p.work(&world);
    assert!(matches!(p.next(), Some(Packet::ConnAck(connack)) if connack.session_present));
    p.expect_ack(PacketType::PubRec, id(7), ReasonCode::Success);
    p.ack(&world, PacketType::PubRel, id(7));
    p.expect_nothing();
    journal.keep();
    p.work(&world);
    p.expect_ack(PacketType::PubComp, id(7), ReasonCode::Success);
    let all: Vec<Event> = journal.records().concat();
    assert_eq!(published(&all).len(), 1, "it was routed once");
}

#[test]
fn a_qos_2_message_is_sent_once_it_is_kept_and_what_follows_waits_for_nothing_else() {
    let journal = Paper::slow();
    let (world, mut s) = with_receiver(&journal, "#");
    let mut p = world.client(V5, "p");
    for (number, qos) in [(1, 2), (2, 1), (3, 0), (4, 2)] {
        p.publish_with(&world, "t", qos, &number.to_string(), |publish| {
            publish.packet_id = publish.packet_id.map(|_| id(number));
        });
    }
    s.work(&world);
    let payloads = s.all().into_iter().filter_map(|packet| match packet {
        Packet::Publish(publish) => Some((publish.payload, publish.qos)),
        _ => None,
    });
    let payloads: Vec<_> = payloads.collect();
    assert_eq!(
        payloads,
        [(Bytes::from("2"), QoS::AtLeastOnce), (Bytes::from("3"), QoS::AtMostOnce)],
        "QoS 1 may come twice and need not wait"
    );
    journal.keep();
    s.work(&world);
    let first = s.next_publish();
    let second = s.expect_one_publish();
    assert_eq!((&*first.payload, &*second.payload), (&b"1"[..], &b"4"[..]));
    assert!(!first.dup && !second.dup);
    // PUBREL must not be sent before it is known that PUBREC came.
    let first_id = first.packet_id.unwrap();
    s.ack(&world, PacketType::PubRec, first_id);
    s.expect_nothing();
    journal.keep();
    s.work(&world);
    s.expect_ack(PacketType::PubRel, first_id, ReasonCode::Success);
    s.ack(&world, PacketType::PubComp, first_id);
    let settled = |event: &Event| matches!(event, Event::Settled { client, .. } if &**client == "s");
    assert_eq!(journal.records().concat().iter().filter(|event| settled(event)).count(), 1);
}

#[test]
fn a_held_message_of_a_lost_connection_is_sent_on_the_next_once_it_is_kept() {
    let journal = Paper::slow();
    let (world, s) = with_receiver(&journal, "t");
    let mut p = world.client(V5, "p");
    p.publish(&world, "t", 2, "x");
    s.cut(&world);
    let (mut s, present) = world.persistent(V5, "s", 1_000);
    assert!(present);
    s.expect_nothing();
    journal.keep();
    s.work(&world);
    let publish = s.expect_one_publish();
    assert!(!publish.dup, "it was never sent before");
    assert_eq!(publish.packet_id, Some(id(1)));
}

#[test]
fn what_a_lost_connection_was_not_told_yet_the_next_is_told_when_it_is_kept() {
    // PUBREL says that PUBREC came...
    let journal = Paper::slow();
    let (world, mut s) = with_receiver(&journal, "t");
    let mut p = world.client(V5, "p");
    p.publish(&world, "t", 2, "x");
    journal.keep();
    s.work(&world);
    let id_of_it = s.expect_one_publish().packet_id.unwrap();
    s.ack(&world, PacketType::PubRec, id_of_it);
    let mut again = knock(&world, "s");
    again.expect_nothing();
    journal.keep();
    again.work(&world);
    let kinds: Vec<PacketType> = again.all().iter().map(Packet::kind).collect();
    assert_eq!(kinds, [PacketType::ConnAck, PacketType::PubRel]);

    // ...and PUBCOMP that the identifier is free.
    journal.keep_at_once(true);
    let (mut p, _) = world.persistent(V5, "publisher", 1_000);
    journal.keep_at_once(false);
    p.publish(&world, "t", 2, "y");
    journal.keep();
    p.work(&world);
    p.expect_ack(PacketType::PubRec, id(7), ReasonCode::Success);
    p.ack(&world, PacketType::PubRel, id(7));
    let mut again = knock(&world, "publisher");
    again.send(&world, Packet::PubRel(Ack::new(id(7))));
    again.expect_nothing();
    journal.keep();
    again.work(&world);
    let kinds: Vec<PacketType> = again.all().iter().map(Packet::kind).collect();
    assert_eq!(kinds, [PacketType::ConnAck, PacketType::PubComp]);
}

#[test]
fn connack_of_a_new_session_suback_and_unsuback_wait_and_those_of_clean_sessions_do_not() {
    for version in VERSIONS {
        let journal = Paper::slow();
        let world = world(&journal);
        let mut s = world.socket(version);
        let mut connect = Connect::new(version, text("s"));
        connect.clean_start = false;
        connect.session_expiry_interval_s = (version == V5).then_some(100);
        s.send(&world, Packet::Connect(Box::new(connect)));
        s.send(&world, subscribe(1, "t"));
        // What others send it meanwhile must not come before CONNACK.
        let mut p = world.client(version, "p");
        p.publish(&world, "t", 0, "early");
        s.expect_nothing();
        journal.keep();
        s.work(&world);
        let kinds: Vec<PacketType> = s.all().iter().map(Packet::kind).collect();
        assert_eq!(kinds, [PacketType::ConnAck, PacketType::Publish, PacketType::SubAck]);

        let mut clean = world.client(version, "clean");
        clean.subscribe(&world, "t", 2);
        clean.unsubscribe(&world, "t");
    }
}

#[test]
fn a_connection_that_ends_before_its_connack_is_kept_has_nothing_left_to_write() {
    let journal = Paper::slow();
    let world = world(&journal);
    let mut first = knock(&world, "s");
    let mut second = knock(&world, "s");
    first.work(&world);
    assert!(first.is_closed(), "it was taken over");
    second.shut_down(&world);
    assert!(second.is_closed());
    for client in [&mut first, &mut second] {
        client.cut_in_place(&world);
        assert_eq!((client.unwritten(), client.raw()), (0, Vec::new()));
    }
}

#[test]
fn a_clean_start_is_confirmed_when_the_old_session_is_gone_for_good() {
    let journal = Paper::slow();
    let world = with_subscriber(&journal);
    let mut again = world.socket(V5);
    again.send(&world, Packet::Connect(Box::new(Connect::new(V5, text("away")))));
    again.expect_nothing();
    assert!(matches!(journal.records().last().unwrap()[..], [Event::SessionEnded { .. }]));
    journal.keep();
    again.work(&world);
    assert!(matches!(again.next(), Some(Packet::ConnAck(connack)) if !connack.session_present));
}

#[test]
fn what_cannot_be_kept_is_refused_with_a_reason_that_mqtt_5_has_and_left_unanswered_in_mqtt_311() {
    for (is_full, code) in
        [(true, ReasonCode::QuotaExceeded), (false, ReasonCode::ImplementationSpecificError)]
    {
        let journal = Paper::slow();
        let world = with_subscriber(&journal);
        let (mut five, mut three) = (world.client(V5, "five"), world.client(V311, "three"));
        for client in [&mut five, &mut three] {
            client.publish(&world, "t", 1, "x");
            client.publish_with(&world, "t", 2, "y", |publish| publish.packet_id = Some(id(8)));
        }
        journal.fail(is_full);
        for client in [&mut five, &mut three] {
            client.work(&world);
            client.publish_with(&world, "t", 1, "later", |publish| publish.packet_id = Some(id(9)));
        }
        five.expect_ack(PacketType::PubAck, id(7), code);
        five.expect_ack(PacketType::PubRec, id(8), code);
        five.expect_ack(PacketType::PubAck, id(9), code);
        three.expect_nothing();
        // QoS 0 and clean sessions go on.
        let mut s = world.client(V5, "s");
        s.subscribe(&world, "t", 1);
        five.publish(&world, "t", 0, "fleeting");
        assert_eq!(s.payloads(), ["fleeting"]);
        five.publish_with(&world, "other", 1, "nobody keeps it", |publish| publish.packet_id = Some(id(10)));
        five.expect_ack(PacketType::PubAck, id(10), ReasonCode::NoMatchingSubscribers);
        assert!(world.broker.counters().not_kept.get() > 0);
    }
}

#[test]
fn a_refusal_that_passes_has_a_client_of_mqtt_311_come_back_and_ask_again() {
    let journal = Paper::slow();
    let world = with_subscriber(&journal);
    let (mut five, mut three) = (world.client(V5, "five"), world.client(V311, "three"));
    journal.refuse(true);
    five.publish(&world, "t", 1, "x");
    five.expect_ack(PacketType::PubAck, id(7), ReasonCode::QuotaExceeded);
    three.publish(&world, "t", 1, "x");
    assert!(three.is_closed());
    journal.refuse(false);
    journal.keep_at_once(true);
    five.publish(&world, "t", 1, "x");
    five.expect_ack(PacketType::PubAck, id(7), ReasonCode::Success);
}

#[test]
fn a_session_a_subscription_and_a_qos_2_delivery_that_cannot_be_kept_are_refused() {
    let journal = Paper::slow();
    let (world, mut s) = with_receiver(&journal, "t");
    let mut p = world.client(V5, "p");
    p.publish(&world, "t", 2, "x");
    let mut new = world.socket(V5);
    let mut connect = Connect::new(V5, text("new"));
    connect.session_expiry_interval_s = Some(100);
    connect.will = will("gone", "will", 0);
    new.send(&world, Packet::Connect(Box::new(connect)));
    s.send(&world, subscribe(3, "u"));
    let mut watch = world.client(V5, "watch");
    watch.subscribe(&world, "gone", 0);
    journal.fail(true);
    s.work(&world);
    new.work(&world);
    let Some(Packet::SubAck(suback)) = s.next() else { panic!("a SUBACK") };
    assert_eq!(suback.codes, [ReasonCode::QuotaExceeded]);
    s.expect_nothing();
    p.work(&world);
    p.expect_ack(PacketType::PubRec, id(7), ReasonCode::QuotaExceeded);
    p.publish(&world, "u", 0, "not subscribed");
    s.expect_nothing();
    let dropped = world.broker.counters().dropped.get(weirmq_core::counters::DropReason::NotKept);
    assert_eq!(dropped, 1, "sent, it might come twice");
    let Some(Packet::ConnAck(connack)) = new.next() else { panic!("a CONNACK") };
    assert_eq!(connack.code, ReasonCode::QuotaExceeded);
    assert!(new.is_closed());
    watch.expect_nothing();
}

#[test]
fn a_session_that_ends_is_recorded_to_end_and_nothing_of_it_after() {
    let journal = Paper::quick();
    let mut world = world(&journal);
    let (mut s, _) = world.persistent(V5, "s", 10);
    s.subscribe(&world, "t", 1);
    s.cut(&world);
    let ends = |event: &Event| matches!(event, Event::SessionSet { session, .. } if session.ends_at_unix_ms.is_some());
    assert!(journal.records().concat().iter().any(ends));
    world.advance(11.0);
    assert!(matches!(journal.records().last().unwrap()[..], [Event::SessionEnded { .. }]));
    let count = journal.count();
    world.client(V5, "p").publish(&world, "t", 1, "x");
    assert_eq!(journal.count(), count);
}

#[test]
fn who_comes_back_with_an_expiry_of_0_is_kept_no_longer() {
    let journal = Paper::quick();
    let world = world(&journal);
    let (mut s, _) = world.persistent(V5, "s", 100);
    s.subscribe(&world, "t", 1);
    let (mut s, present) = world.persistent(V5, "s", 0);
    assert!(present);
    assert!(matches!(journal.records().last().unwrap()[..], [Event::SessionEnded { .. }]));
    let count = journal.count();
    world.client(V5, "p").publish(&world, "t", 1, "x");
    s.drain(&world);
    s.cut(&world);
    assert_eq!(journal.count(), count);
}

#[test]
fn messages_that_are_dropped_from_a_queue_are_settled() {
    let journal = Paper::quick();
    let mut settings = Settings::default();
    settings.limits.queue_messages_max = 2;
    settings.limits.queue_full = weirmq_core::limits::QueueFull::DropOldest;
    let world = World::keeping(Arc::clone(&journal) as _, settings, []);
    let (mut s, _) = world.persistent(V5, "s", 1_000);
    s.subscribe(&world, "t", 1);
    s.cut(&world);
    let mut p = world.client(V5, "p");
    for number in 1..=3 {
        p.publish(&world, "t", 1, &number.to_string());
    }
    let all = journal.records().concat();
    let settled: Vec<u64> = all
        .iter()
        .filter_map(|event| match event {
            Event::Settled { number, .. } => Some(*number),
            _ => None,
        })
        .collect();
    let first = all.iter().position(|event| matches!(event, Event::Published(_))).unwrap() as u64 + 1;
    assert_eq!(settled, [first]);
}

/// A rule that publishes and makes a record, and a persistence hook that reverses payloads of `sealed/...`, skips those
/// of `skipped/...` and fails at those of `broken/...`.
struct Extras;

impl Hook for Extras {
    fn name(&self) -> &str {
        "extras"
    }

    fn points(&self) -> HookPoints {
        HookPoints::NONE.with(HookPoint::OnMessage).with(HookPoint::Persistence)
    }

    fn on_message(self: Arc<Self>, topic: &TopicName) -> Vec<Arc<dyn Observe>> {
        if topic.starts_with("rule/") { vec![self] } else { Vec::new() }
    }

    fn persistence(self: Arc<Self>, topic: &TopicName) -> Option<Arc<dyn Persist>> {
        let wanted = ["sealed/", "skipped/", "broken/"].iter().any(|prefix| topic.starts_with(prefix));
        wanted.then_some(self)
    }
}

impl Observe for Extras {
    fn observe(&self, message: &Arc<Message>, _: Now, actions: &mut Actions) -> Result<(), Failure> {
        let mut draft = Draft::of(message);
        (draft.topic, draft.properties) = ("t".to_owned(), Properties::default());
        actions.publish.push(("rule".into(), draft));
        let fields = vec![(Arc::from("n"), Value::Int(1))];
        actions.records.push(Record {
            sink: "history".into(),
            fields,
            rule: "rule".into(),
            created_unix_ms: 1,
        });
        Ok(())
    }

    fn name(&self) -> &str {
        "rule"
    }
}

impl Persist for Extras {
    fn before_store(&self, message: &Arc<Message>) -> Result<Persisted, Failure> {
        match &message.topic {
            topic if topic.starts_with("skipped/") => Ok(Persisted::Skip),
            topic if topic.starts_with("broken/") => Err(Failure::new(FailureKind::Crash, "as asked")),
            _ => Ok(Persisted::Replace(reversed(&message.payload))),
        }
    }

    fn after_load(&self, message: &Message) -> Result<Bytes, Failure> {
        Ok(reversed(&message.payload))
    }
}

fn reversed(payload: &Bytes) -> Bytes {
    payload.iter().rev().copied().collect()
}

#[test]
fn what_rules_publish_is_in_the_record_of_the_message_that_they_saw() {
    let journal = Paper::quick();
    let world = World::keeping(Arc::clone(&journal) as _, Settings::default(), [Arc::new(Extras) as _]);
    let (mut s, _) = world.persistent(V5, "s", 1_000);
    s.subscribe(&world, "#", 1);
    s.cut(&world);
    let before = journal.count();
    world.client(V5, "p").publish(&world, "rule/x", 1, "x");
    let records = journal.records();
    let [record] = &records[before..] else { panic!("one record: {:?}", &records[before..]) };
    let topics: Vec<&str> = published(record).iter().map(|message| &*message.stored.message.topic).collect();
    assert_eq!(topics, ["rule/x", "t"]);
}

#[test]
fn persistence_hooks_change_what_is_kept_and_not_what_is_delivered() {
    let journal = Paper::quick();
    let world = World::keeping(Arc::clone(&journal) as _, Settings::default(), [Arc::new(Extras) as _]);
    let (mut away, _) = world.persistent(V5, "away", 1_000);
    away.subscribe(&world, "#", 1);
    away.cut(&world);
    let (mut here, _) = world.persistent(V5, "here", 1_000);
    here.subscribe(&world, "#", 1);
    let mut p = world.client(V5, "p");
    let mut publish = |topic: &str, code| {
        p.publish(&world, topic, 1, "abc");
        p.expect_ack(PacketType::PubAck, id(7), code);
    };
    publish("sealed/x", ReasonCode::Success);
    assert_eq!(here.expect_one_publish().payload, "abc");
    let all = journal.records().concat();
    let [kept] = &published(&all)[..] else { panic!("{all:?}") };
    assert_eq!(
        (&*kept.stored.message.payload, &*kept.stored.sealed_by),
        (&b"cba"[..], &[Arc::from("extras")][..])
    );
    let back = world.broker.unseal(kept.stored.clone(), world.now()).unwrap();
    assert_eq!(back.payload, "abc");

    publish("skipped/x", ReasonCode::Success);
    assert_eq!(here.expect_one_publish().payload, "abc");
    publish("broken/x", ReasonCode::ImplementationSpecificError);
    here.expect_nothing();
    assert_eq!(published(&journal.records().concat()).len(), 1);
    // What nobody keeps asks nobody.
    p.publish(&world, "broken/x", 0, "abc");
    assert_eq!(here.expect_one_publish().payload, "abc");

    let mut unknown = kept.stored.clone();
    unknown.sealed_by = vec!["gone".into()];
    assert!(world.broker.unseal(unknown, world.now()).is_none());
}

#[test]
fn retained_messages_that_a_kept_session_asked_for_are_kept_for_it_until_it_has_them() {
    let journal = Paper::slow();
    let world = world(&journal);
    journal.keep_at_once(true);
    let mut p = world.client(V5, "p");
    for (topic, qos) in [("a", 1), ("b", 2), ("c", 0)] {
        p.publish_with(&world, topic, qos, topic, |publish| publish.retain = true);
    }
    let (mut s, _) = world.persistent(V5, "s", 1_000);
    journal.keep_at_once(false);
    let before = journal.count();
    s.send(&world, subscribe(1, "#"));
    let mut topics: Vec<String> = published(&journal.records()[before..].concat())
        .into_iter()
        .filter(|published| matches!(published.recipients[0].stage, Stage::UnderWay(_)))
        .map(|published| published.stored.message.topic.to_string())
        .collect();
    topics.sort();
    assert_eq!(topics, ["a", "b"]);
    journal.keep();
    s.work(&world);
    assert_eq!(s.all().len(), 4, "SUBACK and the three");
}

/// Publishes to `later` what comes to `first`, and leaves what comes to `later` waiting.
struct Chain(Arc<AtomicBool>);

impl Hook for Chain {
    fn name(&self) -> &str {
        "chain"
    }

    fn points(&self) -> HookPoints {
        HookPoints::NONE.with(HookPoint::OnMessage).with(HookPoint::OnPublish)
    }

    fn on_message(self: Arc<Self>, topic: &TopicName) -> Vec<Arc<dyn Observe>> {
        if topic.as_str() == "first" { vec![self] } else { Vec::new() }
    }

    fn on_publish(self: Arc<Self>, topic: &TopicName) -> Option<Arc<dyn Transform>> {
        (topic.as_str() == "later").then_some(self as _)
    }
}

impl Observe for Chain {
    fn observe(&self, message: &Arc<Message>, _: Now, actions: &mut Actions) -> Result<(), Failure> {
        let draft = Draft { topic: "later".to_owned(), ..Draft::of(message) };
        actions.publish.push(("chain".into(), draft));
        Ok(())
    }

    fn name(&self) -> &str {
        "chain"
    }
}

impl Transform for Chain {
    fn transform(&self, _: &Arc<Message>, _: Now) -> Reply<Transformed> {
        let waits = Arc::clone(&self.0);
        Reply::Later(Box::pin(std::future::poll_fn(move |_| {
            if waits.load(Ordering::Relaxed) { Poll::Pending } else { Poll::Ready(Ok(Transformed::Pass)) }
        })))
    }
}

#[test]
fn a_receiver_that_is_faster_than_the_record_has_its_acknowledgement_recorded_after_it() {
    let (journal, waits) = (Paper::quick(), Arc::new(AtomicBool::new(true)));
    let chain = Arc::new(Chain(Arc::clone(&waits))) as Arc<dyn Hook>;
    let world = World::keeping(Arc::clone(&journal) as _, Settings::default(), [chain]);
    let (mut s, _) = world.persistent(V5, "s", 1_000);
    s.subscribe(&world, "first", 2);
    let mut p = world.client(V5, "p");
    let before = journal.count();
    p.publish(&world, "first", 1, "x");
    // The message is there, and its record is not: it is one with that of what follows from it.
    let id_of_it = s.expect_one_publish().packet_id.unwrap();
    s.ack(&world, PacketType::PubAck, id_of_it);
    assert_eq!(journal.count(), before);
    waits.store(false, Ordering::Relaxed);
    p.work(&world);
    p.expect_ack(PacketType::PubAck, id(7), ReasonCode::Success);
    s.send(&world, Packet::PingReq);
    assert_eq!(s.next().unwrap().kind(), PacketType::PingResp);
    let all = journal.records()[before..].concat();
    let [message] = &published(&all)[..] else { panic!("{all:?}") };
    assert_eq!(message.recipients[0].stage, Stage::UnderWay(id_of_it));
    assert!(matches!(all.last(), Some(Event::Settled { .. })), "{all:?}");
}

#[test]
fn a_qos_2_message_whose_connection_ends_while_rules_go_on_with_it_is_taken_once() {
    let (journal, waits) = (Paper::quick(), Arc::new(AtomicBool::new(true)));
    let chain = Arc::new(Chain(Arc::clone(&waits))) as Arc<dyn Hook>;
    let world = World::keeping(Arc::clone(&journal) as _, Settings::default(), [chain]);
    let (mut s, _) = world.persistent(V5, "s", 1_000);
    s.subscribe(&world, "first", 2);
    let (mut p, _) = world.persistent(V5, "p", 1_000);
    let before = journal.count();
    p.publish(&world, "first", 2, "x");
    p.cut(&world);
    waits.store(false, Ordering::Relaxed);
    let records = journal.records();
    let record = records[before..].iter().find(|record| !published(record).is_empty()).unwrap();
    assert!(record.iter().any(|event| matches!(event, Event::Taken { .. })), "{record:?}");
    let (mut p, _) = world.persistent(V5, "p", 1_000);
    p.publish_with(&world, "first", 2, "x", |publish| publish.dup = true);
    p.expect_ack(PacketType::PubRec, id(7), ReasonCode::Success);
    s.work(&world);
    assert_eq!(s.payloads(), ["x"]);
}

#[test]
fn held_messages_are_sent_in_the_order_of_their_identifiers_whoever_is_recorded_first() {
    let (journal, waits) = (Paper::quick(), Arc::new(AtomicBool::new(true)));
    let chain = Arc::new(Chain(Arc::clone(&waits))) as Arc<dyn Hook>;
    let world = World::keeping(Arc::clone(&journal) as _, Settings::default(), [chain]);
    let (mut s, _) = world.persistent(V5, "s", 1_000);
    for filter in ["first", "t"] {
        s.subscribe(&world, filter, 2);
    }
    // Two are not recorded before what follows from them is through; the third is at once.
    let (mut one, mut two, mut three) =
        (world.client(V5, "one"), world.client(V5, "two"), world.client(V5, "three"));
    one.publish(&world, "first", 2, "1");
    two.publish(&world, "first", 2, "2");
    three.publish(&world, "t", 2, "3");
    s.expect_nothing();
    waits.store(false, Ordering::Relaxed);
    one.work(&world);
    s.work(&world);
    assert_eq!(s.expect_one_publish().payload, "1", "the third waits for the second");
    two.work(&world);
    s.work(&world);
    assert_eq!(s.payloads(), ["2", "3"]);
}

#[test]
fn the_brokers_own_messages_are_not_kept() {
    let journal = Paper::quick();
    let world = world(&journal);
    world.broker.publish_own(&TopicName::new("$SYS/x").unwrap(), "1".to_owned(), world.now());
    assert_eq!(journal.count(), 0);
}

#[test]
fn a_connection_that_ends_waits_for_nothing_more() {
    let journal = Paper::slow();
    let world = with_subscriber(&journal);
    let mut p = world.client(V5, "p");
    p.publish(&world, "t", 1, "x");
    assert!(p.is_waiting());
    p.send(&world, Packet::Disconnect(Disconnect::new(ReasonCode::Success)));
    assert!(!p.is_waiting());
}

/// A hook that counts the messages of `count/#` and `drop/#` and remembers how many there were.
struct Counter {
    changes: [Arc<Changes>; 1],
    /// Held while the change is noted, as who changes keys has them to himself.
    count: Mutex<usize>,
}

impl Counter {
    fn new() -> Arc<Self> {
        Arc::new(Self { changes: [Arc::new(Changes::new(Arc::from("counter")))], count: Mutex::default() })
    }

    fn count(&self) {
        let mut count = self.count.lock();
        *count += 1;
        self.changes[0].note([(Bytes::from("n"), Some(Bytes::from(count.to_string())))]);
    }
}

impl Hook for Counting {
    fn name(&self) -> &str {
        "counting"
    }

    fn points(&self) -> HookPoints {
        HookPoints::NONE.with(HookPoint::OnMessage).with(HookPoint::OnPublish)
    }

    fn on_message(self: Arc<Self>, topic: &TopicName) -> Vec<Arc<dyn Observe>> {
        if topic.starts_with("count/") { vec![Arc::clone(&self.0) as _] } else { Vec::new() }
    }

    fn on_publish(self: Arc<Self>, topic: &TopicName) -> Option<Arc<dyn Transform>> {
        topic.starts_with("drop/").then(|| Arc::clone(&self.0) as _)
    }
}

struct Counting(Arc<Counter>);

impl Observe for Counter {
    fn observe(&self, message: &Arc<Message>, _: Now, _: &mut Actions) -> Result<(), Failure> {
        if message.payload == "fail" {
            return Err(Failure::new(FailureKind::Crash, "as asked"));
        }
        self.count();
        Ok(())
    }

    fn changes(&self) -> &[Arc<Changes>] {
        &self.changes
    }

    fn name(&self) -> &str {
        "counter"
    }
}

impl Transform for Counter {
    fn transform(&self, _: &Arc<Message>, _: Now) -> Reply<Transformed> {
        self.count();
        Reply::ready(Transformed::Drop(Denial::new(ReasonCode::QuotaExceeded, "as asked")))
    }

    fn changes(&self) -> &[Arc<Changes>] {
        &self.changes
    }
}

/// The last value of the counter's key that a record says.
fn counted(records: &[Vec<Event>]) -> Option<String> {
    records.iter().flatten().rev().find_map(|event| match event {
        Event::KeySet { namespace, key, value } if &**namespace == "counter" && key == "n" => {
            Some(String::from_utf8_lossy(value).into_owned())
        }
        _ => None,
    })
}

#[test]
fn what_a_hook_remembers_is_in_the_record_of_the_message_and_the_acknowledgement_waits_for_it() {
    let journal = Paper::slow();
    let counter = Counter::new();
    let world = World::keeping(
        Arc::clone(&journal) as _,
        Settings::default(),
        [Arc::new(Counting(Arc::clone(&counter))) as _],
    );
    journal.keep_at_once(true);
    let (mut away, _) = world.persistent(V5, "away", 1_000);
    away.subscribe(&world, "#", 1);
    away.cut(&world);
    journal.keep_at_once(false);
    let before = journal.count();
    let mut p = world.client(V5, "p");
    p.publish(&world, "count/x", 1, "1");
    p.expect_nothing();
    let records = journal.records()[before..].to_vec();
    let [record] = &records[..] else { panic!("one record: {records:?}") };
    assert_eq!(published(record).len(), 1);
    assert_eq!(counted(&records).as_deref(), Some("1"));
    journal.keep();
    p.work(&world);
    p.expect_ack(PacketType::PubAck, id(7), ReasonCode::Success);

    // A message that a transform drops is answered when what the transform remembers of it is kept.
    p.publish(&world, "drop/x", 1, "2");
    p.expect_nothing();
    assert_eq!(counted(&journal.records()).as_deref(), Some("2"));
    journal.keep();
    p.work(&world);
    p.expect_ack(PacketType::PubAck, id(7), ReasonCode::QuotaExceeded);

    // Nothing has changed: nothing is recorded of it.
    let before = journal.count();
    p.publish(&world, "count/x", 0, "fail");
    assert_eq!(journal.count(), before);
}

#[test]
fn whoever_records_first_no_older_value_stands_behind_a_newer_one_and_what_is_acknowledged_is_counted() {
    const THREADS: usize = 4;
    const MESSAGES: usize = 200;
    let journal = Paper::quick();
    let world = World::keeping(
        Arc::clone(&journal) as _,
        Settings::default(),
        [Arc::new(Counting(Counter::new())) as _],
    );
    let acknowledged = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (world, journal, acknowledged) = (&world, &journal, &acknowledged);
            scope.spawn(move || {
                let mut p = world.client(V5, &format!("p{thread}"));
                for _ in 0..MESSAGES {
                    p.publish(world, "count/x", 1, "x");
                    p.expect_ack(PacketType::PubAck, id(7), ReasonCode::NoMatchingSubscribers);
                    let so_far = acknowledged.fetch_add(1, Ordering::SeqCst) + 1;
                    let kept: usize = counted(&journal.records()).unwrap().parse().unwrap();
                    assert!(kept >= so_far, "{so_far} are acknowledged, {kept} are kept");
                }
            });
        }
    });
    let records = journal.records();
    let numbers: Vec<usize> = records
        .iter()
        .filter_map(|record| counted(std::slice::from_ref(record)))
        .map(|number| number.parse().unwrap())
        .collect();
    assert!(numbers.is_sorted(), "an older value is behind a newer one: {numbers:?}");
    assert_eq!(numbers.last(), Some(&(THREADS * MESSAGES)));
}

#[test]
fn what_could_not_be_recorded_is_recorded_with_the_next_change() {
    let journal = Paper::quick();
    let counter = Counter::new();
    let world = World::keeping(
        Arc::clone(&journal) as _,
        Settings::default(),
        [Arc::new(Counting(Arc::clone(&counter))) as _],
    );
    let mut p = world.client(V5, "p");
    journal.refuse(true);
    counter.changes[0].note([(Bytes::from("other"), Some(Bytes::from("x")))]);
    p.publish(&world, "count/x", 1, "1");
    assert!(
        !matches!(p.next(), Some(Packet::PubAck(ack)) if ack.code == ReasonCode::Success),
        "it is not kept"
    );
    assert_eq!(counter.changes[0].unrecorded(), 2);
    journal.refuse(false);
    world.client(V5, "q").publish(&world, "count/x", 1, "2");
    assert_eq!(counter.changes[0].unrecorded(), 0);
    let last = journal.records().pop().unwrap();
    assert_eq!(counted(std::slice::from_ref(&last)).as_deref(), Some("2"));
    assert!(
        last.iter().any(|event| matches!(event, Event::KeySet { key, .. } if key == "other")),
        "{last:?}"
    );
}

#[test]
fn connack_waits_where_a_session_is_resumed_that_is_not_kept_yet_and_where_there_is_a_will() {
    let journal = Paper::slow();
    let world = world(&journal);
    let knock = |with_will| {
        let mut connect = Connect::new(V5, text("s"));
        (connect.clean_start, connect.session_expiry_interval_s) = (false, Some(100));
        connect.will = will("gone", "s", 50).filter(|_| with_will);
        let mut client = world.socket(V5);
        client.send(&world, Packet::Connect(Box::new(connect)));
        client
    };
    knock(false).cut(&world);
    let mut again = knock(false);
    again.expect_nothing();
    journal.keep();
    again.work(&world);
    assert!(matches!(again.next(), Some(Packet::ConnAck(connack)) if connack.session_present));
    again.cut(&world);
    let mut quick = knock(false);
    assert!(matches!(quick.next(), Some(Packet::ConnAck(_))), "there is nothing new to keep");
    quick.cut(&world);
    let mut with_will = knock(true);
    with_will.expect_nothing();
    journal.keep();
    with_will.work(&world);
    assert!(matches!(with_will.next(), Some(Packet::ConnAck(_))));
}

#[test]
fn a_will_is_recorded_until_its_message_is_and_gone_with_that_record() {
    let journal = Paper::slow();
    let mut world = with_subscriber(&journal);
    journal.keep_at_once(true);
    // At once, later, and in the moment in which the session ends.
    for (delay_s, expiry_s) in [(0, 100), (5, 100), (5, 5)] {
        let (mortal, _) = world.connect(V5, "mortal", |connect| {
            (connect.clean_start, connect.session_expiry_interval_s) = (true, Some(expiry_s));
            connect.will = will("t", "gone", delay_s);
            connect.will.as_mut().unwrap().qos = QoS::AtLeastOnce;
        });
        let before = journal.count();
        mortal.cut(&world);
        world.advance(6.0);
        let records = journal.records().split_off(before);
        let wills = |record: &[Event]| -> Vec<bool> {
            let will = |event: &Event| match event {
                Event::SessionSet { session, .. } => Some(session.will.is_some()),
                _ => None,
            };
            record.iter().filter_map(will).collect()
        };
        let place = records.iter().position(|record| !published(record).is_empty()).unwrap();
        assert_eq!(wills(&records[place]), [false], "{records:#?}");
        assert!(records[..place].iter().flat_map(|record| wills(record)).all(|there| there), "{records:#?}");
        let ended = |record: &Vec<Event>| matches!(&record[..], [Event::SessionEnded { client }] if &**client == "mortal");
        let end = records.iter().position(ended);
        assert_eq!(end.is_some(), expiry_s == 5, "{records:#?}");
        assert!(end.is_none_or(|end| end > place), "the end comes behind the will: {records:#?}");
    }
}

#[test]
fn who_comes_when_the_time_of_the_session_is_up_finds_none_and_the_will_is_published() {
    let journal = Paper::slow();
    let (mut world, mut receiver) = with_receiver(&journal, "t");
    journal.keep_at_once(true);
    let mortal = |world: &World, clean_start| {
        world.connect(V5, "mortal", |connect| {
            (connect.clean_start, connect.session_expiry_interval_s) = (clean_start, Some(5));
            connect.will = will("t", "gone", 5);
        })
    };
    let (first, _) = mortal(&world, true);
    first.cut(&world);
    world.pass_unnoticed(5.0);
    let (_second, was_there) = mortal(&world, false);
    assert!(!was_there, "its time was up");
    receiver.work(&world);
    assert!(matches!(receiver.next(), Some(Packet::Publish(publish)) if &*publish.payload == b"gone"));
}
