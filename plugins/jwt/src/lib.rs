//! Decides logins by JSON Web Token: claims become principal, attributes and rights.
//!
//! # Layout
//! - this file: the decision
//! - [`config`]: the configuration as it is written
//! - [`token`]: taking a token apart and checking its signature
//! - [`terms`]: from claims to a lease

#![forbid(unsafe_code)]

mod config;
mod terms;
mod token;

use weirmq_plugin::{
    Answer, Authenticate, AuthenticateRequest, BAD_USER_NAME_OR_PASSWORD, Plugin, export, host,
};

use config::{Config, Place};
use terms::Terms;
use token::Key;

/// The Authentication Method of MQTT 5 by which a client shows a token, at first or to go on with a new one.
const METHOD: &str = "JWT";

/// The plugin.
struct Jwt {
    keys: Vec<Key>,
    place: Place,
    terms: Terms,
}

impl Plugin for Jwt {
    type Config = Config;

    fn new(mut config: Config) -> Result<Self, String> {
        let keys = std::mem::take(&mut config.keys);
        let keys: Vec<Key> = keys
            .into_iter()
            .enumerate()
            .map(|(index, key)| Key::parse(index, key))
            .collect::<Result<_, _>>()?;
        if keys.is_empty() {
            return Err("keys: there is none, so no token could be checked".to_owned());
        }
        for (index, key) in keys.iter().enumerate() {
            if key.id().is_some() && keys.iter().take(index).any(|other| other.id() == key.id()) {
                return Err(format!("keys[{index}].id: another key has the same"));
            }
        }
        Ok(Self { keys, place: config.token, terms: Terms::parse(config)? })
    }
}

impl Authenticate for Jwt {
    fn authenticate(&mut self, request: AuthenticateRequest) -> Answer {
        let shown = match (&request.exchange, self.place) {
            (Some(exchange), _) if exchange.method == METHOD => exchange.data.as_deref(),
            (Some(_), _) => return Answer::Next,
            (None, Place::Password) => request.password.as_deref(),
            (None, Place::Username) => request.username.as_deref().map(str::as_bytes),
        };
        let shown = shown.and_then(|bytes| std::str::from_utf8(bytes).ok());
        let Some(token) = shown.filter(|text| token::looks_like_one(text)) else { return Answer::Next };
        let now = host::now_unix_ms() / 1000;
        let lease =
            token::verified(token, &self.keys).and_then(|claims| self.terms.lease(&claims, &request, now));
        match lease {
            Ok(lease) => Answer::allow(lease),
            Err(why) => {
                let reason = format!("the token of client '{}': {why}", request.client_id);
                Answer::deny(BAD_USER_NAME_OR_PASSWORD, reason)
            }
        }
    }
}

export!(Jwt: authenticate);
