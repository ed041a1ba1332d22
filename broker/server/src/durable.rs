//! The durable store behind a broker: opened before it, what it holds brought back before the first client.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use weirmq_core::broker::{Broker, KeptMessage, KeptSession};
use weirmq_core::durable::Journal;
use weirmq_core::durable::event::{Number, StoredMessage};
use weirmq_core::durable::keys::KeyStore;
use weirmq_core::message::Message;
use weirmq_core::time::Now;
use weirmq_host::{LoadError, PluginBackend, PluginConfig};
use weirmq_script::ScriptHook;
use weirmq_script::state::NAMESPACE_PREFIX;
use weirmq_sinks::SinkSet;
use weirmq_store::{KvStore, LogStore, OpenError, Recovery, Store, StoreError};

use crate::config::{Config, Durability};
use crate::stored_keys::StoredKeys;

/// The store's folder in the data folder.
const FOLDER: &str = "store";

/// Where the store of the broker with this data folder is.
#[must_use]
pub fn folder_in(data_folder: &Path) -> PathBuf {
    data_folder.join(FOLDER)
}

/// Why there is no store to start with.
#[derive(Debug, thiserror::Error)]
pub enum DurableError {
    /// It cannot be opened.
    #[error("the store cannot be opened: {0}")]
    Open(#[from] OpenError),
    /// The plugin that is to keep it cannot be used.
    #[error("the store's backend cannot be used: {0}")]
    Backend(#[from] LoadError),
    /// What is in it cannot be read.
    #[error("the store cannot be read: {0}")]
    Read(#[from] StoreError),
    /// What rules remember cannot be read.
    #[error("what rules remember cannot be read from the store: {0}")]
    State(String),
}

/// The store of a running broker.
#[derive(Clone)]
pub enum Durable {
    /// The log, in the data folder.
    Log(Arc<LogStore>),
    /// In what a plugin keeps it in.
    Backend(Arc<KvStore>),
}

/// What was brought back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Restored {
    /// Sessions.
    pub sessions: usize,
    /// Messages that wait or are under way, once per receiver.
    pub queued: usize,
    /// Retained messages.
    pub retained: usize,
    /// Records that wait for sinks.
    pub records: usize,
    /// Messages that stay where they are because a persistence hook is not there.
    pub sealed: usize,
}

impl fmt::Display for Restored {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sessions, queued, retained, records, sealed } = *self;
        let counted = [
            (sessions, "session", "sessions"),
            (queued, "message that waits", "messages that wait"),
            (retained, "retained message", "retained messages"),
            (records, "record for a sink", "records for sinks"),
            (
                sealed,
                "message that its persistence hook cannot read",
                "messages that their persistence hooks cannot read",
            ),
        ];
        let mut comma = "";
        for (count, one, many) in counted.into_iter().filter(|(count, ..)| *count > 0) {
            write!(out, "{comma}{count} {}", if count == 1 { one } else { many })?;
            comma = ", ";
        }
        Ok(())
    }
}

impl Durable {
    /// Opens the store of the broker with this configuration; `None` where nothing is to be kept.
    ///
    /// # Errors
    /// [`DurableError::Open`] and [`DurableError::Backend`].
    pub fn open(config: &Config) -> Result<Option<Self>, DurableError> {
        let (folder, table) = (folder_in(&config.data_folder), &config.store);
        if let Some(plugin) = &config.store_backend {
            if folder.exists() {
                tracing::warn!(
                    folder = %folder.display(),
                    "the log in this folder is not used: [store] names a backend; `weirmq store export` and `import` move what is in it"
                );
            }
            let store = open_backend(config, plugin)?;
            return Ok(Some(Self::Backend(Arc::new(store))));
        }
        let durability = match table.durability {
            Durability::Memory => return Ok(None),
            Durability::Fsync => weirmq_store::Durability::Fsync,
            Durability::Interval => {
                weirmq_store::Durability::Interval(Duration::from_millis(table.interval_ms))
            }
            Durability::Os => weirmq_store::Durability::Os,
        };
        let log = weirmq_store::Config {
            durability,
            segment_bytes: table.segment_bytes,
            backlog_bytes_max: table.backlog_bytes_max,
            compact_slack_bytes: table.compact_slack_bytes,
            ..weirmq_store::Config::default()
        };
        let store = LogStore::open(&folder, log)?;
        tell(store.recovery());
        Ok(Some(Self::Log(Arc::new(store))))
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Log(store) => Arc::clone(store) as Arc<dyn Store>,
            Self::Backend(store) => Arc::clone(store) as Arc<dyn Store>,
        }
    }

    /// Its figures by name.
    #[must_use]
    pub fn figures(&self) -> Vec<(&'static str, u64)> {
        match self {
            Self::Log(store) => store.stats().figures().into(),
            Self::Backend(store) => store.stats().figures().into(),
        }
    }

    /// The keys and values of plugins and rules.
    #[must_use]
    pub fn keys(&self) -> Arc<dyn KeyStore> {
        match self {
            Self::Log(store) => Arc::new(StoredKeys(Arc::clone(store))),
            Self::Backend(store) => Arc::new(StoredKeys(Arc::clone(store))),
        }
    }

    /// Reads back what the rules of `hook` remember, and has it kept from now on. To be called before the hook is in
    /// the chains.
    ///
    /// # Errors
    /// [`DurableError::State`].
    pub fn keep_state_of(&self, hook: &ScriptHook) -> Result<(), DurableError> {
        let restored = hook.keep_state_in(&self.keys()).map_err(DurableError::State)?;
        let kept = self.store().namespaces();
        let others = kept.iter().filter_map(|namespace| namespace.strip_prefix(NAMESPACE_PREFIX));
        let others: Vec<&str> =
            others.filter(|file| restored.files.iter().all(|known| **known != **file)).collect();
        tracing::info!(
            files = restored.files.len(),
            keys = restored.keys,
            "brought back what rules remember"
        );
        if !others.is_empty() {
            tracing::info!(
                "state of rule files that are not there, or say nothing about it, stays in the store: {}",
                others.join(", ")
            );
        }
        Ok(())
    }

    /// What the broker records in.
    #[must_use]
    pub fn journal(&self) -> Arc<dyn Journal> {
        match self {
            Self::Log(store) => Arc::clone(store) as Arc<dyn Journal>,
            Self::Backend(store) => Arc::clone(store) as Arc<dyn Journal>,
        }
    }

    /// Writes and syncs everything. Nothing is recorded any more when this is called.
    pub fn end(&self) {
        if let Err(error) = self.store().sync().wait() {
            tracing::error!("the store could not write everything: {error}");
        }
    }
}

/// Has the plugin that keeps the state of the broker with this configuration open it.
///
/// # Errors
/// [`DurableError::Open`] and [`DurableError::Backend`].
pub(crate) fn open_backend(config: &Config, plugin: &PluginConfig) -> Result<KvStore, DurableError> {
    let begun = Instant::now();
    let backend = PluginBackend::load(&config.plugin_host, plugin)?;
    let version = backend.version().to_owned();
    let store = KvStore::open(&plugin.name, Arc::new(backend), config.store.backlog_bytes_max)?;
    tracing::info!(
        plugin = plugin.name,
        version,
        took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        "the store is open"
    );
    Ok(store)
}

/// Says what opening the store has found.
fn tell(recovery: &Recovery) {
    if let Some(cut) = &recovery.cut {
        tracing::warn!(
            file = %cut.path.display(),
            "the end of the log was written by a process that did not live to sync it, and was acknowledged to nobody; \
             it is cut off"
        );
    }
    tracing::info!(
        segments = recovery.segments,
        bytes = recovery.bytes,
        records = recovery.records,
        took_ms = u64::try_from(recovery.took.as_millis()).unwrap_or(u64::MAX),
        "the store is open"
    );
}

/// Brings everything in `store` back. To be called before there are clients, and with the hooks in place.
///
/// # Errors
/// What cannot be read: then nobody must be let in.
pub fn restore(
    store: &dyn Store,
    broker: &Broker,
    sinks: &SinkSet,
    now: Now,
) -> Result<Restored, DurableError> {
    let mut restored = Restored::default();
    let mut messages = Messages { broker, now, seen: HashMap::default() };
    for client in store.clients() {
        let Some(facts) = store.session(&client) else { continue };
        let Some(header) = facts.header else { continue };
        let queue = store.queue(&client, 0, usize::MAX);
        let mut kept = Vec::with_capacity(queue.len());
        for queued in queue {
            let Some((stored, identifiers)) = store.message(&client, queued.number)? else { continue };
            let Some(message) = messages.take(queued.number, stored) else {
                restored.sealed += 1;
                continue;
            };
            let (qos, retain) = (queued.delivery.qos, queued.delivery.retain);
            kept.push(KeptMessage {
                number: queued.number,
                message,
                qos,
                retain,
                identifiers,
                stage: queued.stage,
            });
        }
        restored.sessions += 1;
        restored.queued += kept.len();
        let subscriptions = facts.subscriptions.into_iter().collect();
        let session = KeptSession { client, header, subscriptions, taken: facts.taken, messages: kept };
        broker.restore_session(session, now);
    }
    for topic in store.retained_topics() {
        let Some(stored) = store.retained(&topic)? else { continue };
        match broker.unseal(stored, now) {
            Some(message) => {
                broker.restore_retained(&message, now);
                restored.retained += 1;
            }
            None => restored.sealed += 1,
        }
    }
    for sink in store.sinks() {
        let records = store.sink_records(&sink, 0, usize::MAX)?;
        restored.records += records.len();
        let kept = records
            .into_iter()
            .filter_map(|(number, record)| broker.restore_record(&sink, number).map(|kept| (record, kept)));
        sinks.restore(&sink, kept.collect());
    }
    Ok(restored)
}

/// The messages that were read so far: one that many sessions wait for is in memory once.
struct Messages<'a> {
    broker: &'a Broker,
    now: Now,
    seen: HashMap<Number, Option<Arc<Message>>, foldhash::fast::RandomState>,
}

impl Messages<'_> {
    fn take(&mut self, number: Number, stored: StoredMessage) -> Option<Arc<Message>> {
        let (broker, now) = (self.broker, self.now);
        self.seen.entry(number).or_insert_with(|| broker.unseal(stored, now)).clone()
    }
}
