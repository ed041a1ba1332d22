//! One run of script code on this thread: its budget, and what it has asked for so far.
//!
//! The script engine is shared by all threads and its words (`publish`, `sink`, ...) are plain functions.
//! What they act upon is the run that is under way on their thread; it is kept here, in thread-local
//! storage, because that costs a run neither an allocation nor a lock. Runs nest: a test delivers messages
//! to rules. Whoever starts a run puts the former one back when it ends, also when it panics.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rhai::{Dynamic, EvalAltResult, FnPtr, Position};
use weirmq_core::hook::{Actions, Draft};
use weirmq_core::message::Message;
use weirmq_core::time::Now;

use crate::config::{Config, LOAD_FACTOR};
use crate::engine::{Core, RuleSet};
use crate::pattern::Pattern;
use crate::report::RuleKind;
use crate::rule::Rule;
use crate::state::{Call, State};

/// What a run may cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    operations_max: u64,
    deadline: Duration,
    stack_bytes: usize,
}

impl Budget {
    /// That of one run of a rule.
    pub(crate) fn of_a_rule(config: &Config) -> Self {
        let stack_bytes = stack_bytes(config);
        Self { operations_max: config.operations_max, deadline: config.deadline(), stack_bytes }
    }

    /// That of the top level of a file, or of a test.
    pub(crate) fn of_a_file(config: &Config) -> Self {
        let factor = LOAD_FACTOR;
        Self {
            operations_max: config.operations_max.saturating_mul(factor.into()),
            deadline: config.deadline().saturating_mul(factor),
            stack_bytes: stack_bytes(config),
        }
    }
}

/// What the words of a run act upon.
pub(crate) enum Frame {
    /// The top level of a file: rules and tests are registered.
    Load { registrations: Vec<Registration>, lines: u32 },
    /// An `on` rule.
    On(OnRun),
    /// A `transform` rule.
    Transform(TransformRun),
    /// A test.
    Test { core: Arc<Core>, rules: Arc<RuleSet>, state: Remembered, lines: u32 },
}

/// A rule or a test as the top level of a file registers it.
pub(crate) struct Registration {
    pub(crate) name: Option<String>,
    pub(crate) what: Registered,
    pub(crate) callback: FnPtr,
    pub(crate) position: Position,
}

/// What is registered.
pub(crate) enum Registered {
    Rule(RuleKind, Pattern),
    Test,
}

/// The run of an `on` rule.
pub(crate) struct OnRun {
    pub(crate) rule: Arc<Rule>,
    pub(crate) now: Now,
    pub(crate) actions: Actions,
    /// How many of the messages and records in `actions` are from others.
    pub(crate) published_before: usize,
    pub(crate) records_before: usize,
    pub(crate) output_bytes: usize,
    pub(crate) state: Remembered,
}

/// The run of a `transform` rule.
pub(crate) struct TransformRun {
    pub(crate) rule: Arc<Rule>,
    pub(crate) now: Now,
    pub(crate) message: Arc<Message>,
    pub(crate) answer: Option<(Answer, Position)>,
    pub(crate) output_bytes: usize,
    pub(crate) state: Remembered,
}

/// The state of the file that a run belongs to, and the run's hold on it from its first word about it.
pub(crate) struct Remembered {
    state: Option<Arc<State>>,
    call: Option<Call>,
}

impl Remembered {
    /// `state`, if the file has any.
    pub(crate) fn new(state: Option<Arc<State>>) -> Self {
        Self { state, call: None }
    }

    /// The state, held until the run ends.
    ///
    /// # Errors
    /// Others had it until the run's deadline.
    pub(crate) fn held(&mut self) -> Result<&mut Call, Box<EvalAltResult>> {
        if self.call.is_none() {
            let state = self.state.as_ref().ok_or("the file has no state: it says nowhere state::")?;
            self.call = state.take(ends);
        }
        self.call.as_mut().ok_or_else(|| Stop::Deadline.error())
    }

    /// What was changed comes true, and others can have the state.
    pub(crate) fn finish(&mut self) {
        if let Some(call) = self.call.take() {
            call.finish();
        }
    }
}

/// What a transform says is to become of its message.
pub(crate) enum Answer {
    Replace(Draft),
    Drop(String),
    Several(Vec<Draft>),
}

impl Answer {
    /// The word that gives it.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Replace(_) => "replace",
            Self::Drop(_) => "drop",
            Self::Several(_) => "several",
        }
    }
}

/// Why a run is stopped. A script cannot catch it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    Operations,
    Deadline,
    Published,
    Records,
    OutputBytes,
    StateKeys,
    StateValue,
    StateBytes,
    StateChanges,
}

impl Stop {
    /// As an error of the script engine.
    pub(crate) fn error(self) -> Box<EvalAltResult> {
        Box::new(EvalAltResult::ErrorTerminated(Dynamic::from(self), Position::NONE))
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Operations => "it did more operations than operations_max allows",
            Self::Deadline => "it ran for longer than deadline_ms allows",
            Self::Published => "it asked for more messages than published_max allows",
            Self::Records => "it asked for more records than records_max allows",
            Self::OutputBytes => "what it asked for has more bytes than output_bytes_max allows",
            Self::StateKeys => "its file's state would have more keys than state_keys_max allows",
            Self::StateValue => "a value for its file's state has more bytes than state_value_bytes_max allows",
            Self::StateBytes => "its file's state would have more bytes than state_bytes_max allows",
            Self::StateChanges => {
                "it changed too much of its file's state at once, or too many former changes are not recorded yet; \
                 the bound is three times state_keys_max and state_bytes_max"
            }
        })
    }
}

/// The clock is read once per this many operations.
const OPERATIONS_PER_LOOK: u64 = 32;

/// So many bytes looked through cost as much as one operation.
const BYTES_PER_OPERATION: usize = 256;

/// A run has at least this much stack: what the parser, the evaluator and the words take.
const STACK_BYTES_MIN: usize = 4 * 1024 * 1024;

/// And this much more for each level to which its limits let it nest arrays and maps in each other: to compare,
/// show or release them takes a call per level (measured: up to 2.2 KB).
const STACK_BYTES_PER_LEVEL: usize = 2_560;

/// How much stack a run under `config` needs.
pub(crate) fn stack_bytes(config: &Config) -> usize {
    let levels = config.array_items_max.saturating_add(config.map_entries_max);
    levels.saturating_mul(STACK_BYTES_PER_LEVEL).saturating_add(STACK_BYTES_MIN)
}

thread_local! {
    static METER: Meter = const { Meter::new() };
    static FRAME: RefCell<Option<Frame>> = const { RefCell::new(None) };
}

/// Runs `work` with `frame` under `budget`. Gives back what it returned, or `None` when it panicked, and
/// the frame as it left it.
pub(crate) fn run<T>(frame: Frame, budget: Budget, work: impl FnOnce() -> T) -> (Option<T>, Option<Frame>) {
    let former_meter = METER.with(|meter| meter.start(budget));
    let former_frame = FRAME.with(|slot| slot.replace(Some(frame)));
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        stacker::maybe_grow(budget.stack_bytes, budget.stack_bytes.saturating_add(STACK_BYTES_MIN), work)
    }));
    let frame = FRAME.with(|slot| slot.replace(former_frame));
    METER.with(|meter| meter.go_on(former_meter));
    (outcome.ok(), frame)
}

/// Lets `act` act upon the run that is under way on this thread; `None` outside of any.
pub(crate) fn with_frame<T>(act: impl FnOnce(&mut Frame) -> T) -> Option<T> {
    FRAME.with(|slot| slot.try_borrow_mut().ok().and_then(|mut frame| frame.as_mut().map(act)))
}

/// Counts one operation; says so when the run is over its budget.
pub(crate) fn tick() -> Option<Stop> {
    METER.with(|meter| meter.count(1))
}

/// When the run is to end.
fn ends() -> Option<Instant> {
    METER.with(|meter| {
        let ends = meter.ends.get().or_else(|| Instant::now().checked_add(meter.deadline.get()));
        meter.ends.set(ends);
        ends
    })
}

/// Counts one operation of a word that makes many values at once.
pub(crate) fn step() -> Result<(), Box<EvalAltResult>> {
    tick().map_or(Ok(()), |stop| Err(stop.error()))
}

/// How many bytes the run may still look through. At least 1, so that what is over is found out.
pub(crate) fn bytes_left() -> usize {
    let operations = METER.with(|meter| meter.operations_max.get().saturating_sub(meter.operations.get()));
    usize::try_from(operations).unwrap_or(usize::MAX).saturating_add(1).saturating_mul(BYTES_PER_OPERATION)
}

/// Counts the looking through `bytes` bytes.
pub(crate) fn charge(bytes: usize) -> Result<(), Box<EvalAltResult>> {
    let operations = bytes / BYTES_PER_OPERATION;
    if operations == 0 {
        return Ok(());
    }
    METER.with(|meter| meter.count(operations as u64)).map_or(Ok(()), |stop| Err(stop.error()))
}

struct Meter {
    operations: Cell<u64>,
    operations_max: Cell<u64>,
    /// When the clock is to be read next.
    look_at: Cell<u64>,
    /// `None` until the clock is read for the first time: most runs end before that and never read it.
    ends: Cell<Option<Instant>>,
    deadline: Cell<Duration>,
}

/// A run that waits for one inside it to end.
struct Paused {
    operations: u64,
    operations_max: u64,
    look_at: u64,
    ends: Option<Instant>,
    deadline: Duration,
}

impl Meter {
    const fn new() -> Self {
        Self {
            operations: Cell::new(0),
            operations_max: Cell::new(u64::MAX),
            look_at: Cell::new(OPERATIONS_PER_LOOK),
            ends: Cell::new(None),
            deadline: Cell::new(Duration::MAX),
        }
    }

    fn start(&self, budget: Budget) -> Paused {
        Paused {
            operations: self.operations.replace(0),
            operations_max: self.operations_max.replace(budget.operations_max),
            look_at: self.look_at.replace(OPERATIONS_PER_LOOK),
            ends: self.ends.replace(None),
            deadline: self.deadline.replace(budget.deadline),
        }
    }

    fn go_on(&self, paused: Paused) {
        self.operations.set(paused.operations);
        self.operations_max.set(paused.operations_max);
        // What ran inside took time: the clock is read with the next operation.
        self.look_at.set(if paused.operations == 0 { paused.look_at } else { paused.operations });
        self.ends.set(paused.ends);
        self.deadline.set(paused.deadline);
    }

    fn count(&self, operations: u64) -> Option<Stop> {
        let count = self.operations.get().saturating_add(operations);
        self.operations.set(count);
        if count < self.look_at.get() && count <= self.operations_max.get() {
            return None;
        }
        self.look(count)
    }

    fn look(&self, count: u64) -> Option<Stop> {
        if count > self.operations_max.get() {
            return Some(Stop::Operations);
        }
        self.look_at.set(count.saturating_add(OPERATIONS_PER_LOOK));
        let now = Instant::now();
        match self.ends.get() {
            None => {
                self.ends.set(now.checked_add(self.deadline.get()));
                None
            }
            Some(ends) => (now > ends).then_some(Stop::Deadline),
        }
    }
}
