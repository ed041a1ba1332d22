//! What a connection takes that does nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

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

/// Connects so many clients, one after the other, from a thread of its own, whose memory is not counted.
fn connect(
    address: SocketAddr,
    names: std::ops::Range<usize>,
) -> (JoinHandle<Vec<TcpStream>>, oneshot::Receiver<()>) {
    let (through, wait) = oneshot::channel();
    let connecting = std::thread::spawn(move || {
        let hello = |number: usize| {
            let name = Text::new(&format!("idle-{number}")).unwrap();
            let mut bytes = Vec::new();
            Packet::Connect(Box::new(Connect::new(Version::V311, name)))
                .encode(Version::V311, &mut bytes)
                .unwrap();
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(&bytes).unwrap();
            let mut answer = [0; 4];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(answer, [0x20, 2, 0, 0]);
            stream
        };
        let clients = names.map(hello).collect();
        through.send(()).unwrap();
        clients
    });
    (connecting, wait)
}

/// Everything of the broker runs on one thread, so that what it allocates can be counted.
#[test]
fn an_idle_connection_with_its_session_takes_less_than_two_kibibytes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("weirmq.toml");
    let text = "[[listener]]\naddress = \"127.0.0.1:0\"\n[auth]\nallow_anonymous = true\n[store]\ndurability = \"memory\"\n";
    std::fs::write(&file, text).unwrap();
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
    let clock = Clock::start();
    let serving = serve(Arc::clone(&broker), None, live, clock, vec![listener], shutdown, PATIENCE);
    let serving = runtime.spawn(serving);
    drop(guard);

    let wait_for = |(connecting, through): (JoinHandle<_>, oneshot::Receiver<()>)| {
        runtime.block_on(async { tokio::time::timeout(PATIENCE, through).await.unwrap().unwrap() });
        connecting.join().unwrap()
    };
    let before = wait_for(connect(address, 0..BEFORE));
    let connecting = connect(address, BEFORE..BEFORE + CONNECTIONS);
    let mut clients = Vec::new();
    let counted = allocation_counter::measure(|| clients = wait_for(connecting));
    let each = counted.bytes_current / i64::try_from(CONNECTIONS).unwrap();
    eprintln!("{each} bytes in {} pieces", counted.count_current / i64::try_from(CONNECTIONS).unwrap());
    assert_eq!(broker.counters().clients_connected.get(), (BEFORE + CONNECTIONS) as u64);
    assert!((1..=BYTES_MAX).contains(&each), "{each} bytes for each");

    drop((before, clients, end));
    assert_eq!(runtime.block_on(serving).unwrap(), 0);
}
