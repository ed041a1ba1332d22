//! `weirmq store`: looking at a store, checking it, moving it, copying it.
//!
//! All but `backup` read or write a folder themselves, and change nothing in a folder that has a store; `backup`
//! asks the broker that runs.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use weirmq_store::portable::{self, Exported};
use weirmq_store::{Condition, FileReport, ReadOnlyStore, Verification, verify};

use crate::admin::Request;
use crate::cli::{CONFIG_DEFAULT, Target, ask, data_folder_of, fail};
use crate::config::DATA_FOLDER_DEFAULT;
use crate::durable::folder_in;

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
    fn folder(&self) -> Result<PathBuf, String> {
        if let Some(folder) = &self.folder {
            return Ok(folder.clone());
        }
        if let Some(folder) = &self.data_folder {
            return Ok(folder_in(folder));
        }
        let found = Some(PathBuf::from(CONFIG_DEFAULT)).filter(|file| file.is_file());
        match self.config.clone().or(found) {
            Some(file) => data_folder_of(&file).map(|folder| folder_in(&folder)),
            None => Ok(folder_in(Path::new(DATA_FOLDER_DEFAULT))),
        }
    }
}

/// Does what `command` asks.
pub(crate) fn run(command: StoreCommand) -> ExitCode {
    let outcome = match command {
        StoreCommand::Info { place, json } => place.folder().and_then(|folder| info(&folder, json)),
        StoreCommand::Verify { place, json } => {
            match place.folder().and_then(|folder| check(&folder, json)) {
                Ok(true) => Ok(()),
                Ok(false) => return ExitCode::FAILURE,
                Err(error) => Err(error),
            }
        }
        StoreCommand::Export { place, output } => {
            place.folder().and_then(|folder| export(&folder, output.as_deref()))
        }
        StoreCommand::Import { lines, place } => place.folder().and_then(|folder| import(&lines, &folder)),
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

fn export(folder: &Path, output: Option<&Path>) -> Result<(), String> {
    let store = ReadOnlyStore::open(folder).map_err(|error| error.to_string())?;
    let exported = match output {
        None => {
            let mut out = BufWriter::new(io::stdout().lock());
            portable::export(&store, &mut out).map_err(|error| error.to_string())?
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
            portable::export(&store, &mut out).and_then(|done| opened.sync_all().map(|()| done)).map_err(
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
    let mut input: Box<dyn BufRead> = if lines == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        let file =
            File::open(lines).map_err(|error| format!("{} cannot be read: {error}", lines.display()))?;
        Box::new(BufReader::new(file))
    };
    let imported = portable::import(&mut *input, folder).map_err(|error| match error {
        portable::ImportError::Line { .. } | portable::ImportError::Read { .. } => {
            format!("{}: {error}; nothing was imported", lines.display())
        }
        error => error.to_string(),
    })?;
    say(&format!("imported into {}: {}", folder.display(), counted(&imported)));
    Ok(())
}

fn counted(all: &Exported) -> String {
    let Exported { sessions, messages, retained, sink_records, keys } = all;
    format!(
        "{sessions} sessions, {messages} queued messages, {retained} retained messages, {sink_records} sink \
         records, {keys} keys"
    )
}
