//! The table: its columns, its rows, and what to make of it when SQLite refuses one.

use std::sync::Arc;

use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};
use weirmq_core::record::{Record, Value};

use super::config::{Column, ColumnType, SqliteConfig, identifier_fault};
use crate::json::Plain;

/// When a record was made, and by which rule: columns that are filled wherever a table has them.
const CREATED: &str = "_created_unix_ms";
const RULE: &str = "_rule";

/// Makes the table and the configured columns that it lacks.
pub(super) fn prepare_table(
    connection: &mut Connection,
    config: &SqliteConfig,
) -> rusqlite::Result<TableColumns> {
    let there = TableColumns::read(connection, config.table())?;
    let missing: Vec<&Column> = config.columns.0.iter().filter(|column| !there.has(&column.name)).collect();
    if !there.is_empty() && missing.is_empty() {
        return Ok(there);
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if there.is_empty() {
        transaction.execute_batch(&create_table(config))?;
    } else {
        for column in missing {
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
pub(super) struct TableColumns(Vec<String>);

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
pub(super) struct Table<'a> {
    config: &'a SqliteConfig,
    transaction: &'a Transaction<'a>,
    columns: &'a mut TableColumns,
}

/// Whether a record was taken, and why not.
pub(super) type Taken = Result<(), String>;

impl<'a> Table<'a> {
    /// The table that `config` names, with `columns`, which are kept up to date.
    pub(super) fn new(
        config: &'a SqliteConfig,
        transaction: &'a Transaction<'a>,
        columns: &'a mut TableColumns,
    ) -> Self {
        Self { config, transaction, columns }
    }

    /// Adds a row. The outer error is the target's fault, the inner one the record's.
    pub(super) fn insert(&mut self, record: &Record) -> rusqlite::Result<Taken> {
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
