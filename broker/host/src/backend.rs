//! A plugin that keeps what the broker keeps: [`Backend`] by a native library.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use weirmq_core::durable::backend::{Backend, BackendError, Change};

use crate::config::{HostConfig, PluginConfig, PluginKind};
use crate::error::LoadError;
use crate::load;
use crate::native::BackendInstance;

/// A store backend in service. It has a thread of its own, on which all calls into the library are made: native code
/// cannot be cut off, but whoever waits for it can stop waiting.
///
/// Dropping it closes the store, and waits for that as long as for any call.
pub struct PluginBackend {
    name: String,
    version: String,
    deadline: Duration,
    calls: Mutex<Option<SyncSender<Call>>>,
    /// Ends when the thread does.
    end: Mutex<mpsc::Receiver<()>>,
    /// Whether a call has not come back in time: nothing is asked any more.
    is_late: AtomicBool,
}

type Call = Box<dyn FnOnce(&mut BackendInstance) + Send>;

impl PluginBackend {
    /// Maps the library of `config`, and has it open its store.
    ///
    /// # Errors
    /// [`LoadError`] with what is wrong and what to do.
    pub fn load(host: &HostConfig, config: &PluginConfig) -> Result<Self, LoadError> {
        config.validate()?;
        let bytes = load::read(config, host.file_bytes_max)?;
        if load::kind_of(config, &bytes) != PluginKind::Native {
            return Err(LoadError::NoBackend { plugin: config.name.clone() });
        }
        load::check_native_is_allowed(host, config)?;
        let deadline = Duration::from_millis(config.deadline_ms.store_backend.into());
        // `create` and `health` come before.
        let opening = deadline.saturating_add(Duration::from_millis(config.deadline_ms.init.into()));
        let (calls, asked) = mpsc::sync_channel::<Call>(1);
        let (opened, opening_result) = mpsc::sync_channel(1);
        let (ending, end) = mpsc::sync_channel(1);
        let (own, folder) = (config.clone(), host.native_folder.clone());
        let work = move || {
            // Dropped last, when the instance is gone.
            let _ending: SyncSender<()> = ending;
            let mut instance = match BackendInstance::open(&own, &bytes, folder.as_deref()) {
                Ok(instance) => instance,
                Err(error) => return drop(opened.send(Err(error))),
            };
            // Where nobody waits any more, the channel of calls is closed too.
            drop(opened.send(Ok(instance.name_and_version().to_owned())));
            for call in asked {
                call(&mut instance);
            }
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
        work: impl FnOnce(&mut BackendInstance) -> Result<T, BackendError> + Send + 'static,
    ) -> Result<T, BackendError> {
        let gone = |detail: &str| BackendError { reason: format!("{what}: {detail}").into(), is_full: false };
        if self.is_late.load(Ordering::Acquire) {
            return Err(gone("an earlier call has not come back"));
        }
        let (answer, answered) = mpsc::sync_channel(1);
        let call: Call = Box::new(move |instance| drop(answer.send(work(instance))));
        // One call at a time, so that a deadline is that of one call.
        let calls = self.calls.lock();
        if calls.as_ref().is_none_or(|calls| calls.send(call).is_err()) {
            return Err(gone("its thread has ended"));
        }
        match answered.recv_timeout(self.deadline) {
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
        self.ask("get", move |instance| instance.get(&key))
    }

    fn write(&self, changes: &[Change]) -> Result<(), BackendError> {
        let changes = changes.to_vec();
        self.ask("write", move |instance| instance.write(&changes))
    }

    fn scan(&self, from: &[u8], max: usize) -> Result<Vec<(Bytes, Bytes)>, BackendError> {
        let from = from.to_vec();
        self.ask("scan", move |instance| instance.scan(&from, max))
    }
}

impl Drop for PluginBackend {
    fn drop(&mut self) {
        drop(self.calls.lock().take());
        if !self.is_late.load(Ordering::Acquire)
            && self.end.lock().recv_timeout(self.deadline) == Err(RecvTimeoutError::Timeout)
        {
            tracing::warn!(plugin = self.name, "the store backend does not close; it is left as it is");
        }
    }
}

impl std::fmt::Debug for PluginBackend {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("PluginBackend").field("name", &self.name).finish_non_exhaustive()
    }
}
