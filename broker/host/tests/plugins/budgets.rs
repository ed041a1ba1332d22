//! A hostile plugin costs its own call, and nothing else.

use std::time::{Duration, Instant};

use super::*;

/// How long a call with a deadline of a few milliseconds may take on a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn a_call_that_loops_for_ever_ends_at_its_deadline_at_every_hook_point() {
    let plugin = hostile_with(|config| {
        config.quarantine.failures = 100;
        let deadlines = &mut config.deadline_ms;
        deadlines.authenticate = 30;
        deadlines.authorize = 30;
        deadlines.on_publish = 30;
        deadlines.on_subscribe = 30;
    });
    let started = Instant::now();
    assert_eq!(kind(authenticate(&plugin, request("loop", ""))), FailureKind::Deadline);
    assert_eq!(kind(authorize(&plugin, "loop")), FailureKind::Deadline);
    assert_eq!(kind(transform(&plugin, "loop")), FailureKind::Deadline);
    assert_eq!(kind(subscribe(&plugin, "loop")), FailureKind::Deadline);
    assert!(started.elapsed() < SOON);
}

#[test]
fn a_call_is_not_cut_off_before_its_deadline() {
    let plugin = hostile_with(|config| config.deadline_ms.authenticate = 5_000);
    let started = Instant::now();
    assert_eq!(principal(&plugin, "slow:60"), "slow:60");
    assert!(started.elapsed() >= Duration::from_millis(60));
}

#[test]
fn each_way_of_failing_is_told_apart_and_the_next_call_is_served() {
    let plugin = hostile_with(|config| {
        config.quarantine.failures = 100;
        config.deadline_ms.authenticate = 5_000;
    });
    for (command, expected) in [
        ("allocate", FailureKind::Memory),
        ("trap", FailureKind::Crash),
        ("panic", FailureKind::Crash),
        ("recurse", FailureKind::Crash),
        ("huge", FailureKind::OutputTooLarge),
        ("many", FailureKind::OutputTooLarge),
        ("bad-filter", FailureKind::BadAnswer),
        ("bad-principal", FailureKind::BadAnswer),
        ("bad-code", FailureKind::BadAnswer),
        ("unknown-code", FailureKind::BadAnswer),
        ("challenge", FailureKind::BadAnswer),
    ] {
        assert_eq!(kind(authenticate(&plugin, request(command, ""))), expected, "{command}");
        assert_eq!(principal(&plugin, "well"), "well", "after {command}");
    }
    let stats = plugin.stats();
    assert!(stats.failures.contains(&(FailureKind::Crash, 3)), "{stats:?}");
    assert!(stats.failures.contains(&(FailureKind::OutputTooLarge, 2)), "{stats:?}");
    assert!(stats.failures.contains(&(FailureKind::BadAnswer, 5)), "{stats:?}");
    assert_eq!(stats.failures_by_hook, [(HookPoint::Authenticate, stats.failures.clone())]);
}

#[test]
fn a_message_is_never_replaced_by_what_is_no_message() {
    let plugin = hostile_with(|config| config.quarantine.failures = 100);
    for command in ["bad-topic", "bad-response-topic", "bad-property", "bad-utf8", "bad-second"] {
        assert_eq!(kind(transform(&plugin, command)), FailureKind::BadAnswer, "{command}");
    }
    assert_eq!(kind(transform(&plugin, "huge")), FailureKind::OutputTooLarge);
    assert_eq!(kind(subscribe(&plugin, "bad-filter")), FailureKind::BadAnswer);
    assert_eq!(kind(authorize(&plugin, "bad-code")), FailureKind::BadAnswer);
}

#[test]
fn a_failure_says_what_happened_in_one_short_line() {
    let plugin = hostile_with(|config| config.quarantine.failures = 100);
    for (command, part) in [
        ("trap", "unreachable"),
        ("recurse", "call stack exhausted"),
        ("allocate", "more than 64 MiB"),
        ("huge", "output_bytes_max"),
        ("bad-filter", "a/#/b"),
        ("bad-code", "0x00"),
    ] {
        let failure = authenticate(&plugin, request(command, "")).unwrap_err();
        assert!(failure.detail.contains(part), "{command}: {failure}");
        assert!(failure.detail.len() <= 300 && !failure.detail.contains('\n'), "{command}: {failure}");
    }
}

#[test]
fn memory_is_given_back_with_the_instance() {
    let plugin = hostile_with(|config| {
        config.quarantine.failures = 1000;
        config.instances_max = 1;
    });
    for _ in 0..20 {
        assert_eq!(kind(authenticate(&plugin, request("allocate", ""))), FailureKind::Memory);
    }
    assert_eq!(principal(&plugin, "well"), "well");
}

#[test]
fn an_instance_is_reused_until_it_fails() {
    let plugin = hostile_with(|config| config.instances_max = 1);
    let calls = || principal(&plugin, "calls").parse::<u32>().unwrap();
    let first = calls();
    assert_eq!(calls(), first + 1);
    assert_eq!(kind(authenticate(&plugin, request("trap", ""))), FailureKind::Crash);
    assert!(calls() <= first, "a new instance has counted nothing yet");
}

#[test]
fn a_flood_of_log_entries_is_cut_and_the_call_goes_on() {
    let plugin = hostile();
    assert_eq!(principal(&plugin, "flood:100000"), "flood:100000");
}

#[test]
fn the_worker_does_not_wait_for_a_login() {
    let plugin = hostile();
    let reply = plugin.authenticate(&Arc::new(request("slow:200", "")));
    assert!(matches!(reply, Reply::Later(_)), "an answer that is there was computed on the worker");
    assert!(wait(reply).is_ok());
}

#[test]
fn logins_beyond_the_queue_fail_at_once() {
    let host = Host::new(HostConfig { threads: 1, queue_max: 1, ..HostConfig::default() }).unwrap();
    let plugin = host.load(&configured("hostile", guest("hostile"), &json!({}))).unwrap();
    let ask = |command: &str| plugin.authenticate(&Arc::new(request(command, "")));
    let replies: Vec<_> = (0..6).map(|_| ask("slow:300")).collect();
    let refused = replies.iter().filter(
        |reply| matches!(reply, Reply::Now(Err(failure)) if failure.kind == FailureKind::Unavailable),
    );
    assert!((4..=5).contains(&refused.count()));
    for reply in replies {
        if matches!(reply, Reply::Later(_)) {
            assert!(wait(reply).is_ok());
        }
    }
}

#[test]
fn workers_call_side_by_side() {
    let plugin = hostile_with(|config| config.instances_max = 4);
    let message = Arc::new(message("a/b", b"upper"));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let transform = bound(&plugin, "a/b");
                for _ in 0..500 {
                    let answer = wait(transform.transform(&message, now()));
                    assert!(matches!(answer, Ok(Transformed::WithPayload(_))), "{answer:?}");
                }
            });
        }
    });
    assert_eq!(plugin.stats().calls, vec![(weirmq_core::hook::HookPoint::OnPublish, 2000)]);
}

#[test]
fn more_workers_than_instances_take_turns() {
    let plugin = hostile_with(|config| config.instances_max = 1);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(authorize(&plugin, "slow:20"), Ok(Decision::Allow)));
        }
    });
}

#[test]
fn a_call_that_asks_the_broker_too_often_is_cut_off() {
    let plugin = hostile_with(|config| {
        config.name = "counting".to_owned();
        config.host_calls_max = 100;
    });
    assert_eq!(principal(&plugin, "count:100"), "count:100");
    assert_eq!(kind(authenticate(&plugin, request("count:101", ""))), FailureKind::Operations);
    assert_eq!(plugin.stats().failures, [(FailureKind::Operations, 1)]);
}

#[test]
fn the_memory_of_instances_is_told_and_given_back() {
    let plugin = hostile_with(|config| config.name = "measured".to_owned());
    principal(&plugin, "fine");
    let with_one = plugin.stats().memory_bytes;
    assert!(with_one >= 1 << 16, "{with_one}");
    assert_eq!(kind(authenticate(&plugin, request("trap", ""))), FailureKind::Crash);
    principal(&plugin, "fine");
    assert!(plugin.stats().memory_bytes <= with_one * 2, "broken instances give their memory back");
    let stats = plugin.stats();
    let (point, latency) = stats.latency[0];
    assert_eq!((point, latency.timed), (weirmq_core::hook::HookPoint::Authenticate, 3));
    assert!(latency.p50 <= latency.p99 && latency.p99 <= latency.max);
}
