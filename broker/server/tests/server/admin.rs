//! The admin socket answers, and only in its own language.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use weirmq::admin::client::{ClientError, ask, in_words};
use weirmq::admin::server::AdminSocket;
use weirmq::admin::{Answer, PluginState, Request};

use super::*;

#[tokio::test]
async fn what_is_asked_is_answered() {
    let folder = Folder::new(
        "auth.allow_anonymous = true\n[rules]\n[[plugin]]\nname = 'guard'\nfile = 'guard.wasm'\n\
         [[plugin]]\nname = 'absent'\nfile = 'absent.wasm'\n",
    );
    folder.write("guard.wasm", plugins::authenticating("1.0.0"));
    folder.write("rules/a.rhai", rule("first"));
    folder.write("rules/b.rhai", "broken(");
    let running = Running::start(&folder).await;
    let socket = running.live.assembly().config().admin_socket();
    // Left over from a broker that was killed.
    std::fs::write(&socket, "").unwrap();
    let admin = AdminSocket::listen(&socket).unwrap();
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let serving = tokio::spawn(admin.serve(Arc::clone(&running.live), running.shutdown.clone()));

    let (path, file) = (socket.clone(), folder.path("guard.wasm"));
    let conversation = tokio::task::spawn_blocking(move || {
        let Answer::Status { connections, plugins, rules, .. } = ask(&path, &Request::Status {}).unwrap()
        else {
            panic!("status")
        };
        assert_eq!((connections, plugins, rules), (7, 1, 1));

        let answer = ask(&path, &Request::PluginList {}).unwrap();
        let Answer::Plugins { plugins } = &answer else { panic!("{answer:?}") };
        assert_eq!(plugins[0].state, PluginState::Serving);
        assert_eq!(plugins[0].version.as_deref(), Some("test 1.0.0"));
        assert_eq!(plugins[0].hooks, ["authenticate"]);
        assert_eq!(plugins[1].state, PluginState::NotLoaded);
        assert!(plugins[1].error.as_ref().unwrap().contains("absent.wasm"));
        assert!(in_words(&answer).contains("not loaded"));

        let answer = ask(&path, &Request::RulesList {}).unwrap();
        let Answer::Rules { rules, broken } = &answer else { panic!("{answer:?}") };
        assert_eq!((rules[0].name.as_str(), rules[0].filter.as_str()), ("first", "a/{b}"));
        assert!(broken[0].contains("b.rhai:1:"), "{broken:?}");

        let answer = ask(&path, &Request::PluginReload { name: "guard".to_owned() }).unwrap();
        let Answer::Reloaded { before, after, .. } = &answer else { panic!("{answer:?}") };
        assert_eq!((before.as_deref(), after.as_str()), (Some("1.0.0"), "1.0.0"));

        std::fs::write(file, "broken").unwrap();
        let answer = ask(&path, &Request::PluginReload { name: "guard".to_owned() }).unwrap();
        let Answer::Failed { error } = &answer else { panic!("{answer:?}") };
        assert!(error.contains("goes on serving"), "{error}");

        let answer = ask(&path, &Request::PluginReload { name: "gard".to_owned() }).unwrap();
        let Answer::Failed { error } = &answer else { panic!("{answer:?}") };
        assert_eq!(error, "no plugin is called 'gard'; there are: guard, absent");

        // Another language, then its own on the same connection.
        let mut stream = UnixStream::connect(&path).unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        for (line, answer) in [
            ("GET / HTTP/1.1", "not a request"),
            (r#"{"command":"status","loud":true}"#, "not a request"),
            (r#"{"command":"status"}"#, "\"connections\":7"),
        ] {
            writeln!(stream, "{line}").unwrap();
            let said = lines.next().unwrap().unwrap();
            assert!(said.contains(answer), "{line}: {said}");
        }
    });
    conversation.await.unwrap();
    running.end().await;
    serving.await.unwrap();
    assert!(!socket.exists(), "the socket is cleared away");
    let error = ask(&socket, &Request::Status {}).unwrap_err();
    assert!(matches!(error, ClientError::NoBroker { .. }));
    assert!(error.to_string().contains("--data-folder"), "{error}");
}
