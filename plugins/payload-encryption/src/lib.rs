//! Encrypts payloads before they are written down, and decrypts what is read back.
//!
//! # Layout
//! - this file: the configuration, and what is done with a message
//! - [`sealed`]: what an encrypted payload looks like

#![forbid(unsafe_code)]

mod sealed;

use serde::Deserialize;
use weirmq_plugin::topic::check_filter;
use weirmq_plugin::{Message, Persistence, Plugin, Stored, export, host};

use sealed::Key;

/// The plugin's `[plugin.config]` table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The topics whose payloads are encrypted.
    #[serde(default = "everything")]
    topics: Vec<String>,
    /// The keys: the first encrypts, all decrypt.
    keys: Vec<KeyConfig>,
}

/// One key.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyConfig {
    /// What it is called in what it has encrypted.
    id: String,
    /// The name of the secret that holds it.
    secret: String,
}

/// The plugin.
struct PayloadEncryption {
    topics: Vec<String>,
    keys: Vec<Key>,
}

impl Plugin for PayloadEncryption {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        for (index, filter) in config.topics.iter().enumerate() {
            check_filter(filter)
                .map_err(|error| format!("topics[{index}]: '{filter}' is not a topic filter: {error}"))?;
        }
        if config.topics.is_empty() {
            return Err("topics: there is none, so nothing would be encrypted".to_owned());
        }
        if config.keys.is_empty() {
            return Err("keys: there is none to encrypt with".to_owned());
        }
        let mut keys: Vec<Key> = Vec::new();
        for (index, key) in config.keys.iter().enumerate() {
            if keys.iter().any(|other| other.id() == key.id) {
                return Err(format!("keys[{index}].id: another key is called '{}' too", key.id));
            }
            let text = host::secret(&key.secret).ok_or_else(|| {
                format!("keys[{index}].secret: there is no secret '{}' under plugin.secrets", key.secret)
            })?;
            keys.push(Key::parse(&key.id, &text).map_err(|error| format!("keys[{index}].{error}"))?);
        }
        Ok(Self { topics: config.topics, keys })
    }
}

impl Persistence for PayloadEncryption {
    fn topics(&mut self) -> Vec<String> {
        self.topics.clone()
    }

    fn before_store(&mut self, message: Message) -> Stored {
        let nonce = host::random(sealed::NONCE_BYTES as u32);
        match self.keys.first().map(|key| key.seal(&message.topic, &message.payload, &nonce)) {
            Some(Ok(sealed)) => Stored::Replace(sealed),
            // A panic fails the call: the message is not acknowledged, and never written down in clear.
            Some(Err(why)) => panic!("{why}"),
            None => panic!("there is no key"),
        }
    }

    fn after_load(&mut self, message: Message) -> Result<Vec<u8>, String> {
        sealed::open(&self.keys, &message.topic, &message.payload)
    }
}

export!(PayloadEncryption: persistence);

fn everything() -> Vec<String> {
    vec!["#".to_owned()]
}
