//! The promises of the broker around its protocol: configuration, reload, admin socket, command line.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that meets what it does not expect should stop there"
)]

mod admin;
mod author;
mod bad_plugins;
mod check;
mod command;
mod config_errors;
mod operating;
mod plugins;
mod quickstart;
mod reload;
mod store_command;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use weirmq::assemble::Assembly;
use weirmq::config::Config;
use weirmq::reload::{Engine as Swapped, Live, LookAgain, Watcher};
use weirmq::signals::{Shutdown, ShutdownTrigger};
use weirmq_core::broker::ClientInfo;
use weirmq_core::hook::{Chains, HookPoint};
use weirmq_host::{Consequence, Whom};

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder with a configuration in it.
struct Folder(TempDir);

impl Folder {
    fn new(config: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write("weirmq.toml", config);
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        // As the watcher reports it, wherever temporary files are.
        self.0.path().canonicalize().unwrap().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// Puts a finished file in the place of `name`, as editors and `mv` do.
    fn rename_over(&self, name: &str, content: impl AsRef<[u8]>) {
        self.write(".unfinished", content);
        std::fs::rename(self.path(".unfinished"), self.path(name)).unwrap();
    }

    fn config_file(&self) -> PathBuf {
        self.path("weirmq.toml")
    }

    fn config(&self) -> Config {
        Config::load(&self.config_file()).unwrap_or_else(|error| panic!("{error}"))
    }
}

/// Stands for the engine: counts the chains that it is given.
struct Engine {
    chains: Mutex<Chains>,
    swaps: watch::Sender<usize>,
}

impl Swapped for Engine {
    fn set_chains(&self, chains: Chains) {
        *self.chains.lock() = chains;
        self.swaps.send_modify(|swaps| *swaps += 1);
    }

    fn connections(&self) -> usize {
        7
    }

    fn client(&self, _: &str) -> Option<ClientInfo> {
        None
    }

    fn kick(&self, client_id: &str) -> bool {
        client_id == "connected"
    }

    fn revoke(&self, whom: &Whom, _: Consequence) -> usize {
        if *whom == Whom::Everyone { 7 } else { 1 }
    }
}

/// An assembly that runs behind an engine that does nothing, with its files watched.
struct Running {
    live: Arc<Live>,
    engine: Arc<Engine>,
    swaps: watch::Receiver<usize>,
    trigger: ShutdownTrigger,
    shutdown: Shutdown,
    look_again: LookAgain,
    watching: JoinHandle<()>,
}

impl Running {
    async fn start(folder: &Folder) -> Self {
        let config = folder.config();
        std::fs::create_dir_all(&config.data_folder).unwrap();
        let assembly = tokio::task::spawn_blocking(|| Assembly::build(config)).await.unwrap();
        let assembly = assembly.unwrap_or_else(|errors| panic!("{errors}"));
        let (sender, swaps) = watch::channel(0);
        let engine = Arc::new(Engine { chains: Mutex::new(assembly.chains()), swaps: sender });
        let live = Live::new(assembly, Arc::clone(&engine) as Arc<dyn Swapped>);
        let (trigger, shutdown) = Shutdown::new();
        let look_again = LookAgain::default();
        let watcher = Watcher::start(Arc::clone(&live), &look_again).unwrap();
        let watching = tokio::spawn(watcher.run(shutdown.clone()));
        Self { live, engine, swaps, trigger, shutdown, look_again, watching }
    }

    /// Waits until the engine was given chains and `wanted` holds.
    async fn until(&mut self, wanted: impl Fn(&Self) -> bool) {
        let waiting = async {
            loop {
                self.swaps.borrow_and_update();
                if wanted(self) {
                    return;
                }
                self.swaps.changed().await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("nothing changed in time");
    }

    fn rules(&self) -> Vec<String> {
        let rules = self.live.assembly().rules().unwrap().live();
        rules.iter().map(|rule| rule.name.to_string()).collect()
    }

    fn hooks_at(&self, point: HookPoint) -> Vec<String> {
        self.engine.chains.lock().at(point).iter().map(|link| link.hook.name().to_owned()).collect()
    }

    async fn end(self) {
        self.trigger.request();
        self.watching.await.unwrap();
    }
}

fn rule(name: &str) -> String {
    format!("on(\"{name}\", \"a/{{b}}\", |msg| {{ publish(`c/${{msg.b}}`, 1); }});\n")
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name).canonicalize().unwrap()
}
