"""How well and how fast engines rank, side by side on the same pictures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from calibration.threshold import pair_similarities
from export.evaluation_data import Embedded, batches, embed_test_split
from mambapro.datasets import Dataset
from mambapro.metrics import (
    PROTOCOLS,
    Floats,
    Parity,
    Ranking,
    degeneracies,
    dropped_pairs,
    evaluate,
    paired_cosines,
    parity,
    squared_distances,
)
from mambapro.spec import ModelSpec
from runtime.engines import Engine

_WARM_UP_ROUNDS: Final = 3


@dataclass(frozen=True)
class Candidate:
    """An engine to measure and what to call it."""

    name: str
    target: str
    """What the model was made for."""
    size_bytes: int
    engine: Engine


@dataclass(frozen=True)
class Quality:
    """Figures of sound embeddings."""

    ranking: Ranking
    parity: Parity
    cosines: Floats
    """(n,) cosine of each embedding to the reference's."""
    genuine: Floats
    """(p,) similarities of pairs of one identity."""
    impostor: Floats
    """(q,) similarities of pairs of different identities."""


@dataclass(frozen=True)
class Measured:
    """One row of the report."""

    name: str
    target: str
    size_bytes: int
    spec: ModelSpec
    degenerate: list[str]
    """What is wrong with the embeddings as such; empty when nothing is."""
    quality: Quality | None
    """None when embeddings are not finite: nothing can be ranked then."""
    latency_ms: npt.NDArray[np.float64]
    """(rounds,) time of one triplet, ms."""

    def percentile_ms(self, percent: float) -> float:
        """Return the latency that ``percent`` of the calls do not exceed, ms."""
        return float(np.percentile(self.latency_ms, percent))

    def map_drop_points(self, reference: Measured) -> float | None:
        """Return by how many points of mAP this is worse than ``reference``."""
        if self.quality is None or reference.quality is None:
            return None
        return 100 * (reference.quality.ranking.map - self.quality.ranking.map)


def measure(candidates: Sequence[Candidate], dataset: Dataset, rounds: int) -> list[Measured]:
    """Measure every candidate on the test split of ``dataset``; the first is the reference."""
    engines = [candidate.engine for candidate in candidates]
    embedded = embed_test_split(engines, dataset)
    latencies = interleaved_latencies_ms(engines, dataset, rounds)
    return [
        Measured(
            candidate.name,
            candidate.target,
            candidate.size_bytes,
            candidate.engine.spec,
            degeneracies(own.all_rows()),
            quality(own, embedded[0], dataset),
            latency,
        )
        for candidate, own, latency in zip(candidates, embedded, latencies, strict=True)
    ]


def quality(own: Embedded, reference: Embedded, dataset: Dataset) -> Quality | None:
    """Return ranking and parity figures; None when an embedding of either is not finite."""
    if not all(np.isfinite(part).all() for part in (*own, *reference)):
        return None
    labels = dataset.query.labels(), dataset.gallery.labels()
    protocol = PROTOCOLS[dataset.layout]
    genuine, impostor = pair_similarities(*own, *labels, protocol)
    return Quality(
        ranking=evaluate(squared_distances(*own), *labels, protocol),
        parity=parity(
            (reference.query, reference.gallery),
            (own.query, own.gallery),
            dropped_pairs(*labels, protocol),
        ),
        cosines=paired_cosines(reference.all_rows(), own.all_rows()),
        genuine=genuine,
        impostor=impostor,
    )


def interleaved_latencies_ms(
    engines: Sequence[Engine], dataset: Dataset, rounds: int
) -> list[npt.NDArray[np.float64]]:
    """Time one triplet at a time, the engines in turn, so that all meet the same disturbances.

    Each round starts with another engine: whoever runs after PyTorch finds the caches cold.
    """
    inputs: Any = next(batches(dataset.query, engines[0].spec.image_size, count=1))
    taken = np.empty((len(engines), _WARM_UP_ROUNDS + rounds))
    for turn in range(taken.shape[1]):
        for place in range(len(engines)):
            index = (turn + place) % len(engines)
            started = time.perf_counter()
            engines[index].embed(*inputs)
            taken[index, turn] = 1000 * (time.perf_counter() - started)
    return list(taken[:, _WARM_UP_ROUNDS:])
