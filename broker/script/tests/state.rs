//! What rules remember: the words, the limits, what is taken back, who waits for whom, and what is recorded.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Barrier};

use bytes::Bytes;
use parking_lot::Mutex;
use support::*;
use weirmq_core::durable::keys::KeyStore;
use weirmq_core::hook::{FailureKind, Hook};
use weirmq_script::run_tests;

/// Runs the tests in `source`, which must all be good.
fn passes(source: &str) {
    let folder = Folder::with(&[("a.rhai", source)]);
    let report = run_tests(folder.config()).unwrap();
    assert!(report.passed() && !report.tests.is_empty(), "{report}");
}

/// What the rule `source` says to the topic `out` about a message to `t`.
fn answers(rules: &Rules, payload: &str) -> String {
    let actions = rules.actions("t", payload.to_owned());
    let (_, draft) = &actions.publish[0];
    String::from_utf8(draft.payload.to_vec()).unwrap()
}

const COUNTER: &str = r#"on("count", "t", |msg| publish("out", state::add("n", 1)));"#;

/// Keys in memory, as a store would have them.
#[derive(Default)]
struct Shelf(Mutex<BTreeMap<(String, Bytes), Bytes>>);

impl Shelf {
    fn with(values: &[(&str, &str, &str)]) -> Arc<dyn KeyStore> {
        let shelf = Self::default();
        for (namespace, key, value) in values {
            let key = Bytes::copy_from_slice(key.as_bytes());
            shelf.set(&Arc::from(*namespace), &key, Bytes::copy_from_slice(value.as_bytes())).unwrap();
        }
        Arc::new(shelf)
    }
}

impl KeyStore for Shelf {
    fn value(&self, namespace: &Arc<str>, key: &[u8]) -> Result<Option<Bytes>, String> {
        if namespace.ends_with("unreadable.rhai") {
            return Err("the disk says no".to_owned());
        }
        let key = Bytes::copy_from_slice(key);
        Ok(self.0.lock().get(&(namespace.to_string(), key)).cloned())
    }

    fn keys(&self, namespace: &Arc<str>, from: &[u8], max: usize) -> Vec<Bytes> {
        let all = self.0.lock();
        let here = all.keys().filter(|(name, key)| *name == **namespace && key.as_ref() >= from);
        here.map(|(_, key)| key.clone()).take(max).collect()
    }

    fn set(&self, namespace: &Arc<str>, key: &[u8], value: Bytes) -> Result<(), String> {
        self.0.lock().insert((namespace.to_string(), Bytes::copy_from_slice(key)), value);
        Ok(())
    }

    fn remove(&self, namespace: &Arc<str>, key: &[u8]) -> Result<(), String> {
        self.0.lock().remove(&(namespace.to_string(), Bytes::copy_from_slice(key)));
        Ok(())
    }
}

#[test]
fn every_kind_of_value_comes_back_as_it_was() {
    passes(
        r#"
        on("keep", "keep", |msg| state::set("v", msg.json));
        test("values", || {
            for value in [1, -7, 1.0, 1.5e300, "", "text \"q\" 温度", true, false, (), [], [1, [2.0, ()]], #{}, #{ a: #{ b: [1, "x"] } }, 'c'] {
                state::set("v", value);
                let back = state::get("v");
                assert_eq(type_of(back), if type_of(value) == "char" { "string" } else { type_of(value) });
                assert_eq(back, if type_of(value) == "char" { value.to_string() } else { value });
                assert(state::contains("v"));
            }
            deliver("keep", "{\"a\": [1, 2.5]}");
            assert_eq(state::get("v"), #{ a: [1, 2.5] });
        });
        test("words", || {
            assert_eq(state::get("x"), ());
            assert_eq(state::get("x", 7), 7);
            assert(!state::contains("x"));
            assert_eq(state::add("x", 2), 2);
            assert_eq(state::add("x", -3), -1);
            assert_eq(state::add("x", 0.5), -0.5);
            assert_eq(state::get("x", 7), -0.5);
            state::set("b", 1);
            state::set("a", 1);
            assert_eq(state::keys(), ["a", "b", "x"]);
            assert_eq(state::remove("x"), -0.5);
            assert_eq(state::remove("x"), ());
            state::clear();
            assert_eq(state::keys(), []);
        });
        fn remember(key, value) { state::set(key, value); state::get(key) }
        let prefix = "p/";
        on("captured", "captured/{id}", |msg| {
            [1, 2].map(|i| state::add(prefix + msg.id, i));
        });
        test("from functions, closures and with variables from around", || {
            let key = "k";
            assert_eq(remember(key, [1]), [1]);
            deliver("captured/7", "");
            assert_eq(state::get("p/7"), 3);
        });
        "#,
    );
}

#[test]
fn what_is_no_value_is_refused_in_words() {
    let refused = |words: &str, text: &str| {
        let failure = rules(&format!("on(\"r\", \"t\", |msg| {{ {words} }});")).failure("t", "{}");
        assert!(failure.detail.contains(text), "{words}: {failure}");
    };
    refused("state::set(\"k\", msg.payload)", "use its text() or hex()");
    refused("state::set(\"k\", msg)", "has no JSON form");
    refused("state::set(\"k\", 0.0 / 0.0)", "has no JSON form");
    refused("state::set(\"\", 1)", "is empty");
    refused("let key = \"\"; key.pad(513, 'k'); state::set(key, 1)", "513 bytes, more than 512");
    refused("state::set(\"k\", \"one\"); state::add(\"k\", 1)", "add() needs numbers");
    refused("state::add(\"k\", \"1\")", "add() needs numbers");
    refused("state::set(\"k\", 9223372036854775807); state::add(\"k\", 1)", "does not fit into 64 bits");
}

#[test]
fn slips_of_the_pen_are_found_when_the_file_is_loaded() {
    let fault = |source: &str| {
        let (_, report) = Folder::with(&[("a.rhai", source)]).load();
        report.to_string()
    };
    let text = fault("on(\"r\", \"t\", |msg| { state::gte(\"k\"); });");
    assert!(text.contains("there is no function 'state::gte'") && text.contains("'get'"), "{text}");
    let text = fault("state::set(\"k\", 1);");
    assert!(text.contains("state::set() can only be called in a handler or a test"), "{text}");
}

#[test]
fn files_do_not_see_each_other_and_tests_start_fresh() {
    let files = [
        (
            "a.rhai",
            r#"on("a", "t", |msg| state::add("n", 1)); test("a", || { deliver("t", ""); assert_eq(state::get("n"), 1); });"#,
        ),
        (
            "b.rhai",
            r#"on("b", "t", |msg| state::add("n", 10)); test("b", || { deliver("t", ""); deliver("t", ""); assert_eq(state::get("n"), 20); });"#,
        ),
        ("c.rhai", r#"test("c", || { assert_eq(state::get("n"), ()); });"#),
    ];
    let report = run_tests(Folder::with(&files).config()).unwrap();
    assert!(report.passed() && report.tests.len() == 3, "{report}");
}

#[test]
fn what_a_failed_run_has_changed_is_taken_back() {
    let rules = rules(
        r#"on("r", "t", |msg| {
            state::set("kept", 1);
            state::add("n", 1);
            state::add("n", 1);
            state::remove("old");
            if msg.text == "fail" { state::clear(); throw "as asked"; }
            if msg.text == "endless" { loop {} }
            state::set("old", 1);
            publish("out", [state::get("n"), state::keys()]);
        });"#,
    );
    assert!(rules.failure("t", "fail").detail.contains("as asked"));
    assert_eq!(rules.failure("t", "endless").kind, FailureKind::Operations);
    assert_eq!(answers(&rules, "go"), r#"[2,["kept","n","old"]]"#);
    rules.failure("t", "fail");
    assert_eq!(answers(&rules, "go"), r#"[4,["kept","n","old"]]"#);
}

#[test]
fn a_transform_remembers_too_and_a_failed_one_does_not() {
    passes(
        r#"
        transform("t", |msg| {
            let last = state::get("last");
            state::set("last", msg.text);
            if msg.text == "bad" { throw "no"; }
            if msg.text == last { drop("the same again"); }
        });
        test("changes only", || {
            assert_eq(deliver("t", "a").dropped, ());
            assert_eq(deliver("t", "a").dropped, "the same again");
            try { deliver("t", "bad"); } catch { }
            assert_eq(state::get("last"), "a");
            assert_eq(deliver("t", "b").dropped, ());
        });
        "#,
    );
}

#[test]
fn at_a_limit_the_run_fails_and_nothing_has_changed() {
    let source = r#"on("r", "t", |msg| {
        let words = msg.text.split(" ");
        state::set(words[0], words[1]);
        publish("out", state::keys());
    });"#;
    let rules = rules_with(source, |config| {
        (config.state_keys_max, config.state_value_bytes_max, config.state_bytes_max) = (2, 10, 16);
    });
    let refused = |payload: &str, text: &str| {
        let failure = rules.failure("t", payload.to_owned());
        assert_eq!(failure.kind, FailureKind::Memory);
        assert!(failure.detail.contains(text), "{failure}");
    };
    assert_eq!(answers(&rules, "a 123"), r#"["a"]"#);
    refused("a 123456789", "state_value_bytes_max");
    refused("b 123456789", "state_value_bytes_max");
    refused("b 12345678", "state_bytes_max");
    assert_eq!(answers(&rules, "b 1234567"), r#"["a","b"]"#, "6 and 10 bytes, keys and quotes included");
    refused("c 1", "state_keys_max");
    assert_eq!(answers(&rules, "a 1"), r#"["a","b"]"#);
}

#[test]
fn runs_that_remember_exclude_each_other_and_no_change_is_lost() {
    const THREADS: usize = 4;
    const RUNS: usize = 200;
    let rules = Arc::new(rules(
        r#"on("r", "t", |msg| {
            let n = state::get("n", 0);
            let sum = 0;
            for i in 0..10 { sum += i; }
            state::set("n", n + 1);
            publish("out", state::add("also", 1) == n + 1);
        });
        on("total", "total", |msg| publish("out", state::get("n")));"#,
    ));
    let all_at_once = Arc::new(Barrier::new(THREADS));
    let threads = [(); THREADS].map(|()| {
        let (rules, all_at_once) = (Arc::clone(&rules), Arc::clone(&all_at_once));
        std::thread::spawn(move || {
            all_at_once.wait();
            (0..RUNS).all(|_| answers(&rules, "") == "true")
        })
    });
    for thread in threads {
        assert!(thread.join().unwrap(), "a run saw the state change that it had to itself");
    }
    assert_eq!(
        String::from_utf8(rules.actions("total", "").publish[0].1.payload.to_vec()).unwrap(),
        (THREADS * RUNS).to_string()
    );
}

#[test]
fn who_waits_for_the_state_waits_no_longer_than_its_deadline() {
    let rules = Arc::new(rules_with(
        r#"
        on("slow", "slow", |msg| { state::set("n", 1); loop {} });
        on("quick", "t", |msg| publish("out", state::get("n", "none")));
        "#,
        |config| (config.deadline_ms, config.operations_max) = (300, u64::MAX),
    ));
    let slow = Arc::clone(&rules);
    let slow = std::thread::spawn(move || slow.failure("slow", "").kind);
    // Both have the same deadline, and it may begin later for the one that waits: one of the two answers is right.
    let (actions, failures) = rules.observe(&message("t", ""));
    match &failures[..] {
        [] => assert_eq!(actions.publish[0].1.payload, "none", "what the slow one changed is not seen"),
        [failure] => assert_eq!(failure.kind, FailureKind::Deadline),
        more => panic!("{more:?}"),
    }
    assert_eq!(slow.join().unwrap(), FailureKind::Deadline);
    assert_eq!(answers(&rules, ""), "none");
}

#[test]
fn state_outlives_a_reload_and_the_absence_of_its_file() {
    let folder = Folder::with(&[("a.rhai", COUNTER)]);
    let (rules, _) = folder.load();
    assert_eq!(answers(&rules, ""), "1");
    folder.write("a.rhai", &COUNTER.replace("1)", "10)"));
    assert!(rules.hook.reload().changed());
    assert_eq!(answers(&rules, ""), "11");
    folder.remove("a.rhai");
    rules.hook.reload();
    folder.write("a.rhai", COUNTER);
    rules.hook.reload();
    assert_eq!(answers(&rules, ""), "12");
}

/// How many keys have changed and are not recorded.
fn unrecorded(rules: &Rules) -> usize {
    let bound = Arc::clone(&rules.hook).on_message(&message("t", "").topic);
    bound[0].changes().iter().map(|changes| changes.unrecorded()).sum()
}

#[test]
fn what_is_kept_is_read_back_also_for_files_that_come_later() {
    let folder = Folder::with(&[("a.rhai", COUNTER), ("stateless.rhai", "on(\"s\", \"s\", |msg| ());")]);
    let (rules, _) = folder.load();
    let store = Shelf::with(&[
        ("rule:a.rhai", "n", "41"),
        ("rule:later.rhai", "n", "6"),
        ("rule:gone.rhai", "n", "1"),
    ]);
    let restored = rules.hook.keep_state_in(&store).unwrap();
    assert_eq!((&*restored.files[0], restored.files.len(), restored.keys), ("a.rhai", 1, 1));
    assert_eq!(answers(&rules, ""), "42");
    folder.remove("a.rhai");
    folder.write("later.rhai", &COUNTER.replace("count", "later"));
    rules.hook.reload();
    assert_eq!(answers(&rules, ""), "7");
    folder.write("unreadable.rhai", &COUNTER.replace("count", "other"));
    assert!(rules.hook.reload().errors.is_empty(), "there is no key to be read");
    assert!(rules.hook.keep_state_in(&store).is_err(), "a second store");
}

#[test]
fn what_cannot_be_read_back_is_said() {
    let folder = Folder::with(&[("unreadable.rhai", COUNTER)]);
    let (rules, _) = folder.load();
    let store = Shelf::with(&[("rule:unreadable.rhai", "n", "1")]);
    assert!(rules.hook.keep_state_in(&store).unwrap_err().contains("the disk says no"));
}

#[test]
fn only_what_has_changed_is_to_be_recorded_and_only_where_it_is_kept() {
    let source = r#"on("r", "t", |msg| {
        state::set("same", 1);
        if msg.text != "" { state::set(msg.text, 1); }
        if msg.text == "fail" { throw "no"; }
    });"#;
    let in_memory = rules(source);
    in_memory.actions("t", "x");
    assert_eq!(unrecorded(&in_memory), 0);
    let kept = rules(source);
    kept.hook.keep_state_in(&Shelf::with(&[("rule:rules.rhai", "same", "1")])).unwrap();
    kept.actions("t", "");
    assert_eq!(unrecorded(&kept), 0, "the value was the same before");
    kept.failure("t", "fail");
    assert_eq!(unrecorded(&kept), 0);
    kept.actions("t", "x");
    assert_eq!(unrecorded(&kept), 1);
}

#[test]
fn a_rule_without_state_has_nothing_to_be_recorded() {
    let rules = rules("on(\"r\", \"t\", |msg| publish(\"out\", 1)); transform(\"t\", |msg| ());");
    rules.hook.keep_state_in(&Shelf::with(&[])).unwrap();
    let topic = message("t", "").topic.clone();
    assert!(Arc::clone(&rules.hook).on_message(&topic)[0].changes().is_empty());
    assert!(Arc::clone(&rules.hook).on_publish(&topic).unwrap().changes().is_empty());
}

#[test]
fn changes_that_nobody_records_are_bounded() {
    let source = r#"on("r", "t", |msg| { state::set(msg.text, 1); state::remove(msg.text); state::set(msg.text, 2); state::clear(); });
        on("s", "s", |msg| { state::set(msg.text, 1); });"#;
    let rules = rules_with(source, |config| config.state_keys_max = 3);
    rules.hook.keep_state_in(&Shelf::with(&[])).unwrap();
    let mut failed = None;
    for round in 0..20 {
        rules.observe(&message("s", round.to_string()));
        let (_, failures) = rules.observe(&message("t", round.to_string()));
        if let Some(failure) = failures.into_iter().next() {
            failed.get_or_insert((round, failure));
        }
        assert!(unrecorded(&rules) <= 9, "three times as many as there may be");
    }
    let (_, failure) = failed.expect("at some time there are too many");
    assert!(failure.detail.contains("are not recorded yet"), "{failure}");
}
