//! The data folder and its lock: one broker at a time.

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// A data folder that is this process's own until it is dropped.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    _lock: File,
}

/// Why a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// It cannot be made, or written to.
    #[error(
        "the data folder {} cannot be used: {source}; make it writable for the broker, or name another with `data_folder`",
        folder.display()
    )]
    Unusable {
        /// The folder.
        folder: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another broker has it.
    #[error(
        "another broker is running with the data folder {}; end it first, or name another with `data_folder`",
        folder.display()
    )]
    Taken {
        /// The folder.
        folder: PathBuf,
    },
}

impl DataFolder {
    /// Makes `folder` where it is not there, for this user only, and takes it.
    ///
    /// # Errors
    /// [`DataError`].
    pub fn open(folder: &Path) -> Result<Self, DataError> {
        let unusable = |source| DataError::Unusable { folder: folder.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(unusable)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(folder.join("broker.lock"))
            .map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: folder.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(DataError::Taken { folder: folder.to_owned() }),
            Err(TryLockError::Error(source)) => Err(unusable(source)),
        }
    }

    /// Why no data folder can be at `folder`, if that is plain without making it.
    #[must_use]
    pub fn fault(folder: &Path) -> Option<String> {
        let there = folder.ancestors().find(|path| path.exists())?;
        (!there.is_dir()).then(|| {
            format!(
                "the data folder {} cannot be made: {} is a file; name another with `data_folder`",
                folder.display(),
                there.display()
            )
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_folder_has_one_broker_at_a_time() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("a/b");
        let first = DataFolder::open(&folder).unwrap();
        assert!(matches!(DataFolder::open(&folder), Err(DataError::Taken { .. })));
        drop(first);
        DataFolder::open(&folder).unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = DataFolder::open(&file.join("data")).unwrap_err();
        assert!(error.to_string().contains("file/data"), "{error}");
        for folder in [&file, &file.join("data")] {
            assert!(DataFolder::fault(folder).is_some_and(|fault| fault.contains("is a file")), "{folder:?}");
        }
        assert_eq!(DataFolder::fault(&parent.path().join("a/b")), None);
    }
}
