//! What is wrong in a file is told as `file:line:column: what`, with the name that was probably meant: when the
//! file is loaded where that can be known, when it runs otherwise.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use support::{Folder, fault, rules, rules_with};
use weirmq_script::Config;

#[test]
fn a_sink_that_is_not_there_is_told_at_load_where_it_is_known_which_there_are() {
    let sinks = Some(vec!["history".to_owned(), "alerts".to_owned()]);
    let source = "let name = \"any\";\non(\"a\", |msg| { sink(\"histroy\", #{}) });";
    let folder = Folder::with(&[("rules.rhai", source)]);
    let (_, report) = folder.load_with(Config { sinks, ..folder.config() });
    assert_eq!(
        report.errors[0].to_string(),
        "rules.rhai:2:22: there is no sink 'histroy' in the configuration: did you mean 'history'?"
    );
    rules(source);
    let named_late =
        "fn to(name) { sink(name, #{}); } on(\"a\", |msg| { to(\"x\"); sink(\"alerts\", #{}) });";
    rules_with(named_late, |config| config.sinks = Some(vec!["alerts".to_owned()]));
}

#[test]
fn what_can_be_known_at_load_is_told_at_load() {
    for (source, said) in [
        ("on(\"a\", |msg| {\n    publish(\"b\", 1;\n});", "rules.rhai:2:19: "),
        ("on(\"a\", |msg| {", "rules.rhai:1:16: "),
        ("\n  onn(\"a\", |msg| {});", "rules.rhai:2:3: there is no function 'onn': did you mean 'on'?"),
        (
            "on(\"a\", |msg| { if true { publsh(\"b\", 1); } });",
            "rules.rhai:1:27: there is no function 'publsh': did you mean 'publish'?",
        ),
        ("fn to_kelvin(c) { c + 273.15 } on(\"a\", |msg| to_kelwin(1));", "did you mean 'to_kelvin'?"),
        ("on(\"a\", |msg| { limitt; });", "rules.rhai:1:17: there is no variable 'limitt' here"),
        ("const LIMIT = 1; fn over(x) { x > LIMIT }", "reads a constant of its file as global::LIMIT"),
        (
            "on(\"a/#/b\", |msg| {});",
            "rules.rhai:1:1: \"a/#/b\" is no topic filter: '#' must be the last level",
        ),
        ("on(\"a/{topic}\", |msg| {});", "would hide the message's own field \"topic\""),
        ("on(\"$share/g/a\", |msg| {});", "is a shared subscription"),
        ("on(\"a\", || {});", "rules.rhai:1:1: a handler takes one parameter"),
        ("on(\"a\", |msg, more| {});", "this one takes 2"),
        ("test(\"a\", |msg| {});", "the body of a test takes no parameter"),
        ("on(\"a\", Fn(\"nowhere\"));", "'nowhere' is no function of this file"),
        ("on(\"a\", \"b\");", "rules.rhai:1:1: there is no on ("),
        ("on(\"\", \"a\", |msg| {});", "the name is empty"),
        ("publish(\"a\", 1);", "publish() can only be called in the handler of an on() rule"),
        (
            "on(\"x\", \"a\", |msg| {});\non(\"x\", \"b\", |msg| {});",
            "rules.rhai:2:1: a rule called \"x\" is registered at rules.rhai:1 already",
        ),
    ] {
        let text = fault(source);
        assert!(text.starts_with("rules.rhai:") && text.contains(said), "{source}\n{text}");
    }
}

#[test]
fn what_shows_only_in_a_run_is_told_with_its_place() {
    for (body, said) in [
        ("msg.jsn", "rules.rhai:2:9: a message has no field 'jsn'; it has json, "),
        ("msg.machin", "a message has no field 'machin'; it has machine, "),
        ("msg.user", "user is a function: msg.user(\"key\")"),
        ("msg.payload.lenn()", "rules.rhai:2:17: there is no function lenn (payload): did you mean 'len'?"),
        ("publish(1, 2)", "there is no publish (i64, i64): 'publish' takes other values"),
        ("msg.json.c > 80.0", "rules.rhai:2:"),
        ("let x = [1]; x[5]", "rules.rhai:2:"),
        ("helper(1)", "rules.rhai:4:16: boom"),
    ] {
        let source =
            format!("on(\"a/{{machine}}\", |msg| {{\n    {body};\n}});\nfn helper(x) {{ throw \"boom\" }}");
        let detail = rules(&source).failure("a/b", "21").detail;
        assert!(detail.contains(said), "{body}: {detail}");
    }
}

#[test]
fn a_function_that_is_held_by_a_variable_or_defined_below_is_known() {
    rules(
        r#"on("a", |msg| { let twice = |x| x * 2; publish("b", twice.call(below(1))); });
           fn below(x) { x + 1 }"#,
    );
}

#[test]
fn a_missing_field_and_text_do_not_compare_as_numbers_by_accident() {
    let rules = rules(r#"on("a", |msg| if msg.json.c > 80.0 { publish("b", 1); });"#);
    assert!(rules.actions("a", "{}").publish.is_empty(), "what is not there is not greater");
    assert!(rules.actions("a", r#"{"c":"hot"}"#).publish.is_empty(), "nor is text");
    assert_eq!(rules.actions("a", r#"{"c":81}"#).publish.len(), 1, "whole numbers compare with fractions");
}
