//! `weirmq run`: from a configuration to a broker that runs, and back to silence.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpListener;
use weirmq_core::hook::Chains;
use weirmq_core::record::Sinks;

use crate::admin::server::{AdminError, AdminSocket};
use crate::assemble::{AssembleErrors, Assembly};
use crate::banner::Banner;
use crate::config::{Config, Listener};
use crate::data::{DataError, DataFolder};
use crate::logging;
use crate::reload::{Broker, Live, LookAgain, Watcher};
use crate::signals::{Shutdown, Signals};

/// Why a broker does not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The logs.
    #[error("the logs cannot be set up: {0}")]
    Log(String),
    /// The runtime.
    #[error("the runtime cannot be started: {0}")]
    Runtime(#[source] io::Error),
    /// Signals.
    #[error("signals cannot be listened to: {0}")]
    Signals(#[source] io::Error),
    /// The data folder.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Plugins, rules, sinks.
    #[error(transparent)]
    Assemble(#[from] AssembleErrors),
    /// A place to listen at.
    #[error("[[listener]] \"{name}\": cannot listen at {address}: {source}")]
    Listen {
        /// The listener.
        name: String,
        /// Its address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The admin socket.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// Watching files.
    #[error("files cannot be watched for changes: {0}")]
    Watch(#[from] notify::Error),
    /// A thread ended early.
    #[error("a task ended before its time: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// Runs the broker of `config` until it is asked to end. Then it takes no more connections, drains those that it
/// has, lets the sinks write or spill what they hold, and returns.
///
/// # Errors
/// [`RunError`]: why it did not start.
pub fn run(config: Config) -> Result<(), RunError> {
    logging::start(&config.log).map_err(RunError::Log)?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("weirmq")
        .thread_stack_size(weirmq_script::WORKER_STACK_BYTES)
        .build()
        .map_err(RunError::Runtime)?
        .block_on(live(config))
}

async fn live(config: Config) -> Result<(), RunError> {
    let (trigger, shutdown) = Shutdown::new();
    let look_again = LookAgain::default();
    let asked = look_again.clone();
    let signals = Signals::listen().map_err(RunError::Signals)?;
    tokio::spawn(signals.obey(trigger.clone(), move || asked.now()));

    let data = DataFolder::open(&config.data_folder)?;
    let assembly = tokio::task::spawn_blocking(move || Assembly::build(config)).await??;
    let config = assembly.config().clone();
    let engine = start_engine(&config, assembly.chains(), assembly.records());
    let live = Live::new(assembly, Arc::clone(&engine) as Arc<dyn Broker>);
    let watcher = Watcher::start(Arc::clone(&live), &look_again)?;
    let admin = AdminSocket::listen(&config.admin_socket())?;
    let sockets = listen(&config.listeners).await?;

    let watching = tokio::spawn(watcher.run(shutdown.clone()));
    let answering = tokio::spawn(admin.serve(Arc::clone(&live), shutdown.clone()));
    say(live.assembly(), &sockets);

    serve(engine, sockets, &config, shutdown).await;

    trigger.request();
    watching.await?;
    answering.await?;
    end_sinks(live.assembly(), Duration::from_secs(config.shutdown.sinks_seconds)).await;
    tracing::info!("ended");
    drop(data);
    Ok(())
}

/// A socket that listens, and the name of its listener.
pub struct Socket {
    /// What hooks and logs call it.
    pub name: Arc<str>,
    /// The socket.
    pub socket: TcpListener,
    /// Where it really listens: the port is chosen where the configuration has 0.
    pub address: SocketAddr,
}

async fn listen(listeners: &[Listener]) -> Result<Vec<Socket>, RunError> {
    let mut sockets = Vec::new();
    for Listener { name, address } in listeners {
        let failed = |source| RunError::Listen { name: name.clone(), address: *address, source };
        let socket = TcpListener::bind(address).await.map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        sockets.push(Socket { name: Arc::from(name.as_str()), socket, address });
    }
    Ok(sockets)
}

/// That nobody reads it is no reason not to run.
fn say(assembly: &Assembly, sockets: &[Socket]) {
    let listening: Vec<(String, SocketAddr)> =
        sockets.iter().map(|socket| (socket.name.to_string(), socket.address)).collect();
    let mut out = io::stdout().lock();
    let _ = write!(out, "{}", Banner::new(assembly, &listening)).and_then(|()| out.flush());
    for (name, address) in listening {
        tracing::info!(listener = name, %address, "listening");
    }
}

async fn end_sinks(assembly: &Assembly, within: Duration) {
    for remains in assembly.sinks().shutdown(within).await.sinks {
        let (sink, file) = (remains.name, remains.file.display());
        let reason = remains.reason.unwrap_or_else(|| "there was no time left".to_owned());
        if remains.lost > 0 {
            tracing::error!(
                sink,
                records = remains.lost,
                "records are lost: {reason}; {file} cannot be written"
            );
        }
        if remains.spilled > 0 {
            tracing::warn!(
                sink,
                records = remains.spilled,
                "records wait in {file} for the next start: {reason}"
            );
        }
    }
}

// ------------------------------------------------------------------------------------------------------------
// CONNECT HERE: the protocol engine. `start_engine` makes it, from the limits, capabilities, chains and sinks;
// `serve` is given the sockets and returns when the last connection is gone or `drain` is over, after `shutdown`
// was requested. `Unconnected` goes when the engine comes.
// ------------------------------------------------------------------------------------------------------------

/// Stands where the engine will: remembers the chains and lets nobody in.
struct Unconnected {
    chains: Mutex<Chains>,
    _sinks: Arc<dyn Sinks>,
}

impl Broker for Unconnected {
    fn set_chains(&self, chains: Chains) {
        *self.chains.lock() = chains;
    }

    fn connections(&self) -> usize {
        0
    }
}

fn start_engine(config: &Config, chains: Chains, sinks: Arc<dyn Sinks>) -> Arc<Unconnected> {
    let _ = (&config.limits, &config.capabilities);
    Arc::new(Unconnected { chains: Mutex::new(chains), _sinks: sinks })
}

async fn serve(engine: Arc<Unconnected>, sockets: Vec<Socket>, config: &Config, shutdown: Shutdown) {
    let _drain = Duration::from_secs(config.shutdown.drain_seconds);
    shutdown.requested().await;
    drop(sockets);
    drop(engine);
}
