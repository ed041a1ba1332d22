//! From records to changed keys, and from keys back to what records amount to. What an event means is the memory
//! twin's affair; here is only which keys stand for it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::key::{Key, touched};
use crate::event::{Event, Number};
use crate::format;
use crate::memory::Held;

/// The changes that wait for a batch, by key: the last value of each counts.
pub(super) type Changes = BTreeMap<Key, Option<Bytes>>;

/// How many receivers each message has that is queued: with the last of them it goes.
pub(super) type Holders = BTreeMap<Number, usize>;

/// Applies `event`, and notes in `changes` what it changes. Returns by how many bytes these have grown.
pub(super) fn apply(
    held: &mut Held,
    holders: &mut Holders,
    changes: &mut Changes,
    event: &Event,
    number: Number,
) -> usize {
    let keys: BTreeSet<Key> = touched(held, event, number).into_iter().collect();
    let queued = |held: &Held, client: &str, number: &Number| {
        held.sessions.get(client).is_some_and(|session| session.queue.contains_key(number))
    };
    let before: Vec<bool> = keys
        .iter()
        .map(|key| matches!(key, Key::Queued(client, number) if queued(held, client, number)))
        .collect();
    held.apply(event, number);
    let mut grown = 0;
    for (key, before) in keys.into_iter().zip(before) {
        if let Key::Queued(client, number) = &key {
            let message = match (before, queued(held, client, number)) {
                (false, true) => hold(held, holders, client, *number).map(Some),
                (true, false) => release(holders, *number).then_some(None),
                (true, true) | (false, false) => None,
            };
            if let Some(value) = message {
                grown += note(changes, Key::Message(*number), value);
            }
        }
        let value = key.value(held);
        grown += note(changes, key, value);
    }
    grown
}

/// One more has the message. What is to be written of it, when it is the first.
fn hold(held: &Held, holders: &mut Holders, client: &str, number: Number) -> Option<Bytes> {
    let count = holders.entry(number).or_default();
    *count += 1;
    if *count > 1 {
        return None;
    }
    let mut out = Vec::new();
    format::write_message(&held.sessions.get(client)?.queue.get(&number)?.message, &mut out);
    Some(out.into())
}

/// One has it no more. Whether it was the last.
fn release(holders: &mut Holders, number: Number) -> bool {
    let left = holders.get(&number).map_or(0, |count| count.saturating_sub(1));
    if left == 0 {
        holders.remove(&number);
    } else {
        holders.insert(number, left);
    }
    left == 0
}

/// What an entry takes besides its value, in the memory of the backlog.
const ENTRY_BYTES: usize = 64;

/// Notes a change, and tells by how many bytes the changes have grown. What a later value saves is not counted.
pub(super) fn note(changes: &mut Changes, key: Key, value: Option<Bytes>) -> usize {
    let bytes = ENTRY_BYTES + value.as_ref().map_or(0, Bytes::len);
    changes.insert(key, value);
    bytes
}
