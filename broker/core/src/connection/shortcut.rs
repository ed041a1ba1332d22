//! The short ways of what most packets are: a PUBLISH to a topic that was published to before, and acknowledgements.

use bytes::{Buf, Bytes, BytesMut};
use weirmq_wire::PacketType;

use super::publish::Head;
use super::topics::Kind;
use super::{Connection, Phase};
use crate::message::QoS;
use crate::outbound::Outbound;
use crate::outbox::{COPIED_BYTES_MAX, Frames};
use crate::relay::{self, Run, Shape, Way};
use crate::time::Now;

/// So many acknowledgements that follow one another are handled at once.
pub(super) const ACKS_MAX: usize = 64;

impl Connection {
    /// Takes off the front of `bytes` what can go a short way, and answers whether anything could: QoS 0 messages that are
    /// handed on as they came, a PUBLISH to a topic that was published to before, acknowledgements with nothing but
    /// their packet identifiers. `buffer_bytes` is the size of the whole buffer.
    pub(super) fn shortcut(&mut self, bytes: &mut BytesMut, buffer_bytes: usize, now: Now) -> bool {
        // What comes while a hook is waited for may have to wait behind it.
        let (Phase::Open(open), None) = (&mut self.phase, &self.waiting) else { return false };
        let Some(seen) = self.decoder.glance(bytes) else { return self.take_acks(bytes, now) };
        let known = open.topics.as_mut().and_then(|topics| topics.recall(&self.broker, seen.topic));
        let Some(known) = known else { return false };
        if (seen.qos, seen.retain) == (QoS::AtMostOnce, false)
            && open.pace.is_none()
            && self.broker.limits().message_expiry_s_max == 0
            && known.plan.is_relayed()
            && known.verdict(Kind::FLEETING, |_| None) == Some(Ok(()))
        {
            return self.relay(bytes, buffer_bytes, now);
        }
        let head = Head { qos: seen.qos, retain: seen.retain, packet_id: seen.packet_id };
        if seen.payload.len() > COPIED_BYTES_MAX || self.is_too_many(head.qos, head.packet_id) {
            return false;
        }
        // A small payload is copied: it keeps nothing of the buffer.
        let (payload, length) = (Bytes::copy_from_slice(seen.payload), seen.frame.len());
        bytes.advance(length);
        self.publish_known(head, payload, now);
        true
    }

    /// Takes the acknowledgements off the front of `bytes` that go the short way, and answers whether there are any.
    fn take_acks(&mut self, bytes: &mut BytesMut, now: Now) -> bool {
        let owed_max = self.broker.limits().backlog_packets_max.saturating_sub(self.owes());
        let Some(acks) = self.decoder.glance_at_acks(bytes, ACKS_MAX.min(owed_max)) else { return false };
        match acks.kind {
            PacketType::PubRec => self.pubrecs(acks.ids()),
            PacketType::PubRel => self.pubrels(acks.ids()),
            PacketType::PubComp => self.complete(acks.ids(), Outbound::pubcomp, now),
            _ => self.complete(acks.ids(), Outbound::puback, now),
        }
        let length = acks.bytes_len();
        bytes.advance(length);
        true
    }

    /// Takes off the front of `bytes` the QoS 0 messages to the topic that was looked up last, which may be handed on as
    /// they came: no hook, rule or group wants them. Answers whether there were any.
    fn relay(&mut self, bytes: &mut BytesMut, buffer_bytes: usize, now: Now) -> bool {
        let Phase::Open(open) = &mut self.phase else { return false };
        let known = open.topics.as_mut().and_then(|topics| topics.last(&self.broker));
        let (Some(known), Some(version)) = (known, self.decoder.version()) else { return false };
        let plan = &*known.plan;
        let (mut length, mut messages, mut payload_bytes, mut longest) = (0, 0, 0, 0);
        while let Some(seen) = bytes.get(length..).and_then(|rest| self.decoder.glance(rest))
            && (seen.qos, seen.retain) == (QoS::AtMostOnce, false)
            && *seen.topic == *plan.topic.as_bytes()
        {
            length += seen.frame.len();
            messages += 1;
            payload_bytes += seen.payload.len();
            longest = longest.max(seen.frame.len());
        }
        if messages == 0 {
            return false;
        }
        self.batch.received(messages, payload_bytes);
        let way = relay::way(length, plan.receivers.len(), buffer_bytes);
        let frames = match way {
            Way::Copied => Frames::Copied(bytes.get(..length).unwrap_or_default()),
            Way::Shared => Frames::Shared(Bytes::copy_from_slice(bytes.get(..length).unwrap_or_default())),
            Way::Whole => Frames::Shared(bytes.split_to(length).freeze()),
        };
        let shape = Shape { version, frames, longest };
        let run = Run { decoder: &self.decoder, plan, messages, payload_bytes, shape };
        let identity = &open.identity;
        let message = |payload: &[u8]| super::publish::fleeting(identity, plan, payload, now);
        relay::deliver(&self.broker, &run, &identity.client_id, message, now.at, &mut self.batch);
        if way != Way::Whole {
            bytes.advance(length);
        }
        true
    }
}
