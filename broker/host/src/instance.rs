//! One live instance of a plugin: its store, its limits, and calls that end in time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant as Clock};

use wasmtime::component::{Component, HasSelf, InstancePre, Linker};
use wasmtime::{Engine, ResourceLimiter, Store, Trap};
use weirmq_core::hook::{Failure, FailureKind};

use crate::bindings::exports::weirmq::plugin as hooks;
use crate::config::PluginConfig;
use crate::imports::Passing;
use crate::services::PluginServices;

/// How much of an engine's error is passed on.
const DETAIL_BYTES_MAX: usize = 300;
/// How much room for texts an instance keeps. What needs more has it for one call.
const ROOM_BYTES_MAX: usize = 4096;

/// What instances of one plugin are made from: its compiled code, and the indices of what it exports.
pub(crate) struct Blueprint {
    pre: InstancePre<State>,
    pub(crate) exports: Exports,
    limits: Limits,
    pub(crate) plugin: Arc<str>,
    config: Arc<PassedConfig>,
    services: Arc<PluginServices>,
    /// The memory of all instances of the plugin.
    memory: Arc<AtomicU64>,
}

/// What a plugin exports. What is `None` here is never called.
pub(crate) struct Exports {
    pub(crate) guest: hooks::guest::GuestIndices,
    pub(crate) authenticate: Option<hooks::authenticate::GuestIndices>,
    pub(crate) authorize: Option<hooks::authorize::GuestIndices>,
    pub(crate) authorize_in_brief: Option<hooks::authorize_in_brief::GuestIndices>,
    pub(crate) on_publish: Option<hooks::on_publish::GuestIndices>,
    pub(crate) on_publish_in_brief: Option<hooks::on_publish_in_brief::GuestIndices>,
    pub(crate) on_subscribe: Option<hooks::on_subscribe::GuestIndices>,
    pub(crate) on_unsubscribe: Option<hooks::on_unsubscribe::GuestIndices>,
    pub(crate) lifecycle: Option<hooks::lifecycle::GuestIndices>,
    pub(crate) on_deliver: Option<hooks::on_deliver::GuestIndices>,
    pub(crate) persistence: Option<hooks::persistence::GuestIndices>,
    pub(crate) timer: Option<hooks::timer::GuestIndices>,
    pub(crate) store_backend: Option<hooks::store_backend::GuestIndices>,
}

/// What is passed to the plugin as its configuration.
pub(crate) struct PassedConfig {
    table: serde_json::Map<String, serde_json::Value>,
    text: String,
}

impl PassedConfig {
    /// The value of a key as JSON text.
    pub(crate) fn value(&self, key: &str) -> Option<String> {
        self.table.get(key).map(ToString::to_string)
    }

    /// The whole table as JSON text.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn new(table: &serde_json::Map<String, serde_json::Value>) -> Self {
        let text = serde_json::Value::Object(table.clone()).to_string();
        Self { table: table.clone(), text }
    }
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    memory_bytes_max: usize,
    output_bytes_max: usize,
    host_calls_max: u32,
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
        services: PluginServices,
    ) -> wasmtime::Result<Self> {
        let pre = linker.instantiate_pre(component)?;
        let exports = Exports::find(&pre)?;
        let limits = Limits {
            memory_bytes_max: (config.memory_mb as usize).saturating_mul(1 << 20),
            output_bytes_max: config.output_bytes_max as usize,
            host_calls_max: config.host_calls_max,
            init_ms: config.deadline_ms.init,
        };
        Ok(Self {
            pre,
            exports,
            limits,
            plugin: Arc::from(config.name.as_str()),
            config: Arc::new(PassedConfig::new(&config.config)),
            memory: Arc::clone(&services.memory),
            services: Arc::new(services),
        })
    }

    /// The memory of all instances of the plugin, of all versions.
    pub(crate) fn memory(&self) -> &Arc<AtomicU64> {
        &self.memory
    }

    /// How a call is made that makes an instance ready.
    fn readying(&self, place: Place) -> Call {
        Call { deadline_ms: self.limits.init_ms, place, hops: 0 }
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
        Ok(Instance { store, hooks, room: String::new() })
    }

    /// Makes an instance that is ready for calls, at `place`.
    pub(crate) fn make(&self, place: Place) -> Result<Instance, Failure> {
        let mut instance = self.instantiate().map_err(|error| match error {
            Instantiate::Failed(failure) => failure,
            Instantiate::Mismatch(detail) => Failure::new(FailureKind::Crash, detail),
        })?;
        match instance.init(self, place)? {
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
        // A way to ask in few words is never called where the whole question cannot be asked.
        Ok(Self {
            guest: hooks::guest::GuestIndices::new(pre)?,
            authenticate: optional(pre, "authenticate", hooks::authenticate::GuestIndices::new)?,
            authorize: optional(pre, "authorize", hooks::authorize::GuestIndices::new)?,
            authorize_in_brief: optional(
                pre,
                "authorize-in-brief",
                hooks::authorize_in_brief::GuestIndices::new,
            )?,
            on_publish: optional(pre, "on-publish", hooks::on_publish::GuestIndices::new)?,
            on_publish_in_brief: optional(
                pre,
                "on-publish-in-brief",
                hooks::on_publish_in_brief::GuestIndices::new,
            )?,
            on_subscribe: optional(pre, "on-subscribe", hooks::on_subscribe::GuestIndices::new)?,
            on_unsubscribe: optional(pre, "on-unsubscribe", hooks::on_unsubscribe::GuestIndices::new)?,
            lifecycle: optional(pre, "lifecycle", hooks::lifecycle::GuestIndices::new)?,
            on_deliver: optional(pre, "on-deliver", hooks::on_deliver::GuestIndices::new)?,
            persistence: optional(pre, "persistence", hooks::persistence::GuestIndices::new)?,
            timer: optional(pre, "timer", hooks::timer::GuestIndices::new)?,
            store_backend: optional(pre, "store-backend", hooks::store_backend::GuestIndices::new)?,
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
        let found = &self.authorize_in_brief;
        let authorize_in_brief = found.as_ref().map(|found| found.load(&mut *store, instance)).transpose()?;
        let found = &self.on_publish;
        let on_publish = found.as_ref().map(|found| found.load(&mut *store, instance)).transpose()?;
        let found = &self.on_publish_in_brief;
        let on_publish_in_brief =
            found.as_ref().map(|found| found.load(&mut *store, instance)).transpose()?;
        let found = &self.on_subscribe;
        let on_subscribe = found.as_ref().map(|found| found.load(&mut *store, instance)).transpose()?;
        let found = &self.on_unsubscribe;
        let on_unsubscribe = found.as_ref().map(|found| found.load(&mut *store, instance)).transpose()?;
        let found = &self.lifecycle;
        let lifecycle = found.as_ref().map(|found| found.load(&mut *store, instance)).transpose()?;
        let found = &self.on_deliver;
        let on_deliver = found.as_ref().map(|found| found.load(&mut *store, instance)).transpose()?;
        let found = &self.persistence;
        let persistence = found.as_ref().map(|found| found.load(&mut *store, instance)).transpose()?;
        let found = &self.timer;
        let timer = found.as_ref().map(|found| found.load(&mut *store, instance)).transpose()?;
        let found = &self.store_backend;
        let store_backend = found.as_ref().map(|found| found.load(&mut *store, instance)).transpose()?;
        let guest = self.guest.load(&mut *store, instance)?;
        Ok(Hooks {
            guest,
            authenticate,
            authorize,
            authorize_in_brief,
            on_publish,
            on_publish_in_brief,
            on_subscribe,
            on_unsubscribe,
            lifecycle,
            on_deliver,
            persistence,
            timer,
            store_backend,
        })
    }
}

/// The functions of one instance.
pub(crate) struct Hooks {
    pub(crate) guest: hooks::guest::Guest,
    pub(crate) authenticate: Option<hooks::authenticate::Guest>,
    pub(crate) authorize: Option<hooks::authorize::Guest>,
    pub(crate) authorize_in_brief: Option<hooks::authorize_in_brief::Guest>,
    pub(crate) on_publish: Option<hooks::on_publish::Guest>,
    pub(crate) on_publish_in_brief: Option<hooks::on_publish_in_brief::Guest>,
    pub(crate) on_subscribe: Option<hooks::on_subscribe::Guest>,
    pub(crate) on_unsubscribe: Option<hooks::on_unsubscribe::Guest>,
    pub(crate) lifecycle: Option<hooks::lifecycle::Guest>,
    pub(crate) on_deliver: Option<hooks::on_deliver::Guest>,
    pub(crate) persistence: Option<hooks::persistence::Guest>,
    pub(crate) timer: Option<hooks::timer::Guest>,
    pub(crate) store_backend: Option<hooks::store_backend::Guest>,
}

/// One live instance. After a failed call it must not be used again.
pub(crate) struct Instance {
    store: Store<State>,
    hooks: Hooks,
    /// Where texts are put together, kept from call to call.
    room: String,
}

impl Instance {
    /// The same as [`Instance::call`], with room to put texts together in.
    pub(crate) fn call_with_room<T>(
        &mut self,
        call: Call,
        make: impl FnOnce(&mut Store<State>, &Hooks, &mut String) -> wasmtime::Result<T>,
    ) -> Result<T, Failure> {
        let mut room = std::mem::take(&mut self.room);
        room.clear();
        let answer = self.call(call, |store, hooks| make(store, hooks, &mut room));
        if room.capacity() <= ROOM_BYTES_MAX {
            self.room = room;
        }
        answer
    }

    /// Makes one call into the plugin, which ends after its deadline at the latest (and a tick). What it has published
    /// is handed on when it has ended well.
    ///
    /// # Errors
    /// How the call failed. The instance is broken then.
    pub(crate) fn call<T>(
        &mut self,
        call: Call,
        make: impl FnOnce(&mut Store<State>, &Hooks) -> wasmtime::Result<T>,
    ) -> Result<T, Failure> {
        self.store.data_mut().begin_call(call);
        self.store.set_epoch_deadline(ticks(call.deadline_ms));
        let answer = make(&mut self.store, &self.hooks)
            .map_err(|error| failure(&error, self.store.data(), call.deadline_ms))?;
        self.store.data_mut().end_call();
        Ok(answer)
    }

    /// Calls `init`; the inner error is the plugin's own.
    pub(crate) fn init(
        &mut self,
        blueprint: &Blueprint,
        place: Place,
    ) -> Result<Result<(), String>, Failure> {
        let text = blueprint.config.text();
        self.call(blueprint.readying(place), |store, hooks| hooks.guest.call_init(store, text))
    }

    /// Makes a call that is part of loading a plugin.
    pub(crate) fn ask_once<T>(
        &mut self,
        blueprint: &Blueprint,
        make: impl FnOnce(&mut Store<State>, &Hooks) -> wasmtime::Result<T>,
    ) -> Result<T, Failure> {
        self.call(blueprint.readying(Place::Aside), make)
    }
}

/// How one call is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) deadline_ms: u32,
    pub(crate) place: Place,
    /// How many rules and plugins stand between the client and what the call publishes.
    pub(crate) hops: u8,
}

/// Where a call is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// On a worker that moves messages: nothing is waited for.
    Worker,
    /// On a thread of the host.
    Aside,
}

/// What belongs to one instance on the broker's side.
pub(crate) struct State {
    memory: MemoryLimit,
    pub(crate) plugin: Arc<str>,
    pub(crate) config: Arc<PassedConfig>,
    pub(crate) services: Arc<PluginServices>,
    pub(crate) output_bytes_max: usize,
    host_calls_max: u32,
    host_calls: u32,
    pub(crate) call: Call,
    until: Clock,
    /// What the call has asked for so far.
    pub(crate) passing: Passing,
}

/// The call asks the broker for something too often.
#[derive(Debug, thiserror::Error)]
#[error("it asks more than {0} times for something of the broker")]
struct TooManyHostCalls(u32);

impl State {
    fn new(blueprint: &Blueprint) -> Self {
        Self {
            memory: MemoryLimit {
                used: 0,
                total: Arc::clone(&blueprint.memory),
                max: blueprint.limits.memory_bytes_max,
                granted: 0,
                refused: false,
            },
            plugin: Arc::clone(&blueprint.plugin),
            config: Arc::clone(&blueprint.config),
            services: Arc::clone(&blueprint.services),
            output_bytes_max: blueprint.limits.output_bytes_max,
            host_calls_max: blueprint.limits.host_calls_max,
            host_calls: 0,
            call: blueprint.readying(Place::Worker),
            until: Clock::now(),
            passing: Passing::default(),
        }
    }

    fn begin_call(&mut self, call: Call) {
        self.memory.refused = false;
        self.host_calls = 0;
        self.call = call;
        self.passing.clear();
        // Only who may wait asks how long.
        if call.place == Place::Aside {
            self.until = Clock::now() + Duration::from_millis(call.deadline_ms.into());
        }
    }

    fn end_call(&mut self) {
        if !self.passing.is_empty() {
            self.hand_on();
        }
    }

    /// Counts that the call asks for something of the broker.
    ///
    /// # Errors
    /// It is once too often, which ends the call.
    pub(crate) fn count_host_call(&mut self) -> wasmtime::Result<()> {
        self.host_calls = self.host_calls.saturating_add(1);
        if self.host_calls > self.host_calls_max {
            return Err(TooManyHostCalls(self.host_calls_max).into());
        }
        Ok(())
    }

    /// How long the call may still take.
    pub(crate) fn time_left(&self) -> Duration {
        self.until.saturating_duration_since(Clock::now())
    }
}

/// A linker with what the broker offers to plugins, and nothing else.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    crate::bindings::Everything::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state)?;
    Ok(linker)
}

/// Bounds what one instance may take: all its memories together, and its tables.
struct MemoryLimit {
    used: usize,
    total: Arc<AtomicU64>,
    max: usize,
    granted: usize,
    refused: bool,
}

/// Entries of all kinds of tables; each is a pointer.
const TABLE_ENTRIES_MAX: usize = 100_000;

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        self.total.fetch_sub(self.used as u64, Ordering::Relaxed);
    }
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current);
        let used = self.used.saturating_add(more);
        if used > self.max {
            self.refused = true;
            return Ok(false);
        }
        (self.used, self.granted) = (used, more);
        self.total.fetch_add(more as u64, Ordering::Relaxed);
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        let granted = std::mem::take(&mut self.granted);
        self.used = self.used.saturating_sub(granted);
        self.total.fetch_sub(granted as u64, Ordering::Relaxed);
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
    if let Some(error) = error.downcast_ref::<TooManyHostCalls>() {
        return Failure::new(FailureKind::Operations, error.to_string());
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

pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    match text.char_indices().take_while(|(index, letter)| index + letter.len_utf8() <= bytes_max).last() {
        _ if text.len() <= bytes_max => text,
        Some((index, letter)) => text.get(..index + letter.len_utf8()).unwrap_or_default(),
        None => "",
    }
}
