"""The whole stream: rigs -> tracks -> recogniser -> events, mosaic and report.

Rigs are worked on side by side, instant by instant; everything that decides runs in one thread, in
the order of time, so that a run on files always gives the same events.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mambapro.config import to_yaml
from mambapro.contract import MODALITIES, Modality, Subject
from mambapro.files import write_json, write_text
from runtime.config import RigConfig, StreamConfig
from runtime.engines import Engine
from runtime.gallery import Gallery
from runtime.identification import Identifier
from runtime.preflight import Preflight, preflight
from runtime.presentation import Presentation
from runtime.recognition import Recogniser
from runtime.recording import CropRecorder
from runtime.rig import RigStep, RigWatcher
from runtime.scoring import Scorer, read_truth
from runtime.sinks import JsonLinesSink

SAME_INSTANT_S: Final = 0.02
MAX_WAIT_S: Final = 0.2
"""A sample waits at most this long for others to share its batch."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Watch:
    """How long things took."""

    preflight_s: float
    """First look at the clips."""
    stream_s: float
    """Everything after it, files written."""


def run_stream(
    config: StreamConfig,
    rigs: Sequence[RigConfig],
    engines: Mapping[Subject, Engine],
    truth: Path | None,
) -> dict[str, Any]:
    """Run ``rigs`` to the end of their clips; write the outputs and return the report."""
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    write_text(output / "config.yaml", to_yaml(config))
    references = {rig.name: rig.reference for rig in rigs}
    scorer = None if truth is None else Scorer(read_truth(truth), references)
    started = time.monotonic()
    with contextlib.ExitStack() as owner:
        pool = owner.enter_context(ThreadPoolExecutor(max(2, len(rigs)), "rig"))
        before = {rig.name: preflight(rig, config, pool) for rig in rigs}
        flown = time.monotonic()
        watchers = [_opened(owner, rig, config, before[rig.name]) for rig in rigs]
        recogniser, sink = _recogniser(owner, config, rigs, engines, output)
        sizes = {name: known.sizes for name, known in before.items()}
        rate = max(known.frame_rate for known in before.values())
        presentation = Presentation(config.video, output, sizes, rate, recogniser)
        owner.push(lambda kind, *_: presentation.abandon() if kind is not None else None)
        footage_s = _work(watchers, recogniser, presentation, scorer, pool)
        presentation.finish(scorer)
    watch = Watch(flown - started, time.monotonic() - flown)
    report = _report(watchers, before, recogniser, scorer, sink.count, footage_s, watch)
    write_json(output / "report.json", report)
    return report


def _opened(
    owner: contextlib.ExitStack, rig: RigConfig, config: StreamConfig, before: Preflight
) -> RigWatcher:
    watcher = RigWatcher(rig, config, before)
    owner.callback(watcher.close)
    return watcher


def _recogniser(
    owner: contextlib.ExitStack,
    config: StreamConfig,
    rigs: Sequence[RigConfig],
    engines: Mapping[Subject, Engine],
    output: Path,
) -> tuple[Recogniser, JsonLinesSink]:
    identifiers = {}
    for subject, engine in engines.items():
        gallery = Gallery(
            output / config.gallery.folder / subject,
            engine.spec,
            keep=config.gallery.keep,
            mix_precisions=config.gallery.mix_precisions,
            templates=config.gallery.templates,
        )
        owner.callback(gallery.close)
        identifiers[subject] = Identifier(config.match, gallery, engine.spec)
    sink = JsonLinesSink(output / "events.jsonl")
    owner.callback(sink.close)
    cameras = {rig.name: rig.camera for rig in rigs}
    recorder = None
    if config.record_crops is not None:
        recorder = CropRecorder(Path(config.record_crops))
        owner.callback(recorder.close)
    recogniser = Recogniser(
        config.match, engines, identifiers, cameras, sink, config.models.max_batch, MAX_WAIT_S,
        recorder,
    )  # fmt: skip
    return recogniser, sink


def _work(
    watchers: Sequence[RigWatcher],
    recogniser: Recogniser,
    presentation: Presentation,
    scorer: Scorer | None,
    pool: ThreadPoolExecutor,
) -> float:
    """Work through all triplets in the order of time; return the seconds of footage."""
    live = [watcher for watcher in watchers if watcher.advance()]
    first_s = min((_next_s(watcher) for watcher in live), default=0.0)
    now_s = first_s
    while live:
        now_s = min(_next_s(watcher) for watcher in live)
        due = [watcher for watcher in live if _next_s(watcher) <= now_s + SAME_INSTANT_S]
        for step in pool.map(RigWatcher.step, due):
            _take(step, recogniser, presentation, scorer)
        presentation.tell(recogniser.advance(now_s))
        presentation.draw(now_s)
        live = [watcher for watcher in live if watcher not in due or watcher.advance()]
    for watcher in watchers:
        ended, samples = watcher.finish()
        for track, sample in samples:
            recogniser.add(track, sample)
        for track in ended:
            presentation.tell(recogniser.end(watcher.rig.name, track))
    return now_s - first_s


def _next_s(watcher: RigWatcher) -> float:
    assert watcher.upcoming is not None
    return watcher.upcoming.time_s


def _take(
    step: RigStep, recogniser: Recogniser, presentation: Presentation, scorer: Scorer | None
) -> None:
    for track, sample in step.samples:
        recogniser.add(track, sample)
    for track in step.ended:
        presentation.tell(recogniser.end(step.rig, track))
    presentation.show(step)
    if scorer is not None:
        scorer.add(step)


def _report(
    watchers: Sequence[RigWatcher],
    before: Mapping[str, Preflight],
    recogniser: Recogniser,
    scorer: Scorer | None,
    events: int,
    footage_s: float,
    watch: Watch,
) -> dict[str, Any]:
    unscored = dict.fromkeys(
        (
            "sync_error_p95_ms", "detection_recall", "detection_precision",
            "identity_accuracy", "identity_accuracy_within", "identity_accuracy_across",
        )
    )  # fmt: skip
    scores = unscored if scorer is None else scorer.result(recogniser.sightings)
    statistics = {watcher.rig.name: watcher.synchroniser.statistics for watcher in watchers}
    return {
        **scores,
        "real_time_factor": round(footage_s / (watch.preflight_s + watch.stream_s), 3),
        "real_time_factor_without_preflight": round(footage_s / watch.stream_s, 3),
        "footage_s": round(footage_s, 2),
        "preflight_s": round(watch.preflight_s, 2),
        "stream_s": round(watch.stream_s, 2),
        "events": events,
        "frames_dropped": sum(s.unpaired.total() for s in statistics.values()),
        "sightings": sum(s.decision is not None for s in recogniser.sightings),
        "identities": len({s.decision.identity for s in recogniser.sightings if s.decision}),
        "rigs": {
            name: {
                "triplets": s.triplets,
                "missing": dict(s.missing),
                "unpaired": dict(s.unpaired),
                "skew_p95_ms": _rounded(s.skew_p95_ms()),
                "offsets_ms": _offsets_ms(before[name]),
            }
            for name, s in statistics.items()
        },
    }


def _offsets_ms(before: Preflight) -> dict[Modality, dict[str, float | None]]:
    return {
        m: {
            "offset": _rounded(before.offsets[m].seconds * 1e3),
            "error": _rounded(None if (e := before.offsets[m].error_s) is None else e * 1e3),
        }
        for m in MODALITIES
        if m in before.offsets
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
