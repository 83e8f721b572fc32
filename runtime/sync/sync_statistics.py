"""What a synchroniser did, in bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from mambapro.contract import Modality

BIN_S: Final = 1e-4
BINS: Final = 2000


@dataclass
class SkewHistogram:
    """Counts of skews in bins of BIN_S; the last bin holds all that are larger."""

    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    """Skews counted, by bin."""

    def add(self, skew_s: float) -> None:
        """Count a skew."""
        self.counts[min(BINS - 1, round(skew_s / BIN_S))] += 1

    def quantile_s(self, share: float) -> float | None:
        """Return the skew below which ``share`` of them are, to BIN_S; None when there are none."""
        total = int(self.counts.sum())
        if not total:
            return None
        return float(np.searchsorted(self.counts.cumsum(), share * total) * BIN_S)


@dataclass
class SyncStatistics:
    """What a synchroniser did."""

    triplets: int = 0
    """Triplets given."""
    missing: Counter[Modality] = field(default_factory=Counter)
    """Triplets that lack a modality, by modality."""
    skipped: Counter[Modality] = field(default_factory=Counter)
    """Frames of triplets that were too old when their turn came, by modality."""
    unpaired: Counter[Modality] = field(default_factory=Counter)
    """Frames that came into no triplet, by modality."""
    late: Counter[Modality] = field(default_factory=Counter)
    """Of these, frames that came after the triplet of their time."""
    untimed: Counter[Modality] = field(default_factory=Counter)
    """Of these, frames whose clock was not known yet."""
    skews: SkewHistogram = field(default_factory=SkewHistogram)
    """Skew of each triplet of two frames or more."""

    def count(
        self, expected: Collection[Modality], present: Collection[Modality], skew_s: float
    ) -> None:
        """Count a triplet."""
        self.triplets += 1
        self.missing.update(m for m in expected if m not in present)
        if len(present) > 1:
            self.skews.add(skew_s)

    def skew_p95_ms(self) -> float | None:
        """Return the 95th percentile of the apparent skew."""
        skew_s = self.skews.quantile_s(0.95)
        return None if skew_s is None else skew_s * 1e3
