//! The store beneath a running broker: looked at, backed up, on a disk that runs full, and in folders that are
//! none.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{BARE, Broker, PATIENCE, binary, eventually};

/// Says that a test cannot be done here, also where its output is captured.
#[expect(clippy::explicit_write, reason = "what is printed in a test is captured")]
fn skipped(why: &str) {
    writeln!(std::io::stderr(), "SKIPPED: {why}").unwrap();
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn start(data: &Path) -> Broker {
    Broker::start(BARE, Some(data))
}

/// A session `offline` that is subscribed to `queue/#` at QoS 1, and not connected.
fn leave_a_session(broker: &Broker, data: &Path) {
    drop(broker.mosquitto_sub(&["-c", "-i", "offline", "-q", "1", "-t", "queue/#"]));
    eventually("the session is there without a connection", || {
        let output = binary().args(["client", "offline", "--data-folder"]).arg(data).output().unwrap();
        String::from_utf8(output.stdout).unwrap().contains("not connected").then_some(())
    });
}

/// A client of MQTT 5 on a socket.
struct MqttFive {
    socket: TcpStream,
    next_id: u16,
}

impl MqttFive {
    fn connect(broker: &Broker, client_id: &str) -> Option<Self> {
        let socket = TcpStream::connect(broker.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut client = Self { socket, next_id: 0 };
        let mut body = b"\x00\x04MQTT\x05\x02\x00\x00\x00".to_vec();
        body.extend_from_slice(&u16::try_from(client_id.len()).unwrap().to_be_bytes());
        body.extend_from_slice(client_id.as_bytes());
        client.send(0x10, &body);
        let (kind, answer) = client.packet()?;
        (kind == 0x20 && answer[1] == 0).then_some(client)
    }

    fn send(&mut self, first: u8, body: &[u8]) {
        let mut packet = vec![first];
        let mut length = body.len();
        loop {
            let low = u8::try_from(length % 128).unwrap();
            length /= 128;
            packet.push(if length > 0 { low | 0x80 } else { low });
            if length == 0 {
                break;
            }
        }
        packet.extend_from_slice(body);
        self.socket.write_all(&packet).unwrap();
    }

    /// The next packet: its first byte and its body. `None` where the connection ends.
    fn packet(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        self.socket.read_exact(&mut head).ok()?;
        assert!(head[1] < 0x80, "a short packet is expected");
        let mut body = vec![0; usize::from(head[1])];
        self.socket.read_exact(&mut body).ok()?;
        Some((head[0], body))
    }

    /// Publishes at QoS 1, and says the reason code of the PUBACK; `None` where there is no PUBACK.
    fn publish(&mut self, topic: &str, payload: &[u8]) -> Option<u8> {
        self.next_id += 1;
        let mut body = u16::try_from(topic.len()).unwrap().to_be_bytes().to_vec();
        body.extend_from_slice(topic.as_bytes());
        body.extend_from_slice(&self.next_id.to_be_bytes());
        body.push(0);
        body.extend_from_slice(payload);
        self.send(0x32, &body);
        let (kind, answer) = self.packet()?;
        (kind == 0x40 && answer[..2] == self.next_id.to_be_bytes())
            .then(|| answer.get(2).copied().unwrap_or(0))
    }
}

fn store(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = binary().arg("store").args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_store_of_a_running_broker_is_looked_at_exported_and_backed_up() {
    let data = tempfile::tempdir().unwrap();
    let broker = start(data.path());
    leave_a_session(&broker, data.path());
    broker.publish(&["-q", "1", "-t", "queue/1", "-m", "first"]);
    broker.publish(&["-q", "1", "-r", "-t", "kept", "-m", "retained"]);
    let place = ["--data-folder", text(data.path())];
    let info = |arguments: &[&str]| -> Value {
        let (code, out, errors) = store(&[&["info", "--json"], arguments].concat());
        assert_eq!(code, Some(0), "{errors}");
        serde_json::from_str(&out).unwrap()
    };
    let found = info(&place);
    assert_eq!(
        (&found["in_use"], &found["queued"], &found["retained"]),
        (&true.into(), &1.into(), &1.into())
    );
    assert_eq!(store(&[&["verify"], &place[..]].concat()).0, Some(0));
    let (code, lines, _) = store(&[&["export"], &place[..]].concat());
    assert_eq!(code, Some(0));
    for part in ["\"client\":\"offline\"", "\"payload\":\"first\"", "{\"retained\":{\"topic\":\"kept\""] {
        assert!(lines.contains(part), "{part} is not in\n{lines}");
    }

    let other = tempfile::tempdir().unwrap();
    let backup = other.path().join("store");
    let (code, out, errors) = store(&[&["backup", text(&backup)], &place[..]].concat());
    assert_eq!(code, Some(0), "{errors}");
    assert!(out.contains("backup in"), "{out}");
    broker.publish(&["-q", "1", "-t", "queue/2", "-m", "second"]);
    let (code, _, errors) = store(&[&["backup", text(&backup)], &place[..]].concat());
    assert!(code == Some(1) && errors.contains("is not empty"), "{errors}");
    assert_eq!((&info(&place)["queued"], &info(&[text(&backup)])["queued"]), (&2.into(), &1.into()));

    let figures = broker.mosquitto_sub(&["-v", "-t", "$SYS/broker/store/#"]);
    for name in ["disk/bytes", "live/bytes", "segments", "syncs", "sync/microseconds", "backlog/bytes"] {
        figures.out.wait_for(&[&format!("$SYS/broker/store/{name} ")]);
    }
    drop(broker);

    // The backup is a store, and a broker runs on it.
    let broker = start(other.path());
    let subscriber = broker.mosquitto_sub(&["-c", "-i", "offline", "-q", "1", "-t", "queue/#", "-t", "kept"]);
    let mut messages = subscriber.wait_for(2);
    messages.sort_unstable();
    assert_eq!(messages, ["first", "retained"]);
}

/// A small file system of its own, until it is dropped. `None` where none can be mounted.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let output =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"]).arg(folder.path()).output();
        match output {
            Ok(output) if output.status.success() => Some(Self(folder)),
            _ => {
                skipped("no test on a full disk, as no small one can be mounted here");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn fill(&self) {
        let mut ballast = File::create(self.path().join("ballast")).unwrap();
        while ballast.write_all(&[0; 512]).is_ok() {}
    }

    fn make_room(&self) {
        fs::remove_file(self.path().join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(self.path()).status());
    }
}

#[test]
fn a_disk_that_runs_full_is_said_to_clients_and_what_was_acknowledged_comes_back() {
    let Some(disk) = SmallDisk::mount() else { return };
    let broker = start(disk.path());
    leave_a_session(&broker, disk.path());
    broker.publish(&["-q", "1", "-r", "-t", "kept", "-m", "retained"]);
    let online = broker.mosquitto_sub(&["-q", "0", "-t", "live/#"]);
    disk.fill();
    let mut publisher = MqttFive::connect(&broker, "publisher").unwrap();
    let mut acknowledged: Vec<String> = Vec::new();
    // What is left of the part by which the file was extended is a MiB at most.
    let refusal = (0..1_000).find_map(|number| {
        let payload = format!("{number:04}{}", "x".repeat(4_000));
        match publisher.publish("queue/a", payload.as_bytes()) {
            Some(0 | 0x10) => {
                acknowledged.push(payload);
                None
            }
            other => Some(other),
        }
    });
    assert!(matches!(refusal, Some(None | Some(0x97 | 0x83))), "{refusal:x?}");

    broker.log.wait_for(&["No space left"]);

    // The broker stays up: for QoS 0, and for what is read.
    broker.publish(&["-q", "0", "-t", "live/1", "-m", "still here"]);
    assert_eq!(online.wait_for(1), ["still here"]);
    let reader = broker.mosquitto_sub(&["-q", "0", "-t", "kept"]);
    assert_eq!(reader.wait_for(1), ["retained"]);
    let mut again = MqttFive::connect(&broker, "again").unwrap();
    let refusal = again.publish("queue/a", b"never acknowledged");
    assert!(matches!(refusal, None | Some(0x97 | 0x83)), "{refusal:x?}");

    broker.signal("KILL");
    drop(broker);
    disk.make_room();
    let broker = start(disk.path());
    let subscriber = broker.mosquitto_sub(&["-c", "-i", "offline", "-q", "1", "-t", "queue/#"]);
    let messages = subscriber.wait_for(acknowledged.len());
    assert_eq!(messages[..acknowledged.len()], acknowledged, "all that was acknowledged, in order");
    broker.publish(&["-q", "1", "-t", "queue/b", "-m", "and on it goes"]);
    subscriber.out.wait_for(&["and on it goes"]);
}

/// All that is in a folder, with its content.
fn image(folder: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            all.append(&mut image(&path));
        } else {
            all.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    all.sort_unstable();
    all
}

/// A broker does not start on `data`: it says one sentence that has `says` in it, and changes nothing in the store.
fn refused(data: &Path, says: &[&str]) {
    let before = image(&data.join("store"));
    let output = binary().args(BARE).arg(data).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8(output.stderr).unwrap();
    let said: Vec<_> = errors.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(said.len(), 1, "one sentence: {errors}");
    for part in says {
        assert!(said[0].contains(part), "'{part}' is not in: {}", said[0]);
    }
    assert!(image(&data.join("store")) == before, "something in the store was changed");
}

/// A data folder with a store in it, that a broker has made.
fn used_data() -> TempDir {
    let data = tempfile::tempdir().unwrap();
    let broker = start(data.path());
    leave_a_session(&broker, data.path());
    broker.publish(&["-q", "1", "-t", "queue/1", "-m", "first"]);
    broker.signal("TERM");
    assert!(broker.ended().success());
    data
}

#[test]
fn a_store_that_cannot_be_opened_is_said_in_a_sentence_and_left_alone() {
    let data = used_data();
    let file = data.path().join("store/0000000001.log");
    let whole = fs::read(&file).unwrap();

    let mut damaged = whole.clone();
    damaged[60] ^= 1;
    fs::write(&file, damaged).unwrap();
    refused(data.path(), &[text(&file), "damaged at byte 40", "restore it from a backup"]);

    let mut newer = whole.clone();
    newer[8] = 9;
    let checksum = crc32c(&newer[..36]).to_le_bytes();
    newer[36..40].copy_from_slice(&checksum);
    fs::write(&file, newer).unwrap();
    refused(data.path(), &[text(&file), "has format 9", "use a newer broker"]);

    fs::remove_file(&file).unwrap();
    refused(data.path(), &[text(&file), "is missing", "restore it from a backup"]);

    let store = data.path().join("store");
    fs::remove_dir_all(&store).unwrap();
    fs::write(&store, "mine").unwrap();
    refused(data.path(), &[text(&store), "is not a folder", "configure one"]);
    assert_eq!(fs::read(&store).unwrap(), b"mine");
}

/// As the format has it, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |checksum, byte| {
        (0..8).fold(checksum ^ u32::from(*byte), |checksum, _| {
            (checksum >> 1) ^ if checksum & 1 == 1 { 0x82F6_3B78 } else { 0 }
        })
    })
}

#[test]
fn a_full_disk_at_start_is_said_and_a_start_with_room_finds_everything() {
    let Some(disk) = SmallDisk::mount() else { return };
    let broker = start(disk.path());
    leave_a_session(&broker, disk.path());
    broker.publish(&["-q", "1", "-t", "queue/1", "-m", "first"]);
    broker.signal("TERM");
    assert!(broker.ended().success());
    disk.fill();
    refused(disk.path(), &["No space left", "make room on its disk"]);
    disk.make_room();
    let broker = start(disk.path());
    let subscriber = broker.mosquitto_sub(&["-c", "-i", "offline", "-q", "1", "-t", "queue/#"]);
    assert_eq!(subscriber.wait_for(1), ["first"]);
}

#[test]
fn a_store_that_may_not_be_written_is_said() {
    let data = used_data();
    fs::set_permissions(data.path(), fs::Permissions::from_mode(0o777)).unwrap();
    for name in ["broker.lock", "admin.sock"] {
        drop(fs::remove_file(data.path().join(name)));
    }
    let before = image(&data.path().join("store"));
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", env!("CARGO_BIN_EXE_weirmq")])
        .args(BARE)
        .arg(data.path())
        .output();
    let Ok(output) = output else { return skipped("no test without rights, as there is no setpriv here") };
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    let store = data.path().join("store");
    for part in [text(&store), "Permission denied", "give this process's user the right to it"] {
        assert!(errors.contains(part), "'{part}' is not in: {errors}");
    }
    assert!(image(&store) == before);
}
