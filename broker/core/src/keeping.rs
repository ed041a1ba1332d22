//! What is to be recorded of one message, collected while it is routed.

use std::borrow::Cow;
use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

use crate::batch::Batch;
use crate::broker::Broker;
use crate::durable::event::{Published, Recipient, Recipients, RetainChange, Stage, StoredMessage};
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
pub(crate) struct Keeping<'s> {
    /// What of the message is recorded, where anything is.
    sealed: Option<Sealed>,
    slot: Option<Slot>,
    recipients: Recipients,
    /// Theirs.
    sessions: SmallVec<[Cow<'s, Arc<Session>>; 1]>,
    retain: RetainChange,
    /// What on-deliver hooks have made of it for single receivers.
    changed: Vec<(Sealed, Recipient, Cow<'s, Arc<Session>>, Slot)>,
}

/// A delivery that is recorded if the session takes it.
pub(crate) struct Prepared {
    recipient: Recipient,
    /// What an on-deliver hook has made of the message, and where its number goes.
    changed: Option<(Arc<Message>, Slot)>,
}

/// A message as persistence hooks leave it, and which of them have changed its payload.
#[derive(Debug)]
struct Sealed {
    message: Arc<Message>,
    by: Vec<Arc<str>>,
}

impl<'s> Keeping<'s> {
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
            recipients: Recipients::new(),
            sessions: SmallVec::new(),
            retain: RetainChange::Keep,
            changed: Vec::new(),
        })
    }

    /// The message changes what is retained for its topic.
    pub(crate) fn retains(&mut self, change: RetainChange) {
        self.retain = change;
    }

    /// Has `parcel`, which the kept `session` is to get, recorded if it is taken: with `message`, unless an on-deliver hook
    /// has put something in its place. `None` where it is not recorded.
    pub(crate) fn prepare(
        &mut self,
        session: &Arc<Session>,
        message: &Arc<Message>,
        parcel: &mut Parcel,
        batch: &mut Batch,
    ) -> Option<Prepared> {
        self.sealed.as_ref()?;
        let ledger = batch.ledger()?;
        let changed = if Arc::ptr_eq(message, &parcel.message) {
            parcel.slot = Some(self.slot.get_or_insert_with(|| ledger.new_slot()).clone());
            None
        } else {
            let slot = ledger.new_slot();
            parcel.slot = Some(slot.clone());
            Some((Arc::clone(&parcel.message), slot))
        };
        let recipient = Recipient {
            client: Arc::clone(&session.client_id),
            qos: parcel.qos,
            retain: parcel.retain,
            identifiers: parcel.identifiers.clone().into(),
            stage: Stage::Waiting,
        };
        Some(Prepared { recipient, changed })
    }

    /// The session has taken what was prepared, and it has come as far as `stage`.
    pub(crate) fn taken(
        &mut self,
        broker: &Broker,
        session: Cow<'s, Arc<Session>>,
        prepared: Prepared,
        stage: Stage,
        plan: &Plan,
    ) {
        let Prepared { recipient, changed } = prepared;
        let recipient = Recipient { stage, ..recipient };
        let Some((message, slot)) = changed else {
            self.recipients.push(recipient);
            return self.sessions.push(session);
        };
        // What cannot be sealed is not recorded: it was let through before for what it was then.
        match seal(broker, &message, plan) {
            Ok(Some(sealed)) => self.changed.push((sealed, recipient, session, slot)),
            Ok(None) | Err(_) => slot.lose(),
        }
    }

    /// Notes what was collected.
    pub(crate) fn note(self, message: &Message, now: Now, batch: &mut Batch) {
        let Some(sealed) = self.sealed else { return };
        let is_awaited = message.qos > QoS::AtMostOnce;
        if (!self.recipients.is_empty() || self.retain != RetainChange::Keep)
            && let Some(ledger) = batch.ledger()
        {
            let published = sealed.published(self.recipients, self.retain, now);
            let sessions = self.sessions.iter().map(|session| &**session);
            ledger.published(published, sessions, self.slot, is_awaited);
        }
        for (sealed, recipient, session, slot) in self.changed {
            if let Some(ledger) = batch.ledger() {
                let published = sealed.published(smallvec![recipient], RetainChange::Keep, now);
                ledger.published(published, [&*session], Some(slot), is_awaited);
            }
        }
    }
}

impl Sealed {
    fn published(self, recipients: Recipients, retain: RetainChange, now: Now) -> Published {
        let stored = StoredMessage::of(self.message, self.by, now);
        Published { stored, recipients, retain, taken_from: None }
    }
}

/// What is recorded of `message`, as its persistence hooks say in their order; `None` for nothing.
fn seal(broker: &Broker, message: &Arc<Message>, plan: &Plan) -> Result<Option<Sealed>, Denial> {
    let mut sealed = Sealed { message: Arc::clone(message), by: Vec::new() };
    for (place, hook) in &plan.persists {
        let Some(link) = plan.link(HookPoint::Persistence, *place) else { continue };
        match hook.before_store(&sealed.message) {
            Ok(Persisted::Keep) => {}
            Ok(Persisted::Skip) => return Ok(None),
            Ok(Persisted::Replace(payload)) => {
                let mut changed = (*sealed.message).clone();
                changed.payload = payload;
                sealed.message = Arc::new(changed);
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
