//! What a payload carries so that it can be checked and timed.

/// Size of a stamp: the smallest payload of a load.
pub const STAMP_BYTES: usize = 16;

/// The first bytes of every payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Which publisher.
    pub publisher: u32,
    /// Which of its messages, from 0.
    pub number: u32,
    /// When it was sent, or was due, in nanoseconds since the run began.
    pub at_ns: u64,
}

impl Stamp {
    /// As the payload begins.
    #[must_use]
    pub fn to_bytes(self) -> [u8; STAMP_BYTES] {
        let all = u128::from(self.publisher) << 96 | u128::from(self.number) << 64 | u128::from(self.at_ns);
        all.to_be_bytes()
    }

    /// The stamp that `payload` begins with; `None` where it is too short to be one of ours.
    #[must_use]
    pub fn read(payload: &[u8]) -> Option<Self> {
        let all = u128::from_be_bytes(*payload.first_chunk()?);
        // Each part is cut to its own width.
        Some(Self { publisher: (all >> 96) as u32, number: (all >> 64) as u32, at_ns: all as u64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_as_it_was_written_and_a_short_payload_has_none() {
        let stamp = Stamp { publisher: 7, number: u32::MAX - 1, at_ns: u64::MAX / 3 };
        let mut payload = stamp.to_bytes().to_vec();
        payload.push(0xEE);
        assert_eq!(Stamp::read(&payload), Some(stamp));
        assert_eq!(Stamp::read(&payload[..15]), None);
    }
}
