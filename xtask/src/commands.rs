//! What each command does, step by step.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use weirmq_kit::command::CommandError;

use crate::guests::Wanted;
use crate::process::{self, Stop};
use crate::{bench, clients, guests};

const HELP: &str = "\
The project's own commands.

  cargo xtask run [-- ARGS]   set up what is missing, build the guests and the broker in release, and start
                              it with examples/quickstart; ARGS are added to the broker's own
  cargo xtask test [-- ARGS]  set up what is missing, build the guests, run every test; the last line is
                              the total. ARGS go to `cargo test` in the place of `--workspace`
  cargo xtask guests [NAME]   build the guests (Wasm plugins) only, or the one of that name, into target/guests;
                              `cargo xtask guests --table` then measures the examples of each language, and
                              prints the table of plugin-api/README.md
  cargo xtask plugin ARGS     `weirmq plugin new`, `bindings` and `seal` without building the broker
  cargo xtask bench [-- ARGS] measure the broker beside mosquitto and rumqttd, some minutes; the table is
                              printed and left in target/bench/table.md. ARGS choose, such as
                              `--only pairs,churn --rounds 5 --seconds 3`; `--help` lists them
  cargo xtask check           formatting, lints and documentation, each without a warning
  cargo xtask help            this text

What is missing is installed where that is possible without asking (the Wasm target by rustup; on Debian and
Ubuntu as root, packages; paho-mqtt into target/venv; rumqttd into target/bench; the compilers of C, Go, Python
and JavaScript guests from PyPI and npm into target/guest-tools). Otherwise it is named, with
the command to install it.

WEIRMQ_GUEST_TOOLCHAIN=own|debian   build the guests with the cargo that runs xtask, or with Debian's,
                                    rather than with what xtask finds first
";

const COMMANDS: [&str; 7] = ["run", "test", "guests", "plugin", "bench", "check", "help"];

/// Does what the command line asks.
pub(crate) fn run(arguments: &[String]) -> Result<ExitCode, Stop> {
    let (command, rest) = match arguments {
        [] => ("help", arguments),
        [command, dashes, rest @ ..] if dashes == "--" => (command.as_str(), rest),
        [command, rest @ ..] => (command.as_str(), rest),
    };
    let root = root();
    match command {
        "run" => run_quickstart(&root, rest),
        "test" => test(&root, rest),
        "guests" => build_guests(&root, rest),
        "plugin" => author(rest),
        "bench" => bench::run(&root, &target_folder(&root), rest).map(|()| ExitCode::SUCCESS),
        "check" => no_arguments(command, rest).and_then(|()| check(&root)),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(ExitCode::SUCCESS)
        }
        unknown => Err(Stop(unknown_command(unknown))),
    }
}

fn run_quickstart(root: &Path, arguments: &[String]) -> Result<ExitCode, Stop> {
    let guests = guests::build(root, Wanted::Rust)?;
    let target = target_folder(root);
    process::say("building the broker in release (some minutes the first time)");
    process::check(
        process::cargo()
            .current_dir(root)
            .args(["build", "--release", "--package", "weirmq", "--bin", "weirmq", "--target-dir"])
            .arg(&target),
    )?;
    let mut broker =
        Command::new(target.join("release").join(format!("weirmq{}", std::env::consts::EXE_SUFFIX)));
    broker
        .current_dir(root)
        .args(["run", "--config", "examples/quickstart/weirmq.toml"])
        .args(arguments)
        .env("WEIRMQ_GUESTS", guests);
    process::become_program(&mut broker)
}

fn test(root: &Path, arguments: &[String]) -> Result<ExitCode, Stop> {
    let python = clients::ensure(root)?;
    let guests = guests::build(root, Wanted::All)?;
    let mut tests = process::cargo();
    tests.current_dir(root).args(["test", "--no-fail-fast"]);
    if arguments.is_empty() {
        tests.arg("--workspace");
    }
    tests.args(arguments).env("WEIRMQ_GUESTS", guests).env("WEIRMQ_PYTHON", python);
    process::say("running the tests (a first debug build takes some minutes)");
    let tally = process::tally_tests(&mut tests)?;
    println!("{tally}");
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn build_guests(root: &Path, arguments: &[String]) -> Result<ExitCode, Stop> {
    let wanted = match arguments {
        [] => Wanted::All,
        [flag] if flag == "--table" => return print_table(root),
        [name] => Wanted::One(name),
        [_, argument, ..] => {
            return Err(Stop(format!("`guests` takes one name, but was given `{argument}` too")));
        }
    };
    let folder = guests::build(root, wanted)?;
    process::say(&format!("the guests are in {}", folder.display()));
    Ok(ExitCode::SUCCESS)
}

/// What plugins are written with.
fn author(arguments: &[String]) -> Result<ExitCode, Stop> {
    match weirmq_kit::command::run(arguments) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        // It says itself what it is about, `--help` too.
        Err(CommandError::CommandLine(error)) => error.exit(),
        Err(error) => Err(Stop(error.to_string())),
    }
}

/// What a plugin costs in each language.
fn print_table(root: &Path) -> Result<ExitCode, Stop> {
    let guests = guests::build(root, Wanted::All)?;
    process::check(
        process::cargo()
            .current_dir(root)
            .args(["run", "--release", "--package", "weirmq-host", "--example", "languages"])
            .env("WEIRMQ_GUESTS", guests),
    )?;
    Ok(ExitCode::SUCCESS)
}

fn check(root: &Path) -> Result<ExitCode, Stop> {
    process::check(process::cargo().current_dir(root).args(["fmt", "--all", "--check"]))?;
    for package in guests::outside_the_workspace(root)? {
        process::check(
            process::cargo()
                .current_dir(root)
                .args(["fmt", "--check", "--manifest-path"])
                .arg(package.join("Cargo.toml")),
        )?;
    }
    process::check(process::cargo().current_dir(root).args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))?;
    process::check(
        process::cargo()
            .current_dir(root)
            .args(["doc", "--workspace", "--no-deps"])
            .env("RUSTDOCFLAGS", "-D warnings"),
    )?;
    process::say("formatting, lints and documentation are clean");
    Ok(ExitCode::SUCCESS)
}

fn no_arguments(command: &str, rest: &[String]) -> Result<(), Stop> {
    match rest.first() {
        None => Ok(()),
        Some(argument) => Err(Stop(format!("`{command}` takes no arguments, but was given `{argument}`"))),
    }
}

fn unknown_command(unknown: &str) -> String {
    let nearest = COMMANDS
        .into_iter()
        .map(|command| (strsim::damerau_levenshtein(command, unknown), command))
        .min()
        .filter(|(distance, _)| *distance <= 2);
    match nearest {
        Some((_, command)) => format!("there is no command `{unknown}`; did you mean `{command}`?"),
        None => format!("there is no command `{unknown}`; there are: {}", COMMANDS.join(", ")),
    }
}

/// The repository's root: the folder above this package.
fn root() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package.parent().map_or_else(|| package.clone(), Path::to_path_buf)
}

/// Where cargo puts what it builds for this machine. Passed to it, so that both agree.
fn target_folder(root: &Path) -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR").filter(|folder| !folder.is_empty()) {
        Some(folder) => std::path::absolute(&folder).unwrap_or_else(|_| PathBuf::from(&folder)),
        None => root.join("target"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(arguments: &[&str]) -> Vec<String> {
        arguments.iter().map(|argument| (*argument).to_owned()).collect()
    }

    #[test]
    fn an_unknown_command_is_answered_with_the_nearest_known_one() {
        let Err(Stop(why)) = run(&strings(&["tset"])) else { panic!("`tset` is no command") };
        assert_eq!(why, "there is no command `tset`; did you mean `test`?");
        let Err(Stop(why)) = run(&strings(&["frobnicate"])) else { panic!("no command either") };
        assert_eq!(
            why,
            "there is no command `frobnicate`; there are: run, test, guests, plugin, bench, check, help"
        );
    }

    #[test]
    fn an_argument_that_nobody_would_read_is_refused() {
        let Err(Stop(why)) = run(&strings(&["check", "fast"])) else { panic!("refused") };
        assert_eq!(why, "`check` takes no arguments, but was given `fast`");
    }

    #[test]
    fn the_help_names_every_command() {
        for command in COMMANDS {
            assert!(HELP.contains(&format!("cargo xtask {command} ")), "{command}");
        }
    }
}
