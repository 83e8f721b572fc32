"""Keep the clocks of a live rig right by what its cameras see, now and then, beside the work."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from mambapro.contract import Modality
from mambapro.preprocess import Picture
from runtime.config import SyncConfig
from runtime.sync.clocks import TrackedClocks
from runtime.sync.offsets import ClockOffset, Grey, Matrix, OffsetEstimator

GREY_WIDTH: Final = 160
LEAST_ERROR_S: Final = 0.002
"""No single estimate is trusted further than this, s."""
WANDER_S: Final = 0.002
"""How far the difference of two delays is taken to wander between two estimates, s."""
LONGER: Final = 4
"""The first look is short, to be soon of use; later ones are this much longer."""
SURPRISE: Final = 4.0
"""An estimate off by more than this many standard errors needs another that says the same."""

log = logging.getLogger(__name__)


class ContentOffsets:
    """Estimates the residual offsets of a live rig from time to time and hands them to its clocks.

    ``add`` belongs to the thread that reads the rig; the estimate itself runs in ``pool``.
    """

    def __init__(
        self,
        rig: str,
        reference: Modality,
        homographies: Mapping[Modality, Matrix],
        prior_s: Mapping[Modality, float],
        clocks: TrackedClocks,
        config: SyncConfig,
        pool: Executor,
    ) -> None:
        """Begin with ``prior_s``, the configured offsets.

        ``homographies`` map reference pixels to another camera's pixels. One ``pool`` of one thread
        serves all rigs.
        """
        self._rig, self._reference, self._homographies = rig, reference, homographies
        self._clocks, self._config, self._pool = clocks, config, pool
        self._prior_s = dict(prior_s)
        self._smooth = {m: SmoothOffset(offset_s) for m, offset_s in prior_s.items()}
        self._estimator: OffsetEstimator | None = None
        self._future: Future[dict[Modality, ClockOffset]] | None = None
        self._last_s: dict[Modality, float] = {}
        self._begin_s = float("-inf")
        self._due_s = 0.0
        self.estimates = self.confident = 0

    @property
    def offsets(self) -> dict[Modality, ClockOffset]:
        """The residual offsets in use; an error of None says that content told nothing yet."""
        return {m: smooth.offset for m, smooth in self._smooth.items()}

    def add(self, modality: Modality, picture: Picture, time_s: float) -> None:
        """Take a picture (H, W, 3) and its corrected time, as ``Synchroniser.push`` gave it."""
        self._collect_result(time_s)
        if time_s < self._begin_s or self._future is not None or len(self._prior_s) < 2:
            return
        tracked_s = time_s + self._clocks.residual_s(modality)
        if tracked_s <= self._last_s.get(modality, float("-inf")):
            return
        self._last_s[modality] = tracked_s
        estimator = self._estimator or self._started(modality, picture, time_s)
        if estimator is None:
            return
        size = picture.shape[:2]
        estimator.add(modality, tracked_s, reduced(picture), (size[0], size[1]))
        if time_s >= self._due_s:
            self._future = self._pool.submit(estimator.estimate, self._prior_s)

    def close(self) -> None:
        """End an estimate under way."""
        if self._estimator is not None:
            self._estimator.give_up()
        if self._future is not None and not self._future.cancel():
            self._future.exception()

    def _started(
        self, modality: Modality, picture: Picture, time_s: float
    ) -> OffsetEstimator | None:
        """Begin to look, at a picture of the reference: its size is the grid of all."""
        if modality != self._reference:
            return None
        sync = self._config
        self._begin_s = time_s
        self._due_s = time_s + sync.window_s * (LONGER if self.confident else 1)
        self._estimator = OffsetEstimator(
            self._reference,
            (picture.shape[0], picture.shape[1]),
            self._homographies,
            window_s=sync.max_window_s,
            max_offset_s=sync.max_offset_s,
            max_error_s=sync.max_error_s,
        )
        return self._estimator

    def _collect_result(self, now_s: float) -> None:
        """Take a finished estimate; look on while it is not confident, else rest."""
        if self._future is None or not self._future.done():
            return
        offsets, self._future = self._future.result(), None
        confident = self._took(offsets)
        self.estimates += 1
        self.confident += confident
        if confident or now_s - self._begin_s >= self._config.max_window_s:
            self._estimator = None
            self._begin_s = now_s + self._config.every_s
        else:
            self._due_s = max(now_s, 2 * self._due_s - self._begin_s)  # twice as long a look

    def _took(self, offsets: Mapping[Modality, ClockOffset]) -> bool:
        """Smooth the confident offsets, hand them on, and return whether all are."""
        for modality, offset in offsets.items():
            if offset.error_s is not None and modality != self._reference:
                self._smooth[modality].update(offset.seconds, offset.error_s)
        self._clocks.set_residuals({m: s.offset.seconds for m, s in self._smooth.items()})
        told = [in_words(m, s.offset) for m, s in self._smooth.items() if m != self._reference]
        log.info("%s: clocks by what moves: %s", self._rig, ", ".join(told))
        return all(offset.error_s is not None for offset in offsets.values())


@dataclass
class SmoothOffset:
    """One offset over time: a Kalman filter of one state that asks twice before it jumps."""

    seconds: float
    """The offset in use, s."""
    error_s: float | None = None
    """Its standard error, s; None before the first estimate."""
    _surprise_s: float | None = None

    @property
    def offset(self) -> ClockOffset:
        """The offset in use."""
        return ClockOffset(self.seconds, self.error_s)

    def update(self, seconds: float, error_s: float) -> None:
        """Take an estimate and its standard error."""
        error_s = max(error_s, LEAST_ERROR_S)
        if self.error_s is None:
            self.seconds, self.error_s = seconds, error_s
            return
        variance = self.error_s**2 + WANDER_S**2
        reach_s = SURPRISE * float(np.sqrt(variance + error_s**2))
        if abs(seconds - self.seconds) > reach_s:
            self._jump(seconds, error_s, reach_s)
            return
        gain = variance / (variance + error_s**2)
        self.seconds += gain * (seconds - self.seconds)
        self.error_s = float(np.sqrt((1 - gain) * variance))
        self._surprise_s = None

    def _jump(self, seconds: float, error_s: float, reach_s: float) -> None:
        if self._surprise_s is not None and abs(seconds - self._surprise_s) <= reach_s:
            self.seconds, self.error_s, self._surprise_s = seconds, error_s, None
        else:
            self._surprise_s = seconds


def in_words(modality: Modality, offset: ClockOffset) -> str:
    """Return the offset of a camera for the log."""
    late = f"{modality} {offset.seconds * 1e3:+.1f} ms"
    if offset.error_s is None:
        return f"{late} as configured, not seen yet"
    return f"{late} (+-{offset.error_s * 1e3:.1f})"


def reduced(picture: Picture) -> Grey:
    """Return the green of every few pixels, reduced to GREY_WIDTH: a tenth of a full conversion."""
    height, width = picture.shape[:2]
    step = max(1, width // (2 * GREY_WIDTH))
    green = np.ascontiguousarray(picture[::step, ::step, 1])
    rows = round(height * GREY_WIDTH / width)
    small = cv2.resize(green, (GREY_WIDTH, rows), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)
