//! The frames that wait to be written to one connection, and the writing of them by whoever has made them.
//!
//! A publisher pushes frames into the outboxes of its receivers and, when its own read buffer is used up,
//! flushes each of them once (`Batch`). Writing never blocks: an outbox whose peer takes no more is left to the
//! task of its own connection, which is woken.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

/// Payloads up to this many bytes are copied behind their head: cheaper than a further slice for the kernel.
pub(crate) const COPIED_BYTES_MAX: usize = 2 * 1024;
/// A buffer that has grown past this is not kept for the next batch.
const BUFFER_BYTES_KEPT_MAX: usize = 64 * 1024;
/// How many slices are handed to the kernel at once.
const SLICES_MAX: usize = 64;

/// What an outbox writes to: a socket that does not block.
pub trait Transport: Send + Sync {
    /// Writes what it can of `slices` and says how much.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when the peer takes no more now; anything else is the end.
    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Asks the connection's own task to look: the outbox is blocked, has room again, or is closed.
    fn wake(&self);
}

impl<T: Transport + ?Sized> Transport for Arc<T> {
    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        (**self).write(slices)
    }

    fn wake(&self) {
        (**self).wake();
    }
}

/// The frames that wait for one connection, and what they are written to, in one place: there is one of it for every
/// connection, and whoever writes needs both.
pub struct Outbox<T: Transport + ?Sized = dyn Transport> {
    waiting: Mutex<Waiting>,
    closed: AtomicBool,
    /// Bytes not written yet; kept beside the lock for those who only ask.
    bytes: AtomicUsize,
    transport: T,
}

#[derive(Default)]
struct Waiting {
    /// Whole frames and heads whose payload is in a segment of its own, in order; `open` comes last.
    sealed: VecDeque<Segment>,
    open: Vec<u8>,
    /// A buffer that was written out, kept to be filled again.
    spare: Vec<u8>,
    dirty: bool,
    writing: bool,
    blocked: bool,
    /// Nothing is to be written yet.
    held: bool,
    /// Somebody waits for room.
    wanted: bool,
}

/// Whole frames for several outboxes.
#[derive(Debug)]
pub(crate) enum Frames<'a> {
    /// To be copied into each.
    Copied(&'a [u8]),
    /// To be shared by all.
    Shared(Bytes),
}

impl Frames<'_> {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Copied(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

enum Segment {
    Own(Vec<u8>),
    Shared(Bytes),
}

impl Segment {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

/// What is known of an outbox to the task of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxState {
    /// The peer takes no more: wait until the socket is writable, then [`Outbox::resume`].
    pub blocked: bool,
    /// No further frame is taken.
    pub closed: bool,
    /// Bytes that wait.
    pub bytes: usize,
}

impl<T: Transport> Outbox<T> {
    /// An empty outbox in front of `transport`.
    pub fn new(transport: T) -> Self {
        Self {
            waiting: Mutex::default(),
            closed: AtomicBool::new(false),
            bytes: AtomicUsize::new(0),
            transport,
        }
    }
}

impl<T: Transport + ?Sized> Outbox<T> {
    /// What it writes to.
    pub const fn transport(&self) -> &T {
        &self.transport
    }

    /// Bytes that wait to be written.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether no further frame is taken: the connection is over once what waits is written.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// What its connection's task must know.
    #[must_use]
    pub fn state(&self) -> OutboxState {
        let waiting = self.waiting.lock();
        OutboxState { blocked: waiting.blocked, closed: self.is_closed(), bytes: self.bytes() }
    }

    /// Takes no further frame, and wakes the connection's task. What waits is still written.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.transport.wake();
    }

    /// Lets `encode` append one frame. Answers whether the outbox must be flushed and nobody knows yet.
    pub(crate) fn push(&self, encode: impl FnOnce(&mut Vec<u8>)) -> bool {
        if self.is_closed() {
            return false;
        }
        let mut waiting = self.waiting.lock();
        let before = waiting.open.len();
        encode(&mut waiting.open);
        let added = waiting.open.len() - before;
        self.bytes.fetch_add(added, Ordering::Relaxed);
        !std::mem::replace(&mut waiting.dirty, true)
    }

    /// Appends a frame made of a head and a payload, which is shared where that is cheaper than a copy.
    pub(crate) fn push_with_payload(&self, encode_head: impl FnOnce(&mut Vec<u8>), payload: &Bytes) -> bool {
        if payload.len() <= COPIED_BYTES_MAX {
            return self.push(|out| {
                encode_head(out);
                out.extend_from_slice(payload);
            });
        }
        if self.is_closed() {
            return false;
        }
        let mut waiting = self.waiting.lock();
        let before = waiting.open.len();
        encode_head(&mut waiting.open);
        let added = waiting.open.len() - before + payload.len();
        waiting.share(payload);
        self.bytes.fetch_add(added, Ordering::Relaxed);
        !std::mem::replace(&mut waiting.dirty, true)
    }

    /// Appends whole frames.
    pub(crate) fn push_frames(&self, frames: &Frames<'_>) -> bool {
        match frames {
            Frames::Copied(bytes) => self.push(|out| out.extend_from_slice(bytes)),
            Frames::Shared(bytes) => self.push_with_payload(|_| {}, bytes),
        }
    }

    /// Asks that the connection's task be woken when everything that waits now is written.
    pub(crate) fn want_room(&self) {
        self.waiting.lock().wanted = true;
    }

    /// Writes what waits, as far as the peer takes it. Does nothing while somebody else is writing, who will
    /// see what was pushed, or while the outbox is blocked.
    pub fn flush(&self) {
        let mut waiting = self.waiting.lock();
        waiting.dirty = false;
        if waiting.writing || waiting.blocked || waiting.held {
            return;
        }
        waiting.writing = true;
        while let Some(mut batch) = waiting.take() {
            drop(waiting);
            let outcome = batch.write_to(&self.transport, &self.bytes);
            waiting = self.waiting.lock();
            match outcome {
                Ok(()) => waiting.keep(batch),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    waiting.put_back(batch);
                    waiting.blocked = true;
                    break;
                }
                Err(_) => {
                    *waiting = Waiting { writing: true, ..Waiting::default() };
                    self.bytes.store(0, Ordering::Relaxed);
                    self.closed.store(true, Ordering::Release);
                    break;
                }
            }
        }
        waiting.writing = false;
        let wake = waiting.blocked || self.is_closed() || std::mem::take(&mut waiting.wanted);
        drop(waiting);
        if wake {
            self.transport.wake();
        }
    }

    /// Has nothing written until [`Outbox::release`]: what is said first must be kept first.
    pub(crate) fn hold(&self) {
        self.waiting.lock().held = true;
    }

    /// What is held may be written, or is taken back where it must not be said.
    pub(crate) fn release(&self, is_kept: bool) {
        let mut waiting = self.waiting.lock();
        waiting.held = false;
        if !is_kept {
            *waiting = Waiting::default();
            self.bytes.store(0, Ordering::Relaxed);
        }
    }

    /// Asks the connection's own task to look at what it holds back.
    pub(crate) fn wake(&self) {
        self.transport.wake();
    }

    /// Gives back the memory of buffers that nothing waits in. To be called now and then: a connection that is
    /// idle after a burst need not keep them.
    pub(crate) fn trim(&self) {
        let mut waiting = self.waiting.lock();
        waiting.spare = Vec::new();
        if waiting.open.is_empty() {
            waiting.open = Vec::new();
        }
        waiting.sealed.shrink_to_fit();
    }

    /// Goes on after the socket became writable.
    pub fn resume(&self) {
        self.waiting.lock().blocked = false;
        self.flush();
    }
}

impl Waiting {
    /// Appends bytes that others have too.
    fn share(&mut self, bytes: &Bytes) {
        if !self.open.is_empty() {
            let next = std::mem::take(&mut self.spare);
            self.sealed.push_back(Segment::Own(std::mem::replace(&mut self.open, next)));
        }
        self.sealed.push_back(Segment::Shared(bytes.clone()));
    }

    /// Everything that waits, if anything does.
    fn take(&mut self) -> Option<Writing> {
        if self.sealed.is_empty() && self.open.is_empty() {
            return None;
        }
        let next = std::mem::take(&mut self.spare);
        let last = std::mem::replace(&mut self.open, next);
        Some(Writing { segments: std::mem::take(&mut self.sealed), last, written: 0, spare: Vec::new() })
    }

    /// Puts what was not written in front of what has come since.
    fn put_back(&mut self, batch: Writing) {
        let Writing { mut segments, last, written, .. } = batch;
        if !last.is_empty() {
            segments.push_back(Segment::Own(last));
        }
        match segments.front_mut() {
            Some(Segment::Own(bytes)) => drop(bytes.drain(..written.min(bytes.len()))),
            Some(Segment::Shared(bytes)) => *bytes = bytes.slice(written.min(bytes.len())..),
            None => {}
        }
        segments.append(&mut self.sealed);
        self.sealed = segments;
    }

    /// Keeps memory that was written out for the next frames.
    fn keep(&mut self, batch: Writing) {
        if self.sealed.capacity() == 0 && batch.segments.capacity() <= SLICES_MAX {
            self.sealed = batch.segments;
        }
        let mut buffer = if batch.last.capacity() > 0 { batch.last } else { batch.spare };
        if buffer.capacity() <= BUFFER_BYTES_KEPT_MAX {
            buffer.clear();
            if self.open.capacity() == 0 {
                self.open = buffer;
            } else {
                self.spare = buffer;
            }
        }
    }
}

/// Frames on their way out.
struct Writing {
    segments: VecDeque<Segment>,
    /// What comes behind them.
    last: Vec<u8>,
    /// How much is written of the first of them all.
    written: usize,
    /// A buffer that is written and may be filled again.
    spare: Vec<u8>,
}

impl Writing {
    /// Writes until all is written or the transport refuses; counts what is written off `waiting`.
    fn write_to<T: Transport + ?Sized>(&mut self, transport: &T, waiting: &AtomicUsize) -> io::Result<()> {
        while !self.segments.is_empty() || self.written < self.last.len() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let mut count = 0;
            let mut skip = self.written;
            let last = (!self.last.is_empty()).then_some(&*self.last);
            let all = self.segments.iter().map(Segment::bytes).chain(last);
            for (slice, bytes) in slices.iter_mut().zip(all) {
                *slice = IoSlice::new(bytes.get(skip..).unwrap_or_default());
                skip = 0;
                count += 1;
            }
            match transport.write(slices.get(..count).unwrap_or_default()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    waiting.fetch_sub(written, Ordering::Relaxed);
                    self.advance(written);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn advance(&mut self, written: usize) {
        self.written += written;
        while let Some(segment) = self.segments.front() {
            let length = segment.bytes().len();
            if self.written < length {
                return;
            }
            self.written -= length;
            if let Some(Segment::Own(buffer)) = self.segments.pop_front() {
                self.spare = buffer;
            }
        }
    }
}

impl<T: Transport + ?Sized> fmt::Debug for Outbox<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Outbox").field("state", &self.state()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes per call, and blocks after so many calls.
    #[derive(Default)]
    struct Pipe {
        taken: Mutex<Vec<u8>>,
        bytes_per_write: usize,
        writes_left: AtomicUsize,
        woken: AtomicUsize,
    }

    impl Transport for Pipe {
        fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            let left = self.writes_left.load(Ordering::Relaxed);
            if left == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.writes_left.store(left - 1, Ordering::Relaxed);
            let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            let part = &all[..all.len().min(self.bytes_per_write)];
            self.taken.lock().extend_from_slice(part);
            Ok(part.len())
        }

        fn wake(&self) {
            self.woken.fetch_add(1, Ordering::Relaxed);
        }
    }

    proptest::proptest! {
        #[test]
        fn every_byte_arrives_once_and_in_order_however_little_the_peer_takes(
            frames in proptest::collection::vec(0_usize..5_000, 1..20),
            bytes_per_write in 500_usize..7_000,
            writes in 1_usize..5,
        ) {
            let pipe = Arc::new(Pipe { bytes_per_write, ..Pipe::default() });
            let outbox = Outbox::new(Arc::clone(&pipe));
            let mut expected = Vec::new();
            for (number, length) in frames.into_iter().enumerate() {
                let payload = Bytes::from(vec![number as u8; length]);
                expected.push(0xff);
                expected.extend_from_slice(&payload);
                outbox.push_with_payload(|out| out.push(0xff), &payload);
                if number % 3 == 0 {
                    pipe.writes_left.store(writes, Ordering::Relaxed);
                    outbox.resume();
                }
            }
            while outbox.bytes() > 0 {
                pipe.writes_left.store(writes, Ordering::Relaxed);
                outbox.resume();
            }
            proptest::prop_assert_eq!(&*pipe.taken.lock(), &expected);
            proptest::prop_assert!(!outbox.state().blocked);
        }
    }

    #[test]
    fn a_blocked_outbox_wakes_its_own_task_and_nobody_writes_until_it_resumes() {
        let pipe = Arc::new(Pipe { bytes_per_write: 1_000, ..Pipe::default() });
        let outbox = Outbox::new(Arc::clone(&pipe));
        assert!(outbox.push(|out| out.push(1)), "the first to push must flush");
        assert!(!outbox.push(|out| out.push(2)), "the second need not");
        outbox.flush();
        assert_eq!((outbox.state().blocked, pipe.woken.load(Ordering::Relaxed)), (true, 1));
        pipe.writes_left.store(1, Ordering::Relaxed);
        outbox.flush();
        assert!(pipe.taken.lock().is_empty());
        outbox.resume();
        assert_eq!(*pipe.taken.lock(), [1, 2]);
    }

    #[test]
    fn a_closed_outbox_writes_what_waits_and_takes_no_more() {
        let pipe = Arc::new(Pipe { bytes_per_write: 1_000, writes_left: 9.into(), ..Pipe::default() });
        let outbox = Outbox::new(Arc::clone(&pipe));
        outbox.push(|out| out.push(1));
        outbox.close();
        outbox.push(|out| out.push(2));
        outbox.flush();
        assert_eq!(*pipe.taken.lock(), [1]);
    }
}
