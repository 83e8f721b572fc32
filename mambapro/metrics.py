"""Ranking quality: distances, CMC, mAP, mINP, and the figures of a parity report.

Shape alphabet: Q queries, G gallery entries, D channels of an embedding. NumPy only.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from mambapro.cli import InputError

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]
Positions = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]

Protocol = Literal["camera", "scene"]
"""Gallery entries that do not count: of the query's identity and its camera, or its scene."""

PROTOCOLS: Final[dict[str, Protocol]] = {
    "rgbnt201": "camera",
    "rgbnt100": "camera",
    "msvr310": "scene",
}
"""Evaluation protocol of each dataset layout."""

RANKS: Final = 50
"""Length of the CMC curve."""
BLOCK_VALUES: Final = 1 << 23
"""Distances held at once: 32 MB as float32."""
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
    same &= _protocol_key(query, protocol)[:, None] == _protocol_key(gallery, protocol)[None]
    return same


def _protocol_key(labels: Labels, protocol: Protocol) -> Ints:
    return labels.camera if protocol == "camera" else labels.scene


def evaluate(
    distances: Floats, query: Labels, gallery: Labels, protocol: Protocol, ranks: int = RANKS
) -> Ranking:
    """Rank the gallery for each query and score the lists.

    ``distances`` is (Q, G). Ties keep the order of the gallery. Queries without any match left in
    the gallery do not count. Raises InputError when that holds for all of them, and for NaN.
    """
    return _evaluate([distances], query, gallery, protocol, ranks)


def evaluate_embeddings(
    embeddings: tuple[Floats, Floats],
    query: Labels,
    gallery: Labels,
    protocol: Protocol,
    ranks: int = RANKS,
) -> Ranking:
    """Score like :func:`evaluate`, from query (Q, D) and gallery (G, D) embeddings of any length.

    Never holds more than a block of the (Q, G) distances.
    """
    blocks = distance_blocks(*map(normalise_rows, embeddings))
    return _evaluate(blocks, query, gallery, protocol, ranks)


def distance_blocks(query: Floats, gallery: Floats) -> Iterator[Floats]:
    """Yield (b, G) squared distances of successive rows of ``query``; all rows of unit length."""
    rows = max(1, BLOCK_VALUES // max(1, len(gallery)))
    for start in range(0, len(query), rows):
        distances: Floats = query[start : start + rows] @ gallery.T
        distances *= -2
        distances += 2
        yield distances


def _evaluate(
    blocks: Iterable[Floats], query: Labels, gallery: Labels, protocol: Protocol, ranks: int
) -> Ranking:
    by_identity = np.argsort(gallery.identity, kind="stable")
    pools = _pools(query.identity, gallery.identity[by_identity])
    query_keys, gallery_keys = (_protocol_key(labels, protocol) for labels in (query, gallery))
    lists = []
    rows = itertools.chain.from_iterable(blocks)
    for distances, pool, key in zip(rows, pools, query_keys, strict=True):
        same = by_identity[pool]  # gallery entries of the query's identity, ascending
        drops = gallery_keys[same] == key
        if not drops.all():
            lists.append(_ranks_of_matches(distances, same[~drops], same[drops]))
    if not lists:
        raise InputError(
            f"none of the {len(query)} queries has a match among the {len(gallery)} gallery "
            f"entries of another {protocol}"
        )
    first = np.array([found[0] for found in lists])
    return Ranking(
        map=float(np.mean([_average_precision(found) for found in lists])),
        minp=float(np.mean([len(found) / found[-1] for found in lists])),
        cmc=(first[:, None] <= np.arange(1, min(ranks, len(gallery)) + 1)).mean(axis=0),
        queries=len(lists),
    )


def _pools(wanted: Ints, ordered: Ints) -> list[slice]:
    """Where each of ``wanted`` stands in ``ordered``."""
    ends = (np.searchsorted(ordered, wanted, side=side) for side in ("left", "right"))
    return [slice(*pair) for pair in zip(*ends, strict=True)]


def _ranks_of_matches(distances: Floats, matches: Positions, dropped: Positions) -> Positions:
    """Return the 1-based ranks, ascending, that entries ``matches`` have without ``dropped``.

    A list of one query need not be put in order to know where its few matches stand: sorting the
    bare values is an order of magnitude faster than sorting entries by them.
    """
    kept = np.delete(distances, dropped)
    places = matches - np.searchsorted(dropped, matches)
    ordered = np.sort(kept)
    if len(ordered) and np.isnan(ordered[-1]):
        raise InputError("distances hold NaN; the embeddings cannot be ranked")
    own = kept[places]
    before = np.searchsorted(ordered, own, side="left")
    for tied in np.flatnonzero(np.searchsorted(ordered, own, side="right") - before > 1):
        before[tied] += np.count_nonzero(kept[: places[tied]] == own[tied])
    return np.sort(before + 1)


def _average_precision(ranks: Positions) -> float:
    return float((np.arange(1, len(ranks) + 1) / ranks).mean())


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


def _marked(columns: Positions, shape: tuple[int, ...]) -> Mask:
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
