"""Bring the frames of a rig's cameras together: one triplet an instant, with gaps as they are.

No clock is read here: time comes with the frames and with ``pop``.
"""

from __future__ import annotations

import bisect
from collections import deque
from dataclasses import dataclass
from statistics import median
from typing import Final

from mambapro.contract import Modality
from runtime.sources import Frame
from runtime.sync.clocks import Clocks
from runtime.sync.sync_statistics import SyncStatistics

GAP: Final = 1.5
"""A step between two frames of the reference longer than this many periods lacks a frame."""
FEW_STEPS: Final = 3
"""Steps from which the reference's period is known."""


@dataclass(frozen=True)
class Triplet:
    """What a rig saw at one instant."""

    time_s: float
    """Corrected time of the anchor frame: the reference's, or another's when it is missing."""
    frames: dict[Modality, Frame]
    """Frames by modality; one that is not there was missing."""
    skew_s: float
    """Largest difference of corrected times between two of the frames, s."""


@dataclass(frozen=True, order=True)
class _Timed:
    """A frame that waits for the others."""

    time_s: float
    arrival_s: float
    modality: Modality
    frame: Frame


class Synchroniser:
    """Pairs frames by corrected time to the nearest frame of the reference camera.

    ``push``, ``end`` and ``lose`` feed it; ``pop`` gives the next triplet once nothing that may
    still come could change it, or once it has waited long enough.
    """

    def __init__(
        self,
        modalities: tuple[Modality, ...],
        reference: Modality,
        clocks: Clocks,
        tolerance_s: float,
        buffer_frames: int,
        max_wait_s: float = 0.2,
        reorder_s: float = 0.0,
        *,
        keep_strays: bool = False,
    ) -> None:
        """Pair frames of ``modalities`` that by ``clocks`` are at most ``tolerance_s`` apart.

        No frame waits longer than ``max_wait_s`` after it arrived, nor longer than ``reorder_s``
        for one of another camera that a later one of it has overtaken. A frame between two of the
        reference that lack none between them goes unpaired, and so does one that is nearer to the
        next frame of the reference; ``keep_strays`` does without these two rules.
        """
        self._keep_strays = keep_strays
        self._reference, self._clocks = reference, clocks
        self._tolerance_s, self._capacity = tolerance_s, buffer_frames
        self._max_wait_s, self._reorder_s = max_wait_s, reorder_s
        self._buffers: dict[Modality, deque[_Timed]] = {m: deque() for m in modalities}
        self._arrivals_s: dict[Modality, float] = {}
        self._ended: set[Modality] = set()
        self.lost: set[Modality] = set()
        """Cameras that are not waited for until they give a frame again."""
        self._last_s = float("-inf")
        self._reference_s: float | None = None
        self._steps_s: deque[float] = deque(maxlen=15)
        self.statistics = SyncStatistics()

    def push(self, modality: Modality, frame: Frame) -> float | None:
        """Take a frame; return its corrected time, or None when its clock is not known yet.

        A frame that comes too late goes unpaired, and the oldest when the buffer is full.
        """
        time_s = self._clocks.time_s(modality, frame)
        if time_s is None:
            self.statistics.untimed[modality] += 1
            self.statistics.unpaired[modality] += 1
            return None
        self.lost.discard(modality)
        self._arrivals_s[modality] = frame.arrival_s
        if time_s < self._last_s:
            self.statistics.late[modality] += 1
            self.statistics.unpaired[modality] += 1
            return time_s
        buffer = self._buffers[modality]
        bisect.insort(buffer, _Timed(time_s, frame.arrival_s, modality, frame), key=_time)
        if len(buffer) > self._capacity:
            self._leave(buffer)
        return time_s

    def end(self, modality: Modality) -> None:
        """Expect no more frames of ``modality``."""
        self._ended.add(modality)
        self.lost.discard(modality)

    def lose(self, modality: Modality) -> None:
        """Wait no more for ``modality``; its next frame brings it back."""
        self.lost.add(modality)

    def wants(self, now_s: float | None = None) -> list[Modality]:
        """Return the cameras that have to give a frame before the next triplet is certain."""
        anchor = self._anchor()
        return [m for m in self._buffers if self._waits_for(m, anchor, now_s)]

    def pop(self, now_s: float | None = None) -> Triplet | None:
        """Return the next triplet, or None when it is not certain yet.

        ``now_s`` is the time by the clock of the arrivals; without it the wait has no end but
        ``end`` and ``lose``.
        """
        anchor = self._anchor()
        if anchor is None or any(self._waits_for(m, anchor, now_s) for m in self._buffers):
            return None
        return self._triplet(anchor, [t for m in self._buffers if (t := self._take(m, anchor))])

    def _anchor(self) -> _Timed | None:
        """Return the reference's next frame, unless others were clearly earlier and alone."""
        heads = {m: buffer[0] for m, buffer in self._buffers.items() if buffer}
        reference = heads.get(self._reference)
        earliest = min(heads.values(), key=_time, default=None)
        if reference is None or earliest is None:
            return earliest
        alone = reference.time_s > earliest.time_s + self._tolerance_s
        # Without a gap the others have a higher frame rate, or ran a frame ahead.
        if alone and (self._keep_strays or self._gap_before(reference, unknown=True)):
            return earliest
        return reference

    def _gap_before(self, reference: _Timed, *, unknown: bool) -> bool:
        """Return whether the reference lacks a frame before this one."""
        period_s = self._period_s()
        if self._reference_s is None or period_s is None:
            return unknown
        return reference.time_s - self._reference_s > GAP * period_s

    def _period_s(self) -> float | None:
        return median(self._steps_s) if len(self._steps_s) >= FEW_STEPS else None

    def _waits_for(self, modality: Modality, anchor: _Timed | None, now_s: float | None) -> bool:
        if modality in self._ended or modality in self.lost:
            return False
        if anchor is None:
            return True
        if now_s is not None and self._waited_enough(modality, now_s):
            return False
        buffer = self._buffers[modality]
        if not buffer or buffer[-1].time_s < anchor.time_s:
            return True
        return now_s is not None and self._may_be_overtaken(modality, anchor, now_s)

    def _waited_enough(self, modality: Modality, now_s: float) -> bool:
        """Return whether a frame has waited for its time, or the camera is silent anyway."""
        heard_s = self._arrivals_s.get(modality, float("-inf"))
        longest_s = min(t.arrival_s for buffer in self._buffers.values() for t in buffer)
        return now_s - min(longest_s, heard_s) >= self._max_wait_s

    def _may_be_overtaken(self, modality: Modality, anchor: _Timed, now_s: float) -> bool:
        """Return whether the frame that belongs to the anchor may come after a later one."""
        if modality == anchor.modality:
            return (
                modality == self._reference
                and self._gap_before(anchor, unknown=False)
                and now_s - anchor.arrival_s < self._reorder_s
            )
        buffer = self._buffers[modality]
        if any(abs(t.time_s - anchor.time_s) <= self._tolerance_s for t in buffer):
            return False
        overtaking = next(t for t in buffer if t.time_s >= anchor.time_s)
        return now_s - overtaking.arrival_s < self._reorder_s

    def _take(self, modality: Modality, anchor: _Timed) -> _Timed | None:
        """Take the frame nearest to the anchor, and drop those that came before it."""
        buffer = self._buffers[modality]
        taken: _Timed | None = None
        reach_s = self._reach_s(anchor)
        while buffer:
            distance = abs(buffer[0].time_s - anchor.time_s)
            late = buffer[0].time_s > anchor.time_s + reach_s
            if late or (taken and distance > abs(taken.time_s - anchor.time_s)):
                break
            if taken is not None:
                self.statistics.unpaired[modality] += 1
            taken = buffer.popleft()
        if taken is None or abs(taken.time_s - anchor.time_s) <= self._tolerance_s:
            return taken
        self.statistics.unpaired[modality] += 1
        return None

    def _reach_s(self, anchor: _Timed) -> float:
        """Return how much later than the anchor a frame may be and not belong to the next one."""
        period_s = self._period_s()
        if self._keep_strays or period_s is None or anchor.modality != self._reference:
            return self._tolerance_s
        return min(self._tolerance_s, period_s / 2)

    def _triplet(self, anchor: _Timed, taken: list[_Timed]) -> Triplet:
        times = [timed.time_s for timed in taken]
        skew_s = max(times) - min(times)
        frames = {timed.modality: timed.frame for timed in taken}
        self._last_s = anchor.time_s
        if anchor.modality == self._reference:
            if self._reference_s is not None:
                self._steps_s.append(anchor.time_s - self._reference_s)
            self._reference_s = anchor.time_s
        self.statistics.count(self._buffers, frames, skew_s)
        return Triplet(anchor.time_s, frames, skew_s)

    def _leave(self, buffer: deque[_Timed]) -> None:
        self.statistics.unpaired[buffer.popleft().modality] += 1


def _time(timed: _Timed) -> float:
    return timed.time_s
