//! The topics that a connection has published to: what each means, and what its client may do there.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use weirmq_wire::{ReasonCode, Text};

use crate::broker::Broker;
use crate::message::QoS;
use crate::plan::Plan;
use crate::topic::TopicName;

/// How many receivers the plans that a connection remembers may have, if they are all like the last one.
const RECEIVERS_MAX: usize = 64 * 1024;

/// What a connection remembers about the topics that it has published to. The last one is at hand: most clients
/// publish to one topic, or to one after the other.
#[derive(Default)]
pub(super) struct Topics {
    places: HashMap<TopicName, usize, RandomState>,
    known: Vec<Known>,
    last: usize,
    /// What the client's topic aliases stand for; they end with the connection `[MQTT-3.3.2-7]`.
    pub(super) aliases: Vec<Option<TopicName>>,
}

/// What a connection remembers about a topic.
pub(super) struct Known {
    pub(super) plan: Arc<Plan>,
    /// The topic as a packet has it.
    pub(super) text: Text,
    /// As of which chains the verdicts are.
    rights_epoch: u64,
    /// May it publish, by QoS and RETAIN? Denials keep their code.
    verdicts: [Option<Result<(), ReasonCode>>; 6],
}

/// What a verdict is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind(usize);

impl Kind {
    /// A message that is sent and forgotten.
    pub(super) const FLEETING: Self = Self(0);

    pub(super) fn of(qos: QoS, retain: bool) -> Self {
        Self(qos.as_u8() as usize * 2 + usize::from(retain))
    }
}

/// Why a topic has no plan.
pub(super) enum Unknown {
    /// It is no topic name.
    Malformed,
    /// The limits are against it.
    Refused(String),
}

impl Topics {
    /// What is known of `topic`, as things stand now.
    pub(super) fn know(&mut self, broker: &Broker, topic: &str) -> Result<&mut Known, Unknown> {
        if self.find(topic).is_none() {
            self.learn(broker, topic)?;
        }
        self.last(broker).ok_or(Unknown::Malformed)
    }

    /// What is known of a topic that was published to before, as things stand now.
    pub(super) fn recall(&mut self, broker: &Broker, topic: &[u8]) -> Option<&mut Known> {
        if self.known.get(self.last).is_none_or(|known| *known.text.as_bytes() != *topic) {
            self.last = *self.places.get(std::str::from_utf8(topic).ok()?)?;
        }
        self.last(broker)
    }

    /// What is known of the topic that was published to last, as things stand now.
    pub(super) fn last(&mut self, broker: &Broker) -> Option<&mut Known> {
        let known = self.known.get_mut(self.last)?;
        known.renew(broker);
        Some(known)
    }

    /// Remembers what the authorize chain has said.
    pub(super) fn remember(&mut self, topic: &str, kind: Kind, verdict: Result<(), ReasonCode>) {
        if let Some(place) = self.find(topic).and_then(|known| known.verdicts.get_mut(kind.0)) {
            *place = Some(verdict);
        }
    }

    /// Forgets what topics mean and what the client may do there.
    pub(super) fn clear(&mut self) {
        let aliases = std::mem::take(&mut self.aliases);
        *self = Self { aliases, ..Self::default() };
    }

    /// What is known of `topic`, which is the last one now.
    fn find(&mut self, topic: &str) -> Option<&mut Known> {
        if self.known.get(self.last).is_none_or(|known| *known.plan.topic != *topic) {
            self.last = *self.places.get(topic)?;
        }
        self.known.get_mut(self.last)
    }

    fn learn(&mut self, broker: &Broker, topic: &str) -> Result<(), Unknown> {
        let name = TopicName::new(topic).map_err(|_| Unknown::Malformed)?;
        let text = Text::new(topic).map_err(|_| Unknown::Malformed)?;
        if let Some(fault) = broker.topic_fault(&name) {
            return Err(Unknown::Refused(format!("the topic name {fault}")));
        }
        let plan = broker.plan(&name);
        let receivers = plan.receivers.len().saturating_mul(self.known.len());
        if self.known.len() >= broker.limits().plans_per_connection_max || receivers > RECEIVERS_MAX {
            self.clear();
        }
        self.last = self.known.len();
        self.known.push(Known { plan, text, rights_epoch: broker.rights_epoch(), verdicts: [None; 6] });
        self.places.insert(name, self.last);
        Ok(())
    }
}

impl Known {
    /// The verdict about messages of this kind: the one that is remembered, or what `decide` says. `None` where that
    /// has none.
    pub(super) fn verdict(
        &mut self,
        kind: Kind,
        decide: impl FnOnce(&Plan) -> Option<Result<(), ReasonCode>>,
    ) -> Option<Result<(), ReasonCode>> {
        let verdict = self.verdicts.get_mut(kind.0)?;
        if verdict.is_none() {
            *verdict = decide(&self.plan);
        }
        *verdict
    }

    /// Takes what is out of date anew.
    fn renew(&mut self, broker: &Broker) {
        if self.plan.epoch != broker.epoch() {
            self.plan = broker.plan(&self.plan.topic);
        }
        let rights_epoch = broker.rights_epoch();
        if self.rights_epoch != rights_epoch {
            self.rights_epoch = rights_epoch;
            self.verdicts = [None; 6];
        }
    }
}
