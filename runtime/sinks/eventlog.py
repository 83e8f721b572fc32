"""The one place that events are written to: it names them, keeps them, and tells the sinks."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Final

from mambapro.contract import Modality
from mambapro.preprocess import Picture
from runtime.sinks.deletions import Deletion, Deletions
from runtime.sinks.dispatcher import Dispatcher
from runtime.sinks.ids import RunName, event_id
from runtime.sinks.interface import Event, Sink, SinkStatus
from runtime.sinks.snapshots import SnapshotStore

SCHEMA: Final = 1
"""Version of docs/events.schema.json; it grows when a field changes its meaning or goes."""
RETRY_S: Final = 1.0
EXPIRE_S: Final = 3600.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EventsStatus:
    """How the event log is doing."""

    written: int
    """Events taken since the start."""
    waiting: int
    """Events in memory that the disk has refused so far; they die with the process."""
    lost: int
    """Events dropped because too many waited."""
    last_error: str | None
    """Why the disk refused the last one; None when it did not."""
    journal_bytes: int
    """Size of the journal on disk; 0 without one."""
    sinks: tuple[SinkStatus, ...]
    """One a sink that reads from the journal."""


class EventLog:
    """Takes events from any thread; `write` never waits for a network."""

    def __init__(
        self,
        run: RunName,
        sink: Sink,
        *,
        patience: int = 0,
        snapshots: SnapshotStore | None = None,
        dispatchers: Sequence[Dispatcher] = (),
        deletions: Deletions | None = None,
    ) -> None:
        """Write to ``sink``, which is closed with this, in the name of ``run``.

        Where times are Unix seconds, events tell them as text as well. When the disk refuses, up
        to ``patience`` events wait in memory and are tried again each second; with 0 the error goes
        to the caller.
        """
        self.run, self._sink, self._deletions = run, sink, deletions
        self._patience, self._snapshots, self._dispatchers = patience, snapshots, dispatchers
        self._waiting: deque[Event] = deque()
        self._listener: Callable[[Event], None] | None = None
        self._lock = threading.RLock()
        self._lost = 0
        self._last_error: str | None = None
        self.count = 0
        """Events taken."""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        if patience:
            self._thread = threading.Thread(target=self._look_after, name="event log", daemon=True)
            self._thread.start()

    def write(self, event: Event, crops: Mapping[Modality, Picture] | None = None) -> str:
        """Name ``event``, keep it, and return its id; see :meth:`tell`."""
        return str(self.tell(event, crops)["id"])

    def tell(self, event: Event, crops: Mapping[Modality, Picture] | None = None) -> Event:
        """Name ``event``, keep it, and return all that is told of it.

        It is on disk then, or waits for the disk. ``crops`` (H, W, 3) uint8 R, G, B are kept as
        snapshots where these are on.
        """
        with self._lock:
            identifier = event_id(self.run.text, self.count)
            kept = self._kept(identifier, event, crops)
            if self._waiting:
                self._wait(kept)
            else:
                self._write_or_wait(kept)
            self.count += 1
        for dispatcher in self._dispatchers:
            dispatcher.notify()
        if self._listener is not None:
            self._listener(kept)
        return kept

    def listen(self, listener: Callable[[Event], None] | None) -> None:
        """Let ``listener`` hear every event from now on, right after it was kept; None ends it.

        It is called in the thread that tells, so it may neither wait nor raise.
        """
        self._listener = listener

    def forget(self, identities: Collection[str], events: Collection[str] = ()) -> None:
        """Delete all that is kept of ``identities`` under any of these names, and of ``events``.

        Call it before the gallery forgets them. When it returns, that is a task on disk, done
        within seconds or after the next start. OSError: it is none.
        """
        assert self._deletions is not None
        self._deletions.add(identities, events)
        if self._thread is None:
            with self._lock:
                self._delete()

    def status(self) -> EventsStatus:
        """Return how it is doing, for health and metrics."""
        journal_bytes: int = getattr(self._sink, "size_bytes", 0)
        with self._lock:
            return EventsStatus(
                written=self.count,
                waiting=len(self._waiting),
                lost=self._lost,
                last_error=self._last_error,
                journal_bytes=journal_bytes,
                sinks=tuple(dispatcher.status() for dispatcher in self._dispatchers),
            )

    def close(self, drain_s: float = 1.0) -> None:
        """Give sinks that are connected ``drain_s`` to send the rest, stop all, and close.

        What could not be sent stays in the journal, and is sent after the next start.
        """
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            self._write_waiting()
            if self._waiting:
                log.error("%d events are lost: %s", len(self._waiting), self._last_error)
        until_s = time.monotonic() + drain_s
        for dispatcher in self._dispatchers:
            if dispatcher.status().connected:
                dispatcher.drain(until_s)
        for dispatcher in self._dispatchers:
            dispatcher.ask_to_stop()
        for dispatcher in self._dispatchers:
            dispatcher.close()
        self._sink.close()

    def _kept(
        self, identifier: str, event: Event, crops: Mapping[Modality, Picture] | None
    ) -> Event:
        """Return ``event`` with what the log adds, the kind and the id first."""
        kept = {"event": event["event"], "id": identifier, "schema": SCHEMA}
        kept["time"] = utc_text(event["time_s"]) if self.run.wall_clock else None
        if crops is not None:
            snapshots = self._snapshots
            kept["snapshots"] = (
                None if snapshots is None else snapshots.save(event["identity"], identifier, crops)
            )
        return {**kept, **event}

    def _write_or_wait(self, event: Event) -> None:
        try:
            self._sink.write(event)
        except OSError as error:
            if not self._patience:
                raise
            log.error("events wait in memory: %s", error)
            self._last_error = str(error)
            self._wait(event)

    def _wait(self, event: Event) -> None:
        self._waiting.append(event)
        if len(self._waiting) > self._patience:
            self._waiting.popleft()
            self._lost += 1

    def _look_after(self) -> None:
        expire_s = time.monotonic()
        while not self._stop.wait(RETRY_S):
            if self._snapshots is not None and time.monotonic() >= expire_s:
                self._snapshots.expire(time.time())
                expire_s += EXPIRE_S
            self._delete()
            with self._lock:
                wrote = self._write_waiting()
            if wrote:
                for dispatcher in self._dispatchers:
                    dispatcher.notify()

    def _delete(self) -> None:
        if self._deletions is not None:
            try:
                self._deletions.run(self._drop_waiting)
            except OSError as error:
                log.error("deletion is tried again: %s", error)

    def _drop_waiting(self, deletion: Deletion) -> None:
        with self._lock:
            self._waiting = deque(e for e in self._waiting if not deletion.covers(e))

    def _write_waiting(self) -> int:
        """Try the events that wait, in order; return how many the disk took."""
        wrote = 0
        while self._waiting:
            try:
                self._sink.write(self._waiting[0])
            except OSError as error:
                self._last_error = str(error)
                return wrote
            self._waiting.popleft()
            wrote += 1
        if wrote:
            log.info("the disk took the %d events that waited; %d were lost", wrote, self._lost)
        self._last_error = None
        return wrote


def utc_text(time_s: float) -> str:
    """Return Unix seconds as ISO 8601 in UTC, to the millisecond."""
    moment = datetime.fromtimestamp(time_s, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
