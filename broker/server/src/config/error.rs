//! What is wrong with a configuration, in words that say where and what to do.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::document::{Document, Path, Position};

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is larger than any configuration that people write.
    #[error("the configuration {} is larger than {bytes_max} bytes", file.display())]
    TooLarge {
        /// The file.
        file: PathBuf,
        /// How large it may be.
        bytes_max: u64,
    },
    /// What the file says is wrong.
    #[error("{}", list(file, problems))]
    Invalid {
        /// The file.
        file: PathBuf,
        /// Everything that was found, in the order of the file. Never empty.
        problems: Vec<Problem>,
    },
    /// A broker without a configuration file, and without leave to let everybody in.
    #[error(
        "nobody could log in at {address}: without a configuration file there is no authentication. \
         To let everybody in, say so with --allow-anonymous; to check who they are, write a configuration \
         with a [[plugin]] and start with --config FILE"
    )]
    NobodyCouldLogIn {
        /// Where it was to listen.
        address: SocketAddr,
    },
    /// A broker without authentication, where others than this machine could reach it.
    #[error("{}", open_to_the_network(*address))]
    OpenToTheNetwork {
        /// Where it was to listen.
        address: SocketAddr,
    },
}

/// Why nothing listens at `address` without authentication, and what to do.
pub(crate) fn open_to_the_network(address: SocketAddr) -> String {
    format!(
        "refusing to listen at {address}: it is not a loopback address, and without authentication anybody who \
         reaches it could read and publish everything. Configure a [[plugin]] that authenticates (such as login), \
         or listen at 127.0.0.1:{port}",
        port = address.port()
    )
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where in the file.
    pub at: Position,
    /// What is wrong and what to do about it.
    pub text: String,
}

/// Puts what the deserializer found into the operator's words.
pub(super) fn explain(document: &Document<'_>, error: &toml::de::Error) -> Problem {
    let span = error.span().unwrap_or(0..0);
    let path = document.path_at(&span);
    let at = document.position(span.start);
    Problem { at, text: explain_message(error.message(), &path) }
}

fn explain_message(message: &str, path: &Path) -> String {
    if message.starts_with("unknown field ") {
        return unknown_key(message, path);
    }
    if message.starts_with("unknown variant ") {
        return unknown_value(message, path);
    }
    if let Some(key) = message.strip_prefix("missing field ") {
        return format!("{} lacks the key {key}", path.as_table());
    }
    if message.starts_with("invalid type: map")
        && message.ends_with("expected a sequence")
        && let Some((key, _)) = path.key_and_table()
    {
        let name = path.as_table();
        return format!(
            "{path} may be there more than once: write {}, with two brackets",
            name.replace(&format!("{key}]"), &format!("{key}]]")).replacen('[', "[[", 1)
        );
    }
    format!("{path}: {}", in_words(message))
}

fn unknown_key(message: &str, path: &Path) -> String {
    let quoted = quoted(message);
    let Some((key, table)) = path.key_and_table() else { return message.to_owned() };
    let known = quoted.get(1..).unwrap_or_default();
    match Nearest::of(key, known) {
        None => format!("unknown key `{key}` in {table}: it has no keys"),
        Some(nearest) => {
            format!("unknown key `{key}` in {table}; {nearest} (known here: {})", known.join(", "))
        }
    }
}

fn unknown_value(message: &str, path: &Path) -> String {
    let quoted = quoted(message);
    let value = quoted.first().copied().unwrap_or_default();
    let known = quoted.get(1..).unwrap_or_default();
    let shown: Vec<String> = known.iter().map(|value| format!("\"{value}\"")).collect();
    format!("{path} is \"{value}\"; it may be {}", shown.join(" or "))
}

/// What stands between back quotes, in order. Serde quotes what it was given and what it knows.
fn quoted(message: &str) -> Vec<&str> {
    message.split('`').skip(1).step_by(2).collect()
}

/// The known key that is most like an unknown one.
struct Nearest<'k> {
    key: &'k str,
    likely: bool,
}

impl<'k> Nearest<'k> {
    /// Above this, a key is taken for a slip of the other.
    const LIKELY: f64 = 0.5;

    fn of(unknown: &str, known: &[&'k str]) -> Option<Self> {
        let likeness =
            |key: &str| strsim::normalized_damerau_levenshtein(unknown, key).max(words_shared(unknown, key));
        let (key, likeness) = known
            .iter()
            .map(|key| (*key, likeness(key)))
            .max_by(|(_, left), (_, right)| left.total_cmp(right))?;
        Some(Self { key, likely: likeness >= Self::LIKELY })
    }
}

impl fmt::Display for Nearest<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.likely {
            write!(out, "did you mean `{}`?", self.key)
        } else {
            write!(out, "the nearest known key is `{}`", self.key)
        }
    }
}

/// How many of the words of both are in both: `max_connections` is `connections_max`.
fn words_shared(left: &str, right: &str) -> f64 {
    let words = |text: &str| -> Vec<String> { text.split(['_', '-']).map(str::to_lowercase).collect() };
    let (left, right) = (words(left), words(right));
    let shared = left.iter().filter(|word| right.contains(word)).count();
    let all = left.len() + right.len() - shared;
    #[expect(clippy::cast_precision_loss, reason = "a handful of words")]
    let ratio = shared as f64 / all.max(1) as f64;
    ratio
}

/// Rust's names for types of numbers, as people say them.
fn in_words(message: &str) -> String {
    const NUMBERS: [(&str, &str); 5] = [
        ("u8", "a whole number from 0 to 255"),
        ("u16", "a whole number from 0 to 65535"),
        ("u32", "a whole number from 0 to 4294967295"),
        ("u64", "a whole number, 0 or more"),
        ("usize", "a whole number, 0 or more"),
    ];
    let Some((found, expected)) = message.rsplit_once("expected ") else { return message.to_owned() };
    NUMBERS
        .iter()
        .find(|(name, _)| *name == expected)
        .map_or_else(|| message.to_owned(), |(_, words)| format!("{found}expected {words}"))
}

fn list(file: &std::path::Path, problems: &[Problem]) -> String {
    problems
        .iter()
        .map(|Problem { at, text }| format!("{}:{}:{}: {text}", file.display(), at.line, at.column))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nearest(unknown: &str) -> (String, bool) {
        let known = ["connections_max", "connections_per_address_max", "connect_timeout_ms", "inflight_max"];
        let nearest = Nearest::of(unknown, &known).unwrap();
        (nearest.key.to_owned(), nearest.likely)
    }

    #[test]
    fn the_nearest_key_is_found_through_slips_and_turned_words() {
        for (unknown, expected) in [
            ("conections_max", "connections_max"),
            ("max_connections", "connections_max"),
            ("max_inflight", "inflight_max"),
            ("connect_timeout", "connect_timeout_ms"),
            ("max_connections_per_address", "connections_per_address_max"),
        ] {
            assert_eq!(nearest(unknown), (expected.to_owned(), true), "{unknown}");
        }
        assert!(!nearest("zzz").1, "that is like none of them");
    }

    #[test]
    fn numbers_are_spoken_of_as_people_do() {
        assert_eq!(
            in_words("invalid value: integer `70000`, expected u16"),
            "invalid value: integer `70000`, expected a whole number from 0 to 65535"
        );
        assert_eq!(in_words("expected a boolean"), "expected a boolean");
    }
}
