//! The task of one connection: reads, lets the state machine handle what was read, writes.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use atomic_waker::AtomicWaker;
use bytes::{BufMut, BytesMut};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep_until, timeout};
use weirmq_core::broker::Broker;
use weirmq_core::connection::{Connection, Peer};
use weirmq_core::outbox::{Outbox, Transport};
use weirmq_core::time::Now;

use super::buffer::ReadBuffer;
use super::clock::Clock;
use super::roll::{NEAR, Place, Roll};

/// How many reads a connection does before others have a turn.
const READS_IN_A_ROW: usize = 4;
/// A publisher all of whose receivers have more than this waiting is not read for a moment: TCP slows it down.
const CONGESTED_BYTES: usize = 1024 * 1024;
/// How long a publisher pauses at most for its receivers.
const CONGESTION_PAUSE: Duration = Duration::from_millis(5);
/// How long the last frames of a connection may take to be written.
const LINGER: Duration = Duration::from_secs(1);
/// How long, and for how many bytes, a closing connection listens on so that its last frames are not lost to a
/// reset.
const DEAF_FOR: Duration = Duration::from_millis(500);
const DEAF_BYTES_MAX: usize = 1024 * 1024;

/// What all connection tasks share.
pub(crate) struct Shared {
    pub(crate) broker: Arc<Broker>,
    pub(crate) clock: Clock,
    pub(crate) roll: Roll,
}

/// A socket that its own task reads, and whoever has a message for it writes.
pub(super) struct Socket {
    stream: TcpStream,
    task: AtomicWaker,
    /// The task is to look at the outbox, or whether the broker shuts down.
    is_asked: AtomicBool,
}

impl Transport for Socket {
    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match slices {
            // One that is not scattered is cheaper to send.
            [bytes] => self.stream.try_write(bytes),
            _ => self.stream.try_write_vectored(slices),
        }
    }

    fn wake(&self) {
        self.is_asked.store(true, Ordering::Release);
        self.task.wake();
    }
}

/// One connection and its socket.
///
/// Ten thousand of them are idle most of the time: what it does not need all the time is not in here.
struct Task {
    outbox: Arc<Outbox<Socket>>,
    connection: Connection,
    buffer: ReadBuffer,
    client_has_ended: bool,
    /// Among the others, and what it shares with them.
    place: Place,
    /// While the deadline is near.
    alarm: Option<Pin<Box<Sleep>>>,
}

/// What a connection has waited for.
enum Event {
    /// There is something to read.
    Readable,
    /// The client takes more.
    Writable,
    /// The outbox has room, is blocked or closed; or the broker shuts down.
    Asked,
    /// A hook has answered.
    Answered,
    /// The deadline has come.
    Late,
    /// The socket is of no use any more.
    Broken,
}

/// What others are due after a connection has read.
enum Due {
    Nothing,
    /// Their turn.
    Turn,
    /// Time: those who receive what it publishes are slower.
    Pause,
}

/// The life of one connection. `entry` is dropped at its end.
pub(crate) fn serve<E: Send + 'static>(
    stream: TcpStream,
    address: SocketAddr,
    listener: Arc<str>,
    shared: Arc<Shared>,
    entry: E,
) -> impl Future<Output = ()> + Send + 'static {
    let socket = Socket { stream, task: AtomicWaker::new(), is_asked: AtomicBool::new(false) };
    let outbox = Arc::new(Outbox::new(socket));
    let peer = Peer { address: Some(address), listener };
    let now = shared.clock.now();
    let any = Arc::<Outbox<Socket>>::clone(&outbox);
    let connection = Connection::new(Arc::clone(&shared.broker), any, peer, now);
    let buffer = ReadBuffer::default();
    let place = Place::new(shared, &outbox);
    let mut task = Task { outbox, connection, buffer, client_has_ended: false, place, alarm: None };
    async move {
        task.converse().await;
        if task.end() {
            // In a place of its own: a connection that goes on need not carry what only its end needs.
            Box::pin(task.hang_up()).await;
        }
        drop((task, entry));
    }
}

impl Task {
    /// Reads and handles until one of both sides has enough.
    async fn converse(&mut self) {
        loop {
            if self.connection.wants_input() && !self.client_has_ended {
                // Others have a turn in time, also when this connection always has something to read.
                tokio::task::consume_budget().await;
                match self.read() {
                    Due::Nothing => {}
                    Due::Turn => tokio::task::yield_now().await,
                    Due::Pause => Box::pin(tokio::time::sleep(CONGESTION_PAUSE)).await,
                }
            }
            if self.place.shared.roll.is_down() && !self.connection.is_over() {
                self.connection.shut_down(self.now());
            }
            self.buffer.settle();
            settle(&mut self.connection);
            if self.connection.is_over() || (self.client_has_ended && !self.connection.is_waiting()) {
                return;
            }
            self.set_alarm();
            let blocked = self.outbox.state().blocked;
            match poll_fn(|context| self.poll(blocked, context)).await {
                Event::Readable => {}
                Event::Writable => {
                    self.outbox.resume();
                    self.go_on();
                }
                Event::Asked => self.go_on(),
                Event::Answered => {
                    let now = self.now();
                    self.connection.input(self.buffer.bytes(), now);
                }
                Event::Late => {
                    let now = self.now();
                    self.connection.handle_timeout(now);
                    self.connection.input(self.buffer.bytes(), now);
                }
                Event::Broken => return,
            }
        }
    }

    /// Sees to it that the deadline is not slept through. One that only moves away, as it does with every packet, costs
    /// nothing: where the connection is woken too early, it looks again.
    fn set_alarm(&mut self) {
        let Some(at) = self.connection.deadline().filter(|at| !self.place.watches(*at)) else { return };
        if at.since(self.now().at) > NEAR {
            self.alarm = None;
            return self.place.watch(at);
        }
        let at = self.place.shared.clock.to_tokio(at);
        match &mut self.alarm {
            Some(alarm) if alarm.deadline() == at => {}
            Some(alarm) => alarm.as_mut().reset(at),
            None => self.alarm = Some(Box::pin(sleep_until(at))),
        }
    }

    /// Waits for what may come next. Reading is tried before each wait, so nothing that is ready before it here can keep
    /// it from its turn.
    fn poll(&mut self, blocked: bool, context: &mut Context<'_>) -> Poll<Event> {
        if self.alarm.as_mut().is_some_and(|alarm| alarm.as_mut().poll(context).is_ready()) {
            self.alarm = None;
            return Poll::Ready(Event::Late);
        }
        let socket = self.outbox.transport();
        socket.task.register(context.waker());
        if socket.is_asked.swap(false, Ordering::AcqRel) {
            return Poll::Ready(Event::Asked);
        }
        if blocked && let Poll::Ready(ready) = socket.stream.poll_write_ready(context) {
            return Poll::Ready(if ready.is_ok() { Event::Writable } else { Event::Broken });
        }
        if self.connection.is_waiting() && self.connection.poll(context, self.now()).is_ready() {
            return Poll::Ready(Event::Answered);
        }
        if self.connection.wants_input()
            && !self.client_has_ended
            && let Poll::Ready(ready) = self.outbox.transport().stream.poll_read_ready(context)
        {
            self.client_has_ended = ready.is_err();
            return Poll::Ready(Event::Readable);
        }
        Poll::Pending
    }

    fn now(&self) -> Now {
        self.place.shared.clock.now()
    }

    /// Somebody has asked for it, or the outbox has room: what has waited for that goes on.
    fn go_on(&mut self) {
        let now = self.now();
        self.place.woken(now.at);
        self.connection.handle_room(now);
        self.connection.input(self.buffer.bytes(), now);
    }

    /// Reads what is there, a few buffers at most, and handles it. Answers what others are due before it goes on.
    fn read(&mut self) -> Due {
        for _ in 0..READS_IN_A_ROW {
            let asked = self.buffer.make_room(self.connection.is_open());
            let read = match read_now(&self.outbox.transport().stream, self.buffer.bytes(), asked) {
                Ok(None) => return Due::Nothing,
                Ok(Some(0)) | Err(_) => {
                    self.client_has_ended = true;
                    return Due::Nothing;
                }
                Ok(Some(read)) => read,
            };
            let now = self.now();
            self.connection.input(self.buffer.bytes(), now);
            let is_congested = self.connection.is_congested(CONGESTED_BYTES);
            settle(&mut self.connection);
            if is_congested {
                self.buffer.settle();
                return Due::Pause;
            }
            if read < asked || !self.connection.wants_input() || self.connection.is_waiting() {
                return Due::Nothing;
            }
        }
        self.buffer.settle();
        Due::Turn
    }

    /// Ends the connection towards the broker. Answers whether the client may wait for something still.
    fn end(&mut self) -> bool {
        let reason = if self.connection.is_over() {
            // Whoever closed the outbox may have been another task, which knows the session but not this.
            "the connection was ended by the broker"
        } else {
            "the client closed the connection"
        };
        self.connection.end(reason, self.now());
        settle(&mut self.connection);
        self.outbox.flush();
        !self.connection.is_ended_by_client() || self.outbox.bytes() > 0
    }

    /// Writes the last frames, and gives the client time to read them.
    async fn hang_up(&mut self) {
        let outbox = &self.outbox;
        let stream = &outbox.transport().stream;
        let write_rest = async {
            while outbox.bytes() > 0 && stream.writable().await.is_ok() {
                outbox.resume();
                // Time runs out only for one that gives way.
                tokio::task::consume_budget().await;
            }
        };
        // A client that does not read its last frames has lost them.
        let _ = timeout(LINGER, write_rest).await;
        // SHUT_WR through a borrowed handle: the stream is shared with whoever writes.
        let _ = socket2::SockRef::from(stream).shutdown(std::net::Shutdown::Write);
        let listen_on = async {
            let mut left = DEAF_BYTES_MAX;
            while left > 0 && stream.readable().await.is_ok() {
                let mut deaf = ReadBuffer::default();
                let asked = deaf.make_room(true);
                match read_now(stream, deaf.bytes(), asked) {
                    Ok(Some(0)) | Err(_) => return,
                    Ok(read) => left = left.saturating_sub(read.unwrap_or(0)),
                }
                deaf.bytes().clear();
                deaf.settle();
            }
        };
        let _ = timeout(DEAF_FOR, listen_on).await;
    }
}

/// Reads what is there now, up to `max` bytes; `None` when nothing is. After a short read the socket is empty, which is noted: that spares
/// asking it once more. Where what wakes the task is not an edge (epoll's, kqueue's), only the system says so.
fn read_now(stream: &TcpStream, bytes: &mut BytesMut, max: usize) -> io::Result<Option<usize>> {
    const HAS_EDGES: bool = cfg!(any(target_os = "linux", target_os = "macos", target_os = "freebsd"));
    let mut room = bytes.limit(max);
    let mut short = None;
    let read = stream.try_io(Interest::READABLE, || match stream.try_read_buf(&mut room)? {
        read @ 1.. if read < max && HAS_EDGES => {
            short = Some(read);
            Err(io::ErrorKind::WouldBlock.into())
        }
        read => Ok(read),
    });
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(short),
        Err(error) => Err(error),
    }
}

/// Writes what was made, and has what goes on without the connection go on.
fn settle(connection: &mut Connection) {
    connection.flush();
    for work in connection.take_works() {
        tokio::spawn(work);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every connection has one, idle or not. tokio has 96 bytes of its own beside it, in pieces of 128.
    #[test]
    fn the_task_of_a_connection_stays_small() {
        const fn size<T>(_: &impl FnOnce(TcpStream, SocketAddr, Arc<str>, Arc<Shared>, Entry) -> T) -> usize {
            size_of::<T>()
        }
        let (task, size) = (size_of::<Task>(), size(&serve::<Entry>));
        assert!(size <= 408, "{size}, of which {task} are ours");
    }

    /// As large as what a listener gives.
    type Entry = [u64; 4];
}
