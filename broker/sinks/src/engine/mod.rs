//! What every sink has behind it: a bounded buffer, batches, retries, dead letters, a spill file. Knows no kind
//! of sink; [`Sink`] is all that it sees of one.
//!
//! # Layout
//! - this file: the seam, [`Sink`], and what crosses it
//! - [`buffer`]: the bounded queue between the message path and the worker
//! - [`size`]: what a record takes in memory
//! - [`worker`]: the life of a record from the buffer to its end
//! - [`backoff`]: how long to pause after a failure
//! - [`dead_letter`], [`spill`]: the two files that records end up in when they are not written
//! - [`stats`]: what is counted
//! - [`own_thread`]: a thread for a sink whose library blocks
//! - [`throttle`]: logs at a bounded rate

pub(crate) mod backoff;
pub(crate) mod buffer;
pub(crate) mod dead_letter;
pub(crate) mod own_thread;
pub(crate) mod size;
pub(crate) mod spill;
pub(crate) mod stats;
pub(crate) mod throttle;
pub(crate) mod worker;

#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use weirmq_core::record::Record;

/// Where records end. One worker drives it, one batch at a time.
pub(crate) trait Sink: Send + 'static {
    /// Writes `batch`, which is never empty, and says for each record, in the order of the batch, what became of
    /// it. Ends soon once `stop` is set: what is not written then is [`Verdict::Untried`].
    ///
    /// It must end by itself in bounded time: the worker does nothing else meanwhile.
    fn write<'a>(&'a mut self, batch: &'a [Arc<Entry>], stop: &'a Stop) -> Writing<'a>;

    /// Lets go of the target in good order: nothing is written after this.
    fn close(&mut self) -> Closing<'_> {
        Box::pin(std::future::ready(()))
    }
}

/// A write under way.
pub(crate) type Writing<'a> = Pin<Box<dyn Future<Output = Vec<Verdict>> + Send + 'a>>;

/// A farewell under way.
pub(crate) type Closing<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// What became of one record of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is where it belongs.
    Written,
    /// It will never be taken: the record is at fault, not the moment.
    Rejected(String),
    /// Not now: the target is at fault. Tried again after a pause.
    Retry {
        /// Why.
        reason: String,
        /// How long the target asks to be left alone.
        after: Option<Duration>,
    },
    /// Not tried because one before it failed or because of a stop.
    Untried,
}

impl Verdict {
    /// A temporary failure of a target that does not say when to come back.
    pub(crate) fn retry(reason: impl Into<String>) -> Self {
        Self::Retry { reason: reason.into(), after: None }
    }

    /// The same temporary failure for a whole batch.
    pub(crate) fn retry_all(batch: &[Arc<Entry>], reason: impl Into<String>) -> Vec<Self> {
        vec![Self::retry(reason); batch.len()]
    }
}

/// A record in a buffer.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The record.
    pub(crate) record: Record,
    /// What it is known by, through all retries and restarts.
    pub(crate) id: EntryId,
}

/// Identifies an entry among all that this and other brokers ever had: 64 random bits per run and a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct EntryId {
    run: u64,
    number: u64,
}

impl fmt::Display for EntryId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:016x}-{:x}", self.run, self.number)
    }
}

impl FromStr for EntryId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |digits| u64::from_str_radix(digits, 16).ok();
        text.split_once('-')
            .and_then(|(run, count)| Some(Self { run: number(run)?, number: number(count)? }))
            .ok_or_else(|| format!("'{text}' is not the id of a record"))
    }
}

/// Gives out [`EntryId`]s.
#[derive(Debug)]
pub(crate) struct EntryIds {
    run: u64,
    next: AtomicU64,
}

impl EntryIds {
    /// Ids of a run that has begun just now.
    pub(crate) fn new() -> Self {
        Self { run: random_u64(), next: AtomicU64::new(0) }
    }

    /// One that was not given out before.
    pub(crate) fn next(&self) -> EntryId {
        EntryId { run: self.run, number: self.next.fetch_add(1, Ordering::Relaxed) }
    }
}

/// 64 bits from the system's randomness, by way of the seed that the standard library draws for its hash maps.
/// Good for telling things apart and for jitter, not for secrets.
pub(crate) fn random_u64() -> u64 {
    RandomState::new().hash_one(crate::disk::unix_ms())
}

/// Tells a write under way to come to an end.
#[derive(Debug, Clone)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// The signal, and what sets it.
    pub(crate) fn new() -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(false);
        (sender, Self(receiver))
    }

    /// Whether it is set.
    pub(crate) fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is set; for ever when whoever could set it is gone.
    pub(crate) async fn set(&self) {
        let mut receiver = self.0.clone();
        if receiver.wait_for(|set| *set).await.is_err() {
            std::future::pending().await
        }
    }
}
