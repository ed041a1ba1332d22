//! Lost, duplicated and reordered messages, found by their numbers.

use std::collections::BTreeSet;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// What went wrong. A run with any of it has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Faults {
    /// Never arrived.
    pub lost: u64,
    /// Arrived again.
    pub duplicated: u64,
    /// Arrived after a later one of the same publisher.
    pub reordered: u64,
    /// Refused with a reason code, acknowledged without having been sent, or not one of ours.
    pub refused: u64,
}

impl Faults {
    /// Counts what another one has counted.
    pub fn add(&mut self, other: Self) {
        let Self { lost, duplicated, reordered, refused } = other;
        self.lost += lost;
        self.duplicated += duplicated;
        self.reordered += reordered;
        self.refused += refused;
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}

impl AddAssign for Faults {
    fn add_assign(&mut self, other: Self) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.refused += other.refused;
    }
}

/// The messages of one publisher as one subscriber gets them: all of them, in order.
#[derive(Debug, Default)]
pub struct Sequence {
    arrivals: Arrivals,
    reordered: u64,
}

impl Sequence {
    /// Message `number` has arrived.
    pub fn arrived(&mut self, number: u32) {
        if self.arrivals.add(number) == Arrival::Late {
            self.reordered += 1;
        }
    }

    /// The result, when `sent` messages should have arrived.
    #[must_use]
    pub fn faults(&self, sent: u32) -> Faults {
        Faults { reordered: self.reordered, ..self.arrivals.faults(sent) }
    }
}

/// The messages of one publisher as the members of a shared subscription get them: each one member, and each
/// member in order.
#[derive(Debug, Default)]
pub struct GroupSequence {
    arrivals: Arrivals,
    /// The last number by member.
    last: Vec<Option<u32>>,
    reordered: u64,
}

impl GroupSequence {
    /// Message `number` has arrived at `member`.
    pub fn arrived(&mut self, member: usize, number: u32) {
        self.arrivals.add(number);
        if self.last.len() <= member {
            self.last.resize(member + 1, None);
        }
        if let Some(last) = self.last.get_mut(member) {
            if last.is_some_and(|last| last > number) {
                self.reordered += 1;
            }
            *last = (*last).max(Some(number));
        }
    }

    /// The result, when `sent` messages should have arrived at one member or another.
    #[must_use]
    pub fn faults(&self, sent: u32) -> Faults {
        Faults { reordered: self.reordered, ..self.arrivals.faults(sent) }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Arrival {
    InTurn,
    Late,
    Again,
}

/// Which numbers have arrived.
#[derive(Debug, Default)]
struct Arrivals {
    /// Everything below has arrived or is in `missing`.
    next: u32,
    missing: BTreeSet<u32>,
    duplicated: u64,
}

impl Arrivals {
    fn add(&mut self, number: u32) -> Arrival {
        if number >= self.next {
            self.missing.extend(self.next..number);
            self.next = number.saturating_add(1);
            Arrival::InTurn
        } else if self.missing.remove(&number) {
            Arrival::Late
        } else {
            self.duplicated += 1;
            Arrival::Again
        }
    }

    fn faults(&self, sent: u32) -> Faults {
        // What was never sent cannot be lost, and what arrived of it is not ours.
        let missing = self.missing.range(..sent).count() as u64;
        Faults {
            lost: missing + u64::from(sent.saturating_sub(self.next)),
            duplicated: self.duplicated,
            reordered: 0,
            refused: u64::from(self.next.saturating_sub(sent)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults_of(numbers: &[u32], sent: u32) -> Faults {
        let mut sequence = Sequence::default();
        for number in numbers {
            sequence.arrived(*number);
        }
        sequence.faults(sent)
    }

    #[test]
    fn everything_once_and_in_order_is_clean() {
        assert!(faults_of(&[0, 1, 2, 3], 4).is_clean());
        assert!(faults_of(&[], 0).is_clean());
    }

    #[test]
    fn a_lost_message_is_found_at_the_front_in_the_middle_and_at_the_end() {
        for numbers in [&[1, 2, 3][..], &[0, 1, 3], &[0, 1, 2]] {
            assert_eq!(faults_of(numbers, 4), Faults { lost: 1, ..Faults::default() }, "{numbers:?}");
        }
    }

    #[test]
    fn a_message_that_arrives_twice_is_found_at_once_and_later() {
        for numbers in [&[0, 0, 1, 2][..], &[0, 1, 2, 0]] {
            assert_eq!(faults_of(numbers, 3), Faults { duplicated: 1, ..Faults::default() }, "{numbers:?}");
        }
    }

    #[test]
    fn a_message_that_is_overtaken_is_reordered_and_not_lost() {
        assert_eq!(faults_of(&[0, 2, 1, 3], 4), Faults { reordered: 1, ..Faults::default() });
        assert_eq!(faults_of(&[2, 0, 1], 3), Faults { reordered: 2, ..Faults::default() });
    }

    #[test]
    fn a_number_that_was_never_sent_is_not_ours() {
        assert_eq!(faults_of(&[0, 1, 2], 2), Faults { refused: 1, ..Faults::default() });
    }

    #[test]
    fn a_group_may_take_turns_but_no_member_goes_back_and_no_message_comes_twice() {
        let mut fair = GroupSequence::default();
        for (member, number) in [(0, 1), (1, 0), (0, 3), (1, 2)] {
            fair.arrived(member, number);
        }
        assert!(fair.faults(4).is_clean());
        assert_eq!(fair.faults(5), Faults { lost: 1, ..Faults::default() });

        let mut backwards = GroupSequence::default();
        for (member, number) in [(0, 1), (0, 0), (1, 1)] {
            backwards.arrived(member, number);
        }
        assert_eq!(backwards.faults(2), Faults { duplicated: 1, reordered: 1, ..Faults::default() });
    }
}
