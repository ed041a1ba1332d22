//! From a configuration to hooks, rules and sinks, and the chains that they stand in.

use std::fmt;
use std::fs::File;
use std::hash::{DefaultHasher, Hasher};
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use weirmq_core::durable::keys::KeyStore;
use weirmq_core::hook::{Chains, Hook, HookPoint, HookPoints, Link};
use weirmq_core::record::Sinks;
use weirmq_core::topic::TopicError;
use weirmq_host::{Change, Host, HostError, LoadError, Outside, PluginConfig, PluginHook};
use weirmq_script::{Report, ScriptError, ScriptHook};
use weirmq_sinks::{SinkSet, StartError};

use crate::builtin::{Absent, Anonymous, Names};
use crate::config::Config;

/// Everything of a broker that is not its protocol.
///
/// Hooks are asked in this order: `anonymous`, the plugins in the order of the configuration, the rules.
pub struct Assembly {
    config: Config,
    anonymous: Option<Arc<Anonymous>>,
    host: Option<Host>,
    plugins: Vec<Plugin>,
    rules: Option<Rules>,
    sinks: Arc<SinkSet>,
}

/// One thing that keeps a broker from starting.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// No plugin can be loaded at all.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A plugin without which the broker must not start.
    #[error("{0} (the plugin is required, so the broker does not start without it)")]
    RequiredPlugin(LoadError),
    /// The rules folder or its limits.
    #[error(transparent)]
    Rules(#[from] weirmq_script::LoadError),
    /// A sink.
    #[error(transparent)]
    Sinks(#[from] StartError),
    /// A built-in hook.
    #[error("a built-in filter is wrong: {0}")]
    BuiltIn(#[from] TopicError),
    /// Plugins there are, but none that lets anybody in.
    #[error(
        "nobody could log in: none of the plugins serves authenticate; add one that does (such as login), \
         or let everybody in on loopback with `allow_anonymous = true` in [auth]"
    )]
    NobodyCouldLogIn,
    /// Plugins there are, but none that authenticates, and others than this machine can reach the broker.
    #[error("{}; none of the configured plugins serves authenticate", crate::config::open_to_the_network(*address))]
    OpenToTheNetwork {
        /// Where it was to listen.
        address: SocketAddr,
    },
}

/// Everything that keeps a broker from starting. Never empty.
#[derive(Debug)]
pub struct AssembleErrors(pub Vec<AssembleError>);

impl fmt::Display for AssembleErrors {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        out.write_str(&texts.join("\n"))
    }
}

impl std::error::Error for AssembleErrors {}

impl Assembly {
    /// Loads the plugins, compiles the rules, opens the sinks. Takes as long as that takes: not for a worker of
    /// the broker. To be called within a Tokio runtime, which the sinks use.
    ///
    /// # Errors
    /// Everything that keeps the broker from starting. A plugin that is not required and a rule file that is
    /// broken are logged and do not.
    pub fn build(config: Config) -> Result<Self, AssembleErrors> {
        Self::build_on(config, None)
    }

    /// The same, with the keys and values of plugins kept by `keys`.
    ///
    /// # Errors
    /// Those of [`Assembly::build`].
    pub fn build_on(config: Config, keys: Option<Arc<dyn KeyStore>>) -> Result<Self, AssembleErrors> {
        let mut errors = Vec::new();
        let anonymous = noted(anonymous(&config), &mut errors).flatten();
        let host = noted(start_host(&config, keys), &mut errors).flatten();
        let plugins = host.as_ref().map_or_else(Vec::new, |host| load_plugins(host, &config, &mut errors));
        if errors.is_empty() {
            errors.extend(login_fault(&config, plugins.iter().map(|plugin| plugin.hook().points())));
        }
        let rules = noted(config.rules.clone().map(Rules::load).transpose(), &mut errors).flatten();
        // Last, because this makes files: only for a broker that starts.
        let sinks = if errors.is_empty() {
            noted(SinkSet::start(&config.sinks, &config.data_folder), &mut errors)
        } else {
            None
        };
        match sinks {
            Some(sinks) if errors.is_empty() => {
                warn_of_anonymous_clients(&config);
                Ok(Self { config, anonymous, host, plugins, rules, sinks })
            }
            _ => Err(AssembleErrors(errors)),
        }
    }

    /// The chains as they are now. To be built anew after each change, because hook points and what is bound to
    /// topics may be others.
    #[must_use]
    pub fn chains(&self) -> Chains {
        let anonymous = self.anonymous.iter().map(|hook| Link::new(Arc::clone(hook) as Arc<dyn Hook>));
        let plugins = self.plugins.iter().map(|plugin| plugin.config.link(plugin.hook()));
        let rules = self.rules.iter().map(|rules| Link::new(Arc::clone(&rules.hook) as Arc<dyn Hook>));
        Chains::new(anonymous.chain(plugins).chain(rules))
    }

    /// Joins the plugins with the broker.
    pub(crate) fn connect(&self, outside: Arc<dyn Outside>) {
        if let Some(host) = &self.host {
            host.connect(outside);
        }
    }

    /// What it was built from.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The plugins, in the order in which they are asked.
    #[must_use]
    pub fn plugins(&self) -> &[Plugin] {
        &self.plugins
    }

    /// The rules, where there is a folder for them.
    #[must_use]
    pub fn rules(&self) -> Option<&Rules> {
        self.rules.as_ref()
    }

    /// The sinks.
    #[must_use]
    pub fn sinks(&self) -> &Arc<SinkSet> {
        &self.sinks
    }

    /// The sinks, as the engine sees them.
    #[must_use]
    pub fn records(&self) -> Arc<dyn Sinks> {
        Arc::clone(&self.sinks) as Arc<dyn Sinks>
    }
}

/// Why nobody could log in to a broker whose plugins serve `points`, or everybody could who must not.
#[must_use]
pub fn login_fault(config: &Config, points: impl Iterator<Item = HookPoints>) -> Option<AssembleError> {
    let mut points = points;
    if points.any(|points| points.contains(HookPoint::Authenticate)) {
        return None;
    }
    if let Some(listener) = config.beyond_loopback() {
        return Some(AssembleError::OpenToTheNetwork { address: listener.address });
    }
    (!config.auth.allow_anonymous).then_some(AssembleError::NobodyCouldLogIn)
}

fn anonymous(config: &Config) -> Result<Option<Arc<Anonymous>>, TopicError> {
    if !config.auth.allow_anonymous {
        return Ok(None);
    }
    let names = if config.plugins.is_empty() { Names::Ignored } else { Names::LeftToTheNext };
    Anonymous::new(names).map(|hook| Some(Arc::new(hook)))
}

fn warn_of_anonymous_clients(config: &Config) {
    if let Some(listener) = config.beyond_loopback().filter(|_| config.auth.allow_anonymous) {
        tracing::warn!(
            listener = listener.name,
            address = %listener.address,
            "clients without a user name are let in where others than this machine can reach the broker"
        );
    }
}

fn start_host(config: &Config, keys: Option<Arc<dyn KeyStore>>) -> Result<Option<Host>, HostError> {
    if config.plugins.is_empty() {
        return Ok(None);
    }
    let host = Host::new(config.plugin_host.clone())?;
    if let Some(keys) = keys {
        host.keep_keys_in(keys);
    }
    Ok(Some(host))
}

fn load_plugins(host: &Host, config: &Config, errors: &mut Vec<AssembleError>) -> Vec<Plugin> {
    let mut plugins = Vec::new();
    for plugin in &config.plugins {
        let (plugin, failed) = Plugin::load(host, plugin);
        match failed {
            Some(error) if plugin.config.required => errors.push(AssembleError::RequiredPlugin(error)),
            Some(error) => tracing::error!(
                plugin = plugin.config.name,
                "{error}; the broker starts without it and tries again when the file changes; until then its \
                 failure policy applies, which for logins is to deny unless configured otherwise"
            ),
            None => {}
        }
        plugins.push(plugin);
    }
    plugins
}

fn noted<T, E: Into<AssembleError>>(outcome: Result<T, E>, errors: &mut Vec<AssembleError>) -> Option<T> {
    outcome.map_err(|error| errors.push(error.into())).ok()
}

/// A plugin's place in the chains, whether it could be loaded or not.
pub struct Plugin {
    config: PluginConfig,
    host: Host,
    place: Mutex<Place>,
    /// The content of the file when it was loaded, or tried, last.
    seen: Mutex<Option<Fingerprint>>,
    /// Whether an operator has disabled it.
    disabled: AtomicBool,
}

#[derive(Clone)]
enum Place {
    Serving(Arc<PluginHook>),
    Absent(Arc<Absent>),
}

/// What became of a plugin's place.
#[derive(Debug, Clone)]
pub enum Loaded {
    /// A plugin that was not there serves now.
    First(Box<weirmq_host::PluginInfo>),
    /// Another version serves.
    Replaced(Box<Change>),
}

impl Plugin {
    fn load(host: &Host, config: &PluginConfig) -> (Self, Option<LoadError>) {
        let seen = Fingerprint::of(&config.file);
        let (place, failed) = match host.load(config) {
            Ok(hook) => (Place::Serving(hook), None),
            Err(error) => (Place::Absent(Arc::new(Absent::new(config, &error.to_string()))), Some(error)),
        };
        let plugin = Self {
            config: config.clone(),
            host: host.clone(),
            place: Mutex::new(place),
            seen: Mutex::new(seen),
            disabled: AtomicBool::new(false),
        };
        (plugin, failed)
    }

    /// Loads the file anew. What serves goes on serving until the new version does, and when it does not.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub(crate) fn reload(&self) -> Result<Loaded, LoadError> {
        *self.seen.lock() = Fingerprint::of(&self.config.file);
        let place = self.place.lock().clone();
        match place {
            Place::Serving(hook) => hook.reload().map(|change| Loaded::Replaced(Box::new(change))),
            Place::Absent(_) => match self.host.load(&self.config) {
                Ok(hook) => {
                    let info = hook.info();
                    *self.place.lock() = Place::Serving(hook);
                    Ok(Loaded::First(Box::new(info)))
                }
                Err(error) => {
                    let absent = Absent::new(&self.config, &error.to_string());
                    *self.place.lock() = Place::Absent(Arc::new(absent));
                    Err(error)
                }
            },
        }
    }

    /// Brings back the version that served before. `None` where there is none in memory.
    pub(crate) fn rollback(&self) -> Option<Change> {
        self.serving()?.rollback()
    }

    /// Takes it out of service, or back into it; whatever is loaded stays.
    pub(crate) fn set_disabled(&self, disabled: bool) {
        self.disabled.store(disabled, Ordering::Release);
    }

    /// Whether an operator has disabled it.
    #[must_use]
    pub fn is_disabled(&self) -> bool {
        self.disabled.load(Ordering::Acquire)
    }

    /// Whether the file's content is another than when it was loaded, or tried, last. A file that is gone has
    /// not changed: what serves goes on serving.
    pub(crate) fn file_has_changed(&self) -> bool {
        Fingerprint::of(&self.config.file).is_some_and(|found| *self.seen.lock() != Some(found))
    }

    /// Its configuration.
    #[must_use]
    pub fn config(&self) -> &PluginConfig {
        &self.config
    }

    /// The plugin that serves, if one does.
    #[must_use]
    pub fn serving(&self) -> Option<Arc<PluginHook>> {
        match &*self.place.lock() {
            Place::Serving(hook) => Some(Arc::clone(hook)),
            Place::Absent(_) => None,
        }
    }

    /// Why no plugin serves, if none does.
    #[must_use]
    pub fn absence(&self) -> Option<String> {
        match &*self.place.lock() {
            Place::Serving(_) => None,
            Place::Absent(absent) => Some(absent.why().to_owned()),
        }
    }

    fn hook(&self) -> Arc<dyn Hook> {
        match &*self.place.lock() {
            Place::Serving(hook) if self.is_disabled() => {
                Arc::new(Absent::disabled(&self.config, hook.points()))
            }
            Place::Serving(hook) => Arc::clone(hook) as Arc<dyn Hook>,
            Place::Absent(absent) => Arc::clone(absent) as Arc<dyn Hook>,
        }
    }
}

/// Enough of a file's content to tell it from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fingerprint {
    bytes: u64,
    hash: u64,
}

impl Fingerprint {
    fn of(file: &Path) -> Option<Self> {
        let mut file = File::open(file).ok()?;
        let (mut hasher, mut bytes) = (DefaultHasher::new(), 0);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = file.read(&mut buffer).ok()?;
            if read == 0 {
                return Some(Self { bytes, hash: hasher.finish() });
            }
            bytes += read as u64;
            hasher.write(buffer.get(..read)?);
        }
    }
}

/// The rules folder in service.
pub struct Rules {
    hook: Arc<ScriptHook>,
    /// What is wrong with files of the folder as they stand.
    broken: Mutex<Vec<ScriptError>>,
    folder: std::path::PathBuf,
}

impl Rules {
    fn load(config: weirmq_script::Config) -> Result<Self, weirmq_script::LoadError> {
        let folder = config.folder.clone();
        let (hook, report) = weirmq_script::Engine::load(config)?;
        let rules = Self { hook, broken: Mutex::default(), folder };
        rules.take_note_of(&report);
        Ok(rules)
    }

    /// Reads the folder again.
    pub(crate) fn reload(&self) -> Report {
        let report = self.hook.reload();
        self.take_note_of(&report);
        report
    }

    fn take_note_of(&self, report: &Report) {
        let mut broken = self.broken.lock();
        // What is found again is not told again: a log file in a watched folder would feed itself.
        for error in report.errors.iter().filter(|error| !broken.contains(error)) {
            tracing::error!("rule {}", self.in_full(error));
        }
        *broken = report.errors.iter().chain(&report.still_broken).cloned().collect();
    }

    /// `error` with the way to the file, as editors and terminals open it.
    fn in_full(&self, error: &ScriptError) -> ScriptError {
        in_full(&self.folder, error)
    }

    /// The hook that they are.
    #[must_use]
    pub fn hook(&self) -> &ScriptHook {
        &self.hook
    }

    /// The live rules.
    #[must_use]
    pub fn live(&self) -> Vec<weirmq_script::RuleInfo> {
        self.hook.rules()
    }

    /// What is wrong with files of the folder as they stand.
    #[must_use]
    pub fn broken(&self) -> Vec<ScriptError> {
        self.broken.lock().iter().map(|error| self.in_full(error)).collect()
    }

    /// Where they are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// `error`, found in `folder`, with the whole way to the file.
pub(crate) fn in_full(folder: &Path, error: &ScriptError) -> ScriptError {
    ScriptError { file: folder.join(&error.file).display().to_string(), ..error.clone() }
}
