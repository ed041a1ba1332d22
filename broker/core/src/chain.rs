//! Questions put to the hooks of a chain, one after the other, until one decides.

use std::sync::Arc;

use tracing::{info, warn};

use crate::counters::LogGate;
use crate::hook::{
    Action, AuthenticateRequest, Authentication, AuthorizeRequest, Chains, Decision, Denial, Failure,
    FilterRequest, FilterVerdict, HookPoint, Identity, Lease, Link, Policy, ReasonCode,
};
use crate::message::QoS;
use crate::topic::Subscribable;

/// Who is this? Never [`Authentication::Next`]: when nobody decides, the answer is deny.
pub(crate) async fn authenticate(chains: &Chains, request: &Arc<AuthenticateRequest>) -> Authentication {
    for link in chains.at(HookPoint::Authenticate) {
        let answer = match link.hook.authenticate(request).get().await {
            Ok(answer) => answer,
            Err(failure) => {
                match failed(&chains.log, link, HookPoint::Authenticate, &request.client_id, &failure) {
                    Policy::Skip => Authentication::Next,
                    Policy::Deny => Authentication::Deny(in_its_place(link)),
                    Policy::Allow => {
                        let principal = request.username.as_deref().unwrap_or_default();
                        let lease = Lease { principal: Arc::from(principal), ..Lease::default() };
                        Authentication::Allow { lease, data: None }
                    }
                }
            }
        };
        match answer {
            Authentication::Next => {}
            Authentication::Deny(denial) => {
                info!(
                    plugin = link.hook.name(),
                    client = &*request.client_id,
                    username = request.username.as_deref(),
                    peer = request.peer.map(tracing::field::display),
                    code = %denial.code,
                    reason = denial.reason,
                    "login refused"
                );
                return Authentication::Deny(denial);
            }
            decided => return decided,
        }
    }
    let (code, reason) = match &request.exchange {
        Some(_) => (ReasonCode::BadAuthenticationMethod, "no plugin knows the authentication method"),
        None => (ReasonCode::NotAuthorized, "no plugin let the client in"),
    };
    info!(
        client = &*request.client_id,
        username = request.username.as_deref(),
        peer = request.peer.map(tracing::field::display),
        reason,
        "login refused"
    );
    Authentication::Deny(Denial::new(code, reason))
}

/// What somebody may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// As asked, or in the case of a subscription up to this QoS.
    Allowed(QoS),
    /// Not at all.
    Denied(Denial),
}

/// What the lease says about `action` by itself; `None` where it leaves that to the authorize chain.
pub(crate) fn by_lease(identity: &Identity, action: &Action) -> Option<Verdict> {
    let rights = identity.lease.rights.as_ref()?;
    let allowed = match action {
        Action::Publish { topic, qos, retain } => rights
            .publish
            .iter()
            .any(|right| *qos <= right.qos_max && (right.retain || !retain) && right.filter.matches(topic))
            .then_some(*qos),
        Action::Subscribe { filter, qos } => rights
            .subscribe
            .iter()
            .filter(|right| right.filter.covers(&filter.filter))
            .map(|right| right.qos_max.min(*qos))
            .max(),
    };
    Some(match allowed {
        Some(qos) => Verdict::Allowed(qos),
        None => {
            Verdict::Denied(Denial::new(ReasonCode::NotAuthorized, "the rights of the login do not cover it"))
        }
    })
}

/// May this client do that? The lease answers where it can, else the chain.
pub(crate) async fn authorize(chains: &Chains, identity: &Arc<Identity>, action: Action) -> Verdict {
    if let Some(verdict) = by_lease(identity, &action) {
        if let Verdict::Denied(denial) = &verdict {
            log_denied(&chains.log, "the lease", identity, &action, denial);
        }
        return verdict;
    }
    let asked = match action {
        Action::Publish { qos, .. } | Action::Subscribe { qos, .. } => qos,
    };
    let request = Arc::new(AuthorizeRequest { identity: Arc::clone(identity), action });
    for link in chains.at(HookPoint::Authorize) {
        let decision = match link.hook.authorize(&request).get().await {
            Ok(decision) => decision,
            Err(failure) => {
                match failed(&chains.log, link, HookPoint::Authorize, &identity.client_id, &failure) {
                    Policy::Skip => Decision::Next,
                    Policy::Allow => Decision::Allow,
                    Policy::Deny => Decision::Deny(in_its_place(link)),
                }
            }
        };
        match decision {
            Decision::Next => {}
            Decision::Allow => return Verdict::Allowed(asked),
            Decision::Deny(mut denial) => {
                if !denial.code.is_error() {
                    denial.code = ReasonCode::NotAuthorized;
                }
                log_denied(&chains.log, link.hook.name(), identity, &request.action, &denial);
                return Verdict::Denied(denial);
            }
        }
    }
    let denial = Denial::new(ReasonCode::NotAuthorized, "no plugin allowed it");
    log_denied(&chains.log, "nobody", identity, &request.action, &denial);
    Verdict::Denied(denial)
}

/// Which of a client's `subscriptions` it may not have.
pub(crate) async fn denied_subscriptions(
    chains: &Chains,
    identity: &Arc<Identity>,
    subscriptions: Vec<(Subscribable, QoS)>,
) -> Vec<Subscribable> {
    let mut denied = Vec::new();
    for (filter, qos) in subscriptions {
        let action = Action::Subscribe { filter: filter.clone(), qos };
        if let Verdict::Denied(_) = authorize(chains, identity, action).await {
            denied.push(filter);
        }
    }
    denied
}

/// What the hooks at `point` make of one filter of a SUBSCRIBE or UNSUBSCRIBE: each sees what the one before
/// has made of it.
///
/// # Errors
/// The refusal.
pub(crate) async fn rewrite_filter(
    chains: &Chains,
    point: HookPoint,
    identity: &Arc<Identity>,
    mut filter: Subscribable,
    qos: Option<QoS>,
) -> Result<Subscribable, Denial> {
    for link in chains.at(point) {
        let request = Arc::new(FilterRequest { identity: Arc::clone(identity), filter: filter.clone(), qos });
        let reply = if point == HookPoint::OnUnsubscribe {
            link.hook.on_unsubscribe(&request)
        } else {
            link.hook.on_subscribe(&request)
        };
        match reply.get().await {
            Ok(FilterVerdict::Pass) => {}
            Ok(FilterVerdict::Rewrite(other)) => filter = other,
            Ok(FilterVerdict::Deny(denial)) => {
                if let Some(held_back) = chains.log.pass() {
                    info!(
                        plugin = link.hook.name(),
                        client = &*identity.client_id,
                        %filter,
                        code = %denial.code,
                        reason = denial.reason,
                        held_back,
                        "{point} refused"
                    );
                }
                return Err(denial);
            }
            Err(failure) => match failed(&chains.log, link, point, &identity.client_id, &failure) {
                Policy::Skip | Policy::Allow => {}
                Policy::Deny => return Err(in_its_place(link)),
            },
        }
    }
    Ok(filter)
}

/// Logs that a hook failed, at a bounded rate, and says what is done in its place.
pub(crate) fn failed(
    log: &LogGate,
    link: &Link,
    point: HookPoint,
    client_id: &str,
    failure: &Failure,
) -> Policy {
    let policy = link.policy(point);
    if let Some(held_back) = log.pass() {
        warn!(plugin = link.hook.name(), hook = %point, client = client_id, %failure, ?policy, held_back, "hook failed");
    }
    policy
}

/// The denial for a hook that failed and whose policy is deny.
fn in_its_place(link: &Link) -> Denial {
    Denial::new(ReasonCode::NotAuthorized, format!("{} failed, and its policy is deny", link.hook.name()))
}

/// Logs that an action was denied, at a bounded rate.
pub(crate) fn log_denied(log: &LogGate, by: &str, identity: &Identity, action: &Action, denial: &Denial) {
    let Some(held_back) = log.pass() else { return };
    let (doing, what) = match action {
        Action::Publish { topic, .. } => ("publish", topic.to_string()),
        Action::Subscribe { filter, .. } => ("subscribe", filter.to_string()),
    };
    info!(
        plugin = by,
        client = &*identity.client_id,
        principal = &*identity.lease.principal,
        action = doing,
        topic = what,
        code = %denial.code,
        reason = denial.reason,
        held_back,
        "denied"
    );
}
