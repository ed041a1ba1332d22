//! What plugins ask of the broker: granted or not, and within limits.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use parking_lot::Mutex;
use weirmq_core::hook::{Delivery, Draft, Quotas, ReasonCode};
use weirmq_host::{
    Consequence, Grant, HostGrant, KeyValueGrant, KeyValueLimits, LoadError, Outside, Revocation,
    SecretSource, Whom,
};

use super::*;

/// The broker, as far as a plugin sees it.
#[derive(Default)]
pub(crate) struct Noted {
    pub(crate) published: Mutex<Vec<(Arc<str>, Draft, u8)>>,
    pub(crate) revoked: Mutex<Vec<Revocation>>,
}

impl Outside for Noted {
    fn has_room(&self) -> bool {
        self.published.lock().len() < 10
    }

    fn publish(&self, plugin: &Arc<str>, draft: Draft, hops: u8) {
        self.published.lock().push((Arc::clone(plugin), draft, hops));
    }

    fn revoke(&self, _: &Arc<str>, revocation: Revocation) -> Result<(), String> {
        self.revoked.lock().push(revocation);
        Ok(())
    }
}

/// A host of its own with a broker around it.
pub(crate) fn surrounded() -> (Host, Arc<Noted>) {
    let host = Host::new(cached()).unwrap();
    let noted = Arc::<Noted>::default();
    host.connect(Arc::clone(&noted) as Arc<dyn Outside>);
    (host, noted)
}

/// The configuration of the asking fixture with everything granted.
pub(crate) fn granted(name: &str, http: &[&str], folder: &TempDir) -> PluginConfig {
    let token = folder.path().join("token");
    std::fs::write(&token, "s3cret\n").unwrap();
    let mut config = configured(name, guest("asking"), &json!({}));
    config.secrets.insert("token".to_owned(), SecretSource::File(token));
    config.grant = Grant {
        http: http.iter().map(|host| HostGrant::Named((*host).to_owned())).collect(),
        publish: vec!["alerts/#".to_owned(), "ask/again".to_owned()],
        key_value: KeyValueGrant::Is(true),
        revoke: true,
    };
    config
}

#[test]
fn what_is_asked_for_and_not_granted_is_refused_with_the_lines_that_grant_it() {
    let error = HOST.load(&configured("asking", guest("asking"), &json!({}))).err().unwrap();
    let LoadError::NotGranted { lines, .. } = &error else { panic!("{error}") };
    for line in [
        "grant.http = [\"HOST\"]",
        "grant.publish = [\"alerts/#\"]",
        "secrets.token = { file = \"FILE\" }",
        "grant.key-value = true",
        "grant.revoke = true",
    ] {
        assert!(lines.contains(line), "{lines}");
    }
    assert!(error.to_string().contains("weirmq.toml"), "{error}");
    let folder = folder();
    let all = HOST.check(&granted("asking", &["api.example"], &folder)).unwrap();
    assert_eq!(all.asked.publish, ["alerts/#"]);
    for import in ["secrets", "key-value", "publish", "http", "revoke", "random"] {
        assert!(all.imports.iter().any(|found| found == import), "{:?}", all.imports);
    }
}

#[test]
fn a_manifest_beside_the_file_asks_too_and_a_broken_one_is_named() {
    let folder = folder();
    let file = folder.path().join("login.wasm");
    std::fs::copy(guest("login"), &file).unwrap();
    let beside = folder.path().join("login.manifest.toml");
    std::fs::write(&beside, "http = ['idp.example']").unwrap();
    let config = configured("login", &file, &json!({}));
    let error = HOST.check(&config).err().unwrap().to_string();
    assert!(error.contains("grant.http = [\"idp.example\"]"), "{error}");
    std::fs::write(&beside, "htpp = []").unwrap();
    let error = HOST.check(&config).err().unwrap();
    assert!(matches!(&error, LoadError::Manifest { detail, .. } if detail.contains("htpp")), "{error}");
}

#[test]
fn secrets_are_read_by_name_and_missing_ones_keep_the_plugin_out() {
    let folder = folder();
    let mut config = granted("secretive", &["api.example"], &folder);
    let plugin = HOST.load(&config).unwrap();
    assert_eq!(principal(&plugin, "secret token"), "s3cret");
    assert_eq!(principal(&plugin, "secret other"), "(none)");
    assert!(!format!("{:?}", plugin.config()).contains("s3cret"));
    config.secrets.insert("token".to_owned(), SecretSource::File(folder.path().join("none")));
    let error = HOST.load(&config).err().unwrap();
    assert!(matches!(&error, LoadError::Secret { secret, .. } if secret == "token"), "{error}");
}

#[test]
fn keys_are_shared_by_instances_and_outlive_them_within_their_limits() {
    let folder = folder();
    let mut config = granted("keeping", &["api.example"], &folder);
    config.grant.key_value = KeyValueGrant::Within(KeyValueLimits { keys_max: 2, bytes_max: 100 });
    let plugin = HOST.load(&config).unwrap();
    assert_eq!(principal(&plugin, "set a one"), "Ok(())");
    assert_eq!(principal(&plugin, "swap a two"), "Ok(false)");
    assert_eq!(kind(authenticate(&plugin, request("panic", ""))), FailureKind::Crash);
    plugin.reload().unwrap();
    assert_eq!(principal(&plugin, "get a"), "one");
    assert_eq!(principal(&plugin, "set b 2; set c 3"), "Err(Error::Full)");
    assert_eq!(principal(&plugin, "list"), "Ok([\"a\", \"b\"])");
    assert_eq!(principal(&plugin, "delete a; set c 3"), "Ok(())");
    let other = HOST.load(&granted("keeping-too", &["api.example"], &folder)).unwrap();
    assert_eq!(principal(&other, "get c"), "Ok(None)", "every plugin has its own");
}

#[test]
fn randomness_differs_from_nothing_and_is_bounded() {
    let folder = folder();
    let plugin = HOST.load(&granted("random", &["api.example"], &folder)).unwrap();
    assert_eq!(principal(&plugin, "random 32"), "32 true");
    assert_eq!(principal(&plugin, "random 1000000"), "4096 true");
}

#[test]
fn what_a_call_publishes_leaves_when_it_has_ended_well_and_counts_its_hops() {
    let (host, noted) = surrounded();
    let folder = folder();
    let plugin = host.load(&granted("speaking", &["api.example"], &folder)).unwrap();
    assert_eq!(principal(&plugin, "publish alerts/x hot"), "Ok(())");
    assert_eq!(principal(&plugin, "publish other/x hot"), "Err(Error::NotGranted)");
    assert!(principal(&plugin, "publish alerts/+ hot").contains("Invalid"));
    assert_eq!(kind(authenticate(&plugin, request("publish alerts/y lost; panic", ""))), FailureKind::Crash);
    let of_a_rule = Message { hops: 3, ..message("ask/x", b"publish ask/again hot") };
    wait(bound(&plugin, "ask/x").transform(&Arc::new(of_a_rule), now())).unwrap();
    let published: Vec<_> = noted
        .published
        .lock()
        .iter()
        .map(|(plugin, draft, hops)| (plugin.to_string(), draft.topic.clone(), *hops))
        .collect();
    let by = "speaking".to_owned();
    assert_eq!(published, [(by.clone(), "alerts/x".to_owned(), 1), (by, "ask/again".to_owned(), 4)]);
    let of_a_loop = Message { hops: 8, ..message("ask/x", b"publish ask/again hot") };
    let answer = wait(bound(&plugin, "ask/x").transform(&Arc::new(of_a_loop), now()));
    assert_eq!(answer, Ok(Transformed::WithPayload("Err(Error::Loops)".into())));
    for _ in 0..10 {
        principal(&plugin, "publish alerts/x hot");
    }
    assert_eq!(principal(&plugin, "publish alerts/x hot"), "Err(Error::Busy)");
}

#[test]
fn a_revocation_reaches_the_broker_with_what_is_to_follow() {
    let (host, noted) = surrounded();
    let folder = folder();
    let plugin = host.load(&granted("revoking", &["api.example"], &folder)).unwrap();
    assert_eq!(principal(&plugin, "revoke press-1"), "Ok(())");
    assert_eq!(principal(&plugin, "revoke everyone 135"), "Ok(())");
    assert!(principal(&plugin, "revoke everyone 0").starts_with("Err"), "0x00 refuses nobody");
    let reason = "told to revoke".to_owned();
    assert_eq!(
        *noted.revoked.lock(),
        [
            Revocation {
                whom: Whom::Client("press-1".into()),
                consequence: Consequence::AskAgain,
                reason: reason.clone()
            },
            Revocation {
                whom: Whom::Everyone,
                consequence: Consequence::End(ReasonCode::NotAuthorized),
                reason
            }
        ]
    );
}

#[test]
fn quotas_are_part_of_the_lease() {
    let folder = folder();
    let plugin = HOST.load(&granted("bounding", &["api.example"], &folder)).unwrap();
    let Ok(Authentication::Allow { lease, .. }) = authenticate(&plugin, request("x", "")) else {
        panic!("let in")
    };
    assert_eq!(
        lease.quotas,
        Quotas { publish_rate_max: std::num::NonZeroU32::new(50), subscriptions_max: Some(2) }
    );
}

/// An HTTP server that answers each request with `answer`, as long as it is asked.
pub(crate) fn server(answer: impl Fn(&str) -> String + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
            while let Ok(read) = stream.read(&mut buffer) {
                request.extend_from_slice(&buffer[..read]);
                let text = String::from_utf8_lossy(&request);
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let length = head
                    .lines()
                    .find_map(|line| {
                        line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned)
                    })
                    .map_or(0, |length| length.parse::<usize>().unwrap());
                if body.len() >= length {
                    let _ = stream.write_all(answer(&text).as_bytes());
                    break;
                }
                if read == 0 {
                    break;
                }
            }
        }
    });
    port
}

pub(crate) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

#[test]
fn requests_go_to_granted_hosts_and_answers_come_back() {
    let folder = folder();
    let port = server(|request| {
        let asked = request.lines().any(|line| line.eq_ignore_ascii_case("x-asked-by: asking"));
        ok(&format!("{} {asked} {}", &request[..4], request.rsplit("\r\n").next().unwrap()))
    });
    let plugin = HOST.load(&granted("calling", &["127.0.0.1"], &folder)).unwrap();
    let url = format!("http://127.0.0.1:{port}/x");
    assert_eq!(principal(&plugin, &format!("http {url}")), "200 GET  true ");
    assert_eq!(principal(&plugin, &format!("http {url} body")), "200 POST true body");
    let elsewhere = principal(&plugin, &format!("http http://127.0.0.2:{port}/x"));
    assert!(elsewhere.contains("NotGranted"), "{elsewhere}");
    assert!(principal(&plugin, "http ftp://127.0.0.1/x").contains("Invalid"));
    assert!(principal(&plugin, "http nonsense").contains("Invalid"));
}

#[test]
fn a_hook_on_the_way_of_messages_waits_beside_the_worker_and_on_deliver_not_at_all() {
    let folder = folder();
    let port = server(|_| ok("there"));
    let plugin = HOST.load(&granted("later", &["127.0.0.1"], &folder)).unwrap();
    let asked = format!("http http://127.0.0.1:{port}/x");
    let reply = bound(&plugin, "ask/x").transform(&Arc::new(message("ask/x", asked.as_bytes())), now());
    assert!(matches!(reply, Reply::Later(_)));
    assert_eq!(wait(reply), Ok(Transformed::WithPayload("200 there".into())));
    let deliver = Arc::clone(&plugin).on_deliver(&TopicName::new("ask/x").unwrap()).unwrap();
    let answer = deliver.deliver(&Arc::new(message("ask/x", asked.as_bytes())), &identity(), now());
    let Ok(Delivery::Replace(draft)) = answer else { panic!("{answer:?}") };
    assert_eq!(&*draft.payload, b"Error::NotHere");
}

#[test]
fn a_name_that_leads_to_this_machine_needs_a_grant_of_its_own() {
    let folder = folder();
    let port = server(|_| ok("there"));
    // Of this name every resolver knows that it is this machine, and it is not `localhost`.
    let name = "ip6-localhost";
    let refused = HOST.load(&granted("public", &[name], &folder)).unwrap();
    let answer = principal(&refused, &format!("http http://{name}:{port}/"));
    assert!(answer.contains("NotGranted") || answer.contains("Unreachable"), "{answer}");
    let local = HOST.load(&granted("local", &["localhost"], &folder)).unwrap();
    assert_eq!(principal(&local, &format!("http http://localhost:{port}/")), "200 there");
}

#[test]
fn redirects_are_not_followed() {
    let folder = folder();
    let port = server(|_| {
        "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.2/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            .to_owned()
    });
    let plugin = HOST.load(&granted("redirected", &["127.0.0.1"], &folder)).unwrap();
    assert_eq!(principal(&plugin, &format!("http http://127.0.0.1:{port}/")), "302 ");
}

#[test]
fn a_request_ends_with_the_deadline_of_the_call_and_an_answer_with_the_output_limit() {
    let folder = folder();
    // It takes connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let mut config = granted("hurried", &["127.0.0.1"], &folder);
    config.deadline_ms.authenticate = 300;
    let plugin = HOST.load(&config).unwrap();
    let begun = std::time::Instant::now();
    let answer = authenticate(&plugin, request(&format!("http http://127.0.0.1:{port}/"), ""));
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    match answer {
        Ok(Authentication::Allow { lease, .. }) => assert_eq!(&*lease.principal, "Error::Timeout"),
        Err(failure) => assert_eq!(failure.kind, FailureKind::Deadline),
        other => panic!("{other:?}"),
    }
    let port = server(|_| ok(&"x".repeat(100_000)));
    let mut config = granted("small", &["127.0.0.1"], &folder);
    config.output_bytes_max = 10_000;
    let plugin = HOST.load(&config).unwrap();
    assert_eq!(principal(&plugin, &format!("http http://127.0.0.1:{port}/")), "Error::TooLarge");
}
