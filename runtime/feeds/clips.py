"""Clips as a feed: each rig's are read in step to their ends, and nothing is dropped."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from mambapro.cli import InputError
from mambapro.contract import Modality
from runtime.config import RigConfig, StreamConfig, SyncConfig
from runtime.feeds.interface import Due, Instant, RigBegins, RigEnds
from runtime.feeds.preflight import Preflight, preflight
from runtime.sources import End, Failure, Frame, Source, open_source
from runtime.sync.clocks import FixedClocks
from runtime.sync.sync_statistics import SyncStatistics
from runtime.sync.synchroniser import Synchroniser, Triplet

SAME_INSTANT_S: Final = 0.02
"""Triplets of several rigs that are less apart are worked on side by side."""
READ_S: Final = 0.05
ENDED_EARLY_S: Final = 0.2

log = logging.getLogger(__name__)


class ClipFeed:
    """The clips of all rigs, in the order of time."""

    def __init__(
        self, rigs: Sequence[RigConfig], config: StreamConfig, pool: ThreadPoolExecutor
    ) -> None:
        """Look at the beginning of all clips, then open them."""
        self.before = {rig.name: preflight(rig, config, pool) for rig in rigs}
        """What the first look told of each rig."""
        self._rigs = rigs
        with contextlib.ExitStack() as owner:
            self._intakes = {
                rig.name: owner.enter_context(
                    contextlib.closing(ClipIntake(rig, config.sync, self.before[rig.name]))
                )
                for rig in rigs
            }
            self._owner = owner.pop_all()

    def __iter__(self) -> Iterator[Instant]:
        """Give the triplets of all rigs; rigs end together, with the last clip."""
        upcoming = {
            name: triplet
            for name, intake in self._intakes.items()
            if (triplet := intake.next()) is not None
        }
        now_s = min((triplet.time_s for triplet in upcoming.values()), default=0.0)
        yield Instant(now_s, [RigBegins(rig, self.before[rig.name]) for rig in self._rigs])
        while upcoming:
            now_s = min(triplet.time_s for triplet in upcoming.values())
            due = [
                Due(name, triplet)
                for name, triplet in upcoming.items()
                if triplet.time_s <= now_s + SAME_INSTANT_S
            ]
            yield Instant(now_s, due=due)
            for item in due:
                triplet = self._intakes[item.rig].next()
                if triplet is None:
                    del upcoming[item.rig]
                else:
                    upcoming[item.rig] = triplet
        yield Instant(now_s, [RigEnds(rig.name) for rig in self._rigs])

    def statistics(self) -> dict[str, SyncStatistics]:
        """Return what each rig's synchroniser did."""
        return {name: intake.statistics for name, intake in self._intakes.items()}

    def close(self) -> None:
        """Stop the decoders."""
        self._owner.close()


class ClipIntake:
    """Reads one rig's clips and pairs their frames. It owns the sources."""

    def __init__(self, rig: RigConfig, config: SyncConfig, before: Preflight) -> None:
        """Open the clips of ``rig``, of which ``before`` is known."""
        self._rig, self._before, self._timeout_s = rig, before, config.timeout_s
        self._synchroniser = Synchroniser(
            tuple(rig.cameras),
            rig.reference,
            FixedClocks({m: offset.seconds for m, offset in before.offsets.items()}),
            config.tolerance_s,
            config.buffer_frames,
            keep_strays=True,
        )
        self._ended_s: dict[Modality, float] = {}
        self._last_s: dict[Modality, float] = {}
        self._sources: dict[Modality, Source] = {}
        try:
            for modality, camera in rig.cameras.items():
                self._sources[modality] = open_source(camera.uri)
        except BaseException:
            self.close()
            raise

    @property
    def statistics(self) -> SyncStatistics:
        """What the synchroniser did so far."""
        return self._synchroniser.statistics

    def next(self) -> Triplet | None:
        """Read up to the next triplet and return it; None at the end of the clips."""
        quiet_since = time.monotonic()
        while (triplet := self._pop()) is None:
            wanted = self._synchroniser.wants()
            if not wanted:  # all have ended, but for those that were given up
                return None
            if any([self._read(m, READ_S) for m in wanted]):  # noqa: C419 ask every camera
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since > self._timeout_s:
                self._give_up_on(wanted)
        self._say_what_ended(triplet)
        return triplet

    def close(self) -> None:
        """Stop the decoders."""
        for source in self._sources.values():
            source.close()

    def _pop(self) -> Triplet | None:
        for modality in list(self._synchroniser.lost):
            self._read(modality, 0.001)
        return self._synchroniser.pop()

    def _read(self, modality: Modality, timeout_s: float) -> bool:
        """Ask one camera; return whether it answered."""
        reading = self._sources[modality].read(timeout_s)
        if isinstance(reading, Failure):
            raise InputError(f"rig {self._rig.name}: {reading.reason}")
        if isinstance(reading, Frame):
            self._synchroniser.push(modality, reading)
            self._last_s[modality] = reading.time_s
        elif isinstance(reading, End):
            self._synchroniser.end(modality)
            self._ended_s[modality] = (
                self._last_s.get(modality, 0.0) - self._before.offsets[modality].seconds
            )
        else:
            return False
        return True

    def _give_up_on(self, modalities: list[Modality]) -> None:
        log.warning(
            "%s: no picture from %s for %.1f s; going on without",
            self._rig.name,
            ", ".join(modalities),
            self._timeout_s,
        )
        for modality in modalities:
            self._synchroniser.lose(modality)

    def _say_what_ended(self, triplet: Triplet) -> None:
        for modality, end_s in list(self._ended_s.items()):
            if triplet.time_s > end_s + ENDED_EARLY_S:
                log.warning(
                    "%s: the clip of %s ends at %.1f s, before the others; going on without it",
                    self._rig.name,
                    modality,
                    end_s,
                )
                del self._ended_s[modality]
