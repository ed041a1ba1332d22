//! What a connection reads into: one large buffer for each worker thread, lent to the connection that reads, so that
//! connections that have nothing to read have none.

use std::cell::Cell;

use bytes::BytesMut;

/// How much is read at once from a client that is let in.
pub(super) const READ_BYTES: usize = 64 * 1024;
/// How much from one that is not: what it sends may have to wait for a login, and costs little meanwhile.
const READ_BYTES_BEFORE_LOGIN: usize = 2 * 1024;
/// The beginning of a packet up to this size is moved out of a lent buffer, to wait for the rest; with a larger one the
/// buffer stays with the connection.
const REST_BYTES_MAX: usize = 4 * 1024;

/// The size of a buffer that is lent.
const LENT_BYTES: usize = READ_BYTES + REST_BYTES_MAX;

thread_local! {
    /// The buffer that nobody on this thread reads into at the moment.
    static SPARE: Cell<BytesMut> = Cell::default();
}

/// What was read on one connection and is not used up.
#[derive(Debug, Default)]
pub(super) struct ReadBuffer {
    bytes: BytesMut,
    is_lent: bool,
}

impl ReadBuffer {
    /// What was read.
    pub(super) fn bytes(&mut self) -> &mut BytesMut {
        &mut self.bytes
    }

    /// Makes room for a read. Answers how much is to be read at most.
    pub(super) fn make_room(&mut self, is_open: bool) -> usize {
        if !is_open && self.is_lent {
            self.settle();
        }
        // What a client that is not let in has sent so far waits in a place of its own.
        let rest_bytes_max = if is_open { REST_BYTES_MAX } else { 0 };
        let read_bytes_max = if is_open { usize::MAX } else { READ_BYTES_BEFORE_LOGIN };
        if !self.is_lent && self.bytes.len() <= rest_bytes_max {
            let mut lent = SPARE.take();
            lent.reserve(LENT_BYTES);
            lent.extend_from_slice(&self.bytes);
            (self.bytes, self.is_lent) = (lent, true);
        } else {
            self.bytes.reserve(read_bytes_max.min(READ_BYTES));
        }
        (self.bytes.capacity() - self.bytes.len()).min(read_bytes_max)
    }

    /// Gives the large buffer to the next that reads. To be called before anything is waited for.
    pub(super) fn settle(&mut self) {
        if self.bytes.len() > REST_BYTES_MAX || self.bytes.capacity() == 0 {
            return;
        }
        let rest = BytesMut::from(&self.bytes[..]);
        let mut lent = std::mem::replace(&mut self.bytes, rest);
        lent.clear();
        // Takes the whole of it back into use, where nobody else has a part of it.
        let is_whole = lent.try_reclaim(LENT_BYTES) && lent.capacity() <= 2 * LENT_BYTES;
        if std::mem::take(&mut self.is_lent) && is_whole {
            SPARE.set(lent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_a_packet_waits_outside_of_the_lent_buffer() {
        let (mut first, mut second) = (ReadBuffer::default(), ReadBuffer::default());
        assert!(first.make_room(true) >= READ_BYTES);
        first.bytes().extend_from_slice(b"beginning");
        first.settle();
        assert!(first.bytes().capacity() < 64, "{}", first.bytes().capacity());
        second.make_room(true);
        second.bytes().extend_from_slice(b"of another");
        assert!(first.make_room(true) >= READ_BYTES);
        assert_eq!((&first.bytes()[..], &second.bytes()[..]), (&b"beginning"[..], &b"of another"[..]));
    }

    #[test]
    fn a_buffer_that_somebody_has_a_part_of_is_not_lent() {
        let mut buffer = ReadBuffer::default();
        buffer.make_room(true);
        buffer.bytes().extend_from_slice(b"message");
        let kept = buffer.bytes().split_to(7).freeze();
        buffer.settle();
        buffer.make_room(true);
        buffer.bytes().extend_from_slice(b"another");
        assert_eq!(&kept[..], b"message");
    }

    #[test]
    fn the_start_of_a_large_packet_keeps_its_buffer_and_a_huge_buffer_is_not_lent() {
        let mut buffer = ReadBuffer::default();
        buffer.make_room(true);
        buffer.bytes().resize(REST_BYTES_MAX + 1, 1);
        buffer.settle();
        assert_eq!(buffer.bytes().len(), REST_BYTES_MAX + 1);
        buffer.bytes().resize(4 * READ_BYTES, 1);
        buffer.bytes().clear();
        buffer.settle();
        assert!(SPARE.take().capacity() <= 2 * LENT_BYTES);
    }

    #[test]
    fn reading_and_handling_over_and_over_needs_no_further_buffer() {
        let mut buffer = ReadBuffer::default();
        buffer.make_room(true);
        let place = buffer.bytes().as_ptr();
        for _ in 0..10 {
            for _ in 0..4 {
                assert!(buffer.make_room(true) >= READ_BYTES);
                buffer.bytes().extend_from_slice(&[1; 5_000]);
                drop(buffer.bytes().split_to(4_999).freeze());
            }
            buffer.settle();
        }
        buffer.make_room(true);
        assert_eq!(buffer.bytes().as_ptr(), place);
    }

    #[test]
    fn who_is_not_let_in_reads_little_and_keeps_no_more_than_that() {
        // A connection reads several times before it settles.
        for reads_in_a_row in [1, 4] {
            let mut buffer = ReadBuffer::default();
            for read in 1..10 {
                assert!(buffer.make_room(false) <= READ_BYTES_BEFORE_LOGIN);
                buffer.bytes().extend_from_slice(&[1; READ_BYTES_BEFORE_LOGIN]);
                if read % reads_in_a_row == 0 {
                    buffer.settle();
                    assert!(buffer.bytes().capacity() <= 2 * read * READ_BYTES_BEFORE_LOGIN);
                }
            }
        }
    }
}
