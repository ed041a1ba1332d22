//! Whether a backend does what a store relies on, as far as that can be seen without a crash.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use weirmq_core::durable::backend::{Backend, BackendError, Change};

/// What a backend does otherwise than it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Nonconformity {
    /// There is something in it: it is left alone.
    #[error("there are keys in it already, such as {key}; name one that is empty")]
    NotEmpty {
        /// One of them, escaped.
        key: String,
    },
    /// A call failed that has no reason to.
    #[error("{doing}: {error}")]
    Failed {
        /// What was done.
        doing: &'static str,
        /// What the backend says.
        error: BackendError,
    },
    /// It does not open again.
    #[error("it was closed and does not open again: {0}")]
    DoesNotOpen(String),
    /// It answers something else.
    #[error("{doing}: {found} where {expected} was expected")]
    Wrong {
        /// What was done.
        doing: &'static str,
        /// What it answered.
        found: String,
        /// What it should have answered.
        expected: String,
    },
}

/// How many keys are written in one batch, and read back in several scans.
const MANY: u32 = 3_000;
/// The longest key that the broker makes is about as long as two names in MQTT.
const KEY_BYTES: usize = 2 * 65_535 + 8;
/// More than the largest message that is taken unless the configuration says otherwise.
const VALUE_BYTES: usize = 2 << 20;

/// Holds the backends that `open` opens, one after the other on the same store, to the contract of [`Backend`]. The
/// store must be empty, and is empty when this ends well. That what was written survives a crash, and is there
/// wholly or not at all, is for tests that kill the process.
///
/// # Errors
/// The first thing that is not as it should be.
pub fn hold(mut open: impl FnMut() -> Result<Arc<dyn Backend>, String>) -> Result<(), Nonconformity> {
    let backend = open().map_err(Nonconformity::DoesNotOpen)?;
    if let Some((key, _)) = scanned("scanning what is empty", &*backend, b"", 1)?.first() {
        return Err(Nonconformity::NotEmpty { key: key.escape_ascii().to_string() });
    }
    let mut model = Model::default();
    model.expect_value(&*backend, b"absent")?;
    model.write("writing the first batch", &*backend, first_batch())?;
    model.expect_all(&*backend)?;
    model.write("replacing, removing and adding in one batch", &*backend, second_batch())?;
    model.expect_all(&*backend)?;
    let many = (0..MANY).map(|number| (number.to_be_bytes().to_vec(), Some(vec![1; 100])));
    model.write("writing many keys in one batch", &*backend, many)?;
    model.expect_all(&*backend)?;
    drop(backend);
    let backend = open().map_err(Nonconformity::DoesNotOpen)?;
    model.expect_all(&*backend)?;
    let all: Vec<_> = model.0.keys().map(|key| (key.to_vec(), None)).collect();
    model.write("removing everything in one batch", &*backend, all)?;
    model.expect_all(&*backend)
}

type Written = (Vec<u8>, Option<Vec<u8>>);

/// Keys whose order is easily got wrong, and values that are easily lost.
fn first_batch() -> impl Iterator<Item = Written> {
    let keys: [&[u8]; 9] =
        [b"\0", b"\0\0", b"a", b"a\0", b"a\0b", b"aa", b"b", b"\x7f", "\u{e4}\u{1f980}".as_bytes()];
    let odd = keys.into_iter().map(|key| (key.to_vec(), Some(key.repeat(2))));
    let bytes = (0..=u8::MAX).collect();
    let more = [
        (b"empty".to_vec(), Some(Vec::new())),
        (b"any bytes".to_vec(), Some(bytes)),
        (vec![0xff; 3], Some(b"last".to_vec())),
        (vec![b'k'; KEY_BYTES], Some(b"long key".to_vec())),
        (b"large value".to_vec(), Some(vec![0xfe; VALUE_BYTES])),
    ];
    odd.chain(more)
}

fn second_batch() -> [Written; 5] {
    [
        (b"a".to_vec(), Some(b"another".to_vec())),
        (b"any bytes".to_vec(), Some(Vec::new())),
        (b"aa".to_vec(), None),
        (b"was never there".to_vec(), None),
        (b"new".to_vec(), Some(b"new".to_vec())),
    ]
}

fn scanned(
    doing: &'static str,
    backend: &dyn Backend,
    from: &[u8],
    max: usize,
) -> Result<Vec<(Bytes, Bytes)>, Nonconformity> {
    backend.scan(from, max).map_err(|error| Nonconformity::Failed { doing, error })
}

/// What the backend must have.
#[derive(Default)]
struct Model(BTreeMap<Bytes, Bytes>);

impl Model {
    fn write(
        &mut self,
        doing: &'static str,
        backend: &dyn Backend,
        batch: impl IntoIterator<Item = Written>,
    ) -> Result<(), Nonconformity> {
        let changes: Vec<Change> = batch
            .into_iter()
            .map(|(key, value)| Change { key: key.into(), value: value.map(Bytes::from) })
            .collect();
        backend.write(&changes).map_err(|error| Nonconformity::Failed { doing, error })?;
        for Change { key, value } in changes {
            match value {
                Some(value) => drop(self.0.insert(key, value)),
                None => drop(self.0.remove(&key)),
            }
        }
        Ok(())
    }

    /// Everything by `get`, and by scans of several sizes and beginnings.
    fn expect_all(&self, backend: &dyn Backend) -> Result<(), Nonconformity> {
        // Some of many.
        for key in self.0.keys().step_by(self.0.len() / 64 + 1) {
            self.expect_value(backend, key)?;
        }
        for key in [&b"absent"[..], b"aa", b"was never there"] {
            self.expect_value(backend, key)?;
        }
        for max in [1, 7, 512] {
            let keys_max = if max == 1 { 40 } else { usize::MAX };
            self.expect_scan("scanning from the beginning", backend, b"", max, keys_max)?;
        }
        self.expect_scan("scanning from a key that is there", backend, b"a\0", 2, 4)?;
        self.expect_scan("scanning from a key that is not there", backend, b"a\0\0", 2, 4)?;
        self.expect_scan("scanning from behind the last key", backend, &[0xff; 4], 2, 4)
    }

    fn expect_value(&self, backend: &dyn Backend, key: &[u8]) -> Result<(), Nonconformity> {
        let doing = "getting the value of a key";
        let found = backend.get(key).map_err(|error| Nonconformity::Failed { doing, error })?;
        let expected = self.0.get(key);
        if found.as_ref() == expected {
            return Ok(());
        }
        let said = |value: Option<&Bytes>| match value {
            Some(value) => format!("{} under {}", value_in_words(value), key_in_words(key)),
            None => format!("nothing under {}", key_in_words(key)),
        };
        Err(Nonconformity::Wrong { doing, found: said(found.as_ref()), expected: said(expected) })
    }

    /// Scans on until there is nothing more, or so many keys have come.
    fn expect_scan(
        &self,
        doing: &'static str,
        backend: &dyn Backend,
        from: &[u8],
        max: usize,
        keys_max: usize,
    ) -> Result<(), Nonconformity> {
        let wrong = |found: String, expected: String| Nonconformity::Wrong { doing, found, expected };
        let mut from = Bytes::copy_from_slice(from);
        let mut seen = 0;
        while seen < keys_max {
            let entries = scanned(doing, backend, &from, max)?;
            if entries.len() > max {
                return Err(wrong(format!("{} entries", entries.len()), format!("at most {max}")));
            }
            let mut expected = self.0.range(from.clone()..);
            if entries.is_empty() {
                return match expected.next() {
                    None => Ok(()),
                    Some((key, _)) => Err(wrong("the end".to_owned(), key_in_words(key))),
                };
            }
            for (key, value) in &entries {
                let said =
                    |key: &[u8], value| format!("{} with {}", key_in_words(key), value_in_words(value));
                match expected.next() {
                    Some(entry) if entry == (key, value) => {}
                    Some(entry) => return Err(wrong(said(key, value), said(entry.0, entry.1))),
                    None => return Err(wrong(said(key, value), "the end".to_owned())),
                }
            }
            seen += entries.len();
            if let Some((last, _)) = entries.last() {
                from = [&**last, b"\0"].concat().into();
            }
        }
        Ok(())
    }
}

/// A key, escaped, and not longer than people read.
fn key_in_words(key: &[u8]) -> String {
    let shown: Vec<u8> = key.iter().take(32).copied().collect();
    let more = if key.len() > shown.len() { "..." } else { "" };
    format!("the key \"{}{more}\" ({} bytes)", shown.escape_ascii(), key.len())
}

fn value_in_words(value: &Bytes) -> String {
    format!("a value of {} bytes", value.len())
}
