//! The configuration as it is written: the plugin's `[plugin.config]` table.

use std::collections::BTreeMap;

use serde::Deserialize;
use weirmq_plugin::rights::{Publish, Subscribe};

/// The whole table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Who may log in, by user name.
    #[serde(default)]
    pub(crate) users: BTreeMap<String, User>,
    /// What they may do, by role name.
    #[serde(default)]
    pub(crate) roles: BTreeMap<String, Role>,
    /// What is answered to a user name that is not among `users`.
    #[serde(default)]
    pub(crate) unknown_user: UnknownUser,
}

/// What is answered to a user name that is not known.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum UnknownUser {
    /// A refusal, in the same time as for a wrong password.
    #[default]
    Deny,
    /// Leave the decision to the next plugin in the chain.
    Next,
}

/// One user.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct User {
    /// An Argon2 hash in the PHC string format, as `weirmq hash-password` prints it.
    pub(crate) password_hash: String,
    /// One of `roles`.
    pub(crate) role: String,
    /// What else other hooks and rules may know of this user.
    #[serde(default)]
    pub(crate) attributes: BTreeMap<String, String>,
}

/// What the users of one role may do. What is not here is denied.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Role {
    /// Where they may publish.
    #[serde(default)]
    pub(crate) publish: Vec<Publish>,
    /// What they may subscribe to.
    #[serde(default)]
    pub(crate) subscribe: Vec<Subscribe>,
    /// How long a login holds; absent is as long as the connection.
    pub(crate) expires_in_seconds: Option<u32>,
}
