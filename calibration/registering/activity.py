"""A first guess at a homography and a lag, without knowing anything: places that are busy together.

Whatever crosses one place in one camera's picture crosses one place in another's at the same
moments. So each place is described by when something was there, and places with the same history
belong together, however the cameras are turned, zoomed, mirrored, or out of step (compare
Ermis et al., Activity based matching in distributed camera networks, 2010).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from calibration.registering.geometry import Matrix, Points
from calibration.registering.silhouettes import Motion

CELL_PX: Final = 8
"""Side of a place, reduced px."""
STEP_S: Final = 0.08
BUSY: Final = 1.5
"""A place whose history has a smaller norm tells nothing."""
ALIKE: Final = 0.5
"""Least correlation of two histories of one place."""
REACH_PX: Final = 8.0
"""How far a match may be off the guess, reduced px: it is known to a place only."""
FEWEST_MATCHES: Final = 12

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Guess:
    """Where the other camera looks, about."""

    homography: Matrix
    """Reduced reference px to the other camera's reduced px."""
    lag_s: float
    """How much later the other camera's clock shows the same instant, s."""
    matches: int
    """Places that agree with the guess."""
    share: float
    """Share of the matched places that do."""
    alike: float
    """Mean correlation of the histories of the better half of all busy places."""


def guess(reference: Motion, other: Motion, lag_s: float, max_lag_s: float) -> Guess | None:
    """Return the similarity that most matched places agree with; None when too few match.

    Lags within ``max_lag_s`` of ``lag_s`` are tried.
    """
    a, b = _places(reference), _places(other)
    begin = max(reference.times[0], other.times[0] - lag_s + max_lag_s)
    end = min(reference.times[-1], other.times[-1] - lag_s - max_lag_s)
    steps = np.arange(begin, end, STEP_S)
    if len(steps) < 2:
        return None
    seen = _histories(reference.times, a, steps)
    if not seen.any():
        return None
    best: tuple[float, float, Floats] | None = None
    for lag in lag_s + np.arange(-max_lag_s, max_lag_s + STEP_S / 2, STEP_S):
        alike = seen.T @ _histories(other.times, b, steps + lag)  # (places of a, places of b)
        busy = alike[seen.any(axis=0)].max(axis=1, initial=0.0)
        score = float(np.sort(busy)[len(busy) // 2 :].mean())
        if best is None or score > best[0]:
            best = score, float(lag), alike
    assert best is not None
    ours, theirs = _matched(best[2], a.shape[2], b.shape[1:])
    return _fitted(ours, theirs, best[1], best[0])


def _fitted(ours: Points, theirs: Points, lag_s: float, alike: float) -> Guess | None:
    if len(ours) < FEWEST_MATCHES:
        return None
    affine, agreeing = cv2.estimateAffinePartial2D(ours, theirs, ransacReprojThreshold=REACH_PX)
    if affine is None or int(agreeing.sum()) < FEWEST_MATCHES:
        return None
    count = int(agreeing.sum())
    return Guess(np.vstack([affine, [0, 0, 1]]), lag_s, count, count / len(ours), alike)


def _places(motion: Motion) -> Floats:
    """Return (n, rows, columns): how busy each place is in each picture, 0 to 1."""
    size = (motion.small[1] // CELL_PX, motion.small[0] // CELL_PX)
    cells = [cv2.resize(item, size, interpolation=cv2.INTER_AREA) for item in motion.surely]
    return np.asarray(np.stack(cells) / np.float32(255), np.float32)


def _histories(
    times: npt.NDArray[np.float64], places: Floats, steps: npt.NDArray[np.float64]
) -> Floats:
    """Return (T, rows*columns): each place at ``steps``, mean 0 and norm 1; 0 where it is idle."""
    after = np.clip(np.searchsorted(times, steps, side="right"), 1, len(times) - 1)
    share = (steps - times[after - 1]) / (times[after] - times[after - 1])
    weight = share.clip(0, 1).astype(np.float32)[:, None]
    flat = places.reshape(len(times), -1)
    history = flat[after - 1] * (1 - weight) + flat[after] * weight
    history -= history.mean(axis=0)
    norm = np.linalg.norm(history, axis=0)
    busy = norm > BUSY
    return np.asarray(np.where(busy, history / np.maximum(norm, BUSY), 0), np.float32)


def _matched(alike: Floats, columns: int, shape: tuple[int, ...]) -> tuple[Points, Points]:
    """Return the middles of places that are each other's best match, reduced px, (n, 2) twice."""
    there, here = alike.argmax(axis=1), alike.argmax(axis=0)
    mutual = here[there] == np.arange(len(there))
    chosen = np.flatnonzero(mutual & (alike.max(axis=1) >= ALIKE))
    rows, row_columns = shape
    ours = np.stack([chosen % columns, chosen // columns], axis=1)
    theirs = [_peak(alike[k].reshape(rows, row_columns), int(there[k])) for k in chosen]
    return _middles(ours), _middles(np.array(theirs).reshape(-1, 2))


def _middles(places: npt.NDArray[np.generic]) -> Points:
    return np.asarray((places.astype(np.float64) + 0.5) * CELL_PX - 0.5, np.float64)


def _peak(alike: Floats, place: int) -> tuple[float, float]:
    """Return column and row of the maximum at ``place``, between its neighbours."""
    row, column = divmod(place, alike.shape[1])
    top, left = max(0, row - 1), max(0, column - 1)
    near = np.maximum(alike[top : row + 2, left : column + 2] - 0.6 * alike[row, column], 0)
    y, x = np.mgrid[top : top + near.shape[0], left : left + near.shape[1]]
    return float((x * near).sum() / near.sum()), float((y * near).sum() / near.sum())
