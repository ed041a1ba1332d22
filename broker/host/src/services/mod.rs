//! What the broker does for plugins when they ask.
//!
//! # Layout
//! - this file: what one plugin has of it, and the seams to what is outside the host
//! - `key_value`: keys and values within their limits
//! - `metrics`: counters, gauges, histograms
//! - `http`: outgoing requests

pub(crate) mod http;
pub(crate) mod key_value;
pub(crate) mod metrics;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use weirmq_core::durable::keys::KeyStore;
use weirmq_core::hook::{Draft, ReasonCode};
use weirmq_core::topic::TopicFilter;

use crate::config::PluginConfig;
use crate::error::LoadError;
use crate::grant::Secret;
use http::{Http, HttpRuntime};
use key_value::{KeySpace, MemoryKeys};
use metrics::Metrics;

/// The broker as plugins see it. Called while a plugin's call has ended or runs, on any thread: it must not block.
pub trait Outside: Send + Sync + 'static {
    /// Whether further messages can be taken.
    fn has_room(&self) -> bool;

    /// Publishes `draft`, which is valid, in the name of `plugin`. `hops` is how many rules and plugins stand before it.
    /// What there is no room for is dropped and counted.
    fn publish(&self, plugin: &Arc<str>, draft: Draft, hops: u8);

    /// Takes back what was allowed, within a second.
    ///
    /// # Errors
    /// Why that cannot be done now, in words.
    fn revoke(&self, plugin: &Arc<str>, revocation: Revocation) -> Result<(), String>;
}

/// What is taken back from whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// From whom.
    pub whom: Whom,
    /// With which consequence.
    pub consequence: Consequence,
    /// Why, for the log.
    pub reason: String,
}

pub use weirmq_core::revoke::{Consequence, Whom};

/// What a version is loaded for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// To serve.
    Live,
    /// To be compared with the one that serves, reaching nobody; with the hosts of its grant or without.
    Shadow {
        /// Whether it may send requests.
        http: bool,
    },
}

/// Where what a version in the shadow asks for goes: nowhere.
struct Nowhere;

impl Outside for Nowhere {
    fn has_room(&self) -> bool {
        true
    }

    fn publish(&self, _: &Arc<str>, _: Draft, _: u8) {}

    fn revoke(&self, _: &Arc<str>, _: Revocation) -> Result<(), String> {
        Ok(())
    }
}

/// What all plugins share.
pub(crate) struct Services {
    outside: OnceLock<Arc<dyn Outside>>,
    keys: OnceLock<Arc<dyn KeyStore>>,
    http: OnceLock<HttpRuntime>,
    /// What outlives the versions of a plugin, by its name.
    lasting: Mutex<HashMap<String, Lasting>>,
}

#[derive(Clone)]
struct Lasting {
    metrics: Arc<Metrics>,
    keys: Arc<KeySpace>,
    memory: Arc<AtomicU64>,
}

impl Lasting {
    fn new(plugin: &str, store: Arc<dyn KeyStore>) -> Self {
        let keys = Arc::new(KeySpace::new(store, &format!("plugin/{plugin}")));
        Self { metrics: Arc::default(), memory: Arc::default(), keys }
    }
}

impl Services {
    pub(crate) fn new() -> Self {
        Self {
            outside: OnceLock::new(),
            keys: OnceLock::new(),
            http: OnceLock::new(),
            lasting: Mutex::default(),
        }
    }

    /// Joins plugins with the broker. The first call holds.
    pub(crate) fn connect(&self, outside: Arc<dyn Outside>) {
        let _ = self.outside.set(outside);
    }

    /// Has keys and values kept by `store`. Must come before the first plugin is loaded.
    pub(crate) fn keep_keys_in(&self, store: Arc<dyn KeyStore>) {
        let _ = self.keys.set(store);
    }

    fn lasting(&self, plugin: &str) -> Lasting {
        let mut all = self.lasting.lock();
        if let Some(lasting) = all.get(plugin) {
            return lasting.clone();
        }
        let store = self.keys.get_or_init(|| Arc::new(MemoryKeys::default()));
        let lasting = Lasting::new(plugin, Arc::clone(store));
        all.insert(plugin.to_owned(), lasting.clone());
        lasting
    }

    /// What the plugin of `config` gets.
    ///
    /// # Errors
    /// A secret cannot be read, or a thread for requests cannot be started.
    pub(crate) fn of(
        self: &Arc<Self>,
        config: &PluginConfig,
        uses_http: bool,
        role: Role,
    ) -> Result<PluginServices, LoadError> {
        let plugin = || config.name.clone();
        let mut secrets = BTreeMap::new();
        for (name, source) in &config.secrets {
            let secret = source.read().map_err(|detail| LoadError::Secret {
                plugin: plugin(),
                secret: name.clone(),
                detail,
            })?;
            secrets.insert(name.clone(), secret);
        }
        let http = if uses_http {
            let failed = |detail| LoadError::Http { plugin: plugin(), detail };
            let runtime = match self.http.get() {
                Some(runtime) => runtime,
                None => {
                    let made = HttpRuntime::start().map_err(|error| failed(error.to_string()))?;
                    self.http.get_or_init(|| made)
                }
            };
            let hosts = if role == (Role::Shadow { http: false }) { &[] } else { &*config.grant.http };
            Some(runtime.client(hosts).map_err(failed)?)
        } else {
            None
        };
        let (lasting, outside): (_, Option<Arc<dyn Outside>>) = match role {
            Role::Live => (self.lasting(&config.name), None),
            Role::Shadow { .. } => {
                (Lasting::new(&config.name, Arc::new(MemoryKeys::default())), Some(Arc::new(Nowhere)))
            }
        };
        if let Some(limits) = config.grant.key_value.limits() {
            lasting.keys.set_limits(limits);
        }
        Ok(PluginServices {
            secrets,
            http,
            metrics: lasting.metrics,
            memory: lasting.memory,
            keys: lasting.keys,
            publish: config.grant.publish_filters(),
            outside,
            shared: Arc::clone(self),
        })
    }

    pub(crate) fn metrics(&self, plugin: &str) -> Arc<Metrics> {
        self.lasting(plugin).metrics
    }
}

/// What one version of a plugin has.
pub(crate) struct PluginServices {
    pub(crate) secrets: BTreeMap<String, Secret>,
    pub(crate) http: Option<Http>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) keys: Arc<KeySpace>,
    pub(crate) memory: Arc<AtomicU64>,
    pub(crate) publish: Vec<TopicFilter>,
    /// What stands in the place of the broker.
    outside: Option<Arc<dyn Outside>>,
    shared: Arc<Services>,
}

impl PluginServices {
    /// The broker, once it runs.
    pub(crate) fn outside(&self) -> Option<&Arc<dyn Outside>> {
        self.outside.as_ref().or_else(|| self.shared.outside.get())
    }
}

/// The reason code that ends a lease, if it is one.
pub(crate) fn ending_code(code: u8) -> Result<ReasonCode, String> {
    ReasonCode::from_u8(code)
        .filter(|code| code.is_error())
        .ok_or_else(|| format!("0x{code:02x} is no reason code of a refusal"))
}
