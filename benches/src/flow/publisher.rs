//! One publisher: numbers, packet identifiers, and what is still under way.

use weirmq_wire::{PacketType, QoS, ReasonCode, Version, encode_ack};

use crate::load::{Stamp, Template};

/// Identifiers in use at once are never more than these; one follows from the number of its message.
const IDS: u32 = 1 << 14;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Slot {
    #[default]
    Free,
    /// PUBACK or PUBREC is owed.
    Sent,
    /// PUBCOMP is owed.
    Released,
}

/// The publishing half of a load.
#[derive(Debug)]
pub struct Publisher {
    template: Template,
    version: Version,
    qos: QoS,
    index: u32,
    /// How many receive each message.
    fan: u64,
    sent: u32,
    acknowledged: u32,
    delivered: u64,
    refused: u64,
    slots: Vec<Slot>,
}

impl Publisher {
    /// Publisher `index`, whose messages are made from `template` and have `fan` receivers each.
    #[must_use]
    pub fn new(index: u32, template: Template, version: Version, qos: QoS, fan: u64) -> Self {
        let slots = if qos == QoS::AtMostOnce { 0 } else { IDS as usize };
        Self {
            template,
            version,
            qos,
            index,
            fan,
            sent: 0,
            acknowledged: 0,
            delivered: 0,
            refused: 0,
            slots: vec![Slot::Free; slots],
        }
    }

    /// How many messages may be sent when `window` may be under way.
    #[must_use]
    pub fn room(&self, window: u32) -> u32 {
        let by_receivers = match self.fan {
            0 => u64::from(window),
            fan => {
                let under_way = (u64::from(self.sent) * fan).saturating_sub(self.delivered);
                (u64::from(window) * fan).saturating_sub(under_way) / fan
            }
        };
        let by_broker =
            if self.qos == QoS::AtMostOnce { window } else { window.saturating_sub(self.unacknowledged()) };
        by_broker.min(u32::try_from(by_receivers).unwrap_or(window))
    }

    /// Appends the next message. `false`: its identifier is still in use, so it must wait.
    pub fn publish(&mut self, at_ns: u64, out: &mut Vec<u8>) -> bool {
        let place = self.sent % IDS;
        if let Some(slot) = self.slots.get_mut(place as usize) {
            if *slot != Slot::Free {
                return false;
            }
            *slot = Slot::Sent;
        }
        let id = u16::try_from(place + 1).unwrap_or(1);
        self.template.append(id, Stamp { publisher: self.index, number: self.sent, at_ns }, out);
        self.sent = self.sent.wrapping_add(1);
        true
    }

    /// An acknowledgement has arrived; the answer to it, if there is one, is appended.
    pub fn acknowledged(&mut self, kind: PacketType, id: u16, refused: Option<u8>, out: &mut Vec<u8>) {
        let exactly_once = self.qos == QoS::ExactlyOnce;
        let slot = usize::from(id).checked_sub(1).and_then(|place| self.slots.get_mut(place));
        match (slot, kind) {
            (Some(slot @ Slot::Sent), PacketType::PubRec) if exactly_once && refused.is_none() => {
                *slot = Slot::Released;
                if let Ok(id) = id.try_into() {
                    encode_ack(PacketType::PubRel, id, ReasonCode::Success, self.version, out);
                }
            }
            (Some(slot @ Slot::Sent), PacketType::PubAck) if !exactly_once && refused.is_none() => {
                *slot = Slot::Free;
                self.acknowledged = self.acknowledged.wrapping_add(1);
            }
            (Some(slot @ Slot::Released), PacketType::PubComp) if refused.is_none() => {
                *slot = Slot::Free;
                self.acknowledged = self.acknowledged.wrapping_add(1);
            }
            _ => self.refused += 1,
        }
    }

    /// One of its receivers has got a message.
    pub fn delivered(&mut self) {
        self.delivered += 1;
    }

    /// From now on each message, also those that were sent, has so many receivers.
    pub fn set_fan(&mut self, fan: u64) {
        self.fan = fan;
    }

    /// How many messages were sent.
    #[must_use]
    pub fn sent(&self) -> u32 {
        self.sent
    }

    /// How many messages were refused, or acknowledged out of turn.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Whether nothing is under way any longer.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let acknowledged = self.qos == QoS::AtMostOnce || self.unacknowledged() == 0;
        acknowledged && self.delivered >= u64::from(self.sent) * self.fan
    }

    fn unacknowledged(&self) -> u32 {
        self.sent.wrapping_sub(self.acknowledged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publisher(qos: QoS, fan: u64) -> Publisher {
        let template = Template::new(Version::V5, "t", qos, false, 64).unwrap();
        Publisher::new(0, template, Version::V5, qos, fan)
    }

    #[test]
    fn the_window_closes_with_what_is_not_received_and_opens_when_all_have_it() {
        let mut publisher = publisher(QoS::AtMostOnce, 2);
        let mut out = Vec::new();
        for _ in 0..3 {
            assert!(publisher.publish(0, &mut out));
        }
        assert_eq!(publisher.room(3), 0);
        publisher.delivered();
        assert_eq!(publisher.room(3), 0);
        publisher.delivered();
        assert_eq!(publisher.room(3), 1);
        assert!(!publisher.is_settled());
    }

    #[test]
    fn qos_2_is_settled_only_with_the_last_of_four_packets() {
        let mut publisher = publisher(QoS::ExactlyOnce, 0);
        let mut out = Vec::new();
        assert!(publisher.publish(0, &mut out));
        out.clear();
        publisher.acknowledged(PacketType::PubRec, 1, None, &mut out);
        assert_eq!(out, [0x62, 2, 0, 1]);
        assert!(!publisher.is_settled());
        publisher.acknowledged(PacketType::PubComp, 1, None, &mut out);
        assert!(publisher.is_settled());
        assert_eq!(publisher.refused(), 0);
    }

    #[test]
    fn a_refusal_and_an_acknowledgement_of_nothing_are_counted() {
        let mut publisher = publisher(QoS::AtLeastOnce, 0);
        let mut out = Vec::new();
        assert!(publisher.publish(0, &mut out));
        publisher.acknowledged(PacketType::PubAck, 1, Some(0x97), &mut out);
        publisher.acknowledged(PacketType::PubAck, 2, None, &mut out);
        publisher.acknowledged(PacketType::PubAck, 0, None, &mut out);
        assert_eq!(publisher.refused(), 3);
    }
}
