//! Looking at every frame of every file of a store, without changing anything: what is good, what a crash has
//! left, what is damaged. It goes on where opening would stop.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, DiskFile, ReadOnlyDisk};
use crate::error::OpenError;
use crate::format::{self, EventView};
use crate::frame::{self, Frame, Salt};
use crate::mark::{self, Mark, Position};
use crate::recover::{self, FOREIGN, SHORT, io_error};
use crate::segment::{self, HEADER_BYTES, Header, HeaderFault};

/// What looking at a store found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// Its files in order, the mark first.
    pub files: Vec<FileReport>,
    /// Whether a process has the store: what is being written while it is read may look cut.
    pub in_use: bool,
}

/// A file of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileReport {
    /// Where it is.
    pub path: PathBuf,
    /// How long it is.
    pub bytes: u64,
    /// How many frames of it are good; of the mark, its slots.
    pub frames: u64,
    /// What is to be said of it.
    pub condition: Condition,
}

/// What is to be said of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// It is what was written.
    Good,
    /// It is not needed any more, or not yet: opening the store removes it.
    NotNeeded,
    /// It is good up to here. What is behind was written by a process that did not live to sync it, was
    /// acknowledged to nobody, and is cut when the store is opened. That is normal after a crash.
    Cut {
        /// Where the cut is.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// It is not what was written, and was acknowledged: the store does not open.
    Damaged {
        /// Where.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// It cannot be read.
    Unreadable {
        /// What the operating system says.
        cause: String,
    },
    /// It is not there.
    Missing,
    /// It is in a format that is not known.
    NewerFormat {
        /// Which.
        version: u16,
    },
}

impl Condition {
    /// Whether the store opens in spite of it, with all that was acknowledged.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        matches!(self, Self::Good | Self::NotNeeded | Self::Cut { .. })
    }
}

impl Verification {
    /// Whether the store opens, with all that was acknowledged.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.files.iter().all(|file| file.condition.is_sound())
    }
}

/// Looks at the store in a folder.
///
/// # Errors
/// There is no store, or the folder cannot be looked at. What is wrong with a file is in the [`Verification`].
pub fn verify(folder: &Path) -> Result<Verification, OpenError> {
    verify_on(&ReadOnlyDisk::new(folder))
}

/// As [`verify`], on whatever a [`Disk`] is.
///
/// # Errors
/// As [`verify`].
pub fn verify_on(disk: &dyn Disk) -> Result<Verification, OpenError> {
    let in_use = recover::in_use(disk)?;
    let names = disk.list().map_err(|error| io_error(disk, "reading", "", error))?;
    let present: BTreeSet<u32> = names.iter().filter_map(|name| segment::of_name(name)).collect();
    if !names.iter().any(|name| name == mark::NAME) && present.is_empty() {
        return Err(OpenError::NoStore { path: disk.path("") });
    }
    let mut files = Vec::new();
    let mark = look_at_mark(disk, present.is_empty(), &mut files);
    let first = mark.as_ref().map_or(1, |mark| mark.first);
    let durable = mark.as_ref().map_or(Position { segment: 0, offset: 0 }, |mark| mark.durable);
    for number in present.range(..first) {
        files.push(report(disk, &segment::name(*number), Condition::NotNeeded));
    }
    let last = present.last().copied().unwrap_or_default().max(durable.segment);
    let first = if mark.is_some() { first } else { present.first().copied().unwrap_or(1) };
    let heads: Vec<_> = (first..=last).map(|number| Head::read(disk, number, mark.as_ref())).collect();
    for (index, head) in heads.iter().enumerate() {
        let next = heads.get(index + 1).filter(|next| next.begins_the_log_on(durable));
        files.push(head.look(disk, mark.as_ref(), durable, next));
    }
    Ok(Verification { files, in_use })
}

fn report(disk: &dyn Disk, name: &str, condition: Condition) -> FileReport {
    let bytes = disk.open(name).and_then(|file| file.len()).unwrap_or_default();
    FileReport { path: disk.path(name), bytes, frames: 0, condition }
}

fn unreadable(error: &io::Error) -> Condition {
    match error.kind() {
        io::ErrorKind::NotFound => Condition::Missing,
        _ => Condition::Unreadable { cause: error.to_string() },
    }
}

fn look_at_mark(disk: &dyn Disk, is_new: bool, files: &mut Vec<FileReport>) -> Option<Mark> {
    let mut found = report(disk, mark::NAME, Condition::Good);
    let read = disk.open(mark::NAME).and_then(|file| {
        let torn = Mark::torn_slots(&*file)?;
        Ok((Mark::read(file)?, torn))
    });
    let mark = match read {
        Err(error) => {
            found.condition = unreadable(&error);
            None
        }
        Ok((None, _)) => {
            let what = "no part of it is whole";
            found.condition = if is_new {
                Condition::Cut { offset: 0, what }
            } else {
                Condition::Damaged { offset: 0, what }
            };
            None
        }
        Ok((Some(mark), torn)) => {
            found.frames = mark::SLOTS - torn.len() as u64;
            if let Some(offset) = torn.first().copied() {
                found.condition = Condition::Cut { offset, what: "a slot is not whole, another one is" };
            }
            Some(mark)
        }
    };
    files.push(found);
    mark
}

/// A segment, as far as its header.
struct Head {
    number: u32,
    file: Option<Arc<dyn DiskFile>>,
    bytes: u64,
    header: Result<Header, Condition>,
}

impl Head {
    fn read(disk: &dyn Disk, number: u32, mark: Option<&Mark>) -> Self {
        let read = || -> io::Result<_> {
            let file = disk.open(&segment::name(number))?;
            let bytes = file.len()?;
            let header = Header::of(&*file)?;
            Ok((file, bytes, header))
        };
        match read() {
            Err(error) => Self { number, file: None, bytes: 0, header: Err(unreadable(&error)) },
            Ok((file, bytes, header)) => {
                let header = match header {
                    Ok(header) if header.segment != number => Err(foreign()),
                    Ok(header) if mark.is_some_and(|mark| mark.salt != header.salt) => Err(foreign()),
                    Ok(header) => Ok(header),
                    Err(HeaderFault::Newer(version)) => Err(Condition::NewerFormat { version }),
                    Err(HeaderFault::Bad(what)) => Err(Condition::Damaged { offset: 0, what }),
                };
                Self { number, file: Some(file), bytes, header }
            }
        }
    }

    /// Whether the log goes on in this segment: it does not where the beginning of a segment was interrupted.
    fn begins_the_log_on(&self, durable: Position) -> bool {
        self.header.is_ok() || self.number <= durable.segment
    }

    fn look(
        &self,
        disk: &dyn Disk,
        mark: Option<&Mark>,
        durable: Position,
        next: Option<&Self>,
    ) -> FileReport {
        let path = disk.path(&segment::name(self.number));
        let report = |frames, condition| FileReport { path, bytes: self.bytes, frames, condition };
        let header = match &self.header {
            Ok(header) => *header,
            // The mark is moved to a segment when its header is durable, before anything is put into it.
            Err(Condition::Damaged { .. })
                if mark.is_some() && next.is_none() && self.number > durable.segment =>
            {
                return report(0, Condition::NotNeeded);
            }
            Err(condition) => return report(0, condition.clone()),
        };
        let ended_at =
            next.and_then(|next| next.header.as_ref().ok()).map(|header| u64::from(header.bytes_before));
        let until = ended_at.unwrap_or(self.bytes);
        let content = match self.content(until) {
            Ok(content) => content,
            Err(error) => return report(0, unreadable(&error)),
        };
        let salt = Salt::new(header.salt);
        let found = Frames::read(salt, &content);
        let offset = u64::from(HEADER_BYTES) + found.good_bytes as u64;
        let end = Position { segment: self.number, offset: u32::try_from(offset).unwrap_or(u32::MAX) };
        let behind = content.get(found.good_bytes..).unwrap_or_default();
        let condition = match found.fault {
            Some((what, true)) => Condition::Damaged { offset, what },
            Some((what, _)) if next.is_some() || end < durable => Condition::Damaged { offset, what },
            Some(_) if frame::is_unwritten(behind) => Condition::Good,
            Some((what, _)) if frame::any_says_durable_beyond(salt, behind, end.segment, end.offset) => {
                Condition::Damaged { offset, what }
            }
            Some((what, _)) => Condition::Cut { offset, what },
            None if offset < until || (next.is_none() && end < durable) => {
                Condition::Damaged { offset, what: SHORT }
            }
            None => Condition::Good,
        };
        report(found.count, condition)
    }

    /// What is in it behind its header.
    fn content(&self, until: u64) -> io::Result<Vec<u8>> {
        let bytes = until.min(self.bytes).min(u32::MAX.into()).saturating_sub(HEADER_BYTES.into());
        let mut content = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
        let count = match &self.file {
            Some(file) => file.read_at(&mut content, HEADER_BYTES.into())?,
            None => 0,
        };
        content.truncate(count);
        Ok(content)
    }
}

fn foreign() -> Condition {
    Condition::Damaged { offset: 0, what: FOREIGN }
}

/// The frames that follow each other.
struct Frames {
    count: u64,
    good_bytes: usize,
    /// What is wrong behind them, and whether that is so though a checksum is right, which no crash leaves.
    fault: Option<(&'static str, bool)>,
}

impl Frames {
    fn read(salt: Salt, content: &[u8]) -> Self {
        let mut frames = Self { count: 0, good_bytes: 0, fault: None };
        while let Some(rest) = content.get(frames.good_bytes..).filter(|rest| !rest.is_empty()) {
            let (frame, length) = match frame::read(salt, rest) {
                Ok(read) => read,
                Err(what) => {
                    frames.fault = Some((what, false));
                    break;
                }
            };
            if let Err(what) = look_at_events(&frame) {
                frames.fault = Some((what, true));
                break;
            }
            frames.count += 1;
            frames.good_bytes += length;
        }
        frames
    }
}

fn look_at_events(frame: &Frame<'_>) -> Result<(), &'static str> {
    let events = match frame {
        Frame::Record { events, .. } | Frame::Copies { events, .. } => events,
        Frame::Durable { .. } => return Ok(()),
    };
    for located in format::events(events) {
        let located = located.map_err(|malformed| malformed.0)?;
        if let EventView::Published(published) = &located.event {
            published.stored().map_err(|malformed| malformed.0)?;
        }
    }
    Ok(())
}
