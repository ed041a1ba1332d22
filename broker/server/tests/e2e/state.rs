//! What rules remember, through `kill -9` and restarts.

use crate::support::{Broker, Place};

const CONFIG: &str = "\
data_folder = 'data'
[[listener]]
address = '127.0.0.1:0'
[auth]
allow_anonymous = true
[rules]
folder = 'rules'
";

const COUNTER: &str = r#"
on("count", "in/#", |msg| publish("count", state::add(msg.topic, 1), #{ retain: true }));
"#;

/// A place with the counting rule.
fn place(config: &str) -> Place {
    let place = Place::with(config);
    std::fs::create_dir(place.path("rules")).unwrap();
    place.write("rules/count.rhai", COUNTER);
    place
}

#[test]
fn a_counting_rule_goes_on_from_what_was_acknowledged_before_kill_9() {
    let place = place(CONFIG);
    let mut acknowledged = 0;
    for _ in 0..3 {
        let broker = place.start();
        for _ in 0..5 {
            // It returns when the message is acknowledged.
            broker.publish(&["-q", "1", "-t", "in/a", "-m", "x"]);
            acknowledged += 1;
        }
        kill_9(broker);
    }
    let broker = place.start();
    broker.log.wait_for(&["brought back what rules remember", "keys=1"]);
    broker.publish(&["-q", "1", "-t", "in/a", "-m", "x"]);
    let counts = broker.mosquitto_sub(&["-t", "count"]);
    assert_eq!(counts.wait_for(1), [(acknowledged + 1).to_string()]);
    kill_9(broker);

    // The file is gone: its state stays, and counts on when it is back.
    std::fs::remove_file(place.path("rules/count.rhai")).unwrap();
    let broker = place.start();
    broker.log.wait_for(&["stays in the store: count.rhai"]);
    place.write("rules/count.rhai", COUNTER);
    broker.log.wait_for(&["rules loaded: count.rhai"]);
    broker.publish(&["-q", "1", "-t", "in/a", "-m", "x"]);
    let counts = broker.mosquitto_sub(&["-t", "count"]);
    assert_eq!(counts.wait_for(1), [(acknowledged + 2).to_string()]);
}

#[test]
fn with_durability_memory_a_restart_begins_anew() {
    let place = place(&format!("{CONFIG}[store]\ndurability = 'memory'\n"));
    for _ in 0..2 {
        let broker = place.start();
        broker.publish(&["-q", "1", "-t", "in/a", "-m", "x"]);
        let counts = broker.mosquitto_sub(&["-t", "count"]);
        assert_eq!(counts.wait_for(1), ["1"]);
        kill_9(broker);
    }
}

fn kill_9(broker: Broker) {
    broker.signal("KILL");
    broker.ended();
}
