//! What a hook makes of a message is held to the same rules as what a client sends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::Arc;

use bytes::Bytes;
use support::{V5, World, extras, id};
use weirmq_core::broker::Settings;
use weirmq_core::counters::DropReason;
use weirmq_core::hook::{
    Deliver, Delivery, Draft, Failure, Hook, HookPoint, HookPoints, Identity, Reply, Transform, Transformed,
};
use weirmq_core::message::Message;
use weirmq_core::time::Now;
use weirmq_core::topic::TopicName;
use weirmq_wire::{PacketType, ReasonCode};

/// Changes messages as their payload says, before they are routed or as they are delivered.
struct Changer(HookPoint);

fn draft(message: &Message) -> Draft {
    let mut draft = Draft::of(message);
    match &*message.payload {
        b"response topic" => draft.properties.response_topic = Some("a/#".into()),
        b"no response topic" => draft.properties.response_topic = Some("".into()),
        b"null" => draft.properties.user.push(("a\0".into(), "b".into())),
        b"too long" => draft.properties.content_type = Some("x".repeat(70_000).into()),
        b"too large" | b"only payload, too large" => draft.payload = Bytes::from(vec![0; 2 * 1024 * 1024]),
        _ => draft.properties.user.push(("seen".into(), "yes".into())),
    }
    draft
}

impl Hook for Changer {
    fn name(&self) -> &str {
        "changer"
    }

    fn points(&self) -> HookPoints {
        HookPoints::NONE.with(self.0)
    }

    fn on_publish(self: Arc<Self>, _: &TopicName) -> Option<Arc<dyn Transform>> {
        Some(self)
    }

    fn on_deliver(self: Arc<Self>, _: &TopicName) -> Option<Arc<dyn Deliver>> {
        Some(self)
    }
}

impl Transform for Changer {
    fn transform(&self, message: &Arc<Message>, _: Now) -> Reply<Transformed> {
        Reply::ready(match &*message.payload {
            b"only payload" => Transformed::WithPayload(Bytes::from_static(b"another")),
            b"only payload, too large" => Transformed::WithPayload(draft(message).payload),
            _ => Transformed::Replace(Box::new(draft(message))),
        })
    }
}

impl Deliver for Changer {
    fn deliver(&self, message: &Arc<Message>, _: &Identity, _: Now) -> Result<Delivery, Failure> {
        Ok(Delivery::Replace(draft(message)))
    }
}

#[test]
fn what_cannot_be_sent_goes_nowhere_and_is_counted() {
    for point in [HookPoint::OnPublish, HookPoint::OnDeliver] {
        let world = World::with(Settings::default(), [Arc::new(Changer(point)) as Arc<dyn Hook>]);
        let mut s = world.client(V5, "s");
        s.subscribe(&world, "#", 0);
        let mut p = world.client(V5, "p");
        let bad = [
            "response topic",
            "no response topic",
            "null",
            "too long",
            "too large",
            "only payload, too large",
        ];
        for payload in bad {
            p.publish(&world, "t", 1, payload);
            let taken = point == HookPoint::OnDeliver;
            let code = if taken { ReasonCode::Success } else { ReasonCode::ImplementationSpecificError };
            p.expect_ack(PacketType::PubAck, id(7), code);
            s.expect_nothing();
        }
        assert_eq!(world.broker.counters().dropped.get(DropReason::Invalid), bad.len() as u64);
        p.publish(&world, "t", 1, "good");
        let user = s.expect_one_publish().extras.unwrap().message.user;
        assert_eq!(user, [("seen".into(), "yes".into())]);
    }
}

#[test]
fn with_another_payload_a_message_is_otherwise_as_it_was() {
    let world = World::with(Settings::default(), [Arc::new(Changer(HookPoint::OnPublish)) as Arc<dyn Hook>]);
    let mut s = world.client(V5, "s");
    s.subscribe(&world, "#", 0);
    world.client(V5, "p").publish_with(&world, "t", 0, "only payload", |publish| {
        publish.extras = extras(|extras| {
            extras.message_expiry_interval_s = Some(5);
            extras.message.content_type = Some("text/plain".into());
        });
    });
    let got = s.expect_one_publish();
    let extras = got.extras.unwrap();
    assert_eq!((&*got.topic, &*got.payload), ("t", &b"another"[..]));
    assert_eq!(extras.message_expiry_interval_s, Some(5));
    assert_eq!(extras.message.content_type.as_deref(), Some("text/plain"));
}

#[test]
fn a_transform_does_not_lengthen_the_life_of_a_message() {
    let mut settings = Settings::default();
    settings.limits.message_expiry_s_max = 100;
    let hook = Arc::new(Changer(HookPoint::OnPublish)) as Arc<dyn Hook>;
    let world = World::with(settings, [hook]);
    let mut s = world.client(V5, "s");
    s.subscribe(&world, "#", 0);
    world.client(V5, "p").publish_with(&world, "t", 0, "good", |publish| {
        publish.extras = extras(|extras| extras.message_expiry_interval_s = Some(5));
    });
    assert_eq!(s.expect_one_publish().extras.unwrap().message_expiry_interval_s, Some(5));
}

#[test]
fn properties_keep_their_order_through_hooks() {
    let world = World::with(Settings::default(), [Arc::new(Changer(HookPoint::OnPublish)) as Arc<dyn Hook>]);
    let mut s = world.client(V5, "s");
    s.subscribe(&world, "#", 0);
    world.client(V5, "p").publish_with(&world, "t", 0, "good", |publish| {
        publish.extras = extras(|extras| {
            extras.message.user =
                [("b", "1"), ("a", "2"), ("b", "1")].map(|(n, v)| (n.into(), v.into())).to_vec();
        });
    });
    let user = s.expect_one_publish().extras.unwrap().message.user;
    let names: Vec<_> = user.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["b", "a", "b", "seen"]);
}
