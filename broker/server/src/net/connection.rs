//! The task of one connection: reads, lets the state machine handle what was read, writes.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};
use weirmq_core::broker::Broker;
use weirmq_core::connection::{Connection, Peer};
use weirmq_core::outbox::{Outbox, Transport};

use super::buffer::ReadBuffer;
use super::clock::Clock;

/// How many reads a connection does before others have a turn.
const READS_IN_A_ROW: usize = 4;
/// A receiver with more than this waiting slows its publisher down: it is not read for a moment.
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
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) broker: Arc<Broker>,
    pub(crate) clock: Clock,
    /// Becomes true when the broker shuts down.
    pub(crate) shutdown: watch::Receiver<bool>,
}

/// The writing half of a socket, shared by its own task and by whoever has a message for it.
struct Socket {
    stream: OwnedWriteHalf,
    wake: Notify,
}

/// The writing half, for the outbox.
struct Writer(Arc<Socket>);

impl Transport for Writer {
    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.stream.try_write_vectored(slices)
    }

    fn wake(&self) {
        self.0.wake.notify_one();
    }
}

/// Serves one connection to its end.
pub(crate) async fn serve(stream: TcpStream, address: SocketAddr, listener: Arc<str>, mut shared: Shared) {
    let (mut incoming, stream) = stream.into_split();
    let socket = Arc::new(Socket { stream, wake: Notify::new() });
    let outbox = Arc::new(Outbox::new(Box::new(Writer(Arc::clone(&socket)))));
    let peer = Peer { address: Some(address), listener };
    let now = shared.clock.now();
    let mut connection = Connection::new(Arc::clone(&shared.broker), Arc::clone(&outbox), peer, now);
    converse(&mut incoming, &socket, &outbox, &mut connection, &mut shared).await;
    if !connection.is_over() {
        connection.end("the client closed the connection", shared.clock.now());
    } else {
        // Whoever closed the outbox may have been another task, which knows the session but not this.
        connection.end("the connection was ended by the broker", shared.clock.now());
    }
    settle(&mut connection);
    outbox.flush();
    if connection.is_ended_by_client() && outbox.bytes() == 0 {
        return;
    }
    drop(connection);
    // In a place of its own: a connection that goes on need not carry what only its end needs.
    Box::pin(hang_up(&mut incoming, &socket, &outbox)).await;
}

/// Reads and handles until one of both sides has enough.
async fn converse(
    incoming: &mut OwnedReadHalf,
    socket: &Socket,
    outbox: &Outbox,
    connection: &mut Connection,
    shared: &mut Shared,
) {
    let clock = shared.clock;
    let mut buffer = ReadBuffer::default();
    let mut client_has_ended = false;
    let alarm = sleep_until(Instant::now());
    tokio::pin!(alarm);
    loop {
        if connection.wants_input() && !client_has_ended {
            client_has_ended = read(incoming, connection, &mut buffer, clock).await;
        }
        buffer.settle();
        settle(connection);
        if connection.is_over() || (client_has_ended && !connection.is_waiting()) {
            return;
        }
        let deadline = connection.deadline().map(|at| clock.to_tokio(at));
        if let Some(deadline) = deadline.filter(|deadline| *deadline != alarm.deadline()) {
            alarm.as_mut().reset(deadline);
        }
        let blocked = outbox.state().blocked;
        tokio::select! {
            ready = incoming.readable(), if connection.wants_input() && !client_has_ended => {
                client_has_ended = ready.is_err();
            }
            ready = socket.stream.writable(), if blocked => {
                if ready.is_err() {
                    return;
                }
                outbox.resume();
                connection.handle_room(clock.now());
                connection.input(buffer.bytes(), clock.now());
            }
            () = socket.wake.notified() => {
                connection.handle_room(clock.now());
                connection.input(buffer.bytes(), clock.now());
            }
            () = poll_fn(|context| connection.poll(context, clock.now())), if connection.is_waiting() => {
                connection.input(buffer.bytes(), clock.now());
            }
            () = &mut alarm, if deadline.is_some() => {
                connection.handle_timeout(clock.now());
                connection.input(buffer.bytes(), clock.now());
            }
            _ = shared.shutdown.wait_for(|down| *down) => {
                connection.shut_down(clock.now());
            }
        }
    }
}

/// Reads what is there, a few buffers at most, and handles it. Answers whether the client has ended the
/// connection.
async fn read(
    incoming: &mut OwnedReadHalf,
    connection: &mut Connection,
    buffer: &mut ReadBuffer,
    clock: Clock,
) -> bool {
    // Others have a turn in time, also when this connection always has something to read.
    tokio::task::consume_budget().await;
    for _ in 0..READS_IN_A_ROW {
        let asked = buffer.make_room(connection.is_open());
        let read = match read_now(incoming, buffer.bytes()) {
            Ok(Some(0)) => return true,
            Ok(Some(read)) => read,
            Ok(None) => return false,
            Err(_) => return true,
        };
        connection.input(buffer.bytes(), clock.now());
        let congested = connection.is_congested(CONGESTED_BYTES);
        settle(connection);
        if congested {
            buffer.settle();
            tokio::time::sleep(CONGESTION_PAUSE).await;
        }
        if read < asked || !connection.wants_input() || connection.is_waiting() {
            return false;
        }
    }
    buffer.settle();
    tokio::task::yield_now().await;
    false
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

/// Writes the last frames and closes.
async fn hang_up(incoming: &mut OwnedReadHalf, socket: &Socket, outbox: &Outbox) {
    let write_rest = async {
        while outbox.bytes() > 0 && socket.stream.writable().await.is_ok() {
            outbox.resume();
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
