//! Time as an argument: core never asks a clock.

use std::num::NonZeroU64;
use std::time::Duration;

/// A moment on the broker's own monotonic clock, in microseconds from an arbitrary origin. It never goes
/// back, and says nothing about the calendar.
// One more than the microseconds: a moment that there may not be takes no further room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(NonZeroU64);

impl Instant {
    /// A moment `micros` microseconds after the origin. The end of time is one before the last number.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(micros))
    }

    /// Microseconds since the origin.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0.get() - 1
    }

    /// The time from `earlier` to `self`; zero when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.as_micros().saturating_sub(earlier.as_micros()))
    }

    /// The last moment before `self`; the origin has none before it.
    #[must_use]
    pub const fn before(self) -> Self {
        Self::from_micros(self.as_micros().saturating_sub(1))
    }

    /// The moment `span` after `self`; stays at the end of time rather than wrap.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl Default for Instant {
    /// The origin.
    fn default() -> Self {
        Self::from_micros(0)
    }
}

/// The present, read once per batch of work: the monotonic moment for everything that is measured or waited
/// for, and the calendar's for what people read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// For deadlines and expiries.
    pub at: Instant,
    /// Milliseconds since 1970-01-01T00:00:00Z, as the machine's calendar has it.
    pub unix_ms: u64,
}
