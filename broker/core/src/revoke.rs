//! Taking back what was allowed: while clients are connected, not when they come back.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::info;
use weirmq_wire::ReasonCode;

use crate::broker::{Broker, Ending, say_goodbye};
use crate::chain::{self, Verdict};
use crate::hook::Action;
use crate::publish::Work;
use crate::session::Session;
use crate::time::Now;
use crate::topic::Subscribable;

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
        let (identity, subscriptions) = {
            let state = session.lock();
            let subscriptions: Vec<_> =
                state.subscriptions.iter().map(|(filter, options)| (filter.clone(), options.qos)).collect();
            (Arc::clone(&state.identity), subscriptions)
        };
        let chains = self.chains();
        let mut lost: HashSet<Subscribable> = HashSet::new();
        for (filter, qos) in subscriptions {
            let action = Action::Subscribe { filter: filter.clone(), qos };
            if let Verdict::Denied(_) = chain::authorize(&chains, &identity, action).await {
                lost.insert(filter);
            }
        }
        if lost.is_empty() {
            return;
        }
        let mut batch = self.batch();
        for filter in &lost {
            self.unsubscribe(&session, filter, &mut batch);
        }
        drop(batch);
        info!(client = &*session.client_id, subscriptions = lost.len(), "no longer allowed to subscribe");
        let reason = "it may no longer have one of its subscriptions";
        if let (_, Some(will)) = self.disconnect(&session, ReasonCode::NotAuthorized, reason, now) {
            will.await;
        }
    }
}
