//! The broker: what all connections share.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use parking_lot::{Mutex, RwLock};
use tracing::debug;
use weirmq_wire::{Packet, ReasonCode, Version};

use crate::answer;
use crate::counters::{Counters, DropReason, Limit, LogGate};
use crate::hook::{Chains, Event, HookPoint, Identity};
use crate::limits::{Capabilities, Limits};
use crate::message::{Message, Publisher, QoS};
use crate::outbox::Batch;
use crate::plan::Plan;
use crate::publish::{self, Origin, Work};
use crate::record::Sinks;
use crate::retained::Retained;
use crate::session::{Live, Session, SessionExpiry, State, Will};
use crate::subscriptions::{Options, Subscriptions};
use crate::time::{Instant, Now};
use crate::topic::{Subscribable, TopicName};

/// How many topics' plans are remembered in all.
const PLANS_MAX: usize = 100_000;

/// What a broker is made with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Its limits.
    pub limits: Limits,
    /// What is turned off.
    pub capabilities: Capabilities,
    /// What a client that asks for Response Information is told `[MQTT-3.1.2-28]`; `{client_id}` in it stands for
    /// its client identifier.
    pub response_information: Option<Box<str>>,
    /// Where a client goes that a hook refuses with 0x9C (use another server) or 0x9D (server moved).
    pub server_reference: Option<Box<str>>,
}

/// What all connections share: sessions, subscriptions, retained messages, hooks.
pub struct Broker {
    pub(crate) limits: Limits,
    pub(crate) capabilities: Capabilities,
    response_information: Option<Box<str>>,
    server_reference: Option<Box<str>>,
    counters: Arc<Counters>,
    chains: ArcSwap<Chains>,
    /// Counts changes of subscriptions and chains: a plan of an earlier epoch is out of date.
    epoch: AtomicU64,
    /// Counts changes of chains: what hooks have decided in an earlier one is asked again.
    rights_epoch: AtomicU64,
    subscriptions: RwLock<Subscriptions>,
    plans: Mutex<HashMap<TopicName, Arc<Plan>, RandomState>>,
    pub(crate) retained: RwLock<Retained>,
    sessions: Mutex<HashMap<Arc<str>, Arc<Session>, RandomState>>,
    /// The sessions without a connection that something is to happen to, by when.
    deadlines: Mutex<BTreeMap<(Instant, u64), Arc<Session>>>,
    pub(crate) sinks: Arc<dyn Sinks>,
    numbers: AtomicU64,
    /// For lines that one message may each cause.
    pub(crate) log: LogGate,
}

/// What a session is opened with.
pub(crate) struct Opening {
    pub(crate) identity: Arc<Identity>,
    pub(crate) clean_start: bool,
    pub(crate) expiry: SessionExpiry,
    pub(crate) will: Option<Box<Will>>,
    pub(crate) live: Live,
}

/// Why a session is not opened.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooManySessions;

impl Broker {
    /// A broker without a session, without a hook.
    pub fn new(settings: Settings, sinks: Arc<dyn Sinks>) -> Arc<Self> {
        let Settings { limits, capabilities, response_information, server_reference } = settings;
        Arc::new(Self {
            retained: RwLock::new(Retained::new(limits.retained_messages_max, limits.retained_bytes_max)),
            limits,
            capabilities,
            response_information,
            server_reference,
            counters: Arc::default(),
            chains: ArcSwap::default(),
            epoch: AtomicU64::new(0),
            rights_epoch: AtomicU64::new(0),
            subscriptions: RwLock::default(),
            plans: Mutex::default(),
            sessions: Mutex::default(),
            deadlines: Mutex::default(),
            sinks,
            numbers: AtomicU64::new(1),
            log: LogGate::default(),
        })
    }

    /// Puts `chains` in the place of the hooks: the next message of every topic meets them.
    pub fn set_chains(&self, chains: Chains) {
        self.chains.store(Arc::new(chains));
        self.rights_epoch.fetch_add(1, Ordering::Release);
        self.epoch.fetch_add(1, Ordering::Release);
    }

    /// What is counted.
    #[must_use]
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// The limits that hold.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What was not delivered to a client since its session began, by reason; `None` where it has no session.
    #[must_use]
    pub fn client_drops(&self, client_id: &str) -> Option<Vec<(DropReason, u64)>> {
        let session = self.sessions.lock().get(client_id).cloned()?;
        Some(DropReason::ALL.map(|reason| (reason, session.drops.get(reason))).to_vec())
    }

    /// Ends the connection of a client, telling it that an operator has (0x98). Its session stays, and its will is
    /// published, by the work that is given back and must be driven to its end. Answers whether it was connected.
    pub fn kick(self: &Arc<Self>, client_id: &str, now: Now) -> (bool, Option<Work>) {
        let Some(session) = self.sessions.lock().get(client_id).cloned() else { return (false, None) };
        let mut batch = self.batch();
        let connection = {
            let state = session.lock();
            let Some(live) = &state.live else { return (false, None) };
            say_goodbye(live, ReasonCode::AdministrativeAction, &mut batch);
            live.connection
        };
        let reason = "an operator has ended the connection";
        (true, self.close_session(&session, connection, Ending::Lost, reason, now))
    }

    /// How much there is of what the broker keeps.
    #[must_use]
    pub fn footprint(&self) -> Footprint {
        let (retained_messages, retained_bytes) = {
            let retained = self.retained.read();
            (retained.messages(), retained.bytes())
        };
        Footprint {
            sessions: self.sessions.lock().len(),
            subscription_nodes: self.subscriptions.read().nodes(),
            retained_messages,
            retained_bytes,
            deadlines: self.deadlines.lock().len(),
            plans: self.plans.lock().len(),
        }
    }

    /// The next moment at which [`Broker::handle_timeout`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.lock().first_key_value().map(|((at, _), _)| *at)
    }

    /// Ends the sessions whose time is up and publishes the wills that are due. The work that it gives back
    /// must be driven to its end.
    pub fn handle_timeout(self: &Arc<Self>, now: Now) -> Vec<Work> {
        let due: Vec<Arc<Session>> = {
            let mut deadlines = self.deadlines.lock();
            let later = deadlines.split_off(&(now.at, u64::MAX));
            std::mem::replace(&mut *deadlines, later).into_values().collect()
        };
        due.into_iter().filter_map(|session| self.session_is_due(&session, now)).collect()
    }

    /// Forgets what is out of date and expired. To be called about once a minute.
    pub fn tidy(&self, now: Now) {
        self.retained.write().forget_expired(now.at);
        let epoch = self.epoch();
        let mut plans = self.plans.lock();
        plans.retain(|_, plan| plan.epoch == epoch);
        plans.shrink_to_fit();
    }

    /// Publishes a message of the broker's own, such as one of `$SYS/`: no hook is asked.
    pub fn publish_own(&self, topic: &TopicName, payload: String, now: Now) {
        let message = Arc::new(Message {
            topic: topic.clone(),
            payload: payload.into(),
            qos: QoS::AtMostOnce,
            retain: true,
            properties: weirmq_wire::Properties::default(),
            publisher: Publisher::Broker,
            received_unix_ms: now.unix_ms,
            expires_at: None,
            hops: 0,
        });
        let mut batch = self.batch();
        self.retain(&message);
        publish::deliver(self, &message, &self.plan(topic), now, &mut batch);
    }

    pub(crate) fn batch(&self) -> Batch {
        Batch::new(Arc::clone(&self.counters))
    }

    pub(crate) fn chains(&self) -> Arc<Chains> {
        self.chains.load_full()
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    pub(crate) fn rights_epoch(&self) -> u64 {
        self.rights_epoch.load(Ordering::Acquire)
    }

    /// Whether there is a session of this client identifier.
    pub(crate) fn has_session(&self, client_id: &str) -> bool {
        self.sessions.lock().contains_key(client_id)
    }

    /// The Response Information for a client.
    pub(crate) fn response_information(&self, client_id: &str) -> Option<Box<str>> {
        self.response_information.as_ref().map(|text| text.replace("{client_id}", client_id).into())
    }

    /// The Server Reference that belongs to `code`.
    pub(crate) fn server_reference(&self, code: ReasonCode) -> Option<Box<str>> {
        let elsewhere = matches!(code, ReasonCode::UseAnotherServer | ReasonCode::ServerMoved);
        self.server_reference.clone().filter(|_| elsewhere)
    }

    /// A number that was not given out before: for sessions, connections, exchanges.
    pub(crate) fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// The plan of `topic` as things stand.
    pub(crate) fn plan(&self, topic: &TopicName) -> Arc<Plan> {
        // Read before what the plan is made of: a change meanwhile makes it out of date at once.
        let epoch = self.epoch();
        if let Some(plan) = self.plans.lock().get(topic).filter(|plan| plan.epoch == epoch) {
            return Arc::clone(plan);
        }
        let chains = self.chains();
        let (subscribers, groups) = self.subscriptions.read().of(topic);
        let plan = Arc::new(Plan::new(topic.clone(), epoch, chains, subscribers, groups));
        let mut plans = self.plans.lock();
        if plans.len() >= PLANS_MAX {
            plans.clear();
        }
        plans.insert(topic.clone(), Arc::clone(&plan));
        plan
    }

    /// Counts a message that a session does not get.
    pub(crate) fn dropped(&self, session: Option<&Session>, reason: DropReason) {
        self.counters.dropped.count(reason);
        if let Some(session) = session {
            session.drops.count(reason);
            debug!(client = &*session.client_id, %reason, "message not delivered");
        }
    }

    /// Retains `message` as its RETAIN flag asks.
    pub(crate) fn retain(&self, message: &Arc<Message>) {
        if self.retained.write().store(message).is_err() {
            self.dropped(None, DropReason::RetainedFull);
        }
    }

    /// Tells observers what happened.
    pub(crate) fn tell(&self, event: &Event, now: Now) {
        for link in self.chains.load().at(HookPoint::Lifecycle) {
            link.hook.on_event(event, now);
        }
    }

    // Sessions

    /// Gives the client its session, new or as it was left, and makes the new connection the only one. `answer`
    /// makes the CONNACK, which is the first that the connection is sent.
    pub(crate) fn open_session(
        self: &Arc<Self>,
        opening: Opening,
        answer: impl Fn(bool) -> Packet,
        now: Now,
        batch: &mut Batch,
    ) -> Result<(Arc<Session>, Vec<Work>), TooManySessions> {
        let mut works = Vec::new();
        let mut opening = opening;
        loop {
            let found = self.sessions.lock().get(&opening.identity.client_id).cloned();
            if let Some(found) = &found {
                let resumed = self.may_resume(found, &opening);
                works.extend(self.take_over(found, resumed, now, batch));
                if !resumed {
                    self.end_session(found, now);
                }
            }
            let (session, present) = {
                let mut sessions = self.sessions.lock();
                match sessions.get(&opening.identity.client_id) {
                    Some(session) => (Arc::clone(session), true),
                    None if sessions.len() >= self.limits.sessions_max => return Err(TooManySessions),
                    None => {
                        let identity = Arc::clone(&opening.identity);
                        let session = Arc::new(Session::new(self.next_number(), identity, opening.expiry));
                        sessions.insert(Arc::clone(&session.client_id), Arc::clone(&session));
                        (session, false)
                    }
                }
            };
            // Where another connection of the client was faster, it is taken over in its turn.
            match self.attach(&session, opening, present, &answer, now, batch) {
                Ok(()) => return Ok((session, works)),
                Err(again) => opening = *again,
            }
        }
    }

    /// Whether the client goes on with `session` as it is. A session belongs to who opened it: another
    /// principal with the same client identifier does not get what waits for the first.
    fn may_resume(&self, session: &Session, opening: &Opening) -> bool {
        let state = session.lock();
        !state.ended
            && !opening.clean_start
            && state.identity.lease.principal == opening.identity.lease.principal
    }

    /// Makes the new connection that of `session`; gives the opening back where the session has one already, is
    /// over, or may not be gone on with.
    fn attach(
        &self,
        session: &Arc<Session>,
        opening: Opening,
        present: bool,
        answer: &impl Fn(bool) -> Packet,
        now: Now,
        batch: &mut Batch,
    ) -> Result<(), Box<Opening>> {
        if present && !self.may_resume(session, &opening) {
            return Err(Box::new(opening));
        }
        let mut state = session.lock();
        if state.live.is_some() || state.ended {
            return Err(Box::new(opening));
        }
        let Opening { identity, clean_start: _, expiry, will, live } = opening;
        self.unschedule(session, &mut state);
        state.identity = identity;
        state.expiry = expiry;
        state.will = will;
        state.will_at = None;
        state.ends_at = None;
        let packet = answer(present);
        if live.outbox.push(|out| encode(&packet, live.terms.version, out)) {
            batch.add(&live.outbox);
        }
        let State { outbound, live: place, .. } = &mut *state;
        let live = place.insert(live);
        outbound.resume();
        outbound.pump(live, now.at, batch, &mut |reason| self.dropped(Some(session), reason));
        drop(state);
        self.counters.clients_connected.change(1);
        Ok(())
    }

    /// Ends the connection that a session has, because a new one takes its place `[MQTT-3.1.4-3]`.
    fn take_over(
        self: &Arc<Self>,
        session: &Arc<Session>,
        resumed: bool,
        now: Now,
        batch: &mut Batch,
    ) -> Option<Work> {
        let connection = {
            let mut state = session.lock();
            let live = state.live.as_mut()?;
            say_goodbye(live, ReasonCode::SessionTakenOver, batch);
            live.connection
        };
        let ending = if resumed { Ending::TakenOver } else { Ending::Replaced };
        self.close_session(session, connection, ending, "another connection took the session over", now)
    }

    /// Parts a session from its connection number `connection`. Nothing happens where it has another by now.
    pub(crate) fn close_session(
        self: &Arc<Self>,
        session: &Arc<Session>,
        connection: u64,
        ending: Ending,
        reason: &str,
        now: Now,
    ) -> Option<Work> {
        let (due, ends, identity) = {
            let mut state = session.lock();
            state.live_as(connection)?;
            state.live = None;
            let identity = Arc::clone(&state.identity);
            let expiry = state.expiry;
            let ends = expiry.is_zero() || ending == Ending::Replaced;
            let due = match state.will.take() {
                Some(_) if ending == Ending::Orderly => None,
                // A delayed will of a session that goes on is not sent: the client is back [MQTT-3.1.3-9].
                Some(will) if ending == Ending::TakenOver && !ends && will.delay_s > 0 => None,
                Some(will) if ends || will.delay_s == 0 => Some(will),
                Some(will) => {
                    state.will_at = Some(now.at.after(Duration::from_secs(will.delay_s.into())));
                    state.will = Some(will);
                    None
                }
                None => None,
            };
            state.ends_at = expiry.from(now.at);
            if !ends {
                self.schedule(session, &mut state);
            }
            (due, ends, identity)
        };
        self.counters.clients_connected.change(-1);
        if ends {
            self.end_session(session, now);
        }
        self.tell(&Event::Disconnected { identity: Arc::clone(&identity), reason: reason.to_owned() }, now);
        due.map(|will| self.publish_will(*will, identity, now))
    }

    /// A session without a connection has come to a deadline.
    fn session_is_due(self: &Arc<Self>, session: &Arc<Session>, now: Now) -> Option<Work> {
        let (will, ends, identity) = {
            let mut state = session.lock();
            state.scheduled_at = None;
            if state.live.is_some() || state.ended {
                return None;
            }
            let ends = state.ends_at.is_some_and(|at| at <= now.at);
            let will_is_due = ends || state.will_at.is_some_and(|at| at <= now.at);
            let will = if will_is_due { state.will.take() } else { None };
            if will_is_due {
                state.will_at = None;
            }
            if !ends {
                self.schedule(session, &mut state);
            }
            (will, ends, Arc::clone(&state.identity))
        };
        if ends {
            self.end_session(session, now);
        }
        will.map(|will| self.publish_will(*will, identity, now))
    }

    /// Forgets a session with all that it has.
    fn end_session(&self, session: &Arc<Session>, now: Now) {
        {
            let mut sessions = self.sessions.lock();
            if sessions.get(&session.client_id).is_some_and(|present| Arc::ptr_eq(present, session)) {
                sessions.remove(&session.client_id);
                if sessions.len() * 4 < sessions.capacity() {
                    sessions.shrink_to_fit();
                }
            }
        }
        let (subscriptions, lost) = {
            let mut state = session.lock();
            if std::mem::replace(&mut state.ended, true) {
                return;
            }
            self.unschedule(session, &mut state);
            let lost = std::mem::take(&mut state.outbound).pending();
            state.unreleased = Default::default();
            state.will = None;
            (std::mem::take(&mut state.subscriptions), lost)
        };
        self.counters.dropped.count_many(DropReason::SessionEnded, lost as u64);
        if !subscriptions.is_empty() {
            let mut all = self.subscriptions.write();
            for filter in subscriptions.keys() {
                all.remove(filter, session.number);
            }
            drop(all);
            self.counters.subscriptions.change(-(i64::try_from(subscriptions.len()).unwrap_or(i64::MAX)));
            self.epoch.fetch_add(1, Ordering::Release);
        }
        self.tell(&Event::SessionEnded { client_id: Arc::clone(&session.client_id) }, now);
    }

    fn schedule(&self, session: &Arc<Session>, state: &mut State) {
        self.unschedule(session, state);
        if let Some(at) = state.next_deadline() {
            state.scheduled_at = Some(at);
            self.deadlines.lock().insert((at, session.number), Arc::clone(session));
        }
    }

    fn unschedule(&self, session: &Session, state: &mut State) {
        if let Some(at) = state.scheduled_at.take() {
            self.deadlines.lock().remove(&(at, session.number));
        }
    }

    fn publish_will(self: &Arc<Self>, will: Will, identity: Arc<Identity>, now: Now) -> Work {
        let message = Arc::new(Message {
            publisher: Publisher::Client {
                client_id: Arc::clone(&identity.client_id),
                principal: Arc::clone(&identity.lease.principal),
            },
            received_unix_ms: now.unix_ms,
            expires_at: self.expires_at(will.expiry_s, now.at),
            topic: will.topic,
            payload: will.payload,
            qos: will.qos,
            retain: will.retain,
            properties: will.properties,
            hops: 0,
        });
        let broker = Arc::clone(self);
        Box::pin(async move {
            let plan = broker.plan(&message.topic);
            let batch = broker.batch();
            // Asked again: what the client may do can have changed since it registered the will.
            let origin = Origin::Client { identity, authorized: false };
            // The outcome is counted and logged on the way; a will has nobody to answer.
            let _ = publish::publish(broker, origin, message, plan, now, batch).await;
        })
    }

    /// What the limits on topics have against a topic name or filter.
    pub(crate) fn topic_fault(&self, topic: &str) -> Option<String> {
        let (bytes_max, levels_max) = (self.limits.topic_bytes_max, self.limits.topic_levels_max);
        if topic.len() > bytes_max {
            self.counters.limits.count(Limit::TopicBytes);
            return Some(format!("has {} bytes, more than {bytes_max}", topic.len()));
        }
        let levels = topic.split('/').count();
        if levels > levels_max {
            self.counters.limits.count(Limit::TopicLevels);
            return Some(format!("has {levels} levels, more than {levels_max}"));
        }
        None
    }

    /// When a message with this Message Expiry Interval expires.
    pub(crate) fn expires_at(&self, expiry_s: Option<u32>, now: Instant) -> Option<Instant> {
        let bound = Some(self.limits.message_expiry_s_max).filter(|bound| *bound > 0);
        let seconds = match (expiry_s, bound) {
            (Some(asked), Some(bound)) if asked > bound => {
                self.counters.limits.count(Limit::MessageExpiry);
                bound
            }
            (asked, bound) => asked.or(bound)?,
        };
        Some(now.after(Duration::from_secs(seconds.into())))
    }

    // Subscriptions

    /// Subscribes a session. Answers whether the subscription is new; `None` where the session is over.
    pub(crate) fn subscribe(
        &self,
        session: &Arc<Session>,
        filter: &Subscribable,
        options: Options,
    ) -> Option<bool> {
        let new = self.subscriptions.write().insert(filter, session, options);
        self.epoch.fetch_add(1, Ordering::Release);
        let mut state = session.lock();
        if state.ended {
            drop(state);
            self.subscriptions.write().remove(filter, session.number);
            self.epoch.fetch_add(1, Ordering::Release);
            return None;
        }
        state.subscriptions.insert(filter.clone(), options);
        drop(state);
        self.counters.subscriptions.change(i64::from(new));
        Some(new)
    }

    /// Ends a subscription. Answers whether there was one.
    pub(crate) fn unsubscribe(&self, session: &Arc<Session>, filter: &Subscribable) -> bool {
        {
            let mut state = session.lock();
            if state.subscriptions.remove(filter).is_none() {
                return false;
            }
            if filter.share.is_none() {
                state.outbound.forget_replays(&filter.filter);
            }
        }
        self.subscriptions.write().remove(filter, session.number);
        self.epoch.fetch_add(1, Ordering::Release);
        self.counters.subscriptions.change(-1);
        true
    }
}

/// How a session comes to be without its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The client said goodbye: no will `[MQTT-3.14.4-3]`.
    Orderly,
    /// The connection is lost or was ended by the broker.
    Lost,
    /// Another connection goes on with the session.
    TakenOver,
    /// Another connection begins a new session: the old one ends.
    Replaced,
}

/// How much there is of what a broker keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    /// Sessions, connected or not.
    pub sessions: usize,
    /// Nodes of the tree of filters.
    pub subscription_nodes: usize,
    /// Retained messages.
    pub retained_messages: usize,
    /// Bytes of their topics and payloads.
    pub retained_bytes: usize,
    /// Sessions without a connection that something is to happen to.
    pub deadlines: usize,
    /// Topics whose plan is remembered.
    pub plans: usize,
}

/// Sends DISCONNECT, which only MQTT 5 has for a server, and closes the outbox.
pub(crate) fn say_goodbye(live: &Live, code: ReasonCode, batch: &mut Batch) {
    if live.terms.version == Version::V5 {
        let packet = Packet::Disconnect(weirmq_wire::Disconnect::new(code));
        let words = answer::words_of(&packet);
        if let Some(packet) = live.terms.word(packet, words) {
            live.outbox.push(|out| encode(&packet, live.terms.version, out));
        }
    }
    batch.add(&live.outbox);
    live.outbox.close();
}

/// Encodes a packet of the broker's own. One that cannot be encoded is left out; the broker makes none.
pub(crate) fn encode(packet: &Packet, version: Version, out: &mut Vec<u8>) {
    let before = out.len();
    if packet.encode(version, out).is_err() {
        debug_assert!(false, "a packet of the broker's own cannot be encoded: {packet:?}");
        out.truncate(before);
    }
}
