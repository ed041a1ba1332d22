//! The turns: each broker started anew for each load, one after the other, in another order each round.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::Options;
use super::broker::Broker;
use super::suite::Row;
use crate::load::LoadError;
use crate::report::Report;

/// How long a turn may take beyond what is measured: setting up, warming up, draining.
const EXTRA_MAX: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What came of one turn.
#[derive(Debug, Serialize)]
pub(super) struct Run {
    pub(super) row: &'static str,
    pub(super) broker: &'static str,
    pub(super) round: u32,
    #[serde(flatten)]
    pub(super) outcome: Outcome,
}

/// A result, or why there is none.
#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    Report(Report),
    Failed(String),
}

/// Everything, row by row. Says on standard error how it goes.
pub(super) fn run(options: &Options, rows: &[&'static Row]) -> Result<Vec<Run>, LoadError> {
    let brokers = options.brokers();
    if brokers.is_empty() {
        return Err(LoadError::Options("no broker is named: --weirmq, --mosquitto, --rumqttd".to_owned()));
    }
    let mut runs = Vec::new();
    for row in rows {
        let brokers: Vec<&Broker> = brokers.iter().filter(|broker| row.compares(broker.kind)).collect();
        for round in 0..options.rounds {
            for place in 0..brokers.len() {
                let turn = (place + usize::try_from(round).unwrap_or(0)) % brokers.len();
                let Some(broker) = brokers.get(turn) else { continue };
                let outcome = match turn_of(broker, row, options) {
                    Ok(report) => Outcome::Report(report),
                    Err(error) => Outcome::Failed(error.to_string()),
                };
                say(row, broker, &outcome);
                runs.push(Run { row: row.name, broker: broker.kind.name(), round, outcome });
            }
        }
    }
    Ok(runs)
}

fn say(row: &Row, broker: &Broker, outcome: &Outcome) {
    let (name, broker) = (row.name, broker.kind.name());
    match outcome {
        Outcome::Failed(why) => eprintln!("{name:20} {broker:10} FAILS: {why}"),
        Outcome::Report(report) => {
            let cpu = report.broker_cpu_us.unwrap_or_default();
            eprintln!("{name:20} {broker:10} {:10.0}/s {cpu:8.2} µs", report.per_s);
        }
    }
}

fn turn_of(broker: &Broker, row: &Row, options: &Options) -> Result<Report, LoadError> {
    let running = broker.start(&options.out)?;
    let words: Vec<&str> = row.arguments.split(' ').collect();
    let protocol = words.windows(2).find_map(|pair| match pair {
        ["--protocol", protocol] => Some(*protocol),
        _ => None,
    });
    let mut load = Command::new(options.load_program());
    load.args(&words).arg("--json");
    load.arg("--address").arg(running.address(protocol.unwrap_or("3.1.1")).to_string());
    load.arg("--pid").arg(running.pid().to_string());
    load.arg("--seconds").arg(options.seconds.to_string());
    let limit = Duration::try_from_secs_f64(options.seconds).unwrap_or_default() + EXTRA_MAX;
    let output = output_within(limit, &mut load, &options.load_program())?;
    serde_json::from_str(&output)
        .map_err(|error| LoadError::Broker(format!("weirmq-load printed no result: {error}")))
}

/// What `command` prints, or what it says when it fails. It prints one line, which no pipe is too small for.
fn output_within(limit: Duration, command: &mut Command, program: &Path) -> Result<String, LoadError> {
    let failed = || LoadError::io(program.display().to_string());
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed())?;
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(failed())? {
            break status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            return Err(LoadError::Broker(format!("no result after {} s", limit.as_secs())));
        }
        std::thread::sleep(LOOK_EVERY);
    };
    let mut text = String::new();
    if status.success() {
        if let Some(mut out) = child.stdout.take() {
            out.read_to_string(&mut text).map_err(failed())?;
        }
        return Ok(text);
    }
    if let Some(mut errors) = child.stderr.take() {
        errors.read_to_string(&mut text).map_err(failed())?;
    }
    let last = text.lines().last().unwrap_or_default();
    Err(LoadError::Broker(last.strip_prefix("weirmq-load: ").unwrap_or(last).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generator_that_hangs_is_ended_and_one_that_fails_is_quoted() {
        let program = Path::new("sh");
        let mut hangs = Command::new("sleep");
        hangs.arg("60");
        let why = output_within(Duration::from_millis(50), &mut hangs, program).unwrap_err().to_string();
        assert_eq!(why, "no result after 0 s");
        let mut fails = Command::new("sh");
        fails.args(["-c", "echo 'weirmq-load: 1 lost' >&2; exit 1"]);
        let why = output_within(Duration::from_secs(30), &mut fails, program).unwrap_err().to_string();
        assert_eq!(why, "1 lost");
    }
}
