//! The rules folder as a hook.

use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use weirmq_core::durable::keys::{Changes, KeyStore};
use weirmq_core::hook::{
    Actions, Failure, Hook, HookPoint, HookPoints, Observe, Reply, Transform, Transformed,
};
use weirmq_core::message::Message;
use weirmq_core::time::Now;
use weirmq_core::topic::TopicName;

use crate::config::Config;
use crate::engine::{Core, RuleSet};
use crate::flow::{Bound, Flow};
use crate::load::Folder;
use crate::report::{LoadError, Report, RuleInfo, ScriptError, TestReport};
use crate::rule::Rule;
use crate::state::Restored;
use crate::view::Binding;

/// The rule engine: the way in.
pub struct Engine;

impl Engine {
    /// Compiles all rules of `config.folder`. A file that is broken does not keep the others from being
    /// live: it is in the report.
    ///
    /// # Errors
    /// [`LoadError`] where the folder cannot be read or a limit makes no sense.
    pub fn load(config: Config) -> Result<(Arc<ScriptHook>, Report), LoadError> {
        let (core, folder, report) = read(config)?;
        let live = ArcSwap::from_pointee(folder.rules());
        Ok((Arc::new(ScriptHook { core, folder: Mutex::new(folder), live }), report))
    }
}

/// Whether the rules in `config.folder` are good, without putting them to work. Their top level is run,
/// their tests are not.
///
/// # Errors
/// [`LoadError`] where the folder cannot be read or a limit makes no sense.
pub fn check(config: Config) -> Result<Report, LoadError> {
    read(config).map(|(_, _, report)| report)
}

/// Runs every test in `config.folder`, each against all rules of the folder.
///
/// # Errors
/// [`LoadError`] where the folder cannot be read or a limit makes no sense.
pub fn run_tests(config: Config) -> Result<TestReport, LoadError> {
    let (core, folder, report) = read(config)?;
    let rules = Arc::new(folder.rules());
    let tests = folder.tests().map(|test| test.run(&core, &rules)).collect();
    Ok(TestReport { tests, errors: report.errors })
}

fn read(config: Config) -> Result<(Arc<Core>, Folder, Report), LoadError> {
    let core = Core::new(config)?;
    let mut folder = Folder::default();
    match folder.refresh(&core) {
        Ok(report) => Ok((core, folder, report)),
        Err(source) => Err(LoadError::Folder { folder: core.config.folder.clone(), source }),
    }
}

/// The live rules. Serves [`HookPoint::OnPublish`] with `transform` rules and [`HookPoint::OnMessage`]
/// with `on` rules, of those that are live when a topic is bound: after a [`ScriptHook::reload`] that
/// [changed](Report::changed) something, topics have to be bound anew. What was bound before goes on
/// running as it was.
pub struct ScriptHook {
    core: Arc<Core>,
    folder: Mutex<Folder>,
    live: ArcSwap<RuleSet>,
}

impl ScriptHook {
    /// Reads the folder again. Files whose content is the same are left alone. A file that is broken
    /// leaves its former version live. Reads files and compiles: not to be called on the message path.
    pub fn reload(&self) -> Report {
        let mut folder = self.folder.lock();
        match folder.refresh(&self.core) {
            Ok(report) => {
                if report.changed() {
                    self.live.store(Arc::new(folder.rules()));
                }
                report
            }
            Err(error) => Report { errors: vec![self.unreadable(&error)], ..Report::default() },
        }
    }

    /// Has what rules remember kept in `store` from now on, and reads back what is kept there. To be called once,
    /// before the first topic is bound.
    ///
    /// # Errors
    /// Why it cannot be read back.
    pub fn keep_state_in(&self, store: &Arc<dyn KeyStore>) -> Result<Restored, String> {
        self.core.states.keep_in(store)
    }

    /// The live rules, in their order, with what they have done so far.
    #[must_use]
    pub fn rules(&self) -> Vec<RuleInfo> {
        self.live.load().rules.iter().map(|rule| rule.info()).collect()
    }

    fn unreadable(&self, error: &std::io::Error) -> ScriptError {
        ScriptError {
            file: self.core.config.folder.display().to_string(),
            line: 0,
            column: 0,
            message: format!("the rules folder cannot be read: {error}"),
            kept_old: true,
        }
    }
}

impl Hook for ScriptHook {
    fn name(&self) -> &str {
        "rules"
    }

    fn points(&self) -> HookPoints {
        HookPoints::NONE.with(HookPoint::OnPublish).with(HookPoint::OnMessage)
    }

    fn on_publish(self: Arc<Self>, topic: &TopicName) -> Option<Arc<dyn Transform>> {
        let rules = self.live.load_full();
        let bound = Bound::new(&rules, topic)?;
        let changes = rules.changes_of_transforms();
        Some(Arc::new(BoundTransforms { core: Arc::clone(&self.core), rules, bound, changes }))
    }

    fn on_message(self: Arc<Self>, topic: &TopicName) -> Vec<Arc<dyn Observe>> {
        let rules = self.live.load();
        let bind = |rule: &Arc<Rule>| -> Arc<dyn Observe> {
            Arc::new(BoundRule {
                core: Arc::clone(&self.core),
                rule: Arc::clone(rule),
                binding: Arc::new(Binding::new(topic, Some(&rule.pattern))),
            })
        };
        rules.observers_of(topic).map(bind).collect()
    }
}

/// The transforms of a folder, bound to a topic.
struct BoundTransforms {
    core: Arc<Core>,
    rules: Arc<RuleSet>,
    bound: Bound,
    changes: Vec<Arc<Changes>>,
}

impl Transform for BoundTransforms {
    fn transform(&self, message: &Arc<Message>, now: Now) -> Reply<Transformed> {
        let mut flow = Flow::new(&self.core, &self.rules, now).bound(&self.bound);
        Reply::Now(flow.send(Arc::clone(message), 0).map(|()| flow.into_transformed()))
    }

    fn changes(&self) -> &[Arc<Changes>] {
        &self.changes
    }
}

/// An `on` rule, bound to a topic.
struct BoundRule {
    core: Arc<Core>,
    rule: Arc<Rule>,
    binding: Arc<Binding>,
}

impl Observe for BoundRule {
    fn observe(&self, message: &Arc<Message>, now: Now, actions: &mut Actions) -> Result<(), Failure> {
        self.rule.observe(&self.core, message, &self.binding, now, actions)
    }

    fn changes(&self) -> &[Arc<Changes>] {
        self.rule.changes().map_or(&[], std::slice::from_ref)
    }

    fn name(&self) -> &str {
        &self.rule.name
    }
}
