"""Who is it? Fuses the embeddings of a track and decides: somebody known, or somebody new."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from mambapro.contract import MODALITIES, Modality, Subject
from runtime.config import MatchConfig
from runtime.gallery import SEARCH_LIMIT, Candidate, Embedding, Gallery
from runtime.identity.camera_graph import Stay, Veto
from runtime.identity.requirement import Requirement, shown_by_most
from runtime.identity.whereabouts import Circumstances, Whereabouts
from runtime.watching.crops import Sample
from runtime.watching.tracking import Track


@dataclass(frozen=True)
class Denied:
    """Somebody who would have been recognised, but cannot have been there."""

    why: Veto
    """What the camera graph says."""
    score: float
    """Cosine similarity to them."""


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
    veto: Denied | None = None
    """What kept the sighting from being of a more similar identity; None when nothing did."""


@dataclass(frozen=True)
class Likely:
    """Who a single crop looks like."""

    identity: str | None
    """Somebody known, or nobody."""
    score: float | None
    """Cosine similarity to the most similar identity; None when there was none to compare."""
    threshold: float
    """Smallest score of a known identity."""


STRAYS: Final = 2
"""Crops in a row that agree with each other, not with the rest: a track changed its subject."""


@dataclass
class Sighting:
    """One subject while it is in view of one rig: a track, or the part of one that shows it."""

    rig: str
    """Name of the rig."""
    track: Track
    """The track; it goes on while the subject is in view."""
    subject: Subject
    """Whose model made the embeddings."""
    start_s: float
    """When it came into view, s."""
    samples: list[Sample] = field(default_factory=list)
    """Crops that were embedded."""
    embeddings: list[Embedding] = field(default_factory=list)
    """One a sample."""
    strays: list[tuple[Sample, Embedding]] = field(default_factory=list)
    """Last crops that show somebody else: another subject crossing, or the track has changed."""
    left_s: float | None = None
    """When the track went over to another subject, s; None while it did not."""
    decision: Decision | None = None
    """None until decided."""
    point: str | None = None
    """The template that the gallery keeps of it."""
    snapshots: dict[Modality, str] | None = None
    """Its pictures on disk, as its event names them; None before that, or when none are kept."""

    @property
    def end_s(self) -> float:
        """When it was last in view, s."""
        return self.track.end_s if self.left_s is None else self.left_s

    @property
    def stay(self) -> Stay:
        """Where and when it was."""
        return Stay(self.rig, self.start_s, self.end_s)

    def fused(self) -> Embedding:
        """Return the mean embedding, of unit length."""
        return fuse(self.embeddings)

    def take(self, sample: Sample, embedding: Embedding, least: float) -> Sighting | None:
        """Add a crop; return the sighting that begins when the track has changed its subject.

        A crop whose similarity to the others is below ``least`` is set aside. When STRAYS of them
        agree, the track shows somebody else now, or did so at first, if there was no more of that.
        """
        if not self.embeddings or float(self.fused() @ embedding) >= least:
            self.samples.append(sample)
            self.embeddings.append(embedding)
            self.strays = []
            return None
        if self.strays and float(fuse([e for _, e in self.strays]) @ embedding) < least:
            self.strays = []
        self.strays.append((sample, embedding))
        if len(self.strays) < STRAYS:
            return None
        samples, embeddings = map(list, zip(*self.strays, strict=True))
        self.strays = []
        if self.decision is None and len(self.embeddings) < STRAYS:
            self.samples, self.embeddings = samples, embeddings
            return None
        self.left_s = self.samples[-1].time_s
        begin_s = samples[0].time_s
        return Sighting(self.rig, self.track, self.subject, begin_s, samples, embeddings)

    def modalities(self) -> list[Modality]:
        """Return the modalities that any sample shows."""
        return [m for m in MODALITIES if any(m in sample.crops for sample in self.samples)]

    def shown(self) -> list[Modality]:
        """Return the modalities that :meth:`fused` is of."""
        return shown_by_most([sample.crops.keys() for sample in self.samples])


@dataclass(frozen=True)
class _Judged:
    """A candidate and what is required of it."""

    candidate: Candidate
    threshold: float

    @property
    def score(self) -> float:
        return self.candidate.score

    @property
    def margin(self) -> float:
        return self.score - self.threshold

    @property
    def known(self) -> bool:
        return self.score >= self.threshold


class Identifier:
    """Decides over tracks of one subject against its gallery."""

    def __init__(self, config: MatchConfig, gallery: Gallery, required: Requirement) -> None:
        """Decide by what is ``required`` of a score."""
        self._config, self._gallery, self._required = config, gallery, required
        self._whereabouts = Whereabouts(config)

    @property
    def alike(self) -> float:
        """Least similarity of the crops of a track that shows one subject."""
        return self._required.single

    @property
    def identities(self) -> int:
        """How many the gallery knows."""
        return len(self._gallery)

    def decide(self, sighting: Sighting, others: Iterable[tuple[str, Stay]]) -> Decision:
        """Name the subject; ``others`` says who was where in this run."""
        shown, fused = sighting.shown(), sighting.fused()
        about = self._whereabouts.circumstances(sighting.stay, others)
        best = self._best(fused, shown, about.present | about.vetoes.keys(), about)
        denied = self._denied(fused, shown, about)
        if best is None:
            name = self._gallery.new_identity()
            threshold = self._required.between(shown, shown)
            return Decision(name, False, None, threshold, None, denied)
        match = best.candidate if best.known else None
        name = self._gallery.new_identity() if match is None else match.identity
        return Decision(name, best.known, best.score, best.threshold, match, denied)

    def likely(self, embedding: Embedding, shown: Collection[Modality]) -> Likely:
        """Say whom one crop that shows these modalities looks like; nothing is kept of it."""
        best = self._best(embedding, shown, ())
        if best is None:
            return Likely(None, None, self._required.between(shown, shown))
        name = best.candidate.identity if best.known else None
        return Likely(name, best.score, best.threshold)

    def _best(
        self,
        embedding: Embedding,
        shown: Collection[Modality],
        excluded: Collection[str],
        about: Circumstances | None = None,
    ) -> _Judged | None:
        """Return the candidate that is furthest above what is required of it.

        Of those above, a likely way there ranks higher; it makes nobody known.
        """
        judged = [
            _Judged(c, self._required.of(shown, c))
            for c in self._gallery.candidates(embedding, self._config.top, excluded)
        ]

        def rank(one: _Judged) -> float:
            likely = 0.0 if about is None else self._whereabouts.bonus(one.candidate, about)
            return one.margin + likely

        matches = [one for one in judged if one.known]
        if matches:
            return max(matches, key=rank)
        return max(judged, key=lambda one: one.margin, default=None)

    def _denied(
        self, fused: Embedding, shown: Collection[Modality], about: Circumstances
    ) -> Denied | None:
        """Return whom the camera graph ruled out who would have been recognised instead."""
        if not about.vetoes:
            return None
        free = self._best(fused, shown, about.present, about)
        if free is None or not free.known or free.candidate.identity not in about.vetoes:
            return None
        return Denied(about.vetoes[free.candidate.identity], free.score)

    def resembling(self, embedding: Embedding, most: int) -> list[Candidate]:
        """Return up to ``most`` identities that one triplet looks like, best first."""
        limit = max(SEARCH_LIMIT, most * self._gallery.most_templates)
        return self._gallery.candidates(embedding, self._config.top, limit=limit)[:most]

    def required(self, shown: Collection[Modality], candidate: Candidate) -> float:
        """Return the least score of ``candidate`` for one who shows these modalities."""
        return self._required.of(shown, candidate)

    def whose(self, sighting: Sighting) -> str | None:
        """Return whose a decided sighting is, after all that was changed since."""
        assert sighting.decision is not None
        return self._gallery.whose(sighting.decision.identity, sighting.point)

    def expire(self, time_s: float) -> None:
        """Delete from the gallery who has not been seen for as long as the settings say."""
        self._gallery.expire(time_s)

    def keep(self, sighting: Sighting) -> None:
        """Keep the track's fused embedding as a template of its identity, in place of an older."""
        assert sighting.decision is not None
        payload: dict[str, Any] = {
            "rig": sighting.rig,
            "track": sighting.track.number,
            "time_s": sighting.samples[-1].time_s,
            "mask": [int(m in sighting.shown()) for m in MODALITIES],
        }
        if sighting.snapshots is not None:
            payload["snapshots"] = sighting.snapshots
        sighting.point = self._gallery.put(
            sighting.decision.identity, sighting.fused(), payload, sighting.point
        )


def fuse(embeddings: Sequence[Embedding]) -> Embedding:
    """Return the mean of unit embeddings (E,), of unit length again."""
    mean = np.mean(embeddings, axis=0, dtype=np.float64)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-12), np.float32)
