//! The [`Store`] on a key-value backend, a plugin's for instance: the state is in memory as in the twin, and what a
//! record changes of it is written to the backend by a thread of the store's own, one batch for all who wait.
//!
//! # Layout
//! - this file: the store, its thread
//! - `key`: what stands under which key
//! - `state`: from records to changed keys
//! - `open`: from keys to state
//! - [`conformance`]: whether a backend does what this relies on

pub mod conformance;
mod key;
mod open;
mod state;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use weirmq_core::durable::backend::{Backend, BackendError, Change};

use crate::error::{OpenError, StoreError};
use crate::event::{Event, Number, StoredMessage};
use crate::log_store::poisoned;
use crate::memory::MemoryStore;
use crate::store::{Delivered, Queued, SessionFacts, Store};
use crate::ticket::{Level, Progress, Ticket};
use key::Key;
use state::{Changes, Holders};

/// A store on a [`Backend`]. Dropping it writes what waits.
pub struct KvStore {
    pub(crate) shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// The figures of a [`KvStore`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvStats {
    /// Records that the backend does not have for sure.
    pub undurable_records: u64,
    /// Bytes that wait to be written, or are being written.
    pub backlog_bytes: usize,
    /// How many batches the backend has taken.
    pub batches: u64,
    /// How long the last of them took.
    pub last_batch: Duration,
    /// Why nothing is taken any more, when that is so.
    pub refuses: Option<StoreError>,
}

impl KvStats {
    /// The figures by name, for who publishes them: those of the log that a backend has too.
    #[must_use]
    pub fn figures(&self) -> [(&'static str, u64); 5] {
        [
            ("backlog/bytes", self.backlog_bytes as u64),
            ("undurable/records", self.undurable_records),
            ("syncs", self.batches),
            ("sync/microseconds", u64::try_from(self.last_batch.as_micros()).unwrap_or(u64::MAX)),
            ("refuses", self.refuses.is_some().into()),
        ]
    }
}

pub(crate) struct Shared {
    name: Arc<str>,
    backend: Arc<dyn Backend>,
    backlog_bytes_max: usize,
    memory: MemoryStore,
    /// Locked before the memory's.
    inner: Mutex<Inner>,
    work: Condvar,
    pub(crate) progress: Arc<Progress>,
}

struct Inner {
    holders: Holders,
    changes: Changes,
    changes_bytes: usize,
    /// Of the batch that is being written.
    writing_bytes: usize,
    sequence: u64,
    batches: u64,
    last_batch: Duration,
    refuses: Option<StoreError>,
    closing: bool,
}

impl KvStore {
    /// Opens the store that `backend` has, or begins one in an empty backend. `name` is what the backend is called
    /// where something is said of it. At most about `backlog_bytes_max` wait to be written: past it records are
    /// refused.
    ///
    /// # Errors
    /// What the backend does not do, or what of it cannot be understood.
    pub fn open(name: &str, backend: Arc<dyn Backend>, backlog_bytes_max: usize) -> Result<Self, OpenError> {
        let name = Arc::from(name);
        let opened = open::read(&name, &*backend)?;
        let shared = Arc::new(Shared {
            name: Arc::clone(&name),
            backend,
            backlog_bytes_max,
            memory: MemoryStore { held: Mutex::new(opened.held) },
            inner: Mutex::new(Inner {
                holders: opened.holders,
                changes: Changes::new(),
                changes_bytes: 0,
                writing_bytes: 0,
                sequence: 0,
                batches: 0,
                last_batch: Duration::ZERO,
                refuses: None,
                closing: false,
            }),
            work: Condvar::new(),
            progress: Arc::default(),
        });
        let own = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("store-backend".into())
            .spawn(move || own.run())
            .map_err(|error| {
                let cause = format!("no thread for it: {error}").into();
                OpenError::Backend { name, cause }
            })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Its figures.
    #[must_use]
    pub fn stats(&self) -> KvStats {
        let inner = self.shared.inner.lock();
        KvStats {
            undurable_records: inner.sequence - self.shared.progress.reached(Level::Durable),
            backlog_bytes: inner.changes_bytes.saturating_add(inner.writing_bytes),
            batches: inner.batches,
            last_batch: inner.last_batch,
            refuses: inner.refuses.clone(),
        }
    }

    /// The number that the next event will have.
    #[must_use]
    pub fn next_number(&self) -> Number {
        self.shared.memory.held.lock().last_number.saturating_add(1)
    }
}

impl Drop for KvStore {
    fn drop(&mut self) {
        self.shared.inner.lock().closing = true;
        self.shared.work.notify_one();
        if let Some(thread) = self.thread.take() {
            // One that panicked has told those who waited.
            drop(thread.join());
        }
    }
}

impl std::fmt::Debug for KvStore {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("KvStore").field("backend", &self.shared.name).finish_non_exhaustive()
    }
}

impl Shared {
    /// Appends records, all of them or none. The ticket is that of the last, its number that of the first event.
    pub(crate) fn append<'a>(&self, records: impl Iterator<Item = &'a [Event]>) -> Ticket {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        if let Some(error) = &inner.refuses {
            return Ticket::resolved(0, Err(error.clone()));
        }
        if inner.changes_bytes.saturating_add(inner.writing_bytes) >= self.backlog_bytes_max {
            return Ticket::resolved(0, Err(StoreError::Backlog { bytes_max: self.backlog_bytes_max }));
        }
        let mut held = self.memory.held.lock();
        let first = held.last_number.saturating_add(1);
        for event in records.flatten() {
            let number = held.last_number.saturating_add(1);
            held.last_number = number;
            inner.changes_bytes +=
                state::apply(&mut held, &mut inner.holders, &mut inner.changes, event, number);
        }
        inner.changes.insert(Key::Mark, Some(open::mark(held.last_number)));
        drop(held);
        inner.sequence += 1;
        self.work.notify_one();
        Ticket::on(&self.progress, Level::Durable, inner.sequence, first)
    }

    /// Where the last record stands in the order of all since the store was opened.
    pub(crate) fn sequence(&self) -> u64 {
        self.inner.lock().sequence
    }

    /// The thread: writes batch after batch until the store is closed or the backend fails.
    fn run(&self) {
        // However this ends, nobody waits for it afterwards.
        let _end = End(self);
        while let Some((changes, sequence)) = self.next_batch() {
            let begun = Instant::now();
            match self.backend.write(&changes) {
                Ok(()) => {
                    let mut inner = self.inner.lock();
                    inner.writing_bytes = 0;
                    inner.batches += 1;
                    inner.last_batch = begun.elapsed();
                    drop(inner);
                    self.progress.reach(Level::Durable, sequence);
                }
                Err(error) => return self.refuse(self.poisoned(&error)),
            }
        }
    }

    /// Waits for changes and takes all there are, with the position of the last. `None`: the store is closed.
    fn next_batch(&self) -> Option<(Vec<Change>, u64)> {
        let mut inner = self.inner.lock();
        while inner.changes.is_empty() {
            if inner.closing {
                return None;
            }
            self.work.wait(&mut inner);
        }
        inner.writing_bytes = std::mem::take(&mut inner.changes_bytes);
        let changes = std::mem::take(&mut inner.changes);
        let sequence = inner.sequence;
        drop(inner);
        Some((
            changes.into_iter().map(|(key, value)| Change { key: key.to_bytes(), value }).collect(),
            sequence,
        ))
    }

    fn refuse(&self, error: StoreError) {
        self.inner.lock().refuses.get_or_insert(error.clone());
        self.progress.fail(error);
    }

    fn poisoned(&self, error: &BackendError) -> StoreError {
        let kind = if error.is_full { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
        let cause = io::Error::new(kind, error.reason.to_string());
        poisoned("writing to the backend", self.name.as_ref().into(), &cause)
    }
}

struct End<'a>(&'a Shared);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.refuse(StoreError::Closed);
    }
}

impl Store for KvStore {
    fn append(&self, record: &[Event]) -> Ticket {
        self.shared.append(std::iter::once(record))
    }

    fn sync(&self) -> Ticket {
        Ticket::on(&self.shared.progress, Level::Durable, self.shared.sequence(), 0)
    }

    fn clients(&self) -> Vec<Arc<str>> {
        self.shared.memory.clients()
    }

    fn session(&self, client: &str) -> Option<SessionFacts> {
        self.shared.memory.session(client)
    }

    fn queue(&self, client: &str, from: Number, max: usize) -> Vec<Queued> {
        self.shared.memory.queue(client, from, max)
    }

    fn message(&self, client: &str, number: Number) -> Result<Option<Delivered>, StoreError> {
        self.shared.memory.message(client, number)
    }

    fn retained_topics(&self) -> Vec<Arc<str>> {
        self.shared.memory.retained_topics()
    }

    fn retained(&self, topic: &str) -> Result<Option<StoredMessage>, StoreError> {
        self.shared.memory.retained(topic)
    }

    fn sinks(&self) -> Vec<Arc<str>> {
        self.shared.memory.sinks()
    }

    fn sink_records(&self, sink: &str, from: Number, max: usize) -> Result<Vec<(Number, Bytes)>, StoreError> {
        self.shared.memory.sink_records(sink, from, max)
    }

    fn namespaces(&self) -> Vec<Arc<str>> {
        self.shared.memory.namespaces()
    }

    fn keys(&self, namespace: &str, from: &[u8], max: usize) -> Vec<Bytes> {
        self.shared.memory.keys(namespace, from, max)
    }

    fn value(&self, namespace: &str, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.shared.memory.value(namespace, key)
    }
}
