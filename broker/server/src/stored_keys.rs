//! Keys and values of plugins and rules in the durable store.

use std::sync::Arc;

use bytes::Bytes;
use weirmq_core::durable::event::Event;
use weirmq_core::durable::keys::KeyStore;
use weirmq_core::durable::{Journal, Records};
use weirmq_store::Store;

/// The store, as plugins and rules see it. What is written is read back at once, and is as safe as the store's records are: within
/// its next sync.
pub(crate) struct StoredKeys<S>(pub(crate) Arc<S>);

impl<S: Journal> StoredKeys<S> {
    fn record(&self, event: Event) -> Result<(), String> {
        Journal::append(&*self.0, &Records::one(vec![event]))
            .map(|_| ())
            .map_err(|not_kept| not_kept.to_string())
    }
}

impl<S: Store + Journal> KeyStore for StoredKeys<S> {
    fn value(&self, namespace: &Arc<str>, key: &[u8]) -> Result<Option<Bytes>, String> {
        Store::value(&*self.0, namespace, key).map_err(|error| error.to_string())
    }

    fn keys(&self, namespace: &Arc<str>, from: &[u8], max: usize) -> Vec<Bytes> {
        Store::keys(&*self.0, namespace, from, max)
    }

    fn set(&self, namespace: &Arc<str>, key: &[u8], value: Bytes) -> Result<(), String> {
        let key = Bytes::copy_from_slice(key);
        self.record(Event::KeySet { namespace: Arc::clone(namespace), key, value })
    }

    fn remove(&self, namespace: &Arc<str>, key: &[u8]) -> Result<(), String> {
        let key = Bytes::copy_from_slice(key);
        self.record(Event::KeyRemoved { namespace: Arc::clone(namespace), key })
    }
}

#[cfg(test)]
mod tests {
    use weirmq_store::LogStore;

    use super::*;

    #[test]
    fn keys_outlive_the_process_and_are_read_back_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let open = || {
            let store = LogStore::open(&folder.path().join("store"), weirmq_store::Config::default());
            StoredKeys(Arc::new(store.unwrap()))
        };
        let (ours, theirs): (Arc<str>, Arc<str>) = ("plugin/a".into(), "plugin/b".into());
        let keys = open();
        keys.set(&ours, b"k1", Bytes::from_static(b"one")).unwrap();
        keys.set(&ours, b"k2", Bytes::from_static(b"two")).unwrap();
        keys.remove(&ours, b"k2").unwrap();
        assert_eq!(keys.value(&ours, b"k1").unwrap().as_deref(), Some(&b"one"[..]));
        keys.0.sync().wait().unwrap();
        drop(keys);
        let keys = open();
        assert_eq!(keys.value(&ours, b"k1").unwrap().as_deref(), Some(&b"one"[..]));
        assert_eq!(keys.value(&theirs, b"k1").unwrap(), None);
        assert_eq!(keys.keys(&ours, b"", 9), [Bytes::from_static(b"k1")]);
    }
}
