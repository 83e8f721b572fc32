"""Open the event log that the settings describe."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from runtime.config import JsonLinesConfig, SinksConfig, SnapshotsConfig
from runtime.sinks.dispatcher import Dispatcher
from runtime.sinks.eventlog import EventLog
from runtime.sinks.ids import CLIPS, RunName, is_live, new_run, order
from runtime.sinks.interface import Event, Sender
from runtime.sinks.journal import Journal
from runtime.sinks.jsonlines import JsonLinesSink, Rotation
from runtime.sinks.mqtt import MqttSender
from runtime.sinks.refused import RefusedEvents
from runtime.sinks.snapshots import DAY_S, SnapshotStore
from runtime.sinks.webhook import WebhookSender

EVENTS_FILE: Final = "events.jsonl"
REFUSED_FILE: Final = "refused.jsonl"
MB: Final = 1 << 20

log = logging.getLogger(__name__)


def open_events(config: SinksConfig, output: Path, *, live: bool) -> EventLog:
    """Open the log of a run that writes to the folder ``output``.

    ``live``: times are Unix seconds, events.jsonl goes on over restarts, and all goes through a
    journal. On files events.jsonl starts anew, and the same clips give the same ids.

    Raises InputError when another process has the journal open, OSError when the disk refuses.
    """
    snapshots = _snapshots(config.snapshots, output)
    if not live:
        _say_what_is_not_sent(config)
        return EventLog(CLIPS, JsonLinesSink(output / EVENTS_FILE), snapshots=snapshots)
    senders = _senders(config, output)
    journal = Journal(
        output / config.journal.folder,
        max_bytes=int(config.journal.max_mb * MB),
        fsync=config.journal.fsync,
    )
    last = journal.last()
    run = new_run(time.time(), None if last is None else last["id"])
    # all readers before the first one moves: what those that are known have read is deleted
    readers = {name: journal.reader(name) for name in senders}
    return EventLog(
        run,
        journal,
        patience=config.journal.memory_events,
        snapshots=snapshots,
        dispatchers=[Dispatcher(name, readers[name], senders[name]) for name in senders],
    )


def open_events_again(config: SinksConfig, output: Path, run: RunName) -> EventLog:
    """Open a log that gives the events of a recorded ``run`` their ids again."""
    sink = JsonLinesSink(output / EVENTS_FILE)
    return EventLog(run, sink, snapshots=_snapshots(config.snapshots, output))


class JsonLinesSender:
    """Copies the journal to a JSON lines file. The file's last line says where it was."""

    connected = True
    refused = 0

    def __init__(self, path: Path, config: JsonLinesConfig) -> None:
        """Go on with ``path``."""
        self._path = path
        self._rotation = Rotation(int(config.rotate_mb * MB), config.rotate_h * 3600, config.keep)
        self._sink: JsonLinesSink | None = None
        self._last: tuple[str, int] | None = None

    def connect(self) -> None:
        """Open the file, and see what it holds."""
        if self._sink is None:
            self._sink = JsonLinesSink(self._path, append=True, rotation=self._rotation)
            last = self._sink.last()
            is_ours = last is not None and is_live(last.get("id"))  # else of a run on files
            self._last = order(last["id"]) if last is not None and is_ours else None

    def send(self, events: Sequence[Event]) -> int:
        """Write the first of ``events``, unless a kill came between writing it and saying so."""
        assert self._sink is not None
        identifier = order(events[0]["id"])
        if self._last is None or identifier > self._last:
            self._sink.write(events[0])
            self._last = identifier
        return 1

    def close(self) -> None:
        """Flush to disk and close."""
        if self._sink is not None:
            self._sink.close()


def _senders(config: SinksConfig, output: Path) -> dict[str, Sender]:
    refusals = RefusedEvents(output / REFUSED_FILE)
    senders: dict[str, Sender] = {
        "jsonlines": JsonLinesSender(output / EVENTS_FILE, config.jsonlines)
    }
    if config.mqtt.host is not None:
        senders["mqtt"] = MqttSender(config.mqtt, refusals)
    if config.webhook.url is not None:
        senders["webhook"] = WebhookSender(config.webhook, refusals)
    return senders


def _say_what_is_not_sent(config: SinksConfig) -> None:
    wanted = {"sinks.mqtt": config.mqtt.host, "sinks.webhook": config.webhook.url}
    for name in (name for name, receiver in wanted.items() if receiver is not None):
        log.warning("%s is for live cameras: a run on files sends nothing", name)


def _snapshots(config: SnapshotsConfig, output: Path) -> SnapshotStore | None:
    if not config.enabled:
        return None
    return SnapshotStore(
        output / config.folder,
        quality=config.quality,
        keep_s=config.keep_days * DAY_S,
        max_bytes=int(config.max_mb * MB),
    )
