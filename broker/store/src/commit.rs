//! The commit thread: takes what was appended, writes it, and syncs it for all who wait.
//!
//! While it syncs, the next chunk grows; that is what makes one fsync serve many. After a sync those who
//! waited come back one by one, so it gathers until as many have come as the last fsync served, or for as long
//! as they keep coming, within bounds; whoever is alone does not wait.
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

/// What there is to do.
enum Job {
    Write(Arc<Chunk>),
    Sync,
    /// All is written; sync and end.
    Close,
    /// The store is poisoned.
    Stop,
}

/// The end of the log as the commit thread has written it.
pub(crate) struct Committer {
    shared: Arc<Shared>,
    file: Arc<dyn DiskFile>,
    end: Position,
    /// The last frame that was written.
    sequence: u64,
    /// Since when something is written and not synced.
    unsynced_since: Option<Instant>,
    /// How many frames are in what was written last, and how many bytes.
    frames_last: u64,
    bytes_last: u32,
    /// How many frames wait for an fsync at a time, as it was lately.
    frames_expected: u64,
    sync_took: Duration,
    /// How far the file was extended.
    reserved: u32,
    /// What it is extended by.
    zeros: Vec<u8>,
}

impl Committer {
    /// Goes on at `end` of `file`.
    pub(crate) fn new(shared: Arc<Shared>, file: Arc<dyn DiskFile>, end: Position) -> Self {
        let config = &shared.config;
        // Where nobody waits for an fsync there is nothing to be gained.
        let reserve_bytes = match config.durability {
            Durability::Fsync => RESERVE_BYTES.min(config.segment_bytes() / RESERVE_SEGMENT_PART),
            Durability::Interval(_) | Durability::Os => 0,
        };
        let zeros = vec![0; reserve_bytes as usize];
        Self {
            shared,
            file,
            end,
            sequence: 0,
            unsynced_since: None,
            frames_last: 0,
            bytes_last: 0,
            frames_expected: 1,
            sync_took: Duration::ZERO,
            reserved: end.offset,
            zeros,
        }
    }

    /// Works until the store is closed or poisoned.
    pub(crate) fn run(mut self) {
        loop {
            let outcome = match self.next_job() {
                Job::Write(chunk) => self.write(chunk),
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
            inner.wake_at_frames = u64::MAX;
            if inner.refuses.is_some() && !inner.closing {
                return Job::Stop;
            }
            let sync_wanted = inner.sync_wanted > self.shared.progress.reached(Level::Durable);
            if let Some((frames, more)) = inner.tail.waiting() {
                let gather = gather.get_or_insert_with(|| Gather::new(self));
                let urgent = more || sync_wanted || inner.closing;
                let Some(until) = gather.waits(frames, Instant::now()).filter(|_| !urgent) else {
                    return inner.tail.take().map_or(Job::Stop, Job::Write);
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
                inner.wake_at_frames = 1;
                match self.sync_due() {
                    Some(due) if Instant::now() >= due => return Job::Sync,
                    Some(due) => {
                        self.shared.work.wait_until(&mut inner, due);
                    }
                    None => self.shared.work.wait(&mut inner),
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

    fn sync_due(&self) -> Option<Instant> {
        match self.shared.config.durability {
            Durability::Interval(interval) => self.unsynced_since.map(|since| since + interval),
            Durability::Fsync | Durability::Os => None,
        }
    }

    fn write(&mut self, chunk: Arc<Chunk>) -> Result<(), StoreError> {
        if let Some(header) = chunk.begins {
            self.begin_segment(header)?;
        }
        let name = segment::name(chunk.segment);
        self.file
            .write_all_at(&chunk.bytes, chunk.start.into())
            .map_err(|error| poisoned("writing to", self.shared.disk.path(&name), &error))?;
        let length = u32::try_from(chunk.bytes.len()).unwrap_or(u32::MAX);
        self.end = Position { segment: chunk.segment, offset: chunk.start.saturating_add(length) };
        self.bytes_last = length;
        self.sequence = chunk.sequence;
        self.frames_last = chunk.frames;
        let since = *self.unsynced_since.get_or_insert_with(Instant::now);
        let mut inner = self.shared.inner.lock();
        inner.tail.written(chunk);
        if let Some(segment) = inner.segments.get_mut(&self.end.segment) {
            segment.bytes = self.end.offset;
        }
        drop(inner);
        self.shared.progress.reach(Level::Written, self.sequence);
        match self.shared.config.durability {
            Durability::Fsync => self.sync(),
            Durability::Interval(interval) if since.elapsed() >= interval => self.sync(),
            Durability::Interval(_) | Durability::Os => Ok(()),
        }
    }

    /// Extends the file when what is written comes near its end. Done when those who waited have been told, so
    /// that it holds up nobody; that it cannot be done is no fault yet.
    fn reserve(&mut self) {
        let step = u32::try_from(self.zeros.len()).unwrap_or(0);
        let (end, from) = (self.end.offset, self.reserved.max(self.end.offset));
        let few_bytes = step / RESERVE_AGAIN_PART;
        // What is written in large pieces gains little.
        if from - end >= few_bytes || self.bytes_last > few_bytes {
            return;
        }
        let until = end.saturating_add(step).min(self.shared.config.segment_bytes());
        let zeros = self.zeros.get(..until.saturating_sub(from) as usize).unwrap_or_default();
        if !zeros.is_empty() && self.file.write_all_at(zeros, from.into()).is_ok() {
            self.reserved = until;
        }
    }

    /// Gives back what the file was extended by. What cannot be given back does no harm.
    fn unreserve(&mut self) {
        if self.reserved > self.end.offset {
            drop(self.file.truncate(self.end.offset.into()));
            self.reserved = self.end.offset;
        }
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        if self.unsynced_since.is_some() {
            let started = Instant::now();
            self.sync_file()?;
            self.sync_took = started.elapsed();
            // Before anybody is told: what was acknowledged is never beyond the mark, unless the power fails.
            self.shared
                .mark
                .lock()
                .note(self.end)
                .map_err(|error| poisoned("writing to", self.shared.disk.path(crate::mark::NAME), &error))?;
            self.unsynced_since = None;
            let mut inner = self.shared.inner.lock();
            inner.tail.durable = self.end;
            inner.syncs += 1;
            inner.last_sync = self.sync_took;
            // Those who are told now come back to those who wait already.
            let waiting = inner.tail.waiting().map_or(0, |(frames, _)| frames);
            drop(inner);
            let expected = self.frames_expected - self.frames_expected.div_ceil(EXPECTED_FALLS_PART);
            self.frames_expected = expected.max(self.frames_last + waiting);
        }
        self.shared.progress.reach(Level::Durable, self.sequence);
        self.reserve();
        Ok(())
    }

    fn sync_file(&self) -> Result<(), StoreError> {
        let name = segment::name(self.end.segment);
        self.file.sync().map_err(|error| poisoned("syncing", self.shared.disk.path(&name), &error))
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
        self.file = file;
        self.end = Position { segment, offset: bytes };
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

impl Inner {
    /// To be called after something was appended: whether the commit thread waits for that.
    pub(crate) fn wakes_commit(&self) -> bool {
        self.tail.waiting().is_some_and(|(frames, more)| more || frames >= self.wake_at_frames)
    }
}
