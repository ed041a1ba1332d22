//! Answers that wait until what they promise is kept, in the order in which they are owed `[MQTT-4.6.0-2]`,
//! `[MQTT-4.6.0-3]`, `[MQTT-4.6.0-4]`, and messages that must be kept before they are sent.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use weirmq_wire::{ConnAck, Packet, PacketId, PacketType, ReasonCode, Version};

use super::{Connection, Phase, Ways};
use crate::broker::Ending;
use crate::durable::slot::{Held, Hold};
use crate::durable::{Journal, NotKept, Position, Waiter};
use crate::message::Message;
use crate::session;
use crate::time::Now;
use crate::topic::Subscribable;

/// What a client is owed.
pub(super) enum Owe {
    /// An acknowledgement.
    Ack(PacketType, PacketId, ReasonCode),
    /// Another answer.
    Packet(Box<Packet>),
    /// SUBACK, and what was subscribed to.
    SubAck(Box<Packet>, Vec<Subscribable>),
    /// CONNACK, which stands in the outbox already.
    Greeting,
}

/// What an answer waits for.
enum After {
    /// That what was noted before it is recorded, when the batch ends.
    Unrecorded,
    /// That everything up to there is kept.
    Position(Position),
    /// Nothing: it was not kept.
    Failed(NotKept),
}

/// What a connection owes.
pub(super) struct Owed {
    queue: VecDeque<(After, Owe)>,
    /// What others have noted, and must be recorded and kept before any of it is given.
    before: Vec<Arc<Hold>>,
    /// How many PUBACK are in it: their messages count against Receive Maximum.
    pubacks: usize,
    answers: Watch,
    messages: Watch,
}

/// One who waits for the journal.
struct Watch {
    journal: Arc<dyn Journal>,
    position: Position,
    waiter: Waiter,
}

impl Watch {
    fn new(journal: &Arc<dyn Journal>) -> Self {
        Self { journal: Arc::clone(journal), position: 0, waiter: Waiter::default() }
    }

    fn poll(&mut self, position: Position, context: &mut Context<'_>) -> Poll<Result<(), NotKept>> {
        if position != self.position {
            self.journal.forget(self.position, std::mem::take(&mut self.waiter));
            self.position = position;
        }
        self.journal.poll_kept(position, &mut self.waiter, context)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.journal.forget(self.position, std::mem::take(&mut self.waiter));
    }
}

impl Connection {
    /// How many answers are owed.
    pub(super) fn owes(&self) -> usize {
        self.owed.as_ref().map_or(0, |owed| owed.queue.len())
    }

    /// How many of them are PUBACK.
    pub(super) fn owed_pubacks(&self) -> usize {
        self.owed.as_ref().map_or(0, |owed| owed.pubacks)
    }

    /// Whether its client's messages are held back until they are kept.
    pub(super) fn holds(&self) -> bool {
        matches!(&self.phase, Phase::Open(open) if open.session.holds())
    }

    /// Whether an answer must wait: because of what it promises, or because others wait before it.
    pub(super) fn must_wait(&self) -> bool {
        self.batch.is_awaited() || self.owes() > 0
    }

    /// Has an answer wait.
    pub(super) fn owe(&mut self, owe: Owe) {
        let Some(owed) = self.owed_or_begin() else { return };
        owed.pubacks += usize::from(is_puback(&owe));
        owed.queue.push_back((After::Unrecorded, owe));
    }

    fn owed_or_begin(&mut self) -> Option<&mut Owed> {
        if self.owed.is_none() {
            let journal = self.broker.keeper()?.journal();
            let (answers, messages) = (Watch::new(journal), Watch::new(journal));
            let owed = Owed { queue: VecDeque::new(), before: Vec::new(), pubacks: 0, answers, messages };
            self.owed = Some(Box::new(owed));
        }
        self.owed.as_deref_mut()
    }

    /// What was noted is recorded: the answers know now what they wait for.
    pub(super) fn settle_owed(&mut self) {
        let awaited = self.batch.take_awaited();
        let Some(owed) = &mut self.owed else { return };
        if let Some(ledger) = self.batch.noted() {
            owed.before.append(&mut ledger.take_awaited_of_others());
        }
        let first_new = owed.queue.iter().rposition(|(after, _)| !matches!(after, After::Unrecorded));
        let before = first_new.and_then(|place| match owed.queue.get(place) {
            Some((After::Position(position), _)) => Some(*position),
            _ => None,
        });
        for (after, _) in owed.queue.iter_mut().skip(first_new.map_or(0, |place| place + 1)) {
            *after = match &awaited {
                Some(Ok(position)) => After::Position(*position),
                Some(Err(not_kept)) => After::Failed(not_kept.clone()),
                None => After::Position(before.unwrap_or(0)),
            };
        }
    }

    /// The connection ends: the client asks again where it has to. One that was not greeted yet is told nothing.
    pub(super) fn forget_owed(&mut self) {
        let Some(owed) = self.owed.take() else { return };
        if owed.queue.iter().any(|(_, owe)| matches!(owe, Owe::Greeting)) {
            self.outbox.release(false);
        }
    }

    /// Gives the answers whose promises are kept by now, and sends the messages that are.
    pub(super) fn poll_kept(&mut self, context: &mut Context<'_>, now: Now) -> Poll<()> {
        if self.is_over() {
            self.forget_owed();
            return Poll::Ready(());
        }
        // What is noted must be recorded to be waited for.
        self.flush();
        let answers = self.poll_answers(context, now);
        let messages = self.poll_held(context, now);
        // What is said now must be written: nobody else does that while this goes on waiting.
        self.flush();
        if answers.is_ready() { messages } else { answers }
    }

    fn poll_answers(&mut self, context: &mut Context<'_>, now: Now) -> Poll<()> {
        while let Some(owed) = &mut self.owed {
            if let Some(hold) = owed.before.last() {
                match hold.state() {
                    Held::Unrecorded => {
                        hold.wake(context.waker());
                        return Poll::Pending;
                    }
                    // That it is not kept is said to those whose answers stand behind it in the log.
                    Held::At(position) if owed.answers.poll(position, context).is_pending() => {
                        return Poll::Pending;
                    }
                    Held::At(_) | Held::Lost => drop(owed.before.pop()),
                }
                continue;
            }
            let outcome = match owed.queue.front() {
                None => return Poll::Ready(()),
                Some((After::Unrecorded, _)) => return Poll::Pending,
                Some((After::Failed(not_kept), _)) => Err(not_kept.clone()),
                Some((After::Position(position), _)) => {
                    let position = *position;
                    match owed.answers.poll(position, context) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(Ok(())) if self.pay_acks(position) => continue,
                        Poll::Ready(outcome) => outcome,
                    }
                }
            };
            let Some(owed) = &mut self.owed else { return Poll::Ready(()) };
            let Some((_, owe)) = owed.queue.pop_front() else { return Poll::Ready(()) };
            owed.pubacks -= usize::from(is_puback(&owe));
            let is_greeting = matches!(owe, Owe::Greeting);
            match outcome {
                Ok(()) => self.pay(owe, now),
                Err(not_kept) => self.fail(owe, &not_kept, now),
            }
            if is_greeting && self.owes() == 0 {
                // Many are let in and do nothing for long: what that took is given back.
                self.owed = None;
                self.batch.rest();
            }
        }
        Poll::Ready(())
    }

    /// Gives the acknowledgements at the front of the queue that refuse nothing and whose promises are kept with all up to
    /// `kept`. Answers whether there are any.
    fn pay_acks(&mut self, kept: Position) -> bool {
        let (version, Some(owed)) = (self.terms.version, &mut self.owed) else { return false };
        let ack = |(after, owe): &(After, Owe)| match (after, owe) {
            (After::Position(position), Owe::Ack(kind, id, code))
                if *position <= kept && session::is_wordless(version, *code) =>
            {
                Some((*kind, *id, *code))
            }
            _ => None,
        };
        let acks = owed.queue.iter().map_while(ack);
        let (count, pubacks) = acks.clone().fold((0, 0), |(count, pubacks), (kind, ..)| {
            (count + 1, pubacks + usize::from(kind == PacketType::PubAck))
        });
        if count > 0 && session::acknowledge_all(&self.outbox, version, acks) {
            self.batch.add(&self.outbox);
        }
        owed.pubacks -= pubacks;
        owed.queue.drain(..count);
        count > 0
    }

    fn pay(&mut self, owe: Owe, now: Now) {
        match owe {
            Owe::Ack(kind, id, code) => self.acknowledge_now(kind, id, code),
            Owe::Packet(packet) | Owe::SubAck(packet, _) => {
                if !self.send(*packet) {
                    let reason = "the answer is larger than the client's Maximum Packet Size";
                    self.close(Some(ReasonCode::PacketTooLarge), reason, now);
                }
            }
            Owe::Greeting => {
                if let Phase::Open(open) = &self.phase {
                    open.session.lock().confirmed = true;
                }
                self.outbox.release(true);
                self.batch.add(&self.outbox);
            }
        }
    }

    /// What was to be promised is not kept. MQTT 5 has codes for that; MQTT 3.1.1 has no way to say it but to leave the
    /// answer out.
    fn fail(&mut self, owe: Owe, not_kept: &NotKept, now: Now) {
        if let Some(keeper) = self.broker.keeper() {
            keeper.complain(not_kept);
        }
        let code = if not_kept.is_full {
            ReasonCode::QuotaExceeded
        } else {
            ReasonCode::ImplementationSpecificError
        };
        let version = self.terms.version;
        match owe {
            Owe::Ack(kind @ (PacketType::PubAck | PacketType::PubRec), id, before) => {
                if kind == PacketType::PubRec {
                    self.give_back(id);
                }
                if version == Version::V5 {
                    let code = if before.is_error() { before } else { code };
                    self.acknowledge_now(kind, id, code);
                } else if !not_kept.is_final {
                    // Later ones may be kept: it is to send this one again, and it does so on a new connection.
                    self.close(None, "what it published could not be kept", now);
                }
            }
            // PUBREL, PUBCOMP: asked for again on the next connection.
            Owe::Ack(..) => {}
            Owe::SubAck(packet, filters) => {
                if let Phase::Open(open) = &self.phase {
                    let session = Arc::clone(&open.session);
                    for filter in &filters {
                        self.broker.unsubscribe(&session, filter, &mut self.batch);
                    }
                }
                self.pay(Owe::Packet(refused(packet, code)), now);
            }
            Owe::Packet(packet) if matches!(*packet, Packet::UnsubAck(_)) => {
                if version == Version::V5 {
                    self.pay(Owe::Packet(refused(packet, ReasonCode::ImplementationSpecificError)), now);
                }
            }
            Owe::Packet(packet) => self.pay(Owe::Packet(packet), now),
            Owe::Greeting => self.take_greeting_back(code, now),
        }
    }

    /// A QoS 2 message was not taken after all.
    fn give_back(&mut self, id: PacketId) {
        let Phase::Open(open) = &mut self.phase else { return };
        let was_there = open.session.lock().unreleased.remove(&id);
        open.taken -= usize::from(was_there == Some(self.number));
    }

    /// The session could not be kept: the client is refused, with nothing sent before.
    fn take_greeting_back(&mut self, code: ReasonCode, now: Now) {
        self.outbox.release(false);
        if let Phase::Open(open) = &self.phase {
            // It was never let in: its will is nobody's.
            open.session.lock().will = None;
        }
        let code = if self.terms.version == Version::V5 { code } else { ReasonCode::ServerUnavailable };
        self.send(Packet::ConnAck(Box::new(ConnAck::new(code))));
        self.batch.add(&self.outbox);
        self.outbox.close();
        self.finish(Ending::Lost, "its session could not be kept", now);
    }

    /// Sends the held messages that are kept by now.
    fn poll_held(&mut self, context: &mut Context<'_>, now: Now) -> Poll<()> {
        while self.holds() {
            let Phase::Open(open) = &self.phase else { break };
            let session = Arc::clone(&open.session);
            let first = session.lock().outbound.first_hold().cloned();
            let Some(hold) = first else {
                session.set_holds(false);
                break;
            };
            let outcome = match hold.state() {
                Held::Unrecorded => {
                    hold.wake(context.waker());
                    return Poll::Pending;
                }
                Held::Lost => Err(Position::MAX),
                Held::At(position) => {
                    let Some(owed) = self.owed_or_begin() else { break };
                    match owed.messages.poll(position, context) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(outcome) => outcome.map(|()| position).map_err(|_| position),
                    }
                }
            };
            let released = self.with_live(&session, |broker, Ways { outbound, .. }, live, batch| {
                let on_drop =
                    &mut |reason, message: &Message| broker.dropped(Some(&session), message, reason);
                outbound.release(outcome, live, on_drop);
                outbound.pump(live, now.at, batch, on_drop);
            });
            if released.is_none() {
                break;
            }
        }
        Poll::Ready(())
    }
}

const fn is_puback(owe: &Owe) -> bool {
    matches!(owe, Owe::Ack(PacketType::PubAck, ..))
}

/// A SUBACK or UNSUBACK that refuses what it was to grant.
fn refused(mut packet: Box<Packet>, code: ReasonCode) -> Box<Packet> {
    let codes = match &mut *packet {
        Packet::SubAck(packet) => &mut packet.codes,
        Packet::UnsubAck(packet) => &mut packet.codes,
        _ => return packet,
    };
    for before in codes.iter_mut().filter(|before| !before.is_error()) {
        *before = code;
    }
    packet
}
