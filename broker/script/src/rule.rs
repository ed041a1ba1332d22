//! One rule: a filter, a handler in a script, and what it has done so far.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;
use rhai::{Dynamic, EvalAltResult, FnPtr, GlobalRuntimeState, NativeCallContext, Position};
use weirmq_core::durable::keys::Changes;
use weirmq_core::hook::{Actions, Denial, Draft, Failure, FailureKind, ReasonCode};
use weirmq_core::message::Message;
use weirmq_core::time::Now;

use crate::convert::kind;
use crate::engine::Core;
use crate::fault::Fault;
use crate::pattern::Pattern;
use crate::report::{RuleInfo, RuleKind};
use crate::run::{Answer, Budget, Frame, OnRun, TransformRun, run};
use crate::state::State;
use crate::view::{Binding, Msg};

/// A rule as a script registered it.
pub(crate) struct Rule {
    pub(crate) name: Arc<str>,
    pub(crate) kind: RuleKind,
    pub(crate) pattern: Pattern,
    pub(crate) program: Arc<Program>,
    pub(crate) callback: FnPtr,
    pub(crate) position: Position,
    pub(crate) stats: Arc<Stats>,
}

/// A compiled file, as its handlers need it: the functions and constants that they may use.
pub(crate) struct Program {
    pub(crate) file: Arc<str>,
    /// What its rules remember, where they do.
    pub(crate) state: Option<Arc<State>>,
    pub(crate) global: GlobalRuntimeState,
}

/// What a rule has done. Outlives a reload of its file.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    runs: AtomicU64,
    failures: AtomicU64,
    last_failure: Mutex<Option<String>>,
    log: LogGate,
}

/// What a transform makes of a message.
#[derive(Debug)]
pub(crate) enum Outcome {
    Pass,
    Replace(Draft),
    Drop(Denial),
    Several(Vec<Draft>),
}

impl Rule {
    /// Runs an `on` rule. What it asks for is put behind what is in `actions`; when it fails, nothing is.
    pub(crate) fn observe(
        self: &Arc<Self>,
        core: &Core,
        message: &Arc<Message>,
        binding: &Arc<Binding>,
        now: Now,
        actions: &mut Actions,
    ) -> Result<(), Failure> {
        let (published_before, records_before) = (actions.publish.len(), actions.records.len());
        let frame = Frame::On(OnRun {
            rule: Arc::clone(self),
            now,
            actions: std::mem::take(actions),
            published_before,
            records_before,
            output_bytes: 0,
            state: core.state_of(&self.program),
        });
        let (outcome, frame) = self.run(core, message, binding, frame);
        if let Some(Frame::On(mut on)) = frame {
            *actions = on.actions;
            if outcome.is_ok() {
                on.state.finish();
            }
        }
        self.counted(outcome.map(drop)).inspect_err(|_| {
            actions.publish.truncate(published_before);
            actions.records.truncate(records_before);
        })
    }

    /// Runs a `transform` rule.
    pub(crate) fn transform(
        self: &Arc<Self>,
        core: &Core,
        message: &Arc<Message>,
        binding: &Arc<Binding>,
        now: Now,
    ) -> Result<Outcome, Failure> {
        let frame = Frame::Transform(TransformRun {
            rule: Arc::clone(self),
            now,
            message: Arc::clone(message),
            answer: None,
            output_bytes: 0,
            state: core.state_of(&self.program),
        });
        let (outcome, frame) = self.run(core, message, binding, frame);
        let Some(Frame::Transform(mut transform)) = frame else {
            return self.counted(outcome.map(|_| Outcome::Pass));
        };
        let answer = transform.answer.take();
        let outcome = outcome.and_then(|returned| self.outcome(returned, answer));
        if outcome.is_ok() {
            transform.state.finish();
        }
        self.counted(outcome)
    }

    /// Where it notes what of its file's state it changes, where that is to be recorded.
    pub(crate) fn changes(&self) -> Option<&Arc<Changes>> {
        self.program.state.as_ref().and_then(|state| state.changes())
    }

    /// What an operator sees of it.
    pub(crate) fn info(&self) -> RuleInfo {
        RuleInfo {
            name: Arc::clone(&self.name),
            filter: Arc::clone(&self.pattern.text),
            kind: self.kind,
            file: Arc::clone(&self.program.file),
            line: self.position.line().unwrap_or(0),
            runs: self.stats.runs.load(Ordering::Relaxed),
            failures: self.stats.failures.load(Ordering::Relaxed),
            last_failure: self.stats.last_failure.lock().clone(),
        }
    }

    /// Asks whether one more line of this rule may be logged at `unix_ms`.
    pub(crate) fn may_log(&self, unix_ms: u64, lines_per_second_max: u32) -> Logged {
        self.stats.log.ask(unix_ms, lines_per_second_max)
    }

    fn run(
        &self,
        core: &Core,
        message: &Arc<Message>,
        binding: &Arc<Binding>,
        frame: Frame,
    ) -> (Result<Returned, Fault>, Option<Frame>) {
        let msg = Msg { message: Arc::clone(message), binding: Arc::clone(binding) };
        let budget = Budget::of_a_rule(&core.config);
        let (outcome, frame) =
            run(frame, budget, || call(core, &self.program, &self.callback, &mut [Dynamic::from(msg)]));
        let outcome = outcome.unwrap_or_else(|| Err(panicked(self.position)));
        (outcome.map_err(|fault| fault.at_least_at(self.position)), frame)
    }

    fn outcome(&self, returned: Returned, answer: Option<(Answer, Position)>) -> Result<Outcome, Fault> {
        if let Returned::Value(kind) = returned {
            let text = format!(
                "the transform returned {kind}: it answers by calling replace(), several() or drop(), not by \
                 what it returns"
            );
            return Err(Fault::new(FailureKind::BadAnswer, text, self.position));
        }
        Ok(match answer.map(|(answer, _)| answer) {
            None => Outcome::Pass,
            Some(Answer::Replace(draft)) => Outcome::Replace(draft),
            // What an MQTT 5 publisher is told: valid, but not wanted here. It is no matter of rights.
            Some(Answer::Drop(reason)) => {
                Outcome::Drop(Denial::new(ReasonCode::ImplementationSpecificError, reason))
            }
            Some(Answer::Several(drafts)) => Outcome::Several(drafts),
        })
    }

    fn counted<T>(&self, outcome: Result<T, Fault>) -> Result<T, Failure> {
        self.stats.runs.fetch_add(1, Ordering::Relaxed);
        outcome.map_err(|fault| {
            self.stats.failures.fetch_add(1, Ordering::Relaxed);
            let failure = fault.failure(&self.program.file);
            *self.stats.last_failure.lock() = Some(failure.to_string());
            failure
        })
    }
}

/// What a handler returned. The value itself ends with the run, which has the stack for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Returned {
    Nothing,
    /// A value of this kind.
    Value(&'static str),
}

/// Calls a function of `program`. Must be inside a run.
pub(crate) fn call(
    core: &Core,
    program: &Program,
    callback: &FnPtr,
    arguments: &mut [Dynamic],
) -> Result<Returned, Fault> {
    let context = NativeCallContext::new_with_all_fields(
        &core.rhai,
        callback.fn_name(),
        None,
        &program.global,
        Position::NONE,
    );
    let returned = callback.call_raw(&context, None, arguments).or_else(|error| match *error {
        EvalAltResult::Exit(value, _) => Ok(value),
        other => Err(Fault::of_run(other)),
    })?;
    Ok(if returned.is_unit() { Returned::Nothing } else { Returned::Value(kind(&returned)) })
}

/// The fault of a run that made the script engine panic.
pub(crate) fn panicked(position: Position) -> Fault {
    Fault::new(FailureKind::Crash, "the script engine panicked; this is a defect of the broker", position)
}

/// Lets so many lines through per second and counts the others.
#[derive(Debug, Default)]
struct LogGate {
    second: AtomicU64,
    lines: AtomicU32,
    suppressed: AtomicU64,
}

/// Whether a line is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Logged {
    /// Yes; so many before it were not.
    Yes { suppressed: u64 },
    /// No: there were too many in this second.
    No,
}

impl LogGate {
    fn ask(&self, unix_ms: u64, lines_max: u32) -> Logged {
        let second = unix_ms / 1_000;
        if self.second.swap(second, Ordering::Relaxed) != second {
            self.lines.store(0, Ordering::Relaxed);
        }
        if self.lines.fetch_add(1, Ordering::Relaxed) < lines_max {
            return Logged::Yes { suppressed: self.suppressed.swap(0, Ordering::Relaxed) };
        }
        self.suppressed.fetch_add(1, Ordering::Relaxed);
        Logged::No
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_talkative_rule_is_cut_short_and_the_cut_is_told() {
        let gate = LogGate::default();
        let asked: Vec<Logged> = (0..5).map(|_| gate.ask(1_000, 2)).collect();
        let yes = Logged::Yes { suppressed: 0 };
        assert_eq!(asked, [yes, yes, Logged::No, Logged::No, Logged::No]);
        assert_eq!(gate.ask(2_000, 2), Logged::Yes { suppressed: 3 });
    }
}
