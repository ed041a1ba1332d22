//! One schema, where it holds, and what becomes of messages that do not fit.

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;
use weirmq_plugin::topic::{check_filter, covers};

use crate::config;

/// How much of what is wrong is told.
const FAULT_BYTES_MAX: usize = 300;

/// A schema that has been compiled.
pub(crate) struct Check {
    pub(crate) topics: Vec<String>,
    pub(crate) redirect: Option<Redirect>,
    schema: Validator,
}

/// A topic in which `{topic}` stands for another.
pub(crate) struct Redirect {
    before: String,
    after: String,
}

impl Check {
    /// Checks and compiles check `index` of the configuration.
    pub(crate) fn parse(index: usize, check: config::Check) -> Result<Self, String> {
        let here = |key: &str, what: &dyn std::fmt::Display| format!("checks[{index}].{key}: {what}");
        if check.topics.is_empty() {
            return Err(here("topics", &"there is none, so it checks nothing"));
        }
        for (at, filter) in check.topics.iter().enumerate() {
            check_filter(filter).map_err(|error| {
                here(&format!("topics[{at}]"), &format!("'{filter}' is not a topic filter: {error}"))
            })?;
        }
        let (key, schema) = match (check.schema, check.schema_json) {
            (Some(schema), None) => ("schema", schema),
            (None, Some(text)) => {
                let schema = serde_json::from_str(&text)
                    .map_err(|error| here("schema_json", &format!("it is not JSON: {error}")))?;
                ("schema_json", schema)
            }
            _ => return Err(here("schema", &"either schema or schema_json is needed")),
        };
        // Patterns that cannot backtrack: no payload makes one take long.
        let schema = jsonschema::options()
            .with_pattern_options(PatternOptions::regex())
            .build(&schema)
            .map_err(|error| here(key, &format!("not a JSON Schema: {error}")))?;
        let redirect = check.redirect.map(|text| Redirect::parse(&text)).transpose();
        let redirect = redirect.map_err(|error| here("redirect", &error))?;
        Ok(Self { topics: check.topics, redirect, schema })
    }

    /// Whether it is about messages to `topic`.
    pub(crate) fn is_about(&self, topic: &str) -> bool {
        self.topics.iter().any(|filter| covers(filter, topic))
    }

    /// What is wrong with `payload`, in words; `None` where nothing is.
    pub(crate) fn fault(&self, payload: &Value) -> Option<String> {
        let error = self.schema.validate(payload).err()?;
        let place = error.instance_path().to_string();
        let place = if place.is_empty() { "the payload" } else { &place };
        Some(cut(&format!("{place}: {error}")))
    }
}

impl Redirect {
    fn parse(text: &str) -> Result<Self, String> {
        let Some((before, after)) = text.split_once("{topic}") else {
            // One topic for all would hide which messages did not fit.
            return Err(format!("'{text}' wants {{topic}} in it, as in invalid/{{topic}}"));
        };
        if text.contains(['+', '#', '\0']) {
            return Err(format!("'{text}' would not be a topic name"));
        }
        if before.is_empty() && after.is_empty() {
            return Err(format!("'{text}' is where the message was going"));
        }
        if [before, after].iter().any(|part| part.contains(['{', '}'])) {
            return Err(format!("'{text}': there is {{topic}} only, and once"));
        }
        Ok(Self { before: before.to_owned(), after: after.to_owned() })
    }

    /// Where a message to `topic` goes.
    pub(crate) fn of(&self, topic: &str) -> String {
        format!("{}{topic}{}", self.before, self.after)
    }
}

fn cut(text: &str) -> String {
    let end = text.char_indices().map(|(at, _)| at).find(|at| *at >= FAULT_BYTES_MAX);
    match end.and_then(|end| text.get(..end)) {
        Some(start) => format!("{start}…"),
        None => text.to_owned(),
    }
}
