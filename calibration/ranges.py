"""How far each activation reaches, modality by modality, and the range that INT8 gets of it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnxruntime.quantization.calibrate import HistogramCollector

from calibration.images import Batch
from calibration.taps import tapped_session
from mambapro.cli import InputError
from mambapro.contract import CAMERA, IMAGES, MODALITIES, MODALITY_MASK, Modality

Method = Literal["max", "percentile", "entropy"]
METHODS: Final[tuple[Method, ...]] = ("max", "percentile", "entropy")
Range = tuple[float, float]
"""Lowest and highest value that is told apart from what lies beyond; zero is in between."""

BINS: Final = 2048
_ENTROPY_BINS: Final = 512
_ENTROPY_LEVELS: Final = 128

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tap:
    """An activation to observe."""

    name: str
    """Tensor of the graph."""
    modality: Modality | None = None
    """The one modality that flows here; None: all three do."""
    tokens_first: bool = False
    """All three, as (T*3, D) or (T, 3, D) for one triplet; else modality is the first axis."""


@dataclass
class Histogram:
    """What one activation took for values; rows of a modality that never flows there are 0."""

    lowest: npt.NDArray[np.float32]
    """(3,) smallest value."""
    highest: npt.NDArray[np.float32]
    """(3,) largest value."""
    counts: npt.NDArray[np.int64]
    """(3, BINS) values in equal bins from -reach to reach."""

    @property
    def reach(self) -> float:
        """Largest absolute value."""
        return float(max(-self.lowest.min(), self.highest.max()))

    @property
    def edges(self) -> npt.NDArray[np.float32]:
        """(BINS + 1,) bounds of the bins."""
        return np.linspace(-self.reach, self.reach, BINS + 1, dtype=np.float32)

    @property
    def seen(self) -> list[int]:
        """Modalities that flow here."""
        return [int(slot) for slot in np.flatnonzero(self.counts.sum(axis=1))]

    def quantiles(self, slot: int, percent: float) -> Range:
        """Return the range that leaves out half of 100 - ``percent`` on either side."""
        share = self.counts[slot].cumsum() / self.counts[slot].sum()
        beyond = (100.0 - percent) / 200.0
        low = int(np.searchsorted(share, beyond, side="right"))
        high = int(np.searchsorted(share, 1.0 - beyond))
        edges = self.edges
        return (
            max(float(edges[low]), float(self.lowest[slot])),
            min(float(edges[min(high, BINS - 1) + 1]), float(self.highest[slot])),
        )

    def clipped(self, limits: Range) -> npt.NDArray[np.float64]:
        """Return (3,) the share of each modality's values in bins that lie beyond ``limits``."""
        beyond = (self.edges[1:] <= limits[0]) | (self.edges[:-1] >= limits[1])
        total = np.maximum(self.counts.sum(axis=1), 1)
        shares: npt.NDArray[np.float64] = self.counts[:, beyond].sum(axis=1) / total
        return shares


def observe(
    model: onnx.ModelProto, taps: Sequence[Tap], batches: Iterable[Batch]
) -> dict[str, Histogram]:
    """Run ``model`` on ``batches`` of one triplet and return a histogram for each tap.

    The batches are walked twice: bins need the largest value. InputError when an activation is not
    finite.
    """
    kept = list(batches)
    names = [tap.name for tap in taps]
    session = tapped_session(model, names)
    found: dict[str, Histogram] = {}
    for batch in kept:
        for tap, rows in zip(taps, _run(session, names, batch), strict=True):
            _stretch(found, tap, rows)
    for batch in kept:
        for tap, rows in zip(taps, _run(session, names, batch), strict=True):
            _count(found[tap.name], tap, rows)
    return found


def ranges(histograms: Mapping[str, Histogram], method: Method, percent: float) -> dict[str, Range]:
    """Return the range of each activation, with zero inside.

    ``max`` takes all values, ``percentile`` the widest of the modalities' ``percent`` %, and
    ``entropy`` the range of least Kullback-Leibler divergence (Migacz, GTC 2017). InputError for
    an activation that never changes.
    """
    found = {}
    for name, histogram in histograms.items():
        low, high = _range(histogram, method, percent)
        if not low < high:
            raise InputError(f"the activation {name} is {low} everywhere; use other pictures")
        found[name] = (min(low, 0.0), max(high, 0.0))
    return found


def _range(histogram: Histogram, method: Method, percent: float) -> Range:
    if method == "entropy":
        return _entropy_range(histogram)
    # A modality that reaches further than the others is not clipped for being one of three.
    wanted = 100.0 if method == "max" else percent
    limits = [histogram.quantiles(slot, wanted) for slot in histogram.seen]
    return min(low for low, _ in limits), max(high for _, high in limits)


def _entropy_range(histogram: Histogram) -> Range:
    merged = histogram.counts.sum(axis=0).reshape(_ENTROPY_BINS, -1).sum(axis=1)
    edges = np.linspace(-histogram.reach, histogram.reach, _ENTROPY_BINS + 1, dtype=np.float32)
    extremes = np.float32(histogram.lowest.min()), np.float32(histogram.highest.max())
    collector = HistogramCollector("entropy", False, _ENTROPY_BINS, _ENTROPY_LEVELS, None, "same")
    low, high = collector.get_entropy_threshold((merged, edges, *extremes), _ENTROPY_LEVELS)
    return float(low), float(high)


def _run(
    session: onnxruntime.InferenceSession, names: list[str], batch: Batch
) -> list[npt.NDArray[np.float32]]:
    outputs = session.run(names, dict(zip((IMAGES, MODALITY_MASK, CAMERA), batch, strict=True)))
    for name, values in zip(names, outputs, strict=True):
        if not np.isfinite(values).all():
            raise InputError(f"the activation {name} holds NaN or infinity; the model is damaged")
    return list(outputs)


def _by_slot(tap: Tap, values: npt.NDArray[np.float32]) -> dict[int, npt.NDArray[np.float32]]:
    if tap.modality is not None:
        return {MODALITIES.index(tap.modality): values.ravel()}
    if tap.tokens_first:
        values = values.reshape(-1, len(MODALITIES), values.shape[-1]).swapaxes(0, 1)
    assert len(values) % len(MODALITIES) == 0, f"{tap.name} is not modality-major"
    return dict(enumerate(values.reshape(len(MODALITIES), -1)))


def _stretch(found: dict[str, Histogram], tap: Tap, values: npt.NDArray[np.float32]) -> None:
    slots = len(MODALITIES)
    empty = Histogram(
        np.zeros(slots, np.float32), np.zeros(slots, np.float32), np.zeros((slots, BINS), np.int64)
    )
    histogram = found.setdefault(tap.name, empty)
    for slot, part in _by_slot(tap, values).items():
        histogram.lowest[slot] = min(histogram.lowest[slot], part.min())
        histogram.highest[slot] = max(histogram.highest[slot], part.max())


def _count(histogram: Histogram, tap: Tap, values: npt.NDArray[np.float32]) -> None:
    reach = max(histogram.reach, float(np.finfo(np.float32).tiny))
    for slot, part in _by_slot(tap, values).items():
        bins = ((part + reach) * np.float32(BINS / (2 * reach))).astype(np.int32)
        histogram.counts[slot] += np.bincount(np.minimum(bins, BINS - 1), minlength=BINS)
