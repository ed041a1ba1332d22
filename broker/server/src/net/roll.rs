//! The connections that there are, to be woken when the broker shuts down and when their deadlines come near.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use weirmq_core::outbox::{Outbox, Transport};
use weirmq_core::time::Instant;

use super::connection::{Shared, Socket};

/// A deadline that is nearer than this is for a timer of the connection's own; for those that are further away the roll
/// is read now and then.
pub(super) const NEAR: Duration = Duration::from_secs(1);

/// The sockets of all connections. A connection that waited for a signal and had a timer of its own would pay for both
/// as long as it lives, and most are idle: a deadline in the roll costs them eight bytes.
#[derive(Default)]
pub(crate) struct Roll {
    is_down: AtomicBool,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    all: Vec<Entry>,
    /// The first that is free.
    free: Option<u32>,
    taken: usize,
}

enum Entry {
    Taken {
        socket: Arc<Outbox<Socket>>,
        /// When it is to be woken at the latest; `None` is not at all.
        due: Option<Instant>,
    },
    Free {
        next: Option<u32>,
    },
}

/// A connection's place among the others, as long as it lives.
pub(super) struct Place {
    pub(super) shared: Arc<Shared>,
    number: u32,
    due: Option<Instant>,
}

impl Place {
    /// Has `socket` woken when the broker shuts down. Whoever enters looks at [`Roll::is_down`] afterwards.
    pub(super) fn new(shared: Arc<Shared>, socket: &Arc<Outbox<Socket>>) -> Self {
        let number = shared.roll.entries.lock().enter(Arc::clone(socket));
        Self { shared, number, due: None }
    }

    /// Whether the connection is woken before `at`, when that is near.
    pub(super) fn watches(&self, at: Instant) -> bool {
        self.due.is_some_and(|due| due <= at)
    }

    /// Has the connection woken before `at`, when that is near.
    pub(super) fn watch(&mut self, at: Instant) {
        self.due = Some(at);
        self.shared.roll.entries.lock().set_due(self.number, at);
    }

    /// The connection is awake: what has come near is watched no more.
    pub(super) fn woken(&mut self, now: Instant) {
        self.due = self.due.filter(|due| *due > now.after(NEAR));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.roll.entries.lock().leave(self.number);
    }
}

impl Roll {
    /// Whether the broker shuts down.
    pub(super) fn is_down(&self) -> bool {
        self.is_down.load(Ordering::Acquire)
    }

    /// The broker shuts down.
    pub(super) fn set_down(&self) {
        self.is_down.store(true, Ordering::Release);
        let sockets: Vec<Arc<Outbox<Socket>>> = self.entries.lock().sockets().cloned().collect();
        sockets.iter().for_each(|socket| socket.transport().wake());
    }

    /// Wakes the connections whose deadlines are near. To be called more often than [`NEAR`] is long.
    pub(super) fn read(&self, now: Instant) {
        let near = self.entries.lock().take_near(now.after(NEAR));
        near.iter().for_each(|socket| socket.transport().wake());
    }
}

impl Entries {
    fn enter(&mut self, socket: Arc<Outbox<Socket>>) -> u32 {
        let entry = Entry::Taken { socket, due: None };
        self.taken += 1;
        if let Some(number) = self.free
            && let Some(place) = self.all.get_mut(number as usize)
            && let Entry::Free { next } = *place
        {
            self.free = next;
            *place = entry;
            return number;
        }
        self.all.push(entry);
        // There are fewer connections than that: each has a descriptor.
        u32::try_from(self.all.len() - 1).unwrap_or(u32::MAX)
    }

    fn leave(&mut self, number: u32) {
        if let Some(place) = self.all.get_mut(number as usize) {
            *place = Entry::Free { next: self.free.replace(number) };
            self.taken -= 1;
        }
        if self.taken == 0 {
            *self = Self::default();
        }
    }

    fn set_due(&mut self, number: u32, at: Instant) {
        if let Some(Entry::Taken { due, .. }) = self.all.get_mut(number as usize) {
            *due = Some(at);
        }
    }

    fn sockets(&self) -> impl Iterator<Item = &Arc<Outbox<Socket>>> {
        self.all.iter().filter_map(|entry| match entry {
            Entry::Taken { socket, .. } => Some(socket),
            Entry::Free { .. } => None,
        })
    }

    /// Those that are due until `until`; each is named once.
    fn take_near(&mut self, until: Instant) -> Vec<Arc<Outbox<Socket>>> {
        let near = self.all.iter_mut().filter_map(|entry| match entry {
            Entry::Taken { socket, due } => due.take_if(|due| *due <= until).map(|_| Arc::clone(socket)),
            Entry::Free { .. } => None,
        });
        near.collect()
    }
}
