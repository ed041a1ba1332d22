//! `weirmq plugin check`: what a plugin's file is, what it wants, and whether it would load.

use std::io::{self, Write};

use clap::Args;
use weirmq_core::hook::HookPoint;
use weirmq_host::PluginInfo;

use super::{PluginCommandError, Subject};

/// What is checked, and as what.
#[derive(Debug, Args)]
pub(crate) struct Check {
    #[command(flatten)]
    subject: Subject,
}

impl Check {
    /// Checks, and writes what it finds to `out`.
    pub(crate) fn run(&self, out: &mut dyn Write) -> Result<(), PluginCommandError> {
        let (host, plugin) = self.subject.open()?;
        Ok(write(out, &host.check(&plugin)?)?)
    }
}

fn write(out: &mut dyn Write, info: &PluginInfo) -> io::Result<()> {
    let mut row = |name: &str, values: &[String]| {
        let values = if values.is_empty() { "none".to_owned() } else { values.join(", ") };
        writeln!(out, "{name:12}{values}")
    };
    row("plugin", &[format!("{} {}", info.plugin, info.version)])?;
    row("kind", &[info.kind.name().to_owned()])?;
    row("interface", std::slice::from_ref(&info.api_version))?;
    row("hooks", &[info.served().join(", ")])?;
    for (point, topics) in [
        (HookPoint::OnPublish, &info.topics),
        (HookPoint::OnDeliver, &info.deliver_topics),
        (HookPoint::Persistence, &info.stored_topics),
    ] {
        if info.hooks.contains(point) {
            row(point.name(), topics)?;
        }
    }
    row("imports", &info.imports)?;
    row("asks for", &info.asked.in_words())?;
    row("size", &[format!("{} bytes", info.bytes)])?;
    row("compiled in", &[format!("{:.0} ms", info.compiled_in.as_secs_f64() * 1e3)])?;
    writeln!(out, "it loads")
}
