//! A folder that is to become a store all at once: by an import, by a backup.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::{mark, segment};

/// The folder in a new one in which a store is made that is not to be seen yet.
const BESIDE_NAME: &str = "unfinished";

/// A folder that was new or empty. Unless it is kept, it is so again when this is dropped.
pub(crate) struct NewFolder {
    path: PathBuf,
    /// The folders that were made, the outermost first.
    made: Vec<PathBuf>,
    kept: bool,
}

impl NewFolder {
    /// Makes the folder at `path`, for this user only, or takes one that is empty.
    ///
    /// # Errors
    /// `DirectoryNotEmpty`, `NotADirectory`, or what the operating system says.
    pub(crate) fn take(path: &Path) -> io::Result<Self> {
        if path.exists() {
            if !path.is_dir() {
                return Err(io::ErrorKind::NotADirectory.into());
            }
            if fs::read_dir(path)?.next().is_some() {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
        }
        let missing = path.ancestors().take_while(|part| !part.as_os_str().is_empty() && !part.exists());
        let mut made: Vec<_> = missing.map(Path::to_owned).collect();
        made.reverse();
        let new = Self { path: path.to_owned(), made, kept: false };
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        Ok(new)
    }

    /// A folder in it, for a store that is not to be seen yet.
    pub(crate) fn beside(&self) -> PathBuf {
        self.path.join(BESIDE_NAME)
    }

    /// Puts the store that was made [beside](Self::beside) in the place of nothing, durably: the mark last,
    /// without which there is no store.
    pub(crate) fn fill_from(mut self, beside: &Path) -> io::Result<()> {
        for entry in fs::read_dir(beside)? {
            let name = entry?.file_name();
            if name.to_str().is_some_and(|name| segment::of_name(name).is_some()) {
                fs::rename(beside.join(&name), self.path.join(&name))?;
            }
        }
        File::open(&self.path)?.sync_all()?;
        fs::rename(beside.join(mark::NAME), self.path.join(mark::NAME))?;
        fs::remove_dir_all(beside)?;
        self.keep()
    }

    /// Keeps what was put into it, durably.
    pub(crate) fn keep(&mut self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()?;
        for made in &self.made {
            if let Some(parent) = made.parent() {
                let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
                File::open(parent)?.sync_all()?;
            }
        }
        self.kept = true;
        Ok(())
    }
}

impl Drop for NewFolder {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        // What cannot be removed is said by nothing better than being there.
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let path = entry.path();
            let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        }
        for made in self.made.iter().rev() {
            let _ = fs::remove_dir(made);
        }
    }
}
