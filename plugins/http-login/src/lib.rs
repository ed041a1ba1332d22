//! Asks an HTTP service who may log in, and remembers for a while what it said.
//!
//! # Layout
//! - this file: the decision
//! - [`config`]: the configuration as it is written
//! - [`service`]: what is asked of the service, and what it answers
//! - [`cache`]: what it said of whom

#![forbid(unsafe_code)]

mod cache;
mod config;
mod service;

use weirmq_plugin::host::{self, Level};
use weirmq_plugin::{
    Answer, Authenticate, AuthenticateRequest, BAD_AUTHENTICATION_METHOD, NOT_AUTHORIZED, Pair, Plugin,
    export,
};

use cache::{Cache, Remembered};
use config::{Config, Unreachable};
use service::Said;

/// Reason code 0x88: the server is unavailable.
const SERVER_UNAVAILABLE: u8 = 0x88;

/// The plugin.
struct HttpLogin {
    config: Config,
    headers: Vec<Pair>,
    cache: Cache<Said>,
}

impl Plugin for HttpLogin {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        config.check()?;
        let json = Pair { name: "content-type".to_owned(), value: "application/json".to_owned() };
        let mut headers = vec![json];
        for (name, value) in &config.headers {
            headers.push(Pair { name: name.clone(), value: value.clone() });
        }
        for (name, secret) in &config.secret_headers {
            let value = host::secret(secret).ok_or_else(|| {
                format!("secret_headers.{name}: there is no secret '{secret}' under plugin.secrets")
            })?;
            headers.push(Pair { name: name.clone(), value: value.trim().to_owned() });
        }
        Ok(Self { headers, cache: Cache::new(config.cache_entries_max), config })
    }
}

impl Authenticate for HttpLogin {
    fn authenticate(&mut self, request: AuthenticateRequest) -> Answer {
        if let Some(exchange) = &request.exchange {
            let reason = format!("method '{}': the service is asked for passwords only", exchange.method);
            return Answer::deny(BAD_AUTHENTICATION_METHOD, reason);
        }
        let key = cache::fingerprint(&request);
        let now = host::monotonic_us();
        let stale = match self.cache.get(&key, now) {
            Remembered::Fresh(said) => return answer(said),
            Remembered::Stale(said) => Some(answer(said)),
            Remembered::Nothing => None,
        };
        let config = &self.config;
        match service::ask(&config.url, &self.headers, config.timeout_ms, &request) {
            Ok(said) => {
                let seconds = match &said {
                    // Never longer than the login that it allows.
                    Said::Allow(lease) => lease
                        .expires_in_seconds
                        .map_or(config.cache_seconds, |end| end.min(config.cache_seconds)),
                    Said::Deny(_) | Said::Next => config.cache_denied_seconds,
                };
                let stale_seconds = if matches!(said, Said::Allow(_)) { config.stale_seconds } else { 0 };
                let answer = answer(&said);
                self.cache.put(key, said, now, seconds, stale_seconds);
                answer
            }
            Err(why) => {
                let why = format!("{} gives no answer: {why}", config.url);
                host::log(Level::Warn, &why);
                match (stale, config.unreachable) {
                    (Some(answer), _) => answer,
                    (None, Unreachable::Next) => Answer::Next,
                    (None, Unreachable::Deny) => Answer::deny(SERVER_UNAVAILABLE, why),
                }
            }
        }
    }
}

export!(HttpLogin: authenticate);

fn answer(said: &Said) -> Answer {
    match said {
        Said::Allow(lease) => Answer::allow(lease.clone()),
        Said::Deny(reason) => Answer::deny(NOT_AUTHORIZED, reason.clone()),
        Said::Next => Answer::Next,
    }
}
