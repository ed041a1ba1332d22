//! The file that carries what a shutdown leaves unwritten over to the next start: one line of exact JSON each.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use weirmq_core::record::Record;

use super::Entry;
use crate::disk;
use crate::json::{ExactFields, ReadBack, unwrap_fields};

/// The end of the name of every spill file.
pub(crate) const SUFFIX: &str = ".spill.jsonl";

/// A record of `n` bytes in memory takes at most this many times `n` as JSON: text of control characters.
const JSON_GROWTH_MAX: usize = 8;

/// The least that a line may be long, in bytes.
const LINE_BYTES: usize = 64 * 1024 * 1024;

/// `DATA/sinks/NAME.spill.jsonl`.
pub(crate) struct SpillFile {
    path: PathBuf,
    sink: Arc<str>,
    line_bytes_max: usize,
    /// Whether the file says something that is to be delivered still.
    pending: AtomicBool,
}

/// What a spill file said.
#[derive(Debug, Default)]
pub(crate) struct Restored {
    /// The records that could be read, in their order.
    pub(crate) entries: Vec<Entry>,
    /// What could not be read, if anything.
    pub(crate) damage: Option<Damage>,
}

/// A spill file with lines that cannot be read.
#[derive(Debug)]
pub(crate) struct Damage {
    /// How many.
    pub(crate) lines: u64,
    /// The number of the first one, counted from 1, and what is wrong with it.
    pub(crate) first: (u64, String),
    /// Where the file is kept, whole, for somebody to look at.
    pub(crate) kept: PathBuf,
}

#[derive(Serialize)]
struct LineOut<'a> {
    id: String,
    rule: &'a str,
    created_unix_ms: u64,
    fields: ExactFields<'a>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LineIn {
    id: String,
    rule: String,
    created_unix_ms: u64,
    fields: Vec<(String, ReadBack)>,
}

impl<'a> LineOut<'a> {
    fn of(entry: &'a Entry) -> Self {
        let record = &entry.record;
        Self {
            id: entry.id.to_string(),
            rule: &record.rule,
            created_unix_ms: record.created_unix_ms,
            fields: ExactFields(&record.fields),
        }
    }
}

/// An entry as it is kept: a line of the spill file without its end. `None` for one that is nested too deep, which no
/// buffer takes.
pub(crate) fn encode(entry: &Entry) -> Option<Bytes> {
    serde_json::to_vec(&LineOut::of(entry)).ok().map(Bytes::from)
}

/// The entry of `sink` that [`encode`] has made, or a line of the spill file says.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn decode(sink: &Arc<str>, line: &[u8]) -> Result<Entry, String> {
    let line: LineIn = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let record = Record {
        sink: Arc::clone(sink),
        fields: unwrap_fields(line.fields),
        rule: Arc::from(line.rule),
        created_unix_ms: line.created_unix_ms,
    };
    Ok(Entry { record, id: line.id.parse()? })
}

impl SpillFile {
    /// The file of the sink called `name` in `folder`. `buffer_bytes_max` is the most that a record may take.
    pub(crate) fn new(folder: &Path, name: Arc<str>, buffer_bytes_max: usize) -> Self {
        Self {
            path: folder.join(format!("{name}{SUFFIX}")),
            sink: name,
            line_bytes_max: buffer_bytes_max.saturating_mul(JSON_GROWTH_MAX).max(LINE_BYTES),
            pending: AtomicBool::new(false),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file still has to be removed: its records were taken over and it is there.
    pub(crate) fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Relaxed)
    }

    /// Reads what the run before left. The file stays until [`SpillFile::remove`]; one with a line that cannot
    /// be read is moved aside, and what could be read of it is given all the same.
    ///
    /// # Errors
    /// When the file is there and cannot be read or moved at all.
    pub(crate) fn restore(&self) -> io::Result<Restored> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Restored::default()),
            Err(error) => return Err(error),
        };
        let (entries, faults) = self.read_lines(&mut BufReader::new(file))?;
        let damage = faults.map(|faults| self.keep_aside(faults)).transpose()?;
        self.pending.store(damage.is_none(), Ordering::Relaxed);
        Ok(Restored { entries, damage })
    }

    fn read_lines(&self, file: &mut impl BufRead) -> io::Result<(Vec<Entry>, Option<Faults>)> {
        let mut entries = Vec::new();
        let mut faults: Option<Faults> = None;
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let limit = u64::try_from(self.line_bytes_max).unwrap_or(u64::MAX);
            if file.by_ref().take(limit).read_until(b'\n', &mut line)? == 0 {
                break;
            }
            let whole = line.last() == Some(&b'\n');
            let cut_at_limit = !whole && line.len() >= self.line_bytes_max;
            let entry = if whole { decode(&self.sink, &line) } else { Err("the line is cut off".to_owned()) };
            match entry {
                Ok(entry) => entries.push(entry),
                Err(what) => {
                    let faults = faults.get_or_insert(Faults { lines: 0, first: (number, what) });
                    faults.lines += 1;
                }
            }
            if cut_at_limit {
                break;
            }
        }
        Ok((entries, faults))
    }

    fn keep_aside(&self, faults: Faults) -> io::Result<Damage> {
        let name = format!("{}.spill.damaged-{}.jsonl", self.sink, disk::unix_ms());
        let kept = self.path.with_file_name(name);
        fs::rename(&self.path, &kept)?;
        Ok(Damage { lines: faults.lines, first: faults.first, kept })
    }

    /// Puts `entries` in the place of whatever the file said, durably: all of them or, after an error, none.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn write(&self, entries: &[Arc<Entry>]) -> io::Result<()> {
        let draft = self.path.with_extension("jsonl.tmp");
        let mut file = BufWriter::new(File::create(&draft)?);
        for entry in entries {
            serde_json::to_writer(&mut file, &LineOut::of(entry))?;
            file.write_all(b"\n")?;
        }
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(&draft, &self.path)?;
        self.pending.store(false, Ordering::Relaxed);
        self.path.parent().map_or(Ok(()), disk::sync_folder)
    }

    /// Removes the file: all that it said has met its end.
    ///
    /// # Errors
    /// When it is there and cannot be removed. It is tried once only.
    pub(crate) fn remove(&self) -> io::Result<()> {
        self.pending.store(false, Ordering::Relaxed);
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

struct Faults {
    lines: u64,
    first: (u64, String),
}
