//! `on` rules: what they see of a message, what they publish, what they hand to sinks.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use support::{NOW, message_of, rules};
use weirmq_core::hook::{Hook, HookPoint};
use weirmq_core::message::{Properties, Publisher, QoS};
use weirmq_core::record::Value;
use weirmq_core::topic::TopicName;

/// What a rule on everything makes of `expression`.
fn value_of(expression: &str, payload: impl Into<Bytes>) -> Value {
    let rules = rules(&format!(r##"on("#", |msg| sink("s", #{{ v: {expression} }}));"##));
    let mut records = rules.actions("plant/a", payload).records;
    assert_eq!(records.len(), 1);
    records.remove(0).fields.remove(0).1
}

fn fault_of(expression: &str, payload: impl Into<Bytes>) -> String {
    let rules = rules(&format!(r##"on("#", |msg| sink("s", #{{ v: {expression} }}));"##));
    rules.failure("plant/a", payload).detail
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

#[test]
fn a_rule_sees_the_topics_of_its_filter_and_no_others() {
    let rules = rules(
        r##"
        on("level", "a/+/c", |msg| publish("out", "level"));
        on("below", "a/#", |msg| publish("out", "below"));
        on("named", "a/{x}/{y}", |msg| publish("out", `named ${msg.x} ${msg.y}`));
        on("all", "#", |msg| publish("out", "all"));
        on("system", "$SYS/#", |msg| publish("out", "system"));
        "##,
    );
    let seen = |topic: &str| -> Vec<String> {
        let published = rules.actions(topic, "").publish;
        published.iter().map(|(_, draft)| String::from_utf8(draft.payload.to_vec()).unwrap()).collect()
    };
    assert_eq!(seen("a/b/c"), ["level", "below", "named b c", "all"]);
    assert_eq!(seen("a"), ["below", "all"]);
    assert_eq!(seen("b"), ["all"]);
    assert_eq!(seen("a//"), ["below", "named  ", "all"]);
    assert_eq!(seen("$SYS/uptime"), ["system"], "wildcards do not reach the broker's own topics");
    let unwanted =
        Arc::clone(&support::rules(r#"on("a", |msg| {});"#).hook).on_message(&TopicName::new("b").unwrap());
    assert!(unwanted.is_empty(), "a rule that does not want a topic costs it nothing");
}

#[test]
fn captures_read_topics_of_any_script() {
    let rules = rules(
        r#"on("工場/{ライン}/{machine}/温度", |msg| publish(`警報/${msg["ライン"]}/${msg.machine}`, msg.topic));"#,
    );
    let published = rules.actions("工場/第一/プレス機😀/温度", "").publish;
    assert_eq!(published[0].1.topic, "警報/第一/プレス機😀");
    assert_eq!(published[0].1.payload, "工場/第一/プレス機😀/温度");
}

#[test]
fn the_fields_of_a_message_are_what_the_publisher_sent() {
    let rules = rules(
        r##"on("#", |msg| sink("s", #{
            a: msg.topic, b: msg.qos, c: msg.retain, d: msg.time, e: msg.timestamp, f: msg.client_id,
            g: msg.principal, h: msg.content_type, i: msg.response_topic, j: msg.user("unit"), k: msg.user("none"),
            l: msg.text, m: msg.payload, n: msg.payload.len(),
        }));"##,
    );
    let mut sent = message_of("plant/a", "21.5");
    sent.qos = QoS::ExactlyOnce;
    sent.retain = true;
    sent.properties = Properties {
        content_type: Some("text/plain".into()),
        response_topic: Some("reply".into()),
        user: vec![("unit".into(), "C".into()), ("unit".into(), "F".into())],
        ..Properties::default()
    };
    let (actions, failures) = rules.observe(&Arc::new(sent.clone()));
    assert_eq!(failures, []);
    let record = &actions.records[0];
    assert_eq!((&*record.sink, &*record.rule, record.created_unix_ms), ("s", "rules:1", NOW.unix_ms));
    let fields: Vec<&Value> = record.fields.iter().map(|(_, value)| value).collect();
    let expected = [
        text("plant/a"),
        Value::Int(2),
        Value::Bool(true),
        Value::Int(1_700_000_000_000),
        text("2023-11-14T22:13:20.000Z"),
        text("sensor-1"),
        text("alice"),
        text("text/plain"),
        text("reply"),
        text("C"),
        Value::Null,
        text("21.5"),
        Value::Bytes("21.5".into()),
        Value::Int(4),
    ];
    assert_eq!(fields, expected.iter().collect::<Vec<_>>());

    sent.publisher = Publisher::Rule("other".into());
    sent.properties = Properties::default();
    let (actions, _) = rules.observe(&Arc::new(sent));
    for place in [5, 6, 7, 8, 9] {
        assert_eq!(actions.records[0].fields[place].1, Value::Null, "field {place}");
    }
}

#[test]
fn records_keep_the_kind_and_the_last_digit_of_what_they_are_given() {
    let payload = r#"{"i":9007199254740993,"f":0.1,"w":1.0,"n":null,"t":true,"s":"温\n度","l":[1,2.5,"x"],"m":{"z":1,"a":{}},
        "min":-9223372036854775808,"over":9223372036854775808,"e":1e2}"#;
    for (expression, expected) in [
        ("msg.json.i", Value::Int(9_007_199_254_740_993)),
        ("msg.json.min", Value::Int(i64::MIN)),
        ("msg.json.over", Value::Float(9_223_372_036_854_775_808.0)),
        ("msg.json.f", Value::Float(0.1)),
        ("msg.json.w", Value::Float(1.0)),
        ("msg.json.e", Value::Float(100.0)),
        ("msg.json.n", Value::Null),
        ("msg.json.missing", Value::Null),
        ("msg.json.t", Value::Bool(true)),
        ("msg.json.s", text("温\n度")),
        ("msg.json.l", Value::List(vec![Value::Int(1), Value::Float(2.5), text("x")])),
        ("msg.json.m", Value::Map(vec![("z".into(), Value::Int(1)), ("a".into(), Value::Map(vec![]))])),
        ("1", Value::Int(1)),
        ("1.0", Value::Float(1.0)),
        ("'x'", text("x")),
        ("()", Value::Null),
        ("[1, [2]]", Value::List(vec![Value::Int(1), Value::List(vec![Value::Int(2)])])),
        ("#{ a: 1 }", Value::Map(vec![("a".into(), Value::Int(1))])),
        ("blob(2, 7)", Value::Bytes(Bytes::from_static(&[7, 7]))),
        ("msg.payload.slice(1, 3)", Value::Bytes(Bytes::from_static(b"\"i\""))),
    ] {
        assert_eq!(value_of(expression, payload), expected, "{expression}");
    }
    assert_eq!(
        value_of("msg.payload", Bytes::from_static(b"\xff\x00")),
        Value::Bytes(Bytes::from_static(b"\xff\x00"))
    );
    assert!(fault_of("|x| x", "").contains("a function cannot be kept in a record"));
    assert!(fault_of("msg", "").contains("a message cannot be kept in a record"));
    let rules = rules(r#"on("a", |msg| sink("s", 1));"#);
    assert!(rules.failure("a", "").detail.contains("a record is a map, not a number"));
}

#[test]
fn json_is_read_where_it_is_asked_for_and_no_further() {
    // What stands behind the field is not looked at.
    assert_eq!(value_of("msg.json.a", r#"{"a":1, broken"#), Value::Int(1));
    assert_eq!(value_of("msg.json[1]", "[1,2,broken"), Value::Int(2));
    for (expression, payload, expected) in [
        ("msg.json.a", r#"{"a":1,"a":2}"#, Value::Int(1)),
        ("msg.json.value()", r#"{"a":1,"a":2}"#, Value::Map(vec![("a".into(), Value::Int(1))])),
        ("msg.json", " 21.5 ", Value::Float(21.5)),
        ("msg.json", "null", Value::Null),
        ("msg.json", r#""x""#, text("x")),
        ("msg.json[-1]", "[1,2,3]", Value::Int(3)),
        ("msg.json[9]", "[1,2,3]", Value::Null),
        ("msg.json.len()", "[1,2,3]", Value::Int(3)),
        ("msg.json.a.b[0].c", r#"{"a":{"b":[{"c":"deep"}]}}"#, text("deep")),
        ("msg.json?.a?.b", r#"{"a":null}"#, Value::Null),
        (r#"msg.json["a b"]"#, r#"{"a b":1}"#, Value::Int(1)),
        (r#"msg.json["温度"]"#, r#"{"温度":1}"#, Value::Int(1)),
        (r#"msg.json.contains("a")"#, r#"{"a":null}"#, Value::Bool(true)),
        ("msg.json.keys()", r#"{"b":1,"a":[{}]}"#, Value::List(vec![text("b"), text("a")])),
        ("msg.json.a.b.to_upper().len()", r#"{"a":{"b":"xyz"}}"#, Value::Int(3)),
        ("msg.json[0].a.keys().len()", r#"[{"a":{"b":"xyz"}}]"#, Value::Int(1)),
        ("msg.json[0].len()", "[[1,2]]", Value::Int(2)),
        (r#"msg.topic.split("/").len()"#, "", Value::Int(2)),
        (
            r#"parse_json("[1, {\"a\": 2.5}]")"#,
            "",
            Value::List(vec![Value::Int(1), Value::Map(vec![("a".into(), Value::Float(2.5))])]),
        ),
    ] {
        assert_eq!(value_of(expression, payload), expected, "{expression} of {payload}");
    }
    let sum =
        rules(r#"on("a", |msg| { let sum = 0; for n in msg.json.list { sum += n; } publish("b", sum); });"#);
    assert_eq!(sum.actions("a", r#"{"list":[1,2,3]}"#).publish[0].1.payload, "6");
    assert!(sum.failure("a", r#"{"list":{}}"#).detail.contains("keys() or its values()"));
}

#[test]
fn a_payload_that_is_no_json_says_where_and_what() {
    for (expression, payload, said) in [
        ("msg.json.a", &b""[..], "the payload is empty"),
        ("msg.json.a", b"21.5 C", "at byte 5: something follows"),
        ("msg.json.a", b"hello", "at byte 0: a value was expected"),
        ("msg.json.a", b"{\"b\":01,\"a\":1}", "at byte 6"),
        ("msg.json.a", b"{\"a\":1e999}", "out of range"),
        ("msg.json.a", b"{\"a\":\"\xff\"}", "at byte 6: a string that is not UTF-8"),
        ("msg.json.a", b"{\"a\":\"\\ud800\"}", "at byte 5"),
        ("msg.json.a", b"[1]", "is an array: it has items, but no field 'a'"),
        ("msg.json[0]", b"{}", "is an object: it has fields, but no item 0"),
        ("msg.json.a.b", b"{}", "'b' is asked of ()"),
        ("msg.text", b"a\xff", "byte 1 is wrong"),
    ] {
        let detail = fault_of(expression, Bytes::copy_from_slice(payload));
        assert!(detail.contains(said) && detail.starts_with("rules.rhai:1:"), "{expression}: {detail}");
    }
    let deep = "[".repeat(100_000);
    for expression in ["msg.json.value()", "msg.json.len()", "msg.json.values().len()"] {
        assert!(fault_of(expression, deep.clone()).contains("128 levels"), "{expression}");
    }
    // One that does not look into the payload does not mind.
    assert_eq!(value_of("msg.topic", Bytes::from_static(b"\xff")), text("plant/a"));
}

#[test]
fn nobody_changes_a_message() {
    for (change, said) in [
        ("msg.topic = \"b\"", "a message does not change"),
        ("msg.anything = 1", "no field 'anything'"),
        ("msg[\"topic\"] = \"b\"", "a message does not change"),
        ("msg.json.a = 2", "JSON does not change"),
        ("msg.json[\"a\"] = 2", "JSON does not change"),
        ("msg.topic.make_upper()", "a message does not change"),
    ] {
        let rules = rules(&format!(r#"on("a", |msg| {{ {change}; }});"#));
        let detail = rules.failure("a", r#"{"a":1}"#).detail;
        assert!(detail.contains(said), "{change}: {detail}");
    }
}

#[test]
fn what_is_published_is_what_the_rule_says() {
    let rules = rules(
        r##"on("in", |msg| {
            publish("plain", "x");
            publish("full", #{ b: 1, a: [1.0, ()] }, #{
                qos: 2, retain: true, expires: 1.5, content_type: "application/json", response_topic: "reply",
                correlation_data: "id", payload_is_utf8: true, user: #{ unit: "C" },
            });
            publish("same", msg.payload);
            publish("part", msg.json.part);
            publish("number", 1.0);
            publish("nothing", ());
        });"##,
    );
    let published = rules.actions("in", r#"{"part": {"z":1, "a":2} }"#).publish;
    assert!(published.iter().all(|(rule, _)| &**rule == "rules:1"));
    let draft = |place: usize| &published[place].1;
    assert_eq!((draft(0).qos, draft(0).retain, draft(0).expires_in), (QoS::AtMostOnce, false, None));
    assert!(draft(0).properties.is_empty(), "nothing is inherited from the message that was seen");
    assert_eq!((draft(1).qos, draft(1).retain), (QoS::ExactlyOnce, true));
    assert_eq!(draft(1).expires_in, Some(Duration::from_millis(1_500)));
    assert_eq!(draft(1).payload, r#"{"a":[1.0,null],"b":1}"#);
    let expected = Properties {
        payload_is_utf8: Some(true),
        content_type: Some("application/json".into()),
        response_topic: Some("reply".into()),
        correlation_data: Some("id".into()),
        user: vec![("unit".into(), "C".into())],
    };
    assert_eq!(draft(1).properties, expected);
    let payloads: Vec<&Bytes> = (2..6).map(|place| &draft(place).payload).collect();
    assert_eq!(payloads, [r#"{"part": {"z":1, "a":2} }"#, r#"{"z":1, "a":2}"#, "1.0", ""]);
}

#[test]
fn what_cannot_be_published_is_refused() {
    for (call, said) in [
        (r#"publish("$SYS/load", 1)"#, "are the broker's"),
        (r#"publish("$share/g/a", 1)"#, "are the broker's"),
        (r##"publish("a/#", 1)"##, "wildcards"),
        (r#"publish("", 1)"#, "empty"),
        (r#"publish("a", |x| x)"#, "no JSON form"),
        (r#"publish("a", 1, #{ Qos: 1 })"#, "none called \"Qos\"; there are qos"),
        (r#"publish("a", 1, #{ qos: 3 })"#, "0, 1 or 2"),
        (r#"sink("", #{})"#, "name is empty"),
        (r#"replace("a", 1)"#, "replace() can only be called in the handler of a transform()"),
        (r#"drop("x")"#, "drop() can only be called"),
        (r#"deliver("a", 1)"#, "deliver() can only be called in a test"),
        (r#"on("x", |msg| {})"#, "on() can only be called at the top level"),
    ] {
        let rules = rules(&format!(r#"on("a", |msg| {{ {call}; }});"#));
        let detail = rules.failure("a", "").detail;
        assert!(detail.contains(said), "{call}: {detail}");
    }
}

#[test]
fn a_rule_ends_early_by_return_or_exit() {
    let rules = rules(
        r#"on("a", |msg| { publish("b", 1); if msg.json.stop { return; } publish("b", 2); });
           on("a", |msg| { publish("c", 1); if msg.json.stop { exit(); } publish("c", 2); });"#,
    );
    assert_eq!(rules.actions("a", r#"{"stop":true}"#).publish.len(), 2);
    assert_eq!(rules.actions("a", r#"{"stop":false}"#).publish.len(), 4);
}

#[test]
fn the_folder_serves_two_hook_points() {
    let rules = rules("");
    let points: Vec<HookPoint> = rules.hook.points().iter().collect();
    assert_eq!(points, [HookPoint::OnPublish, HookPoint::OnMessage]);
}
