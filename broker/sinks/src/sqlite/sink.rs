//! Writes rows, on a thread of its own because SQLite blocks.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};
use weirmq_core::record::{Record, Value};

use super::config::{Column, ColumnType, SqliteConfig, Synchronous, identifier_fault};
use crate::disk::Identity;
use crate::engine::own_thread::OwnThread;
use crate::engine::{Entry, Sink, Stop, Verdict, Writing};
use crate::json::Plain;

/// When a record was made, and by which rule: columns that are filled wherever a table has them.
const CREATED: &str = "_created_unix_ms";
const RULE: &str = "_rule";

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
        let mut table = Table { config: &config, transaction: &transaction, columns };
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

/// Makes the table and the configured columns that it lacks.
fn prepare_table(connection: &mut Connection, config: &SqliteConfig) -> rusqlite::Result<TableColumns> {
    let there = TableColumns::read(connection, config.table())?;
    let lacks = |column: &&Column| !there.has(&column.name);
    if !there.is_empty() && config.columns.0.iter().find(lacks).is_none() {
        return Ok(there);
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if there.is_empty() {
        transaction.execute_batch(&create_table(config))?;
    } else {
        for column in config.columns.0.iter().filter(lacks) {
            transaction.execute_batch(&add_column(config.table(), &column.name, column.kind))?;
        }
    }
    let columns = TableColumns::read(&transaction, config.table())?;
    transaction.commit()?;
    Ok(columns)
}

fn create_table(config: &SqliteConfig) -> String {
    let bookkeeping = [(CREATED, ColumnType::Integer), (RULE, ColumnType::Text)];
    let columns: Vec<(&str, ColumnType)> = if config.columns.0.is_empty() {
        bookkeeping.to_vec()
    } else {
        config.columns.0.iter().map(|column| (&*column.name, column.kind)).collect()
    };
    let columns: Vec<String> =
        columns.into_iter().map(|(name, kind)| format!("{}{}", quoted(name), kind.sql())).collect();
    format!("CREATE TABLE IF NOT EXISTS {} ({})", quoted(config.table()), columns.join(", "))
}

fn add_column(table: &str, name: &str, kind: ColumnType) -> String {
    format!("ALTER TABLE {} ADD COLUMN {}{}", quoted(table), quoted(name), kind.sql())
}

/// A name as SQL reads it whatever is in it.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The names of a table's columns, in lower case, as SQLite compares them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct TableColumns(Vec<String>);

impl TableColumns {
    /// Of `table`; none when it is not there.
    fn read(connection: &Connection, table: &str) -> rusqlite::Result<Self> {
        let mut statement = connection.prepare("SELECT name FROM pragma_table_xinfo(?1)")?;
        let names = statement.query_map([table], |row| row.get::<_, String>(0))?;
        names.map(|name| Ok(name?.to_ascii_lowercase())).collect::<rusqlite::Result<_>>().map(Self)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|column| column.eq_ignore_ascii_case(name))
    }
}

/// The table within a transaction.
struct Table<'a> {
    config: &'a SqliteConfig,
    transaction: &'a Transaction<'a>,
    columns: &'a mut TableColumns,
}

/// Whether a record was taken, and why not.
type Taken = Result<(), String>;

impl Table<'_> {
    /// Adds a row. The outer error is the target's fault, the inner one the record's.
    fn insert(&mut self, record: &Record) -> rusqlite::Result<Taken> {
        if let Err(reason) = self.prepare_for(record)? {
            return Ok(Err(reason));
        }
        let error = match self.insert_row(record) {
            Ok(()) => return Ok(Ok(())),
            Err(error) => error,
        };
        if !self.is_records_fault(&error)? {
            return Err(error);
        }
        Ok(Err(format!("table '{}': {error}", self.config.table())))
    }

    /// Sees to it that every field has a column. A record that is not taken leaves no column behind.
    fn prepare_for(&mut self, record: &Record) -> rusqlite::Result<Taken> {
        let missing = match self.missing_columns(record) {
            Ok(missing) => missing,
            Err(reason) => return Ok(Err(reason)),
        };
        for name in missing {
            let table = self.config.table();
            self.transaction.execute_batch(&add_column(table, name, ColumnType::Any))?;
            self.columns.0.push(name.to_ascii_lowercase());
            tracing::info!(sink = self.config.name, table, column = name, "a record brought a new column");
        }
        Ok(Ok(()))
    }

    /// The columns that `record` needs and the table lacks but may be given.
    fn missing_columns<'r>(&self, record: &'r Record) -> Result<Vec<&'r str>, String> {
        let mut missing = Vec::new();
        for (number, (name, _)) in record.fields.iter().enumerate() {
            let mut before = record.fields.iter().take(number);
            if let Some((twin, _)) = before.find(|(twin, _)| twin.eq_ignore_ascii_case(name)) {
                return Err(format!("fields '{twin}' and '{name}' are the same column to SQLite"));
            }
            if !self.columns.has(name) {
                self.may_add(name, self.columns.len() + missing.len())?;
                missing.push(&**name);
            }
        }
        Ok(missing)
    }

    /// Whether the table, with `count` columns, may get one more.
    fn may_add(&self, name: &str, count: usize) -> Taken {
        let table = self.config.table();
        if !self.config.columns.0.is_empty() {
            return Err(format!("table '{table}' has no column '{name}'; add it to `columns`"));
        }
        let max = self.config.columns_max;
        if count >= max {
            return Err(format!(
                "table '{table}' has no column '{name}', and with columns_max = {max} gets no more"
            ));
        }
        identifier_fault(name).map_or(Ok(()), |fault| Err(format!("the name of field {name:?} {fault}")))
    }

    fn insert_row(&self, record: &Record) -> rusqlite::Result<()> {
        let created = Value::Int(i64::try_from(record.created_unix_ms).unwrap_or(i64::MAX));
        let rule = Value::Text(Arc::clone(&record.rule));
        let mut row: Vec<(&str, &Value)> =
            record.fields.iter().map(|(name, value)| (&**name, value)).collect();
        for (name, value) in [(CREATED, &created), (RULE, &rule)] {
            let is_set = row.iter().any(|(column, _)| column.eq_ignore_ascii_case(name));
            if !is_set && self.columns.has(name) {
                row.push((name, value));
            }
        }
        let mut statement = self.transaction.prepare_cached(&insert_into(self.config.table(), &row))?;
        for (number, (_, value)) in (1_usize..).zip(&row) {
            statement.raw_bind_parameter(number, Bound(value))?;
        }
        statement.raw_execute().map(|_| ())
    }

    /// Whether it would fail again at any other time.
    fn is_records_fault(&self, error: &rusqlite::Error) -> rusqlite::Result<bool> {
        match error.sqlite_error_code() {
            Some(
                ErrorCode::ConstraintViolation
                | ErrorCode::TypeMismatch
                | ErrorCode::TooBig
                | ErrorCode::ParameterOutOfRange,
            ) => Ok(true),
            // No more than a text, such as that the column is a computed one. When the table is not what it was,
            // that is why, and a fresh look helps.
            Some(ErrorCode::Unknown) => {
                Ok(TableColumns::read(self.transaction, self.config.table())? == *self.columns)
            }
            Some(_) => Ok(false),
            // A value that cannot be bound.
            None => Ok(true),
        }
    }
}

fn insert_into(table: &str, row: &[(&str, &Value)]) -> String {
    if row.is_empty() {
        return format!("INSERT INTO {} DEFAULT VALUES", quoted(table));
    }
    let names: Vec<String> = row.iter().map(|(name, _)| quoted(name)).collect();
    let places = vec!["?"; row.len()];
    format!("INSERT INTO {} ({}) VALUES ({})", quoted(table), names.join(", "), places.join(", "))
}

/// A value as SQLite stores it.
struct Bound<'a>(&'a Value);

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self.0 {
            Value::Null => ToSqlOutput::Borrowed(ValueRef::Null),
            Value::Bool(truth) => ToSqlOutput::Borrowed(ValueRef::Integer(i64::from(*truth))),
            Value::Int(number) => ToSqlOutput::Borrowed(ValueRef::Integer(*number)),
            Value::Float(number) => ToSqlOutput::Borrowed(ValueRef::Real(*number)),
            Value::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            Value::Bytes(bytes) => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
            nested @ (Value::List(_) | Value::Map(_)) => {
                let text = serde_json::to_string(&Plain(nested))
                    .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
                ToSqlOutput::from(text)
            }
        })
    }
}
