//! Each plugin that ships and the example in each language, in the broker as its users have it: taken into service by a
//! saved configuration, called, replaced and taken away while messages flow. And what the broker says of them.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::{Broker, Place, Subscriber, eventually, guest, repository};

const BASE: &str = "data_folder = 'data'\n[[listener]]\nname = 'main'\naddress = '127.0.0.1:0'\n\
                    [auth]\nallow_anonymous = true\n";

/// A place whose compiled plugins outlive it: the interpreters among them take their time.
fn place(config: &str) -> Place {
    let place = Place::with(config);
    let cache = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled-plugins");
    fs::create_dir_all(&cache).unwrap();
    fs::create_dir(place.path("data")).unwrap();
    std::os::unix::fs::symlink(cache, place.path("data/compiled-plugins")).unwrap();
    place
}

/// The `[[plugin]]` of the guest `name`, a copy of which is put into `place`.
fn plugin(place: &Place, name: &str, settings: &str) -> String {
    fs::copy(guest(name), place.path(&format!("{name}.wasm"))).unwrap();
    format!(
        "\n[[plugin]]\nname = '{name}'\nfile = '{name}.wasm'\nmemory_mb = 128\n\
         deadline_ms = {{ init = 60000, authenticate = 30000, authorize = 30000, on-publish = 30000 }}\n{settings}\n"
    )
}

/// What the plugin of one case is to be seen to do.
struct Seen<'a> {
    broker: &'a Broker,
    heard: &'a Subscriber,
}

impl Seen<'_> {
    /// Whether somebody is let in.
    fn lets_in(&self, login: &[&str]) -> bool {
        let arguments = [login, &["-q", "0", "-t", "nobody/hears", "-m", "x"]].concat();
        self.broker.mosquitto_pub(&arguments).status.success()
    }

    /// Publishes each message, of which the last is to come through, as `expected` has it, and nothing before it.
    fn only_the_last_of(&self, messages: &[(&[&str], &str, &[u8])], expected: &str) {
        let before = self.of_others().len();
        for (login, topic, payload) in messages {
            let arguments = [login, &["-q", "1", "-V", "mqttv5", "-t", topic, "-s"][..]].concat();
            let mut process = Command::new("mosquitto_pub")
                .args(["-h", "127.0.0.1", "-p", &self.broker.port()])
                .args(arguments)
                .stdin(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            process.stdin.take().unwrap().write_all(payload).unwrap();
            process.wait().unwrap();
        }
        let heard = eventually(expected, || Some(self.of_others()).filter(|heard| heard.len() > before));
        assert_eq!(heard[before..], [expected]);
    }

    fn of_others(&self) -> Vec<String> {
        self.heard.messages().into_iter().filter(|line| !line.starts_with("ticks ")).collect()
    }
}

type Case<'a> = (&'a str, String, Box<dyn Fn(&Seen<'_>) + 'a>);

/// Takes each case's plugin into service, sees what it does, replaces its file, sees the same again; while messages flow
/// that are none of its business, all of which come in their order.
fn while_messages_flow(place: &Place, cases: &[Case<'_>]) {
    let broker = place.start();
    let heard = broker.mosquitto_sub(&["-v", "-q", "1", "-t", "#"]);
    let seen = Seen { broker: &broker, heard: &heard };
    let done = AtomicBool::new(false);
    let ticks = std::thread::scope(|scope| {
        let ticking = scope.spawn(|| tick_until(&broker, &done));
        // Also where a case fails: it is waited for.
        let ending = EndsTicking(&done);
        for (name, section, check) in cases {
            place.replace("weirmq.toml", format!("{BASE}{section}").as_bytes());
            broker.log.wait_for(&["the plugin serves now", &format!("\"{name}\"")]);
            check(&seen);
            let file = format!("{name}.wasm");
            let mut bytes = fs::read(place.path(&file)).unwrap();
            // Another content: an empty custom section.
            bytes.extend_from_slice(b"\x00\x05\x04more");
            place.replace(&file, &bytes);
            broker.log.wait_for(&["another version of the plugin serves", &format!("\"{name}\"")]);
            check(&seen);
        }
        place.replace("weirmq.toml", BASE.as_bytes());
        for (name, ..) in cases {
            broker.log.wait_for(&["the plugin is removed", &format!("\"{name}\"")]);
        }
        drop(ending);
        ticking.join().unwrap()
    });
    let ticked = || -> Vec<String> {
        heard.messages().into_iter().filter(|line| line.starts_with("ticks ")).collect()
    };
    let got = eventually("every message", || Some(ticked()).filter(|got| got.len() >= ticks));
    let expected: Vec<String> = (0..ticks).map(|number| format!("ticks {number}")).collect();
    assert_eq!(got, expected, "every message once, in order");
}

struct EndsTicking<'a>(&'a AtomicBool);

impl Drop for EndsTicking<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn tick_until(broker: &Broker, done: &AtomicBool) -> usize {
    let mut process = Command::new("mosquitto_pub")
        .args(["-h", "127.0.0.1", "-p", &broker.port(), "-q", "1", "-l", "-t", "ticks"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = process.stdin.take().unwrap();
    let mut ticks = 0;
    while !done.load(Ordering::Relaxed) {
        writeln!(lines, "{ticks}").unwrap();
        ticks += 1;
        std::thread::park_timeout(Duration::from_millis(5));
    }
    drop(lines);
    assert!(process.wait().unwrap().success());
    ticks
}

const ANN: [&str; 6] = ["-u", "ann", "-P", "sesame", "-i", "c1"];

#[test]
fn the_example_in_each_language_serves_and_is_replaced_while_messages_flow() {
    let place = place(BASE);
    let logins = plugin(&place, "example-rust", "[plugin.config]\nann = 'sesame'");
    let frame = b"\x78\x56\x34\x12\x2e\xfb\x10\x27\xe4\x0c";
    let whole = [&frame[..], &crc16(frame).to_le_bytes()].concat();
    let torn = [&frame[..], b"\0\0"].concat();
    let cases: [Case<'_>; 5] = [
        (
            "example-rust",
            logins.clone(),
            Box::new(|seen| {
                assert!(seen.lets_in(&ANN) && !seen.lets_in(&["-u", "ann", "-P", "wrong"]));
                assert!(seen.lets_in(&[]), "who shows no name is none of its business");
            }),
        ),
        (
            "example-js",
            plugin(&place, "example-js", "[plugin.config.tokens.tok-1]\nprincipal = 'p'\npublish = ['#']"),
            Box::new(|seen| {
                assert!(seen.lets_in(&["-u", "any", "-P", "tok-1"]));
                assert!(!seen.lets_in(&["-u", "any", "-P", "tok-2"]));
            }),
        ),
        (
            "example-c",
            plugin(&place, "example-c", "config.topics = ['raw/+/frame']"),
            Box::new(|seen| {
                let said =
                    r#"raw/a/frame {"at":305419896,"celsius":-12.34,"humidity":100.00,"battery":3.300}"#;
                seen.only_the_last_of(&[(&[], "raw/a/frame", &torn), (&[], "raw/a/frame", &whole)], said);
            }),
        ),
        (
            "example-go",
            format!("{logins}{}", plugin(&place, "example-go", "config.publish = ['devices/{client_id}/#']")),
            Box::new(|seen| {
                let (others, own) = ("devices/c2/x", "devices/c1/x");
                seen.only_the_last_of(&[(&ANN, others, b"no"), (&ANN, own, b"yes")], "devices/c1/x yes");
            }),
        ),
        (
            "example-python",
            plugin(&place, "example-python", "[plugin.config.devices.anonymous]\nsite = 'hall 3'"),
            Box::new(|seen| {
                let before = seen.of_others().len();
                seen.broker.publish(&["-q", "1", "-t", "sensors/a/reading", "-m", "{\"celsius\": 21.5}"]);
                let line = eventually("a reading", || seen.of_others().get(before).cloned());
                assert!(line.contains("\"celsius\": 21.5") && line.contains("received_at"), "{line}");
            }),
        ),
    ];
    while_messages_flow(&place, &cases);
}

/// CRC-16/CCITT-FALSE, bit by bit.
fn crc16(bytes: &[u8]) -> u16 {
    let feed = |crc: u16, bit: bool| (crc << 1) ^ if (crc & 0x8000 != 0) == bit { 0 } else { 0x1021 };
    bytes.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1 != 0)).fold(0xffff, feed)
}

/// A token whose `sub` is `press-1`, and the key that opens it.
const TOKEN: &str = "eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6InAyNTYifQ.eyJzdWIiOiJwcmVzcy0xIiwiaXNzIjoiaHR0cHM6Ly9sb2dpbi5leGFtcGxlLmNvbSIsImF1ZCI6WyJvdGhlciIsIndlaXJtcSJdLCJleHAiOjQxMDI0NDQ4MDAsInNpdGUiOiJoYWxsLTMiLCJsZXZlbCI6Mywic2l0ZXMiOlsiYSIsImIiXX0.WpfM9sdVS9KUzwh3H121rLSHYPJPbBithz8vWjU9MUm5hD-gNwm2MzEVlQY6qnX9skZpaA1wgNFEG24YQAjsuw";
const KEY: &str = "-----BEGIN PUBLIC KEY-----\n\
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEfwUXbZYBhegMmi0L32CHWLbglWl/\n\
2YTkHN7pkAuDfrNsh0xmUxDG5p7oW+jk6ci2RJn5edW6cUm5nMna67bNOQ==\n\
-----END PUBLIC KEY-----\n";

#[test]
fn each_plugin_that_ships_serves_and_is_replaced_while_messages_flow() {
    let place = place(BASE);
    let quickstart = fs::read_to_string(repository().join("examples/quickstart/weirmq.toml")).unwrap();
    let users =
        quickstart.split("[plugin.config.users.press-1]").nth(1).unwrap().split("[rules]").next().unwrap();
    let jwt = plugin(
        &place,
        "jwt",
        &format!(
            "[plugin.config]\nissuer = 'https://login.example.com'\naudience = 'weirmq'\n\
             [[plugin.config.keys]]\nid = 'p256'\nalgorithm = 'ES256'\npublic_key = '''{KEY}'''"
        ),
    );
    let service = login_service();
    fs::write(place.path("key"), "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap();
    let press: [&str; 6] = ["-u", "x", "-P", TOKEN, "-i", "press-1"];
    let cases: [Case<'_>; 6] = [
        (
            "login",
            plugin(&place, "login", &format!("[plugin.config.users.press-1]{users}")),
            Box::new(|seen| {
                assert!(seen.lets_in(&crate::support::PRESS));
                assert!(!seen.lets_in(&["-u", "press-1", "-P", "wrong"]));
            }),
        ),
        (
            "jwt",
            jwt.clone(),
            Box::new(|seen| {
                assert!(seen.lets_in(&press));
                assert!(!seen.lets_in(&["-u", "x", "-P", &TOKEN.replace("WpfM", "WpfN")]));
            }),
        ),
        (
            "topic-policy",
            format!(
                "{jwt}{}",
                plugin(
                    &place,
                    "topic-policy",
                    "[[plugin.config.rules]]\nprincipals = ['press-1']\npublish = ['devices/{principal}/#']"
                )
            ),
            Box::new(|seen| {
                let messages: [(&[&str], &str, &[u8]); 2] =
                    [(&press, "devices/other/x", b"no"), (&press, "devices/press-1/x", b"yes")];
                seen.only_the_last_of(&messages, "devices/press-1/x yes");
            }),
        ),
        (
            "json-schema",
            plugin(
                &place,
                "json-schema",
                "[[plugin.config.checks]]\ntopics = ['checked']\nschema = { required = ['celsius'] }",
            ),
            Box::new(|seen| {
                let messages: [(&[&str], &str, &[u8]); 2] =
                    [(&[], "checked", b"{\"c\":1}"), (&[], "checked", b"{\"celsius\":1}")];
                seen.only_the_last_of(&messages, "checked {\"celsius\":1}");
            }),
        ),
        (
            "http-login",
            plugin(
                &place,
                "http-login",
                &format!(
                    "grant.http = ['127.0.0.1:{}']\nsecrets.token = {{ file = 'key' }}\nconfig.url = 'http://{service}/mqtt'\nconfig.timeout_ms = 20000",
                    service.port()
                ),
            ),
            Box::new(|seen| {
                assert!(seen.lets_in(&["-u", "good", "-P", "x"]) && !seen.lets_in(&["-u", "bad", "-P", "x"]));
            }),
        ),
        (
            "payload-encryption",
            plugin(
                &place,
                "payload-encryption",
                "secrets.storage-key = { file = 'key' }\nconfig.topics = ['patients/#']\n\
                 [[plugin.config.keys]]\nid = 'k'\nsecret = 'storage-key'",
            ),
            Box::new(|seen| {
                seen.only_the_last_of(&[(&["-r"], "patients/a", b"in clear")], "patients/a in clear");
                let late = seen.broker.mosquitto_sub(&["-t", "patients/#"]);
                assert_eq!(late.wait_for(1), ["in clear"]);
            }),
        ),
    ];
    while_messages_flow(&place, &cases);
    let kept = kept_bytes(&place.path("data"));
    assert!(kept.windows(10).any(|part| part == b"patients/a"), "it is kept");
    assert!(!kept.windows(8).any(|part| part == b"in clear"), "and not as it was sent");
}

fn kept_bytes(folder: &std::path::Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            all.extend(kept_bytes(&entry.path()));
        } else if kind.is_file() {
            all.extend(fs::read(entry.path()).unwrap());
        }
    }
    all
}

/// Lets `good` in, and nobody else.
fn login_service() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut reader = BufReader::new(&stream);
                loop {
                    let (mut line, mut length) = (String::new(), 0);
                    while line != "\r\n" {
                        line.clear();
                        if reader.read_line(&mut line).unwrap_or(0) == 0 {
                            return;
                        }
                        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                            length = value.trim().parse().unwrap();
                        }
                    }
                    let mut body = vec![0; length];
                    reader.read_exact(&mut body).unwrap();
                    let result = if body.windows(6).any(|part| part == b"\"good\"") {
                        "{\"result\":\"allow\",\"principal\":\"good\"}"
                    } else {
                        "{\"result\":\"deny\"}"
                    };
                    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", result.len());
                    if (&stream).write_all((head + result).as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

fn listed(place: &Place) -> serde_json::Value {
    let output = place.command(&["plugin", "list", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    answer["plugins"][0].clone()
}

#[test]
fn what_a_plugin_does_costs_and_says_of_itself_is_listed_and_published() {
    let place = place(BASE);
    let config = format!("{BASE}{}", plugin(&place, "hostile", "config.events = ['connected']"));
    place.write("weirmq.toml", &config);
    let broker = place.start();
    let figures = broker.mosquitto_sub(&["-v", "-t", "$SYS/broker/plugins/#"]);
    broker.publish(&["-u", "ann", "-q", "1", "-t", "count:3", "-m", "x"]);
    broker.publish(&["-u", "ann", "-q", "1", "-t", "t", "-m", "trap"]);
    let row = eventually("its events are told", || {
        Some(listed(&place)).filter(|row| row["calls_by_hook"]["lifecycle"].as_u64() >= Some(3))
    });
    assert_eq!(row["metrics"]["counted"], serde_json::json!({ "kind": "counter", "value": 3 }));
    assert_eq!(
        (&row["calls_by_hook"]["on-publish"], &row["failures_by_hook"]["on-publish"]["crash"]),
        (&2.into(), &1.into())
    );
    assert!(row["memory_bytes"].as_u64() > Some(0), "{row}");
    let latency = &row["latency"]["authenticate"];
    let histogram = latency["histogram"].as_array().unwrap();
    let timed: u64 = histogram.iter().map(|pair| pair[1].as_u64().unwrap()).sum();
    assert!(timed >= 2 && latency["timed"] == timed && latency["p50_ns"].as_u64() > Some(0), "{latency}");
    for figure in [
        "hostile/state serving",
        "hostile/metrics/counted 3",
        "hostile/calls/on-publish 2",
        "hostile/failures/crash 1",
        "hostile/latency/authenticate/p99_ns ",
        "hostile/memory/bytes ",
    ] {
        figures.out.wait_for(&[&format!("$SYS/broker/plugins/{figure}")]);
    }
    // Gone with the plugin.
    place.replace("weirmq.toml", BASE.as_bytes());
    broker.log.wait_for(&["the plugin is removed"]);
    // As mosquitto's client prints that nothing is retained any more.
    figures.out.wait_for(&["$SYS/broker/plugins/hostile/state (null)"]);
}

#[test]
fn a_version_in_the_shadow_is_compared_on_live_calls_and_decides_nothing() {
    let place = place(BASE);
    let policy = |allowed: &str| {
        format!("config = {{ rules = [{{ principals = ['ann'], publish = ['{allowed}'] }}] }}\n")
    };
    let logins = plugin(&place, "example-rust", "[plugin.config]\nann = 'sesame'");
    let guarded = |shadow: &str| {
        let section = plugin(&place, "topic-policy", &format!("{}{shadow}", policy("open/#")));
        // The policy first: it is what is looked at.
        format!("{BASE}{section}{logins}")
    };
    place.write("weirmq.toml", &guarded(""));
    let broker = place.start();
    let heard = broker.mosquitto_sub(&["-v", "-q", "1", "-t", "#"]);
    let publish = |topic: &str| {
        broker.mosquitto_pub(&[&ANN[..], &["-q", "1", "-V", "mqttv5", "-t", topic, "-m", "x"]].concat());
    };
    publish("open/1");
    fs::copy(guest("topic-policy"), place.path("next.wasm")).unwrap();
    let shadow = format!("[plugin.shadow]\nfile = 'next.wasm'\n{}", policy("+/narrow"));
    place.replace("weirmq.toml", guarded(&shadow).as_bytes());
    broker.log.wait_for(&["a version of the plugin is in its shadow"]);
    for topic in ["open/2", "open/narrow", "closed/3", "open/4"] {
        publish(topic);
    }
    assert_eq!(
        heard.wait_for(4),
        ["open/1 x", "open/2 x", "open/narrow x", "open/4 x"],
        "the one that serves decides"
    );
    let row = eventually("every answer is compared", || {
        Some(listed(&place)).filter(|row| row["shadow"]["compared"]["authorize"] == 4)
    });
    let shadow = &row["shadow"];
    assert_eq!(shadow["differed"], serde_json::json!({ "authorize": 2 }));
    let difference = &shadow["latest"][0];
    assert_eq!(difference["about"], "client 'c1', topic 'open/2'");
    assert_eq!((&difference["live"], &difference["shadow"]), (&"allow".into(), &"deny with 0x87".into()));
    assert!(shadow["latency"]["authorize"]["timed"].as_u64() > Some(0), "{shadow}");
    let said = String::from_utf8(place.command(&["plugin", "list"]).stdout).unwrap();
    assert!(said.contains("4 answers compared, 2 differed, 0 failed, 0 calls left out"), "{said}");
    assert!(said.contains("client 'c1', topic 'open/4': allow; shadow: deny with 0x87"), "{said}");
    let figures = broker.mosquitto_sub(&["-v", "-t", "$SYS/broker/plugins/topic-policy/shadow/#"]);
    figures.out.wait_for(&["shadow/differed/authorize 2"]);
    assert_eq!(row["reloads"], 0, "what serves was not touched");
}

#[test]
fn a_plugin_is_told_what_happens_to_single_messages() {
    let place = place(BASE);
    let events = "config.events = ['message-dropped', 'message-delivered', 'message-acked']";
    place.write("weirmq.toml", &format!("{BASE}{}", plugin(&place, "hostile", events)));
    let broker = place.start();
    let here = broker.mosquitto_sub(&["-i", "here", "-q", "1", "-t", "t"]);
    drop(broker.mosquitto_sub(&["-i", "away", "-c", "-q", "1", "-t", "t"]));
    eventually("it is away", || {
        let said = place.command(&["client", "away"]).stdout;
        String::from_utf8_lossy(&said).contains("not connected").then_some(())
    });
    broker.publish(&["-q", "1", "-t", "t", "-m", "x"]);
    broker.publish(&["-q", "0", "-t", "t", "-m", "x"]);
    here.wait_for(2);
    for parts in [
        ["event at", "MessageDelivered", "here"],
        ["event at", "MessageAcked", "here"],
        ["event at", "MessageDropped", "no_receiver_online"],
    ] {
        let line = broker.log.wait_for(&parts);
        assert!(line.contains("hostile"), "{line}");
    }
    assert!(!broker.log.all().iter().any(|line| line.contains("event at") && line.contains("Connected")));
}
