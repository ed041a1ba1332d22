//! The `http-login` plugin: the service decides, is not asked twice, and its silence has an answer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use weirmq_core::hook::{Denial, Rights};
use weirmq_host::{Grant, HostGrant, LoadError, SecretSource};

use super::asking::{ok, server};
use super::*;

/// The plugin, asking the service at `port`.
fn http_login(folder: &TempDir, port: u16, change: &Value) -> Result<Arc<PluginHook>, LoadError> {
    let token = folder.path().join("token");
    std::fs::write(&token, "Bearer c0ffee\n").unwrap();
    let mut config = json!({
        "url": format!("http://127.0.0.1:{port}/mqtt"),
        "secret_headers": { "authorization": "token" },
        "timeout_ms": 20_000,
    });
    config.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    HOST.load(&PluginConfig {
        // What is remembered is remembered by one instance.
        instances_max: 1,
        secrets: BTreeMap::from([("token".to_owned(), SecretSource::File(token))]),
        grant: Grant { http: vec![HostGrant::Named("127.0.0.1".to_owned())], ..Grant::default() },
        ..configured("http-login", guest("http-login"), &config)
    })
}

fn status(line: &str, body: &str) -> String {
    format!("HTTP/1.1 {line}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

fn lease(plugin: &PluginHook, username: &str, password: &str) -> Lease {
    match authenticate(plugin, request(username, password)).unwrap() {
        Authentication::Allow { lease, .. } => lease,
        other => panic!("{other:?}"),
    }
}

fn denied(plugin: &PluginHook, username: &str) -> Denial {
    match authenticate(plugin, request(username, "x")).unwrap() {
        Authentication::Deny(denial) => denial,
        other => panic!("{other:?}"),
    }
}

/// A service that answers by user name, and how often it was asked.
fn service() -> (u16, Arc<AtomicUsize>) {
    let asked = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&asked);
    let port = server(move |request| {
        count.fetch_add(1, Ordering::SeqCst);
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert!(head.to_ascii_lowercase().contains("authorization: bearer c0ffee"), "{head}");
        let shown: Value = serde_json::from_str(body).unwrap();
        match shown["username"].as_str().unwrap() {
            "ann" if shown["password"] == "sesame" => ok(
                r#"{"result": "allow", "principal": "Ann", "attributes": {"site": "hall 3"}, "expires_in_seconds": 60,
                    "publish": ["a/#", {"filter": "b", "qos_max": 1, "retain": false}]}"#,
            ),
            "plain" => ok(r#"{"result": "allow"}"#),
            "denied" => ok(r#"{"result": "deny", "reason": "not today"}"#),
            "other" => status("204 No Content", ""),
            "forbidden" => status("403 Forbidden", "go\naway"),
            "broken" => status("500 Oops", ""),
            "nonsense" => ok(r#"{"result": "perhaps"}"#),
            "bad-filter" => ok(r##"{"result": "allow", "publish": ["a/#/b"]}"##),
            _ => ok(&json!({ "result": "deny", "reason": body }).to_string()),
        }
    });
    (port, asked)
}

#[test]
fn the_service_decides_who_is_let_in_and_on_which_terms() {
    let folder = folder();
    let plugin = http_login(&folder, service().0, &json!({})).unwrap();
    let ann = lease(&plugin, "ann", "sesame");
    assert_eq!(&*ann.principal, "Ann");
    assert_eq!(ann.attributes, [("site".into(), "hall 3".into())]);
    assert_eq!(ann.expires_in, Some(Duration::from_secs(60)));
    let Rights { publish, subscribe } = &*ann.rights.unwrap();
    assert_eq!(publish.iter().map(|right| right.filter.as_str()).collect::<Vec<_>>(), ["a/#", "b"]);
    assert!(subscribe.is_empty());
    let plain = lease(&plugin, "plain", "x");
    assert_eq!((&*plain.principal, plain.rights), ("plain", None));
    assert_eq!(&*denied(&plugin, "denied").reason, "not today");
    assert_eq!(&*denied(&plugin, "forbidden").reason, "the service says 403: goaway");
    assert_eq!(authenticate(&plugin, request("other", "x")), Ok(Authentication::Next));
}

#[test]
fn all_that_the_client_shows_reaches_the_service() {
    let folder = folder();
    let plugin = http_login(&folder, service().0, &json!({})).unwrap();
    let shown = AuthenticateRequest { password: Some(Bytes::from_static(&[0xff])), ..request("echo", "") };
    let Ok(Authentication::Deny(denial)) = authenticate(&plugin, shown) else { panic!("denied") };
    let shown: Value = serde_json::from_str(&denial.reason).unwrap();
    let expected = json!({
        "client_id": "client-1", "username": "echo", "password": null, "password_base64": "/w==",
        "protocol": "5.0", "peer": "192.0.2.7:4711", "listener": "main", "user_properties": [["a", "b"]],
    });
    assert_eq!(shown, expected);
}

#[test]
fn the_service_is_not_asked_twice_for_the_same_but_for_another_password() {
    let folder = folder();
    let (port, asked) = service();
    let plugin = http_login(&folder, port, &json!({})).unwrap();
    for _ in 0..3 {
        lease(&plugin, "ann", "sesame");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    authenticate(&plugin, request("ann", "other")).unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 2, "another password is another question");
    let forgetful = http_login(&folder, port, &json!({ "cache_seconds": 0 })).unwrap();
    for _ in 0..2 {
        lease(&forgetful, "plain", "x");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 4);
}

#[test]
fn no_answer_is_a_refusal_that_says_so_or_left_to_the_next() {
    let folder = folder();
    let (port, _) = service();
    let plugin = http_login(&folder, port, &json!({})).unwrap();
    for (username, why) in
        [("broken", "status 500"), ("nonsense", "no answer"), ("bad-filter", "'a/#/b' is not a topic filter")]
    {
        let denial = denied(&plugin, username);
        assert_eq!(denial.code as u8, 0x88, "{username}");
        assert!(denial.reason.contains(why), "{username}: {}", denial.reason);
    }
    let lenient = http_login(&folder, port, &json!({ "unreachable": "next" })).unwrap();
    assert_eq!(authenticate(&lenient, request("broken", "x")), Ok(Authentication::Next));
}

#[test]
fn a_service_that_hangs_costs_its_time_out_and_no_more() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = folder();
    let port = silent.local_addr().unwrap().port();
    let plugin = http_login(&folder, port, &json!({ "timeout_ms": 200 })).unwrap();
    let started = std::time::Instant::now();
    let denial = denied(&plugin, "ann");
    assert!(denial.reason.contains("more than 200 ms"), "{}", denial.reason);
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_mistake_in_the_configuration_is_named() {
    let folder = folder();
    for (change, part) in [
        (json!({ "url": "login.example.com" }), "url: 'login.example.com'"),
        (json!({ "timeout_ms": 0 }), "timeout_ms: 1 to 60000"),
        (json!({ "cache_entries_max": 1_000_000 }), "cache_entries_max"),
        (json!({ "headers": { "x y": "z" } }), "headers.x y"),
        (json!({ "secret_headers": { "authorization": "tokn" } }), "secret_headers.authorization"),
        (json!({ "unreachable": "allow" }), "allow"),
        (json!({ "cache": 1 }), "cache"),
    ] {
        match http_login(&folder, 1, &change).err().unwrap() {
            LoadError::Refused { reason, .. } => assert!(reason.contains(part), "{part}: {reason}"),
            other => panic!("{part}: {other}"),
        }
    }
}
