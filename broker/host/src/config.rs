//! The configuration of the plugin host and of one plugin, with the limits that hold where it says nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;
use weirmq_core::hook::{Hook, HookPoint, Link, Policy};

use crate::error::LoadError;
use crate::grant::{Grant, SecretSource};

/// The plugin host's own settings.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostConfig {
    /// Where compiled code is kept, so that the next start need not compile. It is trusted like the broker's own
    /// binary: nobody else may be able to write there. `None` compiles at every start. Given by the server, not
    /// by the file.
    #[serde(skip)]
    pub cache_folder: Option<PathBuf>,
    /// Where native plugins are copied to before they are mapped, which nobody else may be able to write to either;
    /// `None` is the system's folder for temporary files. Given by the server, not by the file.
    #[serde(skip)]
    pub native_folder: Option<PathBuf>,
    /// Whether native plugins are loaded: code in the broker's own process that nothing confines.
    pub allow_native: bool,
    /// How many threads serve the calls that may take their time: logins and events. One per core unless
    /// configured.
    pub threads: usize,
    /// How many threads serve the calls of plugins with outgoing HTTP, which mostly wait: so many requests are under
    /// way at a time. Started when the first such plugin is loaded.
    pub io_threads: usize,
    /// How many of those calls may wait for a thread. At the limit a login fails at once ("not in service").
    pub queue_max: usize,
    /// How long one of them may wait for a thread before it fails.
    pub queue_wait_ms: u64,
    /// The largest file that is loaded as a plugin.
    pub file_bytes_max: u64,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            cache_folder: None,
            native_folder: None,
            allow_native: false,
            threads: cores(),
            io_threads: 64,
            queue_max: 1024,
            queue_wait_ms: 10_000,
            file_bytes_max: 64 << 20,
        }
    }
}

/// One plugin: a `[[plugin]]` table.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PluginConfig {
    /// What it is called in logs, counters and commands: letters, digits, `-`, `_` and `.`, at most 64.
    pub name: String,
    /// The component. A relative path is resolved by whoever reads the configuration, before it is loaded.
    pub file: PathBuf,
    /// What the file is; its ending and its first bytes say so unless this does.
    #[serde(default)]
    pub kind: Option<PluginKind>,
    /// Whether listeners stay closed until it serves.
    #[serde(default)]
    pub required: bool,
    /// How long a call may take, by hook point.
    #[serde(default)]
    pub deadline_ms: Deadlines,
    /// How much memory one of its instances may use, in MiB.
    #[serde(default = "default_memory_mb")]
    pub memory_mb: u32,
    /// How large one answer, or one text that it logs, may be, in bytes.
    #[serde(default = "default_output_bytes_max")]
    pub output_bytes_max: u32,
    /// How often one call may ask for something of the broker: log, metrics, keys, HTTP and so on.
    #[serde(default = "default_host_calls_max")]
    pub host_calls_max: u32,
    /// How many instances of it there may be at a time; twice the number of cores unless configured.
    #[serde(default = "default_instances_max")]
    pub instances_max: u32,
    /// What is done where it fails, by hook point, unless the default of the point is meant.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// What is passed to the plugin itself.
    #[serde(default)]
    pub config: serde_json::Map<String, serde_json::Value>,
    /// The secrets that it may read, by name.
    #[serde(default)]
    pub secrets: BTreeMap<String, SecretSource>,
    /// What else it may do.
    #[serde(default)]
    pub grant: Grant,
    /// When it is left alone because it keeps failing.
    #[serde(default)]
    pub quarantine: QuarantineConfig,
}

impl PluginConfig {
    /// The plugin `name` in `file`, with the default of everything else.
    pub fn new(name: impl Into<String>, file: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            file: file.into(),
            kind: None,
            required: false,
            deadline_ms: Deadlines::default(),
            memory_mb: default_memory_mb(),
            output_bytes_max: default_output_bytes_max(),
            host_calls_max: default_host_calls_max(),
            instances_max: default_instances_max(),
            on_failure: OnFailure::default(),
            config: serde_json::Map::new(),
            secrets: BTreeMap::new(),
            grant: Grant::default(),
            quarantine: QuarantineConfig::default(),
        }
    }

    /// `hook` as it stands in the chains, with the policies of this configuration.
    pub fn link(&self, hook: Arc<dyn Hook>) -> Link {
        Link { hook, policies: self.on_failure.policies() }
    }

    /// Checks what the types leave open.
    pub(crate) fn validate(&self) -> Result<(), LoadError> {
        let fault = |key: &str, wanted: &str| {
            Err(LoadError::Config {
                plugin: self.name.clone(),
                key: key.to_owned(),
                wanted: wanted.to_owned(),
            })
        };
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if self.name.is_empty() || self.name.len() > 64 || !self.name.bytes().all(allowed) {
            return fault("name", "1 to 64 letters, digits, '-', '_' or '.'");
        }
        for (key, value) in self.deadline_ms.all() {
            if !(1..=DEADLINE_MS_MAX).contains(&value) {
                return fault(&format!("deadline_ms.{key}"), "1 to 600000");
            }
        }
        if !(1..=4096).contains(&self.memory_mb) {
            return fault("memory_mb", "1 to 4096");
        }
        if self.output_bytes_max == 0 {
            return fault("output_bytes_max", "at least 1");
        }
        if self.host_calls_max == 0 {
            return fault("host_calls_max", "at least 1");
        }
        if !(1..=1024).contains(&self.instances_max) {
            return fault("instances_max", "1 to 1024");
        }
        if self.quarantine.failures == 0 {
            return fault("quarantine.failures", "at least 1");
        }
        if self.quarantine.window_seconds == 0 {
            return fault("quarantine.window_seconds", "at least 1");
        }
        if let Some((key, wanted)) = self.grant.fault() {
            return fault(&key, wanted);
        }
        Ok(())
    }
}

/// What a plugin's file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PluginKind {
    /// A WebAssembly component.
    Wasm,
    /// A shared library.
    Native,
}

impl PluginKind {
    /// Its name in configurations and commands.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wasm => "wasm",
            Self::Native => "native",
        }
    }
}

/// The longest deadline that can be configured.
const DEADLINE_MS_MAX: u32 = 600_000;

/// Wall-clock deadlines in milliseconds, by hook point.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Deadlines {
    /// Making an instance ready: its start function, `init`, `health`.
    pub init: u32,
    /// A login. It runs beside the workers, so it may take its time.
    pub authenticate: u32,
    /// A question of rights. On the worker.
    pub authorize: u32,
    /// A message. On the worker.
    pub on_publish: u32,
    /// A message for one receiver. On the worker.
    pub on_deliver: u32,
    /// A filter of a SUBSCRIBE. On the worker.
    pub on_subscribe: u32,
    /// A filter of an UNSUBSCRIBE. On the worker.
    pub on_unsubscribe: u32,
    /// A message that is stored or read back. On the worker.
    pub persistence: u32,
    /// An event. Beside the workers.
    pub lifecycle: u32,
    /// A call of the timer. Beside the workers.
    pub timer: u32,
    /// A call of the store backend. On a thread of its own, for which acknowledgements wait.
    pub store_backend: u32,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            init: 5000,
            authenticate: 1000,
            authorize: 20,
            on_publish: 20,
            on_deliver: 20,
            on_subscribe: 20,
            on_unsubscribe: 20,
            persistence: 20,
            lifecycle: 20,
            timer: 1000,
            store_backend: 10_000,
        }
    }
}

impl Deadlines {
    /// The deadline at `point`.
    pub(crate) fn at(&self, point: HookPoint) -> u32 {
        match point {
            HookPoint::Authenticate => self.authenticate,
            HookPoint::Authorize => self.authorize,
            HookPoint::OnSubscribe => self.on_subscribe,
            HookPoint::OnUnsubscribe => self.on_unsubscribe,
            HookPoint::Lifecycle => self.lifecycle,
            HookPoint::OnDeliver => self.on_deliver,
            HookPoint::Persistence => self.persistence,
            HookPoint::Timer => self.timer,
            HookPoint::OnPublish | HookPoint::OnMessage => self.on_publish,
        }
    }

    fn all(&self) -> [(&'static str, u32); 11] {
        [
            ("init", self.init),
            ("authenticate", self.authenticate),
            ("authorize", self.authorize),
            ("on-publish", self.on_publish),
            ("on-subscribe", self.on_subscribe),
            ("on-unsubscribe", self.on_unsubscribe),
            ("on-deliver", self.on_deliver),
            ("persistence", self.persistence),
            ("lifecycle", self.lifecycle),
            ("timer", self.timer),
            ("store-backend", self.store_backend),
        ]
    }
}

/// What is done in the place of a plugin that failed, by hook point. Absent is the point's default: deny.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct OnFailure {
    /// At a login.
    pub authenticate: Option<FailurePolicy>,
    /// At a question of rights.
    pub authorize: Option<FailurePolicy>,
    /// At a message.
    pub on_publish: Option<FailurePolicy>,
    /// At a filter of a SUBSCRIBE.
    pub on_subscribe: Option<FailurePolicy>,
    /// At a message for one receiver.
    pub on_deliver: Option<FailurePolicy>,
    /// At a filter of an UNSUBSCRIBE.
    pub on_unsubscribe: Option<FailurePolicy>,
    /// At a message that is to be stored.
    pub persistence: Option<FailurePolicy>,
}

impl OnFailure {
    /// The policies that are configured.
    #[must_use]
    pub fn policies(&self) -> Vec<(HookPoint, Policy)> {
        [
            (HookPoint::Authenticate, self.authenticate),
            (HookPoint::Authorize, self.authorize),
            (HookPoint::OnPublish, self.on_publish),
            (HookPoint::OnSubscribe, self.on_subscribe),
            (HookPoint::OnDeliver, self.on_deliver),
            (HookPoint::OnUnsubscribe, self.on_unsubscribe),
            (HookPoint::Persistence, self.persistence),
        ]
        .into_iter()
        .filter_map(|(point, policy)| Some((point, policy?.into())))
        .collect()
    }
}

/// [`Policy`] as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailurePolicy {
    /// As if the plugin had denied, or dropped the message.
    Deny,
    /// As if the plugin had allowed, or passed.
    Allow,
    /// As if the plugin were not there.
    Skip,
}

impl From<FailurePolicy> for Policy {
    fn from(policy: FailurePolicy) -> Self {
        match policy {
            FailurePolicy::Deny => Self::Deny,
            FailurePolicy::Allow => Self::Allow,
            FailurePolicy::Skip => Self::Skip,
        }
    }
}

/// When a plugin is left alone because it keeps failing: its calls then fail without being made.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuarantineConfig {
    /// After so many failures...
    pub failures: u32,
    /// ...within so many seconds...
    pub window_seconds: u64,
    /// ...for so many seconds; then one call is tried.
    pub retry_seconds: u64,
}

impl Default for QuarantineConfig {
    fn default() -> Self {
        Self { failures: 5, window_seconds: 60, retry_seconds: 30 }
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

const fn default_memory_mb() -> u32 {
    64
}

const fn default_output_bytes_max() -> u32 {
    1 << 20
}

const fn default_host_calls_max() -> u32 {
    1000
}

fn default_instances_max() -> u32 {
    u32::try_from(cores().saturating_mul(2)).unwrap_or(u32::MAX).clamp(4, 256)
}
