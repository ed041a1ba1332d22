//! A plugin's file is replaced while the plugin serves.

use std::sync::atomic::{AtomicBool, Ordering};

use weirmq_host::LoadError;

use super::*;

#[test]
fn the_new_version_serves_and_the_change_is_told() {
    let folder = folder();
    let file = folder.path().join("plugin.wasm");
    write_generation(&file, "A", "serve");
    let plugin = HOST.load(&configured("hostile", &file, &json!({}))).unwrap();
    let transform_bound_before = bound(&plugin, "a/b");
    assert_eq!(principal(&plugin, "generation"), "A");
    write_generation(&file, "B", "serve");
    let change = plugin.reload().unwrap();
    assert!(!change.hooks_changed() && !change.topics_changed());
    assert_eq!(principal(&plugin, "generation"), "B");
    let answer = wait(transform_bound_before.transform(&Arc::new(message("a/b", b"generation")), now()));
    let followed = Ok(Transformed::WithPayload("B".into()));
    assert_eq!(answer, followed, "what was bound to a topic before follows");
    assert_eq!(plugin.stats().reloads, 1);
}

#[test]
fn a_broken_file_leaves_the_old_version_serving() {
    let folder = folder();
    let file = folder.path().join("plugin.wasm");
    write_generation(&file, "A", "serve");
    let mut config = configured("hostile", &file, &json!({}));
    config.deadline_ms.init = 300;
    let plugin = HOST.load(&config).unwrap();
    let whole = std::fs::read(&file).unwrap();
    let broken: [(&str, &dyn Fn()); 6] = [
        ("garbage", &|| std::fs::write(&file, b"garbage").unwrap()),
        ("half a file", &|| std::fs::write(&file, &whole[..whole.len() / 2]).unwrap()),
        ("an empty file", &|| std::fs::write(&file, b"").unwrap()),
        ("no file", &|| std::fs::remove_file(&file).unwrap()),
        ("a loop in init", &|| write_generation(&file, "B", "loop")),
        ("a trap in init", &|| write_generation(&file, "B", "trap")),
    ];
    for (what, break_it) in broken {
        break_it();
        assert!(plugin.reload().is_err(), "{what}");
        assert_eq!(principal(&plugin, "generation"), "A", "{what}");
    }
    assert_eq!(plugin.stats().reloads, 0);
    write_generation(&file, "C", "serve");
    plugin.reload().unwrap();
    assert_eq!(principal(&plugin, "generation"), "C");
}

#[test]
fn calls_in_flight_end_on_the_version_that_they_began_on() {
    let folder = folder();
    let file = folder.path().join("plugin.wasm");
    write_generation(&file, "A", "serve");
    let plugin = HOST.load(&configured("hostile", &file, &json!({}))).unwrap();
    let in_flight = plugin.authenticate(&Arc::new(request("slow:300", "")));
    write_generation(&file, "B", "serve");
    plugin.reload().unwrap();
    assert!(matches!(wait(in_flight), Ok(Authentication::Allow { .. })));
    assert_eq!(principal(&plugin, "generation"), "B");
}

#[test]
fn no_call_fails_while_versions_come_and_go() {
    let folder = folder();
    let file = folder.path().join("plugin.wasm");
    write_generation(&file, "A", "serve");
    let plugin = HOST.load(&configured("hostile", &file, &json!({}))).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    assert!(matches!(transform(&plugin, "generation"), Ok(Transformed::Replace(_))));
                }
            });
        }
        for name in ["B", "A", "B", "A"] {
            write_generation(&file, name, "serve");
            plugin.reload().unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(plugin.stats().failures, []);
}

#[test]
fn a_version_that_serves_other_hook_points_or_topics_is_reported() {
    let folder = folder();
    let file = folder.path().join("plugin.wasm");
    std::fs::copy(guest("login"), &file).unwrap();
    let plugin = HOST.load(&configured("either", &file, &json!({}))).unwrap();
    std::fs::copy(guest("hostile"), &file).unwrap();
    let change = plugin.reload().unwrap();
    assert!(change.hooks_changed() && change.topics_changed());
    assert_eq!(plugin.points(), change.after.hooks);
    assert_eq!((change.before.plugin.as_str(), change.after.plugin.as_str()), ("login", "hostile"));
}

#[test]
fn a_plugin_that_refuses_to_serve_says_why() {
    let load = |config| HOST.load(&configured("hostile", guest("hostile"), &config)).err().unwrap();
    let refused = load(json!({ "init": "refuse" }));
    assert!(matches!(&refused, LoadError::Refused { reason, .. } if reason == "init was told to refuse"));
    let sick = load(json!({ "health": "sick" }));
    assert!(matches!(&sick, LoadError::Unhealthy { reason, .. } if reason == "health was told to be sick"));
    let wrong = load(json!({ "topics": "not a list" }));
    assert!(
        matches!(&wrong, LoadError::Refused { reason, .. } if reason.contains("invalid type")),
        "{wrong}"
    );
    let filter = load(json!({ "topics": ["a/#/b"] }));
    assert!(matches!(&filter, LoadError::Topics { filter, .. } if filter == "a/#/b"));
}

#[test]
fn a_plugin_that_loops_or_allocates_when_it_starts_is_stopped() {
    for (step, behaviour, expected) in [
        ("init", "loop", FailureKind::Deadline),
        ("init", "allocate", FailureKind::Memory),
        ("init", "trap", FailureKind::Crash),
        ("health", "loop", FailureKind::Deadline),
    ] {
        let mut config = configured("hostile", guest("hostile"), &json!({ step: behaviour }));
        config.deadline_ms.init = if expected == FailureKind::Deadline { 100 } else { 10_000 };
        match HOST.load(&config).err().unwrap() {
            LoadError::Start { step: found, failure, .. } => {
                assert_eq!((found, failure.kind), (step, expected), "{behaviour}");
            }
            other => panic!("{behaviour}: {other}"),
        }
    }
}

#[test]
fn changed_settings_reach_a_plugin_that_serves_and_bad_ones_leave_it_as_it_was() {
    let config = |topics: Value| configured("settings", guest("hostile"), &json!({ "topics": topics }));
    let plugin = HOST.load(&config(json!(["a/#"]))).unwrap();
    let change = plugin.reconfigure(&config(json!(["b/#"]))).unwrap();
    assert!(change.topics_changed());
    assert_eq!(plugin.info().topics, ["b/#"]);
    assert_eq!(principal(&plugin, "config"), r#"["b/#"]"#);
    assert!(matches!(plugin.reconfigure(&config(json!("no list"))), Err(LoadError::Refused { .. })));
    assert_eq!(principal(&plugin, "config"), r#"["b/#"]"#);
    assert_eq!(plugin.config().config, config(json!(["b/#"])).config);
}

#[test]
fn a_rollback_brings_the_version_before_back_and_goes_back_again() {
    let folder = folder();
    let file = folder.path().join("plugin.wasm");
    write_generation(&file, "A", "serve");
    let plugin = HOST.load(&configured("hostile", &file, &json!({}))).unwrap();
    assert!(plugin.rollback().is_none(), "there is no version before the first");
    write_generation(&file, "B", "serve");
    plugin.reload().unwrap();
    assert_eq!(principal(&plugin, "generation"), "B");
    plugin.rollback().unwrap();
    assert_eq!(principal(&plugin, "generation"), "A");
    plugin.rollback().unwrap();
    assert_eq!(principal(&plugin, "generation"), "B");
}

#[test]
fn a_version_that_keeps_failing_makes_way_for_the_last_good_one() {
    let folder = folder();
    let file = folder.path().join("plugin.wasm");
    write_generation(&file, "A", "serve");
    let mut config = configured("hostile", &file, &json!({}));
    config.quarantine.failures = 3;
    let plugin = HOST.load(&config).unwrap();
    write_generation(&file, "B", "serve");
    plugin.reload().unwrap();
    for _ in 0..3 {
        assert_eq!(kind(authenticate(&plugin, request("trap", ""))), FailureKind::Crash);
    }
    assert_eq!(principal(&plugin, "generation"), "A", "it serves at once");
    assert!(!plugin.stats().quarantined);
    for _ in 0..3 {
        assert_eq!(kind(authenticate(&plugin, request("trap", ""))), FailureKind::Crash);
    }
    assert!(plugin.stats().quarantined, "there is no version before that one");
    assert_eq!(kind(authenticate(&plugin, request("generation", ""))), FailureKind::Unavailable);
}
