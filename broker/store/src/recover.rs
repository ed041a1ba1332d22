//! From files to state. Reads everything, changes nothing until everything has been read, and tells an end
//! that was torn, which is normal after a crash, from damage, which is an error.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::disk::{Disk, DiskFile};
use crate::error::OpenError;
use crate::event::Number;
use crate::frame::{self, Frame, Salt};
use crate::log_store::Segment;
use crate::mark::{self, Mark, Position};
use crate::segment::{self, FORMAT_VERSION, HEADER_BYTES, Header, HeaderFault};
use crate::state::{FramePlace, State};

/// What is said of a segment whose header is that of another.
pub(crate) const FOREIGN: &str = "it is a segment of another store, or another one";

/// What is said of an end that is not where it was.
pub(crate) const SHORT: &str = "it ends here, and there was more";

/// What opening a store found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovery {
    /// Segments of the log.
    pub segments: usize,
    /// Records in them, with those that are not live any more.
    pub records: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Sessions that came back.
    pub sessions: usize,
    /// Messages that wait or are under way, once per receiver.
    pub queued: u64,
    /// Topics with a retained message.
    pub retained: usize,
    /// Records that wait for sinks.
    pub sink_records: usize,
    /// What was cut off the end: written by a process that did not live to sync it, acknowledged to nobody.
    pub cut: Option<Cut>,
    /// How long it took.
    pub took: Duration,
}

/// What was cut off the end of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The file.
    pub path: PathBuf,
    /// Where the cut is.
    pub offset: u64,
    /// How many bytes were behind it.
    pub bytes: u64,
    /// What is wrong at the cut.
    pub what: &'static str,
}

/// A log that was read.
pub(crate) struct Recovered {
    pub(crate) state: State,
    pub(crate) segments: BTreeMap<u32, Segment>,
    pub(crate) mark: Mark,
    pub(crate) next_number: Number,
    /// Where the log ends; whether the last segment has no record yet and is of the format that is
    /// written, so that it can be gone on with.
    pub(crate) end: Position,
    pub(crate) last_is_empty: bool,
    /// That of the last segment.
    pub(crate) format_version: u16,
    /// What is in the folder and not needed: segments given back, and one whose beginning was interrupted.
    leftovers: Vec<u32>,
    pub(crate) report: Recovery,
}

/// A segment while the log is read.
struct Scanned {
    file: Arc<dyn DiskFile>,
    header: Header,
    bytes: u64,
}

/// Reads the log; `None` when there is none yet.
pub(crate) fn read(disk: &dyn Disk) -> Result<Option<Recovered>, OpenError> {
    let started = Instant::now();
    let names = disk.list().map_err(|error| io_error(disk, "reading", "", error))?;
    let present: BTreeSet<u32> = names.iter().filter_map(|name| segment::of_name(name)).collect();
    if !names.iter().any(|name| name == mark::NAME) {
        return if present.is_empty() { Ok(None) } else { Err(missing(disk, mark::NAME)) };
    }
    let file = disk.open(mark::NAME).map_err(|error| io_error(disk, "opening", mark::NAME, error))?;
    let mark = Mark::read(file).map_err(|error| io_error(disk, "reading", mark::NAME, error))?;
    let Some(mark) = mark else {
        // The first thing that a store does is to write the mark: without segments it was interrupted there.
        let what = "no part of it is whole";
        return if present.is_empty() { Ok(None) } else { Err(corrupt(disk, mark::NAME, 0, what)) };
    };
    let mut scan = Scan::new(disk, mark);
    let headers = scan.headers(&present)?;
    scan.frames(headers)?;
    scan.recovered.report.took = started.elapsed();
    Ok(Some(scan.finish()))
}

/// Whether a process has the folder.
pub(crate) fn in_use(disk: &dyn Disk) -> Result<bool, OpenError> {
    disk.in_use().map_err(|error| match error.kind() {
        io::ErrorKind::NotADirectory => OpenError::NotAFolder { path: disk.path("") },
        _ => io_error(disk, "opening", "", error),
    })
}

/// A reading that is under way.
struct Scan<'a> {
    disk: &'a dyn Disk,
    salt: Salt,
    recovered: Recovered,
}

impl<'a> Scan<'a> {
    fn new(disk: &'a dyn Disk, mark: Mark) -> Self {
        let salt = Salt::new(mark.salt);
        let recovered = Recovered {
            state: State::default(),
            segments: BTreeMap::new(),
            mark,
            next_number: 1,
            end: Position { segment: 0, offset: 0 },
            last_is_empty: false,
            format_version: FORMAT_VERSION,
            leftovers: Vec::new(),
            report: Recovery::default(),
        };
        Self { disk, salt, recovered }
    }

    /// Reads the headers of all segments that are needed, in order.
    fn headers(&mut self, present: &BTreeSet<u32>) -> Result<Vec<Scanned>, OpenError> {
        let Mark { first, durable, salt, .. } = self.recovered.mark;
        self.recovered.leftovers.extend(present.range(..first));
        let last = present.last().copied().unwrap_or_default().max(durable.segment);
        let mut scanned = Vec::new();
        for number in first..=last {
            let name = segment::name(number);
            if !present.contains(&number) {
                return Err(missing(self.disk, &name));
            }
            let file = self.disk.open(&name).map_err(|error| io_error(self.disk, "opening", &name, error))?;
            let bytes = file.len().map_err(|error| io_error(self.disk, "reading", &name, error))?;
            let header = Header::of(&*file).map_err(|error| io_error(self.disk, "reading", &name, error))?;
            match header {
                Ok(header) if header.salt != salt || header.segment != number => {
                    return Err(corrupt(self.disk, &name, 0, FOREIGN));
                }
                Ok(header) => scanned.push(Scanned { file, header, bytes }),
                Err(HeaderFault::Newer(version)) => {
                    let path = self.disk.path(&name);
                    return Err(OpenError::NewerFormat { path, version, version_max: FORMAT_VERSION });
                }
                // The mark is moved to a segment when its header is durable, before anything is put into it.
                Err(HeaderFault::Bad(_)) if number > durable.segment && number == last => {
                    self.recovered.leftovers.push(number);
                }
                Err(HeaderFault::Bad(what)) => return Err(corrupt(self.disk, &name, 0, what)),
            }
        }
        Ok(scanned)
    }

    /// Reads the frames of all segments into the state.
    fn frames(&mut self, scanned: Vec<Scanned>) -> Result<(), OpenError> {
        let mut rest = scanned.into_iter().peekable();
        while let Some(segment) = rest.next() {
            let end = match rest.peek() {
                Some(next) => self.ended_segment(&segment, next.header.bytes_before)?,
                None => self.last_segment(&segment)?,
            };
            self.recovered.report.segments += 1;
            self.recovered.report.bytes += u64::from(end);
            self.recovered.next_number = self.recovered.next_number.max(segment.header.next_number);
            self.recovered.end = Position { segment: segment.header.segment, offset: end };
            let kept = Segment { file: segment.file, bytes: end };
            self.recovered.segments.insert(segment.header.segment, kept);
        }
        Ok(())
    }

    /// A segment that has another one behind it: that one says how long it is.
    fn ended_segment(&mut self, segment: &Scanned, bytes: u32) -> Result<u32, OpenError> {
        let name = segment::name(segment.header.segment);
        if segment.bytes < u64::from(bytes) {
            return Err(corrupt(self.disk, &name, segment.bytes, SHORT));
        }
        let content = self.content(segment, bytes)?;
        match self.apply(segment.header.segment, &content)? {
            (_, None) => Ok(bytes),
            (offset, Some(what)) => Err(corrupt(self.disk, &name, offset.into(), what)),
        }
    }

    /// The segment that ends the log, wherever that is.
    fn last_segment(&mut self, segment: &Scanned) -> Result<u32, OpenError> {
        let name = segment::name(segment.header.segment);
        let damaged = |offset: u32, what| corrupt(self.disk, &name, offset.into(), what);
        let bytes = u32::try_from(segment.bytes).map_err(|_| damaged(u32::MAX, "it is too long"))?;
        let content = self.content(segment, bytes)?;
        let records_before = self.recovered.report.records;
        let (offset, fault) = self.apply(segment.header.segment, &content)?;
        let is_current = segment.header.version == FORMAT_VERSION;
        self.recovered.last_is_empty = is_current && self.recovered.report.records == records_before;
        self.recovered.format_version = segment.header.version;
        let end = Position { segment: segment.header.segment, offset };
        let damaged = |what| corrupt(self.disk, &name, offset.into(), what);
        if end < self.recovered.mark.durable {
            return Err(damaged(fault.unwrap_or(SHORT)));
        }
        let Some(what) = fault else { return Ok(offset) };
        let behind = content.get((offset - HEADER_BYTES.min(offset)) as usize..).unwrap_or_default();
        if frame::is_unwritten(behind) {
            return Ok(offset);
        }
        if frame::any_says_durable_beyond(self.salt, behind, end.segment, end.offset) {
            return Err(damaged(what));
        }
        let path = self.disk.path(&name);
        let bytes_cut = behind.len() as u64;
        self.recovered.report.cut = Some(Cut { path, offset: offset.into(), bytes: bytes_cut, what });
        Ok(offset)
    }

    /// What is in a segment behind its header.
    fn content(&self, segment: &Scanned, bytes: u32) -> Result<Vec<u8>, OpenError> {
        let name = segment::name(segment.header.segment);
        let mut content = vec![0; bytes.saturating_sub(HEADER_BYTES) as usize];
        let read = segment.file.read_at(&mut content, HEADER_BYTES.into());
        let count = read.map_err(|error| io_error(self.disk, "reading", &name, error))?;
        content.truncate(count);
        Ok(content)
    }

    /// Applies the frames in `content` to the state. Says where the last good one ends, and what is wrong with
    /// the next.
    fn apply(&mut self, segment: u32, content: &[u8]) -> Result<(u32, Option<&'static str>), OpenError> {
        let mut rest = content;
        let mut at = HEADER_BYTES;
        while !rest.is_empty() {
            let (frame, length) = match frame::read(self.salt, rest) {
                Ok(read) => read,
                Err(what) => return Ok((at, Some(what))),
            };
            let bytes = u32::try_from(length).unwrap_or(u32::MAX);
            let place = FramePlace { segment, at, bytes };
            let recovered = &mut self.recovered;
            let applied = match frame {
                Frame::Record { events, number } => {
                    recovered.state.apply(events, number, place).map(|count| {
                        recovered.report.records += 1;
                        recovered.next_number = recovered.next_number.max(number.saturating_add(count));
                    })
                }
                Frame::Copies { events, next_number } => {
                    recovered.report.records += 1;
                    recovered.next_number = recovered.next_number.max(next_number);
                    recovered.state.apply(events, next_number, place).map(drop)
                }
                Frame::Durable { .. } => Ok(()),
            };
            // The checksum was right: no crash makes this.
            applied.map_err(|error| corrupt(self.disk, &segment::name(segment), at.into(), error.0))?;
            at = at.saturating_add(bytes);
            rest = rest.get(length..).unwrap_or_default();
        }
        Ok((at, None))
    }

    fn finish(mut self) -> Recovered {
        let Recovered { state, report, .. } = &mut self.recovered;
        report.sessions = state.sessions_len();
        report.queued = state.queued();
        report.retained = state.retained_len();
        report.sink_records = state.sink_records_len();
        self.recovered
    }
}

impl Recovered {
    /// Makes what was read durable. It may have been in the memory of the operating system only, and after a
    /// failed fsync it may be there without ever being written again: so it is written again.
    pub(crate) fn make_durable(&mut self, disk: &dyn Disk) -> Result<(), OpenError> {
        let Some(segment) = self.segments.get(&self.end.segment) else { return Ok(()) };
        let name = segment::name(self.end.segment);
        let known = if self.mark.durable.segment == self.end.segment {
            self.mark.durable.offset
        } else {
            HEADER_BYTES
        };
        let mut content = vec![0; self.end.offset.saturating_sub(known) as usize];
        let rewrite = || -> io::Result<()> {
            let count = segment.file.read_at(&mut content, known.into())?;
            segment.file.write_all_at(content.get(..count).unwrap_or_default(), known.into())?;
            segment.file.sync()
        };
        let mut rewrite = rewrite;
        rewrite().map_err(|error| io_error(disk, "syncing", &name, error))
    }

    /// Removes what is not needed, and what was cut.
    pub(crate) fn tidy(&mut self, disk: &dyn Disk) -> Result<(), OpenError> {
        for number in std::mem::take(&mut self.leftovers) {
            let name = segment::name(number);
            disk.remove(&name).map_err(|error| io_error(disk, "removing", &name, error))?;
        }
        disk.sync_folder().map_err(|error| io_error(disk, "syncing", "", error))
    }

    /// Cuts the last segment at the end of the log.
    pub(crate) fn cut(&self, disk: &dyn Disk) -> Result<(), OpenError> {
        let name = segment::name(self.end.segment);
        let Some(segment) = self.segments.get(&self.end.segment) else { return Ok(()) };
        let cut = || -> io::Result<()> {
            if segment.file.len()? > self.end.offset.into() {
                segment.file.truncate(self.end.offset.into())?;
                segment.file.sync()?;
            }
            Ok(())
        };
        cut().map_err(|error| io_error(disk, "cutting", &name, error))
    }
}

pub(crate) fn io_error(disk: &dyn Disk, doing: &'static str, name: &str, source: io::Error) -> OpenError {
    OpenError::Io { doing, path: disk.path(name), source }
}

fn corrupt(disk: &dyn Disk, name: &str, offset: u64, what: &'static str) -> OpenError {
    OpenError::Corrupt { path: disk.path(name), offset, what }
}

fn missing(disk: &dyn Disk, name: &str) -> OpenError {
    OpenError::Missing { path: disk.path(name) }
}
