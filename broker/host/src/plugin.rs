//! A plugin in service: the hook that the broker's chains hold, whatever version of the file serves behind it.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use weirmq_core::hook::{
    Action, AuthenticateRequest, Authentication, AuthorizeRequest, Decision, Deliver, Delivery, Event,
    EventKinds, Failure, FailureKind, FilterRequest, FilterVerdict, Hook, HookPoint, HookPoints, Identity,
    Persist, Persisted, Reply, Transform, Transformed,
};
use weirmq_core::message::Message;
use weirmq_core::time::Now;
use weirmq_core::topic::TopicName;

use crate::bindings::exports::weirmq::plugin as hooks;
use crate::config::{PluginConfig, PluginKind, ShadowConfig};
use crate::convert;
use crate::error::LoadError;
use crate::grant::{self, Manifest};
use crate::host::Shared;
use crate::instance::{Call, Place};
use crate::instances::Live;
use crate::load::Generation;
use crate::peer::PeerText;
use crate::quarantine::{Door, Quarantine};
use crate::services::Role;
use crate::services::metrics::Figure;
use crate::shadow::{Answer, Shadow, ShadowStats};
use crate::stats::Counters;
pub use crate::stats::{Latency, PluginStats};

/// How many events may wait for a plugin before the newest are left out.
const EVENTS_MAX: usize = 4096;

/// A plugin in service. It stays the same object while versions of the plugin come and go.
pub struct PluginHook {
    served: Arc<Served>,
    bound: Arc<Bound>,
}

/// What is known of the version that serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginInfo {
    /// Its name in the configuration.
    pub name: String,
    /// What it calls itself.
    pub plugin: String,
    /// Its own version.
    pub version: String,
    /// The version of the interface that it is served with.
    pub api_version: String,
    /// What its file is.
    pub kind: PluginKind,
    /// Where it came from.
    pub file: PathBuf,
    /// What it serves.
    pub hooks: HookPoints,
    /// Of these, what it can be asked in few words too.
    pub in_brief: HookPoints,
    /// Whether the broker's store can stand on it.
    pub is_store_backend: bool,
    /// The topic filters whose messages it wants to see.
    pub topics: Vec<String>,
    /// The topic filters whose deliveries it wants to see.
    pub deliver_topics: Vec<String>,
    /// The topic filters whose messages it wants to see when they are stored.
    pub stored_topics: Vec<String>,
    /// The interfaces of the broker that it imports.
    pub imports: Vec<String>,
    /// What its manifest asks for.
    pub asked: Manifest,
    /// The size of its file.
    pub bytes: u64,
    /// How long it took to compile, or to find in the cache.
    pub compiled_in: Duration,
    /// When it was taken into service: milliseconds since 1970-01-01T00:00:00Z.
    pub loaded_unix_ms: u64,
}

impl PluginInfo {
    /// The name of a store backend among the hook points.
    pub const STORE_BACKEND: &str = "store-backend";

    /// The names of all that it serves.
    #[must_use]
    pub fn served(&self) -> Vec<&'static str> {
        let backend = self.is_store_backend.then_some(Self::STORE_BACKEND);
        self.hooks.iter().map(HookPoint::name).chain(backend).collect()
    }
}

/// What a reload changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What served before.
    pub before: PluginInfo,
    /// What serves now.
    pub after: PluginInfo,
}

impl Change {
    /// Whether the chains must be built anew: the hook points are others.
    #[must_use]
    pub fn hooks_changed(&self) -> bool {
        self.before.hooks != self.after.hooks
    }

    /// Whether what is bound to topics must be bound anew: the plugin wants other topics.
    #[must_use]
    pub fn topics_changed(&self) -> bool {
        let topics = |info: &PluginInfo| {
            (info.topics.clone(), info.deliver_topics.clone(), info.stored_topics.clone())
        };
        topics(&self.before) != topics(&self.after)
    }
}

impl PluginHook {
    pub(crate) fn new(shared: Arc<Shared>, config: &PluginConfig, generation: Generation) -> Arc<Self> {
        let served = Served::new(shared, &config.name, generation);
        let bound = Arc::new(Bound(Arc::clone(&served)));
        Arc::new(Self { served, bound })
    }

    /// Reads the plugin's file anew and, when the version in it is fit to serve, swaps it in. Calls in flight end
    /// on the old version. Takes as long as compiling does: not for a worker of the broker.
    ///
    /// # Errors
    /// [`LoadError`]: the version that served goes on serving.
    pub fn reload(&self) -> Result<Change, LoadError> {
        let config = self.config();
        self.reconfigure(&config)
    }

    /// The same with another configuration, which must be of the same name.
    ///
    /// # Errors
    /// [`LoadError`]: the version that served goes on serving as it was configured.
    pub fn reconfigure(&self, config: &PluginConfig) -> Result<Change, LoadError> {
        let served = &self.served;
        let mut previous = served.changing.lock();
        let next = served.shared.load(config)?;
        let change = served.swap(Arc::new(next), &mut previous);
        drop(previous);
        self.set_shadow(config);
        Ok(change)
    }

    /// Has calls repeated on the version that `config` has in `shadow`, from now on, or on none. One that does not load
    /// is logged and told by [`PluginHook::shadow`], and whichever was there before stays. Compiles: not for a worker of
    /// the broker.
    pub fn set_shadow(&self, config: &PluginConfig) {
        let served = &self.served;
        let made = config.shadow.as_ref().map(|shadow| served.shadow_of(config, shadow)).transpose();
        match made {
            Ok(shadow) => {
                if let Some(shadow) = &shadow {
                    let version = shadow.served().info().version;
                    tracing::info!(plugin = config.name, version, "a version of the plugin is in its shadow");
                }
                served.is_shadowed.store(shadow.is_some(), Ordering::Release);
                *served.shadow.lock() = ShadowPlace { shadow: shadow.map(Arc::new), fault: None };
            }
            Err(error) => {
                tracing::error!(plugin = config.name, "the version for its shadow: {error}");
                served.shadow.lock().fault = Some(error.to_string());
            }
        }
    }

    /// How the version in the shadow does, if there is one.
    ///
    /// # Errors
    /// Why the version that was to be there last is not.
    pub fn shadow(&self) -> Result<Option<ShadowStats>, String> {
        let place = self.served.shadow.lock();
        match &place.fault {
            Some(fault) => Err(fault.clone()),
            None => Ok(place.shadow.as_ref().map(|shadow| shadow.read())),
        }
    }

    /// Brings back the version that served before the one that serves now, with the configuration that it had. Asked
    /// again, it goes back again. `None` where there is none.
    pub fn rollback(&self) -> Option<Change> {
        let mut previous = self.served.changing.lock();
        let back = previous.take()?;
        Some(self.served.swap(back, &mut previous))
    }

    /// The version that serves.
    #[must_use]
    pub fn info(&self) -> PluginInfo {
        self.served.generation.load().info.clone()
    }

    /// The version that a rollback would bring back.
    #[must_use]
    pub fn previous(&self) -> Option<PluginInfo> {
        self.served.changing.lock().as_ref().map(|generation| generation.info.clone())
    }

    /// The configuration that it serves with.
    #[must_use]
    pub fn config(&self) -> PluginConfig {
        self.served.generation.load().config.clone()
    }

    /// What has happened so far.
    #[must_use]
    pub fn stats(&self) -> PluginStats {
        let left_out = self.served.shared.services.metrics(&self.served.name).left_out();
        PluginStats { figures_left_out: left_out, ..self.served.stats() }
    }

    /// The figures that it keeps about itself, by name.
    #[must_use]
    pub fn figures(&self) -> Vec<(String, Figure)> {
        self.served.shared.services.metrics(&self.served.name).read()
    }
}

impl Hook for PluginHook {
    fn name(&self) -> &str {
        &self.served.name
    }

    fn points(&self) -> HookPoints {
        self.served.generation.load().info.hooks
    }

    fn authenticate(&self, request: &Arc<AuthenticateRequest>) -> Reply<Authentication> {
        let request = Arc::clone(request);
        self.served.aside(HookPoint::Authenticate, move |served| served.authenticate(&request))
    }

    fn authorize(&self, request: &Arc<AuthorizeRequest>) -> Reply<Decision> {
        if !self.served.waits() {
            return Reply::Now(self.served.authorize(request, Place::Worker));
        }
        let request = Arc::clone(request);
        self.served.aside(HookPoint::Authorize, move |served| served.authorize(&request, Place::Aside))
    }

    fn on_publish(self: Arc<Self>, topic: &TopicName) -> Option<Arc<dyn Transform>> {
        let wanted = grant::matches(&self.served.generation.load().wants.on_publish, topic);
        wanted.then(|| Arc::clone(&self.bound) as Arc<dyn Transform>)
    }

    fn on_deliver(self: Arc<Self>, topic: &TopicName) -> Option<Arc<dyn Deliver>> {
        let wanted = grant::matches(&self.served.generation.load().wants.on_deliver, topic);
        wanted.then(|| Arc::clone(&self.bound) as Arc<dyn Deliver>)
    }

    fn persistence(self: Arc<Self>, topic: &TopicName) -> Option<Arc<dyn Persist>> {
        let wanted = grant::matches(&self.served.generation.load().wants.persistence, topic);
        wanted.then(|| Arc::clone(&self.bound) as Arc<dyn Persist>)
    }

    fn on_subscribe(&self, request: &Arc<FilterRequest>) -> Reply<FilterVerdict> {
        if !self.served.waits() {
            return Reply::Now(self.served.on_subscribe(request, Place::Worker));
        }
        let request = Arc::clone(request);
        self.served.aside(HookPoint::OnSubscribe, move |served| served.on_subscribe(&request, Place::Aside))
    }

    fn on_unsubscribe(&self, request: &Arc<FilterRequest>) -> Reply<FilterVerdict> {
        if !self.served.waits() {
            return Reply::Now(self.served.on_unsubscribe(request, Place::Worker));
        }
        let request = Arc::clone(request);
        self.served
            .aside(HookPoint::OnUnsubscribe, move |served| served.on_unsubscribe(&request, Place::Aside))
    }

    fn events(&self) -> EventKinds {
        self.served.generation.load().wants.events
    }

    fn on_event(&self, event: &Event, now: Now) {
        self.served.take_event(event, now);
    }

    fn on_timer(&self, now: Now) {
        self.served.take_tick(now);
    }
}

/// What the plugin does for one topic. It follows reloads.
struct Bound(Arc<Served>);

impl Transform for Bound {
    fn transform(&self, message: &Arc<Message>, now: Now) -> Reply<Transformed> {
        if !self.0.waits() {
            return Reply::Now(self.0.on_publish(message, now, Place::Worker));
        }
        let message = Arc::clone(message);
        self.0.aside(HookPoint::OnPublish, move |served| served.on_publish(&message, now, Place::Aside))
    }
}

impl Deliver for Bound {
    fn deliver(&self, message: &Arc<Message>, receiver: &Identity, now: Now) -> Result<Delivery, Failure> {
        self.0.on_deliver(message, receiver, now)
    }
}

impl Persist for Bound {
    fn before_store(&self, message: &Arc<Message>) -> Result<Persisted, Failure> {
        self.0.before_store(message)
    }

    fn after_load(&self, message: &Message) -> Result<Bytes, Failure> {
        self.0.after_load(message)
    }
}

/// All that calls need; shared with calls that run beside the workers.
pub(crate) struct Served {
    name: Arc<str>,
    shared: Arc<Shared>,
    generation: ArcSwap<Generation>,
    quarantine: Quarantine,
    counters: Counters,
    /// Of all instances, of all versions.
    memory: Arc<AtomicU64>,
    events: Mutex<Events>,
    timer: Timer,
    /// Held while another version is taken into service; the version before, for a rollback.
    changing: Mutex<Option<Arc<Generation>>>,
    /// Whether the calls of the version that serves may wait for something outside the broker; looked at by every call.
    waits: AtomicBool,
    /// Whether there is a version in the shadow; looked at by every call.
    is_shadowed: AtomicBool,
    shadow: Mutex<ShadowPlace>,
}

#[derive(Default)]
struct ShadowPlace {
    shadow: Option<Arc<Shadow>>,
    /// Why the version that was to be there last is not.
    fault: Option<String>,
}

#[derive(Default)]
struct Timer {
    called_at: Mutex<Option<weirmq_core::time::Instant>>,
    running: AtomicBool,
}

#[derive(Default)]
struct Events {
    waiting: VecDeque<(Event, u64)>,
    being_told: bool,
}

impl Served {
    fn new(shared: Arc<Shared>, name: &str, generation: Generation) -> Arc<Self> {
        Arc::new(Self {
            name: Arc::from(name),
            quarantine: Quarantine::new(generation.config.quarantine.clone()),
            counters: Counters::new(generation.config.instances_max as usize),
            memory: generation.origin.memory(),
            waits: AtomicBool::new(generation.waits),
            generation: ArcSwap::from_pointee(generation),
            events: Mutex::default(),
            timer: Timer::default(),
            changing: Mutex::default(),
            is_shadowed: AtomicBool::new(false),
            shadow: Mutex::default(),
            shared,
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn info(&self) -> PluginInfo {
        self.generation.load().info.clone()
    }

    /// All but what the plugin says of itself.
    pub(crate) fn stats(&self) -> PluginStats {
        PluginStats {
            quarantined: self.quarantine.is_closed(),
            memory_bytes: self.memory.load(Ordering::Relaxed),
            ..self.counters.read()
        }
    }

    fn shadow_of(&self, config: &PluginConfig, shadow: &ShadowConfig) -> Result<Shadow, LoadError> {
        config.validate()?;
        let role = Role::Shadow { http: shadow.http };
        let generation = self.shared.load_for(&config.in_shadow(shadow), role)?;
        let name = generation.config.name.clone();
        Shadow::start(Served::new(Arc::clone(&self.shared), &name, generation), shadow)
    }

    /// The version in the shadow, where there is one.
    fn shadow(&self) -> Option<Arc<Shadow>> {
        if !self.is_shadowed.load(Ordering::Relaxed) {
            return None;
        }
        self.shadow.lock().shadow.clone()
    }

    /// The version in the shadow, where the call that was answered with `answer` is to be repeated on it, and the answer.
    fn to_compare<T: Answer>(&self, answer: &Result<T, Failure>) -> Option<(Arc<Shadow>, T)> {
        let shadow = self.shadow().filter(|shadow| shadow.takes_this())?;
        // What failed has no answer to compare with.
        Some((shadow, answer.as_ref().ok()?.clone()))
    }

    /// Takes `next` into service. What served goes to `previous`, without its instances.
    fn swap(&self, next: Arc<Generation>, previous: &mut Option<Arc<Generation>>) -> Change {
        let after = next.info.clone();
        self.quarantine.configure(next.config.quarantine.clone());
        self.waits.store(next.waits, Ordering::Release);
        let before = self.generation.swap(next);
        before.instances.clear();
        let change = Change { before: before.info.clone(), after };
        *previous = Some(before);
        self.quarantine.reset();
        self.counters.count_reload();
        tracing::info!(
            plugin = &*self.name,
            before = change.before.version,
            after = change.after.version,
            "another version of the plugin serves"
        );
        change
    }

    /// Whether its calls may wait for something outside the broker, so that no worker makes them.
    fn waits(&self) -> bool {
        self.waits.load(Ordering::Acquire)
    }

    /// Makes a call on a thread of the host.
    fn aside<T: Send + 'static>(
        self: &Arc<Self>,
        point: HookPoint,
        call: impl FnOnce(&Self) -> Result<T, Failure> + Send + 'static,
    ) -> Reply<T> {
        if let Err(failure) = self.refuse_in_quarantine(point) {
            return Reply::failed(failure);
        }
        let served = Arc::clone(self);
        self.shared.pool_for(&self.generation.load()).ask(move || call(&served))
    }

    fn authenticate(&self, request: &Arc<AuthenticateRequest>) -> Result<Authentication, Failure> {
        let answer = self.ask_authenticate(request);
        if let Some((shadow, live)) = self.to_compare(&answer) {
            let (asked, again) = (Arc::clone(request), Arc::clone(request));
            let about = move || format!("client '{}'", asked.client_id);
            shadow.compare(HookPoint::Authenticate, live, about, move |served| served.authenticate(&again));
        }
        answer
    }

    fn ask_authenticate(&self, request: &AuthenticateRequest) -> Result<Authentication, Failure> {
        let peer = request.peer.map(PeerText::of);
        let user_properties = convert::pairs(&request.user_properties);
        let asked = hooks::authenticate::Request {
            client_id: &request.client_id,
            username: request.username.as_deref(),
            password: request.password.as_deref(),
            version: convert::version(request.version),
            clean_start: request.clean_start,
            peer: peer.as_ref().map(PeerText::as_str),
            listener: &request.listener,
            user_properties: &user_properties,
            exchange: request.exchange.as_ref().map(|exchange| hooks::authenticate::Exchange {
                id: exchange.id,
                step: exchange.step,
                method: &exchange.method,
                data: exchange.data.as_deref(),
                renewal: exchange.renewal,
            }),
        };
        let ask = |instance: &mut Live, call| match instance {
            Live::Wasm(instance) => instance.call(call, |store, hooks| match &hooks.authenticate {
                Some(hook) => hook.call_authenticate(store, asked),
                None => Ok(hooks::authenticate::Answer::Next),
            }),
            Live::Native(instance) => instance.authenticate(call, &asked),
        };
        let in_exchange = request.exchange.is_some();
        self.call(HookPoint::Authenticate, Place::Aside, 1, ask, |answer| {
            convert::authentication(answer, in_exchange)
        })
    }

    fn authorize(&self, request: &Arc<AuthorizeRequest>, place: Place) -> Result<Decision, Failure> {
        let answer = self.ask_authorize(request, place);
        if let Some((shadow, live)) = self.to_compare(&answer) {
            let (asked, again) = (Arc::clone(request), Arc::clone(request));
            let about = move || match &asked.action {
                Action::Publish { topic, .. } => {
                    format!("client '{}', topic '{topic}'", asked.identity.client_id)
                }
                Action::Subscribe { filter, .. } => {
                    format!("client '{}', filter '{filter}'", asked.identity.client_id)
                }
            };
            let again = move |served: &Arc<Self>| served.authorize(&again, Place::Aside);
            shadow.compare(HookPoint::Authorize, live, about, again);
        }
        answer
    }

    fn ask_authorize(&self, request: &AuthorizeRequest, place: Place) -> Result<Decision, Failure> {
        let ask = |instance: &mut Live, call| match instance {
            Live::Wasm(instance) => instance.authorize(call, request),
            Live::Native(instance) => {
                convert::authorization(request, |who, what| instance.authorize(call, &who, &what))
            }
        };
        self.call(HookPoint::Authorize, place, 1, ask, convert::decision)
    }

    fn on_publish(&self, message: &Arc<Message>, now: Now, place: Place) -> Result<Transformed, Failure> {
        let answer = self.ask_on_publish(message, now, place);
        if let Some((shadow, live)) = self.to_compare(&answer) {
            // Of two versions, one may be asked in few words and answer with a payload where the other says it all.
            let live = live.spelt_out(message, now);
            let (asked, again) = (Arc::clone(message), Arc::clone(message));
            let again = move |served: &Arc<Self>| {
                if !grant::matches(&served.generation.load().wants.on_publish, &again.topic) {
                    return Ok(Transformed::Pass);
                }
                Ok(served.on_publish(&again, now, Place::Aside)?.spelt_out(&again, now))
            };
            shadow.compare(HookPoint::OnPublish, live, move || about(&asked), again);
        }
        answer
    }

    fn ask_on_publish(&self, message: &Message, now: Now, place: Place) -> Result<Transformed, Failure> {
        let ask = |instance: &mut Live, call| match instance {
            Live::Wasm(instance) => instance.on_publish(call, message, now),
            Live::Native(instance) => {
                let user = convert::pairs(&message.properties.user);
                let asked = convert::message(message, Some(now), &user);
                instance.on_publish(call, &asked).map(convert::transformed)
            }
        };
        self.call(HookPoint::OnPublish, place, message.hops.saturating_add(1), ask, |answer| answer)
    }

    fn on_subscribe(&self, request: &Arc<FilterRequest>, place: Place) -> Result<FilterVerdict, Failure> {
        let answer = self.ask_on_subscribe(request, place);
        self.compare_filters(HookPoint::OnSubscribe, &answer, request, Self::on_subscribe);
        answer
    }

    fn compare_filters(
        &self,
        point: HookPoint,
        answer: &Result<FilterVerdict, Failure>,
        request: &Arc<FilterRequest>,
        ask: fn(&Self, &Arc<FilterRequest>, Place) -> Result<FilterVerdict, Failure>,
    ) {
        if let Some((shadow, live)) = self.to_compare(answer) {
            let (asked, again) = (Arc::clone(request), Arc::clone(request));
            let about = move || format!("client '{}', filter '{}'", asked.identity.client_id, asked.filter);
            shadow.compare(point, live, about, move |served| ask(served, &again, Place::Aside));
        }
    }

    fn ask_on_subscribe(&self, request: &FilterRequest, place: Place) -> Result<FilterVerdict, Failure> {
        let filter = request.filter.to_string();
        let peer = request.identity.peer.map(PeerText::of);
        let attributes = convert::pairs(&request.identity.lease.attributes);
        let who = convert::identity(&request.identity, peer.as_ref(), &attributes);
        let qos = convert::qos(request.qos.unwrap_or(weirmq_core::message::QoS::AtMostOnce));
        let ask = |instance: &mut Live, call| match instance {
            Live::Wasm(instance) => instance.call(call, |store, hooks| match &hooks.on_subscribe {
                Some(hook) => hook.call_on_subscribe(store, who, &filter, qos),
                None => Ok(hooks::on_subscribe::FilterVerdict::Pass),
            }),
            Live::Native(instance) => instance.on_subscribe(call, &who, &filter, qos),
        };
        self.call(HookPoint::OnSubscribe, place, 1, ask, convert::filter_verdict)
    }

    fn on_unsubscribe(&self, request: &Arc<FilterRequest>, place: Place) -> Result<FilterVerdict, Failure> {
        let answer = self.ask_on_unsubscribe(request, place);
        self.compare_filters(HookPoint::OnUnsubscribe, &answer, request, Self::on_unsubscribe);
        answer
    }

    fn ask_on_unsubscribe(&self, request: &FilterRequest, place: Place) -> Result<FilterVerdict, Failure> {
        let filter = request.filter.to_string();
        let peer = request.identity.peer.map(PeerText::of);
        let attributes = convert::pairs(&request.identity.lease.attributes);
        let who = convert::identity(&request.identity, peer.as_ref(), &attributes);
        let ask = |instance: &mut Live, call| match instance {
            Live::Wasm(instance) => instance.call(call, |store, hooks| match &hooks.on_unsubscribe {
                Some(hook) => hook.call_on_unsubscribe(store, who, &filter),
                None => Ok(hooks::on_unsubscribe::FilterVerdict::Pass),
            }),
            Live::Native(instance) => instance.on_unsubscribe(call, &who, &filter),
        };
        self.call(HookPoint::OnUnsubscribe, place, 1, ask, convert::filter_verdict)
    }

    fn on_deliver(&self, message: &Arc<Message>, receiver: &Identity, now: Now) -> Result<Delivery, Failure> {
        let answer = self.ask_on_deliver(message, receiver, now);
        if let Some((shadow, live)) = self.to_compare(&answer) {
            let (asked, again, receiver) = (Arc::clone(message), Arc::clone(message), receiver.clone());
            let client_id = Arc::clone(&receiver.client_id);
            let about = move || format!("{}, to client '{client_id}'", about(&asked));
            let again = move |served: &Arc<Self>| {
                if !grant::matches(&served.generation.load().wants.on_deliver, &again.topic) {
                    return Ok(Delivery::Pass);
                }
                served.on_deliver(&again, &receiver, now)
            };
            shadow.compare(HookPoint::OnDeliver, live, about, again);
        }
        answer
    }

    fn ask_on_deliver(&self, message: &Message, receiver: &Identity, now: Now) -> Result<Delivery, Failure> {
        let user = convert::pairs(&message.properties.user);
        let asked = convert::message(message, Some(now), &user);
        let peer = receiver.peer.map(PeerText::of);
        let attributes = convert::pairs(&receiver.lease.attributes);
        let who = convert::identity(receiver, peer.as_ref(), &attributes);
        let ask = |instance: &mut Live, call| match instance {
            Live::Wasm(instance) => instance.call(call, |store, hooks| match &hooks.on_deliver {
                Some(hook) => hook.call_on_deliver(store, asked, who),
                None => Ok(hooks::on_deliver::Verdict::Pass),
            }),
            Live::Native(instance) => instance.on_deliver(call, &asked, &who),
        };
        let hops = message.hops.saturating_add(1);
        let check = |answer| convert::delivery(answer, message);
        self.call(HookPoint::OnDeliver, Place::Worker, hops, ask, check)
    }

    fn before_store(&self, message: &Arc<Message>) -> Result<Persisted, Failure> {
        let answer = self.ask_before_store(message);
        if let Some((shadow, live)) = self.to_compare(&answer) {
            let (asked, again) = (Arc::clone(message), Arc::clone(message));
            let again = move |served: &Arc<Self>| {
                if !grant::matches(&served.generation.load().wants.persistence, &again.topic) {
                    return Ok(Persisted::Keep);
                }
                served.before_store(&again)
            };
            shadow.compare(HookPoint::Persistence, live, move || about(&asked), again);
        }
        answer
    }

    fn ask_before_store(&self, message: &Message) -> Result<Persisted, Failure> {
        let user = convert::pairs(&message.properties.user);
        let asked = convert::message(message, None, &user);
        let ask = |instance: &mut Live, call| match instance {
            Live::Wasm(instance) => instance.call(call, |store, hooks| match &hooks.persistence {
                Some(hook) => hook.call_before_store(store, asked),
                None => Ok(hooks::persistence::Stored::Keep),
            }),
            Live::Native(instance) => instance.before_store(call, &asked),
        };
        let hops = message.hops.saturating_add(1);
        let check = |answer| Ok(convert::persisted(answer));
        self.call(HookPoint::Persistence, Place::Worker, hops, ask, check)
    }

    fn after_load(&self, message: &Message) -> Result<Bytes, Failure> {
        let answer = self.ask_after_load(message);
        if let Some((shadow, live)) = self.to_compare(&answer) {
            let asked = Arc::new(message.clone());
            let again = Arc::clone(&asked);
            let again = move |served: &Arc<Self>| served.after_load(&again);
            shadow.compare(HookPoint::Persistence, live, move || about(&asked), again);
        }
        answer
    }

    fn ask_after_load(&self, message: &Message) -> Result<Bytes, Failure> {
        let user = convert::pairs(&message.properties.user);
        let asked = convert::message(message, None, &user);
        let ask = |instance: &mut Live, call| match instance {
            Live::Wasm(instance) => instance.call(call, |store, hooks| match &hooks.persistence {
                Some(hook) => hook.call_after_load(store, asked),
                None => Ok(Err("this version of the plugin does not serve persistence".to_owned())),
            }),
            Live::Native(instance) => instance.after_load(call, &asked),
        };
        let hops = message.hops.saturating_add(1);
        self.call(HookPoint::Persistence, Place::Worker, hops, ask, convert::loaded)
    }

    /// Calls the plugin's timer where it is time and no call of it runs.
    fn take_tick(self: &Arc<Self>, now: Now) {
        if let Some(shadow) = self.shadow() {
            let served = shadow.served();
            if served.generation.load().info.hooks.contains(HookPoint::Timer) {
                served.take_tick(now);
            }
        }
        let generation = self.generation.load();
        {
            let mut called_at = self.timer.called_at.lock();
            let is_due = called_at.is_none_or(|at| now.at.since(at) >= generation.wants.interval);
            if !is_due || self.timer.running.swap(true, Ordering::AcqRel) {
                return;
            }
            *called_at = Some(now.at);
        }
        let served = Arc::clone(self);
        let taken = self.shared.pool_for(&generation).submit(move || {
            // A failure is counted and logged already.
            let _ = served.tick(now.unix_ms);
            served.timer.running.store(false, Ordering::Release);
        });
        if taken.is_err() {
            self.timer.running.store(false, Ordering::Release);
        }
    }

    fn tick(&self, at_unix_ms: u64) -> Result<(), Failure> {
        let ask = |instance: &mut Live, call| match instance {
            Live::Wasm(instance) => instance.call(call, |store, hooks| match &hooks.timer {
                Some(hook) => hook.call_on_timer(store, at_unix_ms),
                None => Ok(()),
            }),
            Live::Native(instance) => instance.on_timer(call, at_unix_ms),
        };
        self.call(HookPoint::Timer, Place::Aside, 1, ask, Ok)
    }

    /// Puts `event` behind those that wait, and sees to it that somebody tells them in order.
    fn take_event(self: &Arc<Self>, event: &Event, now: Now) {
        if let Some(shadow) = self.shadow() {
            let served = shadow.served();
            if served.generation.load().wants.events.contains(event.kind()) {
                served.take_event(event, now);
            }
        }
        let mut events = self.events.lock();
        if events.waiting.len() >= EVENTS_MAX {
            self.counters.count_event_dropped();
            return;
        }
        events.waiting.push_back((event.clone(), now.unix_ms));
        if events.being_told {
            return;
        }
        let served = Arc::clone(self);
        // When no thread is free the events wait for the next one that comes.
        events.being_told = self.shared.pool.submit(move || served.tell_events()).is_ok();
    }

    fn tell_events(&self) {
        loop {
            let next = {
                let mut events = self.events.lock();
                let next = events.waiting.pop_front();
                events.being_told = next.is_some();
                next
            };
            let Some((event, at_unix_ms)) = next else { return };
            // A failure is counted and logged already; nobody waits for this answer.
            let _ = self.tell(&event, at_unix_ms);
        }
    }

    fn tell(&self, event: &Event, at_unix_ms: u64) -> Result<(), Failure> {
        use hooks::lifecycle::{Connected, Delivery as Way, Disconnected, Dropped, Event as Told};
        let who = match event {
            Event::Connected { identity, .. } | Event::Disconnected { identity, .. } => Some(identity),
            _ => None,
        };
        let peer = who.and_then(|who| who.peer).map(PeerText::of);
        let attributes = who.map_or_else(Vec::new, |who| convert::pairs(&who.lease.attributes));
        let told = match event {
            Event::Connected { identity, version } => Told::Connected(Connected {
                identity: convert::identity(identity, peer.as_ref(), &attributes),
                version: convert::version(*version),
            }),
            Event::Disconnected { identity, reason } => Told::Disconnected(Disconnected {
                identity: convert::identity(identity, peer.as_ref(), &attributes),
                reason,
            }),
            Event::SessionEnded { client_id } => Told::SessionEnded(client_id),
            Event::MessageDropped { client_id, topic, reason } => Told::MessageDropped(Dropped {
                client_id: client_id.as_deref(),
                topic,
                reason: reason.name(),
            }),
            Event::MessageDelivered { client_id, topic } => Told::MessageDelivered(Way { client_id, topic }),
            Event::MessageAcked { client_id, topic } => Told::MessageAcked(Way { client_id, topic }),
            // What this version of the interface has no word for.
            _ => return Ok(()),
        };
        let tell = |instance: &mut Live, call| match instance {
            Live::Wasm(instance) => instance.call(call, |store, hooks| match &hooks.lifecycle {
                Some(hook) => hook.call_on_event(store, told, at_unix_ms),
                None => Ok(()),
            }),
            Live::Native(instance) => instance.on_event(call, &told, at_unix_ms),
        };
        self.call(HookPoint::Lifecycle, Place::Aside, 1, tell, Ok)
    }

    /// Makes one call: past the quarantine, on an instance of the version that serves, with the answer checked.
    fn call<A, T>(
        &self,
        point: HookPoint,
        place: Place,
        hops: u8,
        ask: impl FnOnce(&mut Live, Call) -> Result<A, Failure>,
        check: impl FnOnce(A) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let door = self.quarantine.door();
        if door == Door::Closed {
            return Err(self.refusal(point));
        }
        let generation = self.generation.load();
        let call = Call { deadline_ms: generation.config.deadline_ms.at(point), place, hops };
        let watch = self.counters.begin_call(point);
        let wait = Duration::from_millis(call.deadline_ms.into());
        let answer =
            generation.instances.with(wait, || generation.origin.make(place), |instance| ask(instance, call));
        if let Some(begun) = watch {
            self.counters.time(point, begun.elapsed());
        }
        let answer = answer.and_then(check);
        match &answer {
            Ok(_) if door == Door::Trial => self.passed_trial(),
            Ok(_) => {}
            Err(failure) => self.failed(point, failure, &generation),
        }
        answer
    }

    fn refuse_in_quarantine(&self, point: HookPoint) -> Result<(), Failure> {
        if self.quarantine.refuses_now() { Err(self.refusal(point)) } else { Ok(()) }
    }

    fn refusal(&self, point: HookPoint) -> Failure {
        self.counters.count_failure(point, FailureKind::Unavailable);
        Failure::new(FailureKind::Unavailable, "it is in quarantine because it kept failing")
    }

    fn passed_trial(&self) {
        self.quarantine.passed_trial();
        tracing::info!(plugin = &*self.name, "the plugin works again; it is back in service");
    }

    fn failed(&self, point: HookPoint, failure: &Failure, generation: &Arc<Generation>) {
        self.counters.count_failure(point, failure.kind);
        if failure.kind == FailureKind::Unavailable {
            return;
        }
        tracing::warn!(
            plugin = &*self.name,
            hook = point.name(),
            kind = %failure.kind,
            detail = failure.detail,
            "a call into the plugin failed"
        );
        // What a version that has been replaced does is not held against its successor.
        if Arc::ptr_eq(generation, &self.generation.load()) && self.quarantine.failed() {
            let quarantine = &generation.config.quarantine;
            tracing::error!(
                plugin = &*self.name,
                failures = quarantine.failures,
                window_seconds = quarantine.window_seconds,
                retry_seconds = quarantine.retry_seconds,
                "the plugin keeps failing and is left alone for a while; its failure policy applies until then"
            );
            self.go_back_from(generation);
        }
    }

    /// Brings the version before back in the place of one that keeps failing. Only where that serves the same hook points
    /// and topics: otherwise the chains are to be built anew, which is for an operator to ask for.
    fn go_back_from(&self, failing: &Arc<Generation>) {
        // Whoever changes the plugin just now knows better.
        let Some(mut previous) = self.changing.try_lock() else { return };
        let still_serves = Arc::ptr_eq(failing, &self.generation.load());
        if let Some(back) = previous.take_if(|back| still_serves && back.is_in_place_of(failing)) {
            self.swap(back, &mut previous);
            // It failed in its time: a second rollback would bring it back.
            *previous = None;
            tracing::warn!(plugin = &*self.name, "the last good version of the plugin is back in service");
        }
    }
}

/// Which message a version in the shadow was asked about.
fn about(message: &Message) -> String {
    match message.publisher.client_id() {
        Some(client_id) => format!("topic '{}', from client '{client_id}'", message.topic),
        None => format!("topic '{}'", message.topic),
    }
}
