//! What a connection's packets leave to be done once, when all that was read is used up.

use std::sync::Arc;

use crate::counters::Counters;
use crate::outbox::Outbox;

/// What a batch of work leaves to be done once, at its end: outboxes to flush, counts to add up.
#[derive(Debug)]
pub(crate) struct Batch {
    outboxes: Vec<Arc<Outbox>>,
    tally: Tally,
    counters: Arc<Counters>,
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
    /// An empty batch that counts into `counters`.
    pub(crate) fn new(counters: Arc<Counters>) -> Self {
        Self { outboxes: Vec::new(), tally: Tally::default(), counters }
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

    /// An empty batch like this one, for work that goes on elsewhere.
    pub(crate) fn another(&self) -> Self {
        Self::new(Arc::clone(&self.counters))
    }

    /// Takes over what `other` leaves to be done.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.outboxes.append(&mut other.outboxes);
        let tally = std::mem::take(&mut other.tally);
        self.tally.received += tally.received;
        self.tally.received_bytes += tally.received_bytes;
        self.tally.sent += tally.sent;
        self.tally.sent_bytes += tally.sent_bytes;
    }

    /// Whether an outbox that is to be flushed has more waiting than `bytes`.
    pub(crate) fn is_congested(&self, bytes: usize) -> bool {
        self.outboxes.iter().any(|outbox| outbox.bytes() > bytes)
    }

    /// Flushes the outboxes and adds the counts up.
    pub(crate) fn flush(&mut self) {
        for outbox in self.outboxes.drain(..) {
            outbox.flush();
        }
        let tally = std::mem::take(&mut self.tally);
        if tally.received > 0 {
            self.counters.messages_received.add(tally.received);
            self.counters.payload_bytes_received.add(tally.received_bytes);
        }
        if tally.sent > 0 {
            self.counters.messages_sent.add(tally.sent);
            self.counters.payload_bytes_sent.add(tally.sent_bytes);
        }
    }
}

impl Drop for Batch {
    /// A frame is written even where whoever has made it was cut short.
    fn drop(&mut self) {
        self.flush();
    }
}
