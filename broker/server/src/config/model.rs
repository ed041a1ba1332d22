//! The tables and keys of the file, and their defaults.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use weirmq_host::{HostConfig, PluginConfig};
use weirmq_sinks::SinksConfig;

use super::limits::{CapabilitiesTable, LimitsTable};
use super::{Config, DATA_FOLDER_DEFAULT, Listener};

/// Where the broker listens unless it is told otherwise.
pub const LISTENER_DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1883);

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Tables {
    pub(super) data_folder: PathBuf,
    pub(super) listener: Vec<ListenerTable>,
    pub(super) auth: Auth,
    pub(super) plugin: Vec<PluginConfig>,
    pub(super) plugin_host: HostConfig,
    pub(super) rules: Option<weirmq_script::Config>,
    pub(super) sink: SinksConfig,
    pub(super) limits: LimitsTable,
    pub(super) capabilities: CapabilitiesTable,
    pub(super) mqtt: Mqtt,
    pub(super) log: Log,
    pub(super) shutdown: Shutdown,
    pub(super) banner: Banner,
    pub(super) store: StoreTable,
}

impl Default for Tables {
    fn default() -> Self {
        Self {
            data_folder: PathBuf::from(DATA_FOLDER_DEFAULT),
            listener: vec![ListenerTable::default()],
            auth: Auth::default(),
            plugin: Vec::new(),
            plugin_host: HostConfig::default(),
            rules: None,
            sink: SinksConfig::default(),
            limits: LimitsTable::default(),
            capabilities: CapabilitiesTable::default(),
            mqtt: Mqtt::default(),
            log: Log::default(),
            shutdown: Shutdown::default(),
            banner: Banner::default(),
            store: StoreTable::default(),
        }
    }
}

impl Tables {
    /// The configuration, with relative paths taken from `folder`.
    pub(super) fn resolve(&self, file: &Path, folder: &Path, mut listeners: Vec<Listener>) -> Config {
        if listeners.is_empty() {
            listeners.push(Listener { name: "main".to_owned(), address: LISTENER_DEFAULT });
        }
        let at = |path: &Path| tidy(&folder.join(path));
        let mut plugins = self.plugin.clone();
        for plugin in &mut plugins {
            plugin.file = at(&plugin.file);
            if let Some(shadow) = &mut plugin.shadow {
                shadow.file = at(&shadow.file);
            }
            for secret in plugin.secrets.values_mut() {
                if let weirmq_host::SecretSource::File(file) = secret {
                    *file = at(file);
                }
            }
        }
        let is_backend = |plugin: &PluginConfig| self.store.backend.as_ref() == Some(&plugin.name);
        let store_backend = plugins.iter().position(is_backend).map(|at| plugins.remove(at));
        let mut rules = self.rules.clone();
        if let Some(rules) = &mut rules {
            rules.folder = at(&rules.folder);
            rules.sinks = Some(self.sink.names());
        }
        Config {
            file: Some(file.to_owned()),
            data_folder: at(&self.data_folder),
            listeners,
            auth: self.auth.clone(),
            plugins,
            plugin_host: self.plugin_host.clone(),
            rules,
            sinks: self.sink.clone(),
            limits: (&self.limits).into(),
            capabilities: (&self.capabilities).into(),
            mqtt: self.mqtt.clone(),
            log: self.log.clone(),
            shutdown: self.shutdown.clone(),
            banner: self.banner.clone(),
            store: self.store.clone(),
            store_backend,
        }
    }
}

/// One `[[listener]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ListenerTable {
    pub(super) name: String,
    pub(super) address: String,
}

impl Default for ListenerTable {
    fn default() -> Self {
        Self { name: "main".to_owned(), address: LISTENER_DEFAULT.to_string() }
    }
}

/// Who is let in without a plugin: `[auth]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// Whether clients without a user name are let in. Default: no. See [`crate::builtin::Anonymous`].
    pub allow_anonymous: bool,
}

/// What MQTT 5 clients are told: `[mqtt]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mqtt {
    /// The Response Information for a client that asks for it; `{client_id}` stands for its client identifier.
    pub response_information: Option<Box<str>>,
    /// The Server Reference for a client that a hook sends elsewhere, with 0x9C or 0x9D.
    pub server_reference: Option<Box<str>>,
}

/// The logs: `[log]`. They go to standard error.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// How they are written. Default: `text`.
    pub format: LogFormat,
    /// Whether the command line says how, whatever the file says.
    #[serde(skip)]
    pub format_is_given: bool,
    /// What is logged: `error`, `warn`, `info`, `debug` or `trace`, also by part (`info,weirmq_host=debug`).
    /// Default: `info`. The environment variable `WEIRMQ_LOG` goes before it.
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, format_is_given: false, level: "info".to_owned() }
    }
}

/// How logs are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// A line for people.
    #[default]
    Text,
    /// A JSON object per line.
    Json,
}

/// How the broker ends: `[shutdown]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shutdown {
    /// How long connections may take to finish what is in flight. Default: 10.
    pub drain_seconds: u64,
    /// How long sinks may take to write what they hold; the rest goes into a file for the next start.
    /// Default: 5.
    pub sinks_seconds: u64,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { drain_seconds: 10, sinks_seconds: 5 }
    }
}

/// What outlives the broker's process, and when it is acknowledged: `[store]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreTable {
    /// What an acknowledgement promises. Default: `fsync`.
    pub durability: Durability,
    /// The plugin that keeps what outlives the process, in the place of the log. Then it is the plugin that says what
    /// is durable, and of the keys here `backlog_bytes_max` alone means anything.
    pub backend: Option<String>,
    /// With `interval`: how often what was acknowledged is synced, in milliseconds. Default: 1000.
    pub interval_ms: u64,
    /// Bytes at which a file of the log is ended, 4 KiB to 1 GiB. Default: 64 MiB.
    pub segment_bytes: u32,
    /// Most bytes that wait to be written: past them a message is not kept and not acknowledged (0x97). Default: 64 MiB.
    pub backlog_bytes_max: usize,
    /// The log is compacted when it is larger than twice what is live and this. Default: 64 MiB.
    pub compact_slack_bytes: u64,
}

impl Default for StoreTable {
    fn default() -> Self {
        let log = weirmq_store::Config::default();
        Self {
            durability: Durability::default(),
            backend: None,
            interval_ms: 1_000,
            segment_bytes: log.segment_bytes,
            backlog_bytes_max: log.backlog_bytes_max,
            compact_slack_bytes: log.compact_slack_bytes,
        }
    }
}

/// What an acknowledgement promises.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// That the message survives power loss; one fsync serves all who wait.
    #[default]
    Fsync,
    /// That it survives the end of the process, and power loss after `interval_ms`.
    Interval,
    /// That it survives the end of the process.
    Os,
    /// Nothing: sessions, queues and retained messages end with the process.
    Memory,
}

impl std::fmt::Display for Durability {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Self::Fsync => "fsync",
            Self::Interval => "interval",
            Self::Os => "os",
            Self::Memory => "memory",
        })
    }
}

/// What the broker says when it starts: `[banner]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Banner {
    /// Lines to paste into a shell that show it working. Default: a line for the first listener where
    /// anonymous clients are let in, otherwise none.
    pub try_it: Vec<String>,
}

/// An address as it is written: `127.0.0.1:1883`, `[::1]:1883`, `localhost:1883`.
pub(super) fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    numeric.as_deref().unwrap_or(text).parse().map_err(|_| {
        format!(
            "`address` is \"{text}\"; it must be an address and a port, such as \"127.0.0.1:1883\", \
             \"0.0.0.0:1883\" or \"[::1]:1883\" (of host names only localhost is known)"
        )
    })
}

/// `path` without `.` and, where a folder's name stands before it, without `..`. Only for folders that are no
/// symbolic links; the result is kept only where it is the same place.
fn tidy(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut tidied = PathBuf::new();
    for component in absolute.components() {
        match component {
            std::path::Component::ParentDir => {
                if tidied.is_symlink() || !tidied.pop() {
                    return absolute;
                }
            }
            component => tidied.push(component),
        }
    }
    tidied
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_port_and_are_numbers_or_localhost() {
        for (text, address) in [
            ("127.0.0.1:1883", "127.0.0.1:1883"),
            ("localhost:1884", "127.0.0.1:1884"),
            ("[::1]:0", "[::1]:0"),
            ("0.0.0.0:1", "0.0.0.0:1"),
        ] {
            assert_eq!(parse_address(text), Ok(address.parse().unwrap()));
        }
        for text in ["", "1883", "127.0.0.1", "broker.example:1883", "localhost:", "127.0.0.1:99999"] {
            assert!(parse_address(text).unwrap_err().contains("127.0.0.1:1883"), "{text}");
        }
    }

    #[test]
    fn paths_lose_their_detours() {
        assert_eq!(tidy(Path::new("/a/b/../../c/./d")), Path::new("/c/d"));
    }
}
