//! Copying forward what is live, from the oldest segment on, and giving the rest back.
//!
//! Always the oldest segment: what it says is then either live, and copied to the end of the log as it is now,
//! or it has no effect on anything that is left. A settled message needs no tombstone. The price is that what
//! lives long is copied each time the log has come round, which is when half of it is garbage: at most one byte
//! is copied per byte appended.
//!
//! A step reads a bounded piece without any lock, and takes the store's lock once per frame.

use std::sync::Arc;

use crate::disk::DiskFile;
use crate::error::StoreError;
use crate::format;
use crate::frame::{self, Frame, Frames};
use crate::log_store::{Inner, Shared, poisoned};
use crate::mark;
use crate::segment::{self, HEADER_BYTES};
use crate::state::FramePlace;

/// How much of a segment one step looks at, unless one frame is larger.
const STEP_BYTES: usize = 256 * 1024;

/// So many segments may be much smaller than a segment may be, as restarts leave them, before they are merged.
const SMALL_SEGMENTS_MAX: usize = 32;

/// What one step of compaction did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompactStep {
    /// There is nothing that is worth it.
    Idle,
    /// It copied what is live in a piece of a segment.
    Copied {
        /// How many bytes it appended.
        bytes: u64,
    },
    /// It gave a segment back.
    GaveBack {
        /// How large that was.
        bytes: u64,
    },
}

/// The segment that is being given back, and how far it has been looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Victim {
    segment: u32,
    at: u32,
    bytes: u32,
}

impl Inner {
    /// Whether the ended segments are worth being compacted.
    pub(crate) fn is_worth_compacting(&self, shared: &Shared) -> bool {
        let Some(ended) = self.segments.len().checked_sub(1).filter(|ended| *ended > 0) else { return false };
        let active_bytes = self.segments.last_key_value().map_or(0, |(_, segment)| u64::from(segment.bytes));
        let all_bytes: u64 = self.segments.values().map(|segment| u64::from(segment.bytes)).sum();
        let ended_bytes = all_bytes - active_bytes;
        let full_bytes = u64::from(shared.config.segment_bytes());
        let small = ended > SMALL_SEGMENTS_MAX && ended_bytes < ended as u64 * full_bytes / 4;
        let slack_bytes = shared.config.compact_slack_bytes;
        small || ended_bytes > self.state.live_bytes().saturating_mul(2).saturating_add(slack_bytes)
    }
}

impl Shared {
    /// One step, whether or not it is worth it when `force`d.
    pub(crate) fn compact_step(&self, force: bool) -> Result<CompactStep, StoreError> {
        let mut cursor = self.victim.lock();
        let inner = self.inner.lock();
        if let Some(error) = &inner.refuses {
            return Err(error.clone());
        }
        let Some((number, oldest)) = inner.segments.first_key_value().filter(|_| inner.segments.len() > 1)
        else {
            return Ok(CompactStep::Idle);
        };
        let victim = match *cursor {
            Some(victim) => victim,
            None if force || inner.is_worth_compacting(self) => {
                Victim { segment: *number, at: HEADER_BYTES, bytes: oldest.bytes }
            }
            None => return Ok(CompactStep::Idle),
        };
        let file = Arc::clone(&oldest.file);
        let is_done = victim.at >= victim.bytes || !inner.state.is_any_live_in(victim.segment);
        drop(inner);
        // Of a segment in which nothing is live, nothing need be read.
        if is_done {
            self.give_back(victim)?;
            *cursor = None;
            return Ok(CompactStep::GaveBack { bytes: victim.bytes.into() });
        }
        let piece = self.read_piece(&*file, victim)?;
        let (at, bytes) = self.copy_piece(victim, &piece)?;
        *cursor = Some(Victim { at, ..victim });
        Ok(CompactStep::Copied { bytes })
    }

    /// Reads whole frames: a step's worth, or one that is larger.
    fn read_piece(&self, file: &dyn DiskFile, victim: Victim) -> Result<Vec<u8>, StoreError> {
        let left = (victim.bytes - victim.at) as usize;
        let mut piece = self.read_exact(file, victim, left.min(STEP_BYTES))?;
        let first = frame::length(&piece).unwrap_or_default();
        if first > piece.len() {
            piece = self.read_exact(file, victim, left.min(first))?;
        }
        Ok(piece)
    }

    fn read_exact(&self, file: &dyn DiskFile, victim: Victim, bytes: usize) -> Result<Vec<u8>, StoreError> {
        let mut piece = vec![0; bytes];
        let path = || self.disk.path(&segment::name(victim.segment));
        let count = file
            .read_at(&mut piece, victim.at.into())
            .map_err(|error| StoreError::Read { path: path(), cause: error.to_string().into() })?;
        piece.truncate(count);
        Ok(piece)
    }

    /// Copies what is live in `piece`. Says where the next piece begins, and how much was appended.
    fn copy_piece(&self, victim: Victim, piece: &[u8]) -> Result<(u32, u64), StoreError> {
        let mut rest = piece;
        let (mut at, mut copied) = (victim.at, 0);
        let damaged = |at: u32, what| StoreError::Corrupt {
            path: self.disk.path(&segment::name(victim.segment)),
            offset: at.into(),
            what,
        };
        while !rest.is_empty() {
            let (frame, length) = match frame::read(self.salt, rest) {
                Ok(read) => read,
                // The piece may end within a frame; the next begins with it.
                Err(_) if at > victim.at => break,
                Err(what) => return Err(damaged(at, what)),
            };
            let bytes = u32::try_from(length).unwrap_or(u32::MAX);
            let place = FramePlace { segment: victim.segment, at, bytes };
            match frame {
                Frame::Record { events, number } | Frame::Copies { events, next_number: number } => {
                    copied += self.copy_frame(events, number, place)?;
                }
                Frame::Durable { .. } => {}
            }
            at = at.saturating_add(bytes);
            rest = rest.get(length..).unwrap_or_default();
        }
        Ok((at, copied))
    }

    /// Copies what is live in one frame to the end of the log.
    fn copy_frame(&self, events: &[u8], number: u64, place: FramePlace) -> Result<u64, StoreError> {
        let located: Vec<_> = format::events(events).collect::<Result<_, _>>().map_err(|malformed| {
            let path = self.disk.path(&segment::name(place.segment));
            StoreError::Corrupt { path, offset: place.at.into(), what: malformed.0 }
        })?;
        let mut live = Vec::new();
        let mut inner = self.inner.lock();
        for (number, located) in (number..).zip(&located) {
            inner.state.copy_live(located, number, place, &mut live);
        }
        if live.is_empty() {
            return Ok(0);
        }
        let mut copies = Frames::default();
        copies.add_copies(self.salt, |out| out.extend_from_slice(&live));
        let next_number = inner.tail.next_number;
        let mut bytes = 0;
        for frame in copies.iter() {
            self.push_copies(&mut inner, frame, next_number)?;
            bytes += frame.len() as u64;
        }
        inner.compaction_copied_bytes += bytes;
        self.have_written(inner);
        Ok(bytes)
    }

    /// Removes a segment of which nothing is live any more, when the copies are on the disk.
    fn give_back(&self, victim: Victim) -> Result<(), StoreError> {
        self.sync().wait()?;
        let name = segment::name(victim.segment);
        self.mark
            .lock()
            .give_back(victim.segment + 1)
            .map_err(|error| self.poison_with(poisoned("writing to", self.disk.path(mark::NAME), &error)))?;
        // Readers that have the file open go on reading it.
        let mut inner = self.inner.lock();
        inner.segments.remove(&victim.segment);
        inner.compaction_freed_bytes += u64::from(victim.bytes);
        drop(inner);
        self.disk
            .remove(&name)
            .and_then(|()| self.disk.sync_folder())
            .map_err(|error| self.poison_with(poisoned("removing", self.disk.path(&name), &error)))
    }

    /// Compacts whenever it is worth it, until the store is closed or poisoned.
    pub(crate) fn run_compactor(&self) {
        loop {
            let mut inner = self.inner.lock();
            while !inner.closing && inner.refuses.is_none() && !inner.compaction_wanted {
                self.compaction.wait(&mut inner);
            }
            if inner.closing || inner.refuses.is_some() {
                return;
            }
            inner.compaction_wanted = false;
            drop(inner);
            while let Ok(CompactStep::Copied { .. } | CompactStep::GaveBack { .. }) = self.paced_step() {}
        }
    }

    /// One step, and then what it has appended is waited for, so that compaction never fills the backlog.
    fn paced_step(&self) -> Result<CompactStep, StoreError> {
        let step = self.compact_step(false);
        match &step {
            Ok(CompactStep::Copied { bytes }) if *bytes > 0 => self.sync().wait()?,
            // Appends fill the backlog: let them be written.
            Err(StoreError::Backlog { .. }) => {
                self.sync().wait()?;
                return Ok(CompactStep::Copied { bytes: 0 });
            }
            Err(error @ (StoreError::Corrupt { .. } | StoreError::Read { .. })) => {
                self.inner.lock().compaction_fault = Some(error.clone());
            }
            Ok(_) | Err(_) => {}
        }
        step
    }
}
