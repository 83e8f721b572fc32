"""What a live rig has to know before it runs: sizes, frame rate, and the scene without subjects."""

from __future__ import annotations

from collections import defaultdict
from typing import Final

import cv2
import numpy as np

from mambapro.contract import Modality
from mambapro.preprocess import Picture
from runtime.config import RigConfig
from runtime.feeds.preflight import Preflight
from runtime.sources import Frame
from runtime.sync.offsets import ClockOffset

EVERY_S: Final = 0.25
"""Pictures for the background are this far apart, s."""
DEFAULT_RATE: Final = 25.0
MIN_FRAMES: Final = 8


class WarmUp:
    """Looks at the first frames of a rig's cameras."""

    def __init__(self, rig: RigConfig, seconds: float, width_px: int) -> None:
        """Look for ``seconds`` from the reference's first frame; backgrounds get ``width_px``."""
        self._rig, self._seconds, self._width = rig, seconds, width_px
        self._times: list[float] = []
        self._sizes: dict[Modality, tuple[int, int]] = {}
        self._kept: dict[Modality, list[Picture]] = defaultdict(list)
        self._next_s: dict[Modality, float] = {}

    def add(self, modality: Modality, frame: Frame) -> None:
        """Look at ``frame``."""
        height, width = frame.picture.shape[:2]
        self._sizes.setdefault(modality, (height, width))
        if modality == self._rig.reference:
            self._times.append(frame.time_s)
        if frame.arrival_s >= self._next_s.get(modality, -np.inf):
            self._next_s[modality] = frame.arrival_s + EVERY_S
            size = (self._width, round(height * self._width / width))
            self._kept[modality].append(
                np.asarray(cv2.resize(frame.picture, size, interpolation=cv2.INTER_AREA), np.uint8)
            )

    def finished(self) -> Preflight | None:
        """Return what is known once the reference camera was seen for long enough."""
        times = self._times
        if len(times) < MIN_FRAMES or times[-1] - times[0] < self._seconds:
            return None
        period_s = float(np.median(np.diff(times)))
        return Preflight(
            sizes=dict(self._sizes),
            frame_rate=1 / period_s if period_s > 0 else DEFAULT_RATE,
            offsets={m: ClockOffset(c.offset_s, None) for m, c in self._rig.cameras.items()},
            backgrounds={
                m: np.asarray(np.median(pictures, axis=0), np.uint8)
                for m, pictures in self._kept.items()
            },
        )
