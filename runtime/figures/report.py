"""The figures of a run: speed, skew, counts, and how right it was where the truth is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mambapro.contract import MODALITIES, Modality
from runtime.figures.scoring import Scorer
from runtime.identity.identification import Sighting
from runtime.sync.offsets import ClockOffset
from runtime.sync.sync_statistics import SyncStatistics


@dataclass(frozen=True)
class Watch:
    """How long things took."""

    footage_s: float
    """Length of what was seen."""
    preflight_s: float
    """First look at the clips."""
    stream_s: float
    """Everything after it, files written."""
    live: bool = False
    """Cameras set the pace, so there is no speed to tell."""

    def factor(self, taken_s: float) -> float | None:
        """Return how many times faster than the footage ``taken_s`` is; None when live."""
        return None if self.live else round(self.footage_s / taken_s, 3)


def report(
    watch: Watch,
    statistics: Mapping[str, SyncStatistics],
    offsets: Mapping[str, Mapping[Modality, ClockOffset]],
    sightings: list[Sighting],
    scorer: Scorer | None,
    events: int,
) -> dict[str, Any]:
    """Return the figures by name; ``statistics`` and ``offsets`` are each rig's."""
    unscored = dict.fromkeys(
        (
            "sync_error_p95_ms", "detection_recall", "detection_precision",
            "identity_accuracy", "identity_accuracy_within", "identity_accuracy_across",
        )
    )  # fmt: skip
    scores = unscored if scorer is None else scorer.result(sightings)
    return {
        **scores,
        "real_time_factor": watch.factor(watch.preflight_s + watch.stream_s),
        "real_time_factor_without_preflight": watch.factor(watch.stream_s),
        "footage_s": round(watch.footage_s, 2),
        "preflight_s": round(watch.preflight_s, 2),
        "stream_s": round(watch.stream_s, 2),
        "events": events,
        "frames_dropped": sum(s.unpaired.total() + s.skipped.total() for s in statistics.values()),
        "sightings": sum(s.decision is not None for s in sightings),
        "identities": len({s.decision.identity for s in sightings if s.decision}),
        "rigs": {
            name: {
                "triplets": s.triplets,
                "missing": dict(s.missing),
                "unpaired": dict(s.unpaired),
                "skipped": dict(s.skipped),
                "skew_p95_ms": _rounded(s.skew_p95_ms()),
                "offsets_ms": _offsets_ms(offsets.get(name, {})),
            }
            for name, s in statistics.items()
        },
    }


def _offsets_ms(offsets: Mapping[Modality, ClockOffset]) -> dict[Modality, dict[str, float | None]]:
    return {
        m: {
            "offset": _rounded(offsets[m].seconds * 1e3),
            "error": _rounded(None if (e := offsets[m].error_s) is None else e * 1e3),
        }
        for m in MODALITIES
        if m in offsets
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
