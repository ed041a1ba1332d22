//! `weirmq check`: whether a configuration, its plugins, its rules and its sinks are good, without starting.

use std::io::{self, Write};
use std::path::Path;

use weirmq_core::hook::{HookPoint, HookPoints};
use weirmq_host::{Host, HostConfig, HostError, LoadError};
use weirmq_sinks::{Severity, SinkSet};
use weirmq_store::{OpenError, ReadOnlyStore};

use crate::assemble::{in_full, login_fault};
use crate::banner;
use crate::chain;
use crate::config::{Config, Durability};
use crate::data::DataFolder;
use crate::durable::folder_in;

/// Checks all that `file` names and writes what it finds to `out`, a line each: `ok`, `warning` or `error`.
/// Nothing is started and nothing but `out` is written. Answers whether a broker would start and serve all of it.
///
/// # Errors
/// Those of `out`.
pub fn check(file: &Path, out: &mut dyn Write) -> io::Result<bool> {
    let mut findings = Findings { out, errors: 0, warnings: 0 };
    match Config::inspect(file) {
        Err(error) => findings.error(&error.to_string())?,
        Ok((config, problems)) => {
            let good = problems.is_empty();
            for problem in problems {
                let at = problem.at;
                findings.error(&format!("{}:{}:{}: {}", file.display(), at.line, at.column, problem.text))?;
            }
            if let Some(config) = config {
                if good {
                    findings.ok(&format!("configuration {}", file.display()))?;
                }
                if let Some(fault) = DataFolder::fault(&config.data_folder) {
                    findings.error(&fault)?;
                }
                findings.store(&config)?;
                findings.plugins(&config, good)?;
                findings.rules(&config)?;
                findings.sinks(&config)?;
            }
        }
    }
    findings.conclude()
}

/// What loads plugins, without the cache: checking makes no files.
fn host(config: &Config) -> Result<Host, HostError> {
    Host::new(HostConfig { cache_folder: None, native_folder: None, ..config.plugin_host.clone() })
}

struct Findings<'a> {
    out: &'a mut dyn Write,
    errors: usize,
    warnings: usize,
}

impl Findings<'_> {
    /// Whether what is stored can be read, also while a broker runs on it. That there is nothing yet is good.
    fn store(&mut self, config: &Config) -> io::Result<()> {
        if let Some(plugin) = &config.store_backend {
            let host = match host(config) {
                Ok(host) => host,
                Err(error) => return self.error(&error.to_string()),
            };
            // What is in it is not looked at: only one process at a time may have it open.
            return match host.check(plugin) {
                Ok(info) if info.is_store_backend => {
                    self.ok(&format!("store in the plugin {}", banner::info_line(&info)))
                }
                Ok(_) => self.error(&LoadError::NoBackend { plugin: plugin.name.clone() }.to_string()),
                Err(error) => self.error(&error.to_string()),
            };
        }
        let folder = folder_in(&config.data_folder);
        if config.store.durability == Durability::Memory || !folder.exists() {
            return Ok(());
        }
        match ReadOnlyStore::open(&folder) {
            Ok(_) => self.ok(&format!("store {}", folder.display())),
            Err(OpenError::NoStore { .. }) => Ok(()),
            Err(error) => self.error(&format!("the store cannot be opened: {error}")),
        }
    }

    fn plugins(&mut self, config: &Config, config_is_good: bool) -> io::Result<()> {
        if config.plugins.is_empty() {
            return Ok(());
        }
        let host = match host(config) {
            Ok(host) => host,
            Err(error) => return self.error(&error.to_string()),
        };
        let mut points = Vec::new();
        let mut loaded = Vec::new();
        for plugin in &config.plugins {
            match host.check(plugin) {
                Ok(info) => {
                    points.push(info.hooks);
                    self.ok(&format!("plugin {}", banner::info_line(&info)))?;
                    loaded.push(info);
                }
                Err(error) => {
                    // It may be the one that authenticates: that it fails is said already.
                    points.push(HookPoints::NONE.with(HookPoint::Authenticate));
                    self.error(&error.to_string())?;
                }
            }
        }
        match login_fault(config, points.into_iter()) {
            Some(fault) if config_is_good => self.error(&fault.to_string())?,
            _ => {}
        }
        if loaded.len() == config.plugins.len() {
            for line in chain::orders(config, &loaded) {
                self.ok(&line)?;
            }
            for never in chain::unreachable(config, &loaded) {
                self.warning(&never)?;
            }
        }
        Ok(())
    }

    fn warning(&mut self, text: &str) -> io::Result<()> {
        self.warnings += 1;
        writeln!(self.out, "warning: {text}")
    }

    fn rules(&mut self, config: &Config) -> io::Result<()> {
        let Some(rules) = &config.rules else { return Ok(()) };
        let report = match weirmq_script::check(rules.clone()) {
            Ok(report) => report,
            Err(error) => return self.error(&error.to_string()),
        };
        for file in &report.loaded {
            self.ok(&format!("rule file {}", rules.folder.join(file).display()))?;
        }
        for error in &report.errors {
            self.error(&format!("rule {}", in_full(&rules.folder, error)))?;
        }
        Ok(())
    }

    /// The errors among them are found with the configuration.
    fn sinks(&mut self, config: &Config) -> io::Result<()> {
        let problems = SinkSet::check(&config.sinks, &config.data_folder);
        for problem in problems.iter().filter(|problem| problem.severity == Severity::Warning) {
            self.warning(&problem.to_string())?;
        }
        if problems.is_empty() && !config.sinks.is_empty() {
            self.ok("sinks")?;
        }
        Ok(())
    }

    fn ok(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "ok: {text}")
    }

    fn error(&mut self, text: &str) -> io::Result<()> {
        self.errors += 1;
        writeln!(self.out, "error: {text}")
    }

    fn conclude(self) -> io::Result<bool> {
        let Self { out, errors, warnings } = self;
        let counted = |count: usize, what: &str| match count {
            0 => format!("no {what}s"),
            1 => format!("1 {what}"),
            count => format!("{count} {what}s"),
        };
        writeln!(out, "{}, {}", counted(errors, "error"), counted(warnings, "warning"))?;
        Ok(errors == 0)
    }
}
