"""Where events go."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from mambapro.cli import InputError
from runtime.config.checks import positive


@dataclass(frozen=True)
class JournalConfig:
    """Where events are safe until every sink has passed them on."""

    folder: str = "journal"
    """Folder; a relative path starts at the output folder."""
    max_mb: float = 256.0
    """Most that it takes on disk, MB. When a receiver is away for longer, the oldest events go."""
    fsync: bool = True
    """Flush each event to disk. Off, a kill still loses none; a power cut, half a minute."""
    memory_events: int = 10000
    """Events that wait in memory while the disk is full; then the oldest go."""


@dataclass(frozen=True)
class JsonLinesConfig:
    """Rotation of events.jsonl when cameras are live; a run on files writes one file."""

    rotate_mb: float = 64.0
    """A full file becomes events.jsonl.1, MB."""
    rotate_h: float = 24.0
    """So does one that is this old, h."""
    keep: int = 30
    """Old files that are kept."""


@dataclass(frozen=True)
class MqttConfig:
    """An MQTT broker that gets the events of live cameras.

    MAMBAPRO_MQTT_USERNAME and MAMBAPRO_MQTT_PASSWORD in the environment log in.
    """

    host: str | None = None
    """Name or address of the broker; none sends nothing."""
    port: int = 1883
    """TCP port; 8883 is usual with TLS."""
    prefix: str = "mambapro"
    """Topics are <prefix>/events/<rig> and, with online or offline, <prefix>/status. Its own for
    each process."""
    client_id: str | None = None
    """Unique at the broker; none takes mambapro- and the name of this machine."""
    version: Literal["5", "3.1.1"] = "5"
    """Protocol. A 3.1.1 broker acknowledges also what it may not publish: then it is lost."""
    tls: bool = False
    """Encrypt, and check the broker's certificate."""
    ca_file: str | None = None
    """Certificates to trust; none trusts the system's. Needs tls."""
    cert_file: str | None = None
    """Certificate of this client; none has none. Needs tls."""
    key_file: str | None = None
    """Its private key; none looks for it in cert_file."""
    keepalive_s: int = 15
    """A silent connection is found dead after twice this at most, s."""
    timeout_s: float = 5.0
    """Longest wait for the broker to answer, s."""

    def __post_init__(self) -> None:
        if not self.prefix or set("+#\0") & set(self.prefix) or self.prefix.startswith("$"):
            raise InputError(
                "sinks.mqtt.prefix must be a topic without +, # and a leading $, "
                f"got {self.prefix!r}"
            )
        if not self.tls and (self.ca_file or self.cert_file or self.key_file):
            raise InputError("sinks.mqtt.ca_file, cert_file and key_file need sinks.mqtt.tls=true")
        if self.key_file and not self.cert_file:
            raise InputError("sinks.mqtt.key_file is the key of cert_file, which is not given")
        if not 0 < self.port < 65536:
            raise InputError(f"sinks.mqtt.port must be 1 to 65535, got {self.port}")
        if not 1 <= self.keepalive_s < 65536:
            raise InputError(f"sinks.mqtt.keepalive_s must be 1 to 65535, got {self.keepalive_s}")
        positive("sinks.mqtt.timeout_s", self.timeout_s)


@dataclass(frozen=True)
class WebhookConfig:
    """An HTTP receiver that gets the events of live cameras, one POST each.

    In the environment, MAMBAPRO_WEBHOOK_KEY signs the body (HMAC-SHA256, docs/events.md), and
    MAMBAPRO_WEBHOOK_TOKEN is sent as bearer token.
    """

    url: str | None = None
    """http or https, without credentials; none sends nothing."""
    ca_file: str | None = None
    """Certificates to trust; none trusts the system's."""
    timeout_s: float = 5.0
    """Longest wait for a connection, and for the answer, s."""

    def __post_init__(self) -> None:
        if self.url is not None:
            parts = urlsplit(self.url)
            if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
                raise InputError(
                    "sinks.webhook.url must be http://HOST[:PORT]/PATH or https://..., without a "
                    "user or password (see MAMBAPRO_WEBHOOK_TOKEN)"
                )
        positive("sinks.webhook.timeout_s", self.timeout_s)


@dataclass(frozen=True)
class SnapshotsConfig:
    """Crops of sightings as JPEGs."""

    enabled: bool = False
    """Keep them. They show persons: mind the law of the place."""
    folder: str = "snapshots"
    """Folder; a relative path starts at the output folder."""
    quality: int = 90
    """JPEG quality, 1 to 100."""
    keep_days: float = 30.0
    """Older ones are deleted, days."""
    max_mb: float = 1024.0
    """Most that they take on disk, MB; then the oldest go."""


@dataclass(frozen=True)
class SinksConfig:
    """Where events go besides events.jsonl."""

    journal: JournalConfig = field(default_factory=JournalConfig)
    jsonlines: JsonLinesConfig = field(default_factory=JsonLinesConfig)
    mqtt: MqttConfig = field(default_factory=MqttConfig)
    webhook: WebhookConfig = field(default_factory=WebhookConfig)
    snapshots: SnapshotsConfig = field(default_factory=SnapshotsConfig)
