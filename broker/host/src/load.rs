//! From a file to a version of a plugin that is ready to serve.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use wasmtime::Engine;
use wasmtime::component::{Component, Linker};
use weirmq_core::hook::{EventKinds, HookPoint, HookPoints};
use weirmq_core::topic::TopicFilter;

use crate::config::{HostConfig, PluginConfig, PluginKind};
use crate::convert;
use crate::error::LoadError;
use crate::grant::Manifest;
use crate::instance::{Blueprint, Exports, Instance, Instantiate, Place, State, detail};
use crate::instances::{Instances, Live, Origin};
use crate::native;
use crate::plugin::PluginInfo;
use crate::services::{Role, Services};
use crate::{API_VERSION, HOOKS};

/// What every WeirMQ interface name begins with.
const PACKAGE: &str = "weirmq:plugin/";
/// The interfaces that plugins may import, some of them with a grant only.
const OFFERED: [&str; 11] = [
    "types",
    "log",
    "config",
    "clock",
    "random",
    "metrics",
    "secrets",
    "key-value",
    "publish",
    "http",
    "revoke",
];
/// One version of a plugin, ready to serve.
pub(crate) struct Generation {
    pub(crate) info: PluginInfo,
    pub(crate) config: PluginConfig,
    pub(crate) wants: Wants,
    /// Whether its calls may wait for something outside the broker.
    pub(crate) waits: bool,
    pub(crate) origin: Origin,
    pub(crate) instances: Instances,
}

impl Generation {
    /// Whether it can serve in the place of `other` without anybody else being told.
    pub(crate) fn is_in_place_of(&self, other: &Self) -> bool {
        self.info.hooks == other.info.hooks && self.wants == other.wants
    }
}

/// What a version asks to be called for.
#[derive(PartialEq)]
pub(crate) struct Wants {
    pub(crate) on_publish: Vec<TopicFilter>,
    pub(crate) on_deliver: Vec<TopicFilter>,
    pub(crate) persistence: Vec<TopicFilter>,
    pub(crate) events: EventKinds,
    pub(crate) interval: Duration,
}

/// Reads, compiles and starts the plugin of `config`.
pub(crate) fn load(
    engine: &Engine,
    linker: &Linker<State>,
    services: &Arc<Services>,
    host: &HostConfig,
    config: &PluginConfig,
    role: Role,
) -> Result<Generation, LoadError> {
    config.validate()?;
    let bytes = read(config, host.file_bytes_max)?;
    match kind_of(config, &bytes) {
        PluginKind::Native => load_native(host, config, &bytes),
        PluginKind::Wasm => load_wasm(engine, linker, services, config, &bytes, role),
    }
}

/// What the configuration says that the file is, or else its beginning.
pub(crate) fn kind_of(config: &PluginConfig, bytes: &[u8]) -> PluginKind {
    let named = config.file.extension().is_some_and(|ending| ending == "so");
    let found = if named || native::is_library(bytes) { PluginKind::Native } else { PluginKind::Wasm };
    config.kind.unwrap_or(found)
}

/// Whether the configuration says that libraries may be loaded.
pub(crate) fn check_native_is_allowed(host: &HostConfig, config: &PluginConfig) -> Result<(), LoadError> {
    if host.allow_native {
        return Ok(());
    }
    let (plugin, file) = (config.name.clone(), config.file.clone());
    Err(LoadError::NativeNotAllowed { plugin, file })
}

/// Maps and starts the shared library of `config`.
fn load_native(host: &HostConfig, config: &PluginConfig, bytes: &[u8]) -> Result<Generation, LoadError> {
    check_native_is_allowed(host, config)?;
    let started = Instant::now();
    let (version, wants, first) = native::Version::load(config, bytes, host.native_folder.as_deref())?;
    let info = PluginInfo {
        name: config.name.clone(),
        plugin: version.name().to_owned(),
        version: version.version().to_owned(),
        api_version: native::ABI_VERSION.to_owned(),
        kind: PluginKind::Native,
        file: config.file.clone(),
        hooks: version.points(),
        in_brief: HookPoints::NONE,
        is_store_backend: version.is_backend(),
        topics: texts(&wants.on_publish),
        deliver_topics: texts(&wants.on_deliver),
        stored_topics: texts(&wants.persistence),
        imports: Vec::new(),
        asked: Manifest::default(),
        bytes: bytes.len() as u64,
        compiled_in: started.elapsed(),
        loaded_unix_ms: unix_ms(),
    };
    let instances = Instances::new(config.instances_max as usize, Live::Native(first));
    let origin = Origin::Native(version);
    Ok(Generation { info, config: config.clone(), wants, waits: false, origin, instances })
}

/// Compiles and starts the component of `config`.
fn load_wasm(
    engine: &Engine,
    linker: &Linker<State>,
    services: &Arc<Services>,
    config: &PluginConfig,
    bytes: &[u8],
    role: Role,
) -> Result<Generation, LoadError> {
    check_format(config, bytes)?;
    let started = Instant::now();
    let component = compile(engine, config, bytes)?;
    let compiled_in = started.elapsed();
    let Interfaces { imports, .. } = check_interface(engine, config, &component)?;
    let asked = check_grants(config, bytes, &imports)?;
    let waits = imports.iter().any(|import| import == "http");
    let services = services.of(config, waits, role)?;
    let mismatch = |detail| LoadError::Mismatch { plugin: config.name.clone(), detail };
    let blueprint =
        Blueprint::new(linker, &component, config, services).map_err(|error| mismatch(detail(&error)))?;
    let (info, wants, first) = start(config, &blueprint)?;
    let info = PluginInfo {
        name: config.name.clone(),
        plugin: info.name,
        version: info.version,
        api_version: API_VERSION.to_owned(),
        kind: PluginKind::Wasm,
        file: config.file.clone(),
        hooks: points(&blueprint.exports),
        in_brief: points_in_brief(&blueprint.exports),
        is_store_backend: blueprint.exports.store_backend.is_some(),
        topics: texts(&wants.on_publish),
        deliver_topics: texts(&wants.on_deliver),
        stored_topics: texts(&wants.persistence),
        imports,
        asked,
        bytes: bytes.len() as u64,
        compiled_in,
        loaded_unix_ms: unix_ms(),
    };
    let instances = Instances::new(config.instances_max as usize, Live::Wasm(first));
    let origin = Origin::Wasm(blueprint);
    Ok(Generation { info, config: config.clone(), wants, waits, origin, instances })
}

fn compile(engine: &Engine, config: &PluginConfig, bytes: &[u8]) -> Result<Component, LoadError> {
    Component::new(engine, bytes).map_err(|error| LoadError::Compile {
        plugin: config.name.clone(),
        file: config.file.clone(),
        detail: detail(&error),
    })
}

/// What a component says without being started.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// The names of all that it serves.
    pub served: Vec<&'static str>,
    /// The names of the interfaces that it imports.
    pub imports: Vec<String>,
    /// What its manifest asks for.
    pub asked: Manifest,
    /// The size of its file.
    pub bytes: u64,
    /// How long it took to compile it.
    pub compiled_in: Duration,
}

/// Reads and compiles the component of `config`, and starts nothing, whatever is granted.
pub(crate) fn inspect(
    engine: &Engine,
    host: &HostConfig,
    config: &PluginConfig,
) -> Result<Inspection, LoadError> {
    let bytes = read(config, host.file_bytes_max)?;
    check_format(config, &bytes)?;
    let started = Instant::now();
    let component = compile(engine, config, &bytes)?;
    let compiled_in = started.elapsed();
    let Interfaces { imports, served } = check_interface(engine, config, &component)?;
    let asked = manifest(config, &bytes)?;
    Ok(Inspection { served, imports, asked, bytes: bytes.len() as u64, compiled_in })
}

fn manifest(config: &PluginConfig, bytes: &[u8]) -> Result<Manifest, LoadError> {
    Manifest::of(&config.file, bytes)
        .map_err(|detail| LoadError::Manifest { plugin: config.name.clone(), detail })
}

fn texts(filters: &[TopicFilter]) -> Vec<String> {
    filters.iter().map(ToString::to_string).collect()
}

/// Whether the plugin is granted what it asks for. Answers what that is.
fn check_grants(config: &PluginConfig, bytes: &[u8], imports: &[String]) -> Result<Manifest, LoadError> {
    let manifest = manifest(config, bytes)?;
    let secrets: Vec<&String> = config.secrets.keys().collect();
    let needs = manifest.needs(imports, &config.grant, &secrets);
    let (what, lines): (Vec<String>, Vec<String>) = needs.into_iter().flat_map(|need| need.lacking).unzip();
    if what.is_empty() {
        return Ok(manifest);
    }
    let plugin = config.name.clone();
    Err(LoadError::NotGranted { plugin, what: what.join(", "), lines: lines.join("; ") })
}

pub(crate) fn read(config: &PluginConfig, bytes_max: u64) -> Result<Vec<u8>, LoadError> {
    let unreadable =
        |source| LoadError::Read { plugin: config.name.clone(), file: config.file.clone(), source };
    let too_large =
        || LoadError::FileTooLarge { plugin: config.name.clone(), file: config.file.clone(), bytes_max };
    let metadata = std::fs::metadata(&config.file).map_err(unreadable)?;
    if !metadata.is_file() {
        let kind = std::io::ErrorKind::InvalidInput;
        return Err(unreadable(std::io::Error::new(kind, "it is not a regular file")));
    }
    if metadata.len() > bytes_max {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
    let file = File::open(&config.file).map_err(unreadable)?;
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > bytes_max {
        return Err(too_large());
    }
    Ok(bytes)
}

/// Tells a component from a core module and from anything else by the first eight bytes.
fn check_format(config: &PluginConfig, bytes: &[u8]) -> Result<(), LoadError> {
    let (plugin, file) = (config.name.clone(), config.file.clone());
    match bytes.get(..8) {
        Some([0, b'a', b's', b'm', _, _, 0, 0]) => Err(LoadError::CoreModule { plugin, file }),
        Some([0, b'a', b's', b'm', ..]) => Ok(()),
        _ => Err(LoadError::NotWasm { plugin, file }),
    }
}

/// The names of what a component imports, and of the hook points that it exports.
struct Interfaces {
    imports: Vec<String>,
    served: Vec<&'static str>,
}

/// Whether the names of its imports and exports are those of this interface. Answers which.
fn check_interface(
    engine: &Engine,
    config: &PluginConfig,
    component: &Component,
) -> Result<Interfaces, LoadError> {
    let mut imports = Vec::new();
    let plugin = || config.name.clone();
    let ty = component.component_type();
    for (import, _) in ty.imports(engine) {
        match Interface::parse(import) {
            Some(interface) if !interface.fits() => {
                return Err(LoadError::ApiVersion { plugin: plugin(), found: import.to_owned() });
            }
            Some(interface) if OFFERED.contains(&interface.name) => imports.push(interface.name.to_owned()),
            _ => return Err(LoadError::UnknownImport { plugin: plugin(), import: import.to_owned() }),
        }
    }
    let mut names = Vec::new();
    for (export, _) in ty.exports(engine) {
        match Interface::parse(export) {
            Some(interface) if !interface.fits() => {
                return Err(LoadError::ApiVersion { plugin: plugin(), found: export.to_owned() });
            }
            Some(interface) => names.push(interface.name.to_owned()),
            None => {}
        }
    }
    if !names.iter().any(|name| name == "guest") {
        let export = format!("{PACKAGE}guest@{API_VERSION}");
        return Err(LoadError::MissingExport { plugin: plugin(), export });
    }
    let served: Vec<&str> = HOOKS
        .map(HookPoint::name)
        .into_iter()
        .chain([PluginInfo::STORE_BACKEND])
        .filter(|point| names.iter().any(|name| name == point))
        .collect();
    if served.is_empty() {
        return Err(LoadError::NoHooks { plugin: plugin(), hooks: hook_names() });
    }
    Ok(Interfaces { imports, served })
}

/// The names of all hook points that a plugin can serve.
pub(crate) fn hook_names() -> String {
    HOOKS.map(HookPoint::name).join(", ") + ", " + PluginInfo::STORE_BACKEND
}

/// `weirmq:plugin/NAME@VERSION`, taken apart.
struct Interface<'a> {
    name: &'a str,
    version: &'a str,
}

impl<'a> Interface<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let rest = text.strip_prefix(PACKAGE)?;
        let (name, version) = rest.split_once('@').unwrap_or((rest, ""));
        Some(Self { name, version })
    }

    /// Whether the host can serve it: the same version, in the sense of semantic versioning before 1.0.
    fn fits(&self) -> bool {
        fn line(version: &str) -> Option<(&str, &str)> {
            let mut parts = version.split('.');
            Some((parts.next()?, parts.next()?))
        }
        line(self.version).is_some() && line(self.version) == line(API_VERSION)
    }
}

fn points(exports: &Exports) -> HookPoints {
    [
        (HookPoint::Authenticate, exports.authenticate.is_some()),
        (HookPoint::Authorize, exports.authorize.is_some()),
        (HookPoint::OnPublish, exports.on_publish.is_some()),
        (HookPoint::OnSubscribe, exports.on_subscribe.is_some()),
        (HookPoint::OnUnsubscribe, exports.on_unsubscribe.is_some()),
        (HookPoint::Lifecycle, exports.lifecycle.is_some()),
        (HookPoint::OnDeliver, exports.on_deliver.is_some()),
        (HookPoint::Persistence, exports.persistence.is_some()),
        (HookPoint::Timer, exports.timer.is_some()),
    ]
    .into_iter()
    .filter_map(|(point, served)| served.then_some(point))
    .collect()
}

fn points_in_brief(exports: &Exports) -> HookPoints {
    [
        (HookPoint::Authorize, exports.authorize.is_some() && exports.authorize_in_brief.is_some()),
        (HookPoint::OnPublish, exports.on_publish.is_some() && exports.on_publish_in_brief.is_some()),
    ]
    .into_iter()
    .filter_map(|(point, served)| served.then_some(point))
    .collect()
}

type Started = (crate::bindings::exports::weirmq::plugin::guest::PluginInfo, Wants, Instance);

/// Makes the first instance, and asks it all that is asked once.
fn start(config: &PluginConfig, blueprint: &Blueprint) -> Result<Started, LoadError> {
    let plugin = || config.name.clone();
    let failed = |step| move |failure| LoadError::Start { plugin: config.name.clone(), step, failure };
    let mut instance = blueprint.instantiate().map_err(|error| match error {
        Instantiate::Failed(failure) => failed("its start function")(failure),
        Instantiate::Mismatch(detail) => LoadError::Mismatch { plugin: plugin(), detail },
    })?;
    let info = instance.ask_once(blueprint, |store, hooks| hooks.guest.call_info(store));
    let info = info.map_err(failed("info"))?;
    let accepted = instance.init(blueprint, Place::Aside).map_err(failed("init"))?;
    accepted.map_err(|reason| LoadError::Refused { plugin: plugin(), reason })?;
    let healthy = instance.ask_once(blueprint, |store, hooks| hooks.guest.call_health(store));
    let healthy = healthy.map_err(failed("health"))?;
    healthy.map_err(|reason| LoadError::Unhealthy { plugin: plugin(), reason })?;
    let wants = ask_wants(&mut instance, blueprint, config)?;
    Ok((info, wants, instance))
}

fn ask_wants(
    instance: &mut Instance,
    blueprint: &Blueprint,
    config: &PluginConfig,
) -> Result<Wants, LoadError> {
    let failed = |step| move |failure| LoadError::Start { plugin: config.name.clone(), step, failure };
    let parse = |filters: Option<Vec<String>>| -> Result<Vec<TopicFilter>, LoadError> {
        let parse = |filter: String| {
            let plugin = config.name.clone();
            TopicFilter::new(&filter).map_err(|source| LoadError::Topics { plugin, filter, source })
        };
        filters.unwrap_or_default().into_iter().map(parse).collect()
    };
    let on_publish = instance.ask_once(blueprint, |store, hooks| {
        hooks.on_publish.as_ref().map(|hook| hook.call_topics(store)).transpose()
    });
    let on_deliver = instance.ask_once(blueprint, |store, hooks| {
        hooks.on_deliver.as_ref().map(|hook| hook.call_topics(store)).transpose()
    });
    let persistence = instance.ask_once(blueprint, |store, hooks| {
        hooks.persistence.as_ref().map(|hook| hook.call_topics(store)).transpose()
    });
    let events = instance.ask_once(blueprint, |store, hooks| {
        hooks.lifecycle.as_ref().map(|hook| hook.call_events(store)).transpose()
    });
    let interval_ms = instance.ask_once(blueprint, |store, hooks| {
        hooks.timer.as_ref().map(|hook| hook.call_interval_ms(store)).transpose()
    });
    let events = events.map_err(failed("events"))?.unwrap_or_default();
    let interval_ms = interval_ms.map_err(failed("interval-ms"))?.unwrap_or_default();
    Ok(Wants {
        on_publish: parse(on_publish.map_err(failed("topics"))?)?,
        on_deliver: parse(on_deliver.map_err(failed("topics"))?)?,
        persistence: parse(persistence.map_err(failed("topics"))?)?,
        events: convert::event_kinds(&events),
        interval: Duration::from_millis(interval_ms.into()).max(INTERVAL_MIN),
    })
}

/// The broker looks at timers this often.
pub(crate) const INTERVAL_MIN: Duration = Duration::from_secs(1);

fn unix_ms() -> u64 {
    let since: Duration = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
