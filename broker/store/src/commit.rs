//! The commit thread: takes what was appended, writes it, and syncs it for all who wait.
//!
//! While it syncs, the next chunk grows; that is what makes one fsync serve many. After a sync those who
//! waited come back one by one, so it gathers for a moment until as many are there as the last time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::Durability;
use crate::disk::DiskFile;
use crate::error::StoreError;
use crate::log_store::{Inner, Segment, Shared, poisoned};
use crate::mark::Position;
use crate::segment::{self, Header};
use crate::tail::Chunk;
use crate::ticket::Level;

/// Where nothing waits for an fsync, this many frames are worth a write...
const GATHER_FRAMES_MIN: u64 = 64;
/// ...more than this are never waited for...
const GATHER_FRAMES_MAX: u64 = 4_096;
/// ...and none is waited for longer than this.
const GATHER_US_MAX: u64 = 100;
/// Where an fsync is waited for, gathering takes at most this part of what the last fsync took...
const GATHER_SYNC_PART: u32 = 8;
/// ...and at most this.
const GATHER_SYNC_US_MAX: u64 = 2_000;

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
    frames_last: u64,
    sync_took: Duration,
}

impl Committer {
    /// Goes on at `end` of `file`.
    pub(crate) fn new(shared: Arc<Shared>, file: Arc<dyn DiskFile>, end: Position) -> Self {
        Self {
            shared,
            file,
            end,
            sequence: 0,
            unsynced_since: None,
            frames_last: 1,
            sync_took: Duration::ZERO,
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
        let mut gather_until = None;
        loop {
            inner.wake_at_frames = u64::MAX;
            if inner.refuses.is_some() && !inner.closing {
                return Job::Stop;
            }
            let sync_wanted = inner.sync_wanted > self.shared.progress.reached(Level::Durable);
            if let Some((frames, more)) = inner.tail.waiting() {
                let target = self.gather_frames();
                let until = *gather_until.get_or_insert_with(|| Instant::now() + self.gather_time());
                let go = more || sync_wanted || inner.closing || frames >= target;
                if go || Instant::now() >= until {
                    return inner.tail.take().map_or(Job::Stop, Job::Write);
                }
                inner.wake_at_frames = target;
                self.shared.work.wait_until(&mut inner, until);
            } else if sync_wanted {
                return Job::Sync;
            } else if inner.closing {
                return Job::Close;
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

    fn waits_for_sync(&self) -> bool {
        self.shared.config.durability == Durability::Fsync
    }

    fn gather_frames(&self) -> u64 {
        let least = if self.waits_for_sync() { 1 } else { GATHER_FRAMES_MIN };
        self.frames_last.clamp(least, GATHER_FRAMES_MAX)
    }

    fn gather_time(&self) -> Duration {
        if self.waits_for_sync() {
            (self.sync_took / GATHER_SYNC_PART).min(Duration::from_micros(GATHER_SYNC_US_MAX))
        } else {
            Duration::from_micros(GATHER_US_MAX)
        }
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
            self.shared.inner.lock().tail.durable = self.end;
        }
        self.shared.progress.reach(Level::Durable, self.sequence);
        Ok(())
    }

    fn sync_file(&self) -> Result<(), StoreError> {
        let name = segment::name(self.end.segment);
        self.file.sync().map_err(|error| poisoned("syncing", self.shared.disk.path(&name), &error))
    }

    /// Ends the segment, which is durable then in every mode, and begins the next.
    fn begin_segment(&mut self, header: Header) -> Result<(), StoreError> {
        self.sync()?;
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
        Ok(())
    }

    fn close(&self) -> Result<(), StoreError> {
        let path = || self.shared.disk.path(crate::mark::NAME);
        self.shared.mark.lock().sync().map_err(|error| poisoned("syncing", path(), &error))
    }
}

impl Inner {
    /// To be called after something was appended: whether the commit thread waits for that.
    pub(crate) fn wakes_commit(&self) -> bool {
        self.tail.waiting().is_some_and(|(frames, more)| more || frames >= self.wake_at_frames)
    }
}
