//! How every connection comes to know that the broker shuts down.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use weirmq_core::outbox::Transport;

use super::connection::{Shared, Socket};

/// The sockets of all connections, to wake their tasks. A connection that waited for a signal of its own would pay for
/// it as long as it lives.
#[derive(Default)]
pub(crate) struct Down {
    is_down: AtomicBool,
    sockets: Mutex<Sockets>,
}

#[derive(Default)]
struct Sockets {
    next: u64,
    open: HashMap<u64, Arc<Socket>>,
}

/// A connection's place among the others, as long as it lives.
pub(super) struct Place {
    pub(super) shared: Arc<Shared>,
    number: u64,
}

impl Place {
    /// Has `socket` woken when the broker shuts down. Whoever enters looks at [`Down::is_down`] afterwards.
    pub(super) fn new(shared: Arc<Shared>, socket: &Arc<Socket>) -> Self {
        let number = {
            let mut sockets = shared.down.sockets.lock();
            sockets.next += 1;
            let number = sockets.next;
            sockets.open.insert(number, Arc::clone(socket));
            number
        };
        Self { shared, number }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut sockets = self.shared.down.sockets.lock();
        sockets.open.remove(&self.number);
        if sockets.open.len() * 4 < sockets.open.capacity() {
            sockets.open.shrink_to_fit();
        }
    }
}

impl Down {
    /// Whether the broker shuts down.
    pub(super) fn is_down(&self) -> bool {
        self.is_down.load(Ordering::Acquire)
    }

    /// The broker shuts down.
    pub(super) fn set(&self) {
        self.is_down.store(true, Ordering::Release);
        let sockets: Vec<Arc<Socket>> = self.sockets.lock().open.values().cloned().collect();
        sockets.iter().for_each(|socket| socket.wake());
    }
}
