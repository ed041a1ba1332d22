//! The configuration's text and where everything in it stands.

use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

/// After so many mistakes the rest is left for the next try.
const MISTAKES_MAX: usize = 50;

/// A TOML text, parsed with positions.
pub(super) struct Document<'t> {
    text: &'t str,
    root: Spanned<DeTable<'t>>,
}

/// A place in a text. Both count from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

/// The way to a value: keys, and places in arrays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Path(pub(super) Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

impl<'t> Document<'t> {
    /// Parses `text`.
    ///
    /// # Errors
    /// The position and the parser's words, where it is no TOML.
    pub(super) fn parse(text: &'t str) -> Result<Self, (Position, String)> {
        let root = DeTable::parse(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            (position(text, at), error.message().to_owned())
        })?;
        Ok(Self { text, root })
    }

    /// Reads the whole document as a `T`, together with all that does not belong in one. What is wrong is left
    /// out and the rest is read again, so that one mistake does not hide the next; the errors' spans are those
    /// of the whole document. `None` where what is left is no `T` either.
    pub(super) fn read<T: for<'d> Deserialize<'d>>(&self) -> (Option<T>, Vec<toml::de::Error>) {
        let mut rest = self.root.clone();
        let mut mistakes: Vec<toml::de::Error> = Vec::new();
        while mistakes.len() < MISTAKES_MAX {
            let error = match T::deserialize(toml::Deserializer::from(rest.clone())) {
                Ok(value) => return (Some(value), mistakes),
                Err(error) => error,
            };
            let mut path = Path::default();
            let found = error.span().is_some_and(|span| find_in_table(rest.get_ref(), &span, &mut path));
            // A table that lacks a key because that key's value was left out says nothing new.
            let follows = error.message().starts_with("missing field")
                && error.span().is_some_and(|span| mistakes.iter().any(|known| self.is_within(known, &span)));
            if !follows {
                mistakes.push(error);
            }
            if !found || !remove_from_table(rest.get_mut(), &path.0) {
                return (None, mistakes);
            }
        }
        (None, mistakes)
    }

    /// Whether `mistake` was made in the table whose header or braces are at `table`.
    fn is_within(&self, mistake: &toml::de::Error, table: &Range<usize>) -> bool {
        let Some(span) = mistake.span() else { return false };
        let (inner, outer) = (self.path_at(&span), self.path_at(table));
        inner != outer && inner.0.starts_with(&outer.0)
    }

    pub(super) fn position(&self, offset: usize) -> Position {
        position(self.text, offset)
    }

    /// The key or value at `span`: the innermost whose own span holds it.
    pub(super) fn path_at(&self, span: &Range<usize>) -> Path {
        let mut path = Path::default();
        // The table of `[a.b]` and of `[[a]]` ends where its header ends: no span holds what follows. So the
        // whole tree is walked; it is as large as the file.
        find_in_table(self.root.get_ref(), span, &mut path);
        path
    }

    /// Where the value at `path` stands, or the nearest thing above it that is written down.
    pub(super) fn position_of(&self, path: &Path) -> Position {
        let mut at = 0;
        let mut here = Node::Table(self.root.get_ref());
        for step in &path.0 {
            let next = match (here, step) {
                (Node::Table(table), Step::Key(name)) => {
                    table.iter().find(|(key, _)| key.get_ref() == name).map(|(key, value)| {
                        // A value that is a table stands where its header or its key stands.
                        let start =
                            if value.get_ref().is_table() { value.span().start } else { key.span().start };
                        (start, value)
                    })
                }
                (Node::Value(DeValue::Array(array)), Step::Index(index)) => {
                    array.get(*index).map(|value| (value.span().start, value))
                }
                _ => None,
            };
            let Some((start, value)) = next else { break };
            at = start;
            here = match value.get_ref() {
                DeValue::Table(table) => Node::Table(table),
                value => Node::Value(value),
            };
        }
        self.position(at)
    }

    /// The text of the key `key` in each table of the array of tables at `keys`, with the way to it.
    pub(super) fn texts_in_each(&self, keys: &[&str], key: &str) -> Vec<(Path, String)> {
        let Some(tables) = self.array(keys) else { return Vec::new() };
        let mut found = Vec::new();
        for (index, table) in tables.iter().enumerate() {
            let DeValue::Table(table) = table.get_ref() else { continue };
            let Some(DeValue::String(text)) = table.get(key).map(Spanned::get_ref) else { continue };
            let path = Path::of(keys).then(Step::Index(index)).then(Step::Key(key.to_owned()));
            found.push((path, text.to_string()));
        }
        found
    }

    fn array(&self, keys: &[&str]) -> Option<&DeArray<'t>> {
        let (last, tables) = keys.split_last()?;
        let mut table = self.root.get_ref();
        for key in tables {
            let DeValue::Table(inner) = table.get(*key)?.get_ref() else { return None };
            table = inner;
        }
        match table.get(*last)?.get_ref() {
            DeValue::Array(array) => Some(array),
            _ => None,
        }
    }
}

impl Path {
    pub(super) fn of(keys: &[&str]) -> Self {
        Self(keys.iter().map(|key| Step::Key((*key).to_owned())).collect())
    }

    pub(super) fn then(mut self, step: Step) -> Self {
        self.0.push(step);
        self
    }

    /// The last key, and the table that it is in as a header would have it.
    pub(super) fn key_and_table(&self) -> Option<(&str, String)> {
        let at = self.0.iter().rposition(|step| matches!(step, Step::Key(_)))?;
        let Some(Step::Key(key)) = self.0.get(at) else { return None };
        Some((key, header(self.0.get(..at).unwrap_or_default())))
    }

    /// The table at this path as a header would have it: `[limits]`, `[[listener]]`, `the top level`.
    pub(super) fn as_table(&self) -> String {
        header(&self.0)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key_and_table() {
            Some((key, table)) => write!(out, "`{key}` in {table}"),
            None => out.write_str("the file"),
        }
    }
}

#[derive(Clone, Copy)]
enum Node<'a, 't> {
    Table(&'a DeTable<'t>),
    Value(&'a DeValue<'t>),
}

fn header(steps: &[Step]) -> String {
    let keys: Vec<&str> = steps
        .iter()
        .filter_map(|step| match step {
            Step::Key(key) => Some(key.as_str()),
            Step::Index(_) => None,
        })
        .collect();
    match steps.last() {
        None => "the top level".to_owned(),
        Some(Step::Index(_)) => format!("[[{}]]", keys.join(".")),
        Some(Step::Key(_)) => format!("[{}]", keys.join(".")),
    }
}

/// Extends `path` to what stands at `span` in `table`; answers whether it is there.
fn find_in_table(table: &DeTable<'_>, span: &Range<usize>, path: &mut Path) -> bool {
    for (key, value) in table {
        path.0.push(Step::Key(key.get_ref().to_string()));
        if find_in_value(value, span, path) || holds(&key.span(), span) {
            return true;
        }
        path.0.pop();
    }
    false
}

fn find_in_value(value: &Spanned<DeValue<'_>>, span: &Range<usize>, path: &mut Path) -> bool {
    let within = match value.get_ref() {
        DeValue::Table(table) => find_in_table(table, span, path),
        DeValue::Array(array) => array.iter().enumerate().any(|(index, item)| {
            path.0.push(Step::Index(index));
            let found = find_in_value(item, span, path);
            if !found {
                path.0.pop();
            }
            found
        }),
        _ => false,
    };
    within || holds(&value.span(), span)
}

/// Takes what is at `path` out of `table`; answers whether it was there.
fn remove_from_table(table: &mut DeTable<'_>, path: &[Step]) -> bool {
    match path {
        [Step::Key(key)] => table.remove(key.as_str()).is_some(),
        [Step::Key(key), rest @ ..] => {
            table.get_mut(key.as_str()).is_some_and(|value| remove_from_value(value.get_mut(), rest))
        }
        _ => false,
    }
}

fn remove_from_value(value: &mut DeValue<'_>, path: &[Step]) -> bool {
    match (value, path) {
        (DeValue::Table(table), path) => remove_from_table(table, path),
        (DeValue::Array(array), [Step::Index(index)]) => {
            let before = array.len();
            let items = std::mem::replace(array, DeArray::new()).into_iter().enumerate();
            *array = items.filter(|(place, _)| place != index).map(|(_, item)| item).collect();
            array.len() < before
        }
        (DeValue::Array(array), [Step::Index(index), rest @ ..]) => {
            array.get_mut(*index).is_some_and(|item| remove_from_value(item.get_mut(), rest))
        }
        _ => false,
    }
}

fn holds(outer: &Range<usize>, inner: &Range<usize>) -> bool {
    !outer.is_empty() && outer.start <= inner.start && inner.end <= outer.end
}

fn position(text: &str, offset: usize) -> Position {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    let before = text.get(..offset).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Position {
        line: before.matches('\n').count() + 1,
        column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters_not_bytes() {
        assert_eq!(position("a\n温度 = 1", "a\n温度 ".len()), Position { line: 2, column: 4 });
        assert_eq!(position("", 9), Position { line: 1, column: 1 });
        assert_eq!(position("温", 1), Position { line: 1, column: 1 }, "inside a character");
    }

    #[test]
    fn a_path_is_shown_as_key_and_table_header() {
        let path = Path::of(&["sink", "sqlite"]).then(Step::Index(1)).then(Step::Key("file".into()));
        assert_eq!(path.to_string(), "`file` in [[sink.sqlite]]");
        assert_eq!(Path::of(&["limits"]).as_table(), "[limits]");
        assert_eq!(Path::of(&["limits"]).to_string(), "`limits` in the top level");
    }
}
