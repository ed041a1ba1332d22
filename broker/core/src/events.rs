//! Telling observers of single messages: noted where it happens, told where nothing is locked.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::counters::DropReason;
use crate::hook::{Chains, Event, EventKind, EventKinds, HookPoint};
use crate::message::{Message, Publisher};
use crate::time::Now;
use crate::topic::TopicName;

/// How many events may be noted and not told yet.
const NOTED_MAX: usize = 16_384;

/// What happens to single messages, for those who asked to be told. Where nobody has, a look at one number is all.
#[derive(Default)]
pub(crate) struct Events {
    /// The kinds that somebody wants, by [`EventKinds::bits`].
    wanted: AtomicU8,
    chains: ArcSwap<Chains>,
    noted: Mutex<VecDeque<Event>>,
    /// How many are noted, to be looked at without the lock.
    waiting: AtomicU64,
    /// Held while events are told, so that they are in order.
    telling: Mutex<()>,
    now: Mutex<Now>,
    left_out: AtomicU64,
}

/// The message that something happens to.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    topic: &'a TopicName,
    /// Nobody is told what becomes of the messages that plugins publish, nor of what follows from them: a plugin that
    /// publishes because of events would go round for ever.
    is_told: bool,
}

impl<'a> From<&'a Message> for Subject<'a> {
    fn from(message: &'a Message) -> Self {
        let is_told = message.hops <= 1 && !matches!(message.publisher, Publisher::Plugin(_));
        Self { topic: &message.topic, is_told }
    }
}

impl<'a> From<&'a TopicName> for Subject<'a> {
    fn from(topic: &'a TopicName) -> Self {
        Self { topic, is_told: true }
    }
}

impl Events {
    /// Tells those in `chains` from now on.
    pub(crate) fn set_chains(&self, chains: &Arc<Chains>) {
        self.chains.store(Arc::clone(chains));
        self.wanted.store(chains.events().bits(), Ordering::Release);
    }

    /// What time it is, for events that are told from now on.
    pub(crate) fn set_now(&self, now: Now) {
        *self.now.lock() = now;
    }

    /// Whether somebody wants events of this kind.
    pub(crate) fn want(&self, kind: EventKind) -> bool {
        EventKinds::from_bits(self.wanted.load(Ordering::Relaxed)).contains(kind)
    }

    /// `subject` was handed to the connection of `client`.
    pub(crate) fn delivered<'a>(&self, client: &Arc<str>, subject: impl Into<Subject<'a>>) {
        self.note(EventKind::MessageDelivered, subject, |topic| Event::MessageDelivered {
            client_id: Arc::clone(client),
            topic,
        });
    }

    /// `client` has acknowledged `subject`.
    pub(crate) fn acked<'a>(&self, client: &Arc<str>, subject: impl Into<Subject<'a>>) {
        self.note(EventKind::MessageAcked, subject, |topic| Event::MessageAcked {
            client_id: Arc::clone(client),
            topic,
        });
    }

    /// `client`, or nobody, gets `subject`.
    pub(crate) fn dropped<'a>(
        &self,
        client: Option<&Arc<str>>,
        subject: impl Into<Subject<'a>>,
        reason: DropReason,
    ) {
        self.note(EventKind::MessageDropped, subject, |topic| Event::MessageDropped {
            client_id: client.map(Arc::clone),
            topic,
            reason,
        });
    }

    fn note<'a>(
        &self,
        kind: EventKind,
        subject: impl Into<Subject<'a>>,
        event: impl FnOnce(TopicName) -> Event,
    ) {
        if !self.want(kind) {
            return;
        }
        let subject = subject.into();
        if !subject.is_told {
            return;
        }
        let mut noted = self.noted.lock();
        if noted.len() >= NOTED_MAX {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return;
        }
        noted.push_back(event(subject.topic.clone()));
        self.waiting.store(noted.len() as u64, Ordering::Release);
    }

    /// Tells what was noted. To be called with nothing locked.
    pub(crate) fn tell(&self) {
        while self.waiting.load(Ordering::Acquire) > 0 {
            // Whoever is at it tells these, too.
            let Some(_in_order) = self.telling.try_lock() else { return };
            let events = {
                let mut noted = self.noted.lock();
                self.waiting.store(0, Ordering::Release);
                std::mem::take(&mut *noted)
            };
            let (chains, now) = (self.chains.load(), *self.now.lock());
            for event in &events {
                for link in chains.at(HookPoint::Lifecycle) {
                    if link.hook.events().contains(event.kind()) {
                        link.hook.on_event(event, now);
                    }
                }
            }
        }
    }

    /// How many were left out because they came faster than they could be told, since this was asked last.
    pub(crate) fn take_left_out(&self) -> u64 {
        self.left_out.swap(0, Ordering::Relaxed)
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Events").field("wanted", &self.wanted).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_asked_for_is_not_even_made() {
        let events = Events::default();
        let topic = TopicName::new("a").unwrap();
        events.note(EventKind::MessageDelivered, &topic, |_| panic!("nobody wants it"));
        assert_eq!(events.waiting.load(Ordering::Relaxed), 0);
    }
}
