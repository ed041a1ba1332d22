//! The project's own commands: `cargo xtask help`.
//!
//! # Layout
//! - [`commands`]: what each command does, step by step
//! - [`toolchain`]: which compiler on this machine can build WebAssembly, and how it comes to have one
//! - [`guests`]: from guests in any language to components in `target/guests`
//! - [`clients`]: the real MQTT clients that the end-to-end tests need
//! - [`mod@bench`]: the brokers side by side
//! - [`debian`]: system packages, where they may be installed
//! - [`venv`]: what comes from PyPI
//! - [`process`]: programs run with their output shown, with a time limit, with their results summed
//! - [`tally`]: how many tests passed, how many failed

#![forbid(unsafe_code)]

mod bench;
mod clients;
mod commands;
mod debian;
mod guests;
mod process;
mod tally;
mod toolchain;
mod venv;

use std::process::ExitCode;

use process::Stop;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match commands::run(&arguments) {
        Ok(code) => code,
        Err(Stop(why)) => {
            eprintln!("xtask: {why}");
            ExitCode::FAILURE
        }
    }
}
