//! A call into a component on the way of messages allocates nothing on the broker's side, but for what is answered.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use support::{NOW, TOPIC, answered, message, plugin, request};
use weirmq_core::hook::{Action, Decision, Hook, Reply, Transformed};
use weirmq_core::message::QoS;
use weirmq_core::topic::{Subscribable, TopicName};

/// What a call allocates, once it has been made a few times.
fn allocations<T>(mut call: impl FnMut() -> Reply<T>) -> u64 {
    (0..64).for_each(|_| drop(answered(call())));
    allocation_counter::measure(|| (0..64).for_each(|_| drop(answered(call())))).count_total / 64
}

#[test]
fn a_question_about_rights_allocates_nothing() {
    let plugin = plugin("lean", false);
    for action in [
        Action::Publish { topic: TopicName::new(TOPIC).unwrap(), qos: QoS::AtLeastOnce, retain: false },
        Action::Subscribe { filter: Subscribable::parse("$share/g/a/+").unwrap(), qos: QoS::AtMostOnce },
    ] {
        let request = request(action);
        assert!(matches!(plugin.authorize(&request), Reply::Now(Ok(Decision::Allow))));
        assert_eq!(allocations(|| plugin.authorize(&request)), 0);
    }
}

#[test]
fn a_message_that_is_passed_allocates_nothing_and_another_payload_is_all_that_one_allocates() {
    let message = message(vec![b'x'; 64]);
    let passes = plugin("lean", false).on_publish(&message.topic).unwrap();
    assert!(matches!(passes.transform(&message, NOW), Reply::Now(Ok(Transformed::Pass))));
    assert_eq!(allocations(|| passes.transform(&message, NOW)), 0);
    let replaces = plugin("lean", true).on_publish(&message.topic).unwrap();
    assert!(matches!(replaces.transform(&message, NOW), Reply::Now(Ok(Transformed::WithPayload(_)))));
    assert_eq!(allocations(|| replaces.transform(&message, NOW)), 1);
}
