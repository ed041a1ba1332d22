//! Topic names, topic filters and the one matching rule that everything uses: subscriptions, retained
//! look-up, rights, rules and plugins.
//!
//! [`TopicName`] and [`TopicFilter`] cannot hold a bad value: they are made by parsing, and what the MQTT
//! specification forbids is refused there with the exact reason ([`TopicError`]).

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// The longest topic or filter that MQTT can carry, in bytes of UTF-8 `[MQTT-4.7.3-3]`.
pub const TOPIC_BYTES_MAX: usize = 65_535;

/// The prefix of a shared subscription, `$share/{name}/{filter}` `[MQTT-4.8.2-1]`.
const SHARE_PREFIX: &str = "$share/";

/// Why a string is not a topic name or a topic filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Names and filters have at least one character `[MQTT-4.7.3-1]`.
    #[error("it is empty")]
    Empty,
    /// Longer than [`TOPIC_BYTES_MAX`] bytes `[MQTT-4.7.3-3]`.
    #[error("it is longer than 65,535 bytes")]
    TooLong,
    /// U+0000 `[MQTT-4.7.3-2]`.
    #[error("it contains the null character U+0000")]
    Null,
    /// A topic name with `+` or `#` in it `[MQTT-3.3.2-2]`.
    #[error("a topic name must not contain the wildcards '+' or '#'")]
    WildcardInName,
    /// `#` is neither alone nor behind a separator, or not the last character `[MQTT-4.7.1-1]`.
    #[error("'#' must be the last level of a filter and stand alone in it")]
    MultiLevelWildcard,
    /// `+` does not fill its level `[MQTT-4.7.1-2]`.
    #[error("'+' must stand alone in its level")]
    SingleLevelWildcard,
    /// The share name is empty or has `/`, `+` or `#` in it `[MQTT-4.8.2-1]`.
    #[error("a share name must have at least one character and none of '/', '+', '#'")]
    ShareName,
    /// `$share/{name}` without a filter behind it `[MQTT-4.8.2-2]`.
    #[error("a share name must be followed by '/' and a filter")]
    ShareFilter,
}

/// The name of one topic: what a message is published to. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicName(Arc<str>);

impl TopicName {
    /// Checks `name` and takes it over.
    ///
    /// # Errors
    /// [`TopicError`] with what the specification forbids in it.
    pub fn new(name: &str) -> Result<Self, TopicError> {
        check_text(name)?;
        if name.bytes().any(|byte| byte == b'+' || byte == b'#') {
            return Err(TopicError::WildcardInName);
        }
        Ok(Self(Arc::from(name)))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The levels of the name, from left to right. `/a` has two, the first empty.
    pub fn levels(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

/// A pattern over topic names, without a share name. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicFilter(Arc<str>);

impl TopicFilter {
    /// Checks `filter` and takes it over. `$share/...` is an ordinary filter here; see [`Subscribable::parse`].
    ///
    /// # Errors
    /// [`TopicError`] with what the specification forbids in it.
    pub fn new(filter: &str) -> Result<Self, TopicError> {
        check_text(filter)?;
        let mut levels = filter.split('/').peekable();
        while let Some(level) = levels.next() {
            if level.contains('#') && (level != "#" || levels.peek().is_some()) {
                return Err(TopicError::MultiLevelWildcard);
            }
            if level.contains('+') && level != "+" {
                return Err(TopicError::SingleLevelWildcard);
            }
        }
        Ok(Self(Arc::from(filter)))
    }

    /// The filter as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The levels of the filter, from left to right.
    pub fn levels(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// Whether `+` or `#` occurs in it.
    #[must_use]
    pub fn has_wildcard(&self) -> bool {
        self.0.bytes().any(|byte| byte == b'+' || byte == b'#')
    }

    /// Whether `topic` matches `[MQTT-4.7.1-1]` to `[MQTT-4.7.3-4]`. A topic that begins with `$` is not
    /// matched by a filter that begins with a wildcard `[MQTT-4.7.2-1]`.
    #[must_use]
    pub fn matches(&self, topic: &str) -> bool {
        filter_matches(&self.0, topic)
    }

    /// Whether every topic that `other` matches is matched by `self` too: used to decide whether a right
    /// covers a subscription.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let starts_wild = self.0.starts_with(['+', '#']);
        if starts_wild && other.0.starts_with('$') {
            return false;
        }
        let mut mine = self.levels();
        let mut theirs = other.levels();
        loop {
            match (mine.next(), theirs.next()) {
                (Some("#"), _) | (None, None) => return true,
                (Some("+"), Some(level)) if level != "#" => {}
                (Some(left), Some(right)) if left == right => {}
                _ => return false,
            }
        }
    }
}

/// What a SUBSCRIBE asks for: a filter, with a share name or without.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subscribable {
    /// The share name of `$share/{name}/{filter}`.
    pub share: Option<Arc<str>>,
    /// The filter that topics are matched against.
    pub filter: TopicFilter,
}

impl Subscribable {
    /// Takes `$share/{name}/{filter}` apart, or takes a plain filter as it is.
    ///
    /// # Errors
    /// [`TopicError`] with what the specification forbids in it.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        check_text(text)?;
        let Some(rest) = text.strip_prefix(SHARE_PREFIX) else {
            if text == "$share" {
                return Err(TopicError::ShareName);
            }
            return Ok(Self { share: None, filter: TopicFilter::new(text)? });
        };
        let Some((name, filter)) = rest.split_once('/') else {
            return Err(if rest.is_empty() || rest.contains(['+', '#']) {
                TopicError::ShareName
            } else {
                TopicError::ShareFilter
            });
        };
        if name.is_empty() || name.contains(['+', '#']) {
            return Err(TopicError::ShareName);
        }
        if filter.is_empty() {
            return Err(TopicError::ShareFilter);
        }
        Ok(Self { share: Some(Arc::from(name)), filter: TopicFilter::new(filter)? })
    }
}

impl fmt::Display for Subscribable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.share {
            Some(name) => write!(out, "{SHARE_PREFIX}{name}/{}", self.filter),
            None => out.write_str(&self.filter),
        }
    }
}

fn check_text(text: &str) -> Result<(), TopicError> {
    if text.is_empty() {
        return Err(TopicError::Empty);
    }
    if text.len() > TOPIC_BYTES_MAX {
        return Err(TopicError::TooLong);
    }
    if text.bytes().any(|byte| byte == 0) {
        return Err(TopicError::Null);
    }
    Ok(())
}

fn filter_matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut wanted = filter.split('/');
    let mut given = topic.split('/');
    loop {
        match (wanted.next(), given.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(left), Some(right)) if left == right => {}
            _ => return false,
        }
    }
}

macro_rules! text_like {
    ($type:ty) => {
        impl Deref for $type {
            type Target = str;
            fn deref(&self) -> &str {
                &self.0
            }
        }
        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(&self.0)
            }
        }
        impl std::str::FromStr for $type {
            type Err = TopicError;
            fn from_str(text: &str) -> Result<Self, TopicError> {
                Self::new(text)
            }
        }
    };
}
text_like!(TopicName);
text_like!(TopicFilter);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(filter: &str, topic: &str) -> bool {
        TopicFilter::new(filter).is_ok_and(|filter| filter.matches(topic))
    }

    #[test]
    fn the_matching_table_of_the_specification_holds() {
        for (filter, topic, expected) in [
            ("sport/#", "sport", true),
            ("sport/#", "sport/a/b", true),
            ("sport/#", "sports", false),
            ("+", "a", true),
            ("+", "a/b", false),
            ("+", "/a", false),
            ("/+", "/a", true),
            ("+/+", "/a", true),
            ("a/+/c", "a//c", true),
            ("a/+", "a", false),
            ("a/+", "a/", true),
            ("#", "$SYS/x", false),
            ("+/x", "$SYS/x", false),
            ("$SYS/#", "$SYS/x", true),
            ("$SYS/+", "$SYS/x", true),
            ("A", "a", false),
            ("a/", "a", false),
            ("#", "/", true),
            ("\u{e9}", "e\u{301}", false),
            ("センサー/+/リビングルーム", "センサー/温度/リビングルーム", true),
        ] {
            assert_eq!(matches(filter, topic), expected, "{filter} ~ {topic}");
        }
    }

    #[test]
    fn bad_names_and_filters_are_refused_with_the_exact_reason() {
        assert_eq!(TopicName::new(""), Err(TopicError::Empty));
        assert_eq!(TopicName::new("a\0b"), Err(TopicError::Null));
        assert_eq!(TopicName::new("a/+"), Err(TopicError::WildcardInName));
        assert_eq!(TopicName::new("a#"), Err(TopicError::WildcardInName));
        assert_eq!(TopicName::new(&"x".repeat(65_536)), Err(TopicError::TooLong));
        assert_eq!(TopicFilter::new("a/#/b"), Err(TopicError::MultiLevelWildcard));
        assert_eq!(TopicFilter::new("a#"), Err(TopicError::MultiLevelWildcard));
        assert_eq!(TopicFilter::new("a/b+"), Err(TopicError::SingleLevelWildcard));
        assert!(TopicName::new("\u{feff}a").is_ok(), "a byte order mark is kept");
    }

    #[test]
    fn shared_subscriptions_are_taken_apart() {
        let shared = Subscribable::parse("$share/g/a/+").unwrap();
        assert_eq!((shared.share.as_deref(), &*shared.filter), (Some("g"), "a/+"));
        assert_eq!(shared.to_string(), "$share/g/a/+");
        for (text, reason) in [
            ("$share//t", TopicError::ShareName),
            ("$share", TopicError::ShareName),
            ("$share/", TopicError::ShareName),
            ("$share/g", TopicError::ShareFilter),
            ("$share/g/", TopicError::ShareFilter),
            ("$share/g+/t", TopicError::ShareName),
            ("$share/g/a#", TopicError::MultiLevelWildcard),
        ] {
            assert_eq!(Subscribable::parse(text), Err(reason), "{text}");
        }
        assert_eq!(Subscribable::parse("$shared/g/t").unwrap().share, None);
        assert_eq!(Subscribable::parse("$share/g//").unwrap().filter.as_str(), "/");
    }

    #[test]
    fn covering_is_decided_level_by_level() {
        for (wide, narrow, expected) in [
            ("a/#", "a/b/+", true),
            ("a/#", "a", true),
            ("a/#", "a/#", true),
            ("a/+", "a/#", false),
            ("+", "#", false),
            ("a/+", "a/b", true),
            ("a/b", "a/+", false),
            ("#", "$SYS/#", false),
            ("$SYS/#", "$SYS/a", true),
        ] {
            let covers = TopicFilter::new(wide).unwrap().covers(&TopicFilter::new(narrow).unwrap());
            assert_eq!(covers, expected, "{wide} covers {narrow}");
        }
    }

    fn level() -> impl Strategy<Value = String> {
        prop_oneof!["[ab]{0,2}", Just("+".to_owned()), Just("$x".to_owned())]
    }

    proptest! {
        #[test]
        fn what_a_covering_filter_is_asked_it_answers_like_the_covered_one(
            wide in proptest::collection::vec(level(), 1..4),
            wide_tail in any::<bool>(),
            narrow in proptest::collection::vec(level(), 1..4),
            narrow_tail in any::<bool>(),
            topic in proptest::collection::vec(prop_oneof!["[ab]{0,2}", Just("$x".to_owned())], 1..5),
        ) {
            let build = |levels: Vec<String>, tail: bool| {
                let mut text = levels.join("/");
                if tail { text.push_str("/#"); }
                TopicFilter::new(&text)
            };
            if let (Ok(wide), Ok(narrow)) = (build(wide, wide_tail), build(narrow, narrow_tail)) {
                let topic = topic.join("/");
                if wide.covers(&narrow) && !topic.is_empty() && narrow.matches(&topic) {
                    prop_assert!(wide.matches(&topic), "{wide} covers {narrow} but not {topic}");
                }
            }
        }
    }
}
