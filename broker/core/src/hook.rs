//! The hook seam: one trait that built-ins, Wasm plugins, native libraries and scripts all fill.
//!
//! A [`Hook`] says with [`Hook::points`] which hook points it serves; it is never asked about another. The
//! broker holds hooks in [`Chains`], ordered by the configuration. Decisions (authenticate, authorize) go
//! down their chain until one allows or denies, and when all say `Next` the answer is deny. Transforms
//! compose. A hook that fails ([`Failure`]) is answered for by its [`Policy`] at that point.
//!
//! Hook points on a message's way are *bound* to a topic: the broker asks once per topic
//! ([`Hook::on_publish`], [`Hook::on_message`], [`Hook::on_deliver`], [`Hook::persistence`]) and keeps the handler in the topic's
//! plan. A hook that answers `None` costs that topic nothing.
//!
//! # Layout
//! - this file: the trait, its questions and answers, chains
//! - `point`: the hook points and the policies

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::counters::{DropReason, LogGate};
use crate::durable::keys::Changes;
use crate::message::{Message, Properties, QoS};
use crate::record::Record;
use crate::time::Now;
use crate::topic::{Subscribable, TopicFilter, TopicName};

mod point;

pub use point::{EventKind, EventKinds, HookPoint, HookPoints, Policy};
pub use weirmq_wire::{ReasonCode, Version};

/// An answer that is there, or one that takes IO: then only the connection that asked waits.
pub enum Reply<T> {
    /// The answer.
    Now(Result<T, Failure>),
    /// The answer once the future is through. It owns all that it needs.
    Later(Pin<Box<dyn Future<Output = Result<T, Failure>> + Send>>),
}

impl<T> Reply<T> {
    /// An answer that is there.
    pub const fn ready(answer: T) -> Self {
        Self::Now(Ok(answer))
    }

    /// A failure that is there.
    pub const fn failed(failure: Failure) -> Self {
        Self::Now(Err(failure))
    }

    /// Waits where it must; does not yield when the answer is there.
    ///
    /// # Errors
    /// The hook's [`Failure`].
    pub async fn get(self) -> Result<T, Failure> {
        match self {
            Self::Now(answer) => answer,
            Self::Later(future) => future.await,
        }
    }
}

/// Why a hook has no answer. The kind is what is counted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {detail}")]
pub struct Failure {
    /// What sort of failure.
    pub kind: FailureKind,
    /// What exactly, for the log. Never sent to a client.
    pub detail: String,
}

impl Failure {
    /// A failure of `kind`, explained by `detail`.
    pub fn new(kind: FailureKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }
}

/// The sorts of failure that are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum FailureKind {
    /// It ran past its wall-clock deadline.
    #[error("deadline passed")]
    Deadline,
    /// It asked for more memory than its budget.
    #[error("memory limit reached")]
    Memory,
    /// It did more operations than its budget.
    #[error("operation limit reached")]
    Operations,
    /// It crashed: a Wasm trap, an uncaught script error.
    #[error("crashed")]
    Crash,
    /// It answered what is no valid answer.
    #[error("invalid answer")]
    BadAnswer,
    /// Its answer is larger than its budget.
    #[error("answer too large")]
    OutputTooLarge,
    /// It is not in service: not loaded, quarantined, or what it depends on is not there.
    #[error("not in service")]
    Unavailable,
}

impl FailureKind {
    /// Its name in `$SYS/` and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::Operations => "operations",
            Self::Crash => "crash",
            Self::BadAnswer => "bad_answer",
            Self::OutputTooLarge => "output_too_large",
            Self::Unavailable => "unavailable",
        }
    }
}

/// What a decision answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Yes; nobody further down the chain is asked.
    Allow,
    /// No; nobody further down the chain is asked.
    Deny(Denial),
    /// No opinion: ask the next.
    Next,
}

/// A refusal: a code for the peer and a text for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// What an MQTT 5 peer is told. A code that does not fit the packet that carries it is replaced by
    /// [`ReasonCode::NotAuthorized`]; MQTT 3.1.1 has a mapping of its own.
    pub code: ReasonCode,
    /// Why, for the log only: what a hook knows about a refusal is not the peer's business.
    pub reason: String,
}

impl Denial {
    /// A refusal with `code`, explained by `reason`.
    pub fn new(code: ReasonCode, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }
}

/// What a client shows of itself when it connects. Shared, so that a hook with IO can keep it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthenticateRequest {
    /// The client identifier, assigned by the broker when the client sent none.
    pub client_id: Arc<str>,
    /// User Name.
    pub username: Option<Box<str>>,
    /// Password: any bytes.
    pub password: Option<Bytes>,
    /// The protocol version that it speaks.
    pub version: Version,
    /// Clean Start (MQTT 5) or Clean Session (MQTT 3.1.1).
    pub clean_start: bool,
    /// Where it connects from; `None` when the transport has no address.
    pub peer: Option<SocketAddr>,
    /// The name of the listener that it came through.
    pub listener: Arc<str>,
    /// User Properties of the CONNECT, in order.
    pub user_properties: Vec<(Box<str>, Box<str>)>,
    /// MQTT 5 enhanced authentication, when the client asks for it.
    pub exchange: Option<AuthExchange>,
}

/// One step of MQTT 5 enhanced authentication `[MQTT-4.12.0-2]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthExchange {
    /// The same for all steps of one exchange, different for every exchange of this broker.
    pub id: u64,
    /// 0 for what comes with CONNECT or opens a re-authentication, then counting up.
    pub step: u32,
    /// Authentication Method.
    pub method: Box<str>,
    /// Authentication Data.
    pub data: Option<Bytes>,
    /// Whether the client is connected already and renews its authentication.
    pub renewal: bool,
}

/// What an authenticate hook answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authentication {
    /// Welcome, on these terms.
    Allow {
        /// The terms.
        lease: Lease,
        /// Authentication Data for the client, at the end of an exchange.
        data: Option<Bytes>,
    },
    /// Refused.
    Deny(Denial),
    /// One more step: send this Authentication Data and ask again with what the client answers.
    Continue {
        /// Authentication Data for the client.
        data: Option<Bytes>,
    },
    /// Not mine to decide: ask the next.
    Next,
}

/// The terms on which a client is let in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lease {
    /// Who it is, in the words of whoever authenticated it.
    pub principal: Arc<str>,
    /// What else is known about it, for other hooks and for rules.
    pub attributes: Vec<(Box<str>, Box<str>)>,
    /// How long the lease holds; `None` is as long as the connection.
    pub expires_in: Option<Duration>,
    /// What it may do. `Some` is the whole answer: what is not in it is denied without asking further.
    /// `None` leaves every question to the authorize chain.
    /// Those of many clients may be the same.
    pub rights: Option<Arc<Rights>>,
    /// What it may take, beside the limits that hold for all.
    pub quotas: Quotas,
}

/// What one client may take. `None` is what the broker's limits say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quotas {
    /// Messages per second that it may publish: past it, its connection is not read until the next is due.
    pub publish_rate_max: Option<NonZeroU32>,
    /// Subscriptions at a time: a filter past it is refused with 0x97.
    pub subscriptions_max: Option<usize>,
}

/// Rights as topic filters, checked by the broker itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rights {
    /// What may be published.
    pub publish: Vec<PublishRight>,
    /// What may be subscribed to.
    pub subscribe: Vec<SubscribeRight>,
}

/// The right to publish to the topics of one filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishRight {
    /// Which topics.
    pub filter: TopicFilter,
    /// Up to which QoS.
    pub qos_max: QoS,
    /// Whether messages may be retained.
    pub retain: bool,
}

/// The right to subscribe to what one filter covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscribeRight {
    /// Which filters: those that it covers.
    pub filter: TopicFilter,
    /// Up to which QoS; a subscription that asks for more is granted this.
    pub qos_max: QoS,
}

/// Who is asking: a client and its lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The client identifier.
    pub client_id: Arc<str>,
    /// User Name as sent in CONNECT.
    pub username: Option<Box<str>>,
    /// Where it connects from.
    pub peer: Option<SocketAddr>,
    /// The name of the listener that it came through.
    pub listener: Arc<str>,
    /// The terms on which it was let in.
    pub lease: Lease,
}

/// What somebody wants to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Publish a message (a will too).
    Publish {
        /// To this topic.
        topic: TopicName,
        /// With this QoS.
        qos: QoS,
        /// To be retained.
        retain: bool,
    },
    /// Subscribe to a filter.
    Subscribe {
        /// This filter, shared or not.
        filter: Subscribable,
        /// With this QoS.
        qos: QoS,
    },
}

/// May this client do that?
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizeRequest {
    /// Who.
    pub identity: Arc<Identity>,
    /// What.
    pub action: Action,
}

/// What a transform answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Transformed {
    /// As it is.
    Pass,
    /// This message in its place. Checked like a client's message; the rights are checked again where the
    /// topic is another.
    Replace(Box<Draft>),
    /// The same message with this payload, which is still UTF-8 text where the message says that it is.
    WithPayload(Bytes),
    /// No message; counted, with the reason, and acknowledged to the publisher as configured.
    Drop(Denial),
    /// These messages in its place.
    Several(Vec<Draft>),
}

impl Transformed {
    /// The same, as an answer to `message` at `now`, with the whole message in the place of a payload.
    #[must_use]
    pub fn spelt_out(self, message: &Message, now: Now) -> Self {
        match self {
            Self::WithPayload(payload) => {
                let expires_in = message.expires_at.map(|at| at.since(now.at));
                let expires_in = expires_in.and_then(|span| u64::try_from(span.as_millis()).ok());
                Self::Replace(Box::new(Draft {
                    payload,
                    expires_in: expires_in.map(Duration::from_millis),
                    ..Draft::of(message)
                }))
            }
            other => other,
        }
    }
}

/// The parts of a message that a hook or a rule may choose; the broker fills in the rest.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// Topic name, not checked yet.
    pub topic: String,
    /// Payload.
    pub payload: Bytes,
    /// QoS.
    pub qos: QoS,
    /// To be retained.
    pub retain: bool,
    /// Properties of MQTT 5.
    pub properties: Properties,
    /// How long it is deliverable from now; `None` is for ever (or, in a transform's answer, as long as the
    /// message that it replaces).
    pub expires_in: Option<Duration>,
}

impl Draft {
    /// A draft that repeats `message`.
    #[must_use]
    pub fn of(message: &Message) -> Self {
        Self {
            topic: message.topic.as_str().to_owned(),
            payload: message.payload.clone(),
            qos: message.qos,
            retain: message.retain,
            properties: message.properties.clone(),
            expires_in: None,
        }
    }
}

/// An on-publish hook bound to a topic.
pub trait Transform: Send + Sync {
    /// What is to become of `message`.
    fn transform(&self, message: &Arc<Message>, now: Now) -> Reply<Transformed>;

    /// Where it notes what of its state it changes: that is recorded with the message.
    fn changes(&self) -> &[Arc<Changes>] {
        &[]
    }
}

/// An on-message hook bound to a topic: rules.
pub trait Observe: Send + Sync {
    /// Looks at `message` and puts what follows from it into `actions`. On a failure, what it has put there
    /// is taken back.
    ///
    /// # Errors
    /// A [`Failure`]: the message is routed all the same.
    fn observe(&self, message: &Arc<Message>, now: Now, actions: &mut Actions) -> Result<(), Failure>;

    /// Where it notes what of its state it changes: that is recorded with the message.
    fn changes(&self) -> &[Arc<Changes>] {
        &[]
    }

    /// The rule's or hook's name, for logs and counters.
    fn name(&self) -> &str;
}

/// What observers want done about a message.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Actions {
    /// Messages to publish in the name of a rule.
    pub publish: Vec<(Arc<str>, Draft)>,
    /// Records for sinks.
    pub records: Vec<Record>,
}

/// What an on-deliver hook answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Delivery {
    /// As it is.
    Pass,
    /// This in its place: payload and properties are taken, topic and QoS stay.
    Replace(Draft),
    /// Not to this receiver; counted with the reason.
    Drop(String),
}

/// An on-deliver hook bound to a topic. Asked on the delivering worker: it must not wait.
pub trait Deliver: Send + Sync {
    /// What `receiver` is to get of `message`.
    ///
    /// # Errors
    /// A [`Failure`], answered for by the policy.
    fn deliver(&self, message: &Arc<Message>, receiver: &Identity, now: Now) -> Result<Delivery, Failure>;
}

/// What an on-subscribe or on-unsubscribe hook answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilterVerdict {
    /// As asked.
    Pass,
    /// This filter in its place.
    Rewrite(Subscribable),
    /// Refused.
    Deny(Denial),
}

/// One filter of a SUBSCRIBE or UNSUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterRequest {
    /// Who asks.
    pub identity: Arc<Identity>,
    /// The filter, shared or not.
    pub filter: Subscribable,
    /// The QoS asked for; `None` in an UNSUBSCRIBE.
    pub qos: Option<QoS>,
}

/// What a persistence hook answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Persisted {
    /// As it is.
    Keep,
    /// This payload in its place.
    Replace(Bytes),
    /// Do not make it durable; it is delivered to who is there.
    Skip,
}

/// A persistence hook bound to a topic. Asked on the worker that moves the message: it must not wait.
pub trait Persist: Send + Sync {
    /// `message` is about to be made durable: what is to be kept of it.
    ///
    /// # Errors
    /// A [`Failure`], answered for by the policy: `deny` has the message neither delivered nor acknowledged, `allow`
    /// keeps it as it is, `skip` does not keep it.
    fn before_store(&self, message: &Arc<Message>) -> Result<Persisted, Failure>;

    /// `message` was read back with the payload that [`Persist::before_store`] put in its place: the payload as it was
    /// before.
    ///
    /// # Errors
    /// A [`Failure`]: the message is not delivered, and stays where it is kept.
    fn after_load(&self, message: &Message) -> Result<Bytes, Failure>;
}

/// What happened, for observers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A client was let in.
    Connected {
        /// Who.
        identity: Arc<Identity>,
        /// Its protocol version.
        version: Version,
    },
    /// A connection ended.
    Disconnected {
        /// Whose.
        identity: Arc<Identity>,
        /// Why, in words.
        reason: String,
    },
    /// A session ended: its subscriptions and queued messages are gone.
    SessionEnded {
        /// Whose.
        client_id: Arc<str>,
    },
    /// A message was not delivered.
    MessageDropped {
        /// To whom; `None` where nobody gets it.
        client_id: Option<Arc<str>>,
        /// Its topic.
        topic: TopicName,
        /// Why.
        reason: DropReason,
    },
    /// A message was handed to the connection of a client.
    MessageDelivered {
        /// To whom.
        client_id: Arc<str>,
        /// Its topic.
        topic: TopicName,
    },
    /// A client has acknowledged a message of QoS 1 or 2.
    MessageAcked {
        /// Who.
        client_id: Arc<str>,
        /// Its topic.
        topic: TopicName,
    },
}

impl Event {
    /// Of which kind it is.
    #[must_use]
    pub const fn kind(&self) -> EventKind {
        match self {
            Self::Connected { .. } => EventKind::Connected,
            Self::Disconnected { .. } => EventKind::Disconnected,
            Self::SessionEnded { .. } => EventKind::SessionEnded,
            Self::MessageDropped { .. } => EventKind::MessageDropped,
            Self::MessageDelivered { .. } => EventKind::MessageDelivered,
            Self::MessageAcked { .. } => EventKind::MessageAcked,
        }
    }
}

/// One filler of hook points. Every method has the default of a hook that does not serve the point.
pub trait Hook: Send + Sync + 'static {
    /// Its name in the configuration, logs and counters.
    fn name(&self) -> &str;

    /// The hook points that it serves. Asked when chains are built: one that changes needs new chains.
    fn points(&self) -> HookPoints;

    /// [`HookPoint::Authenticate`]: who is this?
    fn authenticate(&self, request: &Arc<AuthenticateRequest>) -> Reply<Authentication> {
        let _ = request;
        Reply::ready(Authentication::Next)
    }

    /// [`HookPoint::Authorize`]: may they? An allow or deny may be remembered for the lease.
    fn authorize(&self, request: &Arc<AuthorizeRequest>) -> Reply<Decision> {
        let _ = request;
        Reply::ready(Decision::Next)
    }

    /// [`HookPoint::OnPublish`]: the transform that wants messages of this topic, if any.
    fn on_publish(self: Arc<Self>, topic: &TopicName) -> Option<Arc<dyn Transform>> {
        let _ = topic;
        None
    }

    /// [`HookPoint::OnMessage`]: the observers that want messages of this topic, in their order.
    fn on_message(self: Arc<Self>, topic: &TopicName) -> Vec<Arc<dyn Observe>> {
        let _ = topic;
        Vec::new()
    }

    /// [`HookPoint::OnDeliver`]: the handler that wants deliveries of this topic, if any.
    fn on_deliver(self: Arc<Self>, topic: &TopicName) -> Option<Arc<dyn Deliver>> {
        let _ = topic;
        None
    }

    /// [`HookPoint::OnSubscribe`]: one filter of a SUBSCRIBE, after it was authorized.
    fn on_subscribe(&self, request: &Arc<FilterRequest>) -> Reply<FilterVerdict> {
        let _ = request;
        Reply::ready(FilterVerdict::Pass)
    }

    /// [`HookPoint::OnUnsubscribe`]: one filter of an UNSUBSCRIBE.
    fn on_unsubscribe(&self, request: &Arc<FilterRequest>) -> Reply<FilterVerdict> {
        let _ = request;
        Reply::ready(FilterVerdict::Pass)
    }

    /// [`HookPoint::Persistence`]: what is asked about messages of this topic that are kept, if anything. What is kept
    /// remembers this hook's name, and is read back by the hook that has it then.
    fn persistence(self: Arc<Self>, topic: &TopicName) -> Option<Arc<dyn Persist>> {
        let _ = topic;
        None
    }

    /// [`HookPoint::Lifecycle`]: the events that it wants to be told of. Asked when chains are built.
    fn events(&self) -> EventKinds {
        EventKinds::OF_CLIENTS
    }

    /// [`HookPoint::Lifecycle`]: something happened, of a kind in [`Hook::events`].
    fn on_event(&self, event: &Event, now: Now) {
        let _ = (event, now);
    }

    /// [`HookPoint::Timer`]: about once a second.
    fn on_timer(&self, now: Now) {
        let _ = now;
    }
}

/// A hook in a chain, with what is done where it fails.
#[derive(Clone)]
pub struct Link {
    /// The hook.
    pub hook: Arc<dyn Hook>,
    /// Its policies where they are not the default of the point.
    pub policies: Vec<(HookPoint, Policy)>,
}

impl Link {
    /// `hook` with the default policies.
    pub fn new(hook: Arc<dyn Hook>) -> Self {
        Self { hook, policies: Vec::new() }
    }

    /// What is done where the hook fails at `point`.
    #[must_use]
    pub fn policy(&self, point: HookPoint) -> Policy {
        self.policies
            .iter()
            .find_map(|(configured, policy)| (*configured == point).then_some(*policy))
            .unwrap_or_else(|| point.default_policy())
    }
}

/// Every hook point's chain. Immutable: a change makes new chains and swaps them in.
#[derive(Clone, Default)]
pub struct Chains {
    /// For lines about refusals, which a client can cause as often as it likes.
    pub(crate) log: Arc<LogGate>,
    links: [Vec<Link>; HookPoint::ALL.len()],
    /// The events that somebody wants to be told of.
    events: EventKinds,
}

impl Chains {
    /// Puts each hook into the chain of every point that it serves, in the order given.
    #[must_use]
    pub fn new(links: impl IntoIterator<Item = Link>) -> Self {
        let mut chains = Self::default();
        for link in links {
            if link.hook.points().contains(HookPoint::Lifecycle) {
                chains.events = chains.events.and(link.hook.events());
            }
            for (chain, point) in chains.links.iter_mut().zip(HookPoint::ALL) {
                if link.hook.points().contains(point) {
                    chain.push(link.clone());
                }
            }
        }
        chains
    }

    /// Whether somebody wants to be told of events of this kind.
    #[must_use]
    pub const fn want(&self, kind: EventKind) -> bool {
        self.events.contains(kind)
    }

    /// The events that somebody wants to be told of.
    pub(crate) const fn events(&self) -> EventKinds {
        self.events
    }

    /// The hooks that serve `point`, first asked first.
    #[must_use]
    pub fn at(&self, point: HookPoint) -> &[Link] {
        self.links.get(point as usize).map_or(&[], Vec::as_slice)
    }
}

impl fmt::Debug for Chains {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = out.debug_map();
        for point in HookPoint::ALL {
            let names: Vec<&str> = self.at(point).iter().map(|link| link.hook.name()).collect();
            map.entry(&point.name(), &names);
        }
        map.finish()
    }
}
