//! The rights of roles: topic filters with `{username}` and `{client_id}` in them.

use weirmq_plugin::Qos;
use weirmq_plugin::topic::Template;

use crate::config::{self, PublishRight, SubscribeRight};

/// A role whose templates have been checked.
pub(crate) struct Role {
    pub(crate) publish: Vec<Right>,
    pub(crate) subscribe: Vec<Right>,
    pub(crate) expires_in_seconds: Option<u32>,
}

/// One right of a role. `retain` says nothing for subscriptions.
pub(crate) struct Right {
    pub(crate) template: Template,
    pub(crate) qos_max: Qos,
    pub(crate) retain: bool,
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
        let publish = role.publish.into_iter().enumerate().map(|(index, right)| {
            let (filter, qos_max, retain) = match right {
                PublishRight::Filter(filter) => (filter, 2, true),
                PublishRight::Limited(right) => (right.filter, right.qos_max, right.retain),
            };
            Right::parse(filter, qos_max, retain)
                .map_err(|error| format!("roles.{name}.publish[{index}]: {error}"))
        });
        let subscribe = role.subscribe.into_iter().enumerate().map(|(index, right)| {
            let (filter, qos_max) = match right {
                SubscribeRight::Filter(filter) => (filter, 2),
                SubscribeRight::Limited(right) => (right.filter, right.qos_max),
            };
            Right::parse(filter, qos_max, false)
                .map_err(|error| format!("roles.{name}.subscribe[{index}]: {error}"))
        });
        Ok(Self {
            publish: publish.collect::<Result<_, _>>()?,
            subscribe: subscribe.collect::<Result<_, _>>()?,
            expires_in_seconds: role.expires_in_seconds,
        })
    }
}

impl Right {
    fn parse(filter: String, qos_max: u8, retain: bool) -> Result<Self, String> {
        let qos_max = match qos_max {
            0 => Qos::AtMostOnce,
            1 => Qos::AtLeastOnce,
            2 => Qos::ExactlyOnce,
            other => return Err(format!("qos_max is 0, 1 or 2, not {other}")),
        };
        Ok(Self { template: Template::parse(&filter, &["username", "client_id"])?, qos_max, retain })
    }
}
