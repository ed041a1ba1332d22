//! What the broker knows reaches the plugin, and what the plugin answers reaches the broker.

use std::time::Duration;

use weirmq_core::counters::DropReason;
use weirmq_core::hook::{
    AuthExchange, Delivery, Denial, Event, EventKind, HookPoint, HookPoints, Persisted, ReasonCode,
};
use weirmq_core::topic::TopicFilter;

use super::*;

#[test]
fn a_plugin_serves_what_it_exports_and_nothing_else() {
    let login = HOST.load(&configured("login", guest("login"), &json!({}))).unwrap();
    assert_eq!(login.points(), HookPoints::NONE.with(HookPoint::Authenticate));
    assert!(Arc::clone(&login).on_publish(&TopicName::new("a").unwrap()).is_none());
    let all = [
        HookPoint::Authenticate,
        HookPoint::Authorize,
        HookPoint::OnPublish,
        HookPoint::OnDeliver,
        HookPoint::OnSubscribe,
        HookPoint::OnUnsubscribe,
        HookPoint::Persistence,
        HookPoint::Lifecycle,
        HookPoint::Timer,
    ];
    assert_eq!(hostile().points(), all.into_iter().collect());
}

#[test]
fn a_plugin_is_named_by_the_configuration_and_tells_its_own_name_and_version() {
    let info = HOST.check(&configured("door", guest("login"), &json!({}))).unwrap();
    assert_eq!((info.name.as_str(), info.plugin.as_str(), info.version.as_str()), ("door", "login", "0.1.0"));
    assert_eq!(info.api_version, weirmq_host::API_VERSION);
    assert_eq!(info.bytes, std::fs::metadata(guest("login")).unwrap().len());
}

#[test]
fn all_of_a_login_reaches_the_plugin_and_all_of_the_lease_comes_back() {
    let plugin = hostile();
    let Authentication::Allow { lease, data } =
        authenticate(&plugin, request("everything", "secret\u{0}bytes")).unwrap()
    else {
        panic!("it was let in")
    };
    assert_eq!(data.as_deref(), Some(&b"secret\0bytes"[..]));
    let attribute = |name: &str| lease.attributes.iter().find(|pair| &*pair.0 == name).map(|pair| &*pair.1);
    assert_eq!(attribute("peer"), Some("192.0.2.7:4711"));
    assert_eq!(attribute("listener"), Some("main"));
    assert_eq!(attribute("client-id"), Some("client-1"));
    assert_eq!(attribute("properties"), Some("1"));
    assert_eq!(lease.expires_in, Some(Duration::from_secs(60)));
    let rights = lease.rights.unwrap();
    assert_eq!(rights.publish[0].filter, TopicFilter::new("a/+").unwrap());
    assert_eq!((rights.publish[0].qos_max, rights.publish[0].retain), (QoS::ExactlyOnce, true));
    assert_eq!(rights.subscribe[0].filter, TopicFilter::new("b/#").unwrap());
}

#[test]
fn the_other_answers_of_a_login_come_back() {
    let plugin = hostile();
    assert_eq!(authenticate(&plugin, request("next", "")), Ok(Authentication::Next));
    let Ok(Authentication::Deny(denial)) = authenticate(&plugin, request("deny", "")) else {
        panic!("it was denied")
    };
    assert_eq!((denial.code as u8, denial.reason.as_str()), (0x86, "told to deny"));
    let exchange = AuthExchange { id: 1, step: 0, method: "M".into(), data: None, renewal: false };
    let asked = AuthenticateRequest { exchange: Some(exchange), ..request("challenge", "") };
    let data = Some(Bytes::from_static(b"challenge"));
    assert_eq!(authenticate(&plugin, asked), Ok(Authentication::Continue { data }));
}

#[test]
fn rights_are_answered() {
    let plugin = hostile();
    assert_eq!(authorize(&plugin, "fine"), Ok(Decision::Allow));
    assert_eq!(authorize(&plugin, "next"), Ok(Decision::Next));
    let denial = Denial::new(ReasonCode::NotAuthorized, "somebody may not");
    assert_eq!(authorize(&plugin, "deny"), Ok(Decision::Deny(denial)));
}

#[test]
fn a_message_is_passed_replaced_dropped_or_multiplied() {
    let plugin = hostile();
    assert_eq!(transform(&plugin, "fine"), Ok(Transformed::Pass));
    let Ok(Transformed::Replace(draft)) = transform(&plugin, "upper") else { panic!("it was replaced") };
    assert_eq!((draft.topic.as_str(), &*draft.payload), ("a/b", &b"UPPER"[..]));
    let Ok(Transformed::Drop(denial)) = transform(&plugin, "drop") else { panic!("it was dropped") };
    assert_eq!((denial.code as u8, denial.reason.as_str()), (0x99, "told to drop"));
    let Ok(Transformed::Several(drafts)) = transform(&plugin, "several") else { panic!("there are several") };
    assert_eq!(drafts.iter().map(|draft| draft.topic.as_str()).collect::<Vec<_>>(), ["a/b", "a/b/copy"]);
}

#[test]
fn every_property_of_a_message_survives_the_way_through_a_plugin() {
    let plugin = hostile();
    let properties = Properties {
        payload_is_utf8: Some(true),
        content_type: Some("text/plain".into()),
        response_topic: Some("answers/1".into()),
        correlation_data: Some(Bytes::from_static(b"\0\x01\xff")),
        user: vec![("k".into(), "1".into()), ("k".into(), "2".into())],
    };
    let sent = Message {
        topic: TopicName::new("センサー/温度").unwrap(),
        qos: QoS::ExactlyOnce,
        retain: true,
        properties: properties.clone(),
        expires_at: Some(Instant::from_micros(3_500_000)),
        ..message("x", b"upper")
    };
    let answer = wait(bound(&plugin, "センサー/温度").transform(&Arc::new(sent), now()));
    let Ok(Transformed::Replace(draft)) = answer else { panic!("{answer:?}") };
    assert_eq!(draft.topic, "センサー/温度");
    assert_eq!((draft.qos, draft.retain), (QoS::ExactlyOnce, true));
    assert_eq!(draft.properties, properties);
    assert_eq!(draft.expires_in, Some(Duration::from_millis(2_500)));
}

#[test]
fn a_topic_that_the_plugin_does_not_want_costs_it_nothing() {
    let config = configured("hostile", guest("hostile"), &json!({ "topics": ["raw/+/temperature"] }));
    let plugin = HOST.load(&config).unwrap();
    let wants = |topic: &str| Arc::clone(&plugin).on_publish(&TopicName::new(topic).unwrap()).is_some();
    assert!(wants("raw/press-1/temperature"));
    assert!(!wants("raw/press-1/pressure"));
    assert_eq!(plugin.info().topics, ["raw/+/temperature"]);
}

#[test]
fn filters_are_passed_rewritten_or_denied() {
    let plugin = hostile();
    assert_eq!(subscribe(&plugin, "$share/g/a/#"), Ok(FilterVerdict::Pass));
    let rewritten = Subscribable::parse("$share/g/rewritten/#").unwrap();
    assert_eq!(subscribe(&plugin, "rewrite"), Ok(FilterVerdict::Rewrite(rewritten.clone())));
    assert!(matches!(subscribe(&plugin, "deny"), Ok(FilterVerdict::Deny(_))));
    assert_eq!(
        wait(plugin.on_unsubscribe(&filter_request("rewrite"))),
        Ok(FilterVerdict::Rewrite(rewritten))
    );
}

#[test]
fn the_plugin_reads_its_configuration() {
    let config = configured("hostile", guest("hostile"), &json!({ "topics": ["a/\"b\""] }));
    assert_eq!(principal(&HOST.load(&config).unwrap(), "config"), r#"["a/\"b\""]"#);
}

#[test]
fn events_are_told_beside_the_worker_and_their_failures_counted() {
    let plugin = hostile();
    let ended = |client_id: &str| Event::SessionEnded { client_id: client_id.into() };
    plugin.on_event(&Event::Connected { identity: identity(), version: Version::V5 }, now());
    plugin.on_event(&ended("trap"), now());
    plugin.on_event(&Event::Disconnected { identity: identity(), reason: "bye".to_owned() }, now());
    eventually(|| plugin.stats().calls == [(HookPoint::Lifecycle, 3)]);
    assert_eq!(plugin.stats().failures, [(FailureKind::Crash, 1)]);
}

fn deliver(plugin: &Arc<PluginHook>, payload: &str) -> Result<Delivery, Failure> {
    let bound = Arc::clone(plugin).on_deliver(&TopicName::new("a/b").unwrap()).unwrap();
    bound.deliver(&Arc::new(message("a/b", payload.as_bytes())), &identity(), now())
}

#[test]
fn a_delivery_is_passed_replaced_or_dropped_for_one_receiver() {
    let plugin = hostile();
    assert_eq!(deliver(&plugin, "fine"), Ok(Delivery::Pass));
    let Ok(Delivery::Replace(draft)) = deliver(&plugin, "upper") else { panic!("it was replaced") };
    assert_eq!((draft.topic.as_str(), &*draft.payload, draft.qos), ("a/b", &b"UPPER"[..], QoS::AtLeastOnce));
    assert_eq!(draft.properties.user, [("for".into(), "client-1".into())]);
    assert_eq!(deliver(&plugin, "drop"), Ok(Delivery::Drop("not for somebody".to_owned())));
    assert_eq!(kind(deliver(&plugin, "trap")), FailureKind::Crash);
    assert_eq!(kind(deliver(&plugin, "bad-property")), FailureKind::BadAnswer);
}

#[test]
fn what_is_stored_is_sealed_and_opened_again_or_kept_or_left_out() {
    let plugin = hostile();
    let bound = Arc::clone(&plugin).persistence(&TopicName::new("a/b").unwrap()).unwrap();
    let store = |payload: &str| bound.before_store(&Arc::new(message("a/b", payload.as_bytes())));
    assert_eq!(store("keep"), Ok(Persisted::Keep));
    assert_eq!(store("skip"), Ok(Persisted::Skip));
    let Ok(Persisted::Replace(sealed)) = store("21.5") else { panic!("it was sealed") };
    assert_eq!(&*sealed, b"sealed:21.5");
    assert_eq!(bound.after_load(&message("a/b", &sealed)).as_deref(), Ok(&b"21.5"[..]));
    let failure = bound.after_load(&message("a/b", b"something else")).unwrap_err();
    assert_eq!((failure.kind, failure.detail.as_str()), (FailureKind::Unavailable, "it has no seal"));
    assert_eq!(kind(store("trap")), FailureKind::Crash);
}

#[test]
fn deliveries_and_stored_messages_of_other_topics_cost_nothing() {
    let config = configured("hostile", guest("hostile"), &json!({ "topics": ["raw/#"] }));
    let plugin = HOST.load(&config).unwrap();
    let topic = |name: &str| TopicName::new(name).unwrap();
    assert!(Arc::clone(&plugin).on_deliver(&topic("a")).is_none());
    assert!(Arc::clone(&plugin).persistence(&topic("a")).is_none());
    assert!(Arc::clone(&plugin).on_deliver(&topic("raw/a")).is_some());
    assert!(Arc::clone(&plugin).persistence(&topic("raw/a")).is_some());
}

#[test]
fn only_the_events_that_it_asks_for_are_told() {
    let config =
        configured("hostile", guest("hostile"), &json!({ "events": ["message-dropped", "connected"] }));
    let plugin = HOST.load(&config).unwrap();
    let events = plugin.events();
    for (kind, wanted) in [
        (EventKind::Connected, true),
        (EventKind::Disconnected, false),
        (EventKind::MessageDropped, true),
        (EventKind::MessageAcked, false),
    ] {
        assert_eq!(events.contains(kind), wanted, "{kind:?}");
    }
    let topic = TopicName::new("a/b").unwrap();
    let dropped = Event::MessageDropped { client_id: None, topic, reason: DropReason::QueueFull };
    plugin.on_event(&dropped, now());
    eventually(|| plugin.stats().calls == [(HookPoint::Lifecycle, 1)]);
    assert_eq!(plugin.stats().failures, []);
}

#[test]
fn the_timer_is_called_when_its_interval_is_over_and_counts_together_across_instances() {
    let plugin =
        HOST.load(&configured("ticking", guest("hostile"), &json!({ "interval_ms": 5000 }))).unwrap();
    let at = |seconds: u64| Now { at: Instant::from_micros(seconds * 1_000_000), unix_ms: seconds * 1000 };
    let ticks =
        || plugin.stats().calls.iter().find(|(point, _)| *point == HookPoint::Timer).map_or(0, |(_, n)| *n);
    for (second, expected) in [(100, 1), (101, 1), (104, 1), (105, 2), (109, 2), (111, 3)] {
        eventually(|| {
            // A call that is not quite over keeps the next one from beginning: told again, it begins.
            plugin.on_timer(at(second));
            ticks() == expected && counted(&plugin, "ticks") == Some(expected)
        });
        assert!(plugin.stats().failures.is_empty());
    }
}

fn counted(plugin: &PluginHook, name: &str) -> Option<u64> {
    plugin.figures().into_iter().find_map(|(own, figure)| match figure {
        weirmq_host::Figure::Counter(count) if own == name => Some(count),
        _ => None,
    })
}
