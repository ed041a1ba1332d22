//! The live instances of one version of a plugin: reused, never shared, never waited for in the common case.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use weirmq_core::hook::{Failure, FailureKind};

use crate::instance::{Blueprint, Instance, Place};
use crate::native;

/// A live instance, of either kind.
#[expect(clippy::large_enum_variant, reason = "each stands in a box of its own")]
pub(crate) enum Live {
    /// Of a component.
    Wasm(Instance),
    /// Of a shared library.
    Native(native::Instance),
}

/// What live instances are made from.
#[expect(clippy::large_enum_variant, reason = "there is one per version of a plugin")]
pub(crate) enum Origin {
    /// A component.
    Wasm(Blueprint),
    /// A shared library.
    Native(native::Version),
}

impl Origin {
    /// Makes an instance that is ready for calls, at `place`.
    pub(crate) fn make(&self, place: Place) -> Result<Live, Failure> {
        match self {
            Self::Wasm(blueprint) => blueprint.make(place).map(Live::Wasm),
            Self::Native(version) => version.make().map(Live::Native),
        }
    }

    /// The memory of all instances of the plugin, of all versions. That of a library is not known.
    pub(crate) fn memory(&self) -> Arc<AtomicU64> {
        match self {
            Self::Wasm(blueprint) => Arc::clone(blueprint.memory()),
            Self::Native(_) => Arc::default(),
        }
    }
}

/// As many slots as there may be instances. Each thread has its own favourite, so that threads do not meet as long
/// as there are no more of them than slots.
pub(crate) struct Instances {
    slots: Box<[Slot]>,
}

/// On a cache line of its own: neighbours belong to other threads.
#[repr(align(128))]
#[derive(Default)]
struct Slot(Mutex<Option<Box<Live>>>);

impl Instances {
    /// Room for `max` instances, with `first` in it.
    pub(crate) fn new(max: usize, first: Live) -> Self {
        let slots: Box<[Slot]> = (0..max.max(1)).map(|_| Slot::default()).collect();
        if let Some(slot) = slots.get(thread_index() % slots.len()) {
            *slot.0.lock() = Some(Box::new(first));
        }
        Self { slots }
    }

    /// Runs `call` with an instance, made by `make` where there is none yet. When all are busy, waits at most
    /// `wait` for one. An instance whose call fails is thrown away.
    pub(crate) fn with<T>(
        &self,
        wait: Duration,
        make: impl FnOnce() -> Result<Live, Failure>,
        call: impl FnOnce(&mut Live) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let Some(mut slot) = self.take(wait) else {
            let busy =
                format!("all {} instances have been busy for {} ms", self.slots.len(), wait.as_millis());
            return Err(Failure::new(FailureKind::Unavailable, busy));
        };
        let mut instance = match slot.take() {
            Some(instance) => instance,
            None => Box::new(make()?),
        };
        let answer = call(&mut instance);
        if answer.is_ok() {
            *slot = Some(instance);
        }
        answer
    }

    /// Throws away those that are not busy. Those that are end with what holds this.
    pub(crate) fn clear(&self) {
        for slot in &self.slots {
            if let Some(mut slot) = slot.0.try_lock() {
                *slot = None;
            }
        }
    }

    fn take(&self, wait: Duration) -> Option<parking_lot::MutexGuard<'_, Option<Box<Live>>>> {
        let own = thread_index() % self.slots.len();
        let in_turn = || self.slots.iter().cycle().skip(own).take(self.slots.len());
        in_turn().find_map(|slot| slot.0.try_lock()).or_else(|| in_turn().next()?.0.try_lock_for(wait))
    }
}

/// A small number that differs from thread to thread.
pub(crate) fn thread_index() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static INDEX: Cell<Option<usize>> = const { Cell::new(None) };
    }
    INDEX.with(|index| {
        index.get().unwrap_or_else(|| {
            let next = NEXT.fetch_add(1, Ordering::Relaxed);
            index.set(Some(next));
            next
        })
    })
}
