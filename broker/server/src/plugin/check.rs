//! `weirmq plugin check`: what a plugin's file is, what it wants, and whether it would load.

use std::io::{self, Write};
use std::time::Duration;

use clap::Args;
use weirmq_core::hook::{HookPoint, HookPoints};
use weirmq_host::{API_VERSION, LoadError, Manifest, Need, PluginConfig, PluginInfo};

use super::{PluginCommandError, Subject};

/// What is checked, and as what.
#[derive(Debug, Args)]
pub(crate) struct Check {
    #[command(flatten)]
    subject: Subject,
}

impl Check {
    /// Checks, and writes what it finds to `out`. What a plugin asks for and is not granted keeps it from loading; without
    /// a configuration nothing can be granted, and the lines that would grant it are what is wanted.
    pub(crate) fn run(&self, out: &mut dyn Write) -> Result<(), PluginCommandError> {
        let (host, plugin) = self.subject.open()?;
        let refused = match host.check(&plugin) {
            Ok(info) => return Ok(write_loaded(out, &info, &plugin)?),
            Err(refused @ LoadError::NotGranted { .. }) => refused,
            Err(error) => return Err(error.into()),
        };
        let found = host.inspect(&plugin)?;
        row(out, "kind", ["wasm"])?;
        row(out, "interface", [API_VERSION])?;
        row(out, "hooks", &found.served)?;
        write_wants(out, &found.imports, &found.asked, &plugin)?;
        write_costs(out, found.bytes, found.compiled_in)?;
        if self.subject.is_configured() {
            return Err(refused.into());
        }
        let secrets: Vec<&String> = plugin.secrets.keys().collect();
        writeln!(out, "it was not started; add to its [[plugin]] table in weirmq.toml what it may have:")?;
        for need in found.asked.needs(&found.imports, &plugin.grant, &secrets) {
            for (_, line) in need.lacking {
                writeln!(out, "  {line}")?;
            }
        }
        Ok(())
    }
}

fn write_loaded(out: &mut dyn Write, info: &PluginInfo, plugin: &PluginConfig) -> io::Result<()> {
    row(out, "plugin", [format!("{} {}", info.plugin, info.version)])?;
    row(out, "kind", [info.kind.name()])?;
    row(out, "interface", [&info.api_version])?;
    row(out, "hooks", info.served())?;
    if info.in_brief != HookPoints::NONE {
        row(out, "in brief", info.in_brief.iter().map(HookPoint::name))?;
    }
    for (point, topics) in [
        (HookPoint::OnPublish, &info.topics),
        (HookPoint::OnDeliver, &info.deliver_topics),
        (HookPoint::Persistence, &info.stored_topics),
    ] {
        if info.hooks.contains(point) {
            row(out, point.name(), topics)?;
        }
    }
    write_wants(out, &info.imports, &info.asked, plugin)?;
    write_costs(out, info.bytes, info.compiled_in)?;
    writeln!(out, "it loads")
}

/// What it imports; and what it asks for and what it is granted, side by side.
fn write_wants(
    out: &mut dyn Write,
    imports: &[String],
    asked: &Manifest,
    plugin: &PluginConfig,
) -> io::Result<()> {
    row(out, "imports", imports)?;
    let secrets: Vec<&String> = plugin.secrets.keys().collect();
    let needs = asked.needs(imports, &plugin.grant, &secrets);
    let needs: Vec<&Need> =
        needs.iter().filter(|need| !(need.asked.is_empty() && need.granted.is_empty())).collect();
    if needs.is_empty() {
        return row(out, "asks for", [""; 0]);
    }
    let width = needs.iter().map(|need| listed(&need.asked).len()).max().unwrap_or_default().max(8);
    writeln!(out, "{:12}{:width$}  granted", "", "asks for")?;
    for need in needs {
        writeln!(out, "{:12}{:width$}  {}", need.what, listed(&need.asked), listed(&need.granted))?;
    }
    Ok(())
}

fn write_costs(out: &mut dyn Write, bytes: u64, compiled_in: Duration) -> io::Result<()> {
    row(out, "size", [format!("{bytes} bytes")])?;
    row(out, "compiled in", [format!("{:.0} ms", compiled_in.as_secs_f64() * 1e3)])
}

fn row<T: AsRef<str>>(
    out: &mut dyn Write,
    name: &str,
    values: impl IntoIterator<Item = T>,
) -> io::Result<()> {
    writeln!(out, "{name:12}{}", listed(values))
}

fn listed<T: AsRef<str>>(values: impl IntoIterator<Item = T>) -> String {
    let values: Vec<String> = values.into_iter().map(|value| value.as_ref().to_owned()).collect();
    if values.is_empty() { "none".to_owned() } else { values.join(", ") }
}
