//! What a batch of work has to record, and what waits for it.
//!
//! While packets are handled nothing is appended: everything is noted here and recorded once, when the batch ends
//! and before its frames are written. A message has its number only then; until it has, others refer to its [`Slot`],
//! and what they have to say of it is recorded behind it by whoever records it.

use std::sync::Arc;

use smallvec::SmallVec;

use super::event::{Event, Number, PacketId, Published, RetainChange};
use super::keeper::{Keeper, Kept};
use super::keys::{Changes, Taken};
use super::slot::{Held, Hold, Holds, MarkKind, Remark, Slot, Slots};
use super::{NotKept, Position, Receipt, Records};
use crate::outbox::Outbox;
use crate::session::Session;

/// Memory for so many things stays between batches: a connection that is idle after a burst need not keep more.
const KEPT_MAX: usize = 256;

/// A message that is to be recorded.
#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) published: Published,
    /// The sessions of its recipients, in the same order: those that end before it is recorded are left out.
    pub(crate) sessions: SmallVec<[Arc<Session>; 1]>,
    /// Where its number goes, if anybody wants it.
    pub(crate) slot: Option<Slot>,
}

impl Publication {
    /// Leaves out the recipients whose session has ended meanwhile. Answers whether anything is left to record.
    fn is_left(&mut self) -> bool {
        let Self { published: Published { recipients, retain, .. }, sessions, .. } = self;
        if sessions.iter().any(|session| session.is_over()) {
            let mut sessions = sessions.iter();
            recipients.retain(|_| sessions.next().is_some_and(|session| !session.is_over()));
        }
        !recipients.is_empty() || *retain != RetainChange::Keep
    }
}

#[derive(Debug)]
enum Entry {
    /// Something about a session. Not recorded where the session has ended.
    About(Arc<Session>, Event),
    Published(Publication),
    SinkRecord {
        sink: Arc<str>,
        record: bytes::Bytes,
        slot: Slot,
    },
    /// What has changed in a namespace, found out when it is recorded.
    Changes(Arc<Changes>),
}

/// What a batch of work has to record.
#[derive(Debug)]
pub(crate) struct Ledger {
    keeper: Arc<Keeper>,
    entries: Vec<Entry>,
    /// Where records end.
    ends: Vec<usize>,
    /// What became of messages that were recorded before.
    marks: Vec<Event>,
    /// Whether something is to be recorded before which nothing may be promised.
    is_awaited: bool,
    /// Whether changes of keys are noted.
    is_changing: bool,
    /// Those that are being recorded.
    taken: Vec<(Arc<Changes>, Taken)>,
    /// What was recorded and is to be waited for.
    awaited: Option<Result<Position, NotKept>>,
    /// What others have noted and not recorded yet, and is to be waited for.
    awaited_of_others: Vec<Arc<Hold>>,
    /// For messages that must not be sent before those marks are recorded.
    holds: Holds,
    /// Those of batches that were taken over, and of what was said too early of messages that are recorded now.
    more_holds: Vec<Holds>,
    /// What is being recorded. Empty between commits; kept for its memory.
    records: Records,
    /// Which of its events somebody wants the number of.
    slots: Vec<(usize, Slot)>,
    /// Where new ones come from.
    new_slots: Slots,
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
            awaited_of_others: Vec::new(),
            holds: Holds::default(),
            more_holds: Vec::new(),
            records: Records::default(),
            slots: Vec::new(),
            new_slots: Slots::default(),
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

    /// Where the number of something goes that is to be recorded.
    pub(crate) fn new_slot(&mut self) -> Slot {
        self.new_slots.next()
    }

    /// Notes a record for a sink, and gives what the sink needs to say that it has written it.
    pub(crate) fn sink_record(&mut self, sink: &Arc<str>, record: bytes::Bytes) -> Kept {
        let slot = self.new_slot();
        let kept = Kept::new(&self.keeper, sink, slot.clone());
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
    pub(crate) fn mark(&mut self, client: &Arc<str>, slot: &Slot, kind: MarkKind) {
        self.is_awaited |= kind == MarkKind::Released;
        self.marks.extend(slot.remark(Remark::Mark(Arc::clone(client), kind)));
    }

    /// Notes that a message was given a packet identifier on its way to `client`. Gives what it waits for, because it must
    /// not be sent before that is recorded; the connection of `outbox` is woken then.
    pub(crate) fn hold_marked(
        &mut self,
        client: &Arc<str>,
        slot: &Slot,
        id: PacketId,
        outbox: &Arc<Outbox>,
    ) -> Arc<Hold> {
        let remark = Remark::Mark(Arc::clone(client), MarkKind::UnderWay(id));
        let (mark, hold) = slot.remark_and_hold(remark, outbox, &mut self.holds);
        self.marks.extend(mark);
        hold
    }

    /// What a message waits for whose record is to say that it is under way.
    pub(crate) fn hold(&mut self, slot: &Slot, outbox: &Arc<Outbox>) -> Arc<Hold> {
        slot.hold(outbox, &mut self.holds)
    }

    /// Whether nothing is noted here, nor waited for.
    pub(crate) fn is_blank(&self) -> bool {
        let waits = self.is_awaited() || self.is_changing || !self.more_holds.is_empty();
        !waits && self.holds.is_empty() && self.entries.is_empty() && self.marks.is_empty()
    }

    /// What is noted from here on is another record: it may come true without what was noted before.
    pub(crate) fn end_record(&mut self) {
        if self.ends.last().copied().unwrap_or(0) < self.entries.len() {
            self.ends.push(self.entries.len());
        }
    }

    /// Whether nothing may be promised before what is noted, or was recorded, is kept.
    pub(crate) fn is_awaited(&self) -> bool {
        self.is_awaited || self.awaited.is_some() || !self.awaited_of_others.is_empty()
    }

    /// Leaves in a session's `promised` what its next connection has to wait for: what is noted of it now.
    pub(crate) fn promise(&mut self, promised: &mut Option<Arc<Hold>>) {
        let hold = self.holds.shared();
        if !promised.as_ref().is_some_and(|before| Arc::ptr_eq(before, hold)) {
            *promised = Some(Arc::clone(hold));
        }
    }

    /// Has everybody wait for what was promised to a session, on whichever connection.
    pub(crate) fn wait_for_promised(&mut self, promised: Option<&Arc<Hold>>) {
        let Some(hold) = promised else { return };
        match hold.state() {
            Held::At(position) => self.wait_for(Ok(position)),
            Held::Unrecorded if Arc::ptr_eq(hold, self.holds.shared()) => {}
            Held::Unrecorded => self.awaited_of_others.push(Arc::clone(hold)),
            // It was refused: whoever asked was told so, and asks again.
            Held::Lost => {}
        }
    }

    /// What others have not recorded yet and is to be waited for, of all that was asked for since this was asked last.
    pub(crate) fn take_awaited_of_others(&mut self) -> Vec<Arc<Hold>> {
        std::mem::take(&mut self.awaited_of_others)
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
        self.awaited_of_others.append(&mut other.awaited_of_others);
        self.more_holds.push(std::mem::take(&mut other.holds));
        self.more_holds.append(&mut other.more_holds);
    }

    /// Records what is noted.
    pub(crate) fn commit(&mut self) {
        if self.entries.is_empty() && self.marks.is_empty() {
            // What was to be said of messages that were never recorded.
            return self.holds.let_go(Some(self.keeper.journal().position()));
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
        self.give_numbers(first.as_ref().and_then(|first| first.as_ref().ok()).map(|receipt| receipt.number));
        let late = self.append_records();
        drop(endings);
        // What was said too early is as good as not said where it is not taken: what waits for it is not sent.
        let position =
            late.as_ref().or(first.as_ref()).and_then(|last| last.as_ref().ok()).map(|last| last.position);
        self.holds.let_go(position);
        self.more_holds.drain(..).for_each(|mut holds| holds.let_go(position));
        let mut outcome = match (late, first) {
            (Some(Ok(last)), Some(Ok(_))) => Some(Ok(last.position)),
            (_, first) => first.map(|first| first.map(|receipt| receipt.position)),
        };
        if is_changing && outcome.is_none() {
            // Others have recorded the changes meanwhile; what they wait for is waited for here too.
            outcome = Some(Ok(keeper.journal().position()));
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

    /// Makes records of the entries.
    fn take_entries(&mut self) {
        let (records, slots) = (&mut self.records, &mut self.slots);
        let mut ends = self.ends.drain(..).peekable();
        for (place, entry) in self.entries.drain(..).enumerate() {
            match entry {
                Entry::About(session, event) if !session.is_over() => records.push(event),
                Entry::About(..) => {}
                Entry::Published(mut publication) => {
                    if publication.is_left() {
                        slots.extend(publication.slot.map(|slot| (records.len(), slot)));
                        records.push(Event::Published(publication.published));
                    } else {
                        publication.slot.iter().for_each(Slot::lose);
                    }
                }
                Entry::SinkRecord { sink, record, slot } => {
                    slots.push((records.len(), slot));
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

    /// Makes one record of the marks.
    fn take_marks(&mut self) {
        self.marks.drain(..).for_each(|mark| self.records.push(mark));
        self.records.end();
    }

    /// Gives the messages and sink records their numbers, counted from that of the first event that was appended; none,
    /// where nothing was taken. Makes one record of what was said of them too early.
    fn give_numbers(&mut self, first: Option<Number>) {
        for (place, slot) in self.slots.drain(..) {
            let Some(first) = first else {
                slot.lose();
                continue;
            };
            let number = first.saturating_add(place as u64);
            if let Some(late) = slot.set(number) {
                late.remarks.into_iter().for_each(|remark| self.records.push(remark.event(number)));
                self.more_holds.push(late.holds);
            }
        }
        self.records.end();
    }

    fn append_records(&mut self) -> Option<Result<Receipt, NotKept>> {
        if self.records.is_empty() {
            return None;
        }
        let outcome = self.keeper.append(&self.records);
        self.records.clear();
        Some(outcome)
    }
}
