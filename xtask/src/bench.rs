//! The brokers side by side: what they need is fetched and built, then `weirmq-compare` measures.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::debian::{self, Apt};
use crate::process::{self, Stop};

/// Of the broker that is built from crates.io; everything that it is compared by holds for this one.
const RUMQTTD: &str = "0.20.0";

/// Measures, and leaves the table in `TARGET/bench/table.md`.
pub(crate) fn run(root: &Path, target: &Path, arguments: &[String]) -> Result<(), Stop> {
    if !cfg!(target_os = "linux") {
        return Err(Stop("`bench` watches the brokers through /proc, which only Linux has".to_owned()));
    }
    let folder = target.join("bench");
    let mosquitto = ensure_mosquitto()?;
    let rumqttd = ensure_rumqttd(&folder)?;
    process::say("building the broker and the load harness in release (some minutes the first time)");
    for package in ["weirmq", "weirmq-benches"] {
        process::check(
            process::cargo()
                .current_dir(root)
                .args(["build", "--release", "--package", package, "--bins", "--target-dir"])
                .arg(target),
        )?;
    }
    let release = target.join("release");
    // Built by `cargo xtask guests`; without it the rows about hooks and transforms are left out.
    let plugin = target.join("guests").join("lean.wasm");
    let plugin = if plugin.is_file() {
        vec!["--plugin".into(), plugin.into_os_string()]
    } else {
        process::say("no rows about hooks: `cargo xtask guests` builds the plugin for them");
        Vec::new()
    };
    process::check(
        Command::new(release.join("weirmq-compare"))
            .arg("--weirmq")
            .arg(release.join("weirmq"))
            .arg("--mosquitto")
            .arg(mosquitto)
            .arg("--rumqttd")
            .arg(rumqttd)
            .args(plugin)
            .arg("--out")
            .arg(&folder)
            .args(arguments),
    )
}

/// Debian's, as it comes. Its service, if the package starts one, is left alone: each turn has a mosquitto of its own.
fn ensure_mosquitto() -> Result<PathBuf, Stop> {
    if let Some(program) = find_mosquitto() {
        return Ok(program);
    }
    match Apt::probe() {
        Apt::Usable => debian::install(&["mosquitto"])?,
        Apt::NotRoot => {
            return Err(Stop(
                "`mosquitto` is missing; WeirMQ is compared with it. Install it: sudo apt-get install mosquitto"
                    .to_owned(),
            ));
        }
        Apt::Absent => {
            return Err(Stop(
                "`mosquitto` is missing; WeirMQ is compared with it. Install it and see that it is on the PATH"
                    .to_owned(),
            ));
        }
    }
    find_mosquitto()
        .ok_or_else(|| Stop("`mosquitto` is installed but not on the PATH nor in /usr/sbin".to_owned()))
}

fn find_mosquitto() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Where Debian puts it; not on everybody's PATH.
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join("mosquitto")).find(|program| program.is_file())
}

/// From crates.io, with its own release profile. Not with the lock file that it comes with: that names versions which
/// no longer compile.
fn ensure_rumqttd(folder: &Path) -> Result<PathBuf, Stop> {
    let peers = folder.join("peers");
    let program = peers.join("bin").join("rumqttd");
    if !program.is_file() {
        process::say(&format!("building rumqttd {RUMQTTD} from crates.io, into {}", peers.display()));
        process::check(
            process::cargo()
                .args(["install", "rumqttd", "--no-default-features", "--version"])
                .arg(format!("={RUMQTTD}"))
                .arg("--root")
                .arg(&peers)
                .arg("--target-dir")
                .arg(folder.join("peers-build")),
        )?;
    }
    Ok(program)
}
