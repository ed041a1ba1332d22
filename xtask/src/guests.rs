//! From guest packages to components in `target/guests`.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::process::{self, Stop};
use crate::toolchain::{TARGET, Toolchain};

/// The folders whose sub-folders may be guest packages: plugins that ship, and those of the host's tests.
const HOMES: [&str; 2] = ["plugins", "broker/host/tests/guests"];

/// Builds every guest, and answers the folder that has them: `NAME.wasm` for the package `NAME`. Files of
/// guests that have not changed are left untouched.
pub(crate) fn build_all(root: &Path) -> Result<PathBuf, Stop> {
    let components = root.join("target").join("guests");
    let guests = find_all(root)?;
    if guests.is_empty() {
        process::say(&format!("there is no guest package in {}", HOMES.join(" or ")));
    } else {
        let toolchain = Toolchain::ensure()?;
        let build = root.join("target").join("guests-build");
        for guest in &guests {
            build_one(guest, &toolchain, &build, &components)?;
        }
    }
    std::fs::create_dir_all(&components).map_err(|error| cannot("make", &components, &error))?;
    Ok(components)
}

/// The Rust packages that are no members of the workspace: the guests and the crate that they are written
/// with.
pub(crate) fn outside_the_workspace(root: &Path) -> Result<Vec<PathBuf>, Stop> {
    let mut packages: Vec<PathBuf> = find_all(root)?.into_iter().map(|guest| guest.folder).collect();
    packages.extend(Some(root.join("plugin-api/rust")).filter(|folder| folder.join("Cargo.toml").exists()));
    Ok(packages)
}

/// A package that is compiled to a component.
#[derive(Debug, PartialEq, Eq)]
struct Guest {
    folder: PathBuf,
    package: String,
    /// The file that cargo makes of it.
    module: String,
}

fn find_all(root: &Path) -> Result<Vec<Guest>, Stop> {
    let mut guests: Vec<Guest> = Vec::new();
    for home in HOMES {
        for folder in folders_in(&root.join(home))? {
            let Some(guest) = read_guest(folder)? else { continue };
            if let Some(same) = guests.iter().find(|other| other.module == guest.module) {
                return Err(Stop(format!(
                    "{} and {} both build {}; give one of them another package name",
                    same.folder.display(),
                    guest.folder.display(),
                    guest.module
                )));
            }
            guests.push(guest);
        }
    }
    Ok(guests)
}

/// The guest in `folder`; `None` where there is no Cargo.toml, or one whose library is no `cdylib`.
fn read_guest(folder: PathBuf) -> Result<Option<Guest>, Stop> {
    let manifest = folder.join("Cargo.toml");
    let text = match std::fs::read_to_string(&manifest) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(cannot("read", &manifest, &error)),
    };
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
    let package = table
        .get("package")
        .and_then(|package| package.get("name"))
        .and_then(toml::Value::as_str)
        .ok_or_else(|| Stop(format!("{} has no package name", manifest.display())))?
        .to_owned();
    let module = library
        .and_then(|library| library.get("name"))
        .and_then(toml::Value::as_str)
        .map_or_else(|| package.replace('-', "_"), str::to_owned);
    Ok(Some(Guest { folder, package, module: format!("{module}.wasm") }))
}

fn build_one(guest: &Guest, toolchain: &Toolchain, build: &Path, components: &Path) -> Result<(), Stop> {
    process::say(&format!("building the guest {}", guest.package));
    process::check(
        toolchain
            .cargo_build()
            .current_dir(&guest.folder)
            .arg("--manifest-path")
            .arg(guest.folder.join("Cargo.toml"))
            .env("CARGO_TARGET_DIR", build),
    )?;
    let module = build.join(TARGET).join("release").join(&guest.module);
    let bytes = std::fs::read(&module).map_err(|error| cannot("read", &module, &error))?;
    let component = encode(&bytes)
        .map_err(|why| Stop(format!("the guest {} is no component of its world: {why}", guest.package)))?;
    write_if_changed(&components.join(format!("{}.wasm", guest.package)), &component)
}

/// Makes a component of a core module that carries the description of its world.
fn encode(module: &[u8]) -> Result<Vec<u8>, String> {
    wit_component::ComponentEncoder::default()
        .validate(true)
        .module(module)
        .and_then(|encoder| encoder.encode())
        .map_err(|error| format!("{error:#}"))
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
    fn guests_are_the_packages_with_a_cdylib_in_their_homes_and_nothing_else() {
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
        let found: Vec<(String, String)> =
            find_all(root.path()).unwrap().into_iter().map(|guest| (guest.package, guest.module)).collect();
        assert_eq!(
            found,
            [
                ("weirmq-acl".to_owned(), "weirmq_acl.wasm".to_owned()),
                ("loops".to_owned(), "for_ever.wasm".to_owned())
            ]
        );
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
    fn what_is_no_wasm_module_is_refused() {
        assert!(encode(b"not wasm").is_err());
    }
}
