//! The only place that asks what time it is.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use weirmq_core::time::{Instant, Now};

/// The broker's clock. Copies agree with each other.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: std::time::Instant,
}

impl Clock {
    /// A clock whose monotonic time begins now.
    #[must_use]
    pub fn start() -> Self {
        Self { origin: std::time::Instant::now() }
    }

    /// The present.
    #[must_use]
    pub fn now(&self) -> Now {
        let micros = u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX);
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Now { at: Instant::from_micros(micros), unix_ms: u64::try_from(unix.as_millis()).unwrap_or(u64::MAX) }
    }

    /// `at` as tokio's timers have it.
    pub(crate) fn to_tokio(self, at: Instant) -> tokio::time::Instant {
        let span = Duration::from_micros(at.as_micros());
        let far = || self.origin + Duration::from_secs(86_400 * 365);
        tokio::time::Instant::from_std(self.origin.checked_add(span).unwrap_or_else(far))
    }
}
