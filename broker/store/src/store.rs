//! What a store can do, whatever is beneath it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::StoreError;
use crate::event::{
    Event, Identifiers, Number, PacketId, QoSAndRetain, SessionHeader, Stage, StoredMessage, Subscription,
};
use crate::ticket::Ticket;

/// Keeps records and what they amount to.
///
/// What was appended is seen by reads at once, durable or not; whoever acknowledges waits for the ticket.
/// References to what is not known (a message that was settled, a session that has ended) change nothing.
pub trait Store: Send + Sync + 'static {
    /// Takes a record: all of it comes true, or nothing. Never blocks on a disk.
    fn append(&self, record: &[Event]) -> Ticket;

    /// A ticket that resolves when all that was appended before is on the disk, whatever the durability.
    fn sync(&self) -> Ticket;

    /// The client identifiers of all sessions, in no order.
    fn clients(&self) -> Vec<Arc<str>>;

    /// What is known of a session besides its messages; `None` when there is nothing.
    fn session(&self, client: &str) -> Option<SessionFacts>;

    /// The messages for a session that have at least the number `from`, in order, at most `max`.
    fn queue(&self, client: &str, from: Number, max: usize) -> Vec<Queued>;

    /// A message for a session, and the identifiers of the subscriptions that matched; `None` when the
    /// session does not have it.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn message(&self, client: &str, number: Number) -> Result<Option<Delivered>, StoreError>;

    /// The topics for which a message is retained, in no order.
    fn retained_topics(&self) -> Vec<Arc<str>>;

    /// What is retained for a topic.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn retained(&self, topic: &str) -> Result<Option<StoredMessage>, StoreError>;

    /// The sinks for which records wait, in order.
    fn sinks(&self) -> Vec<Arc<str>>;

    /// The records that wait for a sink and have at least the number `from`, in order, at most `max`.
    ///
    /// # Errors
    /// Why one cannot be read.
    fn sink_records(&self, sink: &str, from: Number, max: usize) -> Result<Vec<(Number, Bytes)>, StoreError>;

    /// The namespaces that have keys, in order.
    fn namespaces(&self) -> Vec<Arc<str>>;

    /// The keys of a namespace that are not less than `from`, in order, at most `max`.
    fn keys(&self, namespace: &str, from: &[u8], max: usize) -> Vec<Bytes>;

    /// The value of a key.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn value(&self, namespace: &str, key: &[u8]) -> Result<Option<Bytes>, StoreError>;
}

/// A message as a session gets it, and the identifiers of the subscriptions that matched.
pub type Delivered = (StoredMessage, Identifiers);

/// What is known of a session besides its messages.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionFacts {
    /// What was last set; `None` when messages or subscriptions came for a session that nobody has begun.
    pub header: Option<SessionHeader>,
    /// Its subscriptions by filter.
    pub subscriptions: BTreeMap<Arc<str>, Subscription>,
    /// The QoS 2 packet identifiers that it has taken as a publisher, in order.
    pub taken: Vec<PacketId>,
}

/// A message for a session, without what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queued {
    /// Its number.
    pub number: Number,
    /// How it is to be sent.
    pub delivery: QoSAndRetain,
    /// How far it is.
    pub stage: Stage,
}

/// Everything that a store holds: for comparing, exporting, looking at.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Snapshot {
    /// By client identifier.
    pub sessions: BTreeMap<Arc<str>, SessionSnapshot>,
    /// By topic.
    pub retained: BTreeMap<Arc<str>, StoredMessage>,
    /// By sink, in order.
    pub sinks: BTreeMap<Arc<str>, Vec<(Number, Bytes)>>,
    /// By namespace, then by key.
    pub keys: BTreeMap<Arc<str>, BTreeMap<Bytes, Bytes>>,
}

/// Everything that a store holds for a session.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionSnapshot {
    /// What is known of it.
    pub facts: SessionFacts,
    /// Its messages in order, with the identifiers of the subscriptions that matched.
    pub queue: Vec<(Queued, StoredMessage, Identifiers)>,
}

impl Snapshot {
    /// Reads all of `store`. What is appended meanwhile may be in it or not.
    ///
    /// # Errors
    /// The first thing that cannot be read.
    pub fn of(store: &dyn Store) -> Result<Self, StoreError> {
        let mut all = Self::default();
        for client in store.clients() {
            let Some(facts) = store.session(&client) else { continue };
            let mut queue = Vec::new();
            for queued in store.queue(&client, 0, usize::MAX) {
                let Some((message, identifiers)) = store.message(&client, queued.number)? else { continue };
                queue.push((queued, message, identifiers));
            }
            all.sessions.insert(client, SessionSnapshot { facts, queue });
        }
        for topic in store.retained_topics() {
            let message = store.retained(&topic)?;
            all.retained.extend(message.map(|message| (topic, message)));
        }
        for sink in store.sinks() {
            let records = store.sink_records(&sink, 0, usize::MAX)?;
            all.sinks.insert(sink, records);
        }
        for namespace in store.namespaces() {
            let mut values = BTreeMap::new();
            for key in store.keys(&namespace, &[], usize::MAX) {
                let value = store.value(&namespace, &key)?;
                values.extend(value.map(|value| (key, value)));
            }
            all.keys.insert(namespace, values);
        }
        Ok(all)
    }
}
