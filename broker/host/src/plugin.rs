//! A plugin in service: the hook that the broker's chains hold, whatever version of the file serves behind it.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use weirmq_core::hook::{
    Action, AuthenticateRequest, Authentication, AuthorizeRequest, Decision, Event, Failure, FailureKind,
    FilterRequest, FilterVerdict, Hook, HookPoint, HookPoints, Reply, Transform, Transformed,
};
use weirmq_core::message::Message;
use weirmq_core::time::Now;
use weirmq_core::topic::TopicName;

use crate::bindings::exports::weirmq::plugin as hooks;
use crate::config::PluginConfig;
use crate::convert;
use crate::error::LoadError;
use crate::host::Shared;
use crate::instance::Instance;
use crate::instances::thread_index;
use crate::load::Generation;
use crate::quarantine::{Door, Quarantine};

/// How many events may wait for a plugin before the newest are left out.
const EVENTS_MAX: usize = 4096;

/// A plugin in service. It stays the same object while versions of the plugin come and go.
pub struct PluginHook {
    served: Arc<Served>,
    transform: Arc<dyn Transform>,
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
    /// Where it came from.
    pub file: PathBuf,
    /// What it serves.
    pub hooks: HookPoints,
    /// The topic filters whose messages it wants to see.
    pub topics: Vec<String>,
    /// The size of its file.
    pub bytes: u64,
    /// How long it took to compile, or to find in the cache.
    pub compiled_in: Duration,
    /// When it was taken into service: milliseconds since 1970-01-01T00:00:00Z.
    pub loaded_unix_ms: u64,
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
        self.before.topics != self.after.topics
    }
}

/// What has happened to a plugin's calls since it was first loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginStats {
    /// Calls made, by hook point.
    pub calls: Vec<(HookPoint, u64)>,
    /// Calls that failed, by kind; [`FailureKind::Unavailable`] counts those that were not made at all.
    pub failures: Vec<(FailureKind, u64)>,
    /// Events that were left out because the plugin was too slow for them.
    pub events_dropped: u64,
    /// How often another version was taken into service.
    pub reloads: u64,
    /// Whether it is in quarantine.
    pub quarantined: bool,
}

impl PluginHook {
    pub(crate) fn new(shared: Arc<Shared>, config: PluginConfig, generation: Generation) -> Arc<Self> {
        let served = Arc::new(Served {
            name: Arc::from(config.name.as_str()),
            quarantine: Quarantine::new(config.quarantine.clone()),
            generation: ArcSwap::from_pointee(generation),
            counters: Counters::new(config.instances_max as usize),
            events: Mutex::default(),
            reloading: Mutex::new(()),
            shared,
            config,
        });
        let transform = Arc::new(BoundTransform(Arc::clone(&served)));
        Arc::new(Self { served, transform })
    }

    /// Reads the plugin's file anew and, when the version in it is fit to serve, swaps it in. Calls in flight end
    /// on the old version. Takes as long as compiling does: not for a worker of the broker.
    ///
    /// # Errors
    /// [`LoadError`]: the version that served goes on serving.
    pub fn reload(&self) -> Result<Change, LoadError> {
        let served = &self.served;
        let _one_at_a_time = served.reloading.lock();
        let next = served.shared.load(&served.config)?;
        let after = next.info.clone();
        let before = served.generation.swap(Arc::new(next)).info.clone();
        served.quarantine.reset();
        served.counters.reloads.fetch_add(1, Ordering::Relaxed);
        tracing::info!(
            plugin = &*served.name,
            before = before.version,
            after = after.version,
            "another version of the plugin serves"
        );
        Ok(Change { before, after })
    }

    /// The version that serves.
    #[must_use]
    pub fn info(&self) -> PluginInfo {
        self.served.generation.load().info.clone()
    }

    /// The configuration that it was loaded with.
    #[must_use]
    pub fn config(&self) -> &PluginConfig {
        &self.served.config
    }

    /// What has happened so far.
    #[must_use]
    pub fn stats(&self) -> PluginStats {
        self.served.counters.read(self.served.quarantine.is_closed())
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
        if let Err(failure) = self.served.refuse_in_quarantine() {
            return Reply::failed(failure);
        }
        let (served, request) = (Arc::clone(&self.served), Arc::clone(request));
        self.served.shared.pool.ask(move || served.authenticate(&request))
    }

    fn authorize(&self, request: &Arc<AuthorizeRequest>) -> Reply<Decision> {
        Reply::Now(self.served.authorize(request))
    }

    fn on_publish(self: Arc<Self>, topic: &TopicName) -> Option<Arc<dyn Transform>> {
        let generation = self.served.generation.load();
        let wanted = generation.topics.iter().any(|filter| filter.matches(topic));
        wanted.then(|| Arc::clone(&self.transform))
    }

    fn on_subscribe(&self, request: &Arc<FilterRequest>) -> Reply<FilterVerdict> {
        Reply::Now(self.served.on_subscribe(request))
    }

    fn on_unsubscribe(&self, request: &Arc<FilterRequest>) -> Reply<FilterVerdict> {
        Reply::Now(self.served.on_unsubscribe(request))
    }

    fn on_event(&self, event: &Event, now: Now) {
        self.served.take_event(event, now);
    }
}

/// The plugin's `on-publish` for one topic. It follows reloads.
struct BoundTransform(Arc<Served>);

impl Transform for BoundTransform {
    fn transform(&self, message: &Arc<Message>, now: Now) -> Reply<Transformed> {
        Reply::Now(self.0.on_publish(message, now))
    }
}

/// All that calls need; shared with calls that run beside the workers.
struct Served {
    name: Arc<str>,
    config: PluginConfig,
    shared: Arc<Shared>,
    generation: ArcSwap<Generation>,
    quarantine: Quarantine,
    counters: Counters,
    events: Mutex<Events>,
    reloading: Mutex<()>,
}

#[derive(Default)]
struct Events {
    waiting: VecDeque<(Event, u64)>,
    being_told: bool,
}

impl Served {
    fn authenticate(&self, request: &AuthenticateRequest) -> Result<Authentication, Failure> {
        let peer = request.peer.map(|peer| peer.to_string());
        let user_properties = convert::pairs(&request.user_properties);
        let asked = hooks::authenticate::Request {
            client_id: &request.client_id,
            username: request.username.as_deref(),
            password: request.password.as_deref(),
            version: convert::version(request.version),
            clean_start: request.clean_start,
            peer: peer.as_deref(),
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
        let ask = |instance: &mut Instance, deadline_ms| {
            instance.call(deadline_ms, |store, hooks| match &hooks.authenticate {
                Some(hook) => hook.call_authenticate(store, asked),
                None => Ok(hooks::authenticate::Answer::Next),
            })
        };
        let in_exchange = request.exchange.is_some();
        self.call(HookPoint::Authenticate, ask, |answer| convert::authentication(answer, in_exchange))
    }

    fn authorize(&self, request: &AuthorizeRequest) -> Result<Decision, Failure> {
        use hooks::authorize::{Action as Asked, PublishAction, SubscribeAction};
        let identity = &request.identity;
        let peer = identity.peer.map(|peer| peer.to_string());
        let attributes = convert::pairs(&identity.lease.attributes);
        let who = convert::identity(identity, peer.as_deref(), &attributes);
        let what = match &request.action {
            Action::Publish { topic, qos, retain } => {
                Asked::Publish(PublishAction { topic, qos: convert::qos(*qos), retain: *retain })
            }
            Action::Subscribe { filter, qos } => Asked::Subscribe(SubscribeAction {
                filter: &filter.filter,
                share: filter.share.as_deref(),
                qos: convert::qos(*qos),
            }),
        };
        let ask = |instance: &mut Instance, deadline_ms| {
            instance.call(deadline_ms, |store, hooks| match &hooks.authorize {
                Some(hook) => hook.call_authorize(store, who, what),
                None => Ok(hooks::authorize::Decision::Next),
            })
        };
        self.call(HookPoint::Authorize, ask, convert::decision)
    }

    fn on_publish(&self, message: &Message, now: Now) -> Result<Transformed, Failure> {
        let user = convert::pairs(&message.properties.user);
        let message = convert::message(message, now, &user);
        let ask = |instance: &mut Instance, deadline_ms| {
            instance.call(deadline_ms, |store, hooks| match &hooks.on_publish {
                Some(hook) => hook.call_on_publish(store, message),
                None => Ok(hooks::on_publish::Verdict::Pass),
            })
        };
        self.call(HookPoint::OnPublish, ask, convert::transformed)
    }

    fn on_subscribe(&self, request: &FilterRequest) -> Result<FilterVerdict, Failure> {
        let filter = request.filter.to_string();
        let peer = request.identity.peer.map(|peer| peer.to_string());
        let attributes = convert::pairs(&request.identity.lease.attributes);
        let who = convert::identity(&request.identity, peer.as_deref(), &attributes);
        let qos = convert::qos(request.qos.unwrap_or(weirmq_core::message::QoS::AtMostOnce));
        let ask = |instance: &mut Instance, deadline_ms| {
            instance.call(deadline_ms, |store, hooks| match &hooks.on_subscribe {
                Some(hook) => hook.call_on_subscribe(store, who, &filter, qos),
                None => Ok(hooks::on_subscribe::FilterVerdict::Pass),
            })
        };
        self.call(HookPoint::OnSubscribe, ask, convert::filter_verdict)
    }

    fn on_unsubscribe(&self, request: &FilterRequest) -> Result<FilterVerdict, Failure> {
        let filter = request.filter.to_string();
        let peer = request.identity.peer.map(|peer| peer.to_string());
        let attributes = convert::pairs(&request.identity.lease.attributes);
        let who = convert::identity(&request.identity, peer.as_deref(), &attributes);
        let ask = |instance: &mut Instance, deadline_ms| {
            instance.call(deadline_ms, |store, hooks| match &hooks.on_unsubscribe {
                Some(hook) => hook.call_on_unsubscribe(store, who, &filter),
                None => Ok(hooks::on_unsubscribe::FilterVerdict::Pass),
            })
        };
        self.call(HookPoint::OnUnsubscribe, ask, convert::filter_verdict)
    }

    /// Puts `event` behind those that wait, and sees to it that somebody tells them in order.
    fn take_event(self: &Arc<Self>, event: &Event, now: Now) {
        let mut events = self.events.lock();
        if events.waiting.len() >= EVENTS_MAX {
            self.counters.events_dropped.fetch_add(1, Ordering::Relaxed);
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
        use hooks::lifecycle::{Connected, Disconnected, Event as Told};
        let who = match event {
            Event::Connected { identity, .. } | Event::Disconnected { identity, .. } => Some(identity),
            _ => None,
        };
        let peer = who.and_then(|who| who.peer).map(|peer| peer.to_string());
        let attributes = who.map_or_else(Vec::new, |who| convert::pairs(&who.lease.attributes));
        let told = match event {
            Event::Connected { identity, version } => Told::Connected(Connected {
                identity: convert::identity(identity, peer.as_deref(), &attributes),
                version: convert::version(*version),
            }),
            Event::Disconnected { identity, reason } => Told::Disconnected(Disconnected {
                identity: convert::identity(identity, peer.as_deref(), &attributes),
                reason,
            }),
            Event::SessionEnded { client_id } => Told::SessionEnded(client_id),
            // What this version of the interface has no word for.
            _ => return Ok(()),
        };
        let tell = |instance: &mut Instance, deadline_ms| {
            instance.call(deadline_ms, |store, hooks| match &hooks.lifecycle {
                Some(hook) => hook.call_on_event(store, told, at_unix_ms),
                None => Ok(()),
            })
        };
        self.call(HookPoint::Lifecycle, tell, Ok)
    }

    /// Makes one call: past the quarantine, on an instance of the version that serves, with the answer checked.
    fn call<A, T>(
        &self,
        point: HookPoint,
        ask: impl FnOnce(&mut Instance, u32) -> Result<A, Failure>,
        check: impl FnOnce(A) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let door = self.quarantine.door();
        if door == Door::Closed {
            return Err(self.refusal());
        }
        let deadline_ms = self.config.deadline_ms.at(point);
        let generation = self.generation.load();
        self.counters.count_call(point);
        let wait = Duration::from_millis(deadline_ms.into());
        let answer = generation.instances.with(
            wait,
            || generation.blueprint.make(),
            |instance| ask(instance, deadline_ms),
        );
        let answer = answer.and_then(check);
        match &answer {
            Ok(_) if door == Door::Trial => self.passed_trial(),
            Ok(_) => {}
            Err(failure) => self.failed(point, failure, &generation),
        }
        answer
    }

    fn refuse_in_quarantine(&self) -> Result<(), Failure> {
        if self.quarantine.refuses_now() { Err(self.refusal()) } else { Ok(()) }
    }

    fn refusal(&self) -> Failure {
        self.counters.count_failure(FailureKind::Unavailable);
        Failure::new(FailureKind::Unavailable, "it is in quarantine because it kept failing")
    }

    fn passed_trial(&self) {
        self.quarantine.passed_trial();
        tracing::info!(plugin = &*self.name, "the plugin works again; it is back in service");
    }

    fn failed(&self, point: HookPoint, failure: &Failure, generation: &Arc<Generation>) {
        self.counters.count_failure(failure.kind);
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
            tracing::error!(
                plugin = &*self.name,
                failures = self.config.quarantine.failures,
                window_seconds = self.config.quarantine.window_seconds,
                retry_seconds = self.config.quarantine.retry_seconds,
                "the plugin keeps failing and is left alone for a while; its failure policy applies until then"
            );
        }
    }
}

/// Counts, in as many places as there may be threads, so that they do not meet.
struct Counters {
    shards: Box<[Shard]>,
    failures: [AtomicU64; KINDS.len()],
    events_dropped: AtomicU64,
    reloads: AtomicU64,
}

#[repr(align(128))]
#[derive(Default)]
struct Shard([AtomicU64; HookPoint::ALL.len()]);

const KINDS: [FailureKind; 7] = [
    FailureKind::Deadline,
    FailureKind::Memory,
    FailureKind::Operations,
    FailureKind::Crash,
    FailureKind::BadAnswer,
    FailureKind::OutputTooLarge,
    FailureKind::Unavailable,
];

impl Counters {
    fn new(shards: usize) -> Self {
        Self {
            shards: (0..shards.max(1)).map(|_| Shard::default()).collect(),
            failures: Default::default(),
            events_dropped: AtomicU64::new(0),
            reloads: AtomicU64::new(0),
        }
    }

    fn count_call(&self, point: HookPoint) {
        let shard = self.shards.get(thread_index() % self.shards.len());
        if let Some(count) = shard.and_then(|shard| shard.0.get(point as usize)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn count_failure(&self, kind: FailureKind) {
        for (counted, count) in KINDS.iter().zip(&self.failures) {
            if *counted == kind {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn read(&self, quarantined: bool) -> PluginStats {
        let calls = |point: HookPoint| {
            let counts = self.shards.iter().filter_map(|shard| shard.0.get(point as usize));
            counts.map(|count| count.load(Ordering::Relaxed)).sum::<u64>()
        };
        let failures = KINDS.iter().zip(&self.failures);
        PluginStats {
            calls: HookPoint::ALL
                .map(|point| (point, calls(point)))
                .into_iter()
                .filter(|(_, n)| *n > 0)
                .collect(),
            failures: failures
                .map(|(kind, count)| (*kind, count.load(Ordering::Relaxed)))
                .filter(|(_, count)| *count > 0)
                .collect(),
            events_dropped: self.events_dropped.load(Ordering::Relaxed),
            reloads: self.reloads.load(Ordering::Relaxed),
            quarantined,
        }
    }
}
