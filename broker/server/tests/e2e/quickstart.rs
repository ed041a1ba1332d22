//! The story of the README: a device logs in through a Wasm plugin, a rule writes a row and raises an alert.

use serde_json::json;

use crate::support::{DASHBOARD, OVEN, PRESS, Place, Webhook, eventually, with};

#[test]
fn a_reading_becomes_a_row_and_a_hot_one_an_alert_and_a_webhook_call() {
    let webhook = Webhook::start();
    let place = Place::quickstart(webhook.address);
    let broker = place.start();
    for part in ["login", "authenticate", "overheating", "normalise", "history", "alert_webhook"] {
        broker.out.wait_for(&[part]);
    }
    broker.out.wait_for(&["mosquitto_pub"]);
    for version in ["mqttv311", "mqttv5"] {
        let alerts =
            broker.mosquitto_sub(&with(DASHBOARD, &["-V", version, "-q", "1", "-t", "alerts/#", "-v"]));
        let topic = ["-t", "factory/a/press-1/temperature"];
        broker.publish(&with(
            PRESS,
            &["-V", version, "-q", "1", topic[0], topic[1], "-m", r#"{"celsius": 21.5}"#],
        ));
        broker.publish(&with(
            PRESS,
            &["-V", version, "-q", "2", topic[0], topic[1], "-m", r#"{"celsius": 91.5}"#],
        ));
        let got = alerts.wait_for(1);
        let (alert_topic, payload) = got[0].split_once(' ').unwrap();
        assert_eq!(alert_topic, "alerts/a/press-1");
        let alert: serde_json::Value = serde_json::from_str(payload).unwrap();
        assert_eq!((&alert["celsius"], &alert["level"]), (&json!(91.5), &json!("high")));
    }
    let calls = webhook.wait_for(2);
    assert_eq!((&calls[0]["machine"], &calls[0]["celsius"]), (&json!("press-1"), &json!(91.5)));
    let rows = eventually("four rows", || {
        let rows = place
            .rows("SELECT line, machine, celsius, typeof(celsius), typeof(at) FROM history ORDER BY rowid");
        Some(rows).filter(|rows| rows.len() == 4)
    });
    assert_eq!(rows[0], ["a", "press-1", "21.5", "real", "integer"]);
    assert_eq!(rows[3], ["a", "press-1", "91.5", "real", "integer"]);
}

#[test]
fn a_transform_changes_topic_and_payload_before_anybody_sees_the_message() {
    let place = Place::quickstart(Webhook::start().address);
    let broker = place.start();
    let readings = broker.mosquitto_sub(&with(DASHBOARD, &["-t", "#", "-t", "factory/#", "-v"]));
    broker.publish(&with(
        OVEN,
        &["-q", "1", "-t", "raw/ライン1/oven-1/temperature", "-m", r#"{"fahrenheit": 212}"#],
    ));
    let got = readings.wait_for(1);
    let (topic, payload) = got[0].split_once(' ').unwrap();
    assert_eq!(topic, "factory/ライン1/oven-1/temperature");
    let reading: serde_json::Value = serde_json::from_str(payload).unwrap();
    assert_eq!(
        reading,
        json!({"celsius": 100.0, "unit": "celsius", "source": "raw/ライン1/oven-1/temperature"})
    );
    eventually("the row", || Some(place.rows("SELECT celsius FROM history")).filter(|rows| rows.len() == 1));
}

#[test]
fn a_wrong_password_gets_the_right_code_in_both_versions_and_the_log_names_the_plugin() {
    let place = Place::quickstart(Webhook::start().address);
    let broker = place.start();
    for (version, said) in [
        ("mqttv311", "Connection Refused: bad user name or password"),
        ("mqttv5", "Bad User Name or Password"),
    ] {
        let output = broker.mosquitto_pub(&[
            "-V",
            version,
            "-u",
            "press-1",
            "-P",
            "wrong",
            "-t",
            "factory/a/press-1/x",
            "-m",
            "1",
        ]);
        assert!(!output.status.success());
        let text = String::from_utf8_lossy(&output.stderr).to_lowercase();
        assert!(text.contains(&said.to_lowercase()), "{version}: {text}");
    }
    broker.log.wait_for_count(&["login refused", "login", "press-1"], 2);
}

#[test]
fn what_a_principal_may_not_do_is_refused_and_not_done() {
    let place = Place::quickstart(Webhook::start().address);
    let broker = place.start();
    let everything = broker.mosquitto_sub(&with(DASHBOARD, &["-t", "factory/#", "-v"]));
    let output = broker.mosquitto_pub(&with(
        OVEN,
        &[
            "-V",
            "mqttv5",
            "-q",
            "1",
            "-d",
            "-t",
            "factory/a/press-1/temperature",
            "-m",
            r#"{"celsius": 999}"#,
        ],
    ));
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("rc135") || text.to_lowercase().contains("not authorized"), "{text}");
    broker
        .publish(&with(OVEN, &["-q", "1", "-t", "factory/a/oven-1/temperature", "-m", r#"{"celsius": 1}"#]));
    assert_eq!(everything.wait_for(1), [r#"factory/a/oven-1/temperature {"celsius": 1}"#]);
    broker.log.wait_for(&["denied", "oven-1", "factory/a/press-1/temperature"]);
    let rows = eventually("the row", || {
        Some(place.rows("SELECT celsius FROM history")).filter(|rows| !rows.is_empty())
    });
    assert_eq!(rows, [["1"]]);
}
