//! A backend that is a map in memory, outlives the stores on it and fails when it is told to.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};

use bytes::Bytes;
use weirmq_core::durable::backend::{Backend, BackendError, Change};

#[derive(Debug, Default, Clone)]
pub struct MapBackend(Arc<Inside>);

#[derive(Debug, Default)]
struct Inside {
    state: Mutex<State>,
    released: Condvar,
}

#[derive(Debug, Default)]
struct State {
    map: BTreeMap<Bytes, Bytes>,
    /// Calls so far, and the one from which on all fail.
    calls: u64,
    fails_at: Option<u64>,
    /// Writes wait until this ends.
    holds: bool,
    is_full: bool,
}

impl MapBackend {
    /// What is in it now, as another backend: what a crash leaves.
    pub fn image(&self) -> Self {
        let map = self.0.state.lock().unwrap().map.clone();
        let state = State { map, ..State::default() };
        Self(Arc::new(Inside { state: Mutex::new(state), released: Condvar::new() }))
    }

    /// The n-th call from the beginning and all later ones fail.
    pub fn fail_at(&self, call: u64, is_full: bool) {
        let mut state = self.0.state.lock().unwrap();
        (state.fails_at, state.is_full) = (Some(call), is_full);
    }

    /// Whether writes wait.
    pub fn hold(&self, holds: bool) {
        self.0.state.lock().unwrap().holds = holds;
        self.0.released.notify_all();
    }

    pub fn calls(&self) -> u64 {
        self.0.state.lock().unwrap().calls
    }

    pub fn len(&self) -> usize {
        self.0.state.lock().unwrap().map.len()
    }

    /// Puts a value there past every store.
    pub fn put(&self, key: &[u8], value: &[u8]) {
        let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
        self.0.state.lock().unwrap().map.insert(key, value);
    }

    pub fn keys(&self) -> Vec<Bytes> {
        self.0.state.lock().unwrap().map.keys().cloned().collect()
    }

    pub fn remove(&self, key: &[u8]) {
        self.0.state.lock().unwrap().map.remove(key);
    }
}

impl State {
    fn call(&mut self) -> Result<(), BackendError> {
        self.calls += 1;
        match self.fails_at {
            Some(at) if self.calls >= at => {
                Err(BackendError { reason: "told to fail".into(), is_full: self.is_full })
            }
            _ => Ok(()),
        }
    }
}

impl Backend for MapBackend {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, BackendError> {
        let mut state = self.0.state.lock().unwrap();
        state.call()?;
        Ok(state.map.get(key).cloned())
    }

    fn write(&self, changes: &[Change]) -> Result<(), BackendError> {
        let mut state =
            self.0.released.wait_while(self.0.state.lock().unwrap(), |state| state.holds).unwrap();
        state.call()?;
        for Change { key, value } in changes {
            match value {
                Some(value) => drop(state.map.insert(key.clone(), value.clone())),
                None => drop(state.map.remove(key)),
            }
        }
        Ok(())
    }

    fn scan(&self, from: &[u8], max: usize) -> Result<Vec<(Bytes, Bytes)>, BackendError> {
        let mut state = self.0.state.lock().unwrap();
        state.call()?;
        // Fewer than asked for is allowed, as long as it is one.
        let found = state.map.range(Bytes::copy_from_slice(from)..).take(max.min(7));
        Ok(found.map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}
