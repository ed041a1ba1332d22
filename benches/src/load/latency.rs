//! How long messages were under way.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Longer than anything that a run waits for; what is longer still is counted as this.
const LONGEST_NS: u64 = 120_000_000_000;

/// A histogram with three digits everywhere.
#[derive(Debug)]
pub struct Latency(Option<Histogram<u64>>);

/// What a histogram says, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Percentiles {
    /// Half are faster.
    pub p50_us: f64,
    /// 99 of 100 are faster.
    pub p99_us: f64,
    /// 999 of 1000 are faster.
    pub p999_us: f64,
    /// The slowest.
    pub max_us: f64,
}

impl Default for Latency {
    fn default() -> Self {
        // The bounds are good; a histogram that could not be made would say so by having no percentiles.
        Self(Histogram::new_with_bounds(1, LONGEST_NS, 3).ok())
    }
}

impl Latency {
    /// Counts one message.
    pub fn record(&mut self, nanoseconds: u64) {
        if let Some(histogram) = &mut self.0 {
            histogram.saturating_record(nanoseconds.max(1));
        }
    }

    /// Counts what another one has counted.
    pub fn add(&mut self, other: &Self) {
        if let (Some(histogram), Some(other)) = (&mut self.0, &other.0) {
            // Both have the same bounds: there is nothing that it could have no place for.
            let _ = histogram.add(other);
        }
    }

    /// The result; `None` where nothing was counted.
    #[must_use]
    pub fn percentiles(&self) -> Option<Percentiles> {
        let histogram = self.0.as_ref().filter(|histogram| !histogram.is_empty())?;
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1_000.0;
        Some(Percentiles {
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: histogram.max() as f64 / 1_000.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_what_was_recorded_within_a_thousandth() {
        let mut latency = Latency::default();
        assert_eq!(latency.percentiles(), None);
        for microsecond in 1..=1_000 {
            latency.record(microsecond * 1_000);
        }
        let found = latency.percentiles().unwrap();
        for (found, expected) in
            [(found.p50_us, 500.0), (found.p99_us, 990.0), (found.p999_us, 999.0), (found.max_us, 1_000.0)]
        {
            assert!((found - expected).abs() <= expected / 1_000.0 + 1.0, "{found} {expected}");
        }
    }

    #[test]
    fn what_is_out_of_bounds_is_counted_at_the_bound() {
        let mut latency = Latency::default();
        latency.record(0);
        latency.record(u64::MAX);
        let found = latency.percentiles().unwrap();
        assert!(found.p50_us <= 0.001 && found.max_us >= LONGEST_NS as f64 / 1_000.0, "{found:?}");
    }
}
