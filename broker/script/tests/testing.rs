//! Tests in rule files: `test`, `deliver`, `assert`, `assert_eq`, and what is said when one fails.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use proptest::prelude::*;
use support::{Folder, rules};
use weirmq_core::record::Value;
use weirmq_script::{TestReport, run_tests};

fn report_of(source: &str) -> TestReport {
    let folder = Folder::with(&[("rules.rhai", source)]);
    run_tests(folder.config()).unwrap()
}

/// Why the one test with this body fails.
fn failure_of(body: &str) -> String {
    let source = format!("on(\"broken\", |msg| msg.json.a);\ntest(\"t\", || {{\n    {body};\n}});");
    report_of(&source).tests.remove(0).failure.unwrap_or_default()
}

#[test]
fn a_delivery_shows_all_that_follows_from_a_message() {
    let report = report_of(
        r##"
        transform("raw/{x}", |msg| {
            if msg.text == "bad" { drop("it is bad"); } else { replace(`clean/${msg.x}`, msg.payload); }
        });
        on("clean", "clean/{x}", |msg| {
            publish(`seen/${msg.x}`, #{ at: msg.time, by: msg.client_id }, #{ qos: 1, retain: true });
            sink("history", #{ x: msg.x, n: msg.json });
        });
        on("seen/+", |msg| publish("never", "what a rule publishes is not delivered again in a test"));

        test("all of it", || {
            let out = deliver("raw/a", "7");
            assert_eq(out.original.topic, "raw/a");
            assert_eq(out.message.topic, "clean/a");
            assert_eq(out.message.text, "7");
            assert_eq(out.messages.len(), 1);
            assert_eq(out.dropped, ());
            assert_eq(out.published.len(), 1);
            assert_eq(out.published[0].topic, "seen/a");
            assert_eq(out.published[0].json, #{ by: "test", at: 1700000000000 });
            assert_eq(out.published[0].qos, 1);
            assert(out.published[0].retain);
            assert_eq(out.records, [#{ sink: "history", rule: "clean", fields: #{ x: "a", n: 7 } }]);
        });
        test("a drop", || {
            let out = deliver("raw/a", "bad");
            assert_eq([out.message, out.messages, out.dropped], [(), [], "it is bad"]);
        });
        test("from somebody, at some time", || {
            let out = deliver("clean/b", 1, #{ client_id: "c", principal: "p", time: 5, qos: 2, user: #{ k: "v" } });
            assert_eq(out.published[0].json, #{ at: 5, by: "c" });
            assert_eq(out.message.user("k"), "v");
            assert_eq([out.message.principal, out.message.qos, out.message.timestamp], ["p", 2, "1970-01-01T00:00:00.005Z"]);
        });
        test("the broker's own topics can be delivered", || { deliver("$SYS/x", 1); });
        "##,
    );
    assert!(report.passed(), "{report}");
    assert_eq!(report.tests.len(), 4);
}

#[test]
fn equal_is_what_means_the_same() {
    let report = report_of(
        r##"test("equal", || {
            assert_eq(1, 1.0);
            assert_eq(#{ a: 1, b: [2] }, #{ b: [2.0], a: 1 });
            let out = deliver("a", #{ l: [1, #{ x: () }], s: "é" });
            assert_eq(out.message.json, #{ s: "é", l: [1, #{ x: () }] });
            assert_eq(out.message.json.l, [1, #{ x: () }]);
            assert_eq(out.message, out.original);
            assert_eq(deliver("a", blob(2, 65)).message.payload, blob(2, 65));
            assert(true);
            assert(1 < 2, "numbers");
        });"##,
    );
    assert!(report.passed(), "{report}");
}

#[test]
fn a_failing_test_says_where_and_what() {
    for (body, said) in [
        ("assert_eq(1, 2)", "rules.rhai:3:5: the two are not equal\n left: 1\nright: 2"),
        ("assert_eq(1, \"1\")", "left: 1\nright: \"1\""),
        ("assert_eq(#{ a: [1, ()] }, [])", "left: {\"a\":[1,null]}\nright: []"),
        ("assert_eq((), 0)", "left: ()\nright: 0"),
        ("assert(1 > 2)", "rules.rhai:3:5: the assertion does not hold"),
        ("assert(1 > 2, \"numbers\")", "does not hold: numbers"),
        (
            "deliver(\"broken\", \"{\")",
            "a rule failed: crashed: rules.rhai:1:29: it is no valid JSON at byte 1",
        ),
        ("deliver(\"a/#\", 1)", "wildcards"),
        ("deliver(\"a\", 1, #{ time: -1 })", "option time: milliseconds since 1970"),
        ("deliver(\"a\", 1, #{ clientid: \"x\" })", "option clientid: there is none called"),
        ("throw \"no\"", "rules.rhai:3:5: no"),
        ("publish(\"a\", 1)", "publish() can only be called in the handler of an on() rule"),
        ("loop {}", "rules.rhai:2:1: it did more operations"),
    ] {
        let failure = failure_of(body);
        assert!(failure.contains(said), "{body}: {failure}");
    }
}

#[test]
fn a_report_counts_and_names_every_test_and_every_file_that_is_not_loaded() {
    let folder = Folder::with(&[
        ("a.rhai", "test(\"good\", || {});\ntest(\"bad\", || { throw 1; });"),
        ("b.rhai", "test(\"not loaded\""),
    ]);
    let report = run_tests(folder.config()).unwrap();
    assert!(!report.passed());
    let text = report.to_string();
    for said in [
        "error: b.rhai:1:",
        "a.rhai:1: good ... ok (",
        "a.rhai:2: bad ... FAILED (",
        "    a.rhai:2:18: it threw 1",
        "1 passed, 1 failed, 1 files not loaded",
    ] {
        assert!(text.contains(said), "{text}");
    }
    let (_, tests_of_no_rule) = Folder::with(&[]).load();
    assert!(tests_of_no_rule.is_good());
}

#[test]
fn tests_see_the_rules_of_all_files() {
    let folder = Folder::with(&[
        ("a.rhai", r#"test("across", || { assert_eq(deliver("x", 1).published[0].topic, "y"); });"#),
        ("b.rhai", r#"on("x", |msg| publish("y", 1));"#),
    ]);
    assert!(run_tests(folder.config()).unwrap().passed());
}

fn tree() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        (-1_000_000_000_i64..1_000_000_000).prop_map(|n| (n as f64 / 4.0).into()),
        ".{0,8}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
            proptest::collection::btree_map(".{0,4}", inner, 0..5)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

fn agrees(ours: &Value, theirs: &serde_json::Value) -> bool {
    use serde_json::Value as Json;
    match (ours, theirs) {
        (Value::Null, Json::Null) => true,
        (Value::Bool(left), Json::Bool(right)) => left == right,
        (Value::Int(left), Json::Number(right)) => right.as_i64() == Some(*left),
        (Value::Float(left), Json::Number(right)) => right.is_f64() && right.as_f64() == Some(*left),
        (Value::Text(left), Json::String(right)) => **left == **right,
        (Value::List(left), Json::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| agrees(left, right))
        }
        (Value::Map(left), Json::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(key, value)| right.get(&**key).is_some_and(|right| agrees(value, right)))
        }
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn json_comes_through_a_rule_as_serde_json_reads_it(tree in tree(), pretty in any::<bool>()) {
        let rules = rules(
            r##"on("a", |msg| {
                sink("view", #{ v: [msg.json] });
                publish("as it is", [msg.json]);
                if type_of(msg.json) == "json" {
                    publish("parsed", msg.json.value());
                }
            });"##,
        );
        let text = if pretty { serde_json::to_string_pretty(&tree) } else { serde_json::to_string(&tree) }.unwrap();
        let actions = rules.actions("a", text);
        let Value::List(items) = &actions.records[0].fields[0].1 else { panic!() };
        prop_assert!(agrees(&items[0], &tree), "{:?} in {}", items, tree);
        for (_, draft) in &actions.publish {
            let read: serde_json::Value = serde_json::from_slice(&draft.payload).unwrap();
            let expected = if draft.topic == "parsed" { tree.clone() } else { serde_json::json!([tree]) };
            prop_assert_eq!(read, expected);
        }
    }

    #[test]
    fn no_payload_makes_a_rule_panic(payload in proptest::collection::vec(any::<u8>(), 0..48)) {
        let rules = rules(
            r##"on("a", |msg| { try { msg.json.a.b[0] } catch {} try { msg.json.value() } catch {}
                try { msg.text.len() } catch {} sink("s", #{ p: msg.payload, h: msg.payload.hex() }); });"##,
        );
        prop_assert_eq!(rules.actions("a", payload).records.len(), 1);
    }
}
