//! Decides who may publish and subscribe where, by rules with topic templates.
//!
//! # Layout
//! - this file: the decision
//! - [`config`]: the configuration as it is written
//! - [`rule`]: what one rule has to say

#![forbid(unsafe_code)]

mod config;
mod rule;

use weirmq_plugin::{Action, Authorize, Decision, Identity, NOT_AUTHORIZED, Plugin, export};

use config::{Config, Effect, Otherwise};
use rule::Rule;

/// The plugin.
struct TopicPolicy {
    rules: Vec<Rule>,
    otherwise: Otherwise,
}

impl Plugin for TopicPolicy {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        if config.rules.is_empty() {
            return Err("rules: there is none, so nobody could do anything".to_owned());
        }
        let rules = config.rules.into_iter().enumerate();
        let rules = rules.map(|(index, rule)| Rule::parse(index, rule)).collect::<Result<_, _>>()?;
        Ok(Self { rules, otherwise: config.otherwise })
    }
}

impl Authorize for TopicPolicy {
    fn authorize(&mut self, identity: Identity, action: Action) -> Decision {
        let decides = |(_, rule): &(usize, &Rule)| rule.decides(&identity, &action);
        let denied =
            |why: String| Decision::deny(NOT_AUTHORIZED, format!("{}: {why}", told(&identity, &action)));
        match self.rules.iter().enumerate().find(decides) {
            Some((_, rule)) if rule.effect == Effect::Allow => Decision::Allow,
            Some((index, _)) => denied(format!("rules[{index}] denies it")),
            None if self.otherwise == Otherwise::Next => Decision::Next,
            None => denied("no rule allows it".to_owned()),
        }
    }
}

export!(TopicPolicy: authorize);

/// Who wants what, for the log.
fn told(identity: &Identity, action: &Action) -> String {
    let (principal, client_id) = (&identity.principal, &identity.client_id);
    match action {
        Action::Publish(asked) => format!("'{principal}' ({client_id}) publishing to '{}'", asked.topic),
        Action::Subscribe(asked) => format!("'{principal}' ({client_id}) subscribing to '{}'", asked.filter),
    }
}
