//! The store on a log.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::codec::Malformed;
use crate::commit::{Committer, Written};
use crate::compact::{CompactStep, Victim};
use crate::config::{Compaction, Config, Durability};
use crate::disk::{self, Disk, DiskFile, OsDisk};
use crate::error::{OpenError, StoreError};
use crate::event::{Event, Number, Published, StoredMessage};
use crate::format::{self, EventView};
use crate::frame::{Frames, Salt, Unnumbered};
use crate::mark::{self, Mark, Position};
use crate::read::{self, Ahead, Source};
use crate::recover::{self, Recovered, Recovery, io_error};
use crate::segment::{self, FORMAT_VERSION, HEADER_BYTES, Header};
use crate::state::{FramePlace, Place, State};
use crate::store::{Delivered, Queued, SessionFacts, Store};
use crate::tail::Tail;
use crate::ticket::{Level, Progress, Ticket};

/// A thread that appends keeps a buffer of at most this size.
const FRAMES_BYTES_KEPT: usize = 256 * 1024;

/// A store on an append-only log in a folder.
///
/// Dropping it closes it: everything that was appended is written and synced.
pub struct LogStore {
    pub(crate) shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    recovery: Recovery,
    /// Held for as long as the files are used.
    _folder: Box<dyn Any + Send + Sync>,
}

/// What the store's threads share.
pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) config: Config,
    pub(crate) salt: Salt,
    pub(crate) inner: Mutex<Inner>,
    /// The sequence of the tail, for the commit thread to watch without the lock.
    pub(crate) appended: AtomicU64,
    /// Somebody waits for all up to this sequence, or may be about to.
    pub(crate) wanted: AtomicU64,
    /// The commit thread waits for this.
    pub(crate) work: Condvar,
    /// The compaction thread waits for this.
    pub(crate) compaction: Condvar,
    pub(crate) progress: Arc<Progress>,
    /// Locked alone.
    pub(crate) ahead: Ahead,
    /// Locked after nothing, by who has taken a chunk from the tail, and for a moment by who syncs.
    pub(crate) written: Mutex<Written>,
    /// Locked after `inner`, or alone.
    pub(crate) mark: Mutex<Mark>,
    /// Locked before `inner`.
    pub(crate) victim: Mutex<Option<Victim>>,
}

/// What is under the store's lock.
pub(crate) struct Inner {
    pub(crate) tail: Tail,
    pub(crate) state: State,
    pub(crate) segments: BTreeMap<u32, Segment>,
    /// Why nothing is taken any more.
    pub(crate) refuses: Option<StoreError>,
    pub(crate) closing: bool,
    /// The commit thread wants to be woken when so many frames wait.
    pub(crate) wake_at_frames: u64,
    /// The commit thread wants to be woken when who writes is done.
    pub(crate) waits_for_writer: bool,
    /// The commit thread wants to be woken when something is written that is to be synced.
    pub(crate) waits_for_first: bool,
    /// Since when something waits to be written that nobody waits for, and whether the commit thread wants to be woken when
    /// there is such.
    pub(crate) lingers_since: Option<Instant>,
    pub(crate) waits_for_lingering: bool,
    /// Until when the disk is held to be slow.
    pub(crate) slow_until: Option<Instant>,
    /// Since when something is written and not synced.
    pub(crate) unsynced_since: Option<Instant>,
    /// Somebody waits for all up to this sequence to be synced, whatever the durability.
    pub(crate) sync_wanted: u64,
    pub(crate) compaction_wanted: bool,
    pub(crate) compaction_fault: Option<StoreError>,
    /// Fsyncs of the log, and how long the last took.
    pub(crate) syncs: u64,
    pub(crate) last_sync: Duration,
    pub(crate) compaction_copied_bytes: u64,
    pub(crate) compaction_freed_bytes: u64,
}

/// A segment that has a file.
pub(crate) struct Segment {
    pub(crate) file: Arc<dyn DiskFile>,
    /// How much is in it.
    pub(crate) bytes: u32,
}

/// Figures of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// Segments of the log.
    pub segments: usize,
    /// How large they are together, in bytes.
    pub log_bytes: u64,
    /// How large a log of nothing but what is live would be at most, in bytes.
    pub live_bytes: u64,
    /// Messages that wait or are under way, once per receiver.
    pub queued: u64,
    /// The number that the next record gets.
    pub next_number: Number,
    /// Records that were appended and do not survive power loss yet.
    pub undurable_records: u64,
    /// Bytes that were appended and are not written yet.
    pub backlog_bytes: usize,
    /// Fsyncs of the log since it was opened.
    pub syncs: u64,
    /// How long the last of them took.
    pub last_sync: Duration,
    /// Bytes that compaction has copied forward since the store was opened.
    pub compaction_copied_bytes: u64,
    /// Bytes that compaction has given back since the store was opened.
    pub compaction_freed_bytes: u64,
    /// Why the store takes nothing more.
    pub refuses: Option<StoreError>,
    /// Why compaction has stopped: a segment cannot be read back.
    pub compaction_fault: Option<StoreError>,
}

impl Stats {
    /// The figures by name, for who publishes them.
    #[must_use]
    pub fn figures(&self) -> [(&'static str, u64); 12] {
        let micros = u64::try_from(self.last_sync.as_micros()).unwrap_or(u64::MAX);
        [
            ("disk/bytes", self.log_bytes),
            ("live/bytes", self.live_bytes),
            ("segments", self.segments as u64),
            ("queued", self.queued),
            ("backlog/bytes", self.backlog_bytes as u64),
            ("undurable/records", self.undurable_records),
            ("syncs", self.syncs),
            ("sync/microseconds", micros),
            ("compaction/copied/bytes", self.compaction_copied_bytes),
            ("compaction/freed/bytes", self.compaction_freed_bytes),
            ("refuses", self.refuses.is_some().into()),
            ("compaction/stopped", self.compaction_fault.is_some().into()),
        ]
    }
}

impl LogStore {
    /// Opens the store in a folder, or begins one there. Its parent folders are created.
    ///
    /// # Errors
    /// [`OpenError`], with nothing on the disk changed that was acknowledged.
    pub fn open(folder: &Path, config: Config) -> Result<Self, OpenError> {
        let was_there = folder.exists();
        Self::open_on(Arc::new(OsDisk::new(folder)), config).inspect_err(|_| {
            if !was_there {
                // It is empty then. If it cannot be removed, it is still empty.
                drop(std::fs::remove_dir(folder));
            }
        })
    }

    /// As [`LogStore::open`], on whatever a [`Disk`] is.
    ///
    /// # Errors
    /// [`OpenError`], with nothing on the disk changed that was acknowledged.
    pub fn open_on(disk: Arc<dyn Disk>, config: Config) -> Result<Self, OpenError> {
        let had_lock = disk.list().is_ok_and(|names| names.iter().any(|name| name == disk::LOCK_NAME));
        let folder = lock(&*disk)?;
        let begun = match recover::read(&*disk) {
            Ok(Some(recovered)) => go_on(&*disk, recovered),
            Ok(None) => begin(&*disk),
            Err(error) => Err(error),
        };
        let mut log = begun.inspect_err(|_| {
            if !had_lock {
                // It is held, so nobody else has it.
                drop(disk.remove(disk::LOCK_NAME));
            }
        })?;
        let end = log.end;
        let recovery = std::mem::take(&mut log.report);
        let Some(last) = log.segments.get(&end.segment) else {
            return Err(OpenError::Missing { path: disk.path(&segment::name(end.segment)) });
        };
        let written = Written::new(Arc::clone(&last.file), end);
        let shared = Arc::new(Shared::new(disk, config, log, written));
        let committer = Committer::new(Arc::clone(&shared));
        let mut threads = vec![spawn("store-commit", &shared, move |_| committer.run())?];
        if shared.config.compaction == Compaction::Background {
            shared.consider_compaction(&mut shared.inner.lock());
            threads.push(spawn("store-compact", &shared, Shared::run_compactor)?);
        }
        Ok(Self { shared, threads, recovery, _folder: folder })
    }

    /// What opening it found.
    #[must_use]
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// Its figures.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let inner = self.shared.inner.lock();
        Stats {
            segments: inner.segments.len(),
            log_bytes: inner.segments.values().map(|segment| u64::from(segment.bytes)).sum(),
            live_bytes: inner.state.live_bytes(),
            queued: inner.state.queued(),
            next_number: inner.tail.next_number,
            undurable_records: inner.tail.sequence - self.shared.progress.reached(Level::Durable),
            backlog_bytes: inner.tail.backlog_bytes(),
            syncs: inner.syncs,
            last_sync: inner.last_sync,
            compaction_copied_bytes: inner.compaction_copied_bytes,
            compaction_freed_bytes: inner.compaction_freed_bytes,
            refuses: inner.refuses.clone(),
            compaction_fault: inner.compaction_fault.clone(),
        }
    }

    /// One step of compaction, worth it or not: a piece of the oldest segment is copied forward, or the
    /// segment is given back. For [`Compaction::Manual`].
    ///
    /// # Errors
    /// Why it cannot go on. What has been copied is not lost.
    pub fn compact_step(&self) -> Result<CompactStep, StoreError> {
        self.shared.compact_step(true)
    }

    /// Writes and syncs everything, and ends the store's threads.
    ///
    /// # Errors
    /// Why not all of it is durable.
    pub fn close(mut self) -> Result<(), StoreError> {
        self.stop();
        match &self.shared.inner.lock().refuses {
            None | Some(StoreError::Closed) => Ok(()),
            Some(error) => Err(error.clone()),
        }
    }

    /// The next record gets this number. For a store that has none yet.
    pub(crate) fn begin_numbers_at(&self, number: Number) {
        self.shared.inner.lock().tail.next_number = number;
    }

    /// Appends a message that has had its number elsewhere.
    pub(crate) fn append_message_with_number(
        &self,
        number: Number,
        published: &Published,
    ) -> Result<(), StoreError> {
        self.shared.append_copies(|out| format::write_message_with_number(number, published, out))
    }

    /// Appends a sink's record that has had its number elsewhere.
    pub(crate) fn append_sink_record_with_number(
        &self,
        number: Number,
        sink: &str,
        record: &[u8],
    ) -> Result<(), StoreError> {
        self.shared.append_copies(|out| format::write_sink_copied(number, sink, record, out))
    }

    fn stop(&mut self) {
        let mut inner = self.shared.inner.lock();
        inner.closing |= inner.refuses.is_none();
        inner.refuses.get_or_insert(StoreError::Closed);
        drop(inner);
        self.shared.work.notify_one();
        self.shared.compaction.notify_one();
        for thread in self.threads.drain(..) {
            // A thread that has panicked has nothing more to say here.
            drop(thread.join());
        }
    }
}

impl Drop for LogStore {
    fn drop(&mut self) {
        self.stop();
    }
}

impl std::fmt::Debug for LogStore {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("LogStore").field("folder", &self.shared.disk.path("")).finish_non_exhaustive()
    }
}

fn lock(disk: &dyn Disk) -> Result<Box<dyn Any + Send + Sync>, OpenError> {
    disk.lock().map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked { path: disk.path("") },
        io::ErrorKind::NotADirectory => OpenError::NotAFolder { path: disk.path("") },
        _ => io_error(disk, "opening", "", error),
    })
}

/// Begins a log in a folder in which, while it is locked, none was found. What of it is made before something
/// fails is removed.
fn begin(disk: &dyn Disk) -> Result<Recovered, OpenError> {
    begin_anew(disk).inspect_err(|_| {
        for name in [&segment::name(1), mark::NAME] {
            // That the disk fails is being reported.
            drop(disk.remove(name));
        }
    })
}

fn begin_anew(disk: &dyn Disk) -> Result<Recovered, OpenError> {
    let fail = |error| io_error(disk, "creating", mark::NAME, error);
    let file = disk.create(mark::NAME).or_else(|error| match error.kind() {
        // Its creation was interrupted before.
        io::ErrorKind::AlreadyExists => disk.open(mark::NAME),
        _ => Err(error),
    });
    // Hash maps have to be hard to predict too.
    let salt = std::hash::RandomState::new().hash_one(std::process::id());
    let mark = file.and_then(|file| Mark::create(file, salt)).map_err(fail)?;
    disk.sync_folder().map_err(fail)?;
    let recovered = recover::read(disk)?;
    drop(mark);
    match recovered {
        Some(recovered) => go_on(disk, recovered),
        None => Err(OpenError::Missing { path: disk.path(mark::NAME) }),
    }
}

/// Goes on with a log that was read: in a segment of its own, so that a segment has one writer.
fn go_on(disk: &dyn Disk, mut log: Recovered) -> Result<Recovered, OpenError> {
    log.make_durable(disk)?;
    log.tidy(disk)?;
    let goes_on_in_last = log.last_is_empty && log.report.cut.is_none();
    if !goes_on_in_last {
        let header = Header {
            version: FORMAT_VERSION,
            segment: log.end.segment.saturating_add(1),
            bytes_before: log.end.offset,
            salt: log.mark.salt,
            next_number: log.next_number,
        };
        let file = create_segment(disk, &mut log.mark, header).map_err(|error| match error {
            StoreError::Poisoned { doing, path, cause, kind } => {
                OpenError::Io { doing, path, source: io::Error::new(kind, cause.to_string()) }
            }
            other => OpenError::Io { doing: "opening", path: disk.path(""), source: io::Error::other(other) },
        })?;
        log.cut(disk)?;
        log.segments.insert(header.segment, Segment { file, bytes: HEADER_BYTES });
        log.end = Position { segment: header.segment, offset: HEADER_BYTES };
    }
    Ok(log)
}

/// Creates a segment. When this returns, it is on the disk, and the mark says so. When it fails, nothing of it
/// is left if that can be helped.
pub(crate) fn create_segment(
    disk: &dyn Disk,
    mark: &mut Mark,
    header: Header,
) -> Result<Arc<dyn DiskFile>, StoreError> {
    let name = segment::name(header.segment);
    let fail = |error: io::Error| {
        // It may not be there, and it may not go away: it is known as unfinished in any case.
        drop(disk.remove(&name));
        poisoned("creating", disk.path(&name), &error)
    };
    let file = disk.create(&name).map_err(|error| poisoned("creating", disk.path(&name), &error))?;
    file.write_all_at(&header.to_bytes(), 0)
        .and_then(|()| file.sync())
        .and_then(|()| disk.sync_folder())
        .map_err(fail)?;
    mark.begin_segment(Position { segment: header.segment, offset: HEADER_BYTES })
        .map_err(|error| poisoned("writing to", disk.path(mark::NAME), &error))?;
    Ok(file)
}

pub(crate) fn poisoned(doing: &'static str, path: PathBuf, error: &io::Error) -> StoreError {
    StoreError::Poisoned { doing, path, cause: error.to_string().into(), kind: error.kind() }
}

fn spawn(
    name: &str,
    shared: &Arc<Shared>,
    work: impl FnOnce(&Shared) + Send + 'static,
) -> Result<JoinHandle<()>, OpenError> {
    let own = Arc::clone(shared);
    std::thread::Builder::new().name(name.to_owned()).spawn(move || work(&own)).map_err(|source| {
        shared.poison(StoreError::Closed);
        OpenError::Io { doing: "starting a thread for", path: shared.disk.path(""), source }
    })
}

impl Shared {
    fn new(disk: Arc<dyn Disk>, config: Config, log: Recovered, written: Written) -> Self {
        let inner = Inner {
            tail: Tail::new(log.mark.salt, log.end, log.next_number),
            state: log.state,
            segments: log.segments,
            refuses: None,
            closing: false,
            wake_at_frames: u64::MAX,
            waits_for_writer: false,
            waits_for_first: false,
            lingers_since: None,
            waits_for_lingering: false,
            slow_until: None,
            unsynced_since: None,
            sync_wanted: 0,
            compaction_wanted: false,
            compaction_fault: None,
            syncs: 0,
            last_sync: Duration::ZERO,
            compaction_copied_bytes: 0,
            compaction_freed_bytes: 0,
        };
        Self {
            disk,
            config,
            salt: Salt::new(log.mark.salt),
            inner: Mutex::new(inner),
            appended: AtomicU64::new(0),
            wanted: AtomicU64::new(0),
            work: Condvar::new(),
            compaction: Condvar::new(),
            progress: Arc::new(Progress::default()),
            ahead: Ahead::default(),
            written: Mutex::new(written),
            mark: Mutex::new(log.mark),
            victim: Mutex::new(None),
        }
    }

    /// Nothing is taken any more, and nobody waits any longer.
    pub(crate) fn poison(&self, error: StoreError) {
        let mut inner = self.inner.lock();
        inner.refuses = Some(error.clone());
        drop(inner);
        self.progress.fail(error);
        self.work.notify_one();
        self.compaction.notify_one();
    }

    /// Tells those who wait why nothing more is taken.
    pub(crate) fn give_up(&self) {
        let refuses = self.inner.lock().refuses.clone();
        self.progress.fail(refuses.unwrap_or(StoreError::Closed));
    }

    /// As [`Shared::poison`], and gives the reason back.
    pub(crate) fn poison_with(&self, error: StoreError) -> StoreError {
        self.poison(error.clone());
        error
    }

    /// Appends a frame, and has it applied to the state.
    fn push(
        &self,
        inner: &mut MutexGuard<'_, Inner>,
        frame: Unnumbered<'_>,
        number: Number,
        apply: impl FnOnce(&mut State, FramePlace) -> Result<u64, Malformed>,
    ) -> Result<u64, StoreError> {
        if let Some(error) = &inner.refuses {
            return Err(error.clone());
        }
        let Inner { tail, state, .. } = &mut **inner;
        let place = tail.push(frame, number, &self.config)?;
        self.appended.store(tail.sequence, Ordering::Relaxed);
        // What was encoded a moment ago can be read; only the index can be full.
        apply(state, place).map_err(|malformed| {
            let path = self.disk.path(&segment::name(place.segment));
            let error = StoreError::Corrupt { path, offset: place.at.into(), what: malformed.0 };
            inner.refuses = Some(error.clone());
            self.work.notify_one();
            error
        })
    }

    /// Appends a frame of copies and applies it.
    pub(crate) fn push_copies(
        &self,
        inner: &mut MutexGuard<'_, Inner>,
        frame: Unnumbered<'_>,
        number: Number,
    ) -> Result<u64, StoreError> {
        self.push(inner, frame, number, |state, place| state.apply(frame.events(), number, place))
    }

    pub(crate) fn consider_compaction(&self, inner: &mut Inner) {
        if self.config.compaction == Compaction::Background
            && !inner.compaction_wanted
            && inner.is_worth_compacting(self)
        {
            inner.compaction_wanted = true;
            self.compaction.notify_one();
        }
    }

    /// Appends records, all of them or none. The ticket is that of the last, its number that of the first event. Where nobody
    /// is going to wait for it they may be written with what comes next.
    pub(crate) fn append<'a>(
        &self,
        records: impl Iterator<Item = &'a [Event]> + Clone,
        is_awaited: bool,
    ) -> Ticket {
        thread_local!(static FRAMES: RefCell<Frames> = RefCell::default());
        let mut frames = FRAMES.take();
        frames.add_records(self.salt, records.clone(), format::are_small, format::write_event_in_frame);
        let ticket = self.append_frames(&frames, records.flatten(), is_awaited);
        frames.clear(FRAMES_BYTES_KEPT);
        FRAMES.set(frames);
        ticket
    }

    /// Appends the frames of these events.
    fn append_frames<'a>(
        &self,
        frames: &Frames,
        mut events: impl Iterator<Item = &'a Event>,
        is_awaited: bool,
    ) -> Ticket {
        let mut inner = self.inner.lock();
        let first = inner.tail.next_number;
        let live_before = inner.state.live_bytes();
        let frame_bytes = || frames.iter().map(Unnumbered::len);
        if let Err(error) = inner.tail.has_room(frame_bytes(), &self.config) {
            return Ticket::resolved(0, Err(inner.refuses.clone().unwrap_or(error)));
        }
        for frame in frames.iter() {
            let number = inner.tail.next_number;
            let apply = |state: &mut State, place| state.apply_said(&mut events, frame, number, place);
            match self.push(&mut inner, frame, number, apply) {
                Ok(count) => inner.tail.next_number = number.saturating_add(count),
                Err(error) => return Ticket::resolved(0, Err(error)),
            }
        }
        let sequence = inner.tail.sequence;
        if inner.state.live_bytes() < live_before {
            self.consider_compaction(&mut inner);
        }
        if is_awaited {
            self.wanted.fetch_max(sequence, Ordering::Relaxed);
            self.have_written(inner);
        } else {
            self.let_linger(inner);
        }
        Ticket::on(&self.progress, self.acknowledged_at(), sequence, first)
    }

    /// Somebody waits for all up to `sequence` to be kept, which may have been appended for nobody to wait for.
    pub(crate) fn want(&self, sequence: u64) {
        if sequence > self.wanted.load(Ordering::Relaxed) {
            let inner = self.inner.lock();
            self.wanted.fetch_max(sequence, Ordering::Relaxed);
            drop(inner);
            self.work.notify_one();
        }
    }

    /// How far a record must have come to be acknowledged.
    pub(crate) fn acknowledged_at(&self) -> Level {
        match self.config.durability {
            Durability::Fsync => Level::Durable,
            Durability::Interval(_) | Durability::Os => Level::Written,
        }
    }

    fn append_copies(&self, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), StoreError> {
        let mut frames = Frames::default();
        frames.add_copies(self.salt, write);
        let mut inner = self.inner.lock();
        let next_number = inner.tail.next_number;
        for frame in frames.iter() {
            self.push_copies(&mut inner, frame, next_number)?;
        }
        self.have_written(inner);
        Ok(())
    }

    pub(crate) fn sync(&self) -> Ticket {
        let mut inner = self.inner.lock();
        if let Some(error) = inner.refuses.clone().filter(|_| !inner.closing) {
            return Ticket::resolved(0, Err(error));
        }
        let sequence = inner.tail.sequence;
        inner.sync_wanted = inner.sync_wanted.max(sequence);
        drop(inner);
        self.work.notify_one();
        Ticket::on(&self.progress, Level::Durable, sequence, 0)
    }

    /// Reads the event that stands at the place that `find` finds.
    fn read<T>(
        &self,
        find: impl FnOnce(&State) -> Option<Place>,
        take: impl FnOnce(&EventView<'_>) -> Option<T>,
    ) -> Result<Option<T>, StoreError> {
        let inner = self.inner.lock();
        let Some(place) = find(&inner.state) else { return Ok(None) };
        let unwritten = inner.tail.frame(place.frame);
        let segment = inner.segments.get(&place.frame.segment);
        let segment = segment.map(|segment| (Arc::clone(&segment.file), segment.bytes));
        drop(inner);
        let source = segment.as_ref().map(|(file, bytes)| Source { file: &**file, bytes: *bytes });
        read::event(&*self.disk, self.salt, place, unwritten.as_deref(), source, &self.ahead, take).map(Some)
    }
}

impl Store for LogStore {
    fn append(&self, record: &[Event]) -> Ticket {
        self.shared.append(std::iter::once(record), true)
    }

    fn sync(&self) -> Ticket {
        self.shared.sync()
    }

    fn clients(&self) -> Vec<Arc<str>> {
        self.shared.inner.lock().state.clients()
    }

    fn session(&self, client: &str) -> Option<SessionFacts> {
        self.shared.inner.lock().state.session(client)
    }

    fn queue(&self, client: &str, from: Number, max: usize) -> Vec<Queued> {
        self.shared.inner.lock().state.queue(client, from, max)
    }

    fn message(&self, client: &str, number: Number) -> Result<Option<Delivered>, StoreError> {
        self.shared.read(|state| state.message(client, number), |event| read::message_for(client, event))
    }

    fn retained_topics(&self) -> Vec<Arc<str>> {
        self.shared.inner.lock().state.retained_topics()
    }

    fn retained(&self, topic: &str) -> Result<Option<StoredMessage>, StoreError> {
        self.shared.read(|state| state.retained(topic), read::message_of)
    }

    fn sinks(&self) -> Vec<Arc<str>> {
        self.shared.inner.lock().state.sinks()
    }

    fn sink_records(&self, sink: &str, from: Number, max: usize) -> Result<Vec<(Number, Bytes)>, StoreError> {
        let waiting = self.shared.inner.lock().state.sink_records(sink, from, max);
        let mut records = Vec::with_capacity(waiting.len());
        for (number, _) in waiting {
            // By number, not by place: it may have been copied meanwhile.
            let find = |state: &State| {
                state.sink_records(sink, number, 1).first().filter(|r| r.0 == number).map(|r| r.1)
            };
            let record = self.shared.read(find, read::sink_record_of)?;
            records.extend(record.map(|record| (number, record)));
        }
        Ok(records)
    }

    fn namespaces(&self) -> Vec<Arc<str>> {
        self.shared.inner.lock().state.namespaces()
    }

    fn keys(&self, namespace: &str, from: &[u8], max: usize) -> Vec<Bytes> {
        self.shared.inner.lock().state.keys(namespace, from, max)
    }

    fn value(&self, namespace: &str, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.shared.read(|state| state.value(namespace, key), read::value_of)
    }
}
