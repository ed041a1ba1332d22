//! One live instance, and calls into it.

use std::ffi::c_void;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use weirmq_core::hook::{EventKind, EventKinds, Failure, FailureKind, HookPoint, HookPoints};
use weirmq_core::topic::TopicFilter;
use weirmq_native::abi;

use super::host::{Context, HOST};
use super::library::{self, Exported};
use super::reply::{Answer, Reply, unfit};
use super::views;
use crate::bindings::exports::weirmq::plugin as hooks;
use crate::bindings::weirmq::plugin::types;
use crate::config::PluginConfig;
use crate::error::LoadError;
use crate::instance::Call;
use crate::load::{INTERVAL_MIN, Wants};

/// What instances of one version of a plugin are made from.
pub(crate) struct Version {
    exported: Exported,
    shared: Arc<Shared>,
    init_ms: u32,
}

/// What instances share. It stays where it is for as long as one of them lives.
pub(super) struct Shared {
    context: Context,
    config: String,
    output_bytes_max: usize,
}

/// One live instance. It is used for one call at a time.
pub(crate) struct Instance {
    table: &'static abi::Table,
    pub(super) state: *mut c_void,
    shared: Arc<Shared>,
}

// SAFETY: the header says that an instance is used on whatever thread, for one call at a time.
unsafe impl Send for Instance {}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Some(destroy) = self.table.destroy {
            // SAFETY: `create` has made it, no call is under way, and none follows.
            unsafe { destroy(self.state) }
        }
    }
}

/// An answer of the library, or why there is none that can be used.
pub(super) type Answered<T> = Result<T, Failure>;

impl Version {
    /// Maps the library of `config`, whose content is `bytes`, makes the first instance and asks it all that is asked
    /// once.
    pub(crate) fn load(
        config: &PluginConfig,
        bytes: &[u8],
        folder: Option<&Path>,
    ) -> Result<(Self, Wants, Instance), LoadError> {
        let version = Self::open(config, bytes, folder)?;
        if version.points() == HookPoints::NONE && !version.is_backend() {
            let hooks = crate::load::hook_names();
            return Err(LoadError::NoHooks { plugin: config.name.clone(), hooks });
        }
        let mut instance = version.first(config)?;
        let wants = instance.wants(config)?;
        Ok((version, wants, instance))
    }

    /// Maps the library of `config`, whose content is `bytes`.
    pub(super) fn open(
        config: &PluginConfig,
        bytes: &[u8],
        folder: Option<&Path>,
    ) -> Result<Self, LoadError> {
        let exported = library::open(config, bytes, folder)?;
        let shared = Shared {
            context: Context::new(&config.name, &config.config),
            config: serde_json::Value::Object(config.config.clone()).to_string(),
            output_bytes_max: config.output_bytes_max as usize,
        };
        Ok(Self { exported, shared: Arc::new(shared), init_ms: config.deadline_ms.init })
    }

    /// Makes the first instance, and asks it how it is.
    pub(super) fn first(&self, config: &PluginConfig) -> Result<Instance, LoadError> {
        let plugin = || config.name.clone();
        let failed = |step| move |failure| LoadError::Start { plugin: config.name.clone(), step, failure };
        let made = self.create().map_err(failed("create"))?;
        let mut instance = made.map_err(|reason| LoadError::Refused { plugin: plugin(), reason })?;
        let healthy = instance.health().map_err(failed("health"))?;
        healthy.map_err(|reason| LoadError::Unhealthy { plugin: plugin(), reason })?;
        Ok(instance)
    }

    /// What the library exports.
    pub(super) fn table(&self) -> &'static abi::Table {
        self.exported.table
    }

    /// Whether the broker's store can stand on it.
    pub(crate) fn is_backend(&self) -> bool {
        let table = self.table();
        table.backend_open.is_some()
            && table.backend_get.is_some()
            && table.backend_write.is_some()
            && table.backend_scan.is_some()
    }

    pub(crate) fn name(&self) -> &'static str {
        self.exported.name
    }

    pub(crate) fn version(&self) -> &'static str {
        self.exported.version
    }

    /// What it serves.
    pub(crate) fn points(&self) -> HookPoints {
        let table = self.exported.table;
        [
            (HookPoint::Authenticate, table.authenticate.is_some()),
            (HookPoint::Authorize, table.authorize.is_some()),
            (HookPoint::OnPublish, table.on_publish.is_some()),
            (HookPoint::OnDeliver, table.on_deliver.is_some()),
            (HookPoint::OnSubscribe, table.on_subscribe.is_some()),
            (HookPoint::OnUnsubscribe, table.on_unsubscribe.is_some()),
            (HookPoint::Persistence, table.before_store.is_some() && table.after_load.is_some()),
            (HookPoint::Lifecycle, table.on_event.is_some()),
            (HookPoint::Timer, table.on_timer.is_some()),
        ]
        .into_iter()
        .filter_map(|(point, served)| served.then_some(point))
        .collect()
    }

    /// Makes an instance that is ready for calls.
    pub(crate) fn make(&self) -> Answered<Instance> {
        self.create()?
            .map_err(|reason| Failure::new(FailureKind::Unavailable, format!("create refused: {reason}")))
    }

    /// Makes an instance; the inner error is the plugin's own.
    fn create(&self) -> Answered<Result<Instance, String>> {
        let (table, shared) = (self.exported.table, &self.shared);
        let mut state = std::ptr::null_mut();
        if let Some(create) = table.create {
            let (context, config) = (shared.context.as_ptr(), abi::Text::text(&shared.config));
            let answer = shared.answer(self.init_ms, |reply| {
                // SAFETY: the table's own function, called as the header says; the context outlives the instance,
                // which holds it.
                unsafe { create(&raw const HOST, context, config, &raw mut state, reply) }
            });
            match answer? {
                Answer::None => {}
                Answer::Refuse(reason) => return Ok(Err(reason)),
                other => return unfit(&other),
            }
        }
        Ok(Ok(Instance { table, state, shared: Arc::clone(shared) }))
    }
}

impl Shared {
    /// What `call` answers. It cannot be cut off; what comes too late is not taken.
    fn answer(&self, deadline_ms: u32, call: impl FnOnce(*mut abi::Reply)) -> Answered<Answer> {
        let mut reply = Reply::new(self.output_bytes_max);
        let begun = Clock::now();
        call((&raw mut reply).cast());
        if begun.elapsed() > Duration::from_millis(deadline_ms.into()) {
            let late = format!("it ran for more than {deadline_ms} ms (native code cannot be cut off)");
            return Err(Failure::new(FailureKind::Deadline, late));
        }
        reply.finish()
    }
}

impl Instance {
    fn answer(&self, call: Call, make: impl FnOnce(*mut abi::Reply)) -> Answered<Answer> {
        self.shared.answer(call.deadline_ms, make)
    }

    fn ask_once(&self, ask: Option<abi::Ask>) -> Answered<Answer> {
        let Some(ask) = ask else { return Ok(Answer::None) };
        // SAFETY: the table's own function with the instance that it has made.
        self.shared.answer(u32::MAX, |reply| unsafe { ask(self.state, &raw const HOST, reply) })
    }

    fn health(&mut self) -> Answered<Result<(), String>> {
        match self.ask_once(self.table.health)? {
            Answer::None => Ok(Ok(())),
            Answer::Refuse(reason) => Ok(Err(reason)),
            other => unfit(&other),
        }
    }

    fn wants(&mut self, config: &PluginConfig) -> Result<Wants, LoadError> {
        let table = self.table;
        let interval = Duration::from_millis(table.timer_interval_ms.into());
        Ok(Wants {
            on_publish: self.topics(config, table.on_publish.is_some(), table.publish_topics)?,
            on_deliver: self.topics(config, table.on_deliver.is_some(), table.deliver_topics)?,
            persistence: self.topics(config, table.before_store.is_some(), table.store_topics)?,
            events: events(table),
            interval: interval.max(INTERVAL_MIN),
        })
    }

    fn topics(
        &mut self,
        config: &PluginConfig,
        served: bool,
        ask: Option<abi::Ask>,
    ) -> Result<Vec<TopicFilter>, LoadError> {
        let plugin = || config.name.clone();
        let failed = |failure| LoadError::Start { plugin: plugin(), step: "topics", failure };
        let filters = match self.ask_once(ask).map_err(failed)? {
            _ if !served => Vec::new(),
            Answer::Want(filters) => filters,
            Answer::None if ask.is_none() => vec!["#".to_owned()],
            Answer::None => Vec::new(),
            other => unfit(&other).map_err(failed)?,
        };
        let parse = |filter: String| {
            TopicFilter::new(&filter).map_err(|source| LoadError::Topics { plugin: plugin(), filter, source })
        };
        filters.into_iter().map(parse).collect()
    }

    pub(crate) fn authenticate(
        &mut self,
        call: Call,
        request: &hooks::authenticate::Request<'_>,
    ) -> Answered<hooks::authenticate::Answer> {
        use hooks::authenticate::Answer as Said;
        let Some(hook) = self.table.authenticate else { return Ok(Said::Next) };
        let user = views::pairs(request.user_properties);
        let exchange = request.exchange.as_ref().map(views::exchange);
        let login = views::login(request, &user, exchange.as_ref());
        // SAFETY: the table's own function with the instance that it has made, called as the header says.
        let said = self.answer(call, |reply| unsafe { hook(self.state, &login, &raw const HOST, reply) });
        match said? {
            Answer::Welcome(lease, data) => Ok(Said::Allow(hooks::authenticate::Welcome { lease, data })),
            Answer::Deny(denial) => Ok(Said::Deny(denial)),
            Answer::Proceed(data) => Ok(Said::Continue(data)),
            Answer::Next => Ok(Said::Next),
            other => unfit(&other),
        }
    }

    pub(crate) fn authorize(
        &mut self,
        call: Call,
        who: &types::Identity<'_>,
        what: &hooks::authorize::Action<'_>,
    ) -> Answered<hooks::authorize::Decision> {
        use hooks::authorize::Decision;
        let Some(hook) = self.table.authorize else { return Ok(Decision::Next) };
        let attributes = views::pairs(who.attributes);
        let (who, what) = (views::identity(who, &attributes), views::action(what));
        // SAFETY: as in `authenticate`.
        let said =
            self.answer(call, |reply| unsafe { hook(self.state, &who, &what, &raw const HOST, reply) });
        match said? {
            Answer::Allow => Ok(Decision::Allow),
            Answer::Deny(denial) => Ok(Decision::Deny(denial)),
            Answer::Next => Ok(Decision::Next),
            other => unfit(&other),
        }
    }

    pub(crate) fn on_publish(
        &mut self,
        call: Call,
        message: &types::Message<'_>,
    ) -> Answered<hooks::on_publish::Verdict> {
        use hooks::on_publish::Verdict;
        match self.ask_about(call, self.table.on_publish, message)? {
            Answer::Pass => Ok(Verdict::Pass),
            Answer::Deny(denial) => Ok(Verdict::Drop(denial)),
            Answer::Emit(drafts) => Ok(match <[types::Draft; 1]>::try_from(drafts) {
                Ok([draft]) => Verdict::Replace(draft),
                Err(drafts) => Verdict::Several(drafts),
            }),
            other => unfit(&other),
        }
    }

    pub(crate) fn on_deliver(
        &mut self,
        call: Call,
        message: &types::Message<'_>,
        receiver: &types::Identity<'_>,
    ) -> Answered<hooks::on_deliver::Verdict> {
        use hooks::on_deliver::Verdict;
        let Some(hook) = self.table.on_deliver else { return Ok(Verdict::Pass) };
        let (user, attributes) = (views::pairs(message.properties.user), views::pairs(receiver.attributes));
        let (message, receiver) = (views::message(message, &user), views::identity(receiver, &attributes));
        let said = self.answer(call, |reply| {
            // SAFETY: as in `authenticate`.
            unsafe { hook(self.state, &message, &receiver, &raw const HOST, reply) }
        });
        match said? {
            Answer::Pass => Ok(Verdict::Pass),
            Answer::Deny(denial) => Ok(Verdict::Drop(denial.reason)),
            Answer::Emit(drafts) => match <[types::Draft; 1]>::try_from(drafts) {
                Ok([types::Draft { payload, properties, .. }]) => {
                    Ok(Verdict::Replace(types::Content { payload, properties }))
                }
                Err(drafts) => unfit(&Answer::Emit(drafts)),
            },
            other => unfit(&other),
        }
    }

    pub(crate) fn on_subscribe(
        &mut self,
        call: Call,
        who: &types::Identity<'_>,
        filter: &str,
        qos: types::Qos,
    ) -> Answered<types::FilterVerdict> {
        let Some(hook) = self.table.on_subscribe else { return Ok(types::FilterVerdict::Pass) };
        let attributes = views::pairs(who.attributes);
        let (who, filter) = (views::identity(who, &attributes), abi::Text::text(filter));
        filter_verdict(self.answer(call, |reply| {
            // SAFETY: as in `authenticate`.
            unsafe { hook(self.state, &who, filter, views::qos(qos), &raw const HOST, reply) }
        })?)
    }

    pub(crate) fn on_unsubscribe(
        &mut self,
        call: Call,
        who: &types::Identity<'_>,
        filter: &str,
    ) -> Answered<types::FilterVerdict> {
        let Some(hook) = self.table.on_unsubscribe else { return Ok(types::FilterVerdict::Pass) };
        let attributes = views::pairs(who.attributes);
        let (who, filter) = (views::identity(who, &attributes), abi::Text::text(filter));
        filter_verdict(self.answer(call, |reply| {
            // SAFETY: as in `authenticate`.
            unsafe { hook(self.state, &who, filter, &raw const HOST, reply) }
        })?)
    }

    pub(crate) fn before_store(
        &mut self,
        call: Call,
        message: &types::Message<'_>,
    ) -> Answered<hooks::persistence::Stored> {
        use hooks::persistence::Stored;
        match self.ask_about(call, self.table.before_store, message)? {
            Answer::Pass => Ok(Stored::Keep),
            Answer::Replace(payload) => Ok(Stored::Replace(payload)),
            Answer::Skip => Ok(Stored::Skip),
            other => unfit(&other),
        }
    }

    pub(crate) fn after_load(
        &mut self,
        call: Call,
        message: &types::Message<'_>,
    ) -> Answered<Result<Vec<u8>, String>> {
        match self.ask_about(call, self.table.after_load, message)? {
            Answer::Pass => Ok(Ok(message.payload.to_vec())),
            Answer::Replace(payload) => Ok(Ok(payload)),
            Answer::Refuse(reason) => Ok(Err(reason)),
            other => unfit(&other),
        }
    }

    fn ask_about(
        &mut self,
        call: Call,
        hook: Option<abi::OnMessage>,
        message: &types::Message<'_>,
    ) -> Answered<Answer> {
        let Some(hook) = hook else { return Ok(Answer::Pass) };
        let user = views::pairs(message.properties.user);
        let message = views::message(message, &user);
        // SAFETY: as in `authenticate`.
        self.answer(call, |reply| unsafe { hook(self.state, &message, &raw const HOST, reply) })
    }

    pub(crate) fn on_event(
        &mut self,
        call: Call,
        event: &hooks::lifecycle::Event<'_>,
        at_unix_ms: u64,
    ) -> Answered<()> {
        let Some(hook) = self.table.on_event else { return Ok(()) };
        let who = views::concerned(event);
        let attributes = who.map_or_else(Vec::new, |who| views::pairs(who.attributes));
        let identity = who.map(|who| views::identity(who, &attributes));
        let event = views::event(event, identity.as_ref(), at_unix_ms);
        // SAFETY: as in `authenticate`.
        self.answer(call, |_| unsafe { hook(self.state, &event, &raw const HOST) }).map(drop)
    }

    pub(crate) fn on_timer(&mut self, call: Call, at_unix_ms: u64) -> Answered<()> {
        let Some(hook) = self.table.on_timer else { return Ok(()) };
        // SAFETY: as in `authenticate`.
        self.answer(call, |_| unsafe { hook(self.state, at_unix_ms, &raw const HOST) }).map(drop)
    }
}

fn filter_verdict(answer: Answer) -> Answered<types::FilterVerdict> {
    match answer {
        Answer::Pass => Ok(types::FilterVerdict::Pass),
        Answer::Rewrite(filter) => Ok(types::FilterVerdict::Rewrite(filter)),
        Answer::Deny(denial) => Ok(types::FilterVerdict::Deny(denial)),
        other => unfit(&other),
    }
}

fn events(table: &abi::Table) -> EventKinds {
    [
        (abi::CONNECTED, EventKind::Connected),
        (abi::DISCONNECTED, EventKind::Disconnected),
        (abi::SESSION_ENDED, EventKind::SessionEnded),
        (abi::MESSAGE_DROPPED, EventKind::MessageDropped),
        (abi::MESSAGE_DELIVERED, EventKind::MessageDelivered),
        (abi::MESSAGE_ACKED, EventKind::MessageAcked),
    ]
    .into_iter()
    .filter_map(|(bit, kind)| (table.on_event.is_some() && table.events & (1 << bit) != 0).then_some(kind))
    .collect()
}
