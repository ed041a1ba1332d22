//! The task of one connection: reads, lets the state machine handle what was read, writes.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use atomic_waker::AtomicWaker;
use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, sleep_until, timeout};
use weirmq_core::broker::Broker;
use weirmq_core::connection::{Connection, Peer};
use weirmq_core::outbox::{Outbox, Transport};

use super::buffer::ReadBuffer;
use super::clock::Clock;
use super::down::{Down, Place};

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
    pub(crate) down: Down,
}

/// A socket that its own task reads, and whoever has a message for it writes.
pub(super) struct Socket {
    stream: OwnedWriteHalf,
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
    incoming: OwnedReadHalf,
    socket: Arc<Socket>,
    outbox: Arc<Outbox>,
    connection: Connection,
    buffer: ReadBuffer,
    client_has_ended: bool,
    /// Among the others, and what it shares with them.
    place: Place,
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

/// The life of one connection. `entry` is dropped at its end.
pub(crate) fn serve<E: Send + 'static>(
    stream: TcpStream,
    address: SocketAddr,
    listener: Arc<str>,
    shared: Arc<Shared>,
    entry: E,
) -> impl Future<Output = ()> + Send + 'static {
    let (incoming, stream) = stream.into_split();
    let socket = Arc::new(Socket { stream, task: AtomicWaker::new(), is_asked: AtomicBool::new(false) });
    let outbox = Arc::new(Outbox::new(Arc::clone(&socket) as Arc<dyn Transport>));
    let peer = Peer { address: Some(address), listener };
    let now = shared.clock.now();
    let connection = Connection::new(Arc::clone(&shared.broker), Arc::clone(&outbox), peer, now);
    let buffer = ReadBuffer::default();
    let place = Place::new(shared, &socket);
    let mut task = Task { incoming, socket, outbox, connection, buffer, client_has_ended: false, place };
    async move {
        task.converse().await;
        if task.end() {
            // In a place of its own: a connection that goes on need not carry what only its end needs.
            Box::pin(task.hang_up()).await;
        }
        task.close();
        drop(entry);
    }
}

impl Task {
    /// Reads and handles until one of both sides has enough.
    async fn converse(&mut self) {
        let clock = self.place.shared.clock;
        let alarm = sleep_until(Instant::now());
        tokio::pin!(alarm);
        loop {
            if self.connection.wants_input() && !self.client_has_ended {
                self.read().await;
            }
            if self.place.shared.down.is_down() && !self.connection.is_over() {
                self.connection.shut_down(clock.now());
            }
            self.buffer.settle();
            settle(&mut self.connection);
            if self.connection.is_over() || (self.client_has_ended && !self.connection.is_waiting()) {
                return;
            }
            let deadline = self.connection.deadline().map(|at| clock.to_tokio(at));
            if let Some(deadline) = deadline.filter(|deadline| *deadline != alarm.deadline()) {
                alarm.as_mut().reset(deadline);
            }
            let blocked = self.outbox.state().blocked;
            let event = poll_fn(|context| {
                if deadline.is_some() && alarm.as_mut().poll(context).is_ready() {
                    return Poll::Ready(Event::Late);
                }
                self.poll(blocked, context)
            });
            match event.await {
                Event::Readable => {}
                Event::Writable => {
                    self.outbox.resume();
                    self.go_on();
                }
                Event::Asked => self.go_on(),
                Event::Answered => self.connection.input(self.buffer.bytes(), clock.now()),
                Event::Late => {
                    self.connection.handle_timeout(clock.now());
                    self.connection.input(self.buffer.bytes(), clock.now());
                }
                Event::Broken => return,
            }
        }
    }

    /// Waits for what may come next, but for the deadline. Reading is tried before each wait, so nothing that is ready
    /// before it here can keep it from its turn.
    fn poll(&mut self, blocked: bool, context: &mut Context<'_>) -> Poll<Event> {
        self.socket.task.register(context.waker());
        if self.socket.is_asked.swap(false, Ordering::AcqRel) {
            return Poll::Ready(Event::Asked);
        }
        if blocked && let Poll::Ready(ready) = self.socket.stream.as_ref().poll_write_ready(context) {
            return Poll::Ready(if ready.is_ok() { Event::Writable } else { Event::Broken });
        }
        if self.connection.is_waiting()
            && self.connection.poll(context, self.place.shared.clock.now()).is_ready()
        {
            return Poll::Ready(Event::Answered);
        }
        if self.connection.wants_input()
            && !self.client_has_ended
            && let Poll::Ready(ready) = self.incoming.as_ref().poll_read_ready(context)
        {
            self.client_has_ended = ready.is_err();
            return Poll::Ready(Event::Readable);
        }
        Poll::Pending
    }

    /// The outbox has room: what has waited for it goes on.
    fn go_on(&mut self) {
        let now = self.place.shared.clock.now();
        self.connection.handle_room(now);
        self.connection.input(self.buffer.bytes(), now);
    }

    /// Reads what is there, a few buffers at most, and handles it.
    async fn read(&mut self) {
        let Self { incoming, connection, buffer, place, .. } = self;
        // Others have a turn in time, also when this connection always has something to read.
        tokio::task::consume_budget().await;
        for _ in 0..READS_IN_A_ROW {
            let asked = buffer.make_room(connection.is_open());
            let read = match read_now(incoming, buffer.bytes()) {
                Ok(None) => return,
                Ok(Some(0)) | Err(_) => {
                    self.client_has_ended = true;
                    return;
                }
                Ok(Some(read)) => read,
            };
            connection.input(buffer.bytes(), place.shared.clock.now());
            let congested = connection.is_congested(CONGESTED_BYTES);
            settle(connection);
            if congested {
                buffer.settle();
                Box::pin(tokio::time::sleep(CONGESTION_PAUSE)).await;
            }
            if read < asked || !connection.wants_input() || connection.is_waiting() {
                return;
            }
        }
        buffer.settle();
        tokio::task::yield_now().await;
    }

    /// Ends the connection towards the broker. Answers whether the client may wait for something still.
    fn end(&mut self) -> bool {
        let reason = if self.connection.is_over() {
            // Whoever closed the outbox may have been another task, which knows the session but not this.
            "the connection was ended by the broker"
        } else {
            "the client closed the connection"
        };
        self.connection.end(reason, self.place.shared.clock.now());
        settle(&mut self.connection);
        self.outbox.flush();
        !self.connection.is_ended_by_client() || self.outbox.bytes() > 0
    }

    /// Closes the socket, which needs no further shutting down then.
    fn close(self) {
        let Self { socket, outbox, connection, place, .. } = self;
        drop((connection, outbox, place));
        if let Some(socket) = Arc::into_inner(socket) {
            socket.stream.forget();
        }
    }

    /// Writes the last frames, and gives the client time to read them.
    async fn hang_up(&mut self) {
        let Self { incoming, socket, outbox, .. } = self;
        let write_rest = async {
            while outbox.bytes() > 0 && socket.stream.writable().await.is_ok() {
                outbox.resume();
                // Time runs out only for one that gives way.
                tokio::task::consume_budget().await;
            }
        };
        // A client that does not read its last frames has lost them.
        let _ = timeout(LINGER, write_rest).await;
        // SHUT_WR through a borrowed handle: the stream is shared with the outbox.
        let _ = socket2::SockRef::from(socket.stream.as_ref()).shutdown(std::net::Shutdown::Write);
        let listen_on = async {
            let mut left = DEAF_BYTES_MAX;
            while left > 0 && incoming.readable().await.is_ok() {
                let mut deaf = ReadBuffer::default();
                deaf.make_room(true);
                match read_now(incoming, deaf.bytes()) {
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

/// Reads what is there now; `None` when nothing is. Read through the half of the stream, because that notes when
/// the socket is empty after a short read, which spares asking it once more. Outside the runtime's budget, whose
/// end would look as if nothing were there.
fn read_now(incoming: &mut OwnedReadHalf, bytes: &mut BytesMut) -> io::Result<Option<usize>> {
    let mut reading = std::pin::pin!(tokio::task::unconstrained(incoming.read_buf(bytes)));
    match reading.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(read) => read.map(Some),
        Poll::Pending => Ok(None),
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

    /// Every connection has one, idle or not.
    #[test]
    fn the_task_of_a_connection_stays_small() {
        let size = size_of::<Task>();
        assert!(size <= 400, "{size}");
    }
}
