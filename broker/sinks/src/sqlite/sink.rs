//! Writes rows, on a thread of its own because SQLite blocks.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use super::config::{SqliteConfig, Synchronous};
use super::table::{Table, TableColumns, prepare_table};
use crate::disk::Identity;
use crate::engine::own_thread::OwnThread;
use crate::engine::{Closing, Entry, Sink, Stop, Verdict, Writing};

/// How many shapes of record have their statement ready.
const STATEMENTS_MAX: usize = 64;

/// The seam to the engine.
pub(super) struct SqliteSink {
    thread: OwnThread<Database>,
}

impl SqliteSink {
    pub(super) fn new(database: Database) -> Result<Self, String> {
        let name = database.config.name.clone();
        let thread =
            OwnThread::start(&name, database).map_err(|error| format!("no thread for it: {error}"))?;
        Ok(Self { thread })
    }
}

impl Sink for SqliteSink {
    fn write<'a>(&'a mut self, batch: &'a [Arc<Entry>], stop: &'a Stop) -> Writing<'a> {
        let (entries, stopped) = (batch.to_vec(), stop.clone());
        Box::pin(async move {
            let verdicts =
                self.thread.run(move |database: &mut Database| database.write(&entries, &stopped)).await;
            verdicts.unwrap_or_else(|| {
                Verdict::retry_all(batch, "the thread of the database has died; restart the broker")
            })
        })
    }

    /// Closed by its last user, a database is one file again: the write-ahead log is merged into it.
    fn close(&mut self) -> Closing<'_> {
        Box::pin(async move {
            let _thread_is_gone = self.thread.run(|database: &mut Database| database.open = None).await;
        })
    }
}

/// The database, open or to be opened.
pub(super) struct Database {
    config: Arc<SqliteConfig>,
    path: PathBuf,
    open: Option<Open>,
}

/// An open database whose table is there.
struct Open {
    connection: Connection,
    identity: Identity,
    columns: TableColumns,
}

/// Why a batch was not written.
enum Failure {
    /// The target is at fault: everything is tried again.
    Target(rusqlite::Error),
    /// It was told to stop.
    Stopped,
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Target(error)
    }
}

impl Database {
    pub(super) fn new(config: SqliteConfig, path: PathBuf) -> Self {
        Self { config: Arc::new(config), path, open: None }
    }

    /// Makes the file and the table. A database that is locked or whose disk is full is left for later.
    ///
    /// # Errors
    /// What does not heal by waiting, in words.
    pub(super) fn open_at_start(&mut self) -> Result<(), String> {
        let Err(error) = self.open() else { return Ok(()) };
        let told = format!("{}: {error}", self.path.display());
        match error.sqlite_error_code() {
            Some(
                ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::FileLockingProtocolFailed,
            ) => {
                tracing::warn!(sink = self.config.name, "the database cannot be opened yet: {told}");
                Ok(())
            }
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                Err(format!("{told}; choose another file, or restore it from a backup"))
            }
            Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
                Err(format!("{told}; make the file and its folder writable for the broker"))
            }
            _ => Err(told),
        }
    }

    /// Writes a batch in one transaction. After a failure the database is opened anew, with a fresh look at its
    /// table.
    fn write(&mut self, batch: &[Arc<Entry>], stop: &Stop) -> Vec<Verdict> {
        if stop.is_set() {
            return vec![Verdict::Untried; batch.len()];
        }
        let failure = match self.try_write(batch, stop) {
            Ok(verdicts) => return verdicts,
            Err(failure) => failure,
        };
        self.open = None;
        match failure {
            Failure::Stopped => vec![Verdict::Untried; batch.len()],
            Failure::Target(error) => Verdict::retry_all(batch, format!("{}: {error}", self.path.display())),
        }
    }

    fn try_write(&mut self, batch: &[Arc<Entry>], stop: &Stop) -> Result<Vec<Verdict>, Failure> {
        let config = Arc::clone(&self.config);
        let Open { connection, columns, .. } = self.open()?;
        // Immediate: a lock is waited for here, where nothing is done yet, and never in the middle.
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut table = Table::new(&config, &transaction, columns);
        let mut verdicts = Vec::with_capacity(batch.len());
        for entry in batch {
            if stop.is_set() {
                return Err(Failure::Stopped);
            }
            verdicts.push(match table.insert(&entry.record)? {
                Ok(()) => Verdict::Written,
                Err(reason) => Verdict::Rejected(reason),
            });
        }
        transaction.commit()?;
        Ok(verdicts)
    }

    /// The database: as it was, unless another file has taken the place of the one that is open.
    fn open(&mut self) -> rusqlite::Result<&mut Open> {
        let open = match self.open.take() {
            Some(open) if Identity::of(&self.path).is_ok_and(|now| now == open.identity) => open,
            _ => Open::new(&self.config, &self.path)?,
        };
        Ok(self.open.insert(open))
    }
}

impl Open {
    fn new(config: &SqliteConfig, path: &Path) -> rusqlite::Result<Self> {
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(config.busy_timeout())?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        // Readers do not hold up the writer, nor it them. A file system that cannot do it keeps its old way.
        connection.pragma_update(None, "journal_mode", "wal")?;
        let synchronous = match config.synchronous {
            Synchronous::Normal => "normal",
            Synchronous::Full => "full",
        };
        connection.pragma_update(None, "synchronous", synchronous)?;
        let columns = prepare_table(&mut connection, config)?;
        let identity =
            Identity::of(path).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        Ok(Self { connection, identity, columns })
    }
}
