//! What holds for every packet of every server at every time, whatever a test is about.

use std::collections::{HashMap, HashMap as Map, HashSet};

use weirmq_wire::{Packet, PacketId, QoS, ReasonCode, Text, Version};

/// Watches both directions of one connection.
pub(super) struct Checker {
    version: Version,
    connack: bool,
    goodbye: bool,
    method: Option<Box<str>>,
    problem_information: bool,
    receive_max: usize,
    topic_alias_max: u16,
    aliases: Map<u16, Text>,
    /// PUBLISH packets that the client has not answered for good: what counts against Receive Maximum.
    unacknowledged: HashSet<PacketId>,
    /// Packet identifiers that the server may not give to another message yet.
    in_use: HashSet<PacketId>,
    /// How many filters each SUBSCRIBE and UNSUBSCRIBE had that was not answered.
    asked: HashMap<PacketId, usize>,
    pings: usize,
}

impl Checker {
    pub(super) fn new(version: Version) -> Self {
        Self {
            version,
            connack: false,
            goodbye: false,
            method: None,
            problem_information: true,
            receive_max: usize::from(u16::MAX),
            topic_alias_max: 0,
            aliases: Map::new(),
            unacknowledged: HashSet::new(),
            in_use: HashSet::new(),
            asked: HashMap::new(),
            pings: 0,
        }
    }

    pub(super) fn sent(&mut self, packet: &Packet) {
        match packet {
            Packet::Connect(connect) if !self.connack => {
                self.method = connect.authentication_method.clone();
                self.problem_information = connect.request_problem_information;
                self.receive_max = usize::from(connect.receive_max.get());
                self.topic_alias_max = connect.topic_alias_max;
            }
            Packet::PubAck(ack) | Packet::PubComp(ack) => self.done(ack.packet_id),
            Packet::PubRec(ack) if ack.code.is_error() => self.done(ack.packet_id),
            Packet::Subscribe(subscribe) => {
                self.asked.insert(subscribe.packet_id, subscribe.filters.len());
            }
            Packet::Unsubscribe(unsubscribe) => {
                self.asked.insert(unsubscribe.packet_id, unsubscribe.filters.len());
            }
            Packet::PingReq => self.pings += 1,
            _ => {}
        }
    }

    pub(super) fn asks(&mut self, packet_id: PacketId, filters: usize) {
        self.asked.insert(packet_id, filters);
    }

    fn done(&mut self, id: PacketId) {
        self.unacknowledged.remove(&id);
        self.in_use.remove(&id);
    }

    /// Checks a packet, and writes out the topic that an alias stands for.
    pub(super) fn received(&mut self, packet: &mut Packet) {
        // [MQTT-3.14.4-1], [MQTT-3.2.2-7]
        assert!(!self.goodbye, "{packet:?} after DISCONNECT or a refusal");
        // [MQTT-3.2.0-1], [MQTT-3.14.0-1]
        assert!(
            self.connack || matches!(packet, Packet::ConnAck(_) | Packet::Auth(_)),
            "{packet:?} before CONNACK"
        );
        match packet {
            Packet::ConnAck(connack) => {
                // [MQTT-3.2.0-2]
                assert!(!self.connack, "a second CONNACK");
                self.connack = true;
                self.goodbye = connack.code != ReasonCode::Success;
                // [MQTT-4.12.0-5], [MQTT-4.12.0-6]
                if connack.code == ReasonCode::Success {
                    assert_eq!(connack.authentication_method, self.method);
                }
                // [MQTT-3.2.2-19]: with Request Problem Information 0 the broker is silent here too.
                self.check_words(connack.reason_string.as_deref());
            }
            Packet::Auth(auth) => {
                assert!(self.method.is_some() && auth.method == self.method, "{auth:?}");
                self.check_words(auth.reason_string.as_deref());
            }
            Packet::Disconnect(disconnect) => {
                assert_eq!(self.version, Version::V5, "MQTT 3.1.1 has no DISCONNECT from a server");
                // [MQTT-3.14.2-2] is the decoder's.
                self.goodbye = true;
                self.check_words(disconnect.reason_string.as_deref());
            }
            Packet::Publish(publish) => {
                if let Some(id) = publish.packet_id {
                    // [MQTT-2.2.1-4]: unused, or sent again on a connection that has not seen it.
                    let unused = self.in_use.insert(id);
                    assert!(unused, "packet identifier {id:?} is in use");
                    self.unacknowledged.insert(id);
                    // [MQTT-3.3.4-9]
                    assert!(self.unacknowledged.len() <= self.receive_max, "Receive Maximum is exceeded");
                }
                assert!(publish.qos != QoS::AtMostOnce || !publish.dup, "[MQTT-3.3.1-2]");
                let alias = publish.extras.as_ref().and_then(|extras| extras.topic_alias);
                if let Some(alias) = alias {
                    // [MQTT-3.1.2-26], [MQTT-3.1.2-27]
                    assert!(alias.get() <= self.topic_alias_max, "topic alias {alias} is too high");
                    if publish.topic.is_empty() {
                        publish.topic = self.aliases.get(&alias.get()).expect("the alias is known").clone();
                    } else {
                        self.aliases.insert(alias.get(), publish.topic.clone());
                    }
                }
                assert!(!publish.topic.is_empty() && !publish.topic.contains(['+', '#']), "[MQTT-3.3.2-2]");
            }
            Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
                self.check_words(ack.reason_string.as_deref());
                assert!(ack.user_properties.is_empty());
            }
            Packet::SubAck(suback) => {
                // [MQTT-3.8.4-2], [MQTT-3.8.4-6]
                assert_eq!(self.asked.remove(&suback.packet_id), Some(suback.codes.len()));
                self.check_words(suback.reason_string.as_deref());
            }
            Packet::UnsubAck(unsuback) => {
                let filters = self.asked.remove(&unsuback.packet_id);
                assert!(filters.is_some(), "nobody has asked for {unsuback:?}");
                if self.version == Version::V5 {
                    assert_eq!(filters, Some(unsuback.codes.len()));
                }
                self.check_words(unsuback.reason_string.as_deref());
            }
            Packet::PingResp => {
                self.pings = self.pings.checked_sub(1).expect("nobody has asked for this PINGRESP");
            }
            other => panic!("a server does not send {other:?}"),
        }
    }

    /// [MQTT-3.1.2-29], and no text but the broker's own: those of the tests' hooks and clients have "secret".
    fn check_words(&self, words: Option<&str>) {
        let Some(words) = words else { return };
        assert!(self.problem_information, "a Reason String that is not wanted: {words}");
        assert!(!words.contains("secret") && !words.is_empty(), "{words}");
    }
}
