//! Stories made at random, told to the broker and to a small reference of what a broker has to do: every packet
//! that a client gets is one that the reference has foreseen, in its order, and none is missing. When all have left
//! and everything has expired, nothing is left behind.
//!
//! `PROPTEST_CASES=20000 cargo test -p weirmq-core --test stories` tells more stories.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "stories/reference.rs"]
mod reference;
#[path = "stories/story.rs"]
mod story;
mod support;

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::num::{NonZeroU16, NonZeroU32};
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use reference::{Expected, Reference, Ticket};
use story::{
    ASKED_UNHEARD, Connecting, How, NAMES, Op, Publishing, STRANGE_ID, Size, Story, TOPICS, Tightness,
    WILL_TOPIC,
};
use support::{Client, V5, World, extras, id, qos, text};
use weirmq_core::counters::DropReason;
use weirmq_wire::{
    Connect, Disconnect, Packet, PacketId, PacketType, Publish, QoS, ReasonCode, Subscribe, SubscribeOptions,
    Unsubscribe, Version, Will,
};

/// How many stories are told where nobody asks for more.
const STORIES: u32 = 1_000;

#[test]
fn the_broker_does_what_the_reference_foresees() {
    let config = Config { failure_persistence: None, max_shrink_iters: 20_000, ..Config::default() };
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    let config = if asked { config } else { Config { cases: STORIES, ..config } };
    let told = quietly(|| TestRunner::new(config).run(&story::story(), |story| listen(&story)));
    if let Err(failure) = told {
        panic!("{failure}");
    }
}

/// Tells one story. What goes wrong on the way is the answer, with the number of the sentence.
fn listen(story: &Story) -> Result<(), TestCaseError> {
    let sentence = RefCell::new(0);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut stage = Stage::new(story);
        for op in &story.ops {
            *sentence.borrow_mut() += 1;
            stage.play(op);
        }
        *sentence.borrow_mut() += 1;
        stage.everybody_leaves();
    }));
    outcome.map_err(|_| {
        let fault = FAULT.with_borrow_mut(std::mem::take);
        TestCaseError::fail(format!("at {}: {fault}", sentence.borrow()))
    })
}

/// The broker and the reference side by side, and the clients.
struct Stage {
    world: World,
    reference: Reference,
    /// Who is connected, by which connection.
    players: HashMap<usize, Player>,
    /// Connections that were taken over, and are to be told so.
    leaving: Vec<Player>,
    /// What clients keep of QoS 2 messages, as the standard asks of them.
    stores: HashMap<usize, Store>,
    tightness: Tightness,
}

struct Player {
    who: usize,
    connection: usize,
    client: Client,
    /// How often it has asked for something without reading.
    asked_unheard: u16,
}

#[derive(Default)]
struct Store {
    /// Received and not released: the same identifier again is the same message.
    held: HashSet<PacketId>,
    /// How often the application was handed a payload.
    handed_on: HashMap<String, usize>,
}

impl Stage {
    fn new(story: &Story) -> Self {
        let settings = story.broker.settings();
        let reference = Reference::new(settings.limits.clone());
        let world = World::with(settings, []);
        Self {
            world,
            reference,
            players: HashMap::new(),
            leaving: Vec::new(),
            stores: HashMap::new(),
            tightness: story.broker,
        }
    }

    /// Lets something happen to both, and compares what comes of it.
    fn play(&mut self, op: &Op) {
        // No two messages have the same age.
        self.world.advance(0.001);
        self.reference.pass(1);
        // When what has expired makes room among the retained messages is otherwise the broker's choice.
        self.world.broker.tidy(self.world.now());
        self.reference.tidy();
        if op.speaker().is_some_and(|who| self.is_choked(who)) {
            return;
        }
        match op {
            Op::Connect { who, how } => self.connect(*who, &how.clone().fitting(self.tightness)),
            Op::Pass { seconds } => self.pass(*seconds),
            Op::Cut { who } => {
                if let Some(mut player) = self.players.remove(who) {
                    self.reference.cut(player.connection);
                    player.client.cut_in_place(&self.world);
                }
            }
            Op::Disconnect { who, with_will, expiry_s } => self.disconnect(*who, *with_will, *expiry_s),
            Op::Deaf { who, deaf } => {
                let Some(player) = self.players.get_mut(who) else { return };
                if self.reference.is_deaf(player.connection) != *deaf {
                    self.reference.deaf(player.connection, *deaf);
                    player.client.stick(&self.world, *deaf);
                }
            }
            Op::AcknowledgeAll { who } => self.acknowledge_all(*who),
            Op::Subscribe { who, packet_id, identifier, filters } => {
                let Some(player) = self.players.get_mut(who) else { return };
                let in_v5 = player.client.version == V5;
                let identifier = identifier.filter(|_| in_v5);
                let packet_id = packet_id_of(&self.reference, player, *packet_id);
                let mut filters = filters.clone();
                for wish in filters.iter_mut().filter(|_| !in_v5) {
                    (wish.no_local, wish.retain_as_published) = (false, false);
                    wish.handling = Default::default();
                }
                self.reference.subscribe(player.connection, packet_id, identifier, &filters);
                let options = |wish: &story::Wish| SubscribeOptions {
                    qos: qos(wish.qos),
                    no_local: wish.no_local,
                    retain_as_published: wish.retain_as_published,
                    retain_handling: wish.handling,
                };
                let filters = filters.iter().map(|wish| (text(wish.filter), options(wish))).collect();
                let subscription_id = identifier;
                let user_properties = Vec::new();
                let packet = Subscribe { packet_id, subscription_id, user_properties, filters };
                player.client.send(&self.world, Packet::Subscribe(packet));
            }
            Op::Unsubscribe { who, packet_id, filters } => {
                let Some(player) = self.players.get_mut(who) else { return };
                let packet_id = packet_id_of(&self.reference, player, *packet_id);
                self.reference.unsubscribe(player.connection, packet_id, filters);
                let filters = filters.iter().map(|filter| text(filter)).collect();
                let packet = Unsubscribe { packet_id, user_properties: Vec::new(), filters };
                player.client.send(&self.world, Packet::Unsubscribe(packet));
            }
            Op::Publish { who, what } => {
                let Some(player) = self.players.get_mut(who) else { return };
                let payload = self.reference.publish(player.connection, what);
                player.client.send(&self.world, publish_packet(what, &payload, player.client.version));
            }
            Op::Burst { who, count, what } => {
                for number in 0..*count {
                    let (who, packet_id) = (*who, what.packet_id + number);
                    self.play(&Op::Publish { who, what: Publishing { packet_id, ..what.clone() } });
                    if what.qos == 2 {
                        self.play(&Op::Release { who, packet_id });
                    }
                }
            }
            Op::Release { who, packet_id } => {
                let Some(player) = self.players.get_mut(who) else { return };
                self.reference.release(player.connection, id(*packet_id));
                player.client.ack(&self.world, PacketType::PubRel, id(*packet_id));
            }
            Op::Acknowledge { who, which, how } => {
                let Some(player) = self.players.get(who) else { return };
                let got = self.reference.unacknowledged(player.connection);
                if let Some((ticket, packet_id)) = got.get(which % got.len().max(1)) {
                    self.acknowledge(*who, *ticket, *packet_id, *how);
                }
            }
            Op::Ping { who } => {
                let Some(player) = self.players.get_mut(who) else { return };
                self.reference.ping(player.connection);
                player.client.send(&self.world, Packet::PingReq);
            }
        }
        self.compare();
    }

    /// Whether a client has so many answers unread that it is not listened to any more.
    fn is_choked(&self, who: usize) -> bool {
        self.players.get(&who).is_some_and(|player| self.reference.is_choked(player.connection))
    }

    fn connect(&mut self, who: usize, how: &Connecting) {
        let (connection, will) = self.reference.connect(who, how);
        let mut client = self.world.socket(how.version);
        let in_v5 = how.version == V5;
        let mut connect = Connect::new(how.version, text(NAMES[who]));
        connect.clean_start = how.clean;
        connect.keep_alive_s = how.keep_alive_s;
        connect.will = how.will.zip(will).map(|(wish, payload)| Will {
            topic: text(WILL_TOPIC),
            payload: Bytes::from(payload),
            qos: qos(wish.qos),
            retain: wish.retain,
            delay_interval_s: if in_v5 { wish.delay_s } else { 0 },
            message_expiry_interval_s: wish.expiry_s.filter(|_| in_v5),
            properties: Default::default(),
        });
        if in_v5 {
            connect.session_expiry_interval_s = how.expiry_s;
            connect.receive_max = how.receive_max.and_then(NonZeroU16::new).unwrap_or(NonZeroU16::MAX);
            connect.packet_size_max = how.packet_bytes_max.and_then(NonZeroU32::new);
            // A Reason String has a length that nobody promises.
            connect.request_problem_information = false;
            connect.topic_alias_max = if how.aliases { 2 } else { 0 };
        }
        client.send(&self.world, Packet::Connect(Box::new(connect)));
        self.leaving.extend(self.players.insert(who, Player { who, connection, client, asked_unheard: 0 }));
    }

    fn pass(&mut self, seconds: u32) {
        self.world.advance(seconds.into());
        self.reference.pass(u64::from(seconds) * 1_000);
        for who in 0..NAMES.len() {
            if let Some(player) = self.players.get_mut(&who) {
                player.client.pass(&self.world);
                self.reference.look_at_the_clock(player.connection);
            }
        }
    }

    fn disconnect(&mut self, who: usize, with_will: bool, expiry_s: Option<u32>) {
        let Some(player) = self.players.get_mut(&who) else { return };
        let in_v5 = player.client.version == V5;
        let (with_will, expiry_s) = (with_will && in_v5, expiry_s.filter(|_| in_v5));
        self.reference.disconnect(player.connection, with_will, expiry_s);
        let code = if with_will { ReasonCode::DisconnectWithWill } else { ReasonCode::Success };
        let mut packet = Disconnect::new(code);
        packet.session_expiry_interval_s = expiry_s;
        player.client.send(&self.world, Packet::Disconnect(packet));
    }

    fn acknowledge(&mut self, who: usize, ticket: Ticket, packet_id: PacketId, how: How) {
        let Some(player) = self.players.get_mut(&who) else { return };
        let (kind, code) = self.reference.acknowledgement(player.connection, ticket, how);
        let (ticket, packet_id) = match how {
            How::Strange => (None, id(STRANGE_ID)),
            _ => (Some(ticket), packet_id),
        };
        if code.is_error() {
            self.stores.entry(who).or_default().held.remove(&packet_id);
        }
        self.reference.acknowledge(player.connection, kind, code, ticket, packet_id);
        player.client.ack_with(&self.world, kind, packet_id, code);
    }

    fn acknowledge_all(&mut self, who: usize) {
        loop {
            self.compare();
            let Some(player) = self.players.get(&who) else { return };
            let got = self.reference.unacknowledged(player.connection);
            let Some((ticket, packet_id)) = got.first().filter(|_| !self.is_choked(who)) else { return };
            self.acknowledge(who, *ticket, *packet_id, How::Well);
        }
    }

    /// Everything comes to its end, and nothing is left behind.
    fn everybody_leaves(&mut self) {
        let plain = Connecting {
            version: V5,
            clean: false,
            expiry_s: None,
            will: None,
            receive_max: None,
            packet_bytes_max: None,
            keep_alive_s: 0,
            aliases: false,
        };
        for who in 0..NAMES.len() {
            self.play(&Op::Connect { who, how: plain.clone() });
            self.play(&Op::AcknowledgeAll { who });
            self.play(&Op::Disconnect { who, with_will: false, expiry_s: None });
        }
        self.play(&Op::Pass { seconds: 1_000_000 });
        assert_eq!(self.reference.sessions(), 0);
        self.play(&Op::Connect { who: 0, how: Connecting { clean: true, ..plain } });
        let filters = TOPICS.iter().chain([&WILL_TOPIC]);
        for topic in filters {
            let (qos, packet_id, expiry_s, size) = (0, 1, None, Size::Empty);
            let what = Publishing { topic, qos, packet_id, retain: true, expiry_s, size };
            self.play(&Op::Publish { who: 0, what });
        }
        self.play(&Op::Disconnect { who: 0, with_will: false, expiry_s: None });
        // What a topic means is forgotten once it is out of date.
        self.world.broker.set_chains(Default::default());
        self.world.broker.tidy(self.world.now());
        assert_eq!(self.world.broker.footprint(), World::new().broker.footprint());
        assert_eq!(self.world.broker.next_deadline(), None);
        assert_eq!(self.world.broker.counters().clients_connected.get(), 0);
    }

    /// Every client reads what has come; it is what the reference has foreseen.
    fn compare(&mut self) {
        let whos: Vec<usize> = (0..NAMES.len()).filter(|who| self.players.contains_key(who)).collect();
        let mut players = std::mem::take(&mut self.leaving);
        players.extend(whos.iter().filter_map(|who| self.players.remove(who)));
        for mut player in players {
            player.client.work(&self.world);
            self.read(&mut player);
            let (connection, who) = (player.connection, player.who);
            let open = self.reference.is_open(connection);
            assert_eq!(!player.client.is_closed(), open, "is the connection of {} open?", NAMES[who]);
            if open {
                self.players.insert(who, player);
            } else {
                player.client.cut_in_place(&self.world);
            }
        }
        for reason in DropReason::ALL {
            let counted = self.world.broker.counters().dropped.get(reason);
            assert_eq!(counted, self.reference.drops(reason), "dropped, {reason}");
        }
        let footprint = self.world.broker.footprint();
        let subscriptions = self.world.broker.counters().subscriptions.get();
        assert_eq!(footprint.sessions, self.reference.sessions(), "sessions");
        assert_eq!(footprint.retained_messages, self.reference.retained(), "retained messages");
        assert_eq!(subscriptions, self.reference.subscriptions() as u64, "subscriptions");
    }

    fn read(&mut self, player: &mut Player) {
        if self.reference.is_deaf(player.connection) {
            return;
        }
        let name = NAMES[player.who];
        let mut expected = self.reference.take_expected(player.connection);
        for packet in player.client.all() {
            let place = self.place_of(&packet, &expected, player.client.version);
            let Some(place) = place else {
                panic!("{name} got\n{packet:?}\nwhere this was to come:\n{}", list(&expected));
            };
            let foreseen = expected.remove(place);
            self.take(player.who, &packet, &foreseen);
        }
        assert!(expected.is_empty(), "{name} did not get:\n{}", list(&expected));
    }

    /// Which of what is to come this is, nothing of its kind being left out.
    fn place_of(&self, packet: &Packet, expected: &[Expected], version: Version) -> Option<usize> {
        let is_next = |place: usize| {
            let order = order_of(&expected[place]);
            expected.iter().take(place).all(|earlier| order_of(earlier) != order)
        };
        (0..expected.len())
            .find(|place| self.is_what_was_foreseen(packet, &expected[*place], version) && is_next(*place))
    }

    fn is_what_was_foreseen(&self, packet: &Packet, expected: &Expected, version: Version) -> bool {
        let in_v5 = version == V5;
        let same_code = |got: ReasonCode, code: ReasonCode| match in_v5 {
            true => got == code,
            false => got.is_error() == code.is_error(),
        };
        let same_codes = |got: &[ReasonCode], codes: &[ReasonCode]| {
            got.len() == codes.len()
                && got.iter().zip(codes).all(|(got, code)| got == code || (!in_v5 && same_code(*got, *code)))
        };
        match (packet, expected) {
            (Packet::ConnAck(got), Expected::ConnAck { present, code, expiry_s }) => {
                got.session_present == *present
                    && same_code(got.code, *code)
                    && got.session_expiry_interval_s == *expiry_s
            }
            (Packet::Publish(got), Expected::Publish(delivery)) => {
                let known = delivery.ticket.and_then(|ticket| self.reference.id_of(ticket));
                let (mut identifiers, expiry_s) = match &got.extras {
                    None => (Vec::new(), None),
                    Some(extras) => (extras.subscription_ids.clone(), extras.message_expiry_interval_s),
                };
                identifiers.sort_unstable();
                &*got.topic == delivery.topic
                    && got.payload == delivery.payload.as_bytes()
                    && got.qos.as_u8() == delivery.qos
                    && got.retain == delivery.retain
                    && got.dup == delivery.dup
                    && identifiers == delivery.identifiers
                    && expiry_s == delivery.expiry_s
                    && got.packet_id.is_some() == delivery.ticket.is_some()
                    && (known.is_none() || known == got.packet_id)
            }
            (Packet::PubRel(got), Expected::PubRel(ticket)) => {
                let known = self.reference.id_of(*ticket);
                known.is_none_or(|id| id == got.packet_id) && got.code == ReasonCode::Success
            }
            (
                Packet::PubAck(got) | Packet::PubRec(got) | Packet::PubRel(got) | Packet::PubComp(got),
                Expected::Answer(kind, id, code),
            ) => packet.kind() == *kind && got.packet_id == *id && (!in_v5 || got.code == *code),
            (Packet::SubAck(got), Expected::SubAck(id, codes)) => {
                got.packet_id == *id && same_codes(&got.codes, codes)
            }
            (Packet::UnsubAck(got), Expected::UnsubAck(id, codes)) => {
                got.packet_id == *id && (!in_v5 || got.codes == *codes)
            }
            (Packet::Disconnect(got), Expected::Disconnect(code)) => got.code == *code,
            (Packet::PingResp, Expected::PingResp) => true,
            _ => false,
        }
    }

    /// A client takes a packet as the standard asks of it.
    fn take(&mut self, who: usize, packet: &Packet, foreseen: &Expected) {
        let ticket = match foreseen {
            Expected::Publish(delivery) => delivery.ticket,
            Expected::PubRel(ticket) => Some(*ticket),
            _ => None,
        };
        let store = self.stores.entry(who).or_default();
        match packet {
            Packet::ConnAck(connack) if !connack.session_present => store.held.clear(),
            Packet::Publish(Publish { qos, packet_id: Some(id), payload, .. }) => {
                self.reference.learn(ticket.unwrap(), *id);
                if *qos == QoS::ExactlyOnce && store.held.insert(*id) {
                    let payload = String::from_utf8(payload.to_vec()).unwrap();
                    let times_max = self.reference.times(who, &payload);
                    let times = store.handed_on.entry(payload).or_default();
                    *times += 1;
                    assert!(*times <= times_max, "{} got a QoS 2 message {times} times", NAMES[who]);
                }
            }
            Packet::PubRel(ack) => {
                if let Some(ticket) = ticket {
                    self.reference.learn(ticket, ack.packet_id);
                }
                store.held.remove(&ack.packet_id);
            }
            _ => {}
        }
    }
}

/// A packet identifier for SUBSCRIBE or UNSUBSCRIBE: one that is not in use where the client has not read yet what
/// it has asked before.
fn packet_id_of(reference: &Reference, player: &mut Player, wanted: u16) -> PacketId {
    if !reference.is_deaf(player.connection) {
        return id(wanted);
    }
    player.asked_unheard += 1;
    id(ASKED_UNHEARD + player.asked_unheard)
}

/// What is in order among itself: messages by topic and QoS, those that were asked for apart.
fn order_of(expected: &Expected) -> (u8, &str, u8, bool) {
    match expected {
        Expected::Publish(delivery) => (0, delivery.topic, delivery.qos, delivery.asked_for),
        Expected::PubRel(_) => (1, "", 0, false),
        _ => (2, "", 0, false),
    }
}

fn list(expected: &[Expected]) -> String {
    expected.iter().fold(String::new(), |mut list, one| {
        let _ = writeln!(list, "  {one:?}");
        list
    })
}

fn publish_packet(what: &Publishing, payload: &str, version: Version) -> Packet {
    Packet::Publish(Publish {
        dup: false,
        qos: qos(what.qos),
        retain: what.retain,
        topic: text(what.topic),
        packet_id: (what.qos > 0).then(|| id(what.packet_id)),
        extras: what
            .expiry_s
            .filter(|_| version == V5)
            .and_then(|seconds| extras(|extras| extras.message_expiry_interval_s = Some(seconds))),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
    })
}

thread_local! {
    /// What the last panic of this thread said.
    static FAULT: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs `act` with panics kept in [`FAULT`]: while a story is shrunk there are thousands.
fn quietly<R>(act: impl FnOnce() -> R) -> R {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(|info| FAULT.set(info.to_string())));
    let result = act();
    std::panic::set_hook(before);
    result
}
