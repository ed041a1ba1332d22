//! From a configuration to hooks, rules and sinks, and the chains that they stand in.

use std::fmt;
use std::fs::File;
use std::hash::{DefaultHasher, Hasher};
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use weirmq_core::durable::keys::KeyStore;
use weirmq_core::hook::{Chains, Hook, HookPoint, HookPoints, Link};
use weirmq_core::record::Sinks;
use weirmq_core::topic::TopicError;
use weirmq_host::{Change, Host, HostConfig, HostError, LoadError, Outside, PluginConfig, PluginHook};
use weirmq_script::{Report, ScriptError, ScriptHook};
use weirmq_sinks::{SinkSet, StartError};

use crate::builtin::{Absent, Anonymous, Names};
use crate::config::Config;

/// Everything of a broker that is not its protocol.
///
/// Hooks are asked in this order: `anonymous`, the plugins in the order of the configuration, the rules.
pub struct Assembly {
    config: Config,
    anonymous: ArcSwapOption<Anonymous>,
    host: LazyHost,
    plugins: ArcSwap<Vec<Arc<Plugin>>>,
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
        let host = LazyHost::new(&config, keys);
        let plugins = match noted(host.get_for(&config.plugins), &mut errors).flatten() {
            Some(host) => load_plugins(host, &config, &mut errors),
            None => Vec::new(),
        };
        if errors.is_empty() {
            errors.extend(login_fault(&config, plugins.iter().filter_map(|plugin| plugin.points())));
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
                let anonymous = ArcSwapOption::new(anonymous);
                let plugins = ArcSwap::from_pointee(plugins);
                Ok(Self { config, anonymous, host, plugins, rules, sinks })
            }
            _ => Err(AssembleErrors(errors)),
        }
    }

    /// The chains as they are now. To be built anew after each change, because hook points and what is bound to
    /// topics may be others.
    #[must_use]
    pub fn chains(&self) -> Chains {
        let anonymous = self.anonymous.load_full().map(|hook| Link::new(hook as Arc<dyn Hook>));
        let plugins = self.plugins();
        let plugins = plugins.iter().filter_map(|plugin| plugin.link());
        let rules = self.rules.iter().map(|rules| Link::new(Arc::clone(&rules.hook) as Arc<dyn Hook>));
        Chains::new(anonymous.into_iter().chain(plugins).chain(rules))
    }

    /// Joins the plugins with the broker.
    pub(crate) fn connect(&self, outside: Arc<dyn Outside>) {
        self.host.connect(outside);
    }

    /// Takes over what `wanted` says about plugins and about clients without a name. Loads what is new or another than
    /// before; what does not load leaves things as they were, and is logged. The chains are the caller's to build anew.
    ///
    /// # Errors
    /// Why nothing was taken over: nobody could log in, or everybody could.
    pub(crate) fn adopt(&self, wanted: &Config) -> Result<Adopted, AssembleError> {
        let anonymous = anonymous(wanted)?;
        let host = self.host.get_for(&wanted.plugins)?;
        let before = self.plugins();
        let mut adopted = Adopted::default();
        let mut plugins = Vec::new();
        let former: Vec<Arc<PluginConfig>> = before.iter().map(|plugin| plugin.config()).collect();
        // What keeps the store does so until the end, whatever the file calls it now.
        let is_backend = |config: &&PluginConfig| self.config.store.backend.as_ref() == Some(&config.name);
        for config in wanted.plugins.iter().filter(|config| !is_backend(config)) {
            let known = before.iter().find(|plugin| plugin.config().name == config.name);
            let (plugin, outcome) = match (known, host) {
                (Some(plugin), _) if *plugin.config() == *config => (Arc::clone(plugin), None),
                (Some(plugin), _) if plugin.configure_shadow(config) => (Arc::clone(plugin), None),
                (Some(plugin), _) => (Arc::clone(plugin), Some(plugin.configure(config))),
                (None, Some(host)) => {
                    let (plugin, failed) = Plugin::load(host, config, Lacking::Ignored);
                    let info = plugin.serving().map(|hook| Loaded::First(Box::new(hook.info())));
                    (Arc::new(plugin), failed.map(Err).or(info.map(Ok)))
                }
                (None, None) => continue,
            };
            adopted.outcomes.extend(outcome.map(|outcome| (Arc::clone(&plugin), outcome)));
            plugins.push(plugin);
        }
        // The listeners are those that are open, whatever the file says now.
        let running = Config { auth: wanted.auth.clone(), ..self.config.clone() };
        if let Some(fault) = login_fault(&running, plugins.iter().filter_map(|plugin| plugin.points())) {
            for (plugin, outcome) in &adopted.outcomes {
                if matches!(outcome, Ok(Loaded::Replaced(_))) {
                    plugin.rollback();
                }
            }
            for (plugin, config) in before.iter().zip(former) {
                plugin.config.store(config);
            }
            return Err(fault);
        }
        let stays = |plugin: &Arc<Plugin>| plugins.iter().any(|other| Arc::ptr_eq(plugin, other));
        adopted.removed = before.iter().filter(|plugin| !stays(plugin)).cloned().collect();
        let names = |plugins: &[Arc<Plugin>]| -> Vec<String> {
            plugins.iter().map(|plugin| plugin.config().name.clone()).collect()
        };
        let mut kept = names(&before);
        kept.retain(|name| wanted.plugins.iter().any(|config| config.name == *name));
        let mut order = names(&plugins);
        order.retain(|name| kept.contains(name));
        adopted.reordered = order != kept;
        adopted.anonymous_changed = anonymous.is_some() != self.anonymous.load().is_some();
        self.plugins.store(Arc::new(plugins));
        self.anonymous.store(anonymous);
        Ok(adopted)
    }

    /// What it was built from. What has changed since is in [`Assembly::plugins`].
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The plugins, in the order in which they are asked.
    #[must_use]
    pub fn plugins(&self) -> Arc<Vec<Arc<Plugin>>> {
        self.plugins.load_full()
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

/// The plugin host, started with the first plugin.
struct LazyHost {
    config: HostConfig,
    /// Where the keys and values of plugins are kept; in memory where there is none.
    keys: Option<Arc<dyn KeyStore>>,
    host: OnceLock<Host>,
    outside: OnceLock<Arc<dyn Outside>>,
}

impl LazyHost {
    fn new(config: &Config, keys: Option<Arc<dyn KeyStore>>) -> Self {
        let config = config.plugin_host.clone();
        Self { config, keys, host: OnceLock::new(), outside: OnceLock::new() }
    }

    /// The host, if there are `plugins` for it or were before.
    fn get_for(&self, plugins: &[PluginConfig]) -> Result<Option<&Host>, HostError> {
        if plugins.is_empty() || self.host.get().is_some() {
            return Ok(self.host.get());
        }
        let host = Host::new(self.config.clone())?;
        if let Some(keys) = &self.keys {
            host.keep_keys_in(Arc::clone(keys));
        }
        if let Some(outside) = self.outside.get() {
            host.connect(Arc::clone(outside));
        }
        Ok(Some(self.host.get_or_init(|| host)))
    }

    fn connect(&self, outside: Arc<dyn Outside>) {
        if let Some(host) = self.host.get() {
            host.connect(Arc::clone(&outside));
        }
        // A second one is not the broker's.
        drop(self.outside.set(outside));
    }
}

fn load_plugins(host: &Host, config: &Config, errors: &mut Vec<AssembleError>) -> Vec<Arc<Plugin>> {
    let mut plugins = Vec::new();
    for plugin in &config.plugins {
        let (plugin, failed) = Plugin::load(host, plugin, Lacking::Fails);
        match failed {
            Some(error) if plugin.config().required => errors.push(AssembleError::RequiredPlugin(error)),
            Some(error) => tracing::error!(
                plugin = plugin.config().name,
                "{error}; the broker starts without it and tries again when the file changes; until then its \
                 failure policy applies, which for logins is to deny unless configured otherwise"
            ),
            None => {}
        }
        plugins.push(Arc::new(plugin));
    }
    plugins
}

fn noted<T, E: Into<AssembleError>>(outcome: Result<T, E>, errors: &mut Vec<AssembleError>) -> Option<T> {
    outcome.map_err(|error| errors.push(error.into())).ok()
}

/// What a changed configuration has changed about plugins.
#[derive(Default)]
pub(crate) struct Adopted {
    /// What became of those that are new or configured otherwise.
    pub(crate) outcomes: Vec<(Arc<Plugin>, Result<Loaded, LoadError>)>,
    /// Those that are configured no more.
    pub(crate) removed: Vec<Arc<Plugin>>,
    /// Whether those that stay are asked in another order.
    pub(crate) reordered: bool,
    /// Whether clients without a name are let in now and were not, or the other way round.
    pub(crate) anonymous_changed: bool,
}

/// A plugin's place in the chains, whether it could be loaded or not.
pub struct Plugin {
    /// As it is to be; what serves may be configured as before, where this one did not load.
    config: ArcSwap<PluginConfig>,
    host: Host,
    place: Mutex<Place>,
    /// The content of the file when it was loaded, or tried, last.
    seen: Mutex<Option<Fingerprint>>,
    /// The same of the version in the shadow.
    shadow_seen: Mutex<Option<Fingerprint>>,
    /// Whether an operator has disabled it.
    disabled: AtomicBool,
}

#[derive(Clone)]
enum Place {
    Serving(Arc<PluginHook>),
    Absent(Arc<Absent>, Lacking),
}

/// What it means that a plugin could not be loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lacking {
    /// Its failure policies apply: the broker never ran without it.
    Fails,
    /// The broker goes on without it, as it did before the plugin was configured.
    Ignored,
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
    fn load(host: &Host, config: &PluginConfig, lacking: Lacking) -> (Self, Option<LoadError>) {
        let seen = Fingerprint::of(&config.file);
        let (place, failed) = match host.load(config) {
            Ok(hook) => (Place::Serving(hook), None),
            Err(error) => {
                let absent = Arc::new(Absent::new(config, &error.to_string()));
                (Place::Absent(absent, lacking), Some(error))
            }
        };
        let plugin = Self {
            config: ArcSwap::from_pointee(config.clone()),
            host: host.clone(),
            place: Mutex::new(place),
            seen: Mutex::new(seen),
            shadow_seen: Mutex::new(shadow_fingerprint(config)),
            disabled: AtomicBool::new(false),
        };
        (plugin, failed)
    }

    /// Loads the file anew. What serves goes on serving until the new version does, and when it does not.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub(crate) fn reload(&self) -> Result<Loaded, LoadError> {
        let config = self.config();
        *self.seen.lock() = Fingerprint::of(&config.file);
        *self.shadow_seen.lock() = shadow_fingerprint(&config);
        let place = self.place.lock().clone();
        match place {
            Place::Serving(hook) => {
                hook.reconfigure(&config).map(|change| Loaded::Replaced(Box::new(change)))
            }
            Place::Absent(_, lacking) => match self.host.load(&config) {
                Ok(hook) => {
                    let info = hook.info();
                    *self.place.lock() = Place::Serving(hook);
                    Ok(Loaded::First(Box::new(info)))
                }
                Err(error) => {
                    let absent = Absent::new(&config, &error.to_string());
                    *self.place.lock() = Place::Absent(Arc::new(absent), lacking);
                    Err(error)
                }
            },
        }
    }

    /// Loads it as `config` has it, which is of the same name. Where that fails, what serves goes on serving as it was
    /// configured, and the new configuration is tried again when the file changes.
    ///
    /// # Errors
    /// What is wrong.
    fn configure(&self, config: &PluginConfig) -> Result<Loaded, LoadError> {
        self.config.store(Arc::new(config.clone()));
        self.reload()
    }

    /// Takes over what `config` says where only the shadow is another. Answers whether that is so.
    fn configure_shadow(&self, config: &PluginConfig) -> bool {
        let but_shadow = PluginConfig { shadow: self.config().shadow.clone(), ..config.clone() };
        if *self.config() != but_shadow {
            return false;
        }
        self.config.store(Arc::new(config.clone()));
        self.reload_shadow();
        true
    }

    /// Loads the version in the shadow anew.
    pub(crate) fn reload_shadow(&self) {
        let config = self.config();
        *self.shadow_seen.lock() = shadow_fingerprint(&config);
        if let Some(hook) = self.serving() {
            hook.set_shadow(&config);
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
        Fingerprint::of(&self.config().file).is_some_and(|found| *self.seen.lock() != Some(found))
    }

    /// The same of the file of the version in the shadow.
    pub(crate) fn shadow_file_has_changed(&self) -> bool {
        shadow_fingerprint(&self.config()).is_some_and(|found| *self.shadow_seen.lock() != Some(found))
    }

    /// Its configuration.
    #[must_use]
    pub fn config(&self) -> Arc<PluginConfig> {
        self.config.load_full()
    }

    /// Whether its failure policies apply where it does not serve.
    pub(crate) fn is_missed(&self) -> bool {
        !matches!(&*self.place.lock(), Place::Absent(_, Lacking::Ignored))
    }

    /// The plugin that serves, if one does.
    #[must_use]
    pub fn serving(&self) -> Option<Arc<PluginHook>> {
        match &*self.place.lock() {
            Place::Serving(hook) => Some(Arc::clone(hook)),
            Place::Absent(..) => None,
        }
    }

    /// Why no plugin serves, if none does.
    #[must_use]
    pub fn absence(&self) -> Option<String> {
        match &*self.place.lock() {
            Place::Serving(_) => None,
            Place::Absent(absent, _) => Some(absent.why().to_owned()),
        }
    }

    /// The hook points that it stands at; `None` where it stands in no chain.
    fn points(&self) -> Option<HookPoints> {
        self.link().map(|link| link.hook.points())
    }

    /// As it stands in the chains, if it does.
    fn link(&self) -> Option<Link> {
        let place = self.place.lock();
        match &*place {
            Place::Serving(hook) => {
                let config = hook.config();
                if self.is_disabled() {
                    return Some(config.link(Arc::new(Absent::disabled(&config, hook.points()))));
                }
                Some(config.link(Arc::clone(hook) as Arc<dyn Hook>))
            }
            Place::Absent(absent, Lacking::Fails) => {
                Some(self.config().link(Arc::clone(absent) as Arc<dyn Hook>))
            }
            Place::Absent(_, Lacking::Ignored) => None,
        }
    }
}

fn shadow_fingerprint(config: &PluginConfig) -> Option<Fingerprint> {
    config.shadow.as_ref().and_then(|shadow| Fingerprint::of(&shadow.file))
}

/// Enough of a file's content to tell it from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    bytes: u64,
    hash: u64,
}

impl Fingerprint {
    /// `None` where it cannot be read.
    pub(crate) fn of(file: &Path) -> Option<Self> {
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
