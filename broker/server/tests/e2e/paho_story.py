"""paho-mqtt against the broker on the port given: every QoS in both versions, retained, will, session, properties."""

import queue
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

PORT = int(sys.argv[1])
TOPIC = "センサー/温度/リビングルーム"
PATIENCE = 60


class Client:
    def __init__(self, protocol, client_id, clean=True, will=None):
        self.messages, self.events = queue.Queue(), queue.Queue()
        self.five = protocol == mqtt.MQTTv5
        arguments = {} if self.five else {"clean_session": clean}
        self.mqtt = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id, protocol=protocol, **arguments)
        self.mqtt.on_message = lambda _c, _u, message: self.messages.put(message)
        self.mqtt.on_connect = lambda _c, _u, flags, reason, _p: self.events.put((flags, reason))
        self.mqtt.on_subscribe = lambda *_: self.events.put("subscribed")
        self.mqtt.on_publish = lambda *_: self.events.put("published")
        if will:
            self.mqtt.will_set(*will)
        properties = None
        if self.five and not clean:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 60
        more = {"clean_start": clean, "properties": properties} if self.five else {}
        self.mqtt.connect("127.0.0.1", PORT, **more)
        self.mqtt.loop_start()
        self.flags, reason = self.events.get(timeout=PATIENCE)
        assert reason == 0, reason

    def subscribe(self, topic, qos):
        self.mqtt.subscribe(topic, qos)
        assert self.events.get(timeout=PATIENCE) == "subscribed"

    def publish(self, topic, payload, qos, retain=False, properties=None):
        self.mqtt.publish(topic, payload, qos, retain, properties)
        assert self.events.get(timeout=PATIENCE) == "published"

    def next(self):
        return self.messages.get(timeout=PATIENCE)

    def close(self):
        self.mqtt.disconnect()
        self.mqtt.loop_stop()

    def cut(self):
        self.mqtt.loop_stop()
        self.mqtt._sock_close()


for protocol in (mqtt.MQTTv311, mqtt.MQTTv5):
    name = f"paho-{protocol}"
    subscriber, publisher = Client(protocol, name + "-s"), Client(protocol, name + "-p")
    subscriber.subscribe("センサー/#", 2)
    for qos in (0, 1, 2):
        publisher.publish(TOPIC, f"値 {qos}", qos)
        message = subscriber.next()
        assert (message.topic, message.payload.decode(), message.qos) == (TOPIC, f"値 {qos}", qos), message

    publisher.publish(f"kept/{name}", "retained", 1, retain=True)
    subscriber.subscribe(f"kept/{name}", 1)
    message = subscriber.next()
    assert (message.payload, message.retain) == (b"retained", True)
    publisher.publish(f"kept/{name}", "", 1, retain=True)
    assert subscriber.next().payload == b""

    subscriber.subscribe(f"will/{name}", 1)
    Client(protocol, name + "-w", will=(f"will/{name}", "gone", 1)).cut()
    assert subscriber.next().payload == b"gone"

    keeper = Client(protocol, name + "-k", clean=False)
    keeper.subscribe(f"queue/{name}", 1)
    keeper.close()
    for number in range(20):
        publisher.publish(f"queue/{name}", str(number), 1)
    keeper = Client(protocol, name + "-k", clean=False)
    assert keeper.flags.session_present
    assert [keeper.next().payload for _ in range(20)] == [str(n).encode() for n in range(20)]

    if protocol == mqtt.MQTTv5:
        properties = Properties(PacketTypes.PUBLISH)
        properties.UserProperty = [("a", "1"), ("a", "2")]
        properties.ContentType = "text/plain"
        properties.ResponseTopic = "answers"
        properties.CorrelationData = b"\x00\xff"
        publisher.publish(TOPIC, "x", 1, properties=properties)
        got = subscriber.next().properties
        assert got.UserProperty == [("a", "1"), ("a", "2")], got
        assert (got.ContentType, got.ResponseTopic, got.CorrelationData) == ("text/plain", "answers", b"\x00\xff")

    for client in (subscriber, publisher, keeper):
        client.close()

print("the story ends well")
