//! The files beneath the log, behind a trait small enough that tests can drop, tear and refuse what goes
//! through it.

use std::any::Any;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A folder of files.
pub trait Disk: Send + Sync + 'static {
    /// Takes the folder for this process alone, until what is returned is dropped.
    ///
    /// # Errors
    /// `WouldBlock` when another process has it, `NotADirectory` when it is not a folder, or what the
    /// operating system says.
    fn lock(&self) -> io::Result<Box<dyn Any + Send + Sync>>;

    /// Whether a process has taken the folder; it is not taken by asking.
    ///
    /// # Errors
    /// What the operating system says.
    fn in_use(&self) -> io::Result<bool>;

    /// The names of the files in it.
    ///
    /// # Errors
    /// What the operating system says.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Opens a file that is there, for reading and writing.
    ///
    /// # Errors
    /// What the operating system says.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Creates a file that is not there. It outlives power loss after [`Disk::sync_folder`].
    ///
    /// # Errors
    /// What the operating system says.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Removes a file. Those who have it open can still read it.
    ///
    /// # Errors
    /// What the operating system says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes creations and removals durable.
    ///
    /// # Errors
    /// What the operating system says.
    fn sync_folder(&self) -> io::Result<()>;

    /// What a file of this name is called in messages; the folder itself for an empty name.
    fn path(&self, name: &str) -> PathBuf;
}

/// An open file.
pub trait DiskFile: Send + Sync + 'static {
    /// Reads at `offset` as much as `buffer` takes or the file has, and says how much that was.
    ///
    /// # Errors
    /// What the operating system says.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`. When it fails, some of them may have been written.
    ///
    /// # Errors
    /// What the operating system says.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes all that was written durable, and the length of the file.
    ///
    /// # Errors
    /// What the operating system says. What was written before may be lost then, and a later success does
    /// not mean that it is not.
    fn sync(&self) -> io::Result<()>;

    /// Cuts the file to `bytes`.
    ///
    /// # Errors
    /// What the operating system says.
    fn truncate(&self, bytes: u64) -> io::Result<()>;

    /// How long the file is, in bytes.
    ///
    /// # Errors
    /// What the operating system says.
    fn len(&self) -> io::Result<u64>;

    /// Whether there is nothing in it.
    ///
    /// # Errors
    /// What the operating system says.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// The file whose lock is the folder's.
pub(crate) const LOCK_NAME: &str = "lock";

/// How long to ask for the lock: whoever looks whether a folder is in use has it for a moment.
const LOCK_PATIENCE: Duration = Duration::from_millis(100);

/// A folder of the operating system.
#[derive(Debug)]
pub struct OsDisk {
    folder: PathBuf,
}

impl OsDisk {
    /// The folder at this path. It is created when it is locked.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }
}

impl Disk for OsDisk {
    fn lock(&self) -> io::Result<Box<dyn Any + Send + Sync>> {
        if self.folder.exists() && !self.folder.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        std::fs::create_dir_all(&self.folder)?;
        let path = self.folder.join(LOCK_NAME);
        let until = Instant::now() + LOCK_PATIENCE;
        loop {
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
            match file.try_lock() {
                // Who had it before may have removed it.
                Ok(()) if !is_at(&file, &path) => {}
                Ok(()) => return Ok(Box::new(file)),
                Err(TryLockError::WouldBlock) if Instant::now() < until => {
                    std::thread::sleep(LOCK_PATIENCE / 10);
                }
                Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }

    fn in_use(&self) -> io::Result<bool> {
        in_use(&self.folder)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        list(&self.folder)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(self.folder.join(name))?;
        Ok(Arc::new(OsFile(file)))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.folder.join(name);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        Ok(Arc::new(OsFile(file)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.folder.join(name))
    }

    fn sync_folder(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }

    fn path(&self, name: &str) -> PathBuf {
        path_in(&self.folder, name)
    }
}

/// A folder of the operating system that is looked at and never changed, whoever has taken it.
#[derive(Debug)]
pub struct ReadOnlyDisk {
    folder: PathBuf,
}

impl ReadOnlyDisk {
    /// The folder at this path.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }
}

impl Disk for ReadOnlyDisk {
    fn lock(&self) -> io::Result<Box<dyn Any + Send + Sync>> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn in_use(&self) -> io::Result<bool> {
        in_use(&self.folder)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        list(&self.folder)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(OsFile(File::open(self.folder.join(name))?)))
    }

    fn create(&self, _: &str) -> io::Result<Arc<dyn DiskFile>> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_folder(&self) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn path(&self, name: &str) -> PathBuf {
        path_in(&self.folder, name)
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), path.metadata()) {
        (Ok(file), Ok(path)) => identity(file) == identity(path),
        _ => false,
    }
}

fn in_use(folder: &Path) -> io::Result<bool> {
    let file = match File::open(folder.join(LOCK_NAME)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn list(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        // A name that is not text is none of ours.
        names.extend(entry?.file_name().into_string());
    }
    Ok(names)
}

fn path_in(folder: &Path, name: &str) -> PathBuf {
    if name.is_empty() { folder.to_owned() } else { folder.join(name) }
}

/// A file of the operating system.
struct OsFile(File);

impl DiskFile for OsFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.0.read_at(rest, offset.saturating_add(filled as u64)) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}
