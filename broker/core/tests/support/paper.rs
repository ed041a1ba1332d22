//! A journal whose records are kept when the test says so.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use weirmq_core::durable::event::Event;
use weirmq_core::durable::{Journal, NotKept, Position, Receipt, Records, Waiter};

#[derive(Default)]
pub struct Paper {
    written: Mutex<Written>,
}

#[derive(Default)]
struct Written {
    records: Vec<Vec<Event>>,
    events: u64,
    kept: Position,
    keeps_at_once: bool,
    /// Nothing is taken.
    refuses: Option<NotKept>,
    /// Nothing that is not kept yet will be.
    failed: Option<NotKept>,
    wakers: Vec<Waker>,
}

impl Paper {
    /// One that keeps everything as soon as it is written.
    pub fn quick() -> Arc<Self> {
        let paper = Self::default();
        paper.written.lock().keeps_at_once = true;
        Arc::new(paper)
    }

    /// One that keeps when [`Paper::keep`] is called.
    pub fn slow() -> Arc<Self> {
        Arc::default()
    }

    /// Everything that was written is kept.
    pub fn keep(&self) {
        let mut written = self.written.lock();
        written.kept = written.records.len() as Position;
        let wakers = std::mem::take(&mut written.wakers);
        drop(written);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// From now on, everything is kept as it is written, or is not.
    pub fn keep_at_once(&self, at_once: bool) {
        self.written.lock().keeps_at_once = at_once;
        if at_once {
            self.keep();
        }
    }

    /// Nothing that is not kept yet will be, nor anything after.
    pub fn fail(&self, is_full: bool) {
        let not_kept = NotKept { reason: "the test says so".into(), is_full, is_final: true };
        let mut written = self.written.lock();
        (written.failed, written.refuses) = (Some(not_kept.clone()), Some(not_kept));
        let wakers = std::mem::take(&mut written.wakers);
        drop(written);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Nothing is taken for now.
    pub fn refuse(&self, refuses: bool) {
        let not_kept = NotKept { reason: "too much waits".into(), is_full: true, is_final: false };
        self.written.lock().refuses = refuses.then_some(not_kept);
    }

    /// Every record that was written.
    pub fn records(&self) -> Vec<Vec<Event>> {
        self.written.lock().records.clone()
    }

    /// How many records were written.
    pub fn count(&self) -> usize {
        self.written.lock().records.len()
    }

    /// How many somebody waits for.
    pub fn waiters(&self) -> usize {
        self.written.lock().wakers.len()
    }
}

impl Journal for Paper {
    fn append(&self, records: &Records) -> Result<Receipt, NotKept> {
        let mut written = self.written.lock();
        if let Some(not_kept) = &written.refuses {
            return Err(not_kept.clone());
        }
        let number = written.events + 1;
        for record in records.iter() {
            written.events += record.len() as u64;
            written.records.push(record.to_vec());
        }
        let position = written.records.len() as Position;
        if written.keeps_at_once {
            written.kept = position;
        }
        Ok(Receipt { number, position })
    }

    fn position(&self) -> Position {
        self.written.lock().records.len() as Position
    }

    fn poll_kept(
        &self,
        position: Position,
        _: &mut Waiter,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), NotKept>> {
        let mut written = self.written.lock();
        if position <= written.kept {
            return Poll::Ready(Ok(()));
        }
        if let Some(not_kept) = &written.failed {
            return Poll::Ready(Err(not_kept.clone()));
        }
        written.wakers.push(context.waker().clone());
        Poll::Pending
    }

    fn forget(&self, _: Position, _: Waiter) {}
}
