//! Everything that is kept in a store backend that is a component: the plugin that keeps it in rqlite, here a server that
//! understands as much of rqlite's HTTP as the plugin speaks, with the real SQLite behind it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use rusqlite::types::ToSqlOutput;
use serde_json::{Value, json};
use weirmq_wire::{Packet, ReasonCode, Version};

use crate::crash::session::{Link, leave_a_session, message};
use crate::sqlite_store::HEAD;
use crate::support::{Broker, Place, guest};

/// rqlite, as far as it is needed.
#[derive(Clone)]
struct Rqlite {
    address: SocketAddr,
    inside: Arc<Mutex<Inside>>,
}

struct Inside {
    database: rusqlite::Connection,
    fault: Fault,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// There is no leader.
    NoLeader,
    /// Requests are not answered.
    Silent,
    /// The next connection that asks is closed.
    BreaksOff,
    Full,
}

impl Rqlite {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let database = rusqlite::Connection::open_in_memory().unwrap();
        let address = listener.local_addr().unwrap();
        let rqlite = Self { address, inside: Arc::new(Mutex::new(Inside { database, fault: Fault::None })) };
        let own = rqlite.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let own = own.clone();
                thread::spawn(move || while own.answer(&stream).is_some() {});
            }
        });
        rqlite
    }

    fn set(&self, fault: Fault) {
        self.inside.lock().unwrap().fault = fault;
    }

    fn answer(&self, mut stream: &TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream);
        let mut first = String::new();
        reader.read_line(&mut first).ok()?;
        let (mut length, mut authorized) = (0, false);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            match line.to_ascii_lowercase().trim().split_once(": ") {
                Some(("content-length", value)) => length = value.parse().ok()?,
                Some(("authorization", value)) => authorized = value == "basic c0ffee",
                _ => {}
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let statements: Vec<Vec<Value>> = serde_json::from_slice(&body).unwrap();
        let (status, answer) = {
            let mut inside = self.inside.lock().unwrap();
            match inside.fault {
                _ if !authorized => (401, json!("Unauthorized")),
                Fault::NoLeader => (503, json!("leader not found")),
                Fault::Silent => {
                    drop(inside);
                    loop {
                        thread::park();
                    }
                }
                Fault::BreaksOff => {
                    inside.fault = Fault::None;
                    return None;
                }
                Fault::Full => (200, json!({"results": [{"error": "database or disk is full"}]})),
                Fault::None if first.starts_with("POST /db/execute?transaction ") => {
                    (200, inside.execute(&statements))
                }
                Fault::None if first.starts_with("POST /db/query?level=strong ") => {
                    (200, inside.query(&statements))
                }
                Fault::None => (404, json!("no such path")),
            }
        };
        let answer = answer.to_string();
        // In one piece, for which nobody waits.
        let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{answer}", answer.len());
        stream.write_all(answer.as_bytes()).ok()
    }
}

/// A statement, and its parameters.
fn parts(statement: &[Value]) -> (&str, Vec<ToSqlOutput<'_>>) {
    let [sql, parameters @ ..] = statement else { panic!("a statement is expected") };
    let parameter = |value: &Value| match value {
        Value::String(text) => ToSqlOutput::from(text.clone()),
        Value::Number(number) => ToSqlOutput::from(number.as_i64().unwrap()),
        other => panic!("{other}"),
    };
    (sql.as_str().unwrap(), parameters.iter().map(parameter).collect())
}

impl Inside {
    fn execute(&mut self, statements: &[Vec<Value>]) -> Value {
        let transaction = self.database.transaction().unwrap();
        let mut results = Vec::new();
        for statement in statements {
            let (sql, parameters) = parts(statement);
            match transaction.execute(sql, rusqlite::params_from_iter(parameters)) {
                Ok(rows) => results.push(json!({"last_insert_id": 1, "rows_affected": rows})),
                Err(error) => {
                    results.push(json!({"error": error.to_string()}));
                    // Dropped, it is rolled back.
                    return json!({"results": results});
                }
            }
        }
        transaction.commit().unwrap();
        json!({"results": results})
    }

    fn query(&self, statements: &[Vec<Value>]) -> Value {
        let (sql, parameters) = parts(&statements[0]);
        let mut select = self.database.prepare(sql).unwrap();
        let count = select.column_count();
        let rows = select.query_map(rusqlite::params_from_iter(parameters), |row| {
            (0..count).map(|column| row.get::<_, String>(column)).collect::<Result<Vec<_>, _>>()
        });
        let values: Vec<Vec<String>> = rows.unwrap().map(Result::unwrap).collect();
        let columns = vec!["c"; count];
        if values.is_empty() {
            return json!({"results": [{"columns": columns, "types": columns}]});
        }
        json!({"results": [{"columns": columns, "types": columns, "values": values}]})
    }
}

/// A place whose broker keeps everything in `rqlite`.
fn place(rqlite: &Rqlite) -> Place {
    let place = Place::with("");
    place.write("token", "Basic c0ffee");
    let tables = format!(
        "[store]\nbackend = 'state'\n[[plugin]]\nname = 'state'\nfile = '{}'\n[plugin.deadline_ms]\nstore-backend = 3000\n\
         [plugin.grant]\nhttp = ['127.0.0.1']\n[plugin.secrets]\nrqlite = {{ file = 'token' }}\n\
         [plugin.config]\nurl = 'http://{}'\nauthorization = 'rqlite'\n",
        guest("rqlite-store").display(),
        rqlite.address
    );
    place.write("weirmq.toml", &format!("{HEAD}{tables}"));
    place
}

/// Publishes at QoS 1, and answers the reason code of the PUBACK.
fn publish(link: &mut Link, packet_id: u16, payload: &str) -> ReasonCode {
    link.send(&Packet::Publish(message("queue/a", packet_id, payload.to_owned())));
    let Packet::PubAck(answer) = link.wait() else { panic!("a PUBACK is expected") };
    answer.code
}

fn publisher(broker: &Broker) -> Link {
    Link::enter(broker.address, &weirmq_wire::Connect::new(Version::V5, crate::crash::session::text("p"))).0
}

#[test]
fn sessions_queues_and_retained_messages_survive_in_it() {
    let rqlite = Rqlite::start();
    let place = place(&rqlite);
    let tried = place.command(&["store", "try-backend"]);
    assert!(tried.status.success(), "{}", String::from_utf8_lossy(&tried.stderr));
    let broker = place.start();
    leave_a_session(&broker);
    let mut link = publisher(&broker);
    for number in 0..50 {
        assert_eq!(publish(&mut link, number + 1, &number.to_string()), ReasonCode::Success);
    }
    rqlite.set(Fault::BreaksOff);
    broker.publish(&["-q", "1", "-r", "-t", "kept", "-m", "retained"]);
    assert!(rqlite.inside.lock().unwrap().fault == Fault::None, "a connection broke off, and that was all");
    broker.signal("KILL");
    broker.ended();
    let broker = place.start();
    broker.log.wait_for(&["brought back", "1 session, 50 messages that wait, 1 retained message"]);
    let subscriber = broker.mosquitto_sub(&["-c", "-i", "offline", "-q", "1", "-t", "queue/#"]);
    let expected: Vec<String> = (0..50).map(|number| number.to_string()).collect();
    assert_eq!(subscriber.wait_for(50), expected);
    let reader = broker.mosquitto_sub(&["-q", "0", "-t", "kept"]);
    assert_eq!(reader.wait_for(1), ["retained"]);
}

#[test]
fn a_broker_that_opens_it_later_takes_it_over_and_the_one_before_acknowledges_nothing_more() {
    let rqlite = Rqlite::start();
    let (place, other) = (place(&rqlite), place(&rqlite));
    let first = place.start();
    leave_a_session(&first);
    let mut link = publisher(&first);
    assert_eq!(publish(&mut link, 1, "before"), ReasonCode::Success);
    let second = other.start();
    second.log.wait_for(&["brought back", "1 session, 1 message that waits"]);
    assert_eq!(publish(&mut link, 2, "too late"), ReasonCode::ImplementationSpecificError);
    first.log.wait_for(&["nothing more is kept", "another broker has opened the store since"]);
    let mut link = publisher(&second);
    assert_eq!(publish(&mut link, 1, "behind"), ReasonCode::Success);
    let subscriber = second.mosquitto_sub(&["-c", "-i", "offline", "-q", "1", "-t", "queue/#"]);
    assert_eq!(subscriber.wait_for(2), ["before", "behind"]);
}

#[test]
fn while_it_does_not_answer_nothing_is_acknowledged_and_qos_0_goes_on() {
    for (fault, said, code) in [
        (Fault::NoLeader, "it answered with status 503", ReasonCode::ImplementationSpecificError),
        (Fault::Silent, "it took too long", ReasonCode::ImplementationSpecificError),
        (Fault::Full, "database or disk is full", ReasonCode::QuotaExceeded),
    ] {
        let rqlite = Rqlite::start();
        let place = place(&rqlite);
        let broker = place.start();
        leave_a_session(&broker);
        let mut link = publisher(&broker);
        assert_eq!(publish(&mut link, 1, "acknowledged"), ReasonCode::Success);
        let online = broker.mosquitto_sub(&["-q", "0", "-t", "live/#"]);
        rqlite.set(fault);
        assert_eq!(publish(&mut link, 2, "never acknowledged"), code, "{fault:?}");
        broker.log.wait_for(&["nothing more is kept", said]);
        broker.publish(&["-q", "0", "-t", "live/1", "-m", "still here"]);
        assert_eq!(online.wait_for(1), ["still here"]);
        drop(broker);
        rqlite.set(Fault::None);
        let broker = place.start();
        let subscriber = broker.mosquitto_sub(&["-c", "-i", "offline", "-q", "1", "-t", "queue/#"]);
        assert_eq!(subscriber.wait_for(1), ["acknowledged"]);
    }
}

#[test]
fn what_is_wrong_with_it_at_start_is_said_in_a_sentence() {
    let rqlite = Rqlite::start();
    let place = place(&rqlite);
    let config = std::fs::read_to_string(place.path("weirmq.toml")).unwrap();
    place.write("other-token", "Basic decaf");
    for (from, to, said) in [
        ("http = ['127.0.0.1']", "", "add to its [[plugin]] table"),
        ("rqlite = { file", "other = { file", "no secret is called 'rqlite'"),
        (
            "http = ['127.0.0.1']",
            "http = ['rqlite.example.com']",
            "the broker does not let this plugin there",
        ),
        ("url = 'http://", "url = '", "is no URL such as"),
        ("authorization = 'rqlite'\n", "", "missing field `authorization`"),
        ("file = 'token'", "file = 'other-token'", "it answered with status 401"),
    ] {
        assert!(config.contains(from), "{from}");
        place.write("weirmq.toml", &config.replace(from, to));
        let output = place.command(&["run"]);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{to}: {errors}");
        let sentences: Vec<&str> = errors.lines().filter(|line| line.starts_with("error: ")).collect();
        let begins = "error: the store's backend cannot be used: plugin 'state'";
        assert!(
            matches!(&sentences[..], [one] if one.contains(said) && one.starts_with(begins)),
            "'{said}' is not in: {errors}"
        );
    }
}
