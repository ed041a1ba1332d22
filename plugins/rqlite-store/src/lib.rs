//! Keeps what the broker keeps in rqlite: one table of keys and values, replicated by Raft.
//!
//! # Layout
//! - this file: the configuration, and the statements
//! - [`service`]: requests to rqlite, and its answers

#![forbid(unsafe_code)]

mod service;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use weirmq_plugin::host;
use weirmq_plugin::{Change, Plugin, Refusal, StoreBackend, export};

use service::Service;

/// The plugin's `[plugin.config]` table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Where rqlite answers.
    url: String,
    /// What its tables begin with.
    #[serde(default = "weirmq")]
    prefix: String,
    /// The name of the secret with the value of the header `Authorization`.
    authorization: String,
}

fn weirmq() -> String {
    "weirmq".to_owned()
}

/// The plugin.
struct RqliteStore {
    service: Service,
    entries: String,
    owner: String,
    /// What this instance has written into the table of owners: whoever opens the store after it writes another.
    token: String,
}

impl Plugin for RqliteStore {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        let Config { url, prefix, authorization } = config;
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(format!("url: '{url}' is no URL such as \"http://rqlite.example.com:4001\""));
        }
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if prefix.is_empty() || prefix.len() > 32 || !prefix.bytes().all(fits) {
            return Err("prefix: must be 1 to 32 letters, digits or '_'".to_owned());
        }
        let secret = host::secret(&authorization).ok_or_else(|| {
            format!("authorization: no secret is called '{authorization}'; add it under [plugin.secrets]")
        })?;
        let service = Service::new(url.trim_end_matches('/'), secret);
        let (entries, owner) = (format!("\"{prefix}_entries\""), format!("\"{prefix}_owner\""));
        Ok(Self { service, entries, owner, token: hex(&host::random(16)) })
    }
}

impl StoreBackend for RqliteStore {
    /// Takes the store over: from here on, nothing is taken of who had it before.
    fn open(&mut self) -> Result<(), String> {
        let Self { entries, owner, token, .. } = self;
        let statements = [
            json!([format!(
                "CREATE TABLE IF NOT EXISTS {entries} (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID"
            )]),
            json!([format!(
                "CREATE TABLE IF NOT EXISTS {owner} (one INTEGER PRIMARY KEY CHECK (one = 1), token TEXT NOT NULL)"
            )]),
            json!([format!("INSERT OR REPLACE INTO {owner} (one, token) VALUES (1, ?)"), token]),
        ];
        self.service.execute(&statements).map_err(in_words)
    }

    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, Refusal> {
        let sql = format!("SELECT value FROM {} WHERE key = ?", self.entries);
        let rows = self.service.query(&json!([sql, hex(key)]))?;
        rows.first().map(|row| bytes_of(row.first())).transpose()
    }

    fn write(&mut self, changes: &[Change]) -> Result<(), Refusal> {
        let Self { entries, owner, token, .. } = self;
        // Breaks the rule of that table, and with it the transaction, where somebody else has opened the store since.
        let fence = format!(
            "INSERT INTO {owner} (one, token) SELECT 2, '' WHERE (SELECT token FROM {owner} WHERE one = 1) IS NOT ?"
        );
        let put = format!("INSERT OR REPLACE INTO {entries} (key, value) VALUES (?, ?)");
        let delete = format!("DELETE FROM {entries} WHERE key = ?");
        let mut statements = vec![json!([fence, token])];
        statements.extend(changes.iter().map(|change| match &change.value {
            Some(value) => json!([put, hex(&change.key), STANDARD.encode(value)]),
            None => json!([delete, hex(&change.key)]),
        }));
        self.service.execute(&statements)
    }

    fn scan(
        &mut self,
        start: &[u8],
        entries_max: u32,
        bytes_max: u32,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, Refusal> {
        // Of long values only so many are asked for as are wanted: the sum is of all before the row.
        let sql = format!(
            "SELECT key, value FROM (SELECT key, value, SUM(LENGTH(value)) OVER (ORDER BY key) - LENGTH(value) AS seen \
             FROM (SELECT key, value FROM {} WHERE key >= ? ORDER BY key LIMIT ?)) WHERE seen < ? ORDER BY key",
            self.entries
        );
        let rows = self.service.query(&json!([sql, hex(start), entries_max, bytes_max]))?;
        rows.iter()
            .map(|row| {
                let key = row.first().and_then(Value::as_str).and_then(unhex);
                let key = key.ok_or_else(|| Refusal::Failed("a key is not what was written".to_owned()))?;
                Ok((key, bytes_of(row.get(1))?))
            })
            .collect()
    }
}

/// Lower-case hexadecimal digits are in the order of the bytes that they stand for.
fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let digit = |half: u8| DIGITS.get(usize::from(half)).copied().unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    text.len().is_multiple_of(2).then_some(())?;
    text.as_bytes().chunks(2).map(pair).collect()
}

fn bytes_of(value: Option<&Value>) -> Result<Vec<u8>, Refusal> {
    let text = value.and_then(Value::as_str);
    let bytes = text.and_then(|text| STANDARD.decode(text).ok());
    bytes.ok_or_else(|| Refusal::Failed("a value is not what was written".to_owned()))
}

fn in_words(refusal: Refusal) -> String {
    match refusal {
        Refusal::Full(why) | Refusal::Failed(why) => why,
    }
}

export!(RqliteStore: store_backend);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_their_order_as_text() {
        let keys: [&[u8]; 8] = [b"", b"\0", b"\0\0", b"\x09", b"\x0a", b"a", b"a\0", b"\xff"];
        let texts = keys.map(hex);
        assert!(texts.is_sorted(), "{texts:?}");
        assert_eq!(texts.map(|text| unhex(&text).unwrap()), keys.map(<[u8]>::to_vec));
        assert_eq!((unhex("a"), unhex("zz"), unhex("é")), (None, None, None));
    }
}
