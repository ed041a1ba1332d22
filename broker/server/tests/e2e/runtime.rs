//! What changes while the broker runs, and who notices: nobody whom it does not concern.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::{Broker, DASHBOARD, PRESS, Place, Webhook, eventually, guest, with};

#[test]
fn a_saved_rule_is_live_within_a_second_a_broken_one_leaves_the_old_and_a_removed_one_is_gone() {
    let place = Place::quickstart(Webhook::start().address);
    let broker = place.start();
    let watched = broker.mosquitto_sub(&with(DASHBOARD, &["-q", "1", "-t", "alerts/#", "-v"]));
    let rule = |topic: &str| {
        format!(
            "on(\"extra\", \"factory/+/+/temperature\", |msg| {{ publish(\"alerts/{topic}\", msg.json.celsius.to_string()); }});"
        )
    };
    // The time until a message meets the rule is what counts: publish until one does.
    let until = |topic: &str| {
        let saved = Instant::now();
        eventually(topic, || {
            broker.reading("1");
            watched.messages().iter().any(|line| line.starts_with(&format!("alerts/{topic} "))).then_some(())
        });
        saved.elapsed()
    };
    place.write("rules/extra.rhai", &rule("first"));
    let took = until("first");
    assert!(took < Duration::from_secs(10), "{took:?} on a machine however busy");
    place.replace("rules/extra.rhai", rule("second").as_bytes());
    until("second");
    place.write(
        "rules/extra.rhai",
        "on(\"extra\", \"factory/#\", |msg| {\n    publish(\"alerts/third\" msg);\n});",
    );
    let line = broker.log.wait_for(&["extra.rhai:2:"]);
    assert!(line.contains("ERROR") && line.to_lowercase().contains("expecting"), "{line}");
    let before = watched.messages().len();
    broker.reading("1");
    assert!(
        watched.wait_for(before + 1).last().unwrap().starts_with("alerts/second "),
        "the old one is live"
    );
    fs::remove_file(place.path("rules/extra.rhai")).unwrap();
    eventually("the rule is gone", || {
        let listed = place.command(&["rules", "list"]);
        (!String::from_utf8_lossy(&listed.stdout).contains("extra")).then_some(())
    });
    let before = watched.messages().len();
    broker.reading("99");
    let after = watched.wait_for(before + 1);
    assert_eq!(after.len(), before + 1);
    assert!(after.last().unwrap().starts_with("alerts/a/press-1 "), "{after:?}");
}

#[test]
fn a_plugin_is_replaced_by_file_and_by_command_without_dropping_a_connection_or_a_message() {
    let place = Place::quickstart(Webhook::start().address);
    let broker = place.start();
    let watched = broker.mosquitto_sub(&with(DASHBOARD, &["-q", "1", "-t", "factory/#"]));
    let swapped = AtomicBool::new(false);
    let published = std::thread::scope(|scope| {
        let publishing = scope.spawn(|| publish_until(&broker, &swapped));
        // Messages flow before, between and after the two swaps.
        watched.wait_for(50);
        let output = place.command(&["plugin", "reload", "login"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        broker.log.wait_for(&["another version of the plugin serves", "login"]);
        let between = watched.messages().len();
        watched.wait_for(between + 50);
        // Another content: a custom section changes nothing but the bytes.
        let mut bytes = fs::read(guest("login")).unwrap();
        bytes.extend_from_slice(b"\x00\x05\x04more");
        place.replace("login.wasm", &bytes);
        broker.log.wait_for_count(&["another version of the plugin serves", "login"], 2);
        let after = watched.messages().len();
        watched.wait_for(after + 50);
        swapped.store(true, Ordering::Relaxed);
        publishing.join().unwrap()
    });
    let got = watched.wait_for(published);
    let expected: Vec<String> = (0..published).map(|number| format!("{{\"celsius\": {number}}}")).collect();
    assert_eq!(got, expected, "every message once, in order");
    place.replace("login.wasm", b"this is no component");
    broker.log.wait_for(&["ERROR", "login"]);
    let output = place.command(&["plugin", "reload", "login"]);
    assert!(!output.status.success(), "a broken file is told");
    broker.reading("7");
    assert_eq!(watched.wait_for(published + 1).len(), published + 1, "the old version serves on");
    assert!(!broker.log.all().iter().any(|line| line.contains("press-1") && line.contains("refused")));
}

#[test]
fn settings_of_a_plugin_change_while_messages_flow() {
    let place = Place::quickstart(Webhook::start().address);
    let broker = place.start();
    let watched = broker.mosquitto_sub(&with(DASHBOARD, &["-q", "1", "-t", "factory/#"]));
    let config = fs::read_to_string(place.path("weirmq.toml")).unwrap();
    // The password of `press-1`, for somebody who was not there before.
    let press =
        config.split("[plugin.config.users.press-1]").nth(1).unwrap().split("[plugin").next().unwrap();
    let more = config.replace(
        "[plugin.config.roles.device]",
        &format!("[plugin.config.users.new]{press}[plugin.config.roles.device]"),
    );
    let new = ["-u", "new", "-P", PRESS[3], "-q", "1", "-t", "factory/a/new/temperature", "-m", "new"];
    assert!(!broker.mosquitto_pub(&new).status.success(), "nobody knows it yet");
    let changed = AtomicBool::new(false);
    let published = std::thread::scope(|scope| {
        let publishing = scope.spawn(|| publish_until(&broker, &changed));
        watched.wait_for(50);
        place.replace("weirmq.toml", more.as_bytes());
        broker.log.wait_for(&["weirmq.toml is taken over"]);
        let between = watched.messages().len();
        watched.wait_for(between + 50);
        // What is wrong with it is one line, and all goes on; so it does where something takes a restart.
        place.replace(
            "weirmq.toml",
            more.replace("[plugin.config.roles.viewer]", "[plugin.cnfig]").as_bytes(),
        );
        let line = broker.log.wait_for(&["ERROR", "weirmq.toml", "cnfig"]);
        assert!(line.contains("everything goes on as before"), "{line}");
        place.replace(
            "weirmq.toml",
            (more.clone() + "[log]\nlevel = 'warn'\n[store]\ndurability = 'os'\n").as_bytes(),
        );
        broker.log.wait_for(&["takes a restart: [log], [store]"]);
        changed.store(true, Ordering::Relaxed);
        publishing.join().unwrap()
    });
    broker.publish(&new);
    let got = watched.wait_for(published + 1);
    let readings = (0..published).map(|number| format!("{{\"celsius\": {number}}}"));
    let expected: Vec<String> = readings.chain(["new".to_owned()]).collect();
    assert_eq!(got, expected, "every message once, in order");
}

/// Publishes a reading after the other over one connection until `done`; answers how many.
fn publish_until(broker: &Broker, done: &AtomicBool) -> usize {
    let mut process = Command::new("mosquitto_pub")
        .args(["-h", "127.0.0.1", "-p", &broker.port()])
        .args(PRESS)
        .args(["-q", "1", "-l", "-t", "factory/a/press-1/temperature"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = process.stdin.take().unwrap();
    let mut published = 0;
    while !done.load(Ordering::Relaxed) {
        writeln!(lines, "{{\"celsius\": {published}}}").unwrap();
        published += 1;
        // Some thousand a second are enough to be under way at any moment.
        std::thread::park_timeout(Duration::from_micros(200));
    }
    drop(lines);
    assert!(process.wait().unwrap().success());
    published
}
