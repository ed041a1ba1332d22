//! What loading, checking and testing tell the operator.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Why no rule engine could be made at all. A file that is broken is no reason: it is in the [`Report`].
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A limit makes no sense.
    #[error("the configuration of the rules is wrong: {0}")]
    Config(String),
    /// The folder cannot be read.
    #[error("the rules folder {folder:?} cannot be read: {source}; create it, or name another")]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// What is wrong in a rule file, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptError {
    /// The file's name in the rules folder.
    pub file: String,
    /// The line, from 1; 0 when the file as a whole is meant.
    pub line: usize,
    /// The column in characters, from 1; 0 when the file as a whole is meant.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// Whether a former version of the file stays live.
    pub kept_old: bool,
}

impl fmt::Display for ScriptError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.file)?;
        if self.line > 0 {
            write!(out, ":{}:{}", self.line, self.column)?;
        }
        write!(out, ": {}", self.message)?;
        if self.kept_old {
            out.write_str(" (the former version of the file stays live)")?;
        }
        Ok(())
    }
}

impl std::error::Error for ScriptError {}

/// What a load or a reload did, file by file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Files that were not there before.
    pub loaded: Vec<String>,
    /// Files whose rules took the place of their former version's.
    pub replaced: Vec<String>,
    /// Files that are gone, and their rules with them.
    pub removed: Vec<String>,
    /// Files that are as they were; they were not compiled again.
    pub unchanged: Vec<String>,
    /// Files that were tried this time and are not live as they stand.
    pub errors: Vec<ScriptError>,
    /// Files that were found broken before and have not been changed since.
    pub still_broken: Vec<ScriptError>,
}

impl Report {
    /// Whether the set of live rules is another one than before: topics have to be bound anew.
    #[must_use]
    pub fn changed(&self) -> bool {
        !(self.loaded.is_empty() && self.replaced.is_empty() && self.removed.is_empty())
    }

    /// Whether no file is broken.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.errors.is_empty() && self.still_broken.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        let mut line = |out: &mut fmt::Formatter<'_>, text: fmt::Arguments<'_>| {
            if !std::mem::take(&mut first) {
                out.write_str("\n")?;
            }
            out.write_fmt(text)
        };
        for (what, files) in
            [("loaded", &self.loaded), ("replaced", &self.replaced), ("removed", &self.removed)]
        {
            if !files.is_empty() {
                line(out, format_args!("{what}: {}", files.join(", ")))?;
            }
        }
        if !self.unchanged.is_empty() {
            line(out, format_args!("unchanged: {}", self.unchanged.len()))?;
        }
        for error in &self.errors {
            line(out, format_args!("error: {error}"))?;
        }
        for error in &self.still_broken {
            line(out, format_args!("still broken: {error}"))?;
        }
        if first { out.write_str("no rule files") } else { Ok(()) }
    }
}

/// What a rule does with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RuleKind {
    /// `on`: looks at messages, publishes further ones, hands records to sinks.
    On,
    /// `transform`: decides what becomes of a message before it is routed.
    Transform,
}

impl fmt::Display for RuleKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::On => "on",
            Self::Transform => "transform",
        })
    }
}

/// A live rule and what it has done so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleInfo {
    /// Its name: the one it was given, or the file's stem and the line.
    pub name: Arc<str>,
    /// Its filter as written, captures included.
    pub filter: Arc<str>,
    /// What it does.
    pub kind: RuleKind,
    /// The file that it is in.
    pub file: Arc<str>,
    /// The line that it is registered in, from 1.
    pub line: usize,
    /// How often it ran. Goes on counting when its file is replaced, as long as it keeps its name.
    pub runs: u64,
    /// How many of those runs failed.
    pub failures: u64,
    /// How the latest of those failed.
    pub last_failure: Option<String>,
}

/// What the tests in a rules folder said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TestReport {
    /// Every test, in the order of files and lines.
    pub tests: Vec<TestOutcome>,
    /// Files that could not be loaded; their tests did not run.
    pub errors: Vec<ScriptError>,
}

/// One test and how it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestOutcome {
    /// Its name.
    pub name: String,
    /// The file that it is in.
    pub file: String,
    /// The line that it is registered in, from 1.
    pub line: usize,
    /// `None` when it passed; otherwise where and why it failed.
    pub failure: Option<String>,
    /// How long it took.
    pub duration: Duration,
}

impl TestOutcome {
    /// Whether it passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failure.is_none()
    }
}

impl TestReport {
    /// Whether every file loaded and every test passed. A folder without tests passes.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.errors.is_empty() && self.tests.iter().all(TestOutcome::passed)
    }
}

impl fmt::Display for TestReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for error in &self.errors {
            writeln!(out, "error: {error}")?;
        }
        for test in &self.tests {
            let verdict = if test.passed() { "ok" } else { "FAILED" };
            let micros = test.duration.as_micros();
            writeln!(out, "{}:{}: {} ... {verdict} ({micros} µs)", test.file, test.line, test.name)?;
            if let Some(reason) = &test.failure {
                for line in reason.lines() {
                    writeln!(out, "    {line}")?;
                }
            }
        }
        let failed = self.tests.iter().filter(|test| !test.passed()).count();
        write!(out, "{} passed, {failed} failed", self.tests.len() - failed)?;
        if !self.errors.is_empty() {
            write!(out, ", {} files not loaded", self.errors.len())?;
        }
        Ok(())
    }
}
