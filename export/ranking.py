"""Does a model file or an engine still rank as its reference does? Figures, and a verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from export.evaluation_data import embed_test_split
from export.measure import quality
from mambapro.cli import CheckError
from mambapro.datasets import Dataset
from mambapro.metrics import degeneracies
from runtime.engines import Engine


@dataclass(frozen=True)
class RankingCheck:
    """How a model ranks beside its reference; shares in 0 to 1 unless a name says otherwise."""

    reference: str
    """What it was held against."""
    reference_map: float
    map: float
    r1: float
    map_drop_points: float
    cosine_min: float
    overlap_at_10: float

    def __str__(self) -> str:
        return (
            f"mAP {self.map:.1%} ({self.reference}: {self.reference_map:.1%}), R-1 {self.r1:.1%}, "
            f"least cosine {self.cosine_min:.4f}, overlap@10 {self.overlap_at_10:.1%}"
        )


def check_ranking(
    name: str,
    engine: Engine,
    reference: tuple[str, Engine],
    dataset: Dataset,
    max_map_drop: float,
) -> RankingCheck:
    """Rank the test split by ``engine`` and by the reference, a name and an engine.

    Raises CheckError when mAP falls by more than ``max_map_drop`` points, or when the embeddings
    are degenerate.
    """
    embedded, expected = embed_test_split([engine, reference[1]], dataset)
    found, wanted = quality(embedded, expected, dataset), quality(expected, expected, dataset)
    problems = degeneracies(embedded.all_rows())
    if problems or found is None or wanted is None:
        raise CheckError(f"{name}: {'; '.join(problems) or 'embeddings are not finite'}")
    drop = 100 * (wanted.ranking.map - found.ranking.map)
    if drop > max_map_drop:
        raise CheckError(
            f"{name} loses {drop:.2f} points of mAP against {reference[0]} "
            f"(allowed {max_map_drop:g})"
        )
    return RankingCheck(
        reference=reference[0],
        reference_map=wanted.ranking.map,
        map=found.ranking.map,
        r1=found.ranking.rank(1),
        map_drop_points=drop,
        cosine_min=float(found.cosines.min()),
        overlap_at_10=found.parity.overlap_at_10,
    )


def as_json(check: RankingCheck) -> dict[str, Any]:
    """Return the figures for a JSON line."""
    return dict(vars(check))
