//! What the operator grants to a plugin, and what a plugin asks for.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use weirmq_core::topic::{TopicFilter, TopicName};

/// What a plugin may do beyond what all may: `[plugin.grant]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Grant {
    /// The hosts that it may send HTTP requests to.
    pub http: Vec<HostGrant>,
    /// The topic filters that it may publish to.
    pub publish: Vec<String>,
    /// Whether it may keep keys and values, and how many.
    pub key_value: KeyValueGrant,
    /// Whether it may take back what was allowed.
    pub revoke: bool,
}

/// A host that may be spoken to: its name or address, with `:port` where only that is meant.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "a host such as \"api.example.com\", or { host = \"...\", private = true }")]
pub enum HostGrant {
    /// Where it resolves to in the public address space. An address, and `localhost`, is meant as it is written.
    Named(String),
    /// Wherever it resolves to.
    #[serde(rename_all = "snake_case")]
    Anywhere {
        /// The host.
        host: String,
        /// Whether it may resolve to a loopback, link-local or private address.
        private: bool,
    },
}

impl HostGrant {
    fn text(&self) -> &str {
        match self {
            Self::Named(host) | Self::Anywhere { host, .. } => host,
        }
    }

    /// The host and the port, taken apart.
    fn parts(&self) -> (&str, Option<u16>) {
        let text = self.text();
        let bracketed = text.starts_with('[');
        match text.rsplit_once(':') {
            Some((host, port)) if bracketed == host.ends_with(']') && (bracketed || !host.contains(':')) => {
                match port.parse() {
                    Ok(port) => (host, Some(port)),
                    Err(_) => (text, None),
                }
            }
            _ => (text, None),
        }
    }

    /// Whether it is about `host` and `port`.
    pub(crate) fn is_for(&self, host: &str, port: u16) -> bool {
        let (own, own_port) = self.parts();
        bare(own).eq_ignore_ascii_case(bare(host)) && own_port.is_none_or(|own| own == port)
    }

    /// Whether it is about `host`, whatever the port.
    pub(crate) fn is_for_host(&self, host: &str) -> bool {
        bare(self.parts().0).eq_ignore_ascii_case(bare(host))
    }

    /// Whether addresses that are not public are meant too.
    pub(crate) fn covers_private(&self) -> bool {
        let host = bare(self.parts().0);
        let as_written = host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok();
        as_written || matches!(self, Self::Anywhere { private: true, .. })
    }
}

/// An IPv6 address without its brackets.
pub(crate) fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// Keys and values: `true`, or limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "true, false, or { keys_max = ..., bytes_max = ... }")]
pub enum KeyValueGrant {
    /// With the default limits, or not at all.
    Is(bool),
    /// With these limits.
    Within(KeyValueLimits),
}

impl Default for KeyValueGrant {
    fn default() -> Self {
        Self::Is(false)
    }
}

impl KeyValueGrant {
    /// The limits, where it is granted.
    pub(crate) fn limits(self) -> Option<KeyValueLimits> {
        match self {
            Self::Is(granted) => granted.then(KeyValueLimits::default),
            Self::Within(limits) => Some(limits),
        }
    }
}

/// How much a plugin may keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeyValueLimits {
    /// How many keys.
    pub keys_max: usize,
    /// How many bytes of keys and values.
    pub bytes_max: usize,
}

impl Default for KeyValueLimits {
    fn default() -> Self {
        Self { keys_max: 100_000, bytes_max: 16 << 20 }
    }
}

impl Grant {
    /// The key that is wrong, and what it must be.
    pub(crate) fn fault(&self) -> Option<(String, &'static str)> {
        for host in &self.http {
            let (name, _) = host.parts();
            let letters = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.' | '_');
            let is_host =
                bare(name).parse::<IpAddr>().is_ok() || (!name.is_empty() && name.chars().all(letters));
            if !is_host {
                let key = format!("grant.http ('{}')", host.text());
                return Some((
                    key,
                    "hosts without scheme and path, such as api.example.com or 192.0.2.1:8080",
                ));
            }
        }
        for filter in &self.publish {
            if TopicFilter::new(filter).is_err() {
                return Some((format!("grant.publish ('{filter}')"), "topic filters"));
            }
        }
        None
    }

    /// Whether requests to `host` are granted.
    fn has_host(&self, host: &str) -> bool {
        let asked = HostGrant::Named(host.to_owned());
        let (name, port) = asked.parts();
        self.http.iter().any(|granted| {
            let (own, own_port) = granted.parts();
            bare(own).eq_ignore_ascii_case(bare(name)) && (own_port.is_none() || own_port == port)
        })
    }

    /// The filters of `publish`.
    pub(crate) fn publish_filters(&self) -> Vec<TopicFilter> {
        self.publish.iter().filter_map(|filter| TopicFilter::new(filter).ok()).collect()
    }
}

/// Where a secret is: `{ file = "..." }` or `{ env = "..." }`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SecretSource {
    /// In a file, without the line end that it may end with. A relative path is resolved by whoever reads the
    /// configuration.
    File(PathBuf),
    /// In an environment variable of the broker.
    Env(String),
}

/// The largest secret.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

impl SecretSource {
    /// Reads it.
    ///
    /// # Errors
    /// Why it cannot be read, with where it should be. Never with anything of it.
    pub(crate) fn read(&self) -> Result<Secret, String> {
        match self {
            Self::File(file) => read_secret(file),
            Self::Env(name) => std::env::var(name)
                .map(Secret)
                .map_err(|_| format!("the environment variable {name} is not set, or no text")),
        }
    }
}

fn read_secret(file: &Path) -> Result<Secret, String> {
    let told = |why: &dyn std::fmt::Display| format!("'{}': {why}", file.display());
    let metadata = std::fs::metadata(file).map_err(|error| told(&error))?;
    if metadata.len() > SECRET_BYTES_MAX {
        return Err(told(&"it is too large for a secret (64 KiB)"));
    }
    let text = std::fs::read_to_string(file).map_err(|error| told(&error))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(Secret(text.strip_suffix('\r').unwrap_or(text).to_owned()))
}

/// A secret. It is never written anywhere.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("(a secret)")
    }
}

/// What a plugin asks for: a custom section of its file, or a file beside it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Manifest {
    /// Hosts that it sends requests to. Empty where they depend on its configuration.
    pub http: Vec<String>,
    /// Topic filters that it publishes to. Empty where they depend on its configuration.
    pub publish: Vec<String>,
    /// Secrets that it needs, by name.
    pub secrets: Vec<String>,
    /// Whether it keeps keys and values.
    pub key_value: bool,
    /// Whether it revokes.
    pub revoke: bool,
}

/// The custom section that has the manifest as JSON.
const SECTION: &str = "weirmq:manifest";

impl Manifest {
    /// The manifest of `file` with the content `bytes`: in a file of the same name that ends in `.manifest.toml`, else
    /// in the component itself, else empty.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn of(file: &Path, bytes: &[u8]) -> Result<Self, String> {
        let beside = file.with_extension("manifest.toml");
        match std::fs::read_to_string(&beside) {
            Ok(text) => {
                return toml::from_str(&text)
                    .map_err(|error| format!("'{}': {}", beside.display(), error.message()));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("'{}': {error}", beside.display())),
        }
        match section(bytes) {
            Some(text) => serde_json::from_slice(text)
                .map_err(|error| format!("the custom section '{SECTION}' of the file: {error}")),
            None => Ok(Self::default()),
        }
    }

    /// Everything that it, or one of the `imports`, asks for, beside what `grant` and `secrets` give.
    #[must_use]
    pub fn needs(&self, imports: &[String], grant: &Grant, secrets: &[&String]) -> [Need; 5] {
        let imports = |name: &str| imports.iter().any(|import| import == name);
        let unnamed = |names: &[String], what: &str, import: &str| {
            (names.is_empty() && imports(import)).then(|| what.to_owned())
        };
        let yes = |is: bool| is.then(|| "yes".to_owned()).into_iter().collect::<Vec<_>>();

        let mut http = Need::of("http", &self.http, grant.http.iter().map(|host| host.text().to_owned()));
        for host in self.http.iter().filter(|host| !grant.has_host(host)) {
            http.lack(format!("HTTP requests to {host}"), format!("grant.http = [\"{host}\"]"));
        }
        if let Some(which) = unnamed(&self.http, UNNAMED, "http") {
            http.asked.push(which);
            if grant.http.is_empty() {
                http.lack("HTTP requests", "grant.http = [\"HOST\"]");
            }
        }
        let mut publish = Need::of("publish", &self.publish, grant.publish.iter().cloned());
        let filters = grant.publish_filters();
        let covered = |asked: &String| {
            TopicFilter::new(asked).is_ok_and(|asked| filters.iter().any(|granted| granted.covers(&asked)))
        };
        for filter in self.publish.iter().filter(|filter| !covered(filter)) {
            publish.lack(format!("publishing to {filter}"), format!("grant.publish = [\"{filter}\"]"));
        }
        if let Some(which) = unnamed(&self.publish, UNNAMED, "publish") {
            publish.asked.push(which);
            if grant.publish.is_empty() {
                publish.lack("publishing", "grant.publish = [\"TOPIC FILTER\"]");
            }
        }
        let mut named = Need::of("secrets", &self.secrets, secrets.iter().map(|name| (*name).clone()));
        for name in self.secrets.iter().filter(|name| !secrets.contains(name)) {
            named.lack(format!("the secret {name}"), format!("secrets.{name} = {{ file = \"FILE\" }}"));
        }
        if let Some(which) = unnamed(&self.secrets, UNNAMED, "secrets") {
            named.asked.push(which);
            if secrets.is_empty() {
                named.lack("secrets", "secrets.NAME = { file = \"FILE\" }");
            }
        }
        let limits = grant.key_value.limits();
        let granted = limits.map(|limits| format!("{} keys, {} bytes", limits.keys_max, limits.bytes_max));
        let mut keys = Need::of("key-value", &yes(self.key_value || imports("key-value")), granted);
        if !keys.asked.is_empty() && limits.is_none() {
            keys.lack("keys and values", "grant.key-value = true");
        }
        let mut revoke = Need::of("revoke", &yes(self.revoke || imports("revoke")), yes(grant.revoke));
        if !revoke.asked.is_empty() && !grant.revoke {
            revoke.lack("revoking", "grant.revoke = true");
        }
        [http, publish, named, keys, revoke]
    }
}

/// What is asked for of something by a plugin that does not name it.
const UNNAMED: &str = "(not said which)";

/// One thing that a plugin has only where it is granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// The key of `[plugin.grant]`, or `secrets`.
    pub what: &'static str,
    /// What the plugin asks for of it.
    pub asked: Vec<String>,
    /// What the configuration gives of it.
    pub granted: Vec<String>,
    /// What is asked for and not granted: in words, and as the line of the `[[plugin]]` table that grants it.
    pub lacking: Vec<(String, String)>,
}

impl Need {
    fn of(what: &'static str, asked: &[String], granted: impl IntoIterator<Item = String>) -> Self {
        let (asked, granted) = (asked.to_vec(), granted.into_iter().collect());
        Self { what, asked, granted, lacking: Vec::new() }
    }

    fn lack(&mut self, what: impl Into<String>, line: impl Into<String>) {
        self.lacking.push((what.into(), line.into()));
    }
}

/// The first custom section of a component, or of a module in it, that has the manifest.
fn section(bytes: &[u8]) -> Option<&[u8]> {
    use wasmparser::{Parser, Payload};
    Parser::new(0).parse_all(bytes).map_while(Result::ok).find_map(|payload| match payload {
        Payload::CustomSection(section) if section.name() == SECTION => Some(section.data()),
        _ => None,
    })
}

/// Whether one of `filters` matches `topic`.
pub(crate) fn matches(filters: &[TopicFilter], topic: &TopicName) -> bool {
    filters.iter().any(|filter| filter.matches(topic))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(text: &str) -> Grant {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn a_host_is_granted_by_name_and_port_and_private_addresses_by_saying_so() {
        let grant = granted(
            "http = ['api.example.com', '127.0.0.1:8080', '[::1]', 'localhost', { host = 'idp.corp', private = true }]",
        );
        let is_for = |host: &str, port| {
            grant.http.iter().filter(|grant| grant.is_for(host, port)).map(HostGrant::covers_private).next()
        };
        assert_eq!(is_for("API.example.com", 443), Some(false));
        assert_eq!(is_for("example.com", 443), None);
        assert_eq!(is_for("127.0.0.1", 8080), Some(true));
        assert_eq!(is_for("127.0.0.1", 80), None);
        assert_eq!(is_for("[::1]", 80), Some(true));
        assert_eq!(is_for("localhost", 80), Some(true));
        assert_eq!(is_for("idp.corp", 443), Some(true));
    }

    #[test]
    fn what_is_no_host_or_filter_is_named() {
        assert!(granted("http = ['https://x/']").fault().unwrap().0.contains("https://x/"));
        assert!(granted("publish = ['a/#/b']").fault().unwrap().0.contains("a/#/b"));
        assert_eq!(
            granted("http = ['[2001:db8::1]:443']\npublish = ['a/#']\nkey-value = true").fault(),
            None
        );
    }

    #[test]
    fn what_is_asked_for_and_not_granted_comes_with_the_line_that_grants_it() {
        let manifest = Manifest {
            http: vec!["a.example".into()],
            publish: vec!["alerts/x".into()],
            secrets: vec!["token".into()],
            ..Manifest::default()
        };
        let imports = ["key-value".to_owned(), "revoke".to_owned()];
        let needs = manifest.needs(&imports, &Grant::default(), &[]);
        let lines: Vec<&str> =
            needs.iter().flat_map(|need| &need.lacking).map(|(_, line)| line.as_str()).collect();
        assert_eq!(
            lines,
            [
                "grant.http = [\"a.example\"]",
                "grant.publish = [\"alerts/x\"]",
                "secrets.token = { file = \"FILE\" }",
                "grant.key-value = true",
                "grant.revoke = true"
            ]
        );
        let grant = granted(
            "http = ['a.example']\npublish = ['alerts/#']\nkey-value = { keys_max = 1 }\nrevoke = true",
        );
        for need in manifest.needs(&imports, &grant, &[&"token".to_owned()]) {
            assert!(need.lacking.is_empty() && need.asked.len() == 1 && need.granted.len() == 1, "{need:?}");
        }
    }

    #[test]
    fn what_is_imported_and_not_named_is_asked_for_all_the_same() {
        let imports = ["http", "publish", "secrets"].map(str::to_owned);
        let needs = Manifest::default().needs(&imports, &Grant::default(), &[]);
        for need in needs.iter().take(3) {
            assert_eq!(
                (need.asked.as_slice(), need.lacking.len()),
                (&[UNNAMED.to_owned()][..], 1),
                "{need:?}"
            );
        }
        let grant = granted("http = ['a.example']\npublish = ['a']");
        let needs = Manifest::default().needs(&imports, &grant, &[&"token".to_owned()]);
        assert!(needs.iter().all(|need| need.lacking.is_empty()), "{needs:?}");
    }

    #[test]
    fn a_secret_is_read_without_its_line_end_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "s3cret\r\n").unwrap();
        let secret = SecretSource::File(file).read().unwrap();
        assert_eq!(secret.0, "s3cret");
        assert!(!format!("{secret:?}").contains("s3cret"));
        let missing = SecretSource::File(folder.path().join("none")).read().unwrap_err();
        assert!(missing.contains("none"), "{missing}");
        assert!(
            SecretSource::Env("WEIRMQ_TEST_NOT_SET".into())
                .read()
                .unwrap_err()
                .contains("WEIRMQ_TEST_NOT_SET")
        );
    }
}
