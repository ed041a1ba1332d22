//! The `jwt` plugin: who shows a good token is let in on its terms, and everybody else is told why not.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use weirmq_core::hook::{AuthExchange, Rights};
use weirmq_host::LoadError;

use super::*;

const SECRET: &str = "a secret of at least 32 bytes, so";
/// 2100-01-01.
const FAR: u64 = 4_102_444_800;

// Made with openssl; the claims are those of `claims`, the kids are "rsa" and "p256".
const RSA_KEY: &str = "\
-----BEGIN PUBLIC KEY-----\n\
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAzygFykeUt94vGfxLOHPl\n\
ArdDXcqSWHeb+iYERsGbXlyu9nE9rjc1vJq3kNROGbRyBfu40vLjEy6lt3nGd9lk\n\
pRghH+1tK5k6z4UYlKNOK4Oz/yj80xz8Msnz8tt/ueoLZ4NM5yL2KNH49mTciV4x\n\
ogA4gmr/f/3eCHUtP/8f/2M1C2GR2el+d8OY7ilWpppzIiZ1R6rX7L6AjJwUUgYS\n\
nJjLz1Z0qfds1vzAhif8PD2UmYCONb8DEpt4/Vn98KGsRCHztn77aRNQ5pJRzIq/\n\
FbC2VzN5EPyxHeTjjgjmiM0p2IB+tR2quEqmFr+YWuTZ4GuMdoDOuVl22qqpNZoL\n\
1wIDAQAB\n\
-----END PUBLIC KEY-----\n";

const P256_KEY: &str = "\
-----BEGIN PUBLIC KEY-----\n\
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEfwUXbZYBhegMmi0L32CHWLbglWl/\n\
2YTkHN7pkAuDfrNsh0xmUxDG5p7oW+jk6ci2RJn5edW6cUm5nMna67bNOQ==\n\
-----END PUBLIC KEY-----\n";

const SHORT_RSA_KEY: &str = "\
-----BEGIN PUBLIC KEY-----\n\
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQC28hkJ8CWi/KKjLSJEUKlszgC/\n\
cX4exCprCZ5z9eHqTZwODa9ztTItg140WVOeDdIWJqpFYshaf8Sn7yKFtnh6GTje\n\
LdKN7RIYPwbVYi2YPN4zOT4gdYIpy4Y8lf6r71RPlfcH9Z+sdE0Ij7D0Wu6ouRuL\n\
Za+Trp/JA0YGV3smfQIDAQAB\n\
-----END PUBLIC KEY-----\n";

const RS256: &str = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6InJzYSJ9.eyJzdWIiOiJwcmVzcy0xIiwiaXNzIjoiaHR0cHM6Ly9sb2dpbi5leGFtcGxlLmNvbSIsImF1ZCI6WyJvdGhlciIsIndlaXJtcSJdLCJleHAiOjQxMDI0NDQ4MDAsInNpdGUiOiJoYWxsLTMiLCJsZXZlbCI6Mywic2l0ZXMiOlsiYSIsImIiXX0.M-Ek7iFBIkHI6Dr_oH0gRXi-AjPn0NvBVVXHtlz1oQxESIHtsy--PmNl8MaSXcumLnDB2DZV43EMu756v2Ks9V_PqR7bgTpQiWLZrc3G2ChQwPKg2ypyCsd32IZhaacY6IqLTOPNxKEj9HL43gYUtA6ZPkDV1asbmKGayAm0vj_wt6AJVdZPehZCmheeIQ1pIBM1zUb_PGAepfp3YSF0zUKE6DAG-ZgiULvqc8ISVouuXMxWi-NgsFLgkCYbj6wV2z-f7WYJDQTlcHrdBrB5wj5QlPuxjvDlVrQcP495O0MOxPF5r65g4pSUX15tG_8lYaD0FFlsw6tM4wZnMLM34g";
const ES256: &str = "eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6InAyNTYifQ.eyJzdWIiOiJwcmVzcy0xIiwiaXNzIjoiaHR0cHM6Ly9sb2dpbi5leGFtcGxlLmNvbSIsImF1ZCI6WyJvdGhlciIsIndlaXJtcSJdLCJleHAiOjQxMDI0NDQ4MDAsInNpdGUiOiJoYWxsLTMiLCJsZXZlbCI6Mywic2l0ZXMiOlsiYSIsImIiXX0.WpfM9sdVS9KUzwh3H121rLSHYPJPbBithz8vWjU9MUm5hD-gNwm2MzEVlQY6qnX9skZpaA1wgNFEG24YQAjsuw";

fn configuration() -> Value {
    json!({
        "keys": [
            { "algorithm": "HS256", "secret": SECRET },
            { "algorithm": "RS256", "id": "rsa", "public_key": RSA_KEY },
            { "algorithm": "ES256", "id": "p256", "public_key": P256_KEY },
        ],
        "issuer": "https://login.example.com",
        "audience": "weirmq",
        "attributes": { "site": "site", "level": "level", "absent": "absent" },
        "publish": ["devices/{claim:sub}/#", { "filter": "raw/{client_id}", "qos_max": 1, "retain": false }],
        "subscribe": ["sites/{claim:sites}/#", "absent/{claim:absent}"],
    })
}

fn claims() -> Value {
    json!({
        "sub": "press-1", "iss": "https://login.example.com", "aud": ["other", "weirmq"], "exp": FAR,
        "site": "hall-3", "level": 3, "sites": ["a", "b"],
    })
}

fn jwt(config: &Value) -> Arc<PluginHook> {
    HOST.load(&configured("jwt", guest("jwt"), config)).unwrap()
}

/// A token with these claims, signed by `SECRET`.
fn signed(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", part(header), part(claims));
    let mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).unwrap().chain_update(&text);
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

fn token(claims: &Value) -> String {
    signed(&json!({ "alg": "HS256" }), claims)
}

fn seconds_from_now(seconds: i64) -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    now.saturating_add_signed(seconds)
}

fn lease(plugin: &PluginHook, token: &str) -> Lease {
    match authenticate(plugin, request("any", token)).unwrap() {
        Authentication::Allow { lease, .. } => lease,
        other => panic!("{other:?}"),
    }
}

fn refused(plugin: &PluginHook, token: &str) -> String {
    match authenticate(plugin, request("any", token)).unwrap() {
        Authentication::Deny(denial) => {
            assert_eq!(denial.code as u8, 0x86);
            denial.reason.to_string()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn claims_become_principal_attributes_rights_and_an_end() {
    let plugin = jwt(&configuration());
    for token in [&token(&claims()), RS256, ES256] {
        let lease = lease(&plugin, token);
        assert_eq!(&*lease.principal, "press-1");
        assert_eq!(lease.attributes, [("level".into(), "3".into()), ("site".into(), "hall-3".into())]);
        let left = lease.expires_in.unwrap();
        assert!(left > Duration::from_secs(3_600), "{left:?}");
        let Rights { publish, subscribe } = &*lease.rights.unwrap();
        let publish: Vec<_> =
            publish.iter().map(|right| (right.filter.as_str(), right.qos_max, right.retain)).collect();
        assert_eq!(
            publish,
            [("devices/press-1/#", QoS::ExactlyOnce, true), ("raw/client-1", QoS::AtLeastOnce, false)]
        );
        let subscribe: Vec<_> = subscribe.iter().map(|right| right.filter.as_str()).collect();
        assert_eq!(subscribe, ["sites/a/#", "sites/b/#"], "a filter for each text of a list");
    }
}

#[test]
fn the_login_ends_when_the_token_does() {
    let plugin = jwt(&configuration());
    let mut claims = claims();
    claims["exp"] = json!(seconds_from_now(100));
    let left = lease(&plugin, &token(&claims)).expires_in.unwrap().as_secs();
    assert!((100..=131).contains(&left), "until its end and the leeway: {left}");
    claims["exp"] = json!(seconds_from_now(-10));
    let left = lease(&plugin, &token(&claims)).expires_in.unwrap().as_secs();
    assert!((1..=21).contains(&left), "within the leeway: {left}");
    claims["exp"] = json!(seconds_from_now(-100));
    let why = refused(&plugin, &token(&claims));
    assert!(why.contains("it ended 1"), "{why}");
}

#[test]
fn a_token_that_is_not_good_is_refused_and_the_log_says_why() {
    let plugin = jwt(&configuration());
    let without = |name: &str| {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(name);
        token(&claims)
    };
    let with = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        token(&claims)
    };
    let (signed_part, _) = RS256.rsplit_once('.').unwrap();
    let good = token(&claims());
    let (_, hmac_signature) = good.rsplit_once('.').unwrap();
    for (token, why) in [
        (without("exp"), "no end (exp)"),
        (without("sub"), "no claim 'sub'"),
        (with("iss", json!("https://evil.example.com")), "not issued by 'https://login.example.com'"),
        (with("aud", json!("other")), "not meant for 'weirmq'"),
        (with("aud", json!([7])), "not meant for 'weirmq'"),
        (with("nbf", json!(seconds_from_now(1_000))), "good only in"),
        (with("exp", json!("tomorrow")), "claim 'exp' is not a time"),
        (with("sub", json!("a/#")), "cannot stand in the filter 'devices/{claim:sub}/#'"),
        (with("sites", json!(vec!["x"; 300])), "more than 256 filters"),
        (format!("{signed_part}.{hmac_signature}"), "signature is wrong"),
        (format!("{}x", token(&claims())), "signature"),
        (signed(&json!({ "alg": "none" }), &claims()), "no key here is for none"),
        (signed(&json!({ "alg": "HS512" }), &claims()), "no key here is for HS512"),
        (
            signed(&json!({ "alg": "RS256", "kid": "x" }), &claims()),
            "no key here is for RS256 with the kid 'x'",
        ),
        (signed(&json!({ "alg": "HS256", "crit": ["b64"] }), &claims()), "extension (crit)"),
        ("eyJ.a.b".to_owned(), "header is not Base64"),
        (format!("eyJ{}.a.b", "x".repeat(20_000)), "more than 16384 bytes"),
    ] {
        let reason = refused(&plugin, &token);
        assert!(reason.contains(why) && reason.contains("client-1"), "{why}: {reason}");
    }
}

#[test]
fn an_rsa_key_is_no_secret_for_hmac() {
    let mut config = configuration();
    config["keys"] = json!([{ "algorithm": "RS256", "public_key": RSA_KEY }]);
    let why = refused(&jwt(&config), &token(&claims()));
    assert!(why.contains("no key here is for HS256"), "{why}");
}

#[test]
fn a_password_that_is_no_token_is_left_to_the_next_in_the_chain() {
    let plugin = jwt(&configuration());
    for password in ["", "sesame", "eyJ", "a.b.c"] {
        assert_eq!(authenticate(&plugin, request("any", password)), Ok(Authentication::Next), "{password}");
    }
    let mut config = configuration();
    config["token"] = json!("username");
    let by_name = jwt(&config);
    let shown = token(&claims());
    assert!(matches!(authenticate(&by_name, request(&shown, "")), Ok(Authentication::Allow { .. })));
    assert_eq!(authenticate(&by_name, request("any", &shown)), Ok(Authentication::Next));
}

#[test]
fn a_token_can_be_shown_by_enhanced_authentication() {
    let plugin = jwt(&configuration());
    let by = |method: &str, data: &str| {
        let data = Some(Bytes::copy_from_slice(data.as_bytes()));
        let exchange = AuthExchange { id: 1, step: 0, method: method.into(), data, renewal: true };
        authenticate(&plugin, AuthenticateRequest { exchange: Some(exchange), ..request("any", "") }).unwrap()
    };
    assert!(matches!(by("JWT", &token(&claims())), Authentication::Allow { .. }));
    assert_eq!(by("SCRAM-SHA-256", &token(&claims())), Authentication::Next);
}

#[test]
fn nobody_shows_another_clients_token_where_the_client_identifier_is_bound() {
    let mut config = configuration();
    config["client_id"] = json!("{claim:sub}");
    let bound = jwt(&config);
    let why = refused(&bound, &token(&claims()));
    assert!(why.contains("not for a client called 'client-1'"), "{why}");
    let mut own = claims();
    own["sub"] = json!("client-1");
    assert_eq!(&*lease(&bound, &token(&own)).principal, "client-1");
}

#[test]
fn without_rights_in_the_configuration_the_authorize_hooks_are_asked() {
    let mut config = configuration();
    config.as_object_mut().unwrap().retain(|key, _| key != "publish" && key != "subscribe");
    config["expiry_required"] = json!(false);
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove("exp");
    let lease = lease(&jwt(&config), &token(&claims));
    assert_eq!((lease.rights, lease.expires_in), (None, None));
}

#[test]
fn a_mistake_in_the_configuration_is_named() {
    let refusal = |change: &dyn Fn(&mut Value)| {
        let mut config = configuration();
        change(&mut config);
        match HOST.load(&configured("jwt", guest("jwt"), &config)).err().unwrap() {
            LoadError::Refused { reason, .. } => reason,
            other => panic!("{other}"),
        }
    };
    let keys = |keys: Value| refusal(&|config| config["keys"] = keys.clone());
    let pem = |algorithm: &str, pem: &str| keys(json!([{ "algorithm": algorithm, "public_key": pem }]));
    for (reason, part) in [
        (keys(json!([])), "keys: there is none"),
        (keys(json!([{ "algorithm": "HS512" }])), "HS512"),
        (keys(json!([{ "algorithm": "HS256" }])), "keys[0].secret"),
        (keys(json!([{ "algorithm": "HS256", "secret": "short" }])), "keys[0].secret: it has 5 bytes"),
        (keys(json!([{ "algorithm": "HS256", "secret_base64": "%" }])), "keys[0].secret_base64: not Base64"),
        (keys(json!([{ "algorithm": "RS256", "secret": SECRET }])), "keys[0].public_key"),
        (pem("RS256", "key"), "keys[0].public_key: not an RSA public key"),
        (pem("RS256", P256_KEY), "keys[0].public_key: not an RSA public key"),
        (pem("RS256", SHORT_RSA_KEY), "keys[0].public_key: it has 1024 bits"),
        (pem("ES256", RSA_KEY), "keys[0].public_key: not a P-256 public key"),
        (refusal(&|config| config["keys"][2]["id"] = json!("rsa")), "keys[2].id"),
        (
            refusal(&|config| config["publish"] = json!(["a/{sub}"])),
            "publish[0]: 'a/{sub}': there is no {sub}",
        ),
        (
            refusal(&|config| config["subscribe"] = json!([{ "filter": "a", "qos_max": 3 }])),
            "subscribe[0]: qos_max",
        ),
        (refusal(&|config| config["client_id"] = json!("{x}")), "client_id: "),
        (refusal(&|config| config["leeway_seconds"] = json!(86_400)), "leeway_seconds"),
        (refusal(&|config| config["isuer"] = json!("x")), "isuer"),
    ] {
        assert!(reason.contains(part), "{part}: {reason}");
    }
    let mut config = configuration();
    config["keys"] = json!([{ "algorithm": "HS256", "secret_base64": STANDARD.encode(SECRET) }]);
    assert_eq!(&*lease(&jwt(&config), &token(&claims())).principal, "press-1");
}
