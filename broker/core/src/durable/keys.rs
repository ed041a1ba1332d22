//! Keys and values in namespaces: where they are read back from, and changes of them that are recorded with the
//! message that caused them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use super::event::Event;

/// Keeps keys and values in namespaces.
pub trait KeyStore: Send + Sync + 'static {
    /// The value of a key.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn value(&self, namespace: &Arc<str>, key: &[u8]) -> Result<Option<Bytes>, String>;

    /// The keys from `from` on, in order of their bytes, at most `max`.
    fn keys(&self, namespace: &Arc<str>, from: &[u8], max: usize) -> Vec<Bytes>;

    /// Gives a key a value.
    ///
    /// # Errors
    /// Why it is not kept.
    fn set(&self, namespace: &Arc<str>, key: &[u8], value: Bytes) -> Result<(), String>;

    /// Removes a key.
    ///
    /// # Errors
    /// Why it is not removed.
    fn remove(&self, namespace: &Arc<str>, key: &[u8]) -> Result<(), String>;
}

/// What has changed in a namespace since it was recorded last.
///
/// Whoever changes keys while messages are handled has them in memory, and notes here what came true. The broker
/// records it with the message that is on its way then, and acknowledges that message only when it is kept. Changes
/// are recorded in the order in which they were noted: a record has all that was noted before it was made, also
/// what was noted for other messages meanwhile, so that what is read back is always as it was at some moment.
#[derive(Debug)]
pub struct Changes {
    namespace: Arc<str>,
    /// The last value of each key that has changed; `None` where it was removed.
    unrecorded: Mutex<BTreeMap<Bytes, Option<Bytes>>>,
    /// How often something was noted.
    version: AtomicU64,
}

impl Changes {
    /// Of `namespace`, none so far.
    #[must_use]
    pub fn new(namespace: Arc<str>) -> Self {
        Self { namespace, unrecorded: Mutex::default(), version: AtomicU64::new(0) }
    }

    /// Notes changes that came true together: they are recorded together. `None` is for a key that was removed.
    pub fn note(&self, changes: impl IntoIterator<Item = (Bytes, Option<Bytes>)>) {
        self.unrecorded.lock().extend(changes);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// How many keys have changed since they were recorded last.
    #[must_use]
    pub fn unrecorded(&self) -> usize {
        self.unrecorded.lock().len()
    }

    /// Another number after each time that something was noted: whoever finds it changed has the changes recorded.
    /// Whether there are any does not tell, because somebody else may be about to record them.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// What is to be recorded now.
    pub(crate) fn take(&self) -> Taken {
        Taken(std::mem::take(&mut *self.unrecorded.lock()))
    }

    /// `taken` was not recorded: it is to be recorded with what comes next, where it has not changed again since.
    pub(crate) fn put_back(&self, taken: Taken) {
        let mut unrecorded = self.unrecorded.lock();
        for (key, value) in taken.0 {
            unrecorded.entry(key).or_insert(value);
        }
    }

    /// What says `taken` in a record.
    pub(crate) fn events<'a>(&'a self, taken: &'a Taken) -> impl Iterator<Item = Event> + 'a {
        taken.0.iter().map(|(key, value)| {
            let (namespace, key) = (Arc::clone(&self.namespace), key.clone());
            match value {
                Some(value) => Event::KeySet { namespace, key, value: value.clone() },
                None => Event::KeyRemoved { namespace, key },
            }
        })
    }
}

/// Changes that are being recorded.
#[derive(Debug)]
pub(crate) struct Taken(BTreeMap<Bytes, Option<Bytes>>);

#[cfg(test)]
mod tests {
    use super::*;

    fn change(key: &'static str, value: Option<&'static str>) -> (Bytes, Option<Bytes>) {
        (Bytes::from(key), value.map(Bytes::from))
    }

    #[test]
    fn what_was_not_recorded_is_recorded_with_what_comes_next_unless_it_has_changed_again() {
        let changes = Changes::new(Arc::from("n"));
        changes.note([change("a", Some("1")), change("b", Some("1"))]);
        let taken = changes.take();
        assert_eq!((changes.unrecorded(), changes.version()), (0, 1));
        changes.note([change("a", None)]);
        changes.put_back(taken);
        assert_eq!(changes.unrecorded(), 2);
        let taken = changes.take();
        let events: Vec<Event> = changes.events(&taken).collect();
        let namespace: Arc<str> = Arc::from("n");
        assert_eq!(
            events,
            [
                Event::KeyRemoved { namespace: Arc::clone(&namespace), key: "a".into() },
                Event::KeySet { namespace, key: "b".into(), value: "1".into() },
            ]
        );
    }
}
