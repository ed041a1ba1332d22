//! The clock that cuts calls off: one thread that advances the engine's epoch once a millisecond.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use wasmtime::Engine;

/// How long one epoch lasts.
const TICK: Duration = Duration::from_millis(1);

/// Sleeps until it is told to [`Ticker::run`], then ticks until it is dropped: a broker without plugins is not
/// woken a thousand times a second.
///
/// A tick lasts at least a millisecond and is never made up for: a machine that was suspended, or too busy to
/// run this thread, does not fail every call that was in flight.
pub(crate) struct Ticker {
    shared: Arc<Flags>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Flags {
    running: AtomicBool,
    stopped: AtomicBool,
}

impl Ticker {
    /// Starts the thread that will tick for `engine`.
    pub(crate) fn start(engine: &Engine) -> std::io::Result<Self> {
        let shared = Arc::<Flags>::default();
        let (engine, flags) = (engine.clone(), Arc::clone(&shared));
        let thread = std::thread::Builder::new().name("plugin-ticker".to_owned()).spawn(move || {
            while !flags.stopped.load(Ordering::Acquire) {
                if flags.running.load(Ordering::Acquire) {
                    std::thread::park_timeout(TICK);
                    engine.increment_epoch();
                } else {
                    std::thread::park();
                }
            }
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// From now on it ticks.
    pub(crate) fn run(&self) {
        if !self.shared.running.swap(true, Ordering::AcqRel)
            && let Some(thread) = &self.thread
        {
            thread.thread().unpark();
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}
