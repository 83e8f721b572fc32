"""Bring the times of a rig's cameras to one clock.

Files keep their own time stamps, less a constant offset a camera. Live cameras are tracked against
the one clock that they share, that of the arrivals: the network only ever adds delay, so the line
under all delays is a camera's offset and drift. What no arrival can tell is by how much the least
delays of two cameras differ; that residual comes from content, or from the configuration.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from statistics import median
from typing import Final, Protocol

from mambapro.contract import Modality
from runtime.sources import Frame
from runtime.sync.envelope import DelayEnvelope

REORDER_S: Final = 1.0
"""Time stamps that fall back further than this are a clock that was set, not a frame overtaken."""
DROP_S: Final = 0.010
"""A frame this much faster than any before it shows a clock set ahead, or a faster way, s."""
RISE_S: Final = 0.025
"""Delay above the line at which irregular time stamps may be a clock set back, s."""
SETTLE_S: Final = 0.4
"""A new line is trusted once it has not dropped for this long, s; a new connection often begins
with pictures from a buffer."""
SETTLE_MOST_S: Final = 3.0
"""It is trusted after this long whatever it does, s."""
DOUBT_S: Final = 1.0
"""Delays that stay high this long after irregular time stamps are a clock set back, s."""
DOUBT_FRAMES: Final = 3
"""Frames in doubt from which none is given a time: fewer may have been overtaken by others."""


class Clocks(Protocol):
    """The clocks of one rig."""

    def time_s(self, modality: Modality, frame: Frame) -> float | None:
        """Return when ``frame`` was taken in the rig's time; None while its clock is not known."""
        ...


class FixedClocks:
    """Clocks of constant offset: the rig's time is the reference camera's."""

    def __init__(self, offsets_s: Mapping[Modality, float]) -> None:
        """Take ``offsets_s``: by how much each camera's clock is ahead, s."""
        self._offsets_s = dict(offsets_s)

    def time_s(self, modality: Modality, frame: Frame) -> float:
        """Return the time stamp of ``frame`` less its clock's offset."""
        return frame.time_s - self._offsets_s.get(modality, 0.0)


class TrackedClocks:
    """Clocks of live cameras: the rig's time is that of the arrivals, ``time.monotonic()``.

    To be called by one thread, in the order in which frames arrived; only ``set_residuals`` may be
    called by another.
    """

    def __init__(self, residuals_s: Mapping[Modality, float]) -> None:
        """Track every camera; ``residuals_s`` says how much later its pictures seem, s."""
        self._residuals_s = dict(residuals_s)
        self._trackers: dict[Modality, ClockTracker] = {}

    def time_s(self, modality: Modality, frame: Frame) -> float | None:
        """Return when ``frame`` was taken; every frame that arrives has to be shown here once."""
        tracker = self._trackers.setdefault(modality, ClockTracker())
        time_s = tracker.track(frame.time_s, frame.arrival_s, frame.connection)
        return None if time_s is None else time_s - self.residual_s(modality)

    def residual_s(self, modality: Modality) -> float:
        """Return what is taken off the tracked time of ``modality``, s."""
        return self._residuals_s.get(modality, 0.0)

    def set_residuals(self, residuals_s: Mapping[Modality, float]) -> None:
        """Take other residuals from now on."""
        self._residuals_s = dict(residuals_s)

    def restarts(self, modality: Modality) -> int:
        """Return how often the clock of ``modality`` was set or its connection was new."""
        tracker = self._trackers.get(modality)
        return 0 if tracker is None else tracker.restarts


class ClockTracker:
    """Follows one camera's clock by when its frames arrive, through drift, loss and jumps."""

    def __init__(self) -> None:
        self.restarts = -1
        """How often it began anew: connections and jumps."""
        self._envelope = DelayEnvelope()
        self._connection: int | None = None
        self._last_s = 0.0
        self._intervals: deque[float] = deque(maxlen=15)
        self._began_s = self._dropped_s = 0.0
        self._doubts: list[tuple[float, float]] = []

    def track(self, time_s: float, arrival_s: float, connection: int) -> float | None:
        """Take a frame's time stamp and arrival; return its time, or None while it is unknown.

        The time is when a frame of the least delay would have arrived.
        """
        delay_s = arrival_s - time_s
        if connection != self._connection or time_s < self._last_s - REORDER_S:
            self._connection = connection
            self._restart(arrival_s)
        excess_s = self._envelope.excess(time_s, delay_s)
        if excess_s < -DROP_S:
            self._drop(arrival_s, excess_s)
        doubted = self._doubt(time_s, delay_s, excess_s)
        self._last_s = time_s
        self._envelope.add(time_s, delay_s)
        if doubted or not self._settled(arrival_s):
            return None
        return time_s + self._envelope.at(time_s)

    def _restart(self, arrival_s: float) -> None:
        """Begin anew; the drift stays, it belongs to the camera."""
        self._envelope = DelayEnvelope(self._envelope.slope)
        self._intervals.clear()
        self._doubts.clear()
        self._began_s = self._dropped_s = arrival_s
        self.restarts += 1

    def _drop(self, arrival_s: float, excess_s: float) -> None:
        """Follow delays that are lower than any before."""
        if self._settled(arrival_s):
            self._restart(arrival_s)
        else:
            self._envelope = DelayEnvelope(self._envelope.slope)
            self._dropped_s = arrival_s

    def _settled(self, arrival_s: float) -> bool:
        return arrival_s - self._dropped_s >= SETTLE_S or arrival_s - self._began_s >= SETTLE_MOST_S

    def _doubt(self, time_s: float, delay_s: float, excess_s: float) -> bool:
        """Return whether the clock may have been set back; once that is sure, begin anew.

        A network that holds frames up leaves their time stamps regular; a clock that is set does
        not, and its delays stay high.
        """
        regular = self._regular(time_s - self._last_s)
        if excess_s < RISE_S / 2 or (not self._doubts and (regular or excess_s < RISE_S)):
            self._doubts.clear()
            return False
        self._doubts.append((time_s, delay_s))
        first_s = sum(self._doubts[0])
        if time_s + delay_s - first_s < DOUBT_S:
            return len(self._doubts) >= DOUBT_FRAMES
        doubts = list(self._doubts)
        self._restart(first_s)
        for point in doubts:
            self._envelope.add(*point)
        return False

    def _regular(self, interval_s: float) -> bool:
        """Return whether ``interval_s`` is a few frames: some may have been lost between."""
        if not 0 < interval_s < REORDER_S:
            return False
        period_s = median(self._intervals) if self._intervals else interval_s
        self._intervals.append(interval_s)
        return abs(interval_s - period_s * round(interval_s / period_s)) < 0.2 * period_s
