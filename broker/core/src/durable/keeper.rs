//! The journal as the broker uses it: one that may not take something, and must not take what comes too late.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};
use tracing::{error, warn};

use super::event::Event;
use super::slot::{Remark, Slot};
use super::{Journal, NotKept, Position, Receipt, Records};
use crate::counters::{Counters, LogGate};

/// The broker's journal.
pub(crate) struct Keeper {
    journal: Arc<dyn Journal>,
    /// Read while a batch is recorded, written while the end of a session is: nothing of a session is recorded behind
    /// its end, where it would be taken for something of the next session with this client identifier.
    pub(super) endings: RwLock<()>,
    /// Held from taking changes of keys until they are appended: the log has them in the order in which they came true.
    pub(super) changing: Mutex<()>,
    counters: Arc<Counters>,
    log: Arc<LogGate>,
    /// The log says once that nothing is kept any more.
    told: AtomicBool,
}

impl Keeper {
    pub(crate) fn new(journal: Arc<dyn Journal>, counters: Arc<Counters>, log: Arc<LogGate>) -> Self {
        let (endings, changing) = (RwLock::default(), Mutex::default());
        Self { journal, endings, changing, counters, log, told: AtomicBool::new(false) }
    }

    /// The journal itself.
    pub(crate) fn journal(&self) -> &Arc<dyn Journal> {
        &self.journal
    }

    /// Records something whose position may be waited for.
    pub(crate) fn record(&self, events: Vec<Event>) -> Result<Position, NotKept> {
        self.append(&Records::one(events)).map(|receipt| receipt.position)
    }

    /// Records the end of a session, while `end` makes it come true.
    pub(crate) fn end_session<R>(
        &self,
        client: &Arc<str>,
        end: impl FnOnce() -> R,
    ) -> (R, Result<Position, NotKept>) {
        let _alone = self.endings.write();
        let outcome = end();
        (outcome, self.record(vec![Event::SessionEnded { client: Arc::clone(client) }]))
    }

    pub(super) fn append(&self, records: &Records) -> Result<Receipt, NotKept> {
        let outcome = self.journal.append(records);
        if let Err(not_kept) = &outcome {
            self.counters.not_kept.add(records.iter().count() as u64);
            self.complain(not_kept);
        }
        outcome
    }

    /// Says that something is not kept: once, where nothing will be any more.
    pub(crate) fn complain(&self, not_kept: &NotKept) {
        if !not_kept.is_final {
            if let Some(held_back) = self.log.pass() {
                warn!(held_back, "not kept, and not acknowledged: {not_kept}");
            }
        } else if !self.told.swap(true, Ordering::Relaxed) {
            error!(
                "nothing more is kept, and what would have to be is not acknowledged any more; QoS 0 goes on: {not_kept}"
            );
        }
    }
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Keeper").field("told", &self.told).finish_non_exhaustive()
    }
}

/// What a sink does for a record that is kept until it is written.
pub struct Kept {
    keeper: Arc<Keeper>,
    sink: Arc<str>,
    slot: Slot,
}

impl Kept {
    /// For the record of `sink` that has, or will have, its number in `slot`.
    pub(crate) fn new(keeper: &Arc<Keeper>, sink: &Arc<str>, slot: Slot) -> Self {
        Self { keeper: Arc::clone(keeper), sink: Arc::clone(sink), slot }
    }

    /// The sink is done with these records: they need not be kept any longer. To be called once for what was written
    /// together.
    pub fn settle(all: impl IntoIterator<Item = Self>) {
        let mut keeper = None;
        let mut events = Vec::new();
        for kept in all {
            events.extend(kept.slot.remark(Remark::SinkSettled(kept.sink)));
            keeper.get_or_insert(kept.keeper);
        }
        if let Some(keeper) = keeper.filter(|_| !events.is_empty()) {
            // Where that is not kept, the record is written twice after a restart: at least once is the promise.
            let mut records = Records::one(events);
            records.set_unawaited();
            let _ = keeper.append(&records);
        }
    }
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Kept").field("sink", &self.sink).field("slot", &self.slot).finish_non_exhaustive()
    }
}
