//! What waits for a commit, and how it is told: any executor by a waker, any thread by blocking.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::{Condvar, Mutex};

use crate::error::StoreError;
use crate::event::Number;

/// The promise that a record is durable, in the sense of the store's [`Durability`](crate::Durability).
///
/// It resolves once, by [`Future`] or by [`Ticket::wait`]. Dropping it takes nothing back: the record becomes
/// durable all the same.
#[derive(Debug)]
#[must_use = "a record is durable when its ticket has resolved, not before"]
pub struct Ticket {
    number: Number,
    claim: Claim,
}

#[derive(Debug)]
enum Claim {
    Settled(Result<(), StoreError>),
    On { progress: Arc<Progress>, level: Level, sequence: u64, key: Option<u64> },
}

/// How far a record has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// The operating system has it.
    Written,
    /// An fsync covers it.
    Durable,
}

impl Ticket {
    pub(crate) fn on(progress: &Arc<Progress>, level: Level, sequence: u64, number: Number) -> Self {
        Self { number, claim: Claim::On { progress: Arc::clone(progress), level, sequence, key: None } }
    }

    /// A ticket that has resolved: for stores that have nothing to wait for, and for refusals. Its record has
    /// `number` where it was taken.
    pub fn resolved(number: Number, outcome: Result<(), StoreError>) -> Self {
        Self { number, claim: Claim::Settled(outcome) }
    }

    /// The number of the first event of the record; the others follow. 0 when the record was refused.
    #[must_use]
    pub fn number(&self) -> Number {
        self.number
    }

    /// Where its record stands in the order of the log.
    ///
    /// # Errors
    /// The record was refused.
    pub(crate) fn sequence(&self) -> Result<u64, StoreError> {
        match &self.claim {
            Claim::Settled(outcome) => outcome.clone().map(|()| 0),
            Claim::On { sequence, .. } => Ok(*sequence),
        }
    }

    /// Whether it has resolved, and to what.
    #[must_use]
    pub fn outcome(&self) -> Option<Result<(), StoreError>> {
        match &self.claim {
            Claim::Settled(outcome) => Some(outcome.clone()),
            Claim::On { progress, level, sequence, .. } => progress.outcome(*level, *sequence),
        }
    }

    /// Blocks this thread until it resolves.
    ///
    /// # Errors
    /// Why the record is not durable.
    pub fn wait(self) -> Result<(), StoreError> {
        match &self.claim {
            Claim::Settled(outcome) => outcome.clone(),
            Claim::On { progress, level, sequence, .. } => progress.wait(*level, *sequence),
        }
    }
}

impl Future for Ticket {
    type Output = Result<(), StoreError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.claim {
            Claim::Settled(outcome) => Poll::Ready(outcome.clone()),
            Claim::On { progress, level, sequence, key } => {
                progress.poll(*level, *sequence, key, context.waker())
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Claim::On { progress, level, sequence, key: Some(key) } = &self.claim {
            progress.forget(*level, *sequence, *key);
        }
    }
}

/// How far the log has come, and who wants to know.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    written: AtomicU64,
    durable: AtomicU64,
    waiting: Mutex<Waiting>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    /// By the sequence that they wait for, and a key that tells them apart.
    written: BTreeMap<(u64, u64), Waker>,
    durable: BTreeMap<(u64, u64), Waker>,
    next_key: u64,
    failed: Option<StoreError>,
}

impl Waiting {
    fn of(&mut self, level: Level) -> &mut BTreeMap<(u64, u64), Waker> {
        match level {
            Level::Written => &mut self.written,
            Level::Durable => &mut self.durable,
        }
    }
}

impl Progress {
    fn counter(&self, level: Level) -> &AtomicU64 {
        match level {
            Level::Written => &self.written,
            Level::Durable => &self.durable,
        }
    }

    /// The last sequence that has come this far.
    pub(crate) fn reached(&self, level: Level) -> u64 {
        self.counter(level).load(Ordering::Acquire)
    }

    /// Everything up to `sequence` has come this far: tells those who wait for it.
    pub(crate) fn reach(&self, level: Level, sequence: u64) {
        self.counter(level).fetch_max(sequence, Ordering::AcqRel);
        let mut waiting = self.waiting.lock();
        let waiters = waiting.of(level);
        let later = waiters.split_off(&(sequence.saturating_add(1), 0));
        let told = std::mem::replace(waiters, later);
        drop(waiting);
        self.moved.notify_all();
        told.into_values().for_each(Waker::wake);
    }

    /// Nothing more will come any further.
    pub(crate) fn fail(&self, error: StoreError) {
        let mut waiting = self.waiting.lock();
        waiting.failed.get_or_insert(error);
        let written = std::mem::take(&mut waiting.written);
        let durable = std::mem::take(&mut waiting.durable);
        drop(waiting);
        self.moved.notify_all();
        written.into_values().chain(durable.into_values()).for_each(Waker::wake);
    }

    fn outcome(&self, level: Level, sequence: u64) -> Option<Result<(), StoreError>> {
        if self.reached(level) >= sequence {
            return Some(Ok(()));
        }
        let failed = self.waiting.lock().failed.clone();
        // It may have come this far before it failed.
        if self.reached(level) >= sequence { Some(Ok(())) } else { failed.map(Err) }
    }

    fn wait(&self, level: Level, sequence: u64) -> Result<(), StoreError> {
        if self.reached(level) >= sequence {
            return Ok(());
        }
        let mut waiting = self.waiting.lock();
        loop {
            if self.reached(level) >= sequence {
                return Ok(());
            }
            if let Some(error) = &waiting.failed {
                return Err(error.clone());
            }
            self.moved.wait(&mut waiting);
        }
    }

    pub(crate) fn poll(
        &self,
        level: Level,
        sequence: u64,
        key: &mut Option<u64>,
        waker: &Waker,
    ) -> Poll<Result<(), StoreError>> {
        if self.reached(level) >= sequence {
            return Poll::Ready(Ok(()));
        }
        let mut waiting = self.waiting.lock();
        // `reach` counts first and takes the lock then: who is not seen by it sees the count here.
        if self.reached(level) >= sequence {
            return Poll::Ready(Ok(()));
        }
        if let Some(error) = &waiting.failed {
            return Poll::Ready(Err(error.clone()));
        }
        let own_key = *key.get_or_insert_with(|| {
            waiting.next_key += 1;
            waiting.next_key
        });
        waiting.of(level).insert((sequence, own_key), waker.clone());
        Poll::Pending
    }

    pub(crate) fn forget(&self, level: Level, sequence: u64, key: u64) {
        if self.reached(level) < sequence {
            self.waiting.lock().of(level).remove(&(sequence, key));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn poll(ticket: &mut Ticket, count: &Arc<Count>) -> Poll<Result<(), StoreError>> {
        let waker = Waker::from(Arc::clone(count));
        Pin::new(ticket).poll(&mut Context::from_waker(&waker))
    }

    #[test]
    fn a_ticket_wakes_once_when_its_record_is_covered_and_not_before() {
        let progress = Arc::new(Progress::default());
        let count = Arc::new(Count::default());
        let mut ticket = Ticket::on(&progress, Level::Durable, 5, 1);
        assert_eq!(poll(&mut ticket, &count), Poll::Pending);
        assert_eq!(poll(&mut ticket, &count), Poll::Pending);
        progress.reach(Level::Written, 9);
        progress.reach(Level::Durable, 4);
        assert_eq!((count.0.load(Ordering::SeqCst), ticket.outcome()), (0, None));
        progress.reach(Level::Durable, 5);
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert_eq!(poll(&mut ticket, &count), Poll::Ready(Ok(())));
    }

    #[test]
    fn a_failure_fails_what_waits_and_what_comes_later_but_not_what_was_covered() {
        let progress = Arc::new(Progress::default());
        let count = Arc::new(Count::default());
        progress.reach(Level::Durable, 1);
        let mut waiting = Ticket::on(&progress, Level::Durable, 2, 1);
        assert_eq!(poll(&mut waiting, &count), Poll::Pending);
        progress.fail(StoreError::Closed);
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert_eq!(poll(&mut waiting, &count), Poll::Ready(Err(StoreError::Closed)));
        assert_eq!(Ticket::on(&progress, Level::Durable, 3, 1).wait(), Err(StoreError::Closed));
        assert_eq!(Ticket::on(&progress, Level::Durable, 1, 1).wait(), Ok(()));
    }

    #[test]
    fn a_dropped_ticket_leaves_no_waker_behind() {
        let progress = Arc::new(Progress::default());
        let count = Arc::new(Count::default());
        let mut ticket = Ticket::on(&progress, Level::Durable, 1, 1);
        assert_eq!(poll(&mut ticket, &count), Poll::Pending);
        drop(ticket);
        assert!(progress.waiting.lock().durable.is_empty());
    }
}
