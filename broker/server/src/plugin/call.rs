//! `weirmq plugin call`: a hook by hand.

use std::io::{Read, Write};
use std::sync::Arc;

use clap::Args;
use weirmq_core::hook::{Hook, HookPoint};
use weirmq_host::{HOOKS, Host, PluginConfig, PluginHook};

use super::question::{self, QUESTION_BYTES_MAX, Question, QuestionError};
use super::{PluginCommandError, Subject};

/// What is called, and with what.
#[derive(Debug, Args)]
#[command(after_help = examples())]
pub(crate) struct Call {
    #[command(flatten)]
    subject: Subject,
    /// The hook point, such as authenticate
    hook: String,
    /// What it is asked, as JSON; from standard input unless given
    json: Option<String>,
}

fn examples() -> String {
    let lines = HOOKS.map(|hook| format!("  {:15} '{}'", hook.name(), question::example(hook)));
    format!("What each hook is asked:\n{}", lines.join("\n"))
}

impl Call {
    /// Makes the call and writes the answer to `out`.
    pub(crate) fn run(&self, out: &mut dyn Write) -> Result<(), PluginCommandError> {
        let hook = question::hook_named(&self.hook)?;
        let question = Question::parse(hook, &self.text()?)?;
        let (host, config) = self.subject.open()?;
        let plugin = load_serving(&host, &config, hook)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let answer = runtime.block_on(question.ask(&plugin))?;
        Ok(writeln!(out, "{answer:#}")?)
    }

    fn text(&self) -> Result<String, PluginCommandError> {
        if let Some(json) = &self.json {
            return Ok(json.clone());
        }
        let mut text = String::new();
        std::io::stdin().take(QUESTION_BYTES_MAX + 1).read_to_string(&mut text)?;
        if text.len() as u64 > QUESTION_BYTES_MAX {
            return Err(QuestionError::TooLarge.into());
        }
        Ok(text)
    }
}

/// The plugin, if it serves `hook`.
fn load_serving(
    host: &Host,
    config: &PluginConfig,
    hook: HookPoint,
) -> Result<Arc<PluginHook>, PluginCommandError> {
    let plugin = host.load(config)?;
    if plugin.points().contains(hook) {
        return Ok(plugin);
    }
    Err(QuestionError::not_served(&plugin, hook).into())
}
