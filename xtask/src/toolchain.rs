//! Which compiler on this machine can build WebAssembly, and how it comes to have one.
//!
//! Three ways, the first that works is taken:
//! 1. the cargo that runs xtask, whose compiler has the standard library for the Wasm target, or gets it
//!    from `rustup target add`
//! 2. Debian's own compiler, which has no Wasm standard library but the source to build one from
//! 3. the same after its packages were installed, as root
//!
//! Otherwise the user is told what was looked for and what to install.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::debian::{self, Apt};
use crate::process::{self, Stop};

/// The target that guests are compiled for: no WASI, a guest has nothing but what the contract gives it.
pub(crate) const TARGET: &str = "wasm32-unknown-unknown";

/// Where Debian has its compiler.
const DEBIAN_FOLDER: &str = "/usr/bin";

/// Debian's packages for way 2.
const DEBIAN_PACKAGES: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "lld"];

/// The oldest compiler that knows the guests' Rust edition.
const RUSTC_MINOR_MIN: u32 = 85;

/// The download is 20 MB. Without a network rustup may wait for one, for ever.
const TARGET_ADD_TIME_MAX: Duration = Duration::from_secs(180);

/// Where one may ask for one way only.
const ASKED_FOR: &str = "WEIRMQ_GUEST_TOOLCHAIN";

/// A compiler that can build guests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// The cargo that runs xtask.
    Own,
    /// Debian's, with this linker.
    Debian { linker: PathBuf },
}

impl Toolchain {
    /// Finds a compiler for [`TARGET`], and sets one up where there is none.
    pub(crate) fn ensure() -> Result<Self, Stop> {
        let asked_for = Asked::parse(std::env::var(ASKED_FOR).ok().as_deref())?;
        let mut tried = Tried::default();
        loop {
            let machine = Machine::probe();
            match next_step(&machine, asked_for, &tried) {
                Step::Take(toolchain) => return Ok(toolchain),
                Step::AddTarget => tried.add_target = Some(reason(add_target())),
                Step::InstallPackages => tried.packages = Some(reason(debian::install(&DEBIAN_PACKAGES))),
                Step::Tell(what) => return Err(Stop(what)),
            }
        }
    }

    /// A `cargo build --release` for [`TARGET`].
    pub(crate) fn cargo_build(&self) -> Command {
        let mut cargo = match self {
            Self::Own => process::cargo(),
            Self::Debian { .. } => Command::new(Path::new(DEBIAN_FOLDER).join("cargo")),
        };
        self.lend(&mut cargo);
        cargo.args(["build", "--release", "--target", TARGET]);
        cargo
    }

    /// Makes the `cargo build` that `command` may run build for [`TARGET`] with this compiler.
    pub(crate) fn lend(&self, command: &mut Command) {
        match self {
            Self::Own => {
                process::forget_own_package(command);
                // Flags for this machine's processor or linker would be taken for the guests' too.
                for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS"] {
                    command.env_remove(name);
                }
            }
            Self::Debian { linker } => {
                process::forget(command, is_about_another_toolchain);
                let others = std::env::var_os("PATH").unwrap_or_default();
                let folders =
                    std::iter::once(PathBuf::from(DEBIAN_FOLDER)).chain(std::env::split_paths(&others));
                // Folders that came from a PATH go into one.
                command.env("PATH", std::env::join_paths(folders).unwrap_or(others.clone()));
                command
                    .env("RUSTC", Path::new(DEBIAN_FOLDER).join("rustc"))
                    // Building the standard library is a nightly feature; Debian's compiler is a release.
                    .env("RUSTC_BOOTSTRAP", "1")
                    .env("CARGO_UNSTABLE_BUILD_STD", "std,panic_abort")
                    .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
            }
        }
    }
}

/// What the user asked for by [`ASKED_FOR`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Any,
    Own,
    Debian,
}

impl Asked {
    fn parse(text: Option<&str>) -> Result<Self, Stop> {
        match text {
            None | Some("") => Ok(Self::Any),
            Some("own") => Ok(Self::Own),
            Some("debian") => Ok(Self::Debian),
            Some(other) => Err(Stop(format!("{ASKED_FOR} is `{other}`; it may be `own` or `debian`"))),
        }
    }
}

/// What there is on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Machine {
    /// Whether the compiler that runs xtask has the standard library for the target.
    own_has_target: bool,
    rustup: bool,
    /// The minor version of `/usr/bin/rustc`, where it and `/usr/bin/cargo` are there.
    debian_rustc_minor: Option<u32>,
    /// Whether the source of the standard library lies beside that compiler.
    debian_source: bool,
    wasm_linker: Option<PathBuf>,
    apt: Apt,
}

impl Machine {
    fn probe() -> Self {
        Self {
            own_has_target: process::output(own_rustc().args([
                "--print",
                "target-libdir",
                "--target",
                TARGET,
            ]))
            .is_some_and(|folder| has_core(Path::new(&folder))),
            rustup: process::output(Command::new("rustup").arg("--version")).is_some(),
            debian_rustc_minor: debian_rustc_minor(),
            debian_source: debian_rustc(&["--print", "sysroot"]).is_some_and(|root| {
                Path::new(&root).join("lib/rustlib/src/rust/library/std/Cargo.toml").exists()
            }),
            wasm_linker: newest_wasm_linker(Path::new("/usr/bin")),
            apt: Apt::probe(),
        }
    }
}

/// What was tried without making a compiler ready, and why it did not.
#[derive(Debug, Default)]
struct Tried {
    add_target: Option<String>,
    packages: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Take(Toolchain),
    AddTarget,
    InstallPackages,
    Tell(String),
}

fn next_step(machine: &Machine, asked_for: Asked, tried: &Tried) -> Step {
    if asked_for != Asked::Debian {
        if machine.own_has_target {
            return Step::Take(Toolchain::Own);
        }
        if machine.rustup && tried.add_target.is_none() {
            return Step::AddTarget;
        }
    }
    if asked_for != Asked::Own {
        if let (Ok(()), Some(linker)) = (debian_compiler_is_fit(machine), &machine.wasm_linker) {
            return Step::Take(Toolchain::Debian { linker: linker.clone() });
        }
        if machine.apt == Apt::Usable && tried.packages.is_none() {
            return Step::InstallPackages;
        }
    }
    Step::Tell(what_to_install(machine, asked_for, tried))
}

fn debian_compiler_is_fit(machine: &Machine) -> Result<(), String> {
    match machine.debian_rustc_minor {
        None => Err("there is no /usr/bin/rustc with a /usr/bin/cargo".to_owned()),
        Some(minor) if minor < RUSTC_MINOR_MIN => {
            Err(format!("/usr/bin/rustc is 1.{minor}, older than 1.{RUSTC_MINOR_MIN}"))
        }
        Some(_) if !machine.debian_source => {
            Err("/usr/bin/rustc has no source of the standard library beside it".to_owned())
        }
        Some(_) if machine.wasm_linker.is_none() => Err("there is no wasm-ld in /usr/bin".to_owned()),
        Some(_) => Ok(()),
    }
}

fn what_to_install(machine: &Machine, asked_for: Asked, tried: &Tried) -> String {
    let mut text = format!(
        "the guests (Wasm plugins) are compiled for {TARGET}, and no Rust compiler here can do that.\n"
    );
    if asked_for != Asked::Debian {
        text.push_str("  With rustup:       rustup target add wasm32-unknown-unknown\n");
        let why = match &tried.add_target {
            Some(failed) => format!("tried: {failed}"),
            None => "not tried: there is no rustup on the PATH; see https://rustup.rs".to_owned(),
        };
        text.push_str(&format!("                     ({why})\n"));
    }
    if asked_for != Asked::Own && machine.apt != Apt::Absent {
        text.push_str(&format!("  Debian, Ubuntu:    sudo apt-get install {}\n", DEBIAN_PACKAGES.join(" ")));
        let why = match (&tried.packages, debian_compiler_is_fit(machine)) {
            (Some(failed), Err(lacking)) => format!("tried: {failed}; {lacking}"),
            (None, Err(lacking)) => format!("not tried: only root may install packages; {lacking}"),
            (_, Ok(())) => "they are there".to_owned(),
        };
        text.push_str(&format!("                     ({why})\n"));
    }
    text.push_str("  Other systems:     the package that has the Rust standard library for that target\n");
    text.push_str("                     (Fedora: rust-std-static-wasm32-unknown-unknown; Arch: rust-wasm)\n");
    text.push_str("Then run the same command again.");
    text
}

fn add_target() -> Result<(), Stop> {
    process::say(&format!("adding the Rust target {TARGET} by rustup"));
    process::check_within(TARGET_ADD_TIME_MAX, Command::new("rustup").args(["target", "add", TARGET]))
}

fn reason(result: Result<(), Stop>) -> String {
    match result {
        Ok(()) => "it reported success, but what is needed is still not there".to_owned(),
        Err(Stop(why)) => {
            process::say(&why);
            why
        }
    }
}

fn own_rustc() -> Command {
    Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
}

fn debian_rustc(arguments: &[&str]) -> Option<String> {
    let mut rustc = Command::new("/usr/bin/rustc");
    process::forget(&mut rustc, is_about_another_toolchain);
    process::output(rustc.args(arguments))
}

fn debian_rustc_minor() -> Option<u32> {
    if !Path::new("/usr/bin/cargo").exists() {
        return None;
    }
    minor_version(&debian_rustc(&["--version"])?)
}

/// `rustc 1.96.0 (ac68faa20 2026-05-25)` is 96.
fn minor_version(version: &str) -> Option<u32> {
    version.strip_prefix("rustc 1.")?.split('.').next()?.parse().ok()
}

fn has_core(folder: &Path) -> bool {
    names_in(folder).any(|name| name.starts_with("libcore-") && name.ends_with(".rlib"))
}

/// `wasm-ld`, or the highest `wasm-ld-N`, in `folder`.
fn newest_wasm_linker(folder: &Path) -> Option<PathBuf> {
    names_in(folder)
        .filter_map(|name| {
            let version = match name.strip_prefix("wasm-ld")? {
                "" => u32::MAX,
                suffix => suffix.strip_prefix('-')?.parse().ok()?,
            };
            Some((version, folder.join(name)))
        })
        .max()
        .map(|(_, path)| path)
}

fn names_in(folder: &Path) -> impl Iterator<Item = String> {
    std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
}

/// Whether the variable `name` says something that is true of the toolchain that runs xtask only.
/// Cargo's home, network and registries are true of every toolchain.
fn is_about_another_toolchain(name: &str) -> bool {
    const SHARED: [&str; 5] = ["CARGO_HOME", "CARGO_NET_", "CARGO_HTTP_", "CARGO_REGISTR", "CARGO_TERM_"];
    let cargos_own = name == "CARGO" || name.starts_with("CARGO_");
    (cargos_own && !SHARED.into_iter().any(|prefix| name.starts_with(prefix)))
        || name.starts_with("RUSTUP_")
        || name.starts_with("RUSTC")
        || name.starts_with("RUSTDOC")
        || ["RUSTFLAGS", "LD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH", "OUT_DIR"].contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bare() -> Machine {
        Machine {
            own_has_target: false,
            rustup: false,
            debian_rustc_minor: None,
            debian_source: false,
            wasm_linker: None,
            apt: Apt::Absent,
        }
    }

    fn debian_ready() -> Machine {
        Machine {
            debian_rustc_minor: Some(96),
            debian_source: true,
            wasm_linker: Some("/usr/bin/wasm-ld-14".into()),
            apt: Apt::NotRoot,
            ..bare()
        }
    }

    fn step(machine: &Machine) -> Step {
        next_step(machine, Asked::Any, &Tried::default())
    }

    #[test]
    fn a_compiler_that_has_the_target_is_taken_before_any_other() {
        let machine = Machine { own_has_target: true, rustup: true, ..debian_ready() };
        assert_eq!(step(&machine), Step::Take(Toolchain::Own));
    }

    #[test]
    fn rustup_is_asked_once_and_then_debians_compiler_is_taken() {
        let machine = Machine { rustup: true, ..debian_ready() };
        assert_eq!(step(&machine), Step::AddTarget);
        let tried = Tried { add_target: Some("no network".into()), ..Tried::default() };
        let debian = Toolchain::Debian { linker: "/usr/bin/wasm-ld-14".into() };
        assert_eq!(next_step(&machine, Asked::Any, &tried), Step::Take(debian));
    }

    #[test]
    fn packages_are_installed_by_root_only_and_only_once() {
        let root = Machine { apt: Apt::Usable, ..bare() };
        assert_eq!(step(&root), Step::InstallPackages);
        let tried = Tried { packages: Some("no such package".into()), ..Tried::default() };
        let Step::Tell(text) = next_step(&root, Asked::Any, &tried) else { panic!("nothing is left to try") };
        assert!(text.contains("tried: no such package"), "{text}");

        let Step::Tell(text) = step(&Machine { apt: Apt::NotRoot, ..bare() }) else { panic!("not root") };
        assert!(text.contains("sudo apt-get install rustc-web cargo-web rust-web-src lld"), "{text}");
        assert!(text.contains("only root may install packages"), "{text}");
    }

    #[test]
    fn a_debian_compiler_that_lacks_something_is_not_taken_and_the_lack_is_named() {
        for (machine, lacking) in [
            (Machine { debian_rustc_minor: Some(63), ..debian_ready() }, "/usr/bin/rustc is 1.63"),
            (Machine { debian_source: false, ..debian_ready() }, "no source of the standard library"),
            (Machine { wasm_linker: None, ..debian_ready() }, "no wasm-ld"),
            (Machine { debian_rustc_minor: None, ..debian_ready() }, "no /usr/bin/rustc"),
        ] {
            let Step::Tell(text) = step(&machine) else { panic!("{lacking}: taken all the same") };
            assert!(text.contains(lacking), "{text}");
        }
    }

    #[test]
    fn without_rustup_and_apt_the_user_is_told_what_to_install() {
        let Step::Tell(text) = step(&bare()) else { panic!("there is nothing to take") };
        assert!(text.contains("rustup target add wasm32-unknown-unknown"), "{text}");
        assert!(!text.contains("apt-get"), "{text}");
    }

    #[test]
    fn one_way_can_be_asked_for() {
        let machine = Machine { own_has_target: true, ..debian_ready() };
        let debian = next_step(&machine, Asked::Debian, &Tried::default());
        assert!(matches!(debian, Step::Take(Toolchain::Debian { .. })), "{debian:?}");
        let Step::Tell(_) = next_step(&debian_ready(), Asked::Own, &Tried::default()) else {
            panic!("Debian's was not asked for")
        };
        assert_eq!(Asked::parse(Some("debian")).ok(), Some(Asked::Debian));
        assert!(Asked::parse(Some("gentoo")).is_err());
    }

    #[test]
    fn the_newest_linker_is_found_by_number_not_by_letter() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["wasm-ld-9", "wasm-ld-14", "wasm-ld-x", "ld.lld-19", "wasm-ldx"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(newest_wasm_linker(folder.path()), Some(folder.path().join("wasm-ld-14")));
        std::fs::write(folder.path().join("wasm-ld"), "").unwrap();
        assert_eq!(newest_wasm_linker(folder.path()), Some(folder.path().join("wasm-ld")));
        assert_eq!(newest_wasm_linker(&folder.path().join("absent")), None);
    }

    #[test]
    fn the_compilers_version_is_read() {
        assert_eq!(minor_version("rustc 1.96.0 (ac68faa20 2026-05-25) (built from a tarball)"), Some(96));
        assert_eq!(minor_version("rustc 2.0.0"), None);
        assert_eq!(minor_version(""), None);
    }

    #[test]
    fn another_toolchains_variables_do_not_reach_debians_cargo() {
        for name in [
            "CARGO",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_BUILD_RUSTFLAGS",
            "CARGO_MANIFEST_DIR",
            "CARGO_TARGET_DIR",
            "RUSTUP_TOOLCHAIN",
            "RUSTUP_HOME",
            "RUSTC_WRAPPER",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTFLAGS",
            "LD_LIBRARY_PATH",
        ] {
            assert!(is_about_another_toolchain(name), "{name}");
        }
        for name in
            ["CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_HTTP_PROXY", "CARGO_REGISTRIES_X_INDEX", "PATH"]
        {
            assert!(!is_about_another_toolchain(name), "{name}");
        }
    }
}
