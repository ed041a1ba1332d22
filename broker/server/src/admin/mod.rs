//! The admin socket: a Unix socket in the data folder that only the broker's own user can open. A request is a
//! line of JSON, its answer is a line of JSON, and a connection may ask as often as it likes.
//!
//! ```json
//! {"command":"plugin_reload","name":"login"}
//! {"answer":"reloaded","name":"login","before":"0.1.0","after":"0.1.1"}
//! ```
//!
//! # Layout
//! - this file: requests and answers
//! - [`server`]: the broker's end
//! - `plugins`: how plugins do, for the socket and for `$SYS/`
//! - [`client`]: the end of `weirmq plugin list` and the like

pub mod client;
pub(crate) mod plugins;
pub mod server;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The longest line that is read, in bytes.
const LINE_BYTES_MAX: u64 = 4 << 20;

/// Where the socket of a data folder is.
#[must_use]
pub fn socket_in(data_folder: &Path) -> PathBuf {
    data_folder.join("admin.sock")
}

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// How is it?
    Status {},
    /// Which plugins are there?
    PluginList {},
    /// Load the file of a plugin anew.
    PluginReload {
        /// The plugin's name in the configuration.
        name: String,
    },
    /// Take a plugin out of service.
    PluginDisable {
        /// The plugin's name in the configuration.
        name: String,
    },
    /// Take a plugin back into service.
    PluginEnable {
        /// The plugin's name in the configuration.
        name: String,
    },
    /// Bring back the version of a plugin that served before.
    PluginRollback {
        /// The plugin's name in the configuration.
        name: String,
    },
    /// End a client's connection.
    ClientDisconnect {
        /// Its client identifier.
        id: String,
    },
    /// Take back what clients were allowed. Of `principal` and `client` at most one; without either, everybody.
    Revoke {
        /// Those that logged in as this principal.
        #[serde(default)]
        principal: Option<String>,
        /// The client of this identifier.
        #[serde(default)]
        client: Option<String>,
        /// Whether their leases are over, which disconnects them; otherwise their subscriptions are authorized again.
        end: bool,
    },
    /// Which rules are live?
    RulesList {},
    /// How is a client's session, and what was not delivered to it?
    Client {
        /// Its client identifier.
        id: String,
    },
    /// Copy the store into a folder.
    StoreBackup {
        /// The folder: new, or empty.
        folder: PathBuf,
    },
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// How it is.
    Status {
        /// The broker's version.
        version: String,
        /// How many clients are connected.
        connections: usize,
        /// How many plugins serve.
        plugins: usize,
        /// How many rules are live.
        rules: usize,
    },
    /// The plugins, in the order in which they are asked.
    Plugins {
        /// One each.
        plugins: Vec<PluginRow>,
    },
    /// The plugin was loaded anew.
    Reloaded {
        /// Its name in the configuration.
        name: String,
        /// The version that served before; absent when none did.
        before: Option<String>,
        /// The version that serves now.
        after: String,
    },
    /// It was done.
    Done {
        /// What was.
        what: String,
    },
    /// The rules.
    Rules {
        /// Those that are live, in their order.
        rules: Vec<RuleRow>,
        /// What is wrong with files as they stand.
        broken: Vec<String>,
    },
    /// A client's session.
    Client {
        /// Its client identifier.
        id: String,
        /// Who it logged in as.
        principal: String,
        /// Whether it is connected.
        connected: bool,
        /// How many subscriptions it has.
        subscriptions: usize,
        /// How many QoS 1 and 2 messages wait for it or are under way.
        pending: usize,
        /// What was not delivered to it since its session began, by reason; reasons that never came are left out.
        dropped: BTreeMap<String, u64>,
    },
    /// The store was copied.
    BackedUp {
        /// The folder.
        folder: PathBuf,
        /// How large the copy is, in bytes.
        bytes: u64,
        /// How many of its files are hard links to files of the store that are never written to again.
        linked: usize,
        /// How many are copies.
        copied: usize,
    },
    /// It could not be done.
    Failed {
        /// Why.
        error: String,
    },
}

/// A plugin.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PluginRow {
    /// Its name in the configuration.
    pub name: String,
    /// Whether it serves.
    pub state: PluginState,
    /// What it calls itself, and its version; absent when it is not loaded.
    pub version: Option<String>,
    /// `wasm` or `native`; absent when it is not loaded.
    #[serde(default)]
    pub kind: Option<String>,
    /// Its file.
    pub file: String,
    /// The hook points that it serves.
    pub hooks: Vec<String>,
    /// The filters of the messages that it wants to see.
    pub topics: Vec<String>,
    /// Calls made.
    pub calls: u64,
    /// Calls that failed.
    pub failures: u64,
    /// How often another version was taken into service.
    pub reloads: u64,
    /// Why it is not loaded.
    pub error: Option<String>,
    /// Calls made, by hook point.
    #[serde(default)]
    pub calls_by_hook: BTreeMap<String, u64>,
    /// How long calls took, by hook point.
    #[serde(default)]
    pub latency: BTreeMap<String, LatencyRow>,
    /// Calls that failed, by kind; `unavailable` are those that were not made.
    #[serde(default)]
    pub failures_by_kind: BTreeMap<String, u64>,
    /// The same by hook point.
    #[serde(default)]
    pub failures_by_hook: BTreeMap<String, BTreeMap<String, u64>>,
    /// Events that it was too slow for.
    #[serde(default)]
    pub events_dropped: u64,
    /// The memory of its instances.
    #[serde(default)]
    pub memory_bytes: u64,
    /// The figures that it keeps about itself.
    #[serde(default)]
    pub metrics: BTreeMap<String, MetricRow>,
    /// Figures of its own that it could not keep.
    #[serde(default)]
    pub metrics_left_out: u64,
    /// The version in its shadow.
    #[serde(default)]
    pub shadow: Option<ShadowRow>,
    /// Why the version that was to be in its shadow last is not.
    #[serde(default)]
    pub shadow_error: Option<String>,
}

/// How long calls took, to a factor of two. On the way of messages every sixteenth is timed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyRow {
    /// How many were timed.
    pub timed: u64,
    /// Half of them took no longer.
    pub p50_ns: u64,
    /// 99 of 100 took no longer.
    pub p99_ns: u64,
    /// None took longer.
    pub max_ns: u64,
    /// Pairs: how many nanoseconds at most, and how many calls took that and more than what the pair before it has.
    pub histogram: Vec<(u64, u64)>,
}

/// A figure that a plugin keeps about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum MetricRow {
    /// A number that only grows.
    Counter {
        /// The number.
        value: u64,
    },
    /// A number that comes and goes.
    Gauge {
        /// The number.
        value: f64,
    },
    /// A distribution.
    Histogram {
        /// How many observations.
        count: u64,
        /// Their sum.
        sum: f64,
        /// Half of them are not above this.
        p50: f64,
        /// 99 of 100 are not above this.
        p99: f64,
    },
}

/// A version in the shadow of a plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowRow {
    /// What it calls itself, and its version.
    pub version: String,
    /// Its file.
    pub file: String,
    /// Answers that were compared, by hook point.
    pub compared: BTreeMap<String, u64>,
    /// Answers that differed from those of the version that serves, by hook point.
    pub differed: BTreeMap<String, u64>,
    /// The latest of them, the newest last.
    pub latest: Vec<DifferenceRow>,
    /// Calls that were not repeated because too many waited.
    pub left_out: u64,
    /// Its calls that failed, by kind.
    pub failures_by_kind: BTreeMap<String, u64>,
    /// How long its calls took, by hook point.
    pub latency: BTreeMap<String, LatencyRow>,
    /// The memory of its instances.
    pub memory_bytes: u64,
}

/// An answer that differed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DifferenceRow {
    /// The hook point.
    pub hook: String,
    /// About what it was asked: a client, a topic, a filter.
    pub about: String,
    /// What the version that serves answered.
    pub live: String,
    /// What the version in the shadow answered.
    pub shadow: String,
}

/// Whether a plugin serves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PluginState {
    /// It does.
    Serving,
    /// It keeps failing and is left alone for a while.
    Quarantined,
    /// An operator has disabled it.
    Disabled,
    /// It could not be loaded.
    #[default]
    NotLoaded,
}

impl PluginState {
    /// For people.
    #[must_use]
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Quarantined => "quarantined",
            Self::Disabled => "disabled",
            Self::NotLoaded => "not loaded",
        }
    }
}

/// A live rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleRow {
    /// Its name.
    pub name: String,
    /// `on` or `transform`.
    pub kind: String,
    /// Its filter as written.
    pub filter: String,
    /// Its file's name in the rules folder.
    pub file: String,
    /// The line that it is registered in.
    pub line: usize,
    /// How often it ran.
    pub runs: u64,
    /// How many of those runs failed.
    pub failures: u64,
    /// How the latest of those failed.
    pub last_failure: Option<String>,
}
