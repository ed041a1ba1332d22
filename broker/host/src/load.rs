//! From a file to a version of a plugin that is ready to serve.

use std::fs::File;
use std::io::Read;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use wasmtime::Engine;
use wasmtime::component::{Component, Linker};
use weirmq_core::hook::{HookPoint, HookPoints};
use weirmq_core::topic::TopicFilter;

use crate::API_VERSION;
use crate::config::PluginConfig;
use crate::error::LoadError;
use crate::instance::{Blueprint, Exports, Instance, Instantiate, State, detail};
use crate::instances::Instances;
use crate::plugin::PluginInfo;

/// What every WeirMQ interface name begins with.
const PACKAGE: &str = "weirmq:plugin/";
/// The interfaces that plugins may import.
const GRANTED: [&str; 4] = ["types", "log", "config", "clock"];
/// The hook points of this version of the interface; the export of each has its name.
const HOOKS: [HookPoint; 6] = [
    HookPoint::Authenticate,
    HookPoint::Authorize,
    HookPoint::OnPublish,
    HookPoint::OnSubscribe,
    HookPoint::OnUnsubscribe,
    HookPoint::Lifecycle,
];

/// One version of a plugin, ready to serve.
pub(crate) struct Generation {
    pub(crate) info: PluginInfo,
    pub(crate) topics: Vec<TopicFilter>,
    pub(crate) blueprint: Blueprint,
    pub(crate) instances: Instances,
}

/// Reads, compiles and starts the plugin of `config`.
pub(crate) fn load(
    engine: &Engine,
    linker: &Linker<State>,
    file_bytes_max: u64,
    config: &PluginConfig,
) -> Result<Generation, LoadError> {
    config.validate()?;
    let bytes = read(config, file_bytes_max)?;
    check_format(config, &bytes)?;
    let started = Instant::now();
    let component = Component::new(engine, &bytes).map_err(|error| LoadError::Compile {
        plugin: config.name.clone(),
        file: config.file.clone(),
        detail: detail(&error),
    })?;
    let compiled_in = started.elapsed();
    check_interface(engine, config, &component)?;
    let mismatch = |detail| LoadError::Mismatch { plugin: config.name.clone(), detail };
    let blueprint = Blueprint::new(linker, &component, config).map_err(|error| mismatch(detail(&error)))?;
    let (info, topics, first) = start(config, &blueprint)?;
    let info = PluginInfo {
        name: config.name.clone(),
        plugin: info.name,
        version: info.version,
        api_version: API_VERSION.to_owned(),
        file: config.file.clone(),
        hooks: points(&blueprint.exports),
        topics: topics.iter().map(ToString::to_string).collect(),
        bytes: bytes.len() as u64,
        compiled_in,
        loaded_unix_ms: unix_ms(),
    };
    let instances = Instances::new(config.instances_max as usize, first);
    Ok(Generation { info, topics, blueprint, instances })
}

fn read(config: &PluginConfig, bytes_max: u64) -> Result<Vec<u8>, LoadError> {
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

/// Whether the names of its imports and exports are those of this interface.
fn check_interface(engine: &Engine, config: &PluginConfig, component: &Component) -> Result<(), LoadError> {
    let plugin = || config.name.clone();
    let ty = component.component_type();
    for (import, _) in ty.imports(engine) {
        match Interface::parse(import) {
            Some(interface) if !interface.fits() => {
                return Err(LoadError::ApiVersion { plugin: plugin(), found: import.to_owned() });
            }
            Some(interface) if GRANTED.contains(&interface.name) => {}
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
    if !HOOKS.iter().any(|hook| names.iter().any(|name| name == hook.name())) {
        let hooks = HOOKS.map(HookPoint::name).join(", ");
        return Err(LoadError::NoHooks { plugin: plugin(), hooks });
    }
    Ok(())
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
    ]
    .into_iter()
    .filter_map(|(point, served)| served.then_some(point))
    .collect()
}

type Started = (crate::bindings::exports::weirmq::plugin::guest::PluginInfo, Vec<TopicFilter>, Instance);

/// Makes the first instance, and asks it all that is asked once.
fn start(config: &PluginConfig, blueprint: &Blueprint) -> Result<Started, LoadError> {
    let plugin = || config.name.clone();
    let failed = |step| move |failure| LoadError::Start { plugin: config.name.clone(), step, failure };
    let mut instance = blueprint.instantiate().map_err(|error| match error {
        Instantiate::Failed(failure) => failed("its start function")(failure),
        Instantiate::Mismatch(detail) => LoadError::Mismatch { plugin: plugin(), detail },
    })?;
    let info = instance.info(blueprint).map_err(failed("info"))?;
    let accepted = instance.init(blueprint).map_err(failed("init"))?;
    accepted.map_err(|reason| LoadError::Refused { plugin: plugin(), reason })?;
    let healthy = instance.health(blueprint).map_err(failed("health"))?;
    healthy.map_err(|reason| LoadError::Unhealthy { plugin: plugin(), reason })?;
    let topics = instance.topics(blueprint).map_err(failed("topics"))?;
    let parse = |filter: String| {
        TopicFilter::new(&filter).map_err(|source| LoadError::Topics { plugin: plugin(), filter, source })
    };
    let topics = topics.into_iter().map(parse).collect::<Result<_, _>>()?;
    Ok((info, topics, instance))
}

fn unix_ms() -> u64 {
    let since: Duration = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
