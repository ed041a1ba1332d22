//! From what a backend has to the state: everything is read, once.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use weirmq_core::durable::backend::Backend;

use super::key::Key;
use super::state::Holders;
use crate::codec::{Malformed, Reader};
use crate::error::OpenError;
use crate::event::{Event, Number, Published, Recipient, Recipients, RetainChange, Sender, StoredMessage};
use crate::format::{self, RecipientView};
use crate::memory::Held;

/// The format of keys and values.
const VERSION: u16 = 1;

/// How many keys are asked for at a time.
const SCAN_MAX: usize = 512;

/// What stands under [`Key::Mark`].
pub(super) fn mark(last_number: Number) -> Bytes {
    let mut out = VERSION.to_le_bytes().to_vec();
    out.extend_from_slice(&last_number.to_le_bytes());
    out.into()
}

#[derive(Default)]
pub(super) struct Opened {
    pub(super) held: Held,
    pub(super) holders: Holders,
    /// Those that were read; queued ones come behind them.
    messages: BTreeMap<Number, StoredMessage>,
    has_mark: bool,
}

/// Reads everything.
pub(super) fn read(name: &Arc<str>, backend: &dyn Backend) -> Result<Opened, OpenError> {
    let failed = |cause: Arc<str>| OpenError::Backend { name: Arc::clone(name), cause };
    let mut opened = Opened::default();
    let mut from = Vec::new();
    loop {
        let entries = backend.scan(&from, SCAN_MAX).map_err(|error| failed(error.reason))?;
        if entries.is_empty() {
            return Ok(opened);
        }
        for (key, value) in entries {
            if *key < *from {
                return Err(failed("it does not give keys in their order".into()));
            }
            opened.take(name, &key, &value)?;
            from.clear();
            from.extend_from_slice(&key);
            // The least key that comes behind it.
            from.push(0);
        }
    }
}

impl Opened {
    fn take(&mut self, name: &Arc<str>, key: &[u8], value: &Bytes) -> Result<(), OpenError> {
        let damaged = |malformed: Malformed| OpenError::BackendDamaged {
            name: Arc::clone(name),
            key: key.escape_ascii().to_string(),
            what: malformed.0,
        };
        let parsed = Key::read(key).map_err(damaged)?;
        if parsed == Key::Mark {
            let mut reader = Reader::new(value);
            let version = reader.u16().map_err(damaged)?;
            if version != VERSION {
                let path = name.as_ref().into();
                return Err(OpenError::NewerFormat { path, version, version_max: VERSION });
            }
            self.held.last_number = reader.u64().map_err(damaged)?;
            self.has_mark = true;
            return reader.end().map_err(damaged);
        }
        if !self.has_mark {
            return Err(damaged(Malformed("the mark of a store does not come before it")));
        }
        self.apply(parsed, value).map_err(damaged)
    }

    /// Tells the state what the value says, in the words of a record.
    fn apply(&mut self, key: Key, value: &Bytes) -> Result<(), Malformed> {
        let mut reader = Reader::new(value);
        let (event, number) = match key {
            Key::Mark => return Ok(()),
            Key::Session(client) => {
                (Event::SessionSet { client, session: format::read_session(&mut reader)? }, 0)
            }
            Key::Subscription(client, filter) => {
                let subscription = format::read_subscription(&mut reader)?;
                (Event::Subscribed { client, filter, subscription }, 0)
            }
            Key::Taken(client, packet_id) => (Event::Taken { from: Sender { client, packet_id } }, 0),
            Key::Message(number) => {
                self.messages.insert(number, format::read_message(value)?);
                return Ok(());
            }
            Key::Queued(client, number) => {
                let to = RecipientView::read(&mut reader)?;
                let identifiers = to.identifiers().collect::<Option<_>>();
                let recipient = Recipient {
                    client,
                    qos: to.qos,
                    retain: to.retain,
                    identifiers: identifiers.ok_or(Malformed("a subscription identifier is none"))?,
                    stage: to.stage,
                };
                let message = self.messages.get(&number).ok_or(Malformed("its message is missing"))?;
                *self.holders.entry(number).or_default() += 1;
                (published(message.clone(), Recipients::from_iter([recipient]), RetainChange::Keep), number)
            }
            Key::Retained(_) => {
                let message = format::read_message(value)?;
                self.held.apply(&published(message, Recipients::new(), RetainChange::Replace), 0);
                return Ok(());
            }
            Key::Sink(sink, number) => {
                self.held.apply(&Event::SinkAppended { sink, record: value.clone() }, number);
                return Ok(());
            }
            Key::Value(namespace, key) => {
                self.held.apply(&Event::KeySet { namespace, key, value: value.clone() }, 0);
                return Ok(());
            }
        };
        reader.end()?;
        self.held.apply(&event, number);
        Ok(())
    }
}

fn published(stored: StoredMessage, recipients: Recipients, retain: RetainChange) -> Event {
    Event::Published(Published { stored, recipients, retain, taken_from: None })
}
