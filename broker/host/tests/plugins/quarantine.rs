//! A plugin that keeps failing is left alone, and taken back when it works again.

use std::time::{Duration, Instant as Clock};

use weirmq_host::QuarantineConfig;

use super::*;

fn nervous(retry_seconds: u64) -> Arc<PluginHook> {
    hostile_with(|config| {
        config.quarantine = QuarantineConfig { failures: 3, window_seconds: 600, retry_seconds };
    })
}

#[test]
fn after_so_many_failures_calls_are_not_made_any_more() {
    let plugin = nervous(600);
    for _ in 0..3 {
        assert_eq!(kind(authorize(&plugin, "trap")), FailureKind::Crash);
    }
    assert!(plugin.stats().quarantined);
    let made = plugin.stats().calls;
    assert_eq!(kind(authorize(&plugin, "fine")), FailureKind::Unavailable);
    assert_eq!(kind(transform(&plugin, "fine")), FailureKind::Unavailable);
    assert_eq!(kind(authenticate(&plugin, request("fine", ""))), FailureKind::Unavailable);
    assert_eq!(plugin.stats().calls, made, "no call was made");
}

#[test]
fn successes_between_failures_do_not_hide_them() {
    let plugin = nervous(600);
    for _ in 0..3 {
        assert_eq!(authorize(&plugin, "fine"), Ok(Decision::Allow));
        assert_eq!(kind(authorize(&plugin, "trap")), FailureKind::Crash);
    }
    assert!(plugin.stats().quarantined);
}

#[test]
fn it_is_tried_again_and_comes_back_when_it_works() {
    let plugin = nervous(0);
    for _ in 0..3 {
        assert_eq!(kind(authorize(&plugin, "trap")), FailureKind::Crash);
    }
    until(|| authorize(&plugin, "fine") == Ok(Decision::Allow));
    assert!(!plugin.stats().quarantined);
    assert_eq!(authorize(&plugin, "fine"), Ok(Decision::Allow));
}

#[test]
fn one_failure_on_trial_sends_it_back() {
    let plugin = nervous(0);
    for _ in 0..3 {
        assert_eq!(kind(authorize(&plugin, "trap")), FailureKind::Crash);
    }
    until(|| kind(authorize(&plugin, "trap")) == FailureKind::Crash);
    assert!(plugin.stats().quarantined);
}

#[test]
fn a_new_version_starts_without_a_record() {
    let folder = folder();
    let file = folder.path().join("plugin.wasm");
    write_generation(&file, "A", "serve");
    let mut config = configured("hostile", &file, &json!({}));
    config.quarantine = QuarantineConfig { failures: 1, window_seconds: 600, retry_seconds: 600 };
    let plugin = HOST.load(&config).unwrap();
    assert_eq!(kind(authorize(&plugin, "trap")), FailureKind::Crash);
    assert!(plugin.stats().quarantined);
    write_generation(&file, "B", "serve");
    plugin.reload().unwrap();
    assert!(!plugin.stats().quarantined);
    assert_eq!(principal(&plugin, "generation"), "B");
}

fn until(mut happened: impl FnMut() -> bool) {
    let deadline = Clock::now() + Duration::from_secs(30);
    while !happened() {
        assert!(Clock::now() < deadline, "it did not happen");
        std::thread::yield_now();
    }
}
