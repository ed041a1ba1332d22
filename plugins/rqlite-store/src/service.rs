//! Requests to rqlite, and its answers.

use serde::Deserialize;
use serde_json::Value;
use weirmq_plugin::host::{self, HttpError, Request, Response};
use weirmq_plugin::{Pair, Refusal};

/// How much of a text of rqlite goes to the log.
const REASON_BYTES_MAX: usize = 200;

/// How often a request is sent whose connection breaks off: what it does is the same however often it is done.
const ATTEMPTS_MAX: usize = 3;

/// Where rqlite answers.
pub(crate) struct Service {
    url: String,
    headers: Vec<Pair>,
}

/// The body of an answer.
#[derive(Debug, Deserialize)]
struct Body {
    #[serde(default)]
    results: Vec<Outcome>,
    error: Option<String>,
}

/// What became of one statement.
#[derive(Debug, Deserialize)]
struct Outcome {
    error: Option<String>,
    #[serde(default)]
    values: Vec<Vec<Value>>,
}

impl Service {
    pub(crate) fn new(url: &str, authorization: String) -> Self {
        let header = |name: &str, value: String| Pair { name: name.to_owned(), value };
        let headers = vec![
            header("content-type", "application/json".to_owned()),
            header("authorization", authorization),
        ];
        Self { url: url.to_owned(), headers }
    }

    /// Executes these statements, each with its parameters behind it, all or none.
    pub(crate) fn execute(&self, statements: &[Value]) -> Result<(), Refusal> {
        let outcomes = self.ask("/db/execute?transaction", statements)?;
        if outcomes.len() == statements.len() {
            return Ok(());
        }
        Err(Refusal::Failed(format!("rqlite tells of {} of {} statements", outcomes.len(), statements.len())))
    }

    /// The rows of a query, as the cluster has them.
    pub(crate) fn query(&self, statement: &Value) -> Result<Vec<Vec<Value>>, Refusal> {
        let outcomes = self.ask("/db/query?level=strong", std::slice::from_ref(statement))?;
        let first = outcomes.into_iter().next();
        first.map(|outcome| outcome.values).ok_or_else(|| Refusal::Failed("rqlite tells nothing".to_owned()))
    }

    fn ask(&self, path: &str, statements: &[Value]) -> Result<Vec<Outcome>, Refusal> {
        let failed = |why: String| Refusal::Failed(format!("rqlite at {}: {why}", self.url));
        let request = Request {
            method: "POST".to_owned(),
            url: format!("{}{path}", self.url),
            headers: self.headers.clone(),
            body: Value::from(statements).to_string().into_bytes(),
            timeout_ms: None,
        };
        let response = send(&request).map_err(|error| failed(in_words(error)))?;
        if response.status != 200 {
            let text = String::from_utf8_lossy(&response.body);
            return Err(failed(format!("it answered with status {}: {}", response.status, shortened(&text))));
        }
        let body: Body = serde_json::from_slice(&response.body)
            .map_err(|error| failed(format!("it answered what is no answer: {error}")))?;
        let errors =
            body.error.into_iter().chain(body.results.iter().filter_map(|outcome| outcome.error.clone()));
        match errors.into_iter().next() {
            None => Ok(body.results),
            Some(error) if error.contains("disk is full") => Err(Refusal::Full(shortened(&error))),
            Some(error) if error.contains("CHECK constraint failed") => {
                Err(failed("another broker has opened the store since".to_owned()))
            }
            Some(error) => Err(failed(shortened(&error))),
        }
    }
}

fn send(request: &Request) -> Result<Response, HttpError> {
    let mut attempts_left = ATTEMPTS_MAX;
    loop {
        attempts_left -= 1;
        match host::send(request) {
            Err(HttpError::Unreachable(_)) if attempts_left > 0 => {}
            outcome => return outcome,
        }
    }
}

fn shortened(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(REASON_BYTES_MAX).collect()
}

fn in_words(error: HttpError) -> String {
    match error {
        HttpError::Timeout => "it took too long".to_owned(),
        HttpError::NotGranted(what) => format!("the broker does not let this plugin there: {what}"),
        HttpError::Unreachable(why) | HttpError::Invalid(why) => why,
        HttpError::TooLarge => "its answer is too large".to_owned(),
        HttpError::NotHere => "requests are not allowed here".to_owned(),
    }
}
