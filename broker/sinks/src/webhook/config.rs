//! `[[sink.webhook]]`

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Certificate, Client, Url, redirect};
use serde::Deserialize;

use super::sink::WebhookSink;
use crate::config::{BufferConfig, Finding, Secret, Severity, SinkConfig};
use crate::disk;
use crate::engine::Sink;

/// The most requests under way at once.
const CONCURRENCY_MAX: usize = 64;

/// The longest that a request may take, in milliseconds.
const TIMEOUT_MS_MAX: u64 = 300_000;

/// Headers that are the broker's to set, in lower case.
const OWN_HEADERS: [&str; 4] = ["idempotency-key", "content-length", "transfer-encoding", "connection"];

/// An HTTP endpoint.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    /// What rules call the sink.
    pub name: String,
    /// Where to: `http` or `https`, possibly with `user:password@`.
    pub url: Secret,
    /// Further headers of every request, such as `Authorization`.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
    /// How long a request may take from its connection to the end of its answer, in milliseconds. Default 10,000.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
    /// How many requests may be under way at once. Default 1; above that, records do not keep their order.
    #[serde(default = "default_concurrency")]
    pub concurrency: usize,
    /// Certificates (PEM) to trust instead of those of the system, in the data folder unless the path is absolute.
    pub ca_file: Option<PathBuf>,
    /// How records are buffered.
    #[serde(default)]
    pub buffer: BufferConfig,
}

fn default_timeout_ms() -> u64 {
    10_000
}

fn default_concurrency() -> usize {
    1
}

impl WebhookConfig {
    fn parsed_url(&self) -> Result<Url, String> {
        let url = Url::parse(self.url.reveal()).map_err(|error| format!("its url is not a URL: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!(
                "its url begins with '{}:'; it must begin with http:// or https://",
                url.scheme()
            ));
        }
        Ok(url)
    }

    fn parsed_headers(&self) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let parsed = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| format!("{name:?} cannot be the name of a header"))?;
            if OWN_HEADERS.contains(&parsed.as_str()) {
                return Err(format!("header '{name}' is set by the broker; remove it"));
            }
            let mut value = HeaderValue::from_str(value.reveal())
                .or_else(|_| HeaderValue::from_bytes(value.reveal().as_bytes()))
                .map_err(|_| {
                    format!("the value of header '{name}' has characters that no header may have")
                })?;
            value.set_sensitive(true);
            headers.insert(parsed, value);
        }
        Ok(headers)
    }

    fn certificates(&self, data_folder: &Path) -> Result<Option<Vec<Certificate>>, String> {
        let Some(file) = &self.ca_file else { return Ok(None) };
        let path = disk::resolve(data_folder, file);
        let told = |what: String| format!("its ca_file {}: {what}", path.display());
        let pem = fs::read(&path).map_err(|error| told(error.to_string()))?;
        let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| told(error.to_string()))?;
        if certificates.is_empty() {
            return Err(told("there is no certificate in it".to_owned()));
        }
        Ok(Some(certificates))
    }

    fn client(&self, url: &Url, data_folder: &Path) -> Result<Client, String> {
        let timeout = Duration::from_millis(self.timeout_ms);
        let builder = Client::builder()
            .user_agent(concat!("weirmq/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .no_proxy()
            .timeout(timeout)
            .connect_timeout(timeout)
            .pool_max_idle_per_host(self.concurrency);
        let builder = match self.certificates(data_folder)? {
            Some(certificates) => builder.tls_certs_only(certificates),
            // Without this a machine that has no certificates at all could not even speak plain HTTP.
            None if url.scheme() == "http" => builder.tls_certs_only([]),
            None => builder,
        };
        builder.build().map_err(|error| {
            let causes = super::sink::told(&error);
            format!("no HTTP client: {causes}; install the system's CA certificates, or name some in ca_file")
        })
    }

    fn faults(&self, data_folder: &Path) -> Vec<String> {
        let mut faults = Vec::new();
        faults.extend(self.parsed_url().err());
        faults.extend(self.parsed_headers().err());
        faults.extend(self.certificates(data_folder).err());
        if self.timeout_ms == 0 || self.timeout_ms > TIMEOUT_MS_MAX {
            faults.push(format!("timeout_ms is {}; it must be from 1 to {TIMEOUT_MS_MAX}", self.timeout_ms));
        }
        if self.concurrency == 0 || self.concurrency > CONCURRENCY_MAX {
            faults
                .push(format!("concurrency is {}; it must be from 1 to {CONCURRENCY_MAX}", self.concurrency));
        }
        faults
    }

    /// Whether secrets go over a network for everybody to read.
    fn shows_secrets(&self) -> bool {
        let Ok(url) = self.parsed_url() else { return false };
        let has_secrets = !self.headers.is_empty() || url.password().is_some();
        url.scheme() == "http" && has_secrets && !is_this_machine(&url)
    }
}

impl SinkConfig for WebhookConfig {
    fn name(&self) -> &str {
        &self.name
    }

    fn buffer(&self) -> &BufferConfig {
        &self.buffer
    }

    /// Scheme, host and port: paths and queries of webhooks are often secrets.
    fn target(&self, _data_folder: &Path) -> String {
        self.parsed_url()
            .map_or_else(|fault| fault, |url| format!("POST {}", url.origin().ascii_serialization()))
    }

    /// One round of requests: its records are accounted for as soon as they are answered.
    fn batch_records_max(&self) -> usize {
        self.concurrency.min(self.buffer.batch_records_max)
    }

    fn findings(&self, data_folder: &Path) -> Vec<Finding> {
        let faults = self.faults(data_folder).into_iter().map(|fault| (Severity::Error, fault));
        let warning = self.shows_secrets().then(|| {
            let text = "its url is http, not https: its headers and password can be read on the way";
            (Severity::Warning, text.to_owned())
        });
        faults.chain(warning).collect()
    }

    fn open(&self, data_folder: &Path) -> Result<Box<dyn Sink>, String> {
        let url = self.parsed_url()?;
        let client = self.client(&url, data_folder)?;
        Ok(Box::new(WebhookSink::new(client, url, self.parsed_headers()?)))
    }
}

fn is_this_machine(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}
