"""What every method of registration ends in: a homography and how far it can be trusted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from calibration.registering.geometry import (
    Matrix,
    Points,
    Size,
    grid,
    inside,
    project,
    within_hull,
)

T = TypeVar("T")
Floats = npt.NDArray[np.float64]

FEWEST_INSIDE: Final = 4
"""Points of the grid that must lie among the evidence, or the evidence itself is the grid."""


@dataclass(frozen=True)
class Estimate:
    """A homography from the reference camera to another one, with its errors.

    Pixels are the other camera's own.
    """

    homography: Matrix
    """Reference pixels to the other camera's pixels."""
    method: str
    """motion, checkerboard or points."""
    residual_px: float
    """Typical distance (root mean square; of silhouettes the median) of what was not fitted: each
    part of the evidence is held against the fit to all others."""
    error_px: float
    """Error of the homography among the evidence, 95th percentile, by leaving parts out."""
    outside_px: float
    """The same over all of the reference picture that the other camera sees."""
    evidence: Points
    """(n, 2) reference pixels that were matched."""
    sizes: tuple[Size, Size]
    """Height and width of the reference's and of the other camera's pictures."""
    used: str
    """How much evidence there was, in words."""
    lag_s: float | None = None
    """How much later the other camera's clock shows the same instant, s; None if not estimated."""


@dataclass(frozen=True)
class Validated:
    """What leaving out one part after the other shows."""

    held_out: list[Floats]
    """Residuals of each part under the fit to the others, px."""
    fits: list[Matrix]
    """The fits without each part."""

    def spread(self, homography: Matrix, points: Points) -> Floats:
        """Return the jackknife's standard error of where ``points`` are put, px."""
        placed = np.stack([project(fit, points) for fit in self.fits])
        off = placed - placed.mean(axis=0)
        count = len(self.fits)
        return np.asarray(np.sqrt((count - 1) / count * (off**2).sum(axis=(0, 2))))


def leave_out(
    parts: Sequence[T],
    fit: Callable[[Sequence[T]], Matrix],
    residuals: Callable[[Matrix, T], Floats],
) -> Validated:
    """Fit without each of ``parts`` in turn and hold it against that fit."""
    fits = [fit([*parts[:i], *parts[i + 1 :]]) for i in range(len(parts))]
    held_out = [residuals(matrix, part) for matrix, part in zip(fits, parts, strict=True)]
    return Validated(held_out, fits)


def errors(
    validated: Validated, homography: Matrix, evidence: Points, sizes: tuple[Size, Size]
) -> tuple[float, float]:
    """Return an estimate's ``error_px`` and ``outside_px``."""
    everywhere = grid(sizes[0])
    seen = everywhere[inside(project(homography, everywhere), sizes[1])]
    among = seen[within_hull(seen, evidence)] if len(seen) else seen
    near = among if len(among) >= FEWEST_INSIDE else evidence
    far = seen if len(seen) else everywhere
    percentile = float(np.percentile(validated.spread(homography, near), 95))
    return percentile, float(validated.spread(homography, far).max())
