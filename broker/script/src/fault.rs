//! What went wrong in a script, in the words of operators: where, what, and of which kind.

use rhai::{EvalAltResult, ParseError, ParseErrorType, Position};
use weirmq_core::hook::{Failure, FailureKind};

use crate::report::ScriptError;
use crate::run::Stop;
use crate::standard::{all, is_known};
use crate::suggest::did_you_mean;

/// A fault in a script.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) kind: FailureKind,
    pub(crate) message: String,
    pub(crate) position: Position,
    /// Whether only a name is taken, which another file may give up.
    pub(crate) clash: bool,
}

impl Fault {
    /// A fault of `kind` at `position`.
    pub(crate) fn new(kind: FailureKind, message: impl Into<String>, position: Position) -> Self {
        Self { kind, message: cut(message.into()), position, clash: false }
    }

    /// A fault that a script ran into.
    pub(crate) fn of_run(error: EvalAltResult) -> Self {
        let (error, position) = innermost(error);
        let (kind, message) = match error {
            EvalAltResult::ErrorTerminated(token, _) => match token.try_cast::<Stop>() {
                Some(stop) => (stop_kind(stop), stop.to_string()),
                None => (FailureKind::Crash, "the script was stopped".to_owned()),
            },
            EvalAltResult::ErrorTooManyOperations(_) => {
                (FailureKind::Operations, Stop::Operations.to_string())
            }
            EvalAltResult::ErrorStackOverflow(_) => (
                FailureKind::Memory,
                "functions call functions deeper than call_levels_max allows".to_owned(),
            ),
            EvalAltResult::ErrorTooManyVariables(_) => {
                (FailureKind::Memory, "it has more variables than variables_max allows".to_owned())
            }
            EvalAltResult::ErrorDataTooLarge(what, _) => (FailureKind::Memory, too_large(&what)),
            EvalAltResult::ErrorRuntime(thrown, _) if thrown.is_string() => {
                (FailureKind::Crash, thrown.to_string())
            }
            EvalAltResult::ErrorRuntime(thrown, _) if !thrown.is_unit() => {
                (FailureKind::Crash, format!("it threw {thrown}"))
            }
            EvalAltResult::ErrorRuntime(..) => (FailureKind::Crash, "it threw an error".to_owned()),
            EvalAltResult::ErrorFunctionNotFound(signature, _) => (FailureKind::Crash, not_found(&signature)),
            mut other => {
                let _ = other.take_position();
                (FailureKind::Crash, other.to_string())
            }
        };
        Self { kind, message: cut(message), position, clash: false }
    }

    /// This fault, at `position` where none is known.
    pub(crate) fn at_least_at(mut self, position: Position) -> Self {
        if self.position.is_none() {
            self.position = position;
        }
        self
    }

    /// A fault that kept a script from being compiled. `source` tells where an unfinished script ends.
    pub(crate) fn of_parse(error: &ParseError, source: &str) -> Self {
        let position = if error.1.is_none() { end_of(source) } else { error.1 };
        Self { kind: FailureKind::Unavailable, message: parse_text(&error.0), position, clash: false }
    }

    /// `file:line:column: message`.
    pub(crate) fn text(&self, file: &str) -> String {
        match (self.position.line(), self.position.position()) {
            (Some(line), Some(column)) => format!("{file}:{line}:{column}: {}", self.message),
            (Some(line), None) => format!("{file}:{line}: {}", self.message),
            _ => format!("{file}: {}", self.message),
        }
    }

    /// As what a hook answers.
    pub(crate) fn failure(&self, file: &str) -> Failure {
        Failure::new(self.kind, self.text(file))
    }

    /// As what a report shows.
    pub(crate) fn script_error(self, file: &str, kept_old: bool) -> ScriptError {
        ScriptError {
            file: file.to_owned(),
            line: self.position.line().unwrap_or(0),
            column: self.position.position().unwrap_or(0),
            message: self.message,
            kept_old,
        }
    }
}

/// The error where it arose, and the nearest position that is known of it.
fn innermost(mut error: EvalAltResult) -> (EvalAltResult, Position) {
    let mut position = error.position();
    while let EvalAltResult::ErrorInFunctionCall(_, _, inner, _) = error {
        if !inner.position().is_none() {
            position = inner.position();
        }
        error = *inner;
    }
    (error, position)
}

fn stop_kind(stop: Stop) -> FailureKind {
    match stop {
        Stop::Operations => FailureKind::Operations,
        Stop::Deadline => FailureKind::Deadline,
        Stop::Published | Stop::Records | Stop::OutputBytes => FailureKind::OutputTooLarge,
        Stop::StateKeys | Stop::StateValue | Stop::StateBytes | Stop::StateChanges => FailureKind::Memory,
    }
}

fn too_large(what: &str) -> String {
    let limit = if what.contains("string") {
        "string_bytes_max"
    } else if what.contains("map") {
        "map_entries_max"
    } else {
        "array_items_max"
    };
    format!("a value is larger than {limit} allows ({what})")
}

/// What is said of a script that cannot be compiled.
fn parse_text(error: &ParseErrorType) -> String {
    match error {
        ParseErrorType::VariableUndefined(name) => format!(
            "there is no variable '{name}' here; a handler reads a constant of its file as global::{name}"
        ),
        other => cut(other.to_string()),
    }
}

/// What is said of a call that nothing answers: a name that is not known, or values that it does not take.
fn not_found(signature: &str) -> String {
    let name = signature.split(" (").next().unwrap_or(signature);
    let name = name.rsplit("::").next().unwrap_or(name);
    if is_known(name) {
        return format!("there is no {signature}: '{name}' takes other values, or another number of them");
    }
    format!("there is no function {signature}{}", did_you_mean(name, all()))
}

/// The longest text of a fault, in bytes: a script can throw more than anybody reads.
const TEXT_BYTES_MAX: usize = 1_024;

/// `text`, or as much of it as is told.
pub(crate) fn cut(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        let mut end = TEXT_BYTES_MAX;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str(" ...");
    }
    text
}

/// The position behind the last character.
fn end_of(source: &str) -> Position {
    let line = source.lines().count().max(1);
    let column = source.lines().last().map_or(0, |last| last.chars().count()) + 1;
    let fits = |number: usize| u16::try_from(number).unwrap_or(u16::MAX);
    Position::new(fits(line), fits(column))
}
