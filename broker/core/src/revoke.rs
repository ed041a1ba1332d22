//! Taking back what was allowed: while clients are connected, not when they come back.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::info;
use weirmq_wire::ReasonCode;

use crate::batch::Batch;
use crate::broker::{Broker, Ending, say_goodbye};
use crate::chain;
use crate::message::QoS;
use crate::publish::Work;
use crate::session::{Session, State};
use crate::time::Now;
use crate::topic::{Subscribable, TopicName};

/// From whom something is taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    /// Every client that logged in as this principal.
    Principal(Arc<str>),
    /// The client of this identifier.
    Client(Arc<str>),
    /// Everybody.
    Everyone,
}

/// What is to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consequence {
    /// What hooks have answered is forgotten and subscriptions are authorized again. Those that are no longer allowed
    /// end, and a client that has one of them is disconnected with 0x87, because nothing else tells it.
    AskAgain,
    /// The lease is over: the client is disconnected with this reason code.
    End(ReasonCode),
}

impl Broker {
    /// Takes back what `whom` was allowed. The work that it gives back must be driven to its end. Answers how many
    /// sessions it is about.
    pub fn revoke(self: &Arc<Self>, whom: &Whom, consequence: Consequence, now: Now) -> (usize, Vec<Work>) {
        let sessions: Vec<Arc<Session>> = match whom {
            Whom::Client(client_id) => self.session(client_id).into_iter().collect(),
            Whom::Everyone => self.all_sessions(),
            Whom::Principal(principal) => {
                let mut sessions = self.all_sessions();
                sessions.retain(|session| session.lock().identity.lease.principal == *principal);
                sessions
            }
        };
        let count = sessions.len();
        let works = match consequence {
            Consequence::End(code) => {
                let end =
                    |session: &Arc<Session>| self.disconnect(session, code, "its login was revoked", now).1;
                sessions.iter().filter_map(end).collect()
            }
            Consequence::AskAgain => {
                self.forget_answers();
                let again = |session| Arc::clone(self).authorize_again(session, now);
                sessions.into_iter().map(|session| Box::pin(again(session)) as Work).collect()
            }
        };
        (count, works)
    }

    /// Ends the connection of a session. Answers whether it had one, and the work that publishes its will.
    pub(crate) fn disconnect(
        self: &Arc<Self>,
        session: &Arc<Session>,
        code: ReasonCode,
        reason: &str,
        now: Now,
    ) -> (bool, Option<Work>) {
        let mut batch = self.batch();
        let connection = {
            let state = session.lock();
            let Some(live) = state.live.as_ref() else { return (false, None) };
            say_goodbye(live, code, &mut batch);
            live.connection
        };
        (true, self.close_session(session, connection, Ending::Lost, reason, now))
    }

    /// Whatever hooks have answered about rights is asked again.
    fn forget_answers(&self) {
        self.rights_epoch.fetch_add(1, Ordering::Release);
    }

    /// Asks for each subscription of a session whether it may still have it, and ends those that it may not.
    async fn authorize_again(self: Arc<Self>, session: Arc<Session>, now: Now) {
        let identity = Arc::clone(&session.lock().identity);
        let lost = chain::denied_subscriptions(&self.chains(), &identity, subscriptions_of(&session)).await;
        if lost.is_empty() {
            return;
        }
        let reason = "it may no longer have one of its subscriptions";
        let (_, will) = self.disconnect(&session, ReasonCode::NotAuthorized, reason, now);
        self.take_back(&session, &lost, &mut self.batch());
        if let Some(will) = will {
            will.await;
        }
    }

    /// The subscriptions that a client has from before, which wait for it to come back.
    pub(crate) fn waiting_subscriptions(&self, client_id: &str) -> Vec<(Subscribable, QoS)> {
        self.session(client_id).map_or_else(Vec::new, |session| subscriptions_of(&session))
    }

    /// Ends the subscriptions that a session may no longer have, and the way of the messages that it has of them alone.
    pub(crate) fn take_back(&self, session: &Arc<Session>, lost: &[Subscribable], batch: &mut Batch) {
        let ended = lost.iter().filter(|filter| self.unsubscribe(session, filter, batch)).count();
        if ended == 0 {
            return;
        }
        let mut state = session.lock();
        let State { subscriptions, outbound, live, .. } = &mut *state;
        if live.is_none() {
            let is_lost = |topic: &TopicName| {
                let matches = |filter: &Subscribable| filter.filter.matches(topic);
                lost.iter().any(matches) && !subscriptions.keys().any(matches)
            };
            outbound.withdraw(is_lost, batch, &mut |reason, message| {
                self.dropped(Some(session), message, reason);
            });
            session.set_holds(outbound.is_holding());
        }
        drop(state);
        info!(client = &*session.client_id, subscriptions = ended, "no longer allowed to subscribe");
    }
}

fn subscriptions_of(session: &Session) -> Vec<(Subscribable, QoS)> {
    let state = session.lock();
    state.subscriptions.iter().map(|(filter, options)| (filter.clone(), options.qos)).collect()
}
