//! `[[sink.sqlite]]`

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

use super::sink::{Database, SqliteSink};
use crate::config::{BufferConfig, Finding, Severity, SinkConfig};
use crate::disk;
use crate::engine::Sink;

/// The longest name of a table or a column, in bytes.
pub(super) const IDENTIFIER_BYTES_MAX: usize = 128;

/// The longest that a write may wait for another program's lock, in milliseconds: the buffer waits better.
const BUSY_TIMEOUT_MS_MAX: u64 = 2_000;

/// The most columns that SQLite gives a table.
const COLUMNS_MAX: usize = 2_000;

/// What every database begins with.
const MAGIC: &[u8] = b"SQLite format 3\0";

/// A table of an embedded SQLite database.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqliteConfig {
    /// What rules call the sink.
    pub name: String,
    /// The database, in the data folder unless the path is absolute. It is made when it is not there.
    pub file: PathBuf,
    /// The table; as the sink when it is not set.
    pub table: Option<String>,
    /// The columns: a list of names, or a table of names and types. When it is empty (the default), columns are
    /// added as records bring them.
    #[serde(default)]
    pub columns: Columns,
    /// How many columns records may bring a table to, where none are configured. Default 200.
    #[serde(default = "default_columns_max")]
    pub columns_max: usize,
    /// How long a write waits for another program's lock before the batch goes back into the buffer, in
    /// milliseconds, up to 2,000. Default 500.
    #[serde(default = "default_busy_timeout_ms")]
    pub busy_timeout_ms: u64,
    /// What a power failure may take.
    #[serde(default)]
    pub synchronous: Synchronous,
    /// How records are buffered.
    #[serde(default)]
    pub buffer: BufferConfig,
}

fn default_columns_max() -> usize {
    200
}

fn default_busy_timeout_ms() -> u64 {
    500
}

/// What a power failure may take. A crash of the broker takes nothing that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Synchronous {
    /// The rows since the last checkpoint of the write-ahead log; the database stays whole.
    #[default]
    Normal,
    /// Nothing that was counted as written: every batch waits for the disk.
    Full,
}

/// The columns of a table, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Columns(pub Vec<Column>);

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: ColumnType,
}

/// The type of a column: what SQLite tries to make of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColumnType {
    /// Every value stays what it is.
    #[default]
    #[serde(alias = "ANY")]
    Any,
    /// Whole numbers.
    #[serde(alias = "INTEGER")]
    Integer,
    /// Numbers with a fraction.
    #[serde(alias = "REAL")]
    Real,
    /// Whole numbers where that loses nothing, else numbers with a fraction.
    #[serde(alias = "NUMERIC")]
    Numeric,
    /// Text.
    #[serde(alias = "TEXT")]
    Text,
    /// Bytes.
    #[serde(alias = "BLOB")]
    Blob,
}

impl ColumnType {
    /// As it stands in SQL.
    pub(super) fn sql(self) -> &'static str {
        match self {
            Self::Any => "",
            Self::Integer => " INTEGER",
            Self::Real => " REAL",
            Self::Numeric => " NUMERIC",
            Self::Text => " TEXT",
            Self::Blob => " BLOB",
        }
    }
}

impl<'de> Deserialize<'de> for Columns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ColumnsVisitor)
    }
}

struct ColumnsVisitor;

impl<'de> Visitor<'de> for ColumnsVisitor {
    type Value = Columns;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a list of names, such as [\"line\", \"celsius\"], or a table of names and types, such as { celsius = \"real\" }")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Columns, A::Error> {
        let mut columns = Vec::new();
        while let Some(name) = list.next_element()? {
            columns.push(Column { name, kind: ColumnType::Any });
        }
        Ok(Columns(columns))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Columns, A::Error> {
        let mut columns = Vec::new();
        while let Some((name, kind)) = map.next_entry()? {
            columns.push(Column { name, kind });
        }
        Ok(Columns(columns))
    }
}

impl SqliteConfig {
    pub(super) fn table(&self) -> &str {
        self.table.as_deref().unwrap_or(&self.name)
    }

    pub(super) fn busy_timeout(&self) -> Duration {
        Duration::from_millis(self.busy_timeout_ms)
    }

    fn path(&self, data_folder: &Path) -> PathBuf {
        disk::resolve(data_folder, &self.file)
    }

    fn faults(&self, data_folder: &Path) -> Vec<String> {
        let path = self.path(data_folder);
        let mut faults = Vec::new();
        faults.extend(disk::path_fault(data_folder, &path).or_else(|| file_fault(&path)));
        faults.extend(identifier_fault(self.table()).map(|fault| format!("the name of its table {fault}")));
        if self.table().to_ascii_lowercase().starts_with("sqlite_") {
            faults.push("names of tables that begin with 'sqlite_' are SQLite's own".to_owned());
        }
        faults.extend(self.columns_faults());
        if self.busy_timeout_ms > BUSY_TIMEOUT_MS_MAX {
            faults.push(format!(
                "busy_timeout_ms is {}; it may be {BUSY_TIMEOUT_MS_MAX} at most: longer locks are waited for in the buffer",
                self.busy_timeout_ms
            ));
        }
        if self.columns_max == 0 || self.columns_max > COLUMNS_MAX {
            faults.push(format!("columns_max is {}; it must be from 1 to {COLUMNS_MAX}", self.columns_max));
        }
        faults
    }

    fn columns_faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut seen: Vec<String> = Vec::new();
        for Column { name, .. } in &self.columns.0 {
            faults.extend(identifier_fault(name).map(|fault| format!("the name of column {name:?} {fault}")));
            let folded = name.to_ascii_lowercase();
            if seen.contains(&folded) {
                faults.push(format!(
                    "column '{name}' is there twice; to SQLite, upper and lower case are the same"
                ));
            }
            seen.push(folded);
        }
        if seen.len() > COLUMNS_MAX {
            faults.push(format!("it has {} columns; SQLite takes {COLUMNS_MAX}", seen.len()));
        }
        faults
    }
}

impl SinkConfig for SqliteConfig {
    fn name(&self) -> &str {
        &self.name
    }

    fn buffer(&self) -> &BufferConfig {
        &self.buffer
    }

    fn target(&self, data_folder: &Path) -> String {
        format!("{}, table {}", self.path(data_folder).display(), self.table())
    }

    fn file(&self, data_folder: &Path) -> Option<PathBuf> {
        Some(self.path(data_folder))
    }

    /// A database has room for many tables.
    fn shares_file(&self) -> bool {
        true
    }

    fn findings(&self, data_folder: &Path) -> Vec<Finding> {
        self.faults(data_folder).into_iter().map(|fault| (Severity::Error, fault)).collect()
    }

    fn open(&self, data_folder: &Path) -> Result<Box<dyn Sink>, String> {
        let mut database = Database::new(self.clone(), self.path(data_folder));
        database.open_at_start()?;
        Ok(Box::new(SqliteSink::new(database)?))
    }
}

/// Why `name` cannot be the name of a table or a column. Any other name can: names are always quoted.
pub(super) fn identifier_fault(name: &str) -> Option<String> {
    if name.is_empty() {
        Some("is empty".to_owned())
    } else if name.len() > IDENTIFIER_BYTES_MAX {
        Some(format!("is longer than {IDENTIFIER_BYTES_MAX} bytes"))
    } else if name.contains('\0') {
        Some("has a NUL in it".to_owned())
    } else {
        None
    }
}

/// Why the file that is at `path`, if any, is no database.
fn file_fault(path: &Path) -> Option<String> {
    let mut start = Vec::new();
    let read = File::open(path).ok()?.take(MAGIC.len() as u64).read_to_end(&mut start);
    let is_database = read.is_err() || start.is_empty() || start == MAGIC;
    (!is_database).then(|| format!("{} is not an SQLite database; choose another file", path.display()))
}
