//! The real MQTT clients that the end-to-end tests need: mosquitto's on the PATH, paho-mqtt in `target/venv`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::debian::{self, Apt};
use crate::process::Stop;
use crate::venv;

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
    let requirements = root.join("xtask").join("python-clients.txt");
    venv::ensure(&root.join("target").join("venv"), &requirements, "paho-mqtt", "the end-to-end tests")
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
    fn what_comes_from_pypi_is_pinned_by_version_and_hash() {
        let pinned = [include_str!("../python-clients.txt"), include_str!("../guest-tools/python.txt")];
        for line in pinned.iter().flat_map(|list| list.lines()).filter(|line| !line.starts_with('#')) {
            assert!(line.contains("==") && line.contains("--hash=sha256:"), "{line}");
        }
    }
}
