//! A message on its way through the transforms of a folder.

use std::sync::Arc;

use weirmq_core::durable::keys::Changes;
use weirmq_core::hook::{Denial, Draft, Failure, FailureKind, Transformed};
use weirmq_core::message::{Message, Publisher};
use weirmq_core::time::{Instant, Now};
use weirmq_core::topic::{TopicError, TopicName};

use crate::engine::{Core, RuleSet};
use crate::report::RuleKind;
use crate::rule::{Outcome, Rule};
use crate::run::Stop;
use crate::view::Binding;

impl RuleSet {
    /// The first transform at or behind place `from` that wants messages of `topic`, and its place.
    pub(crate) fn transform_of(&self, topic: &str, from: usize) -> Option<(usize, &Arc<Rule>)> {
        let behind = self.rules.iter().enumerate().skip(from);
        behind.into_iter().find(|(_, rule)| rule.kind == RuleKind::Transform && rule.pattern.matches(topic))
    }

    /// Where transforms note what of their files' states they change. Any may be met: what one makes of a message
    /// may be for others.
    pub(crate) fn changes_of_transforms(&self) -> Vec<Arc<Changes>> {
        let mut all: Vec<Arc<Changes>> = Vec::new();
        for rule in self.rules.iter().filter(|rule| rule.kind == RuleKind::Transform) {
            if let Some(changes) = rule.changes()
                && !all.iter().any(|known| Arc::ptr_eq(known, changes))
            {
                all.push(Arc::clone(changes));
            }
        }
        all
    }

    /// The `on` rules that want messages of `topic`, in their order.
    pub(crate) fn observers_of<'a>(&'a self, topic: &'a str) -> impl Iterator<Item = &'a Arc<Rule>> {
        self.rules.iter().filter(move |rule| rule.kind == RuleKind::On && rule.pattern.matches(topic))
    }
}

/// The transforms that want one topic: found once, not with every message.
pub(crate) struct Bound {
    topic: TopicName,
    places: Vec<Place>,
}

struct Place {
    index: usize,
    rule: Arc<Rule>,
    binding: Arc<Binding>,
}

impl Bound {
    /// Those of `rules` that want `topic`; `None` when none does.
    pub(crate) fn new(rules: &RuleSet, topic: &TopicName) -> Option<Self> {
        let mut places = Vec::new();
        let mut from = 0;
        while let Some((index, rule)) = rules.transform_of(topic, from) {
            let binding = Arc::new(Binding::new(topic, Some(&rule.pattern)));
            places.push(Place { index, rule: Arc::clone(rule), binding });
            from = index + 1;
        }
        (!places.is_empty()).then(|| Self { topic: topic.clone(), places })
    }

    fn next(&self, from: usize) -> Option<&Place> {
        self.places.iter().find(|place| place.index >= from)
    }
}

/// What transforms make of one message. Each transform sees what the one before it made; one that has
/// acted does not act again on what it made, so there are no loops.
pub(crate) struct Flow<'a> {
    core: &'a Core,
    rules: &'a RuleSet,
    now: Now,
    /// The transforms that want one topic, where they are known already.
    bound: Option<&'a Bound>,
    changed: bool,
    made: usize,
    arrived: Vec<Arrived>,
    dropped: Option<Denial>,
}

/// A message that has passed all transforms: the one that came, or one that was made.
enum Arrived {
    Original,
    Made(Draft, Arc<Message>),
}

impl<'a> Flow<'a> {
    pub(crate) fn new(core: &'a Core, rules: &'a RuleSet, now: Now) -> Self {
        Self { core, rules, now, bound: None, changed: false, made: 0, arrived: Vec::new(), dropped: None }
    }

    /// Knows the transforms of one topic.
    pub(crate) fn bound(mut self, bound: &'a Bound) -> Self {
        self.bound = Some(bound);
        self
    }

    /// Sends `message` through the transforms at and behind place `from`.
    pub(crate) fn send(&mut self, message: Arc<Message>, from: usize) -> Result<(), Failure> {
        self.pass_on(message, None, from)
    }

    /// What a hook answers about the message.
    pub(crate) fn into_transformed(mut self) -> Transformed {
        if !self.changed {
            return Transformed::Pass;
        }
        let mut drafts: Vec<Draft> = Vec::with_capacity(self.arrived.len());
        for arrived in self.arrived {
            match arrived {
                Arrived::Made(draft, _) => drafts.push(draft),
                Arrived::Original => return Transformed::Pass,
            }
        }
        match (drafts.len(), self.dropped.take()) {
            (0, Some(denial)) => Transformed::Drop(denial),
            (1, _) => drafts.pop().map_or(Transformed::Pass, |draft| Transformed::Replace(Box::new(draft))),
            _ => Transformed::Several(drafts),
        }
    }

    /// The messages that are routed, and the reason if none is.
    pub(crate) fn into_messages(self, original: &Arc<Message>) -> (Vec<Arc<Message>>, Option<String>) {
        let messages = self.arrived.into_iter().map(|arrived| match arrived {
            Arrived::Original => Arc::clone(original),
            Arrived::Made(_, message) => message,
        });
        (messages.collect(), self.dropped.map(|denial| denial.reason))
    }

    fn pass_on(&mut self, message: Arc<Message>, made: Option<Draft>, from: usize) -> Result<(), Failure> {
        let (mut message, mut made, mut from) = (message, made, from);
        loop {
            let Some((place, outcome)) = self.next(&message, from)? else {
                self.arrived.push(match made {
                    None => Arrived::Original,
                    Some(draft) => Arrived::Made(draft, message),
                });
                return Ok(());
            };
            from = place + 1;
            match outcome {
                Outcome::Pass => {}
                Outcome::Drop(denial) => {
                    self.changed = true;
                    self.dropped = Some(denial);
                    return Ok(());
                }
                Outcome::Replace(draft) => {
                    let (next, draft) = self.make(&message, made.as_ref(), draft)?;
                    message = next;
                    made = Some(draft);
                }
                Outcome::Several(drafts) => {
                    for draft in drafts {
                        let (next, draft) = self.make(&message, made.as_ref(), draft)?;
                        self.pass_on(next, Some(draft), from)?;
                    }
                    return Ok(());
                }
            }
        }
    }

    /// Asks the next transform that wants `message`.
    fn next(&self, message: &Arc<Message>, from: usize) -> Result<Option<(usize, Outcome)>, Failure> {
        if let Some(bound) = self.bound.filter(|bound| bound.topic == message.topic) {
            return match bound.next(from) {
                None => Ok(None),
                Some(Place { index, rule, binding }) => {
                    Ok(Some((*index, rule.transform(self.core, message, binding, self.now)?)))
                }
            };
        }
        let Some((place, rule)) = self.rules.transform_of(&message.topic, from) else {
            return Ok(None);
        };
        let binding = Arc::new(Binding::new(&message.topic, Some(&rule.pattern)));
        Ok(Some((place, rule.transform(self.core, message, &binding, self.now)?)))
    }

    /// The message that `draft` stands for. An expiry that an earlier transform has set goes on holding.
    fn make(
        &mut self,
        model: &Arc<Message>,
        earlier: Option<&Draft>,
        mut draft: Draft,
    ) -> Result<(Arc<Message>, Draft), Failure> {
        self.changed = true;
        self.made += 1;
        if self.made > self.core.config.published_max {
            return Err(Failure::new(FailureKind::OutputTooLarge, Stop::Published.to_string()));
        }
        draft.expires_in = draft.expires_in.or(earlier.and_then(|earlier| earlier.expires_in));
        let now = Now { unix_ms: model.received_unix_ms, ..self.now };
        let mut message = message_of(draft.clone(), model.publisher.clone(), now, model.expires_at)
            .map_err(|error| Failure::new(FailureKind::BadAnswer, error.to_string()))?;
        message.hops = model.hops;
        Ok((Arc::new(message), draft))
    }
}

/// The message that `draft` stands for, received `now`. Expires at `else_expires_at` where the draft does
/// not say.
pub(crate) fn message_of(
    draft: Draft,
    publisher: Publisher,
    now: Now,
    else_expires_at: Option<Instant>,
) -> Result<Message, TopicError> {
    Ok(Message {
        topic: TopicName::new(&draft.topic)?,
        payload: draft.payload,
        qos: draft.qos,
        retain: draft.retain,
        properties: draft.properties,
        publisher,
        received_unix_ms: now.unix_ms,
        expires_at: draft.expires_in.map(|span| now.at.after(span)).or(else_expires_at),
        hops: 0,
    })
}
