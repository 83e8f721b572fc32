"""One list of selective-scan cases: it drives every implementation of the operator."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ScanCase:
    name: str
    groups: int = 1
    batch: int = 2
    length: int = 7
    channels: int = 10
    states: int = 16
    delta_scale: float = 1.0
    half: bool = False

    def __str__(self) -> str:
        return self.name

    def inputs(self) -> tuple[np.ndarray, ...]:
        """Return u, delta, A, B, C, D, delta_bias in float64, rounded to float16 if half."""
        random = np.random.default_rng(sum(map(ord, self.name)))
        rows, D, N = self.groups * self.batch, self.channels, self.states
        u, delta = random.standard_normal((2, rows, self.length, D))
        B, C = random.standard_normal((2, rows, self.length, N))
        A = -np.exp(np.log(np.arange(1, N + 1)) + 0.1 * random.standard_normal((self.groups, D, N)))
        skip, bias = random.standard_normal((2, self.groups, D))
        carried = [u, delta * self.delta_scale, B, C]
        if self.half:
            carried = [x.astype(np.float16).astype(np.float64) for x in carried]
        u, delta, B, C = carried
        return u, delta, A.astype(np.float32).astype(np.float64), B, C, skip, bias - 1


def scan_cases() -> list[ScanCase]:
    return [
        ScanCase("plain"),
        ScanCase("three_groups", groups=3, batch=2),
        ScanCase("one_row", batch=1, length=1),
        ScanCase("odd_length", batch=1, length=131, channels=24),
        ScanCase("odd_channels", channels=37, length=33),
        ScanCase("four_states", states=4, groups=3),
        ScanCase("twentyfour_states", states=24),
        ScanCase("huge_deltas", delta_scale=60.0),
        ScanCase("tiny_deltas", delta_scale=1e-4),
        ScanCase("half", half=True, length=65, groups=3),
    ]


def oracle(u, delta, A, B, C, D, delta_bias) -> np.ndarray:
    """The recurrence in float64, one scalar formula a line."""
    groups, channels, states = A.shape
    rows, length, _ = u.shape
    y = np.zeros((rows, length, channels))
    for row in range(rows):
        g = row // (rows // groups)
        h = np.zeros((channels, states))
        for t in range(length):
            raw = delta[row, t] + delta_bias[g]
            step = np.maximum(raw, 0) + np.log1p(np.exp(-np.abs(raw)))
            h = np.exp(step[:, None] * A[g]) * h + np.outer(step * u[row, t], B[row, t])
            y[row, t] = h @ C[row, t] + D[g] * u[row, t]
    return y
