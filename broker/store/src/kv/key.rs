//! What stands under which key: the layout of the README. Strings in the middle of a key have their length in
//! front, numbers are big-endian.

use std::sync::Arc;

use bytes::Bytes;

use crate::codec::{Malformed, Reader, put_text};
use crate::event::{Event, Number, PacketId, Recipient, RetainChange, numbers};
use crate::format;
use crate::memory::Held;

const MARK: u8 = 0;
const SESSION: u8 = 1;
const SUBSCRIPTION: u8 = 2;
const TAKEN: u8 = 3;
const MESSAGE: u8 = 4;
const QUEUED: u8 = 5;
const RETAINED: u8 = 6;
const SINK: u8 = 7;
const VALUE: u8 = 8;

/// A key of the backend.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    /// The format, and the next number.
    Mark,
    Session(Arc<str>),
    Subscription(Arc<str>, Arc<str>),
    Taken(Arc<str>, PacketId),
    /// What is queued, once for all receivers.
    Message(Number),
    Queued(Arc<str>, Number),
    Retained(Arc<str>),
    Sink(Arc<str>, Number),
    Value(Arc<str>, Bytes),
}

impl Key {
    pub(super) fn to_bytes(&self) -> Bytes {
        let mut out = Vec::new();
        match self {
            Self::Mark => out.push(MARK),
            Self::Session(client) => {
                out.push(SESSION);
                out.extend_from_slice(client.as_bytes());
            }
            Self::Subscription(client, filter) => begin(SUBSCRIPTION, client, filter.as_bytes(), &mut out),
            Self::Taken(client, packet_id) => begin(TAKEN, client, &packet_id.get().to_be_bytes(), &mut out),
            Self::Message(number) => {
                out.push(MESSAGE);
                out.extend_from_slice(&number.to_be_bytes());
            }
            Self::Queued(client, number) => begin(QUEUED, client, &number.to_be_bytes(), &mut out),
            Self::Retained(topic) => {
                out.push(RETAINED);
                out.extend_from_slice(topic.as_bytes());
            }
            Self::Sink(sink, number) => begin(SINK, sink, &number.to_be_bytes(), &mut out),
            Self::Value(namespace, key) => begin(VALUE, namespace, key, &mut out),
        }
        out.into()
    }

    pub(super) fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let key = match reader.u8()? {
            MARK => Self::Mark,
            SESSION => Self::Session(text_to_end(&mut reader)?),
            SUBSCRIPTION => Self::Subscription(reader.text()?.into(), text_to_end(&mut reader)?),
            TAKEN => {
                let client = reader.text()?.into();
                let packet_id = PacketId::new(u16::from_be_bytes(reader.array()?));
                Self::Taken(client, packet_id.ok_or(Malformed("a packet identifier is 0"))?)
            }
            MESSAGE => Self::Message(number(&mut reader)?),
            QUEUED => Self::Queued(reader.text()?.into(), number(&mut reader)?),
            RETAINED => Self::Retained(text_to_end(&mut reader)?),
            SINK => Self::Sink(reader.text()?.into(), number(&mut reader)?),
            VALUE => {
                let namespace = reader.text()?.into();
                Self::Value(namespace, Bytes::copy_from_slice(reader.take(reader.rest().len())?))
            }
            _ => return Err(Malformed("a key is of no known kind")),
        };
        reader.end()?;
        Ok(key)
    }

    /// What stands under it; `None` when nothing does. [`Key::Mark`] is not the state's.
    pub(super) fn value(&self, held: &Held) -> Option<Bytes> {
        let session = |client: &str| held.sessions.get(client);
        let mut out = Vec::new();
        match self {
            Self::Mark | Self::Message(_) => return None,
            Self::Session(client) => format::write_session(session(client)?.header.as_ref()?, &mut out),
            Self::Subscription(client, filter) => {
                format::write_subscription(session(client)?.subscriptions.get(filter)?, &mut out);
            }
            Self::Taken(client, packet_id) => {
                return session(client)?.taken.get(packet_id).map(|_| Bytes::new());
            }
            Self::Queued(client, number) => {
                let waiting = session(client)?.queue.get(number)?;
                let recipient = Recipient {
                    client: Arc::clone(client),
                    qos: waiting.delivery.qos,
                    retain: waiting.delivery.retain,
                    identifiers: waiting.identifiers.clone(),
                    stage: waiting.stage,
                };
                format::write_recipient(&recipient, &mut out);
            }
            Self::Retained(topic) => format::write_message(held.retained.get(topic)?, &mut out),
            Self::Sink(sink, number) => return held.sinks.get(sink)?.get(number).cloned(),
            Self::Value(namespace, key) => return held.keys.get(namespace)?.get(key).cloned(),
        }
        Some(out.into())
    }
}

fn begin(kind: u8, name: &str, rest: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    put_text(out, name);
    out.extend_from_slice(rest);
}

fn number(reader: &mut Reader<'_>) -> Result<Number, Malformed> {
    reader.array().map(Number::from_be_bytes)
}

fn text_to_end(reader: &mut Reader<'_>) -> Result<Arc<str>, Malformed> {
    let bytes = reader.take(reader.rest().len())?;
    std::str::from_utf8(bytes).map(Arc::from).map_err(|_| Malformed("a text is not UTF-8"))
}

/// The keys that `event` can change, where its number is `number` and `held` is the state before it. Messages are
/// not among them: they follow from what is queued.
pub(super) fn touched(held: &Held, event: &Event, number: Number) -> Vec<Key> {
    match event {
        Event::SessionSet { client, .. } => vec![Key::Session(Arc::clone(client))],
        Event::SessionEnded { client } => of_session(held, client),
        Event::Subscribed { client, filter, .. } | Event::Unsubscribed { client, filter } => {
            vec![Key::Subscription(Arc::clone(client), Arc::clone(filter))]
        }
        Event::Published(published) => {
            let topic = published.stored.message.topic.as_str();
            let retained = (published.retain != RetainChange::Keep).then(|| Key::Retained(topic.into()));
            let taken =
                published.taken_from.iter().map(|from| Key::Taken(Arc::clone(&from.client), from.packet_id));
            let queued = published.recipients.iter().map(|to| Key::Queued(Arc::clone(&to.client), number));
            queued.chain(retained).chain(taken).collect()
        }
        Event::UnderWay { client, number, .. } | Event::Released { client, number } => {
            vec![Key::Queued(Arc::clone(client), *number)]
        }
        Event::Settled { client, number, more } => {
            let queue = held.sessions.get(client).map(|session| session.queue.range(numbers(*number, *more)));
            let queued = queue.into_iter().flatten();
            queued.map(|(number, _)| Key::Queued(Arc::clone(client), *number)).collect()
        }
        Event::Taken { from } | Event::Freed { from } => {
            vec![Key::Taken(Arc::clone(&from.client), from.packet_id)]
        }
        Event::RetainedCleared { topic } => vec![Key::Retained(topic.as_str().into())],
        Event::SinkAppended { sink, .. } => vec![Key::Sink(Arc::clone(sink), number)],
        Event::SinkSettled { sink, number } => vec![Key::Sink(Arc::clone(sink), *number)],
        Event::KeySet { namespace, key, .. } | Event::KeyRemoved { namespace, key } => {
            vec![Key::Value(Arc::clone(namespace), key.clone())]
        }
    }
}

fn of_session(held: &Held, client: &Arc<str>) -> Vec<Key> {
    let Some(session) = held.sessions.get(client) else { return Vec::new() };
    let header = session.header.iter().map(|_| Key::Session(Arc::clone(client)));
    let subscriptions =
        session.subscriptions.keys().map(|filter| Key::Subscription(Arc::clone(client), Arc::clone(filter)));
    let queued = session.queue.keys().map(|number| Key::Queued(Arc::clone(client), *number));
    let taken = session.taken.iter().map(|packet_id| Key::Taken(Arc::clone(client), *packet_id));
    header.chain(subscriptions).chain(queued).chain(taken).collect()
}
