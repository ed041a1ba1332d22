//! Logs to standard error, as text or JSON.

use std::io::{self, IsTerminal, Write};

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// The environment variable that goes before `level` in `[log]`.
pub const LEVEL_VARIABLE: &str = "WEIRMQ_LOG";

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Sends what the process logs from now on to standard error. Only the first call of a process counts.
///
/// # Errors
/// In words, where [`LEVEL_VARIABLE`] or the level makes no sense.
pub fn start(log: &Log) -> Result<(), String> {
    let from_environment = std::env::var(LEVEL_VARIABLE).ok().filter(|level| !level.is_empty());
    let level = from_environment.as_deref().unwrap_or(&log.level);
    check_level(level).map_err(|why| match &from_environment {
        Some(_) => format!("the environment variable {LEVEL_VARIABLE}: {why}"),
        None => why,
    })?;
    let filter = EnvFilter::try_new(level).map_err(|error| error.to_string())?;
    // Where nobody reads standard error any more, saying so there would be a panic.
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .log_internal_errors(false)
        .with_writer(|| OneLine(std::io::stderr()));
    // Somebody who uses the broker as a library may have set up logs of their own: then those count.
    let _ = match log.format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).with_ansi(false).try_init(),
    };
    Ok(())
}

/// Keeps an event on one line, whatever a client, a rule or a plugin has put into it: nobody can forge a line. An
/// event comes as one write.
struct OneLine<W>(W);

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let (body, end) = event.strip_suffix(b"\n").map_or((event, &b""[..]), |body| (body, b"\n"));
        if !body.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
            self.0.write_all(event)?;
            return Ok(event.len());
        }
        let mut line = Vec::with_capacity(event.len() + 16);
        for byte in body {
            match byte {
                b'\n' => line.extend_from_slice(b"\\n"),
                b'\r' => line.extend_from_slice(b"\\r"),
                byte => line.push(*byte),
            }
        }
        line.extend_from_slice(end);
        self.0.write_all(&line)?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Whether `level` is a level, or levels by part. A misspelt level would otherwise be taken for a part's name.
///
/// # Errors
/// In words.
pub fn check_level(level: &str) -> Result<(), String> {
    let is_level = |word: &str| LEVELS.iter().any(|known| known.eq_ignore_ascii_case(word.trim()));
    for directive in level.split(',') {
        let word = directive.rsplit_once('=').map_or(directive, |(_, level)| level);
        if !is_level(word) {
            return Err(format!(
                "\"{word}\" is no log level; there are {}, also by part: \"info,weirmq_host=debug\"",
                LEVELS.join(", ")
            ));
        }
    }
    EnvFilter::try_new(level).map(drop).map_err(|error| format!("the log level \"{level}\": {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        let mut out = OneLine(Vec::new());
        for event in ["INFO plain\n", "INFO a\nERROR forged\r\n", "WARN 温度\n"] {
            out.write_all(event.as_bytes()).unwrap();
        }
        let text = String::from_utf8(out.0).unwrap();
        assert_eq!(text, "INFO plain\nINFO a\\nERROR forged\\r\nWARN 温度\n");
    }

    #[test]
    fn a_misspelt_level_is_not_taken_for_a_part() {
        for good in ["info", "WARN", "info,weirmq_host=debug", "off"] {
            assert_eq!(check_level(good), Ok(()));
        }
        for bad in ["inof", "", "info,weirmq_host", "info,weirmq_host=loud"] {
            assert!(check_level(bad).unwrap_err().contains("error, warn, info"), "{bad}");
        }
    }
}
