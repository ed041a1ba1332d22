//! The `json-schema` plugin: what does not fit its schema is dropped or goes elsewhere, and says why.

use weirmq_core::hook::{Denial, Draft};
use weirmq_host::LoadError;

use super::*;

fn checks() -> Value {
    let reading = json!({
        "type": "object",
        "required": ["celsius"],
        "additionalProperties": false,
        "properties": {
            "celsius": { "type": "number", "minimum": -273.15 },
            "tags": { "type": "array", "uniqueItems": true, "items": { "$ref": "#/$defs/tag" } },
        },
        "$defs": { "tag": { "type": "string", "pattern": "^[a-z]+$" } },
    });
    json!({ "checks": [
        { "topics": ["sensors/+/reading"], "schema": reading },
        { "topics": ["orders/#", "returns"], "schema_json": r#"{"required": ["id"]}"#, "redirect": "invalid/{topic}" },
    ] })
}

fn schemas(config: &Value) -> Arc<PluginHook> {
    HOST.load(&configured("json-schema", guest("json-schema"), config)).unwrap()
}

fn answer(plugin: &Arc<PluginHook>, topic: &str, payload: &str) -> Transformed {
    wait(bound(plugin, topic).transform(&Arc::new(message(topic, payload.as_bytes())), now())).unwrap()
}

fn dropped(plugin: &Arc<PluginHook>, topic: &str, payload: &str) -> Denial {
    match answer(plugin, topic, payload) {
        Transformed::Drop(denial) => denial,
        other => panic!("{payload}: {other:?}"),
    }
}

fn redirected(plugin: &Arc<PluginHook>, topic: &str, payload: &str) -> Draft {
    match answer(plugin, topic, payload) {
        Transformed::Replace(draft) => *draft,
        other => panic!("{payload}: {other:?}"),
    }
}

#[test]
fn what_fits_passes_untouched() {
    let plugin = schemas(&checks());
    assert_eq!(plugin.info().topics, ["sensors/+/reading", "orders/#", "returns"]);
    for payload in [r#"{"celsius": 21.5}"#, r#"{"celsius": 0, "tags": ["a", "b"]}"#] {
        assert_eq!(answer(&plugin, "sensors/a/reading", payload), Transformed::Pass, "{payload}");
    }
    assert_eq!(answer(&plugin, "returns", r#"{"id": 1}"#), Transformed::Pass);
}

#[test]
fn what_does_not_fit_is_dropped_with_the_place_and_the_reason() {
    let plugin = schemas(&checks());
    for (payload, fault) in [
        (r#"{"celsius": "hot"}"#, r#"/celsius: "hot" is not of type "number""#),
        (r#"{"celsius": -300}"#, "/celsius: -300 is less than the minimum of -273.15"),
        ("{}", r#"the payload: "celsius" is a required property"#),
        (r#"{"celsius": 1, "x": 2}"#, "x"),
        (r#"{"celsius": 1, "tags": ["a", "a"]}"#, "/tags: "),
        (r#"{"celsius": 1, "tags": ["A"]}"#, "/tags/0: "),
        ("21.5", "the payload: "),
        ("{", "it is not JSON: "),
        ("", "it is not JSON: "),
    ] {
        let denial = dropped(&plugin, "sensors/a/reading", payload);
        assert_eq!(denial.code as u8, 0x99);
        assert!(denial.reason.contains(fault), "{payload}: {}", denial.reason);
    }
    let long = format!(r#"{{"celsius": "{}"}}"#, "ä".repeat(10_000));
    assert!(dropped(&plugin, "sensors/a/reading", &long).reason.len() < 400, "the log is not flooded");
}

#[test]
fn what_does_not_fit_goes_where_the_check_says_and_carries_the_fault() {
    let plugin = schemas(&checks());
    let draft = redirected(&plugin, "orders/eu/7", r#"{"name": "x"}"#);
    assert_eq!(draft.topic.as_str(), "invalid/orders/eu/7");
    assert_eq!(&*draft.payload, br#"{"name": "x"}"#);
    let user: Vec<_> = draft.properties.user.iter().map(|(name, value)| (&**name, &**value)).collect();
    assert_eq!(user, [("schema-fault", r#"the payload: "id" is a required property"#)]);
}

#[test]
fn a_mistake_in_the_configuration_is_named() {
    let refusal = |config: Value| match HOST
        .load(&configured("json-schema", guest("json-schema"), &config))
        .err()
        .unwrap()
    {
        LoadError::Refused { reason, .. } => reason,
        other => panic!("{other}"),
    };
    let check = |key: &str, value: Value| {
        let mut config = checks();
        config["checks"][1][key] = value;
        refusal(config)
    };
    for (reason, part) in [
        (refusal(json!({ "checks": [] })), "checks: there is none"),
        (check("topics", json!([])), "checks[1].topics: there is none"),
        (check("topics", json!(["a/#/b"])), "checks[1].topics[0]: 'a/#/b' is not a topic filter"),
        (check("schema", json!({})), "checks[1].schema: either"),
        (check("schema_json", json!("{")), "checks[1].schema_json: it is not JSON"),
        (check("schema_json", json!(r#"{"type": "nmber"}"#)), "checks[1].schema_json: not a JSON Schema"),
        (
            check("schema_json", json!(r#"{"$ref": "https://example.com/s"}"#)),
            "checks[1].schema_json: not a JSON",
        ),
        (check("schema_json", json!(r#"{"pattern": "(?=a)"}"#)), "checks[1].schema_json: not a JSON Schema"),
        (check("redirect", json!("invalid")), "checks[1].redirect: 'invalid' wants {topic}"),
        (check("redirect", json!("{topic}")), "checks[1].redirect"),
        (check("redirect", json!("a/+/{topic}")), "checks[1].redirect"),
        (check("redirct", json!("a/{topic}")), "redirct"),
    ] {
        assert!(reason.contains(part), "{part}: {reason}");
    }
}
