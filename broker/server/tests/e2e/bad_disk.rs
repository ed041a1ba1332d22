//! A disk that answers with errors, beneath the real process: nothing is acknowledged that is not kept, everybody is
//! told, the broker stays up, and a start after the cause is gone has everything that was acknowledged.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use weirmq_wire::{Connect, Packet, Publish, ReasonCode, Version};

use crate::crash::session::{Link, lasting, leave_a_session, message, text};
use crate::sqlite_store;
use crate::support::{Broker, Place, binary};

/// The numbers that Linux has for them, and what it says of them.
const EIO: (&str, &str) = ("5", "Input/output error");
const ENOSPC: (&str, &str) = ("28", "No space left");

/// A place whose store is on a disk that can go bad.
struct BadDisk {
    place: Place,
    /// What is on it.
    folder: &'static str,
    shim: PathBuf,
}

impl BadDisk {
    fn beneath(place: Place, folder: &'static str) -> Self {
        let shim = place.path("bad_disk.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/bad_disk.c");
        let built = Command::new("cc")
            .args(["-Wall", "-Wextra", "-Werror", "-O1", "-fPIC", "-shared", "-o"])
            .args([&shim, &source])
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        Self { place, folder, shim }
    }

    /// A broker on the log, with this durability.
    fn beneath_the_log(durability: &str) -> Self {
        let config = format!("{}[store]\ndurability = '{durability}'\n", sqlite_store::HEAD);
        Self::beneath(Place::with(&config), "data/store")
    }

    /// A broker on a backend that keeps its database there, and has so long for a call.
    fn beneath_sqlite(deadline_ms: u32) -> Self {
        let place = sqlite_store::place();
        let config = fs::read_to_string(place.path("weirmq.toml")).unwrap();
        place.write("weirmq.toml", &format!("{config}[plugin.deadline_ms]\nstore-backend = {deadline_ms}\n"));
        Self::beneath(place, sqlite_store::FOLDER)
    }

    fn start(&self) -> Broker {
        Broker::started(self.command())
    }

    fn command(&self) -> Command {
        let mut command = binary();
        command
            .args(["run", "--config"])
            .arg(self.place.path("weirmq.toml"))
            .env("LD_PRELOAD", &self.shim)
            .env("WEIRMQ_BAD_DISK", self.order())
            .env("WEIRMQ_BAD_FOLDER", self.place.folder.path().canonicalize().unwrap().join(self.folder));
        command
    }

    fn order(&self) -> PathBuf {
        self.place.path("bad-disk")
    }

    /// From now on calls of this kind fail, or hang.
    fn goes_bad(&self, kind: &str, how: &str) {
        self.place.replace("bad-disk", format!("{kind} {how}\n").as_bytes());
    }

    fn is_repaired(&self) {
        fs::remove_file(self.order()).unwrap();
    }
}

/// A publisher and what it was promised.
struct Publisher {
    link: Link,
    packet_id: u16,
    acknowledged: Vec<String>,
}

impl Publisher {
    fn enter(broker: &Broker, version: Version) -> Self {
        let name = if version == Version::V5 { "five" } else { "three" };
        let (link, _) = Link::enter(broker.address, &Connect::new(version, text(name)));
        Self { link, packet_id: 0, acknowledged: Vec::new() }
    }

    fn send(&mut self, payload: &str) {
        self.packet_id += 1;
        self.link.send(&Packet::Publish(message("queue/a", self.packet_id, payload.to_owned())));
    }

    /// Publishes, and answers the reason code of the PUBACK.
    fn publish(&mut self, payload: &str) -> ReasonCode {
        self.send(payload);
        let Packet::PubAck(answer) = self.link.wait() else { panic!("a PUBACK is expected") };
        assert_eq!(answer.packet_id.get(), self.packet_id);
        if !answer.code.is_error() {
            self.acknowledged.push(payload.to_owned());
        }
        answer.code
    }

    /// Publishes, and sees that there is no acknowledgement while there are answers to what comes behind it.
    fn publish_in_vain(&mut self, payload: &str) {
        self.send(payload);
        for _ in 0..3 {
            self.link.send(&Packet::PingReq);
            assert!(
                matches!(self.link.wait(), Packet::PingResp),
                "an acknowledgement that nothing is kept for"
            );
        }
    }
}

/// What `offline` has waiting, in order.
fn queue(broker: &Broker, count: usize) -> Vec<String> {
    let (mut link, was_there) = Link::enter(broker.address, &lasting(Version::V5, "offline"));
    assert!(was_there);
    let next = |_| match link.wait() {
        Packet::Publish(Publish { payload, .. }) => String::from_utf8(payload.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    };
    (0..count).map(next).collect()
}

/// The broker of `disk`, whose calls of `kind` go bad as `how` says, does all that it promises.
fn holds_its_promises(disk: &BadDisk, kind: &str, how: &str, said: &[&str], code: ReasonCode) {
    let broker = disk.start();
    leave_a_session(&broker);
    let mut five = Publisher::enter(&broker, Version::V5);
    for number in 0..5 {
        assert_eq!(five.publish(&format!("before-{number}")), ReasonCode::Success);
    }
    broker.publish(&["-q", "1", "-r", "-t", "kept", "-m", "retained"]);
    let online = broker.mosquitto_sub(&["-q", "0", "-t", "live/#"]);
    let mut three = Publisher::enter(&broker, Version::V311);

    disk.goes_bad(kind, how);
    assert_eq!(five.publish("never acknowledged"), code);
    three.publish_in_vain("never acknowledged either");
    broker.log.wait_for(&[&["nothing more is kept"], said].concat());
    let figures = broker.mosquitto_sub(&["-v", "-t", "$SYS/broker/store/#"]);
    figures.out.wait_for(&["$SYS/broker/store/refuses 1"]);
    figures.out.wait_for(&["$SYS/broker/store/not kept "]);

    // It stays up: for QoS 0, for what is read, and for who comes anew.
    broker.publish(&["-q", "0", "-t", "live/1", "-m", "still here"]);
    assert_eq!(online.wait_for(1), ["still here"]);
    let reader = broker.mosquitto_sub(&["-q", "0", "-t", "kept"]);
    assert_eq!(reader.wait_for(1), ["retained"]);
    let refused = Link::open(broker.address, &lasting(Version::V5, "anew"));
    assert_eq!(greeting(refused), code, "a session that is not kept is not promised");

    // A repaired disk alone brings nothing back: what it has lost, nobody knows.
    disk.is_repaired();
    assert_eq!(five.publish("never acknowledged"), code);
    drop(broker);

    let broker = disk.start();
    let mut again = Publisher::enter(&broker, Version::V5);
    assert_eq!(again.publish("and on it goes"), ReasonCode::Success);
    let messages = queue(&broker, five.acknowledged.len());
    assert_eq!(messages, five.acknowledged, "all that was acknowledged, in order");
    let reader = broker.mosquitto_sub(&["-q", "0", "-t", "kept"]);
    assert_eq!(reader.wait_for(1), ["retained"]);
}

/// What a client is answered that is not let in.
fn greeting(mut link: Link) -> ReasonCode {
    match link.wait() {
        Packet::ConnAck(answer) => answer.code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_write_that_fails_is_acknowledged_to_nobody() {
    for ((errno, said), code) in
        [(EIO, ReasonCode::ImplementationSpecificError), (ENOSPC, ReasonCode::QuotaExceeded)]
    {
        for durability in ["fsync", "os"] {
            let disk = BadDisk::beneath_the_log(durability);
            holds_its_promises(&disk, "write", errno, &["writing to", ".log", said], code);
        }
    }
}

#[test]
fn an_fsync_that_fails_is_acknowledged_to_nobody() {
    for ((errno, said), code) in
        [(EIO, ReasonCode::ImplementationSpecificError), (ENOSPC, ReasonCode::QuotaExceeded)]
    {
        holds_its_promises(
            &BadDisk::beneath_the_log("fsync"),
            "sync",
            errno,
            &["syncing", ".log", said],
            code,
        );
    }
}

#[test]
fn an_fsync_that_hangs_holds_acknowledgements_up_and_nothing_else() {
    let disk = BadDisk::beneath_the_log("fsync");
    let broker = disk.start();
    leave_a_session(&broker);
    let online = broker.mosquitto_sub(&["-q", "0", "-t", "live/#"]);
    let mut three = Publisher::enter(&broker, Version::V311);
    disk.goes_bad("sync", "hang");
    three.publish_in_vain("late");
    broker.publish(&["-q", "0", "-t", "live/1", "-m", "still here"]);
    assert_eq!(online.wait_for(1), ["still here"]);
    disk.is_repaired();
    assert!(matches!(three.link.wait(), Packet::PubAck(_)), "late is not never");
    assert_eq!(queue(&broker, 1), ["late"]);
}

#[test]
fn a_backend_whose_disk_goes_bad_is_acknowledged_to_nobody() {
    let patient = 60_000;
    for kind in ["write", "sync"] {
        holds_its_promises(
            &BadDisk::beneath_sqlite(patient),
            kind,
            EIO.0,
            &["writing to the backend state failed: disk I/O error"],
            ReasonCode::ImplementationSpecificError,
        );
    }
    holds_its_promises(
        &BadDisk::beneath_sqlite(patient),
        "write",
        ENOSPC.0,
        &["writing to the backend state failed: database or disk is full"],
        ReasonCode::QuotaExceeded,
    );
}

#[test]
fn a_backend_that_hangs_is_waited_for_until_its_deadline_and_acknowledged_to_nobody() {
    holds_its_promises(
        &BadDisk::beneath_sqlite(3_000),
        "sync",
        "hang",
        &["writing to the backend state failed: write: it did not come back within 3000 ms"],
        ReasonCode::ImplementationSpecificError,
    );
}

#[test]
fn a_disk_that_is_bad_at_start_keeps_the_broker_from_starting_with_one_sentence() {
    let disk = BadDisk::beneath_the_log("fsync");
    let broker = disk.start();
    leave_a_session(&broker);
    broker.signal("TERM");
    assert!(broker.ended().success());
    for (kind, (errno, said)) in [("write", EIO), ("sync", EIO)] {
        disk.goes_bad(kind, errno);
        let output = disk.command().output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{kind}");
        let errors = String::from_utf8(output.stderr).unwrap();
        let sentences: Vec<&str> = errors.lines().filter(|line| line.starts_with("error: ")).collect();
        assert!(matches!(&sentences[..], [one] if one.contains(said) && one.contains("store")), "{errors}");
    }
    disk.is_repaired();
    assert!(queue(&disk.start(), 0).is_empty());
}
