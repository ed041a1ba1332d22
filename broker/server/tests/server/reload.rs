//! Saved is live; broken leaves the former version live.

use weirmq::assemble::AssembleError;

use super::*;

const RULES: &str = "auth.allow_anonymous = true\n[rules]\n";
const GUARD: &str = "auth.allow_anonymous = true\n[[plugin]]\nname = 'guard'\nfile = 'plugins/guard.wasm'\n";

#[tokio::test]
async fn a_rule_that_is_saved_changed_or_removed_is_so_at_once() {
    let folder = Folder::new(RULES);
    folder.write("rules/a.rhai", rule("first"));
    let mut running = Running::start(&folder).await;
    assert_eq!(running.rules(), ["first"]);
    folder.write("rules/b.rhai", rule("second"));
    running.until(|running| running.rules() == ["first", "second"]).await;
    folder.rename_over("rules/a.rhai", rule("changed"));
    running.until(|running| running.rules() == ["changed", "second"]).await;
    std::fs::remove_file(folder.path("rules/b.rhai")).unwrap();
    running.until(|running| running.rules() == ["changed"]).await;
    running.end().await;
}

#[tokio::test]
async fn a_broken_rule_leaves_the_former_one_live_and_says_where_it_is_broken() {
    let folder = Folder::new(RULES);
    folder.write("rules/a.rhai", rule("first"));
    let mut running = Running::start(&folder).await;
    // In one change with the broken one, so that there is an event to wait for.
    folder.write("rules/a.rhai", "on(\"first\", \"a/#\", |msg| {\n  let = 3;\n});\n");
    folder.write("rules/b.rhai", rule("second"));
    running.until(|running| running.rules() == ["first", "second"]).await;
    let rules = running.live.assembly().rules().unwrap();
    let broken = rules.broken();
    assert_eq!(broken.len(), 1);
    assert_eq!((broken[0].line, broken[0].kept_old), (2, true), "{broken:?}");
    assert!(broken[0].column > 0 && broken[0].file.ends_with("rules/a.rhai"), "{broken:?}");
    folder.write("rules/a.rhai", rule("mended"));
    running.until(|running| running.rules() == ["mended", "second"]).await;
    assert!(running.live.assembly().rules().unwrap().broken().is_empty());
    running.end().await;
}

#[tokio::test]
async fn a_storm_of_touches_changes_nothing() {
    let folder = Folder::new(RULES);
    folder.write("rules/a.rhai", rule("first"));
    let mut running = Running::start(&folder).await;
    for _ in 0..200 {
        folder.rename_over("rules/a.rhai", rule("first"));
    }
    folder.write("rules/z.rhai", rule("last"));
    running.until(|running| running.rules() == ["first", "last"]).await;
    assert_eq!(*running.swaps.borrow(), 1, "only the new file is a change");
    running.end().await;
}

#[tokio::test]
async fn a_rules_folder_that_is_replaced_as_a_whole_is_watched_on() {
    let folder = Folder::new(RULES);
    folder.write("rules/a.rhai", rule("first"));
    folder.write("next/a.rhai", rule("next"));
    let mut running = Running::start(&folder).await;
    std::fs::rename(folder.path("rules"), folder.path("old")).unwrap();
    std::fs::rename(folder.path("next"), folder.path("rules")).unwrap();
    running.until(|running| running.rules() == ["next"]).await;
    folder.write("rules/b.rhai", rule("later"));
    running.until(|running| running.rules() == ["next", "later"]).await;
    running.end().await;
}

#[tokio::test]
async fn a_plugin_whose_file_is_replaced_serves_in_its_new_version() {
    let folder = Folder::new(GUARD);
    folder.write("plugins/guard.wasm", plugins::authenticating("1.0.0"));
    let mut running = Running::start(&folder).await;
    let version = |running: &Running| running.live.assembly().plugins()[0].serving().unwrap().info().version;
    assert_eq!(version(&running), "1.0.0");
    assert_eq!(running.hooks_at(HookPoint::Authenticate), ["anonymous", "guard"]);
    folder.rename_over("plugins/guard.wasm", plugins::authenticating("1.1.0"));
    running.until(|running| version(running) == "1.1.0").await;
    // Another hook point: the chains are built anew.
    folder.rename_over("plugins/guard.wasm", plugins::observing("2.0.0"));
    running.until(|running| version(running) == "2.0.0").await;
    assert_eq!(running.hooks_at(HookPoint::Authenticate), ["anonymous"]);
    assert_eq!(running.hooks_at(HookPoint::Lifecycle), ["guard"]);
    running.end().await;
}

#[tokio::test]
async fn a_broken_plugin_leaves_the_one_before_serving() {
    let folder = Folder::new(GUARD);
    folder.write("plugins/guard.wasm", plugins::authenticating("1.0.0"));
    let mut running = Running::start(&folder).await;
    folder.rename_over("plugins/guard.wasm", "broken");
    let live = Arc::clone(&running.live);
    let refused = tokio::task::spawn_blocking(move || live.reload_plugin("guard")).await.unwrap();
    let why = refused.unwrap_err().to_string();
    assert!(why.contains("not a WebAssembly file") && why.contains("goes on serving"), "{why}");
    let version = |running: &Running| running.live.assembly().plugins()[0].serving().unwrap().info().version;
    assert_eq!(version(&running), "1.0.0");
    std::fs::remove_file(folder.path("plugins/guard.wasm")).unwrap();
    folder.rename_over("plugins/guard.wasm", plugins::authenticating("1.2.0"));
    running.until(|running| version(running) == "1.2.0").await;
    running.end().await;
}

#[tokio::test]
async fn a_plugin_that_is_missing_denies_logins_until_its_file_comes() {
    let folder = Folder::new(GUARD);
    std::fs::create_dir(folder.path("plugins")).unwrap();
    let mut running = Running::start(&folder).await;
    assert!(running.live.assembly().plugins()[0].absence().unwrap().contains("cannot be read"));
    assert_eq!(running.hooks_at(HookPoint::Authenticate), ["anonymous", "guard"]);
    assert_eq!(running.hooks_at(HookPoint::Authorize), ["guard"]);
    folder.rename_over("plugins/guard.wasm", plugins::authenticating("1.0.0"));
    running.until(|running| running.live.assembly().plugins()[0].serving().is_some()).await;
    assert_eq!(running.hooks_at(HookPoint::Authorize), [""; 0]);
    running.end().await;
}

#[tokio::test]
async fn a_request_to_look_again_finds_what_was_not_noticed() {
    let folder = Folder::new(RULES);
    let hidden = folder.path("elsewhere");
    std::fs::create_dir_all(&hidden).unwrap();
    std::fs::write(hidden.join("a.rhai"), rule("first")).unwrap();
    std::fs::create_dir(folder.path("rules")).unwrap();
    // The file behind the link is in a folder that nobody watches.
    std::os::unix::fs::symlink(hidden.join("a.rhai"), folder.path("rules/a.rhai")).unwrap();
    let mut running = Running::start(&folder).await;
    std::fs::write(hidden.join("a.rhai"), rule("second")).unwrap();
    running.look_again.now();
    running.until(|running| running.rules() == ["second"]).await;
    running.end().await;
}

#[tokio::test]
async fn a_required_plugin_that_does_not_load_keeps_the_broker_from_starting() {
    let folder = Folder::new(&format!("{GUARD}required = true\n[rules]\nfolder = 'nowhere'\n"));
    let config = folder.config();
    let refused = tokio::task::spawn_blocking(|| Assembly::build(config)).await.unwrap();
    let errors = refused.err().unwrap();
    assert!(matches!(errors.0[0], AssembleError::RequiredPlugin(_)), "{errors}");
    assert!(matches!(errors.0[1], AssembleError::Rules(_)), "{errors}");
    let text = errors.to_string();
    assert!(text.contains("guard.wasm") && text.contains("required") && text.contains("nowhere"), "{text}");
}

fn names(running: &Running) -> Vec<String> {
    running.live.assembly().plugins().iter().map(|plugin| plugin.config().name.clone()).collect()
}

fn section(name: &str, more: &str) -> String {
    format!("[[plugin]]\nname = '{name}'\nfile = 'plugins/{name}.wasm'\n{more}\n")
}

#[tokio::test]
async fn plugins_come_go_change_places_and_settings_with_the_configuration() {
    let anonymous = "auth.allow_anonymous = true\n";
    let folder = Folder::new(anonymous);
    for name in ["a", "b"] {
        folder.write(&format!("plugins/{name}.wasm"), plugins::authenticating("1.0.0"));
    }
    let mut running = Running::start(&folder).await;
    assert_eq!(running.hooks_at(HookPoint::Authenticate), ["anonymous"]);
    let setting = |running: &Running, place: usize| {
        let hook = running.live.assembly().plugins().get(place)?.serving()?;
        hook.config().config.get("key").and_then(serde_json::Value::as_i64)
    };
    let steps = [
        (section("a", "config.key = 1"), &["a"][..], [Some(1), None]),
        ([section("a", "config.key = 2"), section("b", "")].concat(), &["a", "b"], [Some(2), None]),
        (
            [section("b", "config.key = 3"), section("a", "config.key = 2")].concat(),
            &["b", "a"],
            [Some(3), Some(2)],
        ),
        (section("a", "config.key = 2\nmemory_mb = 8"), &["a"], [Some(2), None]),
    ];
    for (plugins, chain, settings) in steps {
        folder.rename_over("weirmq.toml", format!("{anonymous}{plugins}"));
        let expected: Vec<&str> = ["anonymous"].iter().chain(chain).copied().collect();
        let is_so = |running: &Running| {
            let have = [0, 1].map(|place| if place < chain.len() { setting(running, place) } else { None });
            running.hooks_at(HookPoint::Authenticate) == expected && have == settings
        };
        running.until(is_so).await;
    }
    assert_eq!(running.live.assembly().plugins()[0].serving().unwrap().config().memory_mb, 8);
    // Its folder is watched from the moment at which the configuration named it.
    folder.rename_over("plugins/a.wasm", plugins::authenticating("1.1.0"));
    let version = |running: &Running| running.live.assembly().plugins()[0].serving().unwrap().info().version;
    running.until(|running| version(running) == "1.1.0").await;
    // Clients without a name are let in no more; somebody is left who can let others in.
    folder.rename_over("weirmq.toml", section("a", ""));
    running.until(|running| running.hooks_at(HookPoint::Authenticate) == ["a"]).await;
    running.end().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_changed_configuration_leaves_everything_as_it_was() {
    let folder = Folder::new(&section("guard", "config.key = 1"));
    folder.write("plugins/guard.wasm", plugins::authenticating("1.0.0"));
    folder.write("plugins/watch.wasm", plugins::observing("1.0.0"));
    let running = Running::start(&folder).await;
    // Nobody but the command is to find the changes.
    running.trigger.request();
    let reload = async |name: &'static str, config: &str| {
        folder.rename_over("weirmq.toml", config);
        let live = Arc::clone(&running.live);
        tokio::task::spawn_blocking(move || live.reload_plugin(name)).await.unwrap()
    };
    for (config, why) in [
        ("[[plugin]]\nname = 'guard'\nfil = 'x'\n".to_owned(), "did you mean `file`?"),
        ("not toml".to_owned(), "weirmq.toml"),
        (String::new(), "nobody could log in"),
        // It loads, but with it alone nobody could log in.
        (section("watch", ""), "nobody could log in"),
        (section("guard", "memory_mb = 0"), "memory_mb"),
        ("[[plugin]]\nname = 'guard'\nfile = 'plugins/nowhere.wasm'\n".to_owned(), "nowhere.wasm"),
    ] {
        let error = reload("guard", &config).await.unwrap_err().to_string();
        assert!(error.contains(why), "{config}: {error}");
        assert_eq!(names(&running), ["guard"], "{config}");
        assert_eq!(running.hooks_at(HookPoint::Authenticate), ["guard"], "{config}");
        let serving = running.live.assembly().plugins()[0].serving().unwrap();
        assert_eq!(serving.config().config["key"], 1, "{config}");
        assert!(serving.config().file.ends_with("plugins/guard.wasm"), "{config}");
    }
    // A plugin that comes and does not load is missed by nobody, until it does.
    let added = [section("guard", "config.key = 2"), section("late", "")].concat();
    assert!(reload("guard", &added).await.is_ok());
    assert_eq!(names(&running), ["guard", "late"]);
    assert_eq!(running.hooks_at(HookPoint::Authenticate), ["guard"]);
    assert!(running.live.assembly().plugins()[1].absence().unwrap().contains("late.wasm"));
    folder.write("plugins/late.wasm", plugins::authenticating("1.0.0"));
    assert!(reload("late", &added).await.is_ok());
    assert_eq!(running.hooks_at(HookPoint::Authenticate), ["guard", "late"]);
    running.end().await;
}

#[test]
fn what_takes_a_restart_is_told_by_its_table() {
    let config = |text: &str| {
        let text = format!("auth.allow_anonymous = true\n{text}");
        weirmq::config::Config::parse(&text, Path::new("weirmq.toml")).unwrap()
    };
    let before = config("");
    let live = "banner.try_it = ['x']\n[[plugin]]\nname = 'a'\nfile = 'a.wasm'\n";
    assert_eq!(before.differences(&config(live)), [""; 0]);
    let after = "log.level = 'warn'\n[store]\ndurability = 'os'\n[[listener]]\nname = 'main'\naddress = '127.0.0.1:1'\n\
                 [[sink.file]]\nname = 'f'\nfile = 'x'\n";
    assert_eq!(before.differences(&config(after)), ["[[listener]]", "[sink]", "[log]", "[store]"]);
}
