//! Every normative statement of both standards has its row, and every row its test: see `conformance/`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// How many statements each section of MQTT 3.1.1 has, in the numbering of its appendix B.
const V311: &[(&str, u32)] = &[
    ("1.5.3", 3),
    ("2.2.2", 2),
    ("2.3.1", 7),
    ("3.1.0", 2),
    ("3.1.2", 24),
    ("3.1.3", 11),
    ("3.1.4", 5),
    ("3.2.0", 1),
    ("3.2.2", 6),
    ("3.3.1", 12),
    ("3.3.2", 3),
    ("3.3.4", 1),
    ("3.3.5", 2),
    ("3.6.1", 1),
    ("3.8.1", 1),
    ("3.8.3", 4),
    ("3.8.4", 6),
    ("3.9.3", 2),
    ("3.10.1", 1),
    ("3.10.3", 2),
    ("3.10.4", 6),
    ("3.12.4", 1),
    ("3.14.1", 1),
    ("3.14.4", 3),
    ("4.1.0", 2),
    ("4.3.1", 1),
    ("4.3.2", 2),
    ("4.3.3", 2),
    ("4.4.0", 1),
    ("4.5.0", 2),
    ("4.6.0", 6),
    ("4.7.1", 3),
    ("4.7.2", 1),
    ("4.7.3", 4),
    ("4.8.0", 2),
    ("6.0.0", 4),
    ("7.0.0", 2),
    ("7.1.1", 1),
    ("7.1.2", 1),
];

/// The same for MQTT 5.0. 2.2.1-1 is not there: its numbers begin with 2.
const V5: &[(&str, u32)] = &[
    ("1.5.4", 3),
    ("1.5.5", 1),
    ("1.5.7", 1),
    ("2.1.3", 1),
    ("2.2.1", 6),
    ("2.2.2", 1),
    ("3.1.0", 2),
    ("3.1.2", 30),
    ("3.1.3", 12),
    ("3.1.4", 6),
    ("3.2.0", 2),
    ("3.2.2", 22),
    ("3.3.1", 13),
    ("3.3.2", 20),
    ("3.3.4", 10),
    ("3.4.2", 3),
    ("3.5.2", 3),
    ("3.6.1", 1),
    ("3.6.2", 3),
    ("3.7.2", 3),
    ("3.8.1", 1),
    ("3.8.3", 5),
    ("3.8.4", 8),
    ("3.9.2", 2),
    ("3.9.3", 2),
    ("3.10.1", 1),
    ("3.10.3", 2),
    ("3.10.4", 6),
    ("3.11.2", 2),
    ("3.11.3", 2),
    ("3.12.4", 1),
    ("3.14.0", 1),
    ("3.14.1", 1),
    ("3.14.2", 4),
    ("3.14.4", 3),
    ("3.15.1", 1),
    ("3.15.2", 3),
    ("4.1.0", 2),
    ("4.2.0", 1),
    ("4.3.1", 1),
    ("4.3.2", 5),
    ("4.3.3", 13),
    ("4.4.0", 2),
    ("4.5.0", 2),
    ("4.6.0", 6),
    ("4.7.0", 1),
    ("4.7.1", 2),
    ("4.7.2", 1),
    ("4.7.3", 4),
    ("4.8.2", 6),
    ("4.9.0", 3),
    ("4.12.0", 7),
    ("4.12.1", 2),
    ("4.13.1", 1),
    ("4.13.2", 1),
    ("6.0.0", 4),
];

/// `broker/`.
fn broker() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn ids(sections: &[(&str, u32)]) -> BTreeSet<String> {
    let all = sections
        .iter()
        .flat_map(|(section, count)| (1..=*count).map(move |number| format!("MQTT-{section}-{number}")));
    all.filter(|id| !(sections == V5 && id == "MQTT-2.2.1-1")).collect()
}

/// Whether `path::test`, the path under `broker/` and without `.rs`, is a test.
fn is_a_test(name: &str) -> bool {
    let Some((path, test)) = name.rsplit_once("::") else { return false };
    let Ok(source) = std::fs::read_to_string(broker().join(path).with_extension("rs")) else { return false };
    let head = format!("fn {test}(");
    let mut attributed = false;
    for line in source.lines().map(str::trim) {
        if attributed && line.starts_with(&head) {
            return true;
        }
        attributed = line == "#[test]" || (attributed && line.starts_with("#["));
    }
    false
}

fn check(file: &str, sections: &[(&str, u32)]) {
    let table = broker().join("core/conformance").join(file);
    let table = std::fs::read_to_string(&table).unwrap();
    let mut rows = BTreeMap::new();
    let mut faults = Vec::new();
    for line in table.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let [id, status, rest] = line.splitn(3, " | ").collect::<Vec<_>>()[..] else {
            faults.push(format!("not a row: {line}"));
            continue;
        };
        if rows.insert(id.to_owned(), status).is_some() {
            faults.push(format!("{id} is there twice"));
        }
        match status {
            "tested" => {
                faults.extend(
                    rest.split(", ")
                        .filter(|test| !is_a_test(test))
                        .map(|test| format!("{id}: no test {test}")),
                );
            }
            "untested" | "not applicable" if rest.len() > 10 => {}
            _ => faults.push(format!("{id}: neither a status nor a reason: {status} | {rest}")),
        }
    }
    let (known, expected): (BTreeSet<_>, _) = (rows.keys().cloned().collect(), ids(sections));
    faults.extend(expected.difference(&known).map(|id| format!("{id} is missing")));
    faults.extend(known.difference(&expected).map(|id| format!("{id} is no statement")));
    assert!(faults.is_empty(), "{file}:\n{}", faults.join("\n"));
}

#[test]
fn mqtt_3_1_1_is_accounted_for() {
    assert_eq!(ids(V311).len(), 141);
    check("v311.txt", V311);
}

#[test]
fn mqtt_5_0_is_accounted_for() {
    assert_eq!(ids(V5).len(), 251);
    check("v5.txt", V5);
}

#[test]
fn every_decision_is_pinned_by_a_test() {
    let decisions = std::fs::read_to_string(broker().join("core/DECISIONS.md")).unwrap();
    let mut pinned = 0;
    for entry in decisions.split("\n## ").skip(1) {
        let tests: Vec<_> = entry.split('`').filter(|word| word.contains("::")).collect();
        assert!(!tests.is_empty(), "no test pins: {entry}");
        for test in tests {
            assert!(is_a_test(test), "there is no test {test}");
            pinned += 1;
        }
    }
    assert!(pinned > 10);
}

#[test]
fn a_test_that_is_not_there_is_noticed() {
    assert!(is_a_test("core/tests/conformance::a_test_that_is_not_there_is_noticed"));
    assert!(!is_a_test("core/tests/conformance::is_a_test"));
    assert!(!is_a_test("core/tests/conformance::nothing"));
    assert!(!is_a_test("core/tests/nothing::nothing"));
}
