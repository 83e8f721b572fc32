"""Estimate how far the clocks of a rig's cameras are apart, from what moves in their pictures.

Each camera gives maps of what differs from its own background, warped to one grid; their change in
time does not depend on how warm or bright a thing is. The lag at which two cameras' changes agree
best is the difference of their clocks.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from mambapro.contract import Modality
from runtime.sync.lags import MIN_FRAMES, STEP_S, Changes, Lag, Match

GRID_WIDTH: Final = 96
CHUNK_S: Final = 8.0
"""Stretch over which the background is taken to be constant."""
STRIP: Final = 512
"""Pixels that are compared at once: all of them for half a minute would take 100 MB a rig."""
PRIOR_ERROR_S: Final = 0.1

Grey = npt.NDArray[np.uint8]
Matrix = npt.NDArray[np.float64]
Pair = tuple[Modality, Modality]


@dataclass(frozen=True)
class ClockOffset:
    """One camera's clock against the reference camera's."""

    seconds: float
    """Positive when this camera's clock is ahead, s."""
    error_s: float | None
    """Standard error, s; None when content gave no confident estimate."""


class OffsetEstimator:
    """Collects reduced pictures of a rig and estimates the offsets of its clocks.

    It keeps the last ``window_s`` of footage, so it can also be fed by live cameras.
    """

    def __init__(
        self,
        reference: Modality,
        reference_size: tuple[int, int],
        homographies: Mapping[Modality, Matrix],
        *,
        window_s: float,
        max_offset_s: float,
        max_error_s: float,
    ) -> None:
        """Estimate against ``reference``, whose pictures are ``reference_size`` = (H, W) px.

        ``homographies`` map reference pixels to another camera's pixels.
        """
        height, width = reference_size
        self._reference = reference
        self._grid = (GRID_WIDTH, round(GRID_WIDTH * height / width))
        self._to_grid = np.diag([GRID_WIDTH / width, self._grid[1] / height, 1.0])
        self._homographies = homographies
        self._window_s, self._max_offset_s = window_s, max_offset_s
        self._max_error_s = max_error_s
        self._maps: dict[Modality, deque[tuple[float, Grey]]] = {}
        self._given_up = threading.Event()

    def add(self, modality: Modality, time_s: float, grey: Grey, size: tuple[int, int]) -> None:
        """Take a grey picture (h, w), reduced from a camera picture of ``size`` = (H, W)."""
        height, width = grey.shape
        from_camera = np.diag([width / size[1], height / size[0], 1.0])
        homography = self._homographies.get(modality, np.eye(3))
        matrix = self._to_grid @ np.linalg.inv(from_camera @ homography)
        warped = cv2.warpPerspective(
            grey, matrix, self._grid, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        maps = self._maps.setdefault(modality, deque())
        maps.append((time_s, np.asarray(warped, np.uint8)))
        while time_s - maps[0][0] > self._window_s:
            maps.popleft()

    def estimate(self, prior_s: Mapping[Modality, float]) -> dict[Modality, ClockOffset]:
        """Return each camera's offset; ``prior_s`` is taken where content tells nothing."""
        motion = {m: _motion(maps) for m, maps in self._maps.items() if len(maps) >= MIN_FRAMES}
        lags = _lags(motion, self._max_offset_s, self._given_up)
        lags = {pair: lag for pair, lag in lags.items() if lag.error_s <= self._max_error_s}
        return _solve(self._reference, prior_s, lags)

    def give_up(self) -> None:
        """Let an estimate under way in another thread end soon, with what the prior says."""
        self._given_up.set()


@dataclass(frozen=True)
class Motion:
    """Where one camera saw something that is not always there."""

    times: Matrix
    """(n,) when, s."""
    surely: npt.NDArray[np.uint8]
    """(n, P) how surely each pixel differs from usual, 0 to 255."""
    chunks: list[npt.NDArray[np.int64]]
    """Stretches of pictures that were held against one background each."""

    def changes(self, pixels: slice) -> Changes:
        """Return (T, p): change of some pixels per step of STEP_S, from the first picture on."""
        steps = np.arange(self.times[0], self.times[-1], STEP_S)
        surely = self.surely[:, pixels].astype(np.float32)
        changes = np.zeros((len(steps), surely.shape[1]), np.float32)
        for part in self.chunks:
            times = self.times[part]
            inside = np.flatnonzero((steps >= times[0]) & (steps <= times[-1]))
            changes[inside] = np.gradient(_resampled(times, surely[part], steps[inside]), axis=0)
        return changes


def _lags(
    motion: Mapping[Modality, Motion], max_lag_s: float, given_up: threading.Event
) -> dict[Pair, Lag]:
    """Return the lags between all cameras that agree at one; a strip of pixels at a time."""
    matches = {
        (a, b): Match(float(motion[b].times[0] - motion[a].times[0]), max_lag_s)
        for a, b in combinations(motion, 2)
    }
    pixels = min((m.surely.shape[1] for m in motion.values()), default=0)
    for first in range(0, pixels, STRIP):
        if given_up.is_set():
            return {}
        changes = {m: seen.changes(slice(first, first + STRIP)) for m, seen in motion.items()}
        for (a, b), match in matches.items():
            match.add(changes[a], changes[b])
    found = {pair: match.lag() for pair, match in matches.items()}
    return {pair: lag for pair, lag in found.items() if lag is not None}


def _motion(maps: Sequence[tuple[float, Grey]]) -> Motion:
    """Return what moved in ``maps``, pictures (h, w) and their times."""
    times = np.array([time_s for time_s, _ in maps])
    chunks = max(1, round((times[-1] - times[0]) / CHUNK_S))
    parts = np.array_split(np.arange(len(maps)), chunks)
    surely = [_foreground(np.stack([maps[i][1] for i in part])) for part in parts]
    return Motion(times, np.concatenate(surely), parts)


def _foreground(pictures: Grey) -> npt.NDArray[np.uint8]:
    """Return (n, P) 0 to 255: how surely pixels of ``pictures`` (n, h, w) differ from usual."""
    usual = np.median(pictures[:: max(1, len(pictures) // 40)], axis=0).astype(np.float32)
    residue = pictures - usual
    residue -= np.median(residue, axis=(1, 2), keepdims=True)  # the light changed everywhere
    np.abs(residue, out=residue)
    noise = 1.4826 * np.median(residue[::3], axis=0) + 2.0
    surely = np.clip((residue / noise - 2.0) / 4.0, 0.0, 1.0)
    smooth = np.stack([cv2.GaussianBlur(item, (0, 0), 0.8) for item in surely])
    return np.asarray(np.rint(255 * smooth.reshape(len(smooth), -1)), np.uint8)


def _resampled(times: Matrix, values: Changes, steps: Matrix) -> Changes:
    """Interpolate ``values`` (n, P) at ``times`` linearly to (T, P) at ``steps``."""
    after = np.clip(np.searchsorted(times, steps, side="right"), 1, len(times) - 1)
    span = np.maximum(times[after] - times[after - 1], 1e-6)
    share = ((steps - times[after - 1]) / span).clip(0.0, 1.0)[:, None].astype(np.float32)
    blended: Changes = values[after - 1] * (1 - share) + values[after] * share
    return blended


def _solve(
    reference: Modality,
    prior_s: Mapping[Modality, float],
    lags: Mapping[Pair, Lag],
) -> dict[Modality, ClockOffset]:
    """Return the offsets that fit all lags best; the prior holds what they leave open."""
    cameras = list(prior_s)
    rows, values = [], []
    for camera in cameras:
        weight = 1e6 if camera == reference else 1 / PRIOR_ERROR_S
        rows.append([weight * (other == camera) for other in cameras])
        values.append(weight * prior_s[camera])
    for (a, b), lag in lags.items():
        weight = 1 / max(lag.error_s, 1e-3)
        rows.append([weight * ((other == b) - (other == a)) for other in cameras])
        values.append(weight * lag.seconds)
    matrix = np.asarray(rows, np.float64)
    offsets = np.linalg.lstsq(matrix, np.asarray(values), rcond=None)[0]
    errors = np.sqrt(np.diag(np.linalg.inv(matrix.T @ matrix)))
    return {
        camera: ClockOffset(
            float(offsets[i]), float(errors[i]) if errors[i] < PRIOR_ERROR_S / 2 else None
        )
        for i, camera in enumerate(cameras)
    }
