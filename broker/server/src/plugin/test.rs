//! `weirmq plugin test`: what a plugin is asked, and what it must answer.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde::Deserialize;
use serde_json::Value;
use weirmq_core::hook::Hook;
use weirmq_host::PluginHook;

use super::question::{self, QUESTION_BYTES_MAX, Question, QuestionError};
use super::{PluginCommandError, Subject};

/// What is tested, and by what.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Test {
    #[command(flatten)]
    subject: Subject,
    /// The tests
    #[arg(long, value_name = "FILE", default_value = "tests.json")]
    tests: PathBuf,
}

const EXAMPLE: &str = r#"A file of tests; `ask` is what `weirmq plugin call HOOK` takes, `answer` what it prints, or as much of it as matters:
  [{ "name": "ann is let in", "hook": "authenticate",
     "ask": { "client_id": "c1", "username": "ann", "password": "sesame" },
     "answer": { "allow": { "principal": "ann" } } }]"#;

/// Why a plugin is not as its tests want it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TestsError {
    #[error("cannot read the tests {}: {source}; name the file with --tests", file.display())]
    Read { file: PathBuf, source: io::Error },
    #[error("the tests {} have more than {QUESTION_BYTES_MAX} bytes; take fewer", file.display())]
    TooLarge { file: PathBuf },
    #[error("the tests {} are not right: {error}; `weirmq plugin test --help` shows some", file.display())]
    Json { file: PathBuf, error: serde_json::Error },
    #[error("there is no test in {}; write one, as `weirmq plugin test --help` shows", file.display())]
    None { file: PathBuf },
    #[error("test '{name}': {error}")]
    Question { name: String, error: QuestionError },
    #[error("{failed} of {all} tests failed")]
    Failed { failed: usize, all: usize },
}

/// One of a file of tests.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TestJson {
    name: String,
    hook: String,
    ask: Value,
    answer: Value,
}

impl Test {
    /// Runs the tests, and writes a line for each to `out`. An answer may say more than its test does.
    pub(crate) fn run(&self, out: &mut dyn Write) -> Result<(), PluginCommandError> {
        let tests = read(&self.tests)?;
        let (host, config) = self.subject.open()?;
        let plugin = host.load(&config)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut failed = 0;
        for test in &tests {
            match runtime.block_on(answer(&plugin, test)) {
                Ok(answer) if fits(&test.answer, &answer) => writeln!(out, "ok: {}", test.name)?,
                Ok(answer) => {
                    failed += 1;
                    writeln!(out, "FAILED: {}\n  wanted {}\n  got    {answer}", test.name, test.answer)?;
                }
                Err(PluginCommandError::Failed(failure)) => {
                    failed += 1;
                    writeln!(out, "FAILED: {}\n  the call failed: {failure}", test.name)?;
                }
                Err(PluginCommandError::Question(error)) => {
                    return Err(TestsError::Question { name: test.name.clone(), error }.into());
                }
                Err(error) => return Err(error),
            }
        }
        match failed {
            0 => Ok(writeln!(out, "{} tests passed", tests.len())?),
            _ => Err(TestsError::Failed { failed, all: tests.len() }.into()),
        }
    }
}

fn read(path: &Path) -> Result<Vec<TestJson>, TestsError> {
    let file = || path.to_owned();
    let unreadable = |source| TestsError::Read { file: file(), source };
    if std::fs::metadata(path).map_err(unreadable)?.len() > QUESTION_BYTES_MAX {
        return Err(TestsError::TooLarge { file: file() });
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    let tests: Vec<TestJson> =
        serde_json::from_str(&text).map_err(|error| TestsError::Json { file: file(), error })?;
    if tests.is_empty() { Err(TestsError::None { file: file() }) } else { Ok(tests) }
}

async fn answer(plugin: &Arc<PluginHook>, test: &TestJson) -> Result<Value, PluginCommandError> {
    let hook = question::hook_named(&test.hook)?;
    if !plugin.points().contains(hook) {
        return Err(QuestionError::not_served(plugin, hook).into());
    }
    Question::parse(hook, &test.ask.to_string())?.ask(plugin).await
}

/// Whether `answer` has everything that `wanted` has.
fn fits(wanted: &Value, answer: &Value) -> bool {
    match (wanted, answer) {
        (Value::Object(wanted), Value::Object(answer)) => {
            wanted.iter().all(|(key, wanted)| answer.get(key).is_some_and(|answer| fits(wanted, answer)))
        }
        (Value::Array(wanted), Value::Array(answer)) => {
            wanted.len() == answer.len()
                && wanted.iter().zip(answer).all(|(wanted, answer)| fits(wanted, answer))
        }
        _ => wanted == answer,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_may_say_more_than_its_test_and_not_other_things() {
        let answer = json!({ "allow": { "principal": "ann", "rights": [{ "filter": "a/#", "qos": 2 }] }, "data": null });
        for wanted in [
            json!({ "allow": {} }),
            json!({ "allow": { "principal": "ann", "rights": [{ "filter": "a/#" }] } }),
            json!({ "data": null }),
        ] {
            assert!(fits(&wanted, &answer), "{wanted}");
        }
        for wanted in [
            json!("allow"),
            json!({ "deny": {} }),
            json!({ "allow": { "principal": "bob" } }),
            json!({ "allow": { "rights": [] } }),
            json!({ "allow": { "rights": [{ "filter": "b" }] } }),
        ] {
            assert!(!fits(&wanted, &answer), "{wanted}");
        }
    }
}
