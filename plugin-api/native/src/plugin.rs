//! The trait, and the way from the table to it.

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::abi;
use crate::answer::{Answer, Topics};
use crate::views::{Action, Event, Identity, Login, Message};

/// A plugin. The broker makes several of it and uses each for one call at a time. What is not named in
/// [`export_native!`](crate::export_native) is not called.
pub trait Plugin: Sized + Send + 'static {
    /// Makes one. `config` is its table of the configuration as the text of a JSON object.
    ///
    /// # Errors
    /// What is wrong with the configuration, for the operator.
    fn create(config: &str, broker: Broker) -> Result<Self, String>;

    /// Who is this? Answers: welcome, deny, proceed, next.
    fn authenticate(&mut self, login: Login<'_>, answer: Answer<'_>) {
        let _ = login;
        answer.next();
    }

    /// May they? Answers: allow, deny, next.
    fn authorize(&mut self, who: Identity<'_>, what: Action<'_>, answer: Answer<'_>) {
        let _ = (who, what);
        answer.next();
    }

    /// Which messages `on_publish` is to see.
    fn publish_topics(&mut self, topics: &mut Topics<'_>) {
        topics.want("#");
    }

    /// What is to become of this message? Answers: pass, emit, deny.
    fn on_publish(&mut self, message: Message<'_>, answer: Answer<'_>) {
        let _ = message;
        answer.pass();
    }

    /// Which messages `on_deliver` is to see.
    fn deliver_topics(&mut self, topics: &mut Topics<'_>) {
        topics.want("#");
    }

    /// What is this receiver to get? Answers: pass, emit (one), deny.
    fn on_deliver(&mut self, message: Message<'_>, receiver: Identity<'_>, answer: Answer<'_>) {
        let _ = (message, receiver);
        answer.pass();
    }

    /// One filter of a SUBSCRIBE. Answers: pass, rewrite, deny.
    fn on_subscribe(&mut self, who: Identity<'_>, filter: &str, qos: u8, answer: Answer<'_>) {
        let _ = (who, filter, qos);
        answer.pass();
    }

    /// One filter of an UNSUBSCRIBE. Answers: pass, rewrite, deny.
    fn on_unsubscribe(&mut self, who: Identity<'_>, filter: &str, answer: Answer<'_>) {
        let _ = (who, filter);
        answer.pass();
    }

    /// Something is about to be made durable. Answers: pass, replace, skip.
    fn before_store(&mut self, message: Message<'_>, answer: Answer<'_>) {
        let _ = message;
        answer.pass();
    }

    /// It was read back. Answers: pass, replace, refuse.
    fn after_load(&mut self, message: Message<'_>, answer: Answer<'_>) {
        let _ = message;
        answer.pass();
    }

    /// Something happened.
    fn on_event(&mut self, event: Event<'_>) {
        let _ = event;
    }

    /// About once a second.
    fn on_timer(&mut self, now_unix_ms: u64) {
        let _ = now_unix_ms;
    }
}

/// How much a line of the log matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Level {
    /// Something is broken.
    Error,
    /// Something is not as it should be.
    Warn,
    /// Something that an operator wants to know.
    Info,
    /// For who looks for a fault.
    Debug,
    /// For who looks very closely.
    Trace,
}

/// What the broker offers. There for as long as the plugin; not for threads that outlive it.
#[derive(Debug, Clone, Copy)]
pub struct Broker {
    host: *const abi::Host,
    context: *const abi::Context,
}

// SAFETY: the header says that these functions may be called on any thread.
unsafe impl Send for Broker {}
// SAFETY: as for `Send`.
unsafe impl Sync for Broker {}

impl Broker {
    /// Writes to the broker's log.
    pub fn log(self, level: Level, text: &str) {
        // SAFETY: both pointers are the broker's own, and live until `destroy` has returned.
        unsafe { ((*self.host).log)(self.context, level as u8, abi::Text::text(text)) }
    }

    /// The value of a key of the plugin's configuration as JSON text.
    #[must_use]
    pub fn config(self, key: &str) -> Option<String> {
        // SAFETY: as in `log`; the text is copied at once.
        let value = unsafe { ((*self.host).config)(self.context, abi::Text::text(key)).get() }?;
        String::from_utf8(value.to_vec()).ok()
    }
}

/// A plugin, and what its functions need beside it: what `instance` points to.
struct Boxed<P> {
    plugin: P,
    broker: Broker,
}

/// Makes a plugin, or refuses.
///
/// # Safety
/// Called by the broker as the header says.
pub unsafe extern "C" fn create<P: Plugin>(
    host: *const abi::Host,
    context: *const abi::Context,
    config: abi::Text<'_>,
    instance: *mut *mut c_void,
    reply: *mut abi::Reply,
) {
    let broker = Broker { host, context };
    // SAFETY: the broker's text.
    let config = unsafe { config.get() }.and_then(|config| std::str::from_utf8(config).ok()).unwrap_or("{}");
    let made = catch_unwind(|| P::create(config, broker)).unwrap_or_else(|_| Err("it panicked".to_owned()));
    match made {
        // SAFETY: the broker gives a place for the instance.
        Ok(plugin) => unsafe { *instance = Box::into_raw(Box::new(Boxed { plugin, broker })).cast() },
        // SAFETY: the broker's own table.
        Err(reason) => Answer::new(unsafe { &*host }, reply).refuse(&reason),
    }
}

/// Ends a plugin.
///
/// # Safety
/// Called by the broker as the header says.
pub unsafe extern "C" fn destroy<P: Plugin>(instance: *mut c_void) {
    // SAFETY: `create` has made it, and nobody uses it any more.
    let plugin = unsafe { Box::from_raw(instance.cast::<Boxed<P>>()) };
    let _ = catch_unwind(AssertUnwindSafe(|| drop(plugin)));
}

/// Runs `call` on the plugin. A panic leaves the call without an answer, which is a failure.
///
/// # Safety
/// `instance` is what `create` has made, and used by nobody else.
pub(crate) unsafe fn with<P: Plugin>(instance: *mut c_void, call: impl FnOnce(&mut P)) {
    // SAFETY: as the caller promises.
    let boxed = unsafe { &mut *instance.cast::<Boxed<P>>() };
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| call(&mut boxed.plugin))) {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a text");
        boxed.broker.log(Level::Error, &format!("panicked: {text}"));
    }
}

macro_rules! hooks {
    ($($(#[$doc:meta])* $hook:ident($($given:ident: $raw:ty => $safe:expr),*);)*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        /// Called by the broker as the header says.
        pub unsafe extern "C" fn $hook<P: Plugin>(
            instance: *mut c_void,
            $($given: $raw,)*
            host: *const abi::Host,
            reply: *mut abi::Reply,
        ) {
            // SAFETY: what the broker shows is there until this returns, and the instance is this call's.
            unsafe {
                let answer = Answer::new(&*host, reply);
                with::<P>(instance, |plugin| plugin.$hook($($safe,)* answer));
            }
        }
    )*};
}

hooks! {
    /// From the table to [`Plugin::authenticate`].
    authenticate(login: *const abi::Login<'_> => Login(&*login));
    /// From the table to [`Plugin::authorize`].
    authorize(
        who: *const abi::Identity<'_> => Identity(&*who),
        what: *const abi::Action<'_> => Action(&*what)
    );
    /// From the table to [`Plugin::on_publish`].
    on_publish(message: *const abi::Message<'_> => Message(&*message));
    /// From the table to [`Plugin::on_deliver`].
    on_deliver(
        message: *const abi::Message<'_> => Message(&*message),
        receiver: *const abi::Identity<'_> => Identity(&*receiver)
    );
    /// From the table to [`Plugin::on_subscribe`].
    on_subscribe(
        who: *const abi::Identity<'_> => Identity(&*who),
        filter: abi::Text<'_> => shown(filter),
        qos: u8 => qos
    );
    /// From the table to [`Plugin::on_unsubscribe`].
    on_unsubscribe(
        who: *const abi::Identity<'_> => Identity(&*who),
        filter: abi::Text<'_> => shown(filter)
    );
    /// From the table to [`Plugin::before_store`].
    before_store(message: *const abi::Message<'_> => Message(&*message));
    /// From the table to [`Plugin::after_load`].
    after_load(message: *const abi::Message<'_> => Message(&*message));
}

/// # Safety
/// `text` is the broker's.
unsafe fn shown<'a>(text: abi::Text<'a>) -> &'a str {
    // SAFETY: as the caller promises.
    unsafe { text.get() }.and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default()
}

macro_rules! topics {
    ($($(#[$doc:meta])* $ask:ident)*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        /// Called by the broker as the header says.
        pub unsafe extern "C" fn $ask<P: Plugin>(
            instance: *mut c_void,
            host: *const abi::Host,
            reply: *mut abi::Reply,
        ) {
            // SAFETY: as for the hooks.
            unsafe {
                let mut topics = Answer::new(&*host, reply).topics();
                with::<P>(instance, |plugin| plugin.$ask(&mut topics));
            }
        }
    )*};
}

topics! {
    /// From the table to [`Plugin::publish_topics`].
    publish_topics
    /// From the table to [`Plugin::deliver_topics`].
    deliver_topics
}

/// From the table to [`Plugin::on_event`].
///
/// # Safety
/// Called by the broker as the header says.
pub unsafe extern "C" fn on_event<P: Plugin>(
    instance: *mut c_void,
    event: *const abi::Event<'_>,
    _: *const abi::Host,
) {
    // SAFETY: as for the hooks.
    unsafe { with::<P>(instance, |plugin| plugin.on_event(Event(&*event))) }
}

/// From the table to [`Plugin::on_timer`].
///
/// # Safety
/// Called by the broker as the header says.
pub unsafe extern "C" fn on_timer<P: Plugin>(instance: *mut c_void, now_unix_ms: u64, _: *const abi::Host) {
    // SAFETY: as for the hooks.
    unsafe { with::<P>(instance, |plugin| plugin.on_timer(now_unix_ms)) }
}

/// The events that a plugin that serves `on_event` is told of, unless it says otherwise: clients and sessions.
pub const EVENTS: u32 = 1 << abi::CONNECTED | 1 << abi::DISCONNECTED | 1 << abi::SESSION_ENDED;

/// Exports a plugin: its type, and the hooks that it serves. `on_publish` brings `publish_topics` with it, and
/// `on_deliver` brings `deliver_topics`.
#[macro_export]
macro_rules! export_native {
    ($plugin:ty: $($hook:ident),+ $(,)?) => {
        /// The table that the broker looks for.
        #[unsafe(no_mangle)]
        #[allow(non_upper_case_globals)]
        pub static weirmq_plugin_v1: $crate::abi::Table = {
            let mut table = $crate::abi::Table::empty(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
            table.create = Some($crate::plugin::create::<$plugin>);
            table.destroy = Some($crate::plugin::destroy::<$plugin>);
            table.publish_topics = Some($crate::plugin::publish_topics::<$plugin>);
            table.deliver_topics = Some($crate::plugin::deliver_topics::<$plugin>);
            table.events = $crate::plugin::EVENTS;
            $(table.$hook = Some($crate::plugin::$hook::<$plugin>);)+
            table
        };
    };
}
