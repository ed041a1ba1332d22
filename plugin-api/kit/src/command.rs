//! The commands of an author: `new`, `bindings`, `seal`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::bindings::{self, BindingsError, BindingsLanguage};
use crate::project::{self, Language, ProjectError};
use crate::seal::{self, SealError};

/// The largest file that is sealed, in bytes: more than any interpreter has.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// Why a command did not do what it was to do.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// There is no project.
    #[error(transparent)]
    Project(#[from] ProjectError),
    /// There are no bindings.
    #[error(transparent)]
    Bindings(#[from] BindingsError),
    /// There is no sealed component.
    #[error("{}: {source}", file.display())]
    Seal {
        /// What was to be sealed.
        file: PathBuf,
        /// Why not.
        source: SealError,
    },
    /// What is to be sealed is something else.
    #[error("{} is not a WebAssembly file; name what your compiler made", file.display())]
    NotWasm {
        /// The file.
        file: PathBuf,
    },
    /// What is to be sealed is too large.
    #[error("{} has more than {FILE_BYTES_MAX} bytes; no plugin needs that", file.display())]
    TooLarge {
        /// The file.
        file: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("cannot {verb} {}: {source}", path.display())]
    File {
        /// Read or write.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The command line is not one of an author.
    #[error("{0}")]
    CommandLine(#[from] clap::Error),
    /// Nobody takes what is to be said.
    #[error("standard output: {0}")]
    Stream(#[from] io::Error),
}

/// A new project in this folder: the source of a plugin, its build, its test, the plugin interface
#[derive(Debug, Args)]
pub struct New {
    /// In which language
    #[arg(long, value_enum)]
    lang: Language,
    /// Its name, and that of its folder: lower case words with hyphens between them
    name: String,
    /// For Rust: the guest crate of a checkout of WeirMQ (plugin-api/rust), instead of a copy in the project
    #[arg(long, value_name = "FOLDER")]
    sdk: Option<PathBuf>,
}

impl New {
    /// Makes the project, and says on `out` what comes next.
    ///
    /// # Errors
    /// [`CommandError`] with what is in the way.
    pub fn run(&self, out: &mut dyn Write) -> Result<(), CommandError> {
        project::create(Path::new(""), self.lang, &self.name, self.sdk.as_deref())?;
        let name = &self.name;
        writeln!(out, "made {name}; README.md says what its build needs. Then:")?;
        writeln!(out, "  cd {name}")?;
        writeln!(out, "  sh build.sh")?;
        Ok(writeln!(out, "  weirmq plugin test {name}.wasm --config weirmq.toml")?)
    }
}

/// Write the plugin interface in the words of a language
#[derive(Debug, Args)]
pub struct Bindings {
    /// In which language
    #[arg(long, value_enum)]
    lang: BindingsLanguage,
    /// The folder or file with the interface
    #[arg(long, value_name = "FOLDER")]
    wit: PathBuf,
    /// One of its worlds, such as auth-plugin
    #[arg(long, value_name = "NAME")]
    world: Option<String>,
    /// The folder that they are written into
    #[arg(long, value_name = "FOLDER")]
    output: PathBuf,
}

impl Bindings {
    /// Writes them. A go.mod that is there is left alone: it is the author's.
    ///
    /// # Errors
    /// [`CommandError`] where there is no such world, or a file cannot be written.
    pub fn run(&self) -> Result<(), CommandError> {
        let (resolve, world) = bindings::world(&self.wit, self.world.as_deref())?;
        for (path, bytes) in bindings::generate(self.lang, resolve, world)? {
            let file = self.output.join(&path);
            if path == Path::new("go.mod") && file.exists() {
                continue;
            }
            let folder = file.parent().unwrap_or(&self.output);
            let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&file, bytes));
            written.map_err(|source| CommandError::File { verb: "write", path: file.clone(), source })?;
        }
        Ok(())
    }
}

/// Make a component that needs nothing but the plugin interface, of one that asks for WASI or of a core module
#[derive(Debug, Args)]
pub struct Seal {
    /// What the compiler made: a component, or a core module
    file: PathBuf,
    /// Where the component goes
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// The folder with the interface that a module was written for, where it does not say so itself
    #[arg(long, value_name = "FOLDER", requires = "world")]
    wit: Option<PathBuf>,
    /// The world that a module was written for
    #[arg(long, value_name = "NAME", requires = "wit")]
    world: Option<String>,
}

impl Seal {
    /// Writes the component, in one step: a broker that watches the file sees no half of it.
    ///
    /// # Errors
    /// [`CommandError`] where there is none, or it cannot be written.
    pub fn run(&self) -> Result<(), CommandError> {
        let sealed = self.sealed(&self.read()?)?;
        let cannot = |source| CommandError::File { verb: "write", path: self.output.clone(), source };
        let mut unfinished = self.output.clone().into_os_string();
        unfinished.push(format!(".{}.tmp", std::process::id()));
        let written =
            std::fs::write(&unfinished, sealed).and_then(|()| std::fs::rename(&unfinished, &self.output));
        if written.is_err() {
            let _ = std::fs::remove_file(&unfinished);
        }
        written.map_err(cannot)
    }

    fn read(&self) -> Result<Vec<u8>, CommandError> {
        let cannot = |source| CommandError::File { verb: "read", path: self.file.clone(), source };
        if std::fs::metadata(&self.file).map_err(cannot)?.len() > FILE_BYTES_MAX {
            return Err(CommandError::TooLarge { file: self.file.clone() });
        }
        std::fs::read(&self.file).map_err(cannot)
    }

    fn sealed(&self, bytes: &[u8]) -> Result<Vec<u8>, CommandError> {
        let failed = |source| CommandError::Seal { file: self.file.clone(), source };
        match bytes.get(..8) {
            Some([0, b'a', b's', b'm', 1, 0, 0, 0]) => {
                let wit = self.wit.as_deref();
                let types = wit.map(|wit| bindings::world(wit, self.world.as_deref())).transpose()?;
                let types = types.as_ref().map(|(resolve, world)| (resolve, *world));
                seal::componentize(bytes, types).map_err(failed)
            }
            Some([0, b'a', b's', b'm', ..]) => seal::seal(bytes).map_err(failed),
            _ => Err(CommandError::NotWasm { file: self.file.clone() }),
        }
    }
}

/// The commands of an author by themselves, as `cargo xtask plugin` has them.
#[derive(Debug, Parser)]
#[command(name = "plugin", no_binary_name = true)]
struct Author {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    New(New),
    Bindings(Bindings),
    Seal(Seal),
}

/// Does what `arguments` ask, such as `seal FILE --output FILE`.
///
/// # Errors
/// [`CommandError`] with what is in the way.
pub fn run(arguments: &[String]) -> Result<(), CommandError> {
    match Author::try_parse_from(arguments)?.command {
        Command::New(new) => new.run(&mut io::stdout().lock()),
        Command::Bindings(bindings) => bindings.run(),
        Command::Seal(seal) => seal.run(),
    }
}
