"""Thresholds files with chosen values, and embeddings whose distribution is known."""

from __future__ import annotations

import numpy as np

from mambapro.contract import SUBSETS
from mambapro.metrics import Labels, normalise_rows
from mambapro.spec import ModelSpec
from mambapro.thresholds import COMPLETE, Rate, Threshold, Thresholds, subset_name


def threshold(cosine: float) -> Threshold:
    rate = Rate(0.01, 0.005, 0.02)
    return Threshold(cosine, cosine - 0.1, cosine + 0.1, rate, rate, rate, rate)


def thresholds(spec: ModelSpec, same: dict[str, float], mixed: dict[str, float]) -> Thresholds:
    """Thresholds of ``spec``'s model; cases that are not given have 0.9."""
    names = [subset_name(subset) for subset in SUBSETS]
    return Thresholds(
        spec.subject, spec.precision, spec.embedding_space, 0.01, 1, 39, "made up",
        same={name: threshold(same.get(name, 0.9)) for name in names},
        mixed={name: threshold(mixed.get(name, 0.9)) for name in names if name != COMPLETE},
    )  # fmt: skip


def visits(seed: int, identities: int, places: int = 4, channels: int = 24, noise: float = 0.16):
    """Return (n, E) unit embeddings and labels: a point of a sphere an identity, and noise."""
    random = np.random.default_rng(seed)
    centre = normalise_rows(random.standard_normal((identities, channels)))
    identity = np.repeat(np.arange(identities), places)
    rows = centre[identity] + noise * random.standard_normal((len(identity), channels))
    place = np.tile(np.arange(places), identities)
    labels = Labels(identity, place, np.zeros_like(place))
    return normalise_rows(rows).astype(np.float32), labels
