"""Put a run together from its settings, run it, and take it apart again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from mambapro.config import to_yaml
from mambapro.contract import Subject
from mambapro.files import write_json, write_text
from runtime.clips import ClipFeed
from runtime.config import RigConfig, StreamConfig
from runtime.engines import Engine
from runtime.gallery import Gallery
from runtime.identification import Identifier
from runtime.pipeline import Pipeline
from runtime.presentation import Presentation
from runtime.recognition import Recogniser
from runtime.recording import CropRecorder
from runtime.report import Watch, report
from runtime.scoring import Scorer, read_truth
from runtime.sinks import JsonLinesSink

MAX_WAIT_S: Final = 0.2
"""A sample waits at most this long for others to share its batch."""


def run_clips(
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
        feed = owner.enter_context(contextlib.closing(ClipFeed(rigs, config, pool)))
        flown = time.monotonic()
        sink = owner.enter_context(contextlib.closing(JsonLinesSink(output / "events.jsonl")))
        recogniser = _recogniser(owner, config, engines, sink)
        presentation = Presentation(config.video, output, recogniser)
        owner.push(lambda kind, *_: presentation.abandon() if kind is not None else None)
        pipeline = Pipeline(config, recogniser, presentation, scorer, pool)
        pipeline.run(feed)
        presentation.finish(scorer)
    watch = Watch(pipeline.footage_s, flown - started, time.monotonic() - flown)
    offsets = {name: before.offsets for name, before in feed.before.items()}
    result = report(watch, feed.statistics(), offsets, recogniser.sightings, scorer, sink.count)
    write_json(output / "report.json", result)
    return result


def _recogniser(
    owner: contextlib.ExitStack,
    config: StreamConfig,
    engines: Mapping[Subject, Engine],
    sink: JsonLinesSink,
) -> Recogniser:
    identifiers = {}
    for subject, engine in engines.items():
        gallery = Gallery(
            Path(config.output) / config.gallery.folder / subject,
            engine.spec,
            keep=config.gallery.keep,
            mix_precisions=config.gallery.mix_precisions,
            templates=config.gallery.templates,
        )
        owner.callback(gallery.close)
        identifiers[subject] = Identifier(config.match, gallery, engine.spec)
    recorder = None
    if config.record_crops is not None:
        recorder = CropRecorder(Path(config.record_crops))
        owner.callback(recorder.close)
    return Recogniser(
        config.match, engines, identifiers, sink, config.models.max_batch, MAX_WAIT_S, recorder
    )
