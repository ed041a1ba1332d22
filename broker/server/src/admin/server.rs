//! The broker's end of the admin socket.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use weirmq_store::Backup;

use weirmq_core::hook::ReasonCode;
use weirmq_host::{Consequence, Whom};

use super::{Answer, LINE_BYTES_MAX, PluginRow, PluginState, Request, RuleRow};
use crate::assemble::{Loaded, Plugin};
use crate::reload::Live;
use crate::signals::Shutdown;

/// How many may ask at a time; others wait.
const CONNECTIONS_MAX: usize = 16;
/// How long one may be silent, or not read.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How long the accept loop pauses when the system has no room for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An admin socket that listens. The file is removed when it is dropped.
pub struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
}

/// Why there is no admin socket.
#[derive(Debug, thiserror::Error)]
#[error("the admin socket {} cannot be opened: {source}; its path may have about 100 bytes, so name a data folder with a shorter one if it has more", path.display())]
pub struct AdminError {
    path: PathBuf,
    source: io::Error,
}

impl AdminSocket {
    /// Listens at `path`, in a data folder that is this process's own: what is there is left over from a broker
    /// that was killed.
    ///
    /// # Errors
    /// [`AdminError`].
    pub fn listen(path: &Path) -> Result<Self, AdminError> {
        let failed = |source| AdminError { path: path.to_owned(), source };
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Answers until `shutdown` is requested.
    pub async fn serve(self, live: Arc<Live>, shutdown: Shutdown) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let accepted = tokio::select! {
                () = shutdown.requested() => return,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let (live, shutdown) = (Arc::clone(&live), shutdown.clone());
                    tokio::spawn(async move {
                        tokio::select! {
                            () = shutdown.requested() => {}
                            ended = converse(stream, live) => {
                                if let Err(error) = ended {
                                    tracing::debug!("admin socket: {error}");
                                }
                            }
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!("admin socket: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn converse(stream: UnixStream, live: Arc<Live>) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = Vec::new();
        let mut limited = (&mut reader).take(LINE_BYTES_MAX);
        let reading = limited.read_until(b'\n', &mut line);
        if tokio::time::timeout(SILENCE_MAX, reading).await.map_err(io::Error::other)?? == 0 {
            return Ok(());
        }
        let live = Arc::clone(&live);
        // Listing is quick, but reloading compiles.
        let answer =
            tokio::task::spawn_blocking(move || answer(&line, &live)).await.map_err(io::Error::other)?;
        let mut text = serde_json::to_vec(&answer)?;
        text.push(b'\n');
        tokio::time::timeout(SILENCE_MAX, writer.write_all(&text)).await.map_err(io::Error::other)??;
    }
}

fn answer(line: &[u8], live: &Live) -> Answer {
    match serde_json::from_slice(line) {
        Ok(Request::Status {}) => status(live),
        Ok(Request::PluginList {}) => {
            Answer::Plugins { plugins: live.assembly().plugins().iter().map(plugin_row).collect() }
        }
        Ok(Request::PluginReload { name }) => reload(live, name),
        Ok(Request::PluginDisable { name }) => set_disabled(live, &name, true),
        Ok(Request::PluginEnable { name }) => set_disabled(live, &name, false),
        Ok(Request::PluginRollback { name }) => roll_back(live, name),
        Ok(Request::ClientDisconnect { id }) => disconnect(live, &id),
        Ok(Request::Revoke { principal, client, end }) => revoke(live, principal, client, end),
        Ok(Request::RulesList {}) => rules(live),
        Ok(Request::Client { id }) => client(live, id),
        Ok(Request::StoreBackup { folder }) => back_up(live, folder),
        Err(error) => Answer::Failed { error: format!("not a request: {error}") },
    }
}

fn status(live: &Live) -> Answer {
    let assembly = live.assembly();
    Answer::Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        connections: live.connections(),
        plugins: assembly.plugins().iter().filter(|plugin| plugin.serving().is_some()).count(),
        rules: assembly.rules().map_or(0, |rules| rules.live().len()),
    }
}

fn client(live: &Live, id: String) -> Answer {
    let Some(info) = live.client(&id) else {
        return Answer::Failed { error: format!("no client '{id}' has a session here") };
    };
    let drops = info.drops.into_iter().filter(|(_, count)| *count > 0);
    Answer::Client {
        id,
        principal: info.principal.to_string(),
        connected: info.connected,
        subscriptions: info.subscriptions,
        pending: info.pending,
        dropped: drops.map(|(reason, count)| (reason.name().to_owned(), count)).collect(),
    }
}

fn back_up(live: &Live, folder: PathBuf) -> Answer {
    let Some(store) = live.store() else {
        let error = match &live.assembly().config().store.backend {
            Some(plugin) => format!(
                "what this broker keeps is in its store backend, the plugin '{plugin}'; copy it with that one's own tools"
            ),
            None => "this broker keeps nothing on a disk: there is nothing to copy".to_owned(),
        };
        return Answer::Failed { error };
    };
    match store.backup(&folder) {
        Ok(Backup { linked, copied, bytes }) => Answer::BackedUp { folder, bytes, linked, copied },
        Err(error) => Answer::Failed { error: error.to_string() },
    }
}

fn reload(live: &Live, name: String) -> Answer {
    match live.reload_plugin(&name) {
        Ok(Loaded::First(info)) => Answer::Reloaded { name, before: None, after: info.version },
        Ok(Loaded::Replaced(change)) => {
            Answer::Reloaded { name, before: Some(change.before.version), after: change.after.version }
        }
        Err(error) => Answer::Failed { error: error.to_string() },
    }
}

fn set_disabled(live: &Live, name: &str, disabled: bool) -> Answer {
    let what = if disabled {
        format!(
            "plugin '{name}' is disabled: its failure policies decide in its place (deny, unless on_failure says \
             otherwise), and it changes nothing; `weirmq plugin enable {name}` takes it back"
        )
    } else {
        format!("plugin '{name}' serves")
    };
    match live.set_plugin_disabled(name, disabled) {
        Ok(()) => Answer::Done { what },
        Err(error) => Answer::Failed { error: error.to_string() },
    }
}

fn roll_back(live: &Live, name: String) -> Answer {
    match live.roll_back_plugin(&name) {
        Ok(change) => {
            Answer::Reloaded { name, before: Some(change.before.version), after: change.after.version }
        }
        Err(error) => Answer::Failed { error: error.to_string() },
    }
}

fn disconnect(live: &Live, id: &str) -> Answer {
    if live.kick(id) {
        tracing::info!(client = id, "an operator has disconnected the client");
        return Answer::Done { what: format!("client '{id}' is disconnected; its session stays") };
    }
    let error = match live.client(id) {
        Some(_) => format!("client '{id}' is not connected"),
        None => format!("no client '{id}' has a session here"),
    };
    Answer::Failed { error }
}

fn revoke(live: &Live, principal: Option<String>, client: Option<String>, end: bool) -> Answer {
    let whom = match (principal, client) {
        (Some(_), Some(_)) => {
            return Answer::Failed { error: "revoke takes a principal or a client, not both".to_owned() };
        }
        (Some(principal), None) => Whom::Principal(principal.into()),
        (None, Some(client)) => Whom::Client(client.into()),
        (None, None) => Whom::Everyone,
    };
    let consequence = if end { Consequence::End(ReasonCode::NotAuthorized) } else { Consequence::AskAgain };
    let sessions = live.revoke(&whom, consequence);
    tracing::info!(?whom, end, sessions, "an operator has revoked what was allowed");
    let follows = if end { "their leases are over" } else { "their subscriptions are authorized again" };
    Answer::Done { what: format!("{sessions} sessions: {follows}") }
}

fn plugin_row(plugin: &Plugin) -> PluginRow {
    let config = plugin.config();
    let absent = PluginRow {
        name: config.name.clone(),
        state: PluginState::NotLoaded,
        version: None,
        kind: None,
        file: config.file.display().to_string(),
        hooks: Vec::new(),
        topics: Vec::new(),
        calls: 0,
        failures: 0,
        reloads: 0,
        error: plugin.absence(),
    };
    let Some(hook) = plugin.serving() else { return absent };
    let (info, stats) = (hook.info(), hook.stats());
    PluginRow {
        state: match (plugin.is_disabled(), stats.quarantined) {
            (true, _) => PluginState::Disabled,
            (false, true) => PluginState::Quarantined,
            (false, false) => PluginState::Serving,
        },
        kind: Some(info.kind.name().to_owned()),
        version: Some(format!("{} {}", info.plugin, info.version)),
        hooks: info.hooks.iter().map(|point| point.name().to_owned()).collect(),
        topics: info.topics,
        calls: stats.calls.iter().map(|(_, count)| count).sum(),
        failures: stats.failures.iter().map(|(_, count)| count).sum(),
        reloads: stats.reloads,
        error: None,
        ..absent
    }
}

fn rules(live: &Live) -> Answer {
    let Some(rules) = live.assembly().rules() else {
        return Answer::Rules { rules: Vec::new(), broken: Vec::new() };
    };
    let row = |rule: weirmq_script::RuleInfo| RuleRow {
        name: rule.name.to_string(),
        kind: rule.kind.to_string(),
        filter: rule.filter.to_string(),
        file: rule.file.to_string(),
        line: rule.line,
        runs: rule.runs,
        failures: rule.failures,
        last_failure: rule.last_failure,
    };
    Answer::Rules {
        rules: rules.live().into_iter().map(row).collect(),
        broken: rules.broken().iter().map(ToString::to_string).collect(),
    }
}
