"""Ranking quality: distances, CMC, mAP, mINP, re-ranking, and the figures of a parity report.

Shape alphabet: Q queries, G gallery entries, D channels of an embedding. NumPy only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from mambapro.cli import InputError

Floats = npt.NDArray[np.floating]
Halves = npt.NDArray[np.float16]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

Protocol = Literal["camera", "scene"]
"""Gallery entries that do not count: of the query's identity and its camera, or its scene."""

PROTOCOLS: Final[dict[str, Protocol]] = {
    "rgbnt201": "camera",
    "rgbnt100": "camera",
    "msvr310": "scene",
}
"""Evaluation protocol of each dataset layout."""

UNIT_TOLERANCE: Final = 1e-2
"""An embedding whose length is off by more is not of unit length (float16 is off by 1e-3)."""
ALIKE_COSINE: Final = 0.99999
"""Embeddings are all alike when each has at least this cosine to their mean."""


@dataclass(frozen=True)
class Labels:
    """What is known of each row of an embedding matrix; arrays of one length."""

    identity: Ints
    """Who it is."""
    camera: Ints
    """Viewing position."""
    scene: Ints
    """Scene; only the MSVR310 protocol looks at it."""

    def __len__(self) -> int:
        return len(self.identity)

    def take(self, index: Ints) -> Labels:
        """Return the rows ``index``."""
        return Labels(self.identity[index], self.camera[index], self.scene[index])


@dataclass(frozen=True)
class Ranking:
    """Mean ranking quality over the queries that have a match in the gallery."""

    map: float
    """Mean average precision, 0 to 1."""
    minp: float
    """Mean inverse negative penalty (Ye et al., TPAMI 2022), 0 to 1."""
    cmc: Floats
    """(ranks,) share of queries with a match among the first 1, 2, ... entries."""
    queries: int
    """Queries that counted."""

    def rank(self, k: int) -> float:
        """Return the share of queries with a match among the first ``k`` entries."""
        return float(self.cmc[min(k, len(self.cmc)) - 1])


def normalise_rows(features: Floats) -> Floats:
    """Return ``features`` (n, D) with rows of unit length; rows of zeros stay zero."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    unit: Floats = features / np.maximum(length, 1e-12)
    return unit


def cosine_similarities(query: Floats, gallery: Floats) -> Floats:
    """Return the (Q, G) cosines of the rows of ``query`` (Q, D) and ``gallery`` (G, D)."""
    similarities: Floats = normalise_rows(query) @ normalise_rows(gallery).T
    return similarities


def squared_distances(query: Floats, gallery: Floats) -> Floats:
    """Return (Q, G) squared Euclidean distances between rows scaled to unit length."""
    return 2.0 - 2.0 * cosine_similarities(query, gallery)


def dropped_pairs(query: Labels, gallery: Labels, protocol: Protocol) -> Mask:
    """Return (Q, G): True where the gallery entry does not count for the query."""
    same: Mask = query.identity[:, None] == gallery.identity[None]
    if protocol == "camera":
        same &= query.camera[:, None] == gallery.camera[None]
    else:
        same &= query.scene[:, None] == gallery.scene[None]
    return same


def evaluate(
    distances: Floats, query: Labels, gallery: Labels, protocol: Protocol, ranks: int = 50
) -> Ranking:
    """Rank the gallery for each query and score the lists.

    ``distances`` is (Q, G). Ties keep the order of the gallery. Queries without any match left in
    the gallery do not count. Raises InputError when that holds for all of them.
    """
    order = np.argsort(distances, axis=1, kind="stable")  # (Q, G)
    matches = query.identity[:, None] == gallery.identity[order]
    counts = ~np.take_along_axis(dropped_pairs(query, gallery, protocol), order, axis=1)
    matches &= counts
    scored = matches.any(axis=1)
    if not scored.any():
        raise InputError(
            f"none of the {len(query)} queries has a match among the {len(gallery)} gallery "
            f"entries of another {protocol}"
        )
    matches, position = matches[scored], np.cumsum(counts[scored], axis=1)  # 1-based ranks
    found = np.cumsum(matches, axis=1)
    total = found[:, -1]
    precision = np.where(matches, found / np.maximum(position, 1), 0.0).sum(axis=1) / total
    first = np.take_along_axis(position, matches.argmax(axis=1)[:, None], axis=1)[:, 0]
    last = np.where(matches, position, 0).max(axis=1)
    cmc = (first[:, None] <= np.arange(1, min(ranks, len(gallery)) + 1)).mean(axis=0)
    return Ranking(
        map=float(precision.mean()), minp=float((total / last).mean()), cmc=cmc, queries=len(total)
    )


def rerank(
    query: Floats, gallery: Floats, k1: int = 20, k2: int = 6, weight: float = 0.3
) -> npt.NDArray[np.float32]:
    """Return (Q, G) k-reciprocal distances (Zhong et al., CVPR 2017).

    Memberships are held and added up in float16, as in the code that published figures come from;
    float32 would move mAP by up to 0.1 points. ``weight`` is the share of the original distance.
    Needs a few matrices of (Q+G)^2 float32.
    """
    features = np.concatenate([query, gallery]).astype(np.float32)
    queries = len(query)
    distances = squared_distances(features, features).astype(np.float32)  # (n, n)
    distances = np.maximum(distances, 0) / distances.max(axis=1, keepdims=True)
    order = np.argsort(distances, axis=1, kind="stable")
    neighbours = _expand(_reciprocal(order, k1), _reciprocal(order, round(k1 / 2)))
    weights = np.where(neighbours, np.exp(-distances), 0)
    membership = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float16)
    if k2 > 1:
        membership = _mean_of_nearest(membership, order[:, :k2])
    jaccard = _jaccard_distances(membership, queries)
    mixed: npt.NDArray[np.float32] = jaccard * (1 - weight) + distances[:queries, queries:] * weight
    return mixed


def _reciprocal(order: npt.NDArray[np.intp], k: int) -> Mask:
    """(n, n): i and j are each among the other's k nearest, or the same."""
    near = _marked(order[:, : k + 1], order.shape)
    near &= near.T
    return near


def _expand(reciprocal: Mask, half: Mask) -> Mask:
    """Add a neighbour's own (half-sized) set when it overlaps ours by more than two thirds."""
    common = half.astype(np.float32) @ reciprocal.T.astype(np.float32)  # [candidate, i]
    joins = reciprocal & (common > 2 / 3 * half.sum(axis=1, keepdims=True)).T
    joined: Mask = (joins.astype(np.float32) @ half.astype(np.float32)) > 0
    return reciprocal | joined


def _mean_of_nearest(membership: Halves, nearest: npt.NDArray[np.intp]) -> Halves:
    """Local query expansion: the mean membership of each row's ``nearest`` (n, k2) rows."""
    total = np.zeros(membership.shape, np.float32)
    for rows in nearest.T:
        total += membership[rows]
    mean: Halves = (total / nearest.shape[1]).astype(np.float16)
    return mean


def _jaccard_distances(membership: Halves, queries: int) -> Halves:
    """1 - sum of minima over sum of maxima; rows sum to 1, so the maxima sum to 2 - minima."""
    by_member = np.ascontiguousarray(membership[queries:].T)  # (n, G)
    distances = np.empty((queries, by_member.shape[1]), np.float16)
    for row, own in zip(distances, membership, strict=False):
        (support,) = np.nonzero(own)
        minima = np.minimum(own[support, None], by_member[support]).sum(axis=0, dtype=np.float16)
        row[:] = 1 - minima / (2 - minima)
    return distances


@dataclass(frozen=True)
class Parity:
    """How closely the embeddings of one engine follow those of the reference."""

    cosine_min: float
    """Smallest cosine of an embedding to its reference."""
    cosine_mean: float
    """Mean cosine."""
    overlap_at_10: float
    """Mean share of the reference's first ten gallery entries that the other ranks there too."""


def parity(
    reference: tuple[Floats, Floats], other: tuple[Floats, Floats], dropped: Mask | None = None
) -> Parity:
    """Compare (query (Q, D), gallery (G, D)) embeddings row by row and list by list.

    ``dropped`` (Q, G) marks gallery entries that do not count (:func:`dropped_pairs`).
    """
    cosines = np.concatenate([paired_cosines(*pair) for pair in zip(reference, other, strict=True)])
    overlap = rank_overlap(squared_distances(*reference), squared_distances(*other), dropped, k=10)
    return Parity(float(cosines.min()), float(cosines.mean()), overlap)


def paired_cosines(first: Floats, second: Floats) -> Floats:
    """Return (n,) cosines between rows of the same index of two (n, D) matrices."""
    if first.shape != second.shape:
        raise InputError(f"embeddings have different shapes: {first.shape} and {second.shape}")
    product = normalise_rows(first.astype(np.float64)) * normalise_rows(second.astype(np.float64))
    cosines: Floats = product.sum(axis=1)
    return cosines


def rank_overlap(first: Floats, second: Floats, dropped: Mask | None = None, k: int = 10) -> float:
    """Return the mean share of common entries among the first ``k`` of two (Q, G) distances."""
    if dropped is not None:
        first, second = (np.where(dropped, np.inf, distances) for distances in (first, second))
    k = min(k, first.shape[1])
    common = _first_k(first, k) & _first_k(second, k)
    return float(common.sum(axis=1).mean() / k)


def _first_k(distances: Floats, k: int) -> Mask:
    return _marked(np.argsort(distances, axis=1, kind="stable")[:, :k], distances.shape)


def _marked(columns: npt.NDArray[np.intp], shape: tuple[int, ...]) -> Mask:
    """A matrix of ``shape``, True at each row's ``columns``."""
    mask = np.zeros(shape, bool)
    np.put_along_axis(mask, columns, True, axis=1)
    return mask


def degeneracies(embeddings: Floats) -> list[str]:
    """Name what is wrong with (n, D) embeddings that should be finite, unit length and different.

    An empty list means that nothing was found.
    """
    finite = np.isfinite(embeddings).all(axis=1)
    if not finite.all():
        return [f"{(~finite).sum()} of {len(embeddings)} embeddings hold NaN or infinity"]
    found = []
    lengths = np.linalg.norm(embeddings.astype(np.float64), axis=1)
    off = np.abs(lengths - 1) > UNIT_TOLERANCE
    if off.any():
        found.append(
            f"{off.sum()} of {len(embeddings)} embeddings are not of unit length "
            f"({lengths.min():.4g} to {lengths.max():.4g})"
        )
    if len(embeddings) > 1 and _all_alike(embeddings):
        found.append(f"all {len(embeddings)} embeddings are alike (cosine above {ALIKE_COSINE})")
    return found


def _all_alike(embeddings: Floats) -> bool:
    unit = normalise_rows(embeddings.astype(np.float64))
    return bool((unit @ normalise_rows(unit.mean(axis=0, keepdims=True))[0]).min() >= ALIKE_COSINE)
