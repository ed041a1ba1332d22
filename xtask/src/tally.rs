//! How many tests passed, how many failed.

use std::fmt;

/// Test results, summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl Tally {
    /// Adds what `line` reports, where it is the closing line of a test binary:
    /// `test result: ok. 5 passed; 0 failed; 1 ignored; ...`. Every other line adds nothing.
    pub(crate) fn add_line(&mut self, line: &str) {
        let Some(counts) = line.trim_end().strip_prefix("test result: ") else { return };
        let Some((_verdict, counts)) = counts.split_once(". ") else { return };
        for count in counts.split(';') {
            match count.trim().split_once(' ') {
                Some((number, "passed")) => self.passed += number.parse().unwrap_or(0),
                Some((number, "failed")) => self.failed += number.parse().unwrap_or(0),
                _ => {}
            }
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_every_test_binary_are_summed() {
        let mut tally = Tally::default();
        for line in [
            "running 7 tests",
            "test topic::tests::covering ... ok",
            "test result: ok. 5 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.10s",
            "",
            "test result: FAILED. 11 passed; 3 failed; 0 ignored; 0 measured; 1 filtered out; finished in 1s\r",
        ] {
            tally.add_line(line);
        }
        assert_eq!(tally, Tally { passed: 16, failed: 3 });
        assert_eq!(tally.to_string(), "16 passed, 3 failed");
    }

    #[test]
    fn what_only_talks_about_results_is_not_counted() {
        let mut tally = Tally::default();
        for line in [
            "  test result: ok. 5 passed; 0 failed",
            "assertion failed: test result: ok. 5 passed; 0 failed",
            "test result: ok 5 passed",
            "test result: ok. many passed; none failed",
        ] {
            tally.add_line(line);
        }
        assert_eq!(tally, Tally::default());
    }
}
