//! Questions in few words: several texts in one.

use super::{Export, Registered};
use crate::bindings::authorize::exports::weirmq::plugin::authorize_in_brief as authorize;
use crate::bindings::on_publish::exports::weirmq::plugin::on_publish_in_brief as on_publish;
use crate::{
    Action, Authorize, ClientPublisher, Decision, Identity, Message, OnPublish, Properties, PublishAction,
    Publisher, SubscribeAction, Verdict,
};

impl<T: Registered + Authorize> authorize::Guest for Export<T> {
    fn authorize(question: authorize::Question) -> authorize::Decision {
        let mut texts = Texts(&question.texts);
        let identity = Identity {
            client_id: texts.next(question.client_id_bytes).to_owned(),
            username: texts.next_if(question.username_bytes),
            peer: texts.next_if(question.peer_bytes),
            listener: texts.next(question.listener_bytes).to_owned(),
            principal: texts.next(question.principal_bytes).to_owned(),
            attributes: Vec::new(),
        };
        let share = texts.next_if(question.share_bytes);
        let Texts(rest) = texts;
        let (about, qos, retain) = (rest.to_owned(), question.qos, question.retain);
        let action = match question.wish {
            authorize::Wish::Publish => Action::Publish(PublishAction { topic: about, qos, retain }),
            authorize::Wish::Subscribe => Action::Subscribe(SubscribeAction { filter: about, share, qos }),
        };
        match Self::with(|plugin| plugin.authorize(identity, action)) {
            Decision::Allow => authorize::Decision::Allow,
            Decision::Deny(denial) => authorize::Decision::Deny(denial),
            Decision::Next => authorize::Decision::Next,
        }
    }
}

impl<T: Registered + OnPublish> on_publish::Guest for Export<T> {
    fn on_publish(plain: on_publish::PlainMessage) -> on_publish::Verdict {
        let mut texts = Texts(&plain.texts);
        let topic = texts.next(plain.topic_bytes);
        let client_id = texts.next(plain.client_id_bytes).to_owned();
        let Texts(principal) = texts;
        let message = Message {
            topic: topic.to_owned(),
            payload: plain.payload,
            qos: plain.qos,
            retain: plain.retain,
            properties: Properties::NONE,
            publisher: Publisher::Client(ClientPublisher { client_id, principal: principal.to_owned() }),
            received_unix_ms: plain.received_unix_ms,
            expires_in_ms: plain.expires_in_ms,
            hops: plain.hops,
        };
        match Self::with(|plugin| plugin.on_publish(message)) {
            Verdict::Pass => on_publish::Verdict::Pass,
            Verdict::Replace(draft) => {
                let is_otherwise_the_same = draft.topic == topic
                    && draft.qos == plain.qos
                    && draft.retain == plain.retain
                    && draft.properties.is_empty()
                    && draft.expires_in_ms == plain.expires_in_ms;
                if is_otherwise_the_same {
                    on_publish::Verdict::WithPayload(draft.payload)
                } else {
                    on_publish::Verdict::Others(vec![draft])
                }
            }
            Verdict::Drop(denial) => on_publish::Verdict::Drop(denial),
            Verdict::Several(drafts) => on_publish::Verdict::Others(drafts),
        }
    }
}

/// What has not been taken yet of several texts in one.
struct Texts<'a>(&'a str);

impl<'a> Texts<'a> {
    /// The next `bytes` of it. The broker says of no text that it is longer than what there is.
    fn next(&mut self, bytes: u32) -> &'a str {
        let (text, rest) = self.0.split_at(bytes as usize);
        self.0 = rest;
        text
    }

    fn next_if(&mut self, bytes: Option<u32>) -> Option<String> {
        bytes.map(|bytes| self.next(bytes).to_owned())
    }
}
