//! The bounded queue between the message path and the worker, and the books about every record in it.
//!
//! Records leave the queue from its oldest end: [`Buffer::next_batch`] lends a batch to the worker,
//! [`Buffer::settle`] takes the verdicts, [`Buffer::buried`] learns what became of the dead letters. A record is
//! held here until its end is known, so that whoever stops the worker, at whatever moment, finds in
//! [`Buffer::drain`] all that was not written.

use std::collections::VecDeque;
use std::iter;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use weirmq_core::record::{Kept, Record, Refused};

use super::size::{RECORD_OVERHEAD_BYTES, measure};
use super::spill;
use super::stats::SinkStats;
use super::throttle::Throttle;
use super::{Entry, EntryIds, Stop, Verdict};
use crate::config::{BufferConfig, OnFull};

/// The buffer of one sink.
pub(crate) struct Buffer {
    name: Arc<str>,
    config: BufferConfig,
    batch_records_max: usize,
    ids: EntryIds,
    books: Mutex<Books>,
    /// There is a record for a worker that had none, or a whole batch for one that waits for it, or an end.
    arrived: Notify,
    close: watch::Sender<bool>,
    closing: Stop,
    /// The worker has had an answer for a batch: what tests wait for.
    settled: Notify,
    refusals: Throttle,
}

#[derive(Default)]
struct Books {
    waiting: VecDeque<Slot>,
    /// Lent to the worker, in its order.
    in_flight: Vec<Slot>,
    /// On their way into the file of dead letters.
    dying: Vec<Slot>,
    waiting_bytes: usize,
    /// Of the records in flight and dying: they are not dropped to make room.
    held_bytes: usize,
    closed: bool,
    /// How many of the records above came from the spill file.
    restored: usize,
    /// The counters; what [`Buffer::stats`] computes from the queue is not kept up to date in here.
    stats: SinkStats,
}

struct Slot {
    entry: Arc<Entry>,
    bytes: usize,
    since: Instant,
    attempts: u32,
    restored: bool,
    /// It is kept, until it has met its end.
    kept: Option<Kept>,
}

/// Takes what is wanted back after a restart, where records are kept.
pub(crate) type Keep<'a> = &'a mut dyn FnMut(Bytes) -> Option<Kept>;

/// A record that will not be tried again, and why.
#[derive(Debug)]
pub(crate) struct DeadLetter {
    pub(crate) entry: Arc<Entry>,
    pub(crate) reason: String,
}

/// What the verdicts about a batch come to.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    /// To be buried now; [`Buffer::buried`] wants to know how it went.
    pub(crate) dead: Vec<DeadLetter>,
    /// Whether the target answered for at least one record.
    pub(crate) progress: bool,
    /// The first failure that is at the target's door.
    pub(crate) failure: Option<Failure>,
    /// Whether this is the first success after failures.
    pub(crate) recovered: bool,
}

/// A target that did not take a record for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) reason: String,
    /// The longest pause that any answer asked for.
    pub(crate) after: Option<Duration>,
}

/// When the worker gets its next batch.
enum Next {
    Now,
    Until(Instant),
    OnArrival,
    Never,
}

impl Buffer {
    /// An empty buffer for the sink called `name`, which takes up to `batch_records_max` records at once.
    pub(crate) fn new(name: Arc<str>, config: BufferConfig, batch_records_max: usize) -> Self {
        let (close, closing) = Stop::new();
        Self {
            name,
            config,
            batch_records_max,
            ids: EntryIds::new(),
            books: Mutex::default(),
            arrived: Notify::new(),
            close,
            closing,
            settled: Notify::new(),
            refusals: Throttle::default(),
        }
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(crate) fn config(&self) -> &BufferConfig {
        &self.config
    }

    /// Takes a record, or counts and logs why not. Never waits.
    ///
    /// # Errors
    /// [`Refused`]. A record that is too large or too deep for any buffer is told as a full buffer; the counters
    /// and the log tell them apart.
    pub(crate) fn push(&self, record: Record, keep: Option<Keep<'_>>) -> Result<(), Refused> {
        let size = measure(&record);
        let entry = Entry { record, id: self.ids.next() };
        let keep = keep.map(|keep| (keep, spill::encode(&entry)));
        let mut books = self.books.lock();
        let refused = match self.admit(&mut books, size) {
            Ok(made_way) => {
                let bytes = size.unwrap_or_default();
                let kept = keep.and_then(|(keep, bytes)| keep(bytes?));
                let (entry, since) = (Arc::new(entry), Instant::now());
                books.take_in(Slot { entry, bytes, since, attempts: 0, restored: false, kept });
                books.stats.accepted += 1;
                let waiting = books.waiting.len();
                drop(books);
                if waiting == 1 || waiting == self.batch_records_max {
                    self.arrived.notify_one();
                }
                self.log_dropped(&made_way);
                Kept::settle(made_way.into_iter().filter_map(|slot| slot.kept));
                return Ok(());
            }
            Err(refused) => refused,
        };
        let records = books.len();
        drop(books);
        self.log_refused(refused, &entry.record.rule, records);
        Err(match refused {
            Reason::Closed => Refused::Closed,
            Reason::Full | Reason::TooLarge | Reason::TooDeep => {
                Refused::BufferFull { sink: Arc::clone(&self.name), records }
            }
        })
    }

    /// Makes room for a record of `size`, or counts why there is none. Gives back what made way, so that it is
    /// freed and logged outside the lock.
    fn admit(&self, books: &mut Books, size: Option<usize>) -> Result<Vec<Slot>, Reason> {
        let refusals = &mut books.stats.refused;
        if books.closed {
            refusals.closed += 1;
            return Err(Reason::Closed);
        }
        let Some(size) = size else {
            refusals.too_deep += 1;
            return Err(Reason::TooDeep);
        };
        if size > self.config.bytes_max {
            refusals.too_large += 1;
            return Err(Reason::TooLarge);
        }
        let mut made_way = Vec::new();
        let may_drop = self.config.on_full == OnFull::DropOldest
            && self.fits(books.in_flight.len() + books.dying.len(), books.held_bytes, size);
        while !self.fits(books.len(), books.bytes(), size) {
            let Some(oldest) = may_drop.then(|| books.take_oldest()).flatten() else {
                books.stats.refused.buffer_full += 1;
                return Err(Reason::Full);
            };
            books.stats.dropped_oldest += 1;
            made_way.push(oldest);
        }
        Ok(made_way)
    }

    /// Whether a record of `size` has room beside so many others.
    fn fits(&self, records: usize, bytes: usize, size: usize) -> bool {
        records < self.config.records_max && bytes.saturating_add(size) <= self.config.bytes_max
    }

    /// Takes over what the run before left, in the spill file or kept, ahead of everything new and past the limits: those held it then, and
    /// new records are refused until there is room again.
    pub(crate) fn restore(&self, entries: impl IntoIterator<Item = (Entry, Option<Kept>)>) {
        let mut books = self.books.lock();
        let since = Instant::now();
        for (entry, kept) in entries {
            let bytes = measure(&entry.record).unwrap_or(RECORD_OVERHEAD_BYTES);
            let restored = kept.is_none();
            books.stats.restored += 1;
            books.restored += usize::from(restored);
            books.take_in(Slot { entry: Arc::new(entry), bytes, since, attempts: 0, restored, kept });
        }
        drop(books);
        self.arrived.notify_one();
    }

    /// Whether the spill file still says more than was settled since.
    pub(crate) fn holds_restored(&self) -> bool {
        self.books.lock().restored > 0
    }

    /// No record is taken from now on; the worker hands out what is left.
    pub(crate) fn close(&self) {
        self.books.lock().closed = true;
        self.close.send_replace(true);
        self.arrived.notify_one();
    }

    /// Set once the buffer is closed.
    pub(crate) fn closing(&self) -> &Stop {
        &self.closing
    }

    /// Waits for records and lends the oldest to the worker, as soon as there is a batch of them or the oldest has
    /// waited long enough; `None` when the buffer is closed and empty.
    pub(crate) async fn next_batch(&self) -> Option<Vec<Arc<Entry>>> {
        loop {
            match self.next() {
                Next::Now => return Some(self.lend()),
                Next::Never => return None,
                Next::OnArrival => self.arrived.notified().await,
                Next::Until(due) => tokio::select! {
                    () = self.arrived.notified() => {}
                    () = tokio::time::sleep_until(due) => {}
                },
            }
        }
    }

    fn next(&self) -> Next {
        let books = self.books.lock();
        let Some(oldest) = books.waiting.front() else {
            return if books.closed { Next::Never } else { Next::OnArrival };
        };
        let due = oldest.since + self.config.batch_wait();
        if books.closed || books.waiting.len() >= self.batch_records_max || due <= Instant::now() {
            Next::Now
        } else {
            Next::Until(due)
        }
    }

    fn lend(&self) -> Vec<Arc<Entry>> {
        let mut books = self.books.lock();
        let count = self.batch_records_max.min(books.waiting.len());
        let lent: Vec<Slot> = books.waiting.drain(..count).collect();
        let bytes: usize = lent.iter().map(|slot| slot.bytes).sum();
        books.waiting_bytes -= bytes;
        books.held_bytes += bytes;
        books.in_flight = lent;
        books.in_flight.iter().map(|slot| Arc::clone(&slot.entry)).collect()
    }

    /// Enters what became of the batch that was lent last. What is to be tried again is the oldest again, in its
    /// old order. A verdict that is missing counts as [`Verdict::Untried`].
    pub(crate) fn settle(&self, verdicts: Vec<Verdict>) -> Settled {
        let mut settled = Settled::default();
        let mut books = self.books.lock();
        let lent = std::mem::take(&mut books.in_flight);
        let mut again = Vec::new();
        let mut done = Vec::new();
        let verdicts = verdicts.into_iter().chain(iter::repeat(Verdict::Untried));
        for (mut slot, verdict) in lent.into_iter().zip(verdicts) {
            match verdict {
                Verdict::Written => {
                    settled.progress = true;
                    books.stats.written += 1;
                    books.let_go(&slot);
                    done.push(slot);
                }
                Verdict::Rejected(reason) => {
                    settled.progress = true;
                    settled.dead.push(DeadLetter { entry: Arc::clone(&slot.entry), reason });
                    books.dying.push(slot);
                }
                Verdict::Retry { reason, after } => {
                    slot.attempts = slot.attempts.saturating_add(1);
                    let end = self.given_up(&slot, &reason);
                    settled.failed(reason, after);
                    if let Some(reason) = end {
                        settled.dead.push(DeadLetter { entry: Arc::clone(&slot.entry), reason });
                        books.dying.push(slot);
                    } else {
                        books.stats.retried += 1;
                        again.push(slot);
                    }
                }
                Verdict::Untried => again.push(slot),
            }
        }
        books.put_back(again);
        if let Some(failure) = &settled.failure {
            books.stats.failing = Some(failure.reason.clone());
        } else if !done.is_empty() {
            settled.recovered = books.stats.failing.take().is_some();
        }
        drop(books);
        Kept::settle(done.into_iter().filter_map(|slot| slot.kept));
        self.settled.notify_waiters();
        settled
    }

    /// Why a record that has failed is not tried again, if so.
    fn given_up(&self, slot: &Slot, reason: &str) -> Option<String> {
        let attempts_max = self.config.retry_attempts_max;
        if attempts_max > 0 && slot.attempts >= attempts_max {
            return Some(format!("given up after {} attempts: {reason}", slot.attempts));
        }
        let age = slot.since.elapsed();
        let too_old = self.config.retry_age_max().is_some_and(|max| age >= max);
        too_old.then(|| format!("given up after {:.1} s: {reason}", age.as_secs_f64()))
    }

    /// The dead letters of the last [`Buffer::settle`] are in their file, or are lost.
    pub(crate) fn buried(&self, in_file: bool) {
        let mut books = self.books.lock();
        let dying = std::mem::take(&mut books.dying);
        let count = dying.len() as u64;
        if in_file {
            books.stats.dead_lettered += count;
        } else {
            books.stats.lost += count;
        }
        for slot in &dying {
            books.let_go(slot);
        }
        drop(books);
        Kept::settle(dying.into_iter().filter_map(|slot| slot.kept));
        self.settled.notify_waiters();
    }

    /// Everything that is not written and not kept elsewhere, the oldest first, for the spill file. It stays on the books
    /// until [`Buffer::spilled`]. The worker must have ended.
    pub(crate) fn drain(&self) -> Vec<Arc<Entry>> {
        let books = self.books.lock();
        let unwritten = books.dying.iter().chain(&books.in_flight).chain(&books.waiting);
        unwritten.filter(|slot| slot.kept.is_none()).map(|slot| Arc::clone(&slot.entry)).collect()
    }

    /// How many records are not written, and kept until the next start.
    pub(crate) fn kept(&self) -> usize {
        let books = self.books.lock();
        let unwritten = books.dying.iter().chain(&books.in_flight).chain(&books.waiting);
        unwritten.filter(|slot| slot.kept.is_some()).count()
    }

    /// What [`Buffer::drain`] gave is in the spill file, or is lost.
    pub(crate) fn spilled(&self, in_file: bool) {
        let mut books = self.books.lock();
        let unwritten = books.dying.iter().chain(&books.in_flight).chain(&books.waiting);
        let count = unwritten.filter(|slot| slot.kept.is_none()).count() as u64;
        if in_file {
            books.stats.spilled += count;
        } else {
            books.stats.lost += count;
        }
        books.dying.clear();
        books.in_flight.clear();
        books.waiting.clear();
        books.waiting_bytes = 0;
        books.held_bytes = 0;
        books.restored = 0;
    }

    /// The counters and the state now.
    pub(crate) fn stats(&self) -> SinkStats {
        let books = self.books.lock();
        let held = books.dying.iter().chain(&books.in_flight).chain(books.waiting.front());
        SinkStats {
            name: self.name.to_string(),
            buffered_records: books.len(),
            buffered_bytes: books.bytes(),
            oldest_age: held.map(|slot| slot.since.elapsed()).max(),
            ..books.stats.clone()
        }
    }

    /// Waits until the counters are as a test expects.
    #[cfg(test)]
    pub(crate) async fn until(&self, expected: impl Fn(&SinkStats) -> bool) -> SinkStats {
        loop {
            let settled = self.settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            let stats = self.stats();
            if expected(&stats) {
                return stats;
            }
            settled.await;
        }
    }

    fn log_dropped(&self, made_way: &[Slot]) {
        if made_way.is_empty() {
            return;
        }
        if let Some(held_back) = self.refusals.pass() {
            tracing::warn!(
                sink = &*self.name,
                held_back,
                records_max = self.config.records_max,
                bytes_max = self.config.bytes_max,
                "the buffer is full: the oldest records make way for new ones"
            );
        }
    }

    fn log_refused(&self, reason: Reason, rule: &str, buffered: usize) {
        if let Some(held_back) = self.refusals.pass() {
            let reason = reason.text();
            tracing::warn!(sink = &*self.name, rule, buffered, held_back, "a record was not taken: {reason}");
        }
    }
}

impl Books {
    fn len(&self) -> usize {
        self.waiting.len() + self.in_flight.len() + self.dying.len()
    }

    fn bytes(&self) -> usize {
        self.waiting_bytes.saturating_add(self.held_bytes)
    }

    fn take_in(&mut self, slot: Slot) {
        self.waiting_bytes += slot.bytes;
        self.waiting.push_back(slot);
    }

    fn take_oldest(&mut self) -> Option<Slot> {
        let slot = self.waiting.pop_front()?;
        self.waiting_bytes -= slot.bytes;
        self.restored -= usize::from(slot.restored);
        Some(slot)
    }

    /// Ahead of all that waits, in their order.
    fn put_back(&mut self, slots: Vec<Slot>) {
        for slot in slots.into_iter().rev() {
            self.held_bytes -= slot.bytes;
            self.waiting_bytes += slot.bytes;
            self.waiting.push_front(slot);
        }
    }

    /// A record in flight or dying has met its end.
    fn let_go(&mut self, slot: &Slot) {
        self.held_bytes -= slot.bytes;
        self.restored -= usize::from(slot.restored);
    }
}

impl Settled {
    fn failed(&mut self, reason: String, after: Option<Duration>) {
        let failure = self.failure.get_or_insert(Failure { reason, after: None });
        failure.after = failure.after.max(after);
    }
}

/// Why a record is not taken.
#[derive(Debug, Clone, Copy)]
enum Reason {
    Closed,
    Full,
    TooLarge,
    TooDeep,
}

impl Reason {
    fn text(self) -> &'static str {
        match self {
            Self::Closed => "the sinks are shut down",
            Self::Full => "the buffer is full",
            Self::TooLarge => "it is larger than the whole buffer may be (buffer.bytes_max)",
            Self::TooDeep => "its lists and maps are nested too deep",
        }
    }
}
