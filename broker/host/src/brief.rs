//! Questions in few words: all texts of a question as one, for plugins that can be asked so. Each text that is handed over
//! costs a call into the plugin of its own, for the memory that it goes to.

use weirmq_core::hook::{Action, AuthorizeRequest, Draft, Failure, Transformed};
use weirmq_core::message::{Message, Publisher};
use weirmq_core::time::Now;

use crate::bindings::exports::weirmq::plugin as hooks;
use crate::bindings::exports::weirmq::plugin::authorize_in_brief::{Question, Wish};
use crate::bindings::exports::weirmq::plugin::on_publish_in_brief::{PlainMessage, Verdict};
use crate::convert;
use crate::instance::{Call, Instance};
use crate::peer::PeerText;

impl Instance {
    /// Asks `authorize`, in few words where both sides can.
    pub(crate) fn authorize(
        &mut self,
        call: Call,
        request: &AuthorizeRequest,
    ) -> Result<hooks::authorize::Decision, Failure> {
        self.call_with_room(call, |store, hooks, room| {
            if let Some(hook) = &hooks.authorize_in_brief
                && let Some(question) = question(request, room)
            {
                return hook.call_authorize(store, question).map(decision);
            }
            match &hooks.authorize {
                Some(hook) => {
                    convert::authorization(request, |who, what| hook.call_authorize(store, who, what))
                }
                None => Ok(hooks::authorize::Decision::Next),
            }
        })
    }

    /// Asks `on-publish`, in few words where both sides can. The inner error is that of a bad answer.
    pub(crate) fn on_publish(
        &mut self,
        call: Call,
        message: &Message,
        now: Now,
    ) -> Result<Result<Transformed, Failure>, Failure> {
        self.call_with_room(call, |store, hooks, room| {
            if let Some(hook) = &hooks.on_publish_in_brief
                && let Some(plain) = plain_message(message, now, room)
            {
                return hook.call_on_publish(store, plain).map(transformed);
            }
            match &hooks.on_publish {
                Some(hook) => {
                    let user = convert::pairs(&message.properties.user);
                    let asked = convert::message(message, Some(now), &user);
                    hook.call_on_publish(store, asked).map(convert::transformed)
                }
                None => Ok(Ok(Transformed::Pass)),
            }
        })
    }
}

/// `request` in few words, with its texts in `room`; `None` where it has more to say.
fn question<'a>(request: &AuthorizeRequest, room: &'a mut String) -> Option<Question<'a>> {
    let identity = &request.identity;
    if !identity.lease.attributes.is_empty() {
        return None;
    }
    let client_id_bytes = push(room, &identity.client_id)?;
    let username_bytes = push_if(room, identity.username.as_deref())?;
    let peer_bytes = push_if(room, identity.peer.map(PeerText::of).as_ref().map(PeerText::as_str))?;
    let listener_bytes = push(room, &identity.listener)?;
    let principal_bytes = push(room, &identity.lease.principal)?;
    let (wish, share, about, qos, retain) = match &request.action {
        Action::Publish { topic, qos, retain } => (Wish::Publish, None, topic.as_str(), *qos, *retain),
        Action::Subscribe { filter, qos } => {
            (Wish::Subscribe, filter.share.as_deref(), filter.filter.as_str(), *qos, false)
        }
    };
    let share_bytes = push_if(room, share)?;
    push(room, about)?;
    Some(Question {
        texts: room,
        client_id_bytes,
        username_bytes,
        peer_bytes,
        listener_bytes,
        principal_bytes,
        share_bytes,
        wish,
        qos: convert::qos(qos),
        retain,
    })
}

/// `message` in few words, with its texts in `room`; `None` where it has more to say.
fn plain_message<'a>(message: &'a Message, now: Now, room: &'a mut String) -> Option<PlainMessage<'a>> {
    let Publisher::Client { client_id, principal } = &message.publisher else { return None };
    if !message.properties.is_empty() {
        return None;
    }
    let topic_bytes = push(room, &message.topic)?;
    let client_id_bytes = push(room, client_id)?;
    push(room, principal)?;
    Some(PlainMessage {
        payload: &message.payload,
        texts: room,
        topic_bytes,
        client_id_bytes,
        qos: convert::qos(message.qos),
        retain: message.retain,
        received_unix_ms: message.received_unix_ms,
        expires_in_ms: convert::expires_in_ms(message, now),
        hops: message.hops,
    })
}

/// The answer to a question in few words, as the answer to the whole question.
fn decision(answer: hooks::authorize_in_brief::Decision) -> hooks::authorize::Decision {
    use hooks::authorize::Decision;
    use hooks::authorize_in_brief::Decision as Answer;
    match answer {
        Answer::Allow => Decision::Allow,
        Answer::Deny(denial) => Decision::Deny(denial),
        Answer::Next => Decision::Next,
    }
}

/// The answer to a message in few words, checked.
fn transformed(answer: Verdict) -> Result<Transformed, Failure> {
    Ok(match answer {
        Verdict::Pass => Transformed::Pass,
        Verdict::WithPayload(payload) => Transformed::WithPayload(payload.into()),
        Verdict::Drop(denial) => Transformed::Drop(convert::denial(denial)?),
        Verdict::Others(drafts) => {
            let mut drafts: Vec<Draft> = drafts.into_iter().map(convert::draft).collect::<Result<_, _>>()?;
            match drafts.pop() {
                Some(only) if drafts.is_empty() => Transformed::Replace(Box::new(only)),
                last => {
                    drafts.extend(last);
                    Transformed::Several(drafts)
                }
            }
        }
    })
}

/// Puts `text` behind what is in `room`. Answers its length; `None` where nobody could say it.
fn push(room: &mut String, text: &str) -> Option<u32> {
    room.push_str(text);
    u32::try_from(text.len()).ok()
}

fn push_if(room: &mut String, text: Option<&str>) -> Option<Option<u32>> {
    match text {
        Some(text) => push(room, text).map(Some),
        None => Some(None),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use weirmq_core::hook::{Identity, Lease};
    use weirmq_core::message::{Properties, QoS};
    use weirmq_core::time::Instant;
    use weirmq_core::topic::{Subscribable, TopicName};

    use super::*;

    #[test]
    fn all_texts_of_a_question_are_one() {
        let lease = Lease { principal: "p".into(), ..Lease::default() };
        let identity = Identity {
            client_id: "client".into(),
            username: None,
            peer: Some("192.0.2.7:4711".parse().unwrap()),
            listener: "main".into(),
            lease,
        };
        let filter = Subscribable::parse("$share/g/a/#").unwrap();
        let action = Action::Subscribe { filter, qos: QoS::AtMostOnce };
        let mut request = AuthorizeRequest { identity: Arc::new(identity.clone()), action };
        let mut room = String::new();
        let asked = question(&request, &mut room).unwrap();
        assert_eq!(asked.texts, "client192.0.2.7:4711mainpga/#");
        assert_eq!((asked.client_id_bytes, asked.username_bytes, asked.peer_bytes), (6, None, Some(14)));
        assert_eq!((asked.listener_bytes, asked.principal_bytes, asked.share_bytes), (4, 1, Some(1)));
        let attributes = vec![("a".into(), "b".into())];
        let lease = Lease { attributes, ..identity.lease.clone() };
        request.identity = Arc::new(Identity { lease, ..identity });
        assert!(question(&request, &mut String::new()).is_none(), "there is more to say");
    }

    #[test]
    fn a_message_that_has_more_to_say_is_not_said_in_few_words() {
        let now = Now { at: Instant::from_micros(1), unix_ms: 1 };
        let plain = Message {
            topic: TopicName::new("a/b").unwrap(),
            payload: "x".into(),
            qos: QoS::AtMostOnce,
            retain: false,
            properties: Properties::default(),
            publisher: Publisher::Client { client_id: "c".into(), principal: "p".into() },
            received_unix_ms: 1,
            expires_at: None,
            hops: 0,
        };
        let mut room = String::new();
        let asked = plain_message(&plain, now, &mut room).unwrap();
        assert_eq!((asked.texts, asked.topic_bytes, asked.client_id_bytes), ("a/bcp", 3, 1));
        let by_rule = Message { publisher: Publisher::Rule("r".into()), ..plain.clone() };
        assert!(plain_message(&by_rule, now, &mut String::new()).is_none());
        let properties = Properties { payload_is_utf8: Some(true), ..Properties::default() };
        let with_properties = Message { properties, ..plain };
        assert!(plain_message(&with_properties, now, &mut String::new()).is_none());
    }
}
