//! A segment: one file of the log, a header and frames behind it. Only the process that created a segment
//! appends to it, except to one that is still empty.

use std::io;

use crate::codec::{Malformed, Reader};
use crate::disk::DiskFile;

/// The format that is written. Older ones are read for ever.
///
/// 2 knows one more event, for several messages that are settled at once.
pub(crate) const FORMAT_VERSION: u16 = 2;

/// The length of the header that is written.
pub(crate) const HEADER_BYTES: u32 = 40;

/// How much of a file is looked at for a header, which may be longer in a newer format.
const HEADER_BYTES_READ: usize = 4096;

const MAGIC: &[u8; 8] = b"weirmqst";

/// What a segment says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// The format of what stands behind it.
    pub(crate) version: u16,
    /// Its number, from 1. Its name follows from it.
    pub(crate) segment: u32,
    /// How long the segment before it is: what is beyond was cut off. 0 for the first.
    pub(crate) bytes_before: u32,
    /// The store's salt.
    pub(crate) salt: u64,
    /// The number that the next record was to have when the segment began.
    pub(crate) next_number: u64,
}

/// Why a header is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    /// It is not there, or not what was written.
    Bad(&'static str),
    /// It is of a format that is not known.
    Newer(u16),
}

impl From<Malformed> for HeaderFault {
    fn from(malformed: Malformed) -> Self {
        Self::Bad(malformed.0)
    }
}

impl Header {
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES as usize);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&(HEADER_BYTES as u16).to_le_bytes());
        out.extend_from_slice(&self.segment.to_le_bytes());
        out.extend_from_slice(&self.bytes_before.to_le_bytes());
        out.extend_from_slice(&self.salt.to_le_bytes());
        out.extend_from_slice(&self.next_number.to_le_bytes());
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out
    }

    /// Reads the header of a file.
    pub(crate) fn of(file: &dyn DiskFile) -> io::Result<Result<Self, HeaderFault>> {
        let mut head = vec![0; HEADER_BYTES_READ];
        let count = file.read_at(&mut head, 0)?;
        Ok(Self::read(head.get(..count).unwrap_or_default()))
    }

    /// Reads a header. The checksum is the last four bytes of a header in every format, so that a newer format
    /// and a damaged one are told apart.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, HeaderFault> {
        let mut reader = Reader::new(bytes);
        if reader.take(MAGIC.len())? != MAGIC {
            return Err(HeaderFault::Bad("it does not begin like a segment"));
        }
        let version = reader.u16()?;
        let length = usize::from(reader.u16()?);
        let whole = Reader::new(bytes).take(length)?;
        let (content, checksum) =
            whole.split_last_chunk().ok_or(HeaderFault::Bad("the header is too short"))?;
        if crc32c::crc32c(content) != u32::from_le_bytes(*checksum) {
            return Err(HeaderFault::Bad("the checksum of the header is wrong"));
        }
        if version > FORMAT_VERSION {
            return Err(HeaderFault::Newer(version));
        }
        if version == 0 || length != HEADER_BYTES as usize {
            return Err(HeaderFault::Bad("the header is of no known format"));
        }
        Ok(Self {
            version,
            segment: reader.u32()?,
            bytes_before: reader.u32()?,
            salt: reader.u64()?,
            next_number: reader.u64()?,
        })
    }
}

/// The name of a segment's file.
pub(crate) fn name(segment: u32) -> String {
    format!("{segment:010}.log")
}

/// The segment that a file's name stands for.
pub(crate) fn of_name(file_name: &str) -> Option<u32> {
    let segment = file_name.strip_suffix(".log")?.parse().ok()?;
    (segment > 0 && name(segment) == file_name).then_some(segment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back_and_a_newer_format_is_told_from_damage() {
        let header =
            Header { version: FORMAT_VERSION, segment: 3, bytes_before: 77, salt: 1 << 40, next_number: 9 };
        let bytes = header.to_bytes();
        assert_eq!((bytes.len(), Header::read(&bytes)), (HEADER_BYTES as usize, Ok(header)));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(Header::read(&flipped), Err(HeaderFault::Bad(_))), "bit {bit}");
        }
        let mut newer = bytes[..36].to_vec();
        newer[8] = 9;
        newer.extend_from_slice(&crc32c::crc32c(&newer).to_le_bytes());
        assert_eq!(Header::read(&newer), Err(HeaderFault::Newer(9)));
    }

    #[test]
    fn names_are_read_as_they_are_written_only() {
        assert_eq!(of_name(&name(12)), Some(12));
        for other in ["0000000000.log", "12.log", "+000000012.log", "0000000012.log.old", "lock"] {
            assert_eq!(of_name(other), None, "{other}");
        }
    }
}
