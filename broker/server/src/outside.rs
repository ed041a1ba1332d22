//! The broker as plugins see it: what they publish and revoke waits here for a task that does it, because a plugin may
//! ask in the middle of what the broker does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc::{self, Receiver, Sender};
use weirmq_core::broker::Broker;
use weirmq_core::counters::DropReason;
use weirmq_core::hook::Draft;
use weirmq_host::{Outside, Revocation};

use crate::net::clock::Clock;

/// How many messages of plugins may wait to be published.
const MESSAGES_MAX: usize = 4096;
/// How many revocations may wait.
const REVOCATIONS_MAX: usize = 256;

/// Where plugins put what they ask for.
pub(crate) struct Door {
    messages: Sender<Message>,
    revocations: Sender<(Arc<str>, Revocation)>,
    lost: Arc<AtomicU64>,
}

/// Where it comes out.
pub(crate) struct Desk {
    messages: Receiver<Message>,
    revocations: Receiver<(Arc<str>, Revocation)>,
    lost: Arc<AtomicU64>,
}

struct Message {
    plugin: Arc<str>,
    draft: Draft,
    hops: u8,
}

/// Both sides.
pub(crate) fn door() -> (Door, Desk) {
    let (message, messages) = mpsc::channel(MESSAGES_MAX);
    let (revocation, revocations) = mpsc::channel(REVOCATIONS_MAX);
    let lost = Arc::<AtomicU64>::default();
    let door = Door { messages: message, revocations: revocation, lost: Arc::clone(&lost) };
    (door, Desk { messages, revocations, lost })
}

impl Outside for Door {
    fn has_room(&self) -> bool {
        self.messages.capacity() > 0
    }

    fn publish(&self, plugin: &Arc<str>, draft: Draft, hops: u8) {
        let message = Message { plugin: Arc::clone(plugin), draft, hops };
        if self.messages.try_send(message).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn revoke(&self, plugin: &Arc<str>, revocation: Revocation) -> Result<(), String> {
        let full = |_| format!("{REVOCATIONS_MAX} revocations wait already; try again");
        self.revocations.try_send((Arc::clone(plugin), revocation)).map_err(full)
    }
}

impl Desk {
    /// Does what comes in, revocations first, until the door is gone.
    pub(crate) async fn serve(mut self, broker: Arc<Broker>, clock: Clock) {
        loop {
            tokio::select! {
                biased;
                Some((plugin, revocation)) = self.revocations.recv() => {
                    revoke(&broker, &plugin, &revocation, clock);
                }
                Some(message) = self.messages.recv() => publish(&broker, message, clock).await,
                else => return,
            }
            let lost = self.lost.swap(0, Ordering::Relaxed);
            if lost > 0 {
                broker.counters().dropped.count_many(DropReason::QueueFull, lost);
                tracing::warn!(lost, "plugins publish faster than the broker can take it");
            }
        }
    }
}

fn revoke(broker: &Arc<Broker>, plugin: &str, revocation: &Revocation, clock: Clock) {
    let Revocation { whom, consequence, reason } = revocation;
    let (sessions, works) = broker.revoke(whom, *consequence, clock.now());
    tracing::info!(plugin, ?whom, ?consequence, reason, sessions, "revoked");
    for work in works {
        tokio::spawn(work);
    }
}

/// One after the other, so that what a plugin publishes keeps its order.
async fn publish(broker: &Arc<Broker>, message: Message, clock: Clock) {
    let Message { plugin, draft, hops } = message;
    match broker.publish_for_plugin(&plugin, draft, hops, clock.now()) {
        Ok(work) => work.await,
        Err(reason) => tracing::warn!(plugin = &*plugin, reason, "the plugin published no valid message"),
    }
}

#[cfg(test)]
mod tests {
    use weirmq_core::message::{Properties, QoS};

    use super::*;

    #[test]
    fn what_there_is_no_room_for_is_counted_and_revocations_are_refused() {
        let (door, desk) = door();
        let plugin: Arc<str> = "p".into();
        let draft = Draft {
            topic: "a".to_owned(),
            payload: bytes::Bytes::new(),
            qos: QoS::AtMostOnce,
            retain: false,
            properties: Properties::default(),
            expires_in: None,
        };
        for _ in 0..MESSAGES_MAX {
            assert!(door.has_room());
            door.publish(&plugin, draft.clone(), 1);
        }
        assert!(!door.has_room());
        door.publish(&plugin, draft, 1);
        assert_eq!(desk.lost.load(Ordering::Relaxed), 1);
        let revocation = Revocation {
            whom: weirmq_host::Whom::Everyone,
            consequence: weirmq_host::Consequence::AskAgain,
            reason: String::new(),
        };
        for _ in 0..REVOCATIONS_MAX {
            door.revoke(&plugin, revocation.clone()).unwrap();
        }
        assert!(door.revoke(&plugin, revocation).is_err());
    }
}
