//! The file of records that will not be tried again: one line of JSON each, with the reason, for people to look
//! through. Two files are kept: when the current one is full, it takes the place of the older one.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::Serialize;

use super::buffer::DeadLetter;
use crate::disk;
use crate::json::Fields;

/// `DATA/sinks/NAME.dead.jsonl`.
pub(crate) struct DeadLetters {
    path: PathBuf,
    older: PathBuf,
    bytes_max: u64,
    /// One writer at a time.
    writing: Mutex<()>,
}

#[derive(Serialize)]
struct Line<'a> {
    dead_unix_ms: u64,
    reason: &'a str,
    id: String,
    rule: &'a str,
    created_unix_ms: u64,
    fields: Fields<'a>,
}

impl DeadLetters {
    /// The file of the sink called `name` in `folder`; it is made when there is something to put into it.
    pub(crate) fn new(folder: &Path, name: &str, bytes_max: u64) -> Self {
        Self {
            path: folder.join(format!("{name}.dead.jsonl")),
            older: folder.join(format!("{name}.dead.older.jsonl")),
            bytes_max,
            writing: Mutex::new(()),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends `letters` and makes them durable.
    ///
    /// # Errors
    /// When the file cannot be written. Some of the letters may be in it.
    pub(crate) fn append(&self, letters: &[DeadLetter]) -> io::Result<()> {
        let _one_at_a_time = self.writing.lock();
        let mut lines = Vec::new();
        let dead_unix_ms = disk::unix_ms();
        for letter in letters {
            let record = &letter.entry.record;
            let line = Line {
                dead_unix_ms,
                reason: &letter.reason,
                id: letter.entry.id.to_string(),
                rule: &record.rule,
                created_unix_ms: record.created_unix_ms,
                fields: Fields(&record.fields),
            };
            serde_json::to_writer(&mut lines, &line)?;
            lines.push(b'\n');
        }
        self.make_room(lines.len() as u64)?;
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(&self.path)?;
        if disk::ends_mid_line(&mut file)? {
            lines.insert(0, b'\n');
        }
        file.write_all(&lines)?;
        file.sync_data()
    }

    fn make_room(&self, bytes: u64) -> io::Result<()> {
        match fs::metadata(&self.path) {
            Ok(file) if file.len() > 0 && file.len().saturating_add(bytes) > self.bytes_max => {
                fs::rename(&self.path, &self.older)
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
