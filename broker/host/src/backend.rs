//! A plugin that keeps what the broker keeps: [`Backend`] by a library or a component.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use weirmq_core::durable::backend::{Backend, BackendError, Change};
use weirmq_core::hook::Failure;

use crate::bindings::exports::weirmq::plugin::store_backend;
use crate::config::{HostConfig, PluginConfig, PluginKind};
use crate::error::LoadError;
use crate::host::Host;
use crate::instance::{Call, Hooks, Instance, Place};
use crate::instances::Live;
use crate::load::{self, Generation};
use crate::native::BackendInstance;

/// A scan has enough when it has so many bytes.
pub(crate) const SCAN_BYTES: u32 = 8 << 20;

/// A component is cut off at its deadline: whoever waits hears of that.
const CUT_OFF: Duration = Duration::from_secs(1);

/// What a component that is a backend may pass in one call at least: a scan, and the largest value behind it.
const OUTPUT_BYTES_MIN: u32 = 64 << 20;

/// A store backend in service. It has a thread of its own, on which all calls into the plugin are made: native code
/// cannot be cut off, but whoever waits for it can stop waiting.
///
/// Dropping it closes the store, and waits for that as long as for any call.
pub struct PluginBackend {
    name: String,
    version: String,
    deadline: Duration,
    /// How long is waited in vain: the deadline, and a little more where the plugin is cut off by then.
    wait: Duration,
    calls: Mutex<Option<SyncSender<Asked>>>,
    /// Ends when the thread does.
    end: Mutex<mpsc::Receiver<()>>,
    /// Whether a call has not come back in time: nothing is asked any more.
    is_late: AtomicBool,
}

type Asked = Box<dyn FnOnce(&mut Opened) + Send>;

/// An instance whose store is open.
#[expect(clippy::large_enum_variant, reason = "there is one")]
enum Opened {
    Native(BackendInstance),
    Wasm(Component),
}

impl PluginBackend {
    /// Loads the plugin of `config`, and has it open its store. `host` is what the other plugins have too.
    ///
    /// # Errors
    /// [`LoadError`] with what is wrong and what to do.
    pub fn load(host: &HostConfig, config: &PluginConfig) -> Result<Self, LoadError> {
        config.validate()?;
        let bytes = load::read(config, host.file_bytes_max)?;
        let kind = load::kind_of(config, &bytes);
        if kind == PluginKind::Native {
            load::check_native_is_allowed(host, config)?;
        }
        let deadline = Duration::from_millis(config.deadline_ms.store_backend.into());
        // What makes it ready comes before.
        let wait = if kind == PluginKind::Wasm { deadline.saturating_add(CUT_OFF) } else { deadline };
        let opening = wait.saturating_add(Duration::from_millis(config.deadline_ms.init.into()));
        let (calls, asked) = mpsc::sync_channel::<Asked>(1);
        let (opened, opening_result) = mpsc::sync_channel(1);
        let (ending, end) = mpsc::sync_channel(1);
        let generation = match kind {
            PluginKind::Native => None,
            PluginKind::Wasm => Some(compile(host, config)?),
        };
        let (own, folder) = (config.clone(), host.native_folder.clone());
        let open = move || match generation {
            None => BackendInstance::open(&own, &bytes, folder.as_deref()).map(Opened::Native),
            Some((host, generation)) => Component::open(&own, host, generation).map(Opened::Wasm),
        };
        let work = move || {
            // Dropped when the instance is gone.
            let _ending: SyncSender<()> = ending;
            serve(open, &opened, &asked);
        };
        let thread = std::thread::Builder::new().name("store-plugin".to_owned()).spawn(work);
        thread
            .map_err(|error| LoadError::Threads { plugin: config.name.clone(), detail: error.to_string() })?;
        let version = match opening_result.recv_timeout(opening) {
            Ok(opened) => opened?,
            Err(_) => {
                let ms = u64::try_from(opening.as_millis()).unwrap_or(u64::MAX);
                return Err(LoadError::BackendLate { plugin: config.name.clone(), ms });
            }
        };
        Ok(Self {
            name: config.name.clone(),
            version,
            deadline,
            wait,
            calls: Mutex::new(Some(calls)),
            end: Mutex::new(end),
            is_late: AtomicBool::new(false),
        })
    }

    /// What it is called in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it calls itself: name and version.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Has the thread do `work`, and waits for that.
    fn ask<T: Send + 'static>(
        &self,
        what: &str,
        work: impl FnOnce(&mut Opened) -> Result<T, BackendError> + Send + 'static,
    ) -> Result<T, BackendError> {
        let gone = |detail: &str| BackendError { reason: format!("{what}: {detail}").into(), is_full: false };
        if self.is_late.load(Ordering::Acquire) {
            return Err(gone("an earlier call has not come back"));
        }
        let (answer, answered) = mpsc::sync_channel(1);
        let call: Asked = Box::new(move |instance| drop(answer.send(work(instance))));
        // One call at a time, so that a deadline is that of one call.
        let calls = self.calls.lock();
        if calls.as_ref().is_none_or(|calls| calls.send(call).is_err()) {
            return Err(gone("its thread has ended"));
        }
        match answered.recv_timeout(self.wait) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Disconnected) => Err(gone("its thread has ended")),
            Err(RecvTimeoutError::Timeout) => {
                self.is_late.store(true, Ordering::Release);
                let ms = self.deadline.as_millis();
                Err(gone(&format!("it did not come back within {ms} ms (deadline_ms.store-backend)")))
            }
        }
    }
}

impl Backend for PluginBackend {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, BackendError> {
        let key = key.to_vec();
        self.ask("get", move |opened| match opened {
            Opened::Native(instance) => instance.get(&key),
            Opened::Wasm(component) => component.get(&key),
        })
    }

    fn write(&self, changes: &[Change]) -> Result<(), BackendError> {
        let changes = changes.to_vec();
        self.ask("write", move |opened| match opened {
            Opened::Native(instance) => instance.write(&changes),
            Opened::Wasm(component) => component.write(&changes),
        })
    }

    fn scan(&self, from: &[u8], max: usize) -> Result<Vec<(Bytes, Bytes)>, BackendError> {
        let from = from.to_vec();
        self.ask("scan", move |opened| match opened {
            Opened::Native(instance) => instance.scan(&from, max),
            Opened::Wasm(component) => component.scan(&from, max),
        })
    }
}

impl Drop for PluginBackend {
    fn drop(&mut self) {
        drop(self.calls.lock().take());
        let waited_in_vain = || self.end.lock().recv_timeout(self.deadline) == Err(RecvTimeoutError::Timeout);
        if !self.is_late.load(Ordering::Acquire) && waited_in_vain() {
            tracing::warn!(plugin = self.name, "the store backend does not close; it is left as it is");
        }
    }
}

impl std::fmt::Debug for PluginBackend {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("PluginBackend").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Opened {
    /// What it calls itself.
    fn name_and_version(&self) -> String {
        match self {
            Self::Native(instance) => instance.name_and_version().to_owned(),
            Self::Wasm(component) => component.name_and_version.clone(),
        }
    }
}

/// The thread: opens the store, and does what is asked until nobody can ask any more.
fn serve(
    open: impl FnOnce() -> Result<Opened, LoadError>,
    opened: &SyncSender<Result<String, LoadError>>,
    asked: &mpsc::Receiver<Asked>,
) {
    let mut instance = match open() {
        Ok(instance) => instance,
        Err(error) => return drop(opened.send(Err(error))),
    };
    // Where nobody waits any more, nobody asks either.
    drop(opened.send(Ok(instance.name_and_version())));
    for call in asked {
        call(&mut instance);
    }
}

/// Compiles the component of `config`, in a host of its own: the others are made when the store is open.
fn compile(host: &HostConfig, config: &PluginConfig) -> Result<(Host, Generation), LoadError> {
    // No call waits for a thread of it.
    let own = Host::new(HostConfig { threads: 1, io_threads: 1, ..host.clone() });
    let own = own.map_err(|error| LoadError::Host { plugin: config.name.clone(), error })?;
    let output_bytes_max = config.output_bytes_max.max(OUTPUT_BYTES_MIN);
    let generation = own.load_any(&PluginConfig { output_bytes_max, ..config.clone() })?;
    if !generation.info.is_store_backend {
        return Err(LoadError::NoBackend { plugin: config.name.clone() });
    }
    Ok((own, generation))
}

/// The one instance of a component that is a backend.
struct Component {
    instance: Instance,
    call: Call,
    name_and_version: String,
    /// Once a call has failed the instance is broken, and nothing is asked any more.
    failed: Option<BackendError>,
    /// Its clock cuts calls off.
    _host: Host,
}

impl Component {
    fn open(config: &PluginConfig, host: Host, generation: Generation) -> Result<Self, LoadError> {
        let plugin = || config.name.clone();
        let failed = |step| move |failure| LoadError::Start { plugin: config.name.clone(), step, failure };
        let made = generation.origin.make(Place::Aside);
        let Live::Wasm(instance) = made.map_err(failed("init"))? else {
            return Err(LoadError::NoBackend { plugin: plugin() });
        };
        let call = Call { deadline_ms: config.deadline_ms.store_backend, place: Place::Aside, hops: 0 };
        let name_and_version = format!("{} {}", generation.info.plugin, generation.info.version);
        let mut opened = Self { instance, call, name_and_version, failed: None, _host: host };
        let said = opened.instance.call(call, |store, hooks| backend(hooks)?.call_open(store));
        let said = said.map_err(failed("open"))?;
        said.map_err(|reason| LoadError::BackendRefused { plugin: plugin(), reason })?;
        Ok(opened)
    }

    fn ask<T>(
        &mut self,
        make: impl FnOnce(&mut Instance, Call) -> Result<Result<T, store_backend::Refusal>, Failure>,
    ) -> Result<T, BackendError> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        match make(&mut self.instance, self.call) {
            Ok(answer) => answer.map_err(|refusal| match refusal {
                store_backend::Refusal::Full(reason) => BackendError { reason: reason.into(), is_full: true },
                store_backend::Refusal::Failed(reason) => {
                    BackendError { reason: reason.into(), is_full: false }
                }
            }),
            Err(failure) => {
                let error = BackendError { reason: failure.detail.as_str().into(), is_full: false };
                self.failed = Some(error.clone());
                Err(error)
            }
        }
    }

    fn get(&mut self, key: &[u8]) -> Result<Option<Bytes>, BackendError> {
        let value = self
            .ask(|instance, call| instance.call(call, |store, hooks| backend(hooks)?.call_get(store, key)));
        value.map(|value| value.map(Bytes::from))
    }

    fn write(&mut self, changes: &[Change]) -> Result<(), BackendError> {
        let changes: Vec<store_backend::Change<'_>> = changes
            .iter()
            .map(|change| store_backend::Change { key: &change.key, value: change.value.as_deref() })
            .collect();
        self.ask(|instance, call| {
            instance.call(call, |store, hooks| backend(hooks)?.call_write(store, &changes))
        })
    }

    fn scan(&mut self, from: &[u8], max: usize) -> Result<Vec<(Bytes, Bytes)>, BackendError> {
        let entries_max = u32::try_from(max).unwrap_or(u32::MAX);
        let entries = self.ask(|instance, call| {
            instance
                .call(call, |store, hooks| backend(hooks)?.call_scan(store, from, entries_max, SCAN_BYTES))
        })?;
        if entries.len() > max {
            let reason = format!("it gives {} entries, and was asked for {max}", entries.len()).into();
            return Err(BackendError { reason, is_full: false });
        }
        Ok(entries.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}

fn backend(hooks: &Hooks) -> wasmtime::Result<&store_backend::Guest> {
    hooks.store_backend.as_ref().ok_or_else(|| wasmtime::Error::msg("it does not serve store-backend"))
}
