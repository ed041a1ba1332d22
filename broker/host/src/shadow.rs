//! Shadow mode: another version is asked what the one that serves was asked, and what it answers is compared.
//!
//! It decides nothing and reaches nobody. Calls wait for it in a bounded queue, with one thread at the other end; nobody
//! waits for that thread, and what finds the queue full is left out and counted.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;
use parking_lot::Mutex;
use weirmq_core::hook::{
    Authentication, Decision, Delivery, Failure, FilterVerdict, HookPoint, Persisted, ReasonCode, Transformed,
};

use crate::config::ShadowConfig;
use crate::error::LoadError;
use crate::plugin::{PluginInfo, PluginStats, Served};

/// How many of the latest differences are kept.
const DIFFERENCES_MAX: usize = 16;

/// What is asked of the version in the shadow, and where what comes of it is noted.
type Job = Box<dyn FnOnce(&Arc<Served>, &Report) + Send>;

/// A version in the shadow of the one that serves. Its thread ends when this is dropped.
pub(crate) struct Shadow {
    served: Arc<Served>,
    every: u64,
    calls: AtomicU64,
    jobs: SyncSender<Job>,
    left_out: AtomicU64,
    report: Arc<Report>,
}

/// What became of the comparisons so far.
#[derive(Default)]
pub(crate) struct Report {
    compared: [AtomicU64; HookPoint::ALL.len()],
    differed: [AtomicU64; HookPoint::ALL.len()],
    latest: Mutex<VecDeque<Difference>>,
}

/// What is known of a version in the shadow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShadowStats {
    /// The version.
    pub info: PluginInfo,
    /// Answers that were compared, by hook point.
    pub compared: Vec<(HookPoint, u64)>,
    /// Answers that were others than those of the version that serves, by hook point.
    pub differed: Vec<(HookPoint, u64)>,
    /// The latest of them, the newest last.
    pub latest: Vec<Difference>,
    /// Calls that were not repeated because too many waited already.
    pub left_out: u64,
    /// Its own calls, their durations and failures.
    pub stats: PluginStats,
}

/// An answer that differed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Where it was asked.
    pub point: HookPoint,
    /// About what: a client, a topic, a filter.
    pub about: String,
    /// What the version that serves answered.
    pub live: String,
    /// What the version in the shadow answered.
    pub shadow: String,
}

impl Shadow {
    /// Starts to repeat calls on `served`.
    pub(crate) fn start(served: Arc<Served>, config: &ShadowConfig) -> Result<Self, LoadError> {
        let (jobs, queue) = sync_channel(config.queue_max as usize);
        let report = Arc::<Report>::default();
        let (worker, noting) = (Arc::clone(&served), Arc::clone(&report));
        std::thread::Builder::new()
            .name("plugin-shadow".to_owned())
            .spawn(move || work(&queue, &worker, &noting))
            .map_err(|error| LoadError::Threads {
                plugin: served.name().to_owned(),
                detail: error.to_string(),
            })?;
        let every = u64::from(config.every.max(1));
        Ok(Self { served, every, calls: AtomicU64::new(0), jobs, left_out: AtomicU64::new(0), report })
    }

    /// Whether the call that was just made is one to repeat.
    pub(crate) fn takes_this(&self) -> bool {
        self.calls.fetch_add(1, Ordering::Relaxed).is_multiple_of(self.every)
    }

    /// The version, for what is told and not asked.
    pub(crate) fn served(&self) -> &Arc<Served> {
        &self.served
    }

    /// Has `again` asked what was answered with `live`, some time soon.
    pub(crate) fn compare<T: Answer>(
        &self,
        point: HookPoint,
        live: T,
        about: impl FnOnce() -> String + Send + 'static,
        again: impl FnOnce(&Arc<Served>) -> Result<T, Failure> + Send + 'static,
    ) {
        let job: Job = Box::new(move |served, report| {
            // A failure is counted and logged already.
            let Ok(shadow) = again(served) else { return };
            report.note(point, &live, &shadow, about);
        });
        if self.jobs.try_send(job).is_err() {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What became of it so far.
    pub(crate) fn read(&self) -> ShadowStats {
        let read = |counts: &[AtomicU64]| {
            let counts = HookPoint::ALL.iter().zip(counts);
            let counts = counts.map(|(point, count)| (*point, count.load(Ordering::Acquire)));
            counts.filter(|(_, count)| *count > 0).collect()
        };
        ShadowStats {
            info: self.served.info(),
            compared: read(&self.report.compared),
            differed: read(&self.report.differed),
            latest: self.report.latest.lock().iter().cloned().collect(),
            left_out: self.left_out.load(Ordering::Relaxed),
            stats: self.served.stats(),
        }
    }
}

fn work(queue: &Receiver<Job>, served: &Arc<Served>, report: &Report) {
    while let Ok(job) = queue.recv() {
        job(served, report);
    }
}

impl Report {
    fn note<T: Answer>(&self, point: HookPoint, live: &T, shadow: &T, about: impl FnOnce() -> String) {
        if !live.is_same_as(shadow) {
            count(&self.differed, point);
            self.keep(point, about(), live.in_words(), shadow.in_words());
        }
        // Last: who sees it counted sees what came of it.
        count(&self.compared, point);
    }

    fn keep(&self, point: HookPoint, about: String, live: String, mut shadow: String) {
        if live == shadow {
            shadow.push_str(", with another content");
        }
        let mut latest = self.latest.lock();
        if latest.len() >= DIFFERENCES_MAX {
            latest.pop_front();
        }
        latest.push_back(Difference { point, about, live, shadow });
    }
}

fn count(counts: &[AtomicU64], point: HookPoint) {
    if let Some(count) = counts.get(point as usize) {
        count.fetch_add(1, Ordering::Release);
    }
}

/// What hooks answer, to be compared. The words of a reason, which are for logs, make no difference.
pub(crate) trait Answer: Clone + PartialEq + Send + 'static {
    /// Where it refuses: what the client is told.
    fn refusal(&self) -> Option<ReasonCode> {
        None
    }

    /// Whether the broker would do the same.
    fn is_same_as(&self, other: &Self) -> bool {
        match (self.refusal(), other.refusal()) {
            (Some(one), Some(other)) => one == other,
            _ => self == other,
        }
    }

    /// In a few words, without what a message or a login contains.
    fn in_words(&self) -> String;
}

impl Answer for Authentication {
    fn refusal(&self) -> Option<ReasonCode> {
        if let Self::Deny(denial) = self { Some(denial.code) } else { None }
    }

    fn in_words(&self) -> String {
        match self {
            Self::Allow { lease, .. } => format!("allow as '{}'", lease.principal),
            Self::Deny(denial) => format!("deny with 0x{:02x}", denial.code as u8),
            Self::Continue { .. } => "continue".to_owned(),
            Self::Next => "next".to_owned(),
        }
    }
}

impl Answer for Decision {
    fn refusal(&self) -> Option<ReasonCode> {
        if let Self::Deny(denial) = self { Some(denial.code) } else { None }
    }

    fn in_words(&self) -> String {
        match self {
            Self::Allow => "allow".to_owned(),
            Self::Deny(denial) => format!("deny with 0x{:02x}", denial.code as u8),
            Self::Next => "next".to_owned(),
        }
    }
}

impl Answer for Transformed {
    fn refusal(&self) -> Option<ReasonCode> {
        if let Self::Drop(denial) = self { Some(denial.code) } else { None }
    }

    fn in_words(&self) -> String {
        match self {
            Self::Pass => "pass".to_owned(),
            Self::Replace(draft) => format!("replace, to '{}'", draft.topic),
            Self::WithPayload(_) => "replace the payload".to_owned(),
            Self::Drop(denial) => format!("drop with 0x{:02x}", denial.code as u8),
            Self::Several(drafts) => format!("{} messages", drafts.len()),
        }
    }
}

impl Answer for Delivery {
    fn is_same_as(&self, other: &Self) -> bool {
        matches!((self, other), (Self::Drop(_), Self::Drop(_))) || self == other
    }

    fn in_words(&self) -> String {
        match self {
            Self::Pass => "pass",
            Self::Replace(_) => "replace",
            Self::Drop(_) => "drop",
        }
        .to_owned()
    }
}

impl Answer for FilterVerdict {
    fn refusal(&self) -> Option<ReasonCode> {
        if let Self::Deny(denial) = self { Some(denial.code) } else { None }
    }

    fn in_words(&self) -> String {
        match self {
            Self::Pass => "pass".to_owned(),
            Self::Rewrite(filter) => format!("rewrite to '{filter}'"),
            Self::Deny(denial) => format!("deny with 0x{:02x}", denial.code as u8),
        }
    }
}

impl Answer for Persisted {
    fn in_words(&self) -> String {
        match self {
            Self::Keep => "keep",
            Self::Replace(_) => "replace",
            Self::Skip => "skip",
        }
        .to_owned()
    }
}

/// A payload that was read back.
impl Answer for Bytes {
    fn in_words(&self) -> String {
        format!("{} bytes", self.len())
    }
}
