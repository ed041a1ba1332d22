//! What an operator does to plugins and clients of a running broker, and `weirmq plugin check`.

use std::process::Command;

use weirmq::admin::client::{ask, in_words};
use weirmq::admin::server::AdminSocket;
use weirmq::admin::{Answer, PluginState, Request};
use weirmq_core::hook::{AuthenticateRequest, FailureKind, Version};

use super::*;

fn failed(answer: Answer) -> String {
    match answer {
        Answer::Failed { error } => error,
        other => panic!("{other:?}"),
    }
}

fn state(socket: &Path) -> PluginState {
    match ask(socket, &Request::PluginList {}).unwrap() {
        Answer::Plugins { plugins } => plugins[0].state,
        other => panic!("{other:?}"),
    }
}

fn named(name: &str) -> String {
    name.to_owned()
}

#[tokio::test]
async fn a_guard_that_is_disabled_denies_and_a_version_can_be_brought_back() {
    let folder = Folder::new("[[plugin]]\nname = 'guard'\nfile = 'guard.wasm'\n");
    folder.write("guard.wasm", plugins::authenticating("1.0.0"));
    let running = Running::start(&folder).await;
    let socket = running.live.assembly().config().admin_socket();
    let admin = AdminSocket::listen(&socket).unwrap();
    let serving = tokio::spawn(admin.serve(Arc::clone(&running.live), running.shutdown.clone()));
    let engine = Arc::clone(&running.engine);
    let file = folder.path("guard.wasm");
    let conversation = tokio::task::spawn_blocking(move || {
        let name = || named("guard");
        let error = failed(ask(&socket, &Request::PluginRollback { name: name() }).unwrap());
        assert!(error.contains("none to go back to"), "{error}");

        let answer = ask(&socket, &Request::PluginDisable { name: name() }).unwrap();
        assert!(in_words(&answer).contains("weirmq plugin enable guard"), "{answer:?}");
        assert_eq!(state(&socket), PluginState::Disabled);
        let chains = engine.chains.lock().clone();
        let [link] = chains.at(HookPoint::Authenticate) else { panic!("it still stands in the chain") };
        let request = AuthenticateRequest {
            client_id: "c".into(),
            username: None,
            password: None,
            version: Version::V5,
            clean_start: true,
            peer: None,
            listener: "main".into(),
            user_properties: Vec::new(),
            exchange: None,
        };
        let reply = link.hook.authenticate(&Arc::new(request));
        let weirmq_core::hook::Reply::Now(Err(failure)) = reply else { panic!("it fails at once") };
        assert_eq!(failure.kind, FailureKind::Unavailable);
        assert_eq!(link.policy(HookPoint::Authenticate), weirmq_core::hook::Policy::Deny);

        std::fs::write(&file, plugins::authenticating("2.0.0")).unwrap();
        ask(&socket, &Request::PluginReload { name: name() }).unwrap();
        assert_eq!(state(&socket), PluginState::Disabled, "a reload does not enable it");
        ask(&socket, &Request::PluginEnable { name: name() }).unwrap();
        assert_eq!(state(&socket), PluginState::Serving);

        let answer = ask(&socket, &Request::PluginRollback { name: name() }).unwrap();
        let Answer::Reloaded { before, after, .. } = answer else { panic!("{answer:?}") };
        assert_eq!((before.as_deref(), after.as_str()), (Some("2.0.0"), "1.0.0"));
        for request in [
            Request::PluginDisable { name: named("gard") },
            Request::PluginEnable { name: named("gard") },
            Request::PluginRollback { name: named("gard") },
        ] {
            assert!(failed(ask(&socket, &request).unwrap()).contains("there are: guard"));
        }

        let answer = ask(&socket, &Request::ClientDisconnect { id: named("connected") }).unwrap();
        assert!(matches!(answer, Answer::Done { .. }), "{answer:?}");
        let error = failed(ask(&socket, &Request::ClientDisconnect { id: named("nobody") }).unwrap());
        assert_eq!(error, "no client 'nobody' has a session here");
        let everybody = Request::Revoke { principal: None, client: None, end: false };
        assert!(in_words(&ask(&socket, &everybody).unwrap()).starts_with("7 sessions"));
        let both = Request::Revoke { principal: Some(named("p")), client: Some(named("c")), end: true };
        assert!(failed(ask(&socket, &both).unwrap()).contains("not both"));
    });
    conversation.await.unwrap();
    running.end().await;
    serving.await.unwrap();
}

fn check(folder: &Folder, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weirmq"));
    command.env_remove("WEIRMQ_CONFIG").current_dir(folder.path("")).args(["plugin", "check"]);
    let output = command.args(arguments).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[test]
fn a_plugin_is_checked_without_a_broker() {
    let folder = Folder::new("[[plugin]]\nname = 'guard'\nfile = 'guard.wasm'\n");
    folder.write("guard.wasm", plugins::authenticating("1.0.0"));
    folder.write("other.wasm", "no plugin");
    for arguments in [&["guard.wasm"][..], &["guard.wasm", "--config", "weirmq.toml"]] {
        let (good, said) = check(&folder, arguments);
        assert!(good, "{said}");
        for words in ["test 1.0.0", "wasm", "0.1.0", "authenticate", "bytes", "ms", "it loads"] {
            assert!(said.contains(words), "{words}: {said}");
        }
    }
    for (arguments, words) in [
        (&["other.wasm"][..], "is not a WebAssembly file"),
        (&["nowhere.wasm"], "nowhere.wasm"),
        (&["other.wasm", "--config", "weirmq.toml"], "no [[plugin]] in weirmq.toml has the file other.wasm"),
        (&["guard.wasm", "--config", "nowhere.toml"], "nowhere.toml"),
    ] {
        let (good, said) = check(&folder, arguments);
        assert!(!good && said.contains(words), "{arguments:?}: {said}");
    }
}
