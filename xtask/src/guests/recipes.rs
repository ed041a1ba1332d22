//! How guests are compiled: packages by cargo, the examples by the build script that `weirmq plugin new` gives.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use weirmq_kit::project::{self, Language};
use weirmq_kit::seal;

use super::tools::Tools;
use super::{Guest, cannot, inputs};
use crate::process::{self, Stop};
use crate::toolchain::{TARGET, Toolchain};

/// The module that the code generated for Go stands on. It is published for Go, and is in the generator's crate too.
const GO_LIBRARY: (&str, &str) = ("go.bytecodealliance.org/pkg", "src/pkg");
const GO_GENERATOR: &str = "wit-bindgen-go";

/// Where guests are built. The compilers are looked for when they are first needed.
pub(super) struct Workshop {
    root: PathBuf,
    /// `target/guests-build`.
    bench: PathBuf,
    rust: Option<Toolchain>,
    tools: Option<Tools>,
}

impl Workshop {
    pub(super) fn new(root: &Path) -> Self {
        let bench = root.join("target").join("guests-build");
        Self { root: root.to_owned(), bench, rust: None, tools: None }
    }

    /// A package, by cargo.
    pub(super) fn package(&mut self, guest: &Guest, module: &str) -> Result<Vec<u8>, Stop> {
        process::check(
            self.toolchain()?
                .cargo_build()
                .current_dir(&guest.folder)
                .arg("--manifest-path")
                .arg(guest.folder.join("Cargo.toml"))
                .env("CARGO_TARGET_DIR", &self.bench),
        )?;
        let path = self.bench.join(TARGET).join("release").join(module);
        let module = std::fs::read(&path).map_err(|error| cannot("read", &path, &error))?;
        seal::componentize(&module, None).map_err(|error| Stop(format!("the guest {}: {error}", guest.name)))
    }

    /// A new project in `language`, built as its author builds it.
    pub(super) fn project(&mut self, guest: &Guest, language: Language) -> Result<Vec<u8>, Stop> {
        let home = self.projects();
        std::fs::create_dir_all(&home).map_err(|error| cannot("make", &home, &error))?;
        remove(&home.join(&guest.name))?;
        let folder = project::create(&home, language, &guest.name, None)
            .map_err(|error| Stop(format!("the guest {}: {error}", guest.name)))?;
        let weirmq = std::env::current_exe()
            .map_err(|error| Stop(format!("xtask does not know where it is itself: {error}")))?;
        let mut build = Command::new("sh");
        build.arg("build.sh").current_dir(&folder).env("WEIRMQ", weirmq);
        if language == Language::Rust {
            self.toolchain()?.lend(&mut build);
            build.env("CARGO_TARGET_DIR", &self.bench);
        } else {
            let cache = self.bench.join("cache");
            self.tools()?.lend(&mut build, &cache)?;
        }
        if language == Language::Go {
            build.env("GOWORK", self.go_workspace(&home, &guest.name)?);
        }
        process::check(&mut build)?;
        let component = folder.join(format!("{}.wasm", guest.name));
        std::fs::read(&component).map_err(|error| cannot("read", &component, &error))
    }

    /// The fingerprint of all that goes into the project of `language`.
    pub(super) fn inputs(&self, guest: &Guest, language: Language) -> Result<String, Stop> {
        let files = project::files(language, &guest.name, None)
            .map_err(|error| Stop(format!("the guest {}: {error}", guest.name)))?;
        let places = [
            self.root.join("plugin-api/kit/src"),
            self.root.join("xtask/src/guests"),
            Tools::list(&self.root),
        ];
        let words: Vec<&str> = files
            .iter()
            .flat_map(|(path, text)| [path.to_str().unwrap_or_default(), text.as_str()])
            .collect();
        inputs::fingerprint(&places, &words)
    }

    /// Where the fingerprint of its last build is.
    pub(super) fn stamp(&self, guest: &Guest) -> PathBuf {
        self.projects().join(format!("{}.inputs", guest.name))
    }

    fn projects(&self) -> PathBuf {
        self.bench.join("projects")
    }

    fn toolchain(&mut self) -> Result<&Toolchain, Stop> {
        Ok(match &mut self.rust {
            Some(toolchain) => toolchain,
            none => none.insert(Toolchain::ensure()?),
        })
    }

    fn tools(&mut self) -> Result<&Tools, Stop> {
        Ok(match &mut self.tools {
            Some(tools) => tools,
            none => none.insert(Tools::ensure(&self.root)?),
        })
    }

    /// A workspace of the project `name` in which Go finds [`GO_LIBRARY`] on this machine.
    fn go_workspace(&self, home: &Path, name: &str) -> Result<PathBuf, Stop> {
        let (module, within) = GO_LIBRARY;
        let library = crate_folder(&self.root, GO_GENERATOR)?.join(within);
        let file = home.join("go.work");
        let text = format!("go 1.27.1\n\nuse ./{name}\n\nreplace {module} => \"{}\"\n", library.display());
        std::fs::write(&file, text).map_err(|error| cannot("write", &file, &error))?;
        Ok(file)
    }
}

fn remove(folder: &Path) -> Result<(), Stop> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(cannot("empty", folder, &error)),
        _ => Ok(()),
    }
}

/// Where cargo has the source of the crate `name`, which xtask is built with.
fn crate_folder(root: &Path, name: &str) -> Result<PathBuf, Stop> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
        manifest_path: PathBuf,
    }
    let mut cargo = process::cargo();
    // It wants the crates of every platform there. On a machine that has built for its own alone it has to fetch the others.
    let text =
        process::output(cargo.current_dir(root).args(["metadata", "--format-version", "1", "--locked"]));
    text.and_then(|text| serde_json::from_str::<Metadata>(&text).ok())
        .and_then(|metadata| metadata.packages.into_iter().find(|package| package.name == name))
        .and_then(|package| package.manifest_path.parent().map(Path::to_owned))
        .ok_or_else(|| {
            Stop(format!("`cargo metadata` does not say where the crate {name} is; `cargo fetch` may help"))
        })
}
