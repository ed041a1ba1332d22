//! The short ways of a PUBLISH to a topic that was published to before.

use bytes::{Buf, Bytes, BytesMut};
use weirmq_wire::{Packet, Publish};

use super::topics::Kind;
use super::{Connection, Phase};
use crate::message::QoS;
use crate::outbox::{COPIED_BYTES_MAX, Frames};
use crate::relay::{self, Run, Shape, Way};
use crate::time::Now;

impl Connection {
    /// Takes off the front of `bytes` the QoS 0 messages that are published to one topic that is known, and hands them
    /// on as they came. Answers whether there were any that go this way: those that a hook, a rule or a group wants,
    /// and those with properties, do not. `buffer_bytes` is the size of the whole buffer.
    pub(super) fn relay(&mut self, bytes: &mut BytesMut, buffer_bytes: usize, now: Now) -> bool {
        let Phase::Open(open) = &mut self.phase else { return false };
        if self.waiting.is_some() || open.pace.is_some() || self.broker.limits().message_expiry_s_max > 0 {
            return false;
        }
        let (Some(first), Some(version)) = (self.decoder.glance(bytes), self.decoder.version()) else {
            return false;
        };
        let is_fleeting = (first.qos, first.retain) == (QoS::AtMostOnce, false);
        let known = open.topics.as_mut().and_then(|topics| topics.recall(&self.broker, first.topic));
        let Some(known) = known.filter(|_| is_fleeting) else {
            return false;
        };
        if !known.plan.is_relayed() || known.verdict(Kind::FLEETING, |_| None) != Some(Ok(())) {
            return false;
        }
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
        open.last_packet_at = now.at;
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

    /// Takes the PUBLISH off the front of `bytes` that is to a topic that is known, which need not be read again. A small
    /// payload is copied, so that it keeps nothing of the buffer.
    pub(super) fn known_topic(&mut self, bytes: &mut BytesMut) -> Option<Packet> {
        let Phase::Open(open) = &mut self.phase else { return None };
        let seen = self.decoder.glance(bytes).filter(|seen| seen.payload.len() <= COPIED_BYTES_MAX)?;
        let publish = Publish {
            dup: seen.dup,
            qos: seen.qos,
            retain: seen.retain,
            topic: open.topics.as_mut()?.recall(&self.broker, seen.topic)?.text.clone(),
            packet_id: seen.packet_id,
            extras: None,
            payload: Bytes::copy_from_slice(seen.payload),
        };
        let length = seen.frame.len();
        bytes.advance(length);
        Some(Packet::Publish(publish))
    }
}
