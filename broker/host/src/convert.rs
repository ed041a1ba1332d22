//! Between the broker's words and the interface's. What a plugin answers is checked here: an answer that gets
//! through is one that the broker can act on.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use weirmq_core::hook::{
    Action, Authentication, AuthorizeRequest, Decision, Delivery, Denial, Draft, EventKind, EventKinds,
    Failure, FailureKind, FilterVerdict, Identity, Lease, Persisted, PublishRight, Quotas, ReasonCode,
    Rights, SubscribeRight, Transformed, Version,
};
use weirmq_core::message::{Message, Properties, Publisher, QoS};
use weirmq_core::time::Now;
use weirmq_core::topic::{Subscribable, TopicFilter, TopicName};

use crate::bindings::exports::weirmq::plugin as hooks;
use crate::bindings::weirmq::plugin::types;
use crate::peer::PeerText;

/// The longest text or binary field that an MQTT packet can carry.
const FIELD_BYTES_MAX: usize = 65_535;

type Checked<T> = Result<T, Failure>;

/// Pairs as they are passed; empty without an allocation.
pub(crate) fn pairs(pairs: &[(Box<str>, Box<str>)]) -> Vec<types::PairParam<'_>> {
    pairs.iter().map(|(name, value)| types::PairParam { name, value }).collect()
}

pub(crate) fn version(version: Version) -> types::Version {
    match version {
        Version::V311 => types::Version::V311,
        Version::V5 => types::Version::V50,
    }
}

pub(crate) fn qos(qos: QoS) -> types::Qos {
    match qos {
        QoS::AtMostOnce => types::Qos::AtMostOnce,
        QoS::AtLeastOnce => types::Qos::AtLeastOnce,
        QoS::ExactlyOnce => types::Qos::ExactlyOnce,
    }
}

/// `identity` as it is passed; `peer` and `attributes` are its parts that need a form of their own.
pub(crate) fn identity<'a>(
    identity: &'a Identity,
    peer: Option<&'a PeerText>,
    attributes: &'a [types::PairParam<'a>],
) -> types::Identity<'a> {
    types::Identity {
        client_id: &identity.client_id,
        username: identity.username.as_deref(),
        peer: peer.map(PeerText::as_str),
        listener: &identity.listener,
        principal: &identity.lease.principal,
        attributes,
    }
}

/// Has `ask` ask what `request` asks.
pub(crate) fn authorization<T>(
    request: &AuthorizeRequest,
    ask: impl FnOnce(types::Identity<'_>, hooks::authorize::Action<'_>) -> T,
) -> T {
    use hooks::authorize::{Action as Asked, PublishAction, SubscribeAction};
    let identity = &request.identity;
    let peer = identity.peer.map(PeerText::of);
    let attributes = pairs(&identity.lease.attributes);
    let what = match &request.action {
        Action::Publish { topic, qos: asked, retain } => {
            Asked::Publish(PublishAction { topic, qos: qos(*asked), retain: *retain })
        }
        Action::Subscribe { filter, qos: asked } => Asked::Subscribe(SubscribeAction {
            filter: &filter.filter,
            share: filter.share.as_deref(),
            qos: qos(*asked),
        }),
    };
    ask(self::identity(identity, peer.as_ref(), &attributes), what)
}

/// `message` as it is passed; `user` are its User Properties. Without `now` nothing is said of its expiry.
pub(crate) fn message<'a>(
    message: &'a Message,
    now: Option<Now>,
    user: &'a [types::PairParam<'a>],
) -> types::Message<'a> {
    let properties = &message.properties;
    types::Message {
        topic: &message.topic,
        payload: &message.payload,
        qos: qos(message.qos),
        retain: message.retain,
        properties: types::PropertiesParam {
            payload_is_utf8: properties.payload_is_utf8,
            content_type: properties.content_type.as_deref(),
            response_topic: properties.response_topic.as_deref(),
            correlation_data: properties.correlation_data.as_deref(),
            user,
        },
        publisher: match &message.publisher {
            Publisher::Client { client_id, principal } => {
                types::Publisher::Client(types::ClientPublisher { client_id, principal })
            }
            Publisher::Rule(name) => types::Publisher::Rule(name),
            Publisher::Plugin(name) => types::Publisher::Plugin(name),
            Publisher::Broker => types::Publisher::Broker,
        },
        received_unix_ms: message.received_unix_ms,
        expires_in_ms: now.and_then(|now| expires_in_ms(message, now)),
        hops: message.hops,
    }
}

/// How long `message` stays deliverable; `None` is for ever.
pub(crate) fn expires_in_ms(message: &Message, now: Now) -> Option<u64> {
    message.expires_at.map(|at| millis(at.since(now.at)))
}

/// The answer of `authenticate`, checked. `in_exchange` says whether the client asked for enhanced authentication.
pub(crate) fn authentication(
    answer: hooks::authenticate::Answer,
    in_exchange: bool,
) -> Checked<Authentication> {
    use hooks::authenticate::Answer;
    Ok(match answer {
        Answer::Allow(welcome) => {
            Authentication::Allow { lease: lease(welcome.lease)?, data: auth_data(welcome.data)? }
        }
        Answer::Deny(refusal) => Authentication::Deny(denial(refusal)?),
        Answer::Continue(data) if in_exchange => Authentication::Continue { data: auth_data(data)? },
        Answer::Continue(_) => return Err(bad("it continues an exchange that the client did not open")),
        Answer::Next => Authentication::Next,
    })
}

/// The answer of `authorize`, checked.
pub(crate) fn decision(answer: hooks::authorize::Decision) -> Checked<Decision> {
    use hooks::authorize::Decision as Answer;
    Ok(match answer {
        Answer::Allow => Decision::Allow,
        Answer::Deny(refusal) => Decision::Deny(denial(refusal)?),
        Answer::Next => Decision::Next,
    })
}

/// The answer of `on-publish`, checked.
pub(crate) fn transformed(answer: hooks::on_publish::Verdict) -> Checked<Transformed> {
    use hooks::on_publish::Verdict;
    Ok(match answer {
        Verdict::Pass => Transformed::Pass,
        Verdict::Replace(replacement) => Transformed::Replace(Box::new(draft(replacement)?)),
        Verdict::Drop(refusal) => Transformed::Drop(denial(refusal)?),
        Verdict::Several(drafts) => {
            Transformed::Several(drafts.into_iter().map(draft).collect::<Result<_, _>>()?)
        }
    })
}

/// The answer of `on-deliver`, checked. What stays as it is comes from `message`.
pub(crate) fn delivery(answer: hooks::on_deliver::Verdict, message: &Message) -> Checked<Delivery> {
    use hooks::on_deliver::Verdict;
    Ok(match answer {
        Verdict::Pass => Delivery::Pass,
        Verdict::Replace(content) => {
            let properties = properties(content.properties)?;
            check_payload(&content.payload, &properties)?;
            Delivery::Replace(Draft {
                payload: Bytes::from(content.payload),
                properties,
                ..Draft::of(message)
            })
        }
        Verdict::Drop(reason) => Delivery::Drop(reason),
    })
}

/// The answer of `before-store`.
pub(crate) fn persisted(answer: hooks::persistence::Stored) -> Persisted {
    use hooks::persistence::Stored;
    match answer {
        Stored::Keep => Persisted::Keep,
        Stored::Replace(payload) => Persisted::Replace(Bytes::from(payload)),
        Stored::Skip => Persisted::Skip,
    }
}

/// The answer of `after-load`; an error in it is the plugin's own.
pub(crate) fn loaded(answer: Result<Vec<u8>, String>) -> Checked<Bytes> {
    answer.map(Bytes::from).map_err(|reason| Failure::new(FailureKind::Unavailable, reason))
}

/// The kinds of events that a plugin asks for.
pub(crate) fn event_kinds(kinds: &[hooks::lifecycle::EventKind]) -> EventKinds {
    use hooks::lifecycle::EventKind as Asked;
    kinds
        .iter()
        .map(|kind| match kind {
            Asked::Connected => EventKind::Connected,
            Asked::Disconnected => EventKind::Disconnected,
            Asked::SessionEnded => EventKind::SessionEnded,
            Asked::MessageDropped => EventKind::MessageDropped,
            Asked::MessageDelivered => EventKind::MessageDelivered,
            Asked::MessageAcked => EventKind::MessageAcked,
        })
        .collect()
}

/// The answer of `on-subscribe` or `on-unsubscribe`, checked.
pub(crate) fn filter_verdict(answer: types::FilterVerdict) -> Checked<FilterVerdict> {
    Ok(match answer {
        types::FilterVerdict::Pass => FilterVerdict::Pass,
        types::FilterVerdict::Rewrite(filter) => match Subscribable::parse(&filter) {
            Ok(filter) => FilterVerdict::Rewrite(filter),
            Err(error) => return Err(bad(format!("it rewrites the filter to {}: {error}", shown(&filter)))),
        },
        types::FilterVerdict::Deny(refusal) => FilterVerdict::Deny(denial(refusal)?),
    })
}

fn lease(lease: types::Lease) -> Checked<Lease> {
    if lease.principal.is_empty() || lease.principal.contains('\0') {
        return Err(bad("its lease names no principal"));
    }
    Ok(Lease {
        principal: lease.principal.into(),
        attributes: checked_pairs("attribute", lease.attributes)?,
        expires_in: lease.expires_in_seconds.map(|seconds| Duration::from_secs(seconds.into())),
        rights: lease.rights.map(rights).transpose()?.map(Arc::new),
        quotas: lease.quotas.map(quotas).transpose()?.unwrap_or_default(),
    })
}

fn quotas(quotas: types::Quotas) -> Checked<Quotas> {
    let rate = |rate| NonZeroU32::new(rate).ok_or_else(|| bad("its lease has a publish-rate-max of 0"));
    Ok(Quotas {
        publish_rate_max: quotas.publish_rate_max.map(rate).transpose()?,
        subscriptions_max: quotas.subscriptions_max.map(|max| usize::try_from(max).unwrap_or(usize::MAX)),
    })
}

fn rights(rights: types::Rights) -> Checked<Rights> {
    let publish = rights.publish.into_iter().map(|right| {
        let filter = filter(&right.filter)?;
        Ok(PublishRight { filter, qos_max: broker_qos(right.qos_max), retain: right.retain })
    });
    let subscribe = rights.subscribe.into_iter().map(|right| {
        Ok(SubscribeRight { filter: filter(&right.filter)?, qos_max: broker_qos(right.qos_max) })
    });
    Ok(Rights { publish: publish.collect::<Checked<_>>()?, subscribe: subscribe.collect::<Checked<_>>()? })
}

fn filter(text: &str) -> Checked<TopicFilter> {
    TopicFilter::new(text).map_err(|error| bad(format!("its lease has the filter {}: {error}", shown(text))))
}

pub(crate) fn denial(denial: types::Denial) -> Checked<Denial> {
    match ReasonCode::from_u8(denial.reason_code).filter(|code| code.is_error()) {
        Some(code) => Ok(Denial { code, reason: denial.reason }),
        None => Err(bad(format!(
            "it refuses with 0x{:02x}, which is no reason code of a refusal",
            denial.reason_code
        ))),
    }
}

pub(crate) fn draft(draft: types::Draft) -> Checked<Draft> {
    if let Err(error) = TopicName::new(&draft.topic) {
        return Err(bad(format!("it publishes to {}: {error}", shown(&draft.topic))));
    }
    let properties = properties(draft.properties)?;
    check_payload(&draft.payload, &properties)?;
    Ok(Draft {
        topic: draft.topic,
        payload: Bytes::from(draft.payload),
        qos: broker_qos(draft.qos),
        retain: draft.retain,
        properties,
        expires_in: draft.expires_in_ms.map(Duration::from_millis),
    })
}

fn check_payload(payload: &[u8], properties: &Properties) -> Checked<()> {
    if properties.payload_is_utf8 == Some(true) && std::str::from_utf8(payload).is_err() {
        return Err(bad("its payload says that it is UTF-8 text, and is not"));
    }
    Ok(())
}

fn properties(properties: types::PropertiesResult) -> Checked<Properties> {
    if let Some(topic) = &properties.response_topic
        && let Err(error) = TopicName::new(topic)
    {
        return Err(bad(format!("its Response Topic is {}: {error}", shown(topic))));
    }
    if let Some(content_type) = &properties.content_type {
        check_text("Content Type", content_type)?;
    }
    if properties.correlation_data.as_ref().is_some_and(|data| data.len() > FIELD_BYTES_MAX) {
        return Err(bad("its Correlation Data has more than 65,535 bytes"));
    }
    Ok(Properties {
        payload_is_utf8: properties.payload_is_utf8,
        content_type: properties.content_type.map(Into::into),
        response_topic: properties.response_topic.map(Into::into),
        correlation_data: properties.correlation_data.map(Bytes::from),
        user: checked_pairs("User Property", properties.user)?,
    })
}

fn checked_pairs(what: &str, pairs: Vec<types::PairResult>) -> Checked<Vec<(Box<str>, Box<str>)>> {
    pairs
        .into_iter()
        .map(|pair| {
            check_text(what, &pair.name)?;
            check_text(what, &pair.value)?;
            Ok((pair.name.into(), pair.value.into()))
        })
        .collect()
}

fn check_text(what: &str, text: &str) -> Checked<()> {
    if text.len() > FIELD_BYTES_MAX || text.contains('\0') {
        return Err(bad(format!("its {what} {} has more than 65,535 bytes, or U+0000 in it", shown(text))));
    }
    Ok(())
}

fn auth_data(data: Option<Vec<u8>>) -> Checked<Option<Bytes>> {
    if data.as_ref().is_some_and(|data| data.len() > FIELD_BYTES_MAX) {
        return Err(bad("its Authentication Data has more than 65,535 bytes"));
    }
    Ok(data.map(Bytes::from))
}

fn broker_qos(qos: types::Qos) -> QoS {
    match qos {
        types::Qos::AtMostOnce => QoS::AtMostOnce,
        types::Qos::AtLeastOnce => QoS::AtLeastOnce,
        types::Qos::ExactlyOnce => QoS::ExactlyOnce,
    }
}

fn bad(detail: impl Into<String>) -> Failure {
    Failure::new(FailureKind::BadAnswer, detail)
}

/// A plugin's text, quoted and short enough for a log line.
fn shown(text: &str) -> String {
    let start: String = text.chars().take(60).collect();
    if start.len() < text.len() { format!("{start:?}...") } else { format!("{start:?}") }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
