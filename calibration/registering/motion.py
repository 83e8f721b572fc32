"""Registration without a target: silhouettes that move, matched over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from calibration.registering.activity import Guess, guess
from calibration.registering.contours import (
    SCALES_PX,
    Distances,
    Outlines,
    Pose,
    misfits,
    outlines,
    refine,
    without,
)
from calibration.registering.estimate import Estimate, Floats, Validated, errors, leave_out
from calibration.registering.geometry import Matrix, Points, project, reduction
from calibration.registering.silhouettes import Motion
from mambapro.cli import CheckError

BLOCKS: Final = 6
"""Stretches of time that are left out in turn."""
FEWEST_POINTS: Final = 600
"""Points of outlines below which nothing can be said."""
LEAST_ALIKE: Final = 0.5
"""Correlation of histories below which two cameras are not looking at the same place."""
LEAST_SHARE: Final = 0.4
"""Share of matched places that must agree on one guess."""
CLOSE_PX: Final = 3.0
"""Outlines that are so near each other show the same edge, reduced px."""
FILM_MORE: Final = "film longer, with several people crossing at different distances, both ways"


def register(
    camera: str, reference: Motion, other: Motion, lag_s: float, max_lag_s: float
) -> Estimate:
    """Return the homography from ``reference`` to the pictures of ``camera``.

    Args:
        camera: its name, for messages.
        reference: what moves in front of the reference camera.
        other: the same for ``camera``.
        lag_s: how much later its clock is thought to show the same instant, s.
        max_lag_s: how far from ``lag_s`` to look, s.

    Raises:
        CheckError: the two do not move alike, or too little moves.
    """
    lines = outlines(reference)
    if len(lines) < FEWEST_POINTS:
        raise CheckError(f"camera {camera}: hardly anything moves in the reference; {FILM_MORE}")
    begin = _checked(camera, guess(reference, other, lag_s, max_lag_s))
    distances = Distances(other)
    pose = refine(lines, reference.small, distances, Pose(begin.homography, begin.lag_s))
    return _estimate(reference, other, lines, distances, pose, begin)


def _checked(camera: str, found: Guess | None) -> Guess:
    if found is None:
        raise CheckError(
            f"camera {camera}: nothing moves in its picture as it does in the reference's; clips "
            f"must be of the same time, within --max-offset; {FILM_MORE}"
        )
    if found.alike < LEAST_ALIKE or found.share < LEAST_SHARE:
        raise CheckError(
            f"camera {camera}: what moves agrees only at {found.matches} places "
            f"({100 * found.share:.0f} % of those matched, {100 * LEAST_SHARE:.0f} % needed; "
            f"likeness {found.alike:.2f}, at least {LEAST_ALIKE} needed); {FILM_MORE}"
        )
    return found


def _estimate(
    reference: Motion,
    other: Motion,
    lines: Outlines,
    distances: Distances,
    pose: Pose,
    begin: Guess,
) -> Estimate:
    into = reduction(reference.size, reference.small)
    out = np.linalg.inv(reduction(other.size, other.small))
    own_px = other.size[1] / other.small[1]

    def full(found: Pose) -> Matrix:
        matrix = out @ found.homography @ into
        return np.asarray(matrix / matrix[2, 2])

    parts = _blocks(lines)
    poses: dict[int, Pose] = {}

    def fit(kept: Sequence[tuple[int, Outlines]]) -> Matrix:
        (left,) = set(range(len(parts))) - {number for number, _ in kept}
        rest, _ = without(lines, *_span(parts[left][1]))
        poses[left] = refine(rest, reference.small, distances, pose, SCALES_PX[-1:])
        return full(poses[left])

    def residuals(_: Matrix, part: tuple[int, Outlines]) -> Floats:
        return misfits(part[1], distances, poses[part[0]]) * own_px

    validated = leave_out(parts, fit, residuals)
    homography = full(pose)
    evidence = _evidence(reference, lines, distances, pose)
    sizes = (reference.size, other.size)
    error_px, outside_px = errors(validated, homography, evidence, sizes)
    return Estimate(
        homography,
        "motion",
        residual_px=_typical(validated),
        error_px=error_px,
        outside_px=outside_px,
        evidence=evidence,
        sizes=sizes,
        used=f"{len(lines)} points of outlines, {begin.matches} places",
        lag_s=pose.lag_s,
    )


def _typical(validated: Validated) -> float:
    return float(np.median(np.concatenate(validated.held_out)))


def _blocks(lines: Outlines) -> list[tuple[int, Outlines]]:
    """Return stretches of time with as many points each."""
    edges = np.quantile(lines.times, np.linspace(0, 1, BLOCKS + 1))
    edges[-1] += 1.0
    return [(i, without(lines, edges[i], edges[i + 1])[1]) for i in range(BLOCKS)]


def _span(part: Outlines) -> tuple[float, float]:
    return float(part.times.min()), float(np.nextafter(part.times.max(), np.inf))


def _evidence(reference: Motion, lines: Outlines, distances: Distances, pose: Pose) -> Points:
    """Return the full-size reference pixels of outlines that lie on the other camera's."""
    placed = project(pose.homography, lines.points)
    values, held = distances.at(lines.times + pose.lag_s, placed)
    close = held & (np.abs(values - pose.fatter_px) < CLOSE_PX)
    from_small = np.asarray(np.linalg.inv(reduction(reference.size, reference.small)), np.float64)
    return project(from_small, lines.points[close])
