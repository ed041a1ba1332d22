//! What a client is told, and how: the terms that it has set for the packets that it is sent, and the broker's
//! own words for a refusal.

use weirmq_wire::{Connect, Packet, PacketType, ReasonCode, Version};

/// What a client has asked of the packets that it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) version: Version,
    /// The largest packet that the client takes `[MQTT-3.1.2-24]`.
    pub(crate) packet_bytes_max: u32,
    /// Whether it wants Reason Strings `[MQTT-3.1.2-29]`.
    pub(crate) explained: bool,
}

impl Terms {
    /// Those of a connection that has not said anything yet.
    pub(crate) const UNKNOWN: Self =
        Self { version: Version::V311, packet_bytes_max: u32::MAX, explained: false };

    pub(crate) fn of(connect: &Connect) -> Self {
        Self {
            version: connect.version,
            packet_bytes_max: connect.packet_size_max.map_or(u32::MAX, std::num::NonZeroU32::get),
            explained: connect.version == Version::V5 && connect.request_problem_information,
        }
    }

    /// Whether the client takes a packet of its size.
    pub(crate) fn fits(&self, packet: &Packet) -> bool {
        self.packet_bytes_max == u32::MAX
            || packet.encoded_len(self.version).is_ok_and(|bytes| bytes <= self.packet_bytes_max as usize)
    }

    /// `packet` with `words` as its Reason String, where the client wants one and has room for it
    /// `[MQTT-3.2.2-19]`, `[MQTT-3.4.2-2]`, `[MQTT-3.5.2-2]`, `[MQTT-3.6.2-2]`, `[MQTT-3.7.2-2]`,
    /// `[MQTT-3.9.2-1]`, `[MQTT-3.11.2-1]`, `[MQTT-3.14.2-3]`, `[MQTT-3.15.2-2]`. `None` where the packet is too
    /// large even without.
    pub(crate) fn word(&self, mut packet: Packet, words: Option<&str>) -> Option<Packet> {
        if let Some(words) = words.filter(|_| self.explained) {
            set_reason_string(&mut packet, Some(words));
            if self.fits(&packet) {
                return Some(packet);
            }
            set_reason_string(&mut packet, None);
        }
        self.fits(&packet).then_some(packet)
    }
}

fn set_reason_string(packet: &mut Packet, words: Option<&str>) {
    let place = match packet {
        Packet::ConnAck(packet) => &mut packet.reason_string,
        Packet::PubAck(packet)
        | Packet::PubRec(packet)
        | Packet::PubRel(packet)
        | Packet::PubComp(packet) => &mut packet.reason_string,
        Packet::SubAck(packet) => &mut packet.reason_string,
        Packet::UnsubAck(packet) => &mut packet.reason_string,
        Packet::Disconnect(packet) => &mut packet.reason_string,
        Packet::Auth(packet) => &mut packet.reason_string,
        _ => return,
    };
    *place = words.map(Box::from);
}

/// The broker's own words for what a packet of the broker refuses; `None` where nothing is refused. What a hook
/// has said about it is for the log, and what the peer has sent is never sent back.
pub(crate) fn words_of(packet: &Packet) -> Option<&'static str> {
    match packet {
        Packet::ConnAck(packet) => words(PacketType::ConnAck, packet.code),
        Packet::PubAck(packet) => words(PacketType::PubAck, packet.code),
        Packet::PubRec(packet) => words(PacketType::PubRec, packet.code),
        Packet::PubRel(packet) => words(PacketType::PubRel, packet.code),
        Packet::PubComp(packet) => words(PacketType::PubComp, packet.code),
        Packet::SubAck(packet) => packet.codes.iter().find_map(|code| words(PacketType::SubAck, *code)),
        Packet::UnsubAck(packet) => packet.codes.iter().find_map(|code| words(PacketType::UnsubAck, *code)),
        Packet::Disconnect(packet) => words(PacketType::Disconnect, packet.code),
        _ => None,
    }
}

const fn words(packet: PacketType, code: ReasonCode) -> Option<&'static str> {
    use PacketType::{ConnAck, Disconnect, PubAck, PubRec, SubAck, UnsubAck};
    use ReasonCode as Code;
    if !code.is_error() {
        return None;
    }
    Some(match (packet, code) {
        (PubAck | PubRec, Code::NotAuthorized) => "the client may not publish to this topic",
        (PubAck | PubRec, Code::TopicNameInvalid) => "the broker does not take this topic name",
        (PubAck | PubRec, Code::ImplementationSpecificError) => "the broker could not process the message",
        (PubAck | PubRec, Code::PayloadFormatInvalid) => "the payload is not what this topic takes",
        (PubAck | PubRec, Code::QuotaExceeded) => "the client has published as much as it may",
        (PubAck | PubRec, Code::PacketIdentifierInUse) => {
            "the packet identifier belongs to a QoS 2 message that is not released yet"
        }
        (SubAck, Code::NotAuthorized) => "the client may not subscribe to this filter",
        (SubAck, Code::TopicFilterInvalid) => "the broker does not take this filter",
        (SubAck, Code::QuotaExceeded) => "the client may not subscribe to more",
        (SubAck | UnsubAck, Code::PacketIdentifierInUse) => {
            "the packet identifier belongs to a QoS 2 message that is not released yet"
        }
        (UnsubAck, Code::NotAuthorized) => "the client may not end this subscription",
        (ConnAck, Code::NotAuthorized) => "the client may not connect",
        (ConnAck, Code::BadUserNameOrPassword) => "user name or password is wrong",
        (ConnAck, Code::BadAuthenticationMethod) => "the authentication method is not known here",
        (ConnAck, Code::QuotaExceeded) => "a quota of the broker is used up",
        (ConnAck, Code::QoSNotSupported) => "the QoS of the will is not supported",
        (ConnAck, Code::RetainNotSupported) => "retained messages are not supported",
        (ConnAck, Code::TopicNameInvalid) => "the broker does not take the topic of the will",
        (ConnAck, Code::UnsupportedProtocolVersion) => "the broker speaks MQTT 3.1.1 and MQTT 5",
        (ConnAck, Code::MalformedPacket) => "the CONNECT is malformed",
        (ConnAck, Code::ProtocolError) => "the client does not keep to the protocol",
        (ConnAck | Disconnect, Code::PacketTooLarge) => "the packet is larger than the broker takes",
        (ConnAck | Disconnect, Code::UseAnotherServer | Code::ServerMoved) => {
            "the client is to connect to another server"
        }
        (Disconnect, Code::NotAuthorized) => "the client may not stay connected",
        (Disconnect, Code::SessionTakenOver) => {
            "another connection with this client identifier took the session over"
        }
        (Disconnect, Code::AdministrativeAction) => "an operator has ended the connection",
        (Disconnect, Code::MalformedPacket) => "the client has sent a malformed packet",
        (Disconnect, Code::ProtocolError) => "the client does not keep to the protocol",
        _ => code.words(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use weirmq_wire::{Ack, PacketId};

    #[test]
    fn every_refusal_has_words_and_nothing_else_has() {
        for code in ReasonCode::ALL {
            for packet in PacketType::ALL {
                assert_eq!(words(packet, *code).is_some(), code.is_error(), "{code} in {packet}");
            }
        }
    }

    #[test]
    fn words_are_left_out_where_they_do_not_fit_and_packets_where_nothing_fits() {
        let packet = || Packet::PubAck(Ack::with_code(PacketId::MIN, ReasonCode::NotAuthorized));
        let terms = |packet_bytes_max, explained| Terms { version: Version::V5, packet_bytes_max, explained };
        let worded = |terms: Terms| {
            terms.word(packet(), words_of(&packet())).map(|packet| packet.encoded_len(Version::V5).unwrap())
        };
        assert_eq!(worded(terms(u32::MAX, true)), Some(49));
        assert_eq!(worded(terms(49, true)), Some(49));
        assert_eq!(worded(terms(48, true)), Some(5));
        assert_eq!(worded(terms(u32::MAX, false)), Some(5));
        assert_eq!(worded(terms(4, true)), None);
    }
}
