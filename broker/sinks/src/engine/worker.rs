//! The life of a record from the buffer to its end.

use std::sync::Arc;

use super::backoff::Backoff;
use super::buffer::{Buffer, Failure, Settled};
use super::dead_letter::DeadLetters;
use super::spill::SpillFile;
use super::throttle::Throttle;
use super::{Sink, Stop};

/// Drives one sink.
pub(crate) struct Worker {
    sink: Box<dyn Sink>,
    buffer: Arc<Buffer>,
    dead_letters: Arc<DeadLetters>,
    spill: Arc<SpillFile>,
    stop: Stop,
    backoff: Backoff,
    failures: Throttle,
    burials: Throttle,
}

impl Worker {
    /// A worker that takes from `buffer`, gives to `sink`, and ends soon once `stop` is set.
    pub(crate) fn new(
        sink: Box<dyn Sink>,
        buffer: Arc<Buffer>,
        dead_letters: Arc<DeadLetters>,
        spill: Arc<SpillFile>,
        stop: Stop,
    ) -> Self {
        let backoff = Backoff::new(buffer.config().retry_initial_ms, buffer.config().retry_max_ms);
        Self {
            sink,
            buffer,
            dead_letters,
            spill,
            stop,
            backoff,
            failures: Throttle::default(),
            burials: Throttle::default(),
        }
    }

    /// Works until the buffer is closed and empty, or is closed and the target fails, or `stop` is set. What is
    /// not written then is still in the buffer.
    pub(crate) async fn run(mut self) {
        self.work().await;
        self.sink.close().await;
    }

    async fn work(&mut self) {
        while let Some(batch) = self.buffer.next_batch().await {
            let closing = self.buffer.closing().is_set();
            let verdicts = self.sink.write(&batch, &self.stop).await;
            drop(batch);
            let settled = self.buffer.settle(verdicts);
            let failed = self.take_stock(&settled);
            self.bury(settled).await;
            self.forget_spill_file().await;
            if self.stop.is_set() || (failed.is_some() && closing) {
                return;
            }
            if let Some(failure) = failed {
                self.pause(&failure).await;
            }
        }
    }

    /// Logs how the target is, and says whether it has to be left alone for a while.
    fn take_stock(&mut self, settled: &Settled) -> Option<Failure> {
        if settled.progress {
            self.backoff.succeeded();
        }
        if settled.recovered {
            tracing::info!(sink = &**self.buffer.name(), "records are being written again");
        }
        if settled.failure.is_none() && !settled.progress && !self.stop.is_set() {
            return Some(Failure { reason: "the sink tried nothing".to_owned(), after: None });
        }
        settled.failure.clone()
    }

    /// Waits before the next attempt. A shutdown cuts it short: there is one attempt more, and then the spill
    /// file.
    async fn pause(&mut self, failure: &Failure) {
        let pause = self.backoff.failed(failure.after);
        if let Some(held_back) = self.failures.pass() {
            tracing::warn!(
                sink = &**self.buffer.name(),
                buffered = self.buffer.stats().buffered_records,
                failures = self.backoff.failures(),
                next_attempt_ms = pause.as_millis(),
                held_back,
                "records are waiting: {}",
                failure.reason
            );
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = self.buffer.closing().set() => {}
            () = self.stop.set() => {}
        }
    }

    /// Puts what will never be taken into the file of dead letters.
    async fn bury(&mut self, settled: Settled) {
        let Some(first) = settled.dead.first() else { return };
        let (rule, reason) = (Arc::clone(&first.entry.record.rule), first.reason.clone());
        let count = settled.dead.len();
        let file = Arc::clone(&self.dead_letters);
        let outcome = on_blocking_thread(move || file.append(&settled.dead)).await;
        self.buffer.buried(outcome.is_ok());
        let Some(held_back) = self.burials.pass() else { return };
        let (sink, file) = (&**self.buffer.name(), self.dead_letters.path().display());
        match outcome {
            Ok(()) => tracing::warn!(
                sink, rule = &*rule, count, %file, held_back, "records became dead letters; the first: {reason}"
            ),
            Err(error) => tracing::error!(
                sink, rule = &*rule, count, %file, held_back, %error,
                "records are lost: the file of dead letters cannot be written; the first: {reason}"
            ),
        }
    }

    /// Removes the spill file once all that it held has met its end: a kill before that delivers it again.
    async fn forget_spill_file(&mut self) {
        if !self.spill.is_pending() || self.buffer.holds_restored() {
            return;
        }
        let spill = Arc::clone(&self.spill);
        if let Err(error) = on_blocking_thread(move || spill.remove()).await {
            tracing::error!(
                sink = &**self.buffer.name(), %error, file = %self.spill.path().display(),
                "the spill file cannot be removed; its records will be delivered again after the next start"
            );
        }
    }
}

/// Does `work` on a thread that may wait for a disk.
async fn on_blocking_thread(
    work: impl FnOnce() -> std::io::Result<()> + Send + 'static,
) -> std::io::Result<()> {
    tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other).flatten()
}
