//! What is asked of the service, and what it answers.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use weirmq_plugin::host::{self, HttpError, Request, Response};
use weirmq_plugin::{AuthenticateRequest, Lease, Pair, PublishRight, Qos, Rights, SubscribeRight, Version};

/// How much of a text of the service goes to the log.
const REASON_BYTES_MAX: usize = 200;

/// What the service says of a client.
#[derive(Debug, Clone)]
pub(crate) enum Said {
    /// Let it in.
    Allow(Lease),
    /// Refuse it; why, for the log.
    Deny(String),
    /// Not one of mine.
    Next,
}

/// The body of an answer with status 200.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    result: Outcome,
    principal: Option<String>,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
    expires_in_seconds: Option<u32>,
    publish: Option<Vec<Right>>,
    subscribe: Option<Vec<Right>>,
    reason: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Allow,
    Deny,
    Next,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a filter, or an object with filter, qos_max and retain")]
enum Right {
    Filter(String),
    Limited(LimitedRight),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitedRight {
    filter: String,
    qos_max: Option<u8>,
    retain: Option<bool>,
}

/// Asks the service; the error says why there is no answer.
pub(crate) fn ask(
    url: &str,
    headers: &[Pair],
    timeout_ms: u32,
    client: &AuthenticateRequest,
) -> Result<Said, String> {
    let request = Request {
        method: "POST".to_owned(),
        url: url.to_owned(),
        headers: headers.to_vec(),
        body: question(client).to_string().into_bytes(),
        timeout_ms: Some(timeout_ms),
    };
    match host::send(&request) {
        Ok(response) => answer(&response, client),
        Err(HttpError::Timeout) => Err(format!("it took more than {timeout_ms} ms")),
        Err(HttpError::NotGranted(what)) => Err(format!("the broker does not let this plugin there: {what}")),
        Err(HttpError::Unreachable(why) | HttpError::Invalid(why)) => Err(why),
        Err(HttpError::TooLarge) => Err("its answer is too large".to_owned()),
        Err(HttpError::NotHere) => Err("requests are not allowed here".to_owned()),
    }
}

/// What a client shows, as JSON. A password that is no text goes in Base64.
fn question(client: &AuthenticateRequest) -> Value {
    let password = client.password.as_deref().map(std::str::from_utf8);
    let mut question = json!({
        "client_id": client.client_id,
        "username": client.username,
        "password": password.and_then(Result::ok),
        "protocol": match client.version { Version::V311 => "3.1.1", Version::V50 => "5.0" },
        "peer": client.peer,
        "listener": client.listener,
        "user_properties": client.user_properties.iter().map(|pair| [&pair.name, &pair.value]).collect::<Vec<_>>(),
    });
    if let (Some(Err(_)), Some(bytes), Some(object)) = (password, &client.password, question.as_object_mut())
    {
        object.insert("password_base64".to_owned(), STANDARD.encode(bytes).into());
    }
    question
}

fn answer(response: &Response, client: &AuthenticateRequest) -> Result<Said, String> {
    match response.status {
        200 => {
            let body = serde_json::from_slice(&response.body)
                .map_err(|error| format!("it answered what is no answer: {error}"))?;
            said(body, client).map_err(|error| format!("it answered what is no answer: {error}"))
        }
        204 => Ok(Said::Next),
        401 | 403 => {
            let text = String::from_utf8_lossy(&response.body);
            let why =
                text.chars().filter(|letter| !letter.is_control()).take(REASON_BYTES_MAX).collect::<String>();
            Ok(Said::Deny(format!("the service says {}: {why}", response.status)))
        }
        other => Err(format!("it answered with status {other}")),
    }
}

fn said(body: Body, client: &AuthenticateRequest) -> Result<Said, String> {
    match body.result {
        Outcome::Next => return Ok(Said::Next),
        Outcome::Deny => {
            return Ok(Said::Deny(body.reason.unwrap_or_else(|| "the service denies it".to_owned())));
        }
        Outcome::Allow => {}
    }
    let principal = body.principal.or_else(|| client.username.clone()).filter(|name| !name.is_empty());
    let mut lease = Lease::new(principal.ok_or("it allows a client without a principal and a user name")?);
    for (name, value) in body.attributes {
        lease = lease.with_attribute(name, value);
    }
    lease.expires_in_seconds = body.expires_in_seconds;
    if body.publish.is_some() || body.subscribe.is_some() {
        let mut rights = Rights::none();
        for right in body.publish.unwrap_or_default() {
            let (filter, qos_max, retain) = right.parts()?;
            rights.publish.push(PublishRight { filter, qos_max, retain });
        }
        for right in body.subscribe.unwrap_or_default() {
            let (filter, qos_max, _) = right.parts()?;
            rights.subscribe.push(SubscribeRight { filter, qos_max });
        }
        lease = lease.with_rights(rights);
    }
    Ok(Said::Allow(lease))
}

impl Right {
    fn parts(self) -> Result<(String, Qos, bool), String> {
        let (filter, qos_max, retain) = match self {
            Self::Filter(filter) => (filter, None, None),
            Self::Limited(right) => (right.filter, right.qos_max, right.retain),
        };
        weirmq_plugin::topic::check_filter(&filter)
            .map_err(|error| format!("'{filter}' is not a topic filter: {error}"))?;
        let qos_max = weirmq_plugin::rights::qos_max(qos_max.unwrap_or(2))?;
        Ok((filter, qos_max, retain.unwrap_or(true)))
    }
}
