//! A folder to begin a plugin from: the example of its language in `examples/plugins`, under another name, with what
//! it needs of this repository put into it.

use std::io;
use std::path::{Path, PathBuf};

use clap::ValueEnum;

/// The languages that there are projects in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lowercase")]
pub enum Language {
    /// A login, with the guest crate.
    Rust,
    /// A transform.
    C,
    /// A login, in JavaScript.
    Js,
    /// A transform.
    Python,
    /// A decision on rights.
    Go,
}

/// The longest name, in letters.
const NAME_MAX: usize = 64;
/// The guest crate, which a project of this name could not use.
const SDK: &str = "weirmq-plugin";
/// Where an example has the plugin interface, and where a project has it.
const INTERFACE: (&str, &str) = ("../../../plugin-api", "plugin-api");

/// A file: its path below the project's folder, and what is in it.
type File = (&'static str, &'static str);

macro_rules! files {
    ($from:literal, $($file:literal),* $(,)?) => {
        &[$(($file, include_str!(concat!("../../../", $from, "/", $file)))),*]
    };
}

const RUST: &[File] = files![
    "examples/plugins/rust",
    ".gitignore",
    "Cargo.lock",
    "Cargo.toml",
    "README.md",
    "build.sh",
    "src/lib.rs",
    "tests.json",
    "weirmq.toml",
];
const C: &[File] = files![
    "examples/plugins/c",
    ".gitignore",
    "README.md",
    "build.sh",
    "frames.c",
    "requirements.txt",
    "tests.json",
    "weirmq.toml",
];
const JS: &[File] = files![
    "examples/plugins/js",
    ".gitignore",
    "README.md",
    "build.sh",
    "package-lock.json",
    "package.json",
    "plugin.js",
    "tests.json",
    "weirmq.toml",
];
const PYTHON: &[File] = files![
    "examples/plugins/python",
    ".gitignore",
    "README.md",
    "app.py",
    "build.sh",
    "requirements.txt",
    "tests.json",
    "weirmq.toml",
];
const GO: &[File] = files![
    "examples/plugins/go",
    ".gitignore",
    "README.md",
    "build.sh",
    "export_weirmq_plugin_authorize/authorize.go",
    "export_weirmq_plugin_guest/guest.go",
    "go.mod",
    "policy/policy.go",
    "policy/policy_test.go",
    "tests.json",
    "weirmq.toml",
];
const WIT: &[File] = files![
    "plugin-api",
    "wit/v0.1.0/hooks.wit",
    "wit/v0.1.0/host.wit",
    "wit/v0.1.0/in-brief.wit",
    "wit/v0.1.0/types.wit",
    "wit/v0.1.0/worlds.wit",
];
const GUEST_CRATE: &[File] = files![
    "plugin-api",
    "rust/Cargo.toml",
    "rust/src/allocator.rs",
    "rust/src/bindings.rs",
    "rust/src/glue.rs",
    "rust/src/glue/brief.rs",
    "rust/src/host.rs",
    "rust/src/lib.rs",
    "rust/src/rights.rs",
    "rust/src/topic.rs",
];

impl Language {
    /// As it is named on the command line, and as its folder in `examples/plugins` is.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::C => "c",
            Self::Js => "js",
            Self::Python => "python",
            Self::Go => "go",
        }
    }

    const fn example(self) -> &'static [File] {
        match self {
            Self::Rust => RUST,
            Self::C => C,
            Self::Js => JS,
            Self::Python => PYTHON,
            Self::Go => GO,
        }
    }
}

/// Why there is no project.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    /// The name is none.
    #[error(
        "'{name}' is no name for a plugin; take up to {NAME_MAX} lower case letters, digits and single hyphens, a letter first and no hyphen last, such as own-login"
    )]
    Name {
        /// What was given.
        name: String,
    },
    /// The name is that of the guest crate.
    #[error("'{SDK}' is the name of the crate that plugins are written with; take another name")]
    NameOfTheSdk,
    /// Something is there already.
    #[error("{} is there already; take another name, or move it away", folder.display())]
    Exists {
        /// What is there.
        folder: PathBuf,
    },
    /// The guest crate is named for a language that does not use it.
    #[error("--sdk names the guest crate for Rust; leave it out for {}", language.word())]
    SdkForAnother {
        /// The language.
        language: Language,
    },
    /// The guest crate is not where it was said to be.
    #[error("{} is not the crate {SDK}; --sdk names the folder plugin-api/rust of a checkout of WeirMQ", folder.display())]
    NoSdk {
        /// The folder.
        folder: PathBuf,
    },
    /// A file cannot be written.
    #[error("cannot write {}: {source}; choose a folder that you may write to", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The files of a project, with their paths below its folder. `sdk` is the guest crate for Rust, where it is not to be
/// put into the project.
///
/// # Errors
/// [`ProjectError`] where the name or `sdk` does not do.
pub fn files(
    language: Language,
    name: &str,
    sdk: Option<&Path>,
) -> Result<Vec<(PathBuf, String)>, ProjectError> {
    check_name(name)?;
    let sdk = match sdk {
        Some(_) if language != Language::Rust => return Err(ProjectError::SdkForAnother { language }),
        Some(folder) => Some(find_sdk(folder)?),
        None => None,
    };
    let renamed = |text: &str| {
        let mut text = text.to_owned();
        if let Some(sdk) = &sdk {
            text = text.replace(&format!("{}/rust", INTERFACE.0), sdk);
        }
        let example = format!("example-{}", language.word());
        text.replace(INTERFACE.0, INTERFACE.1)
            .replace(&example, name)
            .replace(&example.replace('-', "_"), &name.replace('-', "_"))
    };
    let own = language.example().iter().map(|(path, text)| (PathBuf::from(path), renamed(text)));
    let guest_crate = if language == Language::Rust { GUEST_CRATE } else { &[] };
    let interface = if sdk.is_some() { [].iter() } else { WIT.iter() }
        .chain(if sdk.is_some() { &[] } else { guest_crate })
        .map(|(path, text)| (Path::new(INTERFACE.1).join(path), (*text).to_owned()));
    Ok(own.chain(interface).collect())
}

/// Makes the project `name` in the folder `parent`. Answers its folder.
///
/// # Errors
/// [`ProjectError`]. Nothing is left behind then.
pub fn create(
    parent: &Path,
    language: Language,
    name: &str,
    sdk: Option<&Path>,
) -> Result<PathBuf, ProjectError> {
    let files = files(language, name, sdk)?;
    let folder = parent.join(name);
    match std::fs::create_dir(&folder) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(ProjectError::Exists { folder });
        }
        Err(source) => return Err(ProjectError::Write { path: folder, source }),
    }
    let written = files.iter().try_for_each(|(path, text)| write(&folder.join(path), text.as_bytes()));
    match written {
        Ok(()) => Ok(folder),
        Err(error) => {
            let _ = std::fs::remove_dir_all(&folder);
            Err(error)
        }
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), ProjectError> {
    let written = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    written
        .and_then(|()| std::fs::write(path, bytes))
        .map_err(|source| ProjectError::Write { path: path.to_owned(), source })
}

fn check_name(name: &str) -> Result<(), ProjectError> {
    let word = |word: &str| {
        !word.is_empty() && word.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit())
    };
    let is_name = name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.len() <= NAME_MAX
        && name.split('-').all(word);
    match name {
        _ if !is_name => Err(ProjectError::Name { name: name.to_owned() }),
        SDK => Err(ProjectError::NameOfTheSdk),
        _ => Ok(()),
    }
}

/// The whole path of the guest crate, as TOML writes it between quotes.
fn find_sdk(folder: &Path) -> Result<String, ProjectError> {
    let none = || ProjectError::NoSdk { folder: folder.to_owned() };
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).map_err(|_| none())?;
    if !manifest.lines().any(|line| line == format!("name = \"{SDK}\"")) {
        return Err(none());
    }
    let whole = folder.canonicalize().map_err(|_| none())?;
    let text = whole.to_str().ok_or_else(none)?;
    Ok(text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
    }

    /// What is in `folder`, but for what builds leave there.
    fn sources(folder: &Path) -> BTreeSet<PathBuf> {
        let mut folders = vec![folder.to_owned()];
        let mut found = BTreeSet::new();
        while let Some(next) = folders.pop() {
            for entry in std::fs::read_dir(next).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                let is_built = ["target", "build", "node_modules", "__pycache__", "wit_exports.go", "go.sum"]
                    .contains(&name.as_str())
                    || name.starts_with("weirmq_plugin_")
                    || name.ends_with(".wasm");
                match path.is_dir() {
                    _ if is_built => {}
                    true => folders.push(path),
                    false => {
                        found.insert(path.strip_prefix(folder).unwrap().to_owned());
                    }
                }
            }
        }
        found
    }

    #[test]
    fn a_project_has_every_file_of_the_example_and_of_the_interface() {
        for language in Language::value_variants() {
            let example = root().join("examples/plugins").join(language.word());
            let embedded: BTreeSet<PathBuf> =
                language.example().iter().map(|(path, _)| path.into()).collect();
            assert_eq!(embedded, sources(&example), "{language:?}");
        }
        let below = |files: &[File], folder: &str| -> BTreeSet<PathBuf> {
            let paths = files.iter().map(|(path, _)| Path::new(path));
            paths.map(|path| path.strip_prefix(folder).unwrap().to_owned()).collect()
        };
        assert_eq!(below(WIT, "wit/v0.1.0"), sources(&root().join("plugin-api/wit/v0.1.0")));
        let mut guest_crate = sources(&root().join("plugin-api/rust"));
        guest_crate.remove(Path::new("Cargo.lock"));
        assert_eq!(below(GUEST_CRATE, "rust"), guest_crate);
    }

    #[test]
    fn nothing_in_a_project_is_called_as_the_example_or_points_out_of_it() {
        for language in Language::value_variants() {
            let files = files(*language, "own-plugin", None).unwrap();
            for (path, text) in &files {
                let own = !path.starts_with("plugin-api");
                assert!(
                    !own || !text.contains("example-") && !text.contains("example_"),
                    "{}",
                    path.display()
                );
                assert!(!own || !text.contains("../"), "{}", path.display());
            }
            let all: String = files.into_iter().map(|(_, text)| text).collect();
            assert!(all.contains("own-plugin.wasm"), "{language:?}");
        }
    }

    #[test]
    fn a_name_that_cannot_be_one_everywhere_is_refused() {
        for name in ["", "Own", "own_login", "-own", "own-", "own--login", "1st", "a/b", "..", "ünder"] {
            let error = files(Language::C, name, None).unwrap_err();
            assert!(matches!(&error, ProjectError::Name { name: said } if said == name), "{name}: {error}");
        }
        assert!(files(Language::C, &"a".repeat(NAME_MAX + 1), None).is_err());
        assert!(files(Language::C, &"a".repeat(NAME_MAX), None).is_ok());
        assert!(matches!(files(Language::Rust, SDK, None), Err(ProjectError::NameOfTheSdk)));
    }

    #[test]
    fn a_folder_that_is_there_is_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        let folder = create(parent.path(), Language::Python, "own", None).unwrap();
        std::fs::write(folder.join("app.py"), "mine").unwrap();
        let error = create(parent.path(), Language::Python, "own", None).unwrap_err();
        assert!(matches!(&error, ProjectError::Exists { folder: said } if *said == folder), "{error}");
        assert_eq!(std::fs::read_to_string(folder.join("app.py")).unwrap(), "mine");
        let nowhere = create(&parent.path().join("nowhere"), Language::C, "own", None).unwrap_err();
        assert!(matches!(nowhere, ProjectError::Write { .. }), "{nowhere}");
    }

    #[test]
    fn the_guest_crate_of_a_checkout_takes_the_place_of_the_embedded_one() {
        let sdk = root().join("plugin-api/rust");
        let files = files(Language::Rust, "own", Some(&sdk)).unwrap();
        assert!(files.iter().all(|(path, _)| !path.starts_with("plugin-api")));
        let (_, manifest) = files.iter().find(|(path, _)| path == Path::new("Cargo.toml")).unwrap();
        let line = format!("weirmq-plugin = {{ path = \"{}\" }}", sdk.canonicalize().unwrap().display());
        assert!(manifest.contains(&line), "{manifest}");
        let parent = tempfile::tempdir().unwrap();
        let error = super::files(Language::Rust, "own", Some(parent.path())).unwrap_err();
        assert!(matches!(error, ProjectError::NoSdk { .. }), "{error}");
        let error = super::files(Language::Go, "own", Some(&sdk)).unwrap_err();
        assert_eq!(error.to_string(), "--sdk names the guest crate for Rust; leave it out for go");
    }
}
