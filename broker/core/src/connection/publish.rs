//! PUBLISH from the client, and the acknowledgements of both directions.

use std::sync::Arc;

use bytes::Bytes;
use weirmq_wire::{Ack, PacketId, PacketType, Properties, Publish, PublishExtras, ReasonCode, Version};

use super::owed::Owe;
use super::shortcut::ACKS_MAX;
use super::topics::{Kind, Unknown};
use super::{Connection, Open, Phase, Resolved, TAKEN_OVER, Ways};
use crate::batch::Batch;
use crate::broker::Broker;
use crate::chain::{self, Verdict};
use crate::counters::DropReason;
use crate::durable::event::{Event, Sender};
use crate::hook::{Action, Actions, Denial, Identity};
use crate::message::{Message, Publisher, QoS};
use crate::outbound::{AfterPubRec, Outbound};
use crate::outbox::COPIED_BYTES_MAX;
use crate::plan::Plan;
use crate::publish::{self, Origin, Outcome, Taken, Taking};
use crate::session::{self, Live};
use crate::time::Now;
use crate::topic::TopicName;

/// The topic of a PUBLISH: as it is written in the packet, or as an alias stands for it.
enum Topic<'a> {
    Written(&'a str),
    Known(TopicName),
}

impl Topic<'_> {
    fn as_str(&self) -> &str {
        match self {
            Self::Written(topic) => topic,
            Self::Known(name) => name,
        }
    }
}

/// The answer to a topic name that is none.
const MALFORMED_TOPIC: (ReasonCode, &str) =
    (ReasonCode::MalformedPacket, "PUBLISH with a malformed topic name");

/// What a PUBLISH says of itself besides its topic.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) packet_id: Option<PacketId>,
}

/// Which of up to [`ACKS_MAX`] acknowledgements are about something that is there, by their places.
#[derive(Debug, Clone, Copy)]
struct There(u64);

const _: () = assert!(ACKS_MAX <= u64::BITS as usize);

impl There {
    fn of(ids: impl Iterator<Item = PacketId>, mut is_there: impl FnMut(PacketId) -> bool) -> Self {
        Self(ids.zip(0..).fold(0, |all, (id, place)| all | u64::from(is_there(id)) << place))
    }

    fn any(self) -> bool {
        self.0 != 0
    }

    /// How each is answered.
    fn codes(
        self,
        ids: impl Iterator<Item = PacketId> + Clone,
    ) -> impl Iterator<Item = (PacketId, ReasonCode)> + Clone {
        ids.zip(0..).map(move |(id, place)| match self.0 >> place & 1 {
            0 => (id, ReasonCode::PacketIdentifierNotFound),
            _ => (id, ReasonCode::Success),
        })
    }
}

/// What hooks have made of a PUBLISH.
pub(super) struct Published {
    qos: QoS,
    packet_id: Option<PacketId>,
    outcome: Outcome,
    batch: Option<Batch>,
    /// Its packet identifier, at QoS 2.
    taking: Option<Taking>,
    /// What the authorize chain has said, to be remembered.
    learnt: Option<(TopicName, Kind, Result<(), ReasonCode>)>,
}

impl Connection {
    pub(super) fn publish(&mut self, publish: Publish, now: Now) {
        let Publish { qos, retain, packet_id, .. } = publish;
        let head = Head { qos, retain, packet_id };
        if !self.admits(head, publish.payload.len(), now) {
            return;
        }
        let Phase::Open(open) = &mut self.phase else { return };
        let topic = match open.resolve_topic(&publish, self.broker.limits().topic_alias_max) {
            Ok(topic) => topic,
            Err((code, reason)) => return self.close(Some(code), reason, now),
        };
        if self.is_answered(head) {
            return;
        }
        let Phase::Open(open) = &mut self.phase else { return };
        match open.topics.get_or_insert_default().know(&self.broker, topic.as_str()) {
            Ok(_) => {}
            Err(Unknown::Malformed) => return self.close(Some(MALFORMED_TOPIC.0), MALFORMED_TOPIC.1, now),
            Err(Unknown::Refused(reason)) => {
                let outcome = Err(Denial::new(ReasonCode::TopicNameInvalid, reason));
                self.broker.dropped_early(topic.as_str(), DropReason::Invalid);
                let (batch, taking, learnt) = (None, None, None);
                return self.published(Published { qos, packet_id, outcome, batch, taking, learnt }, now);
            }
        }
        // What may be kept for long must not keep the read buffer that it came in, and what is small not either.
        let keeps = retain || qos > QoS::AtMostOnce;
        let is_own = publish.payload.is_unique() || (!keeps && publish.payload.len() > COPIED_BYTES_MAX);
        let payload = if is_own { publish.payload } else { Bytes::copy_from_slice(&publish.payload) };
        self.publish_on(head, payload, publish.extras, now);
    }

    /// Publishes to the topic that was looked up last, without properties.
    pub(super) fn publish_known(&mut self, head: Head, payload: Bytes, now: Now) {
        if self.admits(head, payload.len(), now) && !self.is_answered(head) {
            self.publish_on(head, payload, None, now);
        }
    }

    /// Counts a PUBLISH, and closes the connection of one that is not to be.
    fn admits(&mut self, head: Head, payload_bytes: usize, now: Now) -> bool {
        self.batch.received(1, payload_bytes);
        let Phase::Open(open) = &mut self.phase else { return false };
        if let Some(pace) = &mut open.pace {
            pace.note(now.at);
        }
        let (code, reason) = if head.qos > self.broker.capabilities.qos_max {
            (ReasonCode::QoSNotSupported, "PUBLISH with a QoS that is turned off")
        } else if head.retain && !self.broker.capabilities.retain {
            (ReasonCode::RetainNotSupported, "PUBLISH with RETAIN, which is turned off")
        } else {
            return true;
        };
        self.close(Some(code), reason, now);
        false
    }

    /// Whether a PUBLISH is answered already, because of its packet identifier.
    fn is_answered(&mut self, head: Head) -> bool {
        let Phase::Open(open) = &mut self.phase else { return true };
        match (head.qos, head.packet_id) {
            (QoS::ExactlyOnce, Some(id)) => {
                let number = self.number;
                let mut state = open.session.lock();
                let before =
                    state.unreleased.get_mut(&id).map(|connection| std::mem::replace(connection, number));
                let Some(before) = before else { return false };
                // It was taken before: it is only acknowledged again [MQTT-4.3.3-10].
                open.taken += usize::from(before != number);
                if let Some(ledger) = self.batch.ledger() {
                    ledger.wait_for_promised(state.promised.as_ref());
                }
                drop(state);
                self.acknowledge(PacketType::PubRec, id, ReasonCode::Success);
                true
            }
            (QoS::AtLeastOnce, Some(id)) if self.is_in_use(id) => {
                self.acknowledge(PacketType::PubAck, id, ReasonCode::PacketIdentifierInUse);
                true
            }
            _ => false,
        }
    }

    /// Publishes to the topic that was looked up last.
    fn publish_on(&mut self, head: Head, payload: Bytes, extras: Option<Box<PublishExtras>>, now: Now) {
        let Phase::Open(open) = &mut self.phase else { return };
        let Head { qos, retain, packet_id } = head;
        let known = open.topics.as_mut().and_then(|topics| topics.last(&self.broker));
        let Some(known) = known else { return };
        let kind = Kind::of(qos, retain);
        let plan = Arc::clone(&known.plan);
        let verdict = known.verdict(kind, |plan| {
            let action = Action::Publish { topic: plan.topic.clone(), qos, retain };
            chain::by_lease(&open.identity, &action).map(|verdict| match verdict {
                Verdict::Allowed(_) => Ok(()),
                Verdict::Denied(denial) => {
                    chain::log_denied(&self.broker.log, "the lease", &open.identity, &action, &denial);
                    Err(denial.code)
                }
            })
        });
        if let Some(Err(code)) = verdict {
            self.broker.dropped(None, &plan.topic, DropReason::Denied);
            let outcome = Err(Denial::new(code, "denied before"));
            let (batch, taking, learnt) = (None, None, None);
            return self.published(Published { qos, packet_id, outcome, batch, taking, learnt }, now);
        }
        let number = self.number;
        let mut taking =
            packet_id.filter(|_| qos == QoS::ExactlyOnce).map(|id| Taking::new(&open.session, id, number));
        let message = Arc::new(open.message(&self.broker, &plan, head, payload, extras, now));
        if verdict.is_some() && plan.transforms.is_empty() {
            return self.publish_at_once(message, &plan, packet_id, taking, now);
        }
        let broker = Arc::clone(&self.broker);
        let identity = Arc::clone(&open.identity);
        let batch = self.batch.another();
        let authorized = verdict.is_some();
        self.asked = Some(qos);
        let question = async move {
            let mut learnt = None;
            if !authorized {
                let action = Action::Publish { topic: plan.topic.clone(), qos, retain };
                match chain::authorize(&broker.chains(), &identity, action).await {
                    Verdict::Allowed(_) => learnt = Some((plan.topic.clone(), kind, Ok(()))),
                    Verdict::Denied(denial) => {
                        broker.dropped(None, &*message, DropReason::Denied);
                        learnt = Some((plan.topic.clone(), kind, Err(denial.code)));
                        let (outcome, batch) = (Err(denial), Some(batch));
                        return Resolved::Published(Published {
                            qos,
                            packet_id,
                            outcome,
                            batch,
                            taking,
                            learnt,
                        });
                    }
                }
            }
            let origin = Origin::Client { identity, authorized: true };
            let (outcome, batch) =
                publish::publish(broker, origin, message, plan, &mut taking, now, batch).await;
            Resolved::Published(Published { qos, packet_id, outcome, batch: Some(batch), taking, learnt })
        };
        self.ask(Box::pin(question), now);
    }

    /// Publishes a message that nobody is asked about; what rules publish because of it may take longer.
    fn publish_at_once(
        &mut self,
        message: Arc<Message>,
        plan: &Plan,
        packet_id: Option<PacketId>,
        mut taking: Option<Taking>,
        now: Now,
    ) {
        let qos = message.qos;
        if plan.is_plain() {
            let may_go = taking.as_mut().is_none_or(|taking| taking.take(&mut self.batch));
            let outcome = if may_go {
                let routed = publish::route(&self.broker, &message, plan, now, &mut self.batch);
                routed.map(|(matched, _)| matched)
            } else {
                Ok(0)
            };
            let (batch, learnt) = (None, None);
            return self.published(Published { qos, packet_id, outcome, batch, taking, learnt }, now);
        }
        // What the message and its rules leave to be kept is kept together.
        let mut batch = self.batch.another();
        if taking.as_mut().is_some_and(|taking| !taking.take(&mut batch)) {
            let (outcome, batch, learnt) = (Ok(0), None, None);
            return self.published(Published { qos, packet_id, outcome, batch, taking, learnt }, now);
        }
        let (outcome, actions) = match publish::route(&self.broker, &message, plan, now, &mut batch) {
            Ok((matched, actions)) => (Ok(matched), actions),
            Err(denial) => (Err(denial), None),
        };
        let Actions { publish: drafts, records } = actions.unwrap_or_default();
        publish::submit(&self.broker, records, &mut batch);
        if drafts.is_empty() {
            let (batch, learnt) = (Some(batch), None);
            return self.published(Published { qos, packet_id, outcome, batch, taking, learnt }, now);
        }
        let broker = Arc::clone(&self.broker);
        // A QoS 0 message is not lost if the connection ends now: it has gone its way.
        self.asked = Some(qos).filter(|qos| *qos > QoS::AtMostOnce);
        let question = async move {
            let batch = Some(publish::publish_more(broker, message, drafts, now, batch).await);
            Resolved::Published(Published { qos, packet_id, outcome, batch, taking, learnt: None })
        };
        self.ask(Box::pin(question), now);
    }

    /// Acknowledges a PUBLISH as its outcome says.
    pub(super) fn published(&mut self, published: Published, now: Now) {
        let Published { qos, packet_id, outcome, batch, taking, learnt } = published;
        self.asked = None;
        if let Some(batch) = batch {
            self.batch.append(batch);
        }
        let Phase::Open(open) = &mut self.phase else { return };
        if let (Some((topic, kind, verdict)), Some(topics)) = (learnt, &mut open.topics) {
            topics.remember(&topic, kind, verdict);
        }
        let version = self.terms.version;
        let Some(id) = packet_id else { return };
        let kind = if qos == QoS::ExactlyOnce { PacketType::PubRec } else { PacketType::PubAck };
        let code = match outcome {
            Ok(0) => ReasonCode::NoMatchingSubscribers,
            Ok(_) => ReasonCode::Success,
            Err(denial) if denial.code.valid_in(kind) => denial.code,
            Err(_) => ReasonCode::NotAuthorized,
        };
        // MQTT 3.1.1 cannot refuse: what is not taken is acknowledged like the rest [MQTT-3.3.5-2 of 3.1.1].
        let taken = version == Version::V311 || !code.is_error();
        match taking {
            Some(mut taking) if taken => {
                // Also where nobody was to have it: the client releases the identifier.
                taking.take(&mut self.batch);
                let mut state = open.session.lock();
                if state.live_as(self.number).is_none() {
                    // Another connection goes on with the identifier.
                    drop(state);
                    return self.close(None, TAKEN_OVER, now);
                }
                if taking.state == Taken::Elsewhere {
                    state.unreleased.insert(id, self.number);
                    if let Some(ledger) = self.batch.ledger() {
                        ledger.wait_for_promised(state.promised.as_ref());
                    }
                }
                open.taken += 1;
            }
            Some(taking) => taking.give_back(&mut self.batch),
            None => {}
        }
        self.acknowledge(kind, id, code);
        // The next PUBLISH is a record of its own.
        if let Some(ledger) = self.batch.noted() {
            ledger.end_record();
        }
    }

    /// Whether `id` belongs to a QoS 2 message that this connection has sent and not released: the client may
    /// not give it to anything else `[MQTT-2.2.1-3]`.
    pub(super) fn is_in_use(&self, id: PacketId) -> bool {
        let Phase::Open(open) = &self.phase else { return false };
        open.taken > 0
            && self.terms.version == Version::V5
            && open.session.lock().unreleased.get(&id) == Some(&self.number)
    }

    pub(super) fn puback(&mut self, ack: &Ack, now: Now) {
        self.complete(std::iter::once(ack.packet_id), Outbound::puback, now);
    }

    pub(super) fn pubrec(&mut self, ack: &Ack, now: Now) {
        if !ack.code.is_error() {
            return self.pubrecs(std::iter::once(ack.packet_id));
        }
        let Phase::Open(open) = &self.phase else { return };
        let session = Arc::clone(&open.session);
        self.with_live(&session, |broker, Ways { outbound, .. }, live, batch| {
            if outbound.pubrec(live, ack.packet_id, ack.code, batch) == AfterPubRec::Done {
                outbound.pump(live, now.at, batch, &mut |reason, message| {
                    broker.dropped(Some(&session), message, reason)
                });
            }
        });
        self.replay_retained(now);
    }

    /// PUBREC that refuse nothing, up to [`ACKS_MAX`].
    pub(super) fn pubrecs(&mut self, ids: impl Iterator<Item = PacketId> + Clone) {
        let Phase::Open(open) = &self.phase else { return };
        let session = Arc::clone(&open.session);
        let there = self.with_live(&session, |_, Ways { outbound, promised }, live, batch| {
            let there = There::of(ids.clone(), |id| {
                outbound.pubrec(live, id, ReasonCode::Success, batch) == AfterPubRec::Release
            });
            if there.any()
                && let Some(ledger) = batch.noted()
            {
                ledger.promise(promised);
            }
            there
        });
        if let Some(there) = there {
            self.acknowledge_all(PacketType::PubRel, there.codes(ids));
        }
    }

    pub(super) fn pubrel(&mut self, ack: &Ack) {
        self.pubrels(std::iter::once(ack.packet_id));
    }

    /// PUBREL, up to [`ACKS_MAX`]: the identifiers are free again `[MQTT-4.3.3-11]`.
    pub(super) fn pubrels(&mut self, ids: impl Iterator<Item = PacketId> + Clone) {
        let Phase::Open(open) = &mut self.phase else { return };
        let mut state = open.session.lock();
        if state.live_as(self.number).is_none() {
            // The client may have given the identifiers to other messages by now, on another connection.
            return;
        }
        let mut ledger = if state.kept { self.batch.ledger() } else { None };
        let there = There::of(ids.clone(), |id| {
            let Some(connection) = state.unreleased.remove(&id) else { return false };
            open.taken -= usize::from(connection == self.number);
            if let Some(ledger) = &mut ledger {
                let client = Arc::clone(&open.session.client_id);
                let freed = Event::Freed { from: Sender { client, packet_id: id } };
                ledger.about(&open.session, freed, true);
            }
            true
        });
        if there.any()
            && let Some(ledger) = ledger
        {
            ledger.promise(&mut state.promised);
        }
        drop(state);
        self.acknowledge_all(PacketType::PubComp, there.codes(ids));
    }

    pub(super) fn pubcomp(&mut self, ack: &Ack, now: Now) {
        self.complete(std::iter::once(ack.packet_id), Outbound::pubcomp, now);
    }

    /// Ends the way of messages to the client, and sends what has waited for their places.
    pub(super) fn complete(
        &mut self,
        ids: impl Iterator<Item = PacketId>,
        end: fn(&mut Outbound, &mut Live, PacketId, &mut Batch) -> bool,
        now: Now,
    ) {
        let Phase::Open(open) = &self.phase else { return };
        let session = Arc::clone(&open.session);
        let replays = self.with_live(&session, |broker, Ways { outbound, .. }, live, batch| {
            let mut is_any = false;
            ids.for_each(|id| is_any |= end(outbound, live, id, batch));
            if is_any {
                outbound.pump(live, now.at, batch, &mut |reason, message| {
                    broker.dropped(Some(&session), message, reason)
                });
            }
            outbound.has_replays()
        });
        if replays == Some(true) {
            self.replay_retained(now);
        }
    }

    /// Acknowledges, once what that promises is kept.
    fn acknowledge(&mut self, kind: PacketType, id: PacketId, code: ReasonCode) {
        self.acknowledge_all(kind, std::iter::once((id, code)));
    }

    fn acknowledge_all(
        &mut self,
        kind: PacketType,
        acks: impl Iterator<Item = (PacketId, ReasonCode)> + Clone,
    ) {
        if self.must_wait() {
            return acks.for_each(|(id, code)| self.owe(Owe::Ack(kind, id, code)));
        }
        let version = self.terms.version;
        if !acks.clone().all(|(_, code)| session::is_wordless(version, code)) {
            return acks.for_each(|(id, code)| self.acknowledge_now(kind, id, code));
        }
        if session::acknowledge_all(&self.outbox, version, acks.map(|(id, code)| (kind, id, code))) {
            self.batch.add(&self.outbox);
        }
    }

    pub(super) fn acknowledge_now(&mut self, kind: PacketType, id: PacketId, code: ReasonCode) {
        if session::acknowledge(&self.outbox, &self.terms, kind, id, code) {
            self.batch.add(&self.outbox);
        }
    }
}

impl Open {
    /// The topic of a PUBLISH, which may be named by an alias, or name one `[MQTT-3.3.2-8]`, `[MQTT-3.3.2-9]`.
    fn resolve_topic<'a>(
        &mut self,
        publish: &'a Publish,
        alias_max: u16,
    ) -> Result<Topic<'a>, (ReasonCode, &'static str)> {
        let alias = publish.extras.as_ref().and_then(|extras| extras.topic_alias);
        let Some(alias) = alias else { return Ok(Topic::Written(&publish.topic)) };
        if alias.get() > alias_max {
            return Err((ReasonCode::TopicAliasInvalid, "a topic alias above Topic Alias Maximum"));
        }
        let place = usize::from(alias.get()) - 1;
        let aliases = &mut self.topics.get_or_insert_default().aliases;
        if publish.topic.is_empty() {
            let known = aliases.get(place).cloned().flatten();
            return known
                .map(Topic::Known)
                .ok_or((ReasonCode::ProtocolError, "a topic alias that stands for nothing"));
        }
        if let Some(Some(known)) = aliases.get(place)
            && known.as_str() == &*publish.topic
        {
            return Ok(Topic::Known(known.clone()));
        }
        let topic = TopicName::new(&publish.topic).map_err(|_| MALFORMED_TOPIC)?;
        if aliases.len() <= place {
            aliases.resize(place + 1, None);
        }
        if let Some(known) = aliases.get_mut(place) {
            *known = Some(topic.clone());
        }
        Ok(Topic::Known(topic))
    }

    fn message(
        &self,
        broker: &Broker,
        plan: &Plan,
        head: Head,
        payload: Bytes,
        extras: Option<Box<PublishExtras>>,
        now: Now,
    ) -> Message {
        let (properties, expiry_s) = match extras {
            None => (Properties::default(), None),
            Some(extras) => (extras.message, extras.message_expiry_interval_s),
        };
        Message {
            topic: plan.topic.clone(),
            payload,
            qos: head.qos,
            retain: head.retain,
            properties,
            publisher: publisher(&self.identity),
            received_unix_ms: now.unix_ms,
            expires_at: broker.expires_at(expiry_s, now.at),
            hops: 0,
        }
    }
}

/// A QoS 0 message without properties.
pub(super) fn fleeting(identity: &Identity, plan: &Plan, payload: &[u8], now: Now) -> Message {
    Message {
        topic: plan.topic.clone(),
        payload: Bytes::copy_from_slice(payload),
        qos: QoS::AtMostOnce,
        retain: false,
        properties: Properties::default(),
        publisher: publisher(identity),
        received_unix_ms: now.unix_ms,
        expires_at: None,
        hops: 0,
    }
}

fn publisher(identity: &Identity) -> Publisher {
    Publisher::Client {
        client_id: Arc::clone(&identity.client_id),
        principal: Arc::clone(&identity.lease.principal),
    }
}
