//! A broker under load that is ended again and again, and what must hold whenever it is back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use weirmq_wire::{Connect, Packet, QoS, Version};

use super::publisher::{Line, Publisher};
use super::session::{Client, Link, Session, lasting, subscribe, text, will};
use super::subscriber::{Share, Subscriber};
use super::wanderer::Wanderer;
use crate::sqlite_store;
use crate::support::{Broker, Lines, PATIENCE, Place, binary};

/// How a round ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// `kill -9`.
    Kill,
    /// SIGTERM.
    Orderly,
}

/// Segments are small, so that they are ended and compacted all the time.
const LOG: &str = r#"
[store]
durability = "DURABILITY"
interval_ms = 20
segment_bytes = 65536
compact_slack_bytes = 131072
"#;

const CONFIG: &str = r#"
data_folder = "data"
[[listener]]
address = "127.0.0.1:0"
[auth]
allow_anonymous = true
STORE
[limits]
queue_messages_max = 1000000
[rules]
folder = "rules"
[[sink.sqlite]]
name = "history"
file = "history.db"
columns = { topic = "text", payload = "text" }
[sink.sqlite.buffer]
records_max = 1000000
"#;

const RULE: &str = r#"on("load/#", |msg| { sink("history", #{ topic: msg.topic, payload: msg.text }); });"#;

pub(super) fn place(durability: &str) -> Place {
    place_with(Place::with(""), &LOG.replace("DURABILITY", durability))
}

/// The same with everything in a store backend.
pub(super) fn backend_place() -> Place {
    let place = Place::with("");
    let tables = sqlite_store::tables(&place, "state.db");
    place_with(place, &tables)
}

fn place_with(place: Place, tables: &str) -> Place {
    place.write("weirmq.toml", &CONFIG.replace("STORE", tables));
    std::fs::create_dir(place.path("rules")).unwrap();
    place.write("rules/history.rhai", RULE);
    place
}

/// One whose connection is lost with the broker, and who has left a will for that.
struct Mortal(Session);

impl Mortal {
    fn new(round: usize) -> Self {
        let mut connect = lasting(Version::V5, &format!("mortal-{round}"));
        connect.will = Some(will(&format!("wills/{round}"), 0));
        Self(Session::new(connect))
    }
}

impl Client for Mortal {
    fn session(&mut self) -> &mut Session {
        &mut self.0
    }

    fn open(&mut self) {}

    fn take(&mut self, packet: Packet) {
        panic!("{}: {packet:?}", self.0.name());
    }

    fn act(&mut self, _: &mut Rng) {}
}

/// The clients, and what they know.
pub(super) struct Load {
    dice: Rng,
    place: Place,
    publishers: Vec<Publisher>,
    subscribers: Vec<Subscriber>,
    wanderer: Wanderer,
    mortal: Mortal,
    /// Topics of the wills that must come.
    wills: Vec<String>,
    kills: usize,
}

impl Load {
    /// The broker of `place`, and clients that are subscribed.
    pub(super) fn begin(place: Place, seed: u64) -> (Self, Broker) {
        let broker = place.start();
        let (v5, v311) = (Version::V5, Version::V311);
        let publishers = [(v5, "five"), (v311, "three")]
            .map(|(version, name)| Publisher::new(Session::new(lasting(version, name))));
        let everything = ["load/#"];
        let mut narrow = lasting(v5, "narrow");
        narrow.receive_max = 7.try_into().unwrap();
        let mut subscribers = [
            (lasting(v5, "steady"), &["load/#", "wills/#"][..], Share::All),
            (lasting(v311, "old"), &everything[..], Share::All),
            (narrow, &everything[..], Share::All),
            (lasting(v5, "left"), &["$share/group/load/#"][..], Share::Part),
            (lasting(v5, "right"), &["$share/group/load/#"][..], Share::Part),
        ]
        .map(|(connect, filters, share)| Subscriber::new(Session::new(connect), filters, share));
        let mut dice = Rng::with_seed(seed);
        let deadline = Instant::now() + PATIENCE;
        subscribers.iter_mut().for_each(|subscriber| subscriber.session().connect(broker.address));
        while !subscribers.iter().all(Subscriber::is_subscribed) {
            assert!(Instant::now() < deadline, "nobody subscribes");
            rest_unless(subscribers.iter_mut().map(|subscriber| subscriber.step(&mut dice)).sum());
        }
        let load = Self {
            dice,
            place,
            publishers: publishers.into(),
            subscribers: subscribers.into(),
            wanderer: Wanderer::arrive(broker.address),
            mortal: Mortal::new(0),
            wills: Vec::new(),
            kills: 0,
        };
        (load, broker)
    }

    /// Everybody: the one with a will, the one that asks for subscriptions, and the others.
    fn clients(&mut self) -> impl Iterator<Item = &mut dyn Client> {
        let publishers = self.publishers.iter_mut().map(|client| client as &mut dyn Client);
        let subscribers = self.subscribers.iter_mut().map(|client| client as &mut dyn Client);
        let others = [&mut self.mortal as &mut dyn Client, &mut self.wanderer];
        others.into_iter().chain(publishers).chain(subscribers)
    }

    /// Puts load on the broker, ends it at some moment, and starts it again.
    pub(super) fn round(&mut self, round: usize, broker: Broker, ending: Ending) -> Broker {
        self.mortal = Mortal::new(round);
        self.connect_some(broker.address);
        // Often early, while sessions are resumed; sometimes late.
        let packets_max = 1 << self.dice.u32(2..=12);
        let packets = self.dice.usize(..packets_max);
        self.carry_on(broker.address, packets);
        match ending {
            Ending::Kill => {
                drop(broker);
                self.kills += 1;
            }
            Ending::Orderly => {
                broker.signal("TERM");
                self.see_them_off(true);
                assert_eq!(broker.ended().code(), Some(0));
            }
        }
        // What had come was acknowledged.
        self.see_them_off(false);
        if self.mortal.0.is_kept {
            self.wills.push(format!("wills/{round}"));
        }
        while ending == Ending::Kill && self.dice.u8(..4) == 0 {
            kill_while_starting(&self.place, self.dice.usize(1..=3));
        }
        let broker = self.place.start();
        self.look_at_retained(broker.address);
        self.wanderer.look(broker.address, round);
        broker
    }

    /// Everybody comes but some subscribers.
    fn connect_some(&mut self, address: SocketAddr) {
        let mut dice = self.dice.fork();
        self.subscribers
            .iter_mut()
            .filter(|_| dice.u8(..4) > 0)
            .for_each(|client| client.session().connect(address));
        self.publishers.iter_mut().for_each(|client| client.session().connect(address));
        self.wanderer.session().connect(address);
        self.mortal.session().connect(address);
    }

    /// Goes on until the clients have had so many packets. Now and then one of them loses its connection, or takes it over,
    /// or comes at last.
    fn carry_on(&mut self, address: SocketAddr, packets: usize) {
        let deadline = Instant::now() + PATIENCE;
        let mut had = 0;
        while had < packets {
            assert!(Instant::now() < deadline, "the broker does not answer any more");
            let mut dice = self.dice.fork();
            let mut came = 0;
            for (place, client) in self.clients().enumerate() {
                came += client.step(&mut dice);
                // The will is for the broker's end.
                match dice.u16(..1500) {
                    _ if place == 0 => {}
                    0 => client.session().cut(),
                    1 => client.session().connect(address),
                    number if number < 5 && client.session().is_away() => client.session().connect(address),
                    _ => {}
                }
            }
            had += came;
            self.hold_turns(address);
            rest_unless(came);
        }
    }

    /// Goes on until all connections have ended; with `acting`, as if nothing were.
    fn see_them_off(&mut self, acting: bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut dice = self.dice.fork();
        while !self.clients().all(|client| client.session().is_away()) {
            assert!(Instant::now() < deadline, "connections do not end");
            let came =
                self.clients().map(|client| if acting { client.step(&mut dice) } else { client.listen(64) });
            let came = came.sum();
            rest_unless(came);
        }
    }

    /// Nobody has had anything out of its turn. Where somebody has, what still comes and what is kept is said too.
    fn hold_turns(&mut self, address: SocketAddr) {
        if self.subscribers.iter().all(|subscriber| subscriber.fault.is_empty()) {
            return;
        }
        let until = Instant::now() + Duration::from_secs(1);
        while Instant::now() < until {
            for session in
                self.subscribers.iter_mut().map(Client::session).filter(|session| session.is_away())
            {
                session.connect(address);
            }
            let mut dice = self.dice.fork();
            rest_unless(self.subscribers.iter_mut().map(|subscriber| subscriber.step(&mut dice)).sum());
        }
        let export = String::from_utf8(self.place.command(&["store", "export"]).stdout).unwrap();
        let about: Vec<&str> = export.lines().filter(|line| line.contains("/2\"")).collect();
        let faults: Vec<_> = self.subscribers.iter().map(|subscriber| &subscriber.fault).collect();
        panic!("{faults:#?}\nin the store: {about:#?}");
    }

    /// What is retained is of the last retained message that was acknowledged, or of a later one.
    fn look_at_retained(&self, address: SocketAddr) {
        let mut found = retained(address, "retained/#");
        for publisher in &self.publishers {
            let topic = publisher.topic(Line::Retained);
            let payload = found.remove(&topic);
            assert!(
                publisher.may_be_retained(payload.as_deref()),
                "{topic}: {payload:?} is not what was acknowledged"
            );
        }
        assert!(found.is_empty(), "{found:?}");
    }

    /// Everybody comes, nothing new is published, and all comes to its end. Then nothing is missing, and nothing is left.
    pub(super) fn finish(mut self, broker: Broker) {
        let deadline = Instant::now() + PATIENCE;
        self.publishers.iter_mut().for_each(|publisher| publisher.is_silent = true);
        self.clients().skip(1).for_each(|client| client.session().connect(broker.address));
        while let Some(missing) = self.missing() {
            assert!(Instant::now() < deadline, "{missing}");
            let mut dice = self.dice.fork();
            rest_unless(self.clients().map(|client| client.step(&mut dice)).sum());
            self.hold_turns(broker.address);
        }
        self.hold_repetitions();
        self.look_at_retained(broker.address);
        while !self.is_quiet(deadline) {}
        broker.signal("TERM");
        self.see_them_off(false);
        assert_eq!(broker.ended().code(), Some(0));
        let export = self.place.command(&["store", "export"]);
        let export = String::from_utf8(export.stdout).unwrap();
        let left: Vec<_> = export
            .lines()
            .filter(|line| line.starts_with("{\"message\"") || line.starts_with("{\"sink"))
            .collect();
        assert!(export.contains("steady") && left.is_empty(), "is left: {left:#?}");
    }

    /// Whether nothing more comes, repetitions included. Whose ping is answered, their last acknowledgements were taken.
    fn is_quiet(&mut self, deadline: Instant) -> bool {
        let mut dice = self.dice.fork();
        let mut is_quiet = self.subscribers.iter().all(Subscriber::is_settled);
        self.clients().skip(1).for_each(|client| client.session().ping());
        while !self.clients().all(|client| client.session().is_answered) {
            assert!(Instant::now() < deadline, "it does not become quiet");
            // The one that goes on asking for subscriptions is not waited for.
            self.wanderer.listen(64);
            let came = self.clients().skip(2).map(|client| client.step(&mut dice)).sum();
            is_quiet &= came == 0;
            rest_unless(came);
        }
        is_quiet
    }

    /// What is not as it must be at last.
    fn missing(&self) -> Option<String> {
        for publisher in &self.publishers {
            if !publisher.is_done() {
                return Some("something is not acknowledged".to_owned());
            }
            for line in [Line::AtLeastOnce, Line::ExactlyOnce] {
                let (topic, count) = (publisher.topic(line), publisher.sends(line).len());
                let parts = self.subscribers.iter().filter(|subscriber| subscriber.share() == Share::Part);
                let parts: Vec<usize> =
                    parts.flat_map(|subscriber| subscriber.numbers(&topic)).copied().collect();
                let all: BTreeSet<usize> = parts.iter().copied().collect();
                assert!(
                    line != Line::ExactlyOnce || parts.len() == all.len(),
                    "{topic}: the shared group got a message twice"
                );
                if all.len() < count {
                    return Some(format!("{topic}: the shared group has {} of {count}", all.len()));
                }
                for subscriber in self.subscribers.iter().filter(|s| s.share() == Share::All) {
                    let has = subscriber.numbers(&topic).len();
                    if has < count {
                        return Some(format!("{topic}: a subscriber has {has} of {count}"));
                    }
                }
                let written = self.written(&topic);
                if written < count {
                    return Some(format!("{topic}: the table has {written} of {count}"));
                }
            }
        }
        let [steady, ..] = &self.subscribers[..] else { panic!("there are subscribers") };
        let missing = self.wills.iter().find(|topic| !steady.wills.contains(topic));
        if let Some(topic) = missing {
            return Some(format!("the will {topic} has not come"));
        }
        self.subscribers.iter().any(|s| !s.is_settled()).then(|| "something is under way".to_owned())
    }

    /// How many different messages of a topic are in the sink's table.
    fn written(&self, topic: &str) -> usize {
        let sql = format!("SELECT COUNT(DISTINCT payload) FROM history WHERE topic = '{topic}'");
        self.place.rows(&sql).first().map_or(0, |row| row[0].parse().unwrap())
    }

    /// A message that is sent once is delivered once, but for repetitions that say so. What a broker was doing at QoS 1
    /// when it was killed it may do again without knowing that.
    fn hold_repetitions(&self) {
        for publisher in &self.publishers {
            for line in [Line::AtLeastOnce, Line::ExactlyOnce] {
                let topic = publisher.topic(line);
                for subscriber in self.subscribers.iter().filter(|s| s.share() == Share::All) {
                    for (number, sends) in publisher.sends(line).iter().enumerate() {
                        let fresh = subscriber.seen[&topic].fresh.get(&number).copied().unwrap_or(0);
                        assert!(
                            fresh <= *sends + self.kills,
                            "{topic}: message {number} came {fresh} times without DUP"
                        );
                    }
                }
            }
        }
        let [steady, ..] = &self.subscribers[..] else { return };
        let once: BTreeSet<_> = steady.wills.iter().collect();
        assert_eq!(once.len(), steady.wills.len(), "wills come once: {:?}", steady.wills);
    }
}

/// Leaves the machine to the others where nothing has come.
fn rest_unless(came: usize) {
    if came == 0 {
        thread::park_timeout(Duration::from_micros(500));
    }
}

/// Starts a broker that is killed when it has said so many lines.
fn kill_while_starting(place: &Place, lines: usize) {
    let mut process = binary()
        .args(["run", "--config"])
        .arg(place.path("weirmq.toml"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = Lines::of(process.stderr.take().unwrap());
    log.wait_for_count(&[], lines);
    process.kill().unwrap();
    process.wait().unwrap();
}

/// What is retained, by topic.
pub(super) fn retained(address: SocketAddr, filter: &str) -> BTreeMap<String, String> {
    let (mut link, _) = Link::enter(address, &Connect::new(Version::V5, text("onlooker")));
    link.send(&subscribe([filter], QoS::AtMostOnce));
    link.send(&Packet::PingReq);
    let mut found = BTreeMap::new();
    loop {
        match link.wait() {
            Packet::Publish(publish) => {
                let payload = String::from_utf8(publish.payload.to_vec()).unwrap();
                found.insert(publish.topic.as_str().to_owned(), payload);
            }
            Packet::PingResp => return found,
            Packet::SubAck(_) => {}
            other => panic!("{other:?}"),
        }
    }
}
