"""A checkerboard that every camera sees: printed for visible and near infrared, heated for thermal.

Black squares of a printed board take up more of a lamp's or the sun's heat; in thermal they are the
bright ones, pale and blurred. The board is held still at several places: each stretch of stillness
is one place, averaged over its pictures, so that a clock that is some tenths of a second off does
no harm. In which order a camera's corners come is open (half a turn looks the same when colours may
be swapped); the order by which all places fit one homography is taken.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from calibration.registering.estimate import Estimate, errors, leave_out
from calibration.registering.footage import Shot
from calibration.registering.geometry import (
    NOMINAL_WIDTH,
    Matrix,
    Points,
    Size,
    orientations,
    project,
)
from calibration.registering.points import Pairs, distances, fitted, joined
from mambapro.cli import CheckError, InputError
from mambapro.preprocess import Picture

AVERAGE_S: Final = 0.2
"""Pictures of this long are averaged before corners are looked for: thermal noise is strong."""
STILL_PX: Final = 1.0
"""A board whose corners move less between two looks is held still, px at NOMINAL_WIDTH."""
FEWEST_LOOKS: Final = 3
FEWEST_PLACES: Final = 3
LARGEST_SIDE: Final = 50
TIE: Final = 1.2
"""Orders whose residuals differ less are told apart by how little they turn the picture."""

Board = tuple[int, int]
"""Inner corners: columns, rows."""


@dataclass(frozen=True)
class Place:
    """The board held still before one camera."""

    begin_s: float
    end_s: float
    corners: Points
    """(columns * rows, 2) px, in one of the orders a board may be read in."""


@dataclass(frozen=True)
class Boards:
    """All that one camera saw of the board."""

    places: list[Place]
    looks: int
    """How often it was looked for."""
    found: int
    """How often it was found."""
    size: Size
    picture: Picture
    """One picture, with the board where it was found."""


def parse_board(text: str) -> Board:
    """Return the inner corners of a board given as COLUMNSxROWS."""
    columns, cross, rows = text.lower().partition("x")
    if cross and columns.isdigit() and rows.isdigit():
        board = int(columns), int(rows)
        if min(board) >= 3 and max(board) <= LARGEST_SIDE:
            return board
    raise InputError(
        f"--board takes the inner corners as COLUMNSxROWS, 3 to {LARGEST_SIDE} each, such as 9x6 "
        f"for a board of 10x7 squares; got {text!r}"
    )


def look_for(shots: Iterable[Shot], board: Board) -> Boards | None:
    """Return where a camera sees the board held still; None without a picture."""
    runs: list[list[tuple[float, Points]]] = []
    looks = found = 0
    shown: Picture | None = None
    for time_s, picture in _averaged(shots):
        looks += 1
        shown = picture if shown is None else shown
        corners = find_corners(picture, board)
        if corners is None:
            runs.append([])
            continue
        found += 1
        shown = picture
        allowed = STILL_PX * picture.shape[1] / NOMINAL_WIDTH
        if runs and runs[-1] and _moved(runs[-1][-1][1], corners) < allowed:
            runs[-1].append((time_s, corners))
        else:
            runs.append([(time_s, corners)])
    if shown is None:
        return None
    places = [_place(run) for run in runs if len(run) >= FEWEST_LOOKS]
    return Boards(places, looks, found, (shown.shape[0], shown.shape[1]), shown)


def register(camera: str, reference: Boards, other: Boards, board: Board, lag_s: float) -> Estimate:
    """Return the homography from ``reference`` to the pictures of ``camera``.

    ``lag_s`` is how much later its clock shows the same instant, about.

    Raises:
        CheckError: too few places that both cameras saw, or places that do not fit each other.
    """
    places = _shared(reference, other, lag_s)
    if len(places) < FEWEST_PLACES:
        raise CheckError(
            f"camera {camera}: both cameras saw the board held still at {len(places)} places, at "
            f"least {FEWEST_PLACES} are needed (it was found in {reference.found} of "
            f"{reference.looks} looks of the reference and in {other.found} of {other.looks} of "
            f"{camera}); hold it still for two seconds at each place, warm it again for thermal, "
            "and check --board"
        )
    pairs = _ordered(places, board)
    homography = fitted(joined(pairs))
    validated = leave_out(pairs, lambda kept: fitted(joined(kept)), distances)
    evidence = joined(pairs).reference
    sizes = (reference.size, other.size)
    error_px, outside_px = errors(validated, homography, evidence, sizes)
    held_out = np.concatenate(validated.held_out)
    return Estimate(
        homography,
        "checkerboard",
        residual_px=float(np.sqrt(np.mean(held_out**2))),
        error_px=error_px,
        outside_px=outside_px,
        evidence=evidence,
        sizes=sizes,
        used=f"{len(pairs)} places of the board",
    )


def find_corners(picture: Picture, board: Board) -> Points | None:
    """Return the board's inner corners (n, 2) px, or None; contrast and polarity do not matter."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    low, high = np.percentile(grey, (1, 99))
    gain = 255.0 / max(8.0, high - low)
    stretched = cv2.convertScaleAbs(np.maximum(grey, low) - low, alpha=gain)
    for tried in (stretched, cv2.createCLAHE(3.0, (4, 4)).apply(grey)):
        found, corners = cv2.findChessboardCornersSB(
            tried, board, flags=cv2.CALIB_CB_NORMALIZE_IMAGE
        )
        if found:
            return np.asarray(corners, np.float64).reshape(-1, 2)
    return None


def _averaged(shots: Iterable[Shot]) -> Iterator[Shot]:
    """Yield the mean of the pictures of each AVERAGE_S."""
    for _, group in itertools.groupby(shots, key=lambda shot: int(shot[0] / AVERAGE_S)):
        times, pictures = zip(*group, strict=True)
        mean = np.mean([p for p in pictures if p.shape == pictures[0].shape], axis=0)
        yield float(np.mean(times)), np.asarray(np.round(mean), np.uint8)


def _moved(before: Points, now: Points) -> float:
    """Return how far the corners moved; half a turn of their order is no motion."""
    orders = (now, now[::-1])
    return min(float(np.linalg.norm(before - order, axis=1).max()) for order in orders)


def _place(run: Sequence[tuple[float, Points]]) -> Place:
    first = run[0][1]
    same = [
        c if np.linalg.norm(c - first) <= np.linalg.norm(c[::-1] - first) else c[::-1]
        for _, c in run
    ]
    return Place(run[0][0], run[-1][0], np.mean(same, axis=0))


def _shared(reference: Boards, other: Boards, lag_s: float) -> list[Pairs]:
    """Return the places that both saw for at least half of the shorter time."""
    pairs = []
    for ours, theirs in itertools.product(reference.places, other.places):
        together = min(ours.end_s, theirs.end_s - lag_s) - max(ours.begin_s, theirs.begin_s - lag_s)
        shorter = min(ours.end_s - ours.begin_s, theirs.end_s - theirs.begin_s)
        if together >= 0.5 * shorter:
            pairs.append(Pairs(ours.corners, theirs.corners))
    return pairs


def _orders(board: Board) -> list[npt.NDArray[np.intp]]:
    """Return the orders in which a camera may read a board: turned, or mirrored."""
    index = np.arange(board[0] * board[1]).reshape(board[1], board[0])
    kinds = [index, index[::-1, ::-1], index[:, ::-1], index[::-1]]
    if board[0] == board[1]:
        kinds += [kind.T for kind in kinds]
    return [kind.ravel() for kind in kinds]


def _ordered(places: Sequence[Pairs], board: Board) -> list[Pairs]:
    """Return the places with the other camera's corners in the order that fits all of them."""
    candidates = []
    for place, order in itertools.product(places, _orders(board)):
        matrix = fitted(Pairs(place.reference, place.other[order]))
        best = [_best_order(matrix, other, board) for other in places]
        misfit = float(np.median([distances(matrix, pairs).mean() for pairs in best]))
        candidates.append((misfit, _turn(matrix, place.reference), best))
    least = min(misfit for misfit, _, _ in candidates)
    near = [item for item in candidates if item[0] <= TIE * least + 1e-6]
    return min(near, key=lambda item: item[1])[2]


def _best_order(matrix: Matrix, place: Pairs, board: Board) -> Pairs:
    orders = [Pairs(place.reference, place.other[order]) for order in _orders(board)]
    return min(orders, key=lambda pairs: float(distances(matrix, pairs).mean()))


def _turn(matrix: Matrix, points: Points) -> float:
    """Return by how much ``matrix`` turns the picture, radians; mirroring counts as more."""
    middle = points.mean(axis=0)
    here, along = project(matrix, np.stack([middle, middle + np.array([1.0, 0.0])]))
    angle = abs(float(np.arctan2(along[1] - here[1], along[0] - here[0])))
    return angle if orientations(matrix, middle[None])[1][0] > 0 else angle + np.pi
