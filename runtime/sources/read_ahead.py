"""A source that has an end: decoded by a thread of its own, which waits rather than drops."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from typing import Final

from mambapro.cli import InputError
from runtime.sources.reading import (
    End,
    Failure,
    Frame,
    NothingYet,
    Reading,
    SourceStatus,
    State,
    TimeSource,
)

QUEUE_FRAMES: Final = 8
WAIT_S: Final = 0.2


class ReadAhead:
    """Frames of an iterator, worked out ahead of the reader by at most ``queue_frames``."""

    live: Final = False

    def __init__(self, name: str, frames: Iterator[Frame], queue_frames: int) -> None:
        """Start; ``name`` is shown. ``frames`` raises InputError when it cannot go on."""
        self._name = name
        self._frames = frames
        self._queue: queue.Queue[Reading] = queue.Queue(queue_frames)
        self._stop = threading.Event()
        self._last: Reading | None = None
        self._count = 0
        self._since_s = time.time()
        self._time_source: TimeSource | None = None
        self._thread = threading.Thread(target=self._run, name=f"decode {name}", daemon=True)
        self._thread.start()

    def read(self, timeout_s: float) -> Reading:
        """Return the next frame, or why there is none; waits at most ``timeout_s``."""
        if self._last is not None:
            return self._last
        try:
            reading = self._queue.get(timeout=timeout_s)
        except queue.Empty:
            return NothingYet()
        if isinstance(reading, (End, Failure)):
            self._last = reading
            self._since_s = time.time()
        return reading

    def status(self) -> SourceStatus:
        """Return how the source is."""
        last = self._last
        state: State = "live" if last is None and not self._stop.is_set() else "ended"
        reason = last.reason if isinstance(last, Failure) else ""
        return SourceStatus(
            state="lost" if reason else state,
            reason=reason,
            since_s=self._since_s,
            frames=self._count,
            dropped=0,
            reconnects=0,
            time_source=self._time_source,
        )

    def close(self) -> None:
        """Stop and join the decoder."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            for frame in self._frames:
                if not self._put(frame):
                    return
                self._count += 1
                self._time_source = frame.time_source
        except InputError as error:
            self._put(Failure(str(error)))
            return
        count = self._count
        self._put(End(count) if count else Failure(f"{self._name} holds no picture"))

    def _put(self, reading: Reading) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(reading, timeout=WAIT_S)
                return True
            except queue.Full:
                continue
        return False
