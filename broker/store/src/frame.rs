//! A frame: length, checksum, kind, body. What the log is made of behind a segment's header.
//!
//! The checksum is CRC32C, begun with the store's salt: bytes that a client sends as a payload can look like a
//! frame of another store, never like one of this.

use crate::codec::Reader;

/// Length and checksum.
pub(crate) const FRAME_HEAD_BYTES: usize = 8;

/// The number at the end of a record's frame.
const NUMBER_BYTES: usize = 8;

/// What a frame is. The first byte of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    /// A record: its events, and the number of the first.
    Record { events: &'a [u8], number: u64 },
    /// Events that compaction has copied, and the number that the next record is to have.
    Copies { events: &'a [u8], next_number: u64 },
    /// Everything up to here was durable when the frame was written.
    Durable { segment: u32, offset: u32 },
}

const KIND_RECORD: u8 = 1;
const KIND_COPIES: u8 = 2;
const KIND_DURABLE: u8 = 3;

/// The length of a [`Frame::Durable`], with its head.
const DURABLE_FRAME_BYTES: usize = FRAME_HEAD_BYTES + 1 + 8;

/// Records are added to a frame until it has so much in it: many checksums cost, and so does a long one for whoever
/// reads one event.
const SHARED_BYTES: usize = 1024;

/// What the checksum begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Salt(u32);

impl Salt {
    pub(crate) fn new(salt: u64) -> Self {
        Self(crc32c::crc32c(&salt.to_le_bytes()))
    }
}

/// Frames of events that lack only their numbers: everything that can be done before the log is locked. They stand
/// behind one another, each as it will be written but for its checksum and number.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    bytes: Vec<u8>,
    /// Where each ends, how many events are in them so far, and its checksum so far.
    ends: Vec<(usize, usize, u32)>,
    /// The events.
    spans: Vec<Span>,
}

/// Where an event stands in the events of its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) at: u32,
    /// How many bytes it takes where it is not said in few words.
    pub(crate) whole_bytes: u32,
}

/// One of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unnumbered<'a> {
    bytes: &'a [u8],
    spans: &'a [Span],
    checksum: u32,
}

impl Frames {
    /// Adds records: each in a frame of its own, but for those that follow another one and may `share` its frame, as
    /// long as that is small. `write` appends an event, is told where in the frame it begins, has a place for what it
    /// remembers of the frame, and answers how many bytes the event takes where it is not said in few words.
    pub(crate) fn add_records<'a, E: 'a, B: Default>(
        &mut self,
        salt: Salt,
        records: impl Iterator<Item = &'a [E]>,
        may_share: impl Fn(&[E]) -> bool,
        write: impl Fn(&'a E, usize, &mut B, &mut Vec<u8>) -> usize,
    ) {
        // What is too large for an offset is too large for the store, which refuses the frame.
        let narrow = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let mut spans = std::mem::take(&mut self.spans);
        let mut records = records.peekable();
        while let Some(first) = records.next() {
            self.add(salt, KIND_RECORD, |out| {
                let (begin, mut before) = (out.len(), B::default());
                let mut next = Some(first);
                while let Some(record) = next {
                    for event in record {
                        let at = out.len() - begin;
                        let whole_bytes = write(event, at, &mut before, out);
                        spans.push(Span { at: narrow(at), whole_bytes: narrow(whole_bytes) });
                    }
                    let is_small = out.len() - begin < SHARED_BYTES;
                    next = records.next_if(|record| is_small && may_share(record));
                }
            });
            if let Some((_, events, _)) = self.ends.last_mut() {
                *events = spans.len();
            }
        }
        self.spans = spans;
    }

    /// Adds a frame of copies; `write` appends the events.
    pub(crate) fn add_copies(&mut self, salt: Salt, write: impl FnOnce(&mut Vec<u8>)) {
        self.add(salt, KIND_COPIES, write);
    }

    fn add(&mut self, salt: Salt, kind: u8, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; FRAME_HEAD_BYTES]);
        self.bytes.push(kind);
        write(&mut self.bytes);
        let frame = self.bytes.get_mut(start..).unwrap_or_default();
        // A frame that is too large for its length is too large for the store, which refuses it.
        let length = u32::try_from(frame.len() - FRAME_HEAD_BYTES + NUMBER_BYTES).unwrap_or(u32::MAX);
        let mut checksum = crc32c::crc32c_append(salt.0, &length.to_le_bytes());
        if let Some((head, body)) = frame.split_first_chunk_mut::<FRAME_HEAD_BYTES>() {
            let [a, b, c, d] = length.to_le_bytes();
            *head = [a, b, c, d, 0, 0, 0, 0];
            checksum = crc32c::crc32c_append(checksum, body);
        }
        self.ends.push((self.bytes.len(), self.spans.len(), checksum));
    }

    /// The frames, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Unnumbered<'_>> {
        let starts = std::iter::once((0, 0)).chain(self.ends.iter().map(|(end, events, _)| (*end, *events)));
        starts.zip(&self.ends).map(|((start, first), (end, events, checksum))| Unnumbered {
            bytes: self.bytes.get(start..*end).unwrap_or_default(),
            spans: self.spans.get(first..*events).unwrap_or_default(),
            checksum: *checksum,
        })
    }

    /// Forgets them, and keeps memory for up to so many bytes.
    pub(crate) fn clear(&mut self, bytes_max: usize) {
        self.bytes.clear();
        self.ends.clear();
        self.spans.clear();
        self.bytes.shrink_to(bytes_max);
        self.ends.shrink_to(bytes_max / FRAME_HEAD_BYTES);
        self.spans.shrink_to(bytes_max / FRAME_HEAD_BYTES);
    }
}

impl<'a> Unnumbered<'a> {
    /// How long the frame is.
    pub(crate) fn len(self) -> usize {
        self.bytes.len() + NUMBER_BYTES
    }

    /// Its events.
    pub(crate) fn events(self) -> &'a [u8] {
        self.bytes.get(FRAME_HEAD_BYTES + 1..).unwrap_or_default()
    }

    /// Where they stand, in a record's frame.
    pub(crate) fn spans(self) -> &'a [Span] {
        self.spans
    }

    /// Appends the whole frame to `out`.
    pub(crate) fn write(self, number: u64, out: &mut Vec<u8>) {
        let number = number.to_le_bytes();
        let checksum = crc32c::crc32c_append(self.checksum, &number);
        let start = out.len();
        out.extend_from_slice(self.bytes);
        if let Some(place) = out.get_mut(start + 4..start + FRAME_HEAD_BYTES) {
            place.copy_from_slice(&checksum.to_le_bytes());
        }
        out.extend_from_slice(&number);
    }
}

/// Appends a [`Frame::Durable`].
pub(crate) fn write_durable(salt: Salt, segment: u32, offset: u32, out: &mut Vec<u8>) {
    let mut body = [0; DURABLE_FRAME_BYTES - FRAME_HEAD_BYTES];
    let length = (body.len() as u32).to_le_bytes();
    let fields = [KIND_DURABLE].into_iter().chain(segment.to_le_bytes()).chain(offset.to_le_bytes());
    body.iter_mut().zip(fields).for_each(|(place, byte)| *place = byte);
    let checksum = crc32c::crc32c_append(crc32c::crc32c_append(salt.0, &length), &body);
    out.extend_from_slice(&length);
    out.extend_from_slice(&checksum.to_le_bytes());
    out.extend_from_slice(&body);
}

/// Reads the frame at the front of `bytes`, and says how long it is.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn read(salt: Salt, bytes: &[u8]) -> Result<(Frame<'_>, usize), &'static str> {
    const SHORT: &str = "a frame ends too early";
    let mut reader = Reader::new(bytes);
    let length_bytes = reader.take(4).map_err(|_| SHORT)?;
    let length = Reader::new(length_bytes).u32().map_err(|_| SHORT)? as usize;
    let checksum = reader.u32().map_err(|_| SHORT)?;
    let body = reader.take(length).map_err(|_| SHORT)?;
    if crc32c::crc32c_append(crc32c::crc32c_append(salt.0, length_bytes), body) != checksum {
        return Err("the checksum of a frame is wrong");
    }
    let frame = read_body(body).ok_or("a frame is of no known kind")?;
    Ok((frame, FRAME_HEAD_BYTES + length))
}

fn read_body(body: &[u8]) -> Option<Frame<'_>> {
    let (kind, rest) = body.split_first()?;
    if *kind == KIND_DURABLE {
        let mut reader = Reader::new(rest);
        return Some(Frame::Durable { segment: reader.u32().ok()?, offset: reader.u32().ok()? });
    }
    let (events, number) = rest.split_last_chunk()?;
    let number = u64::from_le_bytes(*number);
    match *kind {
        KIND_RECORD => Some(Frame::Record { events, number }),
        KIND_COPIES => Some(Frame::Copies { events, next_number: number }),
        _ => None,
    }
}

/// How long the frame at the front of `bytes` says that it is, with its head.
pub(crate) fn length(bytes: &[u8]) -> Option<usize> {
    Some(Reader::new(bytes).u32().ok()? as usize + FRAME_HEAD_BYTES)
}

/// Whether nothing was written into the rest of a file: it was only extended.
pub(crate) fn is_unwritten(rest: &[u8]) -> bool {
    rest.iter().all(|byte| *byte == 0)
}

/// Whether any [`Frame::Durable`] in `bytes`, at whatever offset, says that `segment` was durable beyond
/// `offset`.
pub(crate) fn any_says_durable_beyond(salt: Salt, bytes: &[u8], segment: u32, offset: u32) -> bool {
    let length = ((DURABLE_FRAME_BYTES - FRAME_HEAD_BYTES) as u32).to_le_bytes();
    bytes.windows(DURABLE_FRAME_BYTES).filter(|window| window.starts_with(&length)).any(|window| {
        matches!(read(salt, window), Ok((Frame::Durable { segment: s, offset: o }, _)) if (s, o) > (segment, offset))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole<E: AsRef<[u8]>>(event: &E, _: usize, (): &mut (), out: &mut Vec<u8>) -> usize {
        out.extend_from_slice(event.as_ref());
        event.as_ref().len()
    }

    #[test]
    fn a_frame_comes_back_and_a_flipped_bit_anywhere_is_seen() {
        let salt = Salt::new(7);
        let mut bytes = Vec::new();
        let mut frames = Frames::default();
        let record = [&b"eve"[..], b"nts"];
        frames.add_records(salt, [&record[..]].into_iter(), |_| true, whole);
        let spans: Vec<_> = frames.iter().flat_map(|frame| frame.spans().to_vec()).collect();
        assert_eq!(spans, [Span { at: 0, whole_bytes: 3 }, Span { at: 3, whole_bytes: 3 }]);
        frames.iter().for_each(|frame| frame.write(42, &mut bytes));
        assert_eq!(read(salt, &bytes), Ok((Frame::Record { events: b"events", number: 42 }, bytes.len())));
        assert!(read(Salt::new(8), &bytes).is_err(), "a frame of another store");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(read(salt, &flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn small_records_share_a_frame_and_large_ones_do_not() {
        let of = |sizes: &[usize]| {
            let records: Vec<[Vec<u8>; 1]> = sizes.iter().map(|size| [vec![b'x'; *size]]).collect();
            let mut frames = Frames::default();
            let (each, may_share) =
                (records.iter().map(|record| &record[..]), |record: &[Vec<u8>]| record[0].len() < 100);
            frames.add_records(Salt::new(7), each, may_share, whole);
            frames.iter().map(|frame| frame.spans().len()).collect::<Vec<_>>()
        };
        assert_eq!(of(&[]), [0; 0]);
        assert_eq!(of(&[50; 3]), [3]);
        assert_eq!(of(&[50; 30]), [21, 9], "until there is enough in it");
        assert_eq!(of(&[50, 5_000, 50, 50, 200, 50]), [1, 1, 2, 2]);
    }

    #[test]
    fn a_mark_is_found_behind_anything() {
        let salt = Salt::new(7);
        let mut bytes = vec![0xAA; 13];
        write_durable(salt, 3, 100, &mut bytes);
        assert!(any_says_durable_beyond(salt, &bytes, 3, 99));
        assert!(!any_says_durable_beyond(salt, &bytes, 3, 100));
        assert!(!any_says_durable_beyond(Salt::new(1), &bytes, 3, 99));
    }
}
