//! Reading back what the state has only the place of.

use bytes::Bytes;

use crate::disk::{Disk, DiskFile};
use crate::error::StoreError;
use crate::event::StoredMessage;
use crate::format::{self, EventView};
use crate::frame::{self, Frame, Salt};
use crate::segment;
use crate::state::{FramePlace, Place};
use crate::store::Delivered;

/// Reads the event at `place`: from `unwritten` where its frame is not written yet, else from `file`.
pub(crate) fn event<T>(
    disk: &dyn Disk,
    salt: Salt,
    place: Place,
    unwritten: Option<Vec<u8>>,
    file: Option<&dyn DiskFile>,
    take: impl FnOnce(&EventView<'_>) -> Option<T>,
) -> Result<T, StoreError> {
    let path = || disk.path(&segment::name(place.frame.segment));
    let damaged = |what| StoreError::Corrupt { path: path(), offset: place.frame.at.into(), what };
    let bytes = match (unwritten, file) {
        (Some(bytes), _) => bytes,
        (None, Some(file)) => frame_at(file, place.frame)
            .map_err(|error| StoreError::Read { path: path(), cause: error.to_string().into() })?,
        (None, None) => return Err(damaged("the segment is not there")),
    };
    let events = match frame::read(salt, &bytes).map_err(damaged)? {
        (Frame::Record { events, .. } | Frame::Copies { events, .. }, _) => events,
        (Frame::Durable { .. }, _) => return Err(damaged("another frame is there")),
    };
    let located = format::event(events, place.event_at).map_err(|malformed| damaged(malformed.0))?;
    take(&located.event).ok_or_else(|| damaged("another event is there"))
}

fn frame_at(file: &dyn DiskFile, place: FramePlace) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; place.bytes as usize];
    let count = file.read_at(&mut bytes, place.at.into())?;
    bytes.truncate(count);
    Ok(bytes)
}

/// The message of a [`EventView::Published`].
pub(crate) fn message_of(event: &EventView<'_>) -> Option<StoredMessage> {
    match event {
        EventView::Published(published) => format::read_message(published.message).ok(),
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
