//! The wait for sockets, exact to the microsecond.

use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use super::LoadError;

/// How many sockets are told of at once.
const EVENTS_MAX: usize = 256;

/// Sockets that are waited for, each with a number that the caller chose.
pub struct Poll {
    epoll: OwnedFd,
    events: Vec<Event>,
}

/// A socket that has something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// The caller's number.
    pub link: usize,
    /// There is something to read, or the end.
    pub read: bool,
    /// It takes more again.
    pub write: bool,
}

impl Poll {
    /// Waits for nothing yet.
    ///
    /// # Errors
    /// [`LoadError::Io`] where the system gives no epoll.
    pub fn new() -> Result<Self, LoadError> {
        // A timer of 50 µs slack, which is the default, would be seen in the latencies.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        let epoll =
            epoll::create(CreateFlags::CLOEXEC).map_err(|error| LoadError::io("epoll")(error.into()))?;
        Ok(Self { epoll, events: Vec::with_capacity(EVENTS_MAX) })
    }

    /// Waits for `socket` too, whenever there is something to read.
    ///
    /// # Errors
    /// [`LoadError::Io`] where the system has no room for another.
    pub fn add(&self, socket: impl AsFd, link: usize) -> Result<(), LoadError> {
        epoll::add(&self.epoll, socket, EventData::new_u64(link as u64), EventFlags::IN)
            .map_err(|error| LoadError::io("epoll")(error.into()))
    }

    /// Waits, or waits no longer, until `socket` takes more.
    ///
    /// # Errors
    /// [`LoadError::Io`] where it was never added.
    pub fn want_write(&self, socket: impl AsFd, link: usize, wanted: bool) -> Result<(), LoadError> {
        let flags = if wanted { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        epoll::modify(&self.epoll, socket, EventData::new_u64(link as u64), flags)
            .map_err(|error| LoadError::io("epoll")(error.into()))
    }

    /// Waits until a socket has something to do, up to `limit`, and puts what has into `ready`.
    ///
    /// # Errors
    /// [`LoadError::Io`].
    pub fn wait(&mut self, limit: Duration, ready: &mut Vec<Ready>) -> Result<(), LoadError> {
        ready.clear();
        self.events.clear();
        let limit = Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: limit.subsec_nanos().into(),
        };
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), Some(&limit)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(LoadError::io("epoll")(error.into())),
        }
        ready.extend(self.events.iter().map(|event| {
            // Copied out: the struct is packed.
            let (data, flags) = (event.data, event.flags);
            Ready {
                link: usize::try_from(data.u64()).unwrap_or(usize::MAX),
                read: flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR),
                write: flags.contains(EventFlags::OUT),
            }
        }));
        Ok(())
    }
}
