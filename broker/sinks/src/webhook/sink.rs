//! Posts records.

use std::error::Error;
use std::sync::Arc;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, Url};
use tokio::task::JoinSet;

use super::retry_after;
use crate::disk;
use crate::engine::{Entry, Sink, Stop, Verdict, Writing};
use crate::json::Fields;

/// How much of an answer is read, in bytes: enough to use the connection again after any usual one.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// How much of an answer goes into the reason of a dead letter, in characters.
const REASON_CHARS_MAX: usize = 200;

/// An endpoint and a way to talk to it.
pub(super) struct WebhookSink {
    endpoint: Arc<Endpoint>,
}

struct Endpoint {
    client: Client,
    url: Url,
    headers: HeaderMap,
}

impl WebhookSink {
    /// Posts to `url` with `headers`, which may say another content type.
    pub(super) fn new(client: Client, url: Url, headers: HeaderMap) -> Self {
        let mut all = HeaderMap::new();
        all.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        all.extend(headers);
        Self { endpoint: Arc::new(Endpoint { client, url, headers: all }) }
    }
}

impl Sink for WebhookSink {
    /// Posts the whole batch at once: the batch is no larger than the configured concurrency. A request under way
    /// at a stop is given up.
    fn write<'a>(&'a mut self, batch: &'a [Arc<Entry>], stop: &'a Stop) -> Writing<'a> {
        Box::pin(async move {
            let mut verdicts = vec![Verdict::Untried; batch.len()];
            let mut requests = JoinSet::new();
            for (verdict_of, entry) in batch.iter().enumerate() {
                let (endpoint, entry) = (Arc::clone(&self.endpoint), Arc::clone(entry));
                requests.spawn(async move { (verdict_of, endpoint.post(&entry).await) });
            }
            loop {
                let answered = tokio::select! {
                    biased;
                    answered = requests.join_next() => answered,
                    () = stop.set() => return verdicts,
                };
                let Some(answered) = answered else { return verdicts };
                let Ok((number, verdict)) = answered else { continue };
                if let Some(place) = verdicts.get_mut(number) {
                    *place = verdict;
                }
            }
        })
    }
}

impl Endpoint {
    async fn post(&self, entry: &Entry) -> Verdict {
        let body = match serde_json::to_vec(&Fields(&entry.record.fields)) {
            Ok(body) => body,
            Err(error) => return Verdict::Rejected(format!("it cannot be told in JSON: {error}")),
        };
        let request = self
            .client
            .post(self.url.clone())
            .headers(self.headers.clone())
            .header("Idempotency-Key", entry.id.to_string())
            .body(body);
        match request.send().await {
            Ok(answer) => judge(answer).await,
            Err(error) => Verdict::retry(told(&error)),
        }
    }
}

async fn judge(answer: Response) -> Verdict {
    let status = answer.status();
    let after = answer
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| retry_after::parse(value.to_str().ok()?, disk::unix_ms() / 1_000));
    let beginning = read_beginning(answer).await;
    if status.is_success() {
        return Verdict::Written;
    }
    let reason = format!("the answer was {status}{beginning}");
    if status.is_redirection() {
        let reason = format!("{reason}; redirects are not followed: put the address they lead to into `url`");
        return Verdict::Retry { reason, after };
    }
    if heals(status) { Verdict::Retry { reason, after } } else { Verdict::Rejected(reason) }
}

/// Whether another time may bring another answer.
fn heals(status: StatusCode) -> bool {
    let again = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
    !status.is_client_error() || again.contains(&status)
}

/// How the answer begins, as text on one line for the end of a reason; what the status says is enough when it
/// breaks off.
async fn read_beginning(mut answer: Response) -> String {
    let mut bytes = Vec::new();
    let mut length = 0_usize;
    while let Ok(Some(chunk)) = answer.chunk().await {
        length = length.saturating_add(chunk.len());
        bytes.extend(chunk.iter().take((REASON_CHARS_MAX * 4).saturating_sub(bytes.len())));
        if length >= ANSWER_BYTES_MAX {
            break;
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    let line: String =
        text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(REASON_CHARS_MAX).collect();
    if line.is_empty() { line } else { format!(": {line}") }
}

/// An error with all its causes, without the URL, which may hold secrets.
pub(super) fn told(error: &reqwest::Error) -> String {
    let mut text = if error.is_timeout() {
        "no answer in time".to_owned()
    } else if error.is_connect() {
        "no connection".to_owned()
    } else {
        "the request failed".to_owned()
    };
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}
