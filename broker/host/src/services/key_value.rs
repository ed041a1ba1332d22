//! Keys and values of plugins: each has a space of its own, bounded by its grant.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use weirmq_core::durable::keys::KeyStore;

use crate::grant::KeyValueLimits;

/// The longest key.
const KEY_BYTES_MAX: usize = 512;
/// The largest value.
const VALUE_BYTES_MAX: usize = 1 << 20;
/// How many keys one question answers.
const LISTED_MAX: usize = 1000;

/// Keeps keys and values in memory, for a broker without a store on disk.
#[derive(Default)]
pub struct MemoryKeys(Mutex<BTreeMap<Arc<str>, BTreeMap<Bytes, Bytes>>>);

impl KeyStore for MemoryKeys {
    fn value(&self, namespace: &Arc<str>, key: &[u8]) -> Result<Option<Bytes>, String> {
        Ok(self.0.lock().get(namespace).and_then(|space| space.get(key)).cloned())
    }

    fn keys(&self, namespace: &Arc<str>, from: &[u8], max: usize) -> Vec<Bytes> {
        let all = self.0.lock();
        let Some(space) = all.get(namespace) else { return Vec::new() };
        space.range(Bytes::copy_from_slice(from)..).take(max).map(|(key, _)| key.clone()).collect()
    }

    fn set(&self, namespace: &Arc<str>, key: &[u8], value: Bytes) -> Result<(), String> {
        let mut all = self.0.lock();
        all.entry(Arc::clone(namespace)).or_default().insert(Bytes::copy_from_slice(key), value);
        Ok(())
    }

    fn remove(&self, namespace: &Arc<str>, key: &[u8]) -> Result<(), String> {
        if let Some(space) = self.0.lock().get_mut(namespace) {
            space.remove(key);
        }
        Ok(())
    }
}

/// Why a plugin does not get what it asks of its keys.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum KeyError {
    Invalid(String),
    Full,
    Failed(String),
}

/// The keys and values of one plugin.
pub(crate) struct KeySpace {
    store: Arc<dyn KeyStore>,
    namespace: Arc<str>,
    /// Held while something is changed, so that what is compared and set is one step.
    usage: Mutex<Usage>,
}

struct Usage {
    limits: KeyValueLimits,
    /// How much there is, once it was counted.
    counted: Option<Counted>,
}

#[derive(Clone, Copy)]
struct Counted {
    keys: usize,
    bytes: usize,
}

impl KeySpace {
    pub(crate) fn new(store: Arc<dyn KeyStore>, namespace: &str) -> Self {
        let usage = Usage { limits: KeyValueLimits::default(), counted: None };
        Self { store, namespace: Arc::from(namespace), usage: Mutex::new(usage) }
    }

    pub(crate) fn set_limits(&self, limits: KeyValueLimits) {
        self.usage.lock().limits = limits;
    }

    pub(crate) fn get(&self, key: &str) -> Result<Option<Bytes>, KeyError> {
        check_key(key)?;
        self.read(key)
    }

    pub(crate) fn set(&self, key: &str, value: Vec<u8>) -> Result<(), KeyError> {
        check(key, &value)?;
        let mut usage = self.usage.lock();
        let before = self.read(key)?;
        self.put(&mut usage, key, before, value)
    }

    pub(crate) fn compare_and_set(
        &self,
        key: &str,
        expected: Option<&[u8]>,
        value: Vec<u8>,
    ) -> Result<bool, KeyError> {
        check(key, &value)?;
        let mut usage = self.usage.lock();
        let before = self.read(key)?;
        if before.as_deref() != expected {
            return Ok(false);
        }
        self.put(&mut usage, key, before, value).map(|()| true)
    }

    pub(crate) fn delete(&self, key: &str) -> Result<bool, KeyError> {
        check_key(key)?;
        let mut usage = self.usage.lock();
        let counted = self.counted(&mut usage)?;
        let Some(before) = self.read(key)? else { return Ok(false) };
        self.store.remove(&self.namespace, key.as_bytes()).map_err(KeyError::Failed)?;
        usage.counted = Some(Counted {
            keys: counted.keys.saturating_sub(1),
            bytes: counted.bytes.saturating_sub(key.len() + before.len()),
        });
        Ok(true)
    }

    pub(crate) fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
        // The first key after `after` is the one with a zero byte more.
        let after = after.map(|after| [after.as_bytes(), &[0]].concat()).unwrap_or_default();
        let from = after.max(prefix.as_bytes().to_vec());
        let keys = self.store.keys(&self.namespace, &from, limit.min(LISTED_MAX));
        keys.into_iter()
            .take_while(|key| key.starts_with(prefix.as_bytes()))
            .filter_map(|key| String::from_utf8(key.to_vec()).ok())
            .collect()
    }

    fn read(&self, key: &str) -> Result<Option<Bytes>, KeyError> {
        self.store.value(&self.namespace, key.as_bytes()).map_err(KeyError::Failed)
    }

    fn put(
        &self,
        usage: &mut Usage,
        key: &str,
        before: Option<Bytes>,
        value: Vec<u8>,
    ) -> Result<(), KeyError> {
        let counted = self.counted(usage)?;
        let after = match &before {
            Some(before) => Counted {
                keys: counted.keys,
                bytes: counted.bytes.saturating_sub(before.len()).saturating_add(value.len()),
            },
            None => Counted {
                keys: counted.keys.saturating_add(1),
                bytes: counted.bytes.saturating_add(key.len() + value.len()),
            },
        };
        let grows = after.keys > counted.keys || after.bytes > counted.bytes;
        if grows && (after.keys > usage.limits.keys_max || after.bytes > usage.limits.bytes_max) {
            return Err(KeyError::Full);
        }
        self.store.set(&self.namespace, key.as_bytes(), Bytes::from(value)).map_err(KeyError::Failed)?;
        usage.counted = Some(after);
        Ok(())
    }

    /// How much there is; what was kept before the broker started is counted once.
    fn counted(&self, usage: &mut Usage) -> Result<Counted, KeyError> {
        if let Some(counted) = usage.counted {
            return Ok(counted);
        }
        let mut counted = Counted { keys: 0, bytes: 0 };
        for key in self.store.keys(&self.namespace, &[], usize::MAX) {
            let value = self.store.value(&self.namespace, &key).map_err(KeyError::Failed)?;
            counted.keys += 1;
            counted.bytes += key.len() + value.map_or(0, |value| value.len());
        }
        usage.counted = Some(counted);
        Ok(counted)
    }
}

fn check_key(key: &str) -> Result<(), KeyError> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(KeyError::Invalid(format!("the key has {} bytes, not 1 to {KEY_BYTES_MAX}", key.len())));
    }
    Ok(())
}

fn check(key: &str, value: &[u8]) -> Result<(), KeyError> {
    check_key(key)?;
    if value.len() > VALUE_BYTES_MAX {
        let bytes = value.len();
        return Err(KeyError::Invalid(format!("the value has {bytes} bytes, more than {VALUE_BYTES_MAX}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(keys_max: usize, bytes_max: usize) -> KeySpace {
        let space = KeySpace::new(Arc::new(MemoryKeys::default()), "plugin/test");
        space.set_limits(KeyValueLimits { keys_max, bytes_max });
        space
    }

    #[test]
    fn limits_on_keys_and_bytes_hold_and_deleting_makes_room() {
        let space = space(2, 10);
        space.set("a", b"123".to_vec()).unwrap();
        space.set("b", b"123".to_vec()).unwrap();
        assert_eq!(space.set("c", Vec::new()), Err(KeyError::Full), "a third key");
        assert_eq!(space.set("b", b"123456".to_vec()), Err(KeyError::Full), "eleven bytes");
        space.set("b", b"12345".to_vec()).unwrap();
        assert_eq!(space.delete("a"), Ok(true));
        assert_eq!(space.delete("a"), Ok(false));
        space.set("c", b"123".to_vec()).unwrap();
    }

    #[test]
    fn what_is_over_a_lowered_limit_may_shrink() {
        let space = space(9, 100);
        space.set("a", vec![0; 50]).unwrap();
        space.set_limits(KeyValueLimits { keys_max: 9, bytes_max: 10 });
        assert_eq!(space.set("a", vec![0; 51]), Err(KeyError::Full));
        space.set("a", vec![0; 30]).unwrap();
    }

    #[test]
    fn only_who_knows_the_value_changes_it() {
        let space = space(9, 100);
        assert_eq!(space.compare_and_set("n", None, b"1".to_vec()), Ok(true));
        assert_eq!(space.compare_and_set("n", None, b"2".to_vec()), Ok(false));
        assert_eq!(space.compare_and_set("n", Some(b"1"), b"2".to_vec()), Ok(true));
        assert_eq!(space.get("n").unwrap().as_deref(), Some(&b"2"[..]));
    }

    #[test]
    fn keys_are_listed_page_by_page_within_a_prefix() {
        let space = space(99, 1000);
        for key in ["a", "u/1", "u/2", "u/3", "v"] {
            space.set(key, Vec::new()).unwrap();
        }
        assert_eq!(space.list("u/", None, 2), ["u/1", "u/2"]);
        assert_eq!(space.list("u/", Some("u/2"), 2), ["u/3"]);
        assert_eq!(space.list("", Some("u/3"), 9), ["v"]);
    }

    #[test]
    fn bad_keys_and_values_are_refused_in_words() {
        let space = space(9, usize::MAX);
        assert!(matches!(space.get(""), Err(KeyError::Invalid(_))));
        assert!(matches!(space.set(&"k".repeat(513), Vec::new()), Err(KeyError::Invalid(_))));
        assert!(matches!(space.set("k", vec![0; VALUE_BYTES_MAX + 1]), Err(KeyError::Invalid(_))));
    }
}
