//! The twin without a disk: plain maps, no index, no bytes. For brokers that keep nothing, and as the model
//! that the log is tested against.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::error::StoreError;
use crate::event::{
    Event, Identifiers, Number, PacketId, Published, QoSAndRetain, RetainChange, Sender, SessionHeader,
    Stage, StoredMessage, Subscription, numbers,
};
use crate::store::{Delivered, Queued, SessionFacts, Store};
use crate::ticket::Ticket;

/// A store in memory: every ticket has resolved, and nothing survives the process.
#[derive(Debug, Default)]
pub struct MemoryStore {
    pub(crate) held: Mutex<Held>,
}

#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) last_number: Number,
    pub(crate) sessions: BTreeMap<Arc<str>, Session>,
    pub(crate) retained: BTreeMap<Arc<str>, StoredMessage>,
    pub(crate) sinks: BTreeMap<Arc<str>, BTreeMap<Number, Bytes>>,
    pub(crate) keys: BTreeMap<Arc<str>, BTreeMap<Bytes, Bytes>>,
}

#[derive(Debug, Default)]
pub(crate) struct Session {
    pub(crate) header: Option<SessionHeader>,
    pub(crate) subscriptions: BTreeMap<Arc<str>, Subscription>,
    pub(crate) queue: BTreeMap<Number, Waiting>,
    pub(crate) taken: std::collections::BTreeSet<PacketId>,
}

#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) message: StoredMessage,
    pub(crate) identifiers: Identifiers,
    pub(crate) delivery: QoSAndRetain,
    pub(crate) stage: Stage,
}

impl MemoryStore {
    /// A store that has nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn append_records<'a>(&self, records: impl Iterator<Item = &'a [Event]>) -> Ticket {
        let mut held = self.held.lock();
        let number = held.last_number + 1;
        for event in records.flatten() {
            held.last_number += 1;
            let number = held.last_number;
            held.apply(event, number);
        }
        Ticket::resolved(number, Ok(()))
    }
}

impl Held {
    /// What `event` comes to, where its number is this.
    pub(crate) fn apply(&mut self, event: &Event, number: Number) {
        match event {
            Event::SessionSet { client, session } => self.session(client).header = Some(session.clone()),
            Event::SessionEnded { client } => drop(self.sessions.remove(client)),
            Event::Subscribed { client, filter, subscription } => {
                self.session(client).subscriptions.insert(Arc::clone(filter), *subscription);
            }
            Event::Unsubscribed { client, filter } => self.shrink(client, |session| {
                session.subscriptions.remove(filter);
            }),
            Event::Published(published) => self.publish(published, number),
            Event::UnderWay { client, number, packet_id } => {
                if let Some(waiting) = self.waiting(client, *number) {
                    waiting.stage = Stage::UnderWay(*packet_id);
                }
            }
            Event::Released { client, number } => {
                if let Some(waiting) = self.waiting(client, *number)
                    && let Stage::UnderWay(packet_id) = waiting.stage
                {
                    waiting.stage = Stage::Released(packet_id);
                }
            }
            Event::Settled { client, number, more } => self.shrink(client, |session| {
                session.queue.extract_if(numbers(*number, *more), |_, _| true).for_each(drop);
            }),
            Event::Taken { from } => self.take(from),
            Event::Freed { from } => self.shrink(&from.client, |session| {
                session.taken.remove(&from.packet_id);
            }),
            Event::RetainedCleared { topic } => drop(self.retained.remove(topic.as_str())),
            Event::SinkAppended { sink, record } => {
                self.sinks.entry(Arc::clone(sink)).or_default().insert(number, record.clone());
            }
            Event::SinkSettled { sink, number } => remove(&mut self.sinks, sink, number),
            Event::KeySet { namespace, key, value } => {
                self.keys.entry(Arc::clone(namespace)).or_default().insert(key.clone(), value.clone());
            }
            Event::KeyRemoved { namespace, key } => remove(&mut self.keys, namespace, key),
        }
    }

    fn publish(&mut self, published: &Published, number: Number) {
        for recipient in &published.recipients {
            let waiting = Waiting {
                message: published.stored.clone(),
                identifiers: recipient.identifiers.clone(),
                delivery: QoSAndRetain { qos: recipient.qos, retain: recipient.retain },
                stage: recipient.stage,
            };
            self.session(&recipient.client).queue.insert(number, waiting);
        }
        let topic = published.stored.message.topic.as_str();
        match published.retain {
            RetainChange::Keep => {}
            RetainChange::Replace => {
                self.retained.insert(Arc::from(topic), published.stored.clone());
            }
            RetainChange::Clear => drop(self.retained.remove(topic)),
        }
        if let Some(from) = &published.taken_from {
            self.take(from);
        }
    }

    fn take(&mut self, from: &Sender) {
        self.session(&from.client).taken.insert(from.packet_id);
    }

    fn session(&mut self, client: &Arc<str>) -> &mut Session {
        self.sessions.entry(Arc::clone(client)).or_default()
    }

    fn waiting(&mut self, client: &str, number: Number) -> Option<&mut Waiting> {
        self.sessions.get_mut(client)?.queue.get_mut(&number)
    }

    /// Takes something away from a session, and forgets it when nothing is left.
    fn shrink(&mut self, client: &str, take_away: impl FnOnce(&mut Session)) {
        let Some(session) = self.sessions.get_mut(client) else { return };
        take_away(session);
        let Session { header, subscriptions, queue, taken } = session;
        if header.is_none() && subscriptions.is_empty() && queue.is_empty() && taken.is_empty() {
            self.sessions.remove(client);
        }
    }
}

fn remove<K: Ord, V>(maps: &mut BTreeMap<Arc<str>, BTreeMap<K, V>>, name: &str, key: &K) {
    let Some(map) = maps.get_mut(name) else { return };
    map.remove(key);
    if map.is_empty() {
        maps.remove(name);
    }
}

impl Store for MemoryStore {
    fn append(&self, record: &[Event]) -> Ticket {
        self.append_records(std::iter::once(record))
    }

    fn sync(&self) -> Ticket {
        Ticket::resolved(0, Ok(()))
    }

    fn clients(&self) -> Vec<Arc<str>> {
        self.held.lock().sessions.keys().cloned().collect()
    }

    fn session(&self, client: &str) -> Option<SessionFacts> {
        let held = self.held.lock();
        let session = held.sessions.get(client)?;
        Some(SessionFacts {
            header: session.header.clone(),
            subscriptions: session.subscriptions.clone(),
            taken: session.taken.iter().copied().collect(),
        })
    }

    fn queue(&self, client: &str, from: Number, max: usize) -> Vec<Queued> {
        let held = self.held.lock();
        let Some(session) = held.sessions.get(client) else { return Vec::new() };
        let waiting = session.queue.range(from..).take(max);
        waiting.map(|(number, w)| Queued { number: *number, delivery: w.delivery, stage: w.stage }).collect()
    }

    fn message(&self, client: &str, number: Number) -> Result<Option<Delivered>, StoreError> {
        let held = self.held.lock();
        let waiting = held.sessions.get(client).and_then(|session| session.queue.get(&number));
        Ok(waiting.map(|waiting| (waiting.message.clone(), waiting.identifiers.clone())))
    }

    fn retained_topics(&self) -> Vec<Arc<str>> {
        self.held.lock().retained.keys().cloned().collect()
    }

    fn retained(&self, topic: &str) -> Result<Option<StoredMessage>, StoreError> {
        Ok(self.held.lock().retained.get(topic).cloned())
    }

    fn sinks(&self) -> Vec<Arc<str>> {
        self.held.lock().sinks.keys().cloned().collect()
    }

    fn sink_records(&self, sink: &str, from: Number, max: usize) -> Result<Vec<(Number, Bytes)>, StoreError> {
        let held = self.held.lock();
        let records = held.sinks.get(sink).into_iter().flat_map(|records| records.range(from..));
        Ok(records.take(max).map(|(number, record)| (*number, record.clone())).collect())
    }

    fn namespaces(&self) -> Vec<Arc<str>> {
        self.held.lock().keys.keys().cloned().collect()
    }

    fn keys(&self, namespace: &str, from: &[u8], max: usize) -> Vec<Bytes> {
        let held = self.held.lock();
        let from = Bytes::copy_from_slice(from);
        let keys = held.keys.get(namespace).into_iter().flat_map(|keys| keys.range(from.clone()..));
        keys.take(max).map(|(key, _)| key.clone()).collect()
    }

    fn value(&self, namespace: &str, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let held = self.held.lock();
        Ok(held.keys.get(namespace).and_then(|keys| keys.get(key)).cloned())
    }
}
