//! The end of the admin socket that asks.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Answer, LINE_BYTES_MAX, Request, ShadowRow};

/// How long an answer may take: compiling a large plugin takes seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "no broker answers at {}: {source}; is it running? Name its configuration with --config, or its data \
         folder with --data-folder",
        socket.display()
    )]
    NoBroker {
        /// Where it was asked.
        socket: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The conversation broke off.
    #[error("the broker at {} did not answer: {source}", socket.display())]
    NoAnswer {
        /// Where it was asked.
        socket: PathBuf,
        /// What happened.
        source: io::Error,
    },
}

/// Asks the broker whose admin socket is `socket`.
///
/// # Errors
/// [`ClientError`]. That the broker could not do it is an answer: [`Answer::Failed`].
pub fn ask(socket: &Path, request: &Request) -> Result<Answer, ClientError> {
    let stream = UnixStream::connect(socket)
        .map_err(|source| ClientError::NoBroker { socket: socket.to_owned(), source })?;
    converse(stream, request).map_err(|source| ClientError::NoAnswer { socket: socket.to_owned(), source })
}

fn converse(mut stream: UnixStream, request: &Request) -> io::Result<Answer> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut text = serde_json::to_vec(request)?;
    text.push(b'\n');
    stream.write_all(&text)?;
    let mut line = String::new();
    BufReader::new(stream.take(LINE_BYTES_MAX)).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

/// `answer` for people.
#[must_use]
pub fn in_words(answer: &Answer) -> String {
    match answer {
        Answer::Status { version, connections, plugins, rules } => {
            format!(
                "WeirMQ {version}: {connections} clients connected, {plugins} plugins serve, {rules} rules are live"
            )
        }
        Answer::Reloaded { name, before: Some(before), after } => {
            format!("plugin '{name}': version {after} serves in the place of {before}")
        }
        Answer::Reloaded { name, before: None, after } => {
            format!("plugin '{name}': version {after} serves now")
        }
        Answer::BackedUp { folder, bytes, linked, copied } => {
            format!(
                "backup in {}: {bytes} bytes, {linked} segments as hard links and {copied} as copies",
                folder.display()
            )
        }
        Answer::Done { what } => what.clone(),
        Answer::Failed { error } => error.clone(),
        Answer::Client { id, principal, connected, subscriptions, pending, dropped } => {
            let how = if *connected { "connected" } else { "not connected" };
            let mut text = format!(
                "client '{id}' ({principal}): {how}, {subscriptions} subscriptions, {pending} messages wait or are under way"
            );
            if dropped.is_empty() {
                text.push_str("\nevery message that it was to get was delivered or waits");
            }
            for (reason, count) in dropped {
                let _ = write!(text, "\nnot delivered: {count} ({reason})");
            }
            text
        }
        Answer::Plugins { plugins } => {
            let rows = plugins.iter().map(|row| {
                [
                    row.name.clone(),
                    row.state.in_words().to_owned(),
                    row.kind.clone().unwrap_or_default(),
                    row.version.clone().or(row.error.clone()).unwrap_or_default(),
                    row.hooks.join(", "),
                    format!("{} calls, {} failed", row.calls, row.failures),
                ]
            });
            let mut text = columns(rows.collect(), "no plugin is configured");
            for row in plugins {
                if let Some(shadow) = &row.shadow {
                    write_shadow(&mut text, &row.name, shadow);
                }
                if let Some(why) = &row.shadow_error {
                    let _ = write!(text, "\nin the shadow of {}: not loaded: {why}", row.name);
                }
            }
            text
        }
        Answer::Rules { rules, broken } => {
            let rows = rules.iter().map(|row| {
                [
                    row.name.clone(),
                    row.kind.clone(),
                    row.filter.clone(),
                    format!("{}:{}", row.file, row.line),
                    format!("{} runs, {} failed", row.runs, row.failures),
                ]
            });
            let mut text = columns(rows.collect(), "no rule is live");
            for error in broken {
                let _ = write!(text, "\nerror: {error}");
            }
            text
        }
    }
}

/// How the version in the shadow of `plugin` does.
fn write_shadow(text: &mut String, plugin: &str, shadow: &ShadowRow) {
    let sum = |counts: &BTreeMap<String, u64>| counts.values().sum::<u64>();
    let _ = write!(
        text,
        "\nin the shadow of {plugin}: {}: {} answers compared, {} differed, {} failed, {} calls left out",
        shadow.version,
        sum(&shadow.compared),
        sum(&shadow.differed),
        sum(&shadow.failures_by_kind),
        shadow.left_out
    );
    for (hook, latency) in &shadow.latency {
        let (p50, p99) = (latency.p50_ns, latency.p99_ns);
        let differed = shadow.differed.get(hook).copied().unwrap_or_default();
        let _ = write!(text, "\n  {hook}: {differed} differed; p50 {p50} ns, p99 {p99} ns");
    }
    for difference in &shadow.latest {
        let (hook, about) = (&difference.hook, &difference.about);
        let _ = write!(text, "\n  {hook}: {about}: {}; shadow: {}", difference.live, difference.shadow);
    }
}

/// Rows of equal columns, or `nothing`.
fn columns<const N: usize>(rows: Vec<[String; N]>, nothing: &str) -> String {
    if rows.is_empty() {
        return nothing.to_owned();
    }
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_below_each_other() {
        let rows = vec![["a".to_owned(), "x".to_owned()], ["温度".to_owned(), "y".to_owned()]];
        assert_eq!(columns(rows, "nothing"), "a   x\n温度  y");
        assert_eq!(columns::<2>(Vec::new(), "nothing"), "nothing");
    }
}
