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
    entries: Mutex<Entries<Arc<Outbox<Socket>>>>,
}

/// What is left free by who leaves is taken by who comes next.
struct Entries<S> {
    all: Vec<Entry<S>>,
    /// The first that is free.
    free: Option<u32>,
    taken: usize,
}

enum Entry<S> {
    Taken {
        socket: S,
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

impl<S> Default for Entries<S> {
    fn default() -> Self {
        Self { all: Vec::new(), free: None, taken: 0 }
    }
}

impl<S: Clone> Entries<S> {
    fn enter(&mut self, socket: S) -> u32 {
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

    /// To be called once for each that has entered.
    fn leave(&mut self, number: u32) {
        let Some(place) = self.all.get_mut(number as usize) else { return };
        *place = Entry::Free { next: self.free.replace(number) };
        self.taken -= 1;
        if self.taken == 0 {
            *self = Self::default();
        }
    }

    fn set_due(&mut self, number: u32, at: Instant) {
        if let Some(Entry::Taken { due, .. }) = self.all.get_mut(number as usize) {
            *due = Some(at);
        }
    }

    fn sockets(&self) -> impl Iterator<Item = &S> {
        self.all.iter().filter_map(|entry| match entry {
            Entry::Taken { socket, .. } => Some(socket),
            Entry::Free { .. } => None,
        })
    }

    /// Those that are due until `until`; each is named once.
    fn take_near(&mut self, until: Instant) -> Vec<S> {
        let near = self.all.iter_mut().filter_map(|entry| match entry {
            Entry::Taken { socket, due } => due.take_if(|due| *due <= until).map(|_| socket.clone()),
            Entry::Free { .. } => None,
        });
        near.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn second(seconds: u64) -> Instant {
        Instant::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn who_is_due_is_named_once_and_who_has_left_never() {
        let mut entries = Entries::default();
        let [first, second_one, third] = ["first", "second", "third"].map(|name| entries.enter(name));
        entries.set_due(first, second(5));
        entries.set_due(second_one, second(5));
        entries.set_due(third, second(6));
        entries.leave(second_one);
        assert_eq!(entries.take_near(second(4)), [""; 0]);
        assert_eq!(entries.take_near(second(5)), ["first"]);
        assert_eq!(entries.take_near(second(9)), ["third"]);
        assert_eq!(entries.take_near(second(9)), [""; 0]);
        entries.set_due(first, second(10));
        assert_eq!(entries.take_near(second(10)), ["first"]);
    }

    #[test]
    fn places_that_are_free_are_taken_again_and_nothing_is_kept_for_nobody() {
        let mut entries = Entries::default();
        let numbers: Vec<u32> = (0..4).map(|name| entries.enter(name)).collect();
        entries.set_due(numbers[1], second(1));
        for left in [numbers[1], numbers[3]] {
            entries.leave(left);
        }
        assert_eq!([entries.enter(10), entries.enter(11), entries.enter(12)], [numbers[3], numbers[1], 4]);
        assert_eq!(entries.sockets().copied().collect::<Vec<_>>(), [0, 11, 2, 10, 12]);
        assert!(entries.take_near(second(9)).is_empty(), "a deadline goes with who had it");
        (0..5).for_each(|number| entries.leave(number));
        assert_eq!((entries.all.capacity(), entries.free), (0, None));
    }

    /// There is one for every connection.
    #[test]
    fn an_entry_takes_two_words() {
        assert_eq!(size_of::<Entry<Arc<Outbox<Socket>>>>(), 2 * size_of::<usize>());
    }
}
