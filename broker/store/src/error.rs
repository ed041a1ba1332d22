//! Why the store refuses, and why a folder cannot be opened: one sentence each, with the path, the cause and
//! what to do.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Why a record is not durable, or something stored cannot be read. The first group is for good until the
/// store is opened anew; the broker stops acknowledging.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// A write or an fsync failed before. Nothing is acknowledged any more; reads go on.
    #[error(
        "the store takes nothing more since {doing} {path} failed: {cause}; remove the cause and open it anew"
    )]
    Poisoned {
        /// What failed.
        doing: &'static str,
        /// At which file.
        path: PathBuf,
        /// What the operating system said.
        cause: Arc<str>,
        /// Its kind: `StorageFull` and `QuotaExceeded` are for MQTT's 0x97, the others for 0x83.
        kind: io::ErrorKind,
    },
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
    /// The store was opened to be read only.
    #[error("the store was opened to be read only")]
    ReadOnly,
    /// The store cannot keep up: this record was refused, later ones may be taken.
    #[error("the disk does not keep up: {bytes_max} bytes wait to be written")]
    Backlog {
        /// The limit.
        bytes_max: usize,
    },
    /// The record is larger than a record may be.
    #[error("a record of {bytes} bytes is larger than {bytes_max} bytes")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// What is stored is not what was written.
    #[error("{path} is damaged at byte {offset}: {what}; restore it from a backup")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// What is stored cannot be read.
    #[error("{path} cannot be read: {cause}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        cause: Arc<str>,
    },
}

impl StoreError {
    /// Whether the disk or a quota is full: MQTT's 0x97, where others are 0x83.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            Self::Poisoned { kind, .. } => {
                matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            Self::Backlog { .. } => true,
            Self::Closed
            | Self::ReadOnly
            | Self::TooLarge { .. }
            | Self::Corrupt { .. }
            | Self::Read { .. } => false,
        }
    }
}

/// Why a folder cannot be opened as a store. Nothing that was acknowledged has been changed on the disk.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{path} is in use by another process; stop that one, or configure another folder")]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// It is not a folder.
    #[error("{path} is not a folder; configure one, or move the file away")]
    NotAFolder {
        /// What was configured.
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
    /// The format is one that this version does not know.
    #[error("{path} has format {version}, this broker knows formats up to {version_max}; use a newer broker")]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        version: u16,
        /// The newest format that is known.
        version_max: u16,
    },
    /// The backend that a store is to stand on does not do its part.
    #[error("the store backend {name} failed: {cause}; remove the cause, or configure another backend")]
    Backend {
        /// What it is called.
        name: Arc<str>,
        /// What it said.
        cause: Arc<str>,
    },
    /// What a backend has is not what was put there.
    #[error("the store backend {name} is damaged at the key {key}: {what}; restore it from a backup")]
    BackendDamaged {
        /// What it is called.
        name: Arc<str>,
        /// Which key, escaped.
        key: String,
        /// What is wrong there.
        what: &'static str,
    },
    /// There is no store in it.
    #[error("{path} has no store in it; name the folder that has the file durable.mark")]
    NoStore {
        /// The folder.
        path: PathBuf,
    },
    /// A file that must be there is not.
    #[error("{path} is missing; restore it from a backup")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// What is stored is not what was written.
    #[error("{path} is damaged at byte {offset}: {what}; restore it from a backup")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
}

/// What is to be done about what the operating system says.
pub(crate) fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "give this process's user the right to it, or name another folder",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "make room on its disk, or name a folder on another one"
        }
        io::ErrorKind::ReadOnlyFilesystem => "mount its file system writable, or name another folder",
        io::ErrorKind::NotFound => "name a folder that is there",
        _ => "look after its disk, or restore the folder from a backup on another one",
    }
}
