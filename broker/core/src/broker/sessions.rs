//! Sessions: how they begin, are gone on with, wait without a connection, and end, and what they subscribe to.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use weirmq_wire::{Packet, ReasonCode, Version};

use super::{Broker, encode};
use crate::answer;
use crate::batch::Batch;
use crate::counters::DropReason;
use crate::durable::event::Event as DurableEvent;
use crate::durable::{NotKept, Position};
use crate::hook::{Event, Identity};
use crate::message::{Message, Publisher};
use crate::publish::{self, Origin, Work};
use crate::session::{Live, Session, SessionExpiry, State, Will};
use crate::subscriptions::Options;
use crate::time::Now;
use crate::topic::Subscribable;

/// What a session is opened with.
pub(crate) struct Opening {
    pub(crate) identity: Arc<Identity>,
    pub(crate) clean_start: bool,
    pub(crate) expiry: SessionExpiry,
    pub(crate) will: Option<Box<Will>>,
    /// Of the subscriptions that wait for the client, those that it may no longer have.
    pub(crate) lost: Vec<Subscribable>,
    pub(crate) live: Live,
}

/// Why a session is not opened.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooManySessions;

/// How a session comes to be without its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The client said goodbye: no will `[MQTT-3.14.4-3]`.
    Orderly,
    /// The connection is lost or was ended by the broker.
    Lost,
    /// Its task is gone, because the process ends: what is kept says that it is connected, and after a restart it counts
    /// as lost then.
    Abandoned,
    /// Another connection goes on with the session.
    TakenOver,
    /// Another connection begins a new session: the old one ends.
    Replaced,
}

impl Broker {
    /// Ends the connection of a client, telling it that an operator has (0x98). Its session stays, and its will is
    /// published, by the work that is given back and must be driven to its end. Answers whether it was connected.
    pub fn kick(self: &Arc<Self>, client_id: &str, now: Now) -> (bool, Option<Work>) {
        let Some(session) = self.session(client_id) else { return (false, None) };
        let reason = "an operator has ended the connection";
        self.disconnect(&session, ReasonCode::AdministrativeAction, reason, now)
    }

    /// Gives the client its session, new or as it was left, and makes the new connection the only one. `answer`
    /// makes the CONNACK, which is the first that the connection is sent.
    pub(crate) fn open_session(
        self: &Arc<Self>,
        opening: Opening,
        answer: impl Fn(bool) -> Packet,
        now: Now,
        batch: &mut Batch,
    ) -> Result<(Arc<Session>, Vec<Work>), TooManySessions> {
        let mut works = Vec::new();
        let mut opening = opening;
        loop {
            let found = self.sessions.lock().get(&opening.identity.client_id).cloned();
            if let Some(found) = &found {
                // One whose time is up has ended, and its will is published, before the client came.
                works.extend(self.session_is_due(found, now));
                let resumed = self.may_resume(found, &opening, now);
                works.extend(self.take_over(found, resumed, now, batch));
                if !resumed
                    && let Some(recorded) = self.end_session(found, now)
                    && let Some(ledger) = batch.ledger()
                {
                    // The client must not be told that it is gone before it is gone for good.
                    ledger.wait_for(recorded);
                }
            }
            let (session, present) = {
                let mut sessions = self.sessions.lock();
                match sessions.get(&opening.identity.client_id) {
                    Some(session) => (Arc::clone(session), true),
                    None if sessions.len() >= self.limits.sessions_max => return Err(TooManySessions),
                    None => {
                        let identity = Arc::clone(&opening.identity);
                        let session = Arc::new(Session::new(self.next_number(), identity, opening.expiry));
                        sessions.insert(Arc::clone(&session.client_id), Arc::clone(&session));
                        (session, false)
                    }
                }
            };
            // Where another connection of the client was faster, it is taken over in its turn.
            match self.attach(&session, opening, present, &answer, now, batch) {
                Ok(()) => return Ok((session, works)),
                Err(again) => opening = *again,
            }
        }
    }

    /// Whether the client goes on with `session` as it is. A session belongs to who opened it: another
    /// principal with the same client identifier does not get what waits for the first.
    fn may_resume(&self, session: &Session, opening: &Opening, now: Now) -> bool {
        let state = session.lock();
        !state.ended
            && state.ends_at.is_none_or(|at| at > now.at)
            && !opening.clean_start
            && state.identity.lease.principal == opening.identity.lease.principal
    }

    /// Makes the new connection that of `session`; gives the opening back where the session has one already, is
    /// over, or may not be gone on with.
    fn attach(
        &self,
        session: &Arc<Session>,
        opening: Opening,
        present: bool,
        answer: &impl Fn(bool) -> Packet,
        now: Now,
        batch: &mut Batch,
    ) -> Result<(), Box<Opening>> {
        if present && !self.may_resume(session, &opening, now) {
            return Err(Box::new(opening));
        }
        if present {
            // Before anything is sent: what was lost while the client was away must not reach it.
            self.take_back(session, &opening.lost, batch);
        }
        let mut state = session.lock();
        if state.live.is_some() || state.ended {
            return Err(Box::new(opening));
        }
        let Opening { identity, clean_start: _, expiry, will, lost: _, live } = opening;
        self.unschedule(session, &mut state);
        state.identity = identity;
        state.expiry = expiry;
        state.will = will;
        state.will_at = None;
        state.ends_at = None;
        state.restored = false;
        self.note_opening(session, &mut state, now, batch);
        if state.kept
            && let Some(ledger) = batch.ledger()
        {
            // Packet identifiers go on as what was noted of them last says: first that is kept.
            ledger.wait_for_promised(state.promised.as_ref());
        }
        if batch.is_awaited() {
            live.outbox.hold();
        }
        let packet = answer(present);
        if live.outbox.push(|out| encode(&packet, live.terms.version, out)) {
            batch.add(&live.outbox);
        }
        let State { outbound, live: place, .. } = &mut *state;
        let live = place.insert(live);
        outbound.resume();
        outbound
            .pump(live, now.at, batch, &mut |reason, message| self.dropped(Some(session), message, reason));
        session.set_holds(outbound.is_holding());
        drop(state);
        self.ends.counters.clients_connected.change(1);
        Ok(())
    }

    /// Notes that a session begins, goes on, or is no longer one that is kept.
    fn note_opening(&self, session: &Arc<Session>, state: &mut State, now: Now, batch: &mut Batch) {
        if self.keeper().is_none() {
            return;
        }
        let was_kept = std::mem::replace(&mut state.kept, !state.expiry.is_zero());
        // Who has nothing kept is not to have a ledger of its own because it has connected.
        let ledger = if was_kept || state.kept { batch.ledger() } else { batch.noted() };
        let Some(ledger) = ledger else { return };
        let client = || Arc::clone(&session.client_id);
        match (was_kept, state.kept) {
            (true, true) => {
                let set = DurableEvent::SessionSet { client: client(), session: state.header(now) };
                // CONNACK promises the will, and that there is a session: the first may not have come to say so.
                let promises = state.will.is_some() || !state.confirmed;
                ledger.about(session, set, promises);
            }
            // It is new: one that was not kept has ended with its connection.
            (false, true) => {
                ledger.about(session, DurableEvent::SessionEnded { client: client() }, true);
                let set = DurableEvent::SessionSet { client: client(), session: state.header(now) };
                ledger.about(session, set, true);
            }
            (true, false) => {
                ledger.about(session, DurableEvent::SessionEnded { client: client() }, true);
                state.outbound.forget_slots();
            }
            (false, false) => {}
        }
        ledger.end_record();
    }

    /// Ends the connection that a session has, because a new one takes its place `[MQTT-3.1.4-3]`.
    fn take_over(
        self: &Arc<Self>,
        session: &Arc<Session>,
        resumed: bool,
        now: Now,
        batch: &mut Batch,
    ) -> Option<Work> {
        let connection = {
            let mut state = session.lock();
            let live = state.live.as_mut()?;
            say_goodbye(live, ReasonCode::SessionTakenOver, batch);
            live.connection
        };
        let ending = if resumed { Ending::TakenOver } else { Ending::Replaced };
        self.close_session(session, connection, ending, "another connection took the session over", now)
    }

    /// Parts a session from its connection number `connection`. Nothing happens where it has another by now.
    pub(crate) fn close_session(
        self: &Arc<Self>,
        session: &Arc<Session>,
        connection: u64,
        ending: Ending,
        reason: &str,
        now: Now,
    ) -> Option<Work> {
        let (due, ends, identity) = {
            let mut state = session.lock();
            state.live_as(connection)?;
            state.live = None;
            let identity = Arc::clone(&state.identity);
            let expiry = state.expiry;
            let ends = expiry.is_zero() || ending == Ending::Replaced;
            let due = match state.will.take() {
                Some(_) if ending == Ending::Orderly => None,
                // A delayed will of a session that goes on is not sent: the client is back [MQTT-3.1.3-9].
                Some(will) if ending == Ending::TakenOver && !ends && will.delay_s > 0 => None,
                Some(will) if ends || will.delay_s == 0 => Some(will),
                Some(will) => {
                    state.will_at = Some(now.at.after(Duration::from_secs(will.delay_s.into())));
                    state.will = Some(will);
                    None
                }
                None => None,
            };
            state.ends_at = expiry.from(now.at);
            if !ends {
                self.schedule(session, &mut state);
            }
            if !ends && state.kept && ending != Ending::Abandoned {
                self.record_header(session, &state, due.as_deref(), now);
            }
            (due, ends, identity)
        };
        self.ends.counters.clients_connected.change(-1);
        if ends {
            // Nobody waits for that: whoever replaces it waits for its own record.
            let _ = self.end_session(session, now);
        }
        self.tell(&Event::Disconnected { identity: Arc::clone(&identity), reason: reason.to_owned() }, now);
        due.map(|will| self.publish_will(session, *will, identity, false, now))
    }

    /// A session without a connection has come to a deadline.
    pub(super) fn session_is_due(self: &Arc<Self>, session: &Arc<Session>, now: Now) -> Option<Work> {
        let (will, ends, kept, identity, restored) = {
            let mut state = session.lock();
            if state.live.is_some() || state.ended {
                return None;
            }
            let ends = state.ends_at.is_some_and(|at| at <= now.at);
            let will_is_due = ends || state.will_at.is_some_and(|at| at <= now.at);
            let will = if will_is_due { state.will.take() } else { None };
            if will_is_due {
                state.will_at = None;
            }
            if ends {
                self.unschedule(session, &mut state);
            } else {
                self.schedule(session, &mut state);
            }
            if will.is_some() && state.kept {
                self.record_header(session, &state, will.as_deref(), now);
            }
            (will, ends, state.kept, Arc::clone(&state.identity), state.restored)
        };
        let ends_behind = ends && kept && will.is_some();
        if ends && !ends_behind {
            let _ = self.end_session(session, now);
        }
        let work = self.publish_will(session, *will?, identity, restored, now);
        if !ends_behind {
            return Some(work);
        }
        // A crash before the will is recorded leaves both to be done.
        let (broker, session) = (Arc::clone(self), Arc::clone(session));
        Some(Box::pin(async move {
            work.await;
            let _ = broker.end_session(&session, now);
        }))
    }

    /// Records what a kept session is now. `due` is its will where that is being published: the record of the message
    /// says that it is done with.
    fn record_header(&self, session: &Session, state: &State, due: Option<&Will>, now: Now) {
        if let Some(keeper) = self.keeper() {
            let client = Arc::clone(&session.client_id);
            let mut header = state.header(now);
            if let Some(will) = due {
                header.will = Some(Box::new(will.clone()));
                header.will_due_unix_ms = Some(now.unix_ms);
            }
            // Nobody waits for that; without it the session is as it was before.
            let _ = keeper.record(vec![DurableEvent::SessionSet { client, session: header }]);
        }
    }

    /// Forgets a session with all that it has. Answers where that is recorded, if the session was kept.
    fn end_session(&self, session: &Arc<Session>, now: Now) -> Option<Result<Position, NotKept>> {
        {
            let mut sessions = self.sessions.lock();
            if sessions.get(&session.client_id).is_some_and(|present| Arc::ptr_eq(present, session)) {
                sessions.remove(&session.client_id);
                if sessions.len() * 4 < sessions.capacity() {
                    sessions.shrink_to_fit();
                }
            }
        }
        let kept = session.lock().kept;
        let keeper = self.keeper().filter(|_| kept);
        let end = || session.set_over(&mut session.lock());
        let (is_first, recorded) = match keeper {
            Some(keeper) => {
                let (is_first, recorded) = keeper.end_session(&session.client_id, end);
                (is_first, Some(recorded))
            }
            None => (end(), None),
        };
        if !is_first {
            return recorded;
        }
        let (subscriptions, lost) = {
            let mut state = session.lock();
            self.unschedule(session, &mut state);
            let lost = std::mem::take(&mut state.outbound);
            state.unreleased = Default::default();
            state.will = None;
            (std::mem::take(&mut state.subscriptions), lost)
        };
        self.ends.counters.dropped.count_many(DropReason::SessionEnded, lost.pending() as u64);
        for message in lost.messages() {
            self.ends.events.dropped(Some(&session.client_id), &**message, DropReason::SessionEnded);
        }
        if !subscriptions.is_empty() {
            let mut all = self.subscriptions.write();
            for filter in subscriptions.keys() {
                all.remove(filter, session.number);
            }
            drop(all);
            self.ends
                .counters
                .subscriptions
                .change(-(i64::try_from(subscriptions.len()).unwrap_or(i64::MAX)));
            self.epoch.fetch_add(1, Ordering::Release);
        }
        self.tell(&Event::SessionEnded { client_id: Arc::clone(&session.client_id) }, now);
        recorded
    }

    pub(super) fn schedule(&self, session: &Arc<Session>, state: &mut State) {
        self.unschedule(session, state);
        if let Some(at) = state.next_deadline() {
            state.scheduled_at = Some(at);
            self.deadlines.lock().insert((at, session.number), Arc::clone(session));
        }
    }

    fn unschedule(&self, session: &Session, state: &mut State) {
        if let Some(at) = state.scheduled_at.take() {
            self.deadlines.lock().remove(&(at, session.number));
        }
    }

    /// Publishes a will. Whether its client may is asked again, because that can have changed since it registered the
    /// will; not where it is known only that the client might, before the broker was started.
    fn publish_will(
        self: &Arc<Self>,
        session: &Arc<Session>,
        will: Will,
        identity: Arc<Identity>,
        authorized: bool,
        now: Now,
    ) -> Work {
        let message = Arc::new(Message {
            publisher: Publisher::Client {
                client_id: Arc::clone(&identity.client_id),
                principal: Arc::clone(&identity.lease.principal),
            },
            received_unix_ms: now.unix_ms,
            expires_at: self.expires_at(will.expiry_s, now.at),
            topic: will.topic,
            payload: will.payload,
            qos: will.qos,
            retain: will.retain,
            properties: will.properties,
            hops: 0,
        });
        let (broker, session) = (Arc::clone(self), Arc::clone(session));
        Box::pin(async move {
            let plan = broker.plan(&message.topic);
            let batch = broker.batch();
            let origin = Origin::Client { identity, authorized };
            // The outcome is counted and logged on the way; a will has nobody to answer.
            let (_, mut batch) = publish::publish(broker, origin, message, plan, &mut None, now, batch).await;
            let state = session.lock();
            if let Some(ledger) = batch.ledger().filter(|_| state.kept) {
                // In one record with the message: neither is the will lost, nor does it come twice.
                let set = DurableEvent::SessionSet {
                    client: Arc::clone(&session.client_id),
                    session: state.header(now),
                };
                ledger.about(&session, set, false);
            }
            drop(state);
        })
    }

    /// Subscribes a session. Answers whether the subscription is new; `None` where the session is over.
    pub(crate) fn subscribe(
        &self,
        session: &Arc<Session>,
        filter: &Subscribable,
        options: Options,
        batch: &mut Batch,
    ) -> Option<bool> {
        let new = self.subscriptions.write().insert(filter, session, options);
        self.epoch.fetch_add(1, Ordering::Release);
        let mut state = session.lock();
        if state.ended {
            drop(state);
            self.subscriptions.write().remove(filter, session.number);
            self.epoch.fetch_add(1, Ordering::Release);
            return None;
        }
        state.subscriptions.insert(filter.clone(), options);
        if state.kept
            && let Some(ledger) = batch.ledger()
        {
            ledger.about(session, subscribed(session, filter, &options), true);
        }
        drop(state);
        self.ends.counters.subscriptions.change(i64::from(new));
        Some(new)
    }

    /// Ends a subscription. Answers whether there was one.
    pub(crate) fn unsubscribe(
        &self,
        session: &Arc<Session>,
        filter: &Subscribable,
        batch: &mut Batch,
    ) -> bool {
        {
            let mut state = session.lock();
            if state.subscriptions.remove(filter).is_none() {
                return false;
            }
            if filter.share.is_none() {
                state.outbound.forget_replays(&filter.filter);
            }
            if state.kept
                && let Some(ledger) = batch.ledger()
            {
                let (client, filter) = (Arc::clone(&session.client_id), filter.to_string().into());
                ledger.about(session, DurableEvent::Unsubscribed { client, filter }, true);
            }
        }
        self.subscriptions.write().remove(filter, session.number);
        self.epoch.fetch_add(1, Ordering::Release);
        self.ends.counters.subscriptions.change(-1);
        true
    }
}

/// What is recorded of a subscription.
pub(crate) fn subscribed(session: &Session, filter: &Subscribable, options: &Options) -> DurableEvent {
    DurableEvent::Subscribed {
        client: Arc::clone(&session.client_id),
        filter: filter.to_string().into(),
        subscription: *options,
    }
}

/// Sends DISCONNECT, which only MQTT 5 has for a server, and closes the outbox.
pub(crate) fn say_goodbye(live: &Live, code: ReasonCode, batch: &mut Batch) {
    if live.terms.version == Version::V5 {
        let packet = Packet::Disconnect(weirmq_wire::Disconnect::new(code));
        let words = answer::words_of(&packet);
        if let Some(packet) = live.terms.word(packet, words) {
            live.outbox.push(|out| encode(&packet, live.terms.version, out));
        }
    }
    batch.add(&live.outbox);
    live.outbox.close();
}
