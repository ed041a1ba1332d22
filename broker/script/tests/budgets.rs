//! A rule that asks for too much fails alone: with the kind of failure that its budget names, in time, and
//! without a trace of what it had asked for. Nothing that a script can say takes the broker down.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::time::{Duration, Instant};

use support::{Folder, fault, message, rules, rules_with};
use weirmq_core::hook::{Failure, FailureKind};
use weirmq_script::{Config, Engine, LoadError, run_tests};

/// How the rule with this handler fails, beside one that does not.
fn failure_of(body: &str, limit: impl FnOnce(&mut Config)) -> Failure {
    let source = format!(
        r#"
        on("before", "a", |msg| publish("b/before", 1));
        on("bad", "a", |msg| {{ publish("b/bad", 1); sink("s", #{{ bad: true }}); {body} }});
        on("after", "a", |msg| sink("s", #{{ good: true }}));
        "#
    );
    let rules = rules_with(&source, limit);
    let (actions, mut failures) = rules.observe(&message("a", r#"{"n":1}"#));
    assert_eq!(failures.len(), 1, "{body}: {failures:?}");
    let published: Vec<&str> = actions.publish.iter().map(|(rule, _)| &**rule).collect();
    let recorded: Vec<&str> = actions.records.iter().map(|record| &*record.rule).collect();
    assert_eq!((published, recorded), (vec!["before"], vec!["after"]), "{body}");
    let failure = failures.remove(0);
    assert!(failure.detail.starts_with("rules.rhai:3:"), "it names its place: {failure}");
    failure
}

#[test]
fn each_budget_has_its_kind_of_failure_and_others_run_on() {
    use FailureKind::{Crash, Memory, Operations, OutputTooLarge};
    for (kind, limit, body) in [
        (Operations, "operations_max", "loop {}"),
        (Operations, "operations_max", "let n = 0; while true { n += 1; }"),
        (Operations, "operations_max", "for i in 0..9000000000000000000 { let n = i; }"),
        (Memory, "string_bytes_max", r#"let s = "x"; loop { s += s; }"#),
        (Memory, "string_bytes_max", r#"let s = "x"; s.pad(2000000, 'x');"#),
        (
            Memory,
            "string_bytes_max",
            r#"let a = []; let s = "x"; s.pad(1000000, 'x'); a.push(s); a.push(s);"#,
        ),
        (Memory, "string_bytes_max", r#"let s = "x"; s.pad(500000, 'x'); let t = s; s.replace("x", t);"#),
        (Memory, "string_bytes_max", r#"let s = "x"; s.pad(500000, 'x'); let t = s; s.replace('x', t);"#),
        (Memory, "array_items_max", "let a = [1]; loop { a += a; }"),
        (Memory, "array_items_max", "let a = []; a.pad(10001, 1);"),
        (Memory, "array_items_max", "let b = blob(10001, 1);"),
        (Memory, "array_items_max", r#"let s = "x"; s.pad(20000, 'x'); s.split("");"#),
        (Memory, "map_entries_max", "let m = #{}; for i in 0..11000 { m.set(`${i}`, i); }"),
        (OutputTooLarge, "published_max", r#"for i in 0..100 { publish("b", i); }"#),
        (OutputTooLarge, "records_max", r#"for i in 0..300 { sink("s", #{}); }"#),
        (
            OutputTooLarge,
            "output_bytes_max",
            r#"let s = "x"; s.pad(1000000, 'x'); loop { publish("b", s); }"#,
        ),
        (
            OutputTooLarge,
            "output_bytes_max",
            r#"let s = "x"; s.pad(1000000, 'x'); loop { sink("s", #{ s: s }); }"#,
        ),
        (OutputTooLarge, "output_bytes_max", r#"let d = blob(10000, 1); loop { sink("s", #{ a: d }); }"#),
        (
            OutputTooLarge,
            "output_bytes_max",
            r#"let a = []; a.pad(9000, ()); loop { sink("s", #{ a: a }); }"#,
        ),
        (Crash, "boom", r#"throw "boom";"#),
        (Crash, "threw 42", "throw 42;"),
        (Crash, "Division by zero", "1 / 0"),
        (Crash, "overflow", "let n = 9223372036854775807; n + 1"),
        (Crash, "there is no", r#"msg.payload.lenght()"#),
    ] {
        let failure = failure_of(body, |config| config.output_bytes_max = 1_500_000);
        assert_eq!(failure.kind, kind, "{body}: {failure}");
        assert!(failure.detail.contains(limit), "{body}: {failure}");
    }
}

#[test]
fn recursion_and_variables_are_bounded() {
    let recursive = rules(r#"fn down(n) { down(n + 1) } on("a", |msg| down(0));"#);
    let failure = recursive.failure("a", "1");
    assert_eq!(failure.kind, FailureKind::Memory);
    assert!(failure.detail.contains("call_levels_max"), "{failure}");
    let variables: String = (0..300).map(|n| format!("let v{n} = {n};")).collect();
    let many = rules(&format!(r#"on("a", |msg| {{ {variables} }});"#));
    let failure = many.failure("a", "1");
    assert_eq!(failure.kind, FailureKind::Memory);
    assert!(failure.detail.contains("variables_max"), "{failure}");
}

#[test]
fn the_deadline_ends_what_the_operations_do_not() {
    let began = Instant::now();
    let failure = failure_of("loop {}", |config| {
        config.operations_max = u64::MAX;
        config.deadline_ms = 20;
    });
    assert_eq!(failure.kind, FailureKind::Deadline);
    assert!(failure.detail.contains("deadline_ms"), "{failure}");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[test]
fn no_script_catches_the_end_of_its_budget() {
    for body in [
        "try { loop {} } catch { }",
        r#"try { for i in 0..1000 { publish("b", i); } } catch { }"#,
        r#"try { let s = "x"; loop { s += s; } } catch { }"#,
        "try { let b = blob(10001); } catch { }",
    ] {
        let kind = failure_of(body, |_| {}).kind;
        assert!(!matches!(kind, FailureKind::Crash), "{body}: {kind}");
    }
}

#[test]
fn what_reaches_outside_or_around_the_limits_is_not_there() {
    for (call, said) in [
        (r#"eval("1")"#, "eval"),
        (r#"import "other" as other;"#, "import"),
        ("sleep(1)", "sleep"),
        ("sleep(0.5)", "sleep"),
        ("timestamp()", "timestamp"),
        (r#"Fn("print").curry(1)"#, "1:"),
    ] {
        let text = fault(&format!(r#"on("a", |msg| {{ {call} }});"#));
        assert!(text.starts_with("rules.rhai:1:") && text.contains(said), "{call}: {text}");
        let text = fault(call);
        assert!(text.starts_with("rules.rhai:1:"), "{call}: {text}");
    }
    let rules = rules(r#"on("a", |msg| Fn("sleep").call(5));"#);
    let began = Instant::now();
    assert!(rules.failure("a", "").detail.contains("does not sleep"));
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[test]
fn closures_that_could_hold_each_other_are_refused() {
    for source in [
        r#"on("a", |msg| { let list = []; list.push(|| list); });"#,
        r#"on("a", |msg| { let f = || 1; loop { let g = f; f = || g; } });"#,
        "let f = || 1; loop { let g = f; f = || g; }",
        "fn keep(x) { || x } keep(1);",
        // The name of a function of arrays does not help when the file means another one by it.
        r#"fn filter(x) { x } on("a", |msg| { let n = 1; filter(|x| x > n); });"#,
    ] {
        let text = fault(source);
        assert!(text.contains("can only be given straight to"), "{source}: {text}");
    }
    let good = rules(
        r#"
        let limit = 3;
        for line in ["x", "y"] {
            on(`in/${line}`, |msg| {
                let factor = 10;
                let big = msg.json.values().filter(|n| n > limit).map(|n| n * factor);
                publish(`out/${line}`, big);
            });
        }
        "#,
    );
    assert_eq!(good.actions("in/y", "[2,4,6]").publish[0].1.payload, "[40,60]");
    assert_eq!(good.actions("in/x", "[2,4,6]").publish[0].1.topic, "out/x");
}

#[test]
fn variables_around_a_handler_are_what_they_were_at_load_in_every_run() {
    let rules = rules(
        r#"let n = 0; let list = []; on("a", |msg| { n += 1; list.push(n); publish("b", [n, list]); });"#,
    );
    for _ in 0..3 {
        assert_eq!(rules.actions("a", "").publish[0].1.payload, "[1,[1]]");
    }
}

#[test]
fn values_nested_as_deep_as_they_can_be_do_not_overflow_the_stack() {
    // On a thread with as little stack as threads get in tests.
    for body in ["print(a);", "if a == b {}", "throw a;", "a", "log(a);", "switch a { 1 => 2, _ => 3 }"] {
        for (empty, next) in [("[]", "[[[[[[[[a]]]]]]]]"), ("#{}", "#{a:#{a:#{a:#{a:#{a:#{a:#{a:a}}}}}}}")] {
            let levels = next.matches(['[', '{']).count();
            let build = format!(
                "let a = {empty}; for i in 0..{} {{ a = {next}; }} let b = a; {body}",
                2_400 / levels
            );
            let rules = rules_with(&format!(r#"on("a", |msg| {{ {build} }});"#), |config| {
                config.operations_max = 10_000_000;
                config.array_items_max = 2_500;
                config.map_entries_max = 2_500;
            });
            let _ = rules.observe(&message("a", ""));
        }
    }
}

#[test]
fn the_deepest_recursion_through_the_deepest_expression_does_not_overflow_the_stack() {
    let deep = |inside: &str| format!("{}{inside}{}", "1 + (".repeat(12), ")".repeat(12));
    let blocks = |inside: &str| format!("{}{inside}{}", "if true { ".repeat(6), " }".repeat(6));
    let source = format!(r#"fn down(n) {{ {} }} on("a", |msg| down(0));"#, blocks(&deep("down(n + 1)")));
    let rules = rules_with(&source, |config| {
        config.call_levels_max = 64;
        config.array_items_max = 1;
        config.map_entries_max = 1;
    });
    let failure = rules.failure("a", "");
    assert!(failure.detail.contains("call_levels_max"), "{failure}");
}

#[test]
fn what_outlives_the_loading_of_a_file_is_shallow() {
    for keep in [r#"const DEEP = a; on("a", |msg| global::DEEP);"#, r#"on("a", |msg| a);"#] {
        let text = fault(&format!("let a = []; for i in 0..100 {{ a = [a]; }} {keep}"));
        assert!(text.contains("nested deeper than 64"), "{text}");
    }
}

#[test]
fn loading_a_file_is_bounded_too() {
    for (source, said) in [
        ("loop {}", "operations_max"),
        (r#"let s = "x"; loop { s += s; }"#, "string_bytes_max"),
        (r#"loop { on("a", |msg| {}); }"#, "registrations_max"),
        (r#"loop { print("x"); }"#, "operations_max"),
        ("throw 1;", "threw 1"),
        (&"(".repeat(100_000), "rules.rhai:1:"),
        (&format!("let a = {}1{};", "[".repeat(500), "]".repeat(500)), "rules.rhai:1:"),
        (&format!("{} 1", "!".repeat(50_000)), "rules.rhai:1:"),
    ] {
        let text = fault(source);
        assert!(text.contains(said), "{}: {text}", &source[..source.len().min(40)]);
    }
    let folder = Folder::with(&[("long.rhai", &"// \n".repeat(100)), ("more.rhai", ""), ("most.rhai", "")]);
    let config = Config { file_bytes_max: 100, files_max: 2, ..folder.config() };
    let (_, report) = folder.load_with(config);
    assert_eq!(report.loaded, ["more.rhai"]);
    assert!(report.errors[0].message.contains("file_bytes_max"), "{report}");
    assert!(report.errors[1].message.contains("files_max"), "{report}");
}

#[test]
fn a_test_is_bounded_too() {
    let folder = Folder::with(&[("a.rhai", r#"test("endless", || { loop {} }); test("good", || {});"#)]);
    let report = run_tests(folder.config()).unwrap();
    assert!(
        report.tests[0].failure.as_deref().is_some_and(|text| text.contains("operations_max")),
        "{report}"
    );
    assert!(report.tests[1].passed());
}

#[test]
fn workers_have_the_stack_that_a_run_asks_for() {
    let default = Config::default();
    assert_eq!(default.worker_stack_bytes(), weirmq_script::WORKER_STACK_BYTES);
    let more = Config { array_items_max: 50_000, ..Config::default() };
    assert!(more.worker_stack_bytes() > default.worker_stack_bytes());
}

#[test]
fn limits_that_make_no_sense_are_refused() {
    let folder = Folder::with(&[]);
    let refused = |config: Config| match Engine::load(config) {
        Err(LoadError::Config(text)) => text,
        other => panic!("{:?}", other.map(|(_, report)| report)),
    };
    assert!(refused(Config { deadline_ms: 0, ..folder.config() }).contains("deadline_ms is 0"));
    assert!(refused(Config { call_levels_max: 65, ..folder.config() }).contains("at most 64"));
    assert!(refused(Config { array_items_max: 100_001, ..folder.config() }).contains("at most 100000"));
    let missing = Config { folder: folder.file("missing"), ..Config::default() };
    let error = Engine::load(missing).err().unwrap().to_string();
    assert!(error.contains("missing") && error.contains("create it"), "{error}");
}

#[test]
fn a_payload_is_looked_through_at_a_price() {
    let big = format!(r#"{{"a":[{}1],"z":1}}"#, "1,".repeat(200_000));
    let cheap = rules(r#"on("a", |msg| { if msg.json.z == 1 { publish("b", "found"); } });"#);
    assert_eq!(cheap.actions("a", big.clone()).publish.len(), 1, "once is fine");
    for body in [
        "for i in 0..1000 { msg.json.z; }",
        "for i in 0..1000 { try { msg.json.a.b } catch {} }",
        "for i in 0..1000 { try { msg.json.a[999999999] } catch {} }",
        "msg.json.a.values();",
        "msg.json.value();",
        r#"sink("s", #{ all: msg.json });"#,
        "for i in 0..1000 { msg.text; }",
        "for i in 0..1000 { msg.json.a.len(); }",
        "for i in 0..1000 { msg.payload.hex(); }",
        "parse_json(msg.text);",
        "loop { try { publish(\"b\", msg.payload, #{ correlation_data: msg.json }); } catch {} }",
    ] {
        let rules = rules_with(&format!(r#"on("a", |msg| {{ {body} }});"#), |config| {
            config.operations_max = 4_000;
        });
        let began = Instant::now();
        let failure = rules.failure("a", big.clone());
        assert_eq!(failure.kind, FailureKind::Operations, "{body}: {failure}");
        assert!(began.elapsed() < Duration::from_secs(5), "{body}: {:?}", began.elapsed());
    }
    // Broken JSON costs what good JSON costs, also when the error is caught.
    let source = r#"on("a", |msg| { loop { try { msg.json.z } catch {} } });"#;
    let rules = rules_with(source, |config| config.operations_max = 8_000);
    let began = Instant::now();
    assert_eq!(
        rules.failure("a", format!(r#"{{"a":"{}"#, "x".repeat(4_000_000))).kind,
        FailureKind::Operations
    );
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_payload_larger_than_the_budget_is_never_misread() {
    // The budget ends in the middle of the number: 12 must not be read where 123456 stands.
    for pad in 0..64 {
        let payload =
            format!(r#"{{"{}":1,"n":123456,"tail":"{}"}}"#, "x".repeat(960 + pad), "y".repeat(2_000));
        let rules = rules_with(r#"on("a", |msg| { publish("b", msg.json.n); });"#, |config| {
            config.operations_max = 9
        });
        let (actions, failures) = rules.observe(&message("a", payload));
        match actions.publish.first() {
            Some((_, draft)) => assert_eq!(draft.payload, "123456"),
            None => assert_eq!(failures[0].kind, FailureKind::Operations, "{failures:?}"),
        }
    }
}

#[test]
fn a_rule_that_publishes_to_itself_is_not_run_again_by_the_engine() {
    // What it publishes goes back to the broker, which counts the hops and ends loops.
    let rules = rules(r#"on("ping", |msg| publish("ping", msg.payload));"#);
    assert_eq!(rules.actions("ping", "x").publish.len(), 1);
    assert_eq!(rules.hook.rules()[0].runs, 1);
}

#[test]
fn texts_of_faults_are_cut() {
    let long = r#"on("a", |msg| { let s = "é"; s.pad(500000, 'é'); throw s; });"#;
    let failure = rules(long).failure("a", "");
    assert!(failure.detail.len() < 1_200, "{}", failure.detail.len());
}
