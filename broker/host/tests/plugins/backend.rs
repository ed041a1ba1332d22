//! Store backends: a real library, and all that it can do wrong.

use std::time::Duration;

use weirmq_core::durable::backend::{Backend, BackendError, Change};
use weirmq_host::{LoadError, PluginBackend};

use super::native::compile;
use super::*;

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plugins/native/backend.c")
}

/// A backend with memory of its own: what a library has is shared by all that have its content.
struct Place(TempDir, PathBuf);

impl Place {
    fn new(test: &str) -> Self {
        let folder = folder();
        let file = compile(&folder, "backend.so", &source(), &[&format!("-DVERSION=\"{test}\"")]);
        Self(folder, file)
    }

    fn open_within(&self, fault: &str, deadline_ms: u32) -> Result<PluginBackend, LoadError> {
        let mut config = configured("memory-store", &self.1, &json!({ "fault": fault }));
        config.deadline_ms.store_backend = deadline_ms;
        config.deadline_ms.init = deadline_ms;
        let native_folder = Some(self.0.path().to_owned());
        let host = HostConfig { allow_native: true, native_folder, ..HostConfig::default() };
        PluginBackend::load(&host, &config)
    }

    fn open(&self, fault: &str) -> Result<PluginBackend, LoadError> {
        self.open_within(fault, 30_000)
    }
}

fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Change {
    Change { key: key.into(), value: Some(value.into()) }
}

fn remove(key: &'static str) -> Change {
    Change { key: key.into(), value: None }
}

#[test]
fn a_library_gets_puts_deletes_and_scans() {
    let place = Place::new("does all");
    let backend = place.open("").unwrap();
    assert_eq!((backend.name(), backend.version()), ("memory-store", "memory-store does all"));
    assert_eq!(backend.get(b"a"), Ok(None));
    assert_eq!(backend.scan(b"", 9), Ok(Vec::new()));
    backend.write(&[put("b", "2"), put("a", "1"), put("empty", ""), put("gone", "x")]).unwrap();
    backend.write(&[remove("gone"), remove("was never there"), put("b", "3")]).unwrap();
    assert_eq!(backend.get(b"b"), Ok(Some("3".into())));
    assert_eq!(backend.get(b"empty"), Ok(Some(Bytes::new())), "which is not the same as nothing");
    assert_eq!(backend.get(b"gone"), Ok(None));
    let entry = |key: &'static str, value: &'static str| (Bytes::from(key), Bytes::from(value));
    assert_eq!(backend.scan(b"", 2), Ok(vec![entry("a", "1"), entry("b", "3")]));
    assert_eq!(backend.scan(b"b\0", 2), Ok(vec![entry("empty", "")]));
    assert_eq!(backend.scan(b"f", 2), Ok(Vec::new()));
    assert!(place.open("").unwrap_err().to_string().contains("cannot open its store: it is in use"));
    drop(backend);
    let backend = place.open("").unwrap();
    assert_eq!(backend.get(b"a"), Ok(Some("1".into())), "dropped means closed");
}

#[test]
fn a_scan_ends_where_it_has_enough_bytes() {
    let backend = Place::new("enough").open("").unwrap();
    let large = Bytes::from(vec![7; 3 << 20]);
    let all: Vec<Change> = (0..10_u8).map(|number| put(vec![number], large.clone())).collect();
    backend.write(&all).unwrap();
    let first = backend.scan(b"", 512).unwrap();
    assert!((1..10).contains(&first.len()), "{}", first.len());
    let mut seen = first.len();
    let mut from = [&*first.last().unwrap().0, b"\0"].concat();
    while let Some((last, value)) = backend.scan(&from, 512).unwrap().pop() {
        assert_eq!(value, large);
        seen = usize::from(last[0]) + 1;
        from = [&*last, b"\0"].concat();
    }
    assert_eq!(seen, 10);
}

#[test]
fn what_a_backend_does_wrong_is_an_error_in_words() {
    let place = Place::new("wrong");
    let failed = |fault: &str| place.open(fault).unwrap().write(&[put("k", "v")]).unwrap_err();
    let error = |reason: &str, is_full| BackendError { reason: reason.into(), is_full };
    assert_eq!(failed("is full"), error("no room", true));
    assert_eq!(failed("cannot write"), error("the drive is gone", false));
    assert_eq!(failed("forgets to answer"), error("it returns without an answer", false));
    assert_eq!(failed("answers otherwise"), error("it answers 'next', which this hook does not have", false));
    place.open("").unwrap().write(&[put("a", "1"), put("b", "2")]).unwrap();
    let scan = |fault: &str| place.open(fault).unwrap().scan(b"", 1).unwrap_err();
    assert_eq!(scan("breaks off"), error("the rest is unreadable", false));
    assert_eq!(
        scan("does not stop"),
        error("it gives another entry after it was told that it is enough", false)
    );
}

#[test]
fn a_backend_that_hangs_is_waited_for_until_its_deadline() {
    let place = Place::new("hangs");
    let backend = place.open_within("hangs", 2_000).unwrap();
    let error = backend.write(&[put("k", "v")]).unwrap_err();
    assert!(error.reason.contains("did not come back within 2000 ms (deadline_ms.store-backend)"), "{error}");
    let again = backend.get(b"k").unwrap_err();
    assert!(again.reason.contains("an earlier call has not come back"), "{again}");
    let begun = std::time::Instant::now();
    drop(backend);
    assert!(begun.elapsed() < Duration::from_secs(30), "nobody waits for it any more");
    let error = place.open_within("opens slowly", 2_000).unwrap_err();
    assert!(matches!(error, LoadError::BackendLate { ms: 4_000, .. }), "{error}");
}

#[test]
fn a_plugin_that_cannot_be_the_backend_is_refused_in_words() {
    let place = Place::new("refused");
    let said = |fault: &str| place.open(fault).unwrap_err().to_string();
    assert_eq!(said("refuses"), "plugin 'memory-store' cannot open its store: the drive is not mounted");
    assert!(said("is silent").contains("failed in backend_open: "), "{}", said("is silent"));
    let config = configured("memory-store", &place.1, &json!({}));
    let error = PluginBackend::load(&HostConfig::default(), &config).unwrap_err();
    assert!(matches!(error, LoadError::NativeNotAllowed { .. }), "{error}");
    let trusting = HostConfig { allow_native: true, ..HostConfig::default() };
    let wasm = configured("hostile", guest("hostile"), &json!({}));
    let error = PluginBackend::load(&trusting, &wasm).unwrap_err().to_string();
    assert!(error.contains("is no store backend") && error.contains("leave `backend` out"), "{error}");
    let other = compile(&place.0, "all.so", &source().with_file_name("all.c"), &[]);
    let error = PluginBackend::load(&trusting, &configured("all", other, &json!({}))).unwrap_err();
    assert!(matches!(error, LoadError::NoBackend { .. }), "{error}");
    // And it is no hook of a chain.
    let host = Host::new(trusting).unwrap();
    let error = host.load(&config).err().unwrap().to_string();
    assert!(error.contains("use it with `backend = \"memory-store\"` under [store]"), "{error}");
    assert_eq!(host.check(&config).unwrap().served(), ["store-backend"]);
}

/// The component that misbehaves as `fault` says.
fn component(fault: &str, deadline_ms: u32) -> Result<PluginBackend, LoadError> {
    let mut config = configured("bad-store", guest("bad-store"), &json!({ "fault": fault }));
    config.deadline_ms.store_backend = deadline_ms;
    PluginBackend::load(&HostConfig::default(), &config)
}

#[test]
fn a_component_gets_puts_deletes_and_scans() {
    let backend = component("none", 30_000).unwrap();
    assert_eq!(backend.version(), "bad-store 0.1.0");
    backend.write(&[put("b", "2"), put("a", "1"), put("empty", ""), put("gone", "x")]).unwrap();
    backend.write(&[remove("gone"), remove("was never there"), put("b", "3")]).unwrap();
    assert_eq!(backend.get(b"b"), Ok(Some("3".into())));
    assert_eq!(backend.get(b"empty"), Ok(Some(Bytes::new())));
    assert_eq!(backend.get(b"gone"), Ok(None));
    let entry = |key: &'static str, value: &'static str| (Bytes::from(key), Bytes::from(value));
    assert_eq!(backend.scan(b"", 2), Ok(vec![entry("a", "1"), entry("b", "3")]));
    // More than a plugin's answers may have otherwise.
    let large = Bytes::from(vec![7; 3 << 20]);
    backend
        .write(&(0..5_u8).map(|number| put(vec![0xf0, number], large.clone())).collect::<Vec<_>>())
        .unwrap();
    let found = backend.scan(&[0xf0], 512).unwrap();
    assert!(
        (1..5).contains(&found.len()) && found.iter().all(|(_, value)| *value == large),
        "{}",
        found.len()
    );
}

#[test]
fn what_a_component_does_wrong_is_an_error_in_words_and_its_last_where_it_is_broken() {
    let failed = |fault: &str, deadline_ms: u32| {
        let backend = component(fault, deadline_ms).unwrap();
        (backend.write(&[put("k", "v")]).unwrap_err(), backend.get(b"k"))
    };
    let error = |reason: &str, is_full| BackendError { reason: reason.into(), is_full };
    assert_eq!(failed("is full", 30_000), (error("no room", true), Ok(None)));
    assert_eq!(failed("fails", 30_000), (error("the table is gone", false), Ok(None)));
    for (fault, deadline_ms, said) in
        [("traps", 30_000, "unreachable"), ("loops", 1_000, "it ran for more than 1000 ms")]
    {
        let (error, later) = failed(fault, deadline_ms);
        assert!(error.reason.contains(said), "{error}");
        assert_eq!(later, Err(error), "{fault}: it is broken");
    }
    let backend = component("gives all", 30_000).unwrap();
    backend.write(&[put("a", "1"), put("b", "2")]).unwrap();
    assert_eq!(backend.scan(b"", 1), Err(error("it gives 2 entries, and was asked for 1", false)));
    let said = |fault: &str, deadline_ms| component(fault, deadline_ms).unwrap_err().to_string();
    assert_eq!(said("refuses", 30_000), "plugin 'bad-store' cannot open its store: the tables are locked");
    assert!(said("opens for ever", 1_000).contains("failed in open: "), "{}", said("opens for ever", 1_000));
}
