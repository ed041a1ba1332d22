//! A version in the shadow of the one that serves is asked the same, and decides nothing.

use weirmq_host::{Difference, ShadowConfig, ShadowStats};

use super::asking::{granted, surrounded};
use super::*;

fn shadow(file: impl Into<PathBuf>) -> ShadowConfig {
    ShadowConfig { file: file.into(), config: None, every: 1, queue_max: 1024, http: false }
}

fn read(plugin: &PluginHook) -> ShadowStats {
    plugin.shadow().unwrap().unwrap()
}

fn compared(plugin: &PluginHook) -> u64 {
    read(plugin).compared.iter().map(|(_, count)| count).sum()
}

#[test]
fn what_differs_is_counted_and_told_and_the_version_that_serves_decides() {
    let folder = folder();
    let file = folder.path().join("next.wasm");
    write_generation(&file, "B", "serve");
    let plugin = hostile_with(|config| config.shadow = Some(shadow(&file)));
    assert_eq!(principal(&plugin, "generation"), "A");
    assert_eq!(principal(&plugin, "same"), "same");
    assert_eq!(authorize(&plugin, "deny").unwrap(), authorize(&plugin, "deny").unwrap());
    assert!(
        matches!(transform(&plugin, "generation"), Ok(Transformed::Replace(draft)) if draft.payload == "A")
    );
    assert!(matches!(transform(&plugin, "upper"), Ok(Transformed::Replace(_))));
    assert_eq!(subscribe(&plugin, "rewrite").unwrap(), subscribe(&plugin, "rewrite").unwrap());
    eventually(|| compared(&plugin) == 8);
    let stats = read(&plugin);
    assert_eq!(stats.differed, [(HookPoint::Authenticate, 1), (HookPoint::OnPublish, 1)]);
    let difference = |point, about: &str, live: &str, shadow: &str| Difference {
        point,
        about: about.to_owned(),
        live: live.to_owned(),
        shadow: shadow.to_owned(),
    };
    assert_eq!(
        stats.latest,
        [
            difference(HookPoint::Authenticate, "client 'client-1'", "allow as 'A'", "allow as 'B'"),
            difference(
                HookPoint::OnPublish,
                "topic 'a/b', from client 'client-1'",
                "replace, to 'a/b'",
                "replace, to 'a/b', with another content"
            ),
        ]
    );
    assert_eq!((stats.left_out, stats.info.file), (0, file));
    assert!(stats.stats.latency.iter().any(|(point, _)| *point == HookPoint::Authenticate));
    assert_eq!(plugin.stats().calls.iter().map(|(_, count)| count).sum::<u64>(), 8, "its calls are its own");
}

#[test]
fn a_shadow_that_does_not_load_is_told_and_the_next_takes_its_place() {
    let plugin = hostile_with(|config| config.shadow = Some(shadow(guest("hostile"))));
    // What fails in the version that serves has no answer to compare with.
    assert_eq!(kind(transform(&plugin, "trap")), FailureKind::Crash);
    assert_eq!(compared(&plugin), 0);
    let plugin = hostile_with(|config| config.shadow = Some(shadow("nowhere.wasm")));
    assert!(plugin.shadow().unwrap_err().contains("nowhere.wasm"));
    assert!(HOST.check(&plugin.config()).unwrap_err().to_string().contains("nowhere.wasm"));
    assert_eq!(principal(&plugin, "generation"), "A");
    let folder = folder();
    let file = folder.path().join("next.wasm");
    write_generation(&file, "B", "serve");
    let mut config = plugin.config();
    config.shadow =
        Some(ShadowConfig { config: json!({ "topics": ["never"] }).as_object().cloned(), ..shadow(&file) });
    plugin.set_shadow(&config);
    // It wants other topics: what it is not asked about it would have let pass.
    assert!(matches!(transform(&plugin, "upper"), Ok(Transformed::Replace(_))));
    eventually(|| compared(&plugin) == 1);
    assert_eq!(read(&plugin).latest[0].shadow, "pass");
    config.shadow = None;
    plugin.set_shadow(&config);
    assert_eq!(plugin.shadow(), Ok(None));
}

#[test]
fn calls_that_a_slow_shadow_has_no_room_for_are_left_out_and_counted() {
    let host = Host::new(HostConfig { threads: 4, ..cached() }).unwrap();
    let mut config = configured("hostile", guest("hostile"), &json!({}));
    config.shadow = Some(ShadowConfig { queue_max: 1, ..shadow(guest("hostile")) });
    let plugin = host.load(&config).unwrap();
    // Four threads are at it for the plugin, and one for its shadow.
    let asked: Vec<_> = (0..16).map(|_| plugin.authenticate(&Arc::new(request("slow:20", "")))).collect();
    asked.into_iter().for_each(|reply| assert!(wait(reply).is_ok()));
    eventually(|| compared(&plugin) + read(&plugin).left_out == 16);
    assert!(read(&plugin).left_out > 0);
}

#[test]
fn of_so_many_calls_one_is_repeated() {
    let plugin =
        hostile_with(|config| config.shadow = Some(ShadowConfig { every: 4, ..shadow(guest("hostile")) }));
    (0..40).for_each(|_| assert!(authorize(&plugin, "a").is_ok()));
    eventually(|| compared(&plugin) == 10);
}

#[test]
fn a_shadow_reaches_nobody() {
    let (host, noted) = surrounded();
    let folder = folder();
    let mut config = granted("asking", &["127.0.0.1:1"], &folder);
    config.shadow = Some(shadow(guest("asking")));
    let plugin = host.load(&config).unwrap();
    for (command, answer) in [
        ("publish alerts/x hot", "Ok(())"),
        ("revoke everyone", "Ok(())"),
        ("set k v", "Ok(())"),
        ("get k", "v"),
        ("delete k", "Ok(true)"),
    ] {
        assert_eq!(principal(&plugin, command), answer);
    }
    eventually(|| compared(&plugin) == 5);
    assert_eq!(read(&plugin).differed, [], "it does not notice");
    assert_eq!((noted.published.lock().len(), noted.revoked.lock().len()), (1, 1));
    // Nobody listens there; what matters is who tries.
    assert!(principal(&plugin, "http http://127.0.0.1:1/").contains("Unreachable"));
    eventually(|| compared(&plugin) == 6);
    assert!(read(&plugin).latest[0].shadow.contains("NotGranted"), "{:?}", read(&plugin).latest);
    config.shadow = Some(ShadowConfig { http: true, ..shadow(guest("asking")) });
    plugin.set_shadow(&config);
    assert!(principal(&plugin, "http http://127.0.0.1:1/").contains("Unreachable"));
    eventually(|| compared(&plugin) == 1);
    assert_eq!(read(&plugin).differed, []);
}
