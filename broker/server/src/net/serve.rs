//! Everything that runs while the broker serves, and how it ends.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use weirmq_core::broker::Broker;

use super::clock::Clock;
use super::connection::Shared;
use super::listener::{Bounds, Census, Listener};
use super::roll::Roll;
use super::sys::Sys;
use crate::durable::Durable;
use crate::reload::Live;

/// How often sessions and wills are looked at whose time may be up.
const TICK: Duration = Duration::from_millis(100);
/// How often connections are woken whose deadlines are near: in time for those that come near in between.
const ROLL_CALL: Duration = Duration::from_millis(500);
/// How often hooks that serve the timer are called.
const TIMER: Duration = Duration::from_secs(1);
/// How often what is out of date is forgotten.
const TIDY: Duration = Duration::from_secs(60);

/// Serves on `listeners` until `shutdown` is through; then accepts no more, handles what has come, tells the
/// clients, and waits for their connections to end, up to `drain_max`. Answers how many did not. The figures of
/// `store` and of the plugins of `live` are published with the broker's.
pub async fn serve(
    broker: Arc<Broker>,
    store: Option<Durable>,
    live: Arc<Live>,
    clock: Clock,
    listeners: Vec<Listener>,
    shutdown: impl Future<Output = ()>,
    drain_max: Duration,
) -> usize {
    let (down, watching) = watch::channel(false);
    let shared = Arc::new(Shared { broker: Arc::clone(&broker), clock, roll: Roll::default() });
    let limits = broker.limits();
    let bounds = Bounds {
        connections_max: limits.connections_max,
        per_address_max: limits.connections_per_address_max,
        rate_max: limits.connect_rate_max,
    };
    let census = Arc::new(Census::default());
    let (alive, mut ended) = mpsc::channel::<()>(1);
    for listener in listeners {
        let (shared, down) = (Arc::clone(&shared), watching.clone());
        tokio::spawn(listener.accept(bounds, Arc::clone(&census), shared, down, alive.clone()));
    }
    drop(alive);
    let housekeeping = tokio::spawn(keep_house(Arc::clone(&shared), store, live));
    shutdown.await;
    let _ = down.send(true);
    shared.roll.set_down();
    // Every listener and connection holds a sender: the channel ends with the last of them.
    let _ = timeout(drain_max, ended.recv()).await;
    housekeeping.abort();
    census.connections()
}

/// What happens by itself: sessions expire, wills fall due, connections are silent for too long, `$SYS/` is published.
async fn keep_house(shared: Arc<Shared>, store: Option<Durable>, live: Arc<Live>) {
    let Shared { broker, clock, roll } = &*shared;
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sys = Sys::new(Arc::clone(broker), store, live);
    let (mut tidied, mut timed, mut called) = (Instant::now(), Instant::now(), Instant::now());
    loop {
        let tick = ticks.tick().await;
        let now = clock.now();
        for work in broker.handle_timeout(now) {
            tokio::spawn(work);
        }
        sys.tick(now);
        if tick.duration_since(called) >= ROLL_CALL {
            called = tick;
            roll.read(now.at);
        }
        if tick.duration_since(timed) >= TIMER {
            timed = tick;
            broker.tick(now);
        }
        if tick.duration_since(tidied) >= TIDY {
            tidied = tick;
            broker.tidy(now);
        }
    }
}
