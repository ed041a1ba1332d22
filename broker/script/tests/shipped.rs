//! The rules that ship keep their promises: their tests pass, and what their documents say compiles.

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
