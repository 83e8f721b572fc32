"""Evaluation as one would write it first: the yardstick of speed, and the oracle of tests.

The same figures as ``mambapro.metrics`` and ``mambapro.reranking``, one query after the other with
its list put in order, or with matrices of everything against everything.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from mambapro.metrics import Floats, Labels, Ranking, normalise_rows, squared_distances

Entries = npt.NDArray[np.intp]


def evaluate_one_by_one(
    query: Floats, gallery: Floats, labels: tuple[Labels, Labels], ranks: int = 50
) -> Ranking:
    """Measure each query against the gallery, sort, score; the camera protocol."""
    unit = normalise_rows(gallery)
    rows = (2 - 2 * (unit @ feature) for feature in normalise_rows(query))
    return score((np.argsort(row, kind="stable") for row in rows), labels, ranks)


def evaluate_by_matrix(
    query: Floats, gallery: Floats, labels: tuple[Labels, Labels], ranks: int = 50
) -> Ranking:
    """Measure and sort everything at once, then score in a loop; the camera protocol."""
    distances = squared_distances(query, gallery)
    return score(np.argsort(distances, axis=1, kind="stable"), labels, ranks)


def score(orders: Iterable[Entries], labels: tuple[Labels, Labels], ranks: int) -> Ranking:
    """Score the gallery's order for each query."""
    query, gallery = labels
    curves, precisions, penalties = [], [], []
    for identity, camera, order in zip(query.identity, query.camera, orders, strict=True):
        same = gallery.identity[order] == identity
        kept = same[~(same & (gallery.camera[order] == camera))]
        if not kept.any():
            continue
        found = kept.cumsum()
        curves.append(found[:ranks] > 0)
        precision = found / np.arange(1, len(kept) + 1)
        precisions.append((precision * kept).sum() / found[-1])
        penalties.append(found[-1] / (np.flatnonzero(kept)[-1] + 1))
    return Ranking(
        map=float(np.mean(precisions)),
        minp=float(np.mean(penalties)),
        cmc=np.mean(curves, axis=0),
        queries=len(precisions),
    )


def rerank_by_matrix(
    query: Floats, gallery: Floats, k1: int = 20, k2: int = 6, weight: float = 0.3
) -> Floats:
    """Return (Q, G) k-reciprocal distances; needs several matrices of (Q + G)^2."""
    features = np.concatenate([query, gallery]).astype(np.float32)
    distances = np.maximum(squared_distances(features, features), 0)
    distances /= distances.max(axis=1, keepdims=True)
    order = np.argsort(distances, axis=1, kind="stable")
    reciprocal, half = _reciprocal(order, k1), _reciprocal(order, round(k1 / 2)).astype(np.float32)
    common = reciprocal.astype(np.float32) @ half.T
    joins = reciprocal & (common > 2 / 3 * half.sum(axis=1))
    neighbours = reciprocal | ((joins.astype(np.float32) @ half) > 0)
    shares = np.where(neighbours, np.exp(-distances), 0)
    shares = (shares / shares.sum(axis=1, keepdims=True)).astype(np.float16)
    if k2 > 1:
        shares = shares[order[:, :k2]].mean(axis=1, dtype=np.float32).astype(np.float16)
    mixed: Floats = distances[: len(query), len(query) :] * weight
    for row, own in zip(mixed, shares, strict=False):
        members = np.flatnonzero(own)
        minima = np.minimum(own[members], shares[len(query) :, members])
        total = minima.T.copy().sum(axis=0, dtype=np.float16)
        row += (1 - total / (2 - total)) * (1 - weight)
    return mixed


def _reciprocal(order: Entries, k: int) -> npt.NDArray[np.bool_]:
    near = np.zeros(order.shape, bool)
    np.put_along_axis(near, order[:, : k + 1], True, axis=1)
    return near & near.T
