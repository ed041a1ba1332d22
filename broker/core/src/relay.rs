//! The short way of QoS 0 messages that nobody but their receivers wants: frames that follow one another to one topic
//! are handed on as they came, all at once. A receiver whose terms are others gets them one by one.

use std::sync::Arc;

use bytes::Bytes;
use weirmq_wire::{Decoder, PublishHead, Version};

use crate::batch::Batch;
use crate::broker::Broker;
use crate::counters::DropReason;
use crate::hook::EventKind;
use crate::message::{Message, QoS};
use crate::outbound::Parcel;
use crate::outbox::{COPIED_BYTES_MAX, Frames};
use crate::plan::{Grant, Plan, Receiver};
use crate::session::{Live, State};
use crate::time::Instant;

/// PUBLISH packets of one topic that follow one another: QoS 0, without RETAIN and without properties.
pub(crate) struct Run<'a> {
    /// Tells the frames apart, which it has let through.
    pub(crate) decoder: &'a Decoder,
    pub(crate) plan: &'a Plan,
    pub(crate) messages: u64,
    pub(crate) payload_bytes: usize,
    pub(crate) shape: Shape<'a>,
}

/// The frames of a run as one version of the protocol has them.
pub(crate) struct Shape<'a> {
    pub(crate) version: Version,
    pub(crate) frames: Frames<'a>,
    /// The size of the largest.
    pub(crate) longest: usize,
}

/// What is made of a run where a receiver needs it, once for all of them.
#[derive(Default)]
struct Made<'a> {
    /// As the other version of the protocol has it.
    other: Option<Shape<'a>>,
    messages: Vec<Arc<Message>>,
}

/// Hands `run` to everybody who receives its topic. `message` makes one of a payload.
pub(crate) fn deliver(
    broker: &Broker,
    run: &Run<'_>,
    publisher: &Arc<str>,
    message: impl Fn(&[u8]) -> Message,
    now: Instant,
    batch: &mut Batch,
) {
    let mut made = Made::default();
    for receiver in &run.plan.receivers {
        let Some(grant) = receiver.grant(Some(publisher)) else { continue };
        if !deliver_whole(broker, run, receiver, grant, &mut made.other, batch) {
            if made.messages.is_empty() {
                made.messages = run.payloads().map(|payload| Arc::new(message(payload))).collect();
            }
            deliver_each(broker, receiver, grant, &made.messages, now, batch);
        }
    }
}

/// Answers whether all is done: handed over, or dropped.
fn deliver_whole<'a>(
    broker: &Broker,
    run: &Run<'a>,
    receiver: &Receiver,
    grant: &Grant,
    other: &mut Option<Shape<'a>>,
    batch: &mut Batch,
) -> bool {
    let session = &*receiver.session;
    let mut state = session.lock();
    let State { live, ended, .. } = &mut *state;
    let reason = match live {
        _ if *ended => DropReason::SessionEnded,
        None => DropReason::NoReceiverOnline,
        Some(live) if live.outbox.is_closed() => DropReason::NoReceiverOnline,
        Some(live) if !live.has_room() => DropReason::SlowConsumer,
        Some(live) => {
            let version = live.terms.version;
            let shape = if version == run.shape.version {
                &run.shape
            } else {
                other.get_or_insert_with(|| run.in_version(version))
            };
            if grant.identifiers.is_some() || !live.takes_whole(shape) {
                return false;
            }
            if live.outbox.push_frames(&shape.frames) {
                batch.add(&live.outbox);
            }
            batch.sent(run.messages, run.payload_bytes);
            if batch.events().want(EventKind::MessageDelivered) {
                for _ in 0..run.messages {
                    batch.events().delivered(&session.client_id, &run.plan.topic);
                }
            }
            return true;
        }
    };
    drop(state);
    broker.dropped_many(Some(session), &run.plan.topic, reason, run.messages);
    true
}

fn deliver_each(
    broker: &Broker,
    receiver: &Receiver,
    grant: &Grant,
    messages: &[Arc<Message>],
    now: Instant,
    batch: &mut Batch,
) {
    let session = &*receiver.session;
    let mut state = session.lock();
    let State { outbound, live, .. } = &mut *state;
    let on_drop = &mut |reason, message: &Message| broker.dropped(Some(session), message, reason);
    for message in messages {
        let parcel = Parcel {
            message: Arc::clone(message),
            qos: QoS::AtMostOnce,
            retain: false,
            identifiers: grant.identifiers.clone(),
            slot: None,
        };
        if let Err(reason) = outbound.offer(live.as_mut(), parcel, &broker.limits, now, batch, on_drop) {
            on_drop(reason, message);
        }
    }
}

impl Live {
    /// Whether frames may be handed over as they are: nothing is to be said in them that the client has asked for, none
    /// is too large for it, and its outbox has room for all.
    fn takes_whole(&self, shape: &Shape<'_>) -> bool {
        let room = self.outbox_bytes_max.saturating_sub(self.outbox.bytes());
        self.aliases.is_empty()
            && shape.longest <= self.terms.packet_bytes_max as usize
            && shape.frames.bytes().len() <= room
    }
}

impl<'a> Run<'a> {
    fn payloads(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.shape.frames.bytes();
        std::iter::from_fn(move || {
            let seen = self.decoder.glance(rest)?;
            rest = rest.get(seen.frame.len()..)?;
            Some(seen.payload)
        })
    }

    /// The same messages in another version of the protocol.
    fn in_version(&self, version: Version) -> Shape<'a> {
        let mut bytes = Vec::with_capacity(self.shape.frames.bytes().len());
        let mut longest = 0;
        for payload in self.payloads() {
            let before = bytes.len();
            let head = PublishHead {
                dup: false,
                qos: QoS::AtMostOnce,
                retain: false,
                topic: &self.plan.topic,
                packet_id: None,
                properties: None,
                message_expiry_interval_s: None,
                topic_alias: None,
                subscription_ids: &[],
                payload_len: payload.len(),
            };
            let encoded = head.encode(version, &mut bytes);
            debug_assert!(encoded.is_ok(), "what came can be sent");
            bytes.extend_from_slice(payload);
            longest = longest.max(bytes.len() - before);
        }
        Shape { version, frames: Frames::Shared(Bytes::from(bytes)), longest }
    }
}

/// How frames of so many bytes get to so many receivers; `buffer_bytes` is the size of the buffer that they came in.
pub(crate) fn way(bytes: usize, receivers: usize, buffer_bytes: usize) -> Way {
    /// Copying so much in all costs less than what sharing needs beside.
    const COPIES_BYTES_MAX: usize = 32 * 1024;
    /// Who shares a buffer keeps all of it: a small part is not worth that.
    const PART_BYTES_MIN: usize = 16 * 1024;
    if bytes <= COPIED_BYTES_MAX || bytes.saturating_mul(receivers) <= COPIES_BYTES_MAX {
        Way::Copied
    } else if bytes < PART_BYTES_MIN || bytes < buffer_bytes / 2 {
        Way::Shared
    } else {
        Way::Whole
    }
}

/// How frames get into the outboxes of their receivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// A copy for each.
    Copied,
    /// One copy for all.
    Shared,
    /// The buffer that they came in.
    Whole,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_runs_are_copied_and_only_a_large_part_of_a_buffer_is_kept_with_all_of_it() {
        assert_eq!(way(2_000, 1_000, 65_536), Way::Copied);
        assert_eq!(way(9_000, 1, 65_536), Way::Copied);
        assert_eq!(way(9_000, 100, 16_384), Way::Shared);
        assert_eq!(way(20_000, 100, 65_536), Way::Shared);
        assert_eq!(way(40_000, 1, 65_536), Way::Whole);
        assert_eq!(way(40_000, 1, 1 << 20), Way::Shared);
    }
}
