//! What changes while the broker runs: rules and plugins, when their files change or somebody asks.
//!
//! Changes are found by watching the folders that the files are in, because editors and `mv` put another file
//! in the place of the one that was watched. What is found waits until the folder has been quiet for a moment;
//! the work is done on a thread for blocking work, never on one that moves messages. A change that turns out to
//! be none (a touched file) does nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{PollWatcher, RecursiveMode};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use weirmq_core::broker::{Broker, ClientInfo};
use weirmq_core::hook::{Chains, Hook, HookPoint};
use weirmq_host::{Change, Consequence, LoadError, Whom};
use weirmq_script::Report;
use weirmq_store::LogStore;

use crate::assemble::{Assembly, Loaded, Plugin};
use crate::net::clock::Clock;
use crate::signals::Shutdown;

/// How long a folder must be quiet before it is read.
const QUIET: Duration = Duration::from_millis(100);
/// How long it is waited for that, at most: under a storm of changes the folder is read this often.
const WAIT_MAX: Duration = Duration::from_millis(500);
/// How often files are looked at where the system does not tell of changes.
const LOOK: Duration = Duration::from_millis(500);

/// The protocol engine, as far as changes are concerned.
pub trait Engine: Send + Sync {
    /// Puts `chains` in the place of those before: messages and connections from now on meet these, what is
    /// bound to topics is bound anew, what was remembered of former answers is forgotten. Connections stay.
    fn set_chains(&self, chains: Chains);

    /// How many clients are connected.
    fn connections(&self) -> usize;

    /// How a client's session is; `None` where it has none.
    fn client(&self, client_id: &str) -> Option<ClientInfo>;

    /// Ends a client's connection in the name of an operator. Answers whether it was connected.
    fn kick(&self, client_id: &str) -> bool;

    /// Takes back what `whom` was allowed. Answers how many sessions it is about.
    fn revoke(&self, whom: &Whom, consequence: Consequence) -> usize;
}

/// The broker with its clock. What follows from a change runs on the runtime that it is made in.
pub(crate) struct Clocked {
    pub(crate) broker: Arc<Broker>,
    pub(crate) clock: Clock,
}

impl Engine for Clocked {
    fn set_chains(&self, chains: Chains) {
        self.broker.set_chains(chains);
    }

    fn connections(&self) -> usize {
        usize::try_from(self.broker.counters().clients_connected.get()).unwrap_or(usize::MAX)
    }

    fn client(&self, client_id: &str) -> Option<ClientInfo> {
        self.broker.client(client_id)
    }

    fn kick(&self, client_id: &str) -> bool {
        let (was_connected, work) = self.broker.kick(client_id, self.clock.now());
        if let Some(work) = work {
            tokio::spawn(work);
        }
        was_connected
    }

    fn revoke(&self, whom: &Whom, consequence: Consequence) -> usize {
        let (sessions, works) = self.broker.revoke(whom, consequence, self.clock.now());
        for work in works {
            tokio::spawn(work);
        }
        sessions
    }
}

/// A broker that runs, and what can be changed about it.
pub struct Live {
    assembly: Assembly,
    broker: Arc<dyn Engine>,
    /// One change at a time, so that the chains of the last are those that stay.
    changing: Mutex<()>,
    /// Where sessions, queues and retained messages are kept, when that is on a disk.
    store: OnceLock<Arc<LogStore>>,
}

/// Why a plugin was not reloaded.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// There is none of that name.
    #[error("no plugin is called '{name}'; {known}")]
    UnknownPlugin {
        /// The name.
        name: String,
        /// Which there are, in words.
        known: String,
    },
    /// It keeps what the broker keeps.
    #[error(
        "plugin '{name}' is the store's backend, which stays as it is while the broker runs; a changed file of it is used from the next start on"
    )]
    IsTheBackend {
        /// The plugin.
        name: String,
    },
    /// There is no version before.
    #[error(
        "plugin '{name}': no other version has served since the broker started, so there is none to go back to"
    )]
    NoVersionBefore {
        /// The plugin.
        name: String,
    },
    /// What is stored would be lost without it.
    #[error(
        "plugin '{name}' serves persistence: without it, messages would be stored in clear and what it has sealed could not be read; take it out of the configuration where that is meant"
    )]
    Keeps {
        /// The plugin.
        name: String,
    },
    /// Nothing serves that could be disabled.
    #[error("plugin '{name}' is not loaded: {why}")]
    NotLoaded {
        /// The plugin.
        name: String,
        /// Why.
        why: String,
    },
    /// The file is not good.
    #[error("{error}; {consequence}")]
    Load {
        /// What is wrong.
        error: LoadError,
        /// What serves instead.
        consequence: &'static str,
    },
}

impl Live {
    /// `assembly`, whose chains `broker` has.
    #[must_use]
    pub fn new(assembly: Assembly, broker: Arc<dyn Engine>) -> Arc<Self> {
        Arc::new(Self { assembly, broker, changing: Mutex::new(()), store: OnceLock::new() })
    }

    /// What is live.
    #[must_use]
    pub fn assembly(&self) -> &Assembly {
        &self.assembly
    }

    /// The broker keeps what must outlive it in `store`. To be said once.
    pub fn keep_in(&self, store: Arc<LogStore>) {
        // A second one is not the broker's.
        drop(self.store.set(store));
    }

    /// Where the broker keeps what must outlive it, when that is on a disk.
    #[must_use]
    pub fn store(&self) -> Option<&LogStore> {
        self.store.get().map(|store| &**store)
    }

    /// How many clients are connected.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.broker.connections()
    }

    /// How a client's session is; `None` where it has none.
    #[must_use]
    pub fn client(&self, client_id: &str) -> Option<ClientInfo> {
        self.broker.client(client_id)
    }

    /// Reads the rules folder again and takes over what has changed. `None` where there is no folder. Reads and
    /// compiles: not for a worker of the broker.
    pub fn reload_rules(&self) -> Option<Report> {
        let _one_at_a_time = self.changing.lock();
        let rules = self.assembly.rules()?;
        let report = rules.reload();
        if report.changed() {
            self.broker.set_chains(self.assembly.chains());
            for (what, files) in
                [("loaded", &report.loaded), ("replaced", &report.replaced), ("removed", &report.removed)]
            {
                if !files.is_empty() {
                    tracing::info!(live = rules.live().len(), "rules {what}: {}", files.join(", "));
                }
            }
        }
        Some(report)
    }

    /// Loads the file of the plugin `name` anew, changed or not. Compiles: not for a worker of the broker.
    ///
    /// # Errors
    /// [`ReloadError`]: what served before goes on serving.
    pub fn reload_plugin(&self, name: &str) -> Result<Loaded, ReloadError> {
        let _one_at_a_time = self.changing.lock();
        self.swap(self.plugin(name)?)
    }

    /// Brings back the version of the plugin `name` that served before, until its file changes again or it is
    /// reloaded.
    ///
    /// # Errors
    /// [`ReloadError`]: what serves goes on serving.
    pub fn roll_back_plugin(&self, name: &str) -> Result<Change, ReloadError> {
        let _one_at_a_time = self.changing.lock();
        let plugin = self.plugin(name)?;
        let change =
            plugin.rollback().ok_or_else(|| ReloadError::NoVersionBefore { name: name.to_owned() })?;
        self.broker.set_chains(self.assembly.chains());
        Ok(change)
    }

    /// Takes the plugin `name` out of service, or back into it. A plugin that is disabled decides nothing: its failure
    /// policies do, which for logins and rights is to deny unless configured otherwise. It changes nothing, and is
    /// told nothing. A restart of the broker enables it.
    ///
    /// # Errors
    /// [`ReloadError`]: everything stays as it was.
    pub fn set_plugin_disabled(&self, name: &str, disabled: bool) -> Result<(), ReloadError> {
        let _one_at_a_time = self.changing.lock();
        let plugin = self.plugin(name)?;
        let Some(hook) = plugin.serving() else {
            let why = plugin.absence().unwrap_or_default();
            return Err(ReloadError::NotLoaded { name: name.to_owned(), why });
        };
        if disabled && hook.points().contains(HookPoint::Persistence) {
            return Err(ReloadError::Keeps { name: name.to_owned() });
        }
        plugin.set_disabled(disabled);
        self.broker.set_chains(self.assembly.chains());
        let state = if disabled { "disabled" } else { "enabled" };
        tracing::warn!(plugin = name, "an operator has {state} the plugin");
        Ok(())
    }

    fn plugin(&self, name: &str) -> Result<&Plugin, ReloadError> {
        if self.assembly.config().store.backend.as_deref() == Some(name) {
            return Err(ReloadError::IsTheBackend { name: name.to_owned() });
        }
        let plugins = self.assembly.plugins();
        plugins
            .iter()
            .find(|plugin| plugin.config().name == name)
            .ok_or_else(|| ReloadError::UnknownPlugin { name: name.to_owned(), known: known_names(plugins) })
    }

    /// Ends a client's connection in the name of an operator. Answers whether it was connected.
    #[must_use]
    pub fn kick(&self, client_id: &str) -> bool {
        self.broker.kick(client_id)
    }

    /// Takes back what `whom` was allowed. Answers how many sessions it is about.
    #[must_use]
    pub fn revoke(&self, whom: &Whom, consequence: Consequence) -> usize {
        self.broker.revoke(whom, consequence)
    }

    /// Loads the plugins whose files have another content than before.
    fn reload_changed_plugins(&self) {
        let _one_at_a_time = self.changing.lock();
        for plugin in self.assembly.plugins() {
            if plugin.file_has_changed() {
                // It is logged there.
                let _ = self.swap(plugin);
            }
        }
    }

    fn swap(&self, plugin: &Plugin) -> Result<Loaded, ReloadError> {
        let name = &plugin.config().name;
        match plugin.reload() {
            Ok(loaded) => {
                // Also where the hook points are the same: answers of the version before may be remembered.
                self.broker.set_chains(self.assembly.chains());
                // That another version serves is logged by the host.
                if let Loaded::First(info) = &loaded {
                    tracing::info!(plugin = name, version = info.version, "the plugin serves now");
                }
                Ok(loaded)
            }
            Err(error) => {
                let consequence = match plugin.serving() {
                    Some(_) => "the version before goes on serving",
                    None => "nothing serves in its place, and its failure policy applies",
                };
                tracing::error!(plugin = name, "{error}; {consequence}");
                Err(ReloadError::Load { error, consequence })
            }
        }
    }

    /// Does everything that may have to be done.
    fn catch_up(&self) {
        self.reload_rules();
        self.reload_changed_plugins();
    }

    /// The folders whose changes matter.
    fn folders(&self) -> BTreeSet<PathBuf> {
        let rules = self.assembly.rules().map(|rules| rules.folder().to_owned());
        let plugins = self.assembly.plugins().iter().flat_map(|plugin| folders_of(&plugin.config().file));
        rules.into_iter().chain(plugins).collect()
    }
}

fn known_names(plugins: &[Plugin]) -> String {
    if plugins.is_empty() {
        return "no plugin is configured".to_owned();
    }
    let names: Vec<&str> = plugins.iter().map(|plugin| plugin.config().name.as_str()).collect();
    format!("there are: {}", names.join(", "))
}

/// The folder that `file` is in, and the one that it is really in where it is a symbolic link.
fn folders_of(file: &Path) -> impl Iterator<Item = PathBuf> {
    let real = file.canonicalize().ok().and_then(|real| real.parent().map(Path::to_owned));
    let named = file.parent().map(Path::to_owned);
    named.into_iter().chain(real)
}

/// Watches files and asks for what has changed to be taken over. Watching ends when it is dropped.
pub struct Watcher {
    watcher: Box<dyn notify::Watcher + Send>,
    live: Arc<Live>,
    signs: Arc<Signs>,
    /// The folders that could not be watched when it was tried last.
    unwatched: BTreeSet<PathBuf>,
}

/// Asks a [`Watcher`] to look again, whatever the files seem to be like. Made before it; cheap to clone.
#[derive(Clone, Default)]
pub struct LookAgain(Arc<Signs>);

impl LookAgain {
    /// Asks.
    pub fn now(&self) {
        self.0.something_changed(false);
    }
}

/// Signs of change that nobody has looked into yet. They are counted as one, so a storm takes no room.
#[derive(Default)]
struct Signs {
    folders_replaced: Mutex<bool>,
    wake: Notify,
}

impl Signs {
    fn something_changed(&self, folder_replaced: bool) {
        if folder_replaced {
            *self.folders_replaced.lock() = true;
        }
        self.wake.notify_one();
    }

    /// Waits until nothing more has changed for a moment; not for ever.
    async fn wait_for_quiet(&self) {
        let end = Instant::now() + WAIT_MAX;
        while Instant::now() < end {
            let quiet = end.min(Instant::now() + QUIET);
            if tokio::time::timeout_at(quiet, self.wake.notified()).await.is_err() {
                return;
            }
        }
    }
}

impl Watcher {
    /// Starts to watch the files of `live`. What changes from now on is noticed once [`Watcher::run`] runs, and
    /// what `look_again` asks for, too.
    ///
    /// # Errors
    /// What the system says where files cannot be watched in any way. A folder that is not there is logged.
    pub fn start(live: Arc<Live>, look_again: &LookAgain) -> notify::Result<Self> {
        let signs = Arc::clone(&look_again.0);
        let watcher = watcher(&signs, &live.folders())?;
        let mut watcher = Self { watcher, live, signs, unwatched: BTreeSet::new() };
        watcher.watch_folders();
        Ok(watcher)
    }

    /// Takes changes over until `shutdown` is requested.
    pub async fn run(mut self, shutdown: Shutdown) {
        loop {
            tokio::select! {
                () = shutdown.requested() => return,
                () = self.signs.wake.notified() => self.signs.wait_for_quiet().await,
            }
            if std::mem::take(&mut *self.signs.folders_replaced.lock()) {
                self.watch_folders();
            }
            let live = Arc::clone(&self.live);
            if let Err(error) = tokio::task::spawn_blocking(move || live.catch_up()).await {
                tracing::error!("taking changes over: {error}");
            }
        }
    }

    /// Watches each folder, and the one above it for the folder itself to be replaced.
    fn watch_folders(&mut self) {
        let folders = self.live.folders();
        let above: BTreeSet<PathBuf> =
            folders.iter().filter_map(|folder| folder.parent()).map(Path::to_owned).collect();
        for folder in folders.union(&above) {
            // A watch on a folder that was moved away follows it: off with the old one.
            let _ = self.watcher.unwatch(folder);
            match self.watcher.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.unwatched.remove(folder);
                }
                // Told once; where the folder comes back, the one above it tells.
                Err(error) if folders.contains(folder) && self.unwatched.insert(folder.clone()) => {
                    tracing::warn!(
                        "changes in {} are not noticed: {error}; SIGHUP has them looked for",
                        folder.display()
                    );
                }
                Err(_) => {}
            }
        }
    }
}

/// The system's own way to watch; where that is not to be had, such as for a limit on it, looking every moment.
fn watcher(
    signs: &Arc<Signs>,
    folders: &BTreeSet<PathBuf>,
) -> notify::Result<Box<dyn notify::Watcher + Send>> {
    match notify::recommended_watcher(note_into(Arc::clone(signs), folders.clone())) {
        Ok(watcher) => Ok(Box::new(watcher)),
        Err(error) => {
            tracing::warn!(
                "the system does not tell of changed files ({error}): looking at them every {LOOK:?}"
            );
            Ok(Box::new(looking_watcher(signs, folders)?))
        }
    }
}

fn looking_watcher(signs: &Arc<Signs>, folders: &BTreeSet<PathBuf>) -> notify::Result<PollWatcher> {
    // By content, because it tells times apart by the second only.
    let config = notify::Config::default().with_poll_interval(LOOK).with_compare_contents(true);
    PollWatcher::new(note_into(Arc::clone(signs), folders.clone()), config)
}

/// What is done with each event: the signs of change among them are noted.
fn note_into(
    signs: Arc<Signs>,
    folders: BTreeSet<PathBuf>,
) -> impl Fn(notify::Result<notify::Event>) + Send + 'static {
    move |event| match event {
        Ok(event) => {
            if let Some(replaced) = sign_of(&event, &folders) {
                signs.something_changed(replaced);
            }
        }
        Err(error) => {
            tracing::warn!("watching files: {error}");
            signs.something_changed(true);
        }
    }
}

/// Whether `event` may matter; and if it does, whether a watched folder itself was replaced.
fn sign_of(event: &notify::Event, folders: &BTreeSet<PathBuf>) -> Option<bool> {
    // Opening and reading are events too, and reading is what follows from an event.
    let only_read =
        matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write));
    if event.need_rescan() {
        return Some(true);
    }
    if only_read {
        return None;
    }
    let replaced = event.paths.iter().any(|path| folders.contains(path));
    let within = event.paths.iter().any(|path| path.parent().is_some_and(|folder| folders.contains(folder)));
    (replaced || within).then_some(replaced)
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, Event, ModifyKind, RenameMode};

    use super::*;

    #[test]
    fn what_only_reads_is_no_sign_and_a_new_folder_is_watched_anew() {
        let folders = BTreeSet::from([PathBuf::from("/a/rules")]);
        let sign = |kind: EventKind, path: &str| sign_of(&Event::new(kind).add_path(path.into()), &folders);
        let renamed = EventKind::Modify(ModifyKind::Name(RenameMode::To));
        let created = EventKind::Create(CreateKind::Any);
        let opened = EventKind::Access(AccessKind::Open(AccessMode::Any));
        let written = EventKind::Access(AccessKind::Close(AccessMode::Write));
        assert_eq!(sign(opened, "/a/rules/x.rhai"), None);
        assert_eq!(sign(written, "/a/rules/x.rhai"), Some(false));
        assert_eq!(sign(renamed, "/a/rules/x.rhai"), Some(false));
        assert_eq!(sign(created, "/a/rules"), Some(true));
        assert_eq!(sign(created, "/a/other"), None);
    }

    #[tokio::test]
    async fn where_the_system_does_not_tell_changes_are_seen_by_looking() {
        use notify::Watcher as _;
        let folder = tempfile::tempdir().unwrap();
        let signs = Arc::new(Signs::default());
        let folders = BTreeSet::from([folder.path().to_owned()]);
        let mut watcher = looking_watcher(&signs, &folders).unwrap();
        watcher.watch(folder.path(), RecursiveMode::NonRecursive).unwrap();
        std::fs::write(folder.path().join("a.rhai"), "1").unwrap();
        tokio::time::timeout(Duration::from_secs(60), signs.wake.notified()).await.unwrap();
    }
}
