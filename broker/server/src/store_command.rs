//! `weirmq store`: looking at a store, checking it, moving it, copying it.
//!
//! All but `backup` read or write a folder themselves, and change nothing in a folder that has a store; `backup`
//! asks the broker that runs. Where the configuration names a store backend, `info`, `export`, `import` and
//! `try-backend` open it like a broker, which must not run meanwhile.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use weirmq_core::durable::backend::Backend;
use weirmq_host::{PluginBackend, PluginConfig};
use weirmq_store::portable::{self, Exported};
use weirmq_store::{Condition, FileReport, ReadOnlyStore, Store, Verification, conformance, verify};

use crate::admin::Request;
use crate::cli::{CONFIG_DEFAULT, Target, ask, data_folder_of, fail};
use crate::config::{Config, DATA_FOLDER_DEFAULT};
use crate::durable::{folder_in, open_backend};

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Say what is in a store, also while a broker runs on it
    Info {
        #[command(flatten)]
        place: Place,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Read every frame of every file, and say what is good, cut by a crash or damaged; nothing is changed
    Verify {
        #[command(flatten)]
        place: Place,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Write all that is in a store as lines of JSON, also while a broker runs on it
    Export {
        #[command(flatten)]
        place: Place,
        /// Into a new file; to standard output where none is named
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Make a store, in a folder that is new or empty, of lines that were exported
    Import {
        /// The lines; - is standard input
        #[arg(value_name = "FILE")]
        lines: PathBuf,
        #[command(flatten)]
        place: Place,
    },
    /// Hold the store backend of a configuration, which must be empty, to what a broker relies on
    TryBackend {
        /// The configuration; ./weirmq.toml unless it is said
        #[arg(long, value_name = "FILE", env = "WEIRMQ_CONFIG", default_value = CONFIG_DEFAULT)]
        config: PathBuf,
    },
    /// Have a running broker copy its store into a folder that is new or empty
    Backup {
        /// The folder, as the broker's machine knows it
        #[arg(value_name = "FOLDER")]
        into: PathBuf,
        #[command(flatten)]
        target: Target,
    },
}

/// Where a store is.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// The folder of the store itself, such as a backup
    #[arg(value_name = "STORE", conflicts_with_all = ["config", "data_folder"])]
    folder: Option<PathBuf>,
    /// The broker's configuration; ./weirmq.toml where there is one and nothing else is said
    #[arg(long, value_name = "FILE", env = "WEIRMQ_CONFIG")]
    config: Option<PathBuf>,
    /// The broker's data folder
    #[arg(long, value_name = "FOLDER", conflicts_with = "config")]
    data_folder: Option<PathBuf>,
}

impl Place {
    /// The folder. Where the store is in a backend there is none.
    fn folder(&self) -> Result<PathBuf, String> {
        match self.find()? {
            Found::Folder(folder) => Ok(folder),
            Found::Backend(_, plugin) => Err(format!(
                "the store is in the plugin '{}', as [store] says: for this, that one's own tools are there; \
                 `info`, `export` and `import` work on it too",
                plugin.name
            )),
        }
    }

    fn find(&self) -> Result<Found, String> {
        if let Some(folder) = &self.folder {
            return Ok(Found::Folder(folder.clone()));
        }
        if let Some(folder) = &self.data_folder {
            return Ok(Found::Folder(folder_in(folder)));
        }
        let found = Some(PathBuf::from(CONFIG_DEFAULT)).filter(|file| file.is_file());
        let Some(file) = self.config.clone().or(found) else {
            return Ok(Found::Folder(folder_in(Path::new(DATA_FOLDER_DEFAULT))));
        };
        match Config::inspect(&file) {
            Ok((Some(config), _)) => Ok(match config.store_backend.clone() {
                Some(plugin) => Found::Backend(Box::new(config), Box::new(plugin)),
                None => Found::Folder(folder_in(&config.data_folder)),
            }),
            _ => data_folder_of(&file).map(|folder| Found::Folder(folder_in(&folder))),
        }
    }
}

/// Where a store is.
enum Found {
    /// In a folder: the log.
    Folder(PathBuf),
    /// In what this plugin of this configuration keeps it in.
    Backend(Box<Config>, Box<PluginConfig>),
}

/// Does what `command` asks.
pub(crate) fn run(command: StoreCommand) -> ExitCode {
    let outcome = match command {
        StoreCommand::Info { place, json } => place.find().and_then(|found| match found {
            Found::Folder(folder) => info(&folder, json),
            Found::Backend(config, plugin) => backend_info(&config, &plugin, json),
        }),
        StoreCommand::Verify { place, json } => {
            match place.folder().and_then(|folder| check(&folder, json)) {
                Ok(true) => Ok(()),
                Ok(false) => return ExitCode::FAILURE,
                Err(error) => Err(error),
            }
        }
        StoreCommand::Export { place, output } => {
            place.find().and_then(|found| found.open()).and_then(|store| export(&*store, output.as_deref()))
        }
        StoreCommand::Import { lines, place } => place.find().and_then(|found| match found {
            Found::Folder(folder) => import(&lines, &folder),
            Found::Backend(config, plugin) => import_into_backend(&lines, &config, &plugin),
        }),
        StoreCommand::TryBackend { config } => try_backend(&config),
        StoreCommand::Backup { into, target } => {
            // The broker runs in a folder of its own.
            let into = std::path::absolute(&into).unwrap_or(into);
            return ask(&target, &Request::StoreBackup { folder: into });
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// Standard output, to which nobody may be listening any more: then there is nothing to say.
fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

fn info(folder: &Path, as_json: bool) -> Result<(), String> {
    let store = ReadOnlyStore::open(folder).map_err(|error| error.to_string())?;
    let (stats, recovery) = (store.stats(), store.recovery());
    let bytes_on_disk: u64 = stats.segments.iter().map(|(_, bytes)| bytes).sum();
    let cut = recovery.cut.as_ref().filter(|_| !stats.in_use);
    if as_json {
        let by_name = |all: &[(std::sync::Arc<str>, usize)]| -> Value {
            all.iter().map(|(name, count)| (name.to_string(), json!(count))).collect()
        };
        let value = json!({
            "folder": folder,
            "format": stats.format_version,
            "in_use": stats.in_use,
            "sessions": recovery.sessions,
            "queued": recovery.queued,
            "retained": recovery.retained,
            "sinks": by_name(&stats.sinks),
            "keys": by_name(&stats.keys),
            "bytes_live": stats.live_bytes,
            "bytes_on_disk": bytes_on_disk,
            "next_number": stats.next_number,
            "segments": stats.segments.iter().map(|(name, bytes)| json!({"name": name, "bytes": bytes})).collect::<Vec<_>>(),
            "cut": cut.map(|cut| json!({"file": cut.path, "offset": cut.offset, "bytes": cut.bytes, "what": cut.what})),
        });
        say(&value.to_string());
        return Ok(());
    }
    let used = if stats.in_use { "a broker runs on it" } else { "no broker runs on it" };
    let mut text = format!("store {}, format {}; {used}\n", folder.display(), stats.format_version);
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<20} {value}");
    };
    line("sessions", recovery.sessions.to_string());
    line("queued messages", recovery.queued.to_string());
    line("retained messages", recovery.retained.to_string());
    for (sink, count) in &stats.sinks {
        line("sink records", format!("{count} for '{sink}'"));
    }
    for (namespace, count) in &stats.keys {
        line("keys", format!("{count} in '{namespace}'"));
    }
    line("bytes live", format!("{} at most", stats.live_bytes));
    line("bytes on disk", format!("{bytes_on_disk} in {} segments", stats.segments.len()));
    if let Some(cut) = cut {
        let (path, offset, bytes) = (cut.path.display(), cut.offset, cut.bytes);
        line("cut by a crash", format!("{path} from byte {offset} on, {bytes} bytes: {}", cut.what));
    }
    say(text.trim_end());
    Ok(())
}

/// Whether the store is sound.
fn check(folder: &Path, as_json: bool) -> Result<bool, String> {
    let found = verify(folder).map_err(|error| error.to_string())?;
    let sound = found.is_sound();
    if as_json {
        say(&json!({
            "folder": folder,
            "sound": sound,
            "in_use": found.in_use,
            "files": found.files.iter().map(file_as_json).collect::<Vec<_>>(),
        })
        .to_string());
        return Ok(sound);
    }
    for file in &found.files {
        say(&in_words(file));
    }
    say(&verdict(folder, &found));
    Ok(sound)
}

fn verdict(folder: &Path, found: &Verification) -> String {
    let folder = folder.display();
    match (found.is_sound(), found.in_use) {
        (true, false) => format!("{folder} is sound"),
        (true, true) => {
            format!("{folder} is sound; a broker runs on it, and what it is writing may look cut")
        }
        (false, false) => format!("{folder} is damaged and does not open; restore it from a backup"),
        (false, true) => format!(
            "{folder} is damaged; the broker on it goes on until it is ended: take an export of it first, and \
             restore the folder from a backup"
        ),
    }
}

fn in_words(file: &FileReport) -> String {
    let path = file.path.display();
    match &file.condition {
        Condition::Good => format!("good     {path}: {} frames, {} bytes", file.frames, file.bytes),
        Condition::NotNeeded => format!("unneeded {path}: it is removed when the store is opened"),
        Condition::Cut { offset, what } => format!(
            "cut      {path}: {} frames, good up to byte {offset}, where a crash has cut it: {what}",
            file.frames
        ),
        Condition::Damaged { offset, what } => {
            format!("damaged  {path}: {} frames, damaged at byte {offset}: {what}", file.frames)
        }
        Condition::Unreadable { cause } => format!("damaged  {path}: it cannot be read: {cause}"),
        Condition::Missing => format!("damaged  {path}: it is missing"),
        Condition::NewerFormat { version } => {
            format!("unknown  {path}: it has format {version}; use a newer broker")
        }
    }
}

fn file_as_json(file: &FileReport) -> Value {
    let mut value = json!({"file": file.path, "bytes": file.bytes, "frames": file.frames});
    let more = match &file.condition {
        Condition::Good => json!({"condition": "good"}),
        Condition::NotNeeded => json!({"condition": "not_needed"}),
        Condition::Cut { offset, what } => json!({"condition": "cut", "offset": offset, "what": what}),
        Condition::Damaged { offset, what } => {
            json!({"condition": "damaged", "offset": offset, "what": what})
        }
        Condition::Unreadable { cause } => json!({"condition": "unreadable", "what": cause}),
        Condition::Missing => json!({"condition": "missing"}),
        Condition::NewerFormat { version } => json!({"condition": "newer_format", "version": version}),
    };
    if let (Value::Object(value), Value::Object(mut more)) = (&mut value, more) {
        value.append(&mut more);
    }
    value
}

impl Found {
    /// The store, to be looked at.
    fn open(&self) -> Result<Box<dyn Store>, String> {
        match self {
            Self::Folder(folder) => {
                ReadOnlyStore::open(folder).map(|store| Box::new(store) as Box<dyn Store>).map_err(in_full)
            }
            Self::Backend(config, plugin) => {
                open_backend(config, plugin).map(|store| Box::new(store) as Box<dyn Store>).map_err(in_full)
            }
        }
    }
}

fn in_full(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn backend_info(config: &Config, plugin: &PluginConfig, as_json: bool) -> Result<(), String> {
    let store = open_backend(config, plugin).map_err(in_full)?;
    let Exported { sessions, messages, retained, sink_records, keys } =
        portable::export(&store, &mut io::sink()).map_err(in_full)?;
    if as_json {
        let value = json!({
            "backend": plugin.name,
            "sessions": sessions,
            "queued": messages,
            "retained": retained,
            "sink_records": sink_records,
            "keys": keys,
            "next_number": store.next_number(),
        });
        say(&value.to_string());
    } else {
        let exported = Exported { sessions, messages, retained, sink_records, keys };
        say(&format!("store in the plugin {}: {}", plugin.name, counted(&exported)));
    }
    Ok(())
}

fn try_backend(file: &Path) -> Result<(), String> {
    let config = Config::load(file).map_err(in_full)?;
    let Some(plugin) = &config.store_backend else {
        return Err(format!("{} names no `backend` under [store]", file.display()));
    };
    let open = || {
        let backend = PluginBackend::load(&config.plugin_host, plugin).map_err(in_full)?;
        Ok(Arc::new(backend) as Arc<dyn Backend>)
    };
    conformance::hold(open).map_err(|fault| format!("the store backend '{}': {fault}", plugin.name))?;
    say(&format!(
        "the store backend '{}' does what a broker relies on, as far as can be seen without a crash; it is empty again",
        plugin.name
    ));
    Ok(())
}

fn export(store: &dyn Store, output: Option<&Path>) -> Result<(), String> {
    let exported = match output {
        None => {
            let mut out = BufWriter::new(io::stdout().lock());
            portable::export(store, &mut out).map_err(in_full)?
        }
        Some(file) => {
            let failed = |error: &dyn std::fmt::Display| {
                format!(
                    "{} cannot be written: {error}; name another file, that is not there yet",
                    file.display()
                )
            };
            let opened =
                File::options().write(true).create_new(true).open(file).map_err(|error| failed(&error))?;
            let mut out = BufWriter::new(&opened);
            portable::export(store, &mut out).and_then(|done| opened.sync_all().map(|()| done)).map_err(
                |error| {
                    // Half of an export is none.
                    drop(std::fs::remove_file(file));
                    failed(&error)
                },
            )?
        }
    };
    let _ = writeln!(io::stderr(), "exported {}", counted(&exported));
    Ok(())
}

fn import(lines: &Path, folder: &Path) -> Result<(), String> {
    let imported = read_lines(lines, folder)?;
    say(&format!("imported into {}: {}", folder.display(), counted(&imported)));
    Ok(())
}

/// By way of a log, which is whole before anything of it goes into the backend.
fn import_into_backend(lines: &Path, config: &Config, plugin: &PluginConfig) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| format!("a folder for the lines: {error}"))?;
    let folder = folder.path().join("store");
    let imported = read_lines(lines, &folder)?;
    let log = ReadOnlyStore::open(&folder).map_err(in_full)?;
    let store = open_backend(config, plugin).map_err(in_full)?;
    portable::copy(&log, &store).map_err(|error| format!("the plugin '{}': {error}", plugin.name))?;
    say(&format!("imported into the plugin {}: {}", plugin.name, counted(&imported)));
    Ok(())
}

/// Makes a store in `folder` of `lines`.
fn read_lines(lines: &Path, folder: &Path) -> Result<Exported, String> {
    let mut input: Box<dyn BufRead> = if lines == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        let file =
            File::open(lines).map_err(|error| format!("{} cannot be read: {error}", lines.display()))?;
        Box::new(BufReader::new(file))
    };
    portable::import(&mut *input, folder).map_err(|error| match error {
        portable::ImportError::Line { .. } | portable::ImportError::Read { .. } => {
            format!("{}: {error}; nothing was imported", lines.display())
        }
        error => error.to_string(),
    })
}

fn counted(all: &Exported) -> String {
    let Exported { sessions, messages, retained, sink_records, keys } = all;
    format!(
        "{sessions} sessions, {messages} queued messages, {retained} retained messages, {sink_records} sink \
         records, {keys} keys"
    )
}
