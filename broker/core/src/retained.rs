//! Retained messages: at most one per topic, found by topic or by filter.

use std::sync::Arc;
use std::time::Duration;

use crate::message::Message;
use crate::time::Instant;
use crate::topic::{TopicFilter, TopicName};
use crate::tree::Tree;

/// The retained messages, within limits.
#[derive(Debug)]
pub(crate) struct Retained {
    tree: Tree<Option<Arc<Message>>>,
    messages: usize,
    bytes: usize,
    messages_max: usize,
    bytes_max: usize,
    /// Before this, what has expired is not looked for again to make room.
    sweep_at: Instant,
}

/// How long the limits may be reached because of what has expired: looking for that takes a look at everything.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The limits are reached: the message is not retained, and what was retained for its topic still is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Retained {
    pub(crate) fn new(messages_max: usize, bytes_max: usize) -> Self {
        let sweep_at = Instant::default();
        Self { tree: Tree::default(), messages: 0, bytes: 0, messages_max, bytes_max, sweep_at }
    }

    /// Puts `message` in the place of what is retained for its topic; an empty payload only takes that away
    /// `[MQTT-3.3.1-6]`, `[MQTT-3.3.1-7]`.
    pub(crate) fn store(&mut self, message: &Arc<Message>, now: Instant) -> Result<(), Full> {
        let outcome = self.put(message);
        if outcome.is_ok() || now < self.sweep_at {
            return outcome;
        }
        self.sweep_at = now.after(SWEEP_INTERVAL);
        self.forget_expired(now);
        self.put(message)
    }

    fn put(&mut self, message: &Arc<Message>) -> Result<(), Full> {
        let (messages, bytes) = (self.messages, self.bytes);
        let (messages_max, bytes_max) = (self.messages_max, self.bytes_max);
        let totals = self.tree.change(&message.topic, |value| {
            let before = value.as_ref().map_or(0, |present| present.size());
            let without = (messages - usize::from(value.is_some()), bytes - before);
            if message.payload.is_empty() {
                *value = None;
                return Ok(without);
            }
            let with = (without.0 + 1, without.1.saturating_add(message.size()));
            if with.0 > messages_max || with.1 > bytes_max {
                return Err(Full);
            }
            *value = Some(Arc::clone(message));
            Ok(with)
        })?;
        (self.messages, self.bytes) = totals;
        Ok(())
    }

    /// What is retained for the topics that `filter` matches and not expired, oldest first.
    pub(crate) fn matching(&self, filter: &TopicFilter, now: Instant) -> Vec<Arc<Message>> {
        let mut found = Vec::new();
        let mut take = |value: &Option<Arc<Message>>| {
            found.extend(value.iter().filter(|message| !message.is_expired(now)).cloned());
        };
        if filter.has_wildcard() {
            self.tree.topics_of(filter, &mut take);
        } else if let Some(value) = self.tree.get(filter) {
            take(value);
        }
        found.sort_by_key(|message: &Arc<Message>| message.received_unix_ms);
        found
    }

    /// Takes away what has expired. Answers for which topics.
    pub(crate) fn forget_expired(&mut self, now: Instant) -> Vec<TopicName> {
        let mut expired = Vec::new();
        self.tree.each(&mut |value: &Option<Arc<Message>>| {
            expired.extend(value.iter().filter(|message| message.is_expired(now)).cloned());
        });
        for message in &expired {
            self.tree.change(&message.topic, |value| *value = None);
            self.messages -= 1;
            self.bytes -= message.size();
        }
        expired.iter().map(|message| message.topic.clone()).collect()
    }

    /// How many there are.
    pub(crate) fn messages(&self) -> usize {
        self.messages
    }

    /// How many bytes their topics and payloads have.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::tests::message;

    #[test]
    fn limits_hold_and_what_is_taken_away_gives_room() {
        let mut retained = Retained::new(2, 100);
        for topic in ["a", "b"] {
            assert_eq!(retained.store(&message(topic, "1"), Instant::default()), Ok(()));
        }
        assert_eq!(retained.store(&message("c", "1"), Instant::default()), Err(Full));
        assert_eq!(
            retained.store(&message("a", "22"), Instant::default()),
            Ok(()),
            "another message for a topic is no further one"
        );
        assert_eq!((retained.messages(), retained.bytes()), (2, 5));
        assert_eq!(retained.store(&message("a", ""), Instant::default()), Ok(()));
        assert_eq!((retained.messages(), retained.bytes()), (1, 2));
        assert_eq!(retained.store(&message("c", &"x".repeat(98)), Instant::default()), Err(Full));
        assert_eq!(retained.store(&message("c", &"x".repeat(97)), Instant::default()), Ok(()));
    }
}
