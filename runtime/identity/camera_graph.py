"""How long the way between two rigs takes: what is impossible, and what is likely."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from runtime.config import PassageConfig


@dataclass(frozen=True)
class Stay:
    """Somebody in view of a rig."""

    rig: str
    """Its name."""
    start_s: float
    """When they came into view, s."""
    end_s: float
    """When they left it, s."""


@dataclass(frozen=True)
class Veto:
    """Why a sighting cannot be of somebody."""

    rig: str
    """Where they were, too near in time."""
    gap_s: float
    """From one stay to the other, s; negative where both overlap."""
    min_s: float
    """Least time that the way takes, s."""


class CameraGraph:
    """Passages between rigs; pairs of rigs that none is named for are not restricted."""

    def __init__(self, passages: Iterable[PassageConfig]) -> None:
        """Know ``passages``."""
        self._passages = {(p.leaves, p.enters): p for p in passages}

    def share_a_view(self, one: str, other: str) -> bool:
        """Return whether somebody may be in view of both rigs at once: a way that takes no time."""
        ways = (self._passages.get(pair) for pair in ((one, other), (other, one)))
        return any(way is not None and way.min_s == 0 for way in ways)

    def veto(self, seen: Stay, known: Stay) -> Veto | None:
        """Return why ``seen`` cannot be who made the stay ``known``, earlier or later."""
        first, then = sorted((seen, known), key=lambda stay: stay.start_s)
        passage = self._passages.get((first.rig, then.rig))
        gap_s = then.start_s - first.end_s
        if passage is None or passage.min_s == 0 or gap_s >= passage.min_s:
            return None
        return Veto(known.rig, gap_s, passage.min_s)

    def likelihood(self, left: str, left_s: float, enters: str, enters_s: float) -> float:
        """Return from 0 to 1 how likely the way from ``left`` is after so long.

        1 from min_s to max_s, then max_s over the time that it took; 0 where nothing is known.
        """
        passage = self._passages.get((left, enters))
        took_s = enters_s - left_s
        if passage is None or passage.max_s is None or took_s < passage.min_s:
            return 0.0
        return min(1.0, passage.max_s / max(took_s, passage.max_s))
