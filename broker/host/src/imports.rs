//! The functions that plugins import: from the interface's words to what the broker does.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use weirmq_core::hook::Draft;
use weirmq_core::message::HOPS_MAX;
use weirmq_core::topic::TopicName;

use crate::bindings::weirmq::plugin as imports;
use crate::bindings::weirmq::plugin::types;
use crate::convert;
use crate::grant;
use crate::instance::{Place, State, cut};
use crate::services::http::{Asked, HttpError};
use crate::services::key_value::KeyError;
use crate::services::{Consequence, Revocation, Whom, ending_code};

/// Where a logged text is cut.
pub(crate) const LOG_BYTES_MAX: usize = 4096;
/// How many log entries of one call are kept.
const LOG_ENTRIES_MAX: u32 = 32;
/// How many messages one call publishes.
const PUBLISHED_MAX: usize = 256;
/// How many bytes of randomness one question answers.
const RANDOM_BYTES_MAX: u32 = 4096;
/// How long a request takes that says nothing, at most.
const REQUEST_MAX: Duration = Duration::from_secs(600);

type Answer<T> = wasmtime::Result<T>;

/// What one call has asked for so far.
#[derive(Default)]
pub(crate) struct Passing {
    log_entries: u32,
    /// What is published when the call has ended well.
    published: Vec<Draft>,
    published_bytes: usize,
}

impl Passing {
    pub(crate) fn clear(&mut self) {
        self.log_entries = 0;
        self.published.clear();
        self.published_bytes = 0;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.published.is_empty()
    }
}

impl State {
    /// Hands on what the call has published.
    pub(crate) fn hand_on(&mut self) {
        let published = std::mem::take(&mut self.passing.published);
        if let Some(outside) = self.services.outside() {
            for draft in published {
                outside.publish(&self.plugin, draft, self.call.hops);
            }
        }
    }
}

impl imports::types::Host for State {}

impl imports::log::Host for State {
    fn log(&mut self, level: imports::log::Level, text: String) -> Answer<()> {
        // Not counted with the others: what is too much is left out, and the call goes on.
        let entries = self.passing.log_entries.saturating_add(1);
        self.passing.log_entries = entries;
        if entries > LOG_ENTRIES_MAX {
            if entries == LOG_ENTRIES_MAX.saturating_add(1) {
                tracing::warn!(
                    plugin = &*self.plugin,
                    kept = LOG_ENTRIES_MAX,
                    "the plugin logs too much in one call; the rest is left out"
                );
            }
            return Ok(());
        }
        write_log(&self.plugin, level, &text);
        Ok(())
    }
}

/// Writes what `plugin` says to the broker's log.
pub(crate) fn write_log(plugin: &str, level: imports::log::Level, text: &str) {
    use imports::log::Level;
    let text = cut(text, LOG_BYTES_MAX);
    match level {
        Level::Error => tracing::error!(target: "weirmq::plugin", plugin, "{text}"),
        Level::Warn => tracing::warn!(target: "weirmq::plugin", plugin, "{text}"),
        Level::Info => tracing::info!(target: "weirmq::plugin", plugin, "{text}"),
        Level::Debug => tracing::debug!(target: "weirmq::plugin", plugin, "{text}"),
        Level::Trace => tracing::trace!(target: "weirmq::plugin", plugin, "{text}"),
    }
}

impl imports::config::Host for State {
    fn get(&mut self, key: String) -> Answer<Option<String>> {
        self.count_host_call()?;
        Ok(self.config.value(&key))
    }

    fn all(&mut self) -> Answer<String> {
        self.count_host_call()?;
        Ok(self.config.text().to_owned())
    }
}

impl imports::clock::Host for State {
    // What is asked again and again to wait is bounded by the deadline, and costs the broker nothing.
    fn now_unix_ms(&mut self) -> Answer<u64> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn monotonic_us(&mut self) -> Answer<u64> {
        static ORIGIN: OnceLock<Instant> = OnceLock::new();
        Ok(u64::try_from(ORIGIN.get_or_init(Instant::now).elapsed().as_micros()).unwrap_or(u64::MAX))
    }
}

impl imports::random::Host for State {
    fn bytes(&mut self, count: u32) -> Answer<Vec<u8>> {
        self.count_host_call()?;
        let mut bytes = vec![0; count.min(RANDOM_BYTES_MAX) as usize];
        getrandom::fill(&mut bytes)
            .map_err(|error| wasmtime::Error::msg(format!("the system has no randomness: {error}")))?;
        Ok(bytes)
    }
}

impl imports::metrics::Host for State {
    fn counter_add(&mut self, name: String, amount: u64) -> Answer<()> {
        self.count_host_call()?;
        self.services.metrics.add(name, amount);
        Ok(())
    }

    fn gauge_set(&mut self, name: String, value: f64) -> Answer<()> {
        self.count_host_call()?;
        self.services.metrics.set(name, value);
        Ok(())
    }

    fn histogram_record(&mut self, name: String, value: f64) -> Answer<()> {
        self.count_host_call()?;
        self.services.metrics.record(name, value);
        Ok(())
    }
}

impl imports::secrets::Host for State {
    fn get(&mut self, name: String) -> Answer<Option<String>> {
        self.count_host_call()?;
        Ok(self.services.secrets.get(&name).map(|secret| secret.0.clone()))
    }
}

impl From<KeyError> for imports::key_value::Error {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Invalid(what) => Self::Invalid(what),
            KeyError::Full => Self::Full,
            KeyError::Failed(why) => Self::Failed(why),
        }
    }
}

impl imports::key_value::Host for State {
    fn get(&mut self, key: String) -> Answer<Result<Option<Vec<u8>>, imports::key_value::Error>> {
        self.count_host_call()?;
        Ok(self.services.keys.get(&key).map(|value| value.map(|value| value.to_vec())).map_err(Into::into))
    }

    fn set(&mut self, key: String, value: Vec<u8>) -> Answer<Result<(), imports::key_value::Error>> {
        self.count_host_call()?;
        Ok(self.services.keys.set(&key, value).map_err(Into::into))
    }

    fn compare_and_set(
        &mut self,
        key: String,
        expected: Option<Vec<u8>>,
        value: Vec<u8>,
    ) -> Answer<Result<bool, imports::key_value::Error>> {
        self.count_host_call()?;
        Ok(self.services.keys.compare_and_set(&key, expected.as_deref(), value).map_err(Into::into))
    }

    fn delete(&mut self, key: String) -> Answer<Result<bool, imports::key_value::Error>> {
        self.count_host_call()?;
        Ok(self.services.keys.delete(&key).map_err(Into::into))
    }

    fn list_keys(
        &mut self,
        prefix: String,
        after: Option<String>,
        limit: u32,
    ) -> Answer<Result<Vec<String>, imports::key_value::Error>> {
        self.count_host_call()?;
        Ok(Ok(self.services.keys.list(&prefix, after.as_deref(), limit as usize)))
    }
}

impl imports::publish::Host for State {
    fn publish(&mut self, message: types::Draft) -> Answer<Result<(), imports::publish::Error>> {
        self.count_host_call()?;
        Ok(self.take_message(message))
    }
}

impl State {
    fn take_message(&mut self, message: types::Draft) -> Result<(), imports::publish::Error> {
        use imports::publish::Error;
        let draft = convert::draft(message).map_err(|failure| Error::Invalid(failure.detail))?;
        let topic = TopicName::new(&draft.topic).map_err(|error| Error::Invalid(error.to_string()))?;
        if !grant::matches(&self.services.publish, &topic) {
            return Err(Error::NotGranted);
        }
        if self.call.hops > HOPS_MAX {
            return Err(Error::Loops);
        }
        let bytes = self.passing.published_bytes.saturating_add(draft.topic.len() + draft.payload.len());
        let is_full = self.passing.published.len() >= PUBLISHED_MAX || bytes > self.output_bytes_max;
        let has_room = self.services.outside().is_some_and(|outside| outside.has_room());
        if is_full || !has_room {
            return Err(Error::Busy);
        }
        self.passing.published_bytes = bytes;
        self.passing.published.push(draft);
        Ok(())
    }
}

impl From<HttpError> for imports::http::Error {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::NotGranted(which) => Self::NotGranted(which),
            HttpError::Invalid(what) => Self::Invalid(what),
            HttpError::Unreachable(why) => Self::Unreachable(why),
            HttpError::Timeout => Self::Timeout,
            HttpError::TooLarge => Self::TooLarge,
        }
    }
}

impl imports::http::Host for State {
    fn send(
        &mut self,
        request: imports::http::Request,
    ) -> Answer<Result<imports::http::Response, imports::http::Error>> {
        self.count_host_call()?;
        let http = match &self.services.http {
            Some(http) if self.call.place == Place::Aside => http,
            _ => return Ok(Err(imports::http::Error::NotHere)),
        };
        let asked_max = request.timeout_ms.map_or(REQUEST_MAX, |ms| Duration::from_millis(ms.into()));
        let asked = Asked {
            method: request.method,
            url: request.url,
            headers: request.headers.into_iter().map(|pair| (pair.name, pair.value)).collect(),
            body: request.body,
        };
        let answer = http.send(asked, asked_max.min(self.time_left()), self.output_bytes_max);
        Ok(answer.map_err(Into::into).map(|answer| imports::http::Response {
            status: answer.status,
            headers: answer
                .headers
                .into_iter()
                .map(|(name, value)| types::PairResult { name, value })
                .collect(),
            body: answer.body,
        }))
    }
}

impl imports::revoke::Host for State {
    fn revoke(
        &mut self,
        whom: imports::revoke::Whom,
        consequence: imports::revoke::Consequence,
        reason: String,
    ) -> Answer<Result<(), String>> {
        use imports::revoke::{Consequence as Asked, Whom as AskedWhom};
        self.count_host_call()?;
        let consequence = match consequence {
            Asked::AskAgain => Consequence::AskAgain,
            Asked::End(code) => match ending_code(code) {
                Ok(code) => Consequence::End(code),
                Err(why) => return Ok(Err(why)),
            },
        };
        let whom = match whom {
            AskedWhom::Principal(principal) => Whom::Principal(principal.into()),
            AskedWhom::Client(client_id) => Whom::Client(client_id.into()),
            AskedWhom::Everyone => Whom::Everyone,
        };
        let Some(outside) = self.services.outside() else {
            return Ok(Err("the broker does not run yet: nobody is connected".to_owned()));
        };
        let reason = cut(&reason, LOG_BYTES_MAX).to_owned();
        Ok(outside.revoke(&self.plugin, Revocation { whom, consequence, reason }))
    }
}
