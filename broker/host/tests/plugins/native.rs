//! Native plugins: real C, compiled here, and everything that a file can be instead of one.

use std::process::Command;

use weirmq_core::hook::{Delivery, Event, Persisted};
use weirmq_host::{LoadError, PluginKind};

use super::*;

/// A host that loads native plugins.
static NATIVE: LazyLock<Host> =
    LazyLock::new(|| Host::new(HostConfig { allow_native: true, ..HostConfig::default() }).unwrap());

fn include() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugin-api/c")
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plugins/native/all.c")
}

/// Compiles `source` into `folder`, as `name`.
pub(super) fn compile(folder: &TempDir, name: &str, source: &Path, options: &[&str]) -> PathBuf {
    let out = folder.path().join(name);
    let mut cc = Command::new("cc");
    cc.args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-O1", "-fPIC", "-shared", "-I"]).arg(include());
    let done = cc.args(options).arg("-o").arg(&out).arg(source).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    out
}

/// Compiles `text`.
fn compile_text(folder: &TempDir, text: &str, options: &[&str]) -> PathBuf {
    let source = folder.path().join("text.c");
    std::fs::write(&source, text).unwrap();
    compile(folder, "text.so", &source, options)
}

fn all(config: &Value) -> Arc<PluginHook> {
    let folder = folder();
    let file = compile(&folder, "all.so", &source(), &[]);
    // The file may go once it is loaded.
    NATIVE.load(&configured("all", file, config)).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(file: &Path) -> String {
    NATIVE.load(&configured("native", file, &json!({}))).err().unwrap().to_string()
}

#[test]
fn a_library_serves_every_hook_point() {
    let plugin = all(&json!({ "greeting": "hello" }));
    let info = plugin.info();
    assert_eq!(
        (info.kind, info.plugin.as_str(), info.version.as_str()),
        (PluginKind::Native, "all", "1.0.0")
    );
    assert_eq!(info.hooks.iter().count(), 9, "{:?}", info.hooks);
    assert_eq!(info.topics, ["a/#", "c/+"]);
    assert_eq!((info.deliver_topics, info.stored_topics), (vec!["#".to_owned()], vec!["#".to_owned()]));

    assert_eq!(principal(&plugin, "whoever"), "\"hello\"", "its configuration as JSON");
    let Authentication::Allow { lease, .. } = authenticate(&plugin, request("rights", "")).unwrap() else {
        panic!("let in")
    };
    let rights = lease.rights.unwrap();
    assert_eq!((&*lease.principal, lease.expires_in), ("client-1", Some(std::time::Duration::from_secs(60))));
    assert_eq!(lease.attributes, [("room".into(), "7".into())]);
    assert_eq!(rights.publish[0].filter.to_string(), "a/#");
    assert_eq!((rights.publish[0].qos_max, rights.publish[0].retain), (QoS::AtLeastOnce, true));
    assert_eq!(rights.subscribe[0].qos_max, QoS::ExactlyOnce);
    assert_eq!(lease.quotas.subscriptions_max, Some(3));
    let denied = authenticate(&plugin, request("denial", "")).unwrap();
    assert!(matches!(denied, Authentication::Deny(denial) if denial.reason == "no"));

    assert_eq!(authorize(&plugin, "a/b"), Ok(Decision::Allow));
    assert_eq!(authorize(&plugin, "next"), Ok(Decision::Next));
    assert!(matches!(authorize(&plugin, "x"), Ok(Decision::Deny(_))));

    assert_eq!(transform(&plugin, "pass"), Ok(Transformed::Pass));
    assert!(matches!(transform(&plugin, "x"), Ok(Transformed::Replace(draft)) if &*draft.payload == b"seen"));
    assert!(
        matches!(transform(&plugin, "drop"), Ok(Transformed::Drop(denial)) if denial.reason == "not wanted")
    );
    let Ok(Transformed::Several(drafts)) = transform(&plugin, "several") else { panic!("several") };
    assert_eq!((drafts[0].topic.as_str(), drafts[1].topic.as_str()), ("a/b", "a/other"));

    let topic = TopicName::new("t").unwrap();
    let deliver = Arc::clone(&plugin).on_deliver(&topic).unwrap();
    let delivered = deliver.deliver(&Arc::new(message("t", b"x")), &identity(), now()).unwrap();
    assert!(matches!(delivered, Delivery::Replace(draft) if &*draft.payload == b"client-1"));
    let keep = Arc::clone(&plugin).persistence(&topic).unwrap();
    let stored = keep.before_store(&Arc::new(message("t", b"secret"))).unwrap();
    let Persisted::Replace(sealed) = stored else { panic!("{stored:?}") };
    assert_eq!(&*keep.after_load(&message("t", &sealed)).unwrap(), b"secret");

    assert!(
        matches!(subscribe(&plugin, "rewrite"), Ok(FilterVerdict::Rewrite(to)) if to.to_string() == "other/#")
    );
    assert_eq!(wait(plugin.on_unsubscribe(&filter_request("a"))), Ok(FilterVerdict::Pass));
    plugin.on_event(&Event::SessionEnded { client_id: "client-1".into() }, now());
    plugin.on_timer(now());
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !plugin.stats().calls.iter().any(|(point, _)| *point == weirmq_core::hook::HookPoint::Timer) {
        assert!(std::time::Instant::now() < deadline, "the timer is called");
        std::thread::yield_now();
    }
}

/// Builds the example in Rust with the command of its README.
fn rust_example() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/native/rust");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("native-rust");
    let readme = std::fs::read_to_string(folder.join("README.md")).unwrap();
    assert!(readme.contains("\ncargo build --release\n"), "{readme}");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let done = Command::new(cargo)
        .args(["build", "--release", "--offline"])
        .current_dir(&folder)
        .env("CARGO_TARGET_DIR", &target)
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    target.join("release/libshout.so")
}

#[test]
fn the_example_in_rust_is_built_loaded_and_called() {
    let plugin = NATIVE.load(&configured("shout", rust_example(), &json!({}))).unwrap();
    let info = plugin.info();
    assert_eq!(
        (info.kind, info.plugin.as_str(), info.version.as_str()),
        (PluginKind::Native, "shout", "1.0.0")
    );
    assert_eq!(
        (info.hooks, info.topics),
        (HookPoints::from_iter([HookPoint::OnPublish]), vec!["shout/#".to_owned()])
    );
    let asked = Arc::new(message("shout/a", "hören 1".as_bytes()));
    let Ok(Transformed::Replace(draft)) = wait(bound(&plugin, "shout/a").transform(&asked, now())) else {
        panic!("it shouts")
    };
    assert_eq!(&*draft.payload, "HöREN 1".as_bytes());
    assert!(Arc::clone(&plugin).on_publish(&TopicName::new("quiet").unwrap()).is_none());
    plugin.reload().unwrap();
    assert!(matches!(wait(bound(&plugin, "shout/a").transform(&asked, now())), Ok(Transformed::Replace(_))));
    assert_eq!(plugin.stats().failures, []);
}

#[test]
fn what_a_library_answers_is_checked() {
    let plugin = {
        let folder = folder();
        let file = compile(&folder, "all.so", &source(), &[]);
        let mut config = configured("checked", file, &json!({ "greeting": "hello" }));
        config.quarantine.failures = 1000;
        config.output_bytes_max = 10_000;
        NATIVE.load(&config).unwrap()
    };
    for (command, words) in [
        ("silent", "without an answer"),
        ("twice", "answers twice: 'welcome' after 'next'"),
        ("other word", "'pass', which this hook does not have"),
        ("soft denial", "0x00"),
        ("proceed", "did not open"),
        ("null lease", "null pointer"),
        ("no principal", "its principal is a null pointer"),
        ("bad utf-8", "its principal is no UTF-8"),
        ("nul", "principal"),
        ("huge list", "1099511627776 entries"),
        ("null list", "null pointer, and has 2 entries"),
        ("bad flag", "has_rights is 7"),
        ("bad filter", "a/#/b"),
    ] {
        let failure = authenticate(&plugin, request(command, "")).unwrap_err();
        assert_eq!(failure.kind, FailureKind::BadAnswer, "{command}");
        assert!(failure.detail.contains(words), "{command}: {}", failure.detail);
    }
    assert_eq!(kind(authenticate(&plugin, request("huge length", ""))), FailureKind::OutputTooLarge);
    for payload in ["wildcard", "bad qos", "null draft"] {
        assert_eq!(kind(transform(&plugin, payload)), FailureKind::BadAnswer, "{payload}");
    }
    assert_eq!(kind(subscribe(&plugin, "bad")), FailureKind::BadAnswer);
    assert_eq!(principal(&plugin, "whoever"), "\"hello\"", "it goes on serving");
}

#[test]
fn an_answer_that_comes_too_late_is_not_taken() {
    let folder = folder();
    let file = compile(&folder, "all.so", &source(), &[]);
    let mut config = configured("slow", file, &json!({ "greeting": "hello" }));
    config.deadline_ms.authenticate = 5;
    let plugin = NATIVE.load(&config).unwrap();
    assert_eq!(kind(authenticate(&plugin, request("slow", ""))), FailureKind::Deadline);
}

#[test]
fn another_version_of_the_file_is_swapped_in_and_a_bad_one_is_not() {
    let folder = folder();
    let file = compile(&folder, "all.so", &source(), &[]);
    let plugin = NATIVE.load(&configured("all", &file, &json!({ "greeting": "hello" }))).unwrap();
    // Written over in place: what is mapped must not change under the broker.
    let next = compile(&folder, "next.so", &source(), &["-DVERSION=\"2.0.0\""]);
    std::fs::write(&file, std::fs::read(&next).unwrap()).unwrap();
    assert_eq!(principal(&plugin, "whoever"), "\"hello\"", "the old version has its own copy");
    let change = plugin.reload().unwrap();
    assert_eq!((change.before.version.as_str(), change.after.version.as_str()), ("1.0.0", "2.0.0"));
    assert_eq!(principal(&plugin, "whoever"), "\"hello\"");
    std::fs::write(&file, "no library").unwrap();
    assert!(plugin.reload().is_err());
    assert_eq!(plugin.info().version, "2.0.0", "the old one stays");
    assert_eq!(plugin.rollback().unwrap().after.version, "1.0.0");
    assert_eq!(principal(&plugin, "whoever"), "\"hello\"");
}

#[test]
fn a_library_that_was_built_for_1_0_serves() {
    let folder = folder();
    let header = include().with_file_name("compat").join("weirmq_plugin-1.0.h");
    std::fs::copy(header, folder.path().join("weirmq_plugin.h")).unwrap();
    let all = folder.path().join("old.c");
    std::fs::copy(source(), &all).unwrap();
    // The folder of the file comes before the others.
    let file = compile(&folder, "old.so", &all, &["-DVERSION=\"of 1.0\""]);
    let plugin = NATIVE.load(&configured("old", file, &json!({ "greeting": "hello" }))).unwrap();
    assert_eq!((&*plugin.info().version, plugin.info().hooks.iter().count()), ("of 1.0", 9));
    assert!(!plugin.info().is_store_backend);
    assert_eq!(principal(&plugin, "whoever"), "\"hello\"");
}

#[test]
fn native_code_is_not_loaded_unless_the_configuration_says_so() {
    let folder = folder();
    let file = compile(&folder, "all.so", &source(), &[]);
    let error = HOST.load(&configured("all", &file, &json!({}))).err().unwrap();
    assert!(matches!(error, LoadError::NativeNotAllowed { .. }), "{error}");
    assert!(error.to_string().contains("allow_native = true"), "{error}");
    // By what it is, whatever it is called.
    let renamed = folder.path().join("all.wasm");
    std::fs::rename(&file, &renamed).unwrap();
    assert!(matches!(
        HOST.load(&configured("all", &renamed, &json!({}))).err().unwrap(),
        LoadError::NativeNotAllowed { .. }
    ));
    let mut as_wasm = configured("all", &renamed, &json!({}));
    as_wasm.kind = Some(PluginKind::Wasm);
    assert!(matches!(NATIVE.load(&as_wasm).err().unwrap(), LoadError::NotWasm { .. }));
}

#[test]
fn a_file_that_is_no_plugin_is_refused_in_words() {
    let folder = folder();
    let file = compile(&folder, "all.so", &source(), &[]);
    let bytes = std::fs::read(&file).unwrap();
    let bad = folder.path().join("bad.so");
    let written = |bytes: &[u8]| {
        std::fs::write(&bad, bytes).unwrap();
        refused(&bad)
    };
    assert!(written(b"#!/bin/sh").contains("it is no ELF file"));
    assert!(written(b"").contains("it is no ELF file"));
    let other = {
        let mut bytes = bytes.clone();
        // The machine: RISC-V, or x86-64 where this is RISC-V.
        bytes[18] = if cfg!(target_arch = "riscv64") { 62 } else { 243 };
        written(&bytes)
    };
    assert!(other.contains("is built for") && other.contains("build it for this machine"), "{other}");
    // Cut short anywhere: never mapped, because the system's loader would end the process.
    for share in 1..40 {
        let said = written(&bytes[..bytes.len() * share / 40]);
        assert!(said.contains("plugin 'native'"), "{said}");
    }
    let said = refused(&compile_text(&folder, "int something(void) { return 1; }", &[]));
    assert!(said.contains("does not export 'weirmq_plugin_v1'") && said.contains("WEIRMQ_EXPORT"), "{said}");
    let said = refused(&compile_text(&folder, "const int weirmq_plugin_v9[99] = { 9 };", &[]));
    assert!(said.contains("it exports 'weirmq_plugin_v9'") && said.contains("version 1.1"), "{said}");
    let table = |abi: &str, bytes: &str| {
        format!(
            "#include \"weirmq_plugin.h\"\nconst weirmq_plugin weirmq_plugin_v1 = {{ .abi = {abi}, \
             .bytes = {bytes}, .name = WEIRMQ_TEXT(\"x\"), .version = WEIRMQ_TEXT(\"1\") }};"
        )
    };
    for (abi, bytes, words) in [
        ("WEIRMQ_ABI + 1", "sizeof(weirmq_plugin)", "it was built for version 1.2"),
        ("2u << 16", "sizeof(weirmq_plugin)", "it was built for version 2.0"),
        ("WEIRMQ_ABI", "16", "has 16 bytes instead of"),
        ("WEIRMQ_ABI", "sizeof(weirmq_plugin)", "exports no hook point"),
    ] {
        let said = refused(&compile_text(&folder, &table(abi, bytes), &[]));
        assert!(said.contains(words), "{words}: {said}");
    }
    let said =
        refused(&compile_text(&folder, "extern int weirmq_plugin_v1[99];\nint weirmq_plugin_v1[99];", &[]));
    assert!(said.contains("must be a constant with a value"), "{said}");
    let text = format!(
        "{}\nint nowhere(void);\nint here(void) {{ return nowhere(); }}",
        table("WEIRMQ_ABI", "sizeof(weirmq_plugin)")
    );
    let said = refused(&compile_text(&folder, &text, &[]));
    assert!(said.contains("undefined symbol: nowhere"), "{said}");
    let said = NATIVE.load(&configured("all", &file, &json!({ "greeting": "refuse" }))).err().unwrap();
    assert!(said.to_string().contains("greeting must not be"), "{said}");
}

/// What the host and the header say of one structure.
macro_rules! layout {
    ($($name:literal $type:ident { $($member:ident),* })*) => {
        fn c_layout() -> String {
            let mut lines = String::new();
            $(
                lines.push_str(&format!("P(\"{0} size %zu\\n\", sizeof({0}));", $name));
                $(lines.push_str(&format!(
                    "P(\"{0} {1} %zu\\n\", offsetof({0}, {1}));", $name, stringify!($member)
                ));)*
            )*
            lines
        }
        fn rust_layout() -> String {
            use weirmq_native::abi::*;
            let mut lines = String::new();
            $(
                lines.push_str(&format!("{} size {}\n", $name, size_of::<$type>()));
                $(lines.push_str(&format!(
                    "{} {} {}\n", $name, stringify!($member), std::mem::offset_of!($type, $member)
                ));)*
            )*
            lines
        }
    };
}

layout! {
    "weirmq_text" Text { data, bytes }
    "weirmq_pair" Pair { name, value }
    "weirmq_properties" Properties {
        content_type, response_topic, correlation_data, user, user_count, payload_format
    }
    "weirmq_message" Message {
        topic, payload, properties, publisher, principal, received_unix_ms, expires_in_ms, has_expires_in,
        publisher_kind, qos, retain, hops
    }
    "weirmq_draft" Draft { topic, payload, properties, expires_in_ms, has_expires_in, qos, retain }
    "weirmq_identity" Identity {
        client_id, username, peer, listener, principal, attributes, attributes_count
    }
    "weirmq_exchange" Exchange { id, method, data, step, renewal }
    "weirmq_login" Login {
        client_id, username, password, peer, listener, user_properties, user_properties_count, exchange,
        version, clean_start
    }
    "weirmq_publish_right" PublishRight { filter, qos_max, retain }
    "weirmq_subscribe_right" SubscribeRight { filter, qos_max }
    "weirmq_lease" Lease {
        principal, attributes, attributes_count, publish, publish_count, subscribe, subscribe_count,
        expires_in_seconds, publish_rate_max, subscriptions_max, has_expires_in, has_rights
    }
    "weirmq_action" Action { topic, share, kind, qos, retain }
    "weirmq_event" Event { identity, client_id, topic, reason, at_unix_ms, kind, version }
    "weirmq_change" Change { key, value }
    "weirmq_host" Host {
        abi, bytes, log, config, now_unix_ms, monotonic_us, allow, welcome, deny, next, proceed, pass, emit,
        rewrite, replace, skip, refuse, want, value, entry, full
    }
    "weirmq_plugin" Table {
        abi, bytes, name, version, events, timer_interval_ms, create, destroy, health, authenticate, authorize,
        publish_topics, on_publish, deliver_topics, on_deliver, on_subscribe, on_unsubscribe, store_topics,
        before_store, after_load, on_event, on_timer, backend_open, backend_get, backend_write, backend_scan
    }
}

#[test]
fn the_header_and_the_host_agree_on_every_member() {
    let folder = folder();
    let text = format!(
        "#include <stdio.h>\n#include \"weirmq_plugin.h\"\n#define P printf\nint main(void) {{ {} return 0; }}",
        c_layout()
    );
    let source = folder.path().join("layout.c");
    std::fs::write(&source, text).unwrap();
    let program = folder.path().join("layout");
    let done =
        Command::new("cc").arg("-I").arg(include()).arg("-o").arg(&program).arg(&source).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let said = Command::new(&program).output().unwrap();
    assert_eq!(String::from_utf8(said.stdout).unwrap(), rust_layout());
}
