//! The oracle: the same trait on redb, an embedded key-value engine that others have written. A record is a
//! transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use redb::backends::InMemoryBackend;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use weirmq_store::event::{
    Event, PacketId, Published, QoSAndRetain, RetainChange, Sender, Stage, StoredMessage, Subscription,
    numbers,
};
use weirmq_store::{Delivered, Queued, SessionFacts, Store, StoreError, Ticket};

use super::words;

/// Seeds of what `words` makes.
const SESSIONS: TableDefinition<&str, u32> = TableDefinition::new("sessions");
const RETAINED: TableDefinition<&str, u32> = TableDefinition::new("retained");
/// QoS, no local, retain as published, identifier.
const SUBSCRIPTIONS: TableDefinition<(&str, &str), (u8, bool, bool, u32)> =
    TableDefinition::new("subscriptions");
/// Seed, QoS, retain, stage, packet identifier, subscription identifiers.
type WaitingRow = (u32, u8, bool, u8, u16, Vec<u32>);
const QUEUE: TableDefinition<(&str, u64), WaitingRow> = TableDefinition::new("queue");
const TAKEN: TableDefinition<(&str, u16), ()> = TableDefinition::new("taken");
const SINKS: TableDefinition<(&str, u64), &[u8]> = TableDefinition::new("sinks");
const KEYS: TableDefinition<(&str, &[u8]), &[u8]> = TableDefinition::new("keys");
const NUMBERS: TableDefinition<(), u64> = TableDefinition::new("numbers");

pub struct RedbStore(Database);

impl RedbStore {
    pub fn new() -> Self {
        let database = Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
        let store = Self(database);
        // Tables are there once they were opened for writing.
        store.append(&[]).wait().unwrap();
        store
    }

    fn queue_rows(&self) -> BTreeMap<(String, u64), WaitingRow> {
        let read = self.0.begin_read().unwrap();
        let table = read.open_table(QUEUE).unwrap();
        let rows = table.iter().unwrap().map(Result::unwrap);
        rows.map(|(key, row)| ((key.value().0.to_owned(), key.value().1), row.value())).collect()
    }
}

fn seed_of(message: &StoredMessage) -> u32 {
    message.message.received_unix_ms as u32
}

fn stage_row(stage: Stage) -> (u8, u16) {
    match stage {
        Stage::Waiting => (0, 0),
        Stage::UnderWay(id) => (1, id.get()),
        Stage::Released(id) => (2, id.get()),
    }
}

fn stage_of(stage: u8, id: u16) -> Stage {
    match stage {
        0 => Stage::Waiting,
        1 => Stage::UnderWay(words::id(id)),
        _ => Stage::Released(words::id(id)),
    }
}

fn apply(write: &WriteTransaction, event: &Event, number: u64) {
    match event {
        Event::SessionSet { client, session } => {
            write.open_table(SESSIONS).unwrap().insert(&**client, session.expiry_s).unwrap();
        }
        Event::SessionEnded { client } => end(write, client),
        Event::Subscribed { client, filter, subscription: s } => {
            let row =
                (s.qos.as_u8(), s.no_local, s.retain_as_published, s.identifier.map_or(0, |id| id.get()));
            write.open_table(SUBSCRIPTIONS).unwrap().insert((&**client, &**filter), row).unwrap();
        }
        Event::Unsubscribed { client, filter } => {
            write.open_table(SUBSCRIPTIONS).unwrap().remove((&**client, &**filter)).unwrap();
        }
        Event::Published(published) => publish(write, published, number),
        Event::UnderWay { client, number, packet_id } => {
            change(write, client, *number, |_, _| (1, packet_id.get()));
        }
        Event::Released { client, number } => {
            change(write, client, *number, |stage, id| if stage == 1 { (2, id) } else { (stage, id) });
        }
        Event::Settled { client, number, more } => {
            let mut queue = write.open_table(QUEUE).unwrap();
            for number in numbers(*number, *more) {
                queue.remove((&**client, number)).unwrap();
            }
        }
        Event::Taken { from } => take(write, from),
        Event::Freed { from } => {
            write.open_table(TAKEN).unwrap().remove((&*from.client, from.packet_id.get())).unwrap();
        }
        Event::RetainedCleared { topic } => {
            drop(write.open_table(RETAINED).unwrap().remove(topic.as_str()).unwrap())
        }
        Event::SinkAppended { sink, record } => {
            write.open_table(SINKS).unwrap().insert((&**sink, number), &**record).unwrap();
        }
        Event::SinkSettled { sink, number } => {
            write.open_table(SINKS).unwrap().remove((&**sink, *number)).unwrap();
        }
        Event::KeySet { namespace, key, value } => {
            write.open_table(KEYS).unwrap().insert((&**namespace, &**key), &**value).unwrap();
        }
        Event::KeyRemoved { namespace, key } => {
            write.open_table(KEYS).unwrap().remove((&**namespace, &**key)).unwrap();
        }
    }
}

fn take(write: &WriteTransaction, from: &Sender) {
    write.open_table(TAKEN).unwrap().insert((&*from.client, from.packet_id.get()), ()).unwrap();
}

fn publish(write: &WriteTransaction, published: &Published, number: u64) {
    let seed = seed_of(&published.stored);
    let mut queue = write.open_table(QUEUE).unwrap();
    for recipient in &published.recipients {
        let (stage, id) = stage_row(recipient.stage);
        let row = (seed, recipient.qos.as_u8(), recipient.retain, stage, id, recipient.identifiers.to_vec());
        queue.insert((&*recipient.client, number), row).unwrap();
    }
    let mut retained = write.open_table(RETAINED).unwrap();
    match published.retain {
        RetainChange::Keep => {}
        RetainChange::Replace => {
            drop(retained.insert(published.stored.message.topic.as_str(), seed).unwrap())
        }
        RetainChange::Clear => drop(retained.remove(published.stored.message.topic.as_str()).unwrap()),
    }
    if let Some(from) = &published.taken_from {
        take(write, from);
    }
}

fn change(write: &WriteTransaction, client: &str, number: u64, to: impl FnOnce(u8, u16) -> (u8, u16)) {
    let mut queue = write.open_table(QUEUE).unwrap();
    let Some(mut row) = queue.get((client, number)).unwrap().map(|row| row.value()) else { return };
    (row.3, row.4) = to(row.3, row.4);
    queue.insert((client, number), row).unwrap();
}

fn end(write: &WriteTransaction, client: &str) {
    write.open_table(SESSIONS).unwrap().remove(client).unwrap();
    write.open_table(SUBSCRIPTIONS).unwrap().retain(|key, _| key.0 != client).unwrap();
    write.open_table(QUEUE).unwrap().retain(|key, _| key.0 != client).unwrap();
    write.open_table(TAKEN).unwrap().retain(|key, ()| key.0 != client).unwrap();
}

impl Store for RedbStore {
    fn append(&self, record: &[Event]) -> Ticket {
        let write = self.0.begin_write().unwrap();
        let first;
        {
            let mut numbers = write.open_table(NUMBERS).unwrap();
            first = numbers.get(()).unwrap().map_or(1, |number| number.value());
            numbers.insert((), first + record.len() as u64).unwrap();
            write.open_table(SESSIONS).unwrap();
            write.open_table(RETAINED).unwrap();
            write.open_table(SUBSCRIPTIONS).unwrap();
            write.open_table(QUEUE).unwrap();
            write.open_table(TAKEN).unwrap();
            write.open_table(SINKS).unwrap();
            write.open_table(KEYS).unwrap();
        }
        for (event, number) in record.iter().zip(first..) {
            apply(&write, event, number);
        }
        write.commit().unwrap();
        Ticket::resolved(first, Ok(()))
    }

    fn sync(&self) -> Ticket {
        Ticket::resolved(0, Ok(()))
    }

    fn clients(&self) -> Vec<Arc<str>> {
        let read = self.0.begin_read().unwrap();
        let mut all: BTreeSet<Arc<str>> =
            self.queue_rows().into_keys().map(|(client, _)| client.into()).collect();
        for row in read.open_table(SESSIONS).unwrap().iter().unwrap() {
            all.insert(row.unwrap().0.value().into());
        }
        for row in read.open_table(SUBSCRIPTIONS).unwrap().iter().unwrap() {
            all.insert(row.unwrap().0.value().0.into());
        }
        for row in read.open_table(TAKEN).unwrap().iter().unwrap() {
            all.insert(row.unwrap().0.value().0.into());
        }
        all.into_iter().collect()
    }

    fn session(&self, client: &str) -> Option<SessionFacts> {
        if !self.clients().iter().any(|known| &**known == client) {
            return None;
        }
        let read = self.0.begin_read().unwrap();
        let seed = read.open_table(SESSIONS).unwrap().get(client).unwrap().map(|seed| seed.value());
        let subscriptions = read.open_table(SUBSCRIPTIONS).unwrap();
        let subscriptions =
            subscriptions.iter().unwrap().map(Result::unwrap).filter(|row| row.0.value().0 == client);
        let taken = read.open_table(TAKEN).unwrap();
        let taken = taken.iter().unwrap().map(Result::unwrap).filter(|row| row.0.value().0 == client);
        Some(SessionFacts {
            header: seed.map(words::session),
            subscriptions: subscriptions
                .map(|(key, row)| {
                    let (number, no_local, retain_as_published, identifier) = row.value();
                    let identifier = std::num::NonZeroU32::new(identifier);
                    let qos = words::qos(number);
                    (key.value().1.into(), Subscription { qos, no_local, retain_as_published, identifier })
                })
                .collect(),
            taken: taken.map(|(key, _)| PacketId::new(key.value().1).unwrap()).collect(),
        })
    }

    fn queue(&self, client: &str, from: u64, max: usize) -> Vec<Queued> {
        let rows = self.queue_rows().into_iter().filter(|((of, number), _)| of == client && *number >= from);
        rows.take(max)
            .map(|((_, number), (_, qos, retain, stage, id, _))| Queued {
                number,
                delivery: QoSAndRetain { qos: words::qos(qos), retain },
                stage: stage_of(stage, id),
            })
            .collect()
    }

    fn message(&self, client: &str, number: u64) -> Result<Option<Delivered>, StoreError> {
        let row = self.queue_rows().remove(&(client.to_owned(), number));
        Ok(row.map(|row| (words::message(row.0), row.5.into_iter().collect())))
    }

    fn retained_topics(&self) -> Vec<Arc<str>> {
        let read = self.0.begin_read().unwrap();
        let table = read.open_table(RETAINED).unwrap();
        table.iter().unwrap().map(|row| row.unwrap().0.value().into()).collect()
    }

    fn retained(&self, topic: &str) -> Result<Option<StoredMessage>, StoreError> {
        let read = self.0.begin_read().unwrap();
        let seed = read.open_table(RETAINED).unwrap().get(topic).unwrap().map(|seed| seed.value());
        Ok(seed.map(words::message))
    }

    fn sinks(&self) -> Vec<Arc<str>> {
        let read = self.0.begin_read().unwrap();
        let table = read.open_table(SINKS).unwrap();
        let names: BTreeSet<_> = table.iter().unwrap().map(|row| row.unwrap().0.value().0.into()).collect();
        names.into_iter().collect()
    }

    fn sink_records(&self, sink: &str, from: u64, max: usize) -> Result<Vec<(u64, Bytes)>, StoreError> {
        let read = self.0.begin_read().unwrap();
        let table = read.open_table(SINKS).unwrap();
        let rows = table.range((sink, from)..=(sink, u64::MAX)).unwrap().take(max).map(Result::unwrap);
        Ok(rows.map(|(key, record)| (key.value().1, Bytes::copy_from_slice(record.value()))).collect())
    }

    fn namespaces(&self) -> Vec<Arc<str>> {
        let read = self.0.begin_read().unwrap();
        let table = read.open_table(KEYS).unwrap();
        let names: BTreeSet<_> = table.iter().unwrap().map(|row| row.unwrap().0.value().0.into()).collect();
        names.into_iter().collect()
    }

    fn keys(&self, namespace: &str, from: &[u8], max: usize) -> Vec<Bytes> {
        let read = self.0.begin_read().unwrap();
        let table = read.open_table(KEYS).unwrap();
        let rows = table.range((namespace, from)..).unwrap().map(Result::unwrap);
        let rows = rows.take_while(|(key, _)| key.value().0 == namespace).take(max);
        rows.map(|(key, _)| Bytes::copy_from_slice(key.value().1)).collect()
    }

    fn value(&self, namespace: &str, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let read = self.0.begin_read().unwrap();
        let value = read.open_table(KEYS).unwrap().get((namespace, key)).unwrap();
        Ok(value.map(|value| Bytes::copy_from_slice(value.value())))
    }
}
