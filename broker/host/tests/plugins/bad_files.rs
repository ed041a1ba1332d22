//! What is no plugin is refused with a sentence that says what is wrong and what to do.

use weirmq_host::LoadError;

use super::*;

/// A component that exports the functions of `guest` and of `lifecycle` with the right types: the smallest plugin
/// there is, up to `extra`.
fn load(wat: &str) -> LoadError {
    let folder = folder();
    let file = folder.path().join("plugin.wasm");
    std::fs::write(&file, wat::parse_str(wat).unwrap()).unwrap();
    HOST.load(&configured("text", &file, &json!({}))).err().unwrap()
}

fn load_bytes(bytes: &[u8]) -> LoadError {
    let folder = folder();
    let file = folder.path().join("plugin.wasm");
    std::fs::write(&file, bytes).unwrap();
    HOST.load(&configured("bytes", &file, &json!({}))).err().unwrap()
}

#[test]
fn what_is_not_webassembly() {
    for bytes in [&b""[..], b"\0asm", b"#!/bin/sh\n"] {
        let error = load_bytes(bytes);
        assert!(matches!(error, LoadError::NotWasm { .. }), "{error}");
    }
}

#[test]
fn a_core_module() {
    let error = load("(module)");
    assert!(matches!(error, LoadError::CoreModule { .. }), "{error}");
    assert!(error.to_string().contains("`weirmq plugin seal`"));
}

#[test]
fn a_damaged_component() {
    let whole = std::fs::read(guest("login")).unwrap();
    let error = load_bytes(&whole[..whole.len() - 1000]);
    assert!(matches!(error, LoadError::Compile { .. }), "{error}");
    let mut bits = whole;
    bits[2000..2100].fill(0xff);
    let error = load_bytes(&bits);
    assert!(matches!(error, LoadError::Compile { .. }), "{error}");
}

#[test]
fn a_file_that_is_too_large() {
    let host = Host::new(HostConfig { file_bytes_max: 1000, ..HostConfig::default() }).unwrap();
    let error = host.load(&configured("login", guest("login"), &json!({}))).err().unwrap();
    assert!(matches!(error, LoadError::FileTooLarge { bytes_max: 1000, .. }), "{error}");
    let folder = folder();
    let file = folder.path().join("large.wasm");
    std::fs::File::create(&file).unwrap().set_len(500 << 20).unwrap();
    let error = HOST.load(&configured("large", &file, &json!({}))).err().unwrap();
    assert!(matches!(error, LoadError::FileTooLarge { .. }), "{error}");
}

#[test]
fn a_file_that_is_not_there_or_is_a_folder() {
    let folder = folder();
    for file in [folder.path().join("missing.wasm"), folder.path().to_owned()] {
        let error = HOST.load(&configured("missing", &file, &json!({}))).err().unwrap();
        assert!(matches!(error, LoadError::Read { .. }), "{error}");
        assert!(error.to_string().contains(&file.display().to_string()), "{error}");
    }
}

#[test]
fn another_version_of_the_interface() {
    let error = load(r#"(component (instance $none) (export "weirmq:plugin/guest@0.9.0" (instance $none)))"#);
    assert!(matches!(&error, LoadError::ApiVersion { found, .. } if found.ends_with("@0.9.0")), "{error}");
    let error = load(r#"(component (import "weirmq:plugin/log@2.0.0" (instance)))"#);
    assert!(matches!(&error, LoadError::ApiVersion { found, .. } if found.ends_with("@2.0.0")), "{error}");
}

#[test]
fn an_import_that_there_is_not() {
    let error = load(r#"(component (import "wasi:filesystem/types@0.2.0" (instance)))"#);
    assert!(
        matches!(&error, LoadError::UnknownImport { import, .. } if import == "wasi:filesystem/types@0.2.0")
    );
    assert!(error.to_string().contains("which there is not"), "{error}");
    let error = load(r#"(component (import "weirmq:plugin/files@0.1.0" (instance)))"#);
    assert!(matches!(&error, LoadError::UnknownImport { .. }), "{error}");
}

#[test]
fn a_component_that_is_no_plugin() {
    let error = load("(component)");
    assert!(
        matches!(&error, LoadError::MissingExport { export, .. } if export == "weirmq:plugin/guest@0.1.0")
    );
    let error = load(r#"(component (instance $none) (export "weirmq:plugin/guest@0.1.0" (instance $none)))"#);
    assert!(matches!(&error, LoadError::NoHooks { hooks, .. } if hooks.contains("authenticate")), "{error}");
}

#[test]
fn exports_that_are_not_those_of_the_interface() {
    let empty = r#"(component
        (instance $none)
        (export "weirmq:plugin/guest@0.1.0" (instance $none))
        (export "weirmq:plugin/lifecycle@0.1.0" (instance $none)))"#;
    assert!(matches!(load(empty), LoadError::Mismatch { .. }));
    let other_types = plugin("", r#"(func $wrong (canon lift (core func $i "nothing")))"#, "$wrong");
    assert!(matches!(load(&other_types), LoadError::Mismatch { .. }));
    let log = r#"(component (import "weirmq:plugin/log@0.1.0" (instance (export "shout" (func)))))"#;
    let error = load(log);
    assert!(matches!(error, LoadError::MissingExport { .. } | LoadError::Mismatch { .. }), "{error}");
}

#[test]
fn a_start_function_that_loops_or_allocates() {
    let mut config = configured("start", "unset", &json!({}));
    config.deadline_ms.init = 100;
    let folder = folder();
    config.file = folder.path().join("plugin.wasm");
    let load = |start: &str| {
        let wat = plugin(start, r#"(func $wrong (canon lift (core func $i "nothing")))"#, "$wrong");
        std::fs::write(&config.file, wat::parse_str(wat).unwrap()).unwrap();
        match HOST.load(&config).err().unwrap() {
            LoadError::Start { failure, .. } => failure.kind,
            other => panic!("{other}"),
        }
    };
    assert_eq!(load("(func $start (loop $again (br $again))) (start $start)"), FailureKind::Deadline);
    assert_eq!(load("(func $start unreachable) (start $start)"), FailureKind::Crash);
    assert_eq!(load("(memory 60000)"), FailureKind::Memory);
    assert_eq!(load("(table 10000000 funcref)"), FailureKind::Memory);
}

/// A component with all names of a lifecycle plugin: `core` goes into its core module, `lifted` makes the function
/// `function` that is exported under every name.
fn plugin(core: &str, lifted: &str, function: &str) -> String {
    format!(
        r#"(component
            (core module $m (func (export "nothing")) {core})
            (core instance $i (instantiate $m))
            {lifted}
            (instance $guest
                (export "info" (func {function}))
                (export "init" (func {function}))
                (export "health" (func {function})))
            (instance $lifecycle (export "events" (func {function})) (export "on-event" (func {function})))
            (export "weirmq:plugin/guest@0.1.0" (instance $guest))
            (export "weirmq:plugin/lifecycle@0.1.0" (instance $lifecycle)))"#
    )
}

#[test]
fn a_configuration_out_of_range() {
    let refused = |change: &dyn Fn(&mut PluginConfig)| {
        let mut config = configured("login", guest("login"), &json!({}));
        change(&mut config);
        match HOST.load(&config).err().unwrap() {
            LoadError::Config { key, .. } => key,
            other => panic!("{other}"),
        }
    };
    assert_eq!(refused(&|config| config.name = "a b".to_owned()), "name");
    assert_eq!(refused(&|config| config.deadline_ms.on_publish = 0), "deadline_ms.on-publish");
    assert_eq!(refused(&|config| config.memory_mb = 0), "memory_mb");
    assert_eq!(refused(&|config| config.output_bytes_max = 0), "output_bytes_max");
    assert_eq!(refused(&|config| config.instances_max = 0), "instances_max");
    assert_eq!(refused(&|config| config.quarantine.failures = 0), "quarantine.failures");
}

#[test]
fn the_configuration_is_read_from_toml_and_unknown_keys_are_refused() {
    let text = r#"
        name = "login"
        file = "login.wasm"
        required = true
        deadline_ms = { authenticate = 2000, on-publish = 5 }
        on_failure = { authorize = "skip" }
        quarantine = { failures = 2 }
        [config.users.press-1]
        password_hash = "x"
        role = "device"
    "#;
    let config: PluginConfig = toml::from_str(text).unwrap();
    assert_eq!(config.deadline_ms, Deadlines { authenticate: 2000, on_publish: 5, ..Deadlines::default() });
    assert_eq!(
        config.on_failure.policies(),
        [(weirmq_core::hook::HookPoint::Authorize, weirmq_core::hook::Policy::Skip)]
    );
    assert_eq!(config.config["users"]["press-1"]["role"], "device");
    for (line, key) in [
        ("deadline = 1", "deadline"),
        ("deadline_ms = { on_publish = 1 }", "on_publish"),
        ("on_failure = { lifecycle = \"deny\" }", "lifecycle"),
        ("quarantine = { retry = 1 }", "retry"),
    ] {
        let text = format!("name = \"a\"\nfile = \"b\"\n{line}");
        let error = toml::from_str::<PluginConfig>(&text).unwrap_err().to_string();
        assert!(error.contains("unknown field") && error.contains(key), "{error}");
    }
}

#[test]
fn a_damaged_entry_in_the_cache_is_compiled_anew() {
    let folder = folder();
    let cache_folder = Some(folder.path().join("cache"));
    let config = configured("login", guest("login"), &json!({}));
    let host =
        || Host::new(HostConfig { cache_folder: cache_folder.clone(), ..HostConfig::default() }).unwrap();
    host().check(&config).unwrap();
    let entries = files_below(folder.path());
    assert!(!entries.is_empty(), "nothing was cached");
    for entry in &entries {
        let bytes = std::fs::read(entry).unwrap();
        std::fs::write(entry, &bytes[..bytes.len() / 2]).unwrap();
    }
    host().check(&config).unwrap();
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}
