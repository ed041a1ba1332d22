//! A rule's filter: an MQTT topic filter in which `{name}` stands for one level and gives it a name.

use std::sync::Arc;

use weirmq_core::topic::{TopicError, TopicFilter};

use crate::view::FIELDS;

/// A filter with captures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    /// As written.
    pub(crate) text: Arc<str>,
    filter: TopicFilter,
    /// Which level each capture reads, in the order of levels.
    captures: Vec<(usize, Box<str>)>,
}

/// Why a text is no filter of a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PatternError {
    #[error("{0:?} is no topic filter: {1}")]
    Filter(String, TopicError),
    #[error("{0:?} is a shared subscription; a rule sees every message once, write the filter alone")]
    Shared(String),
    #[error("in {filter:?} the level {level:?} is no capture: '{{' and '}}' must enclose a whole level")]
    Braces { filter: String, level: String },
    #[error("in {filter:?} the capture {name:?} is no name: use letters, digits and '_', no digit first")]
    Name { filter: String, name: String },
    #[error("in {filter:?} the capture {{{name}}} would hide the message's own field {name:?}: rename it")]
    Field { filter: String, name: String },
    #[error("in {filter:?} the capture {{{name}}} occurs twice")]
    Twice { filter: String, name: String },
}

impl Pattern {
    /// Takes `text` apart.
    pub(crate) fn parse(text: &str) -> Result<Self, PatternError> {
        if text == "$share" || text.starts_with("$share/") {
            return Err(PatternError::Shared(text.to_owned()));
        }
        let mut captures = Vec::new();
        let mut levels = Vec::new();
        for (index, level) in text.split('/').enumerate() {
            match capture_name(text, level)? {
                Some(name) => {
                    check_name(text, name, &captures)?;
                    captures.push((index, Box::from(name)));
                    levels.push("+");
                }
                None => levels.push(level),
            }
        }
        let filter = TopicFilter::new(&levels.join("/"))
            .map_err(|error| PatternError::Filter(text.to_owned(), error))?;
        Ok(Self { text: Arc::from(text), filter, captures })
    }

    /// Whether `topic` matches.
    pub(crate) fn matches(&self, topic: &str) -> bool {
        self.filter.matches(topic)
    }

    /// The captures and what each reads from `topic`, which must match.
    pub(crate) fn captures<'a>(&'a self, topic: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let mut levels = topic.split('/').enumerate();
        self.captures.iter().filter_map(move |(wanted, name)| {
            let (_, level) = levels.by_ref().find(|(index, _)| index == wanted)?;
            Some((&**name, level))
        })
    }
}

fn capture_name<'a>(filter: &str, level: &'a str) -> Result<Option<&'a str>, PatternError> {
    if !level.contains(['{', '}']) {
        return Ok(None);
    }
    let name = level.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    match name {
        Some(name) if !name.contains(['{', '}']) => Ok(Some(name)),
        _ => Err(PatternError::Braces { filter: filter.to_owned(), level: level.to_owned() }),
    }
}

fn check_name(filter: &str, name: &str, earlier: &[(usize, Box<str>)]) -> Result<(), PatternError> {
    let (filter, name) = (filter.to_owned(), name.to_owned());
    let mut characters = name.chars();
    let starts_well = characters.next().is_some_and(|first| first == '_' || first.is_alphabetic());
    if !starts_well || !characters.all(|next| next == '_' || next.is_alphanumeric()) {
        return Err(PatternError::Name { filter, name });
    }
    if FIELDS.contains(&name.as_str()) {
        return Err(PatternError::Field { filter, name });
    }
    if earlier.iter().any(|(_, other)| **other == *name) {
        return Err(PatternError::Twice { filter, name });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(filter: &str, topic: &str) -> Vec<(String, String)> {
        let pattern = Pattern::parse(filter).unwrap();
        assert!(pattern.matches(topic), "{filter} ~ {topic}");
        pattern.captures(topic).map(|(name, level)| (name.to_owned(), level.to_owned())).collect()
    }

    #[test]
    fn captures_read_their_levels() {
        let pair = |name: &str, level: &str| (name.to_owned(), level.to_owned());
        assert_eq!(
            read("factory/{line}/+/{machine}/#", "factory/a/x/press/t/u"),
            [pair("line", "a"), pair("machine", "press")]
        );
        assert_eq!(read("{a}/{b}", "/"), [pair("a", ""), pair("b", "")]);
        assert_eq!(
            read("センサー/{種類}/{place}", "センサー/温度/リビングルーム"),
            [pair("種類", "温度"), pair("place", "リビングルーム")]
        );
        assert_eq!(read("#", "a/b"), []);
        assert!(!Pattern::parse("{first}/x").unwrap().matches("$SYS/x"), "a capture is a wildcard");
    }

    #[test]
    fn bad_filters_are_refused_with_the_exact_reason() {
        let fault = |filter: &str| Pattern::parse(filter).unwrap_err();
        let filter = || "x".to_owned();
        assert!(matches!(fault(""), PatternError::Filter(_, TopicError::Empty)));
        assert!(matches!(fault("a/#/b"), PatternError::Filter(_, TopicError::MultiLevelWildcard)));
        assert!(matches!(fault("$share/g/a"), PatternError::Shared(_)));
        assert!(matches!(fault("a/b{c}"), PatternError::Braces { .. }));
        assert!(matches!(fault("a/{b"), PatternError::Braces { .. }));
        assert!(matches!(fault("{}"), PatternError::Name { .. }));
        assert!(matches!(fault("{1a}"), PatternError::Name { .. }));
        assert!(matches!(fault("{topic}"), PatternError::Field { .. }));
        assert!(matches!(fault("{a}/{a}"), PatternError::Twice { .. }));
        let error = PatternError::Field { filter: filter(), name: "json".to_owned() };
        assert!(error.to_string().contains("{json}"), "{error}");
    }
}
