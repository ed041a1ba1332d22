//! The commands of `weirmq plugin` that need no broker.
//!
//! # Layout
//! - this file: which plugin they are about, and with which settings it is loaded
//! - [`check`]: what it is and what it wants
//! - [`call`]: a hook by hand
//! - [`test`]: many, with what they must answer
//! - [`bench`]: what a call costs
//! - `question`: what hooks are asked, from JSON and back

pub(crate) mod bench;
pub(crate) mod call;
pub(crate) mod check;
mod question;
pub(crate) mod test;

use std::io;
use std::path::PathBuf;

use clap::Args;
use weirmq_host::{Host, HostConfig, HostError, LoadError, PluginConfig};

use crate::config::{Config, ConfigError};

/// Which plugin, and as what it is loaded.
#[derive(Debug, Args)]
pub(crate) struct Subject {
    /// The plugin: a component, or a shared library
    file: PathBuf,
    /// The configuration whose [[plugin]] of this file says what is granted and passed to it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Without a configuration: load the file though it is a native library, whose code then runs here
    #[arg(long, conflicts_with = "config")]
    allow_native: bool,
}

/// Why a command about a plugin's file did not do what it was to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PluginCommandError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("no [[plugin]] in {} has the file {}; name a configuration that has, or none", config.display(), file.display())]
    NotConfigured { config: PathBuf, file: PathBuf },
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Question(#[from] question::QuestionError),
    #[error(transparent)]
    Tests(#[from] test::TestsError),
    #[error("the call failed: {0}")]
    Failed(#[from] weirmq_core::hook::Failure),
    #[error("standard input or output: {0}")]
    Stream(#[from] io::Error),
}

impl Subject {
    /// A host, and the settings that the plugin is to be loaded with on it.
    fn open(&self) -> Result<(Host, PluginConfig), PluginCommandError> {
        let (host, plugin) = self.configured()?;
        // Without the caches: nothing is left behind, and compiling takes what it takes.
        let host = Host::new(HostConfig { cache_folder: None, native_folder: None, ..host })?;
        Ok((host, plugin))
    }

    /// Whether a configuration says what is granted.
    fn is_configured(&self) -> bool {
        self.config.is_some()
    }

    fn configured(&self) -> Result<(HostConfig, PluginConfig), PluginCommandError> {
        let Some(file) = &self.config else {
            let host = HostConfig { allow_native: self.allow_native, ..HostConfig::default() };
            return Ok((host, PluginConfig::new("plugin", &self.file)));
        };
        let config = Config::load(file)?;
        let wanted = self.file.canonicalize().ok();
        let plugin = config.plugins.into_iter().find(|plugin| plugin.file.canonicalize().ok() == wanted);
        let plugin = plugin.filter(|_| wanted.is_some()).ok_or_else(|| {
            PluginCommandError::NotConfigured { config: file.clone(), file: self.file.clone() }
        })?;
        Ok((config.plugin_host, plugin))
    }
}
