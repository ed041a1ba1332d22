//! The examples of `examples/plugins`, one per language: each is loaded, called at its hook point, refuses a
//! mistake in its configuration by the name of the key, and goes on after its file was replaced.

use std::time::Duration;

use weirmq_core::hook::{Denial, Draft, Rights};
use weirmq_host::LoadError;

use super::*;

/// What an interpreter and its library need.
const MEMORY_MB: u32 = 128;

/// The example in `language`, from a file of its own that a test may replace.
fn example(language: &str, folder: &TempDir, config: &Value) -> Result<Arc<PluginHook>, LoadError> {
    let file = folder.path().join("plugin.wasm");
    std::fs::copy(guest(&format!("example-{language}")), &file).unwrap();
    HOST.load(&PluginConfig { memory_mb: MEMORY_MB, ..configured(language, file, config) })
}

/// Replaces the plugin's file by one that is different and does the same.
fn replace(folder: &TempDir) {
    let file = folder.path().join("plugin.wasm");
    let mut bytes = std::fs::read(&file).unwrap();
    // An empty custom section called "x".
    bytes.extend([0, 2, 1, b'x']);
    std::fs::write(&file, bytes).unwrap();
}

fn refusal(language: &str, config: &Value) -> String {
    match example(language, &folder(), config).err().unwrap() {
        LoadError::Refused { reason, .. } => reason,
        other => panic!("{other}"),
    }
}

fn transformed(plugin: &Arc<PluginHook>, topic: &str, payload: &[u8]) -> Transformed {
    wait(bound(plugin, topic).transform(&Arc::new(message(topic, payload)), now())).unwrap()
}

fn replaced(plugin: &Arc<PluginHook>, topic: &str, payload: &[u8]) -> Draft {
    match transformed(plugin, topic, payload) {
        Transformed::Replace(draft) => *draft,
        other => panic!("{other:?}"),
    }
}

fn dropped(plugin: &Arc<PluginHook>, topic: &str, payload: &[u8]) -> Denial {
    match transformed(plugin, topic, payload) {
        Transformed::Drop(denial) => denial,
        other => panic!("{other:?}"),
    }
}

#[test]
fn rust_lets_in_by_name_and_password() {
    let folder = folder();
    let plugin = example("rust", &folder, &json!({ "ann": "sesame" })).unwrap();
    assert_eq!(plugin.info().hooks, HookPoints::from_iter([HookPoint::Authenticate]));
    for _ in 0..2 {
        let Ok(Authentication::Allow { lease, .. }) = authenticate(&plugin, request("ann", "sesame")) else {
            panic!("the right password")
        };
        assert_eq!(&*lease.principal, "ann");
        assert!(matches!(authenticate(&plugin, request("ann", "wrong")), Ok(Authentication::Deny(_))));
        replace(&folder);
        plugin.reload().unwrap();
    }
    match example("rust", &self::folder(), &json!({ "ann": 7 })).err().unwrap() {
        LoadError::Refused { reason, .. } => assert!(reason.contains("expected a string"), "{reason}"),
        other => panic!("{other}"),
    }
}

#[test]
fn c_turns_binary_frames_into_json() {
    let folder = folder();
    let plugin = example("c", &folder, &json!({ "topics": ["raw/+/frame", "raw/x"] })).unwrap();
    assert_eq!(plugin.info().topics, ["raw/+/frame", "raw/x"]);
    let mut frame = [0x78, 0x56, 0x34, 0x12, 0x2e, 0xfb, 0x10, 0x27, 0xe4, 0x0c, 0, 0];
    let checksum = crc16(&frame[..10]);
    frame[10..].copy_from_slice(&checksum.to_le_bytes());
    for _ in 0..2 {
        let draft = replaced(&plugin, "raw/a/frame", &frame);
        let expected = r#"{"at":305419896,"celsius":-12.34,"humidity":100.00,"battery":3.300}"#;
        assert_eq!(draft.payload, expected);
        assert_eq!(draft.properties.content_type.as_deref(), Some("application/json"));
        assert_eq!(draft.topic.as_str(), "raw/a/frame");
        assert_eq!(dropped(&plugin, "raw/a/frame", &frame[..11]).reason, "a frame has 12 bytes");
        let mut torn = frame;
        torn[4] ^= 1;
        let denial = dropped(&plugin, "raw/a/frame", &torn);
        assert_eq!((denial.code as u8, &*denial.reason), (0x99, "the checksum of the frame is wrong"));
        replace(&folder);
        plugin.reload().unwrap();
    }
    for config in [json!({}), json!({ "topics": [] }), json!({ "topics": 7 }), json!({ "topics": [[]] })] {
        let reason = refusal("c", &config);
        assert!(reason.starts_with("topics: "), "{config}: {reason}");
    }
}

/// CRC-16/CCITT-FALSE, bit by bit.
fn crc16(bytes: &[u8]) -> u16 {
    let feed = |crc: u16, bit: bool| {
        let carry = (crc & 0x8000 != 0) != bit;
        (crc << 1) ^ if carry { 0x1021 } else { 0 }
    };
    bytes.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1 != 0)).fold(0xffff, feed)
}

#[test]
fn javascript_lets_in_by_token() {
    let folder = folder();
    let config = json!({ "tokens": { "tok-1": {
        "principal": "press-1", "publish": ["factory/press-1/#"], "expires_in_seconds": 60,
    } } });
    let plugin = example("js", &folder, &config).unwrap();
    for _ in 0..2 {
        let Ok(Authentication::Allow { lease, .. }) = authenticate(&plugin, request("any", "tok-1")) else {
            panic!("a token of the table")
        };
        assert_eq!(&*lease.principal, "press-1");
        assert_eq!(lease.expires_in, Some(Duration::from_secs(60)));
        let Rights { publish, subscribe } = &*lease.rights.unwrap();
        assert_eq!(publish.len(), 1);
        assert_eq!(publish[0].filter.as_str(), "factory/press-1/#");
        assert!(subscribe.is_empty());
        let denied = authenticate(&plugin, request("any", "constructor")).unwrap();
        assert!(matches!(&denied, Authentication::Deny(denial) if denial.code as u8 == 0x86), "{denied:?}");
        let silent = AuthenticateRequest { password: None, ..request("any", "") };
        assert_eq!(authenticate(&plugin, silent), Ok(Authentication::Next));
        replace(&folder);
        plugin.reload().unwrap();
    }
    assert!(refusal("js", &json!({})).starts_with("tokens: missing"));
    assert!(refusal("js", &json!({ "tokens": {}, "tokns": 1 })).starts_with("tokns: there is no such key"));
    let unnamed = refusal("js", &json!({ "tokens": { "secret": {} } }));
    assert!(unnamed.contains(".principal: wanted a name") && !unnamed.contains("secret"), "{unnamed}");
}

#[test]
fn python_completes_readings() {
    let folder = folder();
    let config = json!({ "devices": { "somebody": { "site": "hall 3" } } });
    let plugin = example("python", &folder, &config).unwrap();
    assert_eq!(plugin.info().topics, ["sensors/+/reading"]);
    for _ in 0..2 {
        let draft = replaced(&plugin, "sensors/a/reading", br#"{"celsius": 21.5, "humidity": 45}"#);
        let reading: Value = serde_json::from_slice(&draft.payload).unwrap();
        let expected = json!({
            "celsius": 21.5, "humidity": 45, "dew_point": 9.1, "site": "hall 3",
            "received_at": "2023-11-14T22:13:20+00:00",
        });
        assert_eq!(reading, expected);
        assert_eq!(transformed(&plugin, "sensors/a/reading", b"[1]"), Transformed::Pass);
        let denial = dropped(&plugin, "sensors/a/reading", b"{");
        assert!(denial.reason.starts_with("not JSON: "), "{}", denial.reason);
        // The same file: compiling 18 MB once is enough for a test.
        plugin.reload().unwrap();
    }
    assert!(refusal("python", &json!({ "topic": "a" })).starts_with("topic: there is no such key"));
    assert!(refusal("python", &json!({ "devices": { "a": 1 } })).starts_with("devices.a: "));
}

/// Long enough for every collector of garbage to run several times.
const MANY: usize = 100_000;

#[test]
fn go_collects_its_garbage_while_it_serves() {
    let folder = folder();
    let plugin = example("go", &folder, &json!({ "publish": ["devices/{client_id}/#"] })).unwrap();
    let topic = format!("devices/client-1/{}", "x".repeat(1_000));
    for call in 0..MANY {
        assert_eq!(authorize(&plugin, &topic), Ok(Decision::Allow), "call {call}");
    }
    let memory = plugin.stats().memory_bytes;
    assert!(memory < 32 << 20, "{memory} bytes: what calls leave behind is not given back");
}

#[test]
fn javascript_and_python_collect_their_garbage_while_they_serve() {
    let folders = [folder(), folder()];
    let tokens = json!({ "tokens": { "tok-1": { "principal": "press-1" } } });
    let js = example("js", &folders[0], &tokens).unwrap();
    let python = example("python", &folders[1], &json!({})).unwrap();
    for _ in 0..MANY / 50 {
        assert!(matches!(authenticate(&js, request("any", "tok-1")), Ok(Authentication::Allow { .. })));
        replaced(&python, "sensors/a/reading", br#"{"celsius": 21.5, "humidity": 45}"#);
    }
}

#[test]
fn go_decides_by_topic_template() {
    let folder = folder();
    let plugin = example("go", &folder, &json!({ "publish": ["devices/{client_id}/#"] })).unwrap();
    for _ in 0..2 {
        assert_eq!(authorize(&plugin, "devices/client-1/state"), Ok(Decision::Allow));
        let Ok(Decision::Deny(denial)) = authorize(&plugin, "devices/client-2/state") else {
            panic!("denied")
        };
        assert_eq!(denial.code as u8, 0x87);
        assert!(denial.reason.contains("devices/client-2/state"), "{}", denial.reason);
        replace(&folder);
        plugin.reload().unwrap();
    }
    assert!(refusal("go", &json!({ "publish": ["a/#/b"] })).starts_with("publish[0]: 'a/#/b'"));
    assert!(refusal("go", &json!({ "publsh": [] })).contains("publsh"));
}
