//! What a batch of work has to record, and what waits for it.
//!
//! While packets are handled nothing is appended: everything is noted here and recorded once, when the batch ends
//! and before its frames are written. A message has its number only then; until it has, others refer to its [`Slot`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;

use parking_lot::Mutex;

use super::event::{Event, Number, PacketId, Published, Recipient, RetainChange, Stage, StoredMessage};
use super::keeper::{Keeper, Kept, settled};
use super::keys::{Changes, Taken};
use super::{NotKept, Position, Receipt, Records};
use crate::outbox::Outbox;
use crate::session::Session;

/// Memory for so many things stays between batches: a connection that is idle after a burst need not keep more.
const KEPT_MAX: usize = 256;

/// The number of a message or a sink record, once it is recorded.
#[derive(Debug, Default)]
pub(crate) struct Slot(AtomicU64);

impl Slot {
    const UNRECORDED: u64 = 0;
    /// Nobody needs it any more, and it was not recorded yet.
    const SETTLED_EARLY: u64 = u64::MAX;
    /// It was not taken, and never will be.
    const LOST: u64 = u64::MAX - 1;

    pub(crate) fn of(number: Number) -> Self {
        Self(AtomicU64::new(number))
    }

    fn recorded(&self) -> Recorded {
        match self.0.load(Ordering::Acquire) {
            Self::UNRECORDED => Recorded::NotYet,
            Self::SETTLED_EARLY | Self::LOST => Recorded::Never,
            number => Recorded::As(number),
        }
    }

    /// It is recorded. Answers whether it was settled before.
    fn set(&self, number: Number) -> bool {
        self.0.swap(number, Ordering::AcqRel) == Self::SETTLED_EARLY
    }

    /// It will not be recorded.
    pub(crate) fn lose(&self) {
        self.0.store(Self::LOST, Ordering::Release);
    }

    /// The only one who needed it does not any more. The number to record, if it is known; else whoever records it
    /// sees to that.
    pub(super) fn settle(&self) -> Option<Number> {
        match self.0.swap(Self::SETTLED_EARLY, Ordering::AcqRel) {
            Self::UNRECORDED | Self::SETTLED_EARLY | Self::LOST => None,
            number => Some(number),
        }
    }
}

/// Whether something has a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Recorded {
    NotYet,
    As(Number),
    Never,
}

/// What a message that must not be sent before it is recorded waits for: the position of its record, once it has one.
#[derive(Debug, Default)]
pub(crate) struct Hold(Mutex<HoldState>);

#[derive(Debug, Default)]
struct HoldState {
    recorded: Option<Held>,
    wakers: Vec<Waker>,
}

/// How far a held message has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    /// It is not recorded yet. Whoever records it wakes the connection.
    Unrecorded,
    /// It is recorded there.
    At(Position),
    /// It was not taken.
    Lost,
}

impl Hold {
    /// How far it has come.
    pub(crate) fn state(&self) -> Held {
        self.0.lock().recorded.unwrap_or(Held::Unrecorded)
    }

    /// Has `waker` woken when it is recorded, if it is not yet.
    pub(crate) fn wake(&self, waker: &Waker) {
        let mut state = self.0.lock();
        if state.recorded.is_some() {
            drop(state);
            waker.wake_by_ref();
        } else if !state.wakers.iter().any(|known| known.will_wake(waker)) {
            state.wakers.push(waker.clone());
        }
    }

    fn set(&self, position: Option<Position>) {
        let mut state = self.0.lock();
        state.recorded = Some(position.map_or(Held::Lost, Held::At));
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// How a receiver gets a message that is to be recorded.
#[derive(Debug)]
pub(crate) struct Receiving {
    pub(crate) session: Arc<Session>,
    /// The client identifier is filled in when it is recorded.
    pub(crate) qos: weirmq_wire::QoS,
    pub(crate) retain: bool,
    pub(crate) identifiers: Option<Arc<[u32]>>,
    pub(crate) stage: Stage,
}

/// A message that is to be recorded.
#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) message: Arc<StoredMessage>,
    pub(crate) receivers: Vec<Receiving>,
    pub(crate) retain: RetainChange,
    pub(crate) slot: Arc<Slot>,
}

#[derive(Debug)]
enum Entry {
    /// Something about a session. Not recorded where the session has ended.
    About(Arc<Session>, Event),
    Published(Publication),
    SinkRecord {
        sink: Arc<str>,
        record: bytes::Bytes,
        slot: Arc<Slot>,
    },
    /// What has changed in a namespace, found out when it is recorded.
    Changes(Arc<Changes>),
}

/// Something about a message for a client that may not be recorded yet.
#[derive(Debug)]
struct Mark {
    client: Arc<str>,
    slot: Arc<Slot>,
    kind: MarkKind,
}

/// What became of a message on its way to one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MarkKind {
    /// It was given a packet identifier.
    UnderWay(PacketId),
    /// PUBREC came.
    Released,
    /// It needs nothing more.
    Settled,
}

/// What a batch of work has to record.
#[derive(Debug)]
pub(crate) struct Ledger {
    keeper: Arc<Keeper>,
    entries: Vec<Entry>,
    /// Where records end.
    ends: Vec<usize>,
    marks: Vec<Mark>,
    /// Whether something is to be recorded before which nothing may be promised.
    is_awaited: bool,
    /// Whether changes of keys are noted.
    is_changing: bool,
    /// Those that are being recorded.
    taken: Vec<(Arc<Changes>, Taken)>,
    /// What was recorded and is to be waited for.
    awaited: Option<Result<Position, NotKept>>,
    /// For messages that must not be sent before what is noted now is recorded.
    hold: Option<Arc<Hold>>,
    /// Those of batches that were taken over.
    more_holds: Vec<Arc<Hold>>,
    /// Whose connections look at what they hold once it is recorded.
    held_for: Vec<Arc<Outbox>>,
    /// Where the last of it is recorded so far.
    held_at: Option<Position>,
    /// What is being recorded. Empty between commits; kept for its memory.
    records: Records,
    /// Which of its events somebody wants the number of, and of which sink they are a record.
    slots: Vec<(usize, Arc<Slot>, Option<Arc<str>>)>,
}

impl Ledger {
    pub(crate) fn new(keeper: Arc<Keeper>) -> Self {
        Self {
            keeper,
            entries: Vec::new(),
            ends: Vec::new(),
            marks: Vec::new(),
            is_awaited: false,
            is_changing: false,
            taken: Vec::new(),
            awaited: None,
            hold: None,
            more_holds: Vec::new(),
            held_for: Vec::new(),
            held_at: None,
            records: Records::default(),
            slots: Vec::new(),
        }
    }

    /// Notes something about a session.
    pub(crate) fn about(&mut self, session: &Arc<Session>, event: Event, is_awaited: bool) {
        self.entries.push(Entry::About(Arc::clone(session), event));
        self.is_awaited |= is_awaited;
    }

    /// Notes a message. One that nobody waits for is a QoS 0 message that is retained.
    pub(crate) fn published(&mut self, publication: Publication, is_awaited: bool) {
        self.entries.push(Entry::Published(publication));
        self.is_awaited |= is_awaited;
    }

    /// Notes a record for a sink, and gives what the sink needs to say that it has written it.
    pub(crate) fn sink_record(&mut self, sink: &Arc<str>, record: bytes::Bytes) -> Kept {
        let slot = Arc::new(Slot::default());
        let kept = Kept::new(&self.keeper, sink, Arc::clone(&slot));
        self.entries.push(Entry::SinkRecord { sink: Arc::clone(sink), record, slot });
        self.is_awaited = true;
        kept
    }

    /// Notes that what has changed in a namespace is to be recorded.
    pub(crate) fn changes(&mut self, changes: &Arc<Changes>) {
        self.entries.push(Entry::Changes(Arc::clone(changes)));
        (self.is_awaited, self.is_changing) = (true, true);
    }

    /// Notes what became of a message on its way to `client`.
    pub(crate) fn mark(&mut self, client: &Arc<str>, slot: &Arc<Slot>, kind: MarkKind) {
        self.is_awaited |= kind == MarkKind::Released;
        self.marks.push(Mark { client: Arc::clone(client), slot: Arc::clone(slot), kind });
    }

    /// What a message waits for that must not be sent before what is noted now is recorded; the connection of
    /// `outbox` is woken then.
    pub(crate) fn hold(&mut self, outbox: &Arc<Outbox>) -> Arc<Hold> {
        if !self.held_for.last().is_some_and(|last| Arc::ptr_eq(last, outbox)) {
            self.held_for.push(Arc::clone(outbox));
        }
        Arc::clone(self.hold.get_or_insert_with(Arc::default))
    }

    /// What is noted from here on is another record: it may come true without what was noted before.
    pub(crate) fn end_record(&mut self) {
        if self.ends.last().copied().unwrap_or(0) < self.entries.len() {
            self.ends.push(self.entries.len());
        }
    }

    /// Whether nothing may be promised before what is noted, or was recorded, is kept.
    pub(crate) fn is_awaited(&self) -> bool {
        self.is_awaited || self.awaited.is_some()
    }

    /// Has everybody wait for what was recorded elsewhere too.
    pub(crate) fn wait_for(&mut self, recorded: Result<Position, NotKept>) {
        self.awaited = Some(match (self.awaited.take(), recorded) {
            (Some(Err(before)), _) => Err(before),
            (Some(Ok(before)), Ok(position)) => Ok(before.max(position)),
            (_, recorded) => recorded,
        });
    }

    /// What is to be waited for, of all that was recorded since this was asked last.
    pub(crate) fn take_awaited(&mut self) -> Option<Result<Position, NotKept>> {
        self.awaited.take()
    }

    /// Takes over what `other` has noted.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.end_record();
        let before = self.entries.len();
        self.entries.append(&mut other.entries);
        self.ends.extend(other.ends.iter().map(|end| end + before));
        self.marks.append(&mut other.marks);
        self.is_awaited |= other.is_awaited;
        self.is_changing |= other.is_changing;
        if let Some(awaited) = other.awaited.take() {
            self.wait_for(awaited);
        }
        self.more_holds.extend(other.hold.take());
        self.more_holds.append(&mut other.more_holds);
        self.held_for.append(&mut other.held_for);
    }

    /// Records what is noted. Marks of messages that somebody else has not recorded yet stay for the next time.
    pub(crate) fn commit(&mut self) {
        if self.entries.is_empty() && self.marks.is_empty() {
            return;
        }
        self.end_record();
        let keeper = Arc::clone(&self.keeper);
        let endings = keeper.endings.read();
        let is_changing = std::mem::take(&mut self.is_changing);
        let changing = is_changing.then(|| keeper.changing.lock());
        self.take_entries();
        self.take_marks();
        let first = self.append_records();
        if matches!(first, Some(Err(_))) {
            // The latest first: what was taken before it may have been taken again.
            self.taken.drain(..).rev().for_each(|(changes, taken)| changes.put_back(taken));
        }
        self.taken.clear();
        drop(changing);
        self.give_numbers(
            first.as_ref().and_then(|outcome| outcome.as_ref().ok()).map(|receipt| receipt.number),
        );
        // Of messages that have their number since just now.
        self.take_marks();
        let outcome = match (self.append_records(), first) {
            (Some(Ok(last)), Some(Ok(_)) | None) => Some(Ok(last)),
            (_, first) => first,
        };
        drop(endings);
        let mut outcome = outcome.map(|outcome| outcome.map(|receipt| receipt.position));
        if is_changing && outcome.is_none() {
            // Others have recorded the changes meanwhile; what they wait for is waited for here too.
            outcome = Some(Ok(keeper.journal().position()));
        }
        match &outcome {
            Some(Err(_)) => self.let_go(None),
            Some(Ok(position)) => self.held_at = Some(*position),
            None => {}
        }
        if self.marks.is_empty() {
            self.let_go(self.held_at);
        } else {
            // What is held may be a message that somebody else is about to record: that it is under way can be recorded
            // then, and must be before it is sent.
            self.held_for.iter().for_each(|outbox| outbox.wake());
        }
        if let Some(outcome) = outcome.filter(|_| std::mem::take(&mut self.is_awaited)) {
            self.wait_for(outcome);
        }
        self.is_awaited = false;
        self.entries.shrink_to(KEPT_MAX);
        self.marks.shrink_to(KEPT_MAX);
        self.slots.shrink_to(KEPT_MAX);
        self.records.shrink_to(KEPT_MAX);
    }

    /// What is held is recorded at `position`, or was not taken.
    fn let_go(&mut self, position: Option<Position>) {
        for hold in self.hold.take().into_iter().chain(self.more_holds.drain(..)) {
            hold.set(position);
        }
        for outbox in self.held_for.drain(..) {
            outbox.wake();
        }
        self.held_at = None;
    }

    /// Makes records of the entries.
    fn take_entries(&mut self) {
        let (records, slots) = (&mut self.records, &mut self.slots);
        let mut ends = self.ends.drain(..).peekable();
        for (place, entry) in self.entries.drain(..).enumerate() {
            match entry {
                Entry::About(session, event) if !session.is_over() => records.push(event),
                Entry::About(..) => {}
                Entry::Published(publication) => {
                    let Publication { message, receivers, retain, slot } = publication;
                    let recipients = recipients_of(receivers);
                    if recipients.is_empty() && retain == RetainChange::Keep {
                        slot.lose();
                    } else {
                        slots.push((records.len(), slot, None));
                        let taken_from = None;
                        records.push(Event::Published(Published { message, recipients, retain, taken_from }));
                    }
                }
                Entry::SinkRecord { sink, record, slot } => {
                    slots.push((records.len(), slot, Some(Arc::clone(&sink))));
                    records.push(Event::SinkAppended { sink, record });
                }
                Entry::Changes(changes) => {
                    let taken = changes.take();
                    changes.events(&taken).for_each(|event| records.push(event));
                    self.taken.push((changes, taken));
                }
            }
            if ends.next_if(|end| *end == place + 1).is_some() {
                records.end();
            }
        }
    }

    /// Gives the messages and sink records their numbers, counted from that of the first event that was appended; none,
    /// where nothing was taken.
    fn give_numbers(&mut self, first: Option<Number>) {
        for (place, slot, sink) in self.slots.drain(..) {
            let Some(first) = first else {
                slot.lose();
                continue;
            };
            let number = first.saturating_add(place as u64);
            if let (true, Some(sink)) = (slot.set(number), sink) {
                self.records.push(settled(&sink, number));
            }
        }
    }

    fn append_records(&mut self) -> Option<Result<Receipt, NotKept>> {
        if self.records.is_empty() {
            return None;
        }
        let outcome = self.keeper.append(&self.records);
        self.records.clear();
        Some(outcome)
    }

    /// Makes one record of the marks whose messages have a number.
    fn take_marks(&mut self) {
        let records = &mut self.records;
        self.marks.retain(|mark| {
            let number = match mark.slot.recorded() {
                Recorded::As(number) => number,
                not_yet_or_never => return not_yet_or_never == Recorded::NotYet,
            };
            let client = Arc::clone(&mark.client);
            records.push(match mark.kind {
                MarkKind::UnderWay(packet_id) => Event::UnderWay { client, number, packet_id },
                MarkKind::Released => Event::Released { client, number },
                MarkKind::Settled => Event::Settled { client, number },
            });
            false
        });
        records.end();
    }
}

impl Drop for Ledger {
    /// Nobody records the rest any more. What is held is sent with what is recorded by now.
    fn drop(&mut self) {
        let position = self.keeper.journal().position();
        self.let_go(Some(position));
    }
}

/// Those receivers whose session has not ended meanwhile.
fn recipients_of(receivers: Vec<Receiving>) -> Vec<Recipient> {
    receivers
        .into_iter()
        .filter(|receiving| !receiving.session.is_over())
        .map(|receiving| Recipient {
            client: Arc::clone(&receiving.session.client_id),
            qos: receiving.qos,
            retain: receiving.retain,
            identifiers: receiving.identifiers.unwrap_or_default(),
            stage: receiving.stage,
        })
        .collect()
}
