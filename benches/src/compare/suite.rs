//! The rows of the table.

use super::broker::Kind;
use crate::load::LoadError;

/// One load, and what is said about it.
#[derive(Debug)]
pub(super) struct Row {
    /// For the command line.
    pub(super) name: &'static str,
    /// For the table.
    pub(super) title: &'static str,
    /// For `weirmq-load`.
    pub(super) arguments: &'static str,
    /// Who is compared with WeirMQ.
    beside: &'static [Kind],
}

const OTHERS: &[Kind] = &[Kind::Mosquitto, Kind::Rumqttd];

const ROWS: [Row; 21] = [
    row("pairs-qos0", "4 pairs, QoS 0", "pairs --clients 4"),
    row("pairs-qos1", "4 pairs, QoS 1", "pairs --clients 4 --qos 1"),
    row("pairs-qos2", "4 pairs, QoS 2", "pairs --clients 4 --qos 2"),
    row("pairs-1k", "50 pairs, QoS 0, 1 KiB", "pairs --clients 50 --payload 1024"),
    row("pairs-narrow", "4 pairs, QoS 0, 10 under way", "pairs --clients 4 --window 10"),
    row("pairs-v5-qos0", "4 pairs, QoS 0, MQTT 5", "pairs --clients 4 --protocol 5"),
    row("pairs-v5-qos1", "4 pairs, QoS 1, MQTT 5", "pairs --clients 4 --protocol 5 --qos 1"),
    row("fan-out-100", "fan-out 1 to 100, QoS 0", "fan-out --clients 100"),
    row("fan-out-1000", "fan-out 1 to 1000, QoS 0", "fan-out --clients 1000"),
    row("fan-in", "fan-in 100 to 1, QoS 0", "fan-in --clients 100"),
    row("shared", "4 to a shared group of 4, QoS 0", "shared --clients 4"),
    row("shared-qos1", "4 to a shared group of 4, QoS 1", "shared --clients 4 --qos 1"),
    Row {
        beside: &[Kind::Hooked],
        ..row(
            "hooks",
            "4 pairs, QoS 0, 20 plugins and 1,000 rules that want other topics",
            "pairs --clients 4",
        )
    },
    Row {
        beside: &[Kind::Passing, Kind::Replacing],
        ..row("transform", "4 pairs, QoS 0, one Wasm transform on every message", "pairs --clients 4")
    },
    row("latency", "10 pairs, QoS 1, at 5,000/s", "pairs --clients 10 --qos 1 --rate 5000"),
    row(
        "deaf",
        "10 pairs, 1 KiB, at 5,000/s, and one who hears all of it and reads nothing",
        "deaf --clients 10 --payload 1024 --rate 5000",
    ),
    row(
        "offline",
        "offline queues drained, 20 × 10,000, QoS 1",
        "offline --clients 20 --qos 1 --messages 10000",
    ),
    row("retained", "10,000 retained messages read back", "retained --messages 10000"),
    row("churn", "connect, subscribe, publish, receive, disconnect", "churn --clients 50"),
    row(
        "many-subscriptions",
        "4 pairs beside 100,000 subscriptions, QoS 0",
        "many-subscriptions --clients 4",
    ),
    row("idle", "10,000 idle connections", "idle --clients 10000"),
];

const fn row(name: &'static str, title: &'static str, arguments: &'static str) -> Row {
    Row { name, title, arguments, beside: OTHERS }
}

impl Row {
    /// Whether it says what it promises where there are only these brokers: one about plugins says nothing without.
    pub(super) fn can_be_told_by(&self, kinds: &[Kind]) -> bool {
        self.beside == OTHERS || self.beside.iter().any(|kind| kinds.contains(kind))
    }

    /// Whether a broker has a line in it.
    pub(super) fn compares(&self, broker: Kind) -> bool {
        broker == Kind::Weirmq || self.beside.contains(&broker)
    }
}

/// The rows that are, or begin with, one of `names`; all of them for none.
pub(super) fn chosen(names: &[String]) -> Result<Vec<&'static Row>, LoadError> {
    let fits = |row: &Row, name: &String| row.name == name || row.name.starts_with(&format!("{name}-"));
    if let Some(unknown) = names.iter().find(|name| !ROWS.iter().any(|row| fits(row, name))) {
        let known: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        return Err(LoadError::Options(format!(
            "there is no row `{unknown}`; there are: {}",
            known.join(", ")
        )));
    }
    Ok(ROWS.iter().filter(|row| names.is_empty() || names.iter().any(|name| fits(row, name))).collect())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::scenario;

    #[test]
    fn a_row_about_plugins_is_left_out_where_there_is_none() {
        let told = |kinds: &[Kind]| ROWS.iter().filter(|row| row.can_be_told_by(kinds)).count();
        assert_eq!(told(&[Kind::Weirmq, Kind::Hooked, Kind::Passing]), ROWS.len());
        assert_eq!(told(&[Kind::Weirmq]), ROWS.len() - 2);
    }

    #[test]
    fn every_row_is_a_load_that_the_generator_knows() {
        for row in chosen(&[]).unwrap() {
            let words = std::iter::once("weirmq-load").chain(row.arguments.split(' '));
            assert!(scenario::Options::try_parse_from(words).is_ok(), "{}", row.name);
        }
    }

    #[test]
    fn a_name_stands_for_itself_and_for_all_that_begin_with_it() {
        let names = |name: &str| -> Vec<&str> {
            chosen(&[name.to_owned()]).unwrap().iter().map(|row| row.name).collect()
        };
        assert_eq!(names("fan-out"), ["fan-out-100", "fan-out-1000"]);
        assert_eq!(names("shared"), ["shared", "shared-qos1"]);
        assert_eq!(names("fan-in"), ["fan-in"]);
    }

    #[test]
    fn an_unknown_row_is_answered_with_those_that_there_are() {
        let why = chosen(&["fanin".to_owned()]).unwrap_err().to_string();
        assert!(why.contains("`fanin`") && why.contains("fan-in, shared"), "{why}");
    }
}
