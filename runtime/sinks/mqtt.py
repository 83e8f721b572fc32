"""Events to an MQTT broker, QoS 1, with a status topic that tells when this process is gone.

Topics are ``<prefix>/events/<rig>`` and ``<prefix>/status``: "online" or "offline", retained; the
broker itself says "offline" when the connection is lost (last will). The client is driven by the
calling thread, and each connection has a client of its own: what to send again is decided by the
journal's cursor alone.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import quote

from paho.mqtt.client import Client, error_string
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from mambapro.cli import InputError
from runtime.config import MqttConfig
from runtime.sinks.interface import Event, SendError
from runtime.sinks.refused import RefusedEvents

USERNAME: Final = "MAMBAPRO_MQTT_USERNAME"
PASSWORD: Final = "MAMBAPRO_MQTT_PASSWORD"
PROTOCOLS: Final = {"5": MQTTProtocolVersion.MQTTv5, "3.1.1": MQTTProtocolVersion.MQTTv311}
ONLINE: Final = b"online"
OFFLINE: Final = b"offline"
FOR_EVER: Final = (0x90, 0x99)
"""Topic name invalid, payload format invalid (MQTT 5.0, 3.4.2.1): sending the same event again
cannot heal these."""
IN_FLIGHT: Final = 65535
HEADER_BYTES: Final = 10
"""Of a PUBLISH packet, at most: type, length, length of the topic, number, no properties."""
FAILED_FROM: Final = 0x80
PUMP_S: Final = 0.1
GOODBYE_S: Final = 0.5

log = logging.getLogger(__name__)


class MqttSender:
    """Publishes events; one counts as sent when the broker has acknowledged it."""

    def __init__(self, config: MqttConfig, refusals: RefusedEvents) -> None:
        """Prepare; InputError when a certificate cannot be read. The password is in PASSWORD."""
        self._config, self._refusals = config, refusals
        self._tls = _tls(config) if config.tls else None
        self._connection: _Connection | None = None
        self.refused = 0
        if PASSWORD in os.environ and not config.tls and config.host not in ("127.0.0.1", "::1"):
            log.warning("mqtt: the password crosses the network unencrypted; set sinks.mqtt.tls")

    @property
    def connected(self) -> bool:
        """Whether the broker is there."""
        return self._connection is not None

    def connect(self) -> None:
        """Connect if need be, and see whether the connection still lives."""
        if self._connection is None:
            self._connection = _opened(self._config, self._tls)
        try:
            self._connection.look_after()
        except SendError:
            self._drop()
            raise

    def send(self, events: Sequence[Event]) -> int:
        """Publish ``events`` and wait for the broker; return how many of the first it has."""
        if self._connection is None:  # lost halfway through the call before
            self.connect()
        assert self._connection is not None
        done = 0
        try:
            events = events[: self._connection.at_once]
            numbers = [self._publish(self._connection, event) for event in events]
            for number, event in zip(numbers, events, strict=True):
                if number is None:
                    self._set_aside("larger than the broker's maximum", event)
                else:
                    self._judge(self._connection.acknowledgement(number), event)
                done += 1
        except (SendError, OSError):
            self._drop()
            if not done:
                raise
        return done

    def close(self) -> None:
        """Say "offline" and disconnect."""
        if self._connection is not None:
            self._connection.close(self._status_topic)
            self._connection = None

    @property
    def _status_topic(self) -> str:
        return f"{self._config.prefix}/status"

    def _publish(self, connection: _Connection, event: Event) -> int | None:
        """Return the message's number, None when the broker takes none so large."""
        topic = f"{self._config.prefix}/events/{quote(event['rig'], safe=' ')}"
        payload = json.dumps(event, allow_nan=False).encode()
        if len(payload) + len(topic) + HEADER_BYTES > connection.most_bytes:
            return None
        return connection.publish(topic, payload)

    def _judge(self, answer: ReasonCode, event: Event) -> None:
        """Set ``event`` aside when the broker will never take it; SendError when it may later."""
        if answer.value in FOR_EVER:
            self._set_aside(str(answer), event)
        elif answer.value >= FAILED_FROM:
            raise SendError(f"the broker refused an event: {answer}")

    def _set_aside(self, reason: str, event: Event) -> None:
        self._refusals.add("mqtt", reason, event)
        self.refused += 1

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.drop()
            self._connection = None


class _Connection:
    """One connection, from CONNECT to its end. Only the thread that calls it moves it on."""

    def __init__(self, client: Client, timeout_s: float) -> None:
        self._client, self._timeout_s = client, timeout_s
        self.most_bytes = float("inf")
        """Largest packet that the broker takes."""
        self.at_once = IN_FLIGHT
        """Messages that the broker takes before it has acknowledged the first of them."""
        self._accepted = False
        self._end: str | None = None
        self._answers: dict[int, ReasonCode] = {}
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish

    def open(self, config: MqttConfig) -> None:
        """Connect and say "online"; raises SendError or OSError."""
        assert config.host is not None
        topic = f"{config.prefix}/status"
        self._client.will_set(topic, OFFLINE, qos=1, retain=True)
        self._client.connect(config.host, config.port, config.keepalive_s)
        self._wait_for(lambda: self._accepted)
        answer = self.acknowledgement(self.publish(topic, ONLINE, retain=True))
        if answer.value >= FAILED_FROM:
            raise SendError(f"the broker refused {topic}: {answer}")

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> int:
        """Hand a message over; return its number."""
        return self._client.publish(topic, payload, qos=1, retain=retain).mid

    def acknowledgement(self, number: int) -> ReasonCode:
        """Wait for the broker's answer to message ``number``; SendError when none comes."""
        self._wait_for(lambda: number in self._answers)
        return self._answers.pop(number)

    def look_after(self) -> None:
        """Read and write what there is, pings among it; SendError when the connection is over."""
        self._pump(0.0)
        if self._end is not None:
            raise SendError(self._end)

    def close(self, status_topic: str) -> None:
        """Say "offline", which a will does not after a goodbye, and disconnect."""
        self._timeout_s = GOODBYE_S
        with contextlib.suppress(SendError, OSError):
            self.acknowledgement(self.publish(status_topic, OFFLINE, retain=True))
        self.drop()

    def drop(self) -> None:
        """Disconnect without a word."""
        with contextlib.suppress(OSError):
            self._client.disconnect()
            self._pump(0.0)

    def _wait_for(self, done: Callable[[], bool]) -> None:
        until_s = time.monotonic() + self._timeout_s
        while not done():
            if self._end is not None:
                raise SendError(self._end)
            if time.monotonic() >= until_s:
                raise SendError(f"the broker gave no answer for {self._timeout_s:g} s")
            self._pump(PUMP_S)

    def _pump(self, timeout_s: float) -> None:
        code = self._client.loop(timeout_s)
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS and self._end is None:
            self._end = f"the connection is lost: {error_string(code)}"

    def _on_connect(self, _c: Client, _u: Any, _f: Any, code: ReasonCode, properties: Any) -> None:
        if code.is_failure:
            self._end = f"the broker refused the connection: {code}"
        self.at_once = getattr(properties, "ReceiveMaximum", IN_FLIGHT)
        self.most_bytes = getattr(properties, "MaximumPacketSize", self.most_bytes)
        self._accepted = not code.is_failure

    def _on_disconnect(self, _c: Client, _u: Any, _f: Any, code: ReasonCode, _p: Any) -> None:
        self._end = self._end or f"the connection is lost: {code}"

    def _on_publish(self, _c: Client, _u: Any, number: int, code: ReasonCode, _p: Any) -> None:
        self._answers[number] = code


def _opened(config: MqttConfig, tls: ssl.SSLContext | None) -> _Connection:
    connection = _Connection(_client(config, tls), config.timeout_s)
    try:
        connection.open(config)
    except Exception as error:
        connection.drop()
        if isinstance(error, (SendError, OSError)):
            raise SendError(f"{config.host}:{config.port}: {error}") from error
        raise
    return connection


def _client(config: MqttConfig, tls: ssl.SSLContext | None) -> Client:
    client = Client(
        CallbackAPIVersion.VERSION2,
        client_id=config.client_id or f"mambapro-{socket.gethostname()}",
        protocol=PROTOCOLS[config.version],
        reconnect_on_failure=False,
    )
    client.connect_timeout = config.timeout_s
    if USERNAME in os.environ:
        client.username_pw_set(os.environ[USERNAME], os.environ.get(PASSWORD))
    if tls is not None:
        client.tls_set_context(tls)
    return client


def _tls(config: MqttConfig) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
        if config.cert_file is not None:
            context.load_cert_chain(config.cert_file, config.key_file)
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(f for f in (config.ca_file, config.cert_file, config.key_file) if f)
        raise InputError(f"sinks.mqtt: cannot use the certificates {files}: {error}") from error
    return context
