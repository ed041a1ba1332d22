//! `weirmq plugin check`: what a plugin's file is, what it wants, and whether it would load.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use weirmq_core::hook::HookPoint;
use weirmq_host::{Host, HostConfig, HostError, LoadError, PluginConfig, PluginInfo};

use crate::config::{Config, ConfigError};

/// What is checked, and as what.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The plugin: a component, or a shared library
    file: PathBuf,
    /// The configuration whose [[plugin]] of this file says what is granted and passed to it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Without a configuration: load the file though it is a native library, whose code then runs here
    #[arg(long, conflicts_with = "config")]
    allow_native: bool,
}

/// Why the plugin would not load.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("no [[plugin]] in {} has the file {}; name a configuration that has, or none", config.display(), file.display())]
    NotConfigured { config: PathBuf, file: PathBuf },
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("the findings cannot be written: {0}")]
    Write(#[from] io::Error),
}

impl Check {
    /// Checks, and writes what it finds to `out`.
    pub(crate) fn run(&self, out: &mut dyn Write) -> Result<(), CheckError> {
        let (host, plugin) = self.configured()?;
        // Without the caches: checking makes no files, and shows what compiling takes.
        let host = Host::new(HostConfig { cache_folder: None, native_folder: None, ..host })?;
        Ok(write(out, &host.check(&plugin)?)?)
    }

    /// The settings that it would be loaded with.
    fn configured(&self) -> Result<(HostConfig, PluginConfig), CheckError> {
        let Some(file) = &self.config else {
            let host = HostConfig { allow_native: self.allow_native, ..HostConfig::default() };
            return Ok((host, PluginConfig::new("plugin", &self.file)));
        };
        let config = Config::load(file)?;
        let wanted = self.file.canonicalize().ok();
        let plugin = config.plugins.into_iter().find(|plugin| plugin.file.canonicalize().ok() == wanted);
        let plugin = plugin
            .filter(|_| wanted.is_some())
            .ok_or_else(|| CheckError::NotConfigured { config: file.clone(), file: self.file.clone() })?;
        Ok((config.plugin_host, plugin))
    }
}

fn write(out: &mut dyn Write, info: &PluginInfo) -> io::Result<()> {
    let hooks: Vec<&str> = info.hooks.iter().map(HookPoint::name).collect();
    let mut row = |name: &str, values: &[String]| {
        let values = if values.is_empty() { "none".to_owned() } else { values.join(", ") };
        writeln!(out, "{name:12}{values}")
    };
    row("plugin", &[format!("{} {}", info.plugin, info.version)])?;
    row("kind", &[info.kind.name().to_owned()])?;
    row("interface", std::slice::from_ref(&info.api_version))?;
    row("hooks", &[hooks.join(", ")])?;
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
