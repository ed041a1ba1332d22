//! Programs run with their output shown, with a time limit, with their results summed.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::tally::Tally;

/// Why a command cannot go on, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Stop(pub(crate) String);

/// Tells the user what happens now.
pub(crate) fn say(what: &str) {
    eprintln!("xtask: {what}");
}

/// The cargo that runs xtask.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    forget_own_package(&mut cargo);
    cargo
}

/// Keeps from `command` what cargo tells xtask about xtask's own package: build scripts that look at it would run
/// again.
pub(crate) fn forget_own_package(command: &mut Command) {
    forget(command, is_about_this_package);
}

/// Takes the variables that `about` picks out of what `command` inherits.
pub(crate) fn forget(command: &mut Command, about: fn(&str) -> bool) {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(about) {
            command.env_remove(name);
        }
    }
}

fn is_about_this_package(name: &str) -> bool {
    ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].into_iter().any(|prefix| name.starts_with(prefix))
        || ["CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE", "OUT_DIR"].contains(&name)
}

/// Runs `command`, its output shown, and wants it to succeed.
pub(crate) fn check(command: &mut Command) -> Result<(), Stop> {
    let status = command.stdin(Stdio::null()).status().map_err(|error| cannot_start(command, &error))?;
    succeeded(command, status)
}

/// Like [`check`], but `command` is ended when it takes longer than `limit`.
pub(crate) fn check_within(limit: Duration, command: &mut Command) -> Result<(), Stop> {
    let mut child = command.stdin(Stdio::null()).spawn().map_err(|error| cannot_start(command, &error))?;
    match wait_until(&mut child, Instant::now() + limit) {
        Ok(Some(status)) => succeeded(command, status),
        Ok(None) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(Stop(format!("`{}` was ended after {} s without a result", shown(command), limit.as_secs())))
        }
        Err(error) => Err(Stop(format!("`{}`: {error}", shown(command)))),
    }
}

/// What `command` prints, when it can be started and succeeds.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Runs a `cargo test` and sums its results while its output is shown. A run that fails without a failed
/// test (it does not compile, a test binary crashes) counts as one failure.
pub(crate) fn tally_tests(command: &mut Command) -> Result<Tally, Stop> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| cannot_start(command, &error))?;
    let mut tally = Tally::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line.map_err(|error| Stop(format!("cannot read what the tests print: {error}")))?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            tally.add_line(&line);
        }
    }
    let status = child.wait().map_err(|error| Stop(format!("`{}`: {error}", shown(command))))?;
    if !status.success() && tally.failed == 0 {
        say(&format!("`{}` failed outside any test ({status}); counted as one failure", shown(command)));
        tally.failed = 1;
    }
    Ok(tally)
}

/// Puts `command` in the place of this process, so that signals reach it.
#[cfg(unix)]
pub(crate) fn become_program(command: &mut Command) -> Result<ExitCode, Stop> {
    use std::os::unix::process::CommandExt;
    let error = command.exec();
    Err(cannot_start(command, &error))
}

/// Runs `command` and ends as it ends.
#[cfg(not(unix))]
pub(crate) fn become_program(command: &mut Command) -> Result<ExitCode, Stop> {
    let status = command.status().map_err(|error| cannot_start(command, &error))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn wait_until(child: &mut Child, deadline: Instant) -> std::io::Result<Option<ExitStatus>> {
    // The standard library can only wait without a limit, or look: so it looks now and then.
    const LOOK_EVERY: Duration = Duration::from_millis(50);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn succeeded(command: &Command, status: ExitStatus) -> Result<(), Stop> {
    if status.success() { Ok(()) } else { Err(Stop(format!("`{}` failed ({status})", shown(command)))) }
}

fn cannot_start(command: &Command, error: &std::io::Error) -> Stop {
    Stop(format!("cannot start `{}`: {error}", shown(command)))
}

/// `command` as one would type it.
fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_hangs_is_ended_at_its_time_limit() {
        let started = Instant::now();
        let Err(Stop(why)) = check_within(Duration::from_millis(100), Command::new("sleep").arg("60")) else {
            panic!("ended")
        };
        assert!(why.starts_with("`sleep 60` was ended"), "{why}");
        assert!(started.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let Err(Stop(why)) = check(&mut Command::new("no-such-program-of-weirmq")) else { panic!("named") };
        assert!(why.starts_with("cannot start `no-such-program-of-weirmq`"), "{why}");
    }

    #[test]
    fn a_test_run_that_dies_without_a_result_is_a_failure() {
        let mut crash = Command::new("sh");
        crash.args(["-c", "echo 'test result: ok. 2 passed; 0 failed; 0 ignored'; exit 101"]);
        assert_eq!(tally_tests(&mut crash).unwrap(), Tally { passed: 2, failed: 1 });
    }
}
