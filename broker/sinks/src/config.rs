//! What the configuration of every kind of sink has in common: a name, a buffer, a target, a check.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::engine::Sink;

/// The longest name of a sink, in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// How a sink's records are buffered, batched and retried: `[sink.KIND.buffer]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BufferConfig {
    /// How many records may wait. Default 10,000.
    pub records_max: usize,
    /// How many bytes the waiting records may take in memory, by estimate. Default 16 MiB.
    pub bytes_max: usize,
    /// How many records are written at once, at most. Default 500.
    pub batch_records_max: usize,
    /// How long a record waits for others to make a batch, in milliseconds. Default 5.
    pub batch_wait_ms: u64,
    /// The pause after the first failure, in milliseconds; it doubles with each further one. Default 200.
    pub retry_initial_ms: u64,
    /// The longest pause between two attempts, in milliseconds. Default 30,000.
    pub retry_max_ms: u64,
    /// After how many failed attempts a record becomes a dead letter; 0 (the default) is never.
    pub retry_attempts_max: u32,
    /// After how long, in milliseconds from when it was buffered, a record whose attempt has failed becomes a
    /// dead letter; 0 (the default) is never.
    pub retry_age_max_ms: u64,
    /// What happens to a record for which there is no room.
    pub on_full: OnFull,
    /// How large the file of dead letters may grow before it takes the place of the older one, in bytes: two
    /// files are kept. Default 16 MiB.
    pub dead_letter_bytes_max: u64,
}

impl Default for BufferConfig {
    fn default() -> Self {
        Self {
            records_max: 10_000,
            bytes_max: 16 * 1024 * 1024,
            batch_records_max: 500,
            batch_wait_ms: 5,
            retry_initial_ms: 200,
            retry_max_ms: 30_000,
            retry_attempts_max: 0,
            retry_age_max_ms: 0,
            on_full: OnFull::default(),
            dead_letter_bytes_max: 16 * 1024 * 1024,
        }
    }
}

impl BufferConfig {
    pub(crate) fn batch_wait(&self) -> Duration {
        Duration::from_millis(self.batch_wait_ms)
    }

    pub(crate) fn retry_age_max(&self) -> Option<Duration> {
        (self.retry_age_max_ms > 0).then(|| Duration::from_millis(self.retry_age_max_ms))
    }

    /// What is wrong with these settings, in words.
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (key, value) in [
            ("records_max", self.records_max as u64),
            ("bytes_max", self.bytes_max as u64),
            ("batch_records_max", self.batch_records_max as u64),
            ("retry_initial_ms", self.retry_initial_ms),
            ("dead_letter_bytes_max", self.dead_letter_bytes_max),
        ] {
            if value == 0 {
                faults.push(format!("buffer.{key} is 0; it must be at least 1"));
            }
        }
        if self.retry_max_ms < self.retry_initial_ms {
            faults.push(format!(
                "buffer.retry_max_ms ({}) is less than buffer.retry_initial_ms ({})",
                self.retry_max_ms, self.retry_initial_ms
            ));
        }
        faults
    }
}

/// What happens to a record for which a buffer has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFull {
    /// It is refused; what is waiting stays.
    #[default]
    RefuseNewest,
    /// It is taken, and the oldest that is not just being written is dropped and counted. When all that waits
    /// is being written, it is refused.
    DropOldest,
}

/// Text that logs must not show: a header's value, a URL with a password.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("\"***\"")
    }
}

/// Something that is wrong, or may be, with the configuration of a sink: an answer of `weirmq check`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The sink's name.
    pub sink: String,
    /// Whether the broker would start all the same.
    pub severity: Severity,
    /// What is wrong and what to do about it.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "sink '{}': {}", self.sink, self.text)
    }
}

/// How bad a [`Problem`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The broker does not start with it.
    Error,
    /// The broker starts; records may have to wait or become dead letters.
    Warning,
}

/// One finding of a sink's own check, before it is known whose it is.
pub(crate) type Finding = (Severity, String);

/// The configuration of one sink of some kind.
pub(crate) trait SinkConfig: Send + Sync {
    /// What rules call it.
    fn name(&self) -> &str;

    /// How its records are buffered.
    fn buffer(&self) -> &BufferConfig;

    /// Where the records go, for people to read: no secrets.
    fn target(&self, data_folder: &Path) -> String;

    /// How many records [`Sink::write`] is given at once, at most.
    fn batch_records_max(&self) -> usize {
        self.buffer().batch_records_max
    }

    /// The file that it writes to, if it is one.
    fn file(&self, _data_folder: &Path) -> Option<PathBuf> {
        None
    }

    /// Whether other sinks of its kind may write to the same file.
    fn shares_file(&self) -> bool {
        false
    }

    /// Finds what is wrong, changing nothing: no file is made, no connection opened.
    fn findings(&self, data_folder: &Path) -> Vec<Finding>;

    /// Opens the sink: the health check at start.
    ///
    /// # Errors
    /// In words, what must be put right before the broker can start. What may heal by itself is no error: it
    /// is logged, and tried again when there is a record.
    fn open(&self, data_folder: &Path) -> Result<Box<dyn Sink>, String>;
}

/// What is wrong with the parts of `config` that all kinds share.
pub(crate) fn common_findings(config: &dyn SinkConfig) -> Vec<Finding> {
    let mut faults = config.buffer().faults();
    faults.extend(name_fault(config.name()));
    faults.into_iter().map(|fault| (Severity::Error, fault)).collect()
}

/// A name goes into file names and logs: letters and digits of any script, `_` and `-`.
fn name_fault(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("its name is empty".to_owned());
    }
    if name.len() > NAME_BYTES_MAX {
        return Some(format!("its name is longer than {NAME_BYTES_MAX} bytes"));
    }
    let bad = name.chars().find(|c| !c.is_alphanumeric() && !matches!(c, '_' | '-'))?;
    Some(format!("its name has {bad:?} in it; use letters, digits, '_' and '-'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_the_data_folder_are_refused() {
        for name in ["", "..", "a/b", "a\\b", "a.b", "a b", "a\0", &"x".repeat(65)] {
            assert!(name_fault(name).is_some(), "{name:?}");
        }
        for name in ["history", "alert_webhook", "line-1", "履歴"] {
            assert_eq!(name_fault(name), None);
        }
    }

    #[test]
    fn limits_of_zero_are_refused_by_name() {
        let config = BufferConfig { records_max: 0, retry_max_ms: 1, ..BufferConfig::default() };
        let faults = config.faults();
        assert_eq!(faults.len(), 2);
        assert!(faults[0].contains("records_max"), "{faults:?}");
        assert!(faults[1].contains("retry_max_ms (1) is less"), "{faults:?}");
    }

    #[test]
    fn debug_output_shows_no_secret() {
        assert_eq!(format!("{:?}", Secret::from("hunter2")), "\"***\"");
    }
}
