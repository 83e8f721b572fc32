"""When a live picture was taken: by the best clock its stream tells of."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from runtime.sources.camera import Shot
from runtime.sources.reading import TimeSource

JUMP_S: Final = 0.5
"""Time stamps that get ahead of the arrivals by more than this have jumped, s."""
FORGET: Final = 1e-3
"""Share of a second by which the least delay seen rises a second: more than clocks drift."""


@dataclass(frozen=True)
class Stamp:
    """The capture time of one picture."""

    time_s: float
    """Unix time, s."""
    source: TimeSource
    """Where it came from."""
    connection: int
    """Counts up when times before and after are not of one clock."""


def unix_offset_s() -> float:
    """Return what turns `time.monotonic()` into Unix time, s."""
    return time.time() - time.monotonic()


class CaptureClock:
    """Stamps the pictures of one camera.

    RTCP sender reports tell the camera's own clock; else the stream's time stamps count, tied to
    Unix time where the first picture arrived; else the arrival itself. A packet can be late but
    not early: times that go back, or get ahead of the least delay seen by more than JUMP_S, have
    jumped, and so has whoever changes its clock.
    """

    def __init__(self, offset_s: Callable[[], float] = unix_offset_s) -> None:
        """Read the machine's clock through ``offset_s``, once a connection."""
        self._read_offset_s = offset_s
        self._connection = -1
        self.connected()

    def connected(self) -> None:
        """Start anew: the pictures that follow are of a new connection."""
        self._connection += 1
        self._offset_s = self._read_offset_s()
        self._begin(None)

    def stamp(self, shot: Shot) -> Stamp:
        """Return the capture time of the next picture."""
        arrival_s = shot.arrival_s + self._offset_s
        source: TimeSource = "arrival"
        if shot.wallclock_s is not None:
            source = "rtcp"
        elif shot.pts_s is not None:
            source = "pts"
        time_s = self._time_s(shot, source, arrival_s)
        if self._source is not None and self._has_jumped(source, time_s, arrival_s):
            self._connection += 1
            self._begin(None)
            time_s = self._time_s(shot, source, arrival_s)
        self._remember(source, time_s, arrival_s)
        return Stamp(time_s, source, self._connection)

    def _begin(self, source: TimeSource | None) -> None:
        self._source: TimeSource | None = source
        self._anchor_s: float | None = None
        self._last_s = self._last_arrival_s = self._least_delay_s = 0.0

    def _time_s(self, shot: Shot, source: TimeSource, arrival_s: float) -> float:
        if source == "rtcp" and shot.wallclock_s is not None:
            return shot.wallclock_s
        if source == "pts" and shot.pts_s is not None:
            if self._anchor_s is None:
                self._anchor_s = arrival_s - shot.pts_s
            return shot.pts_s + self._anchor_s
        return arrival_s

    def _has_jumped(self, source: TimeSource, time_s: float, arrival_s: float) -> bool:
        early = arrival_s - time_s < self._least_delay_s - JUMP_S
        return source != self._source or time_s < self._last_s or early

    def _remember(self, source: TimeSource, time_s: float, arrival_s: float) -> None:
        delay_s = arrival_s - time_s
        if self._source is not None:
            grown_s = self._least_delay_s + FORGET * (arrival_s - self._last_arrival_s)
            delay_s = min(delay_s, grown_s)
        self._source, self._least_delay_s = source, delay_s
        self._last_s, self._last_arrival_s = time_s, arrival_s
