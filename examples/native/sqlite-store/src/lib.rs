//! A store backend: all that the broker keeps, in one SQLite database.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OptionalExtension, params};
use weirmq_native::{Broker, Change, Entries, Plugin, Refusal, StoreBackend, export_store_backend};

/// How long to wait for another process that has the database open: one that is just ending.
const BUSY: Duration = Duration::from_secs(2);

struct SqliteStore {
    file: String,
    database: Option<Connection>,
}

impl Plugin for SqliteStore {
    fn create(config: &str, _: Broker) -> Result<Self, String> {
        let wanted = "`file` must be an absolute path, such as \"/var/lib/weirmq/state.db\"";
        let config: serde_json::Value = serde_json::from_str(config).map_err(|error| error.to_string())?;
        if let Some(key) =
            config.as_object().into_iter().flat_map(|table| table.keys()).find(|key| *key != "file")
        {
            return Err(format!("`{key}` is not known; there is `file`"));
        }
        let file = config["file"].as_str().filter(|file| Path::new(file).is_absolute()).ok_or(wanted)?;
        Ok(Self { file: file.to_owned(), database: None })
    }
}

impl StoreBackend for SqliteStore {
    fn open(&mut self) -> Result<(), String> {
        let opened = connect(&self.file).map_err(|error| match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                format!("{} is in use by another process; stop that one, or name another file", self.file)
            }
            _ => format!("{}: {error}", self.file),
        });
        self.database = Some(opened?);
        Ok(())
    }

    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, Refusal> {
        let mut select =
            self.database()?.prepare("SELECT value FROM entries WHERE key = ?1").map_err(refusal)?;
        select.query_row([key], |row| row.get(0)).optional().map_err(refusal)
    }

    fn write(&mut self, changes: &[Change<'_>]) -> Result<(), Refusal> {
        let transaction = self.database()?.transaction().map_err(refusal)?;
        {
            let mut put = transaction
                .prepare("INSERT OR REPLACE INTO entries (key, value) VALUES (?1, ?2)")
                .map_err(refusal)?;
            let mut delete = transaction.prepare("DELETE FROM entries WHERE key = ?1").map_err(refusal)?;
            for change in changes {
                match change.value() {
                    Some(value) => put.execute(params![change.key(), value]),
                    None => delete.execute([change.key()]),
                }
                .map_err(refusal)?;
            }
        }
        transaction.commit().map_err(refusal)
    }

    fn scan(&mut self, from: &[u8], entries_max: usize, entries: &mut Entries<'_>) -> Result<(), Refusal> {
        let sql = "SELECT key, value FROM entries WHERE key >= ?1 ORDER BY key LIMIT ?2";
        let mut select = self.database()?.prepare(sql).map_err(refusal)?;
        let most = i64::try_from(entries_max).unwrap_or(i64::MAX);
        let mut rows = select.query(params![from, most]).map_err(refusal)?;
        while let Some(row) = rows.next().map_err(refusal)? {
            let key = row.get_ref(0).map_err(refusal)?;
            let value = row.get_ref(1).map_err(refusal)?;
            let bytes = |column: rusqlite::types::ValueRef<'_>| column.as_blob().map(<[u8]>::to_vec);
            let (Ok(key), Ok(value)) = (bytes(key), bytes(value)) else {
                return Err(Refusal::Failed("a row of the table entries is not of bytes".to_owned()));
            };
            if !entries.give(&key, &value) {
                break;
            }
        }
        Ok(())
    }
}

impl SqliteStore {
    fn database(&mut self) -> Result<&mut Connection, Refusal> {
        self.database.as_mut().ok_or_else(|| Refusal::Failed("the database is not open".to_owned()))
    }
}

/// Opens the database for this process alone. With `synchronous = FULL` a commit returns when its log is synced.
fn connect(file: &str) -> rusqlite::Result<Connection> {
    let database = Connection::open(file)?;
    database.busy_timeout(BUSY)?;
    database.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    database.pragma_update(None, "journal_mode", "WAL")?;
    database.pragma_update(None, "synchronous", "FULL")?;
    // The first transaction takes the lock that is kept.
    database.execute_batch(
        "BEGIN IMMEDIATE;
         CREATE TABLE IF NOT EXISTS entries (key BLOB PRIMARY KEY NOT NULL, value BLOB NOT NULL) WITHOUT ROWID, STRICT;
         COMMIT;",
    )?;
    Ok(database)
}

fn refusal(error: rusqlite::Error) -> Refusal {
    let reason = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Refusal::Full(reason),
        _ => Refusal::Failed(reason),
    }
}

export_store_backend!(SqliteStore);
