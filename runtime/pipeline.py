"""From a feed to events: rigs find tracks side by side, one thread decides, pictures follow.

Everything that decides runs in one thread, in the order of the feed, so that the same feed always
gives the same events.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from mambapro.contract import Modality
from runtime.config import StreamConfig
from runtime.feeds.interface import CameraChange, Due, Feed, Instant, Notice, RigBegins
from runtime.figures.scoring import Scorer
from runtime.figures.tally import Tally
from runtime.identity.events import camera_back_event, camera_lost_event
from runtime.identity.identification import Sighting
from runtime.identity.recognition import Recogniser
from runtime.load import NO_PICTURES, THRIFT
from runtime.operation.drift import DriftMonitor
from runtime.picture.presentation import Presentation
from runtime.sinks import EventLog
from runtime.watching.detectors.opening import open_detectors
from runtime.watching.rig import RigStep, RigWatcher


class Pipeline:
    """Works through a feed."""

    def __init__(
        self,
        config: StreamConfig,
        recogniser: Recogniser,
        events: EventLog,
        presentation: Presentation,
        scorer: Scorer | None,
        pool: ThreadPoolExecutor,
        tally: Tally,
        drift: DriftMonitor,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        """Let ``pool`` work on rigs side by side; all else happens in the caller's thread.

        ``between`` is called there after each instant, for what others want done.
        """
        self._config, self._pool = config, pool
        self._make_detector = open_detectors(config.detect)
        self._recogniser, self._presentation, self._scorer = recogniser, presentation, scorer
        self._events, self._tally, self._drift, self._between = events, tally, drift, between
        self._lost_s: dict[tuple[str, Modality], float] = {}
        self._watchers: dict[str, RigWatcher] = {}
        self._first_s: float | None = None
        self._last_s = 0.0

    @property
    def footage_s(self) -> float:
        """Time from the first to the last instant, s."""
        return 0.0 if self._first_s is None else self._last_s - self._first_s

    def run(self, feed: Feed) -> None:
        """Work to the end of ``feed``."""
        for instant in feed:
            self.take(instant)

    def take(self, instant: Instant) -> None:
        """Work on one instant: who comes and goes, what the rigs see, what that decides."""
        for notice in instant.notices:
            self._heed(notice)
        thrift = THRIFT[instant.load]
        for step in self._pool.map(functools.partial(self._step, thrift), instant.due):
            self._follow(step)
        self._follow_up(self._recogniser.advance(instant.now_s))
        if instant.due:
            if instant.load < NO_PICTURES:
                self._presentation.draw(instant.now_s)
            self._last_s = instant.now_s
            self._first_s = instant.now_s if self._first_s is None else self._first_s
        self._between()
        self._tally.advanced()

    def _heed(self, notice: Notice) -> None:
        if isinstance(notice, RigBegins):
            self._watchers[notice.rig.name] = RigWatcher(
                notice.rig, self._config, notice.before, self._make_detector
            )
            self._recogniser.meet(notice.rig)
            self._presentation.begin(notice.rig, notice.before)
        elif isinstance(notice, CameraChange):
            self._tell(notice)
        else:
            self._end(self._watchers.pop(notice.rig))
            self._presentation.end(notice.rig)

    def _tell(self, change: CameraChange) -> None:
        key = change.rig, change.modality
        if change.state != "live":
            self._lost_s.setdefault(key, change.time_s)
            self._events.write(
                camera_lost_event(change.rig, change.modality, change.reason, change.time_s)
            )
        elif key in self._lost_s:
            away_s = change.time_s - self._lost_s.pop(key)
            self._events.write(
                camera_back_event(change.rig, change.modality, away_s, change.time_s)
            )

    def _step(self, thrift: float, due: Due) -> RigStep:
        with self._tally.time("step"):
            return self._watchers[due.rig].step(due.triplet, thrift)

    def _follow_up(self, decided: Sequence[Sighting]) -> None:
        self._tally.decided(decided)
        for event in self._drift.look(decided):
            self._events.write(event)
        self._presentation.tell(decided)

    def _follow(self, step: RigStep) -> None:
        for track, sample in step.glimpses:
            self._recogniser.glimpse(track, sample)
        for track, sample in step.samples:
            self._recogniser.add(track, sample)
        self._tally.refused(step.rig, step.flaws)
        for track in step.ended:
            self._follow_up(self._recogniser.end(step.rig, track))
        self._presentation.show(step)
        if self._scorer is not None:
            self._scorer.add(step)

    def _end(self, watcher: RigWatcher) -> None:
        ended, samples = watcher.finish()
        for track, sample in samples:
            self._recogniser.add(track, sample)
        for track in ended:
            self._follow_up(self._recogniser.end(watcher.rig.name, track))
        self._recogniser.leave(watcher.rig.name)
        self._drift.leave(watcher.rig.name)
