"""Matched points: read from a file, fitted robustly, each held against the fit to all others."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import yaml

from calibration.registering.estimate import Estimate, Floats, errors, leave_out
from calibration.registering.geometry import NOMINAL_WIDTH, Matrix, Points, Size, inside, project
from mambapro.cli import CheckError, InputError
from mambapro.contract import MODALITIES, Modality

FEWEST: Final = 6
"""Four points fit any homography exactly; with six there is a residual to judge it by."""
OUTLIER_PX: Final = 6.0
"""A point that lies farther off is a mistake, px at NOMINAL_WIDTH."""
MOST_OUTLIERS: Final = 0.34
COLUMNS: Final = ("camera", "reference_x", "reference_y", "x", "y")
LEAST_SPREAD: Final = 0.03
"""Least spread across the main direction of points that are not on a line, to that along it."""


@dataclass(frozen=True)
class Pairs:
    """The same points in two pictures, px."""

    reference: Points
    other: Points

    def __len__(self) -> int:
        return len(self.reference)

    def take(self, keep: Any) -> Pairs:
        """Return some of the pairs."""
        return Pairs(self.reference[keep], self.other[keep])


def read_pairs(path: Path) -> dict[Modality, Pairs]:
    """Return the pairs of each camera in a CSV or YAML file.

    CSV has the columns of COLUMNS; YAML maps a camera to rows ``[reference_x, reference_y, x, y]``.
    InputError names the row that cannot be understood.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read points {path}: {error}") from error
    rows = _csv_rows(path, text) if path.suffix.lower() == ".csv" else _yaml_rows(path, text)
    found: dict[Modality, list[list[float]]] = {}
    for number, (camera, values) in enumerate(rows, start=1):
        if camera not in MODALITIES:
            raise InputError(
                f"{path}, row {number}: camera must be one of {', '.join(MODALITIES)}, "
                f"got {camera!r}"
            )
        found.setdefault(camera, []).append(_numbers(path, number, values))
    if not found:
        raise InputError(f"{path} holds no points; a row is {', '.join(COLUMNS)}")
    pairs = {camera: np.asarray(values, np.float64) for camera, values in found.items()}
    return {camera: Pairs(values[:, :2], values[:, 2:]) for camera, values in pairs.items()}


def register(camera: str, pairs: Pairs, reference: Size, other: Size) -> Estimate:
    """Return the homography that fits ``pairs``; a third of them may be mistakes.

    Raises:
        CheckError: too few points, points on a line, or too many that do not fit.
        InputError: points outside of the pictures.
    """
    _check_places(camera, pairs, reference, other)
    scale = other[1] / NOMINAL_WIDTH
    good = pairs.take(_agreeing(camera, pairs, OUTLIER_PX * scale))
    if len(good) < max(FEWEST, (1 - MOST_OUTLIERS) * len(pairs)):
        raise CheckError(
            f"camera {camera}: only {len(good)} of {len(pairs)} points agree with each other; "
            "look for swapped or wrongly read ones"
        )
    _check_spread(camera, good)
    homography = fitted(good)
    parts = [good.take([i]) for i in range(len(good))]
    validated = leave_out(parts, lambda kept: fitted(joined(kept)), distances)
    sizes = (reference, other)
    error_px, outside_px = errors(validated, homography, good.reference, sizes)
    held_out = np.concatenate(validated.held_out)
    return Estimate(
        homography,
        "points",
        residual_px=float(np.sqrt(np.mean(held_out**2))),
        error_px=error_px,
        outside_px=outside_px,
        evidence=good.reference,
        sizes=sizes,
        used=f"{len(good)} of {len(pairs)} points",
    )


def fitted(pairs: Pairs) -> Matrix:
    """Return the homography with the least squared distances in the other camera's picture."""
    matrix, _ = cv2.findHomography(pairs.reference, pairs.other, 0)
    if matrix is None:
        return np.full((3, 3), np.nan)
    return np.asarray(matrix, np.float64)


def distances(homography: Matrix, pairs: Pairs) -> Floats:
    """Return how far each point is from where ``homography`` puts it, px of the other camera."""
    off = project(homography, pairs.reference) - pairs.other
    return np.asarray(np.linalg.norm(off, axis=1))


def joined(parts: Sequence[Pairs]) -> Pairs:
    """Return all pairs of ``parts``."""
    ours, theirs = [p.reference for p in parts], [p.other for p in parts]
    return Pairs(np.concatenate(ours), np.concatenate(theirs))


def _agreeing(camera: str, pairs: Pairs, outlier_px: float) -> Any:
    if len(pairs) < FEWEST:
        raise CheckError(
            f"camera {camera}: {len(pairs)} points, at least {FEWEST} are needed, better 12; "
            "four fit anything and say nothing of their error"
        )
    _check_spread(camera, pairs)
    cv2.setRNGSeed(0)
    matrix, mask = cv2.findHomography(
        pairs.reference, pairs.other, cv2.USAC_MAGSAC, outlier_px, maxIters=5000, confidence=0.999
    )
    if matrix is None:
        raise CheckError(f"camera {camera}: no homography fits the points; look for swapped ones")
    return mask.ravel().astype(bool)


def _check_places(camera: str, pairs: Pairs, reference: Size, other: Size) -> None:
    for name, points, size in (
        ("reference", pairs.reference, reference), (camera, pairs.other, other),
    ):  # fmt: skip
        out = points[~inside(points, size)]
        if len(out):
            raise InputError(
                f"camera {camera}: the point ({out[0, 0]:g}, {out[0, 1]:g}) lies outside of the "
                f"{name} picture, which is {size[1]}x{size[0]}"
            )


def _check_spread(camera: str, pairs: Pairs) -> None:
    for points in (pairs.reference, pairs.other):
        spread = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
        if spread[1] <= LEAST_SPREAD * spread[0]:
            raise CheckError(
                f"camera {camera}: the points lie on a line, which leaves the rest of the picture "
                "open; add some beside it"
            )


def _csv_rows(path: Path, text: str) -> list[tuple[str, Sequence[Any]]]:
    reader = csv.DictReader(text.splitlines(), skipinitialspace=True)
    missing = set(COLUMNS) - set(reader.fieldnames or ())
    if missing:
        raise InputError(
            f"{path} has no column {', '.join(sorted(missing))}; its first line must name "
            f"{','.join(COLUMNS)}"
        )
    return [(str(row["camera"]), [row[name] for name in COLUMNS[1:]]) for row in reader]


def _yaml_rows(path: Path, text: str) -> list[tuple[str, Sequence[Any]]]:
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, Mapping) or not all(isinstance(v, list) for v in values.values()):
        raise InputError(f"{path} must map cameras to rows [reference_x, reference_y, x, y]")
    return [(str(camera), row) for camera, rows in values.items() for row in rows]


def _numbers(path: Path, number: int, values: Any) -> list[float]:
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != 4 or not np.isfinite(numbers).all():
        raise InputError(f"{path}, row {number}: four finite numbers are needed, got {values!r}")
    return numbers
