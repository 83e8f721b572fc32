"""How far two cameras' clocks are apart: the lag at which what moves before them agrees best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

STEP_S: Final = 0.02
"""Step of the resampled maps; lags between two steps are interpolated."""
BLOCKS: Final = 6
"""Stretches of time that are left out in turn to see how far the estimate can be trusted."""
MIN_CORRELATION: Final = 0.08
MIN_FRAMES: Final = 50

Changes = npt.NDArray[np.float32]
Sums = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Lag:
    """How much later the second camera's clock shows the same event."""

    seconds: float
    """offset(second) - offset(first), s."""
    error_s: float
    """Standard error by leaving out stretches of time, s."""
    correlation: float
    """Agreement of the changes at that lag, up to 1."""


class Match:
    """How well two cameras agree at every lag; pixels are added strip by strip."""

    def __init__(self, later_s: float, max_lag_s: float) -> None:
        """Compare lags up to ``max_lag_s``; the second camera's changes start ``later_s`` later."""
        self._shift = round(later_s / STEP_S)
        self._residue_s = later_s - self._shift * STEP_S
        self._reach = round(max_lag_s / STEP_S) + 2
        self._blocks = np.zeros((BLOCKS, 2 * self._reach + 1))
        self._energy = np.zeros(2)

    def add(self, a: Changes, b: Changes) -> None:
        """Take the same pixels of both cameras, (T, P) and (T', P), sampled every STEP_S.

        What is too short to tell anything is left out.
        """
        first, last = max(0, self._shift), min(len(a), self._shift + len(b))
        if last - first < MIN_FRAMES:
            return
        a, b = a[first:last], b[first - self._shift : last - self._shift]
        self._energy += [np.vdot(a, a), np.vdot(b, b)]
        self._blocks += _correlations(a, b, self._reach)

    def lag(self) -> Lag | None:
        """Return the lag of the second camera; None when nothing agrees."""
        total = self._blocks.sum(axis=0)
        energy = float(np.sqrt(self._energy.prod()))
        peak = int(total.argmax())
        if energy == 0 or not 0 < peak < len(total) - 1 or total[peak] < MIN_CORRELATION * energy:
            return None
        left_out = [_peak_s(total - block) for block in self._blocks]
        error_s = np.sqrt((BLOCKS - 1) * np.var(left_out))
        seconds = _peak_s(total) + self._residue_s
        return Lag(seconds, float(error_s), float(total[peak] / energy))


def _correlations(a: Changes, b: Changes, reach: int) -> Sums:
    """Return (BLOCKS, 2*reach+1): agreement of a(t) and b(t + lag) summed over stretches of t."""
    both = a.any(axis=0) & b.any(axis=0)  # most of a scene never moves
    a, padded = a[:, both], np.pad(b[:, both], ((reach, reach), (0, 0)))
    per_lag = np.stack(  # not as a matrix product: BLAS would wake all cores for little work
        [np.einsum("tp,tp->t", a, padded[lag : lag + len(a)]) for lag in range(2 * reach + 1)],
        axis=1,
    )
    parts = np.array_split(per_lag, BLOCKS)
    return np.stack([part.sum(axis=0) for part in parts])


def _peak_s(correlation: Sums) -> float:
    """Return the lag of the maximum in seconds, by a parabola through its neighbourhood."""
    peak = int(correlation.argmax())
    reach = min(2, peak, len(correlation) - 1 - peak)
    if reach < 1:
        return (peak - len(correlation) // 2) * STEP_S
    x = np.arange(-reach, reach + 1)
    a, b, _ = np.polyfit(x, correlation[peak - reach : peak + reach + 1], 2)
    vertex = float(np.clip(-b / (2 * a), -reach, reach)) if a < 0 else 0.0
    return (peak + vertex - len(correlation) // 2) * STEP_S
