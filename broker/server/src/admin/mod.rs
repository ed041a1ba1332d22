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
//! - [`client`]: the end of `weirmq plugin list` and the like

pub mod client;
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// Whether a plugin serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PluginState {
    /// It does.
    Serving,
    /// It keeps failing and is left alone for a while.
    Quarantined,
    /// An operator has disabled it.
    Disabled,
    /// It could not be loaded.
    NotLoaded,
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
