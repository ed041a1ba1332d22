//! Stores as what the broker records in: [`Journal`].

use std::task::{Context, Poll};

use weirmq_core::durable::{Journal, NotKept, Position, Receipt, Records, Waiter};

use crate::error::StoreError;
use crate::kv::KvStore;
use crate::log_store::LogStore;
use crate::memory::MemoryStore;
use crate::ticket::{Level, Ticket};

impl From<StoreError> for NotKept {
    fn from(error: StoreError) -> Self {
        let is_final = !matches!(error, StoreError::Backlog { .. } | StoreError::TooLarge { .. });
        Self { reason: error.to_string().into(), is_full: error.is_full(), is_final }
    }
}

fn receipt(ticket: &Ticket) -> Result<Receipt, NotKept> {
    Ok(Receipt { position: ticket.sequence()?, number: ticket.number() })
}

impl Journal for LogStore {
    fn append(&self, records: &Records) -> Result<Receipt, NotKept> {
        receipt(&self.shared.append(records.iter(), records.is_awaited()))
    }

    fn position(&self) -> Position {
        self.shared.inner.lock().tail.sequence
    }

    fn poll_kept(
        &self,
        position: Position,
        waiter: &mut Waiter,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), NotKept>> {
        let level = self.shared.acknowledged_at();
        let polled = self.shared.progress.poll(level, position, &mut waiter.0, context.waker());
        if polled.is_pending() {
            self.shared.want(position);
        }
        polled.map(|outcome| outcome.map_err(NotKept::from))
    }

    fn forget(&self, position: Position, waiter: Waiter) {
        if let Some(key) = waiter.0 {
            self.shared.progress.forget(self.shared.acknowledged_at(), position, key);
        }
    }
}

impl Journal for KvStore {
    fn append(&self, records: &Records) -> Result<Receipt, NotKept> {
        receipt(&self.shared.append(records.iter()))
    }

    fn position(&self) -> Position {
        self.shared.sequence()
    }

    fn poll_kept(
        &self,
        position: Position,
        waiter: &mut Waiter,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), NotKept>> {
        let polled = self.shared.progress.poll(Level::Durable, position, &mut waiter.0, context.waker());
        polled.map(|outcome| outcome.map_err(NotKept::from))
    }

    fn forget(&self, position: Position, waiter: Waiter) {
        if let Some(key) = waiter.0 {
            self.shared.progress.forget(Level::Durable, position, key);
        }
    }
}

impl Journal for MemoryStore {
    fn append(&self, records: &Records) -> Result<Receipt, NotKept> {
        receipt(&self.append_records(records.iter()))
    }

    fn position(&self) -> Position {
        0
    }

    fn poll_kept(&self, _: Position, _: &mut Waiter, _: &mut Context<'_>) -> Poll<Result<(), NotKept>> {
        Poll::Ready(Ok(()))
    }

    fn forget(&self, _: Position, _: Waiter) {}
}
