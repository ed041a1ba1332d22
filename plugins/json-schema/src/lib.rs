//! Checks payloads against JSON Schemas: drops or redirects what does not fit.
//!
//! # Layout
//! - this file: what becomes of a message
//! - [`config`]: the configuration as it is written
//! - [`check`]: one schema, where it holds, and where else messages go
//! - `seed`: seeds for hash tables

#![deny(unsafe_code)]

mod check;
mod config;
#[cfg(target_arch = "wasm32")]
#[allow(unsafe_code, reason = "getrandom calls it by its symbol, with a raw buffer")]
mod seed;

use weirmq_plugin::{Draft, Message, OnPublish, PAYLOAD_FORMAT_INVALID, Pair, Plugin, Verdict, export};

use check::Check;
use config::Config;

/// The User Property that tells why a message was redirected.
const FAULT: &str = "schema-fault";

/// The plugin.
struct JsonSchema {
    checks: Vec<Check>,
}

impl Plugin for JsonSchema {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        if config.checks.is_empty() {
            return Err("checks: there is none, so nothing would be checked".to_owned());
        }
        let checks = config.checks.into_iter().enumerate();
        let checks = checks.map(|(index, check)| Check::parse(index, check)).collect::<Result<_, _>>()?;
        Ok(Self { checks })
    }
}

impl OnPublish for JsonSchema {
    fn topics(&mut self) -> Vec<String> {
        self.checks.iter().flat_map(|check| check.topics.iter().cloned()).collect()
    }

    fn on_publish(&mut self, message: Message) -> Verdict {
        let payload = serde_json::from_slice(&message.payload);
        for check in self.checks.iter().filter(|check| check.is_about(&message.topic)) {
            let fault = match &payload {
                Ok(payload) => check.fault(payload),
                Err(error) => Some(format!("it is not JSON: {error}")),
            };
            let Some(fault) = fault else { continue };
            return match &check.redirect {
                None => Verdict::drop(PAYLOAD_FORMAT_INVALID, fault),
                Some(redirect) => {
                    let topic = redirect.of(&message.topic);
                    let mut draft = Draft { topic, ..Draft::from(message) };
                    draft.properties.user.push(Pair { name: FAULT.to_owned(), value: fault });
                    Verdict::Replace(draft)
                }
            };
        }
        Verdict::Pass
    }
}

export!(JsonSchema: on_publish);
