"""From a guess to a homography: outlines of one camera's silhouettes laid on another's.

Each silhouette of the other camera becomes a field of signed distances to its outline, through
pictures and time. Outlines of the reference camera are carried there and moved until the distances
vanish: 8 numbers of the homography, the lag of the clock, and by how much one camera's silhouettes
are fatter. Parts that have no counterpart (a shadow, a cold leg) are outliers to a Cauchy loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
from scipy.ndimage import map_coordinates
from scipy.optimize import least_squares

from calibration.registering.geometry import Matrix, Points, Size, project
from calibration.registering.silhouettes import Grey, Motion

REACH_PX: Final = 15.0
"""Farther than this from an outline all distances are the same, reduced px."""
FINE: Final = 8
"""Steps of a pixel in which distances are kept."""
SCALES_PX: Final = (8.0, 4.0, 2.0, 1.0)
"""Scales of the loss, from coarse to fine, reduced px."""
POINTS: Final = 12_000
"""Most points of outlines that are used."""
SQUARE: Final = 0.03
KEYSTONE: Final = 2.5
LAG_S: Final = 15.0
FATTER_PX: Final = 100.0
"""How far these may well be from nothing: pixels that are not square or a shear, which cameras side
by side hardly have, the tilt, the lag beyond the guess, the difference of fatness."""
BELIEF: Final = 1.0
"""Weight of that against a point's, per square root of their number."""
EXPECTED: Final = 6
"""How many such expectations there are."""
GROUND_PX: Final = 3
"""Outlines whose outside is this far below them are left out: some cameras see shadows there."""
STEPS: Final = 25

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Outlines:
    """Points on the reference camera's silhouettes."""

    times: Floats
    """(n,) seconds on the reference camera's clock."""
    points: Points
    """(n, 2) reduced px."""

    def __len__(self) -> int:
        return len(self.times)


@dataclass(frozen=True)
class Pose:
    """All that is fitted; pixels are reduced ones."""

    homography: Matrix
    lag_s: float
    fatter_px: float = 0.0
    """How much farther out the outlines of the reference camera lie."""


def outlines(motion: Motion) -> Outlines:
    """Return points along all silhouettes, without those that the picture's border cuts."""
    height, width = motion.small
    times, points = [], []
    for time_s, mask in zip(motion.times, motion.masks, strict=True):
        found, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        for contour in found:
            line = contour[:, 0]
            whole = (line > 1).all(axis=1) & (line < [width - 2, height - 2]).all(axis=1)
            points.append(line[whole & ~_on_ground(mask, line)])
            times.append(np.full(len(points[-1]), time_s))
    if not points:
        return Outlines(np.zeros(0), np.zeros((0, 2)))
    step = max(1, sum(map(len, points)) // POINTS)
    every = slice(None, None, step)
    return Outlines(np.concatenate(times)[every], np.concatenate(points)[every].astype(np.float64))


def _on_ground(mask: Grey, line: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    """Return which points of an outline have the body above them and none of it below."""
    x, y = line.T
    above = mask[np.maximum(y - GROUND_PX, 0), x]
    below = mask[np.minimum(y + GROUND_PX, len(mask) - 1), x]
    return np.asarray((above == 1) & (below == 0))


class Distances:
    """Signed distances to the outlines of a camera's silhouettes, negative within."""

    def __init__(self, motion: Motion) -> None:
        self.times = motion.times
        self.size: Size = motion.small
        self._field = np.stack([_signed_distance(mask) for mask in motion.masks])

    def at(self, times: Floats, points: Points) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Return the distances (n,) in reduced px, and which points the picture holds."""
        frames = np.interp(times, self.times, np.arange(len(self.times)))
        where = [frames, points[:, 1], points[:, 0]]
        values = map_coordinates(self._field, where, order=1, mode="nearest", output=np.float64)
        limit = [self.size[1] - 2, self.size[0] - 2]
        held = (points >= 1).all(axis=1) & (points <= limit).all(axis=1)
        held &= (times >= self.times[0]) & (times <= self.times[-1])
        return values / FINE, held


def _signed_distance(mask: Grey) -> npt.NDArray[np.int8]:
    far = np.full(mask.shape, REACH_PX, np.float32)
    out = cv2.distanceTransform(1 - mask, cv2.DIST_L2, 5) - 0.5 if mask.any() else far
    into = cv2.distanceTransform(mask, cv2.DIST_L2, 5) - 0.5
    signed = np.where(mask > 0, -into, out).clip(-REACH_PX, REACH_PX)
    return np.asarray(np.round(signed * FINE), np.int8)


def refine(
    lines: Outlines,
    reference: Size,
    distances: Distances,
    begin: Pose,
    scales: Sequence[float] = SCALES_PX,
) -> Pose:
    """Return the pose at which the outlines lie best on the other camera's, from ``begin``.

    ``reference`` is the reduced size of the reference camera's pictures.
    """
    problem = _Problem(lines, reference, distances, begin)
    values = problem.pack(begin)
    for scale in scales:
        found = least_squares(
            problem.residuals, values, problem.jacobian,
            loss=_cauchy, f_scale=scale, x_scale="jac", max_nfev=STEPS,
        )  # fmt: skip
        values = found.x
    return problem.unpack(values)


def _cauchy(squares: Floats) -> Floats:
    """Return Cauchy's loss and its derivatives; the expectations at the end stay quadratic."""
    loss = np.stack([np.log1p(squares), 1 / (1 + squares), -1 / (1 + squares) ** 2])
    loss[:, -EXPECTED:] = 0
    loss[0, -EXPECTED:], loss[1, -EXPECTED:] = squares[-EXPECTED:], 1
    return loss


def misfits(lines: Outlines, distances: Distances, pose: Pose) -> Floats:
    """Return (n,) how far each point lies from the other camera's outlines, up to REACH_PX.

    Pixels are reduced ones; points that the other camera does not hold are left out.
    """
    placed = project(pose.homography, lines.points)
    values, held = distances.at(lines.times + pose.lag_s, placed)
    return np.asarray(np.abs(values[held] - pose.fatter_px))


def _expectations() -> Floats:
    """Return (EXPECTED, 10): what of the ten numbers should be near 0, in terms of its size."""
    rows = np.zeros((EXPECTED, 10))
    rows[0, [0, 4]] = 1 / SQUARE, -1 / SQUARE
    rows[1, [1, 3]] = 1 / SQUARE, 1 / SQUARE
    rows[[2, 3], [6, 7]] = 1 / KEYSTONE
    rows[4, 8], rows[5, 9] = 1 / LAG_S, 1 / FATTER_PX
    return rows


_EXPECTATIONS: Final = _expectations()


class _Problem:
    """The least-squares problem in ten numbers; pictures are 2 wide around their middle."""

    def __init__(self, lines: Outlines, reference: Size, distances: Distances, begin: Pose) -> None:
        self._lines, self._distances = lines, distances
        self._from = _to_unit(reference)
        self._to = np.linalg.inv(_to_unit(distances.size))
        self._lag_s = begin.lag_s
        self._belief = BELIEF * np.sqrt(max(1, len(lines)))

    def pack(self, pose: Pose) -> Floats:
        unit = np.linalg.inv(self._to) @ pose.homography @ np.linalg.inv(self._from)
        return np.append((unit / unit[2, 2]).ravel()[:8], [pose.lag_s, pose.fatter_px])

    def unpack(self, values: Floats) -> Pose:
        homography = self._to @ np.append(values[:8], 1.0).reshape(3, 3) @ self._from
        return Pose(homography / homography[2, 2], float(values[8]), float(values[9]))

    def residuals(self, values: Floats) -> Floats:
        pose = self.unpack(values)
        placed = project(pose.homography, self._lines.points)
        distance, held = self._distances.at(self._lines.times + pose.lag_s, placed)
        misfit = np.where(held, distance - pose.fatter_px, 0.0)
        return np.append(misfit, self._expected(values))

    def _expected(self, values: Floats) -> Floats:
        off = _EXPECTATIONS @ values
        off[4] -= self._lag_s / LAG_S
        return np.asarray(self._belief * off)

    def jacobian(self, values: Floats) -> Floats:
        """Derivatives through the field's own slopes, by central differences."""
        pose = self.unpack(values)
        at = self._lines.times + pose.lag_s
        unit = np.column_stack([self._lines.points, np.ones(len(self._lines))]) @ self._from.T
        top = unit @ np.append(values[:8], 1.0).reshape(3, 3).T
        x, y, w = top[:, 0] / top[:, 2], top[:, 1] / top[:, 2], top[:, 2]
        placed = np.column_stack([x, y, np.ones(len(x))]) @ self._to.T
        slope_x, slope_y, slope_t, held = self._slopes(at, placed[:, :2])
        slope_x, slope_y = slope_x * self._to[0, 0], slope_y * self._to[1, 1]
        rows = np.empty((len(x) + EXPECTED, 10))
        rows[: len(x), 0:3] = (slope_x / w)[:, None] * unit
        rows[: len(x), 3:6] = (slope_y / w)[:, None] * unit
        rows[: len(x), 6:8] = (-(slope_x * x + slope_y * y) / w)[:, None] * unit[:, :2]
        rows[: len(x), 8], rows[: len(x), 9] = slope_t, -1.0
        rows[: len(x)] *= held[:, None]
        rows[len(x) :] = self._belief * _EXPECTATIONS
        return rows

    def _slopes(
        self, at: Floats, placed: Points
    ) -> tuple[Floats, Floats, Floats, npt.NDArray[np.bool_]]:
        def change(time_s: float, x: float, y: float) -> Floats:
            step = np.array([x, y])
            ahead, _ = self._distances.at(at + time_s, placed + step)
            behind, _ = self._distances.at(at - time_s, placed - step)
            return ahead - behind

        _, held = self._distances.at(at, placed)
        return change(0, 0.5, 0), change(0, 0, 0.5), change(0.04, 0, 0) / 0.08, held


def _to_unit(size: Size) -> Matrix:
    """Return what maps reduced px to a picture that is 2 wide around its middle."""
    height, width = size
    scale = 2 / width
    return np.array(
        [[scale, 0, -scale * (width - 1) / 2], [0, scale, -scale * (height - 1) / 2], [0, 0, 1.0]]
    )


def without(lines: Outlines, begin_s: float, end_s: float) -> tuple[Outlines, Outlines]:
    """Return the outlines outside a stretch of time, and those within."""
    within = (lines.times >= begin_s) & (lines.times < end_s)
    parts = [
        replace(lines, times=lines.times[k], points=lines.points[k]) for k in (~within, within)
    ]
    return parts[0], parts[1]
