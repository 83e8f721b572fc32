"""Who is it? Fuses the embeddings of a track and decides: somebody known, or somebody new."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mambapro.contract import MODALITIES, Modality, Subject
from mambapro.spec import ModelSpec
from runtime.config import MatchConfig
from runtime.crops import Sample
from runtime.gallery import Candidate, Embedding, Gallery
from runtime.tracking import Track

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Decision:
    """What an identity was given for."""

    identity: str
    """Who."""
    known: bool
    """Whether the gallery knew them."""
    score: float | None
    """Cosine similarity to the most similar identity; None when there was none to compare."""
    threshold: float
    """Smallest score of a known identity."""
    match: Candidate | None
    """The identity that was recognised; None for a new one."""


@dataclass
class Sighting:
    """What is known of one track: its samples, their embeddings, and the decision."""

    rig: str
    """Name of the rig."""
    track: Track
    """The track; it goes on while the subject is in view."""
    subject: Subject
    """Whose model made the embeddings."""
    samples: list[Sample] = field(default_factory=list)
    """Crops that were embedded."""
    embeddings: list[Embedding] = field(default_factory=list)
    """One a sample."""
    decision: Decision | None = None
    """None until decided."""
    point: str | None = None
    """The template that the gallery keeps of it."""

    def fused(self) -> Embedding:
        """Return the mean embedding, of unit length."""
        return fuse(self.embeddings)

    def modalities(self) -> list[Modality]:
        """Return the modalities that any sample shows."""
        return [m for m in MODALITIES if any(m in sample.crops for sample in self.samples)]


class Identifier:
    """Decides over tracks of one subject against its gallery."""

    def __init__(self, config: MatchConfig, gallery: Gallery, spec: ModelSpec) -> None:
        """Decide by the configured threshold, or by the model's."""
        self._config, self._gallery = config, gallery
        self.threshold = _threshold(config, spec)

    def decide(self, sighting: Sighting, excluded: Collection[str]) -> Decision:
        """Name the subject; ``excluded`` identities are in view elsewhere and cannot be it."""
        candidates = self._gallery.candidates(sighting.fused(), self._config.top, excluded)
        best = candidates[0] if candidates else None
        score = None if best is None else best.score
        if best is not None and best.score >= self.threshold:
            return Decision(best.identity, True, score, self.threshold, best)
        return Decision(self._gallery.new_identity(), False, score, self.threshold, None)

    def keep(self, sighting: Sighting) -> None:
        """Keep the track's fused embedding as a template of its identity, in place of an older."""
        assert sighting.decision is not None
        payload: dict[str, Any] = {
            "rig": sighting.rig,
            "track": sighting.track.number,
            "time_s": sighting.samples[-1].time_s,
            "mask": [int(m in sighting.modalities()) for m in MODALITIES],
        }
        sighting.point = self._gallery.put(
            sighting.decision.identity, sighting.fused(), payload, sighting.point
        )


def fuse(embeddings: Sequence[Embedding]) -> Embedding:
    """Return the mean of unit embeddings (E,), of unit length again."""
    mean = np.mean(embeddings, axis=0, dtype=np.float64)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-12), np.float32)


def _threshold(config: MatchConfig, spec: ModelSpec) -> float:
    configured = config.threshold(spec.subject)
    if configured is not None:
        return configured
    if spec.match_threshold is not None:
        return spec.match_threshold.cosine
    log.warning(
        "the %s model carries no calibrated threshold; match.default_threshold %.2f decides",
        spec.subject,
        config.default_threshold,
    )
    return config.default_threshold
