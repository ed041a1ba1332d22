//! What the rules of a file remember from one run to the next.
//!
//! A run has the state of its file to itself from its first word about it to its end, so that what it reads stays
//! true until it writes, and what it writes comes true as a whole or not at all. Others wait for it, no longer than
//! their own deadline. Values are kept as JSON text: they take what their text takes, and share nothing.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use weirmq_core::durable::keys::{Changes, KeyStore};

use crate::config::Config;
use crate::run::Stop;

/// The longest key, in bytes.
pub(crate) const KEY_BYTES_MAX: usize = 512;

/// The states of all files, by the name of the file.
pub(crate) struct States {
    config: Arc<Config>,
    states: Mutex<BTreeMap<Arc<str>, Arc<State>>>,
    /// Where they are kept, when that is on a disk.
    store: OnceLock<Arc<dyn KeyStore>>,
}

impl States {
    /// None so far, in memory.
    pub(crate) fn new(config: Arc<Config>) -> Self {
        Self { config, states: Mutex::default(), store: OnceLock::new() }
    }

    /// The state of `file`: the one that it has had before, be it before the broker was started.
    ///
    /// # Errors
    /// Why what is kept of it cannot be read.
    pub(crate) fn of(&self, file: &str) -> Result<Arc<State>, String> {
        let mut states = self.states.lock();
        if let Some(state) = states.get(file) {
            return Ok(Arc::clone(state));
        }
        let state = Arc::new(State::new(file, &self.config));
        if let Some(store) = self.store.get() {
            state.keep_in(&**store)?;
        }
        states.insert(Arc::from(file), Arc::clone(&state));
        Ok(state)
    }

    /// Forgets states of files that are gone where there are more states than files may be: those that nobody holds and
    /// that have nothing left to be recorded. One that is on a disk is read back when its file comes back.
    pub(crate) fn make_room(&self) {
        let mut states = self.states.lock();
        let before = states.len();
        if before <= self.config.files_max {
            return;
        }
        states.retain(|_, state| Arc::strong_count(state) > 1 || state.is_unrecorded());
        if states.len() < before && self.store.get().is_none() {
            let forgotten = before - states.len();
            tracing::warn!(forgotten, "the state of rule files that are gone is forgotten (files_max)");
        }
    }

    /// Has them kept in `store` from now on, and reads back what is kept there. To be called once, before the first
    /// run.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub(crate) fn keep_in(&self, store: &Arc<dyn KeyStore>) -> Result<Restored, String> {
        let states = self.states.lock();
        if self.store.set(Arc::clone(store)).is_err() {
            return Err("the state of rules is kept somewhere already".to_owned());
        }
        let mut restored = Restored { files: states.keys().cloned().collect(), keys: 0 };
        for state in states.values() {
            restored.keys += state.keep_in(&**store)?;
        }
        Ok(restored)
    }
}

/// What was read back when state was given a place to be kept in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The files that have state.
    pub files: Vec<Arc<str>>,
    /// How many keys they have.
    pub keys: usize,
}

/// The namespace of a store in which the state of a rule file is kept.
#[must_use]
pub fn namespace_of(file: &str) -> Arc<str> {
    Arc::from(format!("{NAMESPACE_PREFIX}{file}"))
}

/// What the namespaces of rule files begin with; the file's name follows.
pub const NAMESPACE_PREFIX: &str = "rule:";

/// The state of one file.
pub(crate) struct State {
    namespace: Arc<str>,
    limits: Limits,
    /// `None` while a run has them.
    values: Mutex<Option<Box<Values>>>,
    given_back: Condvar,
    /// Where changes are noted to be recorded; empty where nothing is.
    changes: OnceLock<Arc<Changes>>,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    keys_max: usize,
    value_bytes_max: usize,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Values {
    by_key: BTreeMap<Bytes, Bytes>,
    /// Of all keys and values.
    bytes: usize,
}

impl State {
    fn new(file: &str, config: &Config) -> Self {
        let limits = Limits {
            keys_max: config.state_keys_max,
            value_bytes_max: config.state_value_bytes_max,
            bytes_max: config.state_bytes_max,
        };
        Self {
            namespace: namespace_of(file),
            limits,
            values: Mutex::new(Some(Box::default())),
            given_back: Condvar::new(),
            changes: OnceLock::new(),
        }
    }

    /// Reads back what is kept, and notes changes from now on. Answers how many keys there are.
    fn keep_in(&self, store: &dyn KeyStore) -> Result<usize, String> {
        let mut values = Values::default();
        for key in store.keys(&self.namespace, &[], usize::MAX) {
            let value = store.value(&self.namespace, &key)?;
            values.put(key, value);
        }
        let keys = values.by_key.len();
        *self.values.lock() = Some(Box::new(values));
        let _ = self.changes.set(Arc::new(Changes::new(Arc::clone(&self.namespace))));
        Ok(keys)
    }

    /// Where its changes are noted, if they are to be recorded.
    pub(crate) fn changes(&self) -> Option<&Arc<Changes>> {
        self.changes.get()
    }

    fn is_unrecorded(&self) -> bool {
        self.changes().is_some_and(|changes| changes.unrecorded() > 0)
    }

    /// Takes the state for one run; `None` when it was not to be had until `ends`, which is asked only where it has to
    /// be waited for.
    pub(crate) fn take(self: &Arc<Self>, ends: impl FnOnce() -> Option<Instant>) -> Option<Call> {
        let mut values = self.values.lock();
        if values.is_none() {
            let ends = ends();
            while values.is_none() {
                match ends {
                    Some(ends) if self.given_back.wait_until(&mut values, ends).timed_out() => break,
                    Some(_) => {}
                    None => self.given_back.wait(&mut values),
                }
            }
        }
        let values = values.take()?;
        Some(Call { state: Arc::clone(self), values, former: BTreeMap::new(), former_bytes: 0 })
    }
}

impl Values {
    /// Gives a key a value, or removes it where there is none. Answers what it had before.
    fn put(&mut self, key: Bytes, value: Option<Bytes>) -> Option<Bytes> {
        let key_bytes = key.len();
        let added = value.as_ref().map_or(0, |value| key_bytes + value.len());
        let former = match value {
            Some(value) => self.by_key.insert(key, value),
            None => self.by_key.remove(&key),
        };
        let freed = former.as_ref().map_or(0, |value| key_bytes + value.len());
        self.bytes = self.bytes.saturating_add(added).saturating_sub(freed);
        former
    }
}

/// The state of a file while a run has it. What the run changes is taken back when this is dropped, unless it is
/// [finished](Call::finish).
pub(crate) struct Call {
    state: Arc<State>,
    values: Box<Values>,
    /// What the keys had that the run has changed.
    former: BTreeMap<Bytes, Option<Bytes>>,
    former_bytes: usize,
}

impl Call {
    /// The value of a key.
    pub(crate) fn get(&self, key: &str) -> Option<Bytes> {
        self.values.by_key.get(key.as_bytes()).cloned()
    }

    /// The keys, in order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &Bytes> {
        self.values.by_key.keys()
    }

    /// Gives a key a value.
    ///
    /// # Errors
    /// What it would be too much of.
    pub(crate) fn set(&mut self, key: &str, value: Vec<u8>) -> Result<(), Stop> {
        let limits = self.state.limits;
        if value.len() > limits.value_bytes_max {
            return Err(Stop::StateValue);
        }
        let before = self.values.bytes;
        let is_new = !self.values.by_key.contains_key(key.as_bytes());
        self.change(key, Some(Bytes::from(value)))?;
        if is_new && self.values.by_key.len() > limits.keys_max {
            return Err(Stop::StateKeys);
        }
        // What is over a limit that was lowered may still shrink.
        if self.values.bytes > limits.bytes_max && self.values.bytes > before {
            return Err(Stop::StateBytes);
        }
        Ok(())
    }

    /// Removes a key. Answers what it had.
    ///
    /// # Errors
    /// The store takes nothing, and too many changes wait for it.
    pub(crate) fn remove(&mut self, key: &str) -> Result<Option<Bytes>, Stop> {
        let Some(value) = self.get(key) else { return Ok(None) };
        self.change(key, None)?;
        Ok(Some(value))
    }

    fn change(&mut self, key: &str, value: Option<Bytes>) -> Result<(), Stop> {
        let key = Bytes::copy_from_slice(key.as_bytes());
        let before = self.values.put(key.clone(), value);
        let Entry::Vacant(first) = self.former.entry(key) else { return Ok(()) };
        self.former_bytes += first.key().len();
        first.insert(before);
        let limits = self.state.limits;
        let unrecorded = self.state.changes().map_or(0, |changes| changes.unrecorded());
        let keys_max = limits.keys_max.saturating_mul(CHANGED_FACTOR);
        let is_too_much = unrecorded.saturating_add(self.former.len()) > keys_max
            || self.former_bytes > limits.bytes_max.saturating_mul(CHANGED_FACTOR);
        if is_too_much { Err(Stop::StateChanges) } else { Ok(()) }
    }

    /// What the run has changed comes true.
    pub(crate) fn finish(mut self) {
        let former = std::mem::take(&mut self.former);
        let Some(changes) = self.state.changes() else { return };
        let mut changed = former.into_iter().filter_map(|(key, former)| {
            let value = self.values.by_key.get(&key).cloned();
            (value != former).then_some((key, value))
        });
        if let Some(first) = changed.next() {
            changes.note(std::iter::once(first).chain(changed));
        }
    }
}

/// How many times `state_keys_max` keys may be changed and not recorded yet, those of the run included. All keys may
/// be, and as many again have been removed.
const CHANGED_FACTOR: usize = 3;

impl Drop for Call {
    fn drop(&mut self) {
        for (key, former) in std::mem::take(&mut self.former) {
            self.values.put(key, former);
        }
        *self.state.values.lock() = Some(std::mem::take(&mut self.values));
        self.state.given_back.notify_one();
    }
}
