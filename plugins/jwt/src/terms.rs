//! From claims to the terms of a login: who it is, until when, with which attributes and rights.

use serde_json::Value;
use weirmq_plugin::rights::Right;
use weirmq_plugin::topic::Template;
use weirmq_plugin::{AuthenticateRequest, Lease, PublishRight, Rights, SubscribeRight};

use crate::config::Config;
use crate::token::Claims;

/// The most filters that one right becomes when claims are lists.
const FILTERS_MAX: usize = 256;
/// The longest leeway that makes sense.
const LEEWAY_SECONDS_MAX: u32 = 600;
/// The names that templates may have.
const NAMES: [&str; 3] = ["client_id", "username", "claim:"];

/// What is asked of the claims, and what is made of them.
pub(crate) struct Terms {
    issuer: Option<String>,
    audience: Option<String>,
    leeway_seconds: u32,
    expiry_required: bool,
    principal: String,
    client_id: Option<Template>,
    attributes: Vec<(String, String)>,
    rights: Option<(Vec<Right>, Vec<Right>)>,
}

impl Terms {
    /// Checks what the configuration says of them.
    pub(crate) fn parse(config: Config) -> Result<Self, String> {
        if config.leeway_seconds > LEEWAY_SECONDS_MAX {
            return Err(format!(
                "leeway_seconds: at most {LEEWAY_SECONDS_MAX}, not {}",
                config.leeway_seconds
            ));
        }
        if config.principal.is_empty() {
            return Err("principal: it names a claim, such as sub".to_owned());
        }
        let client_id = config.client_id.as_deref().map(|text| Template::parse(text, &NAMES)).transpose();
        let client_id = client_id.map_err(|error| format!("client_id: {error}"))?;
        let rights = match (config.publish, config.subscribe) {
            (None, None) => None,
            (publish, subscribe) => Some((
                Right::publish("publish", publish.unwrap_or_default(), &NAMES)?,
                Right::subscribe("subscribe", subscribe.unwrap_or_default(), &NAMES)?,
            )),
        };
        Ok(Self {
            issuer: config.issuer,
            audience: config.audience,
            leeway_seconds: config.leeway_seconds,
            expiry_required: config.expiry_required,
            principal: config.principal,
            client_id,
            attributes: config.attributes.into_iter().collect(),
            rights,
        })
    }

    /// The lease for a client that shows these claims at `now`, in seconds since 1970.
    pub(crate) fn lease(
        &self,
        claims: &Claims,
        request: &AuthenticateRequest,
        now: u64,
    ) -> Result<Lease, String> {
        self.check_issuer_and_audience(claims)?;
        let expires_in_seconds = self.expiry(claims, now)?;
        let principal = claims
            .get(&self.principal)
            .and_then(text)
            .filter(|name| !name.is_empty())
            .ok_or_else(|| format!("it has no claim '{}' that could be the principal", self.principal))?;
        let values = |name: &str| values(name, claims, request);
        if let Some(template) = &self.client_id {
            let wanted = template.fill_each(values, FILTERS_MAX)?;
            if !wanted.contains(&request.client_id) {
                return Err(format!("it is not for a client called '{}'", request.client_id));
            }
        }
        let mut lease = Lease::new(principal);
        lease.expires_in_seconds = expires_in_seconds;
        for (name, claim) in &self.attributes {
            if let Some(value) = claims.get(claim).and_then(text_of_any) {
                lease = lease.with_attribute(name, value);
            }
        }
        if let Some((publish, subscribe)) = &self.rights {
            lease = lease.with_rights(rights(publish, subscribe, values)?);
        }
        Ok(lease)
    }

    fn check_issuer_and_audience(&self, claims: &Claims) -> Result<(), String> {
        if let Some(issuer) = &self.issuer
            && claims.get("iss").and_then(text) != Some(issuer)
        {
            return Err(format!("it was not issued by '{issuer}'"));
        }
        if let Some(audience) = &self.audience {
            let named = match claims.get("aud") {
                Some(Value::Array(all)) => all.iter().any(|one| text(one) == Some(audience)),
                one => one.and_then(text) == Some(audience),
            };
            if !named {
                return Err(format!("it is not meant for '{audience}'"));
            }
        }
        Ok(())
    }

    /// How long the token is good for yet.
    fn expiry(&self, claims: &Claims, now: u64) -> Result<Option<u32>, String> {
        let leeway = u64::from(self.leeway_seconds);
        if let Some(begins) = moment(claims, "nbf")?
            && begins > now.saturating_add(leeway)
        {
            return Err(format!("it is good only in {} s", begins - now));
        }
        match moment(claims, "exp")? {
            Some(ends) if ends.saturating_add(leeway) <= now => Err(format!("it ended {} s ago", now - ends)),
            Some(ends) => {
                let left = ends.saturating_add(leeway) - now;
                Ok(Some(u32::try_from(left).unwrap_or(u32::MAX)))
            }
            None if self.expiry_required => {
                Err("it has no end (exp), and expiry_required is true".to_owned())
            }
            None => Ok(None),
        }
    }
}

fn rights<'a>(
    publish: &[Right],
    subscribe: &[Right],
    values: impl Fn(&str) -> Vec<&'a str>,
) -> Result<Rights, String> {
    let mut rights = Rights::none();
    for right in publish {
        let (qos_max, retain) = (right.qos_max, right.retain);
        for filter in right.template.fill_each(&values, FILTERS_MAX)? {
            rights.publish.push(PublishRight { filter, qos_max, retain });
        }
    }
    for right in subscribe {
        for filter in right.template.fill_each(&values, FILTERS_MAX)? {
            rights.subscribe.push(SubscribeRight { filter, qos_max: right.qos_max });
        }
    }
    Ok(rights)
}

/// What stands for a name of a template. A claim that is a list stands for each of its texts.
fn values<'a>(name: &str, claims: &'a Claims, request: &'a AuthenticateRequest) -> Vec<&'a str> {
    match name {
        "client_id" => vec![&request.client_id],
        "username" => request.username.as_deref().into_iter().collect(),
        _ => match name.strip_prefix("claim:").and_then(|claim| claims.get(claim)) {
            Some(Value::Array(all)) => all.iter().filter_map(text).collect(),
            one => one.and_then(text).into_iter().collect(),
        },
    }
}

fn text(value: &Value) -> Option<&str> {
    value.as_str()
}

/// A text as it is, a number or a truth value as JSON writes it.
fn text_of_any(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The claim `name` as seconds since 1970; fractions are left out.
fn moment(claims: &Claims, name: &str) -> Result<Option<u64>, String> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value.as_u64().or_else(|| value.as_f64().filter(|n| *n >= 0.0).map(|n| n as u64));
    seconds.map(Some).ok_or_else(|| format!("its claim '{name}' is not a time: {value}"))
}
