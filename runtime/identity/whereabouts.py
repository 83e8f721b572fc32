"""Where everybody was: who a sighting cannot be, and who came from where."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from runtime.config import MatchConfig
from runtime.gallery import Candidate
from runtime.identity.camera_graph import CameraGraph, Stay, Veto

TOGETHER_S: Final = 0.2
"""Two tracks that overlap this long in time are two subjects."""


@dataclass(frozen=True)
class Circumstances:
    """What is known about who a sighting may be, besides its pictures."""

    seen: Stay
    """The sighting itself."""
    present: frozenset[str] = frozenset()
    """Identities in view beside it, which cannot be it."""
    vetoes: Mapping[str, Veto] = field(default_factory=dict)
    """Identities that were too far away, and why."""
    latest: Mapping[str, Stay] = field(default_factory=dict)
    """By identity, the last stay that ended before."""


class Whereabouts:
    """Reads circumstances from where everybody was during a run."""

    def __init__(self, config: MatchConfig) -> None:
        """Go by the settings' camera graph."""
        self._disjoint, self._weight = config.disjoint_sites, config.graph_weight
        self._graph = CameraGraph(config.graph)

    def circumstances(self, seen: Stay, others: Iterable[tuple[str, Stay]]) -> Circumstances:
        """Return what the stays of identities say about who was ``seen``."""
        present: set[str] = set()
        vetoes: dict[str, Veto] = {}
        latest: dict[str, Stay] = {}
        for identity, stay in others:
            if self._beside(seen, stay):
                present.add(identity)
            elif (veto := self._graph.veto(seen, stay)) is not None:
                vetoes[identity] = veto
            if stay.end_s <= seen.start_s and _after(stay, latest.get(identity)):
                latest[identity] = stay
        return Circumstances(seen, frozenset(present), vetoes, latest)

    def bonus(self, candidate: Candidate, about: Circumstances) -> float:
        """Return what is added to the candidate's similarity when those who match are ranked."""
        stay = about.latest.get(candidate.identity)
        if stay is not None:
            left, left_s = stay.rig, stay.end_s
        else:  # an earlier run saw them
            payload = candidate.template.payload
            left, left_s = payload["rig"], payload["time_s"]
        seen = about.seen
        return self._weight * self._graph.likelihood(left, left_s, seen.rig, seen.start_s)

    def _beside(self, seen: Stay, stay: Stay) -> bool:
        if min(seen.end_s, stay.end_s) - max(seen.start_s, stay.start_s) <= TOGETHER_S:
            return False
        if seen.rig == stay.rig:
            return True
        return self._disjoint and not self._graph.share_a_view(seen.rig, stay.rig)


def _after(stay: Stay, other: Stay | None) -> bool:
    return other is None or stay.end_s > other.end_s
