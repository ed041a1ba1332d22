//! The plugin host: one engine, one clock that cuts calls off, a few threads for calls that may take their time.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use wasmtime::component::Linker;
use wasmtime::{Cache, CacheConfig, Config, Engine, OptLevel};
use weirmq_core::durable::keys::KeyStore;
use weirmq_core::hook::HookPoints;

use crate::config::{HostConfig, PluginConfig};
use crate::error::{HostError, LoadError};
use crate::instance::{self, State};
use crate::load::{self, Generation, Inspection};
use crate::plugin::{PluginHook, PluginInfo};
use crate::pool::Pool;
use crate::services::{Outside, Role, Services};
use crate::ticker::Ticker;

/// Loads plugins. Cheap to clone; its threads end when it and all its plugins are gone.
#[derive(Clone)]
pub struct Host {
    shared: Arc<Shared>,
}

impl Host {
    /// Sets the engine up and starts the host's threads.
    ///
    /// # Errors
    /// [`HostError`] when this machine, the cache folder or the limit on threads does not let it.
    pub fn new(config: HostConfig) -> Result<Self, HostError> {
        let engine = engine(config.cache_folder.as_deref())?;
        let linker =
            instance::linker(&engine).map_err(|error| HostError::Engine(instance::detail(&error)))?;
        let ticker = Ticker::start(&engine).map_err(HostError::Thread)?;
        let wait_max = Duration::from_millis(config.queue_wait_ms);
        let pool = Pool::start("plugin", config.threads.max(1), config.queue_max, wait_max)
            .map_err(HostError::Thread)?;
        let services = Arc::new(Services::new());
        let io_pool = OnceLock::new();
        Ok(Self { shared: Arc::new(Shared { pool, io_pool, engine, linker, services, config, ticker }) })
    }

    /// Joins the plugins with the broker, which is made after them. The first call holds.
    pub fn connect(&self, outside: Arc<dyn Outside>) {
        self.shared.services.connect(outside);
    }

    /// Has the keys and values of plugins kept by `store`, not in memory. To be called before the first plugin is
    /// loaded.
    pub fn keep_keys_in(&self, store: Arc<dyn KeyStore>) {
        self.shared.services.keep_keys_in(store);
    }

    /// Takes a plugin into service. Takes as long as compiling does: not for a worker of the broker.
    ///
    /// # Errors
    /// [`LoadError`] with what is wrong and what to do.
    pub fn load(&self, config: &PluginConfig) -> Result<Arc<PluginHook>, LoadError> {
        let generation = self.shared.load(config)?;
        let hook = PluginHook::new(Arc::clone(&self.shared), config, generation);
        hook.set_shadow(config);
        Ok(hook)
    }

    /// Does all that [`Host::load`] does, short of taking the plugin into service; for the version in its shadow too.
    ///
    /// # Errors
    /// Those of [`Host::load`], also of the version in the shadow.
    pub fn check(&self, config: &PluginConfig) -> Result<PluginInfo, LoadError> {
        let info = self.shared.load_any(config, Role::Live)?.info;
        if let Some(shadow) = &config.shadow {
            self.shared.load_for(&config.in_shadow(shadow), Role::Shadow { http: shadow.http })?;
        }
        Ok(info)
    }

    /// Loads a version that may serve no hook point.
    pub(crate) fn load_any(&self, config: &PluginConfig) -> Result<Generation, LoadError> {
        self.shared.load_any(config, Role::Live)
    }

    /// What the component of `config` says without being started, whatever is granted to it.
    ///
    /// # Errors
    /// Why its file is no plugin.
    pub fn inspect(&self, config: &PluginConfig) -> Result<Inspection, LoadError> {
        load::inspect(&self.shared.engine, &self.shared.config, config)
    }
}

/// What all plugins of a host share.
pub(crate) struct Shared {
    // First, so that no call is in flight when the ticker goes.
    pub(crate) pool: Pool,
    io_pool: OnceLock<Pool>,
    engine: Engine,
    linker: Linker<State>,
    pub(crate) services: Arc<Services>,
    config: HostConfig,
    ticker: Ticker,
}

impl Shared {
    /// A version that serves hook points.
    pub(crate) fn load(&self, config: &PluginConfig) -> Result<Generation, LoadError> {
        self.load_for(config, Role::Live)
    }

    /// The same, for `role`.
    pub(crate) fn load_for(&self, config: &PluginConfig, role: Role) -> Result<Generation, LoadError> {
        let generation = self.load_any(config, role)?;
        if generation.info.hooks == HookPoints::NONE {
            return Err(LoadError::BackendOnly { plugin: config.name.clone() });
        }
        Ok(generation)
    }

    fn load_any(&self, config: &PluginConfig, role: Role) -> Result<Generation, LoadError> {
        self.ticker.run();
        let (engine, linker) = (&self.engine, &self.linker);
        let generation = load::load(engine, linker, &self.services, &self.config, config, role)?;
        if generation.waits && self.io_pool.get().is_none() {
            let pool = Pool::start(
                "plugin-io",
                self.config.io_threads.max(1),
                self.config.queue_max,
                self.wait_max(),
            );
            let pool = pool.map_err(|error| LoadError::Threads {
                plugin: config.name.clone(),
                detail: error.to_string(),
            })?;
            let _ = self.io_pool.set(pool);
        }
        Ok(generation)
    }

    fn wait_max(&self) -> Duration {
        Duration::from_millis(self.config.queue_wait_ms)
    }

    /// The threads for calls into `generation` that may take their time.
    pub(crate) fn pool_for(&self, generation: &Generation) -> &Pool {
        self.io_pool.get().filter(|_| generation.waits).unwrap_or(&self.pool)
    }
}

fn engine(cache_folder: Option<&Path>) -> Result<Engine, HostError> {
    let mut config = Config::new();
    config.wasm_component_model(true).epoch_interruption(true).cranelift_opt_level(OptLevel::Speed);
    if let Some(folder) = cache_folder {
        config.cache(Some(cache(folder)?));
    }
    Engine::new(&config).map_err(|error| HostError::Engine(instance::detail(&error)))
}

fn cache(folder: &Path) -> Result<Cache, HostError> {
    let unusable = |detail| HostError::Cache { folder: folder.to_owned(), detail };
    let absolute = std::path::absolute(folder).map_err(|error| unusable(error.to_string()))?;
    let mut config = CacheConfig::new();
    config.with_directory(absolute);
    Cache::new(config).map_err(|error| unusable(instance::detail(&error)))
}
