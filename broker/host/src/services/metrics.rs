//! Figures that plugins keep about themselves.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// How many names one plugin has.
const NAMES_MAX: usize = 256;
/// The longest name.
const NAME_BYTES_MAX: usize = 64;
/// How many values a histogram tells apart: powers of the square root of two from 2^-20 to 2^43.
const BUCKETS: usize = 128;
/// The exponent of the first bucket, in halves.
const FIRST: i32 = -40;

/// The figures of one plugin.
#[derive(Default)]
pub(crate) struct Metrics {
    by_name: Mutex<BTreeMap<String, Series>>,
    left_out: AtomicU64,
}

enum Series {
    Counter(u64),
    Gauge(f64),
    Histogram(Box<Histogram>),
}

struct Histogram {
    count: u64,
    sum: f64,
    buckets: [u64; BUCKETS],
}

/// One figure, read.
#[derive(Debug, Clone, PartialEq)]
pub enum Figure {
    /// A number that only grows.
    Counter(u64),
    /// A number that comes and goes.
    Gauge(f64),
    /// A distribution.
    Histogram {
        /// How many observations.
        count: u64,
        /// Their sum.
        sum: f64,
        /// Half of them are not above this, to a factor of 1.4.
        p50: f64,
        /// 99 of 100 are not above this, to a factor of 1.4.
        p99: f64,
    },
}

impl Metrics {
    pub(crate) fn add(&self, name: String, amount: u64) {
        self.change(
            name,
            || Series::Counter(0),
            |series| match series {
                Series::Counter(count) => {
                    *count = count.saturating_add(amount);
                    true
                }
                _ => false,
            },
        );
    }

    pub(crate) fn set(&self, name: String, value: f64) {
        self.change(
            name,
            || Series::Gauge(0.0),
            |series| match series {
                Series::Gauge(gauge) if value.is_finite() => {
                    *gauge = value;
                    true
                }
                _ => false,
            },
        );
    }

    pub(crate) fn record(&self, name: String, value: f64) {
        let empty = || Series::Histogram(Box::new(Histogram { count: 0, sum: 0.0, buckets: [0; BUCKETS] }));
        self.change(name, empty, |series| match series {
            Series::Histogram(histogram) if value.is_finite() => {
                histogram.record(value);
                true
            }
            _ => false,
        });
    }

    fn change(&self, name: String, first: impl FnOnce() -> Series, change: impl FnOnce(&mut Series) -> bool) {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let is_name = (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed);
        let mut all = self.by_name.lock();
        let is_one_too_many = all.len() >= NAMES_MAX && !all.contains_key(&name);
        let taken = is_name && !is_one_too_many && change(all.entry(name).or_insert_with(first));
        if !taken {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// All of them by name.
    pub(crate) fn read(&self) -> Vec<(String, Figure)> {
        let all = self.by_name.lock();
        all.iter().map(|(name, series)| (name.clone(), series.read())).collect()
    }

    /// How often something was left out.
    pub(crate) fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }
}

impl Series {
    fn read(&self) -> Figure {
        match self {
            Self::Counter(count) => Figure::Counter(*count),
            Self::Gauge(value) => Figure::Gauge(*value),
            Self::Histogram(histogram) => Figure::Histogram {
                count: histogram.count,
                sum: histogram.sum,
                p50: histogram.below(0.5),
                p99: histogram.below(0.99),
            },
        }
    }
}

impl Histogram {
    fn record(&mut self, value: f64) {
        self.count = self.count.saturating_add(1);
        self.sum += value;
        if let Some(bucket) = self.buckets.get_mut(bucket_of(value)) {
            *bucket = bucket.saturating_add(1);
        }
    }

    /// The value that so large a part is not above.
    fn below(&self, part: f64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a percentile is no exact number")]
        let wanted = self.count as f64 * part;
        let mut seen = 0.0;
        for (index, count) in self.buckets.iter().enumerate() {
            #[expect(clippy::cast_precision_loss, reason = "a percentile is no exact number")]
            let more = *count as f64;
            seen += more;
            if seen >= wanted && seen > 0.0 {
                return end_of(index);
            }
        }
        0.0
    }
}

/// The bucket of `value`: the first one for what is nothing or less.
fn bucket_of(value: f64) -> usize {
    if value <= 0.0 {
        return 0;
    }
    let halves = (value.log2() * 2.0).ceil() - f64::from(FIRST);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it was brought into the range"
    )]
    let index = halves.clamp(0.0, 1e6) as usize;
    index.min(BUCKETS - 1)
}

/// The largest value of a bucket.
fn end_of(index: usize) -> f64 {
    if index == 0 {
        return 0.0;
    }
    let halves = i32::try_from(index).unwrap_or(i32::MAX).saturating_add(FIRST);
    (f64::from(halves) / 2.0).exp2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_as_they_were_kept() {
        let metrics = Metrics::default();
        metrics.add("logins".into(), 2);
        metrics.add("logins".into(), 3);
        metrics.set("load".into(), 0.5);
        for value in 1..=100 {
            metrics.record("ms".into(), f64::from(value));
        }
        let all = metrics.read();
        assert_eq!(all[1], ("logins".into(), Figure::Counter(5)));
        assert_eq!(all[0], ("load".into(), Figure::Gauge(0.5)));
        let Figure::Histogram { count, sum, p50, p99 } = all[2].1 else { panic!("{all:?}") };
        assert_eq!((count, sum), (100, 5050.0));
        assert!((50.0..=71.0).contains(&p50) && (99.0..=140.1).contains(&p99), "{p50} {p99}");
    }

    #[test]
    fn bad_names_other_kinds_and_too_many_are_left_out_and_counted() {
        let metrics = Metrics::default();
        metrics.add("a b".into(), 1);
        metrics.add(String::new(), 1);
        metrics.add("x".into(), 1);
        metrics.set("x".into(), 1.0);
        metrics.record("y".into(), f64::NAN);
        metrics.set("z".into(), f64::INFINITY);
        assert_eq!(metrics.left_out(), 5);
        for name in 0..1000 {
            metrics.add(format!("n{name}"), 1);
        }
        assert_eq!(metrics.read().len(), NAMES_MAX);
    }

    #[test]
    fn extreme_values_fall_into_the_first_and_the_last_bucket() {
        let metrics = Metrics::default();
        for value in [-1.0, 0.0, f64::MIN_POSITIVE, f64::MAX] {
            metrics.record("x".into(), value);
        }
        assert!(matches!(metrics.read()[0].1, Figure::Histogram { count: 4, .. }));
    }
}
