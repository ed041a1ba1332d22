//! What the service said of whom, for a while.

use std::collections::{HashMap, VecDeque};

use sha2::{Digest, Sha256};
use weirmq_plugin::AuthenticateRequest;

/// Stands for all that a client shows. Passwords are not kept, only this.
pub(crate) type Fingerprint = [u8; 32];

/// The fingerprint of what a client shows.
pub(crate) fn fingerprint(request: &AuthenticateRequest) -> Fingerprint {
    let mut hash = Sha256::new();
    let shown = [
        Some(request.client_id.as_bytes()),
        request.username.as_deref().map(str::as_bytes),
        request.password.as_deref(),
        Some(request.listener.as_bytes()),
    ];
    let properties = request.user_properties.iter();
    let properties = properties.flat_map(|pair| [Some(pair.name.as_bytes()), Some(pair.value.as_bytes())]);
    for part in shown.into_iter().chain(properties) {
        // Each with its length, so that no two ways to show something look alike.
        let length = part.map_or(u64::MAX, |part| part.len() as u64);
        hash.update(length.to_le_bytes());
        hash.update(part.unwrap_or_default());
    }
    hash.finalize().into()
}

/// Answers by fingerprint. The oldest makes room.
pub(crate) struct Cache<T> {
    entries: HashMap<Fingerprint, Entry<T>>,
    order: VecDeque<Fingerprint>,
    entries_max: usize,
}

struct Entry<T> {
    answer: T,
    fresh_until: u64,
    usable_until: u64,
}

/// An answer that is remembered.
pub(crate) enum Remembered<'a, T> {
    /// To be used.
    Fresh(&'a T),
    /// To be used only when there is no better one.
    Stale(&'a T),
    /// There is none.
    Nothing,
}

impl<T> Cache<T> {
    pub(crate) fn new(entries_max: usize) -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new(), entries_max }
    }

    /// What is remembered at `now`, in microseconds.
    pub(crate) fn get(&self, key: &Fingerprint, now: u64) -> Remembered<'_, T> {
        match self.entries.get(key) {
            Some(entry) if now < entry.fresh_until => Remembered::Fresh(&entry.answer),
            Some(entry) if now < entry.usable_until => Remembered::Stale(&entry.answer),
            _ => Remembered::Nothing,
        }
    }

    /// Remembers an answer for `seconds`, and for `stale_seconds` more where there is no better one.
    pub(crate) fn put(&mut self, key: Fingerprint, answer: T, now: u64, seconds: u32, stale_seconds: u32) {
        if self.entries_max == 0 || seconds == 0 {
            return;
        }
        let fresh_until = now.saturating_add(u64::from(seconds) * 1_000_000);
        let usable_until = fresh_until.saturating_add(u64::from(stale_seconds) * 1_000_000);
        if self.entries.insert(key, Entry { answer, fresh_until, usable_until }).is_none() {
            self.order.push_back(key);
        }
        while self.entries.len() > self.entries_max {
            let Some(oldest) = self.order.pop_front() else { return };
            self.entries.remove(&oldest);
        }
    }
}
