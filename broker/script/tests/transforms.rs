//! `transform` rules: pass, replace, drop, several; chains of them; what is inherited and what is refused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::{Folder, Rules, message_of, rules};
use weirmq_core::hook::{Draft, FailureKind, Hook, ReasonCode, Transformed};
use weirmq_core::message::{Properties, QoS};
use weirmq_core::topic::TopicName;

fn replaced(rules: &Rules, topic: &str, payload: &'static str) -> Draft {
    match rules.transform(topic, payload) {
        Transformed::Replace(draft) => *draft,
        other => panic!("{other:?}"),
    }
}

fn seen(draft: &Draft) -> (&str, &str) {
    (&draft.topic, std::str::from_utf8(&draft.payload).unwrap())
}

fn failure(source: &str, topic: &str) -> weirmq_core::hook::Failure {
    rules(source).try_transform(&support::message(topic, "{}")).unwrap().unwrap_err()
}

#[test]
fn a_transform_that_says_nothing_lets_the_message_pass() {
    let rules = rules(r#"transform("a", |msg| { if msg.json.bad == true { drop("bad"); } });"#);
    assert_eq!(rules.transform("a", "{}"), Transformed::Pass);
    assert!(Arc::clone(&rules.hook).on_publish(&TopicName::new("b").unwrap()).is_none());
}

#[test]
fn a_drop_carries_its_reason() {
    let rules = rules(r#"transform("a", |msg| drop("out of range"));"#);
    match rules.transform("a", "") {
        Transformed::Drop(denial) => {
            assert_eq!(
                (denial.code, denial.reason.as_str()),
                (ReasonCode::ImplementationSpecificError, "out of range")
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_a_replacement_leaves_open_is_the_original_s() {
    let rules = rules(
        r##"transform("keep", |msg| replace("new", "x"));
            transform("set", |msg| replace(msg.topic, "x", #{ qos: 0, retain: false, expires: 60, user: #{ b: "2", a: () }, content_type: () }));"##,
    );
    let mut sent = message_of("keep", "old");
    sent.qos = QoS::ExactlyOnce;
    sent.retain = true;
    sent.properties = Properties {
        content_type: Some("t".into()),
        user: vec![("a".into(), "1".into())],
        ..Properties::default()
    };
    let Some(Ok(Transformed::Replace(draft))) = rules.try_transform(&Arc::new(sent.clone())) else {
        panic!()
    };
    assert_eq!(seen(&draft), ("new", "x"));
    assert_eq!((draft.qos, draft.retain, draft.expires_in), (QoS::ExactlyOnce, true, None));
    assert_eq!(draft.properties, sent.properties);
    sent.topic = TopicName::new("set").unwrap();
    let Some(Ok(Transformed::Replace(draft))) = rules.try_transform(&Arc::new(sent)) else { panic!() };
    assert_eq!(
        (draft.qos, draft.retain, draft.expires_in),
        (QoS::AtMostOnce, false, Some(Duration::from_secs(60)))
    );
    assert_eq!(
        draft.properties,
        Properties { user: vec![("b".into(), "2".into())], ..Properties::default() }
    );
}

#[test]
fn each_transform_sees_what_the_one_before_made_in_the_order_of_files_and_lines() {
    let folder = Folder::with(&[
        ("b.rhai", r#"transform("+", |msg| replace(msg.topic, msg.text + "3"));"#),
        (
            "a.rhai",
            "transform(\"x\", |msg| replace(msg.topic, msg.text + \"1\"));\ntransform(\"+\", |msg| replace(msg.topic, msg.text + \"2\"));",
        ),
    ]);
    let (rules, report) = folder.load();
    assert!(report.is_good(), "{report}");
    assert_eq!(seen(&replaced(&rules, "x", "0")), ("x", "0123"));
    assert_eq!(seen(&replaced(&rules, "y", "0")), ("y", "023"));
}

#[test]
fn a_changed_topic_meets_the_transforms_of_the_new_topic_that_come_later() {
    let rules = rules(
        r#"
        transform("clean/+", |msg| replace(msg.topic, msg.text + " too early"));
        transform("raw/{what}", |msg| replace(`clean/${msg.what}`, msg.text + " moved"));
        transform("raw/+", |msg| replace(msg.topic, msg.text + " never"));
        transform("clean/{what}", |msg| replace(msg.topic, msg.text + ` as ${msg.what}`));
        "#,
    );
    assert_eq!(seen(&replaced(&rules, "raw/t", "x")), ("clean/t", "x moved as t"));
}

#[test]
fn a_transform_does_not_act_on_what_it_made() {
    let rules = rules(r#"transform("a/#", |msg| replace("a/" + msg.topic, msg.payload));"#);
    assert_eq!(seen(&replaced(&rules, "a/b", "x")), ("a/a/b", "x"));
}

#[test]
fn one_message_becomes_several_and_each_goes_on_through_the_chain() {
    let rules = rules(
        r##"
        transform("batch", |msg| several(msg.json.values().map(|n| #{ topic: `one/${n}`, payload: n, qos: 0 })));
        transform("one/3", |msg| drop("not 3"));
        transform("one/+", |msg| replace(msg.topic, `<${msg.text}>`));
        "##,
    );
    let Transformed::Several(drafts) = rules.transform("batch", "[1,2,3]") else { panic!() };
    assert_eq!(drafts.iter().map(seen).collect::<Vec<_>>(), [("one/1", "<1>"), ("one/2", "<2>")]);
    assert!(drafts.iter().all(|draft| draft.qos == QoS::AtMostOnce));
    let Transformed::Drop(denial) = rules.transform("batch", "[3]") else { panic!() };
    assert_eq!(denial.reason, "not 3", "when none is left, the last reason stands");
    let Transformed::Replace(draft) = rules.transform("batch", "[1,3]") else { panic!("one is left") };
    assert_eq!(seen(&draft), ("one/1", "<1>"));
}

#[test]
fn an_expiry_that_was_set_goes_on_holding() {
    let rules = rules(
        r##"transform("a", |msg| replace("b", "x", #{ expires: 10 })); transform("b", |msg| replace("c", "y"));"##,
    );
    assert_eq!(replaced(&rules, "a", "").expires_in, Some(Duration::from_secs(10)));
}

#[test]
fn answers_that_make_no_sense_fail() {
    use FailureKind::{BadAnswer, Crash, OutputTooLarge};
    for (body, kind, said) in [
        ("msg.payload", BadAnswer, "returned a payload: it answers by calling replace()"),
        (r#"replace("a", 1); drop("x")"#, Crash, "has answered with replace() before (line 1,"),
        (r#"several([])"#, Crash, "to let none pass, call drop()"),
        (r#"several([1])"#, Crash, "message 0 of several(): a map"),
        (r#"several([#{ payload: 1 }])"#, Crash, "its topic is missing"),
        (r#"several([#{ topic: "a" }])"#, Crash, "its payload is missing"),
        (r#"replace("a/+", 1)"#, Crash, "wildcards"),
        (r#"replace("$SYS/a", 1)"#, Crash, "are the broker's"),
        (r#"several([#{ topic: "$SYS/a", payload: 1 }])"#, Crash, "are the broker's"),
        (r#"publish("b", 1)"#, Crash, "publish() can only be called in the handler of an on() rule"),
        (
            r#"let all = []; all.pad(65, #{ topic: "b", payload: 1 }); several(all)"#,
            OutputTooLarge,
            "published_max",
        ),
        (
            r#"let s = "x"; s.pad(1000000, 'x'); let all = []; all.pad(5, #{ topic: "b", payload: msg.payload, user: #{ a: "b" } }); let t = s; replace("b", [t, s])"#,
            FailureKind::Memory,
            "string_bytes_max",
        ),
    ] {
        let failure = failure(&format!(r#"transform("a", |msg| {{ {body} }});"#), "a");
        assert_eq!(failure.kind, kind, "{body}: {failure}");
        assert!(failure.detail.contains(said), "{body}: {failure}");
    }
}

#[test]
fn a_message_of_the_broker_may_be_changed_where_it_is() {
    let rules = rules(r#"transform("$SYS/#", |msg| replace(msg.topic, "x"));"#);
    assert_eq!(seen(&replaced(&rules, "$SYS/a", "")), ("$SYS/a", "x"));
}

#[test]
fn a_chain_cannot_multiply_messages_without_end() {
    let double =
        r#"transform("a", |msg| several([#{ topic: "a", payload: 1 }, #{ topic: "a", payload: 2 }]));"#;
    let failure = failure(&double.repeat(20), "a");
    assert_eq!(failure.kind, FailureKind::OutputTooLarge);
}

#[test]
fn a_transform_that_fails_is_told_with_its_place_and_the_chain_ends_there() {
    let source = "transform(\"a\", |msg| replace(\"a\", 1));\ntransform(\"a\", |msg| {\n    throw `no`;\n});";
    let failure = failure(source, "a");
    assert_eq!((failure.kind, failure.detail.as_str()), (FailureKind::Crash, "rules.rhai:3:5: no"));
}

#[test]
fn a_payload_that_was_marked_as_text_and_is_text_no_more_loses_the_mark() {
    let rules = rules(r#"transform("a", |msg| replace("a", blob(1, 255)));"#);
    let mut sent = message_of("a", "x");
    sent.properties.payload_is_utf8 = Some(true);
    let Some(Ok(Transformed::Replace(draft))) = rules.try_transform(&Arc::new(sent)) else { panic!() };
    assert_eq!(draft.properties.payload_is_utf8, None);
}
