//! From guests (Wasm plugins) in any language to components in `target/guests`.
//!
//! # Layout
//! - this file: which guests there are, and where their components go
//! - [`recipes`]: how they are compiled
//! - [`tools`]: the compilers that come from PyPI and npm
//! - [`inputs`]: whether anything has changed since a guest was built

mod inputs;
mod recipes;
mod tools;

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use weirmq_kit::project::Language;

use crate::process::{self, Stop};
use recipes::Workshop;

/// The folders whose sub-folders may be packages that are guests: plugins that ship, and those of the host's tests.
const HOMES: [&str; 2] = ["plugins", "broker/host/tests/guests"];
/// The examples: a project in each language.
const EXAMPLES: &str = "examples/plugins";

/// Which guests are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted<'a> {
    /// Every one.
    All,
    /// Those in Rust, which need no other compiler.
    Rust,
    /// One by name.
    One(&'a str),
}

impl Wanted<'_> {
    fn includes(self, guest: &Guest) -> bool {
        match self {
            Self::All => true,
            Self::Rust => matches!(guest.kind, Kind::Package { .. } | Kind::Project(Language::Rust)),
            Self::One(name) => guest.name == name,
        }
    }
}

/// Builds the guests that are wanted, and answers the folder that has them: `NAME.wasm` for the guest `NAME`.
/// Files of guests that have not changed are left untouched.
pub(crate) fn build(root: &Path, wanted: Wanted<'_>) -> Result<PathBuf, Stop> {
    let components = root.join("target").join("guests");
    let mut guests = find_all(root)?;
    let names: Vec<String> = guests.iter().map(|guest| guest.name.clone()).collect();
    guests.retain(|guest| wanted.includes(guest));
    match wanted {
        Wanted::One(name) if guests.is_empty() => {
            return Err(Stop(format!("there is no guest `{name}`; there are: {}", names.join(", "))));
        }
        _ => {}
    }
    std::fs::create_dir_all(&components).map_err(|error| cannot("make", &components, &error))?;
    let mut workshop = Workshop::new(root);
    for guest in &guests {
        let component = components.join(format!("{}.wasm", guest.name));
        match &guest.kind {
            Kind::Package { module } => {
                process::say(&format!("building the guest {}", guest.name));
                write_if_changed(&component, &workshop.package(guest, module)?)?;
            }
            Kind::Project(language) => {
                let inputs = workshop.inputs(guest, *language)?;
                if component.exists() && inputs::unchanged(&workshop.stamp(guest), &inputs) {
                    continue;
                }
                process::say(&format!("building the guest {} ({})", guest.name, language.word()));
                write_if_changed(&component, &workshop.project(guest, *language)?)?;
                inputs::remember(&workshop.stamp(guest), &inputs)?;
            }
        }
    }
    Ok(components)
}

/// The Rust packages that are no members of the workspace: the guests, the crate that they are written with, and the
/// native examples.
pub(crate) fn outside_the_workspace(root: &Path) -> Result<Vec<PathBuf>, Stop> {
    let guests = find_all(root)?.into_iter();
    let packages = guests.filter(|guest| Wanted::Rust.includes(guest)).map(|guest| guest.folder);
    let others = ["plugin-api/rust", "examples/native/rust", "examples/native/sqlite-store"]
        .map(|folder| root.join(folder));
    Ok(packages.chain(others.into_iter().filter(|folder| folder.join("Cargo.toml").exists())).collect())
}

/// What is compiled to a component.
#[derive(Debug, PartialEq, Eq)]
struct Guest {
    folder: PathBuf,
    name: String,
    kind: Kind,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    /// A Rust package; `module` is the file that cargo makes of it.
    Package { module: String },
    /// What `weirmq plugin new` makes, in this language.
    Project(Language),
}

impl Guest {
    /// The example in `language`.
    fn example(root: &Path, language: Language) -> Self {
        let (folder, name) =
            (root.join(EXAMPLES).join(language.word()), format!("example-{}", language.word()));
        Self { folder, name, kind: Kind::Project(language) }
    }

    /// The file that it must not share with another guest.
    fn file(&self) -> String {
        match &self.kind {
            Kind::Package { module } => module.clone(),
            Kind::Project(_) => format!("{}.wasm", self.name),
        }
    }
}

fn find_all(root: &Path) -> Result<Vec<Guest>, Stop> {
    let examples = Language::value_variants().iter().map(|language| Guest::example(root, *language));
    let mut guests: Vec<Guest> = examples.collect();
    for home in HOMES {
        for folder in folders_in(&root.join(home))? {
            let Some(guest) = read_package(folder)? else { continue };
            if let Some(same) = guests.iter().find(|other| other.file() == guest.file()) {
                return Err(Stop(format!(
                    "{} and {} both build {}; give one of them another package name",
                    same.folder.display(),
                    guest.folder.display(),
                    guest.file()
                )));
            }
            guests.push(guest);
        }
    }
    Ok(guests)
}

fn read_if_there(path: &Path) -> Result<Option<String>, Stop> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(cannot("read", path, &error)),
    }
}

/// The guest in `folder`; `None` where there is no Cargo.toml whose library is a `cdylib`.
fn read_package(folder: PathBuf) -> Result<Option<Guest>, Stop> {
    let manifest = folder.join("Cargo.toml");
    let Some(text) = read_if_there(&manifest)? else { return Ok(None) };
    let table: toml::Table =
        toml::from_str(&text).map_err(|error| Stop(format!("{}: {error}", manifest.display())))?;
    let library = table.get("lib");
    let is_cdylib = library
        .and_then(|library| library.get("crate-type"))
        .and_then(toml::Value::as_array)
        .is_some_and(|types| types.iter().any(|kind| kind.as_str() == Some("cdylib")));
    if !is_cdylib {
        return Ok(None);
    }
    let name = table
        .get("package")
        .and_then(|package| package.get("name"))
        .and_then(toml::Value::as_str)
        .ok_or_else(|| Stop(format!("{} has no package name", manifest.display())))?
        .to_owned();
    let module = library
        .and_then(|library| library.get("name"))
        .and_then(toml::Value::as_str)
        .map_or_else(|| name.replace('-', "_"), str::to_owned);
    Ok(Some(Guest { folder, name, kind: Kind::Package { module: format!("{module}.wasm") } }))
}

/// Puts `bytes` at `path` in one step: a broker that watches the file never sees half of it, and is not
/// told of a change where there is none.
fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<(), Stop> {
    if std::fs::read(path).is_ok_and(|present| present == bytes) {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|error| cannot("make", folder, &error))?;
    let unfinished = path.with_extension(format!("wasm.{}.tmp", std::process::id()));
    let write = || {
        let mut file = std::fs::File::create(&unfinished)?;
        file.write_all(bytes)?;
        drop(file);
        std::fs::rename(&unfinished, path)
    };
    write().map_err(|error| {
        let _ = std::fs::remove_file(&unfinished);
        cannot("write", path, &error)
    })
}

/// The folders directly in `home`, by name; none where `home` is not there.
fn folders_in(home: &Path) -> Result<Vec<PathBuf>, Stop> {
    let entries = match std::fs::read_dir(home) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(cannot("read", home, &error)),
    };
    let mut folders = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| cannot("read", home, &error))?.path();
        if path.is_dir() {
            folders.push(path);
        }
    }
    folders.sort();
    Ok(folders)
}

fn cannot(verb: &str, path: &Path, error: &std::io::Error) -> Stop {
    Stop(format!("cannot {verb} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    const CDYLIB: &str = "[lib]\ncrate-type = [\"cdylib\"]\n";

    #[test]
    fn guests_are_the_examples_and_packages_with_a_cdylib_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "plugins/acl/Cargo.toml", &format!("[package]\nname = \"weirmq-acl\"\n{CDYLIB}"));
        put(root.path(), "plugins/c-filter/Makefile", "");
        put(root.path(), "plugins/README.md", "");
        put(root.path(), "broker/host/tests/guests/helper/Cargo.toml", "[package]\nname = \"helper\"\n");
        put(
            root.path(),
            "broker/host/tests/guests/loops/Cargo.toml",
            "[package]\nname = \"loops\"\n[lib]\nname = \"for_ever\"\ncrate-type = [\"rlib\", \"cdylib\"]\n",
        );
        let found: Vec<String> = find_all(root.path()).unwrap().iter().map(Guest::file).collect();
        let examples =
            Language::value_variants().iter().map(|language| format!("example-{}.wasm", language.word()));
        let packages = ["weirmq_acl.wasm", "for_ever.wasm"].map(str::to_owned);
        assert_eq!(found, examples.chain(packages).collect::<Vec<_>>());
    }

    #[test]
    fn two_guests_that_would_overwrite_each_other_are_refused() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["plugins/a", "plugins/b"] {
            put(
                root.path(),
                &format!("{folder}/Cargo.toml"),
                &format!("[package]\nname = \"same\"\n{CDYLIB}"),
            );
        }
        let Err(Stop(why)) = find_all(root.path()) else { panic!("refused") };
        assert!(why.contains("both build same.wasm"), "{why}");
    }

    #[test]
    fn a_manifest_that_is_no_toml_is_named() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "plugins/a/Cargo.toml", "[package\n");
        let Err(Stop(why)) = find_all(root.path()) else { panic!("refused") };
        assert!(why.contains("plugins/a/Cargo.toml"), "{why}");
    }

    #[test]
    fn an_unchanged_component_is_not_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("guests/a.wasm");
        write_if_changed(&path, b"one").unwrap();
        let long_ago = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
        std::fs::File::options().append(true).open(&path).unwrap().set_modified(long_ago).unwrap();
        write_if_changed(&path, b"one").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().modified().unwrap(), long_ago);
        write_if_changed(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(folders_in(folder.path()).unwrap(), [folder.path().join("guests")]);
        assert_eq!(
            std::fs::read_dir(folder.path().join("guests")).unwrap().count(),
            1,
            "nothing is left over"
        );
    }

    #[test]
    fn a_guest_that_is_not_there_is_answered_with_those_that_are() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "plugins/a/Cargo.toml", &format!("[package]\nname = \"acl\"\n{CDYLIB}"));
        let Err(Stop(why)) = build(root.path(), Wanted::One("alc")) else { panic!("refused") };
        let examples = "example-rust, example-c, example-js, example-python, example-go";
        assert_eq!(why, format!("there is no guest `alc`; there are: {examples}, acl"));
    }
}
