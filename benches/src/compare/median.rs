//! Many results into one.

use super::rounds::{Outcome, Run};
use crate::load::Percentiles;
use crate::report::Report;

/// What all rounds of one broker at one load say.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Summary {
    /// The median of each figure.
    Medians(Box<Report>),
    /// In so many rounds it failed; for this reason, last.
    Failed {
        /// Rounds that failed.
        rounds: usize,
        /// Of so many.
        of: usize,
        why: String,
    },
}

/// One broker's rounds of one row, into one. A broker that fails in one round has failed. `None`: there was no round.
pub(super) fn summary(runs: &[Run], row: &str, broker: &str) -> Option<Summary> {
    let rounds: Vec<&Outcome> =
        runs.iter().filter(|run| run.row == row && run.broker == broker).map(|run| &run.outcome).collect();
    let failures: Vec<&String> = rounds
        .iter()
        .filter_map(|outcome| match outcome {
            Outcome::Failed(why) => Some(why),
            Outcome::Report(_) => None,
        })
        .collect();
    if let Some(why) = failures.last() {
        return Some(Summary::Failed { rounds: failures.len(), of: rounds.len(), why: (*why).clone() });
    }
    let reports: Vec<&Report> = rounds
        .iter()
        .filter_map(|outcome| match outcome {
            Outcome::Report(report) => Some(report),
            Outcome::Failed(_) => None,
        })
        .collect();
    Some(Summary::Medians(Box::new(medians(&reports)?)))
}

fn medians(reports: &[&Report]) -> Option<Report> {
    let of = |figure: &dyn Fn(&Report) -> Option<f64>| {
        median(reports.iter().filter_map(|report| figure(report)).collect())
    };
    let latency = |figure: fn(&Percentiles) -> f64| of(&|report| report.latency.as_ref().map(figure));
    Some(Report {
        per_s: of(&|report| Some(report.per_s))?,
        broker_cpu_us: of(&|report| report.broker_cpu_us),
        load_cpu_us: of(&|report| Some(report.load_cpu_us))?,
        broker_rss_bytes: of(&|report| report.broker_rss_bytes.map(|bytes| bytes as f64))
            .map(|bytes| bytes as u64),
        rss_bytes_per_connection: of(&|report| report.rss_bytes_per_connection),
        latency: latency(|found| found.p50_us).and_then(|p50_us| {
            Some(Percentiles {
                p50_us,
                p99_us: latency(|found| found.p99_us)?,
                p999_us: latency(|found| found.p999_us)?,
                max_us: latency(|found| found.max_us)?,
            })
        }),
        ..(*reports.first()?).clone()
    })
}

/// The middle; the mean of both middles of an even number.
fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    let upper = *figures.get(middle)?;
    if figures.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(*figures.get(middle.checked_sub(1)?)?, upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(round: u32, outcome: Outcome) -> Run {
        Run { row: "pairs", broker: "WeirMQ", round, outcome }
    }

    fn report(per_s: f64, cpu: f64) -> Outcome {
        Outcome::Report(Report { per_s, broker_cpu_us: Some(cpu), ..Report::default() })
    }

    #[test]
    fn the_median_is_the_middle_and_a_stray_round_does_not_move_it() {
        assert_eq!(median(vec![3.0, 1.0, 1_000.0]), Some(3.0));
        assert_eq!(median(vec![1.0, 2.0]), Some(1.5));
        assert_eq!(median(vec![]), None);
    }

    #[test]
    fn each_figure_has_its_own_median() {
        let runs = [run(0, report(1.0, 9.0)), run(1, report(2.0, 7.0)), run(2, report(3.0, 8.0))];
        let Some(Summary::Medians(medians)) = summary(&runs, "pairs", "WeirMQ") else { panic!("medians") };
        assert_eq!((medians.per_s, medians.broker_cpu_us), (2.0, Some(8.0)));
        assert_eq!(summary(&runs, "pairs", "mosquitto"), None);
    }

    #[test]
    fn one_failed_round_fails_the_row() {
        let runs = [run(0, report(1.0, 1.0)), run(1, Outcome::Failed("3 lost".to_owned()))];
        let failed = Summary::Failed { rounds: 1, of: 2, why: "3 lost".to_owned() };
        assert_eq!(summary(&runs, "pairs", "WeirMQ"), Some(failed));
    }
}
