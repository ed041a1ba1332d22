//! Rows in a table of an embedded SQLite database: one row per record, one transaction per batch.
//!
//! # Columns
//! - With `columns` configured, the table is made with them at start, and those that an older table lacks are
//!   added. A record with a field for which the table has no column becomes a dead letter that says so.
//! - Without, the table is made at start with the two columns `_created_unix_ms` and `_rule`, and a column is
//!   added whenever a record brings a field that has none, up to `columns_max`. Added columns have no type: each
//!   value keeps the kind that the rule gave it.
//! - Either way a table that is there already stays as it is, with whatever constraints, indexes and triggers it
//!   has; and `_created_unix_ms` and `_rule`, wherever the table has them, say when and by which rule the record
//!   was made, unless the record has such fields itself.
//! - As everywhere in SQLite, `Celsius` and `celsius` are the same column.
//!
//! # Values
//! A whole number is an INTEGER, one with a fraction a REAL, text TEXT, bytes a BLOB, a truth value 0 or 1, a list
//! or a map its JSON as TEXT; nothing, and NaN, are NULL. A column with a type converts as SQLite does.

mod config;
mod sink;
mod table;
#[cfg(test)]
mod tests;

pub use config::{Column, ColumnType, Columns, SqliteConfig, Synchronous};
