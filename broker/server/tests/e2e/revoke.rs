//! What was allowed is taken back: by an operator, by a plugin, by a changed configuration, by time.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Output;
use std::time::{Duration, Instant};

use crate::support::{Broker, PATIENCE, Place, guest};

/// How long it may take until everybody knows.
const DEADLINE: Duration = Duration::from_secs(1);
const CLIENTS: usize = 1000;
const NOT_AUTHORIZED: u8 = 0x87;
const ADMINISTRATIVE_ACTION: u8 = 0x98;

fn place(plugins: &str) -> Place {
    let place = Place::with(&config(plugins));
    for name in ["example-rust", "topic-policy", "asking", "login"] {
        fs::copy(guest(name), place.path(&format!("{name}.wasm"))).unwrap();
    }
    place
}

fn config(plugins: &str) -> String {
    format!(
        "data_folder = 'data'\n[[listener]]\nname = 'main'\naddress = '127.0.0.1:0'\n[auth]\nallow_anonymous = true\n\
         [limits]\nconnections_per_address_max = 5000\nconnect_rate_max = 100000\n\
         [[plugin]]\nname = 'logins'\nfile = 'example-rust.wasm'\ndeadline_ms = {{ authenticate = 30000 }}\n\
         config = {{ ann = 'sesame', bob = 'sesame' }}\n{plugins}"
    )
}

/// The policy by which everybody may subscribe to `allowed`.
fn policy(allowed: &str) -> String {
    format!(
        "[[plugin]]\nname = 'policy'\nfile = 'topic-policy.wasm'\ndeadline_ms = {{ authorize = 30000 }}\n\
         config = {{ rules = [{{ subscribe = [{allowed}] }}] }}\n"
    )
}

/// A client of MQTT 5 that has logged in as `user`, with a session that stays, and subscribed to `topic`.
fn client(broker: &Broker, user: &str, id: &str, password: &str, topic: &str) -> TcpStream {
    let mut socket = TcpStream::connect(broker.address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    // Session Expiry Interval of 60 s.
    let mut connect = b"\0\x04MQTT\x05\xc0\0\0\x05\x11\0\0\0\x3c".to_vec();
    for text in [id, user, password] {
        put(&mut connect, text);
    }
    let mut subscribe = b"\0\x01\0".to_vec();
    put(&mut subscribe, topic);
    subscribe.push(1);
    for (kind, body) in [(0x10, connect), (0x82, subscribe)] {
        let length = u8::try_from(body.len()).unwrap();
        assert!(length < 0x80);
        socket.write_all(&[&[kind, length][..], &body].concat()).unwrap();
        let answer = packet(&mut socket).unwrap();
        assert!(matches!((answer[0], answer.last()), (0x20, _) | (0x90, Some(1))), "{id}: {answer:02x?}");
    }
    socket
}

fn put(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
    bytes.extend(text.as_bytes());
}

fn packet(socket: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut packet = vec![0; 2];
    socket.read_exact(&mut packet)?;
    assert!(packet[1] < 0x80, "a short packet is expected");
    let mut body = vec![0; usize::from(packet[1])];
    socket.read_exact(&mut body)?;
    packet.extend(body);
    Ok(packet)
}

/// Each of `clients` is told with `code` that its connection ends, until `deadline`.
fn all_are_told(clients: &mut [TcpStream], code: u8, since: Instant) {
    for (number, socket) in clients.iter_mut().enumerate() {
        let left = DEADLINE.checked_sub(since.elapsed());
        let left = left.unwrap_or_else(|| panic!("{number} were told in time, and no more"));
        socket.set_read_timeout(Some(left.max(Duration::from_millis(1)))).unwrap();
        let told = packet(socket).unwrap_or_else(|error| panic!("client {number} is not told: {error}"));
        assert_eq!((told[0], told[2]), (0xe0, code), "client {number}");
    }
}

fn is_connected(socket: &mut TcpStream) -> bool {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(b"\xc0\0").is_ok() && packet(socket).is_ok_and(|answer| answer == [0xd0, 0])
}

fn must(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_thousand_clients_are_told_within_a_second_and_the_others_stay() {
    let place = place(&policy("'open/#', 'secret/#'"));
    let broker = place.start();
    let ann = |topic: &str| -> Vec<TcpStream> {
        (0..CLIENTS).map(|number| client(&broker, "ann", &format!("a{number}"), "sesame", topic)).collect()
    };
    let mut bob = client(&broker, "bob", "bob", "sesame", "open/x");

    // An operator ends leases.
    let mut clients = ann("secret/x");
    let since = Instant::now();
    must(&place.command(&["revoke", "--principal", "ann", "--end"]));
    all_are_told(&mut clients, NOT_AUTHORIZED, since);
    assert!(is_connected(&mut bob));

    // What the policy says now holds for who is connected: `secret` is gone, whoever has it must go.
    let mut clients = ann("secret/x");
    place.replace("weirmq.toml", config(&policy("'open/#'")).as_bytes());
    broker.log.wait_for(&["weirmq.toml is taken over"]);
    all_are_told(&mut clients, NOT_AUTHORIZED, Instant::now());
    assert!(is_connected(&mut bob), "it has nothing that it may not have");

    // Asked again where nothing has changed, nobody goes; a client that an operator disconnects does.
    must(&place.command(&["revoke", "--everyone"]));
    assert!(is_connected(&mut bob));
    let since = Instant::now();
    must(&place.command(&["client", "disconnect", "bob"]));
    all_are_told(&mut [bob], ADMINISTRATIVE_ACTION, since);
}

#[test]
fn a_plugin_revokes_and_a_lease_ends() {
    let place = place("");
    fs::write(place.path("token"), "x").unwrap();
    let asking = "[[plugin]]\nname = 'asking'\nfile = 'asking.wasm'\nsecrets.token = { file = 'token' }\n\
                  grant = { http = ['127.0.0.1:1'], publish = ['alerts/#'], key-value = true, revoke = true }\n\
                  deadline_ms = { on-publish = 30000 }\n";
    place.write("weirmq.toml", &config(&format!("{asking}{}", policy("'open/#'"))));
    let broker = place.start();
    let mut clients: Vec<TcpStream> = (0..CLIENTS)
        .map(|number| client(&broker, "ann", &format!("a{number}"), "sesame", "open/x"))
        .collect();
    let since = Instant::now();
    broker.publish(&["-q", "1", "-t", "ask/it", "-m", "revoke everyone 151"]);
    all_are_told(&mut clients, 151, since);

    let quickstart =
        fs::read_to_string(crate::support::repository().join("examples/quickstart/weirmq.toml")).unwrap();
    let users =
        quickstart.split("[plugin.config.users.press-1]").nth(1).unwrap().split("[rules]").next().unwrap();
    let short =
        users.replace("[plugin.config.roles.device]", "[plugin.config.roles.device]\nexpires_in_seconds = 2");
    let login = format!(
        "[[plugin]]\nname = 'login'\nfile = 'login.wasm'\ndeadline_ms = {{ authenticate = 30000 }}\n\
         [plugin.config.users.press-1]{short}"
    );
    let base = config("");
    let (head, _) = base.split_once("[[plugin]]").unwrap();
    place.replace("weirmq.toml", format!("{head}{login}").as_bytes());
    broker.log.wait_for(&["the plugin serves now", "login"]);
    let mut press = client(&broker, "press-1", "p", "forge-anvil-7", "commands/press-1/x");
    let told = packet(&mut press).unwrap();
    assert_eq!((told[0], told[2]), (0xe0, NOT_AUTHORIZED), "its time is up");
}

#[test]
fn a_right_that_is_lost_while_client_and_broker_are_away_delivers_nothing() {
    let place = place(&policy("'open/#', 'secret/#'"));
    let broker = place.start();
    let ann = ["-u", "ann", "-P", "sesame", "-i", "keeper", "-c", "-q", "1"];
    drop(broker.mosquitto_sub(&[&ann[..], &["-t", "secret/x", "-t", "open/x"]].concat()));
    for (topic, payload) in [("secret/x", "lost"), ("open/x", "kept")] {
        broker.publish(&["-q", "1", "-t", topic, "-m", payload]);
    }
    broker.signal("TERM");
    assert_eq!(broker.ended().code(), Some(0));
    place.write("weirmq.toml", &config(&policy("'open/#'")));
    let broker = place.start();
    let back = broker.mosquitto_sub(&[&ann[..], &["-t", "open/x"]].concat());
    broker.publish(&["-q", "1", "-t", "secret/x", "-m", "lost too"]);
    broker.publish(&["-q", "1", "-t", "open/x", "-m", "last"]);
    assert_eq!(back.wait_for(2), ["kept", "last"]);
}
