"""What is counted while the pipeline works, in bounded memory; other threads read it."""

from __future__ import annotations

import contextlib
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Literal, get_args

from mambapro.contract import Subject
from runtime.identity.identification import Sighting
from runtime.watching.quality import Flaw

Stage = Literal["step", "embed", "decide"]
"""Detect, track and sample in one triplet; one call of the engine; one search of the gallery."""
STAGES: Final[tuple[Stage, ...]] = get_args(Stage)
STAGE_BOUNDS_S: Final = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0,
)  # fmt: skip
LATENCY_BOUNDS_S: Final = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)


class Durations:
    """Counts durations between bounds; any thread may add."""

    def __init__(self, bounds_s: Sequence[float]) -> None:
        """Count up to and including each of ``bounds_s``, and what is above all of them."""
        self.bounds_s: Final = tuple(bounds_s)
        self._counts = [0] * (len(bounds_s) + 1)
        self._sum_s = 0.0
        self._lock = threading.Lock()

    def add(self, seconds: float) -> None:
        """Count one."""
        with self._lock:
            self._counts[bisect_left(self.bounds_s, seconds)] += 1
            self._sum_s += seconds

    def read(self) -> tuple[list[int], float]:
        """Return the counts, the last of them above all bounds, and the sum, s."""
        with self._lock:
            return list(self._counts), self._sum_s


class Tally:
    """Written by the pipeline, and by the server about its clients; read by health and metrics."""

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        """Measure latency by ``clock``, which tells now in the time of samples; none: do not."""
        self._clock = clock
        self.stages: Final = {stage: Durations(STAGE_BOUNDS_S) for stage in STAGES}
        """How long each stage took."""
        self.latency: Final = Durations(LATENCY_BOUNDS_S)
        """From the arrival of the last crop that a decision used to its event."""
        self.decisions: Final[Counter[tuple[Subject, bool]]] = Counter()
        """Decisions by subject and whether the gallery knew them."""
        self.flaws: Final[Counter[tuple[str, Flaw]]] = Counter()
        """Crops that were not worth embedding, by rig and what was wrong with them."""
        self.clients = 0
        """Pages that listen to what happens; the server counts them."""
        self.clients_dropped = 0
        """Clients of endless answers that were let go because they were too slow."""
        self.instants = 0
        """Instants that were worked through."""
        self.advanced_s = time.monotonic()
        """`time.monotonic()` of the latest."""

    @contextlib.contextmanager
    def time(self, stage: Stage) -> Iterator[None]:
        """Count the duration of the block."""
        began_s = time.perf_counter()
        yield
        self.stages[stage].add(time.perf_counter() - began_s)

    def advanced(self) -> None:
        """Note that one more instant is done."""
        self.instants += 1
        self.advanced_s = time.monotonic()

    def refused(self, rig: str, flaws: Mapping[Flaw, int]) -> None:
        """Count crops of ``rig`` that were not worth embedding."""
        for flaw, count in flaws.items():
            self.flaws[rig, flaw] += count

    def decided(self, sightings: Sequence[Sighting]) -> None:
        """Count decisions whose events have just been written."""
        for sighting in sightings:
            assert sighting.decision is not None
            self.decisions[sighting.subject, sighting.decision.known] += 1
            if self._clock is not None:
                self.latency.add(max(0.0, self._clock() - sighting.samples[-1].time_s))
