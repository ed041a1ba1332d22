//! The broker: what all connections share.
//!
//! # Layout
//! - this file: what it is made with, what can be read of it, plans
//! - `sessions`: how sessions begin, wait and end
//! - `restore`: what is brought back after a restart

mod restore;
mod sessions;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use parking_lot::{Mutex, RwLock};
use tracing::debug;
use weirmq_wire::{Packet, ReasonCode, Version};

use crate::batch::{Batch, Ends};
use crate::counters::{Counters, DropReason, Limit, LogGate};
use crate::durable::Journal;
use crate::durable::event::{Event as DurableEvent, RetainChange};
use crate::durable::keeper::Keeper;
use crate::events::{Events, Subject};
use crate::hook::{Chains, Event, EventKind, HookPoint};
use crate::limits::{Capabilities, Limits};
use crate::message::{Message, Publisher, QoS};
use crate::plan::Plan;
use crate::publish::{self, Work};
use crate::record::Sinks;
use crate::retained::Retained;
use crate::session::Session;
use crate::subscriptions::Subscriptions;
use crate::time::{Instant, Now};
use crate::topic::TopicName;

pub use restore::{KeptMessage, KeptSession};
pub(crate) use sessions::{Ending, Opening, TooManySessions, say_goodbye};

/// How many topics' plans are remembered in all.
const PLANS_MAX: usize = 100_000;
/// How many receivers those may have in all: where many topics have many subscribers, their plans are what takes
/// memory.
const PLANNED_RECEIVERS_MAX: usize = 4_000_000;

/// The plans that are remembered.
#[derive(Default)]
struct Plans {
    by_topic: HashMap<TopicName, Arc<Plan>, RandomState>,
    /// How many receivers they have in all.
    receivers: usize,
}

impl Plans {
    fn insert(&mut self, plan: &Arc<Plan>) {
        let receivers = plan.receivers.len();
        if self.by_topic.len() >= PLANS_MAX || self.receivers + receivers > PLANNED_RECEIVERS_MAX {
            *self = Self::default();
        }
        let before = self.by_topic.insert(plan.topic.clone(), Arc::clone(plan));
        self.receivers += receivers;
        self.receivers -= before.map_or(0, |before| before.receivers.len());
    }

    /// Forgets what is not of `epoch`.
    fn tidy(&mut self, epoch: u64) {
        let receivers = &mut self.receivers;
        self.by_topic.retain(|_, plan| {
            let keep = plan.epoch == epoch;
            *receivers -= if keep { 0 } else { plan.receivers.len() };
            keep
        });
        self.by_topic.shrink_to_fit();
    }
}

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
    ends: Arc<Ends>,
    chains: ArcSwap<Chains>,
    /// Counts changes of subscriptions and chains: a plan of an earlier epoch is out of date.
    epoch: AtomicU64,
    /// Counts changes of chains: what hooks have decided in an earlier one is asked again.
    pub(crate) rights_epoch: AtomicU64,
    subscriptions: RwLock<Subscriptions>,
    plans: Mutex<Plans>,
    pub(crate) retained: RwLock<Retained>,
    sessions: Mutex<HashMap<Arc<str>, Arc<Session>, RandomState>>,
    /// The sessions without a connection that something is to happen to, by when.
    deadlines: Mutex<BTreeMap<(Instant, u64), Arc<Session>>>,
    pub(crate) sinks: Arc<dyn Sinks>,
    numbers: AtomicU64,
    /// For lines that one message may each cause.
    pub(crate) log: Arc<LogGate>,
}

/// What is against telling clients `text`, if anything is: not every text is one of MQTT `[MQTT-1.5.4-2]`.
#[must_use]
pub fn text_fault(text: &str) -> Option<String> {
    weirmq_wire::Text::new(text).err().map(|error| error.to_string())
}

impl Broker {
    /// A broker without a session, without a hook, that keeps nothing beyond its own end.
    pub fn new(settings: Settings, sinks: Arc<dyn Sinks>) -> Arc<Self> {
        Self::build(settings, sinks, None)
    }

    /// A broker that keeps in `journal` what must outlive it. What is there already is brought back with
    /// [`Broker::restore_session`] and its like.
    pub fn with_journal(settings: Settings, sinks: Arc<dyn Sinks>, journal: Arc<dyn Journal>) -> Arc<Self> {
        Self::build(settings, sinks, Some(journal))
    }

    fn build(settings: Settings, sinks: Arc<dyn Sinks>, journal: Option<Arc<dyn Journal>>) -> Arc<Self> {
        let (counters, log) = (Arc::<Counters>::default(), Arc::<LogGate>::default());
        let keeper =
            journal.map(|journal| Arc::new(Keeper::new(journal, Arc::clone(&counters), Arc::clone(&log))));
        let Settings { limits, capabilities, response_information, server_reference } = settings;
        Arc::new(Self {
            retained: RwLock::new(Retained::new(limits.retained_messages_max, limits.retained_bytes_max)),
            limits,
            capabilities,
            response_information,
            server_reference,
            ends: Arc::new(Ends { counters, events: Events::default(), keeper }),
            chains: ArcSwap::default(),
            epoch: AtomicU64::new(0),
            rights_epoch: AtomicU64::new(0),
            subscriptions: RwLock::default(),
            plans: Mutex::default(),
            sessions: Mutex::default(),
            deadlines: Mutex::default(),
            sinks,
            numbers: AtomicU64::new(1),
            log,
        })
    }

    /// Puts `chains` in the place of the hooks: the next message of every topic meets them.
    pub fn set_chains(&self, mut chains: Chains) {
        chains.log = Arc::clone(&self.log);
        let chains = Arc::new(chains);
        self.ends.events.set_chains(&chains);
        self.chains.store(chains);
        self.rights_epoch.fetch_add(1, Ordering::Release);
        self.epoch.fetch_add(1, Ordering::Release);
    }

    /// What is counted.
    #[must_use]
    pub fn counters(&self) -> &Arc<Counters> {
        &self.ends.counters
    }

    /// The limits that hold.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// How a client's session is; `None` where it has none.
    #[must_use]
    pub fn client(&self, client_id: &str) -> Option<ClientInfo> {
        let session = self.sessions.lock().get(client_id).cloned()?;
        let state = session.lock();
        Some(ClientInfo {
            principal: Arc::clone(&state.identity.lease.principal),
            connected: state.live.is_some(),
            subscriptions: state.subscriptions.len(),
            pending: state.outbound.pending(),
            drops: DropReason::ALL.map(|reason| (reason, session.drops.get(reason))).to_vec(),
        })
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
            plans: self.plans.lock().by_topic.len(),
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
        self.ends.events.set_now(now);
        let due: Vec<Arc<Session>> = {
            let mut deadlines = self.deadlines.lock();
            let later = deadlines.split_off(&(now.at, u64::MAX));
            std::mem::replace(&mut *deadlines, later).into_values().collect()
        };
        let works = due.into_iter().filter_map(|session| self.session_is_due(&session, now)).collect();
        self.ends.events.tell();
        works
    }

    /// Forgets what is out of date and expired. To be called about once a minute.
    pub fn tidy(&self, now: Now) {
        let expired = self.retained.write().forget_expired(now.at);
        if let Some(keeper) = &self.ends.keeper
            && !expired.is_empty()
        {
            let cleared = expired.into_iter().map(|topic| DurableEvent::RetainedCleared { topic });
            // Where that is not kept, they are found to have expired when they are read back.
            let _ = keeper.record(cleared.collect());
        }
        self.plans.lock().tidy(self.epoch());
        let sessions: Vec<Arc<Session>> = self.sessions.lock().values().cloned().collect();
        for session in sessions {
            if let Some(live) = &session.lock().live {
                live.outbox.trim();
            }
        }
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
        self.retain(&message, now);
        publish::deliver_own(self, &message, &self.plan(topic), now, &mut batch);
    }

    pub(crate) fn batch(&self) -> Batch {
        Batch::new(Arc::clone(&self.ends))
    }

    /// The journal, where something is kept at all.
    pub(crate) fn keeper(&self) -> Option<&Arc<Keeper>> {
        self.ends.keeper.as_ref()
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

    /// The session of this client identifier.
    pub(crate) fn session(&self, client_id: &str) -> Option<Arc<Session>> {
        self.sessions.lock().get(client_id).cloned()
    }

    /// All sessions.
    pub(crate) fn all_sessions(&self) -> Vec<Arc<Session>> {
        self.sessions.lock().values().cloned().collect()
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
        if let Some(plan) = self.plans.lock().by_topic.get(topic).filter(|plan| plan.epoch == epoch) {
            return Arc::clone(plan);
        }
        let chains = self.chains();
        let (subscribers, groups) = self.subscriptions.read().of(topic);
        let plan = Arc::new(Plan::new(topic.clone(), epoch, chains, subscribers, groups));
        self.plans.lock().insert(&plan);
        plan
    }

    /// Counts a message that a session does not get, or nobody.
    pub(crate) fn dropped<'a>(
        &self,
        session: Option<&Session>,
        subject: impl Into<Subject<'a>>,
        reason: DropReason,
    ) {
        self.dropped_many(session, subject, reason, 1);
    }

    /// Counts a message that is none; `topic` need not be one.
    pub(crate) fn dropped_early(&self, topic: &str, reason: DropReason) {
        self.ends.counters.dropped.count(reason);
        if self.ends.events.want(EventKind::MessageDropped)
            && let Ok(topic) = TopicName::new(topic)
        {
            self.ends.events.dropped(None, &topic, reason);
        }
    }

    /// Counts so many messages like `subject` that a session does not get.
    pub(crate) fn dropped_many<'a>(
        &self,
        session: Option<&Session>,
        subject: impl Into<Subject<'a>>,
        reason: DropReason,
        messages: u64,
    ) {
        if self.ends.events.want(EventKind::MessageDropped) {
            let subject = subject.into();
            for _ in 0..messages {
                self.ends.events.dropped(session.map(|session| &session.client_id), subject, reason);
            }
        }
        self.ends.counters.dropped.count_many(reason, messages);
        if let Some(session) = session {
            session.drops.count_many(reason, messages);
            debug!(client = &*session.client_id, %reason, messages, "not delivered");
        }
    }

    /// Retains `message` as its RETAIN flag asks. Answers what that changes.
    pub(crate) fn retain(&self, message: &Arc<Message>, now: Now) -> RetainChange {
        if self.retained.write().store(message, now.at).is_err() {
            self.dropped(None, &**message, DropReason::RetainedFull);
            return RetainChange::Keep;
        }
        if message.payload.is_empty() { RetainChange::Clear } else { RetainChange::Replace }
    }

    /// Calls the hooks that serve [`HookPoint::Timer`], and lets log lines through again. To be called about once a
    /// second.
    pub fn tick(&self, now: Now) {
        self.log.refill();
        let left_out = self.ends.events.take_left_out();
        if left_out > 0 {
            tracing::warn!(left_out, "events about messages come faster than plugins are told of them");
        }
        for link in self.chains.load().at(HookPoint::Timer) {
            link.hook.on_timer(now);
        }
    }

    /// Tells observers what happened.
    pub(crate) fn tell(&self, event: &Event, now: Now) {
        self.tell_those_of(&self.chains.load(), event, now);
    }

    fn tell_those_of(&self, chains: &Chains, event: &Event, now: Now) {
        for link in chains.at(HookPoint::Lifecycle) {
            if link.hook.events().contains(event.kind()) {
                link.hook.on_event(event, now);
            }
        }
    }

    /// What the limits on topics have against a topic name or filter.
    pub(crate) fn topic_fault(&self, topic: &str) -> Option<String> {
        let (bytes_max, levels_max) = (self.limits.topic_bytes_max, self.limits.topic_levels_max);
        if topic.len() > bytes_max {
            self.ends.counters.limits.count(Limit::TopicBytes);
            return Some(format!("has {} bytes, more than {bytes_max}", topic.len()));
        }
        let levels = topic.split('/').count();
        if levels > levels_max {
            self.ends.counters.limits.count(Limit::TopicLevels);
            return Some(format!("has {levels} levels, more than {levels_max}"));
        }
        None
    }

    /// When a message with this Message Expiry Interval expires.
    pub(crate) fn expires_at(&self, expiry_s: Option<u32>, now: Instant) -> Option<Instant> {
        let bound = Some(self.limits.message_expiry_s_max).filter(|bound| *bound > 0);
        let seconds = match (expiry_s, bound) {
            (Some(asked), Some(bound)) if asked > bound => {
                self.ends.counters.limits.count(Limit::MessageExpiry);
                bound
            }
            (asked, bound) => asked.or(bound)?,
        };
        Some(now.after(Duration::from_secs(seconds.into())))
    }
}

/// How a client's session is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientInfo {
    /// Who it belongs to.
    pub principal: Arc<str>,
    /// Whether the client is connected.
    pub connected: bool,
    /// How many subscriptions it has.
    pub subscriptions: usize,
    /// How many QoS 1 and 2 messages wait for it or are under way.
    pub pending: usize,
    /// What was not delivered to it since it began, by reason.
    pub drops: Vec<(DropReason, u64)>,
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

/// Encodes a packet of the broker's own. One that cannot be encoded is left out; the broker makes none.
pub(crate) fn encode(packet: &Packet, version: Version, out: &mut Vec<u8>) {
    let before = out.len();
    if packet.encode(version, out).is_err() {
        debug_assert!(false, "a packet of the broker's own cannot be encoded: {packet:?}");
        out.truncate(before);
    }
}
