//! Clients that are not ours, in both versions, at every QoS, with topics of any script.

use std::process::{Command, Stdio};

use crate::support::{Broker, binary, eventually};

const TOPIC: &str = "センサー/温度/リビングルーム";

#[test]
fn mosquitto_talks_to_it_in_both_versions_at_every_qos() {
    let (broker, _folder) = Broker::bare();
    for version in ["mqttv311", "mqttv5"] {
        for qos in ["0", "1", "2"] {
            let subscriber =
                broker.mosquitto_sub(&["-V", version, "-q", qos, "-t", "センサー/+/リビングルーム", "-v"]);
            broker.publish(&["-V", version, "-q", qos, "-t", TOPIC, "-m", "21.5"]);
            assert_eq!(subscriber.wait_for(1), [format!("{TOPIC} 21.5")]);
        }
    }
}

#[test]
fn a_persistent_session_keeps_what_comes_while_its_client_is_away() {
    let (broker, _folder) = Broker::bare();
    let away = ["-i", "keeper", "-c", "-q", "1", "-t", "kept/#"];
    drop(broker.mosquitto_sub(&away));
    for number in 0..10 {
        broker.publish(&["-q", "1", "-t", "kept/x", "-m", &number.to_string()]);
    }
    let back = broker.mosquitto_sub(&away);
    let expected: Vec<String> = (0..10).map(|number| number.to_string()).collect();
    assert_eq!(back.wait_for(10), expected);
}

#[test]
fn an_operator_can_ask_where_a_message_went() {
    let (broker, folder) = Broker::bare();
    let ask = |id: &str| {
        let output = binary().args(["client", id, "--data-folder"]).arg(folder.path()).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    drop(broker.mosquitto_sub(&["-i", "keeper", "-c", "-q", "1", "-t", "kept/#"]));
    broker.publish(&["-q", "1", "-t", "kept/x", "-m", "waits"]);
    broker.publish(&["-q", "0", "-t", "kept/x", "-m", "does not wait"]);
    let said = eventually("the loss is counted", || {
        Some(ask("keeper")).filter(|(_, said)| said.contains("(no_receiver_online)"))
    });
    assert!(said.0);
    for part in
        ["not connected", "1 subscriptions", "1 messages wait", "not delivered: 1 (no_receiver_online)"]
    {
        assert!(said.1.contains(part), "{part}: {}", said.1);
    }
    assert!(!ask("nobody").0);
}

#[test]
fn paho_talks_to_it_in_both_versions_at_every_qos() {
    let (broker, _folder) = Broker::bare();
    let python = std::env::var_os("WEIRMQ_PYTHON")
        .expect("WEIRMQ_PYTHON names a Python with paho-mqtt: run `cargo xtask test`");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/paho_story.py");
    let output = Command::new(python).args([script, &broker.port()]).stdin(Stdio::null()).output().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn rumqttc_talks_to_it_in_both_versions() {
    let (broker, _folder) = Broker::bare();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let both = async {
            v4(broker.address.port()).await;
            v5(broker.address.port()).await;
        };
        tokio::time::timeout(crate::support::PATIENCE, both).await.expect("in time");
    });
}

async fn v4(port: u16) {
    use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
    let (client, mut events) = AsyncClient::new(MqttOptions::new("rumqttc-4", "127.0.0.1", port), 10);
    client.subscribe("rumqttc/#", QoS::ExactlyOnce).await.unwrap();
    let mut got = Vec::new();
    while got.len() < 3 {
        match events.poll().await.unwrap() {
            Event::Incoming(Packet::SubAck(_)) => {
                for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                    client.publish("rumqttc/温度", qos, false, vec![qos as u8]).await.unwrap();
                }
            }
            Event::Incoming(Packet::Publish(publish)) => {
                got.push((publish.qos as u8, publish.payload.to_vec()))
            }
            _ => {}
        }
    }
    got.sort();
    assert_eq!(got, [(0, vec![0]), (1, vec![1]), (2, vec![2])]);
}

async fn v5(port: u16) {
    use rumqttc::v5::mqttbytes::QoS;
    use rumqttc::v5::mqttbytes::v5::{Packet, PublishProperties};
    use rumqttc::v5::{AsyncClient, Event, MqttOptions};
    let (client, mut events) = AsyncClient::new(MqttOptions::new("rumqttc-5", "127.0.0.1", port), 10);
    client.subscribe("rumqttc/#", QoS::ExactlyOnce).await.unwrap();
    let pairs = vec![("k".to_owned(), "1".to_owned()), ("k".to_owned(), "2".to_owned())];
    let mut got = Vec::new();
    while got.len() < 3 {
        match events.poll().await.unwrap() {
            Event::Incoming(Packet::SubAck(_)) => {
                for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                    let properties =
                        PublishProperties { user_properties: pairs.clone(), ..Default::default() };
                    client
                        .publish_with_properties("rumqttc/温度", qos, false, vec![qos as u8], properties)
                        .await
                        .unwrap();
                }
            }
            Event::Incoming(Packet::Publish(publish)) => {
                assert_eq!(publish.properties.unwrap().user_properties, pairs);
                got.push((publish.qos as u8, publish.payload.to_vec()));
            }
            _ => {}
        }
    }
    got.sort();
    assert_eq!(got, [(0, vec![0]), (1, vec![1]), (2, vec![2])]);
}
