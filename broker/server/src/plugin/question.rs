//! What hooks are asked by hand: JSON in, JSON out.

use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use weirmq_core::hook::{
    Action, AuthExchange, AuthenticateRequest, Authentication, AuthorizeRequest, Decision, Delivery, Denial,
    Draft, Event, Failure, FailureKind, FilterRequest, FilterVerdict, Hook, HookPoint, Identity, Lease,
    Persisted, Rights, Transformed, Version,
};
use weirmq_core::message::{Message, Properties, Publisher, QoS};
use weirmq_core::time::{Instant, Now};
use weirmq_core::topic::{Subscribable, TopicName};
use weirmq_host::{HOOKS, PluginHook};

/// The longest question that is read, in bytes.
pub(super) const QUESTION_BYTES_MAX: u64 = 16 << 20;

/// Why a question is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QuestionError {
    #[error("there is no hook '{name}'; there are: {}", names())]
    UnknownHook { name: String },
    #[error("the JSON for {hook} is not right: {error}; it looks like this: {}", example(*hook))]
    Json { hook: HookPoint, error: serde_json::Error },
    #[error("the JSON for {hook} is not right: {what}; it looks like this: {}", example(*hook))]
    Value { hook: HookPoint, what: String },
    #[error("the JSON has more than {QUESTION_BYTES_MAX} bytes")]
    TooLarge,
    #[error("the plugin does not serve {hook}; it serves: {served}")]
    NotServed { hook: HookPoint, served: String },
    #[error("the plugin does not want to see the topic '{topic}'; it wants: {wanted}")]
    NotWanted { topic: String, wanted: String },
}

impl QuestionError {
    /// That `plugin` does not serve `hook`.
    pub(super) fn not_served(plugin: &PluginHook, hook: HookPoint) -> Self {
        let served: Vec<&str> = plugin.points().iter().map(HookPoint::name).collect();
        Self::NotServed { hook, served: served.join(", ") }
    }
}

/// An example of what a hook is asked.
pub(super) const fn example(hook: HookPoint) -> &'static str {
    match hook {
        HookPoint::Authenticate => r#"{"client_id": "c1", "username": "ann", "password": "sesame"}"#,
        HookPoint::Authorize => {
            r#"{"client": {"id": "c1", "principal": "ann"}, "publish": {"topic": "a/b", "qos": 1}}"#
        }
        HookPoint::OnDeliver => {
            r#"{"message": {"topic": "a/b", "payload": "21.5"}, "receiver": {"id": "c2"}}"#
        }
        HookPoint::OnSubscribe => r#"{"client": {"id": "c1"}, "filter": "a/+", "qos": 1}"#,
        HookPoint::OnUnsubscribe => r#"{"client": {"id": "c1"}, "filter": "a/+"}"#,
        HookPoint::Lifecycle => r#"{"event": "disconnected", "client": {"id": "c1"}, "reason": "bye"}"#,
        HookPoint::Timer => "{}",
        HookPoint::OnPublish | HookPoint::OnMessage | HookPoint::Persistence => {
            r#"{"topic": "a/b", "payload": "21.5", "qos": 1, "retain": false}"#
        }
    }
}

fn names() -> String {
    HOOKS.map(HookPoint::name).join(", ")
}

/// The hook that is called `name`.
pub(super) fn hook_named(name: &str) -> Result<HookPoint, QuestionError> {
    let found = HOOKS.into_iter().find(|hook| hook.name() == name);
    found.ok_or_else(|| QuestionError::UnknownHook { name: name.to_owned() })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LoginJson {
    client_id: String,
    username: Option<String>,
    password: Option<String>,
    #[serde(default = "five")]
    version: u8,
    #[serde(default = "yes")]
    clean_start: bool,
    peer: Option<std::net::SocketAddr>,
    #[serde(default = "main_listener")]
    listener: String,
    exchange: Option<ExchangeJson>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExchangeJson {
    method: String,
    data: Option<String>,
    #[serde(default)]
    step: u32,
    #[serde(default)]
    renewal: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClientJson {
    id: String,
    username: Option<String>,
    principal: Option<String>,
    peer: Option<std::net::SocketAddr>,
    #[serde(default = "main_listener")]
    listener: String,
    #[serde(default)]
    attributes: std::collections::BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AuthorizeJson {
    client: ClientJson,
    publish: Option<PublishJson>,
    subscribe: Option<SubscribeJson>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PublishJson {
    topic: String,
    #[serde(default)]
    qos: u8,
    #[serde(default)]
    retain: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SubscribeJson {
    filter: String,
    #[serde(default)]
    qos: u8,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FilterJson {
    client: ClientJson,
    filter: String,
    qos: Option<u8>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MessageJson {
    topic: String,
    #[serde(default)]
    payload: PayloadJson,
    #[serde(default)]
    qos: u8,
    #[serde(default)]
    retain: bool,
    content_type: Option<String>,
    received_unix_ms: Option<u64>,
    #[serde(default)]
    user_properties: Vec<(String, String)>,
    publisher: Option<ClientJson>,
}

/// Text, or bytes as numbers: as [`payload`] writes them.
#[derive(Deserialize)]
#[serde(untagged, expecting = "`payload` must be text, or { \"bytes\": [numbers from 0 to 255] }")]
enum PayloadJson {
    Text(String),
    Bytes { bytes: Vec<u8> },
}

impl Default for PayloadJson {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

impl From<PayloadJson> for Bytes {
    fn from(payload: PayloadJson) -> Self {
        match payload {
            PayloadJson::Text(text) => text.into(),
            PayloadJson::Bytes { bytes } => bytes.into(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeliverJson {
    message: MessageJson,
    receiver: ClientJson,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventJson {
    event: EventName,
    client: ClientJson,
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum EventName {
    Connected,
    Disconnected,
    SessionEnded,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

const fn five() -> u8 {
    5
}

const fn yes() -> bool {
    true
}

fn main_listener() -> String {
    "main".to_owned()
}

/// What one hook is asked.
pub(super) enum Question {
    Authenticate(Arc<AuthenticateRequest>),
    Authorize(Arc<AuthorizeRequest>),
    OnPublish(Arc<Message>),
    OnDeliver(Arc<Message>, Arc<Identity>),
    OnSubscribe(Arc<FilterRequest>),
    OnUnsubscribe(Arc<FilterRequest>),
    Persistence(Arc<Message>),
    Lifecycle(Event),
    Timer,
}

impl Question {
    /// What `json` asks `hook`.
    pub(super) fn parse(hook: HookPoint, json: &str) -> Result<Self, QuestionError> {
        let value = |what: String| QuestionError::Value { hook, what };
        Ok(match hook {
            HookPoint::Authenticate => Self::Authenticate(login(read(hook, json)?).map_err(value)?),
            HookPoint::Authorize => {
                let AuthorizeJson { client, publish, subscribe } = read(hook, json)?;
                let action = action(publish, subscribe).map_err(value)?;
                Self::Authorize(Arc::new(AuthorizeRequest { identity: identity(client), action }))
            }
            HookPoint::OnDeliver => {
                let DeliverJson { message: what, receiver } = read(hook, json)?;
                Self::OnDeliver(message(what).map_err(value)?, identity(receiver))
            }
            HookPoint::OnSubscribe => {
                let asked: FilterJson = read(hook, json)?;
                Self::OnSubscribe(filter(asked, Some(0)).map_err(value)?)
            }
            HookPoint::OnUnsubscribe => {
                let asked: FilterJson = read(hook, json)?;
                Self::OnUnsubscribe(filter(asked, None).map_err(value)?)
            }
            HookPoint::Persistence => Self::Persistence(message(read(hook, json)?).map_err(value)?),
            HookPoint::OnPublish | HookPoint::OnMessage => {
                Self::OnPublish(message(read(hook, json)?).map_err(value)?)
            }
            HookPoint::Lifecycle => Self::Lifecycle(event(read(hook, json)?)),
            HookPoint::Timer => {
                let Nothing {} = read(hook, json)?;
                Self::Timer
            }
        })
    }

    /// Makes the call, and answers what the plugin answers.
    pub(super) async fn ask(&self, plugin: &Arc<PluginHook>) -> Result<Value, super::PluginCommandError> {
        let now = now();
        Ok(match self {
            Self::Authenticate(request) => authentication(plugin.authenticate(request).get().await?),
            Self::Authorize(request) => decision(plugin.authorize(request).get().await?),
            Self::OnPublish(message) => {
                let info = plugin.info();
                let bound = Arc::clone(plugin).on_publish(&message.topic);
                let bound = bound.ok_or_else(|| not_wanted(&message.topic, &info.topics))?;
                transformed(bound.transform(message, now).get().await?.spelt_out(message, now))
            }
            Self::OnDeliver(message, receiver) => {
                let info = plugin.info();
                let bound = Arc::clone(plugin).on_deliver(&message.topic);
                let bound = bound.ok_or_else(|| not_wanted(&message.topic, &info.deliver_topics))?;
                delivery(bound.deliver(message, receiver, now)?)
            }
            Self::OnSubscribe(request) => verdict(plugin.on_subscribe(request).get().await?),
            Self::OnUnsubscribe(request) => verdict(plugin.on_unsubscribe(request).get().await?),
            Self::Persistence(message) => {
                let info = plugin.info();
                let bound = Arc::clone(plugin).persistence(&message.topic);
                let bound = bound.ok_or_else(|| not_wanted(&message.topic, &info.stored_topics))?;
                match bound.before_store(message)? {
                    Persisted::Keep => json!({ "stored": "keep" }),
                    Persisted::Skip => json!({ "stored": "skip" }),
                    Persisted::Replace(stored) => {
                        let read = Message { payload: stored.clone(), ..(**message).clone() };
                        json!({ "stored": payload(&stored), "loaded": payload(&bound.after_load(&read)?) })
                    }
                }
            }
            Self::Lifecycle(event) => {
                plugin.on_event(event, now);
                told(plugin, HookPoint::Lifecycle)?
            }
            Self::Timer => {
                plugin.on_timer(now);
                told(plugin, HookPoint::Timer)?
            }
        })
    }
}

fn read<T: DeserializeOwned>(hook: HookPoint, json: &str) -> Result<T, QuestionError> {
    serde_json::from_str(json).map_err(|error| QuestionError::Json { hook, error })
}

fn not_wanted(topic: &TopicName, wanted: &[String]) -> QuestionError {
    let wanted = if wanted.is_empty() { "none".to_owned() } else { wanted.join(", ") };
    QuestionError::NotWanted { topic: topic.to_string(), wanted }
}

/// An event is told by a thread of the host: waits until it was, or could not be.
fn told(plugin: &PluginHook, hook: HookPoint) -> Result<Value, Failure> {
    let patience = Duration::from_secs(600);
    let begun = Clock::now();
    while begun.elapsed() < patience {
        let stats = plugin.stats();
        if let Some((kind, _)) = stats.failures.first() {
            return Err(Failure::new(*kind, "the log says more"));
        }
        // A call is timed when it has ended.
        if stats.latency.iter().any(|(point, latency)| *point == hook && latency.timed > 0) {
            return Ok(json!({ "told": true }));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Err(Failure::new(FailureKind::Deadline, "it was not told in ten minutes"))
}

pub(super) fn now() -> Now {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Now { at: Instant::default(), unix_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX) }
}

fn qos(value: u8) -> Result<QoS, String> {
    match value {
        0 => Ok(QoS::AtMostOnce),
        1 => Ok(QoS::AtLeastOnce),
        2 => Ok(QoS::ExactlyOnce),
        other => Err(format!("`qos` is {other}; it may be 0, 1 or 2")),
    }
}

fn topic(text: &str) -> Result<TopicName, String> {
    TopicName::new(text).map_err(|error| format!("`topic` is {text:?}: {error}"))
}

fn subscribable(text: &str) -> Result<Subscribable, String> {
    Subscribable::parse(text).map_err(|error| format!("`filter` is {text:?}: {error}"))
}

fn login(from: LoginJson) -> Result<Arc<AuthenticateRequest>, String> {
    let version = match from.version {
        4 => Version::V311,
        5 => Version::V5,
        other => return Err(format!("`version` is {other}; it may be 4 (MQTT 3.1.1) or 5")),
    };
    Ok(Arc::new(AuthenticateRequest {
        client_id: from.client_id.into(),
        username: from.username.map(Into::into),
        password: from.password.map(Bytes::from),
        version,
        clean_start: from.clean_start,
        peer: from.peer,
        listener: from.listener.into(),
        user_properties: Vec::new(),
        exchange: from.exchange.map(|exchange| AuthExchange {
            id: 1,
            step: exchange.step,
            method: exchange.method.into(),
            data: exchange.data.map(Bytes::from),
            renewal: exchange.renewal,
        }),
    }))
}

fn identity(from: ClientJson) -> Arc<Identity> {
    let pair = |(name, value): (String, String)| (name.into(), value.into());
    let principal = from.principal.as_ref().or(from.username.as_ref()).unwrap_or(&from.id);
    let lease = Lease {
        principal: Arc::from(principal.as_str()),
        attributes: from.attributes.into_iter().map(pair).collect(),
        ..Lease::default()
    };
    Arc::new(Identity {
        client_id: from.id.into(),
        username: from.username.map(Into::into),
        peer: from.peer,
        listener: from.listener.into(),
        lease,
    })
}

fn action(publish: Option<PublishJson>, subscribe: Option<SubscribeJson>) -> Result<Action, String> {
    match (publish, subscribe) {
        (Some(asked), None) => {
            Ok(Action::Publish { topic: topic(&asked.topic)?, qos: qos(asked.qos)?, retain: asked.retain })
        }
        (None, Some(asked)) => {
            Ok(Action::Subscribe { filter: subscribable(&asked.filter)?, qos: qos(asked.qos)? })
        }
        _ => Err("one of `publish` and `subscribe` must be there".to_owned()),
    }
}

fn filter(from: FilterJson, default: Option<u8>) -> Result<Arc<FilterRequest>, String> {
    let qos = from.qos.or(default).map(qos).transpose()?;
    Ok(Arc::new(FilterRequest { identity: identity(from.client), filter: subscribable(&from.filter)?, qos }))
}

fn message(from: MessageJson) -> Result<Arc<Message>, String> {
    let publisher = from.publisher.map_or(Publisher::Broker, |client| {
        let who = identity(client);
        Publisher::Client { client_id: who.client_id.clone(), principal: who.lease.principal.clone() }
    });
    let pair = |(name, value): (String, String)| (name.into(), value.into());
    Ok(Arc::new(Message {
        topic: topic(&from.topic)?,
        payload: Bytes::from(from.payload),
        qos: qos(from.qos)?,
        retain: from.retain,
        properties: Properties {
            content_type: from.content_type.map(Into::into),
            user: from.user_properties.into_iter().map(pair).collect(),
            ..Properties::default()
        },
        publisher,
        received_unix_ms: from.received_unix_ms.unwrap_or_else(|| now().unix_ms),
        expires_at: None,
        hops: 0,
    }))
}

fn event(from: EventJson) -> Event {
    let identity = identity(from.client);
    match from.event {
        EventName::Connected => Event::Connected { identity, version: Version::V5 },
        EventName::Disconnected => Event::Disconnected { identity, reason: from.reason },
        EventName::SessionEnded => Event::SessionEnded { client_id: identity.client_id.clone() },
    }
}

/// Text where it is text, otherwise the bytes as numbers.
fn payload(bytes: &[u8]) -> Value {
    std::str::from_utf8(bytes).map_or_else(|_| json!({ "bytes": bytes }), |text| json!(text))
}

fn refusal(word: &str, denial: &Denial) -> Value {
    json!({ word: { "code": format!("0x{:02x}", denial.code as u8), "reason": denial.reason } })
}

fn authentication(answer: Authentication) -> Value {
    match answer {
        Authentication::Allow { lease, data } => {
            json!({ "allow": lease_in_json(&lease), "data": data.as_deref().map(payload) })
        }
        Authentication::Deny(denial) => refusal("deny", &denial),
        Authentication::Continue { data } => json!({ "continue": data.as_deref().map(payload) }),
        Authentication::Next => json!("next"),
    }
}

fn lease_in_json(lease: &Lease) -> Value {
    json!({
        "principal": &*lease.principal,
        "attributes": pairs(&lease.attributes),
        "expires_in_seconds": lease.expires_in.map(|span| span.as_secs()),
        "rights": lease.rights.as_deref().map(rights),
        "publish_rate_max": lease.quotas.publish_rate_max,
        "subscriptions_max": lease.quotas.subscriptions_max,
    })
}

fn rights(rights: &Rights) -> Value {
    let publish = rights.publish.iter().map(|right| {
        json!({ "filter": right.filter.to_string(), "qos_max": right.qos_max as u8, "retain": right.retain })
    });
    let subscribe = rights
        .subscribe
        .iter()
        .map(|right| json!({ "filter": right.filter.to_string(), "qos_max": right.qos_max as u8 }));
    json!({ "publish": publish.collect::<Vec<_>>(), "subscribe": subscribe.collect::<Vec<_>>() })
}

fn pairs(pairs: &[(Box<str>, Box<str>)]) -> Value {
    pairs.iter().map(|(name, value)| json!([&**name, &**value])).collect()
}

fn decision(answer: Decision) -> Value {
    match answer {
        Decision::Allow => json!("allow"),
        Decision::Deny(denial) => refusal("deny", &denial),
        Decision::Next => json!("next"),
    }
}

fn draft(draft: &Draft) -> Value {
    json!({
        "topic": draft.topic,
        "payload": payload(&draft.payload),
        "qos": draft.qos as u8,
        "retain": draft.retain,
        "content_type": draft.properties.content_type,
        "user_properties": pairs(&draft.properties.user),
        "expires_in_ms": draft.expires_in.map(|span| span.as_millis()),
    })
}

fn transformed(answer: Transformed) -> Value {
    match answer {
        Transformed::Pass => json!("pass"),
        Transformed::Replace(with) => json!({ "replace": draft(&with) }),
        Transformed::WithPayload(with) => json!({ "replace": { "payload": payload(&with) } }),
        Transformed::Drop(denial) => refusal("drop", &denial),
        Transformed::Several(drafts) => json!({ "several": drafts.iter().map(draft).collect::<Vec<_>>() }),
    }
}

fn delivery(answer: Delivery) -> Value {
    match answer {
        Delivery::Pass => json!("pass"),
        Delivery::Replace(with) => json!({ "replace": draft(&with) }),
        Delivery::Drop(reason) => json!({ "drop": reason }),
    }
}

fn verdict(answer: FilterVerdict) -> Value {
    match answer {
        FilterVerdict::Pass => json!("pass"),
        FilterVerdict::Rewrite(filter) => json!({ "rewrite": filter.to_string() }),
        FilterVerdict::Deny(denial) => refusal("deny", &denial),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_is_a_question() {
        for hook in HOOKS {
            if let Err(error) = Question::parse(hook, example(hook)) {
                panic!("{error}");
            }
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_an_example_beside() {
        for (hook, json, words) in [
            (HookPoint::Authenticate, "{", "EOF"),
            (HookPoint::Authenticate, "{}", "missing field `client_id`"),
            (HookPoint::Authenticate, r#"{"client_id": "c", "user": "x"}"#, "unknown field `user`"),
            (HookPoint::Authenticate, r#"{"client_id": "c", "version": 3}"#, "`version` is 3"),
            (HookPoint::OnPublish, r#"{"topic": "a/#"}"#, "`topic` is"),
            (HookPoint::OnPublish, r#"{"topic": "a", "qos": 3}"#, "`qos` is 3"),
            (
                HookPoint::OnPublish,
                r#"{"topic": "a", "payload": {"bytes": [256]}}"#,
                "`payload` must be text",
            ),
            (HookPoint::OnSubscribe, r#"{"client": {"id": "c"}, "filter": "a/#/b"}"#, "`filter` is"),
            (HookPoint::Authorize, r#"{"client": {"id": "c"}}"#, "one of `publish` and `subscribe`"),
            (HookPoint::Timer, r#"{"now": 1}"#, "unknown field `now`"),
        ] {
            let error = Question::parse(hook, json).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(words) && error.contains(example(hook)), "{words}: {error}");
        }
        assert!(hook_named("on-message").is_err_and(|error| error.to_string().contains("authenticate, ")));
    }
}
