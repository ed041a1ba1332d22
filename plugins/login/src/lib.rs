//! Decides logins from its own configuration: users with password hashes, each with a role, and roles that say
//! what may be published and subscribed.
//!
//! # Layout
//! - this file: the decision
//! - [`config`]: the configuration as it is written
//! - [`password`]: checking a password against a hash
//! - [`template`]: the rights of roles, with `{username}` and `{client_id}`

#![forbid(unsafe_code)]

mod config;
mod password;
mod template;

use std::collections::HashMap;

use weirmq_plugin::{
    Answer, Authenticate, AuthenticateRequest, BAD_AUTHENTICATION_METHOD, BAD_USER_NAME_OR_PASSWORD, Lease,
    Pair, Plugin, PublishRight, Rights, SubscribeRight, export,
};

use config::{Config, UnknownUser};
use password::{Passwords, StoredHash};
use template::{Role, Values};

/// The plugin.
struct Login {
    users: HashMap<String, User>,
    roles: HashMap<String, Role>,
    unknown_user: UnknownUser,
    passwords: Passwords,
}

struct User {
    hash: StoredHash,
    role: String,
    attributes: Vec<Pair>,
}

impl Plugin for Login {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        let roles = config
            .roles
            .into_iter()
            .map(|(name, role)| Ok((name.clone(), Role::parse(&name, role)?)))
            .collect::<Result<HashMap<_, _>, String>>()?;
        let users = config
            .users
            .into_iter()
            .map(|(name, user)| Ok((name.clone(), User::parse(&name, user, &roles)?)))
            .collect::<Result<HashMap<_, _>, String>>()?;
        let passwords = Passwords::for_hashes(users.values().map(|user| &user.hash))?;
        Ok(Self { users, roles, unknown_user: config.unknown_user, passwords })
    }
}

impl Authenticate for Login {
    fn authenticate(&mut self, request: AuthenticateRequest) -> Answer {
        if let Some(exchange) = &request.exchange {
            let reason = format!("method '{}': this plugin knows passwords only", exchange.method);
            return Answer::deny(BAD_AUTHENTICATION_METHOD, reason);
        }
        let Some(username) = &request.username else { return Answer::Next };
        let password = request.password.as_deref().unwrap_or_default();
        let Some(user) = self.users.get(username) else {
            return match self.unknown_user {
                UnknownUser::Next => Answer::Next,
                UnknownUser::Deny => {
                    // As slow as a wrong password, so that nobody can find out which names exist.
                    self.passwords.spend(password);
                    Answer::deny(BAD_USER_NAME_OR_PASSWORD, format!("there is no user '{username}'"))
                }
            };
        };
        if !self.passwords.verify(password, &user.hash) {
            return Answer::deny(BAD_USER_NAME_OR_PASSWORD, format!("wrong password for user '{username}'"));
        }
        let values = Values { username, client_id: &request.client_id };
        match self.roles.get(&user.role).map(|role| lease(username, user, role, &values)) {
            Some(Ok(lease)) => Answer::allow(lease),
            Some(Err(reason)) => Answer::deny(weirmq_plugin::NOT_AUTHORIZED, reason),
            None => Answer::deny(weirmq_plugin::NOT_AUTHORIZED, format!("there is no role '{}'", user.role)),
        }
    }
}

export!(Login: authenticate);

impl User {
    fn parse(name: &str, user: config::User, roles: &HashMap<String, Role>) -> Result<Self, String> {
        if name.is_empty() {
            return Err("users: a user name must have at least one character".to_owned());
        }
        if !roles.contains_key(&user.role) {
            return Err(format!("users.{name}.role: there is no role '{}' under roles", user.role));
        }
        let hash = StoredHash::parse(&user.password_hash)
            .map_err(|error| format!("users.{name}.password_hash: {error}"))?;
        let attributes = user.attributes.into_iter().map(|(name, value)| Pair { name, value }).collect();
        Ok(Self { hash, role: user.role, attributes })
    }
}

fn lease(username: &str, user: &User, role: &Role, values: &Values<'_>) -> Result<Lease, String> {
    let mut rights = Rights::none();
    for right in &role.publish {
        let (qos_max, retain) = (right.qos_max, right.retain);
        rights.publish.push(PublishRight { filter: values.fill(&right.template)?, qos_max, retain });
    }
    for right in &role.subscribe {
        rights
            .subscribe
            .push(SubscribeRight { filter: values.fill(&right.template)?, qos_max: right.qos_max });
    }
    let mut lease = Lease::new(username).with_rights(rights).with_attribute("role", &user.role);
    lease.attributes.extend(user.attributes.iter().cloned());
    lease.expires_in_seconds = role.expires_in_seconds;
    Ok(lease)
}
