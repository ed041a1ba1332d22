//! The rules that ship keep their promises: their tests pass, and what their documents say compiles.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::{Path, PathBuf};

use weirmq_script::{Config, run_tests};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn every_test_passes(folder: &str, tests_min: usize) {
    // A debug build on a busy machine is slow; the operations are what is bounded here.
    let config = Config { folder: repository().join(folder), deadline_ms: 10_000, ..Config::default() };
    let report = run_tests(config).unwrap();
    assert!(report.passed(), "{report}");
    assert!(report.tests.len() >= tests_min, "{report}");
}

#[test]
fn the_quickstart_rules_pass_their_tests() {
    every_test_passes("examples/quickstart/rules", 7);
}

#[test]
fn the_shipped_rules_pass_their_tests() {
    every_test_passes("rules", 17);
}

#[test]
fn every_shipped_file_has_a_test() {
    let folder = repository().join("rules");
    let report = run_tests(Config { folder: folder.clone(), ..Config::default() }).unwrap();
    assert!(report.errors.is_empty(), "{report}");
    let names =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    for name in names.filter(|name| name.ends_with(".rhai")) {
        assert!(report.tests.iter().any(|test| test.file == name), "{name} has no test");
    }
}

fn readme() -> String {
    std::fs::read_to_string(repository().join("rules/README.md")).unwrap()
}

#[test]
fn what_the_reference_shows_works() {
    let text = readme();
    let mut parts = text.split("```");
    let mut blocks = 0;
    while let (Some(_), Some(block)) = (parts.next(), parts.next()) {
        let source = block.strip_prefix("rhai\n").expect("every code block is a rule file");
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("block.rhai"), source).unwrap();
        let config = Config { folder: folder.path().to_owned(), deadline_ms: 10_000, ..Config::default() };
        let report = run_tests(config).unwrap();
        assert!(report.passed() && !report.tests.is_empty(), "{source}\n{report}");
        blocks += 1;
    }
    assert!(blocks >= 5);
}

#[test]
fn the_reference_has_every_word_and_every_shipped_file() {
    let text = readme();
    assert!(text.contains(&format!("handed on {} times", weirmq_core::message::HOPS_MAX)));
    for word in [
        "on(",
        "transform(",
        "test(",
        "publish(",
        "sink(",
        "replace(",
        "drop(",
        "several(",
        "log(",
        "print(",
        "debug(",
        "deliver(",
        "assert(",
        "assert_eq(",
        "parse_json(",
        "value()",
        "keys()",
        "values()",
        "contains(",
        "state::get(",
        "state::set(",
        "state::add(",
        "state::remove(",
        "state::contains(",
        "state::keys(",
        "state::clear(",
    ] {
        assert!(text.contains(&format!("`{word}")) || text.contains(&format!("json.{word}")), "{word}");
    }
    for entry in std::fs::read_dir(repository().join("rules")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name == "README.md" || text.contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn the_budgets_in_the_reference_are_the_defaults() {
    let Config {
        folder: _,
        sinks: _,
        operations_max,
        deadline_ms,
        string_bytes_max,
        array_items_max,
        map_entries_max,
        variables_max,
        call_levels_max,
        published_max,
        records_max,
        output_bytes_max,
        log_lines_per_second_max,
        file_bytes_max,
        files_max,
        registrations_max,
        state_keys_max,
        state_value_bytes_max,
        state_bytes_max,
    } = Config::default();
    let text = readme();
    for (name, value) in [
        ("operations_max", operations_max.to_string()),
        ("deadline_ms", deadline_ms.to_string()),
        ("string_bytes_max", string_bytes_max.to_string()),
        ("array_items_max", array_items_max.to_string()),
        ("map_entries_max", map_entries_max.to_string()),
        ("variables_max", variables_max.to_string()),
        ("call_levels_max", call_levels_max.to_string()),
        ("published_max", published_max.to_string()),
        ("records_max", records_max.to_string()),
        ("output_bytes_max", output_bytes_max.to_string()),
        ("log_lines_per_second_max", log_lines_per_second_max.to_string()),
        ("file_bytes_max", file_bytes_max.to_string()),
        ("files_max", files_max.to_string()),
        ("registrations_max", registrations_max.to_string()),
        ("state_keys_max", state_keys_max.to_string()),
        ("state_value_bytes_max", state_value_bytes_max.to_string()),
        ("state_bytes_max", state_bytes_max.to_string()),
    ] {
        assert!(text.contains(&format!("| `{name}` | {value} |")), "{name} is {value}");
    }
}
