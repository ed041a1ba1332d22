//! The commit thread: takes what was appended, writes it, and syncs it for all who wait.
//!
//! While it syncs, the next chunk grows; that is what makes one fsync serve many. After a sync those who
//! waited come back one by one, so it gathers until as many have come as the last fsync served, or for as long
//! as they keep coming, within bounds; whoever is alone does not wait.
//!
//! Where no fsync is waited for, handing over to another thread costs more than the write: whoever appends writes, and
//! what others append meanwhile too ([`Shared::have_written`]). The thread has the rest: where a segment begins, where
//! the disk is slow, what is large.
//!
//! What nobody waits for, as that a message was acknowledged, lingers: it is written with what comes next, or in a while.
//!
//! An fsync of a file that has grown has to write where its new blocks are, too. So the file is extended by
//! zeros in steps, ahead of what is written: then most fsyncs are of blocks that are there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;

use crate::config::Durability;
use crate::disk::DiskFile;
use crate::error::StoreError;
use crate::log_store::{Inner, Segment, Shared, poisoned};
use crate::mark::Position;
use crate::segment::{self, Header};
use crate::tail::Chunk;
use crate::ticket::Level;

/// Where nothing waits for an fsync, this many frames are worth a write...
const GATHER_FRAMES: u64 = 64;
/// ...and none is waited for longer than this.
const GATHER_US_MAX: u64 = 100;
/// Where an fsync is waited for, and several did so lately, gathering ends when as many have come, or when nothing
/// has come for this part of what the last fsync took, within these bounds...
const GATHER_QUIET_PART: u32 = 8;
const GATHER_QUIET_US_MIN: u64 = 40;
const GATHER_QUIET_US_MAX: u64 = 100;
/// ...or after so many times what it took, within these bounds.
const GATHER_SYNCS: u32 = 2;
const GATHER_SYNC_US_MIN: u64 = 500;
const GATHER_SYNC_US_MAX: u64 = 2_000;
/// How many are expected falls by this part with each fsync that fewer have waited for.
const EXPECTED_FALLS_PART: u64 = 8;
/// A wait that is shorter than this is not worth sleeping: a timer is not that exact.
const SLEEP_US_MIN: u64 = 60;
/// Where an fsync takes less than this, the first who comes back after it is watched for as well.
const WATCH_SYNC_US_MAX: u64 = 400;
/// A file is extended by so much at once, and by no more than this part of a segment.
const RESERVE_BYTES: u32 = 1024 * 1024;
const RESERVE_SEGMENT_PART: u32 = 8;
/// It is extended again when less than this part of that is left.
const RESERVE_AGAIN_PART: u32 = 4;
/// Whoever appends writes no more at once than this...
const HERE_BYTES_MAX: usize = 64 * 1024;
/// ...no more often, for what others have appended meanwhile...
const HERE_WRITES_MAX: usize = 4;
/// ...and not for so long after a write that took longer than that: the disk holds up those who write.
const HERE_PAUSE: Duration = Duration::from_secs(1);
const HERE_SLOW: Duration = Duration::from_millis(10);

/// What nobody waits for is written after so long at the latest...
const LINGERS_MAX: Duration = Duration::from_millis(5);
/// ...and as soon as so much waits to be written.
const LINGERING_BYTES_MAX: usize = 32 * 1024;

/// What there is to do.
enum Job {
    Write,
    Sync,
    /// All is written; sync and end.
    Close,
    /// The store is poisoned.
    Stop,
}

/// The end of the log as it is written. For who has taken a chunk from the tail.
pub(crate) struct Written {
    file: Arc<dyn DiskFile>,
    end: Position,
    /// The last frame that was written.
    sequence: u64,
    /// How many frames are in what was written last, and how many bytes.
    frames_last: u64,
    bytes_last: u32,
}

impl Written {
    /// Everything up to `end` of `file`.
    pub(crate) fn new(file: Arc<dyn DiskFile>, end: Position) -> Self {
        Self { file, end, sequence: 0, frames_last: 0, bytes_last: 0 }
    }
}

impl Shared {
    /// Writes `chunk`, which was taken from the tail.
    fn write(&self, chunk: &Chunk) -> Result<(), StoreError> {
        let mut written = self.written.lock();
        let name = segment::name(chunk.segment);
        written
            .file
            .write_all_at(&chunk.bytes, chunk.start.into())
            .map_err(|error| poisoned("writing to", self.disk.path(&name), &error))?;
        written.bytes_last = u32::try_from(chunk.bytes.len()).unwrap_or(u32::MAX);
        let offset = chunk.start.saturating_add(written.bytes_last);
        written.end = Position { segment: chunk.segment, offset };
        written.sequence = chunk.sequence;
        written.frames_last = chunk.frames;
        Ok(())
    }

    /// To be called after something was appended: has it written, by this thread where nobody waits for an fsync.
    pub(crate) fn have_written<'a>(&'a self, mut inner: MutexGuard<'a, Inner>) {
        let mut taken = match self.config.durability {
            Durability::Fsync => None,
            Durability::Interval(_) | Durability::Os => inner.take_here(),
        };
        for writes in 1.. {
            let Some(chunk) = taken else { break };
            drop(inner);
            let started = Instant::now();
            if let Err(error) = self.write(&chunk) {
                return self.poison(error);
            }
            let sequence = chunk.sequence;
            inner = self.inner.lock();
            if started.elapsed() > HERE_SLOW {
                inner.slow_until = Some(started + HERE_PAUSE);
            }
            inner.note_written(chunk);
            taken = if writes < HERE_WRITES_MAX { inner.take_here() } else { None };
            if taken.is_none() {
                self.wake_commit(inner);
                return self.progress.reach(Level::Written, sequence);
            }
            MutexGuard::unlocked(&mut inner, || self.progress.reach(Level::Written, sequence));
        }
        self.wake_commit(inner);
    }

    /// To be called after something was appended that nobody waits for.
    pub(crate) fn let_linger<'a>(&'a self, mut inner: MutexGuard<'a, Inner>) {
        let is_much = inner.tail.backlog_bytes() > LINGERING_BYTES_MAX;
        if is_much || inner.tail.waiting().is_some_and(|(_, more)| more) {
            inner.lingers_since = None;
            return self.have_written(inner);
        }
        inner.lingers_since.get_or_insert_with(Instant::now);
        let wake = std::mem::take(&mut inner.waits_for_lingering);
        drop(inner);
        if wake {
            self.work.notify_one();
        }
    }

    fn wake_commit(&self, mut inner: MutexGuard<'_, Inner>) {
        let wake = inner.wakes_commit();
        if wake {
            inner.wake_at_frames = u64::MAX;
        }
        drop(inner);
        if wake {
            self.work.notify_one();
        }
    }
}

impl Inner {
    /// Takes what whoever appends may write itself.
    fn take_here(&mut self) -> Option<Arc<Chunk>> {
        if let Some(until) = self.slow_until {
            if Instant::now() < until {
                return None;
            }
            self.slow_until = None;
        }
        if self.refuses.is_some() || self.tail.is_being_written() {
            return None;
        }
        self.take_if(|chunk| chunk.begins.is_none() && chunk.bytes.len() <= HERE_BYTES_MAX)
    }

    fn take_if(&mut self, is_wanted: impl FnOnce(&Chunk) -> bool) -> Option<Arc<Chunk>> {
        let chunk = self.tail.take_if(is_wanted)?;
        // What is in another chunk is not left to linger.
        self.lingers_since = None;
        Some(chunk)
    }

    /// Notes that `chunk` is written. To be called before anybody is told.
    fn note_written(&mut self, chunk: Arc<Chunk>) {
        self.unsynced_since.get_or_insert_with(Instant::now);
        if let Some(segment) = self.segments.get_mut(&chunk.segment) {
            segment.bytes = chunk.end();
        }
        self.tail.written(chunk);
    }

    /// Whether the commit thread waits for what is there now. Who writes looks for more when it is done, and asks then.
    fn wakes_commit(&self) -> bool {
        let is_enough = |(frames, more)| more || frames >= self.wake_at_frames;
        !self.tail.is_being_written()
            && (self.waits_for_writer
                || self.waits_for_first && self.unsynced_since.is_some()
                || self.tail.waiting().is_some_and(is_enough))
    }

    /// Whether nothing is written any more.
    fn is_stopped(&self) -> bool {
        self.refuses.as_ref().is_some_and(|error| !(self.closing && *error == StoreError::Closed))
    }
}

/// The commit thread.
pub(crate) struct Committer {
    shared: Arc<Shared>,
    /// How many frames wait for an fsync at a time, as it was lately.
    frames_expected: u64,
    sync_took: Duration,
    /// How far the file was extended.
    reserved: u32,
    /// What it is extended by.
    zeros: Vec<u8>,
}

impl Committer {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let config = &shared.config;
        // Where nobody waits for an fsync there is nothing to be gained.
        let reserve_bytes = match config.durability {
            Durability::Fsync => RESERVE_BYTES.min(config.segment_bytes() / RESERVE_SEGMENT_PART),
            Durability::Interval(_) | Durability::Os => 0,
        };
        let zeros = vec![0; reserve_bytes as usize];
        let reserved = shared.written.lock().end.offset;
        Self { shared, frames_expected: 1, sync_took: Duration::ZERO, reserved, zeros }
    }

    /// Works until the store is closed or poisoned.
    pub(crate) fn run(mut self) {
        loop {
            let outcome = match self.next_job() {
                Job::Write => self.write(),
                Job::Sync => self.sync(),
                Job::Close => {
                    if let Err(error) = self.sync().and_then(|()| self.close()) {
                        self.shared.poison(error);
                    }
                    return self.shared.progress.fail(StoreError::Closed);
                }
                Job::Stop => return self.shared.give_up(),
            };
            if let Err(error) = outcome {
                return self.shared.poison(error);
            }
        }
    }

    fn next_job(&self) -> Job {
        let mut inner = self.shared.inner.lock();
        let mut gather = None;
        let mut watched = false;
        loop {
            (inner.wake_at_frames, inner.waits_for_first) = (u64::MAX, false);
            inner.waits_for_lingering = false;
            if inner.is_stopped() {
                return Job::Stop;
            }
            let sync_wanted = inner.sync_wanted > self.shared.progress.reached(Level::Durable);
            inner.waits_for_writer = inner.tail.is_being_written();
            if inner.waits_for_writer {
                self.shared.work.wait(&mut inner);
            } else if let Some((frames, more)) = inner.tail.waiting() {
                let urgent = more || sync_wanted || inner.closing;
                if let Some(until) = self.lingers_until(&inner).filter(|_| !urgent) {
                    inner.wake_at_frames = 1;
                    self.shared.work.wait_until(&mut inner, until);
                    continue;
                }
                let gather = gather.get_or_insert_with(|| Gather::new(self));
                let Some(until) = gather.waits(frames, Instant::now()).filter(|_| !urgent) else {
                    return Job::Write;
                };
                if gather.quiet < Duration::from_micros(SLEEP_US_MIN) {
                    let before = inner.tail.sequence - frames;
                    MutexGuard::unlocked(&mut inner, || gather.watch(&self.shared.appended, before));
                } else {
                    inner.wake_at_frames = gather.enough_frames;
                    self.shared.work.wait_until(&mut inner, until);
                }
            } else if sync_wanted {
                return Job::Sync;
            } else if inner.closing {
                return Job::Close;
            } else if !watched && self.waits_for_many() {
                watched = true;
                let before = inner.tail.sequence;
                let mut first = Gather { enough_frames: 1, ..Gather::new(self) };
                MutexGuard::unlocked(&mut inner, || first.watch(&self.shared.appended, before));
            } else {
                (inner.wake_at_frames, inner.waits_for_lingering) = (1, true);
                match self.sync_due(&inner) {
                    Some(due) if Instant::now() >= due => return Job::Sync,
                    Some(due) => {
                        self.shared.work.wait_until(&mut inner, due);
                    }
                    None => {
                        inner.waits_for_first = self.syncs_by_the_clock();
                        self.shared.work.wait(&mut inner);
                    }
                }
            }
        }
    }

    /// Whether several wait for an fsync at a time, and it is so quick that they are back before a thread that
    /// sleeps is awake.
    fn waits_for_many(&self) -> bool {
        self.shared.config.durability == Durability::Fsync
            && self.frames_expected > 1
            && self.sync_took < Duration::from_micros(WATCH_SYNC_US_MAX)
    }

    /// How long all that waits to be written may go on waiting, where nobody waits for it.
    fn lingers_until(&self, inner: &Inner) -> Option<Instant> {
        let written = self.shared.progress.reached(Level::Written);
        if self.shared.wanted.load(Ordering::Relaxed) > written {
            return None;
        }
        inner.lingers_since.map(|since| since + LINGERS_MAX).filter(|until| Instant::now() < *until)
    }

    fn syncs_by_the_clock(&self) -> bool {
        matches!(self.shared.config.durability, Durability::Interval(_))
    }

    fn sync_due(&self, inner: &Inner) -> Option<Instant> {
        match self.shared.config.durability {
            Durability::Interval(interval) => inner.unsynced_since.map(|since| since + interval),
            Durability::Fsync | Durability::Os => None,
        }
    }

    fn write(&mut self) -> Result<(), StoreError> {
        let Some(chunk) = self.shared.inner.lock().take_if(|_| true) else { return Ok(()) };
        if let Some(header) = chunk.begins {
            self.begin_segment(header)?;
        }
        self.shared.write(&chunk)?;
        let sequence = chunk.sequence;
        let mut inner = self.shared.inner.lock();
        inner.note_written(chunk);
        let since = inner.unsynced_since;
        drop(inner);
        self.shared.progress.reach(Level::Written, sequence);
        match self.shared.config.durability {
            Durability::Fsync => self.sync(),
            Durability::Interval(interval) if since.is_some_and(|since| since.elapsed() >= interval) => {
                self.sync()
            }
            Durability::Interval(_) | Durability::Os => Ok(()),
        }
    }

    /// Extends the file when what is written comes near its end. Done when those who waited have been told, so
    /// that it holds up nobody; that it cannot be done is no fault yet.
    fn reserve(&mut self) {
        let step = u32::try_from(self.zeros.len()).unwrap_or(0);
        let written = self.shared.written.lock();
        let (end, from) = (written.end.offset, self.reserved.max(written.end.offset));
        let few_bytes = step / RESERVE_AGAIN_PART;
        // What is written in large pieces gains little.
        if from - end >= few_bytes || written.bytes_last > few_bytes {
            return;
        }
        let until = end.saturating_add(step).min(self.shared.config.segment_bytes());
        let zeros = self.zeros.get(..until.saturating_sub(from) as usize).unwrap_or_default();
        if !zeros.is_empty() && written.file.write_all_at(zeros, from.into()).is_ok() {
            self.reserved = until;
        }
    }

    /// Gives back what the file was extended by. What cannot be given back does no harm.
    fn unreserve(&mut self) {
        let written = self.shared.written.lock();
        if self.reserved > written.end.offset {
            drop(written.file.truncate(written.end.offset.into()));
            self.reserved = written.end.offset;
        }
    }

    /// Syncs what is written. Others may write meanwhile.
    fn sync(&mut self) -> Result<(), StoreError> {
        let mut inner = self.shared.inner.lock();
        let is_synced = inner.unsynced_since.take().is_none();
        drop(inner);
        if is_synced {
            return Ok(());
        }
        let written = self.shared.written.lock();
        let (file, end, sequence) = (Arc::clone(&written.file), written.end, written.sequence);
        let frames_last = written.frames_last;
        drop(written);
        let started = Instant::now();
        let path = || self.shared.disk.path(&segment::name(end.segment));
        file.sync().map_err(|error| poisoned("syncing", path(), &error))?;
        self.sync_took = started.elapsed();
        // Before anybody is told: what was acknowledged is never beyond the mark, unless the power fails.
        self.shared
            .mark
            .lock()
            .note(end)
            .map_err(|error| poisoned("writing to", self.shared.disk.path(crate::mark::NAME), &error))?;
        let mut inner = self.shared.inner.lock();
        inner.tail.durable = end;
        inner.syncs += 1;
        inner.last_sync = self.sync_took;
        // Those who are told now come back to those who wait already.
        let waiting = inner.tail.waiting().map_or(0, |(frames, _)| frames);
        drop(inner);
        let expected = self.frames_expected - self.frames_expected.div_ceil(EXPECTED_FALLS_PART);
        self.frames_expected = expected.max(frames_last + waiting);
        self.shared.progress.reach(Level::Durable, sequence);
        self.reserve();
        Ok(())
    }

    /// Ends the segment, which is durable then in every mode, and begins the next.
    fn begin_segment(&mut self, header: Header) -> Result<(), StoreError> {
        self.sync()?;
        self.unreserve();
        let mut mark = self.shared.mark.lock();
        let file = crate::log_store::create_segment(&*self.shared.disk, &mut mark, header)?;
        drop(mark);
        let mut inner = self.shared.inner.lock();
        let (bytes, segment) = (segment::HEADER_BYTES, header.segment);
        inner.segments.insert(segment, Segment { file: Arc::clone(&file), bytes });
        self.shared.consider_compaction(&mut inner);
        drop(inner);
        let mut written = self.shared.written.lock();
        written.file = file;
        written.end = Position { segment, offset: bytes };
        drop(written);
        self.reserved = bytes;
        Ok(())
    }

    fn close(&mut self) -> Result<(), StoreError> {
        self.unreserve();
        let path = || self.shared.disk.path(crate::mark::NAME);
        self.shared.mark.lock().sync().map_err(|error| poisoned("syncing", path(), &error))
    }
}

/// Waiting a moment for more to write at once.
struct Gather {
    ends_at: Instant,
    /// So many are enough.
    enough_frames: u64,
    /// Nothing new for so long is enough.
    quiet: Duration,
    frames_seen: u64,
    seen_at: Instant,
}

impl Gather {
    fn new(committer: &Committer) -> Self {
        let took = committer.sync_took;
        let (at_most, enough_frames, quiet) = match committer.shared.config.durability {
            Durability::Fsync if committer.frames_expected <= 1 => (Duration::ZERO, 1, Duration::ZERO),
            Durability::Fsync => {
                let quiet = (took / GATHER_QUIET_PART).clamp(
                    Duration::from_micros(GATHER_QUIET_US_MIN),
                    Duration::from_micros(GATHER_QUIET_US_MAX),
                );
                let at_most = (took * GATHER_SYNCS).clamp(
                    Duration::from_micros(GATHER_SYNC_US_MIN),
                    Duration::from_micros(GATHER_SYNC_US_MAX),
                );
                (at_most, committer.frames_expected, quiet)
            }
            Durability::Interval(_) | Durability::Os => {
                let at_most = Duration::from_micros(GATHER_US_MAX);
                (at_most, GATHER_FRAMES, at_most)
            }
        };
        let now = Instant::now();
        Self { ends_at: now + at_most, enough_frames, quiet, frames_seen: 0, seen_at: now }
    }

    /// Until when to wait for more than these; `None` is no longer.
    fn waits(&mut self, frames: u64, now: Instant) -> Option<Instant> {
        if frames != self.frames_seen {
            (self.frames_seen, self.seen_at) = (frames, now);
        }
        let until = self.ends_at.min(self.seen_at + self.quiet);
        (frames < self.enough_frames && now < until).then_some(until)
    }

    /// Waits without sleeping, and without holding up those who append.
    fn watch(&mut self, appended: &AtomicU64, before: u64) {
        let waiting = || appended.load(Ordering::Relaxed).saturating_sub(before);
        while self.waits(waiting(), Instant::now()).is_some() {
            std::thread::yield_now();
        }
    }
}
