//! The real MQTT clients that the end-to-end tests need: mosquitto's on the PATH, paho-mqtt in `target/venv`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::debian::{self, Apt};
use crate::process::{self, Stop};

const PIP_TIME_MAX: Duration = Duration::from_secs(5 * 60);
const MOSQUITTO: [&str; 2] = ["mosquitto_pub", "mosquitto_sub"];

/// Sets up what is missing. Answers the path of a Python that has paho-mqtt.
pub(crate) fn ensure(root: &Path) -> Result<PathBuf, Stop> {
    ensure_mosquitto(&std::env::var_os("PATH").unwrap_or_default())?;
    ensure_paho(root)
}

fn ensure_mosquitto(path: &OsStr) -> Result<(), Stop> {
    let Some(missing) = MOSQUITTO.into_iter().find(|program| !on_path(path, program)) else { return Ok(()) };
    match Apt::probe() {
        Apt::Usable => debian::install(&["mosquitto-clients"]),
        Apt::NotRoot => Err(Stop(format!(
            "`{missing}` is missing; the end-to-end tests use it as a client that is not ours. Install it: \
             sudo apt-get install mosquitto-clients"
        ))),
        Apt::Absent => Err(Stop(format!(
            "`{missing}` is missing; the end-to-end tests use it as a client that is not ours. Install the \
             mosquitto command-line clients (macOS: brew install mosquitto; Fedora: dnf install mosquitto; \
             Arch: pacman -S mosquitto) and see that they are on the PATH"
        ))),
    }
}

fn ensure_paho(root: &Path) -> Result<PathBuf, Stop> {
    let venv = root.join("target").join("venv");
    let python = venv.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    let requirements = root.join("xtask").join("python-clients.txt");
    let wanted = std::fs::read_to_string(&requirements)
        .map_err(|error| Stop(format!("cannot read {}: {error}", requirements.display())))?;
    // The list as installed lies beside what was installed: when both are the same, nothing is to be done.
    let installed = venv.join("installed.txt");
    if python.exists() && std::fs::read_to_string(&installed).is_ok_and(|text| text == wanted) {
        return Ok(python);
    }
    process::say("installing paho-mqtt into target/venv");
    make_venv(&venv)?;
    process::check_within(
        PIP_TIME_MAX,
        Command::new(&python)
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"])
            .args(["--require-hashes", "--requirement"])
            .arg(&requirements),
    )
    .map_err(|Stop(why)| {
        Stop(format!(
            "{why}; the end-to-end tests need the Python package paho-mqtt from PyPI, in target/venv"
        ))
    })?;
    std::fs::write(&installed, wanted)
        .map_err(|error| Stop(format!("cannot write {}: {error}", installed.display())))?;
    Ok(python)
}

fn make_venv(venv: &Path) -> Result<(), Stop> {
    let create = || {
        process::check_within(PIP_TIME_MAX, Command::new("python3").args(["-m", "venv", "--clear"]).arg(venv))
    };
    let Err(Stop(why)) = create() else { return Ok(()) };
    match Apt::probe() {
        Apt::Usable => {
            debian::install(&["python3", "python3-venv"])?;
            create()
        }
        Apt::NotRoot => Err(Stop(format!(
            "{why}; the end-to-end tests need a Python environment. Install it: \
             sudo apt-get install python3 python3-venv"
        ))),
        Apt::Absent => Err(Stop(format!(
            "{why}; the end-to-end tests need Python 3.8 or newer with its `venv` module, as `python3` on the PATH"
        ))),
    }
}

fn on_path(path: &OsStr, program: &str) -> bool {
    let file = format!("{program}{}", std::env::consts::EXE_SUFFIX);
    std::env::split_paths(path).any(|folder| folder.join(&file).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_found_in_any_folder_of_the_path() {
        let [first, second] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let file = format!("mosquitto_pub{}", std::env::consts::EXE_SUFFIX);
        std::fs::write(second.path().join(file), "").unwrap();
        let path = std::env::join_paths([first.path(), second.path()]).unwrap();
        assert!(on_path(&path, "mosquitto_pub"));
        assert!(!on_path(&path, "mosquitto_sub"));
    }

    #[test]
    fn the_python_client_is_pinned_by_version_and_hash() {
        let pinned = include_str!("../python-clients.txt");
        for line in pinned.lines().filter(|line| !line.starts_with('#')) {
            assert!(line.contains("==") && line.contains("--hash=sha256:"), "{line}");
        }
    }
}
