//! Topic filters with `{username}` and `{client_id}` in them.

use weirmq_plugin::Qos;

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

/// A topic filter with placeholders.
pub(crate) struct Template {
    text: String,
    parts: Vec<Part>,
}

enum Part {
    Text(String),
    Username,
    ClientId,
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
        Ok(Self { template: Template::parse(filter)?, qos_max, retain })
    }
}

impl Template {
    /// Finds the placeholders and checks that what comes out is a topic filter.
    pub(crate) fn parse(text: String) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text.as_str();
        while let Some((before, behind)) = rest.split_once('{') {
            let Some((name, after)) = behind.split_once('}') else {
                return Err(format!("'{text}': '{{' without '}}'"));
            };
            parts.push(Part::Text(before.to_owned()));
            parts.push(match name {
                "username" => Part::Username,
                "client_id" => Part::ClientId,
                other => {
                    return Err(format!(
                        "'{text}': there is no {{{other}}}, only {{username}} and {{client_id}}"
                    ));
                }
            });
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        parts.retain(|part| !matches!(part, Part::Text(text) if text.is_empty()));
        let template = Self { text, parts };
        let example = template.fill(&Values { username: "x", client_id: "x" })?;
        match filter_error(&example) {
            None => Ok(template),
            Some(error) => Err(format!("'{}' is not a topic filter: {error}", template.text)),
        }
    }

    /// The filter with `values` in it. A value that would widen the filter is an error: a level separator, a
    /// wildcard, U+0000, nothing at all, or a `$` that would become the filter's first character.
    pub(crate) fn fill(&self, values: &Values<'_>) -> Result<String, String> {
        let mut filter = String::with_capacity(self.text.len() + 16);
        for part in &self.parts {
            let (name, value) = match part {
                Part::Text(text) => {
                    filter.push_str(text);
                    continue;
                }
                Part::Username => ("user name", values.username),
                Part::ClientId => ("client identifier", values.client_id),
            };
            let reserved = filter.is_empty() && value.starts_with('$');
            if value.is_empty() || reserved || value.contains(['/', '+', '#', '\0']) {
                return Err(format!("the {name} {value:?} cannot stand in the filter '{}'", self.text));
            }
            filter.push_str(value);
        }
        Ok(filter)
    }
}

fn filter_error(filter: &str) -> Option<&'static str> {
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        if level.contains('#') && (level != "#" || levels.peek().is_some()) {
            return Some("'#' must be the last level and stand alone in it");
        }
        if level.contains('+') && level != "+" {
            return Some("'+' must stand alone in its level");
        }
    }
    if filter.is_empty() {
        return Some("it is empty");
    }
    (filter.len() > 65_000 || filter.contains('\0')).then_some("it is too long or contains U+0000")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(template: &str, username: &str, client_id: &str) -> Result<String, String> {
        Template::parse(template.to_owned())?.fill(&Values { username, client_id })
    }

    #[test]
    fn placeholders_are_filled_in_wherever_they_stand() {
        assert_eq!(filled("factory/+/{username}/#", "press-1", "c").unwrap(), "factory/+/press-1/#");
        assert_eq!(filled("{client_id}/dev-{username}", "u", "c").unwrap(), "c/dev-u");
        assert_eq!(filled("#", "u", "c").unwrap(), "#");
    }

    #[test]
    fn no_user_name_and_no_client_identifier_widens_a_right() {
        for value in ["+", "#", "a/b", "a+", "", "a\0", "a/#"] {
            assert!(filled("factory/{username}/x", value, "c").is_err(), "{value:?} as user name");
            assert!(filled("factory/{client_id}/x", "u", value).is_err(), "{value:?} as client identifier");
        }
        assert!(filled("{username}/#", "$SYS", "c").is_err());
        assert_eq!(filled("a/{username}/#", "$SYS", "c").unwrap(), "a/$SYS/#");
        assert_eq!(
            filled("a/{username}", "u", "any/+/#").unwrap(),
            "a/u",
            "what a template does not use does not count"
        );
    }

    #[test]
    fn a_bad_template_is_refused_when_the_plugin_starts() {
        for (template, part) in [
            ("a/{user}", "{user}"),
            ("a/{username", "without"),
            ("a/#/b", "'#'"),
            ("a+/b", "'+'"),
            ("+{username}", "'+'"),
            ("", "empty"),
        ] {
            let error = Template::parse(template.to_owned()).err().unwrap();
            assert!(error.contains(part), "{template}: {error}");
        }
    }
}
