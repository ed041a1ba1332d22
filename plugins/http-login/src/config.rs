//! The configuration as it is written: the plugin's `[plugin.config]` table.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The longest time-out that makes sense.
const TIMEOUT_MS_MAX: u32 = 60_000;

/// The whole table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Where the service is.
    pub(crate) url: String,
    /// Headers of each request.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    /// Headers whose values are secrets: header = name of the secret.
    #[serde(default)]
    pub(crate) secret_headers: BTreeMap<String, String>,
    /// How long the service may take.
    #[serde(default = "timeout_ms")]
    pub(crate) timeout_ms: u32,
    /// How long an answer is remembered.
    #[serde(default = "cache_seconds")]
    pub(crate) cache_seconds: u32,
    /// How long a refusal is remembered.
    #[serde(default = "cache_denied_seconds")]
    pub(crate) cache_denied_seconds: u32,
    /// How many answers are remembered.
    #[serde(default = "cache_entries_max")]
    pub(crate) cache_entries_max: usize,
    /// How long beyond that an answer serves while the service cannot be reached.
    #[serde(default)]
    pub(crate) stale_seconds: u32,
    /// What is answered when the service does not answer.
    #[serde(default)]
    pub(crate) unreachable: Unreachable,
}

/// What is answered when the service does not answer.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Unreachable {
    /// A refusal: the server is unavailable.
    #[default]
    Deny,
    /// Let the next plugin in the chain decide.
    Next,
}

impl Config {
    /// Checks what the types leave open.
    pub(crate) fn check(&self) -> Result<(), String> {
        let host = self.url.strip_prefix("https://").or_else(|| self.url.strip_prefix("http://"));
        if host.is_none_or(|host| host.is_empty() || host.starts_with('/')) {
            return Err(format!("url: '{}' is not like https://login.example.com/mqtt", self.url));
        }
        if !(1..=TIMEOUT_MS_MAX).contains(&self.timeout_ms) {
            return Err(format!("timeout_ms: 1 to {TIMEOUT_MS_MAX}, not {}", self.timeout_ms));
        }
        if self.cache_entries_max > 100_000 {
            return Err(format!("cache_entries_max: at most 100000, not {}", self.cache_entries_max));
        }
        let headers = [("headers", &self.headers), ("secret_headers", &self.secret_headers)];
        for (key, names) in headers {
            let fits = |name: &str| {
                !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            };
            if let Some(name) = names.keys().find(|name| !fits(name)) {
                return Err(format!("{key}.{name}: a header is called by letters, digits and '-'"));
            }
        }
        Ok(())
    }
}

fn timeout_ms() -> u32 {
    800
}

fn cache_seconds() -> u32 {
    60
}

fn cache_denied_seconds() -> u32 {
    5
}

fn cache_entries_max() -> usize {
    1_000
}
