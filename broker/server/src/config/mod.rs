//! The configuration: one TOML file, or a few words on the command line. What it may say, its defaults, and
//! everything that is wrong with it at once, each with its line.
//!
//! # Layout
//! - `model`: the tables and keys, and their defaults
//! - `limits`: the tables `[limits]` and `[capabilities]`
//! - `document`: the text and where everything in it stands
//! - `error`: what is wrong, in words

mod document;
mod error;
mod limits;
mod model;

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use weirmq_core::broker::text_fault;
use weirmq_core::limits::{Capabilities, Limits};
use weirmq_host::{HostConfig, PluginConfig};
use weirmq_sinks::{SinkSet, SinksConfig};

pub use self::document::Position;
use self::document::{Document, Step};
pub(crate) use self::error::open_to_the_network;
pub use self::error::{ConfigError, Problem};
pub use self::model::{
    Auth, Banner, Durability, LISTENER_DEFAULT, Log, LogFormat, Mqtt, Shutdown, StoreTable,
};

/// The folder for data where nothing else is said.
pub const DATA_FOLDER_DEFAULT: &str = "weirmq-data";

/// The largest configuration that is read.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// A configuration that holds together. Relative paths are resolved.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file that it is from; `None` for a broker without one.
    pub file: Option<PathBuf>,
    /// Where the broker keeps its data, its admin socket and compiled plugins.
    pub data_folder: PathBuf,
    /// Where it listens. Never empty.
    pub listeners: Vec<Listener>,
    /// Who is let in without a plugin.
    pub auth: Auth,
    /// The plugins, in the order in which they are asked.
    pub plugins: Vec<PluginConfig>,
    /// What all plugins share.
    pub plugin_host: HostConfig,
    /// The rules; `None` where there is no table `[rules]`.
    pub rules: Option<weirmq_script::Config>,
    /// The sinks.
    pub sinks: SinksConfig,
    /// The limits.
    pub limits: Limits,
    /// What is turned off.
    pub capabilities: Capabilities,
    /// What MQTT 5 clients are told.
    pub mqtt: Mqtt,
    /// The logs.
    pub log: Log,
    /// How the broker ends.
    pub shutdown: Shutdown,
    /// What it says when it starts.
    pub banner: Banner,
    /// What outlives the process.
    pub store: StoreTable,
    /// The plugin that [`StoreTable::backend`] names. It serves nothing else, and is not among `plugins`.
    pub store_backend: Option<PluginConfig>,
}

/// A place to listen at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// What hooks and logs call it.
    pub name: String,
    /// Where. Port 0 is any that is free.
    pub address: SocketAddr,
}

impl Config {
    /// Reads `file`.
    ///
    /// # Errors
    /// [`ConfigError`] with all that is wrong.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        Self::parse(&read_file(file)?, file)
    }

    /// Reads `text`, which is the content of `file`.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with all that is wrong.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        match read(text, file) {
            (Some(config), problems) if problems.is_empty() => Ok(config),
            (_, problems) => Err(ConfigError::Invalid { file: file.to_owned(), problems }),
        }
    }

    /// Reads what `file` says as far as it makes sense, with all that does not: for looking at, not for running.
    ///
    /// # Errors
    /// [`ConfigError`], where it cannot be read at all.
    pub fn inspect(file: &Path) -> Result<(Option<Self>, Vec<Problem>), ConfigError> {
        Ok(read(&read_file(file)?, file))
    }

    /// The configuration of a bare broker: one listener, no plugins, no rules, no sinks.
    ///
    /// # Errors
    /// [`ConfigError::NobodyCouldLogIn`] and [`ConfigError::OpenToTheNetwork`].
    pub fn bare(
        address: SocketAddr,
        allow_anonymous: bool,
        data_folder: PathBuf,
    ) -> Result<Self, ConfigError> {
        if !address.ip().is_loopback() {
            return Err(ConfigError::OpenToTheNetwork { address });
        }
        if !allow_anonymous {
            return Err(ConfigError::NobodyCouldLogIn { address });
        }
        Ok(Self {
            file: None,
            data_folder,
            listeners: vec![Listener { name: "main".to_owned(), address }],
            auth: Auth { allow_anonymous },
            plugins: Vec::new(),
            plugin_host: HostConfig::default(),
            rules: None,
            sinks: SinksConfig::default(),
            limits: Limits::default(),
            capabilities: Capabilities::default(),
            mqtt: Mqtt::default(),
            log: Log::default(),
            shutdown: Shutdown::default(),
            banner: Banner::default(),
            store: StoreTable::default(),
            store_backend: None,
        })
    }

    /// Where the admin socket is.
    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        crate::admin::socket_in(&self.data_folder)
    }

    /// The tables in which `other` differs, of those that are read once, when the broker starts.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let log_format = !self.log.format_is_given && self.log.format != other.log.format;
        [
            ("data_folder", self.data_folder != other.data_folder),
            ("[[listener]]", self.listeners != other.listeners),
            ("[plugin_host]", self.plugin_host != other.plugin_host),
            ("[rules]", self.rules != other.rules),
            ("[sink]", self.sinks != other.sinks),
            ("[limits]", self.limits != other.limits),
            ("[capabilities]", self.capabilities != other.capabilities),
            ("[mqtt]", self.mqtt != other.mqtt),
            ("[log]", log_format || self.log.level != other.log.level),
            ("[shutdown]", self.shutdown != other.shutdown),
            ("[store]", self.store != other.store),
            ("the [[plugin]] that is the store's backend", self.store_backend != other.store_backend),
        ]
        .into_iter()
        .filter_map(|(table, differs)| differs.then_some(table))
        .collect()
    }

    /// The first listener that others than this machine can reach.
    #[must_use]
    pub fn beyond_loopback(&self) -> Option<&Listener> {
        self.listeners.iter().find(|listener| !listener.address.ip().is_loopback())
    }
}

fn read_file(file: &Path) -> Result<String, ConfigError> {
    let unreadable = |source| ConfigError::Read { file: file.to_owned(), source };
    let mut text = String::new();
    let opened = File::open(file).map_err(unreadable)?;
    opened.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(ConfigError::TooLarge { file: file.to_owned(), bytes_max: FILE_BYTES_MAX });
    }
    Ok(text)
}

/// Everything that can be read of `text`, and what is wrong with it, in the order of the file.
fn read(text: &str, file: &Path) -> (Option<Config>, Vec<Problem>) {
    let mut problems = Vec::new();
    let config = read_noting(text, file, &mut problems);
    problems.sort_by_key(|problem| problem.at);
    problems.dedup();
    (config, problems)
}

fn read_noting(text: &str, file: &Path, problems: &mut Vec<Problem>) -> Option<Config> {
    let document = match Document::parse(text) {
        Ok(document) => document,
        Err((at, text)) => {
            problems.push(Problem { at, text });
            return None;
        }
    };
    let (tables, mistakes) = document.read::<model::Tables>();
    problems.extend(mistakes.iter().map(|mistake| error::explain(&document, mistake)));
    let tables = tables?;
    let checks = Checks { document: &document, tables: &tables, whole: mistakes.is_empty() };
    let listeners = checks.listeners(problems);
    checks.plugin_names(problems);
    checks.numbers(problems);
    checks.store(problems);
    checks.told(problems);
    checks.log(problems);
    checks.somebody_can_log_in(problems);
    let folder = file.parent().unwrap_or(Path::new(""));
    let mut config = tables.resolve(file, folder, listeners);
    config.plugin_host.cache_folder = Some(config.data_folder.join("compiled-plugins"));
    config.plugin_host.native_folder = Some(config.data_folder.join("native-plugins"));
    checks.sinks(&config, problems);
    Some(config)
}

/// What the types leave open.
struct Checks<'a> {
    document: &'a Document<'a>,
    tables: &'a model::Tables,
    /// Whether nothing had to be left out.
    whole: bool,
}

impl Checks<'_> {
    fn problem(&self, path: &document::Path, text: String) -> Problem {
        Problem { at: self.document.position_of(path), text }
    }

    fn listeners(&self, problems: &mut Vec<Problem>) -> Vec<Listener> {
        let mut listeners: Vec<Listener> = Vec::new();
        for (index, table) in self.tables.listener.iter().enumerate() {
            let at = |key: &str| {
                document::Path::of(&["listener"]).then(Step::Index(index)).then(Step::Key(key.to_owned()))
            };
            if table.name.is_empty() || listeners.iter().any(|other| other.name == table.name) {
                let text = format!(
                    "each [[listener]] needs a `name` of its own; \"{}\" is taken or empty",
                    table.name
                );
                problems.push(self.problem(&at("name"), text));
            }
            let address = match model::parse_address(&table.address) {
                Ok(address) => address,
                Err(text) => {
                    problems.push(self.problem(&at("address"), text));
                    continue;
                }
            };
            if address.port() != 0 && listeners.iter().any(|other| other.address == address) {
                let text = format!("another [[listener]] listens at {address} already");
                problems.push(self.problem(&at("address"), text));
            }
            if self.whole && !address.ip().is_loopback() && self.tables.plugin.is_empty() {
                problems.push(self.problem(&at("address"), error::open_to_the_network(address)));
            }
            listeners.push(Listener { name: table.name.clone(), address });
        }
        listeners
    }

    fn plugin_names(&self, problems: &mut Vec<Problem>) {
        let mut seen: Vec<String> = Vec::new();
        for (path, name) in self.document.texts_in_each(&["plugin"], "name") {
            if seen.contains(&name) {
                let text = format!(
                    "another [[plugin]] is called \"{name}\" already; commands and logs name plugins by it, so give one of them another name"
                );
                problems.push(self.problem(&path, text));
            }
            seen.push(name);
        }
    }

    fn numbers(&self, problems: &mut Vec<Problem>) {
        for (table, faults) in
            [("limits", self.tables.limits.faults()), ("capabilities", self.tables.capabilities.faults())]
        {
            for (key, text) in faults {
                problems.push(self.problem(&document::Path::of(&[table, key]), text));
            }
        }
    }

    fn store(&self, problems: &mut Vec<Problem>) {
        let Some(name) = &self.tables.store.backend else { return };
        let at = |key| document::Path::of(&["store", key]);
        // One that had to be left out is complained of already.
        if self.whole && !self.tables.plugin.iter().any(|plugin| plugin.name == *name) {
            let text = format!(
                "no [[plugin]] is called \"{name}\"; `backend` names the one that keeps sessions and messages, or is \
                 left out for the log"
            );
            problems.push(self.problem(&at("backend"), text));
        }
        let durability = self.tables.store.durability;
        if durability != Durability::Fsync {
            let text = format!(
                "`durability` is \"{durability}\", but with a `backend` it is the backend that says what is durable; \
                 leave one of them out"
            );
            problems.push(self.problem(&at("durability"), text));
        }
    }

    /// What clients are told has to be a text of MQTT, and the packet that tells it has more in it.
    fn told(&self, problems: &mut Vec<Problem>) {
        const BYTES_MAX: usize = 1_024;
        let model::Mqtt { response_information, server_reference } = &self.tables.mqtt;
        for (key, text) in
            [("response_information", response_information), ("server_reference", server_reference)]
        {
            let Some(text) = text.as_deref() else { continue };
            let why = match text_fault(text) {
                Some(fault) => fault,
                None if text.len() > BYTES_MAX => format!("it has more than {BYTES_MAX} bytes"),
                None => continue,
            };
            let text = format!("`{key}` in [mqtt] cannot be told to clients: {why}");
            problems.push(self.problem(&document::Path::of(&["mqtt", key]), text));
        }
    }

    fn log(&self, problems: &mut Vec<Problem>) {
        if let Err(why) = crate::logging::check_level(&self.tables.log.level) {
            problems.push(self.problem(&document::Path::of(&["log", "level"]), why));
        }
    }

    /// Only where nothing was left out: what was left out may be what lets somebody in.
    fn somebody_can_log_in(&self, problems: &mut Vec<Problem>) {
        if self.whole && self.tables.plugin.is_empty() && !self.tables.auth.allow_anonymous {
            let text = "nobody could log in: there is no [[plugin]] to check who they are; add one (such as login), \
                        or let everybody in on loopback with `allow_anonymous = true` in [auth]";
            problems.push(self.problem(&document::Path::of(&["auth"]), text.to_owned()));
        }
    }

    fn sinks(&self, config: &Config, problems: &mut Vec<Problem>) {
        let names: Vec<(document::Path, String)> = SinksConfig::KINDS
            .iter()
            .flat_map(|kind| self.document.texts_in_each(&["sink", kind], "name"))
            .collect();
        for found in SinkSet::check(&config.sinks, &config.data_folder) {
            if found.severity == weirmq_sinks::Severity::Error {
                let path = names.iter().rev().find(|(_, name)| *name == found.sink).map(|(path, _)| path);
                let path = path.cloned().unwrap_or_else(|| document::Path::of(&["sink"]));
                problems.push(self.problem(&path, found.to_string()));
            }
        }
    }
}

#[cfg(test)]
mod reference {
    use super::limits::LimitsTable;
    use super::*;

    const REFERENCE: &str = include_str!("../../CONFIG.md");

    fn reference() -> String {
        let blocks = REFERENCE.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
        blocks.collect()
    }

    #[test]
    fn the_reference_names_every_limit_with_its_default() {
        for (key, value) in LimitsTable::default().numbers() {
            assert!(
                REFERENCE.contains(&format!("\n{key} = {value}\n")),
                "{key} = {value} is not in CONFIG.md"
            );
        }
    }

    #[test]
    fn what_the_reference_calls_a_default_is_one() {
        let file = Path::new("weirmq.toml");
        let written = Config::parse(&reference(), file).unwrap_or_else(|error| panic!("{error}"));
        let default =
            Config::parse("[auth]\nallow_anonymous = true", file).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(written.limits, default.limits);
        assert_eq!(written.capabilities, default.capabilities);
        assert_eq!(written.mqtt, default.mqtt);
        assert_eq!(format!("{:?}", written.log), format!("{:?}", default.log));
        assert_eq!(format!("{:?}", written.shutdown), format!("{:?}", default.shutdown));
        assert_eq!(written.data_folder, default.data_folder);
        assert_eq!(written.store, default.store);
        assert_eq!(format!("{:?}", written.listeners), format!("{:?}", default.listeners));
        assert_eq!(written.plugin_host, default.plugin_host);
        let [plugin] = &*written.plugins else { panic!("one plugin") };
        let bare = weirmq_host::PluginConfig::new(&*plugin.name, &plugin.file);
        let but_policies = |config: &weirmq_host::PluginConfig| {
            let mut config = config.clone();
            config.on_failure = Default::default();
            config
        };
        assert_eq!(but_policies(plugin), but_policies(&bare));
        let buffer = |text: &str| {
            let sinks: SinksConfig = toml::from_str(text).unwrap_or_else(|error| panic!("{error}"));
            format!("{:?}", sinks.sqlite)
        };
        let whole = "[[sqlite]]\nname = 'a'\nfile = 'b'";
        let written_buffer = reference()
            .split("[sink.sqlite.buffer]")
            .nth(1)
            .and_then(|rest| rest.split("[[").next())
            .unwrap_or_default()
            .to_owned();
        assert_eq!(buffer(&format!("{whole}\n[sqlite.buffer]{written_buffer}")), buffer(whole));
    }
}
