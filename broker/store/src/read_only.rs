//! A store that is looked at and not opened: for `info`, `verify` and `export`, also while a broker runs on it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::disk::{Disk, ReadOnlyDisk};
use crate::error::{OpenError, StoreError};
use crate::event::{Event, Number, StoredMessage};
use crate::format::EventView;
use crate::frame::Salt;
use crate::read::{self, Ahead, Source};
use crate::recover::{self, Recovered, Recovery};
use crate::state::{Place, State};
use crate::store::{Delivered, Queued, SessionFacts, Store};
use crate::ticket::Ticket;

/// How often a folder that a process is writing to is read anew, when what was read does not fit together.
const ATTEMPTS: u32 = 10;

/// How long to leave that process alone in between.
const PAUSE: Duration = Duration::from_millis(20);

/// What a store held when it was opened to be read. Nothing on the disk is changed, no lock is taken, and what
/// a process that has the store appends later is not seen. Nothing can be appended to it.
pub struct ReadOnlyStore {
    disk: Arc<dyn Disk>,
    log: Recovered,
    ahead: Ahead,
    report: Recovery,
    in_use: bool,
}

/// Figures of a store that is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadOnlyStats {
    /// The version of the format that it is in.
    pub format_version: u16,
    /// Whether a process had the store when it was opened to be read.
    pub in_use: bool,
    /// How large a log of nothing but what is live would be at most, in bytes.
    pub live_bytes: u64,
    /// The number that the next record gets.
    pub next_number: Number,
    /// What a sink has waiting: by sink, how many records.
    pub sinks: Vec<(Arc<str>, usize)>,
    /// How many keys there are: by namespace.
    pub keys: Vec<(Arc<str>, usize)>,
    /// The segments in order: their names and how many bytes of each are in use.
    pub segments: Vec<(String, u64)>,
}

impl ReadOnlyStore {
    /// Opens the store in a folder to be read.
    ///
    /// # Errors
    /// [`OpenError`]; [`OpenError::NoStore`] where there is none.
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        Self::open_on(Arc::new(ReadOnlyDisk::new(folder)))
    }

    /// As [`ReadOnlyStore::open`], on whatever a [`Disk`] is. Only what reads is called.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_on(disk: Arc<dyn Disk>) -> Result<Self, OpenError> {
        let mut attempts_left = ATTEMPTS;
        loop {
            let in_use = recover::in_use(&*disk)?;
            match recover::read(&*disk) {
                Ok(Some(mut log)) => {
                    let report = std::mem::take(&mut log.report);
                    return Ok(Self { disk, log, ahead: Ahead::default(), report, in_use });
                }
                Ok(None) => return Err(OpenError::NoStore { path: disk.path("") }),
                // A segment was given back, or its end was being written, while it was read.
                Err(_) if in_use && attempts_left > 0 => {
                    attempts_left -= 1;
                    std::thread::sleep(PAUSE);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// What reading it found. Of a store that is in use, a cut is where its process was writing.
    #[must_use]
    pub fn recovery(&self) -> &Recovery {
        &self.report
    }

    /// Its figures.
    #[must_use]
    pub fn stats(&self) -> ReadOnlyStats {
        let state = &self.log.state;
        let count = |names: Vec<Arc<str>>, count: &dyn Fn(&str) -> usize| {
            names.into_iter().map(|name| (Arc::clone(&name), count(&name))).collect()
        };
        ReadOnlyStats {
            format_version: self.log.format_version,
            in_use: self.in_use,
            live_bytes: state.live_bytes(),
            next_number: self.log.next_number,
            sinks: count(state.sinks(), &|sink| state.sink_records(sink, 0, usize::MAX).len()),
            keys: count(state.namespaces(), &|namespace| state.keys(namespace, &[], usize::MAX).len()),
            segments: self
                .log
                .segments
                .iter()
                .map(|(number, segment)| (crate::segment::name(*number), segment.bytes.into()))
                .collect(),
        }
    }

    fn read<T>(
        &self,
        place: Option<Place>,
        take: impl FnOnce(&EventView<'_>) -> Option<T>,
    ) -> Result<Option<T>, StoreError> {
        let Some(place) = place else { return Ok(None) };
        let segment = self.log.segments.get(&place.frame.segment);
        let source = segment.map(|segment| Source { file: &*segment.file, bytes: segment.bytes });
        let salt = Salt::new(self.log.mark.salt);
        read::event(&*self.disk, salt, place, None, source, &self.ahead, take).map(Some)
    }

    fn state(&self) -> &State {
        &self.log.state
    }
}

impl std::fmt::Debug for ReadOnlyStore {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ReadOnlyStore").field("folder", &self.disk.path("")).finish_non_exhaustive()
    }
}

impl Store for ReadOnlyStore {
    fn append(&self, _: &[Event]) -> Ticket {
        Ticket::resolved(0, Err(StoreError::ReadOnly))
    }

    fn sync(&self) -> Ticket {
        Ticket::resolved(0, Err(StoreError::ReadOnly))
    }

    fn clients(&self) -> Vec<Arc<str>> {
        self.state().clients()
    }

    fn session(&self, client: &str) -> Option<SessionFacts> {
        self.state().session(client)
    }

    fn queue(&self, client: &str, from: Number, max: usize) -> Vec<Queued> {
        self.state().queue(client, from, max)
    }

    fn message(&self, client: &str, number: Number) -> Result<Option<Delivered>, StoreError> {
        self.read(self.state().message(client, number), |event| read::message_for(client, event))
    }

    fn retained_topics(&self) -> Vec<Arc<str>> {
        self.state().retained_topics()
    }

    fn retained(&self, topic: &str) -> Result<Option<StoredMessage>, StoreError> {
        self.read(self.state().retained(topic), read::message_of)
    }

    fn sinks(&self) -> Vec<Arc<str>> {
        self.state().sinks()
    }

    fn sink_records(&self, sink: &str, from: Number, max: usize) -> Result<Vec<(Number, Bytes)>, StoreError> {
        let waiting = self.state().sink_records(sink, from, max).into_iter();
        waiting
            .filter_map(|(number, place)| match self.read(Some(place), read::sink_record_of) {
                Ok(record) => record.map(|record| Ok((number, record))),
                Err(error) => Some(Err(error)),
            })
            .collect()
    }

    fn namespaces(&self) -> Vec<Arc<str>> {
        self.state().namespaces()
    }

    fn keys(&self, namespace: &str, from: &[u8], max: usize) -> Vec<Bytes> {
        self.state().keys(namespace, from, max)
    }

    fn value(&self, namespace: &str, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.read(self.state().value(namespace, key), read::value_of)
    }
}
