//! Accepting connections, within the limits on them.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{info, warn};
use weirmq_core::counters::Limit;

use super::connection::{self, Shared};

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 1024;
/// The pauses after an accept that failed, which happens when descriptors run out.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A bound listener.
#[derive(Debug)]
pub struct Listener {
    name: Arc<str>,
    socket: TcpListener,
    address: SocketAddr,
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("listener '{name}' cannot listen on {address}: {source}{}", hint(source))]
pub struct BindError {
    /// The listener.
    pub name: Arc<str>,
    /// The address.
    pub address: SocketAddr,
    /// Why.
    pub source: io::Error,
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another program, perhaps another broker, has it: stop that one or choose another port"
        }
        io::ErrorKind::PermissionDenied => "; ports below 1024 need a privilege: choose another port",
        io::ErrorKind::AddrNotAvailable => "; no network interface of this machine has that address",
        _ => "",
    }
}

/// How many connections there may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) connections_max: usize,
    pub(crate) per_address_max: usize,
    pub(crate) rate_max: u32,
}

/// The connections that there are, over all listeners.
#[derive(Debug, Default)]
pub(crate) struct Census {
    all: AtomicUsize,
    by_address: Mutex<HashMap<Ipv6Addr, usize>>,
}

/// A connection's entry in the [`Census`].
struct Counted {
    census: Arc<Census>,
    /// One of IPv4 as IPv6 maps it, by whichever listener it comes.
    address: Ipv6Addr,
}

impl Listener {
    /// Binds `address`; port 0 is any free one.
    ///
    /// # Errors
    /// [`BindError`] with what to do about it.
    pub fn bind(name: &str, address: SocketAddr) -> Result<Self, BindError> {
        let failed = |source| BindError { name: Arc::from(name), address, source };
        let open = || {
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            // A restart must not wait for the kernel to forget the connections of the run before.
            socket.set_reuseaddr(true)?;
            // Frames are written in batches already: waiting for more would only delay them. On Linux
            // connections have it from their listener.
            socket.set_nodelay(true)?;
            socket.bind(address)?;
            let socket = socket.listen(BACKLOG)?;
            let address = socket.local_addr()?;
            Ok(Self { name: Arc::from(name), socket, address })
        };
        open().map_err(failed)
    }

    /// Its name in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts until the broker shuts down. Each connection's task holds a clone of `alive`.
    pub(crate) async fn accept(
        self,
        bounds: Bounds,
        census: Arc<Census>,
        shared: Arc<Shared>,
        mut down: watch::Receiver<bool>,
        alive: mpsc::Sender<()>,
    ) {
        let mut pause = PAUSE_MIN;
        let mut rate = Rate::new(bounds.rate_max);
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                _ = down.wait_for(|down| *down) => return,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(listener = &*self.name, %error, ?pause, "cannot accept a connection; trying again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                    continue;
                }
            };
            pause = PAUSE_MIN;
            match census.enter(address.ip(), bounds) {
                Ok(counted) => self.start(stream, address, counted, &shared, &alive),
                Err(limit) => {
                    shared.broker.counters().connections_refused.add_one();
                    shared.broker.counters().limits.count(limit);
                    info!(listener = &*self.name, peer = %address, limit = limit.name(), "connection refused");
                }
            }
            if rate.is_used_up() {
                shared.broker.counters().limits.count(Limit::ConnectRate);
                rate.wait().await;
            }
        }
    }

    fn start(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        counted: Counted,
        shared: &Arc<Shared>,
        alive: &mpsc::Sender<()>,
    ) {
        if !cfg!(target_os = "linux") {
            let _ = stream.set_nodelay(true);
        }
        let (listener, shared, alive) = (Arc::clone(&self.name), Arc::clone(shared), alive.clone());
        tokio::spawn(connection::serve(stream, address, listener, shared, (counted, alive)));
    }
}

impl Census {
    /// Counts a connection.
    ///
    /// # Errors
    /// The limit that it would break.
    fn enter(self: &Arc<Self>, address: IpAddr, bounds: Bounds) -> Result<Counted, Limit> {
        let address = match address {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        let mut by_address = self.by_address.lock();
        if self.all.load(Ordering::Relaxed) >= bounds.connections_max {
            return Err(Limit::Connections);
        }
        if by_address.get(&address).is_some_and(|here| *here >= bounds.per_address_max) {
            return Err(Limit::ConnectionsPerAddress);
        }
        *by_address.entry(address).or_default() += 1;
        self.all.fetch_add(1, Ordering::Relaxed);
        Ok(Counted { census: Arc::clone(self), address })
    }

    /// How many connections there are.
    pub(crate) fn connections(&self) -> usize {
        self.all.load(Ordering::Relaxed)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut by_address = self.census.by_address.lock();
        self.census.all.fetch_sub(1, Ordering::Relaxed);
        if let Some(here) = by_address.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                by_address.remove(&self.address);
            }
        }
    }
}

/// So many per second; after that, the rest of the second is waited for.
struct Rate {
    max: u32,
    used: u32,
    second: Instant,
}

impl Rate {
    fn new(max: u32) -> Self {
        Self { max, used: 0, second: Instant::now() }
    }

    /// Counts a connection. Answers whether the next has to wait.
    fn is_used_up(&mut self) -> bool {
        if self.second.elapsed() >= SECOND {
            (self.used, self.second) = (0, Instant::now());
        }
        self.used += 1;
        self.used >= self.max
    }

    async fn wait(&mut self) {
        tokio::time::sleep_until(self.second + SECOND).await;
        (self.used, self.second) = (0, Instant::now());
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { connections_max: 3, per_address_max: 2, rate_max: 1 };

    #[test]
    fn connections_are_counted_in_all_and_by_address_and_forgotten_when_they_end() {
        let census = Arc::new(Census::default());
        let [here, there] = ["192.0.2.1", "2001:db8::1"].map(|address| address.parse().unwrap());
        let first = census.enter(here, BOUNDS).unwrap();
        let _second = census.enter(here, BOUNDS).unwrap();
        assert_eq!(census.enter(here, BOUNDS).err(), Some(Limit::ConnectionsPerAddress));
        let third = census.enter(there, BOUNDS).unwrap();
        assert_eq!(census.enter(there, BOUNDS).err(), Some(Limit::Connections));
        drop(first);
        drop(third);
        let _again = census.enter(here, BOUNDS).unwrap();
        assert_eq!(census.connections(), 2);
        assert_eq!(census.by_address.lock().len(), 1, "an address without connections is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_connections_per_second_are_accepted_and_the_next_waits() {
        let mut rate = Rate::new(3);
        for _ in 0..4 {
            let began = Instant::now();
            assert_eq!([rate.is_used_up(), rate.is_used_up(), rate.is_used_up()], [false, false, true]);
            rate.wait().await;
            assert_eq!(began.elapsed(), SECOND);
        }
        rate.is_used_up();
        tokio::time::advance(SECOND).await;
        assert!(!rate.is_used_up(), "another second has begun");
    }
}
