//! What is to be recorded of one message, collected while it is routed.

use std::sync::Arc;

use bytes::Bytes;

use crate::batch::Batch;
use crate::broker::Broker;
use crate::durable::event::{RetainChange, Stage, StoredMessage};
use crate::durable::ledger::{Publication, Receiving};
use crate::durable::slot::Slot;
use crate::hook::{Denial, HookPoint, Persisted, Policy};
use crate::message::{Message, Publisher, QoS};
use crate::outbound::Parcel;
use crate::plan::Plan;
use crate::publish::failed;
use crate::session::Session;
use crate::time::Now;
use weirmq_wire::ReasonCode;

/// What is to be recorded of one message.
pub(crate) struct Keeping {
    /// What of the message is recorded, where anything is.
    sealed: Option<Sealed>,
    slot: Option<Arc<Slot>>,
    receivers: Vec<Receiving>,
    retain: RetainChange,
    /// What on-deliver hooks have made of it for single receivers.
    changed: Vec<(Arc<Message>, Sealed, Receiving, Arc<Slot>)>,
}

/// A payload as persistence hooks leave it, and which of them have changed it.
#[derive(Debug, Default, PartialEq)]
struct Sealed {
    /// `None` is as it is.
    payload: Option<Bytes>,
    by: Vec<Arc<str>>,
}

impl Keeping {
    /// For `message`, as its persistence hooks say.
    ///
    /// # Errors
    /// A hook that has to be asked has failed, and its policy is deny.
    pub(crate) fn of(broker: &Broker, message: &Arc<Message>, plan: &Plan) -> Result<Self, Denial> {
        let may_be_kept = broker.keeper().is_some()
            && (message.retain || message.qos > QoS::AtMostOnce)
            && message.publisher != Publisher::Broker;
        let sealed = if may_be_kept { seal(broker, message, plan)? } else { None };
        Ok(Self {
            sealed,
            slot: None,
            receivers: Vec::new(),
            retain: RetainChange::Keep,
            changed: Vec::new(),
        })
    }

    /// The message changes what is retained for its topic.
    pub(crate) fn retains(&mut self, change: RetainChange) {
        self.retain = change;
    }

    /// Where `delivered`, which a kept session is to get, is recorded: where `message` is, unless an on-deliver hook has
    /// put it in its place. `None` where it is not.
    pub(crate) fn slot_for(&mut self, message: &Arc<Message>, delivered: &Arc<Message>) -> Option<Arc<Slot>> {
        self.sealed.as_ref()?;
        if Arc::ptr_eq(message, delivered) {
            return Some(Arc::clone(self.slot.get_or_insert_default()));
        }
        Some(Arc::default())
    }

    /// A kept session has taken `parcel`, and it has come as far as `stage`.
    pub(crate) fn taken(
        &mut self,
        broker: &Broker,
        session: &Arc<Session>,
        parcel: &Parcel,
        stage: Stage,
        plan: &Plan,
    ) {
        let Some(slot) = &parcel.slot else { return };
        let receiving = Receiving {
            session: Arc::clone(session),
            qos: parcel.qos,
            retain: parcel.retain,
            identifiers: parcel.identifiers.clone(),
            stage,
        };
        if self.slot.as_ref().is_some_and(|own| Arc::ptr_eq(own, slot)) {
            return self.receivers.push(receiving);
        }
        // What cannot be sealed is not recorded: it was let through before for what it was then.
        if let Ok(Some(sealed)) = seal(broker, &parcel.message, plan) {
            self.changed.push((Arc::clone(&parcel.message), sealed, receiving, Arc::clone(slot)));
        } else {
            slot.lose();
        }
    }

    /// Notes what was collected.
    pub(crate) fn note(self, message: &Arc<Message>, now: Now, batch: &mut Batch) {
        let Some(sealed) = self.sealed else { return };
        let is_awaited = message.qos > QoS::AtMostOnce;
        if !self.receivers.is_empty() || self.retain != RetainChange::Keep {
            let publication = Publication {
                message: sealed.stored(message, now),
                receivers: self.receivers,
                retain: self.retain,
                slot: self.slot.unwrap_or_default(),
            };
            if let Some(ledger) = batch.ledger() {
                ledger.published(publication, is_awaited);
            }
        }
        for (message, sealed, receiving, slot) in self.changed {
            let message = sealed.stored(&message, now);
            let publication =
                Publication { message, receivers: vec![receiving], retain: RetainChange::Keep, slot };
            if let Some(ledger) = batch.ledger() {
                ledger.published(publication, is_awaited);
            }
        }
    }
}

impl Sealed {
    fn stored(self, message: &Message, now: Now) -> Arc<StoredMessage> {
        let mut stored = StoredMessage::of(message, now);
        if let Some(payload) = self.payload {
            stored.payload = payload;
            stored.sealed_by = self.by;
        }
        Arc::new(stored)
    }
}

/// What is recorded of `message`, as its persistence hooks say in their order; `None` for nothing.
fn seal(broker: &Broker, message: &Arc<Message>, plan: &Plan) -> Result<Option<Sealed>, Denial> {
    let mut sealed = Sealed::default();
    let mut seen = Arc::clone(message);
    for (place, hook) in &plan.persists {
        let Some(link) = plan.link(HookPoint::Persistence, *place) else { continue };
        match hook.before_store(&seen) {
            Ok(Persisted::Keep) => {}
            Ok(Persisted::Skip) => return Ok(None),
            Ok(Persisted::Replace(payload)) => {
                let mut changed = (*seen).clone();
                changed.payload = payload.clone();
                seen = Arc::new(changed);
                sealed.payload = Some(payload);
                sealed.by.push(Arc::from(link.hook.name()));
            }
            Err(failure) => {
                let client = message.publisher.client_id().map_or("", |id| id);
                match failed(broker, link, HookPoint::Persistence, client, &failure) {
                    Policy::Skip => return Ok(None),
                    Policy::Allow => {}
                    Policy::Deny => {
                        let reason = format!("{} failed, and its policy is deny", link.hook.name());
                        return Err(Denial::new(ReasonCode::ImplementationSpecificError, reason));
                    }
                }
            }
        }
    }
    Ok(Some(sealed))
}
