//! One subscriber: acknowledgements and the sequence check.

use weirmq_wire::{PacketType, ReasonCode, Version, encode_ack};

use crate::load::{Faults, GroupSequence, Sequence, Stamp};

/// The receiving half of a load.
#[derive(Debug)]
pub struct Subscriber {
    version: Version,
    /// The first publisher that it hears.
    first: u32,
    sequences: Vec<Sequence>,
    strange: u64,
}

impl Subscriber {
    /// Hears the publishers `first` to `first + count - 1` and nobody else.
    #[must_use]
    pub fn new(version: Version, first: u32, count: u32) -> Self {
        Self { version, first, sequences: (0..count).map(|_| Sequence::default()).collect(), strange: 0 }
    }

    /// A message has arrived.
    pub fn arrived(&mut self, stamp: Stamp) {
        let place = stamp.publisher.checked_sub(self.first);
        match place.and_then(|place| self.sequences.get_mut(place as usize)) {
            Some(sequence) => sequence.arrived(stamp.number),
            None => self.strange += 1,
        }
    }

    /// Something has arrived that nobody of ours sent.
    pub fn strange(&mut self) {
        self.strange += 1;
    }

    /// Appends what is owed for a message with `qos`.
    pub fn acknowledge(&self, qos: u8, id: u16, out: &mut Vec<u8>) {
        match qos {
            0 => {}
            1 => self.answer(PacketType::PubAck, id, out),
            _ => self.answer(PacketType::PubRec, id, out),
        }
    }

    /// Appends what is owed for a PUBREL.
    pub fn complete(&self, id: u16, out: &mut Vec<u8>) {
        self.answer(PacketType::PubComp, id, out)
    }

    fn answer(&self, kind: PacketType, id: u16, out: &mut Vec<u8>) {
        if let Ok(id) = id.try_into() {
            encode_ack(kind, id, ReasonCode::Success, self.version, out);
        }
    }

    fn faults(&self, sent: &[u32]) -> Faults {
        let mut faults = Faults { refused: self.strange, ..Faults::default() };
        let first = usize::try_from(self.first).unwrap_or(usize::MAX);
        for (sequence, sent) in self.sequences.iter().zip(sent.iter().skip(first)) {
            faults += sequence.faults(*sent);
        }
        faults
    }
}

/// How subscribers share the messages.
#[derive(Debug)]
pub enum Audience {
    /// Each gets every message of the publishers that it hears.
    Each,
    /// They are one shared subscription: each message comes to one of them. One sequence per publisher.
    Group(Vec<GroupSequence>),
}

impl Audience {
    /// The members of one shared subscription, which hear `publishers` publishers.
    #[must_use]
    pub fn group(publishers: usize) -> Self {
        Self::Group((0..publishers).map(|_| GroupSequence::default()).collect())
    }

    /// A message has arrived at subscriber number `member`.
    pub fn arrived(&mut self, member: usize, subscriber: &mut Subscriber, stamp: Stamp) {
        match self {
            Self::Each => subscriber.arrived(stamp),
            Self::Group(sequences) => match sequences.get_mut(stamp.publisher as usize) {
                Some(sequence) => sequence.arrived(member, stamp.number),
                None => subscriber.strange(),
            },
        }
    }

    /// The result, with how many messages each publisher has `sent`.
    #[must_use]
    pub fn faults(&self, subscribers: &[Subscriber], sent: &[u32]) -> Faults {
        let mut faults = Faults::default();
        match self {
            Self::Each => subscribers.iter().for_each(|subscriber| faults += subscriber.faults(sent)),
            Self::Group(sequences) => {
                faults.refused += subscribers.iter().map(|subscriber| subscriber.strange).sum::<u64>();
                for (sequence, sent) in sequences.iter().zip(sent) {
                    faults += sequence.faults(*sent);
                }
            }
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(publisher: u32, number: u32) -> Stamp {
        Stamp { publisher, number, at_ns: 0 }
    }

    #[test]
    fn a_subscriber_is_held_to_the_publishers_that_it_hears() {
        let mut subscriber = Subscriber::new(Version::V311, 1, 2);
        let mut audience = Audience::Each;
        for arrived in [stamp(1, 0), stamp(2, 0), stamp(2, 1), stamp(3, 0)] {
            audience.arrived(0, &mut subscriber, arrived);
        }
        let faults = audience.faults(&[subscriber], &[9, 2, 2, 9]);
        assert_eq!(faults, Faults { lost: 1, refused: 1, ..Faults::default() });
    }

    #[test]
    fn the_members_of_a_group_are_held_to_it_together() {
        let mut members = [Subscriber::new(Version::V311, 0, 0), Subscriber::new(Version::V311, 0, 0)];
        let mut audience = Audience::group(1);
        for (member, number) in [(0, 0), (1, 1), (1, 2)] {
            audience.arrived(member, &mut members[member], stamp(0, number));
        }
        assert!(audience.faults(&members, &[3]).is_clean());
        assert_eq!(audience.faults(&members, &[4]).lost, 1);
    }
}
