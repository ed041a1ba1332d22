//! Programs and libraries from PyPI, pinned by version and hash, in a folder of their own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::debian::{self, Apt};
use crate::process::{self, Stop};

const PIP_TIME_MAX: Duration = Duration::from_secs(10 * 60);

/// Makes `venv` hold what the file `requirements` lists. `what` and `why` are for the user: what is installed,
/// and what it is needed for. Answers the path of its Python.
pub(crate) fn ensure(venv: &Path, requirements: &Path, what: &str, why: &str) -> Result<PathBuf, Stop> {
    let python = venv.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    let wanted = std::fs::read_to_string(requirements)
        .map_err(|error| Stop(format!("cannot read {}: {error}", requirements.display())))?;
    // The list as installed lies beside what was installed: when both are the same, nothing is to be done.
    let installed = venv.join("installed.txt");
    if python.exists() && std::fs::read_to_string(&installed).is_ok_and(|text| text == wanted) {
        return Ok(python);
    }
    process::say(&format!("installing {what} into {}", venv.display()));
    make(venv, why)?;
    process::check_within(
        PIP_TIME_MAX,
        Command::new(&python)
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"])
            .args(["--require-hashes", "--requirement"])
            .arg(requirements),
    )
    .map_err(|Stop(reason)| Stop(format!("{reason}; {why} need {what} from PyPI, in {}", venv.display())))?;
    std::fs::write(&installed, wanted)
        .map_err(|error| Stop(format!("cannot write {}: {error}", installed.display())))?;
    Ok(python)
}

fn make(venv: &Path, why: &str) -> Result<(), Stop> {
    let create = || {
        process::check_within(PIP_TIME_MAX, Command::new("python3").args(["-m", "venv", "--clear"]).arg(venv))
    };
    let Err(Stop(reason)) = create() else { return Ok(()) };
    match Apt::probe() {
        Apt::Usable => {
            debian::install(&["python3", "python3-venv"])?;
            create()
        }
        Apt::NotRoot => Err(Stop(format!(
            "{reason}; {why} need a Python environment. Install it: sudo apt-get install python3 python3-venv"
        ))),
        Apt::Absent => Err(Stop(format!(
            "{reason}; {why} need Python 3.10 or newer with its `venv` module, as `python3` on the PATH"
        ))),
    }
}
