//! A rules folder of its own for each test, and messages to send through it.

// Each test file uses a part of it.
#![allow(dead_code, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tempfile::TempDir;
use weirmq_core::hook::{Actions, Failure, Hook, Reply, Transformed};
use weirmq_core::message::{Message, Properties, Publisher, QoS};
use weirmq_core::time::{Instant, Now};
use weirmq_core::topic::TopicName;
use weirmq_script::{Config, Engine, Report, ScriptHook};

/// When messages of these tests are received: 2023-11-14T22:13:20Z.
pub const NOW: Now = Now { at: Instant::from_micros(1_000_000), unix_ms: 1_700_000_000_000 };

/// A rules folder that is gone when the test ends.
pub struct Folder {
    folder: TempDir,
}

impl Folder {
    /// With these files.
    pub fn with(files: &[(&str, &str)]) -> Self {
        let made = Self { folder: TempDir::new().unwrap() };
        for (name, source) in files {
            made.write(name, source);
        }
        made
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub fn write(&self, name: &str, source: &str) {
        std::fs::write(self.file(name), source).unwrap();
    }

    pub fn remove(&self, name: &str) {
        std::fs::remove_file(self.file(name)).unwrap();
    }

    /// The default limits, but with a deadline that a debug build on a busy machine does not miss.
    pub fn config(&self) -> Config {
        Config { folder: self.path().to_owned(), deadline_ms: 10_000, ..Config::default() }
    }

    pub fn load(&self) -> (Rules, Report) {
        self.load_with(self.config())
    }

    pub fn load_with(&self, config: Config) -> (Rules, Report) {
        let (hook, report) = Engine::load(config).unwrap();
        (Rules { hook }, report)
    }
}

/// Loads one file that must be good.
pub fn rules(source: &str) -> Rules {
    rules_with(source, |_| {})
}

/// Loads one file that must be good, under limits of its own.
pub fn rules_with(source: &str, limit: impl FnOnce(&mut Config)) -> Rules {
    let folder = Folder::with(&[("rules.rhai", source)]);
    let mut config = folder.config();
    limit(&mut config);
    let (rules, report) = folder.load_with(config);
    assert!(report.is_good(), "{report}");
    rules
}

/// What is wrong with one file, as a report shows it.
pub fn fault(source: &str) -> String {
    let folder = Folder::with(&[("rules.rhai", source)]);
    let (_, report) = folder.load();
    assert_eq!(report.errors.len(), 1, "{source}\n{report}");
    report.errors[0].to_string()
}

/// The live rules, asked as the broker asks.
pub struct Rules {
    pub hook: Arc<ScriptHook>,
}

impl Rules {
    /// What all `on` rules want done about a message, and which failed.
    pub fn observe(&self, message: &Arc<Message>) -> (Actions, Vec<Failure>) {
        let mut actions = Actions::default();
        let bound = Arc::clone(&self.hook).on_message(&message.topic);
        let failures =
            bound.iter().filter_map(|rule| rule.observe(message, NOW, &mut actions).err()).collect();
        (actions, failures)
    }

    /// The same for rules of which none may fail.
    pub fn actions(&self, topic: &str, payload: impl Into<Bytes>) -> Actions {
        let (actions, failures) = self.observe(&message(topic, payload));
        assert_eq!(failures, [], "for {topic}");
        actions
    }

    /// How the one rule that must fail does.
    pub fn failure(&self, topic: &str, payload: impl Into<Bytes>) -> Failure {
        let (actions, mut failures) = self.observe(&message(topic, payload));
        assert_eq!(failures.len(), 1, "{failures:?}");
        assert_eq!(actions, Actions::default(), "what a failed rule had asked for is taken back");
        failures.remove(0)
    }

    /// What the transforms make of a message; `None` when none wants its topic.
    pub fn try_transform(&self, message: &Arc<Message>) -> Option<Result<Transformed, Failure>> {
        let bound = Arc::clone(&self.hook).on_publish(&message.topic)?;
        match bound.transform(message, NOW) {
            Reply::Now(answer) => Some(answer),
            Reply::Later(_) => panic!("a rule does no IO: its answer is there"),
        }
    }

    pub fn transform(&self, topic: &str, payload: impl Into<Bytes>) -> Transformed {
        self.try_transform(&message(topic, payload)).expect("a transform wants the topic").unwrap()
    }
}

/// A message of a client.
pub fn message(topic: &str, payload: impl Into<Bytes>) -> Arc<Message> {
    Arc::new(message_of(topic, payload))
}

pub fn message_of(topic: &str, payload: impl Into<Bytes>) -> Message {
    Message {
        topic: TopicName::new(topic).unwrap(),
        payload: payload.into(),
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: Properties::default(),
        publisher: Publisher::Client { client_id: "sensor-1".into(), principal: "alice".into() },
        received_unix_ms: NOW.unix_ms,
        expires_at: None,
        hops: 0,
    }
}
