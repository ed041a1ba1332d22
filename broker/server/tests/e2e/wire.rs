//! What a peer sees on the socket itself.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::support::{Broker, DASHBOARD, PATIENCE, Place, Webhook, eventually, with};

fn open(broker: &Broker, first: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect(broker.address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(first).unwrap();
    socket
}

fn packet(socket: &mut TcpStream) -> Vec<u8> {
    let mut packet = vec![0; 2];
    socket.read_exact(&mut packet).unwrap();
    assert!(packet[1] < 0x80, "a short packet is expected");
    let mut body = vec![0; usize::from(packet[1])];
    socket.read_exact(&mut body).unwrap();
    packet.extend(body);
    packet
}

#[test]
fn v5_3_1_4_3_the_old_connection_of_a_client_id_is_told_and_closed() {
    let (broker, _folder) = Broker::bare();
    let connect = b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01t";
    let mut old = open(&broker, connect);
    packet(&mut old);
    let mut new = open(&broker, connect);
    packet(&mut new);
    let goodbye = packet(&mut old);
    assert_eq!((goodbye[0], goodbye[2]), (0xe0, 0x8e));
    let mut rest = Vec::new();
    old.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty(), "the connection is closed, nothing follows");
    new.write_all(b"\xc0\x00").unwrap();
    assert_eq!(packet(&mut new), [0xd0, 0x00]);
}

#[test]
fn v311_3_1_3_8_an_empty_client_id_needs_a_clean_session() {
    let (broker, _folder) = Broker::bare();
    let mut socket = open(&broker, b"\x10\x0c\x00\x04MQTT\x04\x00\x00\x3c\x00\x00");
    let mut all = Vec::new();
    socket.read_to_end(&mut all).unwrap();
    assert_eq!(all, [0x20, 0x02, 0x00, 0x02]);
}

#[test]
fn packets_sent_before_connack_are_handled_in_order_after_it() {
    let (broker, _folder) = Broker::bare();
    let mut bytes = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01t".to_vec();
    bytes.extend_from_slice(b"\x82\x06\x00\x01\x00\x01a\x00");
    bytes.extend_from_slice(b"\x32\x06\x00\x01a\x00\x07x");
    bytes.extend_from_slice(b"\xc0\x00");
    let mut socket = open(&broker, &bytes);
    assert_eq!(packet(&mut socket), [0x20, 0x02, 0x00, 0x00]);
    assert_eq!(packet(&mut socket), [0x90, 0x03, 0x00, 0x01, 0x00]);
    let mut rest = vec![packet(&mut socket), packet(&mut socket), packet(&mut socket)];
    rest.sort();
    assert_eq!(rest, [&b"\x30\x04\x00\x01ax"[..], b"\x40\x02\x00\x07", b"\xd0\x00"]);
}

#[test]
fn a_peer_that_does_not_log_in_is_closed_and_one_that_reads_nothing_holds_nobody_up() {
    let (broker, _folder) = Broker::bare();
    let mut deaf =
        open(&broker, b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01d\x82\x06\x00\x01\x00\x01a\x00");
    packet(&mut deaf);
    packet(&mut deaf);
    let ears = broker.mosquitto_sub(&["-t", "a", "-F", "%l"]);
    // Far more than sockets buffer: the deaf one's messages are dropped, counted, and not waited for.
    let mut p = open(&broker, b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01p");
    packet(&mut p);
    let mut publish = b"\x30\x83\x80\x04\x00\x01a".to_vec();
    publish.resize(publish.len() + 65_536, b'x');
    for _ in 0..600 {
        p.write_all(&publish).unwrap();
    }
    p.write_all(b"\xc0\x00").unwrap();
    assert_eq!(packet(&mut p), [0xd0, 0x00]);
    ears.wait_for(1);
    assert!(broker.resident_kib() < 400 * 1024, "{} KiB", broker.resident_kib());
}

#[test]
fn the_figures_are_for_those_who_may_see_them() {
    let (broker, _folder) = Broker::bare();
    let figures = broker.mosquitto_sub(&["-t", "$SYS/#", "-v"]);
    for name in ["uptime", "clients/connected", "messages/received", "load/messages/sent/15min"] {
        figures.out.wait_for(&[&format!("$SYS/broker/{name} ")]);
    }
    figures.out.wait_for(&["$SYS/broker/messages/dropped/queue_full 0"]);
    figures.out.wait_for(&["$SYS/broker/limits/connections 0"]);
    let place = Place::quickstart(Webhook::start().address);
    let broker = place.start();
    // A login with rights sees what its rights name, and nobody named `$SYS`.
    let denied = broker
        .mosquitto_pub(&with(DASHBOARD, &["-V", "mqttv5", "-q", "1", "-t", "$SYS/broker/uptime", "-m", "1"]));
    assert!(String::from_utf8_lossy(&denied.stderr).to_lowercase().contains("not authorized"), "{denied:?}");
    let _subscriber = broker.mosquitto_sub(&with(DASHBOARD, &["-t", "$SYS/#"]));
    broker.log.wait_for(&["denied", "subscribe", "$SYS/#"]);
}

#[test]
fn too_many_connections_are_closed_as_soon_as_they_come_and_counted() {
    let place = Place::with(
        "data_folder = 'data'\n[[listener]]\naddress = '127.0.0.1:0'\n[auth]\nallow_anonymous = true\n[limits]\nconnections_per_address_max = 2\n",
    );
    let broker = place.start();
    let connect = |id: &str| [b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01", id.as_bytes()].concat();
    let mut first = open(&broker, &connect("a"));
    packet(&mut first);
    let mut second = open(&broker, &connect("b"));
    packet(&mut second);
    let mut third = TcpStream::connect(broker.address).unwrap();
    third.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = Vec::new();
    // A reset is an end too.
    let _ = third.read_to_end(&mut answer);
    assert!(answer.is_empty());
    broker.log.wait_for(&["connection refused", "connections_per_address"]);
    drop(second);
    broker.log.wait_for(&["disconnected", "\"b\""]);
    eventually("there is room again", || {
        let mut fourth = TcpStream::connect(broker.address).ok()?;
        fourth.write_all(&connect("d")).ok()?;
        let mut answer = [0; 4];
        fourth.read_exact(&mut answer).ok()
    });
}

/// 8 bytes in, 4 bytes out: what is acknowledged and not read fills the sockets first, then the outbox.
#[test]
fn a_publisher_that_leaves_its_answers_unread_is_held_up_by_its_socket_and_loses_nothing() {
    const MESSAGES_MAX: usize = 8_000_000;
    let place = Place::with(
        "data_folder = 'data'\n[[listener]]\naddress = '127.0.0.1:0'\n[auth]\nallow_anonymous = true\n[limits]\noutbox_bytes_max = 65536\n",
    );
    let broker = place.start();
    let mut p = open(&broker, b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01p");
    packet(&mut p);
    let publish = |number: usize| {
        let [high, low] = u16::try_from(number % 65_535 + 1).unwrap().to_be_bytes();
        [0x32, 0x06, 0x00, 0x01, b'a', high, low, b'x']
    };
    let all: Vec<u8> = (0..65_535).flat_map(publish).collect();
    // The socket takes no more, and goes on taking no more.
    p.set_write_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
    let (mut sent, mut rest) = (0, &all[..]);
    loop {
        match p.write(rest) {
            Ok(written) => (sent, rest) = (sent + written, &rest[written..]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
            Err(error) => panic!("after {sent} bytes: {error}"),
        }
        if rest.is_empty() {
            rest = &all;
        }
        assert!(sent < MESSAGES_MAX * 8, "nobody holds it up");
    }
    assert!(broker.resident_kib() < 100 * 1024, "{} KiB", broker.resident_kib());
    // Once it reads, everything that it has sent whole is acknowledged, in order.
    let mut acks = vec![0; 4 * 65_535];
    let (mut acked, mut whole) = (0, sent / 8);
    if sent % 8 > 0 {
        p.set_write_timeout(Some(PATIENCE)).unwrap();
        let mut writer = p.try_clone().unwrap();
        let end = rest[..8 - sent % 8].to_vec();
        std::thread::spawn(move || writer.write_all(&end).unwrap());
        whole += 1;
    }
    while acked < whole {
        let count = (whole - acked).min(65_535);
        p.read_exact(&mut acks[..4 * count]).unwrap();
        for ack in acks[..4 * count].chunks_exact(4) {
            let [high, low] = u16::try_from(acked % 65_535 + 1).unwrap().to_be_bytes();
            assert_eq!(ack, [0x40, 0x02, high, low]);
            acked += 1;
        }
    }
}
