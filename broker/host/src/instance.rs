//! One live instance of a plugin: its store, its limits, and calls that end in time.

use std::sync::Arc;
use std::sync::OnceLock;
use std::time::{Instant as Clock, SystemTime, UNIX_EPOCH};

use wasmtime::component::{Component, HasSelf, InstancePre, Linker};
use wasmtime::{Engine, ResourceLimiter, Store, Trap};
use weirmq_core::hook::{Failure, FailureKind};

use crate::bindings::exports::weirmq::plugin as hooks;
use crate::bindings::weirmq::plugin as imports;
use crate::config::PluginConfig;

/// Where a logged text is cut.
const LOG_BYTES_MAX: usize = 4096;
/// How many log entries of one call are kept.
const LOG_ENTRIES_MAX: u32 = 32;
/// How much of an engine's error is passed on.
const DETAIL_BYTES_MAX: usize = 300;

/// What instances of one plugin are made from: its compiled code, and the indices of what it exports.
pub(crate) struct Blueprint {
    pre: InstancePre<State>,
    pub(crate) exports: Exports,
    limits: Limits,
    plugin: Arc<str>,
    config: Arc<PassedConfig>,
}

/// What a plugin exports. What is `None` here is never called.
pub(crate) struct Exports {
    pub(crate) guest: hooks::guest::GuestIndices,
    pub(crate) authenticate: Option<hooks::authenticate::GuestIndices>,
    pub(crate) authorize: Option<hooks::authorize::GuestIndices>,
    pub(crate) on_publish: Option<hooks::on_publish::GuestIndices>,
    pub(crate) on_subscribe: Option<hooks::on_subscribe::GuestIndices>,
    pub(crate) on_unsubscribe: Option<hooks::on_unsubscribe::GuestIndices>,
    pub(crate) lifecycle: Option<hooks::lifecycle::GuestIndices>,
}

/// What is passed to the plugin as its configuration.
pub(crate) struct PassedConfig {
    table: serde_json::Map<String, serde_json::Value>,
    text: String,
}

impl PassedConfig {
    pub(crate) fn new(table: &serde_json::Map<String, serde_json::Value>) -> Self {
        let text = serde_json::Value::Object(table.clone()).to_string();
        Self { table: table.clone(), text }
    }
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    memory_bytes_max: usize,
    output_bytes_max: usize,
    init_ms: u32,
}

impl Blueprint {
    /// Joins `component` with what the broker offers.
    ///
    /// # Errors
    /// What is missing in it, or has another type than the interface says.
    pub(crate) fn new(
        linker: &Linker<State>,
        component: &Component,
        config: &PluginConfig,
    ) -> wasmtime::Result<Self> {
        let pre = linker.instantiate_pre(component)?;
        let exports = Exports::find(&pre)?;
        let limits = Limits {
            memory_bytes_max: (config.memory_mb as usize).saturating_mul(1 << 20),
            output_bytes_max: config.output_bytes_max as usize,
            init_ms: config.deadline_ms.init,
        };
        let passed = Arc::new(PassedConfig::new(&config.config));
        Ok(Self { pre, exports, limits, plugin: Arc::from(config.name.as_str()), config: passed })
    }

    /// Makes an instance and runs its start functions, within the limits. It is not initialised yet.
    pub(crate) fn instantiate(&self) -> Result<Instance, Instantiate> {
        let mut store = Store::new(self.pre.engine(), State::new(self));
        store.limiter(|state| &mut state.memory);
        store.set_hostcall_fuel(self.limits.output_bytes_max);
        store.set_epoch_deadline(ticks(self.limits.init_ms));
        let deadline_ms = self.limits.init_ms;
        let made = self.pre.instantiate(&mut store);
        let instance =
            made.map_err(|error| Instantiate::Failed(failure(&error, store.data(), deadline_ms)))?;
        let hooks = self
            .exports
            .load(&mut store, &instance)
            .map_err(|error| Instantiate::Mismatch(detail(&error)))?;
        Ok(Instance { store, hooks })
    }

    /// Makes an instance that is ready for calls.
    pub(crate) fn make(&self) -> Result<Instance, Failure> {
        let mut instance = self.instantiate().map_err(|error| match error {
            Instantiate::Failed(failure) => failure,
            Instantiate::Mismatch(detail) => Failure::new(FailureKind::Crash, detail),
        })?;
        match instance.init(self)? {
            Ok(()) => Ok(instance),
            Err(reason) => Err(Failure::new(FailureKind::Unavailable, format!("init refused: {reason}"))),
        }
    }
}

/// Why there is no instance.
pub(crate) enum Instantiate {
    /// It ran, and failed.
    Failed(Failure),
    /// It exports functions of other types than the interface says.
    Mismatch(String),
}

impl Exports {
    fn find(pre: &InstancePre<State>) -> wasmtime::Result<Self> {
        fn optional<T>(
            pre: &InstancePre<State>,
            name: &str,
            find: impl FnOnce(&InstancePre<State>) -> wasmtime::Result<T>,
        ) -> wasmtime::Result<Option<T>> {
            let export = format!("weirmq:plugin/{name}@{}", crate::API_VERSION);
            match pre.component().get_export_index(None, &export) {
                Some(_) => find(pre).map(Some),
                None => Ok(None),
            }
        }
        Ok(Self {
            guest: hooks::guest::GuestIndices::new(pre)?,
            authenticate: optional(pre, "authenticate", hooks::authenticate::GuestIndices::new)?,
            authorize: optional(pre, "authorize", hooks::authorize::GuestIndices::new)?,
            on_publish: optional(pre, "on-publish", hooks::on_publish::GuestIndices::new)?,
            on_subscribe: optional(pre, "on-subscribe", hooks::on_subscribe::GuestIndices::new)?,
            on_unsubscribe: optional(pre, "on-unsubscribe", hooks::on_unsubscribe::GuestIndices::new)?,
            lifecycle: optional(pre, "lifecycle", hooks::lifecycle::GuestIndices::new)?,
        })
    }

    fn load(
        &self,
        store: &mut Store<State>,
        instance: &wasmtime::component::Instance,
    ) -> wasmtime::Result<Hooks> {
        let found = &self.authenticate;
        let authenticate = found.as_ref().map(|found| found.load(&mut *store, instance)).transpose()?;
        let found = &self.authorize;
        let authorize = found.as_ref().map(|found| found.load(&mut *store, instance)).transpose()?;
        let found = &self.on_publish;
        let on_publish = found.as_ref().map(|found| found.load(&mut *store, instance)).transpose()?;
        let found = &self.on_subscribe;
        let on_subscribe = found.as_ref().map(|found| found.load(&mut *store, instance)).transpose()?;
        let found = &self.on_unsubscribe;
        let on_unsubscribe = found.as_ref().map(|found| found.load(&mut *store, instance)).transpose()?;
        let found = &self.lifecycle;
        let lifecycle = found.as_ref().map(|found| found.load(&mut *store, instance)).transpose()?;
        let guest = self.guest.load(&mut *store, instance)?;
        Ok(Hooks { guest, authenticate, authorize, on_publish, on_subscribe, on_unsubscribe, lifecycle })
    }
}

/// The functions of one instance.
pub(crate) struct Hooks {
    pub(crate) guest: hooks::guest::Guest,
    pub(crate) authenticate: Option<hooks::authenticate::Guest>,
    pub(crate) authorize: Option<hooks::authorize::Guest>,
    pub(crate) on_publish: Option<hooks::on_publish::Guest>,
    pub(crate) on_subscribe: Option<hooks::on_subscribe::Guest>,
    pub(crate) on_unsubscribe: Option<hooks::on_unsubscribe::Guest>,
    pub(crate) lifecycle: Option<hooks::lifecycle::Guest>,
}

/// One live instance. After a failed call it must not be used again.
pub(crate) struct Instance {
    store: Store<State>,
    hooks: Hooks,
}

impl Instance {
    /// Makes one call into the plugin, which ends after `deadline_ms` at the latest (and a tick).
    ///
    /// # Errors
    /// How the call failed. The instance is broken then.
    pub(crate) fn call<T>(
        &mut self,
        deadline_ms: u32,
        call: impl FnOnce(&mut Store<State>, &Hooks) -> wasmtime::Result<T>,
    ) -> Result<T, Failure> {
        self.store.data_mut().begin_call();
        self.store.set_epoch_deadline(ticks(deadline_ms));
        call(&mut self.store, &self.hooks).map_err(|error| failure(&error, self.store.data(), deadline_ms))
    }

    /// Calls `init`; the inner error is the plugin's own.
    pub(crate) fn init(&mut self, blueprint: &Blueprint) -> Result<Result<(), String>, Failure> {
        let text = &blueprint.config.text;
        self.call(blueprint.limits.init_ms, |store, hooks| hooks.guest.call_init(store, text))
    }

    /// Calls `info`.
    pub(crate) fn info(&mut self, blueprint: &Blueprint) -> Result<hooks::guest::PluginInfo, Failure> {
        self.call(blueprint.limits.init_ms, |store, hooks| hooks.guest.call_info(store))
    }

    /// Calls `health`; the inner error is the plugin's own.
    pub(crate) fn health(&mut self, blueprint: &Blueprint) -> Result<Result<(), String>, Failure> {
        self.call(blueprint.limits.init_ms, |store, hooks| hooks.guest.call_health(store))
    }

    /// Calls `topics` of `on-publish`; none where that is not exported.
    pub(crate) fn topics(&mut self, blueprint: &Blueprint) -> Result<Vec<String>, Failure> {
        self.call(blueprint.limits.init_ms, |store, hooks| match &hooks.on_publish {
            Some(hook) => hook.call_topics(store),
            None => Ok(Vec::new()),
        })
    }
}

/// What belongs to one instance on the broker's side.
pub(crate) struct State {
    memory: MemoryLimit,
    plugin: Arc<str>,
    config: Arc<PassedConfig>,
    log_entries: u32,
}

impl State {
    fn new(blueprint: &Blueprint) -> Self {
        Self {
            memory: MemoryLimit {
                used: 0,
                max: blueprint.limits.memory_bytes_max,
                granted: 0,
                refused: false,
            },
            plugin: Arc::clone(&blueprint.plugin),
            config: Arc::clone(&blueprint.config),
            log_entries: 0,
        }
    }

    fn begin_call(&mut self) {
        self.memory.refused = false;
        self.log_entries = 0;
    }
}

/// A linker with what the broker offers to plugins, and nothing else.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    crate::bindings::Plugin::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state)?;
    Ok(linker)
}

impl imports::types::Host for State {}

impl imports::log::Host for State {
    fn log(&mut self, level: imports::log::Level, text: String) {
        use imports::log::Level;
        self.log_entries = self.log_entries.saturating_add(1);
        if self.log_entries > LOG_ENTRIES_MAX {
            if self.log_entries == LOG_ENTRIES_MAX.saturating_add(1) {
                tracing::warn!(
                    plugin = &*self.plugin,
                    kept = LOG_ENTRIES_MAX,
                    "the plugin logs too much in one call; the rest is left out"
                );
            }
            return;
        }
        let (plugin, text) = (&*self.plugin, cut(&text, LOG_BYTES_MAX));
        match level {
            Level::Error => tracing::error!(target: "weirmq::plugin", plugin, "{text}"),
            Level::Warn => tracing::warn!(target: "weirmq::plugin", plugin, "{text}"),
            Level::Info => tracing::info!(target: "weirmq::plugin", plugin, "{text}"),
            Level::Debug => tracing::debug!(target: "weirmq::plugin", plugin, "{text}"),
            Level::Trace => tracing::trace!(target: "weirmq::plugin", plugin, "{text}"),
        }
    }
}

impl imports::config::Host for State {
    fn get(&mut self, key: String) -> Option<String> {
        self.config.table.get(&key).map(ToString::to_string)
    }

    fn all(&mut self) -> String {
        self.config.text.clone()
    }
}

impl imports::clock::Host for State {
    fn now_unix_ms(&mut self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn monotonic_us(&mut self) -> u64 {
        static ORIGIN: OnceLock<Clock> = OnceLock::new();
        u64::try_from(ORIGIN.get_or_init(Clock::now).elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// Bounds what one instance may take: all its memories together, and its tables.
struct MemoryLimit {
    used: usize,
    max: usize,
    granted: usize,
    refused: bool,
}

/// Entries of all kinds of tables; each is a pointer.
const TABLE_ENTRIES_MAX: usize = 100_000;

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current);
        let used = self.used.saturating_add(more);
        if used > self.max {
            self.refused = true;
            return Ok(false);
        }
        (self.used, self.granted) = (used, more);
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.used = self.used.saturating_sub(std::mem::take(&mut self.granted));
        self.refused = true;
        Ok(())
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let granted = desired <= TABLE_ENTRIES_MAX;
        self.refused |= !granted;
        Ok(granted)
    }

    fn instances(&self) -> usize {
        64
    }

    fn tables(&self) -> usize {
        64
    }

    fn memories(&self) -> usize {
        16
    }
}

/// The epoch may be about to end, so one tick more than the deadline has milliseconds.
fn ticks(deadline_ms: u32) -> u64 {
    u64::from(deadline_ms).saturating_add(1)
}

/// What sort of failure an engine's error is.
fn failure(error: &wasmtime::Error, state: &State, deadline_ms: u32) -> Failure {
    let trap = error.downcast_ref::<Trap>().copied();
    if trap == Some(Trap::Interrupt) {
        return Failure::new(FailureKind::Deadline, format!("it ran for more than {deadline_ms} ms"));
    }
    if state.memory.refused {
        let max = state.memory.max / (1 << 20);
        return Failure::new(FailureKind::Memory, format!("it wanted more than {max} MiB"));
    }
    // The engine gives this error no type of its own.
    if format!("{error:#}").contains("fuel allocated for hostcalls") {
        return Failure::new(FailureKind::OutputTooLarge, "it passes more than its output_bytes_max");
    }
    let kind = if trap.is_some() { FailureKind::Crash } else { FailureKind::BadAnswer };
    Failure::new(kind, detail(error))
}

/// An engine's error in one line of bounded length.
pub(crate) fn detail(error: &wasmtime::Error) -> String {
    let causes: Vec<String> = error
        .chain()
        .map(|cause| cause.to_string())
        .filter(|text| !text.starts_with("error while executing at wasm backtrace"))
        .collect();
    let line = causes.join(": ").replace(['\n', '\r'], " ");
    cut(&line, DETAIL_BYTES_MAX).to_owned()
}

fn cut(text: &str, bytes_max: usize) -> &str {
    match text.char_indices().take_while(|(index, letter)| index + letter.len_utf8() <= bytes_max).last() {
        _ if text.len() <= bytes_max => text,
        Some((index, letter)) => text.get(..index + letter.len_utf8()).unwrap_or_default(),
        None => "",
    }
}
