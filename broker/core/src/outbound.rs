//! The messages on their way to one client: those that wait, and those that are sent and not acknowledged.

use std::collections::VecDeque;
use std::sync::Arc;

use weirmq_wire::{PacketId, PacketType, ReasonCode};

use crate::batch::Batch;
use crate::counters::DropReason;
use crate::durable::Position;
use crate::durable::event::Stage;
use crate::durable::slot::{Held, Hold, MarkKind, Slot};
use crate::limits::{Limits, QueueFull};
use crate::message::{Message, QoS};
use crate::plan::Grant;
use crate::session::Live;
use crate::sparse::Seldom;
use crate::time::Instant;
use crate::topic::{TopicFilter, TopicName};

/// How many messages that a SUBSCRIBE asks for may stand in the queue among the others: enough to keep the client
/// busy, and few enough that the rest needs no place of its own.
const REPLAYED_MAX: usize = 256;

/// A message as one receiver gets it.
#[derive(Debug, Clone)]
pub(crate) struct Parcel {
    pub(crate) message: Arc<Message>,
    /// The lower of the published and the granted QoS `[MQTT-3.8.4-8]`.
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    /// The identifiers of the subscriptions that matched.
    pub(crate) identifiers: Option<Arc<[u32]>>,
    /// Where it is recorded, if it is.
    pub(crate) slot: Option<Slot>,
}

/// What is on its way to one client.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    /// The client identifier, for what is recorded.
    client: Arc<str>,
    /// QoS 1 and 2 messages that were given a packet identifier, in the order in which they were.
    inflight: VecDeque<Inflight>,
    /// How many of them are still to be sent, or sent again, on this connection; without those that are held.
    unsent: usize,
    /// How many of them must not be sent before they are kept.
    held: usize,
    /// How many were ever given an identifier: the identifier follows from it.
    given: u64,
    /// QoS 1 and 2 messages that wait; `None` where none ever did.
    queue: Seldom<Queue>,
    /// Retained messages that SUBSCRIBE has asked for; `None` where none are waited for.
    replays: Seldom<VecDeque<Replay>>,
}

/// Messages that wait, in order.
#[derive(Debug, Default)]
struct Queue {
    parcels: VecDeque<Parcel>,
    bytes: usize,
    /// Nothing that waits expires before this.
    expires_first: Option<Instant>,
}

/// The retained messages that one filter of a SUBSCRIBE asks for. They are looked up when their turn comes and
/// sent as fast as the client takes them: however many there are, they take no place in the queue.
#[derive(Debug)]
pub(crate) struct Replay {
    pub(crate) filter: TopicFilter,
    pub(crate) grant: Grant,
    /// Not what the client published itself `[MQTT-3.8.3-3]`.
    pub(crate) no_local: bool,
    found: Option<std::vec::IntoIter<Arc<Message>>>,
}

impl Replay {
    /// What `filter` matches, on the terms of `grant`.
    pub(crate) fn new(filter: TopicFilter, grant: Grant, no_local: bool) -> Self {
        Self { filter, grant, no_local, found: None }
    }
}

/// What is to be done next about retained messages.
#[derive(Debug)]
pub(crate) enum NextReplay {
    /// Nothing, or nothing now.
    Wait,
    /// To look up what this filter matches: [`Outbound::found`].
    Find { filter: TopicFilter, no_local: bool },
    /// To send this: [`Outbound::replay`].
    Send(Arc<Message>, Grant),
}

/// How it is recorded that a message is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    /// In its own record, which is to come.
    WithIt,
    /// In a record of its own: the message waited before.
    Beside,
}

/// A message that has a packet identifier.
#[derive(Debug)]
struct Inflight {
    /// Which of all that were given an identifier.
    given: u64,
    id: PacketId,
    /// The message, until the client has answered PUBREC; then only PUBREL is owed.
    parcel: Option<Parcel>,
    /// Where the message is recorded, if it is: the parcel says it no longer.
    slot: Option<Slot>,
    /// Whether it was sent on this connection.
    sent: bool,
    /// Whether it was sent on any connection before: what is sent then is a repetition.
    before: bool,
    /// Whether its PUBLISH counts against the client's Receive Maximum `[MQTT-3.3.4-9]`.
    counted: bool,
    /// What it waits for before it may be sent for the first time.
    hold: Option<Arc<Hold>>,
}

/// What a PUBREC calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AfterPubRec {
    /// PUBREL.
    Release,
    /// Nothing: the client has refused the message, and that is the end of it `[MQTT-4.3.3-4]`.
    Done,
    /// There is no such message.
    Unknown,
}

/// Told of each message that is not delivered.
pub(crate) type OnDrop<'a> = &'a mut dyn FnMut(DropReason, &Message);

impl Queue {
    fn push(&mut self, parcel: Parcel) {
        self.bytes += parcel.message.size();
        if let Some(expires_at) = parcel.message.expires_at {
            self.expires_first = Some(self.expires_first.map_or(expires_at, |first| first.min(expires_at)));
        }
        self.parcels.push_back(parcel);
    }

    fn pop(&mut self) -> Option<Parcel> {
        let parcel = self.parcels.pop_front()?;
        self.bytes -= parcel.message.size();
        Some(parcel)
    }
}

impl Outbound {
    /// Nothing, for this client.
    pub(crate) fn new(client: &Arc<str>) -> Self {
        Self { client: Arc::clone(client), ..Self::default() }
    }

    /// Sends `parcel`, or has it wait. Answers how far it has come.
    ///
    /// # Errors
    /// The reason for which it is dropped. Others that are dropped to make room are told to `on_drop`.
    pub(crate) fn offer(
        &mut self,
        live: Option<&mut Live>,
        parcel: Parcel,
        limits: &Limits,
        now: Instant,
        batch: &mut Batch,
        on_drop: OnDrop<'_>,
    ) -> Result<Stage, DropReason> {
        if parcel.message.is_expired(now) {
            return Err(DropReason::Expired);
        }
        match (live, parcel.qos) {
            (None, QoS::AtMostOnce) => Err(DropReason::NoReceiverOnline),
            (Some(live), QoS::AtMostOnce) if live.has_room() => {
                self.send(live, &parcel, None, now, batch).map(|()| Stage::Waiting)
            }
            (Some(live), QoS::AtMostOnce) if live.outbox.is_closed() => Err(DropReason::NoReceiverOnline),
            (Some(_), QoS::AtMostOnce) => Err(DropReason::SlowConsumer),
            (Some(live), _) if self.may_start(live) => self
                .start(live, parcel, Said::WithIt, now, batch)
                .map(Stage::UnderWay)
                .map_err(|(reason, _)| reason),
            (live, _) => {
                if let Some(live) = live.filter(|live| !live.has_room()) {
                    live.outbox.want_room();
                }
                self.enqueue(parcel, limits, now, batch, on_drop).map(|()| Stage::Waiting)
            }
        }
    }

    /// Takes up what a filter of a SUBSCRIBE asks for. From `replays_max` on, what the same filter has asked for
    /// before makes way.
    pub(crate) fn want_replay(&mut self, replay: Replay, replays_max: usize) {
        if self.replays.as_ref().is_some_and(|replays| replays.len() >= replays_max) {
            self.forget_replays(&replay.filter);
        }
        self.replays.get_or_insert_default().push_back(replay);
    }

    /// Nobody waits for what `filter` matches any more.
    pub(crate) fn forget_replays(&mut self, filter: &TopicFilter) {
        if let Some(replays) = &mut self.replays {
            replays.retain(|replay| replay.filter != *filter);
        }
    }

    /// Whether retained messages wait to be sent.
    pub(crate) fn has_replays(&self) -> bool {
        self.replays.as_ref().is_some_and(|replays| !replays.is_empty())
    }

    /// What is to be done next about retained messages. To be asked again until it is nothing, and after
    /// everything that calls for [`Outbound::pump`].
    pub(crate) fn next_replay(&mut self, live: &Live, now: Instant) -> NextReplay {
        let may_queue = self.may_start(live) || self.waiting() < REPLAYED_MAX;
        while let Some(replays) = &mut self.replays {
            let Some(replay) = replays.front_mut() else {
                self.replays = None;
                break;
            };
            let Some(found) = &mut replay.found else {
                return NextReplay::Find { filter: replay.filter.clone(), no_local: replay.no_local };
            };
            let Some(message) = found.as_slice().first() else {
                replays.pop_front();
                continue;
            };
            let waits = message.qos.min(replay.grant.qos) > QoS::AtMostOnce;
            if !live.has_room() {
                live.outbox.want_room();
                return NextReplay::Wait;
            }
            if waits && !may_queue {
                return NextReplay::Wait;
            }
            if let Some(message) = found.next().filter(|message| !message.is_expired(now)) {
                return NextReplay::Send(message, replay.grant.clone());
            }
        }
        NextReplay::Wait
    }

    /// What was looked up for the first filter that waits.
    pub(crate) fn found(&mut self, filter: &TopicFilter, messages: Vec<Arc<Message>>) {
        let first = self.replays.as_mut().and_then(|replays| replays.front_mut());
        if let Some(replay) = first.filter(|replay| replay.filter == *filter) {
            replay.found = Some(messages.into_iter());
        }
    }

    /// Sends a retained message, or has it wait: the limits of the queue are for what comes unasked. Answers how far it has
    /// come.
    pub(crate) fn replay(
        &mut self,
        live: &mut Live,
        parcel: Parcel,
        now: Instant,
        batch: &mut Batch,
    ) -> Result<Stage, DropReason> {
        match parcel.qos {
            QoS::AtMostOnce => self.send(live, &parcel, None, now, batch).map(|()| Stage::Waiting),
            _ if self.may_start(live) => self
                .start(live, parcel, Said::WithIt, now, batch)
                .map(Stage::UnderWay)
                .map_err(|(reason, _)| reason),
            _ => {
                self.push(parcel);
                Ok(Stage::Waiting)
            }
        }
    }

    /// Sends of what waits as much as the client and its outbox take. To be called after an acknowledgement,
    /// after [`Outbound::resume`], and when the outbox has room again.
    pub(crate) fn pump(&mut self, live: &mut Live, now: Instant, batch: &mut Batch, on_drop: OnDrop<'_>) {
        self.send_again(live, now, batch, on_drop);
        while self.may_start_with(live) {
            let Some(parcel) = self.queue.as_mut().and_then(|queue| queue.pop()) else { break };
            let outcome = if parcel.message.is_expired(now) {
                Err((DropReason::Expired, parcel))
            } else {
                self.start(live, parcel, Said::Beside, now, batch)
            };
            if let Err((reason, parcel)) = outcome {
                self.mark(parcel.slot.as_ref(), MarkKind::Settled, batch);
                on_drop(reason, &parcel.message);
            }
        }
        let waits = self.waiting() > 0 || self.has_replays() || self.unsent > 0;
        if waits && !live.has_room() {
            live.outbox.want_room();
        }
    }

    /// The client has a new connection: everything unacknowledged is to be sent again `[MQTT-4.4.0-1]`.
    pub(crate) fn resume(&mut self) {
        for entry in &mut self.inflight {
            entry.before |= entry.sent;
            entry.sent = false;
            entry.counted = false;
        }
        self.unsent = self.inflight.len() - self.held;
    }

    /// Brings back a message from before a restart. Those that were given an identifier keep it and are sent again with
    /// it `[MQTT-4.4.0-1]`; they come in the order of their numbers, which is theirs except where two publishers were at
    /// it at once.
    pub(crate) fn restore(&mut self, mut parcel: Parcel, stage: Stage) {
        const ROUND: u64 = u16::MAX as u64;
        let (id, parcel, slot) = match stage {
            Stage::Waiting => return self.push(parcel),
            Stage::UnderWay(id) => {
                let slot = parcel.slot.take();
                (id, Some(parcel), slot)
            }
            Stage::Released(id) => (id, None, parcel.slot),
        };
        // A round ahead of these, which are taken for older than they are: the next identifiers are looked for among
        // them one by one as long as they are there.
        self.given = ROUND + u64::from(id.get());
        self.inflight.push_back(Inflight {
            given: 0,
            id,
            parcel,
            slot,
            sent: false,
            before: true,
            counted: false,
            hold: None,
        });
    }

    /// What is recorded is not this client's any more.
    pub(crate) fn forget_slots(&mut self) {
        self.inflight.iter_mut().for_each(|entry| entry.slot = None);
        let waiting = self.queue.iter_mut().flat_map(|queue| &mut queue.parcels);
        waiting.for_each(|parcel| parcel.slot = None);
    }

    /// Whether messages are held back until they are kept.
    pub(crate) fn is_holding(&self) -> bool {
        self.held > 0
    }

    /// What the first held message waits for.
    pub(crate) fn first_hold(&self) -> Option<&Arc<Hold>> {
        if self.held == 0 {
            return None;
        }
        self.inflight.iter().find_map(|entry| entry.hold.as_ref())
    }

    /// Everything that was recorded up to `kept` may be sent, but nothing before what was given its identifier earlier;
    /// where that is nothing, what is recorded there will never be kept.
    pub(crate) fn release(&mut self, kept: Result<Position, Position>, live: &mut Live, on_drop: OnDrop<'_>) {
        let (unsent, held) = (&mut self.unsent, &mut self.held);
        let mut waits = false;
        self.inflight.retain_mut(|entry| {
            let Some(hold) = &entry.hold else { return true };
            let state = hold.state();
            let is_lost = match (state, kept) {
                (Held::Lost, _) => true,
                (Held::At(position), Err(lost)) => position >= lost,
                _ => false,
            };
            let is_kept = matches!((state, kept), (Held::At(position), Ok(kept)) if position <= kept);
            if !is_lost && (waits || !is_kept) {
                waits = true;
                return true;
            }
            entry.hold = None;
            *held -= 1;
            if is_lost {
                live.unacknowledged -= u16::from(entry.counted);
                if let Some(parcel) = &entry.parcel {
                    on_drop(DropReason::NotKept, &parcel.message);
                }
            } else {
                *unsent += 1;
            }
            !is_lost
        });
    }

    /// PUBACK: whether there was such a message.
    pub(crate) fn puback(&mut self, live: &mut Live, id: PacketId, batch: &mut Batch) -> bool {
        self.remove(live, id, batch, |entry| {
            entry.parcel.as_ref().is_some_and(|parcel| parcel.qos == QoS::AtLeastOnce)
        })
    }

    /// PUBREC.
    pub(crate) fn pubrec(
        &mut self,
        live: &mut Live,
        id: PacketId,
        code: ReasonCode,
        batch: &mut Batch,
    ) -> AfterPubRec {
        let Some(entry) = self.inflight.iter_mut().find(|entry| entry.id == id && entry.sent) else {
            return AfterPubRec::Unknown;
        };
        match &entry.parcel {
            Some(parcel) if parcel.qos != QoS::ExactlyOnce => AfterPubRec::Unknown,
            _ if code.is_error() => {
                self.remove(live, id, batch, |_| true);
                AfterPubRec::Done
            }
            Some(parcel) => {
                batch.events().acked(&self.client, &*parcel.message);
                entry.parcel = None;
                let slot = entry.slot.clone();
                self.mark(slot.as_ref(), MarkKind::Released, batch);
                AfterPubRec::Release
            }
            None => AfterPubRec::Release,
        }
    }

    /// PUBCOMP: whether there was such a message.
    pub(crate) fn pubcomp(&mut self, live: &mut Live, id: PacketId, batch: &mut Batch) -> bool {
        self.remove(live, id, batch, |entry| entry.parcel.is_none())
    }

    /// Ends the way of the messages to topics for which `is_lost` holds: they wait, or were sent and are not acknowledged.
    /// To be called without a connection.
    pub(crate) fn withdraw(
        &mut self,
        is_lost: impl Fn(&TopicName) -> bool,
        batch: &mut Batch,
        on_drop: OnDrop<'_>,
    ) {
        let is_lost = |parcel: &Parcel| is_lost(&parcel.message.topic);
        for entry in std::mem::take(&mut self.inflight) {
            match &entry.parcel {
                Some(parcel) if is_lost(parcel) => {
                    self.held -= usize::from(entry.hold.is_some());
                    self.mark(entry.slot.as_ref(), MarkKind::Settled, batch);
                    on_drop(DropReason::Denied, &parcel.message);
                }
                _ => self.inflight.push_back(entry),
            }
        }
        self.sift(DropReason::Denied, is_lost, batch, on_drop);
    }

    /// The messages that wait or are under way, whose receiver has not acknowledged them.
    pub(crate) fn messages(&self) -> impl Iterator<Item = &Arc<Message>> {
        let inflight = self.inflight.iter().filter_map(|entry| entry.parcel.as_ref());
        let waiting = self.queue.iter().flat_map(|queue| &queue.parcels);
        inflight.chain(waiting).map(|parcel| &parcel.message)
    }

    /// How many messages wait or are under way.
    pub(crate) fn pending(&self) -> usize {
        self.waiting() + self.inflight.len()
    }

    /// How many wait.
    fn waiting(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.parcels.len())
    }

    /// Whether a message of so many bytes can wait.
    pub(crate) fn has_room(&self, size: usize, limits: &Limits) -> bool {
        let bytes = self.queue.as_ref().map_or(0, |queue| queue.bytes);
        self.waiting() < limits.queue_messages_max && bytes.saturating_add(size) <= limits.queue_bytes_max
    }

    /// Whether a message would be sent at once: one that `waits` for acknowledgements needs a place among them.
    pub(crate) fn takes_now(&self, live: &Live, waits: bool) -> bool {
        if waits { self.may_start(live) } else { live.has_room() }
    }

    fn may_start(&self, live: &Live) -> bool {
        self.waiting() == 0 && self.may_start_with(live)
    }

    fn may_start_with(&self, live: &Live) -> bool {
        self.unsent == 0 && live.unacknowledged < live.receive_max && live.has_room()
    }

    /// Gives `parcel` an identifier and sends it. A QoS 2 message that is recorded is only held: sent before it is kept,
    /// a crash would make it two.
    ///
    /// # Errors
    /// The reason for which it is dropped, and the parcel.
    fn start(
        &mut self,
        live: &mut Live,
        mut parcel: Parcel,
        said: Said,
        now: Instant,
        batch: &mut Batch,
    ) -> Result<PacketId, (DropReason, Parcel)> {
        let (given, id) = self.next_id();
        let slot = parcel.slot.take();
        let hold = match (&slot, parcel.qos, batch.ledger()) {
            (Some(slot), QoS::ExactlyOnce, Some(ledger)) => Some(match said {
                Said::WithIt => ledger.hold(slot, &live.outbox),
                Said::Beside => ledger.hold_marked(&self.client, slot, id, &live.outbox),
            }),
            _ => None,
        };
        if hold.is_some() {
            self.held += 1;
        } else {
            if let Err(reason) = self.send(live, &parcel, Some(id), now, batch) {
                return Err((reason, Parcel { slot, ..parcel }));
            }
            if said == Said::Beside {
                self.mark(slot.as_ref(), MarkKind::UnderWay(id), batch);
            }
        }
        self.given = given + 1;
        live.unacknowledged += 1;
        let sent = hold.is_none();
        let entry =
            Inflight { given, id, parcel: Some(parcel), slot, sent, before: false, counted: true, hold };
        self.inflight.push_back(entry);
        Ok(id)
    }

    /// Hands a message to the connection for the first time.
    fn send(
        &self,
        live: &mut Live,
        parcel: &Parcel,
        id: Option<PacketId>,
        now: Instant,
        batch: &mut Batch,
    ) -> Result<(), DropReason> {
        live.send(parcel, id, false, now, batch)?;
        batch.events().delivered(&self.client, &*parcel.message);
        Ok(())
    }

    /// Has what became of a message recorded, if the message is.
    fn mark(&self, slot: Option<&Slot>, kind: MarkKind, batch: &mut Batch) {
        if let (Some(slot), Some(ledger)) = (slot, batch.ledger()) {
            ledger.mark(&self.client, slot, kind);
        }
    }

    /// The next identifier that is not in use. Identifiers go round; one that is still in use when its turn
    /// comes again is passed over `[MQTT-2.2.1-4]`. There is always one: Receive Maximum is at most 65,535,
    /// and the identifiers are as many.
    fn next_id(&self) -> (u64, PacketId) {
        const ROUND: u64 = u16::MAX as u64;
        let mut given = self.given;
        loop {
            let number = u16::try_from(given % ROUND).unwrap_or(0) + 1;
            let id = PacketId::new(number).unwrap_or(PacketId::MIN);
            let oldest = self.inflight.front().map_or(u64::MAX, |entry| entry.given);
            // Only what was given a whole round ago can be in the way.
            let may_be_in_use = oldest.saturating_add(ROUND) <= given;
            if !may_be_in_use || !self.inflight.iter().any(|entry| entry.id == id) {
                return (given, id);
            }
            given += 1;
        }
    }

    /// Sends what was sent on an earlier connection. A PUBLISH that must wait holds back those behind it
    /// `[MQTT-4.6.0-1]`, but never a PUBREL `[MQTT-3.3.4-10]`.
    fn send_again(&mut self, live: &mut Live, now: Instant, batch: &mut Batch, on_drop: OnDrop<'_>) {
        let mut place = 0;
        let mut waits = false;
        while self.unsent > 0 {
            let Some(entry) = self.inflight.get_mut(place) else { break };
            if entry.sent || entry.hold.is_some() {
                place += 1;
                continue;
            }
            match &entry.parcel {
                None => live.acknowledge(PacketType::PubRel, entry.id, ReasonCode::Success, batch),
                Some(_)
                    if waits
                        || (!entry.counted && live.unacknowledged >= live.receive_max)
                        || !live.has_room() =>
                {
                    waits = true;
                    place += 1;
                    continue;
                }
                Some(parcel) => {
                    if let Err(reason) = live.send(parcel, Some(entry.id), entry.before, now, batch) {
                        on_drop(reason, &parcel.message);
                        self.unsent -= 1;
                        live.unacknowledged -= u16::from(entry.counted);
                        if let Some(entry) = self.inflight.remove(place) {
                            self.mark(entry.slot.as_ref(), MarkKind::Settled, batch);
                        }
                        continue;
                    }
                    live.unacknowledged += u16::from(!entry.counted);
                    entry.counted = true;
                    if !entry.before {
                        batch.events().delivered(&self.client, &*parcel.message);
                    }
                }
            }
            entry.sent = true;
            self.unsent -= 1;
            place += 1;
        }
    }

    fn remove(
        &mut self,
        live: &mut Live,
        id: PacketId,
        batch: &mut Batch,
        fits: impl Fn(&Inflight) -> bool,
    ) -> bool {
        let Some(place) = self.inflight.iter().position(|entry| entry.id == id && entry.sent && fits(entry))
        else {
            return false;
        };
        if let Some(entry) = self.inflight.remove(place) {
            live.unacknowledged -= u16::from(entry.counted);
            self.mark(entry.slot.as_ref(), MarkKind::Settled, batch);
            // A QoS 2 message was acknowledged with PUBREC, or is refused with it.
            if let Some(parcel) = entry.parcel.filter(|parcel| parcel.qos == QoS::AtLeastOnce) {
                batch.events().acked(&self.client, &*parcel.message);
            }
        }
        true
    }

    fn enqueue(
        &mut self,
        parcel: Parcel,
        limits: &Limits,
        now: Instant,
        batch: &mut Batch,
        on_drop: OnDrop<'_>,
    ) -> Result<(), DropReason> {
        let size = parcel.message.size();
        if !self.has_room(size, limits) {
            self.forget_expired(now, batch, on_drop);
        }
        while !self.has_room(size, limits) {
            if limits.queue_full == QueueFull::RefuseNewest {
                return Err(DropReason::QueueFull);
            }
            let oldest = self.queue.as_mut().and_then(|queue| queue.pop());
            let Some(oldest) = oldest else { return Err(DropReason::QueueFull) };
            self.mark(oldest.slot.as_ref(), MarkKind::Settled, batch);
            on_drop(DropReason::QueueFull, &oldest.message);
        }
        self.push(parcel);
        Ok(())
    }

    fn push(&mut self, parcel: Parcel) {
        self.queue.get_or_insert_default().push(parcel);
    }

    fn forget_expired(&mut self, now: Instant, batch: &mut Batch, on_drop: OnDrop<'_>) {
        let expires_first = self.queue.as_ref().and_then(|queue| queue.expires_first);
        if expires_first.is_none_or(|first| first > now) {
            return;
        }
        self.sift(DropReason::Expired, |parcel| parcel.message.is_expired(now), batch, on_drop);
    }

    /// Drops of what waits that for which `is_out` holds.
    fn sift(
        &mut self,
        reason: DropReason,
        is_out: impl Fn(&Parcel) -> bool,
        batch: &mut Batch,
        on_drop: OnDrop<'_>,
    ) {
        let Some(before) = self.queue.take() else { return };
        for parcel in before.parcels {
            if is_out(&parcel) {
                self.mark(parcel.slot.as_ref(), MarkKind::Settled, batch);
                on_drop(reason, &parcel.message);
            } else {
                self.push(parcel);
            }
        }
    }
}
