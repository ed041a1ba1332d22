//! From a store to lines.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use super::LINES_VERSION;
use super::line::{
    Blob, Content, End, Facts, Head, Key, Line, Message, Session, SinkRecord, Subscribed, Text, To,
};
use crate::error::StoreError;
use crate::event::{Number, Recipient, StoredMessage};
use crate::store::{Queued, Store};

/// How many sink records are read at a time.
pub(super) const SINK_RECORDS_AT_A_TIME: usize = 64;

/// What was exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exported {
    /// Sessions.
    pub sessions: u64,
    /// Messages that wait or are under way, each once.
    pub messages: u64,
    /// Retained messages.
    pub retained: u64,
    /// Records that wait for sinks.
    pub sink_records: u64,
    /// Keys.
    pub keys: u64,
}

/// Writes everything that `store` holds to `out`. What is appended meanwhile may be in it or not: a
/// [`ReadOnlyStore`](crate::ReadOnlyStore) stands still.
///
/// # Errors
/// What cannot be read, as an [`io::Error`] with the [`StoreError`] in it, and those of `out`.
pub fn export(store: &dyn Store, out: &mut dyn Write) -> io::Result<Exported> {
    let mut lines = Lines { out, written: 0 };
    let mut exported = Exported::default();
    let mut clients = store.clients();
    clients.sort_unstable();
    let messages = recipients_by_message(store, &clients);
    let mut last = messages.last_key_value().map_or(0, |(number, _)| *number);
    for sink in store.sinks() {
        // A record may be the last thing that was given a number.
        let mut from = 0;
        while let Some((number, _)) =
            store.sink_records(&sink, from, SINK_RECORDS_AT_A_TIME).map_err(failed)?.last()
        {
            (last, from) = (last.max(*number), number + 1);
        }
    }
    lines.write(&Line::Store(Head { version: LINES_VERSION, next_number: last + 1 }))?;
    for client in &clients {
        let Some(facts) = store.session(client) else { continue };
        exported.sessions += 1;
        lines.write(&Line::Session(Session {
            client: Text::of(client),
            facts: facts.header.as_ref().map(Facts::of),
            subscriptions: facts.subscriptions.iter().map(|(filter, s)| Subscribed::of(filter, s)).collect(),
            taken: facts.taken,
        }))?;
    }
    for (number, receivers) in messages {
        let Some((message, recipients)) = read_message(store, number, receivers).map_err(failed)? else {
            continue;
        };
        exported.messages += 1;
        let recipients = recipients.iter().map(To::of).collect();
        lines.write(&Line::Message(Message { number, content: Content::of(&message), recipients }))?;
    }
    let mut topics = store.retained_topics();
    topics.sort_unstable();
    for topic in topics {
        let Some(message) = store.retained(&topic).map_err(failed)? else { continue };
        exported.retained += 1;
        lines.write(&Line::Retained(Content::of(&message)))?;
    }
    exported.sink_records = lines.sink_records(store)?;
    exported.keys = lines.keys(store)?;
    let lines_before = lines.written;
    lines.write(&Line::End(End { lines: lines_before }))?;
    lines.out.flush()?;
    Ok(exported)
}

fn failed(error: StoreError) -> io::Error {
    io::Error::other(error)
}

/// Who is to have each message, by its number.
pub(super) fn recipients_by_message(
    store: &dyn Store,
    clients: &[Arc<str>],
) -> BTreeMap<Number, Vec<(Arc<str>, Queued)>> {
    let mut messages: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for client in clients {
        for queued in store.queue(client, 0, usize::MAX) {
            messages.entry(queued.number).or_default().push((Arc::clone(client), queued));
        }
    }
    messages
}

pub(super) fn read_message(
    store: &dyn Store,
    number: Number,
    receivers: Vec<(Arc<str>, Queued)>,
) -> Result<Option<(StoredMessage, Vec<Recipient>)>, StoreError> {
    let mut found = None;
    let mut recipients = Vec::with_capacity(receivers.len());
    for (client, queued) in receivers {
        let Some((message, identifiers)) = store.message(&client, number)? else { continue };
        let (qos, retain) = (queued.delivery.qos, queued.delivery.retain);
        recipients.push(Recipient { client, qos, retain, identifiers, stage: queued.stage });
        found = Some(message);
    }
    Ok(found.map(|message| (message, recipients)))
}

struct Lines<'a> {
    out: &'a mut dyn Write,
    written: u64,
}

impl Lines<'_> {
    fn write(&mut self, line: &Line) -> io::Result<()> {
        serde_json::to_writer(&mut *self.out, line)?;
        self.written += 1;
        self.out.write_all(b"\n")
    }

    fn sink_records(&mut self, store: &dyn Store) -> io::Result<u64> {
        let mut count = 0;
        for sink in store.sinks() {
            let mut from = 0;
            loop {
                let records = store.sink_records(&sink, from, SINK_RECORDS_AT_A_TIME).map_err(failed)?;
                let Some((last, _)) = records.last() else { break };
                from = last + 1;
                count += records.len() as u64;
                for (number, record) in records {
                    let sink = Text::of(&sink);
                    self.write(&Line::SinkRecord(SinkRecord { sink, number, record: Blob(record) }))?;
                }
            }
        }
        Ok(count)
    }

    fn keys(&mut self, store: &dyn Store) -> io::Result<u64> {
        let mut count = 0;
        for namespace in store.namespaces() {
            for key in store.keys(&namespace, &[], usize::MAX) {
                let Some(value) = store.value(&namespace, &key).map_err(failed)? else { continue };
                count += 1;
                let namespace = Text::of(&namespace);
                self.write(&Line::Key(Key { namespace, key: Blob(key), value: Blob(value) }))?;
            }
        }
        Ok(count)
    }
}
