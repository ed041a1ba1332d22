//! The number of something that is to be recorded, for those who refer to it before it has one, and what waits for a
//! record.

use std::sync::Arc;
use std::task::Waker;

use parking_lot::Mutex;

use super::Position;
use super::event::{Event, Number, PacketId};
use crate::outbox::Outbox;

/// The number of a message or a sink record, once it is recorded. Until then, what others have to say of it is kept
/// here, for whoever records it to record behind it.
#[derive(Debug, Clone)]
pub(crate) struct Slot(Place);

#[derive(Debug, Clone)]
enum Place {
    /// Of something that was recorded before anybody had a slot for it.
    Recorded(Number),
    /// One of several that share an allocation.
    Shared(Arc<Block>, u8),
}

/// So many slots share an allocation: who keeps one keeps all of them.
const BLOCK_SLOTS: u8 = 8;

type Block = [Mutex<State>; BLOCK_SLOTS as usize];

/// Makes slots.
#[derive(Debug, Default)]
pub(super) struct Slots(Option<(Arc<Block>, u8)>);

impl Slots {
    pub(super) fn next(&mut self) -> Slot {
        let (block, used) = self.0.get_or_insert_default();
        let slot = Slot(Place::Shared(Arc::clone(block), *used));
        *used += 1;
        if *used == BLOCK_SLOTS {
            self.0 = None;
        }
        slot
    }
}

#[derive(Debug)]
enum State {
    Unrecorded(Option<Box<Late>>),
    Recorded(Number),
    /// It was not taken, and never will be.
    Lost,
}

impl Default for State {
    fn default() -> Self {
        Self::Unrecorded(None)
    }
}

/// What came before the record that it refers to.
#[derive(Debug, Default)]
pub(super) struct Late {
    pub(super) remarks: Vec<Remark>,
    pub(super) holds: Holds,
}

/// Something about a message or a sink record.
#[derive(Debug)]
pub(super) enum Remark {
    /// What became of a message on its way to a client.
    Mark(Arc<str>, MarkKind),
    /// A sink is done with its record.
    SinkSettled(Arc<str>),
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

impl Remark {
    pub(super) fn event(self, number: Number) -> Event {
        match self {
            Self::Mark(client, MarkKind::UnderWay(packet_id)) => {
                Event::UnderWay { client, number, packet_id }
            }
            Self::Mark(client, MarkKind::Released) => Event::Released { client, number },
            Self::Mark(client, MarkKind::Settled) => Event::Settled { client, number, more: 0 },
            Self::SinkSettled(sink) => Event::SinkSettled { sink, number },
        }
    }
}

impl Slot {
    /// Of something that is recorded.
    pub(crate) fn of(number: Number) -> Self {
        Self(Place::Recorded(number))
    }

    fn with<R>(&self, look: impl FnOnce(&mut State) -> R) -> R {
        match &self.0 {
            Place::Recorded(number) => look(&mut State::Recorded(*number)),
            Place::Shared(block, place) => match block.get(usize::from(*place)) {
                Some(state) => look(&mut state.lock()),
                None => look(&mut State::Lost),
            },
        }
    }

    /// The number, once it is recorded.
    pub(super) fn number(&self) -> Option<Number> {
        self.with(|state| match state {
            State::Recorded(number) => Some(*number),
            State::Unrecorded(_) | State::Lost => None,
        })
    }

    /// It will not be recorded, and neither will anything about it.
    pub(crate) fn lose(&self) {
        let before = self.with(|state| std::mem::replace(state, State::Lost));
        if let State::Unrecorded(Some(mut late)) = before {
            late.holds.let_go(None);
        }
    }

    /// It is recorded. What was said of it before is to be recorded now.
    pub(super) fn set(&self, number: Number) -> Option<Late> {
        match self.with(|state| std::mem::replace(state, State::Recorded(number))) {
            State::Unrecorded(late) => late.map(|late| *late),
            State::Recorded(_) | State::Lost => None,
        }
    }

    /// What there is to record of `remark` now. Whoever records the slot records it where it is too early.
    pub(super) fn remark(&self, remark: Remark) -> Option<Event> {
        self.with(|state| match state {
            State::Recorded(number) => Some(remark.event(*number)),
            State::Unrecorded(late) => {
                late.get_or_insert_default().remarks.push(remark);
                None
            }
            State::Lost => None,
        })
    }

    /// As [`Slot::remark`], for something that has to be recorded before a message is sent. What the message waits for
    /// is `holds` where it is to be recorded now.
    pub(super) fn remark_and_hold(
        &self,
        remark: Remark,
        outbox: &Arc<Outbox>,
        holds: &mut Holds,
    ) -> (Option<Event>, Arc<Hold>) {
        self.with(|state| match state {
            State::Recorded(number) => (Some(remark.event(*number)), holds.hold(outbox)),
            State::Unrecorded(late) => {
                let late = late.get_or_insert_default();
                late.remarks.push(remark);
                (None, late.holds.hold(outbox))
            }
            State::Lost => (None, Arc::new(Hold::lost())),
        })
    }

    /// What a message waits for that must not be sent before it is recorded; the connection of `outbox` is woken then.
    pub(super) fn hold(&self, outbox: &Arc<Outbox>, holds: &mut Holds) -> Arc<Hold> {
        self.with(|state| match state {
            State::Recorded(_) => holds.hold(outbox),
            State::Unrecorded(late) => late.get_or_insert_default().holds.hold(outbox),
            State::Lost => Arc::new(Hold::lost()),
        })
    }
}

/// What a message that must not be sent before something is recorded waits for: the position of that, once it has one.
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
    fn lost() -> Self {
        Self(Mutex::new(HoldState { recorded: Some(Held::Lost), wakers: Vec::new() }))
    }

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

/// What messages wait for that are let go together, and the connections that send them.
#[derive(Debug, Default)]
pub(super) struct Holds {
    hold: Option<Arc<Hold>>,
    held_for: Vec<Arc<Outbox>>,
}

impl Holds {
    pub(super) fn is_empty(&self) -> bool {
        self.hold.is_none() && self.held_for.is_empty()
    }

    fn hold(&mut self, outbox: &Arc<Outbox>) -> Arc<Hold> {
        if !self.held_for.last().is_some_and(|last| Arc::ptr_eq(last, outbox)) {
            self.held_for.push(Arc::clone(outbox));
        }
        Arc::clone(self.shared())
    }

    /// What is let go with the rest, for who sees to being woken.
    pub(super) fn shared(&mut self) -> &Arc<Hold> {
        self.hold.get_or_insert_default()
    }

    /// What they wait for is recorded at `position`, or was not taken.
    pub(super) fn let_go(&mut self, position: Option<Position>) {
        if let Some(hold) = self.hold.take() {
            hold.set(position);
        }
        for outbox in self.held_for.drain(..) {
            outbox.wake();
        }
    }
}
