//! A plugin that does next to nothing, to measure what calling one costs.

use serde::Deserialize;
use weirmq_plugin::*;

struct Lean {
    config: Config,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The topics whose messages it sees.
    topics: Vec<String>,
    /// Whether each is answered with a copy in its place.
    replace: bool,
}

impl Plugin for Lean {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        Ok(Self { config })
    }
}

impl Authorize for Lean {
    fn authorize(&mut self, identity: Identity, action: Action) -> Decision {
        let about = match action {
            Action::Publish(publish) => publish.topic,
            Action::Subscribe(subscribe) => subscribe.filter,
        };
        if about.starts_with("forbidden/") {
            return Decision::deny(NOT_AUTHORIZED, format!("{} may not", identity.principal));
        }
        Decision::Allow
    }
}

impl OnPublish for Lean {
    fn topics(&mut self) -> Vec<String> {
        self.config.topics.clone()
    }

    fn on_publish(&mut self, message: Message) -> Verdict {
        if self.config.replace && !message.payload.is_empty() {
            Verdict::Replace(message.into())
        } else {
            Verdict::Pass
        }
    }
}

export!(Lean: authorize, on_publish);
