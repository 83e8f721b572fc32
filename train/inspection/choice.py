"""Which queries are shown: from the one that is ranked worst to the one that is ranked best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mambapro.metrics import Floats, Ints, Mask
from train.inspection.views import Views


@dataclass(frozen=True)
class RankList:
    """What the gallery has for one query."""

    query: int
    """Row of the query."""
    hits: Ints
    """Rows of the gallery, best first, without those that the protocol leaves out."""
    cosines: Floats
    """Of each hit."""
    right: Mask
    """Whether a hit has the query's identity."""

    @property
    def average_precision(self) -> float:
        """0 to 1."""
        ranks = np.flatnonzero(self.right) + 1
        return float((np.arange(1, len(ranks) + 1) / ranks).mean())

    @property
    def first_right(self) -> int:
        """Gallery row of the best right hit."""
        return int(self.hits[self.right][0])


def choose(views: Views, count: int) -> list[RankList]:
    """Return at most ``count`` lists, their average precision at even steps from worst to best."""
    lists = sorted(rank_lists(views), key=lambda ranked: ranked.average_precision)
    picked = np.unique(np.linspace(0, len(lists) - 1, count).round().astype(int))
    return [lists[index] for index in picked]


def rank_lists(views: Views) -> list[RankList]:
    """Return the list of every query that has a match."""
    cosines = views.query.features[views.last] @ views.gallery.features[views.last].T
    lists = []
    for row in np.flatnonzero((views.same & ~views.dropped).any(axis=1)):
        kept = np.flatnonzero(~views.dropped[row])
        hits = kept[np.argsort(-cosines[row, kept], kind="stable")]
        lists.append(RankList(int(row), hits, cosines[row, hits], views.same[row, hits]))
    return lists
