"""How well and how fast engines rank, side by side on the same pictures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from calibration.match_rates import pair_similarities
from export.candidates import Candidate
from export.evaluation_data import Embedded, Subset, batches, embed_subsets
from export.memory import added_memory
from export.opening import Scan
from mambapro.contract import MODALITIES, SUBSETS
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
    """What the model was made for."""
    scan: Scan | None
    """What computes the selective scan; None in PyTorch."""
    size_bytes: int
    peak_memory_bytes: int | None
    """What the engine adds to a process (export/memory.py); None when that is not known."""
    spec: ModelSpec
    degenerate: list[str]
    """What is wrong with the embeddings as such; empty when nothing is."""
    quality: Quality | None
    """None when embeddings are not finite: nothing can be ranked then."""
    subset_maps: dict[str, float | None]
    """mAP with each subset of the modalities, ``rgb+nir+tir`` first, as a share; None as above."""
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


def measure(
    candidates: Sequence[Candidate], dataset: Dataset, rounds: int, *, quick: bool = False
) -> list[Measured]:
    """Measure every candidate on the test split of ``dataset``; the first is the reference.

    ``quick`` leaves out memory, and all subsets but that of all modalities.
    """
    memory = [None if quick else added_memory(candidate.opening) for candidate in candidates]
    engines = [candidate.engine for candidate in candidates]
    embedded = embed_subsets(engines, dataset, [MODALITIES] if quick else SUBSETS)
    latencies = interleaved_latencies_ms(engines, dataset, rounds)
    everything = embedded[MODALITIES]
    return [
        Measured(
            name=candidate.name,
            target=candidate.target,
            scan=candidate.scan,
            size_bytes=candidate.size_bytes,
            peak_memory_bytes=memory[index],
            spec=candidate.engine.spec,
            degenerate=degeneracies(everything[index].all_rows()),
            quality=quality(everything[index], everything[0], dataset),
            subset_maps={
                subset_name(subset): mean_average_precision(engines_rows[index], dataset)
                for subset, engines_rows in embedded.items()
            },
            latency_ms=latencies[index],
        )
        for index, candidate in enumerate(candidates)
    ]


def subset_name(subset: Subset) -> str:
    """Return ``rgb+tir`` and the like."""
    return "+".join(subset)


def mean_average_precision(own: Embedded, dataset: Dataset) -> float | None:
    """Return mAP as a share; None when an embedding is not finite."""
    if not all(np.isfinite(part).all() for part in own):
        return None
    labels = dataset.query.labels(), dataset.gallery.labels()
    return evaluate(squared_distances(*own), *labels, PROTOCOLS[dataset.layout]).map


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
