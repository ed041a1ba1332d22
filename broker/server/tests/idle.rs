//! Connections that do nothing: what they take, and how long they may.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that meets what it does not expect should stop there"
)]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use weirmq::assemble::Assembly;
use weirmq::config::Config;
use weirmq::net::clock::Clock;
use weirmq::net::listener::Listener;
use weirmq::net::serve::serve;
use weirmq::reload::{Engine, Live};
use weirmq_core::broker::{Broker, ClientInfo, Settings};
use weirmq_core::hook::Chains;
use weirmq_host::{Consequence, Whom};
use weirmq_wire::{Connect, Packet, Text, Version};

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Connections before the first look: what is set up once is not counted for each.
const BEFORE: usize = 40;
/// Both ends of all are open at once, and many systems let a process have 1,024 files.
const CONNECTIONS: usize = 400;

/// Bytes of heap for each connection and its session, as they are asked for; the allocator and the room that its own
/// alignment takes come on top. 2 KiB of memory for each is what is promised.
const BYTES_MAX: i64 = 1_650;

/// Nobody reloads anything here.
struct Still;

impl Engine for Still {
    fn set_chains(&self, _: Chains) {}

    fn connections(&self) -> usize {
        0
    }

    fn client(&self, _: &str) -> Option<ClientInfo> {
        None
    }

    fn kick(&self, _: &str) -> bool {
        false
    }

    fn revoke(&self, _: &Whom, _: Consequence) -> usize {
        0
    }
}

/// A broker that runs on the thread of the test.
struct Running {
    runtime: Runtime,
    broker: Arc<Broker>,
    address: SocketAddr,
    end: oneshot::Sender<()>,
    serving: tokio::task::JoinHandle<usize>,
    /// Its files.
    _folder: TempDir,
}

impl Running {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("weirmq.toml");
        let config = "[[listener]]\naddress = \"127.0.0.1:0\"\n[auth]\nallow_anonymous = true\n";
        std::fs::write(&file, config).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let guard = runtime.enter();
        let assembly = Assembly::build(Config::load(&file).unwrap()).unwrap();
        let broker = Broker::new(Settings::default(), assembly.records());
        broker.set_chains(assembly.chains());
        let live = Live::new(assembly, Arc::new(Still));
        let listener = Listener::bind("main", "127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.address();
        let (end, ended) = oneshot::channel::<()>();
        let shutdown = async { drop(ended.await) };
        let (engine, clock) = (Arc::clone(&broker), Clock::start());
        let serving = tokio::spawn(serve(engine, None, live, clock, vec![listener], shutdown, PATIENCE));
        drop(guard);
        Self { runtime, broker, address, end, serving, _folder: folder }
    }

    /// Runs until `through` is told.
    fn run_until<T>(&self, through: oneshot::Receiver<T>) -> T {
        self.runtime.block_on(async { tokio::time::timeout(PATIENCE, through).await.unwrap().unwrap() })
    }

    /// Ends it. Answers how many connections did not end by themselves.
    fn end(self) -> usize {
        drop(self.end);
        self.runtime.block_on(self.serving).unwrap()
    }
}

/// Does something from a thread of its own, whose memory is not counted. What it answers comes by a channel.
fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> oneshot::Receiver<T> {
    let (through, wait) = oneshot::channel();
    std::thread::spawn(move || through.send(work()).ok().unwrap());
    wait
}

/// A client that is let in.
fn connect(address: SocketAddr, name: &str, keep_alive_s: u16) -> TcpStream {
    let mut connect = Connect::new(Version::V311, Text::new(name).unwrap());
    connect.keep_alive_s = keep_alive_s;
    let mut bytes = Vec::new();
    Packet::Connect(Box::new(connect)).encode(Version::V311, &mut bytes).unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&bytes).unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [0x20, 2, 0, 0]);
    stream
}

#[test]
fn an_idle_connection_with_its_session_takes_less_than_two_kibibytes() {
    let running = Running::start();
    let address = running.address;
    let clients = |numbers: std::ops::Range<usize>| {
        beside(move || {
            numbers.map(|number| connect(address, &format!("idle-{number}"), 3_600)).collect::<Vec<_>>()
        })
    };
    let before = running.run_until(clients(0..BEFORE));
    let connecting = clients(BEFORE..BEFORE + CONNECTIONS);
    let mut after = Vec::new();
    let counted = allocation_counter::measure(|| after = running.run_until(connecting));
    let each = counted.bytes_current / i64::try_from(CONNECTIONS).unwrap();
    assert_eq!(running.broker.counters().clients_connected.get(), (BEFORE + CONNECTIONS) as u64);
    assert!((1..=BYTES_MAX).contains(&each), "{each} bytes for each");
    drop((before, after));
    assert_eq!(running.end(), 0);
}

/// Its deadline is in the roll first, and in a timer when it is near; a packet moves it away.
#[test]
fn a_client_is_cut_off_when_it_was_silent_for_one_and_a_half_times_its_keep_alive_and_not_before() {
    let running = Running::start();
    let address = running.address;
    let silent = beside(move || {
        let mut stream = connect(address, "silent", 2);
        // Until the deadline is near.
        stream.set_read_timeout(Some(Duration::from_millis(2_500))).unwrap();
        assert_eq!(stream.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
        let spoke = Instant::now();
        stream.write_all(&[0xc0, 0]).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        (rest, spoke.elapsed())
    });
    let (rest, silence) = running.run_until(silent);
    assert_eq!(rest, [0xd0, 0]);
    assert!(silence >= Duration::from_secs(3), "{silence:?}");
    assert_eq!(running.end(), 0);
}
