//! Rules whose templates have been checked.

use weirmq_plugin::topic::{Template, covers, overlap};
use weirmq_plugin::{Action, Identity, Qos};

use crate::config::{self, Effect};

/// The names that templates may have.
const NAMES: [&str; 4] = ["principal", "client_id", "username", "attribute:"];

/// One rule.
pub(crate) struct Rule {
    pub(crate) effect: Effect,
    principals: Vec<String>,
    attributes: Vec<(String, String)>,
    publish: Vec<Right>,
    subscribe: Vec<Right>,
}

struct Right {
    template: Template,
    qos_max: Qos,
    retain: bool,
}

impl Rule {
    /// Checks rule `index` of the configuration.
    pub(crate) fn parse(index: usize, rule: config::Rule) -> Result<Self, String> {
        let here = format!("rules[{index}]");
        if rule.publish.is_empty() && rule.subscribe.is_empty() {
            return Err(format!("{here}: it has neither publish nor subscribe, so it says nothing"));
        }
        let rights = |key: &str, rights: Vec<config::Right>| {
            let parse = |(at, right)| {
                Right::parse(right, key, rule.effect).map_err(|error| format!("{here}.{key}[{at}]: {error}"))
            };
            rights.into_iter().enumerate().map(parse).collect::<Result<Vec<_>, String>>()
        };
        Ok(Self {
            effect: rule.effect,
            publish: rights("publish", rule.publish)?,
            subscribe: rights("subscribe", rule.subscribe)?,
            principals: rule.principals,
            attributes: rule.attributes.into_iter().collect(),
        })
    }

    /// Whether it has something to say of this client's action: allows it as a whole, or forbids any part of it.
    pub(crate) fn decides(&self, identity: &Identity, action: &Action) -> bool {
        if !self.is_about(identity) {
            return false;
        }
        match action {
            Action::Publish(asked) => self.publish.iter().any(|right| {
                right.reaches(self.effect, identity, &asked.topic)
                    && rank(asked.qos) <= rank(right.qos_max)
                    && (right.retain || !asked.retain)
            }),
            Action::Subscribe(asked) => self.subscribe.iter().any(|right| {
                right.reaches(self.effect, identity, &asked.filter) && rank(asked.qos) <= rank(right.qos_max)
            }),
        }
    }

    fn is_about(&self, identity: &Identity) -> bool {
        let has = |name: &String, value: &String| {
            identity.attributes.iter().any(|pair| pair.name == *name && pair.value == *value)
        };
        (self.principals.is_empty() || self.principals.contains(&identity.principal))
            && self.attributes.iter().all(|(name, value)| has(name, value))
    }
}

impl Right {
    fn parse(right: config::Right, key: &str, effect: Effect) -> Result<Self, String> {
        let (filter, qos_max, retain) = match right {
            config::Right::Filter(filter) => (filter, None, None),
            config::Right::Limited(right) => (right.filter, right.qos_max, right.retain),
        };
        if effect == Effect::Deny && (qos_max.is_some() || retain.is_some()) {
            return Err("a rule that denies has no qos_max and no retain: it denies all of it".to_owned());
        }
        if key == "subscribe" && retain.is_some() {
            return Err("retain is about publishing".to_owned());
        }
        let qos_max = weirmq_plugin::rights::qos_max(qos_max.unwrap_or(2))?;
        let template = Template::parse(&filter, &NAMES)?;
        Ok(Self { template, qos_max, retain: retain.unwrap_or(true) })
    }

    /// Whether the filter, filled in for this client, reaches what is asked. What cannot be filled in without
    /// widening it allows nothing, and forbids everything.
    fn reaches(&self, effect: Effect, identity: &Identity, asked: &str) -> bool {
        let filled = self.template.fill(|name| match name {
            "principal" => Some(&identity.principal),
            "client_id" => Some(&identity.client_id),
            "username" => identity.username.as_deref(),
            _ => {
                let name = name.strip_prefix("attribute:")?;
                identity.attributes.iter().find(|pair| pair.name == name).map(|pair| pair.value.as_str())
            }
        });
        match (filled, effect) {
            (Ok(Some(filter)), Effect::Allow) => covers(&filter, asked),
            (Ok(Some(filter)), Effect::Deny) => overlap(&filter, asked),
            (Ok(None), _) | (Err(_), Effect::Allow) => false,
            (Err(_), Effect::Deny) => true,
        }
    }
}

fn rank(qos: Qos) -> u8 {
    match qos {
        Qos::AtMostOnce => 0,
        Qos::AtLeastOnce => 1,
        Qos::ExactlyOnce => 2,
    }
}
