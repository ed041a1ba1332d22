//! How a broker starts and ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use crate::support::{BARE, Broker, PATIENCE, Place, Webhook, binary, eventually, vacant_address};

#[test]
fn sigterm_tells_the_clients_drains_and_exits_with_0() {
    let place = Place::quickstart(Webhook::start().address);
    let broker = place.start();
    let mut client = TcpStream::connect(broker.address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let login: &[u8] =
        b"\x10\x2b\x00\x04MQTT\x05\xc2\x00\x3c\x00\x00\x00\x00\x07press-1\x00\x0dforge-anvil-7";
    let mut login = login.to_vec();
    login[1] = u8::try_from(login.len() - 2).unwrap();
    client.write_all(&login).unwrap();
    let mut head = [0; 2];
    client.read_exact(&mut head).unwrap();
    assert_eq!(head[0], 0x20);
    let mut rest = vec![0; usize::from(head[1])];
    client.read_exact(&mut rest).unwrap();
    assert_eq!(rest[1], 0, "let in");
    broker.signal("TERM");
    let mut last = Vec::new();
    client.read_to_end(&mut last).unwrap();
    assert_eq!((last.first(), last.get(2)), (Some(&0xe0), Some(&0x8b)));
    assert_eq!(broker.ended().code(), Some(0));
}

#[test]
fn a_broker_whose_log_nobody_reads_any_more_serves_on_and_ends_as_asked() {
    let address = vacant_address();
    let listen = ["run", "--listen", &address.to_string(), "--allow-anonymous"].map(str::to_owned);
    let place = Place::with("");
    let mut process = binary()
        .args(listen)
        .arg("--data-folder")
        .arg(place.path("data"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(process.stderr.take().unwrap()).lines();
    assert!(log.any(|line| line.unwrap().contains("listening")));
    drop(log);
    for client in *b"abc" {
        let mut socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let connect = [&b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01"[..], &[client]].concat();
        socket.write_all(&connect).unwrap();
        let mut connack = [0; 4];
        socket.read_exact(&mut connack).unwrap();
        assert_eq!(connack, *b"\x20\x02\x00\x00");
    }
    let pid = process.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let ended = eventually("the end of the broker", || process.try_wait().unwrap());
    assert_eq!(ended.code(), Some(0));
}

#[test]
fn what_the_sinks_have_not_written_at_the_end_is_written_after_the_next_start() {
    let address = vacant_address();
    let place = Place::quickstart(address);
    let broker = place.start();
    broker.reading("95");
    broker.signal("TERM");
    assert_eq!(broker.ended().code(), Some(0));
    let webhook = Webhook::on(std::net::TcpListener::bind(address).unwrap());
    let _broker = place.start();
    assert_eq!(webhook.wait_for(1)[0]["celsius"], serde_json::json!(95));
}

#[test]
fn check_says_what_is_wrong_without_starting() {
    let place = Place::quickstart(Webhook::start().address);
    let good = place.command(&["check"]);
    assert!(
        good.status.success(),
        "{}{}",
        String::from_utf8_lossy(&good.stdout),
        String::from_utf8_lossy(&good.stderr)
    );
    assert!(!place.path("data").exists(), "checking makes no file");
    place.write("rules/broken.rhai", "on(\"a\", \"b\", |msg| { publsh(\"c\", 1); });");
    let config = std::fs::read_to_string(place.path("weirmq.toml")).unwrap();
    place.write("weirmq.toml", &config.replace("name = \"main\"", "name = \"main\"\nadress = \"x\""));
    let bad = place.command(&["check"]);
    assert_eq!(bad.status.code(), Some(1));
    let text = String::from_utf8_lossy(&bad.stdout).into_owned() + &String::from_utf8_lossy(&bad.stderr);
    assert!(
        text.contains("adress") && text.contains("did you mean `address`?") && text.contains("weirmq.toml:"),
        "{text}"
    );
}

#[test]
fn nobody_can_log_in_is_not_a_broker_and_an_open_door_to_the_network_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = binary()
        .args(["run", "--listen", "127.0.0.1:0", "--data-folder"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--allow-anonymous"));
    let place = Place::with(
        "data_folder = 'data'\n[[listener]]\nname = 'main'\naddress = '0.0.0.0:0'\n[auth]\nallow_anonymous = true\n",
    );
    let refused = place.command(&["run"]);
    assert!(!refused.status.success());
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("0.0.0.0"), "{text}");
}

#[test]
fn a_second_broker_on_the_same_data_is_refused() {
    let (_first, folder) = Broker::bare();
    let second = binary().args(BARE).arg(folder.path()).output().unwrap();
    assert!(!second.status.success());
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(text.contains(&folder.path().display().to_string()), "{text}");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    // Accepts connections by its backlog, and answers nothing: the sink has something to wait for.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let place = Place::quickstart(silent.local_addr().unwrap());
    let broker = place.start();
    broker.reading("95");
    broker.signal("TERM");
    broker.log.wait_for(&["asked to end: draining"]);
    broker.signal("TERM");
    assert_eq!(broker.ended().code(), Some(128 + 15));
}

#[test]
fn logs_are_json_where_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let arguments =
        ["run", "--log-format", "json", "--listen", "127.0.0.1:0", "--allow-anonymous", "--data-folder"];
    let broker = Broker::start(arguments, Some(folder.path()));
    broker.publish(&["-i", "json", "-t", "t", "-m", "x"]);
    let line = broker.log.wait_for(&["disconnected", "json"]);
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["client"], serde_json::json!("json"));
}
