//! The rights of roles: topic filters with `{username}` and `{client_id}` in them.

use weirmq_plugin::rights::Right;
use weirmq_plugin::topic::Template;

use crate::config;

/// The names that templates may have.
const NAMES: [&str; 2] = ["username", "client_id"];

/// A role whose templates have been checked.
pub(crate) struct Role {
    pub(crate) publish: Vec<Right>,
    pub(crate) subscribe: Vec<Right>,
    pub(crate) expires_in_seconds: Option<u32>,
}

/// What is put in for the placeholders.
pub(crate) struct Values<'a> {
    pub(crate) username: &'a str,
    pub(crate) client_id: &'a str,
}

impl Values<'_> {
    /// `template` with these values in it.
    pub(crate) fn fill(&self, template: &Template) -> Result<String, String> {
        let filled = template.fill(|name| match name {
            "username" => Some(self.username),
            "client_id" => Some(self.client_id),
            _ => None,
        })?;
        filled.ok_or_else(|| format!("'{}' cannot be filled in", template.as_str()))
    }
}

impl Role {
    /// Checks every template of `role`.
    pub(crate) fn parse(name: &str, role: config::Role) -> Result<Self, String> {
        Ok(Self {
            publish: Right::publish(&format!("roles.{name}.publish"), role.publish, &NAMES)?,
            subscribe: Right::subscribe(&format!("roles.{name}.subscribe"), role.subscribe, &NAMES)?,
            expires_in_seconds: role.expires_in_seconds,
        })
    }
}
