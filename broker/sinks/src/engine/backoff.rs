//! How long to pause after a failure: twice as long each time, up to a limit, and never quite as long as
//! somebody else who failed at the same moment.

use std::time::Duration;

use super::random_u64;

/// The pauses of one sink.
#[derive(Debug)]
pub(crate) struct Backoff {
    initial: Duration,
    max: Duration,
    failures: u32,
    random: u64,
}

impl Backoff {
    /// Pauses between `initial` and `max`.
    pub(crate) fn new(initial_ms: u64, max_ms: u64) -> Self {
        Self {
            initial: Duration::from_millis(initial_ms),
            max: Duration::from_millis(max_ms),
            failures: 0,
            random: random_u64() | 1,
        }
    }

    /// How many failures there were since the last success.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// Something was written: the next pause is short again.
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Something failed: how long to pause. Between half of the doubled pause and all of it, at least `asked`
    /// where the target asks for one, and never more than the limit.
    pub(crate) fn failed(&mut self, asked: Option<Duration>) -> Duration {
        let doubled = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.failures = self.failures.saturating_add(1).min(31);
        let full = self.initial.saturating_mul(doubled).min(self.max);
        let half = full / 2;
        let pause = half.saturating_add(half.mul_f64(self.next_fraction()));
        pause.max(asked.unwrap_or_default()).min(self.max)
    }

    /// A number from 0 to 1, by xorshift.
    fn next_fraction(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit_and_start_over_after_a_success() {
        let mut backoff = Backoff::new(100, 1_000);
        for full_ms in [100, 200, 400, 800, 1_000, 1_000] {
            let pause = backoff.failed(None);
            let full = Duration::from_millis(full_ms);
            assert!(pause >= full / 2 && pause <= full, "{pause:?} for {full:?}");
        }
        for _ in 0..100 {
            assert!(backoff.failed(None) <= Duration::from_secs(1));
        }
        backoff.succeeded();
        assert!(backoff.failed(None) <= Duration::from_millis(100));
    }

    #[test]
    fn a_target_may_ask_for_a_longer_pause_within_the_limit() {
        let mut backoff = Backoff::new(1, 1_000);
        assert_eq!(backoff.failed(Some(Duration::from_millis(700))), Duration::from_millis(700));
        assert_eq!(backoff.failed(Some(Duration::from_secs(3_600))), Duration::from_secs(1));
    }

    #[test]
    fn two_sinks_that_fail_together_do_not_come_back_together() {
        let (mut one, mut other) = (Backoff::new(1_000_000, 1_000_000), Backoff::new(1_000_000, 1_000_000));
        assert_ne!(one.failed(None), other.failed(None));
    }
}
