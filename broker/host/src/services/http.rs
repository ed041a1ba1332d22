//! Outgoing HTTP for plugins: to granted hosts, at the addresses that are granted with them, within the time and the
//! size that the call has left.
//!
//! A request runs on a thread of its own runtime, and the thread that the plugin runs on waits for it. Redirects are
//! not followed and no proxy is used, so that where a request goes is what the grant says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, Url};
use tokio::runtime::Runtime;

use crate::grant::{HostGrant, bare};

/// How long it is tried to connect.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// How many headers a request has.
const HEADERS_MAX: usize = 128;

/// The thread that requests run on.
pub(crate) struct HttpRuntime(Option<Runtime>);

impl HttpRuntime {
    pub(crate) fn start() -> std::io::Result<Self> {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("plugin-http")
            .enable_all()
            .build()
            .map(|runtime| Self(Some(runtime)))
    }

    /// A client for who is granted `hosts`.
    ///
    /// # Errors
    /// Why there is none, such as for want of root certificates.
    pub(crate) fn client(&self, hosts: &[HostGrant]) -> Result<Http, String> {
        let handle = self.0.as_ref().map(|runtime| runtime.handle().clone());
        let handle = handle.ok_or("it has ended")?;
        let hosts: Arc<[HostGrant]> = hosts.into();
        let client = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_MAX)
            .pool_max_idle_per_host(8)
            .user_agent(concat!("weirmq-plugin/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(Arc::new(Resolver(Arc::clone(&hosts))))
            .build()
            .map_err(|error| causes(&error))?;
        Ok(Http { client, hosts, handle })
    }
}

impl Drop for HttpRuntime {
    fn drop(&mut self) {
        // It may be dropped where nobody may wait.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// What one plugin sends requests with.
pub(crate) struct Http {
    client: Client,
    hosts: Arc<[HostGrant]>,
    handle: tokio::runtime::Handle,
}

/// A request, not checked yet.
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) url: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// Why nothing came back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HttpError {
    NotGranted(String),
    Invalid(String),
    Unreachable(String),
    Timeout,
    TooLarge,
}

impl Http {
    /// Sends and waits, at most `within`, for an answer of at most `bytes_max`.
    pub(crate) fn send(
        &self,
        asked: Asked,
        within: Duration,
        bytes_max: usize,
    ) -> Result<Answered, HttpError> {
        let request = self.request(asked)?;
        let (answer, answered) = sync_channel(1);
        let client = self.client.clone();
        let task = self.handle.spawn(async move {
            let _ = answer.send(exchange(&client, request, bytes_max).await);
        });
        match answered.recv_timeout(within) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout) => {
                task.abort();
                Err(HttpError::Timeout)
            }
            Err(RecvTimeoutError::Disconnected) => {
                Err(HttpError::Unreachable("the broker is shutting down".into()))
            }
        }
    }

    fn request(&self, asked: Asked) -> Result<reqwest::Request, HttpError> {
        let invalid = |what: String| HttpError::Invalid(what);
        let url = Url::parse(&asked.url).map_err(|error| invalid(format!("the URL: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(invalid(format!("the URL: the scheme is {}, not http or https", url.scheme())));
        }
        let host = url.host_str().ok_or_else(|| invalid("the URL has no host".into()))?;
        let port = url.port_or_known_default().unwrap_or(443);
        let granted: Vec<&HostGrant> = self.hosts.iter().filter(|grant| grant.is_for(host, port)).collect();
        if granted.is_empty() {
            return Err(HttpError::NotGranted(format!(
                "the grant `http` does not have {host} with port {port}"
            )));
        }
        // What is written as an address is not resolved.
        if let Ok(address) = bare(host).parse::<IpAddr>()
            && !is_public(address)
            && !granted.iter().any(|grant| grant.covers_private())
        {
            return Err(HttpError::NotGranted(not_public(host)));
        }
        let method = Method::from_bytes(asked.method.as_bytes())
            .map_err(|_| invalid(format!("'{}' is no method", asked.method)))?;
        let mut request = reqwest::Request::new(method, url);
        *request.headers_mut() = headers(asked.headers)?;
        if !asked.body.is_empty() {
            *request.body_mut() = Some(asked.body.into());
        }
        Ok(request)
    }
}

fn headers(asked: Vec<(String, String)>) -> Result<HeaderMap, HttpError> {
    if asked.len() > HEADERS_MAX {
        return Err(HttpError::Invalid(format!("more than {HEADERS_MAX} headers")));
    }
    let mut headers = HeaderMap::new();
    for (name, value) in asked {
        let bad = || HttpError::Invalid(format!("'{name}' is no header, or has no valid value"));
        let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
        if matches!(parsed.as_str(), "host" | "content-length" | "transfer-encoding" | "connection") {
            return Err(HttpError::Invalid(format!("the header {parsed} is the broker's affair")));
        }
        headers.append(parsed, HeaderValue::from_str(&value).map_err(|_| bad())?);
    }
    Ok(headers)
}

async fn exchange(
    client: &Client,
    request: reqwest::Request,
    bytes_max: usize,
) -> Result<Answered, HttpError> {
    let mut response = client.execute(request).await.map_err(|error| failed(&error))?;
    let status = response.status().as_u16();
    let mut bytes_left = bytes_max;
    let mut take = |bytes: usize| -> Result<(), HttpError> {
        bytes_left = bytes_left.checked_sub(bytes).ok_or(HttpError::TooLarge)?;
        Ok(())
    };
    let mut headers = Vec::with_capacity(response.headers().len());
    for (name, value) in response.headers() {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        take(name.as_str().len() + value.len())?;
        headers.push((name.as_str().to_owned(), value));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| failed(&error))? {
        take(chunk.len())?;
        body.extend_from_slice(&chunk);
    }
    Ok(Answered { status, headers, body })
}

fn failed(error: &reqwest::Error) -> HttpError {
    let mut cause = std::error::Error::source(error);
    while let Some(found) = cause {
        if let Some(refused) = found.downcast_ref::<NotPublic>() {
            return HttpError::NotGranted(refused.0.clone());
        }
        cause = found.source();
    }
    if error.is_timeout() { HttpError::Timeout } else { HttpError::Unreachable(causes(error)) }
}

fn causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(found) = cause {
        text.push_str(": ");
        text.push_str(&found.to_string());
        cause = found.source();
    }
    text
}

/// Resolves names, and leaves out the addresses that are not granted with them.
struct Resolver(Arc<[HostGrant]>);

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NotPublic(String);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let name = name.as_str().to_owned();
        // A connection knows the port; which ports are granted was asked before.
        let covers_private = self.0.iter().any(|grant| grant.covers_private() && grant.is_for_host(&name));
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let allowed: Vec<SocketAddr> =
                found.into_iter().filter(|address| covers_private || is_public(address.ip())).collect();
            if allowed.is_empty() {
                return Err(
                    Box::new(NotPublic(not_public(&name))) as Box<dyn std::error::Error + Send + Sync>
                );
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

fn not_public(host: &str) -> String {
    format!(
        "{host} is at a loopback, link-local or private address, and nothing grants that; grant it with {{ host = \
         \"{host}\", private = true }}"
    )
}

/// Whether an address is in the public address space.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match (address.to_ipv4_mapped(), embedded(address)) {
            (Some(v4), _) | (None, Some(v4)) => is_public_v4(v4),
            (None, None) => is_public_v6(address),
        },
    }
}

/// The IPv4 address that a translated IPv6 address leads to (NAT64, 6to4).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match [a, b, c, d, e, f] {
        [0x64, 0xff9b, 0, 0, 0, 0] => Some(v4(g, h)),
        [0x2002, ..] => Some(v4(b, c)),
        _ => None,
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, ..] = address.octets();
    let shared = a == 100 && (64..128).contains(&b);
    let benchmarking = a == 198 && (b == 18 || b == 19);
    let reserved = a == 0 || a >= 240 || address.octets().starts_with(&[192, 0, 0]);
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        || shared
        || benchmarking
        || reserved)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let first = address.segments().first().copied().unwrap_or_default();
    let global = first & 0xe000 == 0x2000;
    let documentation = address.segments().starts_with(&[0x2001, 0xdb8]);
    global && !documentation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_public() {
        for address in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:a00:1::",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in ["1.1.1.1", "93.184.216.34", "172.32.0.1", "2606:4700::1111", "::ffff:1.1.1.1"] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }
}
