"""Do embeddings still look as at calibration? Watches each rig, modality by modality.

Each decided sighting has a place in the distribution of calibration for what it shows. Over the
last few sightings these places are spread evenly, unless the pictures have changed: a fogged or
dirty lens, a dead sensor, another model of camera. The measure is the Kolmogorov-Smirnov distance.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mambapro.contract import MODALITIES, Modality, Subject
from mambapro.drift import STATISTICS, DriftReference
from mambapro.thresholds import subset_name
from runtime.config import DriftConfig
from runtime.identity.events import drift_event
from runtime.identity.identification import Sighting

Key = tuple[str, Subject, Modality]
"""Rig, subject and modality."""


@dataclass(frozen=True)
class Drift:
    """How far one modality at a rig is from calibration."""

    statistic: str
    """share or likeness, whichever is further."""
    distance: float
    """Kolmogorov-Smirnov distance, 0 to 1."""
    alert: bool
    """Whether an alert is raised."""


class DriftMonitor:
    """Looks at sightings in the deciding thread; :attr:`found` may be read by any."""

    def __init__(
        self, config: DriftConfig, references: Mapping[Subject, Mapping[str, DriftReference]]
    ) -> None:
        """Compare with ``references`` by the modalities shown; a subject without is not watched."""
        self._config, self._references = config, references
        self._places: dict[tuple[str, Subject, str], deque[float]] = {}
        self._found: dict[Key, Drift] = {}

    def found(self) -> dict[Key, Drift]:
        """Return how far each modality is that was seen often enough; safe from any thread."""
        return dict(self._found)

    def look(self, sightings: Sequence[Sighting]) -> list[dict[str, Any]]:
        """Take what was decided; return the events of alerts that begin or end by it."""
        return [event for sighting in sightings for event in self._look(sighting)]

    def leave(self, rig: str) -> None:
        """Forget a rig that has ended."""
        self._places = {key: places for key, places in self._places.items() if key[0] != rig}
        self._found = {key: drift for key, drift in self._found.items() if key[0] != rig}

    def _look(self, sighting: Sighting) -> list[dict[str, Any]]:
        references = self._references.get(sighting.subject, {})
        reference = references.get(subset_name(sighting.shown()))
        if reference is None:
            return []
        positions = reference.positions(sighting.fused()[None])
        for name, (position,) in positions.items():
            key = sighting.rig, sighting.subject, name
            self._places.setdefault(key, deque(maxlen=self._config.window)).append(float(position))
        judged = (self._judge(sighting, m) for m in MODALITIES if f"{m}.share" in positions)
        return [event for event in judged if event is not None]

    def _judge(self, sighting: Sighting, modality: Modality) -> dict[str, Any] | None:
        key = sighting.rig, sighting.subject, modality
        windows = {
            name: self._places[sighting.rig, sighting.subject, f"{modality}.{name}"]
            for name in STATISTICS
        }
        if any(len(window) < self._config.window for window in windows.values()):
            return None
        distances = {name: distance_from_even(window) for name, window in windows.items()}
        furthest = max(distances, key=lambda name: distances[name])
        before = key in self._found and self._found[key].alert
        limit = self._config.clear_at if before else self._config.raise_at
        found = Drift(furthest, distances[furthest], distances[furthest] > limit)
        self._found = {**self._found, key: found}
        if found.alert == before:
            return None
        return drift_event(
            sighting.rig, sighting.subject, modality, found.alert, furthest, found.distance,
            self._config.window, sighting.end_s,
        )  # fmt: skip


def distance_from_even(places: Sequence[float]) -> float:
    """Return the Kolmogorov-Smirnov distance of values to the even distribution from 0 to 1."""
    values = np.sort(np.asarray(places, np.float64))
    steps = np.arange(len(values) + 1) / len(values)
    return float(max((steps[1:] - values).max(), (values - steps[:-1]).max()))
