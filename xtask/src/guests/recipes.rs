//! How each language is compiled: to a core module or a component, which is then sealed
//! (`plugin-api/seal`).

use std::path::{Path, PathBuf};

use serde::Deserialize;
use wit_bindgen_core::Files;
use wit_bindgen_core::wit_parser::{Resolve, WorldId};

use super::tools::Tools;
use super::{Guest, cannot, inputs};
use crate::process::{self, Stop};
use crate::toolchain::{TARGET, Toolchain};

/// The languages besides Rust.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Language {
    C,
    Go,
    Js,
    Python,
}

impl Language {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::C => "C",
            Self::Go => "Go",
            Self::Js => "JavaScript",
            Self::Python => "Python",
        }
    }
}

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
    pub(super) fn rust(&mut self, guest: &Guest, module: &str) -> Result<Vec<u8>, Stop> {
        let toolchain = match &mut self.rust {
            Some(toolchain) => toolchain,
            none => none.insert(Toolchain::ensure()?),
        };
        process::check(
            toolchain
                .cargo_build()
                .current_dir(&guest.folder)
                .arg("--manifest-path")
                .arg(guest.folder.join("Cargo.toml"))
                .env("CARGO_TARGET_DIR", &self.bench),
        )?;
        sealed_module(guest, &self.bench.join(TARGET).join("release").join(module), None)
    }

    /// A guest in another language.
    pub(super) fn build(&mut self, guest: &Guest, language: Language, world: &str) -> Result<Vec<u8>, Stop> {
        let wit = self.wit();
        let work = self.bench.join("other").join(&guest.name);
        make_empty(&work)?;
        let cache = self.bench.join("cache");
        let tools = match &mut self.tools {
            Some(tools) => tools,
            none => none.insert(Tools::ensure(&self.root)?),
        };
        let job = Job { guest, world, wit: &wit, work: &work, cache: &cache, tools };
        match language {
            Language::C => job.c(),
            Language::Go => job.go(&self.root),
            Language::Js => job.js(),
            Language::Python => job.python(),
        }
    }

    /// The fingerprint of all that goes into a guest.
    pub(super) fn inputs(&self, guest: &Guest, language: Language, world: &str) -> Result<String, Stop> {
        let places = [
            guest.folder.clone(),
            self.wit(),
            self.root.join("plugin-api/seal/src"),
            self.root.join("xtask/src/guests"),
            Tools::lists(&self.root),
        ];
        inputs::fingerprint(&places, &[language.name(), world])
    }

    /// Where the fingerprint of its last build is.
    pub(super) fn stamp(&self, guest: &Guest) -> PathBuf {
        self.bench.join("other").join(format!("{}.inputs", guest.name))
    }

    fn wit(&self) -> PathBuf {
        self.root.join("plugin-api/wit/v0.1.0")
    }
}

struct Job<'a> {
    guest: &'a Guest,
    world: &'a str,
    wit: &'a Path,
    work: &'a Path,
    cache: &'a Path,
    tools: &'a Tools,
}

impl Job<'_> {
    fn c(&self) -> Result<Vec<u8>, Stop> {
        let generator = wit_bindgen_c::Opts::default().build();
        let (bindings, _) = self.bindings(generator)?;
        let module = self.work.join("module.wasm");
        let sources = files_with(&self.guest.folder, "c")?;
        process::check(
            self.tools
                .clang(&self.cache.join("zig"))
                .args(["-target", "wasm32-wasi", "-mexec-model=reactor", "-O2", "-Wall", "-Wextra"])
                .arg("-Wl,--strip-debug")
                .arg("-I")
                .arg(self.work)
                .args(sources)
                .args(
                    bindings
                        .iter()
                        .filter(|path| path.extension().is_some_and(|end| end == "c" || end == "o")),
                )
                .arg("-o")
                .arg(&module),
        )?;
        sealed_module(self.guest, &module, None)
    }

    fn go(&self, root: &Path) -> Result<Vec<u8>, Stop> {
        let generator =
            wit_bindgen_go::Opts { format: wit_bindgen_go::Format::False, ..Default::default() }.build();
        let (_, types) = self.bindings(generator)?;
        copy_folder(&self.guest.folder, self.work)?;
        // What the generated code stands on is published as a Go module; the generator's crate has it too.
        let library = crate_folder(root, "wit-bindgen-go")?.join("src/pkg");
        let go = |arguments: &[&str]| {
            let mut go = self.tools.go(&self.cache.join("go"));
            go.current_dir(self.work).args(arguments);
            go
        };
        let replace = format!("-replace=go.bytecodealliance.org/pkg={}", library.display());
        process::check(&mut go(&["mod", "edit", &replace]))?;
        for folder in folders_with_tests(&self.guest.folder)? {
            process::check(go(&["test"]).arg(format!("./{folder}")))?;
        }
        process::check(
            go(&["build", "-buildmode=c-shared", "-trimpath", "-ldflags=-checklinkname=0 -s -w"])
                .args(["-o", "module.wasm", "."])
                .env("GOOS", "wasip1")
                .env("GOARCH", "wasm"),
        )?;
        let (resolve, world) = &types;
        sealed_module(self.guest, &self.work.join("module.wasm"), Some((resolve, *world)))
    }

    fn js(&self) -> Result<Vec<u8>, Stop> {
        let component = self.work.join("component.wasm");
        process::check(
            self.tools
                .componentize_qjs()
                .arg("--wit")
                .arg(self.wit)
                .args(["--world", &self.world(), "--sync", "--js"])
                .arg(self.guest.folder.join("plugin.js"))
                .arg("--output")
                .arg(&component),
        )?;
        sealed_component(self.guest, &component)
    }

    fn python(&self) -> Result<Vec<u8>, Stop> {
        let component = self.work.join("component.wasm");
        process::check(
            self.tools
                .componentize_py()
                .args(["--quiet", "--wit-path"])
                .arg(self.wit)
                .args(["--world", &self.world(), "componentize", "app", "--python-path"])
                .arg(&self.guest.folder)
                .arg("--output")
                .arg(&component)
                .env("PYTHONDONTWRITEBYTECODE", "1"),
        )?;
        sealed_component(self.guest, &component)
    }

    fn world(&self) -> String {
        format!("weirmq:plugin/{}@0.1.0", self.world)
    }

    /// Writes the bindings for the guest's world into the work folder; answers the files, and the types.
    fn bindings(
        &self,
        mut generator: Box<dyn wit_bindgen_core::WorldGenerator>,
    ) -> Result<(Vec<PathBuf>, (Resolve, WorldId)), Stop> {
        let (resolve, world) = self.types()?;
        let mut files = Files::default();
        generator
            .generate(&mut resolve.clone(), world, &mut files)
            .map_err(|error| Stop(format!("no bindings for the guest {}: {error:#}", self.guest.name)))?;
        let mut paths = Vec::new();
        for (name, bytes) in files.iter() {
            let path = self.work.join(name);
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder).map_err(|error| cannot("make", folder, &error))?;
            }
            std::fs::write(&path, bytes).map_err(|error| cannot("write", &path, &error))?;
            paths.push(path);
        }
        Ok((paths, (resolve, world)))
    }

    fn types(&self) -> Result<(Resolve, WorldId), Stop> {
        let stop = |error: &dyn std::fmt::Display| Stop(format!("{}: {error:#}", self.wit.display()));
        let mut resolve = Resolve::default();
        let (package, _) = resolve.push_dir(self.wit).map_err(|error| stop(&error))?;
        let world = resolve.select_world(&[package], Some(self.world)).map_err(|error| stop(&error))?;
        Ok((resolve, world))
    }
}

fn sealed_module(guest: &Guest, path: &Path, world: Option<(&Resolve, WorldId)>) -> Result<Vec<u8>, Stop> {
    let module = std::fs::read(path).map_err(|error| cannot("read", path, &error))?;
    weirmq_seal::componentize(&module, world)
        .map_err(|error| Stop(format!("the guest {}: {error}", guest.name)))
}

fn sealed_component(guest: &Guest, path: &Path) -> Result<Vec<u8>, Stop> {
    let component = std::fs::read(path).map_err(|error| cannot("read", path, &error))?;
    weirmq_seal::seal(&component).map_err(|error| Stop(format!("the guest {}: {error}", guest.name)))
}

fn make_empty(folder: &Path) -> Result<(), Stop> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(cannot("empty", folder, &error));
        }
        _ => {}
    }
    std::fs::create_dir_all(folder).map_err(|error| cannot("make", folder, &error))
}

/// Copies what is in `from` into `to`, which may have other things already.
fn copy_folder(from: &Path, to: &Path) -> Result<(), Stop> {
    std::fs::create_dir_all(to).map_err(|error| cannot("make", to, &error))?;
    for entry in std::fs::read_dir(from).map_err(|error| cannot("read", from, &error))? {
        let entry = entry.map_err(|error| cannot("read", from, &error))?;
        let (path, copy) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_folder(&path, &copy)?;
        } else {
            std::fs::copy(&path, &copy).map_err(|error| cannot("copy", &path, &error))?;
        }
    }
    Ok(())
}

fn files_with(folder: &Path, end: &str) -> Result<Vec<PathBuf>, Stop> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| cannot("read", folder, &error))? {
        let path = entry.map_err(|error| cannot("read", folder, &error))?.path();
        if path.extension().is_some_and(|extension| extension == end) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The names of the folders in `folder` that hold Go tests: what can be tested on this machine.
fn folders_with_tests(folder: &Path) -> Result<Vec<String>, Stop> {
    let mut names = Vec::new();
    for path in super::folders_in(folder)? {
        let tests = files_with(&path, "go")?.iter().any(|file| file.to_string_lossy().ends_with("_test.go"));
        names.extend(path.file_name().filter(|_| tests).map(|name| name.to_string_lossy().into_owned()));
    }
    Ok(names)
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
    let text =
        process::output(cargo.current_dir(root).args(["metadata", "--format-version", "1", "--offline"]));
    text.and_then(|text| serde_json::from_str::<Metadata>(&text).ok())
        .and_then(|metadata| metadata.packages.into_iter().find(|package| package.name == name))
        .and_then(|package| package.manifest_path.parent().map(Path::to_owned))
        .ok_or_else(|| {
            Stop(format!("`cargo metadata` does not say where the crate {name} is; `cargo fetch` may help"))
        })
}
