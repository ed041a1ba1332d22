//! What has happened to a plugin's calls, counted in as many places as there may be threads, so that they do not meet.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use weirmq_core::hook::{FailureKind, HookPoint};

use crate::instances::thread_index;

/// How many durations are told apart: powers of two, in nanoseconds, up to half an hour.
const BUCKETS: usize = 42;
/// Of the calls on the way of messages, every so manyth is timed: asking the clock twice is a tenth of such a call.
const SAMPLE: u64 = 16;

const KINDS: [FailureKind; 7] = [
    FailureKind::Deadline,
    FailureKind::Memory,
    FailureKind::Operations,
    FailureKind::Crash,
    FailureKind::BadAnswer,
    FailureKind::OutputTooLarge,
    FailureKind::Unavailable,
];

/// What has happened to a plugin's calls since it was first loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PluginStats {
    /// Calls made, by hook point.
    pub calls: Vec<(HookPoint, u64)>,
    /// How long calls took, by hook point. On the way of messages every sixteenth call is timed.
    pub latency: Vec<(HookPoint, Latency)>,
    /// The same as a histogram: how many took no longer than so long, and longer than what stands before it. Only what
    /// there is.
    pub histograms: Vec<(HookPoint, Vec<(Duration, u64)>)>,
    /// Calls that failed, by kind; [`FailureKind::Unavailable`] counts those that were not made at all.
    pub failures: Vec<(FailureKind, u64)>,
    /// The same by hook point. Only what there is.
    pub failures_by_hook: Vec<(HookPoint, Vec<(FailureKind, u64)>)>,
    /// Events that were left out because the plugin was too slow for them.
    pub events_dropped: u64,
    /// How often another version was taken into service.
    pub reloads: u64,
    /// Whether it is in quarantine.
    pub quarantined: bool,
    /// The memory that its instances have now, in bytes.
    pub memory_bytes: u64,
    /// Figures of its own that it could not keep.
    pub figures_left_out: u64,
}

/// How long calls took, to a factor of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latency {
    /// How many were timed.
    pub timed: u64,
    /// Half of them took no longer.
    pub p50: Duration,
    /// 99 of 100 took no longer.
    pub p99: Duration,
    /// None took longer.
    pub max: Duration,
}

/// Counts of one plugin.
pub(crate) struct Counters {
    shards: Box<[Shard]>,
    /// Failures are rare: one place for all threads.
    failures: [[AtomicU64; KINDS.len()]; HookPoint::ALL.len()],
    events_dropped: AtomicU64,
    reloads: AtomicU64,
}

#[repr(align(128))]
#[derive(Default)]
struct Shard([AtPoint; HookPoint::ALL.len()]);

struct AtPoint {
    calls: AtomicU64,
    durations: [AtomicU64; BUCKETS],
}

impl Default for AtPoint {
    fn default() -> Self {
        Self { calls: AtomicU64::new(0), durations: [const { AtomicU64::new(0) }; BUCKETS] }
    }
}

impl Counters {
    pub(crate) fn new(shards: usize) -> Self {
        Self {
            shards: (0..shards.max(1)).map(|_| Shard::default()).collect(),
            failures: Default::default(),
            events_dropped: AtomicU64::new(0),
            reloads: AtomicU64::new(0),
        }
    }

    fn here(&self, point: HookPoint) -> Option<&AtPoint> {
        self.shards.get(thread_index() % self.shards.len())?.0.get(point as usize)
    }

    /// Counts a call. Answers when it began, where it is to be timed.
    pub(crate) fn begin_call(&self, point: HookPoint) -> Option<Instant> {
        let before = self.here(point)?.calls.fetch_add(1, Ordering::Relaxed);
        let is_rare = matches!(point, HookPoint::Authenticate | HookPoint::Lifecycle | HookPoint::Timer);
        (is_rare || before % SAMPLE == 0).then(Instant::now)
    }

    /// Counts how long a call took.
    pub(crate) fn time(&self, point: HookPoint, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - nanos.leading_zeros()) as usize;
        if let Some(count) = self.here(point).and_then(|at| at.durations.get(bucket.min(BUCKETS - 1))) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn count_failure(&self, point: HookPoint, kind: FailureKind) {
        for (counted, count) in KINDS.iter().zip(self.failures.get(point as usize).into_iter().flatten()) {
            if *counted == kind {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn count_event_dropped(&self) {
        self.events_dropped.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_reload(&self) {
        self.reloads.fetch_add(1, Ordering::Relaxed);
    }

    /// What was counted here.
    pub(crate) fn read(&self) -> PluginStats {
        let at = |point: HookPoint| self.shards.iter().filter_map(move |shard| shard.0.get(point as usize));
        let calls = |point| at(point).map(|at| at.calls.load(Ordering::Relaxed)).sum::<u64>();
        let durations = HookPoint::ALL.map(|point| {
            let mut durations = [0; BUCKETS];
            for shard in at(point) {
                for (sum, count) in durations.iter_mut().zip(&shard.durations) {
                    *sum += count.load(Ordering::Relaxed);
                }
            }
            (point, durations)
        });
        let timed = || durations.iter().filter_map(|(point, all)| Some((*point, all, Latency::of(all)?)));
        let failures_by_hook: Vec<_> = HookPoint::ALL
            .into_iter()
            .zip(&self.failures)
            .map(|(point, counts)| {
                (point, by_kind(counts.each_ref().map(|count| count.load(Ordering::Relaxed))))
            })
            .filter(|(_, failures)| !failures.is_empty())
            .collect();
        let of_kind = |kind| {
            let all = failures_by_hook.iter().flat_map(|(_, failures)| failures);
            all.filter(|(of, _)| *of == kind).map(|(_, count)| count).sum()
        };
        PluginStats {
            calls: HookPoint::ALL
                .map(|point| (point, calls(point)))
                .into_iter()
                .filter(|(_, count)| *count > 0)
                .collect(),
            latency: timed().map(|(point, _, latency)| (point, latency)).collect(),
            histograms: timed().map(|(point, durations, _)| (point, histogram(durations))).collect(),
            failures: by_kind(KINDS.map(of_kind)),
            failures_by_hook,
            events_dropped: self.events_dropped.load(Ordering::Relaxed),
            reloads: self.reloads.load(Ordering::Relaxed),
            ..PluginStats::default()
        }
    }
}

/// The kinds that there are.
fn by_kind(counts: [u64; KINDS.len()]) -> Vec<(FailureKind, u64)> {
    KINDS.into_iter().zip(counts).filter(|(_, count)| *count > 0).collect()
}

fn histogram(durations: &[u64; BUCKETS]) -> Vec<(Duration, u64)> {
    let all = durations.iter().enumerate().filter(|(_, count)| **count > 0);
    all.map(|(bucket, count)| (Duration::from_nanos(1 << bucket), *count)).collect()
}

impl Latency {
    fn of(durations: &[u64; BUCKETS]) -> Option<Self> {
        let timed: u64 = durations.iter().sum();
        let below = |hundredths: u64| {
            let wanted = timed.saturating_mul(hundredths).div_ceil(100);
            let mut seen = 0;
            let bucket = durations.iter().position(|count| {
                seen += count;
                seen >= wanted
            });
            Duration::from_nanos(1 << bucket.unwrap_or(0))
        };
        (timed > 0).then(|| Self { timed, p50: below(50), p99: below(99), max: below(100) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_what_was_timed() {
        let counters = Counters::new(2);
        for _ in 0..98 {
            counters.time(HookPoint::Authenticate, Duration::from_nanos(900));
        }
        counters.time(HookPoint::Authenticate, Duration::from_millis(3));
        counters.time(HookPoint::Authenticate, Duration::from_secs(1_000_000));
        let stats = counters.read();
        let [(point, latency)] = stats.latency[..] else { panic!("one hook point") };
        let counts: Vec<u64> = stats.histograms[0].1.iter().map(|(_, count)| *count).collect();
        assert_eq!(counts, [98, 1, 1]);
        assert_eq!((point, latency.timed), (HookPoint::Authenticate, 100));
        assert_eq!(latency.p50, Duration::from_nanos(1024));
        assert_eq!(latency.p99, Duration::from_nanos(1 << 22));
        assert_eq!(latency.max, Duration::from_nanos(1 << 41));
    }

    #[test]
    fn calls_on_the_way_of_messages_are_sampled() {
        let counters = Counters::new(1);
        let timed = (0..160).filter(|_| counters.begin_call(HookPoint::Authorize).is_some()).count();
        assert_eq!(timed, 10);
        assert_eq!(counters.read().calls, [(HookPoint::Authorize, 160)]);
    }
}
