"""The calibration cache: ranges, what they were taken from, and of which model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from calibration.ranges import Histogram, Method, Range
from mambapro.cli import InputError
from mambapro.config import from_dict, to_dict
from mambapro.contract import MODALITIES
from mambapro.files import write_json

CACHE_FORMAT: Final = 1
_BULK_PERCENT: Final = 99.9


@dataclass(frozen=True)
class Spread:
    """What one modality's values of an activation look like."""

    lowest: float
    """Smallest value."""
    highest: float
    """Largest value."""
    bulk: float
    """Largest absolute value when 0.1 % of the values are left out."""
    clipped: float
    """Share of the values beyond the range, 0 to 1."""


@dataclass(frozen=True)
class Activation:
    """The range of one activation, and why."""

    range: tuple[float, float]
    """Lowest and highest value that INT8 tells apart."""
    values: int
    """Values in one triplet."""
    spreads: dict[str, Spread]
    """By modality; one that never flows here is absent."""

    @property
    def outlier_ratio(self) -> float:
        """How much further the values reach than 99.9 % of them."""
        return max(max(-s.lowest, s.highest) / max(s.bulk, 1e-9) for s in self.spreads.values())


@dataclass(frozen=True)
class Wanted:
    """What ranges depend on besides the graph."""

    weights_hash: str
    """The model's weights."""
    list_hash: str
    """The calibration set, :attr:`calibration.images.CalibrationSet.list_hash`."""
    method: Method
    """How ranges are chosen."""
    percent: float
    """For method percentile: share of each modality's values inside, percent."""


@dataclass(frozen=True)
class Cache:
    """What a cache file holds."""

    made_for: Wanted
    """What the ranges belong to."""
    activations: dict[str, Activation]
    """By tensor."""
    manifest: dict[str, Any]
    """The calibration set, file by file."""
    format_version: int = CACHE_FORMAT
    """Version of this record."""

    @property
    def ranges(self) -> dict[str, Range]:
        """The range of each activation."""
        return {name: activation.range for name, activation in self.activations.items()}

    def check(self, wanted: Wanted, names: Sequence[str]) -> None:
        """Raise InputError unless this holds the ranges of ``names`` that are wanted."""
        own = self.made_for
        if own.weights_hash != wanted.weights_hash:
            raise InputError("it was made for another model")
        if set(self.activations) != set(names):
            raise InputError("it was made for another export of this model: other activations")
        if own.list_hash != wanted.list_hash:
            raise InputError("it was made from another list of pictures")
        if own != wanted:
            raise InputError(f"it was made with method {own.method} at {own.percent} %")


def activations_of(
    histograms: Mapping[str, Histogram], ranges: Mapping[str, Range], triplets: int
) -> dict[str, Activation]:
    """Return what a cache says of each activation."""
    return {
        name: Activation(
            range=ranges[name],
            values=int(histogram.counts.sum()) // triplets,
            spreads={
                MODALITIES[slot]: _spread(histogram, slot, ranges[name]) for slot in histogram.seen
            },
        )
        for name, histogram in histograms.items()
    }


def write_cache(path: Path, cache: Cache) -> None:
    """Write ``cache`` to ``path``, whole or not at all."""
    write_json(path, to_dict(cache))


def read_cache(path: Path) -> Cache:
    """Read :func:`write_cache` back; InputError when it is empty, damaged or of another version."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        version = values["format_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is empty or damaged ({error}); delete it") from error
    if version != CACHE_FORMAT:
        raise InputError(
            f"{path} has format version {version}, this software reads {CACHE_FORMAT}; delete it"
        )
    cache = from_dict(Cache, values)
    if not cache.activations:
        raise InputError(f"{path} holds no ranges; delete it")
    return cache


def _spread(histogram: Histogram, slot: int, limits: Range) -> Spread:
    low, high = histogram.quantiles(slot, _BULK_PERCENT)
    return Spread(
        lowest=float(histogram.lowest[slot]),
        highest=float(histogram.highest[slot]),
        bulk=float(np.maximum(-low, high)),
        clipped=float(histogram.clipped(limits)[slot]),
    )
