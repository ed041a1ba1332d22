//! Tests in rule files: `deliver` and the running of them.

use std::sync::Arc;
use std::time::Instant;

use rhai::{Dynamic, Map, Position};
use weirmq_core::hook::Actions;
use weirmq_core::message::{Message, Publisher};
use weirmq_core::record::Record;
use weirmq_core::time::{self, Now};

use crate::convert::{draft, record_value_to_script};
use crate::engine::{Core, RuleSet};
use crate::flow::{Flow, message_of};
use crate::report::TestOutcome;
use crate::rule::{Program, call, panicked};
use crate::run::{Budget, Frame, run, with_frame};
use crate::view::{Answer, Binding, Msg};

/// When a message of a test is received, unless the test says otherwise: 2023-11-14T22:13:20Z.
const RECEIVED_UNIX_MS: u64 = 1_700_000_000_000;

/// A test as a file registered it.
pub(crate) struct TestCase {
    pub(crate) name: String,
    pub(crate) program: Arc<Program>,
    pub(crate) body: rhai::FnPtr,
    pub(crate) position: Position,
}

impl TestCase {
    /// Runs it against `rules`.
    pub(crate) fn run(&self, core: &Arc<Core>, rules: &Arc<RuleSet>) -> TestOutcome {
        let began = Instant::now();
        let core = core.trial();
        let state = core.state_of(&self.program);
        let frame = Frame::Test { core: Arc::clone(&core), rules: Arc::clone(rules), state, lines: 0 };
        let budget = Budget::of_a_file(&core.config);
        let (outcome, _) = run(frame, budget, || call(&core, &self.program, &self.body, &mut []));
        let outcome = outcome.unwrap_or_else(|| Err(panicked(self.position)));
        TestOutcome {
            name: self.name.clone(),
            file: self.program.file.to_string(),
            line: self.position.line().unwrap_or(0),
            failure: outcome.err().map(|fault| fault.at_least_at(self.position).text(&self.program.file)),
            duration: began.elapsed(),
        }
    }
}

/// `deliver(topic, payload, options)`: what the transforms and rules of the folder make of a message.
pub(crate) fn deliver(word: &str, topic: &str, payload: &Dynamic, options: &Map) -> Answer<Map> {
    let Some((core, rules)) = with_frame(|frame| match frame {
        Frame::Test { core, rules, .. } => Some((Arc::clone(core), Arc::clone(rules))),
        _ => None,
    })
    .flatten() else {
        return Err(format!("{word}() can only be called in a test").into());
    };
    let (message, now) = message(topic, payload, options)?;
    let failed = |failure: weirmq_core::hook::Failure| format!("a rule failed: {failure}");
    let mut flow = Flow::new(&core, &rules, now);
    flow.send(Arc::clone(&message), 0).map_err(failed)?;
    let (messages, dropped) = flow.into_messages(&message);
    let mut actions = Actions::default();
    for message in &messages {
        for rule in rules.observers_of(&message.topic) {
            let binding = Arc::new(Binding::new(&message.topic, Some(&rule.pattern)));
            rule.observe(&core, message, &binding, now, &mut actions).map_err(failed)?;
        }
    }
    Ok(outcome(&message, messages, dropped, actions, now))
}

/// The message that a test delivers. It comes from a client.
fn message(topic: &str, payload: &Dynamic, options: &Map) -> Answer<(Arc<Message>, Now)> {
    let mut options = options.clone();
    let mut text = |name: &str, default: &str| match options.remove(name) {
        None => Ok(Arc::from(default)),
        Some(value) => match value.into_immutable_string() {
            Ok(text) => Ok(Arc::from(text.as_str())),
            Err(other) => Err(format!("option {name}: text is needed, not {other}")),
        },
    };
    let publisher =
        Publisher::Client { client_id: text("client_id", "test")?, principal: text("principal", "test")? };
    let unix_ms = match options.remove("time") {
        None => RECEIVED_UNIX_MS,
        Some(value) => value
            .as_int()
            .ok()
            .and_then(|time| u64::try_from(time).ok())
            .ok_or("option time: milliseconds since 1970 are needed")?,
    };
    let now = Now { at: time::Instant::from_micros(0), unix_ms };
    let draft = draft(topic, payload, &options, None)?;
    let message = message_of(draft, publisher, now, None).map_err(|error| error.to_string())?;
    Ok((Arc::new(message), now))
}

fn outcome(
    cause: &Arc<Message>,
    messages: Vec<Arc<Message>>,
    dropped: Option<String>,
    actions: Actions,
    now: Now,
) -> Map {
    let view = |message: Arc<Message>| Dynamic::from(Msg::plain(message));
    let published = actions.publish.into_iter().filter_map(|(rule, draft)| {
        message_of(draft, Publisher::Rule(rule), now, None).ok().map(Arc::new).map(view)
    });
    let published: rhai::Array = published.collect();
    let records: rhai::Array = actions.records.iter().map(record).collect();
    let first = messages.first().map_or(Dynamic::UNIT, |message| view(Arc::clone(message)));
    let messages: rhai::Array = messages.into_iter().map(view).collect();
    let dropped = dropped.map_or(Dynamic::UNIT, Dynamic::from);
    [
        ("original", view(Arc::clone(cause))),
        ("message", first),
        ("messages", messages.into()),
        ("dropped", dropped),
        ("published", published.into()),
        ("records", records.into()),
    ]
    .into_iter()
    .map(|(name, value)| (name.into(), value))
    .collect()
}

fn record(record: &Record) -> Dynamic {
    let fields: Map =
        record.fields.iter().map(|(key, value)| ((&**key).into(), record_value_to_script(value))).collect();
    let map: Map = [
        ("sink".into(), Dynamic::from(record.sink.to_string())),
        ("rule".into(), Dynamic::from(record.rule.to_string())),
        ("fields".into(), fields.into()),
    ]
    .into_iter()
    .collect();
    map.into()
}
