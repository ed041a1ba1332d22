//! When the next message is sent.

use std::time::Duration;

/// When messages are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// As soon as fewer than `window` messages of their publisher are under way: shows how much a broker can do.
    Closed {
        /// Messages of one publisher under way.
        window: u32,
    },
    /// At their time, whether the broker keeps up or not: shows how long messages take.
    Fixed {
        /// Messages per second, of all publishers together.
        per_s: f64,
    },
}

/// The times of the messages of a fixed rate.
#[derive(Debug)]
pub(super) struct Timetable {
    start_ns: u64,
    per_s: f64,
    next: u64,
}

impl Timetable {
    pub(super) fn new(start_ns: u64, per_s: f64) -> Self {
        Self { start_ns, per_s, next: 0 }
    }

    /// When the next message is due.
    pub(super) fn due_ns(&self) -> u64 {
        // Exact to the nanosecond for as long as a run can last.
        self.start_ns + (self.next as f64 * 1e9 / self.per_s) as u64
    }

    /// Whose turn it is, of so many publishers.
    pub(super) fn turn(&self, publishers: usize) -> usize {
        usize::try_from(self.next).unwrap_or(0) % publishers.max(1)
    }

    pub(super) fn advance(&mut self) {
        self.next += 1;
    }

    /// How long it is until the next message is due.
    pub(super) fn wait(&self, now_ns: u64) -> Duration {
        Duration::from_nanos(self.due_ns().saturating_sub(now_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_due_at_even_times_and_publishers_take_turns() {
        let mut timetable = Timetable::new(100, 4.0);
        let mut seen = Vec::new();
        for _ in 0..4 {
            seen.push((timetable.due_ns(), timetable.turn(3)));
            timetable.advance();
        }
        let quarter = 250_000_000;
        assert_eq!(seen, [(100, 0), (100 + quarter, 1), (100 + 2 * quarter, 2), (100 + 3 * quarter, 0)]);
        assert_eq!(timetable.wait(100 + 4 * quarter - 5), Duration::from_nanos(5));
        assert_eq!(timetable.wait(u64::MAX), Duration::ZERO);
    }
}
