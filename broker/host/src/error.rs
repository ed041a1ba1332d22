//! Why the host does not start, and why a plugin is not taken into service. Each is one sentence that says what
//! is wrong and what to do.

use std::path::PathBuf;

use weirmq_core::hook::Failure;
use weirmq_core::topic::TopicError;

/// Why the plugin host does not start.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The Wasm engine cannot be set up on this machine.
    #[error("the Wasm engine cannot be set up on this machine: {0}")]
    Engine(String),
    /// The cache folder cannot be used.
    #[error("compiled plugins cannot be kept in '{}': {detail}; make the folder writable for the broker", folder.display())]
    Cache {
        /// The folder.
        folder: PathBuf,
        /// What the cache says.
        detail: String,
    },
    /// A thread cannot be started.
    #[error("a thread for plugins cannot be started: {0}; raise the limit on threads")]
    Thread(#[source] std::io::Error),
}

/// Why a plugin is not taken into service. What served before goes on serving.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A value in its configuration is out of range.
    #[error("plugin '{plugin}': {key} must be {wanted}")]
    Config {
        /// The plugin.
        plugin: String,
        /// The key.
        key: String,
        /// What it may be.
        wanted: String,
    },
    /// The file cannot be read.
    #[error("plugin '{plugin}': '{}' cannot be read: {source}; build it with `cargo xtask guests`, or correct `file`", file.display())]
    Read {
        /// The plugin.
        plugin: String,
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is larger than the host takes.
    #[error(
        "plugin '{plugin}': '{}' has more than {bytes_max} bytes; build it with optimisation and without debug information, or raise file_bytes_max",
        file.display()
    )]
    FileTooLarge {
        /// The plugin.
        plugin: String,
        /// The file.
        file: PathBuf,
        /// How large it may be.
        bytes_max: u64,
    },
    /// The file is something else.
    #[error("plugin '{plugin}': '{}' is not a WebAssembly file; `file` must name a component (.wasm)", file.display())]
    NotWasm {
        /// The plugin.
        plugin: String,
        /// The file.
        file: PathBuf,
    },
    /// The file is a core module.
    #[error(
        "plugin '{plugin}': '{}' is a core WebAssembly module, not a component; make one of it with `weirmq plugin seal`",
        file.display()
    )]
    CoreModule {
        /// The plugin.
        plugin: String,
        /// The file.
        file: PathBuf,
    },
    /// The file is damaged, or uses what this engine does not have.
    #[error("plugin '{plugin}': '{}' cannot be compiled: {detail}; build it anew", file.display())]
    Compile {
        /// The plugin.
        plugin: String,
        /// The file.
        file: PathBuf,
        /// What the compiler says.
        detail: String,
    },
    /// It was built for another version of the interface.
    #[error(
        "plugin '{plugin}' is built for '{found}', and this broker speaks weirmq:plugin@{}; build it against plugin-api/wit of this broker",
        crate::API_VERSION
    )]
    ApiVersion {
        /// The plugin.
        plugin: String,
        /// The interface that it imports or exports.
        found: String,
    },
    /// It is native, and the configuration does not allow that.
    #[error(
        "plugin '{plugin}': '{}' is a native library, which runs unconfined in the broker's own process; if you trust it like the broker itself, write `allow_native = true` under [plugin_host], otherwise build it as a WebAssembly component",
        file.display()
    )]
    NativeNotAllowed {
        /// The plugin.
        plugin: String,
        /// The file.
        file: PathBuf,
    },
    /// The file is no shared library that can be mapped.
    #[error("plugin '{plugin}': '{}' is not a shared library: {detail}; build it with `cc -shared -fPIC`, or correct `file`", file.display())]
    NotALibrary {
        /// The plugin.
        plugin: String,
        /// The file.
        file: PathBuf,
        /// What it is instead.
        detail: String,
    },
    /// The library is for another machine.
    #[error(
        "plugin '{plugin}': '{}' is built for {found}, and this broker runs on {}; build it for this machine",
        file.display(),
        std::env::consts::ARCH
    )]
    Architecture {
        /// The plugin.
        plugin: String,
        /// The file.
        file: PathBuf,
        /// What it is built for.
        found: String,
    },
    /// The library exports no table.
    #[error(
        "plugin '{plugin}': '{}' does not export '{}', so it is no WeirMQ plugin; define that table as plugin-api/c/weirmq_plugin.h says, with WEIRMQ_EXPORT",
        file.display(),
        weirmq_native::abi::TABLE
    )]
    MissingTable {
        /// The plugin.
        plugin: String,
        /// The file.
        file: PathBuf,
    },
    /// The library's table is of another version, or none.
    #[error(
        "plugin '{plugin}': {found}, and this broker speaks version {}.{} of the C interface; build it against plugin-api/c/weirmq_plugin.h of this broker",
        weirmq_native::abi::MAJOR,
        weirmq_native::abi::MINOR
    )]
    Abi {
        /// The plugin.
        plugin: String,
        /// What was found instead.
        found: String,
    },
    /// The system's loader does not take the library.
    #[error("plugin '{plugin}': '{}' cannot be linked: {detail}; install what it needs, or build it anew", file.display())]
    Link {
        /// The plugin.
        plugin: String,
        /// The file.
        file: PathBuf,
        /// What the loader says.
        detail: String,
    },
    /// No private copy of the library can be made.
    #[error("plugin '{plugin}': the library cannot be copied into '{}': {source}; make the folder writable for the broker", folder.display())]
    NativeCopy {
        /// The plugin.
        plugin: String,
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Too many libraries were loaded.
    #[error(
        "plugin '{plugin}': the broker has mapped {max} different native libraries, which are never unloaded; restart it to load another"
    )]
    TooManyLibraries {
        /// The plugin.
        plugin: String,
        /// How many may be.
        max: usize,
    },
    /// It asks for what it is not granted.
    #[error(
        "plugin '{plugin}' asks for {what}, which nothing grants; if it may have that, add to its [[plugin]] table in weirmq.toml: {lines}"
    )]
    NotGranted {
        /// The plugin.
        plugin: String,
        /// What it asks for, in words.
        what: String,
        /// The lines that grant it.
        lines: String,
    },
    /// What it says about what it asks for cannot be read.
    #[error("plugin '{plugin}': its manifest cannot be read: {detail}; correct it, see plugin-api/README.md")]
    Manifest {
        /// The plugin.
        plugin: String,
        /// What is wrong, and where.
        detail: String,
    },
    /// A secret cannot be read.
    #[error("plugin '{plugin}': the secret '{secret}' cannot be read: {detail}")]
    Secret {
        /// The plugin.
        plugin: String,
        /// The name of the secret.
        secret: String,
        /// Why, and where it should be.
        detail: String,
    },
    /// It is granted HTTP, and that cannot be set up.
    #[error("plugin '{plugin}': outgoing HTTP cannot be set up on this machine: {detail}")]
    Http {
        /// The plugin.
        plugin: String,
        /// Why.
        detail: String,
    },
    /// What loads it does not start.
    #[error("plugin '{plugin}': {error}")]
    Host {
        /// The plugin.
        plugin: String,
        /// Why.
        error: HostError,
    },
    /// A thread cannot be started.
    #[error(
        "plugin '{plugin}': a thread for its calls cannot be started: {detail}; raise the limit on threads, or lower io_threads"
    )]
    Threads {
        /// The plugin.
        plugin: String,
        /// Why.
        detail: String,
    },
    /// It wants what no plugin gets.
    #[error(
        "plugin '{plugin}' imports '{import}', which there is not; a plugin gets the interfaces of weirmq:plugin@{} and nothing else; `weirmq plugin seal` serves what a language needs of WASI, anything else it must be built without",
        crate::API_VERSION
    )]
    UnknownImport {
        /// The plugin.
        plugin: String,
        /// The import.
        import: String,
    },
    /// It is a component, but no plugin.
    #[error(
        "plugin '{plugin}' does not export '{export}', so it is no WeirMQ plugin; build it for one of the worlds in plugin-api/wit"
    )]
    MissingExport {
        /// The plugin.
        plugin: String,
        /// What every plugin exports.
        export: String,
    },
    /// It serves nothing.
    #[error("plugin '{plugin}' exports no hook point; export at least one of {hooks}")]
    NoHooks {
        /// The plugin.
        plugin: String,
        /// The names of all that there are.
        hooks: String,
    },
    /// It is a store backend only, and the configuration does not use it as one.
    #[error(
        "plugin '{plugin}' serves store-backend and nothing else; use it with `backend = \"{plugin}\"` under [store], or remove it"
    )]
    BackendOnly {
        /// The plugin.
        plugin: String,
    },
    /// It is no store backend.
    #[error(
        "plugin '{plugin}' is no store backend, which `backend` under [store] names it for; name a plugin that serves store-backend, or leave `backend` out"
    )]
    NoBackend {
        /// The plugin.
        plugin: String,
    },
    /// It does not open its store.
    #[error("plugin '{plugin}' cannot open its store: {reason}")]
    BackendRefused {
        /// The plugin.
        plugin: String,
        /// In the plugin's words.
        reason: String,
    },
    /// It takes too long to open its store.
    #[error(
        "plugin '{plugin}' has not opened its store within {ms} ms; see what it waits for, or raise deadline_ms.store-backend"
    )]
    BackendLate {
        /// The plugin.
        plugin: String,
        /// How long was waited.
        ms: u64,
    },
    /// Names fit, types do not.
    #[error(
        "plugin '{plugin}' does not fit weirmq:plugin@{}: {detail}; build it against plugin-api/wit of this broker",
        crate::API_VERSION
    )]
    Mismatch {
        /// The plugin.
        plugin: String,
        /// What does not fit.
        detail: String,
    },
    /// It failed before it served.
    #[error("plugin '{plugin}' failed in {step}: {failure}; see what it does there, or raise its limits")]
    Start {
        /// The plugin.
        plugin: String,
        /// In which of its functions.
        step: &'static str,
        /// How.
        failure: Failure,
    },
    /// It refuses its configuration.
    #[error("plugin '{plugin}' refuses its configuration: {reason}")]
    Refused {
        /// The plugin.
        plugin: String,
        /// In the plugin's words.
        reason: String,
    },
    /// It says that it is not fit to serve.
    #[error("plugin '{plugin}' says that it is not healthy: {reason}")]
    Unhealthy {
        /// The plugin.
        plugin: String,
        /// In the plugin's words.
        reason: String,
    },
    /// One of the topic filters that it wants is none.
    #[error(
        "plugin '{plugin}' asks for the topics '{filter}', which is not a topic filter: {source}; correct its topics"
    )]
    Topics {
        /// The plugin.
        plugin: String,
        /// What it asked for.
        filter: String,
        /// Why that is no filter.
        source: TopicError,
    },
}
