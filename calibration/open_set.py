"""Open-set recognition as the stream does it: tracks against identities, and how often it errs.

P tracks (probes), I identities. The mean embedding of the first few crops of a visit is a probe, as
a decision in the stream rests on a few crops; the mean of all of a visit's crops is a template, as
the stream keeps it. A probe's score with an identity is its mean cosine with the few most similar
templates, as in the stream. Templates of the probe's own visit do not count, nor others of its
identity at its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from mambapro.cli import InputError
from mambapro.metrics import Floats, Ints, Labels, Protocol, dropped_pairs, normalise_rows
from mambapro.thresholds import Rate, Threshold

REPLICATES: Final = 400
"""Resamples of the identities that an interval rests on."""
INTERVAL_PERCENT: Final = (2.5, 97.5)

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class OpenSet:
    """All comparisons of probes with identities."""

    scores: Floats
    """(P, I) cosine; -inf where an identity has no template that counts."""
    own: Ints
    """(P,) column of each probe's own identity."""

    def __post_init__(self) -> None:
        if np.isnan(self.scores).any() or np.isposinf(self.scores).any():
            raise InputError("the embeddings hold NaN or infinity; no threshold can be chosen")

    @property
    def identities(self) -> int:
        """How many there are."""
        return int(self.scores.shape[1])

    def genuine(self) -> Floats:
        """Return (P,) the score of each probe with its own identity."""
        scores: Floats = self.scores[np.arange(len(self.own)), self.own]
        return scores

    def strangers(self) -> Floats:
        """Return (P, I) scores without those of each probe's own identity, which are -inf."""
        scores: Floats = self.scores.copy()
        scores[np.arange(len(self.own)), self.own] = -np.inf
        return scores

    def impostor(self) -> Floats:
        """Return (m,) the scores of probes with identities that are not theirs."""
        scores = self.strangers()
        compared: Floats = scores[np.isfinite(scores)]
        return compared


def open_set(
    probes: tuple[Floats, Labels], templates: tuple[Floats, Labels], protocol: Protocol, top: int
) -> OpenSet:
    """Compare probes with templates, each (n, E) unit embeddings and whose they are.

    A score is the mean over the ``top`` best templates of an identity, or all that count.
    """
    (probe, probe_labels), (template, template_labels) = probes, templates
    scores = probe @ template.T
    scores[dropped_pairs(probe_labels, template_labels, protocol)] = -np.inf
    identities = np.unique(template_labels.identity)
    if len(identities) < 2:
        raise InputError("an open set needs templates of at least 2 identities")
    known = np.isin(probe_labels.identity, identities)
    best = [mean_of_best(scores[:, template_labels.identity == i], top) for i in identities]
    own = np.searchsorted(identities, probe_labels.identity[known])
    return OpenSet(np.stack(best, axis=1)[known], own)


def mean_of_best(scores: Floats, top: int) -> Floats:
    """Return (P,) the mean of the ``top`` highest of (P, T) scores, of those above -inf.

    -inf where there are none.
    """
    best = np.sort(scores, axis=1)[:, ::-1][:, :top]
    counts = ~np.isneginf(best)
    total = np.where(counts, best, 0).sum(axis=1)
    mean: Floats = np.where(counts.any(axis=1), total / np.maximum(counts.sum(axis=1), 1), -np.inf)
    return mean.astype(scores.dtype)


def fuse_first(embeddings: Floats, labels: Labels, protocol: Protocol, crops: int) -> Floats:
    """Return the mean of the first ``crops`` rows of each visit, rows as in ``fuse_visits``."""
    place = labels.camera if protocol == "camera" else labels.scene
    keys = np.stack([labels.identity, place], axis=1)
    _, visit = np.unique(keys, axis=0, return_inverse=True)
    visit = visit.ravel()
    fused = [
        embeddings[np.flatnonzero(visit == v)[:crops]].sum(axis=0) for v in range(visit.max() + 1)
    ]
    return normalise_rows(np.stack(fused))


def allowed_rate(far: float, gallery: int) -> float:
    """Return the rate of false matches a comparison at which ``gallery`` of them reach ``far``.

    A stranger is given somebody when any of the comparisons goes wrong, 1 - (1 - rate)^gallery
    (Grother and Phillips, CVPR 2004).
    """
    if not 0 < far < 1 or gallery < 1:
        raise InputError(
            f"the false-match rate must lie between 0 and 1 and the gallery hold at least 1 "
            f"identity, got {far} and {gallery}"
        )
    return float(-np.expm1(np.log1p(-far) / gallery))


def choose_threshold(comparisons: OpenSet, far: float, gallery: int, seed: int = 0) -> Threshold:
    """Return the lowest threshold at which false matches are as rare as asked for, with intervals.

    The intervals are of resampled identities (Bolle et al., 2004): the threshold is chosen on one
    resample and every rate taken from another, so that they say what to expect on as many other
    identities, the luck of the choice included. Raises InputError when there are too few
    comparisons to see the rate.
    """
    rate = allowed_rate(far, gallery)
    impostor = comparisons.impostor()
    if impostor.size * rate < 1:
        raise InputError(
            f"a false-match rate of {rate:.2g} a comparison needs {int(np.ceil(1 / rate))} "
            f"comparisons of different identities, there are {impostor.size}; raise --far, lower "
            "--gallery or give --data with more identities"
        )
    cosine = _above_all_but(np.sort(impostor), np.ones(impostor.size), rate)
    bootstrap = _Bootstrap(comparisons)
    replicates = np.array(list(bootstrap.replicates(rate, seed)))
    low, high = np.percentile(replicates, INTERVAL_PERCENT, axis=0)
    values = bootstrap.rates(cosine, np.ones(comparisons.identities))
    rates = [Rate(*map(float, triple)) for triple in zip(values, low[1:], high[1:], strict=True)]
    return Threshold(cosine, float(low[0]), float(high[0]), *rates)


def rates_at(comparisons: OpenSet, cosine: float) -> tuple[float, float, float, float]:
    """Return false match, false non-match, identification and strangers' rate at ``cosine``."""
    return _Bootstrap(comparisons).rates(cosine, np.ones(comparisons.identities))


class _Bootstrap:
    """Rates of weighted identities; a weight is how often an identity was drawn."""

    def __init__(self, comparisons: OpenSet) -> None:
        self._own, self._count = comparisons.own, comparisons.identities
        self._strangers = comparisons.strangers()
        self._genuine = comparisons.genuine()
        self._best = self._strangers.max(axis=1)
        rows, columns = np.nonzero(np.isfinite(self._strangers))
        order = np.argsort(self._strangers[rows, columns], kind="stable")
        self._rows, self._columns = self._own[rows[order]], columns[order]
        self._sorted = self._strangers[rows[order], columns[order]]

    def replicates(self, rate: float, seed: int) -> list[tuple[float, ...]]:
        """Return the threshold on one resample and the rates at it on another, many times."""
        random = np.random.default_rng(seed)
        even = np.full(self._count, 1 / self._count)
        found: list[tuple[float, ...]] = []
        for _ in range(REPLICATES):
            chosen, measured = random.multinomial(self._count, even, size=2).astype(np.float64)
            cosine = _above_all_but(self._sorted, self._pairs(chosen), rate)
            found.append((cosine, *self.rates(cosine, measured)))
        return found

    def rates(self, cosine: float, weights: Floats) -> tuple[float, float, float, float]:
        """Return the four rates of :class:`Threshold` at ``cosine``."""
        pairs = self._pairs(weights)
        reached = np.searchsorted(self._sorted, np.float32(cosine), side="left")
        probes = weights[self._own]
        compared = probes * np.isfinite(self._genuine)
        accepted = self._genuine >= cosine
        first = accepted & (self._genuine > self._best)
        return (
            _share(pairs[reached:].sum(), pairs.sum()),
            1.0 - _share((compared * accepted).sum(), compared.sum()),
            _share((compared * first).sum(), compared.sum()),
            _share((probes * (self._best >= cosine)).sum(), probes.sum()),
        )

    def _pairs(self, weights: Floats) -> Floats:
        pairs: Floats = weights[self._rows] * weights[self._columns]
        return pairs


def _above_all_but(values: Floats, weights: Floats, rate: float) -> float:
    """Return the lowest float32 that ``rate`` of the weight of ascending ``values`` reaches."""
    above = np.cumsum(weights[::-1])
    allowed = np.searchsorted(above, rate * above[-1] * (1 + 1e-12), side="right")
    if allowed >= len(values):
        return float(np.nextafter(np.float32(values[0]), np.float32(-np.inf)))
    highest_refused = values[len(values) - 1 - allowed]
    return float(np.nextafter(np.float32(highest_refused), np.float32(np.inf)))


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0
