//! Reading back what the state has only the place of.

use std::io;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile};
use crate::error::StoreError;
use crate::event::StoredMessage;
use crate::format::{self, EventView};
use crate::frame::{self, Frame, Salt};
use crate::segment;
use crate::state::{FramePlace, Place};
use crate::store::Delivered;

/// So much is read at once where frames are read in the order in which they stand.
const AHEAD_BYTES: u32 = 256 * 1024;

/// What stands behind the frame that was read last, where it was read in order: a start reads most of the log so.
#[derive(Debug, Default)]
pub(crate) struct Ahead(Mutex<Block>);

#[derive(Debug, Default)]
struct Block {
    segment: u32,
    start: u32,
    bytes: Vec<u8>,
    /// Where the frame that was read last ends.
    next: u32,
}

/// A segment that is read.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) file: &'a dyn DiskFile,
    /// How much of it is written: that does not change any more.
    pub(crate) bytes: u32,
}

impl Block {
    /// The frame at `place`, or as much of it as there is.
    fn frame(&mut self, source: Source<'_>, place: FramePlace) -> io::Result<&[u8]> {
        let is_here = |block: &Self| {
            let end = block.start.saturating_add(u32::try_from(block.bytes.len()).unwrap_or(0));
            block.segment == place.segment
                && block.start <= place.at
                && place.at.saturating_add(place.bytes) <= end
        };
        if !is_here(self) {
            let follows = self.segment == place.segment
                && (self.next..=self.next.saturating_add(AHEAD_BYTES)).contains(&place.at);
            let left = source.bytes.saturating_sub(place.at);
            let ahead = if follows { AHEAD_BYTES.min(left) } else { 0 };
            self.bytes.clear();
            self.bytes.resize(ahead.max(place.bytes) as usize, 0);
            if !follows {
                self.bytes.shrink_to(AHEAD_BYTES as usize);
            }
            (self.segment, self.start) = (place.segment, place.at);
            let count =
                source.file.read_at(&mut self.bytes, place.at.into()).inspect_err(|_| self.bytes.clear())?;
            self.bytes.truncate(count);
        }
        self.next = place.at.saturating_add(place.bytes);
        let from = (place.at - self.start) as usize;
        let until = from.saturating_add(place.bytes as usize).min(self.bytes.len());
        Ok(self.bytes.get(from..until).unwrap_or_default())
    }
}

/// Reads the event at `place`: from `unwritten` where its frame is not written yet, else from its segment.
pub(crate) fn event<T>(
    disk: &dyn Disk,
    salt: Salt,
    place: Place,
    unwritten: Option<&[u8]>,
    source: Option<Source<'_>>,
    ahead: &Ahead,
    take: impl FnOnce(&EventView<'_>) -> Option<T>,
) -> Result<T, StoreError> {
    let path = || disk.path(&segment::name(place.frame.segment));
    let damaged = |what| StoreError::Corrupt { path: path(), offset: place.frame.at.into(), what };
    let mut block;
    let bytes = match (unwritten, source) {
        (Some(bytes), _) => bytes,
        (None, Some(source)) => {
            block = ahead.0.lock();
            block
                .frame(source, place.frame)
                .map_err(|error| StoreError::Read { path: path(), cause: error.to_string().into() })?
        }
        (None, None) => return Err(damaged("the segment is not there")),
    };
    let events = match frame::read(salt, bytes).map_err(damaged)? {
        (Frame::Record { events, .. } | Frame::Copies { events, .. }, _) => events,
        (Frame::Durable { .. }, _) => return Err(damaged("another frame is there")),
    };
    let located = format::event(events, place.event_at).map_err(|malformed| damaged(malformed.0))?;
    take(&located.event).ok_or_else(|| damaged("another event is there"))
}

/// The message of a [`EventView::Published`].
pub(crate) fn message_of(event: &EventView<'_>) -> Option<StoredMessage> {
    match event {
        EventView::Published(published) => published.stored().ok(),
        _ => None,
    }
}

/// The message of a [`EventView::Published`] as `client` gets it.
pub(crate) fn message_for(client: &str, event: &EventView<'_>) -> Option<Delivered> {
    let EventView::Published(published) = event else { return None };
    let recipient = published.recipients().find(|recipient| recipient.client == client)?;
    let identifiers = recipient.identifiers().collect::<Option<_>>()?;
    Some((message_of(event)?, identifiers))
}

/// The record of an [`EventView::SinkAppended`].
pub(crate) fn sink_record_of(event: &EventView<'_>) -> Option<Bytes> {
    match event {
        EventView::SinkAppended { record, .. } => Some(Bytes::copy_from_slice(record)),
        _ => None,
    }
}

/// The value of an [`EventView::KeySet`].
pub(crate) fn value_of(event: &EventView<'_>) -> Option<Bytes> {
    match event {
        EventView::KeySet { value, .. } => Some(Bytes::copy_from_slice(value)),
        _ => None,
    }
}
