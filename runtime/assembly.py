"""Put a run together from its settings, run it, and take it apart again."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from mambapro.config import to_yaml
from mambapro.contract import Modality, Subject
from mambapro.files import in_checkout, write_json, write_text
from mambapro.thresholds import Thresholds
from runtime.config import RigConfig, StreamConfig
from runtime.engines import Engine
from runtime.feeds.clips import ClipFeed
from runtime.feeds.interface import Feed
from runtime.feeds.live import LiveFeed
from runtime.feeds.live_rig import now_s
from runtime.feeds.replay import ReplayFeed
from runtime.feeds.tape import TapedFeed
from runtime.figures.report import Watch, report
from runtime.figures.scoring import Scorer, read_truth
from runtime.figures.tally import Tally
from runtime.gallery import Purged, open_gallery
from runtime.identity.curation import Curator, Desk
from runtime.identity.errands import Errands
from runtime.identity.identification import Identifier
from runtime.identity.recognition import Recogniser
from runtime.identity.recording import CropRecorder
from runtime.identity.requirement import Requirement, load_thresholds
from runtime.operation.drift import DriftMonitor
from runtime.operation.health import LiveView
from runtime.picture.presentation import Presentation
from runtime.picture.viewing import Viewing
from runtime.pipeline import Pipeline
from runtime.sinks import EventLog, open_events, open_events_again
from runtime.sync.offsets import ClockOffset
from runtime.sync.sync_statistics import SyncStatistics

RIGS_AT_ONCE: Final = 8
"""Rigs whose pictures are worked on side by side."""
MAX_WAIT_S: Final = 0.2
"""A sample waits at most this long for others to share its batch."""


def run_clips(
    config: StreamConfig,
    rigs: Sequence[RigConfig],
    engines: Mapping[Subject, Engine],
    truth: Path | None,
) -> dict[str, Any]:
    """Run ``rigs`` to the end of their clips; write the outputs and return the report."""
    references = {rig.name: rig.reference for rig in rigs}
    scorer = None if truth is None else Scorer(read_truth(truth), references)
    started = time.monotonic()
    events = open_events(config.sinks, _output(config), live=False)
    with _Run(config, engines, events, scorer) as run:
        clips = ClipFeed(rigs, config, run.pool)
        flown = time.monotonic()
        feed = run.through(clips)
        run.pipeline.run(feed)
    watch = Watch(run.pipeline.footage_s, flown - started, time.monotonic() - flown)
    offsets = {name: before.offsets for name, before in clips.before.items()}
    return run.reported(watch, feed.statistics(), offsets)


def run_live(
    config: StreamConfig,
    rigs: Sequence[RigConfig],
    engines: Mapping[Subject, Engine],
    serve: Callable[[LiveView], contextlib.AbstractContextManager[None]],
) -> dict[str, Any]:
    """Watch the live cameras of ``rigs`` until the feed is stopped; return the report.

    ``serve`` gets the run, for as long as it runs, to look at it, and to stop and reconfigure it.
    """
    started = time.monotonic()
    if config.video.segment_s is None:  # one file without an end is of no use
        video = dataclasses.replace(config.video, enabled=False)
        config = dataclasses.replace(config, video=video)
    events = open_events(config.sinks, _output(config), live=True)
    tally = Tally(now_s)
    with _Run(config, engines, events, remember_s=config.live.remember_s, tally=tally) as run:
        live = LiveFeed(rigs, config)
        feed = run.through(live)
        view = LiveView(
            live, events, run.identities, tally, run.curator, config, run.viewing, run.drift.found
        )
        with serve(view):
            run.pipeline.run(feed)
    watch = Watch(run.pipeline.footage_s, 0.0, time.monotonic() - started, live=True)
    return run.reported(watch, feed.statistics(), {})


def run_replay(
    config: StreamConfig, tape: Path, engines: Mapping[Subject, Engine]
) -> dict[str, Any]:
    """Run what was recorded in ``tape`` again; return the report."""
    started = time.monotonic()
    feed = ReplayFeed(tape)
    events = open_events_again(config.sinks, _output(config), feed.run)
    remember_s = config.live.remember_s if feed.run.wall_clock else None
    with _Run(config, engines, events, remember_s=remember_s, fresh=True) as run:
        run.through(feed)
        run.pipeline.run(feed)
    watch = Watch(run.pipeline.footage_s, 0.0, time.monotonic() - started)
    return run.reported(watch, feed.statistics(), {})


def _output(config: StreamConfig) -> Path:
    folder = Path(config.output)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class _Run:
    """Everything behind the feed, opened and closed together."""

    def __init__(
        self,
        config: StreamConfig,
        engines: Mapping[Subject, Engine],
        events: EventLog,
        scorer: Scorer | None = None,
        remember_s: float | None = None,
        *,
        fresh: bool = False,
        tally: Tally | None = None,
    ) -> None:
        tally = tally or Tally()
        self._config, self._events, self._scorer = config, events, scorer
        self._output = Path(config.output)
        with contextlib.ExitStack() as owner:
            owner.callback(events.close)
            write_text(self._output / "config.yaml", to_yaml(config))
            self.pool = owner.enter_context(ThreadPoolExecutor(RIGS_AT_ONCE, "rig"))
            thresholds = _thresholds(config, engines)
            desks = _desks(
                owner, config, engines, events, thresholds,
                keep=remember_s is not None and not fresh,
            )  # fmt: skip
            self._recogniser = _recogniser(owner, config, desks, events, remember_s, tally)
            self.drift = DriftMonitor(config.drift, {s: t.drift for s, t in thresholds.items()})
            errands = Errands()
            owner.callback(errands.close)
            self.curator = Curator(desks, self._recogniser, errands)
            self.viewing = Viewing(self.curator.name)
            self._presentation = Presentation(
                config.video, self._output, self._recogniser, self.viewing
            )
            self.pipeline = Pipeline(
                config, self._recogniser, events, self._presentation, scorer, self.pool, tally,
                self.drift, errands.run,
            )  # fmt: skip
            self._owner = owner.pop_all()

    def __enter__(self) -> _Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._owner:
            if kind is None:
                self._presentation.finish(self._scorer)
            else:
                self._presentation.abandon()

    def identities(self) -> dict[Subject, int]:
        """Return how many are known; safe to call from any thread."""
        return self._recogniser.identities()

    def through(self, feed: Feed) -> Feed:
        """Return ``feed``, recorded if the settings want it; the run closes it."""
        if self._config.record is not None:
            feed = TapedFeed(feed, Path(self._config.record), self._config, self._events.run)
        self._owner.callback(feed.close)
        return feed

    def reported(
        self,
        watch: Watch,
        statistics: Mapping[str, SyncStatistics],
        offsets: Mapping[str, Mapping[Modality, ClockOffset]],
    ) -> dict[str, Any]:
        """Write the report and return it."""
        result = report(
            watch, statistics, offsets, self._recogniser.sightings, self._scorer, self._events.count
        )
        write_json(self._output / "report.json", result)
        return result


def _forget(events: EventLog, purged: Purged) -> None:
    """Who leaves the gallery takes events and snapshots along, by all names they ever had."""
    if purged.whole:
        events.forget({purged.identity, *purged.aliases})


def _thresholds(
    config: StreamConfig, engines: Mapping[Subject, Engine]
) -> dict[Subject, Thresholds]:
    """Return the thresholds that lie beside the models; the log names what is not there."""
    found = {}
    for subject, engine in engines.items():
        file = config.models.path(subject)
        read = None if file is None else load_thresholds(in_checkout(file), engine.spec)
        if read is not None:
            found[subject] = read
    return found


def _desks(
    owner: contextlib.ExitStack,
    config: StreamConfig,
    engines: Mapping[Subject, Engine],
    events: EventLog,
    thresholds: Mapping[Subject, Thresholds],
    *,
    keep: bool,
) -> dict[Subject, Desk]:
    """Open the gallery of each engine; without a setting, ``keep`` earlier identities."""
    kept = keep if config.gallery.keep is None else config.gallery.keep
    settings = dataclasses.replace(config.gallery, keep=kept)
    desks = {}
    for subject, engine in engines.items():
        folder = Path(config.output) / config.gallery.folder / subject
        gallery = open_gallery(folder, engine.spec, settings, functools.partial(_forget, events))
        owner.callback(gallery.close)
        required = Requirement(config.match, engine.spec, thresholds.get(subject))
        desks[subject] = Desk(engine, gallery, Identifier(config.match, gallery, required))
    return desks


def _recogniser(
    owner: contextlib.ExitStack,
    config: StreamConfig,
    desks: Mapping[Subject, Desk],
    events: EventLog,
    remember_s: float | None,
    tally: Tally,
) -> Recogniser:
    engines = {subject: desk.engine for subject, desk in desks.items()}
    identifiers = {subject: desk.identifier for subject, desk in desks.items()}
    recorder = None
    if config.record_crops is not None:
        recorder = CropRecorder(Path(config.record_crops))
        owner.callback(recorder.close)
    return Recogniser(
        config.match, engines, identifiers, events, config.models.max_batch, MAX_WAIT_S, recorder,
        remember_s, tally,
    )  # fmt: skip
