//! The login plugin that ships.

use std::time::Duration;

use weirmq_core::hook::{AuthExchange, Denial, ReasonCode, Rights};
use weirmq_host::LoadError;

use super::*;

/// "sesame", at the price that `weirmq hash-password` sets (19 MiB, 4 passes).
const SESAME: &str =
    "$argon2id$v=19$m=19456,t=4,p=1$c29tZXNhbHRzb21lc2FsdA$OGgOHBjYJLKTy22juFq3z2E4nJeSSq9A2VZJGQ8283s";

fn users() -> Value {
    json!({
        "users": {
            "press-1": { "password_hash": SESAME, "role": "device", "attributes": { "line": "a" } },
            "a/#": { "password_hash": SESAME, "role": "device" },
            "$SYS": { "password_hash": SESAME, "role": "top" },
            "viewer": { "password_hash": SESAME, "role": "viewer" },
        },
        "roles": {
            "device": {
                "publish": ["factory/+/{username}/#", { "filter": "raw/{client_id}", "qos_max": 1, "retain": false }],
                "subscribe": ["commands/{username}/#", { "filter": "all", "qos_max": 0 }],
                "expires_in_seconds": 3600,
            },
            "top": { "publish": ["{username}/#"] },
            "viewer": { "subscribe": ["factory/#"] },
        },
    })
}

fn login() -> Arc<PluginHook> {
    HOST.load(&configured("login", guest("login"), &users())).unwrap()
}

fn denied(answer: Result<Authentication, Failure>) -> Denial {
    match answer {
        Ok(Authentication::Deny(denial)) => denial,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_right_password_brings_the_rights_of_the_role() {
    let answer = authenticate(&login(), request("press-1", "sesame")).unwrap();
    let Authentication::Allow { lease, .. } = answer else { panic!("{answer:?}") };
    assert_eq!(&*lease.principal, "press-1");
    assert_eq!(lease.expires_in, Some(Duration::from_secs(3600)));
    assert_eq!(lease.attributes, [("role".into(), "device".into()), ("line".into(), "a".into())]);
    let Rights { publish, subscribe } = &*lease.rights.unwrap();
    let publish: Vec<_> =
        publish.iter().map(|right| (right.filter.as_str(), right.qos_max, right.retain)).collect();
    assert_eq!(
        publish,
        [("factory/+/press-1/#", QoS::ExactlyOnce, true), ("raw/client-1", QoS::AtLeastOnce, false)]
    );
    let subscribe: Vec<_> = subscribe.iter().map(|right| (right.filter.as_str(), right.qos_max)).collect();
    assert_eq!(subscribe, [("commands/press-1/#", QoS::ExactlyOnce), ("all", QoS::AtMostOnce)]);
}

#[test]
fn a_wrong_password_and_an_unknown_user_look_the_same_to_the_client() {
    let plugin = login();
    let wrong = denied(authenticate(&plugin, request("press-1", "Sesame")));
    let none =
        denied(authenticate(&plugin, AuthenticateRequest { password: None, ..request("press-1", "") }));
    let unknown = denied(authenticate(&plugin, request("nobody", "sesame")));
    assert_eq!([wrong.code, none.code, unknown.code].map(|code| code as u8), [0x86; 3]);
    assert!(wrong.reason.contains("press-1"), "the log says whom: {}", wrong.reason);
    assert!(unknown.reason.contains("nobody"), "the log says whom: {}", unknown.reason);
}

#[test]
fn an_unknown_user_costs_as_much_as_a_wrong_password() {
    let plugin = login();
    let time = |username: &str| {
        let started = std::time::Instant::now();
        denied(authenticate(&plugin, request(username, "wrong")));
        started.elapsed()
    };
    // One after the other, so that a machine that is busy for a while is busy for both.
    let times: Vec<_> = (0..8).map(|_| (time("press-1"), time("nobody"))).collect();
    let wrong = times.iter().map(|(wrong, _)| *wrong).min().unwrap();
    let unknown = times.iter().map(|(_, unknown)| *unknown).min().unwrap();
    assert!(unknown > wrong / 2 && unknown < wrong * 2, "wrong password {wrong:?}, unknown user {unknown:?}");
}

#[test]
fn no_name_that_a_client_chooses_widens_its_rights() {
    let plugin = login();
    let by_user = denied(authenticate(&plugin, request("a/#", "sesame")));
    assert_eq!(by_user.code, ReasonCode::NotAuthorized);
    let reserved = denied(authenticate(&plugin, request("$SYS", "sesame")));
    assert_eq!(reserved.code, ReasonCode::NotAuthorized);
    for client_id in ["+", "#", "a/b", "a\0b", ""] {
        let asked = AuthenticateRequest { client_id: client_id.into(), ..request("press-1", "sesame") };
        let denial = denied(authenticate(&plugin, asked));
        assert_eq!(denial.code, ReasonCode::NotAuthorized, "{client_id:?}");
    }
    let unused = AuthenticateRequest { client_id: "a/b".into(), ..request("viewer", "sesame") };
    assert!(matches!(authenticate(&plugin, unused), Ok(Authentication::Allow { .. })));
}

#[test]
fn who_shows_no_user_name_is_left_to_the_next_in_the_chain() {
    let plugin = login();
    let nameless = AuthenticateRequest { username: None, password: None, ..request("", "") };
    assert_eq!(authenticate(&plugin, nameless), Ok(Authentication::Next));
    let mut config = users();
    config["unknown_user"] = json!("next");
    let lenient = HOST.load(&configured("login", guest("login"), &config)).unwrap();
    assert_eq!(authenticate(&lenient, request("nobody", "sesame")), Ok(Authentication::Next));
    denied(authenticate(&lenient, request("press-1", "wrong")));
}

#[test]
fn enhanced_authentication_is_refused() {
    let exchange =
        AuthExchange { id: 1, step: 0, method: "SCRAM-SHA-256".into(), data: None, renewal: false };
    let asked = AuthenticateRequest { exchange: Some(exchange), ..request("press-1", "sesame") };
    assert_eq!(denied(authenticate(&login(), asked)).code as u8, 0x8c);
}

#[test]
fn a_mistake_in_the_configuration_is_named() {
    let refusal = |change: &dyn Fn(&mut Value)| {
        let mut config = users();
        change(&mut config);
        match HOST.load(&configured("login", guest("login"), &config)).err().unwrap() {
            LoadError::Refused { reason, .. } => reason,
            other => panic!("{other}"),
        }
    };
    let role = refusal(&|config| config["users"]["press-1"]["role"] = json!("devise"));
    assert!(role.contains("users.press-1.role") && role.contains("devise"), "{role}");
    let hash = refusal(&|config| config["users"]["press-1"]["password_hash"] = json!("sesame"));
    assert!(hash.contains("users.press-1.password_hash") && hash.contains("weirmq hash-password"), "{hash}");
    let template = refusal(&|config| config["roles"]["device"]["publish"] = json!(["a/{user}"]));
    assert!(template.contains("roles.device.publish[0]") && template.contains("{user}"), "{template}");
    let filter = refusal(&|config| config["roles"]["device"]["subscribe"] = json!(["a/#/b"]));
    assert!(filter.contains("roles.device.subscribe[0]"), "{filter}");
    let key = refusal(&|config| config["userz"] = json!({}));
    assert!(key.contains("userz"), "{key}");
    let dear = refusal(&|config| {
        config["users"]["viewer"]["password_hash"] = json!(SESAME.replace("m=19456", "m=1048576"));
    });
    assert!(dear.contains("memory_mb"), "{dear}");
}
