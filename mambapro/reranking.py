"""k-reciprocal re-ranking (Zhong et al., CVPR 2017) of galleries that are too large for matrices.

Two rows are reciprocal when each is among the other's k nearest. Rows with many common reciprocal
neighbours show the same subject more surely than rows that are merely close: their Jaccard distance
is mixed into the original one. Only the few neighbours of a row are ever kept, and distances are
computed in blocks. Shape alphabet: Q queries, G gallery entries, n = Q + G, D channels. NumPy only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from mambapro.cli import InputError
from mambapro.metrics import Floats, Mask, Positions, distance_blocks, normalise_rows

Singles = npt.NDArray[np.float32]
Halves = npt.NDArray[np.float16]
Pairs = npt.NDArray[np.int64]
"""Ascending ``row * n + column`` of the pairs in a relation over n rows."""

_SMALLEST: Final = 1e-12
"""Rows that are all alike have no distances to divide by."""
_CHUNK: Final = 1 << 18
"""Pairs, or members of sets, that are worked on at once."""


@dataclass(frozen=True)
class Sets:
    """For each of n rows a set of columns, each with a share; the non-zeros of a matrix."""

    starts: Positions
    """(n + 1,) where each row begins in the two others."""
    columns: Positions
    """Ascending in each row."""
    shares: Halves
    """How much each column belongs to the set."""

    def members(self, rows: Positions) -> tuple[Positions, Positions]:
        """Return each member of the sets of ``rows``: whose, as a position in rows, and where."""
        sizes = self.starts[rows + 1] - self.starts[rows]
        owner = np.repeat(np.arange(len(rows)), sizes)
        first = np.cumsum(sizes) - sizes
        return owner, self.starts[rows][owner] + np.arange(len(owner)) - first[owner]


def rerank(
    query: Floats, gallery: Floats, k1: int = 20, k2: int = 6, weight: float = 0.3
) -> Singles:
    """Return (Q, G) k-reciprocal distances of query (Q, D) and gallery (G, D) embeddings.

    ``k1`` neighbours make a set, the sets of ``k2`` neighbours are averaged, ``weight`` is the
    share of the original distance. Shares are held and added up in float16, as in the code that
    published figures come from; float32 would move mAP by up to 0.1 points. Raises InputError for
    embeddings that are not finite.
    """
    features = normalise_rows(np.concatenate([query, gallery]).astype(np.float32))
    if not np.isfinite(features).all():
        raise InputError("embeddings hold NaN or infinity and cannot be ranked")
    mixed = np.empty((len(query), len(gallery)), np.float32)
    nearest, farthest = _survey(features, k1 + 1, mixed)
    pairs = _expand(_reciprocal(nearest, k1), _reciprocal(nearest, round(k1 / 2)), len(features))
    sets = _soft_sets(pairs, features, farthest)
    if k2 > 1:
        sets = _mean_of_nearest(sets, nearest[:, :k2])
    mixed *= weight
    _add_jaccard(mixed, sets, 1 - weight)
    return mixed


def _survey(features: Singles, count: int, mixed: Singles) -> tuple[Positions, Singles]:
    """Return the ``count`` nearest of each row, nearest first, and its largest distance.

    Fills ``mixed`` (Q, G) with the distances of queries to the gallery, scaled to at most 1.
    """
    queries, n = len(mixed), len(features)
    nearest = np.empty((n, min(count, n)), np.intp)
    farthest = np.empty(n, np.float32)
    start = 0
    for distances in distance_blocks(features, features):
        rows = slice(start, start + len(distances))
        farthest[rows] = np.maximum(distances.max(axis=1), _SMALLEST)
        scaled = _scaled(distances, farthest[rows, None])
        nearest[rows] = _first(scaled, nearest.shape[1])
        block = mixed[rows]
        block[:] = scaled[: len(block), queries:]
        start += len(distances)
    return nearest, farthest


def _scaled(distances: Singles, farthest: Singles) -> Singles:
    np.maximum(distances, 0, out=distances)
    distances /= farthest
    return distances


def _first(distances: Singles, count: int) -> Positions:
    """Return the first ``count`` columns of each row as a stable sort has them."""
    limit = np.partition(distances, count - 1, axis=1)[:, count - 1, None]
    rows, columns = np.nonzero(distances <= limit)  # count a row, and what ties with the last
    order = np.lexsort((distances[rows, columns], rows))
    starts = np.searchsorted(rows, np.arange(len(distances)))
    chosen: Positions = columns[order][starts[:, None] + np.arange(count)]
    return chosen


def _reciprocal(nearest: Positions, k: int) -> Pairs:
    """Pairs whose rows are each among the other's ``k`` nearest, or the same."""
    n, near = len(nearest), nearest[:, : k + 1]
    rows, columns = np.repeat(np.arange(n), near.shape[1]), near.ravel()
    return np.intersect1d(rows * n + columns, columns * n + rows, assume_unique=True)


def _expand(pairs: Pairs, half: Pairs, n: int) -> Pairs:
    """Add a neighbour's own (half-sized) set when it overlaps ours by more than two thirds."""
    halves = _sets(half, n, np.ones(len(half), np.float16))
    added = [pairs]
    for start in range(0, len(pairs), _CHUNK):
        rows, neighbours = np.divmod(pairs[start : start + _CHUNK], n)
        owner, member = halves.members(neighbours)
        candidates = rows[owner] * n + halves.columns[member]
        size = np.bincount(owner, minlength=len(rows))
        common = np.bincount(owner[_contains(pairs, candidates)], minlength=len(rows))
        added.append(np.unique(candidates[(common > 2 / 3 * size)[owner]]))
    return np.unique(np.concatenate(added))


def _contains(pairs: Pairs, wanted: Pairs) -> Mask:
    place = np.searchsorted(pairs, wanted)
    inside: Mask = pairs[np.minimum(place, len(pairs) - 1)] == wanted
    return inside


def _soft_sets(pairs: Pairs, features: Singles, farthest: Singles) -> Sets:
    """Give each pair the share exp(-distance), scaled so that a row's shares sum to 1."""
    n = len(features)
    rows, columns = np.divmod(pairs, n)
    starts = np.searchsorted(pairs, np.arange(n + 1) * n)
    cosines = np.empty(len(pairs), np.float32)
    for row in range(n):
        own = slice(starts[row], starts[row + 1])
        cosines[own] = features[columns[own]] @ features[row]
    shares = np.exp(-_scaled(2 - 2 * cosines, farthest[rows]))
    total = np.bincount(rows, shares, minlength=n).astype(np.float32)
    return Sets(starts, columns, (shares / total[rows]).astype(np.float16))


def _mean_of_nearest(sets: Sets, nearest: Positions) -> Sets:
    """Local query expansion: the mean set of each row's ``nearest`` (n, k2) rows."""
    n, count = nearest.shape
    rows_at_once = max(1, _CHUNK // (count * max(1, len(sets.columns) // n)))
    parts = []
    for start in range(0, n, rows_at_once):
        block = nearest[start : start + rows_at_once]
        owner, member = sets.members(block.ravel())
        pairs = (start + owner // count) * n + sets.columns[member]
        unique, place = np.unique(pairs, return_inverse=True)
        parts.append((unique, np.bincount(place, sets.shares[member]).astype(np.float32) / count))
    pairs, shares = (np.concatenate(values) for values in zip(*parts, strict=True))
    return _sets(pairs, n, shares.astype(np.float16))


def _sets(pairs: Pairs, n: int, shares: Halves) -> Sets:
    return Sets(np.searchsorted(pairs, np.arange(n + 1) * n), pairs % n, shares)


def _add_jaccard(mixed: Singles, sets: Sets, weight: float) -> None:
    """Add ``weight`` times 1 - sum of minima over sum of maxima to the (Q, G) distances.

    Rows sum to 1, so the maxima sum to 2 - minima. Members are added in ascending order, which
    decides how float16 rounds.
    """
    queries = len(mixed)
    holders = _holders(sets, queries)
    for row, distances in enumerate(mixed):
        own = slice(sets.starts[row], sets.starts[row + 1])
        owner, place = holders.members(sets.columns[own])
        minima = np.zeros(len(distances), np.float16)
        common = np.minimum(sets.shares[own][owner], holders.shares[place])
        np.add.at(minima, holders.columns[place], common)
        distances += (1 - minima / (2 - minima)) * weight


def _holders(sets: Sets, queries: int) -> Sets:
    """Return the sets turned round: for each column the gallery entries that hold it."""
    n, first = len(sets.starts) - 1, sets.starts[queries]
    columns = sets.columns[first:]
    entries = np.repeat(np.arange(n - queries), np.diff(sets.starts[queries:]))
    order = np.argsort(columns, kind="stable")
    starts = np.searchsorted(columns[order], np.arange(n + 1))
    return Sets(starts, entries[order], sets.shares[first:][order])
