//! A tree of topic levels, used both ways round: filters that are looked up by a topic (subscriptions), and
//! topics that are looked up by a filter (retained messages). `+` and `#` are ordinary keys in it.

use std::collections::HashMap;

use foldhash::fast::RandomState;

/// What hangs at a path of the tree. A path whose value is empty, with nothing below it, is taken away.
pub(crate) trait Hung: Default {
    /// Whether there is nothing to keep.
    fn is_empty(&self) -> bool;
}

impl<T> Hung for Option<T> {
    fn is_empty(&self) -> bool {
        self.is_none()
    }
}

/// Values by path.
#[derive(Debug)]
pub(crate) struct Tree<T> {
    root: Node<T>,
    nodes: usize,
}

#[derive(Debug)]
struct Node<T> {
    value: T,
    children: HashMap<Box<str>, Node<T>, RandomState>,
}

impl<T: Hung> Default for Tree<T> {
    fn default() -> Self {
        Self { root: Node::default(), nodes: 0 }
    }
}

impl<T: Hung> Default for Node<T> {
    fn default() -> Self {
        Self { value: T::default(), children: HashMap::default() }
    }
}

impl<T: Hung> Node<T> {
    fn is_empty(&self) -> bool {
        self.value.is_empty() && self.children.is_empty()
    }
}

impl<T: Hung> Tree<T> {
    /// How many nodes there are below the root.
    pub(crate) fn nodes(&self) -> usize {
        self.nodes
    }

    /// Lets `change` see and alter what hangs at `path`; keeps the path only while its value is not empty.
    pub(crate) fn change<R>(&mut self, path: &str, change: impl FnOnce(&mut T) -> R) -> R {
        let mut node = &mut self.root;
        for level in path.split('/') {
            node = node.children.entry(Box::from(level)).or_insert_with(|| {
                self.nodes += 1;
                Node::default()
            });
        }
        let answer = change(&mut node.value);
        if node.is_empty() {
            prune(&mut self.root, Some(path), &mut self.nodes);
        }
        answer
    }

    /// What hangs at `path`, where something does.
    pub(crate) fn get(&self, path: &str) -> Option<&T> {
        let mut node = &self.root;
        for level in path.split('/') {
            node = node.children.get(level)?;
        }
        Some(&node.value)
    }

    /// Visits what hangs at every filter that `topic` matches.
    pub(crate) fn filters_of<'t>(&'t self, topic: &str, visit: &mut impl FnMut(&'t T)) {
        let wildcards = !topic.starts_with('$');
        filters_below(&self.root, Some(topic), wildcards, visit);
    }

    /// Visits everything.
    pub(crate) fn each<'t>(&'t self, visit: &mut impl FnMut(&'t T)) {
        topics_below(&self.root, Some("#"), false, visit);
    }

    /// Visits what hangs at every topic that `filter` matches.
    pub(crate) fn topics_of<'t>(&'t self, filter: &str, visit: &mut impl FnMut(&'t T)) {
        topics_below(&self.root, Some(filter), true, visit);
    }
}

/// Takes away the end of `path` that holds nothing.
fn prune<T: Hung>(node: &mut Node<T>, path: Option<&str>, nodes: &mut usize) {
    let Some(path) = path else { return };
    let (level, rest) = split(path);
    let Some(child) = node.children.get_mut(level) else { return };
    prune(child, rest, nodes);
    if child.is_empty() {
        node.children.remove(level);
        *nodes -= 1;
        if node.children.len() * 4 < node.children.capacity() {
            node.children.shrink_to_fit();
        }
    }
}

fn split(path: &str) -> (&str, Option<&str>) {
    path.split_once('/').map_or((path, None), |(level, rest)| (level, Some(rest)))
}

fn filters_below<'t, T: Hung>(
    node: &'t Node<T>,
    topic: Option<&str>,
    wildcards: bool,
    visit: &mut impl FnMut(&'t T),
) {
    if wildcards && let Some(all) = node.children.get("#") {
        visit(&all.value);
    }
    let Some(topic) = topic else {
        visit(&node.value);
        return;
    };
    let (level, rest) = split(topic);
    if let Some(child) = node.children.get(level) {
        filters_below(child, rest, true, visit);
    }
    if wildcards && let Some(child) = node.children.get("+") {
        filters_below(child, rest, true, visit);
    }
}

fn topics_below<'t, T: Hung>(
    node: &'t Node<T>,
    filter: Option<&str>,
    first: bool,
    visit: &mut impl FnMut(&'t T),
) {
    let Some(filter) = filter else {
        visit(&node.value);
        return;
    };
    let matched_by_wildcard = |level: &str| !(first && level.starts_with('$'));
    match split(filter) {
        ("#", None) => {
            if !first {
                visit(&node.value);
            }
            for (level, child) in &node.children {
                if matched_by_wildcard(level) {
                    topics_below(child, Some("#"), false, visit);
                }
            }
        }
        ("+", rest) => {
            for (level, child) in &node.children {
                if matched_by_wildcard(level) {
                    topics_below(child, rest, false, visit);
                }
            }
        }
        (level, rest) => {
            if let Some(child) = node.children.get(level) {
                topics_below(child, rest, false, visit);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::{TopicFilter, TopicName};
    use proptest::prelude::*;

    fn paths(found: &[&Option<String>]) -> Vec<String> {
        let mut found: Vec<String> = found.iter().filter_map(|value| (*value).clone()).collect();
        found.sort();
        found
    }

    fn filters_of(tree: &Tree<Option<String>>, topic: &str) -> Vec<String> {
        let mut found = Vec::new();
        tree.filters_of(topic, &mut |value| found.push(value));
        paths(&found)
    }

    fn topics_of(tree: &Tree<Option<String>>, filter: &str) -> Vec<String> {
        let mut found = Vec::new();
        tree.topics_of(filter, &mut |value| found.push(value));
        paths(&found)
    }

    #[test]
    fn what_is_taken_away_leaves_no_node() {
        let mut tree = Tree::default();
        for path in ["a/b/c", "a", "a/b/+", "#", "/", "a//c"] {
            tree.change(path, |value| *value = Some(path.to_owned()));
        }
        assert_eq!(tree.get("a/b/c"), Some(&Some("a/b/c".to_owned())));
        assert_eq!(tree.get("a/b"), Some(&None));
        for path in ["a/b/c", "a", "a/b/+", "#", "/", "a//c"] {
            tree.change(path, |value| *value = None);
        }
        tree.change("never/there", |value| *value = None);
        assert_eq!(tree.nodes(), 0);
    }

    fn level() -> impl Strategy<Value = String> {
        prop_oneof![4 => "[ab]{0,2}", 1 => Just("$s".to_owned())]
    }

    fn topics() -> impl Strategy<Value = Vec<String>> {
        let topic = proptest::collection::vec(level(), 1..4)
            .prop_map(|levels| levels.join("/"))
            .prop_filter("a topic is not empty", |topic| !topic.is_empty());
        proptest::collection::vec(topic, 1..12)
    }

    fn filters() -> impl Strategy<Value = Vec<String>> {
        let part = prop_oneof![3 => level(), 1 => Just("+".to_owned())];
        let filter = (proptest::collection::vec(part, 0..4), any::<bool>())
            .prop_map(|(mut levels, tail)| {
                if tail || levels.is_empty() {
                    levels.push("#".to_owned());
                }
                levels.join("/")
            })
            .prop_filter("a filter is not empty", |filter| !filter.is_empty());
        proptest::collection::vec(filter, 1..12)
    }

    proptest! {
        #[test]
        fn both_look_ups_agree_with_the_one_matching_rule(topics in topics(), filters in filters()) {
            let (mut by_filter, mut by_topic) = (Tree::default(), Tree::default());
            for filter in &filters {
                by_filter.change(filter, |value| *value = Some(filter.clone()));
            }
            for topic in &topics {
                by_topic.change(topic, |value| *value = Some(topic.clone()));
            }
            let matches = |filter: &String, topic: &String| {
                TopicName::new(topic).is_ok() && TopicFilter::new(filter).unwrap().matches(topic)
            };
            for topic in &topics {
                let mut expected: Vec<String> = filters.iter().filter(|f| matches(f, topic)).cloned().collect();
                expected.sort();
                expected.dedup();
                prop_assert_eq!(filters_of(&by_filter, topic), expected, "{}", topic);
            }
            for filter in &filters {
                let mut expected: Vec<String> = topics.iter().filter(|t| matches(filter, t)).cloned().collect();
                expected.sort();
                expected.dedup();
                prop_assert_eq!(topics_of(&by_topic, filter), expected, "{}", filter);
            }
        }
    }
}
