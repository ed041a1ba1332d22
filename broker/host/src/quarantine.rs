//! A plugin that keeps failing is left alone for a while.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::config::QuarantineConfig;

/// `until_ms` of a plugin that is in service.
const IN_SERVICE: u64 = 0;

/// Counts failures in a sliding window, and closes the door when there are too many.
///
/// The hot path reads one atomic; the lock is taken on failures only.
pub(crate) struct Quarantine {
    config: ArcSwap<QuarantineConfig>,
    origin: Instant,
    until_ms: AtomicU64,
    recent: Mutex<Recent>,
}

#[derive(Default)]
struct Recent {
    failures: VecDeque<Instant>,
    on_probation: bool,
}

/// Whether a call may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// In service.
    Open,
    /// The first call after a quarantine: one more failure closes the door again.
    Trial,
    /// In quarantine.
    Closed,
}

impl Quarantine {
    /// In service, with no failure yet.
    pub(crate) fn new(config: QuarantineConfig) -> Self {
        Self {
            config: ArcSwap::from_pointee(config),
            origin: Instant::now(),
            until_ms: AtomicU64::new(IN_SERVICE),
            recent: Mutex::default(),
        }
    }

    /// From now on `config` holds.
    pub(crate) fn configure(&self, config: QuarantineConfig) {
        self.config.store(Arc::new(config));
    }

    /// May a call be made? When a quarantine is over, one caller is told to try and the others wait for how that
    /// ends.
    pub(crate) fn door(&self) -> Door {
        let until_ms = self.until_ms.load(Ordering::Acquire);
        if until_ms == IN_SERVICE {
            return Door::Open;
        }
        let now_ms = self.now_ms();
        if now_ms < until_ms {
            return Door::Closed;
        }
        // A trial that never comes back (its thread is gone) is followed by another one later.
        let next_ms = now_ms.saturating_add(self.retry_ms());
        match self.until_ms.compare_exchange(until_ms, next_ms, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => {
                self.recent.lock().on_probation = true;
                Door::Trial
            }
            Err(_) => Door::Closed,
        }
    }

    /// The trial went well: back to service.
    pub(crate) fn passed_trial(&self) {
        let mut recent = self.recent.lock();
        recent.on_probation = false;
        recent.failures.clear();
        self.until_ms.store(IN_SERVICE, Ordering::Release);
    }

    /// A call failed. `true` when that was one too many.
    pub(crate) fn failed(&self) -> bool {
        let mut recent = self.recent.lock();
        // Calls that were in flight when the door closed fail too; that is no news.
        if !recent.on_probation && self.is_closed() {
            return false;
        }
        let now = Instant::now();
        let config = self.config.load();
        let window = Duration::from_secs(config.window_seconds);
        recent.failures.push_back(now);
        while recent.failures.front().is_some_and(|first| now.duration_since(*first) > window) {
            recent.failures.pop_front();
        }
        let too_many = recent.failures.len() >= config.failures as usize;
        if !too_many && !recent.on_probation {
            return false;
        }
        recent.on_probation = false;
        recent.failures.clear();
        let until_ms = self.now_ms().saturating_add(self.retry_ms());
        self.until_ms.store(until_ms, Ordering::Release);
        true
    }

    /// Forgets everything: another version serves.
    pub(crate) fn reset(&self) {
        self.passed_trial();
    }

    /// Whether a call would be refused now; unlike [`Quarantine::door`] it does not open a trial.
    pub(crate) fn refuses_now(&self) -> bool {
        let until_ms = self.until_ms.load(Ordering::Acquire);
        until_ms != IN_SERVICE && self.now_ms() < until_ms
    }

    /// Whether it is in quarantine, be it on trial.
    pub(crate) fn is_closed(&self) -> bool {
        self.until_ms.load(Ordering::Acquire) != IN_SERVICE
    }

    fn retry_ms(&self) -> u64 {
        self.config.load().retry_seconds.saturating_mul(1000).max(1)
    }

    /// Milliseconds since the plugin was loaded, from 1.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }
}
