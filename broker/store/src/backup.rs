//! A copy of a store that goes on meanwhile.
//!
//! Everything that is live stands in the segments that there are at a moment, up to where the log is durable at
//! that moment: ended segments, which nobody writes to any more, and the beginning of the last. Compaction may
//! remove a segment while it is copied; who has it open can still read it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, DiskFile, OsDisk};
use crate::error::{StoreError, remedy};
use crate::folder::NewFolder;
use crate::log_store::{LogStore, Shared};
use crate::mark::{self, Mark, Position};
use crate::segment;
use crate::store::Store;

/// How much is copied at a time, in bytes.
const PIECE_BYTES: usize = 1024 * 1024;

/// What a backup is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// Segments that the store and the backup share, as hard links: they are never written to again.
    pub linked: usize,
    /// Segments that were copied: the last one, and all where the backup is on another file system.
    pub copied: usize,
    /// How large it is, in bytes.
    pub bytes: u64,
}

/// Why there is no backup. The folder is as it was then.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is something in the folder.
    #[error("{path} is not empty; name a new folder, or an empty one")]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// It is not a folder.
    #[error("{path} is not a folder; name another one")]
    NotAFolder {
        /// What was named.
        path: PathBuf,
    },
    /// The operating system refuses.
    #[error("{doing} {path} failed: {source}; {}", remedy(source))]
    Io {
        /// What was attempted.
        doing: &'static str,
        /// At which file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The store does not write what it has.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The log at a moment.
struct Moment {
    salt: u64,
    end: Position,
    segments: Vec<(u32, Arc<dyn DiskFile>, u64)>,
}

impl LogStore {
    /// Copies the store as it is now into `folder`, which must be new or empty: everything that was acknowledged
    /// before, durably, and what it opens to is what a restart at this moment would find. Appends go on.
    ///
    /// Ended segments are hard links where both are on one file system; what happens to such a file on the
    /// disk happens to both, so a backup is to be moved to another disk, or made there.
    ///
    /// # Errors
    /// [`BackupError`], and `folder` is as it was.
    pub fn backup(&self, folder: &Path) -> Result<Backup, BackupError> {
        self.sync().wait()?;
        self.shared.backup(folder)
    }
}

impl Shared {
    fn backup(&self, folder: &Path) -> Result<Backup, BackupError> {
        let fail = |doing, path: &Path, source| BackupError::Io { doing, path: path.to_owned(), source };
        let mut new = NewFolder::take(folder).map_err(|source| match source.kind() {
            io::ErrorKind::DirectoryNotEmpty => BackupError::NotEmpty { path: folder.to_owned() },
            io::ErrorKind::NotADirectory => BackupError::NotAFolder { path: folder.to_owned() },
            _ => fail("creating", folder, source),
        })?;
        let moment = self.moment();
        let mut backup = Backup { linked: 0, copied: 0, bytes: 0 };
        for (number, file, bytes) in &moment.segments {
            let name = segment::name(*number);
            let path = folder.join(&name);
            let is_ended = *number < moment.end.segment;
            if is_ended && fs::hard_link(self.disk.path(&name), &path).is_ok() {
                backup.linked += 1;
            } else {
                copy(&**file, *bytes, &path).map_err(|source| fail("writing", &path, source))?;
                backup.copied += 1;
            }
            backup.bytes += bytes;
        }
        // Without the mark it is no store: it comes last.
        let path = folder.join(mark::NAME);
        let first = moment.segments.first().map_or(1, |(number, ..)| *number);
        File::open(folder)
            .and_then(|opened| opened.sync_all())
            .and_then(|()| OsDisk::new(folder).create(mark::NAME))
            .and_then(|file| Mark::create_at(file, moment.salt, first, moment.end))
            .map_err(|source| fail("writing", &path, source))?;
        new.keep().map_err(|source| fail("syncing", folder, source))?;
        Ok(backup)
    }

    fn moment(&self) -> Moment {
        let salt = self.mark.lock().salt;
        let inner = self.inner.lock();
        let end = inner.tail.durable;
        let segments = inner.segments.range(..=end.segment).map(|(number, segment)| {
            let is_last = *number == end.segment;
            let bytes = if is_last { end.offset } else { segment.bytes };
            (*number, Arc::clone(&segment.file), u64::from(bytes))
        });
        Moment { salt, end, segments: segments.collect() }
    }
}

/// Copies the first `bytes` of `file` to a new file at `path`, durably.
fn copy(file: &dyn DiskFile, bytes: u64, path: &Path) -> io::Result<()> {
    let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let mut piece = vec![0; PIECE_BYTES];
    let mut at = 0;
    while at < bytes {
        let wanted = usize::try_from(bytes - at).unwrap_or(usize::MAX).min(PIECE_BYTES);
        let count = file.read_at(piece.get_mut(..wanted).unwrap_or_default(), at)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        out.write_all(piece.get(..count).unwrap_or_default())?;
        at += count as u64;
    }
    out.sync_all()
}
