//! What is asked in few words means what the whole question does.

use weirmq_core::topic::Subscribable;

use super::*;

/// The identity of a client, about which the whole question must be asked where `more` is to be said of it.
fn client(more: bool) -> Arc<Identity> {
    let attributes = if more { vec![("role".into(), "operator".into())] } else { Vec::new() };
    Arc::new(Identity {
        client_id: "кран-7".into(),
        username: Some("".into()),
        peer: Some("192.0.2.7:4711".parse().unwrap()),
        listener: "main".into(),
        lease: Lease { principal: "crane".into(), attributes, ..Lease::default() },
    })
}

/// How the plugin retells what it is asked.
fn retold(plugin: &PluginHook, identity: Arc<Identity>, action: Action) -> String {
    let answer = wait(plugin.authorize(&Arc::new(AuthorizeRequest { identity, action })));
    let Ok(Decision::Deny(denial)) = answer else { panic!("{answer:?}") };
    denial.reason
}

#[test]
fn a_plugin_hears_the_same_of_a_client_in_few_words() {
    let plugin = hostile();
    assert_eq!(plugin.info().in_brief, [HookPoint::Authorize, HookPoint::OnPublish].into_iter().collect());
    let topic = TopicName::new("retell").unwrap();
    let filter = |filter| Subscribable::parse(filter).unwrap();
    let attribute = r#"[Pair { name: "role", value: "operator" }]"#;
    for action in [
        Action::Publish { topic: topic.clone(), qos: QoS::ExactlyOnce, retain: true },
        Action::Publish { topic, qos: QoS::AtMostOnce, retain: false },
        Action::Subscribe { filter: filter("retell"), qos: QoS::AtLeastOnce },
        Action::Subscribe { filter: filter("$share/cranes/retell"), qos: QoS::AtMostOnce },
    ] {
        let whole = retold(&plugin, client(true), action.clone());
        assert!(
            whole.contains("кран-7") && whole.contains("192.0.2.7:4711") && whole.contains("crane"),
            "{whole}"
        );
        assert!(whole.contains(attribute), "{whole}");
        assert_eq!(retold(&plugin, client(false), action), whole.replace(attribute, "[]"));
    }
    let bare = Identity { username: None, peer: None, client_id: "".into(), ..(*client(false)).clone() };
    let action = Action::Subscribe { filter: filter("retell"), qos: QoS::AtMostOnce };
    let told = retold(&plugin, Arc::new(bare), action);
    assert!(told.contains("username: None") && told.contains("peer: None"), "{told}");
}

#[test]
fn a_plugin_hears_the_same_of_a_message_in_few_words() {
    let plugin = hostile();
    let plain = Message {
        topic: TopicName::new("センサー/温度").unwrap(),
        qos: QoS::ExactlyOnce,
        retain: true,
        expires_at: Some(Instant::from_micros(3_500_000)),
        hops: 3,
        ..message("x", b"retell")
    };
    let retold = |message: &Message| {
        let answer = wait(bound(&plugin, "x").transform(&Arc::new(message.clone()), now()));
        let Ok(Transformed::Drop(denial)) = answer else { panic!("{answer:?}") };
        denial.reason
    };
    let content_type = Some("text/plain".into());
    let more = Message { properties: Properties { content_type, ..Properties::default() }, ..plain.clone() };
    let whole = retold(&more);
    assert!(
        whole.contains(r#"Some("text/plain")"#) && whole.contains("expires-in-ms: Some(2500)"),
        "{whole}"
    );
    assert_eq!(retold(&plain), whole.replace(r#"Some("text/plain")"#, "None"));
    let by_rule = Message { publisher: Publisher::Rule("alerts".into()), ..plain };
    assert!(retold(&by_rule).contains(r#"Rule("alerts")"#));
}

#[test]
fn what_a_plugin_makes_of_a_message_is_the_same_in_few_words() {
    let plugin = hostile();
    for command in [
        "upper",
        "fine",
        "drop",
        "several",
        "none",
        "other-qos",
        "other-topic",
        "retained",
        "marked",
        "for-ever",
        "bad-topic",
        "bad-second",
    ] {
        let plain = Message {
            expires_at: Some(Instant::from_micros(3_500_000)),
            ..message("a/b", command.as_bytes())
        };
        let by_rule = Message { publisher: Publisher::Rule("alerts".into()), ..plain.clone() };
        let [brief, whole] = [plain, by_rule].map(|message| {
            let answer = wait(bound(&plugin, "a/b").transform(&Arc::new(message.clone()), now()));
            answer.map(|answer| answer.spelt_out(&message, now()))
        });
        assert_eq!(brief, whole, "{command}");
    }
}

#[test]
fn a_replacement_that_changes_the_payload_alone_is_answered_as_a_payload() {
    let plugin = hostile();
    let answer = wait(bound(&plugin, "a/b").transform(&Arc::new(message("a/b", b"upper")), now()));
    assert_eq!(answer, Ok(Transformed::WithPayload(Bytes::from_static(b"UPPER"))));
}

#[test]
fn texts_of_any_length_are_said_in_few_words() {
    let plugin = hostile();
    let long = "x".repeat(60_000);
    let identity = Identity { client_id: long.as_str().into(), ..(*client(false)).clone() };
    let topic = TopicName::new("retell").unwrap();
    let action = Action::Publish { topic, qos: QoS::AtMostOnce, retain: false };
    assert!(retold(&plugin, Arc::new(identity), action.clone()).contains(&long));
    assert!(!retold(&plugin, client(false), action).contains("xxx"), "nothing is left over for the next");
}
