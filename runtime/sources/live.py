"""A live source: one thread that connects, reads, and connects again, until it is closed."""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections import deque
from typing import Final

from runtime.config import SourceConfig
from runtime.sources.camera import Camera, CameraLost, CameraRefused, Connect, Shot
from runtime.sources.capture_time import CaptureClock
from runtime.sources.reading import (
    End,
    Frame,
    NothingYet,
    Reading,
    SourceStatus,
    State,
    TimeSource,
)
from runtime.sources.uri import redact

CLOSE_S: Final = 0.5
REFUSED_S: Final = 30.0
"""Wait after a refused login, s."""

log = logging.getLogger(__name__)


class Backoff:
    """Waits between attempts: each twice the one before, less up to half of it by chance."""

    def __init__(self, min_s: float, max_s: float) -> None:
        """Wait ``min_s`` first and ``max_s`` at most."""
        self._min_s, self._max_s = min_s, max_s
        self._random = random.Random()
        self._next_s = min_s

    def next_s(self) -> float:
        """Return how long to wait now, s."""
        wait_s = self._next_s
        self._next_s = min(2 * wait_s, self._max_s)
        return wait_s * self._random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Begin with the shortest wait again."""
        self._next_s = self._min_s


class LiveSource:
    """A camera that is connected to for as long as this source is open, however often it goes.

    Decoding and conversion to RGB run in its own thread. A camera that hangs while it is opened
    cannot be interrupted by any library: after ``close`` that thread ends by its timeout.
    """

    live: Final = True

    def __init__(self, name: str, connect: Connect, config: SourceConfig) -> None:
        """Start; ``name`` is shown and logged, so it holds no credentials."""
        self._name, self._connect, self._config = name, connect, config
        self._clock = CaptureClock()
        self._backoff = Backoff(config.backoff_min_s, config.backoff_max_s)
        self._stop = threading.Event()
        self._changed = threading.Condition()
        # All below is shared between the threads, under _changed.
        self._queue: deque[Frame] = deque()
        self._state: State = "connecting"
        self._reason = ""
        self._since_s = time.time()
        self._frames = self._dropped = self._connections = 0
        self._picture_s = 0.0  # time.monotonic() of the latest picture
        self._time_source: TimeSource | None = None
        self._thread = threading.Thread(target=self._run, name=f"decode {name}", daemon=True)
        self._thread.start()

    def read(self, timeout_s: float) -> Reading:
        """Return the next frame, or why there is none; waits at most ``timeout_s``."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._stop.is_set(), timeout_s)
            if self._stop.is_set():
                return End(self._frames)
            return self._queue.popleft() if self._queue else NothingYet()

    def status(self) -> SourceStatus:
        """Return how the source is; true even while its thread hangs."""
        with self._changed:
            state, reason, since_s = self._state, self._reason, self._since_s
            quiet_s = time.monotonic() - self._picture_s
            if state == "live" and quiet_s > self._config.stalled_after_s:
                state, reason = "stalled", f"no picture for {quiet_s:.1f} s"
                since_s = time.time() - quiet_s + self._config.stalled_after_s
            return SourceStatus(
                state=state,
                reason=reason,
                since_s=since_s,
                frames=self._frames,
                dropped=self._dropped,
                reconnects=max(0, self._connections - 1),
                time_source=self._time_source,
            )

    def close(self) -> None:
        """Stop at any moment, within a second."""
        with self._changed:
            self._stop.set()
            self._queue.clear()
            self._enter("ended", "closed")
            self._changed.notify_all()
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with contextlib.closing(self._connect()) as camera:
                    self._follow(camera)
            except CameraRefused as error:
                self._lose(str(error))
                self._stop.wait(REFUSED_S)
            except CameraLost as error:
                self._lose(str(error))
                self._stop.wait(self._backoff.next_s())
            except Exception as error:
                # A surprise in a library must not end a camera for months. No traceback: what it
                # shows may hold the URI.
                self._lose(redact(f"{type(error).__name__}: {error}"))
                self._stop.wait(self._backoff.next_s())

    def _follow(self, camera: Camera) -> None:
        """Hand on what ``camera`` gives until it is lost or this source is closed."""
        opened_s = picture_s = time.monotonic()
        pictures = damaged = 0
        while not self._stop.is_set():
            shots = camera.read()
            now_s = time.monotonic()
            if shots and not pictures:
                self._arrived()
            for shot in shots:
                self._deliver(shot)
            pictures += len(shots)
            self._count_damaged(camera.damaged - damaged)
            damaged = camera.damaged
            if shots:
                picture_s = now_s
                if now_s - opened_s > self._config.backoff_max_s:  # it was no flash in the pan
                    self._backoff.reset()
            elif now_s - picture_s > self._config.picture_timeout_s:
                raise CameraLost(f"no picture came for {now_s - picture_s:.0f} s")

    def _arrived(self) -> None:
        if self._connections:
            self._clock.connected()
        with self._changed:
            self._connections += 1
            self._picture_s = time.monotonic()
            self._enter("live", "")
        log.info("%s: pictures come", self._name, extra={"camera": self._name})

    def _deliver(self, shot: Shot) -> None:
        stamp = self._clock.stamp(shot)
        with self._changed:
            if self._stop.is_set():
                return
            frame = Frame(
                shot.picture,
                stamp.time_s,
                stamp.source,
                self._frames,
                shot.arrival_s,
                stamp.connection,
            )
            self._frames += 1
            self._picture_s = time.monotonic()
            self._time_source = stamp.source
            if len(self._queue) >= self._config.queue_frames:
                self._queue.popleft()
                self._dropped += 1
            self._queue.append(frame)
            self._changed.notify()

    def _count_damaged(self, more: int) -> None:
        with self._changed:
            self._dropped += more

    def _lose(self, reason: str) -> None:
        with self._changed:
            news = self._state != "lost" or reason != self._reason
            self._enter("lost", reason)
        if news:
            log.warning("%s: %s; trying again", self._name, reason, extra={"camera": self._name})

    def _enter(self, state: State, reason: str) -> None:
        """Change the state; the caller holds the lock."""
        if self._state == "ended":
            return
        if state != self._state:
            self._since_s = time.time()
        self._state, self._reason = state, reason
