//! What a connection's packets leave to be done once, when all that was read is used up.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::counters::Counters;
use crate::durable::keeper::Keeper;
use crate::durable::ledger::Ledger;
use crate::durable::{NotKept, Position};
use crate::events::Events;
use crate::outbox::Outbox;

/// What a batch of work leaves to be done once, at its end: what is to be recorded, outboxes to flush, counts to add up.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Most batches have one, and whoever is idle has had none but its own.
    outboxes: SmallVec<[Arc<Outbox>; 1]>,
    tally: Tally,
    ends: Arc<Ends>,
    ledger: Option<Box<Ledger>>,
}

/// Where what batches leave goes: one for all batches of a broker.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) counters: Arc<Counters>,
    pub(crate) events: Events,
    /// Where something is kept at all.
    pub(crate) keeper: Option<Arc<Keeper>>,
}

/// What a batch has counted so far.
#[derive(Debug, Default)]
struct Tally {
    received: u64,
    received_bytes: u64,
    sent: u64,
    sent_bytes: u64,
}

impl Batch {
    /// An empty batch.
    pub(crate) fn new(ends: Arc<Ends>) -> Self {
        Self { outboxes: SmallVec::new(), tally: Tally::default(), ends, ledger: None }
    }

    /// Where to note what happens to messages; it is told when the batch ends.
    pub(crate) fn events(&self) -> &Events {
        &self.ends.events
    }

    /// Has `outbox` flushed at the end.
    pub(crate) fn add(&mut self, outbox: &Arc<Outbox>) {
        self.outboxes.push(Arc::clone(outbox));
    }

    /// Counts so many messages that a client published, with so many bytes of payload in all.
    pub(crate) fn received(&mut self, messages: u64, payload_bytes: usize) {
        self.tally.received += messages;
        self.tally.received_bytes += payload_bytes as u64;
    }

    /// Counts so many messages that were handed to a connection, with so many bytes of payload in all.
    pub(crate) fn sent(&mut self, messages: u64, payload_bytes: usize) {
        self.tally.sent += messages;
        self.tally.sent_bytes += payload_bytes as u64;
    }

    /// Where to note what is to be recorded; `None` where nothing is kept.
    pub(crate) fn ledger(&mut self) -> Option<&mut Ledger> {
        if self.ledger.is_none() {
            let keeper = Arc::clone(self.ends.keeper.as_ref()?);
            self.ledger = Some(Box::new(Ledger::new(keeper)));
        }
        self.ledger.as_deref_mut()
    }

    /// What was noted so far, if anything was.
    pub(crate) fn noted(&mut self) -> Option<&mut Ledger> {
        self.ledger.as_deref_mut()
    }

    /// Gives back the memory of a ledger that nothing is noted in.
    pub(crate) fn rest(&mut self) {
        if self.ledger.as_ref().is_some_and(|ledger| ledger.is_blank()) {
            self.ledger = None;
        }
    }

    /// Whether nothing may be promised before what was noted is kept.
    pub(crate) fn is_awaited(&self) -> bool {
        self.ledger.as_ref().is_some_and(|ledger| ledger.is_awaited())
    }

    /// What is to be waited for, of all that was recorded since this was asked last.
    pub(crate) fn take_awaited(&mut self) -> Option<Result<Position, NotKept>> {
        self.ledger.as_mut().and_then(|ledger| ledger.take_awaited())
    }

    /// An empty batch like this one, for work that goes on elsewhere.
    pub(crate) fn another(&self) -> Self {
        Self::new(Arc::clone(&self.ends))
    }

    /// Takes over what `other` leaves to be done.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.outboxes.append(&mut other.outboxes);
        let tally = std::mem::take(&mut other.tally);
        self.tally.received += tally.received;
        self.tally.received_bytes += tally.received_bytes;
        self.tally.sent += tally.sent;
        self.tally.sent_bytes += tally.sent_bytes;
        match (&mut self.ledger, other.ledger.take()) {
            (Some(ledger), Some(other)) => ledger.append(*other),
            (None, other) => self.ledger = other,
            (Some(_), None) => {}
        }
    }

    /// Whether outboxes besides `own` are to be flushed, and each has more than `bytes` waiting.
    pub(crate) fn is_congested(&self, bytes: usize, own: &Arc<Outbox>) -> bool {
        let mut others = self.outboxes.iter().filter(|outbox| !Arc::ptr_eq(outbox, own)).peekable();
        others.peek().is_some() && others.all(|outbox| outbox.bytes() > bytes)
    }

    /// Records what was noted, flushes the outboxes and adds the counts up.
    pub(crate) fn flush(&mut self) {
        if let Some(ledger) = &mut self.ledger {
            ledger.commit();
        }
        self.flush_outboxes();
    }

    /// Flushes the outboxes and adds the counts up, in the middle of something that is one record.
    pub(crate) fn flush_outboxes(&mut self) {
        for outbox in self.outboxes.drain(..) {
            outbox.flush();
        }
        let tally = std::mem::take(&mut self.tally);
        if tally.received > 0 {
            self.ends.counters.messages_received.add(tally.received);
            self.ends.counters.payload_bytes_received.add(tally.received_bytes);
        }
        if tally.sent > 0 {
            self.ends.counters.messages_sent.add(tally.sent);
            self.ends.counters.payload_bytes_sent.add(tally.sent_bytes);
        }
        self.ends.events.tell();
    }
}

impl Drop for Batch {
    /// What was noted is recorded, and a frame is written, even where whoever has made it was cut short.
    fn drop(&mut self) {
        self.flush();
    }
}
