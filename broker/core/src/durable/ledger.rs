//! What a batch of work has to record, and what waits for it.
//!
//! While packets are handled nothing is appended: everything is noted here and recorded once, when the batch ends
//! and before its frames are written. A message has its number only then; until it has, others refer to its [`Slot`],
//! and what they have to say of it is recorded behind it by whoever records it.

use std::ops::Range;
use std::sync::Arc;

use super::event::{Event, Number, PacketId, Published, RetainChange};
use super::keeper::{Keeper, Kept};
use super::keys::{Changes, Taken};
use super::slot::{Held, Hold, Holds, MarkKind, Remark, Slot, Slots};
use super::{NotKept, Position, Receipt, Records};
use crate::outbox::Outbox;
use crate::session::Session;

/// Memory for so many things stays between batches: a connection that is idle after a burst need not keep more.
const KEPT_MAX: usize = 256;

/// A session, and the places of events that are about it: where it has ended when they are to be recorded, they are left
/// out, and of a message it is no recipient.
#[derive(Debug)]
struct About {
    session: Arc<Session>,
    places: Range<usize>,
}

/// Where what has changed in a namespace is recorded: in which record, before which event.
#[derive(Debug)]
struct Changing {
    record: usize,
    place: usize,
    changes: Arc<Changes>,
}

/// What a batch of work has to record.
#[derive(Debug)]
pub(crate) struct Ledger {
    keeper: Arc<Keeper>,
    /// What is noted. Kept for its memory.
    records: Records,
    /// In the order of their first places.
    about: Vec<About>,
    /// What is found out when it is recorded.
    changing: Vec<Changing>,
    /// The places of events that somebody wants the number of.
    slots: Vec<(usize, Slot)>,
    /// What became of messages that were recorded before.
    marks: Vec<Event>,
    /// Whether something is to be recorded before which nothing may be promised.
    is_awaited: bool,
    /// Changes of keys that are being recorded.
    taken: Vec<(Arc<Changes>, Taken)>,
    /// What was recorded and is to be waited for.
    awaited: Option<Result<Position, NotKept>>,
    /// What others have noted and not recorded yet, and is to be waited for.
    awaited_of_others: Vec<Arc<Hold>>,
    /// For messages that must not be sent before those marks are recorded.
    holds: Holds,
    /// Those of batches that were taken over, and of what was said too early of messages that are recorded now.
    more_holds: Vec<Holds>,
    /// Where new ones come from.
    new_slots: Slots,
}

impl Ledger {
    pub(crate) fn new(keeper: Arc<Keeper>) -> Self {
        Self {
            keeper,
            records: Records::default(),
            about: Vec::new(),
            changing: Vec::new(),
            slots: Vec::new(),
            marks: Vec::new(),
            is_awaited: false,
            taken: Vec::new(),
            awaited: None,
            awaited_of_others: Vec::new(),
            holds: Holds::default(),
            more_holds: Vec::new(),
            new_slots: Slots::default(),
        }
    }

    /// Notes something about a session.
    pub(crate) fn about(&mut self, session: &Arc<Session>, event: Event, is_awaited: bool) {
        self.note_about(session);
        self.records.push(event);
        self.is_awaited |= is_awaited;
    }

    /// Notes a message for the sessions of its recipients; where its number goes, if anybody wants it. One that nobody
    /// waits for is a QoS 0 message that is retained.
    pub(crate) fn published<'a>(
        &mut self,
        published: Published,
        sessions: impl IntoIterator<Item = &'a Arc<Session>>,
        slot: Option<Slot>,
        is_awaited: bool,
    ) {
        sessions.into_iter().for_each(|session| self.note_about(session));
        self.slots.extend(slot.map(|slot| (self.records.len(), slot)));
        self.records.push(Event::Published(published));
        self.is_awaited |= is_awaited;
    }

    /// The event that is noted next is about `session`.
    fn note_about(&mut self, session: &Arc<Session>) {
        let place = self.records.len();
        match self.about.last_mut() {
            Some(last) if Arc::ptr_eq(&last.session, session) && last.places.end >= place => {
                last.places.end = place + 1;
            }
            _ => self.about.push(About { session: Arc::clone(session), places: place..place + 1 }),
        }
    }

    /// Where the number of something goes that is to be recorded.
    pub(crate) fn new_slot(&mut self) -> Slot {
        self.new_slots.next()
    }

    /// Notes a record for a sink, and gives what the sink needs to say that it has written it.
    pub(crate) fn sink_record(&mut self, sink: &Arc<str>, record: bytes::Bytes) -> Kept {
        let slot = self.new_slot();
        let kept = Kept::new(&self.keeper, sink, slot.clone());
        self.slots.push((self.records.len(), slot));
        self.records.push(Event::SinkAppended { sink: Arc::clone(sink), record });
        self.is_awaited = true;
        kept
    }

    /// Notes that what has changed in a namespace is to be recorded.
    pub(crate) fn changes(&mut self, changes: &Arc<Changes>) {
        let (record, place) = (self.records.ended(), self.records.len());
        self.changing.push(Changing { record, place, changes: Arc::clone(changes) });
        self.is_awaited = true;
    }

    /// Notes what became of a message on its way to `client`.
    pub(crate) fn mark(&mut self, client: &Arc<str>, slot: &Slot, kind: MarkKind) {
        self.is_awaited |= kind == MarkKind::Released;
        // What is settled in the order in which it was recorded is said once.
        if kind == MarkKind::Settled
            && let Some(Event::Settled { client: before, number, more }) = self.marks.last_mut()
            && Arc::ptr_eq(before, client)
            && let Some(longer) = more.checked_add(1)
            && slot.number() == Some(number.saturating_add(longer.into()))
        {
            *more = longer;
            return;
        }
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
        let waits = self.is_awaited() || !self.changing.is_empty() || !self.more_holds.is_empty();
        !waits && self.holds.is_empty() && self.records.is_empty() && self.marks.is_empty()
    }

    /// What is noted from here on is another record: it may come true without what was noted before.
    pub(crate) fn end_record(&mut self) {
        self.records.end();
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
        let (events, records) = (self.records.len(), self.records.ended());
        self.about.extend(other.about.into_iter().map(|About { session, places }| About {
            session,
            places: places.start + events..places.end + events,
        }));
        self.changing.extend(other.changing.into_iter().map(|Changing { record, place, changes }| {
            Changing { record: record + records, place: place + events, changes }
        }));
        self.slots.extend(other.slots.into_iter().map(|(place, slot)| (place + events, slot)));
        self.records.append(&mut other.records);
        self.marks.append(&mut other.marks);
        self.is_awaited |= other.is_awaited;
        if let Some(awaited) = other.awaited.take() {
            self.wait_for(awaited);
        }
        self.awaited_of_others.append(&mut other.awaited_of_others);
        self.more_holds.push(std::mem::take(&mut other.holds));
        self.more_holds.append(&mut other.more_holds);
    }

    /// Records what is noted.
    pub(crate) fn commit(&mut self) {
        if self.records.is_empty() && self.changing.is_empty() && self.marks.is_empty() {
            if !self.holds.is_empty() {
                // What was to be said of messages that were never recorded.
                self.holds.let_go(Some(self.keeper.journal().position()));
            }
            return;
        }
        self.end_record();
        let keeper = Arc::clone(&self.keeper);
        let endings = keeper.endings.read();
        let is_changing = !self.changing.is_empty();
        let changing = is_changing.then(|| keeper.changing.lock());
        if is_changing || self.about.iter().any(|about| about.session.is_over()) {
            self.sift();
        }
        self.about.clear();
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
        self.about.shrink_to(KEPT_MAX);
        self.marks.shrink_to(KEPT_MAX);
        self.slots.shrink_to(KEPT_MAX);
        self.records.shrink_to(KEPT_MAX);
    }

    /// Leaves out what is about sessions that have ended meanwhile, and puts in what has changed of keys.
    fn sift(&mut self) {
        let over: Vec<_> = self.about.drain(..).filter(|about| about.session.is_over()).collect();
        let Records { events, ends, .. } = std::mem::take(&mut self.records);
        let (total, mut events) = (events.len(), events.into_iter().enumerate());
        let mut slots = std::mem::take(&mut self.slots).into_iter().peekable();
        let mut changing = std::mem::take(&mut self.changing).into_iter().peekable();
        let mut next = 0;
        for (record, end) in ends.into_iter().chain(std::iter::once(total)).enumerate() {
            loop {
                while let Some(due) = changing.next_if(|due| due.record == record && due.place <= next) {
                    let taken = due.changes.take();
                    due.changes.events(&taken).for_each(|event| self.records.push(event));
                    self.taken.push((due.changes, taken));
                }
                let Some((place, mut event)) = (next < end).then(|| events.next()).flatten() else { break };
                next = place + 1;
                let slot = slots.next_if(|(at, _)| *at == place).map(|(_, slot)| slot);
                if is_left(&mut event, over.iter().filter(|about| about.places.contains(&place))) {
                    self.slots.extend(slot.map(|slot| (self.records.len(), slot)));
                    self.records.push(event);
                } else {
                    slot.iter().for_each(Slot::lose);
                }
            }
            self.records.end();
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
        if !self.is_awaited && self.holds.is_empty() && self.more_holds.iter().all(Holds::is_empty) {
            self.records.set_unawaited();
        }
        let outcome = self.keeper.append(&self.records);
        self.records.clear();
        Some(outcome)
    }
}

/// Takes out of `event` what is about sessions that have ended, and answers whether anything is left to record.
fn is_left<'a>(event: &mut Event, mut ended: impl Iterator<Item = &'a About>) -> bool {
    let Event::Published(Published { recipients, retain, .. }) = event else { return ended.next().is_none() };
    for About { session, .. } in ended {
        recipients.retain(|to| !Arc::ptr_eq(&to.client, &session.client_id));
    }
    !recipients.is_empty() || *retain != RetainChange::Keep
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll};

    use bytes::Bytes;
    use parking_lot::Mutex;
    use smallvec::SmallVec;

    use super::*;
    use crate::durable::Waiter;
    use crate::durable::event::{Identifiers, Recipient, Stage, StoredMessage};
    use crate::hook::{Identity, Lease};
    use crate::message::{QoS, tests::message};
    use crate::session::SessionExpiry;
    use crate::time::{Instant, Now};

    /// Keeps the records that it is told, or refuses them.
    #[derive(Default)]
    struct Book {
        records: Mutex<Vec<Vec<Event>>>,
        refuses: Mutex<bool>,
    }

    impl super::super::Journal for Book {
        fn append(&self, records: &Records) -> Result<Receipt, NotKept> {
            if *self.refuses.lock() {
                return Err(NotKept { reason: "the test says so".into(), is_full: false, is_final: false });
            }
            let mut book = self.records.lock();
            let number = book.iter().map(|record| record.len() as Number).sum::<Number>() + 1;
            book.extend(records.iter().map(<[Event]>::to_vec));
            Ok(Receipt { number, position: book.len() as Position })
        }

        fn position(&self) -> Position {
            self.records.lock().len() as Position
        }

        fn poll_kept(&self, _: Position, _: &mut Waiter, _: &mut Context<'_>) -> Poll<Result<(), NotKept>> {
            Poll::Ready(Ok(()))
        }

        fn forget(&self, _: Position, _: Waiter) {}
    }

    fn ledger() -> (Arc<Book>, Ledger) {
        let book = Arc::new(Book::default());
        let keeper = Keeper::new(Arc::clone(&book) as _, Arc::default(), Arc::default());
        (book, Ledger::new(Arc::new(keeper)))
    }

    fn session(client_id: &str) -> Arc<Session> {
        let identity = Identity {
            client_id: client_id.into(),
            username: None,
            peer: None,
            listener: "test".into(),
            lease: Lease::default(),
        };
        Arc::new(Session::new(1, Arc::new(identity), SessionExpiry::Never))
    }

    fn end(session: &Session) {
        session.set_over(&mut session.lock());
    }

    fn unsubscribed(session: &Session, filter: &str) -> Event {
        Event::Unsubscribed { client: Arc::clone(&session.client_id), filter: filter.into() }
    }

    fn published(payload: &str, to: &[&Arc<Session>], retain: RetainChange) -> Published {
        let now = Now { at: Instant::from_micros(0), unix_ms: 0 };
        let recipient = |session: &&Arc<Session>| Recipient {
            client: Arc::clone(&session.client_id),
            qos: QoS::AtLeastOnce,
            retain: false,
            identifiers: Identifiers::default(),
            stage: Stage::Waiting,
        };
        let stored = StoredMessage::of(message("t", payload), Vec::new(), now);
        Published { stored, recipients: to.iter().map(recipient).collect(), retain, taken_from: None }
    }

    /// In words: who is to have which messages, and what else is said.
    fn words(book: &Book) -> Vec<Vec<String>> {
        let word = |event: &Event| match event {
            Event::Published(Published { stored, recipients, .. }) => {
                let to: SmallVec<[&str; 4]> = recipients.iter().map(|to| &*to.client).collect();
                format!("{} to {}", String::from_utf8_lossy(&stored.message.payload), to.join("+"))
            }
            Event::Unsubscribed { client, filter } => format!("{client} from {filter}"),
            Event::SinkAppended { .. } => "record".to_owned(),
            Event::KeySet { key, .. } => format!("key {}", String::from_utf8_lossy(key)),
            Event::Settled { client, number, more } => format!("{client} has {number} and {more}"),
            other => format!("{other:?}"),
        };
        book.records.lock().iter().map(|record| record.iter().map(word).collect()).collect()
    }

    fn changes(key: &'static str) -> Arc<Changes> {
        let changes = Arc::new(Changes::new("n".into()));
        changes.note([(Bytes::from_static(key.as_bytes()), Some(Bytes::new()))]);
        changes
    }

    #[test]
    fn what_is_about_a_session_that_has_ended_is_left_out_and_the_rest_has_its_numbers() {
        let (book, mut ledger) = ledger();
        let (a, b) = (session("a"), session("b"));
        let slots = [ledger.new_slot(), ledger.new_slot(), ledger.new_slot(), ledger.new_slot()];
        ledger.about(&a, unsubscribed(&a, "x"), true);
        let both = published("1", &[&a, &b], RetainChange::Keep);
        ledger.published(both, [&a, &b], Some(slots[0].clone()), true);
        ledger.end_record();
        ledger.published(published("2", &[&a], RetainChange::Keep), [&a], Some(slots[1].clone()), true);
        ledger.end_record();
        ledger.published(published("3", &[&a], RetainChange::Replace), [&a], Some(slots[2].clone()), true);
        ledger.about(&b, unsubscribed(&b, "y"), true);
        ledger.published(published("4", &[], RetainChange::Clear), [], Some(slots[3].clone()), true);
        end(&a);
        ledger.commit();
        assert_eq!(words(&book), [vec!["1 to b"], vec!["3 to ", "b from y", "4 to "]]);
        assert_eq!(slots.each_ref().map(Slot::number), [Some(1), None, Some(2), Some(4)]);
        assert_eq!(ledger.take_awaited(), Some(Ok(2)));
        assert!(ledger.is_blank());
    }

    #[test]
    fn what_has_changed_of_keys_is_recorded_where_it_was_noted_also_when_it_is_taken_over() {
        let (book, mut ledger) = ledger();
        let a = session("a");
        let mut other = Ledger::new(Arc::clone(&ledger.keeper));
        ledger.changes(&changes("first"));
        ledger.about(&a, unsubscribed(&a, "1"), true);
        ledger.end_record();
        other.about(&a, unsubscribed(&a, "2"), true);
        other.changes(&changes("middle"));
        let slot = other.new_slot();
        other.published(published("m", &[&a], RetainChange::Keep), [&a], Some(slot.clone()), true);
        other.end_record();
        other.changes(&changes("last"));
        ledger.append(other);
        ledger.commit();
        assert_eq!(
            words(&book),
            [vec!["key first", "a from 1"], vec!["a from 2", "key middle", "m to a"], vec!["key last"]]
        );
        assert_eq!(slot.number(), Some(5));
    }

    #[test]
    fn what_is_not_taken_has_no_number_and_changes_are_for_the_next() {
        let (book, mut ledger) = ledger();
        let (a, kept) = (session("a"), changes("kept"));
        *book.refuses.lock() = true;
        let slot = ledger.new_slot();
        ledger.changes(&kept);
        ledger.published(published("m", &[&a], RetainChange::Keep), [&a], Some(slot.clone()), true);
        ledger.commit();
        assert!(matches!(ledger.take_awaited(), Some(Err(_))));
        assert_eq!((slot.number(), kept.unrecorded()), (None, 1));
        *book.refuses.lock() = false;
        ledger.changes(&kept);
        ledger.commit();
        assert_eq!(words(&book), [vec!["key kept"]]);
    }

    #[test]
    fn what_is_settled_in_the_order_of_its_numbers_is_said_once() {
        let (book, mut ledger) = ledger();
        let (a, b) = (session("a"), session("b"));
        let slots: Vec<Slot> = (0..12).map(|_| ledger.new_slot()).collect();
        for slot in &slots {
            ledger.published(
                published("m", &[&a, &b], RetainChange::Keep),
                [&a, &b],
                Some(slot.clone()),
                true,
            );
        }
        // Too early: whoever records the message says it.
        ledger.mark(&b.client_id, &slots[0], MarkKind::Settled);
        ledger.commit();
        book.records.lock().clear();
        for (client, places) in [(&a, 0..9), (&b, 3..5), (&a, 10..12)] {
            places.for_each(|place| ledger.mark(&client.client_id, &slots[place], MarkKind::Settled));
        }
        ledger.mark(&a.client_id, &slots[9], MarkKind::Settled);
        ledger.commit();
        let said = ["a has 1 and 8", "b has 4 and 1", "a has 11 and 1", "a has 10 and 0"];
        assert_eq!(words(&book), [said]);
    }
}
