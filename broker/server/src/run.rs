//! `weirmq run`: from a configuration to a broker that runs, and back to silence.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use weirmq_core::broker::{Broker, Settings};
use weirmq_sinks::SinkSet;

use crate::admin::server::{AdminError, AdminSocket};
use crate::assemble::{AssembleErrors, Assembly};
use crate::banner::Banner;
use crate::config::Config;
use crate::data::{DataError, DataFolder};
use crate::durable::{self, Durable, DurableError, Restored};
use crate::logging;
use crate::net::clock::Clock;
use crate::net::listener::{BindError, Listener};
use crate::net::serve::serve;
use crate::outside;
use crate::reload::{Clocked, Live, LookAgain, Watcher};
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
    #[error(transparent)]
    Listen(#[from] BindError),
    /// The store.
    #[error(transparent)]
    Durable(#[from] DurableError),
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
    let opening = config.clone();
    let durable = tokio::task::spawn_blocking(move || Durable::open(&opening)).await??;
    let keys = durable.as_ref().map(Durable::keys);
    let assembly = tokio::task::spawn_blocking(move || Assembly::build_on(config, keys)).await??;
    let config = assembly.config().clone();
    let settings = Settings {
        limits: config.limits.clone(),
        capabilities: config.capabilities.clone(),
        response_information: config.mqtt.response_information.clone(),
        server_reference: config.mqtt.server_reference.clone(),
    };
    let clock = Clock::start();
    let broker = match &durable {
        Some(durable) => Broker::with_journal(settings, assembly.records(), durable.journal()),
        None => Broker::new(settings, assembly.records()),
    };
    if let (Some(durable), Some(rules)) = (&durable, assembly.rules()) {
        durable.keep_state_of(rules.hook())?;
    }
    let (door, desk) = outside::door();
    assembly.connect(Arc::new(door));
    tokio::spawn(desk.serve(Arc::clone(&broker), clock));
    broker.set_chains(assembly.chains());
    let restored = match &durable {
        Some(durable) => Some(bring_back(durable, &broker, assembly.sinks(), clock).await?),
        None => None,
    };
    let live = Live::new(assembly, Arc::new(Clocked { broker: Arc::clone(&broker), clock }));
    if let Some(Durable::Log(store)) = &durable {
        live.keep_in(Arc::clone(store));
    }
    let watcher = Watcher::start(Arc::clone(&live), &look_again)?;
    let admin = AdminSocket::listen(&config.admin_socket())?;
    let listeners = config
        .listeners
        .iter()
        .map(|listener| Listener::bind(&listener.name, listener.address))
        .collect::<Result<Vec<_>, _>>()?;

    let watching = tokio::spawn(watcher.run(shutdown.clone()));
    let answering = tokio::spawn(admin.serve(Arc::clone(&live), shutdown.clone()));
    say(live.assembly(), &listeners, restored);

    let drain_max = Duration::from_secs(config.shutdown.drain_seconds);
    let undrained = serve(broker, durable.clone(), clock, listeners, shutdown.requested(), drain_max).await;
    if undrained > 0 {
        tracing::warn!(connections = undrained, "connections did not end in time; they are cut");
    }

    trigger.request();
    watching.await?;
    answering.await?;
    end_sinks(live.assembly(), Duration::from_secs(config.shutdown.sinks_seconds)).await;
    if let Some(durable) = durable {
        tokio::task::spawn_blocking(move || durable.end()).await?;
    }
    tracing::info!("ended");
    drop(data);
    Ok(())
}

/// Brings back what was kept, and says what that is.
async fn bring_back(
    durable: &Durable,
    broker: &Arc<Broker>,
    sinks: &Arc<SinkSet>,
    clock: Clock,
) -> Result<Restored, RunError> {
    let store = durable.store();
    let (engine, sinks) = (Arc::clone(broker), Arc::clone(sinks));
    let work = move || durable::restore(&*store, &engine, &sinks, clock.now());
    let restored = tokio::task::spawn_blocking(work).await??;
    // Nobody is to find a session whose time was up while the broker was away.
    for work in broker.handle_timeout(clock.now()) {
        tokio::spawn(work);
    }
    if restored != Restored::default() {
        tracing::info!("brought back what was kept: {restored}");
    }
    Ok(restored)
}

/// That nobody reads it is no reason not to run.
fn say(assembly: &Assembly, listeners: &[Listener], restored: Option<Restored>) {
    let listening: Vec<(String, SocketAddr)> =
        listeners.iter().map(|listener| (listener.name().to_owned(), listener.address())).collect();
    let mut out = io::stdout().lock();
    let _ = write!(out, "{}", Banner::new(assembly, &listening, restored)).and_then(|()| out.flush());
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
