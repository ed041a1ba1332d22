//! One that publishes, and sends again what was not acknowledged.

use std::collections::VecDeque;

use fastrand::Rng;
use weirmq_wire::{Ack, Packet, PacketId, QoS, ReasonCode};

use super::session::{Client, Session, message};

/// Where it publishes to, always with the same QoS: their messages are numbered from 0, and their order is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    AtLeastOnce,
    ExactlyOnce,
    /// Retained, at QoS 1. Every fifth one takes away what is retained.
    Retained,
}

impl Line {
    pub(super) const fn qos(self) -> QoS {
        match self {
            Self::AtLeastOnce | Self::Retained => QoS::AtLeastOnce,
            Self::ExactlyOnce => QoS::ExactlyOnce,
        }
    }

    pub(super) fn topic(self, publisher: &str) -> String {
        match self {
            Self::AtLeastOnce => format!("load/{publisher}/1"),
            Self::ExactlyOnce => format!("load/{publisher}/2"),
            Self::Retained => format!("retained/{publisher}"),
        }
    }

    /// What message number `number` says; `None` for nothing.
    fn says(self, number: usize) -> Option<String> {
        let clears = self == Self::Retained && number % 5 == 4;
        (!clears).then(|| format!("{number} {}", "x".repeat(number * 37 % 300)))
    }
}

/// A message that is not acknowledged to the end.
struct Sent {
    id: PacketId,
    line: Line,
    number: usize,
    /// PUBREC came: only PUBREL is owed.
    is_released: bool,
}

pub(super) struct Publisher {
    session: Session,
    unacknowledged: VecDeque<Sent>,
    /// How often each message was sent, by line.
    sends: [Vec<usize>; 3],
    /// The number of the last retained message that was acknowledged.
    retained: Option<usize>,
    pub(super) is_silent: bool,
}

/// Most messages on their way.
const WINDOW: usize = 40;

impl Publisher {
    pub(super) fn new(session: Session) -> Self {
        let (unacknowledged, sends) = (VecDeque::new(), <[Vec<usize>; 3]>::default());
        Self { session, unacknowledged, sends, retained: None, is_silent: false }
    }

    pub(super) fn topic(&self, line: Line) -> String {
        line.topic(self.session.name())
    }

    /// How often each of the line's messages was sent.
    pub(super) fn sends(&self, line: Line) -> &[usize] {
        &self.sends[line as usize]
    }

    pub(super) fn is_done(&self) -> bool {
        self.unacknowledged.is_empty()
    }

    /// Whether `payload` may be what is retained: of the last retained message that was acknowledged, or a later one.
    pub(super) fn may_be_retained(&self, payload: Option<&str>) -> bool {
        let possible = self.retained.unwrap_or(0)..self.sends(Line::Retained).len();
        (self.retained.is_none() && payload.is_none())
            || possible.into_iter().any(|number| Line::Retained.says(number).as_deref() == payload)
    }

    fn publish(&mut self, line: Line) {
        let is_free = |id| self.unacknowledged.iter().all(|sent| sent.id != id);
        let id = (1..).filter_map(PacketId::new).find(|id| is_free(*id)).unwrap();
        let number = self.sends[line as usize].len();
        self.sends[line as usize].push(0);
        self.unacknowledged.push_back(Sent { id, line, number, is_released: false });
        self.send(self.unacknowledged.len() - 1, false);
    }

    /// Sends what the unacknowledged message in this place needs.
    fn send(&mut self, place: usize, dup: bool) {
        let Sent { id, line, number, is_released } = self.unacknowledged[place];
        if is_released {
            return self.session.send(&Packet::PubRel(Ack::new(id)));
        }
        self.sends[line as usize][number] += 1;
        let topic = line.topic(self.session.name());
        let mut publish = message(&topic, id.get(), line.says(number).unwrap_or_default());
        (publish.dup, publish.qos, publish.retain) = (dup, line.qos(), line == Line::Retained);
        self.session.send(&Packet::Publish(publish));
    }

    /// The place of the first message with this QoS of which nothing was acknowledged: acknowledgements come in the order
    /// of the messages `[MQTT-4.6.0-2]`, `[MQTT-4.6.0-3]`.
    fn first(&self, qos: QoS, ack: &Ack) -> usize {
        let is_fresh = |sent: &Sent| sent.line.qos() == qos && !sent.is_released;
        let place = self.unacknowledged.iter().position(is_fresh);
        let found = place.filter(|place| self.unacknowledged[*place].id == ack.packet_id);
        let name = self.session.name();
        assert!(!ack.code.is_error(), "{name}: {ack:?}");
        found.unwrap_or_else(|| panic!("{name} is not waiting for {ack:?}"))
    }
}

impl Client for Publisher {
    fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    fn open(&mut self) {
        (0..self.unacknowledged.len()).for_each(|place| self.send(place, true));
    }

    fn take(&mut self, packet: Packet) {
        match packet {
            Packet::PubAck(ack) => {
                let place = self.first(QoS::AtLeastOnce, &ack);
                let sent = self.unacknowledged.remove(place).unwrap();
                if sent.line == Line::Retained {
                    self.retained = Some(sent.number);
                }
            }
            Packet::PubRec(ack) => {
                let place = self.first(QoS::ExactlyOnce, &ack);
                self.unacknowledged[place].is_released = true;
                self.send(place, false);
            }
            Packet::PubComp(ack) => {
                // The broker may have let go of it already, and have had no time to say so.
                assert!(matches!(ack.code, ReasonCode::Success | ReasonCode::PacketIdentifierNotFound));
                let is_meant = |sent: &Sent| sent.id == ack.packet_id && sent.is_released;
                let place = self.unacknowledged.iter().position(is_meant);
                self.unacknowledged.remove(place.expect("a PUBCOMP that is waited for"));
            }
            other => panic!("{}: {other:?}", self.session.name()),
        }
    }

    fn act(&mut self, dice: &mut Rng) {
        let room = WINDOW - self.unacknowledged.len().min(WINDOW);
        if self.is_silent || room == 0 {
            return;
        }
        for _ in 0..dice.usize(0..=room) {
            self.publish(match dice.u8(..20) {
                0 => Line::Retained,
                number if number % 2 == 0 => Line::AtLeastOnce,
                _ => Line::ExactlyOnce,
            });
        }
    }
}
