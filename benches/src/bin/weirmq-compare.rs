//! Brokers side by side; `cargo xtask bench` builds, fetches and names them. See `benches/README.md`.

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    use clap::Parser;
    use weirmq_benches::compare;

    match compare::run(&compare::Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    fail(&"brokers are watched through /proc, which only Linux has")
}

fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("weirmq-compare: {error}");
    ExitCode::FAILURE
}
