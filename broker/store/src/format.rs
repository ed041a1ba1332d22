//! Events to bytes and back. An event is a kind, a length and a body; the README has each of them.
//!
//! What is recovered is read from the bytes ([`EventView`]); what is appended is applied to the state as it was said
//! where it comes with every message. That the two do not differ is for the oracle to say, which opens what it has
//! appended.

use std::num::NonZeroU32;
use std::sync::Arc;

use bytes::Bytes;
use weirmq_core::message::{Message, Properties, Publisher, QoS};
use weirmq_core::topic::TopicName;

use crate::codec::{Malformed, Reader, put_bytes, put_text, put_varint};
use crate::event::{
    Event, Number, PacketId, Published, Recipient, RetainChange, SessionHeader, Stage, StoredMessage,
    StoredWill, Subscription,
};

/// Kind and length.
const EVENT_HEAD_BYTES: usize = 5;

const SESSION_SET: u8 = 1;
const SESSION_ENDED: u8 = 2;
const SUBSCRIBED: u8 = 3;
const UNSUBSCRIBED: u8 = 4;
const PUBLISHED: u8 = 5;
const UNDER_WAY: u8 = 6;
const RELEASED: u8 = 7;
const SETTLED: u8 = 8;
const TAKEN: u8 = 9;
const FREED: u8 = 10;
const RETAINED_CLEARED: u8 = 11;
const SINK_APPENDED: u8 = 12;
const SINK_SETTLED: u8 = 13;
const KEY_SET: u8 = 14;
const KEY_REMOVED: u8 = 15;
const MESSAGE_COPIED: u8 = 16;
const SINK_COPIED: u8 = 17;
const SETTLED_RUN: u8 = 18;
const PUBLISHED_AGAIN: u8 = 19;

/// An event as it stands in a frame.
#[derive(Debug)]
pub(crate) enum EventView<'a> {
    SessionSet { client: &'a str, session: SessionHeader },
    SessionEnded { client: &'a str },
    Subscribed { client: &'a str, filter: &'a str, subscription: Subscription },
    Unsubscribed { client: &'a str, filter: &'a str },
    Published(PublishedView<'a>),
    UnderWay { client: &'a str, number: Number, packet_id: PacketId },
    Released { client: &'a str, number: Number },
    Settled { client: &'a str, number: Number, more: u32 },
    Taken { client: &'a str, packet_id: PacketId },
    Freed { client: &'a str, packet_id: PacketId },
    RetainedCleared { topic: &'a str },
    SinkAppended { copied: Option<Number>, sink: &'a str, record: &'a [u8] },
    SinkSettled { sink: &'a str, number: Number },
    KeySet { namespace: &'a str, key: &'a [u8], value: &'a [u8] },
    KeyRemoved { namespace: &'a str, key: &'a [u8] },
}

/// A message as it stands in a frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PublishedView<'a> {
    /// Its number, when it was copied; else that follows from its record.
    pub(crate) copied: Option<Number>,
    message: &'a [u8],
    again: Option<Again<'a>>,
    pub(crate) retain: RetainChange,
    pub(crate) taken_from: Option<(&'a str, PacketId)>,
    recipients_count: usize,
    recipients: Reader<'a>,
}

/// What is different in a message that is like another in its frame.
#[derive(Debug, Clone, Copy)]
struct Again<'a> {
    /// How much later it was received, in milliseconds.
    later_ms: u64,
    /// For each recipient its packet identifier, 0 where it waits.
    packet_ids: Reader<'a>,
    payload: &'a [u8],
}

/// A recipient as it stands in a frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecipientView<'a> {
    pub(crate) client: &'a str,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) stage: Stage,
    identifiers_count: usize,
    identifiers: Reader<'a>,
}

/// An event, where it begins in its frame's events, and its bytes.
pub(crate) struct Located<'a> {
    pub(crate) at: u32,
    pub(crate) bytes: &'a [u8],
    /// How many bytes it takes where it is not said in few words, give or take packet identifiers.
    pub(crate) whole_bytes: usize,
    pub(crate) event: EventView<'a>,
}

/// The events of a frame, in order.
pub(crate) fn events(all: &[u8]) -> impl Iterator<Item = Result<Located<'_>, Malformed>> {
    let (mut at, mut before) = (0, None);
    std::iter::from_fn(move || {
        if at >= all.len() {
            return None;
        }
        let located = event_at(all, at, &mut before);
        at = located.as_ref().map_or(all.len(), |located| at + located.bytes.len());
        Some(located)
    })
}

/// The event that begins at `at` in a frame's events.
pub(crate) fn event(all: &[u8], at: u32) -> Result<Located<'_>, Malformed> {
    event_at(all, at as usize, &mut None)
}

/// A message that others in its frame are like.
#[derive(Debug, Clone, Copy)]
struct Model<'a> {
    at: usize,
    bytes_len: usize,
    view: PublishedView<'a>,
}

/// `before` is the last message that others can be like, where it is known.
fn event_at<'a>(all: &'a [u8], at: usize, before: &mut Option<Model<'a>>) -> Result<Located<'a>, Malformed> {
    let (kind, bytes, mut body) = framed_at(all, at)?;
    let mut whole_bytes = bytes.len();
    let event = if kind == PUBLISHED_AGAIN {
        let back = usize::try_from(body.varint()?).ok();
        let model_at = back.and_then(|back| at.checked_sub(back)).filter(|model_at| *model_at < at);
        let model_at = model_at.ok_or(Malformed("a message is like one that is not there"))?;
        let model = match before {
            Some(before) if before.at == model_at => *before,
            _ => *before.insert(Model::read(all, model_at)?),
        };
        let (view, payload_grows) = model.view.again(&mut body)?;
        whole_bytes = model.bytes_len.saturating_add_signed(payload_grows);
        EventView::Published(view)
    } else {
        let event = read_body(kind, &mut body)?;
        if let (PUBLISHED, EventView::Published(view)) = (kind, &event) {
            *before = Some(Model { at, bytes_len: bytes.len(), view: *view });
        }
        event
    };
    body.end()?;
    let at = u32::try_from(at).map_err(|_| Malformed("a frame is too large"))?;
    Ok(Located { at, bytes, whole_bytes, event })
}

/// The kind of the event that begins at `at`, its bytes, and its body.
fn framed_at(all: &[u8], at: usize) -> Result<(u8, &[u8], Reader<'_>), Malformed> {
    let rest = all.get(at..).unwrap_or_default();
    let mut reader = Reader::new(rest);
    let kind = reader.u8()?;
    let length = reader.u32()? as usize;
    let body = Reader::new(reader.take(length)?);
    Ok((kind, Reader::new(rest).take(EVENT_HEAD_BYTES + length)?, body))
}

impl<'a> Model<'a> {
    fn read(all: &'a [u8], at: usize) -> Result<Self, Malformed> {
        match framed_at(all, at)? {
            (PUBLISHED, bytes, mut body) => {
                let view = PublishedView::read(None, &mut body)?;
                Ok(Self { at, bytes_len: bytes.len(), view })
            }
            _ => Err(Malformed("a message is like something that is none")),
        }
    }
}

fn read_body<'a>(kind: u8, body: &mut Reader<'a>) -> Result<EventView<'a>, Malformed> {
    Ok(match kind {
        SESSION_SET => EventView::SessionSet { client: body.text()?, session: read_session(body)? },
        SESSION_ENDED => EventView::SessionEnded { client: body.text()? },
        SUBSCRIBED => EventView::Subscribed {
            client: body.text()?,
            filter: body.text()?,
            subscription: read_subscription(body)?,
        },
        UNSUBSCRIBED => EventView::Unsubscribed { client: body.text()?, filter: body.text()? },
        PUBLISHED => EventView::Published(PublishedView::read(None, body)?),
        MESSAGE_COPIED => EventView::Published(PublishedView::read(Some(body.varint()?), body)?),
        UNDER_WAY => EventView::UnderWay {
            client: body.text()?,
            number: body.varint()?,
            packet_id: read_packet_id(body)?,
        },
        RELEASED => EventView::Released { client: body.text()?, number: body.varint()? },
        SETTLED => EventView::Settled { client: body.text()?, number: body.varint()?, more: 0 },
        SETTLED_RUN => EventView::Settled {
            client: body.text()?,
            number: body.varint()?,
            more: body
                .varint()?
                .try_into()
                .map_err(|_| Malformed("too many messages are settled at once"))?,
        },
        TAKEN => EventView::Taken { client: body.text()?, packet_id: read_packet_id(body)? },
        FREED => EventView::Freed { client: body.text()?, packet_id: read_packet_id(body)? },
        RETAINED_CLEARED => EventView::RetainedCleared { topic: body.text()? },
        SINK_APPENDED => EventView::SinkAppended { copied: None, sink: body.text()?, record: body.bytes()? },
        SINK_COPIED => EventView::SinkAppended {
            copied: Some(body.varint()?),
            sink: body.text()?,
            record: body.bytes()?,
        },
        SINK_SETTLED => EventView::SinkSettled { sink: body.text()?, number: body.varint()? },
        KEY_SET => EventView::KeySet { namespace: body.text()?, key: body.bytes()?, value: body.bytes()? },
        KEY_REMOVED => EventView::KeyRemoved { namespace: body.text()?, key: body.bytes()? },
        _ => return Err(Malformed("an event is of no known kind")),
    })
}

/// Whether these events are small for certain.
pub(crate) fn are_small(events: &[Event]) -> bool {
    const BYTES_MAX: usize = 512;
    const RECIPIENTS_MAX: usize = 8;
    events.iter().all(|event| match event {
        Event::Published(published) => {
            published.stored.message.size() <= BYTES_MAX && published.recipients.len() <= RECIPIENTS_MAX
        }
        Event::UnderWay { .. }
        | Event::Released { .. }
        | Event::Settled { .. }
        | Event::Taken { .. }
        | Event::Freed { .. } => true,
        Event::SinkAppended { record, .. } => record.len() <= BYTES_MAX,
        Event::KeySet { key, value, .. } => key.len() + value.len() <= BYTES_MAX,
        _ => false,
    })
}

/// The last message in a frame that others can be like, where it begins in the frame's events, and how many bytes it takes.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Before<'a>(Option<(&'a Published, usize, usize)>);

/// Appends `event`, which begins at `at` of its frame's events, to `out`: in few words where it is like what is `before` it.
/// Answers how many bytes it takes without that.
pub(crate) fn write_event_in_frame<'a>(
    event: &'a Event,
    at: usize,
    before: &mut Before<'a>,
    out: &mut Vec<u8>,
) -> usize {
    let begin = out.len();
    let plain = match event {
        Event::Published(published) if is_plain(published) => Some(published),
        _ => None,
    };
    if let (Some(published), Some((model, model_at, model_bytes))) = (plain, before.0)
        && is_like(published, model)
    {
        framed(PUBLISHED_AGAIN, out, |out| write_again(published, model, at - model_at, out));
        let payload_bytes = |published: &Published| published.stored.message.payload.len();
        return (model_bytes + payload_bytes(published)).saturating_sub(payload_bytes(model));
    }
    write_event(event, out);
    let bytes = out.len() - begin;
    if let Some(published) = plain {
        before.0 = Some((published, at, bytes));
    }
    bytes
}

/// Whether a message has nothing that two which are like each other may differ in without saying so.
fn is_plain(published: &Published) -> bool {
    let Published { stored, recipients, retain, taken_from } = published;
    stored.expires_unix_ms.is_none()
        && stored.sealed_by.is_empty()
        && stored.message.properties.is_empty()
        && *retain == RetainChange::Keep
        && taken_from.is_none()
        && !recipients.iter().any(|to| matches!(to.stage, Stage::Released(_)))
}

/// Whether a plain message is like `model`, which is one too, in everything that is not said again.
fn is_like(published: &Published, model: &Published) -> bool {
    let same_recipient = |(to, model): (&Recipient, &Recipient)| {
        to.client == model.client
            && (to.qos, to.retain, &to.identifiers) == (model.qos, model.retain, &model.identifiers)
    };
    let (message, other) = (&*published.stored.message, &*model.stored.message);
    published.recipients.len() == model.recipients.len()
        && published.recipients.iter().zip(&model.recipients).all(same_recipient)
        && message.topic == other.topic
        && message.publisher == other.publisher
        && (message.qos, message.retain, message.hops) == (other.qos, other.retain, other.hops)
        && message.received_unix_ms >= other.received_unix_ms
}

fn write_again(published: &Published, model: &Published, back: usize, out: &mut Vec<u8>) {
    let (message, other) = (&*published.stored.message, &*model.stored.message);
    put_varint(out, back as u64);
    put_varint(out, other.payload.len() as u64);
    put_varint(out, message.received_unix_ms - other.received_unix_ms);
    for recipient in &published.recipients {
        let packet_id = match recipient.stage {
            Stage::Waiting => 0,
            Stage::UnderWay(packet_id) | Stage::Released(packet_id) => packet_id.get(),
        };
        out.extend_from_slice(&packet_id.to_le_bytes());
    }
    out.extend_from_slice(&message.payload);
}

/// Appends `event` to `out`.
pub(crate) fn write_event(event: &Event, out: &mut Vec<u8>) {
    match event {
        Event::SessionSet { client, session } => framed(SESSION_SET, out, |out| {
            put_text(out, client);
            write_session(session, out);
        }),
        Event::SessionEnded { client } => framed(SESSION_ENDED, out, |out| put_text(out, client)),
        Event::Subscribed { client, filter, subscription } => framed(SUBSCRIBED, out, |out| {
            put_text(out, client);
            put_text(out, filter);
            write_subscription(subscription, out);
        }),
        Event::Unsubscribed { client, filter } => framed(UNSUBSCRIBED, out, |out| {
            put_text(out, client);
            put_text(out, filter);
        }),
        Event::Published(published) => framed(PUBLISHED, out, |out| write_published(published, out)),
        Event::UnderWay { client, number, packet_id } => framed(UNDER_WAY, out, |out| {
            write_client_number(client, *number, out);
            write_packet_id(*packet_id, out);
        }),
        Event::Released { client, number } => {
            framed(RELEASED, out, |out| write_client_number(client, *number, out));
        }
        Event::Settled { client, number, more: 0 } => {
            framed(SETTLED, out, |out| write_client_number(client, *number, out));
        }
        Event::Settled { client, number, more } => framed(SETTLED_RUN, out, |out| {
            write_client_number(client, *number, out);
            put_varint(out, (*more).into());
        }),
        Event::Taken { from } => write_taken(&from.client, from.packet_id, out),
        Event::Freed { from } => framed(FREED, out, |out| {
            put_text(out, &from.client);
            write_packet_id(from.packet_id, out);
        }),
        Event::RetainedCleared { topic } => framed(RETAINED_CLEARED, out, |out| put_text(out, topic)),
        Event::SinkAppended { sink, record } => framed(SINK_APPENDED, out, |out| {
            put_text(out, sink);
            put_bytes(out, record);
        }),
        Event::SinkSettled { sink, number } => {
            framed(SINK_SETTLED, out, |out| write_client_number(sink, *number, out));
        }
        Event::KeySet { namespace, key, value } => framed(KEY_SET, out, |out| {
            put_text(out, namespace);
            put_bytes(out, key);
            put_bytes(out, value);
        }),
        Event::KeyRemoved { namespace, key } => framed(KEY_REMOVED, out, |out| {
            put_text(out, namespace);
            put_bytes(out, key);
        }),
    }
}

/// Appends that a publisher's packet identifier is taken.
pub(crate) fn write_taken(client: &str, packet_id: PacketId, out: &mut Vec<u8>) {
    framed(TAKEN, out, |out| {
        put_text(out, client);
        write_packet_id(packet_id, out);
    });
}

/// Appends a message that is copied with what is left of its recipients.
pub(crate) fn write_message_copied(
    number: Number,
    published: &PublishedView<'_>,
    retained: bool,
    recipients: &[RecipientView<'_>],
    out: &mut Vec<u8>,
) {
    framed(MESSAGE_COPIED, out, |out| {
        put_varint(out, number);
        measured(out, |out| published.write_message(out));
        out.push(if retained { 1 } else { 0 });
        put_varint(out, recipients.len() as u64);
        for recipient in recipients {
            write_recipient_head(recipient.client, recipient.qos, recipient.retain, recipient.stage, out);
            put_varint(out, recipient.identifiers_count as u64);
            recipient.identifiers().flatten().for_each(|identifier| put_varint(out, identifier.into()));
        }
    });
}

/// Appends a message that has had its number elsewhere.
pub(crate) fn write_message_with_number(number: Number, published: &Published, out: &mut Vec<u8>) {
    framed(MESSAGE_COPIED, out, |out| {
        put_varint(out, number);
        write_published(published, out);
    });
}

/// Appends a sink's record that is copied.
pub(crate) fn write_sink_copied(number: Number, sink: &str, record: &[u8], out: &mut Vec<u8>) {
    framed(SINK_COPIED, out, |out| {
        put_varint(out, number);
        put_text(out, sink);
        put_bytes(out, record);
    });
}

/// Appends an event whose body `write` appends.
fn framed(kind: u8, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(kind);
    measured(out, write);
}

/// Appends what `write` appends, with its length of 32 bits in front.
fn measured(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let length_at = out.len();
    out.extend_from_slice(&[0; 4]);
    let body_at = out.len();
    write(out);
    // What is too large for its length makes a record that is too large for the store.
    let length = u32::try_from(out.len() - body_at).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(length_at..body_at) {
        place.copy_from_slice(&length.to_le_bytes());
    }
}

fn write_client_number(client: &str, number: Number, out: &mut Vec<u8>) {
    put_text(out, client);
    put_varint(out, number);
}

fn write_packet_id(packet_id: PacketId, out: &mut Vec<u8>) {
    out.extend_from_slice(&packet_id.get().to_le_bytes());
}

fn read_packet_id(body: &mut Reader<'_>) -> Result<PacketId, Malformed> {
    PacketId::new(body.u16()?).ok_or(Malformed("a packet identifier is 0"))
}

fn read_qos(bits: u8) -> Result<QoS, Malformed> {
    QoS::try_from(bits & 3).map_err(|_| Malformed("a QoS is 3"))
}

fn read_topic(body: &mut Reader<'_>) -> Result<TopicName, Malformed> {
    TopicName::new(body.text()?).map_err(|_| Malformed("a topic is none"))
}

const RETAIN_REPLACE: u8 = 1;
const RETAIN_CLEAR: u8 = 2;
const RETAIN_MASK: u8 = 3;
const TAKEN_FROM: u8 = 4;

fn write_published(published: &Published, out: &mut Vec<u8>) {
    measured(out, |out| write_message(&published.stored, out));
    let retain = match published.retain {
        RetainChange::Keep => 0,
        RetainChange::Replace => RETAIN_REPLACE,
        RetainChange::Clear => RETAIN_CLEAR,
    };
    out.push(retain | if published.taken_from.is_some() { TAKEN_FROM } else { 0 });
    if let Some(from) = &published.taken_from {
        put_text(out, &from.client);
        write_packet_id(from.packet_id, out);
    }
    put_varint(out, published.recipients.len() as u64);
    for recipient in &published.recipients {
        write_recipient(recipient, out);
    }
}

/// Appends who is to have a message, and how.
pub(crate) fn write_recipient(recipient: &Recipient, out: &mut Vec<u8>) {
    write_recipient_head(&recipient.client, recipient.qos, recipient.retain, recipient.stage, out);
    put_varint(out, recipient.identifiers.len() as u64);
    recipient.identifiers.iter().for_each(|identifier| put_varint(out, (*identifier).into()));
}

impl<'a> PublishedView<'a> {
    fn read(copied: Option<Number>, body: &mut Reader<'a>) -> Result<Self, Malformed> {
        let length = body.u32()? as usize;
        let message = body.take(length)?;
        let flags = body.u8()?;
        let retain = match flags & RETAIN_MASK {
            0 => RetainChange::Keep,
            RETAIN_REPLACE => RetainChange::Replace,
            RETAIN_CLEAR => RetainChange::Clear,
            _ => return Err(Malformed("a retained change is none")),
        };
        let taken_from =
            if flags & TAKEN_FROM == 0 { None } else { Some((body.text()?, read_packet_id(body)?)) };
        let recipients_count =
            usize::try_from(body.varint()?).map_err(|_| Malformed("a count is too large"))?;
        let recipients = *body;
        for _ in 0..recipients_count {
            RecipientView::read(body)?;
        }
        Ok(Self { copied, message, again: None, retain, taken_from, recipients_count, recipients })
    }

    /// One that is like this, but for what is read; and how many bytes longer its payload is.
    fn again(self, body: &mut Reader<'a>) -> Result<(Self, isize), Malformed> {
        let payload_bytes_before = isize::try_from(body.varint()?);
        let later_ms = body.varint()?;
        let packet_ids = *body;
        for _ in 0..self.recipients_count {
            body.u16()?;
        }
        let payload = body.take(body.rest().len())?;
        let grows = payload_bytes_before.ok().zip(isize::try_from(payload.len()).ok());
        let (before, payload_bytes) = grows.ok_or(Malformed("a payload is too large"))?;
        Ok((Self { again: Some(Again { later_ms, packet_ids, payload }), ..self }, payload_bytes - before))
    }

    /// The message.
    pub(crate) fn stored(&self) -> Result<StoredMessage, Malformed> {
        read_message_with(self.message, self.again)
    }

    /// Appends the message as [`write_message`] does.
    fn write_message(&self, out: &mut Vec<u8>) {
        match (self.again, self.stored()) {
            (Some(_), Ok(stored)) => write_message(&stored, out),
            // What cannot be read says so wherever it is read from.
            _ => out.extend_from_slice(self.message),
        }
    }

    /// The topic of the message.
    pub(crate) fn topic(&self) -> Result<&'a str, Malformed> {
        Reader::new(self.message).text()
    }

    /// The recipients, in order.
    pub(crate) fn recipients(&self) -> impl Iterator<Item = RecipientView<'a>> {
        let (mut reader, mut again) = (self.recipients, self.again);
        // Whoever made this view has seen that all can be read.
        (0..self.recipients_count).map_while(move |_| {
            let recipient = RecipientView::read(&mut reader).ok()?;
            let Some(again) = &mut again else { return Some(recipient) };
            let packet_id = PacketId::new(again.packet_ids.u16().ok()?);
            Some(recipient.at(packet_id.map_or(Stage::Waiting, Stage::UnderWay)))
        })
    }
}

const RECIPIENT_RETAIN: u8 = 4;
const RECIPIENT_UNDER_WAY: u8 = 8;
const RECIPIENT_RELEASED: u8 = 16;

fn write_recipient_head(client: &str, qos: QoS, retain: bool, stage: Stage, out: &mut Vec<u8>) {
    put_text(out, client);
    let (stage_bits, packet_id) = match stage {
        Stage::Waiting => (0, None),
        Stage::UnderWay(packet_id) => (RECIPIENT_UNDER_WAY, Some(packet_id)),
        Stage::Released(packet_id) => (RECIPIENT_RELEASED, Some(packet_id)),
    };
    out.push(qos.as_u8() | if retain { RECIPIENT_RETAIN } else { 0 } | stage_bits);
    if let Some(packet_id) = packet_id {
        write_packet_id(packet_id, out);
    }
}

impl<'a> RecipientView<'a> {
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let client = reader.text()?;
        let flags = reader.u8()?;
        let stage = match flags & (RECIPIENT_UNDER_WAY | RECIPIENT_RELEASED) {
            0 => Stage::Waiting,
            RECIPIENT_UNDER_WAY => Stage::UnderWay(read_packet_id(reader)?),
            RECIPIENT_RELEASED => Stage::Released(read_packet_id(reader)?),
            _ => return Err(Malformed("a stage is none")),
        };
        let identifiers_count =
            usize::try_from(reader.varint()?).map_err(|_| Malformed("a count is too large"))?;
        let identifiers = *reader;
        for _ in 0..identifiers_count {
            u32::try_from(reader.varint()?)
                .map_err(|_| Malformed("a subscription identifier is too large"))?;
        }
        let (qos, retain) = (read_qos(flags)?, flags & RECIPIENT_RETAIN != 0);
        Ok(Self { client, qos, retain, stage, identifiers_count, identifiers })
    }

    /// The same recipient at another stage.
    pub(crate) fn at(self, stage: Stage) -> Self {
        Self { stage, ..self }
    }

    /// The identifiers of the subscriptions that matched.
    pub(crate) fn identifiers(&self) -> impl Iterator<Item = Option<u32>> {
        let mut reader = self.identifiers;
        (0..self.identifiers_count)
            .map(move |_| reader.varint().ok().and_then(|value| u32::try_from(value).ok()))
    }
}

const NO_LOCAL: u8 = 4;
const RETAIN_AS_PUBLISHED: u8 = 8;

pub(crate) fn write_subscription(subscription: &Subscription, out: &mut Vec<u8>) {
    let no_local = if subscription.no_local { NO_LOCAL } else { 0 };
    let retain = if subscription.retain_as_published { RETAIN_AS_PUBLISHED } else { 0 };
    out.push(subscription.qos.as_u8() | no_local | retain);
    put_varint(out, subscription.identifier.map_or(0, NonZeroU32::get).into());
}

pub(crate) fn read_subscription(body: &mut Reader<'_>) -> Result<Subscription, Malformed> {
    let flags = body.u8()?;
    let identifier =
        u32::try_from(body.varint()?).map_err(|_| Malformed("a subscription identifier is too large"))?;
    Ok(Subscription {
        qos: read_qos(flags)?,
        no_local: flags & NO_LOCAL != 0,
        retain_as_published: flags & RETAIN_AS_PUBLISHED != 0,
        identifier: NonZeroU32::new(identifier),
    })
}

const ENDS_AT: u8 = 1;
const WILL: u8 = 2;
const WILL_DUE: u8 = 4;

pub(crate) fn write_session(session: &SessionHeader, out: &mut Vec<u8>) {
    put_text(out, &session.principal);
    out.extend_from_slice(&session.expiry_s.to_le_bytes());
    let ends_at = if session.ends_at_unix_ms.is_some() { ENDS_AT } else { 0 };
    let will = if session.will.is_some() { WILL } else { 0 };
    let will_due = if session.will_due_unix_ms.is_some() { WILL_DUE } else { 0 };
    out.push(ends_at | will | will_due);
    for moment in [session.ends_at_unix_ms, session.will_due_unix_ms].into_iter().flatten() {
        out.extend_from_slice(&moment.to_le_bytes());
    }
    if let Some(will) = &session.will {
        write_will(will, out);
    }
}

pub(crate) fn read_session(body: &mut Reader<'_>) -> Result<SessionHeader, Malformed> {
    let principal = Arc::from(body.text()?);
    let expiry_s = body.u32()?;
    let flags = body.u8()?;
    let ends_at_unix_ms = if flags & ENDS_AT == 0 { None } else { Some(body.u64()?) };
    let will_due_unix_ms = if flags & WILL_DUE == 0 { None } else { Some(body.u64()?) };
    let will = if flags & WILL == 0 { None } else { Some(Box::new(read_will(body)?)) };
    Ok(SessionHeader { principal, expiry_s, ends_at_unix_ms, will, will_due_unix_ms })
}

const RETAIN: u8 = 4;
const EXPIRES: u8 = 32;
const SEALED: u8 = 64;

fn write_will(will: &StoredWill, out: &mut Vec<u8>) {
    put_text(out, &will.topic);
    put_bytes(out, &will.payload);
    let retain = if will.retain { RETAIN } else { 0 };
    out.push(will.qos.as_u8() | retain | if will.expiry_s.is_some() { EXPIRES } else { 0 });
    if let Some(expiry_s) = will.expiry_s {
        out.extend_from_slice(&expiry_s.to_le_bytes());
    }
    out.extend_from_slice(&will.delay_s.to_le_bytes());
    write_properties(&will.properties, out);
}

fn read_will(body: &mut Reader<'_>) -> Result<StoredWill, Malformed> {
    let topic = read_topic(body)?;
    let payload = Bytes::copy_from_slice(body.bytes()?);
    let flags = body.u8()?;
    Ok(StoredWill {
        topic,
        payload,
        qos: read_qos(flags)?,
        retain: flags & RETAIN != 0,
        expiry_s: if flags & EXPIRES == 0 { None } else { Some(body.u32()?) },
        delay_s: body.u32()?,
        properties: read_properties(body)?,
    })
}

const PUBLISHER_SHIFT: u32 = 3;
const PUBLISHER_CLIENT: u8 = 0;
const PUBLISHER_RULE: u8 = 1;
const PUBLISHER_PLUGIN: u8 = 2;
const PUBLISHER_BROKER: u8 = 3;

pub(crate) fn write_message(stored: &StoredMessage, out: &mut Vec<u8>) {
    let message = &*stored.message;
    put_text(out, &message.topic);
    let publisher = match &message.publisher {
        Publisher::Client { .. } => PUBLISHER_CLIENT,
        Publisher::Rule(_) => PUBLISHER_RULE,
        Publisher::Plugin(_) => PUBLISHER_PLUGIN,
        Publisher::Broker => PUBLISHER_BROKER,
    };
    let retain = if message.retain { RETAIN } else { 0 };
    let expires = if stored.expires_unix_ms.is_some() { EXPIRES } else { 0 };
    let sealed = if stored.sealed_by.is_empty() { 0 } else { SEALED };
    out.push(message.qos.as_u8() | retain | publisher << PUBLISHER_SHIFT | expires | sealed);
    out.push(message.hops);
    out.extend_from_slice(&message.received_unix_ms.to_le_bytes());
    if let Some(expires_unix_ms) = stored.expires_unix_ms {
        out.extend_from_slice(&expires_unix_ms.to_le_bytes());
    }
    match &message.publisher {
        Publisher::Client { client_id, principal } => {
            put_text(out, client_id);
            put_text(out, principal);
        }
        Publisher::Rule(name) | Publisher::Plugin(name) => put_text(out, name),
        Publisher::Broker => {}
    }
    if !stored.sealed_by.is_empty() {
        put_varint(out, stored.sealed_by.len() as u64);
        stored.sealed_by.iter().for_each(|name| put_text(out, name));
    }
    write_properties(&message.properties, out);
    out.extend_from_slice(&message.payload);
}

/// Reads a message as [`write_message`] writes it.
pub(crate) fn read_message(bytes: &[u8]) -> Result<StoredMessage, Malformed> {
    read_message_with(bytes, None)
}

fn read_message_with(bytes: &[u8], again: Option<Again<'_>>) -> Result<StoredMessage, Malformed> {
    let mut reader = Reader::new(bytes);
    let topic = read_topic(&mut reader)?;
    let flags = reader.u8()?;
    let hops = reader.u8()?;
    let received_unix_ms = reader.u64()?.saturating_add(again.map_or(0, |again| again.later_ms));
    let expires_unix_ms = if flags & EXPIRES == 0 { None } else { Some(reader.u64()?) };
    let publisher = match (flags >> PUBLISHER_SHIFT) & 3 {
        PUBLISHER_CLIENT => {
            Publisher::Client { client_id: reader.text()?.into(), principal: reader.text()?.into() }
        }
        PUBLISHER_RULE => Publisher::Rule(reader.text()?.into()),
        PUBLISHER_PLUGIN => Publisher::Plugin(reader.text()?.into()),
        _ => Publisher::Broker,
    };
    let mut sealed_by = Vec::new();
    if flags & SEALED != 0 {
        for _ in 0..reader.varint()? {
            sealed_by.push(reader.text()?.into());
        }
    }
    let properties = read_properties(&mut reader)?;
    let payload = Bytes::copy_from_slice(again.map_or(reader.rest(), |again| again.payload));
    let (qos, retain) = (read_qos(flags)?, flags & RETAIN != 0);
    let message = Message {
        topic,
        payload,
        qos,
        retain,
        properties,
        publisher,
        received_unix_ms,
        expires_at: None,
        hops,
    };
    Ok(StoredMessage { message: Arc::new(message), expires_unix_ms, sealed_by })
}

const UTF8_KNOWN: u8 = 1;
const UTF8: u8 = 2;
const CONTENT_TYPE: u8 = 4;
const RESPONSE_TOPIC: u8 = 8;
const CORRELATION_DATA: u8 = 16;
const USER: u8 = 32;

fn write_properties(properties: &Properties, out: &mut Vec<u8>) {
    let flag = |present: bool, bit: u8| if present { bit } else { 0 };
    out.push(
        flag(properties.payload_is_utf8.is_some(), UTF8_KNOWN)
            | flag(properties.payload_is_utf8 == Some(true), UTF8)
            | flag(properties.content_type.is_some(), CONTENT_TYPE)
            | flag(properties.response_topic.is_some(), RESPONSE_TOPIC)
            | flag(properties.correlation_data.is_some(), CORRELATION_DATA)
            | flag(!properties.user.is_empty(), USER),
    );
    for text in [&properties.content_type, &properties.response_topic].into_iter().flatten() {
        put_text(out, text);
    }
    if let Some(data) = &properties.correlation_data {
        put_bytes(out, data);
    }
    if !properties.user.is_empty() {
        put_varint(out, properties.user.len() as u64);
        for (name, value) in &properties.user {
            put_text(out, name);
            put_text(out, value);
        }
    }
}

fn read_properties(reader: &mut Reader<'_>) -> Result<Properties, Malformed> {
    let flags = reader.u8()?;
    let mut properties = Properties::default();
    if flags & UTF8_KNOWN != 0 {
        properties.payload_is_utf8 = Some(flags & UTF8 != 0);
    }
    if flags & CONTENT_TYPE != 0 {
        properties.content_type = Some(reader.text()?.into());
    }
    if flags & RESPONSE_TOPIC != 0 {
        properties.response_topic = Some(reader.text()?.into());
    }
    if flags & CORRELATION_DATA != 0 {
        properties.correlation_data = Some(Bytes::copy_from_slice(reader.bytes()?));
    }
    if flags & USER != 0 {
        for _ in 0..reader.varint()? {
            properties.user.push((reader.text()?.into(), reader.text()?.into()));
        }
    }
    Ok(properties)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Identifiers;

    fn published(payload: &str, received_unix_ms: u64, stages: [Stage; 2]) -> Published {
        let message = Message {
            topic: TopicName::new("factory/a").unwrap(),
            payload: payload.to_owned().into(),
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: Properties::default(),
            publisher: Publisher::Client { client_id: "press".into(), principal: "someone".into() },
            received_unix_ms,
            expires_at: None,
            hops: 0,
        };
        let recipient = |(client, stage): (&str, Stage)| Recipient {
            client: client.into(),
            qos: QoS::AtLeastOnce,
            retain: false,
            identifiers: [7].into_iter().collect(),
            stage,
        };
        let stored =
            StoredMessage { message: Arc::new(message), expires_unix_ms: None, sealed_by: Vec::new() };
        let recipients = ["a", "b"].into_iter().zip(stages).map(recipient).collect();
        Published { stored, recipients, retain: RetainChange::Keep, taken_from: None }
    }

    fn frame(all: &[Event]) -> (Vec<u8>, Vec<(usize, usize)>) {
        let (mut out, mut before) = (Vec::new(), Before::default());
        let places = all
            .iter()
            .map(|event| {
                let at = out.len();
                (at, write_event_in_frame(event, at, &mut before, &mut out))
            })
            .collect();
        (out, places)
    }

    const WAITS: [Stage; 2] = [Stage::Waiting; 2];

    #[test]
    fn what_is_like_the_message_before_is_said_in_few_words_and_reads_as_if_it_were_not() {
        let sent = [Stage::UnderWay(PacketId::MAX), Stage::Waiting];
        let settled = Event::Settled { client: "a".into(), number: 1, more: 2 };
        let all = [
            Event::Published(published("a first payload", 5, WAITS)),
            Event::Published(published("b", 5, sent)),
            settled,
            Event::Published(published("", 9, WAITS)),
        ];
        let (bytes, places) = frame(&all);
        let alone: Vec<Vec<u8>> = all.iter().map(|event| frame(std::slice::from_ref(event)).0).collect();
        assert!(bytes.len() < 2 * alone[0].len(), "{} bytes", bytes.len());
        let read: Vec<_> = events(&bytes).map(Result::unwrap).collect();
        for (((located, event), (at, whole_bytes)), alone) in read.iter().zip(&all).zip(places).zip(&alone) {
            assert_eq!((located.at as usize, located.whole_bytes), (at, whole_bytes));
            assert!(whole_bytes.abs_diff(alone.len()) <= 4, "but for packet identifiers: {whole_bytes}");
            let there = super::event(&bytes, located.at).unwrap();
            for view in [&located.event, &there.event] {
                match (view, event) {
                    (EventView::Published(view), Event::Published(published)) => {
                        assert_eq!(view.stored().unwrap(), published.stored);
                        let stages = view.recipients().map(|to| to.stage);
                        assert!(stages.eq(published.recipients.iter().map(|to| to.stage)));
                    }
                    (EventView::Settled { number, more, .. }, _) => assert_eq!((*number, *more), (1, 2)),
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    #[test]
    fn what_is_not_like_the_message_before_is_said_in_full() {
        type Change = fn(&mut Published);
        let changes: [Change; 8] = [
            |published| Arc::make_mut(&mut published.stored.message).topic = TopicName::new("other").unwrap(),
            |published| Arc::make_mut(&mut published.stored.message).hops = 1,
            |published| Arc::make_mut(&mut published.stored.message).publisher = Publisher::Broker,
            |published| Arc::make_mut(&mut published.stored.message).received_unix_ms = 4,
            |published| Arc::make_mut(&mut published.stored.message).properties.payload_is_utf8 = Some(true),
            |published| published.stored.expires_unix_ms = Some(1),
            |published| published.recipients[1].identifiers = Identifiers::default(),
            |published| published.recipients[0].stage = Stage::Released(PacketId::MIN),
        ];
        for (number, change) in changes.iter().enumerate() {
            let mut other = published("b", 5, WAITS);
            change(&mut other);
            let all = [Event::Published(published("a", 5, WAITS)), Event::Published(other)];
            let (bytes, _) = frame(&all);
            let Event::Published(other) = &all[1] else { panic!() };
            match events(&bytes).nth(1).unwrap().unwrap().event {
                EventView::Published(view) => {
                    assert!(view.again.is_none(), "{number}");
                    assert_eq!(view.stored().unwrap(), other.stored, "{number}");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_message_that_is_like_nothing_that_is_there_is_refused() {
        let all = [published("a", 5, WAITS), published("b", 5, WAITS)].map(Event::Published);
        let (bytes, places) = frame(&all);
        let again_at = places[1].0;
        let back_at = again_at + EVENT_HEAD_BYTES;
        // The distance takes one byte here. Itself, before the frame, within the message, and the right one.
        for (back, is_right) in [(0, false), (again_at + 1, false), (again_at - 1, false), (again_at, true)] {
            let mut bytes = bytes.clone();
            bytes[back_at] = u8::try_from(back).unwrap();
            assert_eq!(events(&bytes).all(|located| located.is_ok()), is_right, "{back}");
            assert_eq!(event(&bytes, again_at as u32).is_ok(), is_right, "{back}");
        }
    }
}
