//! What goes wrong costs whoever did it, and nobody else.

use serde_json::json;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use crate::support::{Broker, DASHBOARD, PATIENCE, Place, Webhook, eventually, guest, vacant_address, with};

#[test]
fn a_locked_database_and_a_dead_webhook_hold_nobody_up_and_lose_nothing() {
    let address = vacant_address();
    let place = Place::quickstart(address);
    let broker = place.start();
    let lock = rusqlite::Connection::open(place.path("data/history.db")).unwrap();
    lock.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let alerts = broker.mosquitto_sub(&with(DASHBOARD, &["-t", "alerts/#"]));
    for celsius in 101..=120 {
        broker.reading(&celsius.to_string());
    }
    assert_eq!(alerts.wait_for(20).len(), 20, "clients notice nothing");
    broker.log.wait_for(&["history"]);
    broker.log.wait_for(&["alert_webhook"]);
    lock.execute_batch("ROLLBACK").unwrap();
    let rows = eventually("all rows", || {
        Some(place.rows("SELECT CAST(celsius AS INTEGER) FROM history ORDER BY rowid"))
            .filter(|rows| rows.len() == 20)
    });
    let expected: Vec<Vec<String>> = (101..=120).map(|celsius| vec![celsius.to_string()]).collect();
    assert_eq!(rows, expected, "in order");
    let webhook = Webhook::on(TcpListener::bind(address).unwrap());
    let calls = webhook.wait_for(20);
    assert_eq!(calls.len(), 20);
    assert_eq!(calls[0]["celsius"], json!(101));
}

#[test]
fn a_rule_that_loops_or_throws_fails_alone() {
    let place = Place::quickstart(Webhook::start().address);
    place.write("rules/a-loop.rhai", "on(\"endless\", \"factory/#\", |msg| { loop { } });");
    place.write("rules/b-throw.rhai", "on(\"thrower\", \"factory/#\", |msg| { throw \"no\"; });");
    let broker = place.start();
    let alerts = broker.mosquitto_sub(&with(DASHBOARD, &["-t", "alerts/#"]));
    broker.reading("91");
    alerts.wait_for(1);
    broker.log.wait_for(&["endless", "rule failed"]);
    broker.log.wait_for(&["thrower", "rule failed"]);
    eventually("the row", || Some(place.rows("SELECT celsius FROM history")).filter(|rows| rows.len() == 1));
}

/// A CONNECT in MQTT 3.1.1 with a user name.
fn connect(client_id: &str, username: &str) -> Vec<u8> {
    let mut body = b"\x00\x04MQTT\x04\x82\x00\x3c".to_vec();
    for text in [client_id, username] {
        body.extend_from_slice(&u16::try_from(text.len()).unwrap().to_be_bytes());
        body.extend_from_slice(text.as_bytes());
    }
    let mut packet = vec![0x10, u8::try_from(body.len()).unwrap()];
    packet.extend_from_slice(&body);
    packet
}

fn socket(address: std::net::SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

#[test]
fn a_plugin_that_loops_hogs_memory_traps_or_answers_garbage_costs_its_own_call() {
    let config = format!(
        r#"
data_folder = "data"
[[listener]]
name = "main"
address = "127.0.0.1:0"
[auth]
allow_anonymous = true
[[plugin]]
name = "hostile"
file = '{}'
[plugin.deadline_ms]
authenticate = 200
[plugin.quarantine]
failures = 1000
"#,
        guest("hostile").display()
    );
    let place = Place::with(&config);
    let broker = place.start();
    // A bystander that is connected all the time.
    let bystander = broker.mosquitto_sub(&["-t", "news"]);
    for command in ["loop", "allocate", "trap", "bad-filter", "bad-code", "huge"] {
        let mut victim = socket(broker.address);
        victim.write_all(&connect("victim", command)).unwrap();
        let mut answer = Vec::new();
        victim.read_to_end(&mut answer).unwrap();
        assert_eq!(answer.get(..3), Some(&b"\x20\x02\x00"[..]), "{command}: {answer:?}");
        assert!(matches!(answer.get(3), Some(3..=5)), "{command}: {answer:?}");
    }
    broker.log.wait_for_count(&["hostile", "hook failed", "authenticate"], 6);
    broker.publish(&["-t", "news", "-m", "all is well", "-q", "1"]);
    assert_eq!(bystander.wait_for(1), ["all is well"]);
    let listed = place.command(&["plugin", "list", "--json"]);
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(listed["plugins"][0]["failures"], json!(6), "each failure is counted: {listed}");
}

#[test]
fn a_malformed_packet_closes_its_own_connection_only() {
    let (broker, _folder) = Broker::bare();
    let bystander = broker.mosquitto_sub(&["-t", "t"]);
    for bad in [
        &b"\x10\x00"[..],
        b"\xff\xff\xff\xff\xff",
        b"\x00",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
    ] {
        let mut socket = socket(broker.address);
        socket.write_all(bad).unwrap();
        let mut answer = Vec::new();
        // A reset is an end too.
        let _ = socket.read_to_end(&mut answer);
        assert!(answer.is_empty(), "{bad:?} was answered with {answer:?}");
    }
    let mut peer = socket(broker.address);
    peer.write_all(b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x00").unwrap();
    let mut head = [0; 2];
    peer.read_exact(&mut head).unwrap();
    let mut rest = vec![0; usize::from(head[1])];
    peer.read_exact(&mut rest).unwrap();
    peer.write_all(b"\xc1\x00").unwrap();
    let mut answer = Vec::new();
    peer.read_to_end(&mut answer).unwrap();
    assert_eq!(answer.get(..1), Some(&b"\xe0"[..]), "DISCONNECT");
    assert_eq!(answer.get(2), Some(&0x81), "malformed packet");
    broker.log.wait_for_count(&["bad input"], 6);
    broker.publish(&["-t", "t", "-m", "x", "-q", "1"]);
    assert_eq!(bystander.wait_for(1), ["x"]);
}

#[test]
fn a_rule_that_multiplies_messages_comes_to_an_end_and_holds_nobody_else_up() {
    let place = Place::with(
        "data_folder = 'data'\n[[listener]]\naddress = '127.0.0.1:0'\n[auth]\nallow_anonymous = true\n[rules]\nfolder = 'rules'\n",
    );
    std::fs::create_dir(place.path("rules")).unwrap();
    place.write(
        "rules/fan.rhai",
        "on(\"fan\", \"evil/#\", |msg| { for i in 0..64 { publish(\"evil/fan\", \"x\"); } });",
    );
    let broker = place.start();
    let bystander = broker.mosquitto_sub(&["-t", "news"]);
    for _ in 0..20 {
        broker.publish(&["-q", "1", "-t", "evil/fan", "-m", "1"]);
        broker.publish(&["-q", "1", "-t", "news", "-m", "all is well"]);
    }
    assert_eq!(bystander.wait_for(20).len(), 20);
    broker.log.wait_for(&["too much is made of one message", "evil/fan"]);
    assert!(broker.resident_kib() < 200 * 1024, "{} KiB", broker.resident_kib());
    broker.signal("TERM");
    assert_eq!(broker.ended().code(), Some(0));
}
