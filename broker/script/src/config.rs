//! Where the rules are and what one run of a rule may cost.

use std::path::PathBuf;
use std::time::Duration;

use crate::WORKER_STACK_BYTES;
use crate::run::stack_bytes;

/// The rules folder and the budgets of rules.
///
/// A budget that is reached ends the run that reached it, never another one: the run fails with the
/// [`FailureKind`](weirmq_core::hook::FailureKind) named at the budget, and what it had asked for is taken
/// back. A script cannot catch that with `try`. The top level of a file and each `test` have
/// [`LOAD_FACTOR`] times the operations and the time of a run.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The folder with the `*.rhai` files. Subfolders and files whose name begins with `.` are not read.
    pub folder: PathBuf,
    /// Operations (statements, expressions, calls) in one run; each 256 bytes of payload that are looked
    /// through count as one more. Past it: `Operations`.
    pub operations_max: u64,
    /// Wall-clock milliseconds for one run, looked at every 32 operations. Past it: `Deadline`.
    pub deadline_ms: u64,
    /// Bytes of one string; for an array or a map, of all strings in it together. Past it: `Memory`.
    pub string_bytes_max: usize,
    /// Items of one array, those of arrays in it included, and bytes of one blob; at most [`ITEMS_CEILING`].
    /// Past it: `Memory`.
    pub array_items_max: usize,
    /// Entries of one map, those of maps in it included; at most [`ITEMS_CEILING`]. Past it: `Memory`.
    pub map_entries_max: usize,
    /// Variables that a function or a handler may have at a time. Past it: `Memory`.
    pub variables_max: usize,
    /// Functions calling functions, to this depth; at most [`CALL_LEVELS_CEILING`]. Past it: `Memory`.
    pub call_levels_max: usize,
    /// Messages that one run may publish, or put in the place of the one that it transforms. Past it:
    /// `OutputTooLarge`.
    pub published_max: usize,
    /// Records that one run may hand to sinks. Past it: `OutputTooLarge`.
    pub records_max: usize,
    /// Bytes of all that one run publishes and hands to sinks. Past it: `OutputTooLarge`.
    pub output_bytes_max: usize,
    /// Lines that one rule may log per second. Past it they are counted, and the number is logged with the
    /// next line that is.
    pub log_lines_per_second_max: u32,
    /// Bytes of one rule file. A longer one is not loaded and reported as an error.
    pub file_bytes_max: u64,
    /// Rule files in the folder. What comes after them by name is not loaded and reported as an error.
    pub files_max: usize,
    /// Rules and tests that one file may register. Past it the file is not loaded.
    pub registrations_max: usize,
    /// Keys that the state of one file may have. Past it: `Memory`.
    pub state_keys_max: usize,
    /// Bytes of one value in a state, as JSON text. Past it: `Memory`.
    pub state_value_bytes_max: usize,
    /// Bytes of all keys and values in the state of one file; at most [`STATE_BYTES_CEILING`]. Past it: `Memory`.
    pub state_bytes_max: usize,
    /// The names of the sinks that there are: a file that hands records to another one is not loaded. `None` where that is
    /// not known. No key of the configuration: whoever reads that fills it in.
    #[serde(skip)]
    pub sinks: Option<Vec<String>>,
}

/// How much more the top level of a file and a test may do than one run of a rule.
pub const LOAD_FACTOR: u32 = 20;

/// The most that [`Config::call_levels_max`] may be: what the script engine's recursion is given stack for.
pub const CALL_LEVELS_CEILING: usize = 64;

/// The most that [`Config::array_items_max`] and [`Config::map_entries_max`] may be: each item may hold the next,
/// and to release the outermost takes stack for all of them.
pub const ITEMS_CEILING: usize = 100_000;

/// The most that [`Config::state_bytes_max`] may be: all of it may have to be recorded at once.
pub const STATE_BYTES_CEILING: usize = 16 * 1024 * 1024;

impl Default for Config {
    fn default() -> Self {
        Self {
            folder: PathBuf::from("rules"),
            operations_max: 100_000,
            deadline_ms: 50,
            string_bytes_max: 1024 * 1024,
            array_items_max: 10_000,
            map_entries_max: 10_000,
            variables_max: 256,
            call_levels_max: 32,
            published_max: 64,
            records_max: 256,
            output_bytes_max: 4 * 1024 * 1024,
            log_lines_per_second_max: 10,
            file_bytes_max: 1024 * 1024,
            files_max: 1_000,
            registrations_max: 1_000,
            state_keys_max: 10_000,
            state_value_bytes_max: 16 * 1024,
            state_bytes_max: 1024 * 1024,
            sinks: None,
        }
    }
}

impl Config {
    /// The wall-clock time of one run.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        Duration::from_millis(self.deadline_ms)
    }

    /// The stack that a thread which runs rules should have under these limits, in bytes: at least
    /// [`WORKER_STACK_BYTES`], more where arrays and maps may be larger.
    #[must_use]
    pub fn worker_stack_bytes(&self) -> usize {
        const OF_THE_CALLER: usize = 8 * 1024 * 1024;
        stack_bytes(self).saturating_add(OF_THE_CALLER).max(WORKER_STACK_BYTES)
    }

    /// What is wrong with the numbers, if anything is: a limit of 0 would stop every rule.
    pub(crate) fn fault(&self) -> Option<String> {
        let numbers: [(&str, u64); 15] = [
            ("operations_max", self.operations_max),
            ("deadline_ms", self.deadline_ms),
            ("string_bytes_max", self.string_bytes_max as u64),
            ("array_items_max", self.array_items_max as u64),
            ("map_entries_max", self.map_entries_max as u64),
            ("variables_max", self.variables_max as u64),
            ("call_levels_max", self.call_levels_max as u64),
            ("output_bytes_max", self.output_bytes_max as u64),
            ("file_bytes_max", self.file_bytes_max),
            ("files_max", self.files_max as u64),
            ("registrations_max", self.registrations_max as u64),
            ("published_max", self.published_max as u64),
            ("state_keys_max", self.state_keys_max as u64),
            ("state_value_bytes_max", self.state_value_bytes_max as u64),
            ("state_bytes_max", self.state_bytes_max as u64),
        ];
        if let Some((name, _)) = numbers.iter().find(|(_, number)| *number == 0) {
            return Some(format!("{name} is 0; it must be at least 1"));
        }
        let ceilings = [
            ("call_levels_max", self.call_levels_max, CALL_LEVELS_CEILING),
            ("array_items_max", self.array_items_max, ITEMS_CEILING),
            ("map_entries_max", self.map_entries_max, ITEMS_CEILING),
            ("state_bytes_max", self.state_bytes_max, STATE_BYTES_CEILING),
        ];
        ceilings
            .iter()
            .find(|(_, number, ceiling)| number > ceiling)
            .map(|(name, number, ceiling)| format!("{name} is {number}; it must be at most {ceiling}"))
    }
}
