//! What all records amount to, and where in the log it stands. Payloads stay in the log: a queued message
//! takes [`MessageSlot`] once and [`Waiting`] per receiver, 40 bytes for one receiver, at most 80 with what a
//! growing vector has in reserve.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use hashbrown::hash_map::EntryRef;
use weirmq_core::message::QoS;

use crate::codec::Malformed;
use crate::event::{
    Event, Number, PacketId, QoSAndRetain, RetainChange, SessionHeader, Stage, Subscription, numbers,
};
use crate::format::{self, EventView, Located, PublishedView, RecipientView};
use crate::frame::Unnumbered;
use crate::store::{Queued, SessionFacts};

/// Where a frame stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FramePlace {
    pub(crate) segment: u32,
    pub(crate) at: u32,
    pub(crate) bytes: u32,
}

/// Where an event stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) frame: FramePlace,
    /// Where in the events of the frame.
    pub(crate) event_at: u32,
}

/// What a copy of an event takes in the log besides the event: its frame, and a number.
const COPY_OVERHEAD_BYTES: u64 = 32;

/// Something that stands in the log and is live.
#[derive(Debug, Clone, Copy)]
struct Item {
    place: Place,
    /// How many bytes a copy of the event takes.
    event_bytes: u32,
}

impl Item {
    fn live_bytes(self) -> u64 {
        u64::from(self.event_bytes) + COPY_OVERHEAD_BYTES
    }
}

/// A message that somebody still wants.
#[derive(Debug, Clone, Copy)]
struct MessageSlot {
    item: Item,
    /// How many: receivers, and the topic that retains it. 0: the slot is free, and `item.event_bytes` is the
    /// next that is.
    references: u32,
}

/// A message for one receiver.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    number: Number,
    slot: u32,
    /// 0 while it waits.
    packet_id: u16,
    qos_bits: u8,
    flags: u8,
}

const WAITING_RETAIN: u8 = 1;
const WAITING_RELEASED: u8 = 2;

type ByText<T> = HashMap<Arc<str>, T, foldhash::fast::RandomState>;

#[derive(Debug, Default)]
struct Session {
    header: Option<(Item, SessionHeader)>,
    subscriptions: BTreeMap<Arc<str>, (Item, Subscription)>,
    queue: VecDeque<Waiting>,
    taken: BTreeMap<PacketId, Item>,
}

#[derive(Debug, Clone, Copy)]
struct Retained {
    number: Number,
    slot: u32,
}

/// The state.
#[derive(Debug, Default)]
pub(crate) struct State {
    sessions: ByText<Session>,
    messages: Messages,
    retained: ByText<Retained>,
    sinks: BTreeMap<Arc<str>, BTreeMap<Number, Item>>,
    keys: BTreeMap<Arc<str>, BTreeMap<Bytes, Item>>,
    /// Messages that wait or are under way, once per receiver.
    queued: u64,
    /// What of the log is live, but for messages.
    live: Live,
}

/// What a message that was accepted means besides its receivers.
struct Accepted<'a> {
    retain: RetainChange,
    /// Its topic, where it changes what is retained for it.
    topic: &'a str,
    taken_from: Option<(&'a str, PacketId)>,
}

/// What of a log is live.
#[derive(Debug, Default)]
struct Live {
    /// What a log of nothing else would take.
    bytes: u64,
    /// How many things stand in each segment, from the first that has any.
    things: VecDeque<u32>,
    first: u32,
}

impl Live {
    fn add(&mut self, item: Item) {
        self.bytes += item.live_bytes();
        let segment = item.place.frame.segment;
        if self.things.is_empty() {
            self.first = segment;
        }
        while segment < self.first {
            self.things.push_front(0);
            self.first -= 1;
        }
        let at = (segment - self.first) as usize;
        if at >= self.things.len() {
            self.things.resize(at + 1, 0);
        }
        if let Some(things) = self.things.get_mut(at) {
            *things += 1;
        }
    }

    fn remove(&mut self, item: Item) {
        self.bytes -= item.live_bytes();
        let at = item.place.frame.segment.checked_sub(self.first);
        if let Some(things) = at.and_then(|at| self.things.get_mut(at as usize)) {
            *things = things.saturating_sub(1);
        }
        while self.things.len() > 1 && self.things.front() == Some(&0) {
            self.things.pop_front();
            self.first += 1;
        }
    }

    fn is_any_in(&self, segment: u32) -> bool {
        let at = segment.checked_sub(self.first);
        at.and_then(|at| self.things.get(at as usize)).is_some_and(|things| *things > 0)
    }
}

impl State {
    /// Applies the events of a frame, whose first has the number `first_number`.
    pub(crate) fn apply(
        &mut self,
        events: &[u8],
        first_number: Number,
        frame: FramePlace,
    ) -> Result<u64, Malformed> {
        let mut count = 0;
        for located in format::events(events) {
            self.apply_event(&located?, first_number.saturating_add(count), frame)?;
            count += 1;
        }
        Ok(count)
    }

    /// Applies of `events` those that stand in `frame`, whose first has the number `first_number`. What comes with every
    /// message is taken as it was said; the rest is read back like [`State::apply`] reads it.
    pub(crate) fn apply_said<'a>(
        &mut self,
        events: impl Iterator<Item = &'a Event>,
        frame: Unnumbered<'_>,
        first_number: Number,
        place: FramePlace,
    ) -> Result<u64, Malformed> {
        // The frame first: what it has no place for stays.
        for ((span, event), number) in frame.spans().iter().zip(events).zip(first_number..) {
            let item =
                Item { place: Place { frame: place, event_at: span.at }, event_bytes: span.whole_bytes };
            match event {
                Event::Published(published) => {
                    let accepted = Accepted {
                        retain: published.retain,
                        topic: &published.stored.message.topic,
                        taken_from: published.taken_from.as_ref().map(|from| (&*from.client, from.packet_id)),
                    };
                    let recipients =
                        published.recipients.iter().map(|to| (&*to.client, to.qos, to.retain, to.stage));
                    self.publish(&accepted, recipients, number, item)?;
                }
                Event::UnderWay { client, number, packet_id } => self.under_way(client, *number, *packet_id),
                Event::Released { client, number } => self.release(client, *number),
                Event::Settled { client, number, more } => self.settle(client, &numbers(*number, *more)),
                Event::Taken { from } => self.take(&from.client, from.packet_id, item),
                Event::Freed { from } => self.free(&from.client, from.packet_id),
                _ => self.apply_event(&format::event(frame.events(), span.at)?, number, place)?,
            }
        }
        Ok(frame.spans().len() as u64)
    }

    fn apply_event(
        &mut self,
        located: &Located<'_>,
        number: Number,
        frame: FramePlace,
    ) -> Result<(), Malformed> {
        let event_bytes =
            u32::try_from(located.whole_bytes).map_err(|_| Malformed("an event is too large"))?;
        let item = Item { place: Place { frame, event_at: located.at }, event_bytes };
        match &located.event {
            EventView::SessionSet { client, session } => {
                let header = self.session_mut(client).header.replace((item, session.clone()));
                self.count(Some(item), header.map(|(before, _)| before));
            }
            EventView::SessionEnded { client } => self.end_session(client),
            EventView::Subscribed { client, filter, subscription } => {
                let subscriptions = &mut self.session_mut(client).subscriptions;
                let before = subscriptions.insert(Arc::from(*filter), (item, *subscription));
                self.count(Some(item), before.map(|(before, _)| before));
            }
            EventView::Unsubscribed { client, filter } => {
                let before = self.sessions.get_mut(*client).and_then(|s| s.subscriptions.remove(*filter));
                self.count(None, before.map(|(before, _)| before));
                self.prune(client);
            }
            EventView::Published(published) => {
                let accepted = Accepted {
                    retain: published.retain,
                    topic: if published.retain == RetainChange::Keep { "" } else { published.topic()? },
                    taken_from: published.taken_from,
                };
                let recipients = published.recipients().map(|to| (to.client, to.qos, to.retain, to.stage));
                self.publish(&accepted, recipients, published.copied.unwrap_or(number), item)?;
            }
            EventView::UnderWay { client, number, packet_id } => self.under_way(client, *number, *packet_id),
            EventView::Released { client, number } => self.release(client, *number),
            EventView::Settled { client, number, more } => self.settle(client, &numbers(*number, *more)),
            EventView::Taken { client, packet_id } => self.take(client, *packet_id, item),
            EventView::Freed { client, packet_id } => self.free(client, *packet_id),
            EventView::RetainedCleared { topic } => self.clear_retained(topic),
            EventView::SinkAppended { copied, sink, .. } => {
                let records = entry(&mut self.sinks, sink);
                let before = records.insert(copied.unwrap_or(number), item);
                self.count(Some(item), before);
            }
            EventView::SinkSettled { sink, number } => {
                let before = remove(&mut self.sinks, sink, number);
                self.count(None, before);
            }
            EventView::KeySet { namespace, key, .. } => {
                let keys = entry(&mut self.keys, namespace);
                let before = keys.insert(Bytes::copy_from_slice(key), item);
                self.count(Some(item), before);
            }
            EventView::KeyRemoved { namespace, key } => {
                let before = remove(&mut self.keys, namespace, *key);
                self.count(None, before);
            }
        }
        Ok(())
    }

    fn publish<'a>(
        &mut self,
        accepted: &Accepted<'_>,
        recipients: impl Iterator<Item = (&'a str, QoS, bool, Stage)>,
        number: Number,
        item: Item,
    ) -> Result<(), Malformed> {
        let slot = self.messages.hold(item)?;
        for (client, qos, retain, stage) in recipients {
            self.messages.refer(slot);
            let waiting = Waiting::new(number, slot, qos, retain, stage);
            if let Some(before) = self.session_mut(client).put(waiting) {
                self.messages.release(before.slot);
            } else {
                self.queued += 1;
            }
        }
        match accepted.retain {
            RetainChange::Keep => {}
            RetainChange::Replace => {
                self.messages.refer(slot);
                let retained = Retained { number, slot };
                if let Some(before) = self.retained.insert(Arc::from(accepted.topic), retained) {
                    self.messages.release(before.slot);
                }
            }
            RetainChange::Clear => self.clear_retained(accepted.topic),
        }
        if let Some((client, packet_id)) = accepted.taken_from {
            self.take(client, packet_id, item);
        }
        self.messages.release(slot);
        Ok(())
    }

    fn under_way(&mut self, client: &str, number: Number, packet_id: PacketId) {
        if let Some(waiting) = self.waiting_mut(client, number) {
            waiting.packet_id = packet_id.get();
            waiting.flags &= !WAITING_RELEASED;
        }
    }

    fn release(&mut self, client: &str, number: Number) {
        if let Some(waiting) = self.waiting_mut(client, number).filter(|waiting| waiting.packet_id != 0) {
            waiting.flags |= WAITING_RELEASED;
        }
    }

    fn free(&mut self, client: &str, packet_id: PacketId) {
        let before = self.sessions.get_mut(client).and_then(|session| session.taken.remove(&packet_id));
        self.count(None, before);
        self.prune(client);
    }

    fn take(&mut self, client: &str, packet_id: PacketId, item: Item) {
        // What is copied of it is the identifier, not the message that it came with.
        let item =
            Item { event_bytes: u32::try_from(client.len()).unwrap_or(u32::MAX).saturating_add(16), ..item };
        let before = self.session_mut(client).taken.insert(packet_id, item);
        self.count(Some(item), before);
    }

    fn settle(&mut self, client: &str, numbers: &RangeInclusive<Number>) {
        let Some(session) = self.sessions.get_mut(client) else { return };
        while let Some(waiting) = session.remove_first(numbers) {
            self.messages.release(waiting.slot);
            self.queued -= 1;
        }
        if session.is_void() {
            self.sessions.remove(client);
        }
    }

    fn clear_retained(&mut self, topic: &str) {
        if let Some(before) = self.retained.remove(topic) {
            self.messages.release(before.slot);
        }
    }

    fn end_session(&mut self, client: &str) {
        let Some(session) = self.sessions.remove(client) else { return };
        let headers = session.header.iter().map(|(item, _)| *item);
        let subscriptions = session.subscriptions.values().map(|(item, _)| *item);
        for item in headers.chain(subscriptions).chain(session.taken.values().copied()) {
            self.count(None, Some(item));
        }
        self.queued -= session.queue.len() as u64;
        for waiting in session.queue {
            self.messages.release(waiting.slot);
        }
    }

    fn session_mut(&mut self, client: &str) -> &mut Session {
        match self.sessions.entry_ref(client) {
            EntryRef::Occupied(entry) => entry.into_mut(),
            EntryRef::Vacant(entry) => entry.insert_with_key(Arc::from(client), Session::default()),
        }
    }

    fn waiting_mut(&mut self, client: &str, number: Number) -> Option<&mut Waiting> {
        let session = self.sessions.get_mut(client)?;
        let at = session.find(number).ok()?;
        session.queue.get_mut(at)
    }

    /// Forgets a session of which nothing is left: not even that it is one.
    fn prune(&mut self, client: &str) {
        if self.sessions.get(client).is_some_and(Session::is_void) {
            self.sessions.remove(client);
        }
    }

    fn count(&mut self, now: Option<Item>, before: Option<Item>) {
        now.into_iter().for_each(|item| self.live.add(item));
        before.into_iter().for_each(|item| self.live.remove(item));
    }
}

/// Copying forward.
impl State {
    /// Appends to `out` what is to be copied of an event that stands at `place`, so that the frame can go.
    pub(crate) fn copy_live(
        &self,
        located: &Located<'_>,
        number: Number,
        frame: FramePlace,
        out: &mut Vec<u8>,
    ) {
        let place = Place { frame, event_at: located.at };
        let stands_here = |item: &Item| item.place == place;
        match &located.event {
            EventView::SessionSet { client, .. } => {
                let header = self.sessions.get(*client).and_then(|session| session.header.as_ref());
                if header.is_some_and(|(item, _)| stands_here(item)) {
                    out.extend_from_slice(located.bytes);
                }
            }
            EventView::Subscribed { client, filter, .. } => {
                let subscription =
                    self.sessions.get(*client).and_then(|session| session.subscriptions.get(*filter));
                if subscription.is_some_and(|(item, _)| stands_here(item)) {
                    out.extend_from_slice(located.bytes);
                }
            }
            EventView::Published(published) => self.copy_message(published, number, place, out),
            EventView::Taken { client, packet_id } => self.copy_taken(client, *packet_id, place, out),
            EventView::SinkAppended { copied, sink, record } => {
                let number = copied.unwrap_or(number);
                if self.sinks.get(*sink).and_then(|records| records.get(&number)).is_some_and(stands_here) {
                    format::write_sink_copied(number, sink, record, out);
                }
            }
            EventView::KeySet { namespace, key, .. } => {
                if self.keys.get(*namespace).and_then(|keys| keys.get(*key)).is_some_and(stands_here) {
                    out.extend_from_slice(located.bytes);
                }
            }
            EventView::SessionEnded { .. }
            | EventView::Unsubscribed { .. }
            | EventView::UnderWay { .. }
            | EventView::Released { .. }
            | EventView::Settled { .. }
            | EventView::Freed { .. }
            | EventView::RetainedCleared { .. }
            | EventView::SinkSettled { .. }
            | EventView::KeyRemoved { .. } => {}
        }
    }

    fn copy_message(&self, published: &PublishedView<'_>, number: Number, place: Place, out: &mut Vec<u8>) {
        let number = published.copied.unwrap_or(number);
        let stands_here = |slot: u32| self.messages.item(slot).is_some_and(|item| item.place == place);
        let live = |recipient: RecipientView<'_>| {
            let session = self.sessions.get(recipient.client)?;
            let waiting = session.queue.get(session.find(number).ok()?)?;
            stands_here(waiting.slot).then(|| waiting.stage())
        };
        let recipients: Vec<_> = published
            .recipients()
            .filter_map(|recipient| live(recipient).map(|stage| recipient.at(stage)))
            .collect();
        let retained = published
            .topic()
            .ok()
            .and_then(|topic| self.retained.get(topic))
            .is_some_and(|retained| retained.number == number && stands_here(retained.slot));
        if retained || !recipients.is_empty() {
            format::write_message_copied(number, published, retained, &recipients, out);
        }
        if let Some((client, packet_id)) = published.taken_from {
            self.copy_taken(client, packet_id, place, out);
        }
    }

    fn copy_taken(&self, client: &str, packet_id: PacketId, place: Place, out: &mut Vec<u8>) {
        let taken = self.sessions.get(client).and_then(|session| session.taken.get(&packet_id));
        if taken.is_some_and(|item| item.place == place) {
            format::write_taken(client, packet_id, out);
        }
    }
}

/// Looking.
impl State {
    /// What a log of nothing but live events would take at most.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.live.bytes + self.messages.live.bytes
    }

    /// Whether anything in a segment is live.
    pub(crate) fn is_any_live_in(&self, segment: u32) -> bool {
        self.live.is_any_in(segment) || self.messages.live.is_any_in(segment)
    }

    pub(crate) fn queued(&self) -> u64 {
        self.queued
    }

    pub(crate) fn sessions_len(&self) -> usize {
        self.sessions.len()
    }

    pub(crate) fn retained_len(&self) -> usize {
        self.retained.len()
    }

    pub(crate) fn sink_records_len(&self) -> usize {
        self.sinks.values().map(BTreeMap::len).sum()
    }

    pub(crate) fn clients(&self) -> Vec<Arc<str>> {
        self.sessions.keys().cloned().collect()
    }

    pub(crate) fn session(&self, client: &str) -> Option<SessionFacts> {
        let session = self.sessions.get(client)?;
        Some(SessionFacts {
            header: session.header.as_ref().map(|(_, header)| header.clone()),
            subscriptions: session
                .subscriptions
                .iter()
                .map(|(filter, (_, s))| (Arc::clone(filter), *s))
                .collect(),
            taken: session.taken.keys().copied().collect(),
        })
    }

    pub(crate) fn queue(&self, client: &str, from: Number, max: usize) -> Vec<Queued> {
        let Some(session) = self.sessions.get(client) else { return Vec::new() };
        let first = session.find(from).unwrap_or_else(|at| at);
        session.queue.iter().skip(first).take(max).map(Waiting::queued).collect()
    }

    pub(crate) fn message(&self, client: &str, number: Number) -> Option<Place> {
        let session = self.sessions.get(client)?;
        let waiting = session.queue.get(session.find(number).ok()?)?;
        self.messages.item(waiting.slot).map(|item| item.place)
    }

    pub(crate) fn retained_topics(&self) -> Vec<Arc<str>> {
        self.retained.keys().cloned().collect()
    }

    pub(crate) fn retained(&self, topic: &str) -> Option<Place> {
        self.messages.item(self.retained.get(topic)?.slot).map(|item| item.place)
    }

    pub(crate) fn sinks(&self) -> Vec<Arc<str>> {
        self.sinks.keys().cloned().collect()
    }

    pub(crate) fn sink_records(&self, sink: &str, from: Number, max: usize) -> Vec<(Number, Place)> {
        let records = self.sinks.get(sink).into_iter().flat_map(|records| records.range(from..));
        records.take(max).map(|(number, item)| (*number, item.place)).collect()
    }

    pub(crate) fn namespaces(&self) -> Vec<Arc<str>> {
        self.keys.keys().cloned().collect()
    }

    pub(crate) fn keys(&self, namespace: &str, from: &[u8], max: usize) -> Vec<Bytes> {
        let from = Bytes::copy_from_slice(from);
        let keys = self.keys.get(namespace).into_iter().flat_map(|keys| keys.range(from.clone()..));
        keys.take(max).map(|(key, _)| key.clone()).collect()
    }

    pub(crate) fn value(&self, namespace: &str, key: &[u8]) -> Option<Place> {
        self.keys.get(namespace)?.get(key).map(|item| item.place)
    }
}

impl Session {
    /// Where the message with this number is, or belongs.
    fn find(&self, number: Number) -> Result<usize, usize> {
        match self.queue.back() {
            // Nearly always it is the newest.
            Some(last) if last.number < number => Err(self.queue.len()),
            _ => self.queue.binary_search_by_key(&number, |waiting| waiting.number),
        }
    }

    fn put(&mut self, waiting: Waiting) -> Option<Waiting> {
        match self.find(waiting.number) {
            Ok(at) => self.queue.get_mut(at).map(|present| std::mem::replace(present, waiting)),
            Err(at) if at == self.queue.len() => {
                self.queue.push_back(waiting);
                None
            }
            Err(at) => {
                self.queue.insert(at, waiting);
                None
            }
        }
    }

    /// Removes the first message with one of these numbers.
    fn remove_first(&mut self, numbers: &RangeInclusive<Number>) -> Option<Waiting> {
        let removed = match self.queue.front() {
            // Nearly always it is the oldest.
            Some(first) if numbers.contains(&first.number) => self.queue.pop_front(),
            _ => {
                let at = self.find(*numbers.start()).unwrap_or_else(|at| at);
                self.queue.get(at).filter(|waiting| numbers.contains(&waiting.number))?;
                self.queue.remove(at)
            }
        };
        if self.queue.capacity() > 64 && self.queue.len() < self.queue.capacity() / 4 {
            self.queue.shrink_to(self.queue.len() * 2);
        }
        removed
    }

    fn is_void(&self) -> bool {
        self.header.is_none()
            && self.subscriptions.is_empty()
            && self.queue.is_empty()
            && self.taken.is_empty()
    }
}

impl Waiting {
    fn new(number: Number, slot: u32, qos: QoS, retain: bool, stage: Stage) -> Self {
        let (packet_id, released) = match stage {
            Stage::Waiting => (0, 0),
            Stage::UnderWay(packet_id) => (packet_id.get(), 0),
            Stage::Released(packet_id) => (packet_id.get(), WAITING_RELEASED),
        };
        let retain = if retain { WAITING_RETAIN } else { 0 };
        Self { number, slot, packet_id, qos_bits: qos.as_u8(), flags: retain | released }
    }

    fn stage(&self) -> Stage {
        match PacketId::new(self.packet_id) {
            None => Stage::Waiting,
            Some(packet_id) if self.flags & WAITING_RELEASED != 0 => Stage::Released(packet_id),
            Some(packet_id) => Stage::UnderWay(packet_id),
        }
    }

    fn queued(&self) -> Queued {
        let qos = self.qos_bits.try_into().unwrap_or_default();
        let delivery = QoSAndRetain { qos, retain: self.flags & WAITING_RETAIN != 0 };
        Queued { number: self.number, delivery, stage: self.stage() }
    }
}

/// The messages that somebody still wants, and the slots that are free.
#[derive(Debug, Default)]
struct Messages {
    slots: Vec<MessageSlot>,
    /// The first free slot plus 1; 0 is none.
    free: u32,
    live: Live,
}

impl Messages {
    /// Finds room for a message. It has one reference, that of the caller.
    fn hold(&mut self, item: Item) -> Result<u32, Malformed> {
        self.live.add(item);
        let held = MessageSlot { item, references: 1 };
        if let Some(index) = self.free.checked_sub(1)
            && let Some(slot) = self.slots.get_mut(index as usize)
        {
            self.free = slot.item.event_bytes;
            *slot = held;
            return Ok(index);
        }
        // `free` has one number less.
        let index = u32::try_from(self.slots.len()).ok().filter(|index| *index < u32::MAX);
        self.slots.push(held);
        index.ok_or(Malformed("there are more messages than the index can hold"))
    }

    fn refer(&mut self, index: u32) {
        if let Some(slot) = self.slots.get_mut(index as usize) {
            slot.references += 1;
        }
    }

    fn release(&mut self, index: u32) {
        let Some(slot) = self.slots.get_mut(index as usize) else { return };
        slot.references = slot.references.saturating_sub(1);
        if slot.references == 0 {
            self.live.remove(slot.item);
            slot.item.event_bytes = self.free;
            self.free = index + 1;
        }
    }

    fn item(&self, index: u32) -> Option<Item> {
        self.slots.get(index as usize).map(|slot| slot.item)
    }
}

/// The inner map of `name`, made if it is not there.
fn entry<'a, K, V>(maps: &'a mut BTreeMap<Arc<str>, BTreeMap<K, V>>, name: &str) -> &'a mut BTreeMap<K, V> {
    maps.entry(Arc::from(name)).or_default()
}

/// Removes from the inner map of `name`, and that too when nothing is left.
fn remove<K, Q, V>(maps: &mut BTreeMap<Arc<str>, BTreeMap<K, V>>, name: &str, key: &Q) -> Option<V>
where
    K: Ord + std::borrow::Borrow<Q>,
    Q: Ord + ?Sized,
{
    let map = maps.get_mut(name)?;
    let removed = map.remove(key);
    if map.is_empty() {
        maps.remove(name);
    }
    removed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queued_message_takes_at_most_100_bytes_of_memory() {
        // Vectors that grow have at most as much in reserve as they hold.
        let bytes = std::mem::size_of::<MessageSlot>() + std::mem::size_of::<Waiting>();
        assert!(2 * bytes <= 100, "{bytes} bytes");
    }
}
