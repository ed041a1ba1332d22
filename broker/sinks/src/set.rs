//! All sinks of a broker.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use weirmq_core::record::{Kept, Record, Refused, Sinks};

use crate::check;
use crate::config::{Problem, SinkConfig};
use crate::disk;
use crate::engine::Stop;
use crate::engine::buffer::{Buffer, Keep};
use crate::engine::dead_letter::DeadLetters;
use crate::engine::spill::{self, SpillFile};
use crate::engine::stats::SinkStats;
use crate::engine::throttle::Throttle;
use crate::engine::worker::Worker;
use crate::registry::SinksConfig;

/// How long a write under way may take to come to its end once it is told to stop. What has not ended then is
/// put into the spill file as well and may arrive twice.
const STOP_GRACE: Duration = Duration::from_secs(3);

/// The sinks of a broker, running.
///
/// Dropped without [`SinkSet::shutdown`], each sink writes what its buffer holds until something fails.
pub struct SinkSet {
    sinks: HashMap<Arc<str>, Running>,
    /// The names in the order of the configuration.
    order: Vec<Arc<str>>,
    unknown: AtomicU64,
    unknown_log: Throttle,
}

struct Running {
    info: SinkInfo,
    buffer: Arc<Buffer>,
    spill: Arc<SpillFile>,
    stop: watch::Sender<bool>,
    worker: Mutex<Option<JoinHandle<()>>>,
}

/// What a sink is, for people to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkInfo {
    /// What rules call it.
    pub name: String,
    /// Its kind, as the configuration names it.
    pub kind: &'static str,
    /// Where its records go; shows no secrets.
    pub target: String,
}

/// The counters of all sinks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SetStats {
    /// Of each sink, in the order of the configuration.
    pub sinks: Vec<SinkStats>,
    /// Records that named a sink which is not configured.
    pub unknown_sink: u64,
}

/// What a shutdown left unwritten.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShutdownReport {
    /// The sinks of which something is left, in the order of the configuration.
    pub sinks: Vec<SinkRemains>,
}

impl ShutdownReport {
    /// Whether every record was written or put into a spill file.
    #[must_use]
    pub fn nothing_lost(&self) -> bool {
        self.sinks.iter().all(|sink| sink.lost == 0)
    }
}

/// What a shutdown left of one sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkRemains {
    /// The sink's name.
    pub name: String,
    /// Records in the spill file: they are delivered after the next start.
    pub spilled: u64,
    /// Records that are lost because the spill file could not be written.
    pub lost: u64,
    /// The spill file.
    pub file: PathBuf,
    /// Why the spill file could not be written, or else what the sink's last failure said.
    pub reason: Option<String>,
}

/// Why the sinks cannot be started. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration has errors: all of them, in its order.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Config(Vec<Problem>),
    /// A sink's target is not usable and will not be by waiting.
    #[error("sink '{sink}': {reason}")]
    Open {
        /// The sink.
        sink: String,
        /// What must be put right.
        reason: String,
    },
    /// The folder for spill files and dead letters cannot be made or read.
    #[error("the folder {path} cannot be used: {source}; make it writable for the broker")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The records of the run before cannot be read at all; starting would leave them behind unseen.
    #[error(
        "sink '{sink}': the spill file {path} cannot be read: {source}; make it readable or move it away"
    )]
    Spill {
        /// The sink.
        sink: String,
        /// The spill file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is no tokio runtime around the call.
    #[error("the sinks need a tokio runtime to run on")]
    NoRuntime,
}

impl SinkSet {
    /// Opens every configured sink, takes over what the run before left unwritten, and starts to work, on the
    /// tokio runtime of the caller (with IO and time). Waits for disks: call it before there are clients.
    ///
    /// # Errors
    /// [`StartError`], when something is wrong that waiting does not heal. A target that is down is no error.
    pub fn start(config: &SinksConfig, data_folder: &Path) -> Result<Arc<Self>, StartError> {
        let runtime = Handle::try_current().map_err(|_| StartError::NoRuntime)?;
        check::heed(Self::check(config, data_folder))?;
        let folder = disk::own_folder(data_folder);
        let mut set = Self {
            sinks: HashMap::new(),
            order: Vec::new(),
            unknown: AtomicU64::new(0),
            unknown_log: Throttle::default(),
        };
        let sinks = config.each();
        if !sinks.is_empty() {
            fs::create_dir_all(&folder)
                .map_err(|source| StartError::Folder { path: folder.clone(), source })?;
        }
        for (kind, sink) in sinks {
            let running = Running::start(&runtime, kind, sink, data_folder, &folder)?;
            let name: Arc<str> = Arc::from(sink.name());
            set.order.push(Arc::clone(&name));
            set.sinks.insert(name, running);
        }
        Ok(Arc::new(set))
    }

    /// Finds what is wrong with `config`, changing nothing and connecting to nothing.
    #[must_use]
    pub fn check(config: &SinksConfig, data_folder: &Path) -> Vec<Problem> {
        check::problems(config, data_folder)
    }

    /// What the sinks are, in the order of the configuration.
    #[must_use]
    pub fn infos(&self) -> Vec<SinkInfo> {
        self.running().map(|sink| sink.info.clone()).collect()
    }

    /// The counters now.
    #[must_use]
    pub fn stats(&self) -> SetStats {
        SetStats {
            sinks: self.running().map(|sink| sink.buffer.stats()).collect(),
            unknown_sink: self.unknown.load(Ordering::Relaxed),
        }
    }

    /// Takes no more records, writes what the buffers hold for at most `within`, and puts what is left into the
    /// spill files. A sink that fails now is not waited for. Ends a few seconds after `within` at the latest. A
    /// second call finds nothing to do.
    pub async fn shutdown(&self, within: Duration) -> ShutdownReport {
        let deadline = Instant::now() + within;
        for sink in self.running() {
            sink.buffer.close();
        }
        let mut report = ShutdownReport::default();
        // All at once: each takes up to `within`.
        for sink in self.running() {
            sink.end_by(deadline).await;
        }
        let grace = Instant::now().max(deadline) + STOP_GRACE;
        for sink in self.running() {
            sink.end_now(grace).await;
        }
        for sink in self.running() {
            report.sinks.extend(sink.spill().await);
        }
        report
    }

    /// Waits until the counters of sink `name` are as a test expects.
    #[cfg(test)]
    pub(crate) async fn until(&self, name: &str, expected: impl Fn(&SinkStats) -> bool) -> SinkStats {
        self.sinks[name].buffer.until(expected).await
    }

    fn running(&self) -> impl Iterator<Item = &Running> {
        self.order.iter().filter_map(|name| self.sinks.get(name))
    }
}

impl SinkSet {
    /// Takes over the kept records of sink `name` that were not written before the last restart, in their order. To be
    /// called before there are clients. Records of a sink that is not configured stay where they are kept; how many, and
    /// what cannot be read, is logged.
    pub fn restore(&self, name: &str, records: Vec<(Bytes, Kept)>) {
        let Some(sink) = self.sinks.get(name) else {
            let records = records.len();
            tracing::warn!(sink = name, records, "kept records wait for a sink that is not configured");
            return;
        };
        let mut entries = Vec::with_capacity(records.len());
        for (bytes, kept) in records {
            match spill::decode(sink.buffer.name(), &bytes) {
                Ok(entry) => entries.push((entry, Some(kept))),
                Err(error) => {
                    tracing::error!(sink = name, error, "a kept record cannot be read; it stays where it is");
                }
            }
        }
        sink.buffer.restore(entries);
    }

    fn push(&self, record: Record, keep: Option<Keep<'_>>) -> Result<(), Refused> {
        if let Some(sink) = self.sinks.get(&record.sink) {
            return sink.buffer.push(record, keep);
        }
        self.unknown.fetch_add(1, Ordering::Relaxed);
        if let Some(held_back) = self.unknown_log.pass() {
            let (sink, rule) = (&*record.sink, &*record.rule);
            tracing::warn!(sink, rule, held_back, "a record names a sink that is not configured");
        }
        Err(Refused::UnknownSink(record.sink))
    }
}

impl Sinks for SinkSet {
    fn submit(&self, record: Record) -> Result<(), Refused> {
        self.push(record, None)
    }

    fn submit_kept(
        &self,
        record: Record,
        keep: &mut dyn FnMut(Bytes) -> Option<Kept>,
    ) -> Result<(), Refused> {
        self.push(record, Some(keep))
    }
}

impl Drop for SinkSet {
    fn drop(&mut self) {
        for sink in self.running() {
            sink.buffer.close();
        }
    }
}

impl Running {
    fn start(
        runtime: &Handle,
        kind: &'static str,
        config: &dyn SinkConfig,
        data_folder: &Path,
        folder: &Path,
    ) -> Result<Self, StartError> {
        let name: Arc<str> = Arc::from(config.name());
        let sink = config
            .open(data_folder)
            .map_err(|reason| StartError::Open { sink: config.name().to_owned(), reason })?;
        let settings = config.buffer().clone();
        let dead_letters = Arc::new(DeadLetters::new(folder, &name, settings.dead_letter_bytes_max));
        let spill = Arc::new(SpillFile::new(folder, Arc::clone(&name), settings.bytes_max));
        let buffer = Arc::new(Buffer::new(Arc::clone(&name), settings, config.batch_records_max()));
        take_over(&spill, &buffer).map_err(|source| StartError::Spill {
            sink: config.name().to_owned(),
            path: spill.path().to_owned(),
            source,
        })?;
        let (stop, stopped) = Stop::new();
        let worker = Worker::new(sink, Arc::clone(&buffer), dead_letters, Arc::clone(&spill), stopped);
        let info = SinkInfo { name: name.to_string(), kind, target: config.target(data_folder) };
        let worker = Mutex::new(Some(runtime.spawn(worker.run())));
        Ok(Self { info, buffer, spill, stop, worker })
    }

    /// Waits for the worker to end by itself, and tells it to stop at `deadline`.
    async fn end_by(&self, deadline: Instant) {
        let Some(mut worker) = self.worker.lock().take() else { return };
        if tokio::time::timeout_at(deadline, &mut worker).await.is_err() {
            self.stop.send_replace(true);
            *self.worker.lock() = Some(worker);
        }
    }

    /// Ends a worker that was told to stop, by force after `grace`.
    async fn end_now(&self, grace: Instant) {
        let Some(mut worker) = self.worker.lock().take() else { return };
        if tokio::time::timeout_at(grace, &mut worker).await.is_err() {
            worker.abort();
            // It ends at its next pause; only then nobody else touches the buffer.
            let _aborted = worker.await;
            tracing::warn!(
                sink = self.info.name,
                "a write did not end in time; its records may arrive twice"
            );
        }
    }

    /// Puts what is unwritten into the spill file.
    async fn spill(&self) -> Option<SinkRemains> {
        let kept = self.buffer.kept();
        if kept > 0 {
            let sink = &*self.info.name;
            tracing::info!(
                sink,
                records = kept,
                "unwritten records are kept in the store for the next start"
            );
        }
        let entries = self.buffer.drain();
        if entries.is_empty() {
            return None;
        }
        let count = entries.len() as u64;
        let failing = self.buffer.stats().failing;
        let file = Arc::clone(&self.spill);
        let outcome = tokio::task::spawn_blocking(move || file.write(&entries)).await;
        let outcome = outcome.map_err(io::Error::other).flatten();
        self.buffer.spilled(outcome.is_ok());
        let (sink, file) = (&*self.info.name, self.spill.path());
        let reason = match &outcome {
            Ok(()) => {
                let path = file.display();
                tracing::info!(sink, count, file = %path, "unwritten records are kept for the next start");
                failing
            }
            Err(error) => {
                let path = file.display();
                tracing::error!(sink, count, %error, file = %path, "records are lost: the spill file cannot be written");
                Some(error.to_string())
            }
        };
        let (spilled, lost) = if outcome.is_ok() { (count, 0) } else { (0, count) };
        Some(SinkRemains { name: self.info.name.clone(), spilled, lost, file: file.to_owned(), reason })
    }
}

/// Hands what the run before left to the buffer.
fn take_over(spill: &SpillFile, buffer: &Buffer) -> io::Result<()> {
    let restored = spill.restore()?;
    let (sink, records) = (&**buffer.name(), restored.entries.len());
    if let Some(damage) = &restored.damage {
        let (line, what) = &damage.first;
        tracing::error!(
            sink, records, lines = damage.lines, kept = %damage.kept.display(),
            "the spill file is damaged, first in line {line}: {what}; what can be read is delivered, the file is kept"
        );
    } else if records > 0 {
        tracing::info!(sink, records, "records of the run before are being delivered");
    }
    buffer.restore(restored.entries.into_iter().map(|entry| (entry, None)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::config::BufferConfig;
    use crate::engine::{Entry, Sink, Writing};
    use crate::testing::{numbered, parse, soon, start, submit_numbers};

    const HISTORY: &str = "[[sqlite]]\nname = 'history'\nfile = 'h.db'\nbusy_timeout_ms = 1\n\
                           buffer = { batch_wait_ms = 0 }\n";

    fn numbers(database: &Connection) -> Vec<i64> {
        let mut statement = database.prepare("SELECT n FROM history ORDER BY rowid").unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    fn locked(data_folder: &Path) -> Connection {
        let database = Connection::open(data_folder.join("h.db")).unwrap();
        database.execute_batch("BEGIN IMMEDIATE").unwrap();
        database
    }

    #[tokio::test]
    async fn what_a_shutdown_leaves_is_delivered_in_order_after_the_next_start() {
        let data = tempfile::tempdir().unwrap();
        let set = start(HISTORY, data.path());
        let other = locked(data.path());
        submit_numbers(&set, "history", 0..1_000);
        let report = soon(set.shutdown(Duration::from_secs(5))).await;
        let file = data.path().join("sinks/history.spill.jsonl");
        let [remains] = &report.sinks[..] else { panic!("{report:?}") };
        assert_eq!((remains.spilled, remains.lost, &remains.file), (1_000, 0, &file));
        assert!(remains.reason.as_ref().unwrap().contains("locked"), "{report:?}");
        assert!(report.nothing_lost());
        assert_eq!(set.submit(numbered("history", 0)), Err(Refused::Closed));
        assert_eq!(soon(set.shutdown(Duration::ZERO)).await, ShutdownReport::default());

        other.execute_batch("COMMIT").unwrap();
        let set = start(HISTORY, data.path());
        submit_numbers(&set, "history", 1_000..1_100);
        let stats = soon(set.until("history", |stats| stats.written == 1_100)).await;
        assert_eq!((stats.restored, stats.accepted), (1_000, 100));
        assert_eq!(numbers(&other), (0..1_100).collect::<Vec<_>>());
        assert_eq!(soon(set.shutdown(Duration::from_secs(5))).await.sinks, []);
        assert!(!file.exists());
    }

    #[tokio::test]
    async fn a_shutdown_in_good_times_writes_everything_first() {
        let data = tempfile::tempdir().unwrap();
        let set = start(&HISTORY.replace("batch_wait_ms = 0", "batch_wait_ms = 60000"), data.path());
        submit_numbers(&set, "history", 0..2_000);
        assert_eq!(soon(set.shutdown(Duration::from_secs(10))).await, ShutdownReport::default());
        assert!(!data.path().join("h.db-wal").exists(), "the database is one file again");
        assert_eq!(
            numbers(&Connection::open(data.path().join("h.db")).unwrap()),
            (0..2_000).collect::<Vec<_>>()
        );
    }

    #[tokio::test]
    async fn a_damaged_spill_file_does_not_keep_the_broker_from_starting() {
        let data = tempfile::tempdir().unwrap();
        fs::create_dir(data.path().join("sinks")).unwrap();
        let good = r#"{"id":"00ff-1","rule":"r","created_unix_ms":1,"fields":[["n",7]]}"#;
        fs::write(data.path().join("sinks/history.spill.jsonl"), format!("garbage\n{good}\n")).unwrap();
        let set = start(HISTORY, data.path());
        soon(set.until("history", |stats| stats.written == 1)).await;
        assert_eq!(numbers(&Connection::open(data.path().join("h.db")).unwrap()), [7]);
        let kept = fs::read_dir(data.path().join("sinks")).unwrap().map(|file| file.unwrap().file_name());
        let kept: Vec<String> = kept.map(|name| name.into_string().unwrap()).collect();
        assert!(matches!(&kept[..], [name] if name.starts_with("history.spill.damaged-")), "{kept:?}");
    }

    #[tokio::test]
    async fn records_that_cannot_even_be_spilled_are_counted_as_lost() {
        let data = tempfile::tempdir().unwrap();
        let set = start(HISTORY, data.path());
        let _other = locked(data.path());
        submit_numbers(&set, "history", 0..3);
        fs::create_dir(data.path().join("sinks/history.spill.jsonl")).unwrap();
        let report = soon(set.shutdown(Duration::ZERO)).await;
        assert_eq!((report.sinks[0].spilled, report.sinks[0].lost), (0, 3));
        assert!(!report.nothing_lost());
        let stats = &set.stats().sinks[0];
        assert_eq!((stats.lost, stats.buffered_records), (3, 0));
    }

    #[tokio::test]
    async fn a_sink_that_is_not_configured_is_refused_and_counted() {
        let data = tempfile::tempdir().unwrap();
        let set = start("", data.path());
        assert_eq!(set.submit(numbered("histroy", 1)), Err(Refused::UnknownSink("histroy".into())));
        assert_eq!(set.stats(), SetStats { sinks: Vec::new(), unknown_sink: 1 });
        assert_eq!(fs::read_dir(data.path()).unwrap().count(), 0, "no sinks, no folder");
    }

    #[tokio::test]
    async fn the_banner_names_every_sink_its_kind_and_its_target() {
        let data = tempfile::tempdir().unwrap();
        let config =
            "[[webhook]]\nname = 'alert'\nurl = 'http://127.0.0.1:9/x'\n[[file]]\nname = 'log'\nfile = 'l'\n";
        let set = start(&format!("{HISTORY}{config}"), data.path());
        let infos = set.infos();
        let told: Vec<_> = infos.iter().map(|info| (&*info.name, info.kind)).collect();
        assert_eq!(told, [("history", "sqlite"), ("alert", "webhook"), ("log", "file")]);
        assert_eq!(infos[1].target, "POST http://127.0.0.1:9");
        assert_eq!(infos[2].target, data.path().join("l").display().to_string());
    }

    #[tokio::test]
    async fn one_sink_that_is_down_does_not_hold_up_another() {
        let data = tempfile::tempdir().unwrap();
        let set = start(&format!("{HISTORY}[[file]]\nname = 'log'\nfile = 'l'\n"), data.path());
        let _other = locked(data.path());
        submit_numbers(&set, "history", 0..10);
        submit_numbers(&set, "log", 0..10);
        soon(set.until("log", |stats| stats.written == 10)).await;
        assert_eq!(set.stats().sinks[0].buffered_records, 10);
    }

    #[tokio::test]
    async fn a_set_dropped_without_shutdown_writes_what_it_holds() {
        let data = tempfile::tempdir().unwrap();
        let set = start(&HISTORY.replace("batch_wait_ms = 0", "batch_wait_ms = 60000"), data.path());
        submit_numbers(&set, "history", 0..10);
        let buffer = Arc::clone(&set.sinks["history"].buffer);
        drop(set);
        soon(buffer.until(|stats| stats.written == 10)).await;
    }

    /// A sink whose writes never end, whatever they are told.
    struct Stuck;

    impl Sink for Stuck {
        fn write<'a>(&'a mut self, _: &'a [Arc<Entry>], _: &'a Stop) -> Writing<'a> {
            Box::pin(std::future::pending())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_never_ends_holds_up_a_shutdown_only_so_long_and_loses_nothing() {
        let data = tempfile::tempdir().unwrap();
        let buffer = Arc::new(Buffer::new("stuck".into(), BufferConfig::default(), 2));
        let spill = Arc::new(SpillFile::new(data.path(), "stuck".into(), 1_000));
        let dead_letters = Arc::new(DeadLetters::new(data.path(), "stuck", 1_000));
        let (stop, stopped) = Stop::new();
        let worker =
            Worker::new(Box::new(Stuck), Arc::clone(&buffer), dead_letters, Arc::clone(&spill), stopped);
        let info = SinkInfo { name: "stuck".to_owned(), kind: "test", target: String::new() };
        let worker = Mutex::new(Some(tokio::spawn(worker.run())));
        let set = SinkSet {
            sinks: HashMap::from([("stuck".into(), Running { info, buffer, spill, stop, worker })]),
            order: vec!["stuck".into()],
            unknown: AtomicU64::new(0),
            unknown_log: Throttle::default(),
        };
        submit_numbers(&set, "stuck", 0..5);
        let start = Instant::now();
        let report = set.shutdown(Duration::from_secs(2)).await;
        assert!(start.elapsed() <= Duration::from_secs(2) + STOP_GRACE + Duration::from_secs(1));
        assert_eq!(report.sinks[0].spilled, 5);
        assert_eq!(fs::read_to_string(&report.sinks[0].file).unwrap().lines().count(), 5);
    }

    #[test]
    fn outside_of_a_runtime_the_answer_is_an_error_not_a_panic() {
        let data = tempfile::tempdir().unwrap();
        let error = SinkSet::start(&parse(HISTORY), data.path()).err().unwrap();
        assert!(matches!(error, StartError::NoRuntime));
    }
}
