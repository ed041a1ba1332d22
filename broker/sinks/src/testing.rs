//! What the tests of several modules need: records, a configuration, an HTTP server, a deadline for everything.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use weirmq_core::record::{Record, Sinks, Value};

use crate::{SinkSet, SinksConfig};

/// How long a test waits for an event before it fails.
const DEADLINE: Duration = Duration::from_secs(10);

/// What `event` brings, which must be soon.
pub(crate) async fn soon<T>(event: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, event).await.expect("it did not happen in time")
}

/// A record of sink `sink` with `fields`.
pub(crate) fn record<const N: usize>(sink: &str, fields: [(&str, Value); N]) -> Record {
    Record {
        sink: sink.into(),
        fields: fields.into_iter().map(|(name, value)| (name.into(), value)).collect(),
        rule: "a-rule".into(),
        created_unix_ms: 1_700_000_000_000,
    }
}

/// A record with nothing but a number in field `n`.
pub(crate) fn numbered(sink: &str, number: i64) -> Record {
    record(sink, [("n", Value::Int(number))])
}

/// The sinks of a table `sink` of a configuration.
pub(crate) fn parse(toml: &str) -> SinksConfig {
    toml::from_str(toml).unwrap()
}

/// The running sinks of a table `sink` of a configuration.
pub(crate) fn start(toml: &str, data_folder: &Path) -> Arc<SinkSet> {
    SinkSet::start(&parse(toml), data_folder).unwrap()
}

/// Submits records numbered so to sink `sink`.
pub(crate) fn submit_numbers(set: &SinkSet, sink: &str, numbers: impl IntoIterator<Item = i64>) {
    for number in numbers {
        set.submit(numbered(sink, number)).unwrap();
    }
}

/// Any value of a record.
pub(crate) fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        any::<f64>().prop_map(Value::Float),
        prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(f64::NEG_INFINITY), Just(-0.0)]
            .prop_map(Value::Float),
        any::<String>().prop_map(|text| Value::Text(text.into())),
        any::<Vec<u8>>().prop_map(|bytes| Value::Bytes(Bytes::from(bytes))),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::List),
            // Keys are distinct, as in the rules' own maps.
            prop::collection::btree_map(any::<String>(), inner, 0..5).prop_map(|map| Value::Map(
                map.into_iter().map(|(key, value)| (key.into(), value)).collect()
            )),
        ]
    })
}

/// A request as the server saw it.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) line: String,
    /// With names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

/// How the server answers a request.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// With a status and further header lines.
    Status(u16, &'static str),
    /// With a status and a body.
    Body(u16, String),
    /// Never.
    Silence,
    /// By closing the connection.
    HangUp,
}

/// Makes a stream of bytes of a connection: plainly, or by a TLS handshake.
pub(crate) trait Accept: Clone + Send + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send;
    fn accept(&self, connection: TcpStream) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// Plain HTTP.
#[derive(Clone)]
pub(crate) struct Plainly;

impl Accept for Plainly {
    type Stream = TcpStream;
    async fn accept(&self, connection: TcpStream) -> io::Result<TcpStream> {
        Ok(connection)
    }
}

/// A real HTTP server on a port of its own. It is down once it is dropped.
pub(crate) struct HttpServer {
    address: SocketAddr,
    requests: mpsc::UnboundedReceiver<Request>,
    _tasks: JoinSet<()>,
}

impl HttpServer {
    /// A server that answers as `script` says, and after that always with 200.
    pub(crate) async fn start(script: impl IntoIterator<Item = Answer>) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), Plainly, script).await
    }

    pub(crate) async fn start_at(
        address: SocketAddr,
        accept: impl Accept,
        script: impl IntoIterator<Item = Answer>,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(Mutex::new(script.into_iter().collect()));
        let (sender, requests) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept_all(listener, accept, script, sender));
        Self { address, requests, _tasks: tasks }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// The next request, which must come soon.
    pub(crate) async fn next(&mut self) -> Request {
        soon(self.requests.recv()).await.unwrap()
    }

    /// Whether there is a request that was not looked at.
    pub(crate) fn has_more(&self) -> bool {
        !self.requests.is_empty()
    }
}

async fn accept_all(
    listener: TcpListener,
    accept: impl Accept,
    script: Arc<Mutex<VecDeque<Answer>>>,
    requests: mpsc::UnboundedSender<Request>,
) {
    // Aborted with this task: a server that is down keeps no connection.
    let mut connections = JoinSet::new();
    loop {
        let (connection, _) = listener.accept().await.unwrap();
        let (accept, script, requests) = (accept.clone(), Arc::clone(&script), requests.clone());
        connections.spawn(async move {
            if let Ok(stream) = accept.accept(connection).await {
                // A client that goes away is no failure of the test.
                let _ = serve(stream, &script, &requests).await;
            }
        });
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    script: &Mutex<VecDeque<Answer>>,
    requests: &mpsc::UnboundedSender<Request>,
) -> io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let request = read_request(&mut stream, &mut buffer).await?;
        let _nobody_looks = requests.send(request);
        let answer = script.lock().pop_front().unwrap_or(Answer::Status(200, ""));
        let text = match answer {
            Answer::Status(status, lines) => {
                format!("HTTP/1.1 {status} X\r\n{lines}Content-Length: 0\r\n\r\n")
            }
            Answer::Body(status, body) => {
                format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len())
            }
            Answer::Silence => std::future::pending().await,
            Answer::HangUp => return Ok(()),
        };
        stream.write_all(text.as_bytes()).await?;
        stream.flush().await?;
    }
}

async fn read_request(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> io::Result<Request> {
    let head_end = loop {
        if let Some(at) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break at + 4;
        }
        read_more(stream, buffer).await?;
    };
    let head = String::from_utf8(buffer.drain(..head_end).collect()).unwrap();
    let mut lines = head.lines();
    let line = lines.next().unwrap().to_owned();
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    while buffer.len() < length {
        read_more(stream, buffer).await?;
    }
    let body = String::from_utf8(buffer.drain(..length).collect()).unwrap();
    Ok(Request { line, headers, body })
}

async fn read_more(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> io::Result<()> {
    match stream.read_buf(buffer).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}
