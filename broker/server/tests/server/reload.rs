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
