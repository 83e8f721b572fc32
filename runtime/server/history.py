"""How the run went in the last half hour, for the charts of the page."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

from runtime.operation.health import LiveView

SAMPLE_S: Final = 5.0
"""Time between two samples, s."""
SAMPLES: Final = 360


@dataclass(frozen=True)
class Counts:
    """What was counted up to a moment."""

    time_s: float
    triplets: dict[str, int]
    """By rig."""
    latencies: list[int]
    """Decisions by latency, as the tally bins them."""
    known: int
    new: int


class History:
    """A bounded number of samples."""

    def __init__(self, view: LiveView) -> None:
        """Sample ``view``."""
        self._view = view
        self._before: Counts | None = None
        self._samples: deque[dict[str, Any]] = deque(maxlen=SAMPLES)

    def samples(self) -> list[dict[str, Any]]:
        """Return all samples, the oldest first."""
        return list(self._samples)

    def take(self, time_s: float) -> dict[str, Any]:
        """Add what happened since the last sample and return it."""
        now, before = _counts(self._view, time_s), self._before
        self._before = now
        sample = _difference(self._view.tally.latency.bounds_s, before or now, now)
        self._samples.append(sample)
        return sample


def _counts(view: LiveView, time_s: float) -> Counts:
    decisions = view.tally.decisions.items()
    return Counts(
        time_s,
        {rig.rig.name: rig.statistics.triplets for rig in view.feed.rigs()},
        view.tally.latency.read()[0],
        sum(count for (_, known), count in decisions if known),
        sum(count for (_, known), count in decisions if not known),
    )


def _difference(bounds_s: Sequence[float], before: Counts, now: Counts) -> dict[str, Any]:
    span_s = max(now.time_s - before.time_s, 1e-3)
    latencies = [n - b for n, b in zip(now.latencies, before.latencies, strict=True)]
    return {
        "time_s": round(now.time_s, 1),
        "fps": {
            rig: round(max(0, count - before.triplets.get(rig, count)) / span_s, 2)
            for rig, count in now.triplets.items()
        },
        "latency_p50_s": quantile(bounds_s, latencies, 0.5),
        "latency_p95_s": quantile(bounds_s, latencies, 0.95),
        "known": now.known - before.known,
        "new": now.new - before.new,
    }


def quantile(bounds_s: Sequence[float], counts: Sequence[int], share: float) -> float | None:
    """Return the quantile of what was binned, linear within its bin; None when there is nothing.

    ``counts`` has one more than ``bounds_s``: what lies above all of them counts as the last bound.
    """
    total = sum(counts)
    if total == 0:
        return None
    rank = share * total
    place = next(i for i, n in enumerate(accumulate(counts)) if n >= rank)
    if place >= len(bounds_s):
        return bounds_s[-1]
    low = bounds_s[place - 1] if place else 0.0
    inside = (rank - sum(counts[:place])) / counts[place]
    return round(low + inside * (bounds_s[place] - low), 4)
