//! The brokers: how they are configured, started, ended.
//!
//! Each is set so that it neither drops nor refuses what the loads send, and is otherwise as it comes. What is
//! set is in the three texts below; `benches/README.md` says why.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::load::LoadError;

const START_MAX: Duration = Duration::from_secs(20);
const END_MAX: Duration = Duration::from_secs(10);
/// The standard library can only look whether a process has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// One of those that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Weirmq,
    /// With plugins and rules that want other topics.
    Hooked,
    /// With a plugin that looks at every message and changes none.
    Passing,
    /// With a plugin that puts another in the place of every message.
    Replacing,
    Mosquitto,
    Rumqttd,
}

impl Kind {
    /// As the table calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Weirmq => "WeirMQ",
            Self::Hooked => "WeirMQ with hooks",
            Self::Passing => "WeirMQ with a transform that passes",
            Self::Replacing => "WeirMQ with a transform that replaces",
            Self::Mosquitto => "mosquitto",
            Self::Rumqttd => "rumqttd",
        }
    }
}

/// A broker that can be started.
#[derive(Debug, Clone)]
pub(super) struct Broker {
    pub(super) kind: Kind,
    pub(super) program: PathBuf,
    /// A plugin for it to load.
    pub(super) plugin: Option<PathBuf>,
}

/// A broker that runs, alone. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    v311: SocketAddr,
    v5: SocketAddr,
    log: PathBuf,
    _folder: TempDir,
}

impl Broker {
    /// Starts it on a free port of the loopback, its files in a new folder below `below`.
    pub(super) fn start(&self, below: &Path) -> Result<Running, LoadError> {
        let failed = |what: &str| LoadError::io(format!("{}: {what}", self.kind.name()));
        let folder = TempDir::new_in(below).map_err(failed("temporary folder"))?;
        let v311 = free_address().map_err(failed("free port"))?;
        let v5 = if self.kind == Kind::Rumqttd { free_address().map_err(failed("free port"))? } else { v311 };
        // rumqttd goes by the ending.
        let config = folder.path().join("broker.toml");
        fs::write(&config, self.config(folder.path(), v311, v5)).map_err(failed("configuration"))?;
        if self.kind == Kind::Hooked {
            write_rules(&folder.path().join("rules")).map_err(failed("rules"))?;
        }
        let log = folder.path().join("log");
        let out = File::create(&log).map_err(failed("log"))?;
        let child = self
            .command(&config)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(out.try_clone().map_err(failed("log"))?)
            .stderr(out)
            .spawn()
            .map_err(failed(&self.program.display().to_string()))?;
        let mut running = Running { child, v311, v5, log, _folder: folder };
        for address in [v311, v5] {
            running.wait_until_it_listens(address, self.kind)?;
        }
        Ok(running)
    }

    fn command(&self, config: &Path) -> Command {
        let mut command = Command::new(&self.program);
        match self.kind {
            Kind::Weirmq | Kind::Hooked | Kind::Passing | Kind::Replacing => {
                command.args(["run", "--config"])
            }
            Kind::Mosquitto => command.arg("-c"),
            Kind::Rumqttd => command.args(["--quiet", "--config"]),
        }
        .arg(config);
        command
    }

    fn config(&self, folder: &Path, v311: SocketAddr, v5: SocketAddr) -> String {
        match self.kind {
            Kind::Weirmq => weirmq_config(folder, v311),
            Kind::Hooked => weirmq_config(folder, v311) + &hooks_config(folder, self.plugin.as_deref()),
            Kind::Passing => weirmq_config(folder, v311) + &transform_config(self.plugin.as_deref(), false),
            Kind::Replacing => weirmq_config(folder, v311) + &transform_config(self.plugin.as_deref(), true),
            Kind::Mosquitto => mosquitto_config(v311),
            Kind::Rumqttd => rumqttd_config(v311, v5),
        }
    }
}

/// As `weirmq run --listen ADDRESS --allow-anonymous`, but for the pace of new connections, which by default is held
/// below what churn wants to see, and for the store: the others keep nothing either.
fn weirmq_config(folder: &Path, address: SocketAddr) -> String {
    let data = folder.join("data");
    format!(
        "data_folder = {data:?}\n[[listener]]\naddress = \"{address}\"\n[auth]\nallow_anonymous = true\n\
         [store]\ndurability = \"memory\"\n[limits]\nconnect_rate_max = 1000000\n[log]\nlevel = \"warn\"\n"
    )
}

/// How many plugins and rules want other topics.
const PLUGINS: usize = 20;
const RULES: usize = 1_000;

/// The plugin wants messages of the topics that it is told.
fn hooks_config(folder: &Path, plugin: Option<&Path>) -> String {
    let mut text = format!("[rules]\nfolder = {:?}\n", folder.join("rules"));
    for (number, file) in std::iter::repeat_n(plugin, PLUGINS).flatten().enumerate() {
        text.push_str(&format!(
            "[[plugin]]\nname = \"plugin-{number}\"\nfile = {file:?}\nrequired = true\n\
             [plugin.config]\ntopics = [\"elsewhere/{number}/#\"]\nreplace = false\n"
        ));
    }
    text
}

/// One plugin that wants every message, and answers each with a copy in its place where `replace` says so. On a machine
/// that is busy with other things too, a call may wait for its processor longer than the default deadline.
fn transform_config(plugin: Option<&Path>, replace: bool) -> String {
    let file = plugin.unwrap_or(Path::new(""));
    format!(
        "[[plugin]]\nname = \"transform\"\nfile = {file:?}\nrequired = true\n\
         deadline_ms = {{ on-publish = 1000 }}\n[plugin.config]\ntopics = [\"#\"]\nreplace = {replace}\n"
    )
}

fn write_rules(folder: &Path) -> std::io::Result<()> {
    fs::create_dir(folder)?;
    let rule =
        |number: usize| format!("on(\"elsewhere/{number}/+\", |msg| publish(\"found\", msg.payload));\n");
    let numbers: Vec<usize> = (0..RULES).collect();
    for (file, numbers) in numbers.chunks(100).enumerate() {
        let rules: String = numbers.iter().copied().map(rule).collect();
        fs::write(folder.join(format!("rules-{file}.rhai")), rules)?;
    }
    Ok(())
}

/// No limit to what waits or is under way: by default it drops what 20 messages under way and 1,000 waiting leave
/// over. Small packets at once, as the others send them.
fn mosquitto_config(address: SocketAddr) -> String {
    format!(
        "listener {} {}\nallow_anonymous true\npersistence false\nmax_queued_messages 0\n\
         max_inflight_messages 0\nset_tcp_nodelay true\nlog_type error\n",
        address.port(),
        address.ip()
    )
}

/// As the file that it comes with, but for 1 ms between connections (none here), the largest payload, and room for a
/// thousand messages under way.
fn rumqttd_config(v311: SocketAddr, v5: SocketAddr) -> String {
    let listener = |table: &str, address: SocketAddr| {
        format!(
            "[{table}.1]\nname = \"{table}-1\"\nlisten = \"{address}\"\nnext_connection_delay_ms = 0\n\
             [{table}.1.connections]\nconnection_timeout_ms = 60000\nmax_payload_size = 1048576\n\
             max_inflight_count = 1000\ndynamic_filters = true\n"
        )
    };
    format!(
        "id = 0\n[router]\nid = 0\nmax_connections = 10100\nmax_outgoing_packet_count = 200\n\
         max_segment_size = 104857600\nmax_segment_count = 10\n{}{}",
        listener("v4", v311),
        listener("v5", v5)
    )
}

impl Running {
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens for clients of the `protocol` that `weirmq-load` calls so.
    pub(super) fn address(&self, protocol: &str) -> SocketAddr {
        if protocol == "5" { self.v5 } else { self.v311 }
    }

    /// The last line that it wrote.
    pub(super) fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned()
    }

    fn wait_until_it_listens(&mut self, address: SocketAddr, kind: Kind) -> Result<(), LoadError> {
        let deadline = Instant::now() + START_MAX;
        while TcpStream::connect(address).is_err() {
            let ended = self.child.try_wait().map_err(LoadError::io(kind.name()))?;
            if ended.is_some() || Instant::now() > deadline {
                let why = self.last_words();
                return Err(LoadError::Broker(format!(
                    "{} does not listen at {address}: {why}",
                    kind.name()
                )));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let deadline = Instant::now() + END_MAX;
        if let Some(pid) = i32::try_from(self.pid()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(LOOK_EVERY);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that nobody listens at. Somebody else may take it before the broker does; then the broker does not start,
/// and says so.
fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_that_does_not_start_is_named_with_its_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let program = PathBuf::from("/bin/false");
        let why = Broker { kind: Kind::Mosquitto, program, plugin: None }
            .start(folder.path())
            .unwrap_err()
            .to_string();
        assert!(why.starts_with("mosquitto does not listen at 127.0.0.1:"), "{why}");
    }
}
