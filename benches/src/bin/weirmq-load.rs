//! One load on one broker, measured: see `weirmq-load --help` and `benches/README.md`.

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    use clap::Parser;
    use weirmq_benches::scenario;

    let options = scenario::Options::parse();
    match scenario::run(&options) {
        Ok(report) if options.json => match serde_json::to_string(&report) {
            Ok(line) => {
                println!("{line}");
                ExitCode::SUCCESS
            }
            Err(error) => fail(&error),
        },
        Ok(report) => {
            print!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error),
    }
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    fail(&"brokers are watched through /proc, which only Linux has")
}

fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("weirmq-load: {error}");
    ExitCode::FAILURE
}
