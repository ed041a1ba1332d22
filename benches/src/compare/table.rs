//! The table, as Markdown.

use super::broker::{Broker, Kind};
use super::median::{Summary, summary};
use super::rounds::{Outcome, Run};
use super::suite::Row;
use crate::report::Report;

const HEAD: &str = "\
| work | broker | rate /s | CPU µs each | p50 µs | p99 µs | p99.9 µs | RSS MiB | generator µs | WeirMQ's rate | CPU to WeirMQ's |
|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|
";

/// How late the generator itself was with messages of a fixed rate: part of the latencies above, the same for all.
pub(super) fn lateness(runs: &[Run]) -> String {
    let worst = runs.iter().filter_map(|run| match &run.outcome {
        Outcome::Report(report) => report.lateness.as_ref(),
        Outcome::Failed(_) => None,
    });
    let worst = worst.max_by(|left, right| left.p99_us.total_cmp(&right.p99_us));
    worst.map_or(String::new(), |late| {
        format!(
            "\nAt a fixed rate the generator itself was late by {:.0} µs at p50 and {:.0} µs at p99 in its worst \
             round; that is in the latencies.\n",
            late.p50_us, late.p99_us
        )
    })
}

/// A line per row and broker. The two last columns compare: WeirMQ's rate as a multiple of the broker's, and the
/// broker's CPU as a multiple of WeirMQ's; in both more than 1 is in WeirMQ's favour.
pub(super) fn markdown(rows: &[&'static Row], brokers: &[Broker], runs: &[Run]) -> String {
    let mut text = HEAD.to_owned();
    for row in rows {
        let ours = match summary(runs, row.name, Kind::Weirmq.name()) {
            Some(Summary::Medians(report)) => Some(report),
            _ => None,
        };
        for broker in brokers.iter().filter(|broker| row.compares(broker.kind)) {
            let name = broker.kind.name();
            let cells = match summary(runs, row.name, name) {
                Some(Summary::Medians(report)) => {
                    let other = broker.kind != Kind::Weirmq;
                    figures(&report, ours.as_deref().filter(|_| other))
                }
                Some(Summary::Failed { rounds, of, why }) => {
                    format!("fails in {rounds} of {of}: {} | | | | | | | | ", why.replace('|', "/"))
                }
                None => "| | | | | | | | ".to_owned(),
            };
            text.push_str(&format!("| {} | {name} | {cells} |\n", row.title));
        }
    }
    text
}

fn figures(report: &Report, ours: Option<&Report>) -> String {
    let latency = report.latency.as_ref();
    let microseconds = |figure: Option<f64>| figure.map_or(String::new(), |figure| format!("{figure:.0}"));
    let memory = match (report.rss_bytes_per_connection, report.broker_rss_bytes) {
        (Some(each), Some(all)) => format!("{:.1}, {each:.0} B each", mebibytes(all)),
        (_, Some(all)) => format!("{:.1}", mebibytes(all)),
        _ => String::new(),
    };
    let cpu = report.broker_cpu_us.map_or(String::new(), |cpu| format!("{cpu:.2}"));
    let rate = ours.map_or(String::new(), |ours| ratio(ours.per_s, report.per_s));
    let spared =
        ours.and_then(|ours| Some(ratio(report.broker_cpu_us?, ours.broker_cpu_us?))).unwrap_or_default();
    [
        thousands(report.per_s),
        cpu,
        microseconds(latency.map(|found| found.p50_us)),
        microseconds(latency.map(|found| found.p99_us)),
        microseconds(latency.map(|found| found.p999_us)),
        memory,
        format!("{:.2}", report.load_cpu_us),
        rate,
        spared,
    ]
    .join(" | ")
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}

fn ratio(left: f64, right: f64) -> String {
    if right > 0.0 { format!("{:.2}×", left / right) } else { String::new() }
}

/// A whole number with its thousands set apart.
fn thousands(figure: f64) -> String {
    let digits = format!("{:.0}", figure.max(0.0));
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::suite::chosen;
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        for (figure, text) in [(7.4, "7"), (999.6, "1,000"), (1_234_567.0, "1,234,567")] {
            assert_eq!(thousands(figure), text);
        }
    }

    #[test]
    fn a_line_says_how_weirmq_compares_and_a_failure_is_told() {
        let rows = chosen(&["fan-in".to_owned()]).unwrap();
        let report = |per_s, cpu| {
            Outcome::Report(Report { per_s, broker_cpu_us: Some(cpu), load_cpu_us: 0.5, ..Report::default() })
        };
        let run = |broker, outcome| Run { row: "fan-in", broker, round: 0, outcome };
        let runs = [
            run("WeirMQ", report(2_000.0, 1.0)),
            run("mosquitto", report(1_000.0, 3.0)),
            run("rumqttd", Outcome::Failed("2 lost".to_owned())),
        ];
        let broker = |kind| Broker { kind, program: PathBuf::new(), plugin: None };
        let brokers = [Kind::Weirmq, Kind::Mosquitto, Kind::Rumqttd].map(broker);
        let text = markdown(&rows, &brokers, &runs);
        assert!(text.contains("| mosquitto | 1,000 | 3.00 |  |  |  |  | 0.50 | 2.00× | 3.00× |"), "{text}");
        assert!(text.contains("| rumqttd | fails in 1 of 1: 2 lost |"), "{text}");
        let bars: Vec<usize> = text.lines().map(|line| line.matches('|').count()).collect();
        assert!(bars.iter().all(|count| *count == 12), "{bars:?} {text}");
    }
}
