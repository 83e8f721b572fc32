"""What embeddings look like modality by modality, so that a change of them shows.

The embedding is one part a modality, scaled to unit length together. The length before that is
inside the graph; the share of it that each part has is not lost, and neither is its direction
(docs/decisions/0046).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import numpy as np

from mambapro.contract import MODALITIES, Modality
from mambapro.metrics import Floats

QUANTILES: Final = 33
"""Points that a distribution is kept by."""
DIGITS: Final = 6
STATISTICS: Final = ("share", "likeness")
"""Length of a modality's part of the unit embedding; its cosine to the mean of calibration."""


@dataclass(frozen=True)
class DriftReference:
    """What tracks looked like at calibration, in one case of modalities."""

    centre: tuple[float, ...]
    """(E,) mean embedding."""
    quantiles: dict[str, tuple[float, ...]]
    """By ``rgb.share`` and the like: ascending quantiles, evenly spaced from 0 to 1."""

    def positions(self, embeddings: Floats) -> dict[str, Floats]:
        """Return by statistic where (n, E) embeddings stand, 0 to 1: evenly if nothing drifted."""
        found = statistics(embeddings, np.array(self.centre))
        even = np.linspace(0, 1, QUANTILES)
        return {
            name: np.interp(found[name], quantiles, even)
            for name, quantiles in self.quantiles.items()
        }


def drift_reference(embeddings: Floats, shown: Collection[Modality]) -> DriftReference:
    """Return the reference that (n, E) embeddings of tracks are; ``shown`` is what all show."""
    centre = embeddings.mean(axis=0, dtype=np.float64).round(DIGITS)
    values = statistics(embeddings, centre)
    even = np.linspace(0, 1, QUANTILES)
    return DriftReference(
        centre=tuple(map(float, centre)),
        quantiles={
            f"{modality}.{name}": tuple(
                float(q) for q in np.quantile(values[f"{modality}.{name}"], even).round(DIGITS)
            )
            for modality in MODALITIES
            if modality in shown
            for name in STATISTICS
        },
    )


def statistics(embeddings: Floats, centre: Floats) -> dict[str, Floats]:
    """Return by ``rgb.share`` and the like the (n,) values of (n, E) embeddings."""
    parts = embeddings.reshape(len(embeddings), len(MODALITIES), -1)  # (n, M, E / M)
    middle = centre.reshape(len(MODALITIES), -1)  # (M, E / M)
    length = np.linalg.norm(parts, axis=2)
    cosine = (parts * middle).sum(axis=2)
    cosine /= np.maximum(length * np.linalg.norm(middle, axis=1), 1e-12)
    return {
        f"{modality}.{name}": values[:, slot]
        for slot, modality in enumerate(MODALITIES)
        for name, values in zip(STATISTICS, (length, cosine), strict=True)
    }
