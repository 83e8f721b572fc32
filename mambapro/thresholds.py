"""The thresholds file beside a model file: which similarity means the same identity.

``calibration/threshold.py`` writes it, ``runtime/stream.py`` reads it. A track is compared with
templates, and each of the two shows some of the modalities. Similarities of tracks that show the
same are another distribution than those of a track that lacks a camera and a complete template, so
each case has a threshold of its own.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from mambapro.cli import InputError
from mambapro.config import from_dict, to_dict
from mambapro.contract import MODALITIES, SUBSETS, Subject
from mambapro.drift import DriftReference
from mambapro.files import write_json
from mambapro.spec import ModelSpec, Precision

THRESHOLDS_FORMAT: Final = 1
HOW_TO_CALIBRATE: Final = "python calibration/threshold.py"

COMPLETE: Final = "+".join(MODALITIES)


@dataclass(frozen=True)
class Rate:
    """A share, and where it will lie on other identities."""

    value: float
    """Share on the identities it was calibrated on, 0 to 1."""
    low: float
    """Lower end of the 95 % interval."""
    high: float
    """Upper end."""


@dataclass(frozen=True)
class Threshold:
    """The least similarity that means the same identity, in one case of modalities."""

    cosine: float
    """Similarity in [-1, 1]."""
    cosine_low: float
    """Lower end of its 95 % interval."""
    cosine_high: float
    """Upper end."""
    false_match: Rate
    """Comparisons of a track with another identity that reach it (FAR)."""
    false_non_match: Rate
    """Comparisons of a track with its own identity that do not (FRR)."""
    identified: Rate
    """Tracks of known identities that are given theirs (DIR)."""
    strangers_known: Rate
    """Tracks of strangers that are given anybody, in a gallery of ``Thresholds.identities``."""


@dataclass(frozen=True)
class Thresholds:
    """What a thresholds file holds; format 1."""

    subject: Subject
    """What the model recognises."""
    precision: Precision
    """Of the model file."""
    embedding_space: str
    """The ModelSpec's: thresholds of another space mean nothing."""
    far: float
    """The rate of false matches that was asked for, 0 to 1."""
    gallery: int
    """Identities that a stranger is compared with until ``far`` is reached."""
    identities: int
    """Identities that the rates were measured with."""
    source: str
    """Which pictures these are."""
    same: dict[str, Threshold]
    """By modalities, ``rgb+tir`` and the like: track and template show just these."""
    mixed: dict[str, Threshold]
    """By modalities: one shows these, the other all."""
    drift: dict[str, DriftReference] = field(default_factory=dict)
    """By modalities, what tracks look like that show these, for the drift monitor."""
    format_version: int = THRESHOLDS_FORMAT
    """Version of this record."""

    def required(self, track: Collection[str], template: Collection[str]) -> float:
        """Return the least similarity of a track and a template that show these modalities.

        Cases that were not calibrated, such as ``rgb`` against ``nir+tir``, take the higher of the
        thresholds of their like: the less two pictures have in common, the lower similarities are.
        """
        one, other = subset_name(track), subset_name(template)
        if one == other:
            return self.same[one].cosine
        if COMPLETE in (one, other):
            return self.mixed[other if one == COMPLETE else one].cosine
        return max(self.same[one].cosine, self.same[other].cosine)

    def check(self, spec: ModelSpec, name: str) -> None:
        """Raise InputError, saying what to do, unless this was made for the model ``spec``."""
        for fact in ("subject", "embedding_space", "precision"):
            own, wanted = getattr(self, fact), getattr(spec, fact)
            if own != wanted:
                raise InputError(
                    f"{name} was made for another model ({fact} {own[:12]}, the model's is "
                    f"{wanted[:12]}); make it again with {HOW_TO_CALIBRATE}, or delete it"
                )


def subset_name(modalities: Collection[str]) -> str:
    """Return ``rgb+tir`` and the like, in the order of MODALITIES."""
    return "+".join(m for m in MODALITIES if m in modalities)


def thresholds_path(model: Path) -> Path:
    """Return where the thresholds of a model or engine file are kept."""
    return model.with_name(f"{model.stem}.thresholds.json")


def write_thresholds(path: Path, thresholds: Thresholds) -> None:
    """Write ``thresholds`` to ``path``, whole or not at all."""
    write_json(path, to_dict(thresholds))


def read_thresholds(path: Path) -> Thresholds:
    """Read :func:`write_thresholds` back; InputError when it is damaged or of another version."""
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
        version = values["format_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is damaged ({error!r}); make it again with {HOW_TO_CALIBRATE}"
        ) from error
    if version != THRESHOLDS_FORMAT:
        raise InputError(
            f"{path} has format version {version}, this software reads {THRESHOLDS_FORMAT}; make "
            f"it again with {HOW_TO_CALIBRATE}"
        )
    thresholds = from_dict(Thresholds, values)
    wanted = {subset_name(subset) for subset in SUBSETS}
    if set(thresholds.same) != wanted or set(thresholds.mixed) != wanted - {COMPLETE}:
        raise InputError(
            f"{path} must have a threshold for each of {', '.join(sorted(wanted))}; make it again "
            f"with {HOW_TO_CALIBRATE}"
        )
    return thresholds
