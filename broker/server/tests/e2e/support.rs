//! A broker process in a folder of its own, clients for it, and a webhook that remembers.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a test waits for what must happen. Long, because the machine may be busy; nothing waits for it
/// where all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The quickstart's users, as options of the mosquitto clients.
pub(crate) const PRESS: [&str; 4] = ["-u", "press-1", "-P", "forge-anvil-7"];
pub(crate) const OVEN: [&str; 4] = ["-u", "oven-1", "-P", "copper-flame-2"];
pub(crate) const DASHBOARD: [&str; 4] = ["-u", "dashboard", "-P", "gauge-lens-4"];

/// `login` and `more` options.
pub(crate) fn with<'a>(login: [&'a str; 4], more: &[&'a str]) -> Vec<&'a str> {
    login.into_iter().chain(more.iter().copied()).collect()
}

/// An address of this machine that nobody listens at yet.
pub(crate) fn vacant_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The built component `name`.
pub(crate) fn guest(name: &str) -> PathBuf {
    let folder =
        std::env::var_os("WEIRMQ_GUESTS").map_or_else(|| repository().join("target/guests"), PathBuf::from);
    let file = folder.join(format!("{name}.wasm"));
    assert!(file.is_file(), "'{}' is not there: run `cargo xtask test`", file.display());
    file
}

/// Asks until there is an answer.
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        thread::yield_now();
        thread::park_timeout(Duration::from_millis(20));
    }
}

/// Lines that a thread reads as they come.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<(Mutex<Vec<String>>, Condvar)>);

impl Lines {
    pub(crate) fn of(stream: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let theirs = lines.clone();
        thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                theirs.0.0.lock().unwrap().push(line);
                theirs.0.1.notify_all();
            }
        });
        lines
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0.0.lock().unwrap().clone()
    }

    /// Waits for a line in which all of `parts` stand.
    pub(crate) fn wait_for(&self, parts: &[&str]) -> String {
        self.wait_for_count(parts, 1)
    }

    /// Waits for the line number `count` in which all of `parts` stand.
    pub(crate) fn wait_for_count(&self, parts: &[&str], count: usize) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.0.0.lock().unwrap();
        loop {
            let found =
                lines.iter().filter(|line| parts.iter().all(|part| line.contains(part))).nth(count - 1);
            if let Some(line) = found {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                // The lock is let go first: what is said on the way out looks at the lines too.
                let all = lines.join("\n");
                drop(lines);
                panic!("no line with {parts:?} ({count}) in:\n{all}");
            }
            lines = self.0.1.wait_timeout(lines, left).unwrap().0;
        }
    }
}

/// A folder with a configuration.
pub(crate) struct Place {
    pub(crate) folder: TempDir,
}

impl Place {
    /// The quickstart, listening on any port, with data in the folder and its webhook at `webhook`.
    pub(crate) fn quickstart(webhook: SocketAddr) -> Self {
        let source = repository().join("examples/quickstart");
        let place = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(place.path("rules")).unwrap();
        for entry in fs::read_dir(source.join("rules")).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), place.path("rules").join(entry.file_name())).unwrap();
        }
        fs::copy(guest("login"), place.path("login.wasm")).unwrap();
        let mut config = fs::read_to_string(source.join("weirmq.toml")).unwrap();
        for (from, to) in [
            ("127.0.0.1:1883", "127.0.0.1:0".to_owned()),
            ("../../target/quickstart", "data".to_owned()),
            ("../../target/guests/login.wasm", "login.wasm".to_owned()),
            ("127.0.0.1:9000", webhook.to_string()),
        ] {
            assert!(config.contains(from), "the quickstart's configuration has no {from}");
            config = config.replace(from, &to);
        }
        place.write("weirmq.toml", &config);
        place
    }

    /// A place with this configuration, in which `127.0.0.1:0` and `data` are to stand.
    pub(crate) fn with(config: &str) -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        place.write("weirmq.toml", config);
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Takes a file's place in one step, as `mv` does.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8]) {
        let new = self.path("new-file");
        fs::write(&new, bytes).unwrap();
        fs::rename(new, self.path(name)).unwrap();
    }

    /// Starts the broker, and waits until it listens.
    pub(crate) fn start(&self) -> Broker {
        Broker::start(["run", "--config"], Some(&self.path("weirmq.toml")))
    }

    /// A command of the binary about this place.
    pub(crate) fn command(&self, arguments: &[&str]) -> Output {
        binary().args(arguments).arg("--config").arg(self.path("weirmq.toml")).output().unwrap()
    }

    /// The rows of `sql` as text, from the quickstart's history.
    pub(crate) fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        let Ok(database) = rusqlite::Connection::open(self.path("data/history.db")) else {
            return Vec::new();
        };
        let Ok(mut statement) = database.prepare(sql) else { return Vec::new() };
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| {
            (0..columns)
                .map(|column| {
                    row.get_ref(column).map(|value| match value {
                        rusqlite::types::ValueRef::Null => "null".to_owned(),
                        rusqlite::types::ValueRef::Integer(number) => number.to_string(),
                        rusqlite::types::ValueRef::Real(number) => number.to_string(),
                        rusqlite::types::ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
                        rusqlite::types::ValueRef::Blob(bytes) => format!("{bytes:?}"),
                    })
                })
                .collect()
        });
        rows.map(|rows| rows.filter_map(Result::ok).collect()).unwrap_or_default()
    }
}

pub(crate) fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weirmq"));
    command.env_remove("RUST_LOG").env_remove("WEIRMQ_CONFIG").stdin(Stdio::null());
    command
}

/// The options of a broker without a configuration; the data folder comes last.
pub(crate) const BARE: [&str; 5] = ["run", "--listen", "127.0.0.1:0", "--allow-anonymous", "--data-folder"];

/// A broker process; ended with the value.
pub(crate) struct Broker {
    process: Child,
    pub(crate) address: SocketAddr,
    pub(crate) out: Lines,
    pub(crate) log: Lines,
}

impl Broker {
    /// A broker without a configuration that lets everybody in, and its data folder.
    pub(crate) fn bare() -> (Self, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        (Self::start(BARE, Some(folder.path())), folder)
    }

    /// A reading of `press-1`, which must be taken.
    pub(crate) fn reading(&self, celsius: &str) {
        let payload = format!("{{\"celsius\": {celsius}}}");
        self.publish(&with(PRESS, &["-q", "1", "-t", "factory/a/press-1/temperature", "-m", &payload]));
    }

    pub(crate) fn start<'a>(arguments: impl IntoIterator<Item = &'a str>, file: Option<&Path>) -> Self {
        let mut command = binary();
        command.args(arguments).args(file);
        Self::started(command)
    }

    /// The broker that `command` runs; it listens when this returns.
    pub(crate) fn started(mut command: Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = Lines::of(process.stdout.take().unwrap());
        let log = Lines::of(process.stderr.take().unwrap());
        let line = {
            let deadline = Instant::now() + PATIENCE;
            loop {
                let found = out.all().into_iter().find(|line| line.contains("listens at"));
                if let Some(line) = found {
                    break line;
                }
                if let Some(status) = process.try_wait().unwrap() {
                    panic!("the broker ended with {status}:\n{}", log.all().join("\n"));
                }
                assert!(Instant::now() < deadline, "the broker does not start:\n{}", log.all().join("\n"));
                thread::park_timeout(Duration::from_millis(10));
            }
        };
        let address = line
            .split_whitespace()
            .find_map(|word| word.parse().ok())
            .unwrap_or_else(|| panic!("no address in {line:?}"));
        Self { process, address, out, log }
    }

    pub(crate) fn port(&self) -> String {
        self.address.port().to_string()
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.process.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for the process to end.
    pub(crate) fn ended(mut self) -> ExitStatus {
        eventually("the broker ends", || self.process.try_wait().unwrap())
    }

    /// The resident memory, in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// `mosquitto_pub` with these arguments; answers what it said.
    pub(crate) fn mosquitto_pub(&self, arguments: &[&str]) -> Output {
        Command::new("mosquitto_pub")
            .args(["-h", "127.0.0.1", "-p", &self.port()])
            .args(arguments)
            .output()
            .unwrap()
    }

    /// Publishes, which must succeed.
    pub(crate) fn publish(&self, arguments: &[&str]) {
        let output = self.mosquitto_pub(arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// `mosquitto_sub` with these arguments, subscribed when this returns.
    pub(crate) fn mosquitto_sub(&self, arguments: &[&str]) -> Subscriber {
        let mut process = Command::new("stdbuf")
            .args(["-oL", "mosquitto_sub", "-d", "-h", "127.0.0.1", "-p", &self.port()])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = Lines::of(process.stdout.take().unwrap());
        out.wait_for(&["Subscribed (mid:"]);
        Subscriber { process, out }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if thread::panicking() {
            eprintln!("--- the broker's log ---\n{}", self.log.all().join("\n"));
        }
    }
}

/// A `mosquitto_sub`; ended with the value.
pub(crate) struct Subscriber {
    process: Child,
    pub(crate) out: Lines,
}

impl Subscriber {
    /// What it printed of messages: not the lines about the protocol, which `-d` adds.
    pub(crate) fn messages(&self) -> Vec<String> {
        let chatter = ["Client ", "Subscribed (mid:"];
        self.out
            .all()
            .into_iter()
            .filter(|line| !chatter.iter().any(|start| line.starts_with(start)))
            .collect()
    }

    /// Waits for so many messages.
    pub(crate) fn wait_for(&self, count: usize) -> Vec<String> {
        eventually(&format!("{count} messages, have {:?}", self.messages()), || {
            Some(self.messages()).filter(|messages| messages.len() >= count)
        })
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An HTTP server that remembers the bodies it was sent and answers as it is told to.
pub(crate) struct Webhook {
    pub(crate) address: SocketAddr,
    state: Arc<(Mutex<Answers>, Condvar)>,
}

#[derive(Default)]
struct Answers {
    bodies: Vec<serde_json::Value>,
    statuses: VecDeque<u16>,
}

impl Webhook {
    pub(crate) fn start() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    pub(crate) fn on(listener: TcpListener) -> Self {
        let address = listener.local_addr().unwrap();
        let state: Arc<(Mutex<Answers>, Condvar)> = Arc::default();
        let theirs = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = Arc::clone(&theirs);
                thread::spawn(move || while answer(&stream, &state).is_some() {});
            }
        });
        Self { address, state }
    }

    /// Waits for so many bodies.
    pub(crate) fn wait_for(&self, count: usize) -> Vec<serde_json::Value> {
        let (answers, changed) = &*self.state;
        let answers = answers.lock().unwrap();
        let (answers, late) =
            changed.wait_timeout_while(answers, PATIENCE, |a| a.bodies.len() < count).unwrap();
        assert!(!late.timed_out(), "only {:?} came", answers.bodies);
        answers.bodies.clone()
    }
}

fn answer(mut stream: &TcpStream, state: &(Mutex<Answers>, Condvar)) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok()?;
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let status = {
        let mut answers = state.0.lock().unwrap();
        let status = answers.statuses.pop_front().unwrap_or(200);
        if status < 300 {
            answers.bodies.push(serde_json::from_slice(&body).ok()?);
            state.1.notify_all();
        }
        status
    };
    write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n").ok()
}
