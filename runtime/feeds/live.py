"""Live cameras as a feed: rigs come and go while it runs, and so do their cameras."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from mambapro.cli import InputError
from runtime.config import RigConfig, StreamConfig
from runtime.feeds.interface import Due, Instant, Notice
from runtime.feeds.live_rig import LiveRig
from runtime.load import THRIFT, LoadControl, left_out
from runtime.sync.sync_statistics import SyncStatistics

POLL_S: Final = 0.005
TICK_S: Final = 0.1
"""An instant comes at least this often, so that nothing waits for a camera that is gone."""

log = logging.getLogger(__name__)


class LiveFeed:
    """The cameras of all rigs as they are now. Other threads may reconfigure and stop it."""

    def __init__(self, rigs: Sequence[RigConfig], config: StreamConfig) -> None:
        """Connect to the cameras of ``rigs``; returns at once, whether they are there or not."""
        self._config = config
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._wanted = {rig.name: rig for rig in rigs}
        self._changed = False
        self._restarted: set[str] = set()
        self._pool = ThreadPoolExecutor(1, "clocks")
        self._rigs: dict[str, LiveRig] = {}
        self._load = LoadControl(config.live.latency_budget_s)
        self._closed: dict[str, SyncStatistics] = {}
        self.refused: dict[str, str] = {}
        """Rigs of the latest reload that cannot be watched, and why."""
        try:
            for rig in rigs:
                self._rigs[rig.name] = LiveRig(rig, config, self._pool)
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[Instant]:
        """Give what the cameras give, until :meth:`stop`."""
        told_s = -TICK_S
        while not self._stop.is_set():
            notices = self._reconfigured()
            due: list[Due] = []
            for rig in self._rigs.values():
                news, triplet = rig.poll()
                notices += news
                if triplet is not None:
                    due.append(Due(rig.rig.name, triplet))
            now = time.monotonic()
            if due or notices or now - told_s >= TICK_S:
                told_s = now
                yield Instant(time.time(), notices, due, self._pressure(due, now))
            else:
                self._stop.wait(POLL_S)
        yield Instant(time.time(), [note for rig in self._rigs.values() for note in rig.leave()])

    def reconfigure(self, rigs: Sequence[RigConfig]) -> None:
        """Watch ``rigs`` from now on; those that stay as they were are not disturbed."""
        with self._lock:
            self._wanted, self._changed = {rig.name: rig for rig in rigs}, True

    def wanted(self) -> dict[str, RigConfig]:
        """Return the rigs that are to be watched, by name; safe to call from any thread."""
        with self._lock:
            return dict(self._wanted)

    def add(self, rig: RigConfig) -> bool:
        """Watch ``rig`` as well; False when there is one of its name."""
        with self._lock:
            if rig.name in self._wanted:
                return False
            self._wanted[rig.name], self._changed = rig, True
            return True

    def remove(self, name: str) -> bool:
        """Watch the rig no more; False when there is none of that name."""
        with self._lock:
            if self._wanted.pop(name, None) is None:
                return False
            self._changed = True
            return True

    def restart(self, name: str) -> bool:
        """Begin with the rig anew, connections included; False when there is none."""
        with self._lock:
            if name not in self._wanted:
                return False
            self._restarted.add(name)
            self._changed = True
            return True

    def stop(self) -> None:
        """End the feed; may be called from a signal handler."""
        self._stop.set()

    @property
    def load(self) -> int:
        """How hard the box is pressed; :mod:`runtime.load` says what is left out."""
        return self._load.level

    def rigs(self) -> list[LiveRig]:
        """Return the rigs that are watched now; safe to call from any thread."""
        return list(self._rigs.values())

    def statistics(self) -> dict[str, SyncStatistics]:
        """Return what each rig's synchroniser did."""
        return self._closed | {name: rig.statistics for name, rig in self._rigs.items()}

    def close(self) -> None:
        """Let go of all cameras."""
        self._stop.set()
        for rig in self._rigs.values():
            rig.close()
        self._pool.shutdown()

    def _pressure(self, due: Sequence[Due], now: float) -> int:
        arrivals = [frame.arrival_s for item in due for frame in item.triplet.frames.values()]
        before = self._load.level
        level = self._load.see(now - min(arrivals), now) if arrivals else before
        if level != before:
            severity = logging.WARNING if level > before else logging.INFO
            log.log(severity, "load %d of %d: %s", level, len(THRIFT) - 1, left_out(level))
        return level

    def _reconfigured(self) -> list[Notice]:
        with self._lock:
            if not self._changed:
                return []
            new, anew = dict(self._wanted), self._restarted
            self._restarted, self._changed = set(), False
        notices: list[Notice] = []
        refused: dict[str, str] = {}
        for name in [n for n, live in self._rigs.items() if n in anew or new.get(n) != live.rig]:
            live = self._rigs.pop(name)
            notices += live.leave()
            self._closed[name] = live.statistics
        for name, rig in new.items():
            if name not in self._rigs:
                try:
                    self._rigs[name] = LiveRig(rig, self._config, self._pool)
                except InputError as error:
                    refused[name] = str(error)
                    log.error("rig %s cannot be watched: %s", name, error, extra={"rig": name})
        self.refused = refused
        log.info("watching %s", ", ".join(self._rigs) or "no rig")
        return notices
