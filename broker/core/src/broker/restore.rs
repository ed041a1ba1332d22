//! What is brought back after a restart, before the first client is let in.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tracing::error;

use super::Broker;
use crate::durable::Kept;
use crate::durable::event::{
    Identifiers, Number, PacketId, SessionHeader, Stage, StoredMessage, Subscription,
};
use crate::durable::slot::Slot;
use crate::hook::{HookPoint, Identity, Lease};
use crate::message::{Message, QoS};
use crate::outbound::Parcel;
use crate::session::{Session, SessionExpiry};
use crate::time::{Instant, Now};
use crate::topic::Subscribable;

/// A session as it was kept.
#[derive(Debug)]
pub struct KeptSession {
    /// The client identifier.
    pub client: Arc<str>,
    /// What is known of it.
    pub header: SessionHeader,
    /// What it subscribes to; shared filters with `$share/{name}/`.
    pub subscriptions: Vec<(Arc<str>, Subscription)>,
    /// The QoS 2 packet identifiers that it has taken as a publisher.
    pub taken: Vec<PacketId>,
    /// Its messages, in order.
    pub messages: Vec<KeptMessage>,
}

/// A message as it was kept for a session.
#[derive(Debug, Clone)]
pub struct KeptMessage {
    /// Its number.
    pub number: Number,
    /// The message, its payload as it was before persistence hooks: [`Broker::unseal`].
    pub message: Arc<Message>,
    /// The QoS to send it with.
    pub qos: QoS,
    /// RETAIN as it is to be sent.
    pub retain: bool,
    /// The identifiers of the subscriptions that matched.
    pub identifiers: Identifiers,
    /// How far it had come.
    pub stage: Stage,
}

impl Broker {
    /// A message that was read back, its payload as it was before persistence hooks; `None`, and a line in the log,
    /// where a hook that has changed it is not there or cannot undo it: it is not delivered then, and stays where it is
    /// kept.
    #[must_use]
    pub fn unseal(&self, stored: StoredMessage, now: Now) -> Option<Arc<Message>> {
        let sealed_by = stored.sealed_by.clone();
        let mut message = stored.into_message(now);
        let chains = self.chains();
        for name in sealed_by.iter().rev() {
            let hook = chains.at(HookPoint::Persistence).iter().find(|link| link.hook.name() == &**name);
            let persist = hook.and_then(|link| Arc::clone(&link.hook).persistence(&message.topic));
            let Some(persist) = persist else {
                error!(
                    topic = %message.topic,
                    hook = &**name,
                    "a kept message was changed by a persistence hook that does not serve its topic now; it is not \
                     delivered until the broker is started with that hook"
                );
                return None;
            };
            match persist.after_load(&message) {
                Ok(payload) => message.payload = payload,
                Err(failure) => {
                    error!(
                        topic = %message.topic,
                        hook = &**name,
                        %failure,
                        "a kept message cannot be read back through its persistence hook; it is not delivered until \
                         the broker is started with one that can"
                    );
                    return None;
                }
            }
        }
        Some(Arc::new(message))
    }

    /// Brings a session back, as one whose connection was lost now if it had one. What has expired meanwhile ends, and
    /// wills that are due are published, at the next [`Broker::handle_timeout`].
    pub fn restore_session(&self, kept: KeptSession, now: Now) {
        let KeptSession { client, header, subscriptions, taken, messages } = kept;
        let identity = Arc::new(Identity {
            client_id: Arc::clone(&client),
            username: None,
            peer: None,
            listener: Arc::from(""),
            lease: Lease { principal: Arc::clone(&header.principal), ..Lease::default() },
        });
        let expiry = SessionExpiry::from_seconds(header.expiry_s);
        let session = Arc::new(Session::new(self.next_number(), identity, expiry));
        self.sessions.lock().insert(client, Arc::clone(&session));
        {
            let mut state = session.lock();
            (state.kept, state.confirmed, state.restored) = (true, true, true);
            let was_connected = header.ends_at_unix_ms.is_none();
            state.ends_at = match header.ends_at_unix_ms {
                Some(unix_ms) => Some(moment(unix_ms, now)),
                None => expiry.from(now.at),
            };
            state.will_at = match (&header.will, header.will_due_unix_ms) {
                (Some(_), Some(unix_ms)) => Some(moment(unix_ms, now)),
                (Some(will), None) if was_connected => {
                    Some(now.at.after(Duration::from_secs(will.delay_s.into())))
                }
                _ => None,
            };
            state.will = header.will;
            for id in taken {
                state.unreleased.insert(id, 0);
            }
            let mut overtaken = Overtaken::default();
            for message in messages {
                let KeptMessage { number, message, qos, retain, identifiers, stage } = message;
                let stage = overtaken.in_turn(&message, qos, stage);
                let slot = Some(Slot::of(number));
                let identifiers = identifiers.into_shared();
                state.outbound.restore(Parcel { message, qos, retain, identifiers, slot }, stage);
            }
            self.schedule(&session, &mut state);
        }
        for (text, options) in subscriptions {
            match Subscribable::parse(&text) {
                Ok(filter) => {
                    self.subscriptions.write().insert(&filter, &session, options);
                    session.lock().subscriptions.insert(filter, options);
                    self.ends.counters.subscriptions.change(1);
                }
                // It was one when it was kept.
                Err(fault) => error!(client = &*session.client_id, filter = &*text, %fault, "no filter"),
            }
        }
        self.epoch.fetch_add(1, Ordering::Release);
    }

    /// What a sink needs to say that it has written a record that was read back; `None` where nothing is kept.
    #[must_use]
    pub fn restore_record(&self, sink: &Arc<str>, number: Number) -> Option<Kept> {
        self.keeper().map(|keeper| Kept::new(keeper, sink, Slot::of(number)))
    }

    /// Brings a retained message back, if it has not expired.
    pub fn restore_retained(&self, message: &Arc<Message>, now: Now) {
        if !message.is_expired(now.at) {
            // What is over a limit that was lowered is counted.
            self.retain(message, now);
        }
    }
}

/// Who has messages waiting for a session: one of theirs that is under way behind them was never sent, because it would
/// have been sent after them. What was recorded last of those before it was lost with the process.
#[derive(Default)]
struct Overtaken(HashSet<(Arc<str>, QoS)>);

impl Overtaken {
    /// How far a message is to be taken to be, so that the order of its publisher is kept `[MQTT-4.6.0-6]`.
    fn in_turn(&mut self, message: &Message, qos: QoS, stage: Stage) -> Stage {
        let Some(publisher) = message.publisher.client_id() else { return stage };
        match stage {
            Stage::Waiting => {
                self.0.insert((Arc::clone(publisher), qos));
                stage
            }
            Stage::UnderWay(_) if self.0.contains(&(Arc::clone(publisher), qos)) => Stage::Waiting,
            Stage::UnderWay(_) | Stage::Released(_) => stage,
        }
    }
}

/// The moment on this process's clock; one that is past is now.
fn moment(unix_ms: u64, now: Now) -> Instant {
    now.at.after(Duration::from_millis(unix_ms.saturating_sub(now.unix_ms)))
}
