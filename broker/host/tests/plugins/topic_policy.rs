//! The `topic-policy` plugin: the first rule that has something to say decides.

use weirmq_host::LoadError;

use super::*;

fn rules() -> Value {
    json!({ "rules": [
        { "effect": "deny", "publish": ["secrets/#"], "subscribe": ["secrets/#"] },
        {
            "attributes": { "role": "device" },
            "publish": ["devices/{client_id}/#", { "filter": "raw/{principal}", "qos_max": 0, "retain": false }],
            "subscribe": ["sites/{attribute:site}/#", "users/{username}"],
        },
        { "principals": ["dashboard"], "subscribe": ["#"] },
    ] })
}

fn policy(config: &Value) -> Arc<PluginHook> {
    HOST.load(&configured("topic-policy", guest("topic-policy"), config)).unwrap()
}

/// A device called `client_id` at `site`.
fn device(client_id: &str, site: Option<&str>) -> Arc<Identity> {
    let mut attributes = vec![("role".into(), "device".into())];
    attributes.extend(site.map(|site| ("site".into(), site.into())));
    Arc::new(Identity {
        client_id: client_id.into(),
        username: None,
        peer: None,
        listener: "main".into(),
        lease: Lease { principal: "press".into(), attributes, ..Lease::default() },
    })
}

fn dashboard() -> Arc<Identity> {
    let lease = Lease { principal: "dashboard".into(), ..Lease::default() };
    let (client_id, listener) = ("d".into(), "main".into());
    Arc::new(Identity { client_id, username: None, peer: None, listener, lease })
}

fn decide(plugin: &PluginHook, identity: &Arc<Identity>, action: Action) -> Decision {
    let identity = Arc::clone(identity);
    wait(plugin.authorize(&Arc::new(AuthorizeRequest { identity, action }))).unwrap()
}

fn publish(topic: &str, qos: QoS, retain: bool) -> Action {
    Action::Publish { topic: TopicName::new(topic).unwrap(), qos, retain }
}

fn may_publish(plugin: &PluginHook, identity: &Arc<Identity>, topic: &str) -> bool {
    decide(plugin, identity, publish(topic, QoS::AtMostOnce, false)) == Decision::Allow
}

fn may_subscribe(plugin: &PluginHook, identity: &Arc<Identity>, filter: &str) -> bool {
    let filter = Subscribable::parse(filter).unwrap();
    decide(plugin, identity, Action::Subscribe { filter, qos: QoS::AtMostOnce }) == Decision::Allow
}

#[test]
fn a_device_speaks_for_itself_and_hears_its_site() {
    let plugin = policy(&rules());
    let press = device("c-1", Some("hall-3"));
    assert!(may_publish(&plugin, &press, "devices/c-1/state"));
    assert!(!may_publish(&plugin, &press, "devices/c-2/state"));
    assert!(may_subscribe(&plugin, &press, "sites/hall-3/+/alarm"));
    assert!(may_subscribe(&plugin, &press, "$share/g/sites/hall-3/#"), "a share is what it shares");
    assert!(!may_subscribe(&plugin, &press, "sites/+/alarm"), "a part is not the whole");
    assert!(!may_subscribe(&plugin, &press, "users/x"), "it has no user name");
    assert!(!may_subscribe(&plugin, &device("c-1", None), "sites/hall-3/#"), "it has no site");
    assert!(!may_publish(&plugin, &dashboard(), "devices/d/state"), "it is no device");
}

#[test]
fn a_denial_says_who_wanted_what_and_which_rule_denies() {
    let plugin = policy(&rules());
    let Decision::Deny(denial) = decide(&plugin, &dashboard(), publish("secrets/a", QoS::AtMostOnce, false))
    else {
        panic!("denied")
    };
    assert_eq!(denial.code as u8, 0x87);
    assert_eq!(&*denial.reason, "'dashboard' (d) publishing to 'secrets/a': rules[0] denies it");
    let Decision::Deny(denial) = decide(&plugin, &dashboard(), publish("a", QoS::AtMostOnce, false)) else {
        panic!("denied")
    };
    assert_eq!(&*denial.reason, "'dashboard' (d) publishing to 'a': no rule allows it");
}

#[test]
fn a_rule_that_denies_reaches_every_subscription_that_could_bring_its_topics() {
    let plugin = policy(&rules());
    for filter in ["#", "+/x", "secrets", "secrets/a/#", "+/#"] {
        assert!(!may_subscribe(&plugin, &dashboard(), filter), "{filter}");
    }
    for filter in ["devices/#", "sites/+/x"] {
        assert!(may_subscribe(&plugin, &dashboard(), filter), "{filter}");
    }
}

#[test]
fn limits_on_qos_and_retain_hold() {
    let plugin = policy(&rules());
    let press = device("c-1", None);
    assert!(may_publish(&plugin, &press, "raw/press"));
    for (qos, retain) in [(QoS::AtLeastOnce, false), (QoS::AtMostOnce, true)] {
        assert!(matches!(decide(&plugin, &press, publish("raw/press", qos, retain)), Decision::Deny(_)));
    }
}

#[test]
fn a_name_that_would_widen_a_filter_allows_nothing_and_is_denied_everything() {
    let plugin = policy(&rules());
    for site in ["+", "#", "a/b", ""] {
        assert!(!may_subscribe(&plugin, &device("c-1", Some(site)), "sites/hall-3/#"), "{site}");
    }
    let config = json!({ "rules": [
        { "effect": "deny", "publish": ["private/{attribute:site}/#"] },
        { "publish": ["#"] },
    ] });
    let open = policy(&config);
    assert!(may_publish(&open, &device("c-1", Some("a")), "private/b/x"));
    assert!(!may_publish(&open, &device("c-1", Some("a")), "private/a/x"));
    assert!(!may_publish(&open, &device("c-1", Some("+")), "private/b/x"));
    assert!(
        may_publish(&open, &device("c-1", None), "private/b/x"),
        "without a site there is nothing to deny"
    );
}

#[test]
fn what_no_rule_says_can_be_left_to_the_next_in_the_chain() {
    let mut config = rules();
    config["otherwise"] = json!("next");
    let plugin = policy(&config);
    assert_eq!(decide(&plugin, &dashboard(), publish("a", QoS::AtMostOnce, false)), Decision::Next);
    let secret = decide(&plugin, &dashboard(), publish("secrets/a", QoS::AtMostOnce, false));
    assert!(matches!(secret, Decision::Deny(_)));
}

#[test]
fn a_mistake_in_the_configuration_is_named() {
    let refusal = |config: Value| match HOST
        .load(&configured("topic-policy", guest("topic-policy"), &config))
        .err()
        .unwrap()
    {
        LoadError::Refused { reason, .. } => reason,
        other => panic!("{other}"),
    };
    let rule = |rule: Value| refusal(json!({ "rules": [{ "publish": ["a"] }, rule] }));
    for (reason, part) in [
        (refusal(json!({})), "rules"),
        (refusal(json!({ "rules": [] })), "rules: there is none"),
        (refusal(json!({ "rules": [{ "publish": ["a"] }], "otherwize": "next" })), "otherwize"),
        (rule(json!({})), "rules[1]: it has neither publish nor subscribe"),
        (rule(json!({ "publish": ["a/{user}"] })), "rules[1].publish[0]: 'a/{user}': there is no {user}"),
        (
            rule(json!({ "subscribe": ["b", "a/#/b"] })),
            "rules[1].subscribe[1]: 'a/#/b' is not a topic filter",
        ),
        (rule(json!({ "publish": [{ "filter": "a", "qos_max": 3 }] })), "rules[1].publish[0]: qos_max"),
        (rule(json!({ "subscribe": [{ "filter": "a", "retain": true }] })), "rules[1].subscribe[0]: retain"),
        (
            rule(json!({ "effect": "deny", "publish": [{ "filter": "a", "qos_max": 1 }] })),
            "rules[1].publish[0]: a rule that denies",
        ),
        (rule(json!({ "effect": "maybe", "publish": ["a"] })), "maybe"),
    ] {
        assert!(reason.contains(part), "{part}: {reason}");
    }
}
