//! System packages, where they may be installed.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::process::{self, Stop};

/// A package download on a slow line takes minutes; one that takes longer than this hangs.
const INSTALL_TIME_MAX: Duration = Duration::from_secs(15 * 60);

/// Whether this machine has apt-get and this user may use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Apt {
    /// Debian or one of its children, as root.
    Usable,
    /// Debian or one of its children, but not root.
    NotRoot,
    /// Another system.
    Absent,
}

impl Apt {
    /// Looks at this machine.
    pub(crate) fn probe() -> Self {
        if !Path::new("/usr/bin/apt-get").exists() {
            Self::Absent
        } else if process::output(Command::new("id").arg("-u")).as_deref() == Some("0") {
            Self::Usable
        } else {
            Self::NotRoot
        }
    }
}

/// Installs `packages`. Never takes another package away for one of them.
pub(crate) fn install(packages: &[&str]) -> Result<(), Stop> {
    process::say(&format!("installing Debian packages: {}", packages.join(" ")));
    process::check_within(INSTALL_TIME_MAX, apt_get().args(["update", "--quiet"]))?;
    process::check_within(
        INSTALL_TIME_MAX,
        apt_get()
            .args(["install", "--yes", "--quiet", "--no-install-recommends", "--no-remove"])
            .args(packages),
    )
}

fn apt_get() -> Command {
    let mut command = Command::new("/usr/bin/apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args(["-o", "DPkg::Lock::Timeout=300"]);
    command
}
