//! Against a real HTTP server that is down, slow or wrong on cue.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::server::TlsStream;
use weirmq_core::record::{Sinks, Value};

use super::WebhookConfig;
use crate::config::{Severity, SinkConfig};
use crate::testing::{
    Accept, Answer, HttpServer, Plainly, numbered, parse, record, soon, start, submit_numbers,
};
use crate::{SinkRemains, SinkSet};

/// A sink called `hook` that posts to `url` and does not wait long for anything.
fn to(url: &str, further: &str) -> String {
    format!(
        "[[webhook]]\nname = 'hook'\nurl = '{url}'\n{further}\n\
         [webhook.buffer]\nbatch_wait_ms = 0\nretry_initial_ms = 1\nretry_max_ms = 2000\n"
    )
}

async fn written(set: &SinkSet, count: u64) {
    soon(set.until("hook", |stats| stats.written == count)).await;
}

#[tokio::test]
async fn a_record_is_posted_as_json_with_the_configured_headers() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = HttpServer::start([]).await;
    let headers = "headers = { Authorization = 'Bearer hunter2', X-Site = '大阪' }";
    let set = start(&to(&server.url(), headers), folder.path());
    let alert = [
        ("level", Value::Text("high".into())),
        ("celsius", Value::Float(91.5)),
        ("tags", Value::List(vec![Value::Int(1), Value::Bool(true), Value::Null])),
    ];
    set.submit(record("hook", alert)).unwrap();
    let request = server.next().await;
    assert_eq!(request.line, "POST /hook HTTP/1.1");
    assert_eq!(request.body, r#"{"level":"high","celsius":91.5,"tags":[1,true,null]}"#);
    for (name, value) in [
        ("content-type", "application/json"),
        ("authorization", "Bearer hunter2"),
        ("x-site", "大阪"),
        ("user-agent", concat!("weirmq/", env!("CARGO_PKG_VERSION"))),
    ] {
        assert_eq!(request.headers[name], value);
    }
    assert!(!request.headers["idempotency-key"].is_empty());
    written(&set, 1).await;
}

#[tokio::test]
async fn a_configured_content_type_takes_the_place_of_the_usual_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = HttpServer::start([]).await;
    let headers = "headers = { content-type = 'application/vnd.acme+json' }";
    let set = start(&to(&server.url(), headers), folder.path());
    submit_numbers(&set, "hook", [1]);
    assert_eq!(server.next().await.headers["content-type"], "application/vnd.acme+json");
}

#[tokio::test]
async fn records_wait_while_the_server_is_down_and_arrive_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let (address, url) = {
        let server = HttpServer::start([]).await;
        (server.address(), server.url())
    };
    let set = start(&to(&url, "").replace("2000", "20"), folder.path());
    submit_numbers(&set, "hook", 0..20);
    let stats = soon(set.until("hook", |stats| stats.failing.is_some())).await;
    assert!(stats.failing.unwrap().starts_with("no connection"));
    let mut server = HttpServer::start_at(address, Plainly, []).await;
    for number in 0..20 {
        assert_eq!(server.next().await.body, format!("{{\"n\":{number}}}"));
    }
    written(&set, 20).await;
    assert!(!server.has_more());
}

#[tokio::test]
async fn what_may_heal_is_tried_again_under_the_same_key() {
    let folder = tempfile::tempdir().unwrap();
    let bad = [408, 425, 429, 500, 502, 503, 504].map(|status| Answer::Status(status, ""));
    let mut server = HttpServer::start(bad.into_iter().chain([Answer::HangUp])).await;
    let set = start(&to(&server.url(), "").replace("2000", "5"), folder.path());
    submit_numbers(&set, "hook", [1, 2]);
    let first = server.next().await;
    for _ in 0..8 {
        let again = server.next().await;
        assert_eq!(again.body, first.body);
        assert_eq!(again.headers["idempotency-key"], first.headers["idempotency-key"]);
    }
    let second = server.next().await;
    assert_eq!(second.body, "{\"n\":2}");
    assert_ne!(second.headers["idempotency-key"], first.headers["idempotency-key"]);
    written(&set, 2).await;
    assert_eq!(set.stats().sinks[0].retried, 8);
}

#[tokio::test]
async fn a_server_that_asks_for_a_pause_gets_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = HttpServer::start([Answer::Status(503, "Retry-After: 1\r\n")]).await;
    let set = start(&to(&server.url(), ""), folder.path());
    submit_numbers(&set, "hook", [1]);
    server.next().await;
    let asked = Instant::now();
    server.next().await;
    assert!(asked.elapsed() >= Duration::from_millis(950), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn a_record_that_is_not_wanted_becomes_a_dead_letter_with_what_the_server_said() {
    let folder = tempfile::tempdir().unwrap();
    let page = "no \"unit\"\nin it ".to_owned() + &"x".repeat(100_000);
    let mut server = HttpServer::start([Answer::Body(422, page)]).await;
    let set = start(&to(&server.url(), ""), folder.path());
    submit_numbers(&set, "hook", [1, 2]);
    server.next().await;
    assert_eq!(server.next().await.body, "{\"n\":2}");
    written(&set, 1).await;
    assert_eq!(set.stats().sinks[0].dead_lettered, 1);
    let dead = fs::read_to_string(folder.path().join("sinks/hook.dead.jsonl")).unwrap();
    assert!(dead.contains("the answer was 422 Unprocessable Entity: no \\\"unit\\\" in it xxx"), "{dead}");
    assert!(dead.len() < 1_000);
}

#[tokio::test]
async fn a_server_that_never_answers_holds_a_record_up_only_so_long() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = HttpServer::start([Answer::Silence]).await;
    let set = start(&to(&server.url(), "timeout_ms = 50"), folder.path());
    submit_numbers(&set, "hook", [1]);
    server.next().await;
    let stats = soon(set.until("hook", |stats| stats.failing.is_some())).await;
    assert!(stats.failing.unwrap().starts_with("no answer in time"));
    server.next().await;
    written(&set, 1).await;
}

#[tokio::test]
async fn redirects_are_not_followed_and_the_record_waits() {
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = HttpServer::start([]).await;
    let location: &'static str = format!("Location: {}\r\n", elsewhere.url()).leak();
    let mut server = HttpServer::start([Answer::Status(307, location)]).await;
    let set = start(&to(&server.url(), ""), folder.path());
    submit_numbers(&set, "hook", [1]);
    let stats = soon(set.until("hook", |stats| stats.failing.is_some())).await;
    assert!(stats.failing.unwrap().contains("redirects are not followed"));
    server.next().await;
    server.next().await;
    written(&set, 1).await;
    assert!(!elsewhere.has_more());
}

#[tokio::test]
async fn as_many_requests_as_configured_are_under_way_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = HttpServer::start(vec![Answer::Silence; 3]).await;
    let set = start(&to(&server.url(), "concurrency = 3"), folder.path());
    submit_numbers(&set, "hook", 0..5);
    let mut bodies = vec![server.next().await.body, server.next().await.body, server.next().await.body];
    bodies.sort();
    assert_eq!(bodies, ["{\"n\":0}", "{\"n\":1}", "{\"n\":2}"]);
    assert!(!server.has_more());
}

#[tokio::test]
async fn a_request_under_way_at_shutdown_is_sent_again_under_the_same_key_after_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = HttpServer::start([Answer::Silence]).await;
    let config = to(&server.url(), "");
    let set = start(&config, folder.path());
    submit_numbers(&set, "hook", [1, 2]);
    let before = server.next().await;
    let report = soon(set.shutdown(Duration::ZERO)).await;
    assert!(matches!(&report.sinks[..], [SinkRemains { spilled: 2, lost: 0, .. }]), "{report:?}");
    let set = start(&config, folder.path());
    let after = server.next().await;
    assert_eq!(before.body, after.body);
    assert_eq!(before.headers["idempotency-key"], after.headers["idempotency-key"]);
    written(&set, 2).await;
}

#[tokio::test]
async fn secrets_show_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let url = {
        let server = HttpServer::start([]).await;
        server.url().replace("http://", "http://user:hunter2@").replace("/hook", "/hunter2?key=hunter2")
    };
    let config = parse(&format!(
        "[[webhook]]\nname = 'hook'\nurl = '{url}'\nheaders = {{ X-Key = 'hunter2' }}\n\
             buffer = {{ retry_attempts_max = 1 }}\n"
    ));
    let set = SinkSet::start(&config, folder.path()).unwrap();
    submit_numbers(&set, "hook", [1]);
    let stats = soon(set.until("hook", |stats| stats.dead_lettered == 1)).await;
    let dead = fs::read_to_string(folder.path().join("sinks/hook.dead.jsonl")).unwrap();
    for shown in [format!("{config:?}"), format!("{:?}", set.infos()), format!("{stats:?}"), dead] {
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[tokio::test]
async fn a_password_in_the_url_is_sent_as_basic_authentication() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = HttpServer::start([]).await;
    let set = start(&to(&server.url().replace("http://", "http://user:pass@"), ""), folder.path());
    set.submit(numbered("hook", 1)).unwrap();
    assert_eq!(server.next().await.headers["authorization"], "Basic dXNlcjpwYXNz");
}

/// `openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 36500 -subj /CN=weirmq-test
/// -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE -keyout test_key.pem
/// -out test_certificate.pem`
const CERTIFICATE: &str = include_str!("test_certificate.pem");
const KEY: &str = include_str!("test_key.pem");

/// Another one, made in the same way.
const OTHER_CERTIFICATE: &str = include_str!("test_other_certificate.pem");

/// HTTPS with a certificate that no system trusts.
#[derive(Clone)]
struct OverTls(TlsAcceptor);

impl OverTls {
    fn new() -> Self {
        let certificate = CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(
            rustls::crypto::aws_lc_rs::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
        Self(TlsAcceptor::from(Arc::new(config)))
    }
}

impl Accept for OverTls {
    type Stream = TlsStream<TcpStream>;
    async fn accept(&self, connection: TcpStream) -> std::io::Result<Self::Stream> {
        self.0.accept(connection).await
    }
}

#[tokio::test]
async fn https_goes_to_whom_the_configured_certificates_vouch_for_and_to_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("ca.pem"), CERTIFICATE).unwrap();
    let mut server = HttpServer::start_at("127.0.0.1:0".parse().unwrap(), OverTls::new(), []).await;
    let url = server.url().replace("http://", "https://");
    let trusting = start(&to(&url, "ca_file = 'ca.pem'"), folder.path());
    submit_numbers(&trusting, "hook", [1]);
    assert_eq!(server.next().await.body, "{\"n\":1}");
    written(&trusting, 1).await;

    fs::write(folder.path().join("ca.pem"), OTHER_CERTIFICATE).unwrap();
    let wary = start(&to(&url, "ca_file = 'ca.pem'"), folder.path());
    submit_numbers(&wary, "hook", [2]);
    let stats = soon(wary.until("hook", |stats| stats.failing.is_some())).await;
    let failing = stats.failing.unwrap();
    assert!(failing.contains("certificate"), "{failing}");
    assert!(!server.has_more());
}

#[test]
fn what_cannot_work_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("empty.pem"), "").unwrap();
    for (url, further, part) in [
        ("example.org/hook", "", "its url is not a URL"),
        ("ftp://example.org/", "", "must begin with http:// or https://"),
        ("http://h/", "timeout_ms = 0", "timeout_ms is 0"),
        ("http://h/", "concurrency = 65", "concurrency is 65"),
        ("https://h/", "headers = { 'a b' = 'c' }", "cannot be the name of a header"),
        ("https://h/", "headers = { A = \"b\\nc\" }", "the value of header 'A'"),
        ("https://h/", "headers = { Idempotency-Key = 'a' }", "is set by the broker"),
        ("https://h/", "ca_file = 'none.pem'", "none.pem"),
        ("https://h/", "ca_file = 'empty.pem'", "there is no certificate in it"),
    ] {
        let problems = SinkSet::check(&parse(&to(url, further)), folder.path());
        assert_eq!(problems.len(), 1, "{url} {further}: {problems:?}");
        assert_eq!(problems[0].severity, Severity::Error);
        assert!(problems[0].text.contains(part), "{problems:?}");
    }
}

#[test]
fn secrets_in_the_clear_are_warned_about() {
    for (url, warned) in [
        ("http://example.org/", true),
        ("https://example.org/", false),
        ("http://localhost/", false),
        ("http://[::1]:8080/", false),
        ("http://127.0.0.9/", false),
    ] {
        let problems = SinkSet::check(&parse(&to(url, "headers = { A = 'b' }")), Path::new("/data"));
        assert_eq!(problems.iter().any(|problem| problem.severity == Severity::Warning), warned, "{url}");
    }
}

#[test]
fn defaults_are_as_documented() {
    let config: WebhookConfig = toml::from_str("name = 'a'\nurl = 'https://h:8443/x?y'").unwrap();
    assert_eq!((config.timeout_ms, config.concurrency), (10_000, 1));
    assert_eq!(config.target(Path::new("")), "POST https://h:8443");
}
