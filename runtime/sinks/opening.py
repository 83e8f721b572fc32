"""Open the event log that the settings describe."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

from mambapro.cli import InputError
from runtime.config import JournalConfig, JsonLinesConfig, SinksConfig, SnapshotsConfig
from runtime.sinks.deletions import Deletion, Deletions
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
DELETIONS_FILE: Final = "deletions.jsonl"
REFUSED_FILE: Final = "refused.jsonl"
MB: Final = 1 << 20

log = logging.getLogger(__name__)


def open_events(config: SinksConfig, output: Path, *, live: bool) -> EventLog:
    """Open the log of a run that writes to the folder ``output``.

    ``live``: times are Unix seconds, events.jsonl goes on over restarts, and all goes through a
    journal. On files events.jsonl starts anew, and the same clips give the same ids.

    Raises InputError when another process has the journal open, OSError when the disk refuses.
    """
    if not live:
        _say_what_is_not_sent(config)
        return _log_on_files(config, output, CLIPS)
    refusals = RefusedEvents(output / REFUSED_FILE)
    jsonlines = JsonLinesSender(output / EVENTS_FILE, config.jsonlines)
    senders = {"jsonlines": jsonlines, **_network_senders(config, refusals)}
    journal = _journal(config.journal, output)
    last = journal.last()
    run = new_run(time.time(), None if last is None else last["id"])
    # all readers before the first one moves: what those that are known have read is deleted
    readers = {name: journal.reader(name) for name in senders}
    return EventLog(
        run,
        journal,
        patience=config.journal.memory_events,
        snapshots=_snapshots(config.snapshots, output) if config.snapshots.enabled else None,
        dispatchers=[Dispatcher(name, readers[name], senders[name]) for name in senders],
        deletions=_deletions(config, output, journal, jsonlines, refusals),
    )


def open_events_again(config: SinksConfig, output: Path, run: RunName) -> EventLog:
    """Open a log that gives the events of a recorded ``run`` their ids again."""
    return _log_on_files(config, output, run)


def forget_in_folder(
    config: SinksConfig, output: Path, identities: Collection[str], events: Collection[str] = ()
) -> bool:
    """Do what `EventLog.forget` does from a process that writes no events to ``output``.

    Returns whether it is done: a stream that has the folder open does it within seconds. Not for
    the folder of a run on files that is under way.
    """
    refusals = RefusedEvents(output / REFUSED_FILE)
    jsonlines = JsonLinesSender(output / EVENTS_FILE, config.jsonlines)
    with contextlib.ExitStack() as owner:
        owner.callback(jsonlines.close)
        try:
            journal = _journal(config.journal, output)
        except InputError:
            Deletions(output / DELETIONS_FILE, []).add(identities, events)
            return False
        owner.callback(journal.close)
        deletions = _deletions(config, output, journal, jsonlines, refusals)
        deletions.add(identities, events)
        deletions.run()
        return True


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
        self._deleted: set[str] = set()
        self._lock = threading.Lock()

    def connect(self) -> None:
        """Open the file, and see what it holds."""
        with self._lock:
            self._open()

    def _open(self) -> None:
        if self._sink is None:
            self._sink = JsonLinesSink(self._path, append=True, rotation=self._rotation)
            last = self._sink.last()
            is_ours = last is not None and is_live(last.get("id"))  # else of a run on files
            self._last = order(last["id"]) if last is not None and is_ours else None

    def send(self, events: Sequence[Event]) -> int:
        """Write the first of ``events``, unless a kill came between writing it and saying so."""
        with self._lock:
            assert self._sink is not None
            identifier = order(events[0]["id"])
            is_new = self._last is None or identifier > self._last
            if is_new and events[0]["id"] not in self._deleted:
                self._sink.write(events[0])
                self._last = identifier
            return 1

    def forget(self, deletion: Deletion, ids: Collection[str]) -> None:
        """Take events out, and those with ``ids`` that are on their way from the journal."""
        with self._lock:
            last = self._last
            self._deleted = {i for i in {*self._deleted, *ids} if last is None or order(i) > last}
            if self._path.is_file():
                self._open()
                assert self._sink is not None
                self._sink.forget(deletion)

    def close(self) -> None:
        """Flush to disk and close."""
        if self._sink is not None:
            self._sink.close()


def _log_on_files(config: SinksConfig, output: Path, run: RunName) -> EventLog:
    sink = JsonLinesSink(output / EVENTS_FILE)
    snapshots = _snapshots(config.snapshots, output)
    deletions = Deletions(output / DELETIONS_FILE, [sink.forget, snapshots.forget])
    return EventLog(
        run, sink, snapshots=snapshots if config.snapshots.enabled else None, deletions=deletions
    )


def _journal(config: JournalConfig, output: Path) -> Journal:
    return Journal(output / config.folder, max_bytes=int(config.max_mb * MB), fsync=config.fsync)


def _network_senders(config: SinksConfig, refusals: RefusedEvents) -> dict[str, Sender]:
    senders: dict[str, Sender] = {}
    if config.mqtt.host is not None:
        senders["mqtt"] = MqttSender(config.mqtt, refusals)
    if config.webhook.url is not None:
        senders["webhook"] = WebhookSender(config.webhook, refusals)
    return senders


def _deletions(
    config: SinksConfig,
    output: Path,
    journal: Journal,
    jsonlines: JsonLinesSender,
    refusals: RefusedEvents,
) -> Deletions:
    def forget_events(deletion: Deletion) -> None:
        jsonlines.forget(deletion, journal.forget(deletion))

    # also those of an earlier run that had snapshots on
    snapshots = _snapshots(config.snapshots, output)
    steps = [forget_events, refusals.forget, snapshots.forget]
    return Deletions(output / DELETIONS_FILE, steps)


def _say_what_is_not_sent(config: SinksConfig) -> None:
    wanted = {"sinks.mqtt": config.mqtt.host, "sinks.webhook": config.webhook.url}
    for name in (name for name, receiver in wanted.items() if receiver is not None):
        log.warning("%s is for live cameras: a run on files sends nothing", name)


def _snapshots(config: SnapshotsConfig, output: Path) -> SnapshotStore:
    return SnapshotStore(
        output / config.folder,
        quality=config.quality,
        keep_s=config.keep_days * DAY_S,
        max_bytes=int(config.max_mb * MB),
    )
