//! The configuration as it is written: the plugin's `[plugin.config]` table.

use std::collections::BTreeMap;

use serde::Deserialize;
use weirmq_plugin::rights::{Publish, Subscribe};

/// The whole table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// What tokens may be signed with.
    pub(crate) keys: Vec<Key>,
    /// What of the CONNECT is the token.
    #[serde(default)]
    pub(crate) token: Place,
    /// What the claim `iss` must be.
    pub(crate) issuer: Option<String>,
    /// What the claim `aud` must be, or contain.
    pub(crate) audience: Option<String>,
    /// How far the clocks of issuer and broker may be apart.
    #[serde(default = "leeway_seconds")]
    pub(crate) leeway_seconds: u32,
    /// Whether a token must have an end (`exp`).
    #[serde(default = "yes")]
    pub(crate) expiry_required: bool,
    /// The claim that is the principal.
    #[serde(default = "subject")]
    pub(crate) principal: String,
    /// What the client identifier must be: a template of one level.
    pub(crate) client_id: Option<String>,
    /// Attributes of the login, by name, from claims.
    #[serde(default)]
    pub(crate) attributes: BTreeMap<String, String>,
    /// Where may be published. Without `publish` and `subscribe` the authorize hooks decide.
    pub(crate) publish: Option<Vec<Publish>>,
    /// What may be subscribed to.
    pub(crate) subscribe: Option<Vec<Subscribe>>,
}

/// What of the CONNECT is the token.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Place {
    /// The password.
    #[default]
    Password,
    /// The user name.
    Username,
}

/// What tokens may be signed with.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Key {
    /// The `kid` that tokens name it by.
    pub(crate) id: Option<String>,
    /// With which method.
    pub(crate) algorithm: Algorithm,
    /// HS256: the secret as text.
    pub(crate) secret: Option<String>,
    /// HS256: the secret in Base64.
    pub(crate) secret_base64: Option<String>,
    /// RS256, ES256: the public key, PEM.
    pub(crate) public_key: Option<String>,
}

/// A signature method of RFC 7518.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum Algorithm {
    /// HMAC with SHA-256.
    HS256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RS256,
    /// ECDSA on P-256 with SHA-256.
    ES256,
}

fn leeway_seconds() -> u32 {
    30
}

fn subject() -> String {
    "sub".to_owned()
}

fn yes() -> bool {
    true
}
