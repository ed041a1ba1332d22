//! Appends lines, on a thread of its own because disks block.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::{self, Identity};
use crate::engine::own_thread::OwnThread;
use crate::engine::{Entry, Sink, Stop, Verdict, Writing};
use crate::json::Fields;

/// The seam to the engine.
pub(super) struct FileSink {
    thread: OwnThread<Lines>,
}

impl FileSink {
    pub(super) fn new(name: &str, lines: Lines) -> Result<Self, String> {
        let thread = OwnThread::start(name, lines).map_err(|error| format!("no thread for it: {error}"))?;
        Ok(Self { thread })
    }
}

impl Sink for FileSink {
    fn write<'a>(&'a mut self, batch: &'a [Arc<Entry>], stop: &'a Stop) -> Writing<'a> {
        let entries = batch.to_vec();
        Box::pin(async move {
            if stop.is_set() {
                return vec![Verdict::Untried; batch.len()];
            }
            let verdicts = self.thread.run(move |lines: &mut Lines| lines.write(&entries)).await;
            verdicts.unwrap_or_else(|| {
                Verdict::retry_all(batch, "the thread of the file has died; restart the broker")
            })
        })
    }
}

/// The file, open or to be opened.
pub(super) struct Lines {
    path: PathBuf,
    open: Option<Open>,
}

struct Open {
    file: File,
    identity: Identity,
}

impl Lines {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, open: None }
    }

    /// Makes the file. A full disk is left for later.
    ///
    /// # Errors
    /// What does not heal by waiting, in words.
    pub(super) fn open_at_start(&mut self, sink: &str) -> Result<(), String> {
        let Err(error) = self.open() else { return Ok(()) };
        let told = format!("{}: {error}", self.path.display());
        if error.kind() == io::ErrorKind::StorageFull {
            tracing::warn!(sink, "the file cannot be opened yet: {told}");
            return Ok(());
        }
        Err(format!("{told}; make the file and its folder writable for the broker"))
    }

    fn write(&mut self, batch: &[Arc<Entry>]) -> Vec<Verdict> {
        let (bytes, verdicts) = lines_of(batch);
        match self.append(&bytes) {
            Ok(()) => verdicts,
            Err(error) => {
                self.open = None;
                Verdict::retry_all(batch, format!("{}: {error}", self.path.display()))
            }
        }
    }

    /// Appends all of `bytes` or, as far as the system lets it, nothing.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let file = &mut self.open()?.file;
        let before = file.metadata()?.len();
        file.write_all(bytes).inspect_err(|_| {
            let _best_effort = file.set_len(before);
        })
    }

    /// The file: as it was, unless it was moved or deleted.
    fn open(&mut self) -> io::Result<&mut Open> {
        let open = match self.open.take() {
            Some(open) if Identity::of(&self.path).is_ok_and(|now| now == open.identity) => open,
            _ => self.reopen()?,
        };
        Ok(self.open.insert(open))
    }

    fn reopen(&self) -> io::Result<Open> {
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(&self.path)?;
        if disk::ends_mid_line(&mut file)? {
            file.write_all(b"\n")?;
        }
        let identity = Identity::from(&file.metadata()?);
        Ok(Open { file, identity })
    }
}

/// The lines of a batch, and what becomes of its records once they are written.
fn lines_of(batch: &[Arc<Entry>]) -> (Vec<u8>, Vec<Verdict>) {
    let mut bytes = Vec::new();
    let verdicts = batch
        .iter()
        .map(|entry| {
            let start = bytes.len();
            match serde_json::to_writer(&mut bytes, &Fields(&entry.record.fields)) {
                Ok(()) => {
                    bytes.push(b'\n');
                    Verdict::Written
                }
                Err(error) => {
                    bytes.truncate(start);
                    Verdict::Rejected(format!("it cannot be told in JSON: {error}"))
                }
            }
        })
        .collect();
    (bytes, verdicts)
}
