"""Estimate how far the clocks of a rig's cameras are apart, from what moves in their pictures.

Each camera gives maps of what differs from its own background, warped to one grid; their change in
time does not depend on how warm or bright a thing is. The lag at which two cameras' changes agree
best is the difference of their clocks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from mambapro.contract import Modality

GRID_WIDTH: Final = 96
STEP_S: Final = 0.02
"""Step of the resampled maps; lags between two steps are interpolated."""
CHUNK_S: Final = 8.0
"""Stretch over which the background is taken to be constant."""
BLOCKS: Final = 6
"""Stretches of time that are left out in turn to see how far the estimate can be trusted."""
TILE: Final = 64
"""Steps whose products with all lags are computed as one matrix product."""
MIN_CORRELATION: Final = 0.08
MIN_FRAMES: Final = 50
PRIOR_ERROR_S: Final = 0.1

Grey = npt.NDArray[np.uint8]
Matrix = npt.NDArray[np.float64]
Changes = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Lag:
    """How much later the second camera's clock shows the same event."""

    seconds: float
    """offset(second) - offset(first), s."""
    error_s: float
    """Standard error by leaving out stretches of time, s."""
    correlation: float
    """Agreement of the changes at that lag, up to 1."""


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
        changes = {m: _changes(maps) for m, maps in self._maps.items() if len(maps) >= MIN_FRAMES}
        lags = {
            (a, b): lag
            for a, b in combinations(changes, 2)
            if (lag := find_lag(*changes[a], *changes[b], self._max_offset_s)) is not None
            and lag.error_s <= self._max_error_s
        }
        return _solve(self._reference, prior_s, lags)


def find_lag(
    start_a: float, a: Changes, start_b: float, b: Changes, max_lag_s: float
) -> Lag | None:
    """Return the lag of ``b`` (T', P) behind ``a`` (T, P), sampled every STEP_S from their starts.

    None when nothing agrees within ``max_lag_s``.
    """
    shift = round((start_b - start_a) / STEP_S)
    first, last = max(0, shift), min(len(a), shift + len(b))
    if last - first < MIN_FRAMES:
        return None
    a, b = a[first:last], b[first - shift : last - shift]
    blocks = _correlations(a, b, round(max_lag_s / STEP_S) + 2)
    total = blocks.sum(axis=0)
    energy = float(np.sqrt((a**2).sum() * (b**2).sum()))
    peak = int(total.argmax())
    if energy == 0 or not 0 < peak < len(total) - 1 or total[peak] < MIN_CORRELATION * energy:
        return None
    left_out = [_peak_s(total - block) for block in blocks]
    error_s = np.sqrt((len(blocks) - 1) * np.var(left_out))
    residue_s = start_b - start_a - shift * STEP_S
    return Lag(_peak_s(total) + residue_s, float(error_s), float(total[peak] / energy))


def _correlations(a: Changes, b: Changes, reach: int) -> Matrix:
    """Return (BLOCKS, 2*reach+1): agreement of a(t) and b(t + lag) summed over stretches of t."""
    both = a.any(axis=0) & b.any(axis=0)  # most of a scene never moves
    a, padded = a[:, both], np.pad(b[:, both], ((reach, reach), (0, 0)))
    lags = np.arange(2 * reach + 1)
    per_lag = np.empty((len(a), len(lags)))
    for first in range(0, len(a), TILE):
        rows = np.arange(len(a[first : first + TILE]))[:, None]
        products = a[first : first + TILE] @ padded[first : first + TILE + 2 * reach].T
        per_lag[first : first + TILE] = products[rows, rows + lags]
    parts = np.array_split(per_lag, BLOCKS)
    return np.stack([part.sum(axis=0) for part in parts])


def _peak_s(correlation: Matrix) -> float:
    """Return the lag of the maximum in seconds, by a parabola through its neighbourhood."""
    peak = int(correlation.argmax())
    reach = min(2, peak, len(correlation) - 1 - peak)
    if reach < 1:
        return (peak - len(correlation) // 2) * STEP_S
    x = np.arange(-reach, reach + 1)
    a, b, _ = np.polyfit(x, correlation[peak - reach : peak + reach + 1], 2)
    vertex = float(np.clip(-b / (2 * a), -reach, reach)) if a < 0 else 0.0
    return (peak + vertex - len(correlation) // 2) * STEP_S


def _changes(maps: Sequence[tuple[float, Grey]]) -> tuple[float, Changes]:
    """Return the start time and (T, P): change per step of each pixel's foreground, 0 to 1."""
    times = np.array([time_s for time_s, _ in maps])
    chunks = max(1, round((times[-1] - times[0]) / CHUNK_S))
    steps = np.arange(times[0], times[-1], STEP_S)
    changes = np.zeros((len(steps), maps[0][1].size), np.float32)
    for part in np.array_split(np.arange(len(maps)), chunks):
        foreground = _foreground(np.stack([maps[i][1] for i in part]))
        inside = np.flatnonzero((steps >= times[part[0]]) & (steps <= times[part[-1]]))
        even = _resampled(times[part], foreground, steps[inside])
        changes[inside] = np.gradient(even, axis=0)
    return float(times[0]), changes


def _foreground(pictures: Grey) -> Changes:
    """Return (n, P) 0 to 1: how surely each pixel of ``pictures`` (n, h, w) differs from usual."""
    residue = pictures - np.median(pictures[:: max(1, len(pictures) // 40)], axis=0)
    residue -= np.median(residue, axis=(1, 2), keepdims=True)  # the light changed everywhere
    noise = 1.4826 * np.median(np.abs(residue[::3]), axis=0) + 2.0
    surely = np.clip((np.abs(residue) / noise - 2.0) / 4.0, 0.0, 1.0)
    smooth = np.stack([cv2.GaussianBlur(item, (0, 0), 0.8) for item in surely])
    return np.asarray(smooth.reshape(len(smooth), -1), np.float32)


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
    lags: Mapping[tuple[Modality, Modality], Lag],
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
