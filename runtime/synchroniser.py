"""Bring the frames of a rig's cameras together: one triplet an instant, with gaps as they are."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

import numpy as np

from mambapro.contract import Modality
from runtime.sources import Frame


@dataclass(frozen=True)
class Triplet:
    """What a rig saw at one instant."""

    time_s: float
    """Corrected time of the anchor frame: the reference's, or another's when it is missing."""
    frames: dict[Modality, Frame]
    """Frames by modality; one that is not there was missing."""
    skew_s: float
    """Largest difference of corrected times between two of the frames, s."""


@dataclass
class SyncStatistics:
    """What a synchroniser did."""

    triplets: int = 0
    """Triplets given."""
    missing: Counter[Modality] = field(default_factory=Counter)
    """Triplets that lack a modality, by modality."""
    unpaired: Counter[Modality] = field(default_factory=Counter)
    """Frames that came into no triplet, by modality."""
    skews_s: list[float] = field(default_factory=list)
    """Skew of each triplet of two frames or more."""

    def skew_p95_ms(self) -> float | None:
        """Return the 95th percentile of the apparent skew."""
        return float(np.percentile(self.skews_s, 95) * 1e3) if self.skews_s else None


class Synchroniser:
    """Pairs frames by corrected time to the nearest frame of the reference camera.

    ``push`` and ``end`` feed it; ``pop`` gives the next triplet once nothing that may still come
    could change it, or at once when told to wait no longer.
    """

    def __init__(
        self,
        modalities: tuple[Modality, ...],
        reference: Modality,
        offsets_s: dict[Modality, float],
        tolerance_s: float,
        buffer_frames: int,
    ) -> None:
        """Pair frames of ``modalities``; a camera's clock is ahead by its offset, s."""
        self._reference = reference
        self._offsets_s = offsets_s
        self._tolerance_s = tolerance_s
        self._capacity = buffer_frames
        self._buffers: dict[Modality, deque[Frame]] = {m: deque() for m in modalities}
        self._ended: set[Modality] = set()
        self.statistics = SyncStatistics()

    def push(self, modality: Modality, frame: Frame) -> None:
        """Take a frame; when the buffer is full, the oldest frame goes unpaired."""
        buffer = self._buffers[modality]
        if len(buffer) >= self._capacity:
            buffer.popleft()
            self.statistics.unpaired[modality] += 1
        buffer.append(frame)

    def end(self, modality: Modality) -> None:
        """Expect no more frames of ``modality``."""
        self._ended.add(modality)

    def wants(self) -> list[Modality]:
        """Return the cameras that have to give a frame before the next triplet is certain."""
        anchor_s = self._anchor_time()
        return [m for m in self._buffers if m not in self._ended and not self._sure(m, anchor_s)]

    def pop(self, impatient: bool = False) -> Triplet | None:
        """Return the next triplet, or None when it is not certain yet.

        With ``impatient``, what is there has to do: a camera that hangs must not stop the others.
        """
        anchor_s = self._anchor_time()
        if anchor_s is None or (self.wants() and not impatient):
            return None
        frames = {m: f for m in self._buffers if (f := self._take(m, anchor_s)) is not None}
        return self._triplet(anchor_s, frames)

    def _time(self, modality: Modality, frame: Frame) -> float:
        return frame.time_s - self._offsets_s.get(modality, 0.0)

    def _anchor_time(self) -> float | None:
        """Return the reference's next time, unless others were clearly earlier and alone."""
        heads = {m: self._time(m, buffer[0]) for m, buffer in self._buffers.items() if buffer}
        if not heads:
            return None
        earliest = min(heads.values())
        reference = heads.get(self._reference)
        if reference is not None and reference <= earliest + self._tolerance_s:
            return reference
        return earliest

    def _sure(self, modality: Modality, anchor_s: float | None) -> bool:
        """Return whether later frames of ``modality`` cannot be nearer to the anchor."""
        buffer = self._buffers[modality]
        return (
            bool(buffer) and anchor_s is not None and self._time(modality, buffer[-1]) >= anchor_s
        )

    def _take(self, modality: Modality, anchor_s: float) -> Frame | None:
        """Take the frame nearest to the anchor, and drop those that came before it."""
        buffer = self._buffers[modality]
        taken: Frame | None = None
        while buffer:
            distance = abs(self._time(modality, buffer[0]) - anchor_s)
            late = self._time(modality, buffer[0]) > anchor_s + self._tolerance_s
            if late or (taken and distance > abs(self._time(modality, taken) - anchor_s)):
                break
            if taken is not None:
                self.statistics.unpaired[modality] += 1
            taken = buffer.popleft()
        if taken is None or abs(self._time(modality, taken) - anchor_s) <= self._tolerance_s:
            return taken
        self.statistics.unpaired[modality] += 1
        return None

    def _triplet(self, anchor_s: float, frames: dict[Modality, Frame]) -> Triplet:
        times = [self._time(modality, frame) for modality, frame in frames.items()]
        skew_s = max(times) - min(times)
        self.statistics.triplets += 1
        self.statistics.missing.update(m for m in self._buffers if m not in frames)
        if len(frames) > 1:
            self.statistics.skews_s.append(skew_s)
        return Triplet(anchor_s, frames, skew_s)
