"""A real mosquitto on loopback, and a second real client that remembers what it received."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")


def until(condition, most_s=15.0):
    """Wait for ``condition``, whose result is returned."""
    end_s = time.monotonic() + most_s
    while not (result := condition()) and time.monotonic() < end_s:
        time.sleep(0.01)
    return result


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Broker:
    """mosquitto with its sessions and messages kept in ``folder``; killed and started at will."""

    def __init__(self, folder: Path, *lines: str, anonymous: bool = True) -> None:
        if MOSQUITTO is None:
            assert not os.environ.get("CI"), "mosquitto is missing: apt-get install mosquitto"
            pytest.skip("mosquitto is missing: apt-get install mosquitto")
        self.folder, self.port = folder, free_port()
        folder.mkdir(exist_ok=True)
        settings = [
            f"listener {self.port} 127.0.0.1", f"allow_anonymous {str(anonymous).lower()}",
            "user root", "persistence true", f"persistence_location {folder}/", *lines,
        ]  # fmt: skip
        (folder / "mosquitto.conf").write_text("\n".join(settings) + "\n")
        self.start()

    def start(self) -> None:
        log = open(self.folder / "mosquitto.log", "ab")  # noqa: SIM115
        command = [MOSQUITTO, "-c", str(self.folder / "mosquitto.conf")]
        self.process = subprocess.Popen(command, stdout=log, stderr=log)
        log.close()
        assert until(self._listens), (self.folder / "mosquitto.log").read_text()

    def save(self) -> None:
        """Let it write its sessions to disk now."""
        (self.folder / "mosquitto.db").unlink(missing_ok=True)
        self.process.send_signal(signal.SIGUSR1)
        assert until((self.folder / "mosquitto.db").exists)
        time.sleep(0.1)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


class Subscriber:
    """Another client, whose session outlives it and, once saved, the broker."""

    def __init__(self, broker: Broker, topic: str = "mambapro/#") -> None:
        self.received: list[tuple[str, bytes, bool]] = []
        """Topic, payload and whether it was retained, as they came."""
        self._topic, self._subscribed = topic, threading.Event()
        self._client = Client(
            CallbackAPIVersion.VERSION2, "subscriber", protocol=MQTTProtocolVersion.MQTTv5
        )
        self._client.reconnect_delay_set(0.1, 0.5)
        self._client.on_connect = lambda client, *_: client.subscribe(self._topic, qos=1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = lambda _c, _u, m: self.received.append(
            (m.topic, m.payload, m.retain)
        )
        session = Properties(PacketTypes.CONNECT)
        session.SessionExpiryInterval = 3600
        self._client.connect(
            "127.0.0.1", broker.port, clean_start=False, properties=session
        )  # fmt: skip
        self._client.loop_start()
        assert self._subscribed.wait(10)

    def events(self) -> list[dict]:
        return [json.loads(p) for topic, p, _ in list(self.received) if "/events/" in topic]

    def ids(self) -> list[str]:
        return [event["id"] for event in self.events()]

    def statuses(self) -> list[bytes]:
        return [payload for topic, payload, _ in list(self.received) if topic.endswith("/status")]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
