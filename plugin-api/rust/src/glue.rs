//! From the exported functions to the plugin's traits. What the broker asks in few words is put together to what an author
//! is asked in any case, in [`brief`].

mod brief;

use std::cell::RefCell;
use std::marker::PhantomData;

use crate::bindings::authenticate::exports::weirmq::plugin::authenticate;
use crate::bindings::authorize::exports::weirmq::plugin::authorize;
use crate::bindings::base::exports::weirmq::plugin::guest;
use crate::bindings::base::weirmq::plugin::types::{FilterVerdict, Identity, Message, Qos};
use crate::bindings::lifecycle::exports::weirmq::plugin::lifecycle;
use crate::bindings::on_deliver::exports::weirmq::plugin::on_deliver;
use crate::bindings::on_publish::exports::weirmq::plugin::on_publish;
use crate::bindings::on_subscribe::exports::weirmq::plugin::on_subscribe;
use crate::bindings::on_unsubscribe::exports::weirmq::plugin::on_unsubscribe;
use crate::bindings::persistence::exports::weirmq::plugin::persistence;
use crate::bindings::store_backend::exports::weirmq::plugin::store_backend;
use crate::bindings::timer::exports::weirmq::plugin::timer;
use crate::host::{self, Level};
use crate::{
    Authenticate, Authorize, Lifecycle, OnDeliver, OnPublish, OnSubscribe, OnUnsubscribe, Persistence,
    Plugin, StoreBackend, Timer,
};

/// A plugin that [`crate::export!`] was called for.
pub trait Registered: Plugin {
    /// The name of its crate.
    const NAME: &'static str;
    /// The version of its crate.
    const VERSION: &'static str;
    /// Runs `work` with where its one instance is kept.
    fn slot<R>(work: impl FnOnce(&Slot<Self>) -> R) -> R;
}

/// Where the one plugin of a component instance is kept between `init` and the calls.
pub struct Slot<T>(RefCell<Option<T>>);

impl<T> Slot<T> {
    /// Nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(RefCell::new(None))
    }
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Stands for `T` where the generated code wants a type with the exported functions.
pub struct Export<T>(PhantomData<T>);

impl<T: Registered> Export<T> {
    fn with<R>(work: impl FnOnce(&mut T) -> R) -> R {
        T::slot(|slot| match slot.0.borrow_mut().as_mut() {
            Some(plugin) => work(plugin),
            // The broker never calls a hook before `init` has succeeded.
            None => panic!("called before init"),
        })
    }
}

impl<T: Registered> guest::Guest for Export<T> {
    fn info() -> guest::PluginInfo {
        guest::PluginInfo { name: T::NAME.to_owned(), version: T::VERSION.to_owned() }
    }

    fn init(config: String) -> Result<(), String> {
        std::panic::set_hook(Box::new(|panic| host::log(Level::Error, &panic.to_string())));
        let config = serde_json::from_str(&config).map_err(|error| format!("config: {error}"))?;
        let plugin = T::new(config)?;
        T::slot(|slot| slot.0.replace(Some(plugin)));
        Ok(())
    }

    fn health() -> Result<(), String> {
        Self::with(T::health)
    }
}

impl<T: Registered + Authenticate> authenticate::Guest for Export<T> {
    fn authenticate(request: authenticate::Request) -> authenticate::Answer {
        Self::with(|plugin| plugin.authenticate(request))
    }
}

impl<T: Registered + Authorize> authorize::Guest for Export<T> {
    fn authorize(identity: Identity, action: authorize::Action) -> authorize::Decision {
        Self::with(|plugin| plugin.authorize(identity, action))
    }
}

impl<T: Registered + OnPublish> on_publish::Guest for Export<T> {
    fn topics() -> Vec<String> {
        Self::with(<T as OnPublish>::topics)
    }

    fn on_publish(message: Message) -> on_publish::Verdict {
        Self::with(|plugin| plugin.on_publish(message))
    }
}

impl<T: Registered + OnSubscribe> on_subscribe::Guest for Export<T> {
    fn on_subscribe(identity: Identity, filter: String, qos: Qos) -> FilterVerdict {
        Self::with(|plugin| plugin.on_subscribe(identity, filter, qos))
    }
}

impl<T: Registered + OnUnsubscribe> on_unsubscribe::Guest for Export<T> {
    fn on_unsubscribe(identity: Identity, filter: String) -> FilterVerdict {
        Self::with(|plugin| plugin.on_unsubscribe(identity, filter))
    }
}

impl<T: Registered + OnDeliver> on_deliver::Guest for Export<T> {
    fn topics() -> Vec<String> {
        Self::with(<T as OnDeliver>::topics)
    }

    fn on_deliver(message: Message, receiver: Identity) -> on_deliver::Verdict {
        Self::with(|plugin| plugin.on_deliver(message, receiver))
    }
}

impl<T: Registered + Persistence> persistence::Guest for Export<T> {
    fn topics() -> Vec<String> {
        Self::with(<T as Persistence>::topics)
    }

    fn before_store(message: Message) -> persistence::Stored {
        Self::with(|plugin| plugin.before_store(message))
    }

    fn after_load(message: Message) -> Result<Vec<u8>, String> {
        Self::with(|plugin| plugin.after_load(message))
    }
}

impl<T: Registered + Lifecycle> lifecycle::Guest for Export<T> {
    fn events() -> Vec<lifecycle::EventKind> {
        Self::with(T::events)
    }

    fn on_event(event: lifecycle::Event, at_unix_ms: u64) {
        Self::with(|plugin| plugin.on_event(event, at_unix_ms));
    }
}

impl<T: Registered + Timer> timer::Guest for Export<T> {
    fn interval_ms() -> u32 {
        Self::with(T::interval_ms)
    }

    fn on_timer(at_unix_ms: u64) {
        Self::with(|plugin| plugin.on_timer(at_unix_ms));
    }
}

impl<T: Registered + StoreBackend> store_backend::Guest for Export<T> {
    fn open() -> Result<(), String> {
        Self::with(T::open)
    }

    fn get(key: Vec<u8>) -> Result<Option<Vec<u8>>, store_backend::Refusal> {
        Self::with(|plugin| plugin.get(&key))
    }

    fn write(changes: Vec<store_backend::Change>) -> Result<(), store_backend::Refusal> {
        Self::with(|plugin| plugin.write(&changes))
    }

    fn scan(
        start: Vec<u8>,
        entries_max: u32,
        bytes_max: u32,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, store_backend::Refusal> {
        Self::with(|plugin| plugin.scan(&start, entries_max, bytes_max))
    }
}
