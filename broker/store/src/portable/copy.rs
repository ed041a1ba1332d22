//! From a store to another.

use std::sync::Arc;

use super::export::{SINK_RECORDS_AT_A_TIME, read_message, recipients_by_message};
use crate::error::StoreError;
use crate::event::{Event, Published, Recipients, RetainChange, Sender};
use crate::store::Store;

/// Why a store was not copied, or not wholly.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CopyError {
    /// There is something in the store that it was to be copied into.
    #[error("it is not empty; name one that is")]
    NotEmpty,
    /// What cannot be read or written.
    #[error("{0}; what has come into it so far is not whole: empty it and begin anew")]
    Store(#[from] StoreError),
}

/// Has everything that is in `from` kept by `to` too, which must be empty. Messages and sink records keep their order,
/// and get other numbers. What is appended to `from` meanwhile may be in it or not.
///
/// # Errors
/// [`CopyError`].
pub fn copy(from: &dyn Store, to: &dyn Store) -> Result<(), CopyError> {
    let is_empty = to.clients().is_empty()
        && to.retained_topics().is_empty()
        && to.sinks().is_empty()
        && to.namespaces().is_empty();
    if !is_empty {
        return Err(CopyError::NotEmpty);
    }
    let clients = from.clients();
    for client in &clients {
        append(to, &session(from, client))?;
    }
    for (number, receivers) in recipients_by_message(from, &clients) {
        let Some((stored, recipients)) = read_message(from, number, receivers)? else { continue };
        let (recipients, retain) = (recipients.into(), RetainChange::Keep);
        append(to, &[Event::Published(Published { stored, recipients, retain, taken_from: None })])?;
    }
    for topic in from.retained_topics() {
        let Some(stored) = from.retained(&topic)? else { continue };
        let (recipients, retain) = (Recipients::new(), RetainChange::Replace);
        append(to, &[Event::Published(Published { stored, recipients, retain, taken_from: None })])?;
    }
    for sink in from.sinks() {
        let mut next = 0;
        loop {
            let records = from.sink_records(&sink, next, SINK_RECORDS_AT_A_TIME)?;
            let Some((last, _)) = records.last() else { break };
            next = last.saturating_add(1);
            for (_, record) in records {
                append(to, &[Event::SinkAppended { sink: Arc::clone(&sink), record }])?;
            }
        }
    }
    for namespace in from.namespaces() {
        for key in from.keys(&namespace, &[], usize::MAX) {
            let Some(value) = from.value(&namespace, &key)? else { continue };
            append(to, &[Event::KeySet { namespace: Arc::clone(&namespace), key, value }])?;
        }
    }
    Ok(to.sync().wait()?)
}

/// What is known of a session besides its messages, as a record.
fn session(from: &dyn Store, client: &Arc<str>) -> Vec<Event> {
    let Some(facts) = from.session(client) else { return Vec::new() };
    let client = || Arc::clone(client);
    let set = facts.header.into_iter().map(|session| Event::SessionSet { client: client(), session });
    let subscribed = facts.subscriptions.into_iter().map(|(filter, subscription)| Event::Subscribed {
        client: client(),
        filter,
        subscription,
    });
    let taken = facts
        .taken
        .into_iter()
        .map(|packet_id| Event::Taken { from: Sender { client: client(), packet_id } });
    set.chain(subscribed).chain(taken).collect()
}

/// Appends, and lets the other side catch up where it does not.
fn append(to: &dyn Store, record: &[Event]) -> Result<(), StoreError> {
    if record.is_empty() {
        return Ok(());
    }
    loop {
        let ticket = to.append(record);
        if ticket.number() > 0 {
            return Ok(());
        }
        match ticket.wait() {
            Err(StoreError::Backlog { .. }) => to.sync().wait()?,
            outcome => return outcome,
        }
    }
}
