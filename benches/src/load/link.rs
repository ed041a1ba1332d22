//! A socket that does not block, with what waits to be written to it.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use weirmq_wire::Version;

use super::scan::{Frame, scan};
use super::{LoadError, Poll};

/// How much is read at once.
const READ_BYTES: usize = 256 * 1024;

/// The buffer that all links read into, one after the other.
#[derive(Debug)]
pub struct Scratch(Vec<u8>);

impl Default for Scratch {
    fn default() -> Self {
        Self(vec![0; READ_BYTES])
    }
}

/// A connection in an event loop.
#[derive(Debug)]
pub struct Link {
    stream: TcpStream,
    version: Version,
    number: usize,
    /// The start of a packet whose end has not arrived.
    rest: Vec<u8>,
    out: Vec<u8>,
    written: usize,
    blocked: bool,
}

impl Link {
    /// Puts `stream` under `poll` as `number`. `read` is what was read from it before.
    ///
    /// # Errors
    /// [`LoadError::Io`].
    pub fn new(
        stream: TcpStream,
        read: &[u8],
        version: Version,
        poll: &Poll,
        number: usize,
    ) -> Result<Self, LoadError> {
        stream.set_nonblocking(true).map_err(LoadError::io("O_NONBLOCK"))?;
        poll.add(&stream, number)?;
        Ok(Self { stream, version, number, rest: read.to_vec(), out: Vec::new(), written: 0, blocked: false })
    }

    /// What is to be written; append to it, then [`Self::flush`].
    pub fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Whether the broker takes no more for now.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Bytes that wait to be written.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.out.len() - self.written
    }

    /// Writes what the broker takes. What it does not take is written when `poll` says that it takes more.
    ///
    /// # Errors
    /// [`LoadError::Io`]: the connection is broken.
    pub fn flush(&mut self, poll: &Poll) -> Result<(), LoadError> {
        while let Some(waiting) = self.out.get(self.written..).filter(|waiting| !waiting.is_empty()) {
            match self.stream.write(waiting) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return self.set_blocked(true, poll);
                }
                Err(error) => return Err(LoadError::io("write")(error)),
            }
        }
        self.out.clear();
        self.written = 0;
        self.set_blocked(false, poll)
    }

    /// Reads once and hands each whole packet to `each`, which may have an answer written. Answers whether the
    /// broker has ended the connection.
    ///
    /// # Errors
    /// [`LoadError`]: the connection is broken, what came is no MQTT, or `each` says so.
    pub fn read(
        &mut self,
        scratch: &mut Scratch,
        mut each: impl FnMut(Frame<'_>, &mut Vec<u8>) -> Result<(), LoadError>,
    ) -> Result<bool, LoadError> {
        let buffer = &mut scratch.0;
        let kept = self.rest.len();
        // A packet that is larger than the buffer makes it grow.
        if buffer.len() < kept + READ_BYTES / 2 {
            buffer.resize(kept + READ_BYTES, 0);
        }
        if let Some(front) = buffer.get_mut(..kept) {
            front.copy_from_slice(&self.rest);
        }
        let count = match self.stream.read(buffer.get_mut(kept..).unwrap_or_default()) {
            Ok(0) => return Ok(true),
            Ok(count) => count,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => 0,
            Err(error) => return Err(LoadError::io("read")(error)),
        };
        let mut input = buffer.get(..kept + count).unwrap_or_default();
        while let Some((frame, size)) = scan(input, self.version)? {
            each(frame, &mut self.out)?;
            input = input.get(size..).unwrap_or_default();
        }
        self.rest.clear();
        self.rest.extend_from_slice(input);
        Ok(false)
    }

    fn set_blocked(&mut self, blocked: bool, poll: &Poll) -> Result<(), LoadError> {
        if self.blocked != blocked {
            self.blocked = blocked;
            poll.want_write(&self.stream, self.number, blocked)?;
        }
        Ok(())
    }
}
