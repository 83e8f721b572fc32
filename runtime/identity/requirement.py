"""Which similarity makes somebody known: of the settings, a thresholds file or the model."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from statistics import fmean

from mambapro.cli import InputError
from mambapro.contract import MODALITIES, Modality
from mambapro.spec import ModelSpec
from mambapro.thresholds import HOW_TO_CALIBRATE, Thresholds, read_thresholds, thresholds_path
from runtime.config import MatchConfig
from runtime.gallery.records import Candidate, Payload

log = logging.getLogger(__name__)


class Requirement:
    """The least similarity of a track and a template, given what each of them shows."""

    def __init__(
        self, config: MatchConfig, spec: ModelSpec, thresholds: Thresholds | None = None
    ) -> None:
        """Take the configured threshold, or else ``thresholds``, or else the model's one."""
        configured = config.threshold(spec.subject)
        self._thresholds = thresholds if configured is None else None
        self.single = _single(config, spec) if configured is None else configured
        """The threshold that knows no modalities; crops of one track are held to it."""

    def between(self, track: Collection[str], template: Collection[str]) -> float:
        """Return the least similarity of a track and a template that show these modalities."""
        if self._thresholds is None:
            return self.single
        return self._thresholds.required(track, template)

    def of(self, track: Collection[str], candidate: Candidate) -> float:
        """Return the least score of a candidate, whose score is a mean over its templates."""
        return fmean(self.between(track, shown_in(t.payload)) for t in candidate.templates)


def load_thresholds(model: Path, spec: ModelSpec) -> Thresholds | None:
    """Return the thresholds beside the file ``model``; None, announced, when none fit it.

    Raises InputError when they are damaged.
    """
    path = thresholds_path(model)
    if not path.is_file():
        log.info(
            "%s: no %s, so one threshold serves all modalities; make it with %s %s",
            spec.subject, path.name, HOW_TO_CALIBRATE, model,
        )  # fmt: skip
        return None
    thresholds = read_thresholds(path)
    try:
        thresholds.check(spec, str(path))
    except InputError as error:
        log.warning("%s; until then one threshold serves all modalities", error)
        return None
    log.info(
        "%s: thresholds of %s, %.2f %% false matches", spec.subject, path, 100 * thresholds.far
    )
    return thresholds


def shown_by_most(crops: Sequence[Collection[Modality]]) -> list[Modality]:
    """Return the modalities that at least half of a track's crops show: its mean is of them."""
    counts = Counter(m for crop in crops for m in crop)
    most = min(len(crops) / 2, max(counts.values()))
    return [m for m in MODALITIES if counts[m] >= most]


def shown_in(template: Payload) -> list[Modality]:
    """Return the modalities that a template shows; one that does not say shows all."""
    mask = template.get("mask", [1] * len(MODALITIES))
    return [m for m, present in zip(MODALITIES, mask, strict=True) if present]


def _single(config: MatchConfig, spec: ModelSpec) -> float:
    if spec.match_threshold is not None:
        return spec.match_threshold.cosine
    log.warning(
        "the %s model carries no calibrated threshold; match.default_threshold %.2f decides",
        spec.subject,
        config.default_threshold,
    )
    return config.default_threshold
