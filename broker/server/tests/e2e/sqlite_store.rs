//! Everything that is kept in a store backend by plugin: the example that keeps it in SQLite.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use serde_json::Value;

use crate::support::{Broker, Place, binary, eventually, repository};

/// The built plugin, made as its README says, once for all tests.
static PLUGIN: LazyLock<PathBuf> = LazyLock::new(|| {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sqlite-store");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--manifest-path"])
        .arg(repository().join("examples/native/sqlite-store/Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    target.join("debug/libsqlite_store.so")
});

/// A configuration that lets everybody in.
pub(crate) const HEAD: &str =
    "data_folder = 'data'\n[[listener]]\naddress = '127.0.0.1:0'\n[auth]\nallow_anonymous = true\n";

/// Where [`place`] has its database.
pub(crate) const FOLDER: &str = "state";

/// The tables of a configuration that keep everything in the file `name` in the folder.
pub(crate) fn tables(place: &Place, name: &str) -> String {
    std::fs::create_dir_all(place.path(FOLDER)).unwrap();
    format!(
        "[store]\nbackend = 'state'\n[plugin_host]\nallow_native = true\n[[plugin]]\nname = 'state'\nfile = '{}'\n\
         [plugin.config]\nfile = '{}'\n",
        PLUGIN.display(),
        place.path(FOLDER).join(name).display()
    )
}

/// A place whose broker keeps everything in SQLite.
pub(crate) fn place() -> Place {
    let place = Place::with("");
    place.write("weirmq.toml", &format!("{HEAD}{}", tables(&place, "state.db")));
    place
}

/// A session `offline` that is subscribed to `queue/#` at QoS 1, and not connected.
fn leave_a_session(broker: &Broker) {
    drop(broker.mosquitto_sub(&["-c", "-i", "offline", "-q", "1", "-t", "queue/#"]));
    broker.log.wait_for(&["disconnected", "offline"]);
}

/// What a command says: whether it is done, and the one or the other.
fn store(place: &Place, arguments: &[&str]) -> (bool, String) {
    let output = place.command(&[&["store"], arguments].concat());
    let said = if output.status.success() { output.stdout } else { output.stderr };
    (output.status.success(), String::from_utf8(said).unwrap())
}

fn done(place: &Place, arguments: &[&str]) -> String {
    let (done, said) = store(place, arguments);
    assert!(done, "{arguments:?}: {said}");
    said
}

fn refused(place: &Place, arguments: &[&str]) -> String {
    let (done, said) = store(place, arguments);
    assert!(!done && said.trim_end().lines().count() == 1, "{arguments:?}: {said}");
    said
}

#[test]
fn sessions_queues_and_retained_messages_survive_in_it() {
    let place = place();
    let broker = place.start();
    broker.out.wait_for(&["keeps", "what is acknowledged, in the plugin state"]);
    leave_a_session(&broker);
    broker.publish(&["-q", "1", "-t", "queue/1", "-m", "first"]);
    broker.publish(&["-q", "2", "-t", "queue/2", "-m", "second"]);
    broker.publish(&["-q", "1", "-r", "-t", "kept", "-m", "retained"]);
    broker.signal("KILL");
    broker.ended();

    let broker = place.start();
    broker.log.wait_for(&["brought back", "1 session, 2 messages that wait, 1 retained message"]);
    let figures = broker.mosquitto_sub(&["-v", "-t", "$SYS/broker/store/#"]);
    for name in ["syncs", "sync/microseconds", "backlog/bytes", "refuses"] {
        figures.out.wait_for(&[&format!("$SYS/broker/store/{name} ")]);
    }
    let subscriber = broker.mosquitto_sub(&["-c", "-i", "offline", "-q", "1", "-t", "queue/#", "-t", "kept"]);
    let mut messages = subscriber.wait_for(3);
    messages.sort_unstable();
    assert_eq!(messages, ["first", "retained", "second"]);
    drop(subscriber);
    // The acknowledgements have come when the broker has seen the connection end.
    broker.log.wait_for_count(&["disconnected", "offline"], 1);
    broker.signal("TERM");
    assert!(broker.ended().success());
    let info: Value = serde_json::from_str(&done(&place, &["info", "--json"])).unwrap();
    assert_eq!((&info["sessions"], &info["retained"]), (&1.into(), &1.into()));
    assert!(!place.path("data/store").exists(), "there is no log beside it");
}

#[test]
fn one_process_at_a_time_has_it() {
    let place = place();
    let broker = place.start();
    let said = refused(&place, &["info"]);
    assert!(said.contains("in use by another process; stop that one"), "{said}");
    // Another data folder, and the same database.
    let config = std::fs::read_to_string(place.path("weirmq.toml")).unwrap();
    place.write("other.toml", &config.replace("'data'", "'other-data'"));
    let output = binary().args(["run", "--config"]).arg(place.path("other.toml")).output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    let sentences: Vec<&str> = errors.lines().filter(|line| line.starts_with("error: ")).collect();
    let said = "the store's backend cannot be used: plugin 'state' cannot open its store: ";
    assert!(matches!(&sentences[..], [one] if one.contains(said)), "{errors}");
    let output = place.command(&["plugin", "reload", "state"]);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("is the store's backend, which stays as it is"), "{errors}");
    broker.publish(&["-q", "1", "-t", "t", "-m", "all is well"]);
}

#[test]
fn what_the_log_has_moves_into_it_and_back() {
    let place = Place::with(HEAD);
    let broker = place.start();
    leave_a_session(&broker);
    for number in 0..20 {
        broker.publish(&["-q", "1", "-t", "queue/1", "-m", &format!("{number:02}")]);
    }
    broker.signal("TERM");
    assert!(broker.ended().success());
    let lines = place.path("lines");
    done(&place, &["export", "--output", lines.to_str().unwrap()]);

    place.write("weirmq.toml", &format!("{HEAD}{}", tables(&place, "state.db")));
    assert!(
        done(&place, &["import", lines.to_str().unwrap()])
            .contains("imported into the plugin state: 1 sessions")
    );
    let said = refused(&place, &["import", lines.to_str().unwrap()]);
    assert!(said.contains("the plugin 'state': it is not empty"), "{said}");
    for command in [&["verify"][..], &["backup", "copy"]] {
        let broker = (command[0] == "backup").then(|| place.start());
        let said = refused(&place, command);
        assert!(said.contains("own tools"), "{said}");
        drop(broker);
    }
    let broker = place.start();
    broker.log.wait_for(&["the log in this folder is not used", "`weirmq store export`"]);
    let subscriber = broker.mosquitto_sub(&["-c", "-i", "offline", "-q", "1", "-t", "queue/#"]);
    let expected: Vec<String> = (0..20).map(|number| format!("{number:02}")).collect();
    assert_eq!(subscriber.wait_for(20), expected);
    drop(subscriber);
    eventually("nothing waits any more", || {
        let output = place.command(&["client", "offline"]);
        String::from_utf8(output.stdout).unwrap().contains("not connected").then_some(())
    });
    drop(broker);
    let exported = done(&place, &["export"]);
    assert!(exported.contains("\"client\":\"offline\""), "{exported}");
}

#[test]
fn its_author_can_hold_it_to_what_a_broker_relies_on() {
    let place = place();
    let said = done(&place, &["try-backend"]);
    assert!(said.contains("the store backend 'state' does what a broker relies on"), "{said}");
    let broker = place.start();
    leave_a_session(&broker);
    drop(broker);
    let said = refused(&place, &["try-backend"]);
    assert!(
        said.contains("there are keys in it already") && said.contains("name one that is empty"),
        "{said}"
    );
}

#[test]
fn a_backend_that_cannot_be_used_is_said_in_a_sentence() {
    let place = place();
    let config = std::fs::read_to_string(place.path("weirmq.toml")).unwrap();
    let file = place.path(FOLDER).join("state.db").display().to_string();
    let plugin = PLUGIN.display().to_string();
    for (from, to, said) in [
        ("backend = 'state'", "backend = 'stat'", "no [[plugin]] is called \"stat\""),
        ("backend = 'state'", "backend = 'state'\ndurability = 'os'", "leave one of them out"),
        ("allow_native = true", "", "allow_native = true"),
        (&*file, "state.db", "`file` must be an absolute path"),
        (&*file, "/nowhere/state.db", "cannot open its store: /nowhere/state.db"),
        (&*plugin, "gone.so", "cannot be read"),
        (&*plugin, &*crate::support::guest("hostile").display().to_string(), "is no store backend"),
        // Not used as one, it is nothing.
        ("backend = 'state'", "", "serves store-backend and nothing else"),
    ] {
        let required = config.replace("name = 'state'", "name = 'state'\nrequired = true");
        place.write("weirmq.toml", &required.replace(from, to));
        let output = place.command(&["run"]);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{to}: {errors}");
        assert!(errors.contains(said), "'{said}' is not in: {errors}");
        let output = place.command(&["check"]);
        let found = String::from_utf8(output.stdout).unwrap();
        // What it is to open is looked at when it is opened.
        assert!(
            !output.status.success() && found.contains(said)
                || to.starts_with("/nowhere")
                || from == "backend = 'state'" && to.is_empty(),
            "'{said}' is not in: {found}"
        );
    }
    place.write("weirmq.toml", &config);
    let output = place.command(&["check"]);
    let found = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && found.contains("store in the plugin state 1.0.0"), "{found}");
    assert!(!place.path(FOLDER).join("state.db").exists(), "checking opens nothing");
}
