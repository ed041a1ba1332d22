//! What a run says: a line of JSON for machines, a few lines for people.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::flow::Measured;
use crate::load::{Faults, LoadError, Percentiles};

/// The result of one run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Report {
    /// What kind of work it was.
    pub scenario: String,
    /// Messages delivered (or what the scenario counts instead), while it was measured.
    pub count: u64,
    /// For so long.
    pub seconds: f64,
    /// The one through the other.
    pub per_s: f64,
    /// CPU of the broker for each.
    pub broker_cpu_us: Option<f64>,
    /// CPU of the generator for each.
    pub load_cpu_us: f64,
    /// How long each took.
    pub latency: Option<Percentiles>,
    /// How late the generator was with messages of a fixed rate; in `latency` too.
    pub lateness: Option<Percentiles>,
    /// Memory of the broker under the load.
    pub broker_rss_bytes: Option<u64>,
    /// Memory of the broker for each connection, where the scenario is about that.
    pub rss_bytes_per_connection: Option<f64>,
    /// Lost, duplicated, reordered, refused.
    pub faults: Faults,
}

impl Report {
    /// What `measured` says.
    #[must_use]
    pub fn new(scenario: &str, measured: &Measured, faults: Faults) -> Self {
        let each = |microseconds: u64| microseconds as f64 / measured.delivered.max(1) as f64;
        Self {
            scenario: scenario.to_owned(),
            count: measured.delivered,
            seconds: measured.seconds,
            per_s: measured.delivered as f64 / measured.seconds.max(f64::EPSILON),
            broker_cpu_us: measured.broker_cpu_us.map(each),
            load_cpu_us: each(measured.load_cpu_us),
            latency: measured.latency.percentiles(),
            lateness: None,
            broker_rss_bytes: measured.broker_rss_bytes,
            rss_bytes_per_connection: None,
            faults,
        }
    }

    /// Refuses a result that was not come by honestly.
    ///
    /// # Errors
    /// [`LoadError::Broker`]: messages were lost, duplicated, reordered or refused, or there were none.
    pub fn checked(self) -> Result<Self, LoadError> {
        let Faults { lost, duplicated, reordered, refused } = self.faults;
        if !self.faults.is_clean() {
            Err(LoadError::Broker(format!(
                "{lost} lost, {duplicated} duplicated, {reordered} reordered, {refused} refused; {} arrived in time",
                self.count
            )))
        } else if self.count == 0 {
            Err(LoadError::Broker("nothing arrived while it was measured".to_owned()))
        } else {
            Ok(self)
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{}: {:.0}/s ({} in {:.2} s)", self.scenario, self.per_s, self.count, self.seconds)?;
        if let Some(cpu) = self.broker_cpu_us {
            writeln!(out, "  broker CPU       {cpu:.2} µs each")?;
        }
        writeln!(out, "  generator CPU    {:.2} µs each", self.load_cpu_us)?;
        for (name, found) in [("latency", self.latency), ("generator late", self.lateness)] {
            if let Some(Percentiles { p50_us, p99_us, p999_us, max_us }) = found {
                writeln!(
                    out,
                    "  {name:16} p50 {p50_us:.0} µs, p99 {p99_us:.0} µs, p99.9 {p999_us:.0} µs, max {max_us:.0} µs"
                )?;
            }
        }
        if let Some(bytes) = self.broker_rss_bytes {
            writeln!(out, "  broker memory    {:.1} MiB", bytes as f64 / 1_048_576.0)?;
        }
        if let Some(bytes) = self.rss_bytes_per_connection {
            writeln!(out, "  per connection   {bytes:.0} bytes")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(faults: Faults) -> Report {
        Report { scenario: "pairs".to_owned(), count: 10, faults, ..Report::default() }
    }

    #[test]
    fn any_fault_fails_the_run() {
        assert!(report(Faults::default()).checked().is_ok());
        for faults in [
            Faults { lost: 1, ..Faults::default() },
            Faults { duplicated: 1, ..Faults::default() },
            Faults { reordered: 1, ..Faults::default() },
            Faults { refused: 1, ..Faults::default() },
        ] {
            assert!(report(faults).checked().is_err(), "{faults:?}");
        }
    }

    #[test]
    fn a_run_in_which_nothing_arrived_is_no_result() {
        assert!(Report::default().checked().is_err());
    }

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let written = serde_json::to_string(&report(Faults::default())).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&written).unwrap(), report(Faults::default()));
    }
}
