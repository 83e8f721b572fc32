"""Whether an estimate may be used: a bad one is refused with what is wrong and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from calibration.registering.estimate import Estimate
from calibration.registering.geometry import (
    NOMINAL_WIDTH,
    Matrix,
    Size,
    grid,
    hull_share,
    orientations,
    overlap,
)
from mambapro.cli import CheckError

RESIDUALS_PX: Final = {"points": 2.0, "checkerboard": 2.0, "motion": 6.0}
"""Largest residual by method at NOMINAL_WIDTH: outlines differ between cameras, points do not."""
LEAST_DEPTH: Final = 0.2
"""Least and, inverted, most change of scale over the picture along the line of sight."""


@dataclass(frozen=True)
class Limits:
    """What is refused."""

    residual_px: float | None = None
    """Largest residual, px at NOMINAL_WIDTH; None takes RESIDUALS_PX."""
    error_px: float = 3.0
    """Largest error among the evidence, px at NOMINAL_WIDTH."""
    overlap: float = 0.3
    """Least share of the reference picture that the other camera sees."""
    hull: float = 0.05
    """Least share of the reference picture that the evidence spans."""


def check_shape(
    camera: str, homography: Matrix, reference: Size, other: Size, least: float
) -> None:
    """Raise CheckError when two cameras side by side cannot have this homography."""
    if not np.isfinite(homography).all() or abs(np.linalg.det(homography)) < 1e-12:
        raise CheckError(f"camera {camera}: the fit is singular: points lie on a line; spread them")
    share = overlap(homography, reference, other)
    depth, turned = orientations(homography, grid(reference))
    if depth.min() < LEAST_DEPTH or depth.max() > 1 / LEAST_DEPTH:
        raise CheckError(
            f"camera {camera}: the fit folds the picture, or tilts it beyond what cameras side by "
            f"side do (depths {depth.min():.2f} to {depth.max():.2f} of the corner's); "
            "spread the evidence over the picture, and look for swapped points"
        )
    if turned.min() <= 0:
        raise CheckError(
            f"camera {camera}: the fit mirrors the picture; switch the camera's own mirroring off, "
            "or look for swapped points"
        )
    if share < least:
        raise CheckError(
            f"camera {camera}: it sees {100 * share:.0f} % of the reference's picture, at least "
            f"{100 * least:.0f} % are needed; aim it at the same scene"
        )


def check(camera: str, estimate: Estimate, limits: Limits) -> None:
    """Raise CheckError when ``estimate`` is not good enough to be written."""
    reference, other = estimate.sizes
    check_shape(camera, estimate.homography, reference, other, limits.overlap)
    spanned = hull_share(estimate.evidence, reference)
    if spanned < limits.hull:
        raise CheckError(
            f"camera {camera}: the evidence spans {100 * spanned:.1f} % of the reference picture; "
            f"{100 * limits.hull:.0f} % are needed: add some at other places, off the line"
        )
    scale = other[1] / NOMINAL_WIDTH
    allowed = RESIDUALS_PX[estimate.method] if limits.residual_px is None else limits.residual_px
    if not estimate.residual_px <= allowed * scale:
        raise CheckError(
            f"camera {camera}: the residual is {estimate.residual_px:.2f} px, at most "
            f"{allowed * scale:.2f} px are allowed; {_ADVICE[estimate.method]}"
        )
    if not estimate.error_px <= limits.error_px * scale:
        raise CheckError(
            f"camera {camera}: leaving out parts of the evidence moves the picture by "
            f"{estimate.error_px:.2f} px, at most {limits.error_px * scale:.2f} px are allowed; "
            f"{_ADVICE[estimate.method]}"
        )


_ADVICE: Final = {
    "points": "measure the points again, and add some",
    "checkerboard": "hold the board still at more places, all at the distance of the subjects",
    "motion": "film longer, with people crossing at all distances, both ways",
}
