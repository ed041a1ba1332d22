//! How fast a client may publish.

use std::time::Duration;

use crate::hook::Quotas;
use crate::time::Instant;

/// How far ahead of its rate a client may be: what it has not used of the last second.
const AHEAD: Duration = Duration::from_secs(1);

/// Spaces messages out: each is due so long after the one before, and a client is read while what it has published is
/// due within a second.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    /// When everything that was published so far is due.
    due: Option<Instant>,
    waits_until: Option<Instant>,
}

impl Pace {
    /// The pace that `quotas` set, if they set one.
    pub(super) fn of(quotas: &Quotas) -> Option<Self> {
        let rate = quotas.publish_rate_max?;
        Some(Self { interval: Duration::from_secs(1) / rate.get(), due: None, waits_until: None })
    }

    /// A message was published.
    pub(super) fn note(&mut self, now: Instant) {
        let due = self.due.map_or(now, |due| due.max(now)).after(self.interval);
        self.due = Some(due);
        let ahead = due.since(now);
        if ahead >= AHEAD {
            self.waits_until = Some(now.after(ahead.saturating_sub(AHEAD).max(self.interval)));
        }
    }

    /// Until when the client is not read; `None` while it is.
    pub(super) fn waits_until(&self) -> Option<Instant> {
        self.waits_until
    }

    /// Time has passed.
    pub(super) fn go_on(&mut self, now: Instant) {
        if self.waits_until.is_some_and(|until| until <= now) {
            self.waits_until = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn a_client_is_read_at_its_rate_after_a_second_ahead() {
        let quotas = Quotas { publish_rate_max: NonZeroU32::new(10), ..Quotas::default() };
        let mut pace = Pace::of(&quotas).unwrap();
        let mut now = Instant::from_micros(1_000_000);
        let mut published = 0;
        // Ten seconds of as fast as it may.
        while now < Instant::from_micros(11_000_000) {
            match pace.waits_until() {
                Some(until) => {
                    now = until;
                    pace.go_on(now);
                }
                None => {
                    pace.note(now);
                    published += 1;
                }
            }
        }
        assert!((100..=112).contains(&published), "{published}");
    }

    #[test]
    fn without_a_quota_there_is_no_pace() {
        assert!(Pace::of(&Quotas::default()).is_none());
    }
}
