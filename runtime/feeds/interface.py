"""What reaches the part that decides: instant after instant, from clips, cameras or a replay.

Everything behind a feed depends on its instants alone, which is why a recorded feed gives the same
events again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from mambapro.contract import Modality
from runtime.config import RigConfig
from runtime.feeds.preflight import Preflight
from runtime.sources import State
from runtime.sync.sync_statistics import SyncStatistics
from runtime.sync.synchroniser import Triplet


@dataclass(frozen=True)
class RigBegins:
    """A rig takes part from now on."""

    rig: RigConfig
    before: Preflight
    """What is known of it."""


@dataclass(frozen=True)
class RigEnds:
    """A rig gives no more triplets; its tracks are over."""

    rig: str


@dataclass(frozen=True)
class CameraChange:
    """A camera went or came back."""

    rig: str
    modality: Modality
    state: State
    reason: str
    """Why, in one line."""
    time_s: float
    """When, s."""


Notice = RigBegins | RigEnds | CameraChange


@dataclass(frozen=True)
class Due:
    """A triplet to work on."""

    rig: str
    triplet: Triplet


@dataclass(frozen=True)
class Instant:
    """What there is to do at one moment, notices first."""

    now_s: float
    """The moment, in the time of the triplets, s."""
    notices: list[Notice] = field(default_factory=list)
    due: list[Due] = field(default_factory=list)
    """At most one triplet a rig."""
    load: int = 0
    """How hard the box is pressed; :mod:`runtime.load` says what is left out."""


class Feed(Protocol):
    """Gives instants in the order of time until it ends or is closed."""

    def __iter__(self) -> Iterator[Instant]:
        """Wait for the next instant; the iteration ends with the feed."""

    def statistics(self) -> dict[str, SyncStatistics]:
        """Return what each rig's synchroniser did."""

    def close(self) -> None:
        """Let go of cameras and threads; may be called more than once."""
