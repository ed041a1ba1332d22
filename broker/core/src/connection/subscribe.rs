//! SUBSCRIBE and UNSUBSCRIBE.

use std::borrow::Cow;
use std::num::NonZeroU32;
use std::sync::Arc;

use tracing::debug;
use weirmq_wire::{
    Packet, PacketId, PacketType, ReasonCode, RetainHandling, SubAck, Subscribe, SubscribeOptions, UnsubAck,
    Unsubscribe, Version,
};

use super::owed::Owe;
use super::{Connection, Phase, Resolved, TAKEN_OVER, Ways};
use crate::batch::Batch;
use crate::broker::Broker;
use crate::chain::{self, Verdict};
use crate::counters::{DropReason, Limit};
use crate::hook::{Action, Chains, HookPoint, Identity};
use crate::keeping::Keeping;
use crate::message::{Message, QoS};
use crate::outbound::{NextReplay, Parcel, Replay};
use crate::plan::Grant;
use crate::publish;
use crate::session::{Live, Session};
use crate::subscriptions::Options;
use crate::time::Now;
use crate::topic::{Subscribable, TopicFilter};

/// Why a SUBSCRIBE or UNSUBSCRIBE is the end of the connection.
const ANSWER_TOO_LARGE: &str = "its answer would be larger than the client's Maximum Packet Size";

/// What hooks have made of a SUBSCRIBE.
pub(super) struct Subscribed {
    packet_id: PacketId,
    identifier: Option<NonZeroU32>,
    /// For each filter what is granted, or the code of the refusal.
    filters: Vec<Result<Granted, ReasonCode>>,
}

struct Granted {
    filter: Subscribable,
    qos: QoS,
    options: SubscribeOptions,
}

/// What hooks have made of an UNSUBSCRIBE.
pub(super) struct Unsubscribed {
    packet_id: PacketId,
    filters: Vec<Result<Subscribable, ReasonCode>>,
}

impl Connection {
    pub(super) fn subscribe(&mut self, subscribe: Subscribe, now: Now) {
        if subscribe.subscription_id.is_some() && !self.broker.capabilities.subscription_identifiers {
            let reason = "SUBSCRIBE with an identifier, which is turned off";
            return self.close(Some(ReasonCode::SubscriptionIdentifiersNotSupported), reason, now);
        }
        let (packet_id, count) = (subscribe.packet_id, subscribe.filters.len());
        if self.is_in_use(packet_id) {
            let codes = vec![ReasonCode::PacketIdentifierInUse; count];
            return self.answer(Packet::SubAck(SubAck::new(packet_id, codes)), now);
        }
        // Decided before anything comes of it.
        if !self.terms.fits(&Packet::SubAck(SubAck::new(packet_id, vec![ReasonCode::Success; count]))) {
            return self.close(Some(ReasonCode::PacketTooLarge), ANSWER_TOO_LARGE, now);
        }
        let mut filters = Vec::with_capacity(subscribe.filters.len());
        for (text, options) in &subscribe.filters {
            match Subscribable::parse(text) {
                Ok(filter) => {
                    let fault = self.turned_off(&filter);
                    // MQTT 5 counts that as a protocol error (sections 3.2.2.3.11 and 3.2.2.3.13); MQTT 3.1.1
                    // has the filter refused [MQTT-3.8.3-2 of 3.1.1].
                    if let (Some(code), Version::V5) = (fault, self.terms.version) {
                        return self.close(Some(code), "SUBSCRIBE to what is turned off", now);
                    }
                    let fault = fault.or_else(|| self.filter_fault(text));
                    filters.push((fault, filter, *options));
                }
                // A malformed filter makes a malformed packet: there is nothing to grant [MQTT-4.7.1-1].
                Err(error) => {
                    let reason = format!("SUBSCRIBE to '{}': {error}", text.escape_debug());
                    return self.close(Some(ReasonCode::MalformedPacket), reason, now);
                }
            }
        }
        let chains = self.broker.chains();
        let Phase::Open(open) = &self.phase else { return };
        let identity = Arc::clone(&open.identity);
        let identifier = subscribe.subscription_id.and_then(NonZeroU32::new);
        let question = async move {
            let mut answers = Vec::with_capacity(filters.len());
            for (fault, filter, options) in filters {
                answers.push(match fault {
                    Some(code) => Err(code),
                    None => grant(&chains, &identity, filter, options).await,
                });
            }
            Resolved::Subscribed(Subscribed { packet_id, identifier, filters: answers })
        };
        self.ask(Box::pin(question), now);
    }

    /// What a filter asks for that is turned off.
    fn turned_off(&self, filter: &Subscribable) -> Option<ReasonCode> {
        let capabilities = &self.broker.capabilities;
        if filter.share.is_some() && !capabilities.shared_subscriptions {
            return Some(ReasonCode::SharedSubscriptionsNotSupported);
        }
        if filter.filter.has_wildcard() && !capabilities.wildcard_subscriptions {
            return Some(ReasonCode::WildcardSubscriptionsNotSupported);
        }
        None
    }

    /// The limit that a filter runs into.
    fn filter_fault(&self, text: &str) -> Option<ReasonCode> {
        let fault = self.broker.topic_fault(text)?;
        debug!(client = self.client_id(), filter = text, "the filter {fault}");
        Some(ReasonCode::TopicFilterInvalid)
    }

    pub(super) fn subscribed(&mut self, subscribed: Subscribed, now: Now) {
        let Phase::Open(open) = &self.phase else { return };
        let session = Arc::clone(&open.session);
        if session.lock().live_as(self.number).is_none() {
            return self.close(None, TAKEN_OVER, now);
        }
        let broker = Arc::clone(&self.broker);
        let Subscribed { packet_id, identifier, filters } = subscribed;
        let mut codes = Vec::with_capacity(filters.len());
        let mut entered = Vec::new();
        for answer in filters {
            let code = match answer {
                Err(code) => code,
                Ok(granted) => {
                    let options = Options {
                        qos: granted.qos.min(broker.capabilities.qos_max),
                        no_local: granted.options.no_local,
                        retain_as_published: granted.options.retain_as_published,
                        identifier,
                    };
                    match enter(&broker, &session, &granted.filter, options, &mut self.batch) {
                        Err(code) => code,
                        Ok(new) => {
                            if self.batch.is_awaited() {
                                entered.push(granted.filter.clone());
                            }
                            let wanted = match granted.options.retain_handling {
                                RetainHandling::Send => true,
                                RetainHandling::SendIfNew => new,
                                RetainHandling::DoNotSend => false,
                            };
                            if wanted && granted.filter.share.is_none() {
                                want_replay(&broker, &session, granted.filter.filter, &options);
                            }
                            granted_code(options.qos)
                        }
                    }
                }
            };
            codes.push(code);
        }
        let answer = Packet::SubAck(SubAck::new(packet_id, codes));
        if self.must_wait() {
            self.owe(Owe::SubAck(Box::new(answer), entered));
        } else {
            self.answer(answer, now);
        }
        self.replay_retained(now);
    }

    /// Sends of the retained messages that SUBSCRIBE has asked for `[MQTT-3.3.1-9]` as many as the client takes now.
    pub(super) fn replay_retained(&mut self, now: Now) {
        let Phase::Open(open) = &self.phase else { return };
        let session = Arc::clone(&open.session);
        loop {
            let next = self.with_live(&session, |_, ways, live, _| ways.outbound.next_replay(live, now.at));
            match next {
                None | Some(NextReplay::Wait) => return,
                Some(NextReplay::Find { filter, no_local }) => {
                    let mut found = self.broker.retained.read().matching(&filter, now.at);
                    if no_local {
                        found.retain(|message| message.publisher.client_id() != Some(&session.client_id));
                    }
                    self.with_live(&session, |_, ways, _, _| ways.outbound.found(&filter, found));
                }
                Some(NextReplay::Send(message, grant)) => self.replay_one(&session, message, grant, now),
            }
        }
    }

    fn replay_one(&mut self, session: &Arc<Session>, message: Arc<Message>, grant: Grant, now: Now) {
        let broker = Arc::clone(&self.broker);
        let qos = message.qos.min(grant.qos);
        let is_kept = qos > QoS::AtMostOnce && session.lock().kept;
        let hooked = !broker.chains().at(HookPoint::OnDeliver).is_empty();
        let plan = (hooked || is_kept).then(|| broker.plan(&message.topic));
        let delivered = match &plan {
            Some(plan) => publish::on_deliver(&broker, session, &message, plan, now),
            None => Ok(Arc::clone(&message)),
        };
        // What a persistence hook fails at is sent all the same: its original is retained already.
        let mut keeping =
            plan.as_ref().filter(|_| is_kept).and_then(|plan| Keeping::of(&broker, &message, plan).ok());
        let mut prepared = None;
        let outcome = delivered.and_then(|delivered| {
            let identifiers = grant.identifiers;
            let mut parcel = Parcel { qos, retain: true, identifiers, slot: None, message: delivered };
            if let Some(keeping) = &mut keeping {
                prepared = keeping.prepare(session, &message, &mut parcel, &mut self.batch);
            }
            let replay = |_: &Broker, ways: Ways<'_>, live: &mut Live, batch: &mut Batch| {
                ways.outbound.replay(live, parcel, now.at, batch)
            };
            self.with_live(session, replay).unwrap_or(Err(DropReason::NoReceiverOnline))
        });
        match (outcome, keeping, prepared, plan) {
            (Ok(stage), Some(mut keeping), Some(prepared), Some(plan)) => {
                keeping.taken(&broker, Cow::Borrowed(session), prepared, stage, &plan);
                keeping.note(&message, now, &mut self.batch);
            }
            (Ok(_), ..) => {}
            (Err(reason), ..) => broker.dropped(Some(session), &*message, reason),
        }
    }

    pub(super) fn unsubscribe(&mut self, unsubscribe: Unsubscribe, now: Now) {
        let (packet_id, count) = (unsubscribe.packet_id, unsubscribe.filters.len());
        if self.is_in_use(packet_id) {
            let codes = vec![ReasonCode::PacketIdentifierInUse; count];
            return self.answer(Packet::UnsubAck(UnsubAck::new(packet_id, codes)), now);
        }
        if !self.terms.fits(&Packet::UnsubAck(UnsubAck::new(packet_id, vec![ReasonCode::Success; count]))) {
            return self.close(Some(ReasonCode::PacketTooLarge), ANSWER_TOO_LARGE, now);
        }
        let mut filters = Vec::with_capacity(unsubscribe.filters.len());
        for text in &unsubscribe.filters {
            match Subscribable::parse(text) {
                Ok(filter) => filters.push(filter),
                Err(error) => {
                    let reason = format!("UNSUBSCRIBE from '{}': {error}", text.escape_debug());
                    return self.close(Some(ReasonCode::MalformedPacket), reason, now);
                }
            }
        }
        let chains = self.broker.chains();
        let Phase::Open(open) = &self.phase else { return };
        let identity = Arc::clone(&open.identity);
        let question = async move {
            let mut answers = Vec::with_capacity(filters.len());
            for filter in filters {
                let answer =
                    chain::rewrite_filter(&chains, HookPoint::OnUnsubscribe, &identity, filter, None).await;
                answers.push(answer.map_err(|denial| fitting(denial.code, PacketType::UnsubAck)));
            }
            Resolved::Unsubscribed(Unsubscribed { packet_id, filters: answers })
        };
        self.ask(Box::pin(question), now);
    }

    pub(super) fn unsubscribed(&mut self, unsubscribed: Unsubscribed, now: Now) {
        let Phase::Open(open) = &self.phase else { return };
        let session = Arc::clone(&open.session);
        if session.lock().live_as(self.number).is_none() {
            // What it asks for may be out of date: the client goes on elsewhere.
            return self.close(None, TAKEN_OVER, now);
        }
        let codes = unsubscribed
            .filters
            .into_iter()
            .map(|answer| match answer {
                Err(code) => code,
                Ok(filter) if self.broker.unsubscribe(&session, &filter, &mut self.batch) => {
                    ReasonCode::Success
                }
                Ok(_) => ReasonCode::NoSubscriptionExisted,
            })
            .collect();
        self.answer(Packet::UnsubAck(UnsubAck::new(unsubscribed.packet_id, codes)), now);
    }
}

/// Asks whether a filter is granted, and as what.
async fn grant(
    chains: &Chains,
    identity: &Arc<Identity>,
    filter: Subscribable,
    options: SubscribeOptions,
) -> Result<Granted, ReasonCode> {
    let refused = |code| fitting(code, PacketType::SubAck);
    let ask = |filter: &Subscribable| Action::Subscribe { filter: filter.clone(), qos: options.qos };
    let mut qos = match chain::authorize(chains, identity, ask(&filter)).await {
        Verdict::Allowed(qos) => qos,
        Verdict::Denied(denial) => return Err(refused(denial.code)),
    };
    let rewritten =
        chain::rewrite_filter(chains, HookPoint::OnSubscribe, identity, filter.clone(), Some(qos))
            .await
            .map_err(|denial| refused(denial.code))?;
    if rewritten != filter {
        // A hook cannot give what the client may not have.
        qos = match chain::authorize(chains, identity, ask(&rewritten)).await {
            Verdict::Allowed(allowed) => allowed.min(qos),
            Verdict::Denied(denial) => return Err(refused(denial.code)),
        };
    }
    Ok(Granted { filter: rewritten, qos, options })
}

/// Enters a subscription, if there is room for it. Answers whether it is new.
fn enter(
    broker: &Broker,
    session: &Arc<Session>,
    filter: &Subscribable,
    options: Options,
    batch: &mut Batch,
) -> Result<bool, ReasonCode> {
    let full = {
        let state = session.lock();
        let quota = state.identity.lease.quotas.subscriptions_max.unwrap_or(usize::MAX);
        state.subscriptions.len() >= broker.limits().subscriptions_max.min(quota)
            && !state.subscriptions.contains_key(filter)
    };
    if full {
        broker.counters().limits.count(Limit::Subscriptions);
        return Err(ReasonCode::QuotaExceeded);
    }
    broker.subscribe(session, filter, options, batch).ok_or(ReasonCode::UnspecifiedError)
}

/// Has the retained messages that a new subscription matches sent.
fn want_replay(broker: &Broker, session: &Session, filter: TopicFilter, options: &Options) {
    let replay = Replay::new(filter, Grant::of(options), options.no_local);
    session.lock().outbound.want_replay(replay, broker.limits().subscriptions_max);
}

/// `code`, where the packet can carry it as a refusal.
fn fitting(code: ReasonCode, packet: PacketType) -> ReasonCode {
    if code.is_error() && code.valid_in(packet) { code } else { ReasonCode::NotAuthorized }
}

fn granted_code(qos: QoS) -> ReasonCode {
    match qos {
        QoS::AtMostOnce => ReasonCode::Success,
        QoS::AtLeastOnce => ReasonCode::GrantedQoS1,
        QoS::ExactlyOnce => ReasonCode::GrantedQoS2,
    }
}
