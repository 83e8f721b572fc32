"""Which similarity still means the same identity: thresholds at a chosen rate of false matches."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mambapro.cli import InputError
from mambapro.metrics import Labels, Protocol, cosine_similarities, dropped_pairs, normalise_rows
from mambapro.spec import MatchThreshold

Floats = npt.NDArray[np.floating]


def threshold_at_false_match_rate(
    genuine: Floats, impostor: Floats, rate: float, source: str = "given similarities"
) -> MatchThreshold:
    """Return the lowest threshold that at most ``rate`` of the impostor pairs reach.

    Args:
        genuine: (n,) cosine similarities of pairs of one identity.
        impostor: (m,) cosine similarities of pairs of different identities.
        rate: allowed share of false matches, 0 to 1 (ISO/IEC 19795-1).
        source: where the pairs come from; their numbers are added.

    Raises:
        InputError: too few pairs to see the rate at all, or similarities that are not finite.
    """
    if not 0 < rate < 1:
        raise InputError(f"the false-match rate must lie between 0 and 1, got {rate}")
    if not genuine.size or impostor.size * rate < 1:
        raise InputError(
            f"a false-match rate of {rate} needs 1 genuine and {int(np.ceil(1 / rate))} impostor "
            f"pairs, got {genuine.size} and {impostor.size}; raise the rate or add images"
        )
    if not (np.isfinite(genuine).all() and np.isfinite(impostor).all()):
        raise InputError("similarities must be finite; the embeddings hold NaN or infinity")
    genuine, impostor = genuine.astype(np.float32), impostor.astype(np.float32)
    cosine = _above_all_but(impostor, int(rate * impostor.size))
    return MatchThreshold(
        cosine=cosine,
        false_match_rate=float(np.mean(impostor >= cosine)),
        true_match_rate=float(np.mean(genuine >= cosine)),
        source=f"{source}: {genuine.size} genuine and {impostor.size} impostor comparisons",
    )


def pair_similarities(
    query: Floats, gallery: Floats, query_labels: Labels, gallery_labels: Labels, protocol: Protocol
) -> tuple[Floats, Floats]:
    """Return the cosine similarities of all genuine and of all impostor pairs, (n,) and (m,).

    Genuine pairs that ``protocol`` drops do not count: two pictures of one identity by one camera
    would make recognising again look easier than it is.

    Args:
        query: (Q, E) embeddings.
        gallery: (G, E) embeddings; may be the queries themselves.
        query_labels: who the queries are.
        gallery_labels: who the gallery entries are.
        protocol: which entries do not count.
    """
    similarities = cosine_similarities(query, gallery)
    same = query_labels.identity[:, None] == gallery_labels.identity
    dropped = dropped_pairs(query_labels, gallery_labels, protocol)
    return similarities[same & ~dropped], similarities[~same]


def fuse_visits(embeddings: Floats, labels: Labels, protocol: Protocol) -> tuple[Floats, Labels]:
    """Return the mean embedding of each visit: all pictures of an identity by one camera.

    The stream compares tracks, which are means of several crops, so a threshold for it is chosen on
    means too: they lie closer together than single pictures. ``protocol`` "scene" takes visits by
    scene. Rows of the result are of unit length.
    """
    place = labels.camera if protocol == "camera" else labels.scene
    keys = np.stack([labels.identity, place], axis=1)
    _, first, visit = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    total = np.zeros((len(first), embeddings.shape[1]), embeddings.dtype)
    np.add.at(total, visit.ravel(), embeddings)
    return normalise_rows(total), labels.take(first)


def _above_all_but(values: Floats, allowed: int) -> float:
    """Return the lowest float32, the type of embeddings, that ``allowed`` of ``values`` reach."""
    rank = values.size - 1 - allowed
    highest_refused = np.partition(values, rank)[rank]
    return float(np.nextafter(np.float32(highest_refused), np.float32(np.inf)))
