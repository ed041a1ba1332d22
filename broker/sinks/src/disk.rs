//! Small things about files that several sinks need.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Where `file` lies: relative to the data folder unless it is absolute.
pub(crate) fn resolve(data_folder: &Path, file: &Path) -> PathBuf {
    data_folder.join(file)
}

/// The folder of the broker's own files about sinks: spill files and dead letters.
pub(crate) fn own_folder(data_folder: &Path) -> PathBuf {
    data_folder.join("sinks")
}

/// Why no file could be opened at `path`, if that is plain without trying; changes nothing. The data folder
/// itself need not be there yet: it is made at start.
pub(crate) fn path_fault(data_folder: &Path, path: &Path) -> Option<String> {
    if path.is_dir() {
        return Some(format!("{} is a folder; name a file in it", path.display()));
    }
    if path.file_name().is_none() {
        return Some(format!("'{}' is not the name of a file", path.display()));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty())?;
    if folder.is_dir() || folder == data_folder {
        return None;
    }
    Some(format!("the folder {} does not exist; create it", folder.display()))
}

/// Milliseconds since 1970-01-01T00:00:00Z by the machine's calendar.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Makes the names in `folder` durable, where the system can.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Whether the last line of `file` was cut off, by a full disk or a kill: what is appended needs a new one.
pub(crate) fn ends_mid_line(file: &mut File) -> io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

/// Which file a path means: another one has taken its place when this differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// The file at `path` now.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|metadata| Self::from(&metadata))
    }
}

#[cfg(unix)]
impl From<&fs::Metadata> for Identity {
    fn from(metadata: &fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

#[cfg(not(unix))]
impl From<&fs::Metadata> for Identity {
    /// Elsewhere an open file cannot be replaced.
    fn from(_: &fs::Metadata) -> Self {
        Self { device: 0, inode: 0 }
    }
}
