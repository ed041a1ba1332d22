//! The end of the log: what is appended and not written yet. Under the store's lock; the commit thread takes
//! **chunks** from its front.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::config::{Config, RECORD_BYTES_MAX};
use crate::error::StoreError;
use crate::event::Number;
use crate::frame::{self, FRAME_HEAD_BYTES, Salt, Unnumbered};
use crate::mark::Position;
use crate::segment::{FORMAT_VERSION, HEADER_BYTES, Header};
use crate::state::FramePlace;

/// A buffer of at most this size is used again.
const SPARE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Bytes of one segment that follow each other and are written at once.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) segment: u32,
    /// Where they begin in the segment.
    pub(crate) start: u32,
    pub(crate) bytes: Vec<u8>,
    /// The sequence of the last frame in it.
    pub(crate) sequence: u64,
    /// How many frames are in it.
    pub(crate) frames: u64,
    /// The header of the segment, when it begins with this chunk.
    pub(crate) begins: Option<Header>,
}

impl Chunk {
    /// Where it ends in the segment.
    pub(crate) fn end(&self) -> u32 {
        self.start.saturating_add(u32::try_from(self.bytes.len()).unwrap_or(u32::MAX))
    }
}

/// The end of the log.
#[derive(Debug)]
pub(crate) struct Tail {
    salt_number: u64,
    salt: Salt,
    segment: u32,
    end: u32,
    /// How many frames were ever appended: what tickets wait for.
    pub(crate) sequence: u64,
    /// The number that the next record gets.
    pub(crate) next_number: Number,
    chunks: VecDeque<Chunk>,
    writing: Option<Arc<Chunk>>,
    backlog_bytes: usize,
    spare: Vec<u8>,
    /// How far the log is durable, and how far it says that of itself.
    pub(crate) durable: Position,
    said_durable: Position,
}

impl Tail {
    /// A log that ends at `end`, all of it durable.
    pub(crate) fn new(salt: u64, end: Position, next_number: Number) -> Self {
        Self {
            salt_number: salt,
            salt: Salt::new(salt),
            segment: end.segment,
            end: end.offset,
            sequence: 0,
            next_number,
            chunks: VecDeque::new(),
            writing: None,
            backlog_bytes: 0,
            spare: Vec::new(),
            durable: end,
            said_durable: end,
        }
    }

    /// Whether frames of these sizes can be appended together.
    ///
    /// # Errors
    /// One is too large, or too much waits to be written.
    pub(crate) fn has_room(
        &self,
        frames: impl Iterator<Item = usize>,
        config: &Config,
    ) -> Result<(), StoreError> {
        let mut waiting = self.backlog_bytes;
        for bytes in frames {
            if bytes > RECORD_BYTES_MAX {
                return Err(StoreError::TooLarge { bytes, bytes_max: RECORD_BYTES_MAX });
            }
            let with = waiting.saturating_add(bytes);
            if waiting > 0 && with > config.backlog_bytes_max {
                return Err(StoreError::Backlog { bytes_max: config.backlog_bytes_max });
            }
            waiting = with;
        }
        Ok(())
    }

    /// Appends `frame` with `number`, and says where it stands.
    ///
    /// # Errors
    /// It is too large, or too much waits to be written.
    pub(crate) fn push(
        &mut self,
        frame: Unnumbered<'_>,
        number: Number,
        config: &Config,
    ) -> Result<FramePlace, StoreError> {
        let too_large = || StoreError::TooLarge { bytes: frame.len(), bytes_max: RECORD_BYTES_MAX };
        self.has_room(std::iter::once(frame.len()), config)?;
        let frame_bytes = u32::try_from(frame.len()).map_err(|_| too_large())?;
        if self.end > HEADER_BYTES && self.end.saturating_add(frame_bytes) > config.segment_bytes() {
            self.begin_segment();
        } else if self.chunks.is_empty() {
            self.begin_chunk(self.segment, self.end, None);
        }
        let at = self.end;
        let Some(chunk) = self.chunks.back_mut() else { return Err(StoreError::Closed) };
        frame.write(number, &mut chunk.bytes);
        self.sequence += 1;
        chunk.sequence = self.sequence;
        chunk.frames += 1;
        self.end += frame_bytes;
        self.backlog_bytes += frame.len();
        Ok(FramePlace { segment: self.segment, at, bytes: frame_bytes })
    }

    fn begin_segment(&mut self) {
        let header = Header {
            version: FORMAT_VERSION,
            segment: self.segment + 1,
            bytes_before: self.end,
            salt: self.salt_number,
            next_number: self.next_number,
        };
        self.segment = header.segment;
        self.end = HEADER_BYTES;
        self.begin_chunk(header.segment, HEADER_BYTES, Some(header));
    }

    fn begin_chunk(&mut self, segment: u32, start: u32, begins: Option<Header>) {
        let mut bytes = std::mem::take(&mut self.spare);
        bytes.clear();
        if self.durable > self.said_durable {
            frame::write_durable(self.salt, self.durable.segment, self.durable.offset, &mut bytes);
            self.said_durable = self.durable;
            self.end += u32::try_from(bytes.len()).unwrap_or_default();
        }
        self.chunks.push_back(Chunk { segment, start, bytes, sequence: self.sequence, frames: 0, begins });
    }

    /// How much is appended and not written yet.
    pub(crate) fn backlog_bytes(&self) -> usize {
        self.backlog_bytes
    }

    /// How many frames the chunk in front has, and whether others wait behind it. `None` when none waits.
    pub(crate) fn waiting(&self) -> Option<(u64, bool)> {
        self.chunks.front().map(|chunk| (chunk.frames, self.chunks.len() > 1))
    }

    /// Whether somebody has taken a chunk and writes it.
    pub(crate) fn is_being_written(&self) -> bool {
        self.writing.is_some()
    }

    /// Takes the chunk in front, if it is as is wanted. It can be read until [`Tail::written`]; until then nobody else takes
    /// one.
    pub(crate) fn take_if(&mut self, is_wanted: impl FnOnce(&Chunk) -> bool) -> Option<Arc<Chunk>> {
        if self.is_being_written() || !self.chunks.front().is_some_and(is_wanted) {
            return None;
        }
        let chunk = Arc::new(self.chunks.pop_front()?);
        self.writing = Some(Arc::clone(&chunk));
        Some(chunk)
    }

    /// The chunk that was taken can be read from its file.
    pub(crate) fn written(&mut self, chunk: Arc<Chunk>) {
        self.writing = None;
        self.backlog_bytes = self.backlog_bytes.saturating_sub(chunk.bytes.len());
        if self.chunks.is_empty() {
            self.backlog_bytes = 0;
        }
        if let Some(chunk) = Arc::into_inner(chunk)
            && chunk.bytes.capacity() <= SPARE_BYTES_MAX
        {
            self.spare = chunk.bytes;
        }
    }

    /// A frame that is not written yet.
    pub(crate) fn frame(&self, place: FramePlace) -> Option<Vec<u8>> {
        let mut chunks = self.chunks.iter().rev().chain(self.writing.as_deref());
        let chunk = chunks.find(|chunk| chunk.segment == place.segment && chunk.start <= place.at)?;
        let from = (place.at - chunk.start) as usize;
        let until = from.checked_add(place.bytes as usize)?;
        debug_assert!(place.bytes as usize >= FRAME_HEAD_BYTES, "a frame has a head");
        chunk.bytes.get(from..until).map(<[u8]>::to_vec)
    }
}
