//! PUBLISH from the client, and the acknowledgements of both directions.

use std::sync::Arc;

use bytes::Bytes;
use weirmq_wire::{Ack, PacketId, PacketType, Properties, Publish, ReasonCode, Version};

use super::owed::Owe;
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
        self.batch.received(1, publish.payload.len());
        let Phase::Open(open) = &mut self.phase else { return };
        if let Some(pace) = &mut open.pace {
            pace.note(now.at);
        }
        let (qos, retain, packet_id) = (publish.qos, publish.retain, publish.packet_id);
        if qos > self.broker.capabilities.qos_max {
            return self.close(
                Some(ReasonCode::QoSNotSupported),
                "PUBLISH with a QoS that is turned off",
                now,
            );
        }
        if retain && !self.broker.capabilities.retain {
            return self.close(
                Some(ReasonCode::RetainNotSupported),
                "PUBLISH with RETAIN, which is turned off",
                now,
            );
        }
        let topic = match open.resolve_topic(&publish, self.broker.limits().topic_alias_max) {
            Ok(topic) => topic,
            Err((code, reason)) => return self.close(Some(code), reason, now),
        };
        match (qos, packet_id) {
            (QoS::ExactlyOnce, Some(id)) => {
                let number = self.number;
                let mut state = open.session.lock();
                let before =
                    state.unreleased.get_mut(&id).map(|connection| std::mem::replace(connection, number));
                if let Some(before) = before {
                    // It was taken before: it is only acknowledged again [MQTT-4.3.3-10].
                    open.taken += usize::from(before != number);
                    if let Some(ledger) = self.batch.ledger() {
                        ledger.wait_for_promised(state.promised.as_ref());
                    }
                    drop(state);
                    return self.acknowledge(PacketType::PubRec, id, ReasonCode::Success);
                }
            }
            (QoS::AtLeastOnce, Some(id)) if self.is_in_use(id) => {
                return self.acknowledge(PacketType::PubAck, id, ReasonCode::PacketIdentifierInUse);
            }
            _ => {}
        }
        let Phase::Open(open) = &mut self.phase else { return };
        let known = match open.topics.get_or_insert_default().know(&self.broker, topic.as_str()) {
            Ok(known) => known,
            Err(Unknown::Malformed) => return self.close(Some(MALFORMED_TOPIC.0), MALFORMED_TOPIC.1, now),
            Err(Unknown::Refused(reason)) => {
                let outcome = Err(Denial::new(ReasonCode::TopicNameInvalid, reason));
                self.broker.dropped_early(topic.as_str(), DropReason::Invalid);
                let (batch, taking, learnt) = (None, None, None);
                return self.published(Published { qos, packet_id, outcome, batch, taking, learnt }, now);
            }
        };
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
        let message = Arc::new(open.message(&self.broker, &plan, publish, now));
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
        self.complete(ack.packet_id, Outbound::puback, now);
    }

    pub(super) fn pubrec(&mut self, ack: &Ack, now: Now) {
        let Phase::Open(open) = &self.phase else { return };
        let session = Arc::clone(&open.session);
        let id = ack.packet_id;
        let after = self.with_live(&session, |broker, Ways { outbound, promised }, live, batch| {
            let after = outbound.pubrec(live, id, ack.code, batch);
            match (after, batch.noted()) {
                (AfterPubRec::Done, _) => {
                    outbound.pump(live, now.at, batch, &mut |reason, message| {
                        broker.dropped(Some(&session), message, reason)
                    });
                }
                (AfterPubRec::Release, Some(ledger)) => ledger.promise(promised),
                _ => {}
            }
            after
        });
        match after {
            Some(AfterPubRec::Release) => self.acknowledge(PacketType::PubRel, id, ReasonCode::Success),
            Some(AfterPubRec::Unknown) if !ack.code.is_error() => {
                self.acknowledge(PacketType::PubRel, id, ReasonCode::PacketIdentifierNotFound);
            }
            Some(AfterPubRec::Unknown | AfterPubRec::Done) | None => {}
        }
        if ack.code.is_error() {
            self.replay_retained(now);
        }
    }

    /// PUBREL: the identifier is free again `[MQTT-4.3.3-11]`.
    pub(super) fn pubrel(&mut self, ack: &Ack) {
        let Phase::Open(open) = &mut self.phase else { return };
        let mut state = open.session.lock();
        if state.live_as(self.number).is_none() {
            // The client may have given the identifier to another message by now, on another connection.
            return;
        }
        let was_there = state.unreleased.remove(&ack.packet_id);
        open.taken -= usize::from(was_there == Some(self.number));
        if state.kept
            && was_there.is_some()
            && let Some(ledger) = self.batch.ledger()
        {
            let client = Arc::clone(&open.session.client_id);
            let freed = Event::Freed { from: Sender { client, packet_id: ack.packet_id } };
            ledger.about(&open.session, freed, true);
            ledger.promise(&mut state.promised);
        }
        drop(state);
        let code =
            if was_there.is_some() { ReasonCode::Success } else { ReasonCode::PacketIdentifierNotFound };
        self.acknowledge(PacketType::PubComp, ack.packet_id, code);
    }

    pub(super) fn pubcomp(&mut self, ack: &Ack, now: Now) {
        self.complete(ack.packet_id, Outbound::pubcomp, now);
    }

    /// Ends the way of a message to the client, and sends what has waited for its place.
    fn complete(
        &mut self,
        id: PacketId,
        end: fn(&mut Outbound, &mut Live, PacketId, &mut Batch) -> bool,
        now: Now,
    ) {
        let Phase::Open(open) = &self.phase else { return };
        let session = Arc::clone(&open.session);
        let replays = self.with_live(&session, |broker, Ways { outbound, .. }, live, batch| {
            if end(outbound, live, id, batch) {
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
        if self.must_wait() {
            self.owe(Owe::Ack(kind, id, code));
        } else {
            self.acknowledge_now(kind, id, code);
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

    fn message(&self, broker: &Broker, plan: &Plan, publish: Publish, now: Now) -> Message {
        let (properties, expiry_s) = match publish.extras {
            None => (Properties::default(), None),
            Some(extras) => (extras.message, extras.message_expiry_interval_s),
        };
        // What may be kept for long must not keep the read buffer that it came in, and what is small not either.
        let keeps = publish.retain || publish.qos > QoS::AtMostOnce;
        let is_own = publish.payload.is_unique() || (!keeps && publish.payload.len() > COPIED_BYTES_MAX);
        let payload = if is_own { publish.payload } else { Bytes::copy_from_slice(&publish.payload) };
        Message {
            topic: plan.topic.clone(),
            payload,
            qos: publish.qos,
            retain: publish.retain,
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
