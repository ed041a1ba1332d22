//! Filters and topics: what is one, what matches what, and that both look-ups of the broker say the same.

use weirmq_core::topic::{Subscribable, TopicFilter, TopicName};

use super::clients::Line;

/// Three lines: a filter, a topic, another filter.
///
/// # Panics
/// Where the broker is of another mind than the rules below, which were written after the standard and not after the
/// broker.
pub(crate) fn filter(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let mut lines = text.splitn(3, '\n');
    let (filter, topic) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let other = lines.next().unwrap_or_default();
    for text in [filter, topic, other] {
        assert_eq!(TopicFilter::new(text).is_ok(), is_filter(text), "is {text:?} a filter?");
        assert_eq!(TopicName::new(text).is_ok(), is_name(text), "is {text:?} a topic name?");
        let shared = Subscribable::parse(text);
        let expected = subscribable(text);
        assert_eq!(shared.is_ok(), expected.is_some(), "can one subscribe to {text:?}?");
        if let (Ok(shared), Some((share, filter))) = (shared, expected) {
            assert_eq!((shared.share.as_deref(), shared.filter.as_str()), (share, filter));
            assert_eq!(shared.to_string(), text);
        }
    }
    let Ok(first) = TopicFilter::new(filter) else { return };
    assert_eq!(first.has_wildcard(), filter.contains(['+', '#']));
    if !is_name(topic) {
        return;
    }
    let expected = matches(filter, topic);
    assert_eq!(first.matches(topic), expected, "does {filter:?} match {topic:?}?");
    if let Ok(second) = TopicFilter::new(other)
        && first.covers(&second)
        && second.matches(topic)
    {
        assert!(expected, "{filter:?} covers {other:?}, but does not match {topic:?}");
    }
    look_up(filter, topic);
}

/// Chars, not levels: a wildcard has a separator or nothing on each side that counts.
fn is_filter(text: &str) -> bool {
    let chars: Vec<char> = text.chars().collect();
    let separated = |place: Option<usize>| place.and_then(|place| chars.get(place)).is_none_or(|c| *c == '/');
    let good = |(place, char): (usize, &char)| match char {
        '\0' => false,
        '#' => separated(place.checked_sub(1)) && place + 1 == chars.len(),
        '+' => separated(place.checked_sub(1)) && separated(Some(place + 1)),
        _ => true,
    };
    !chars.is_empty() && text.len() <= 65_535 && chars.iter().enumerate().all(good)
}

fn is_name(text: &str) -> bool {
    is_filter(text) && !text.contains(['+', '#'])
}

fn subscribable(text: &str) -> Option<(Option<&str>, &str)> {
    let mut parts = text.splitn(3, '/');
    if parts.next() != Some("$share") {
        return is_filter(text).then_some((None, text));
    }
    let (name, filter) = (parts.next()?, parts.next()?);
    let named = !name.is_empty() && !name.contains(['+', '#', '\0']);
    (named && is_filter(filter) && text.len() <= 65_535).then_some((Some(name), filter))
}

fn matches(filter: &str, topic: &str) -> bool {
    fn below(filter: &[&str], topic: &[&str]) -> bool {
        match (filter, topic) {
            (["#"], _) | ([], []) => true,
            ([wanted, filter @ ..], [level, topic @ ..]) => {
                (*wanted == "+" || wanted == level) && below(filter, topic)
            }
            _ => false,
        }
    }
    let (filter, topic): (Vec<&str>, Vec<&str>) = (filter.split('/').collect(), topic.split('/').collect());
    let hidden = topic.first().is_some_and(|level| level.starts_with('$'));
    let wild = matches!(filter.first(), Some(&"+" | &"#"));
    !(hidden && wild) && below(&filter, &topic)
}

/// A subscriber gets a message, and what was retained, where its filter matches.
fn look_up(filter: &str, topic: &str) {
    // `$share/..` is an ordinary filter to the matching rule, and something else to SUBSCRIBE.
    if filter.split('/').next() == Some("$share") || filter.len() + topic.len() > 200 {
        return;
    }
    let expected = matches(filter, topic);
    let broker = super::clients::roomy_broker();
    let (mut subscriber, mut publisher) = (Line::connected(&broker, "s"), Line::connected(&broker, "p"));
    subscriber.subscribe(filter);
    publisher.publish(topic, "live", false);
    assert_eq!(
        subscriber.payloads(),
        if expected { vec!["live"] } else { vec![] },
        "{filter:?} and {topic:?}"
    );
    publisher.publish(topic, "kept", true);
    let mut late = Line::connected(&broker, "late");
    late.subscribe(filter);
    assert_eq!(late.payloads(), if expected { vec!["kept"] } else { vec![] }, "{filter:?} and {topic:?}");
}
