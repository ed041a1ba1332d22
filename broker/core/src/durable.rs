//! What must outlive the process, and the seam to whoever keeps it.
//!
//! The broker says what came true in [`Event`]s, hands them over as [`Records`] and goes on. What it
//! must not promise before it is kept (an acknowledgement, a QoS 2 message that is sent) waits for the position of
//! its record. The log's order is one for all: what waits for a position has everything before it too.
//!
//! # Layout
//! - this file: the seam
//! - [`backend`]: a key-value engine that a store can stand on
//! - [`event`]: what can be said
//! - [`keys`]: keys and values, and changes of them that come true with a message
//! - `keeper`: the journal as the broker uses it
//! - `ledger`: what a batch of work has to record
//! - `slot`: the number of something that is to be recorded, and what waits for that

pub mod backend;
pub mod event;
pub(crate) mod keeper;
pub mod keys;
pub(crate) mod ledger;
pub(crate) mod slot;

pub use keeper::Kept;

use std::sync::Arc;
use std::task::{Context, Poll};

use event::{Event, Number};

/// Keeps records: the durable log, or something that stands in for it.
pub trait Journal: Send + Sync + 'static {
    /// Takes records, all of them or none: each comes true as a whole or not at all, whatever happens to the process.
    /// What refers to the unknown changes nothing. Never blocks on a disk. What nobody is going to wait for need not be kept
    /// at once; whoever waits for it all the same has it kept.
    ///
    /// # Errors
    /// [`NotKept`]: none of it is kept.
    fn append(&self, records: &Records) -> Result<Receipt, NotKept>;

    /// The position of the last record that was appended.
    fn position(&self) -> Position;

    /// Ready when everything up to `position` is kept as well as is configured. `waiter` is what the same caller got
    /// the last time; one that is not asked again is given back with [`Journal::forget`].
    fn poll_kept(
        &self,
        position: Position,
        waiter: &mut Waiter,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), NotKept>>;

    /// Nobody waits for `position` any more.
    fn forget(&self, position: Position, waiter: Waiter);
}

/// A place in the order of the log.
pub type Position = u64;

/// Tells those apart who wait for a position. For the journal to fill in.
#[derive(Debug, Default)]
pub struct Waiter(pub Option<u64>);

/// What the journal says of records that it has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The number of the first event; the others follow.
    pub number: Number,
    /// The position of the last record.
    pub position: Position,
}

/// Why something is not kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct NotKept {
    /// In words, for the log.
    pub reason: Arc<str>,
    /// Whether a disk or a quota is full.
    pub is_full: bool,
    /// Whether nothing will be kept any more until the store is opened anew.
    pub is_final: bool,
}

/// Events, grouped into records that come true as a whole.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Records {
    events: Vec<Event>,
    /// Where each record ends.
    ends: Vec<usize>,
    /// Nobody is going to wait for them.
    unawaited: bool,
}

impl Records {
    /// One record.
    #[must_use]
    pub fn one(events: Vec<Event>) -> Self {
        let ends = vec![events.len()];
        Self { events, ends, unawaited: false }
    }

    /// Adds to the record that [`Records::end`] will end.
    pub fn push(&mut self, event: Event) {
        self.events.push(event);
    }

    /// Ends a record. One without events is none.
    pub fn end(&mut self) {
        if self.ends.last().copied().unwrap_or(0) < self.events.len() {
            self.ends.push(self.events.len());
        }
    }

    /// Nobody is going to wait for them: they may be written a little later, with what comes next.
    pub fn set_unawaited(&mut self) {
        self.unawaited = true;
    }

    /// Whether somebody may be about to wait for them.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        !self.unawaited
    }

    /// Forgets everything, and keeps the memory.
    pub fn clear(&mut self) {
        self.events.clear();
        self.ends.clear();
        self.unawaited = false;
    }

    /// Gives back memory for more than so many events.
    pub(crate) fn shrink_to(&mut self, events: usize) {
        self.events.shrink_to(events);
        self.ends.shrink_to(events);
    }

    /// How many records have ended.
    pub(crate) fn ended(&self) -> usize {
        self.ends.len()
    }

    /// Takes over the records of `other`, behind those that have ended here.
    pub(crate) fn append(&mut self, other: &mut Self) {
        let before = self.events.len();
        self.events.append(&mut other.events);
        self.ends.extend(other.ends.drain(..).map(|end| end + before));
    }

    /// How many events there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The records that have ended, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[Event]> + Clone {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        begins.zip(&self.ends).map(|(begin, end)| self.events.get(begin..*end).unwrap_or_default())
    }
}
