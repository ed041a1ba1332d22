"""Completes readings: adds what is known of the device, when the broker received it, and the dew point."""

import json
import math
from datetime import UTC, datetime

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.guest import PluginInfo
from wit_world.exports.on_publish import Verdict, Verdict_Drop, Verdict_Pass, Verdict_Replace
from wit_world.imports import types
from wit_world.imports.log import Level, log

PAYLOAD_FORMAT_INVALID = 0x99

topics: list[str] = []
devices: dict[str, dict[str, str]] = {}


class Guest(exports.Guest):
    def info(self) -> PluginInfo:
        return PluginInfo("example-python", "0.1.0")

    def init(self, config: str) -> None:
        """What is raised as `Err` is shown to the operator."""
        global topics, devices
        table = json.loads(config)
        topics = table.pop("topics", ["sensors/+/reading"])
        devices = table.pop("devices", {})
        for key in table:
            raise Err(f"{key}: there is no such key; there are: topics, devices")
        if not isinstance(topics, list) or not all(isinstance(topic, str) for topic in topics):
            raise Err("topics: wanted a list of topic filters")
        for name, facts in devices.items():
            if not isinstance(facts, dict):
                raise Err(f"devices.{name}: wanted a table, such as {{ site = \"hall 3\" }}")
        log(Level.INFO, f"knows {len(devices)} devices")

    def health(self) -> None:
        pass


class OnPublish(exports.OnPublish):
    def topics(self) -> list[str]:
        return topics

    def on_publish(self, message: types.Message) -> Verdict:
        try:
            reading = json.loads(message.payload)
        except ValueError as error:
            return Verdict_Drop(types.Denial(PAYLOAD_FORMAT_INVALID, f"not JSON: {error}"))
        if not isinstance(reading, dict):
            return Verdict_Pass()
        reading |= devices.get(device_of(message), {})
        reading["received_at"] = datetime.fromtimestamp(message.received_unix_ms / 1000, UTC).isoformat()
        dew_point = dew_point_of(reading.get("celsius"), reading.get("humidity"))
        if dew_point is not None:
            reading["dew_point"] = round(dew_point, 1)
        return Verdict_Replace(
            types.Draft(
                topic=message.topic,
                payload=json.dumps(reading).encode(),
                qos=message.qos,
                retain=message.retain,
                properties=message.properties,
                expires_in_ms=message.expires_in_ms,
            )
        )


def device_of(message: types.Message) -> str:
    """Who published it: the name that it logged in as; nobody where it was a rule or a plugin."""
    match message.publisher:
        case types.Publisher_Client(client):
            return client.principal
        case _:
            return ""


def dew_point_of(celsius: object, humidity: object) -> float | None:
    """The Magnus formula; `humidity` in percent."""
    for number in (celsius, humidity):
        if isinstance(number, bool) or not isinstance(number, int | float):
            return None
    if not (-45 <= celsius <= 60 and 0 < humidity <= 100):
        return None
    gamma = math.log(humidity / 100) + 17.62 * celsius / (243.12 + celsius)
    return 243.12 * gamma / (17.62 - gamma)
