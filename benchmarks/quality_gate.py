"""What each rule for choosing crops is worth: ``python benchmarks/quality_gate.py``.

Scenes are watched once; every variant of the rules chooses its own crops from the same tracks,
embeds and matches them. Load is the crops embedded a track. ``--record`` writes
benchmarks/results/quality_gate.json and the table of docs/quality.md.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import cv2
import numpy as np

from benchmarks.readme import replace_table
from benchmarks.scenes import parse, pool, shown
from mambapro import config as configs
from mambapro.cli import print_json_line, run, start_logging
from mambapro.contract import EXIT_DONE, SUBJECTS, Subject
from mambapro.environment import environment
from mambapro.files import in_checkout, write_json
from mambapro.preprocess import Picture
from mambapro.synthetic.scenes import write_scene
from runtime.config import SampleConfig, StreamConfig, load_rigs
from runtime.engines import Engine, open_engine
from runtime.feeds.clips import ClipFeed
from runtime.feeds.interface import RigBegins, RigEnds
from runtime.figures.scoring import Scorer, read_truth
from runtime.gallery import open_gallery
from runtime.identity.identification import Identifier
from runtime.identity.recognition import Recogniser
from runtime.identity.requirement import Requirement
from runtime.sinks import open_events
from runtime.watching.crops import Sample, Sampler
from runtime.watching.detectors.opening import open_detectors
from runtime.watching.quality import Flaw, QualityGate, clipped
from runtime.watching.rig import RigStep, RigWatcher
from runtime.watching.tracking import Box, Track

RESULT: Final = in_checkout("benchmarks/results/quality_gate.json")
PAGE: Final = in_checkout("docs/quality.md")
HEADER: Final = (
    "rules", "later sightings right", "strangers called new", "tracks without identity",
    "crops a track",
)  # fmt: skip
DEFAULT: Final = SampleConfig()
VARIANTS: Final = {
    "all rules, the best crop of each stretch": DEFAULT,
    "without the rules of box and contrast": replace(
        DEFAULT,
        border_px=-9999,
        min_height_px=0,
        max_person_aspect=9,
        max_overlap=9,
        min_contrast=0,
    ),
    "without truncation": replace(DEFAULT, border_px=-9999),
    "without overlap": replace(DEFAULT, max_overlap=9),
    "without width of persons": replace(DEFAULT, max_person_aspect=9),
    "without contrast": replace(DEFAULT, min_contrast=0),
    "half the height is enough": replace(DEFAULT, min_height_px=DEFAULT.min_height_px // 2),
    "twice the height": replace(DEFAULT, min_height_px=2 * DEFAULT.min_height_px),
    "sharp crops only (100)": replace(DEFAULT, min_sharpness=100),
    "sharp crops only (200)": replace(DEFAULT, min_sharpness=200),
    "the first crop of each stretch": DEFAULT,
    "the best whatever its exposure": DEFAULT,
    "one crop a track": replace(DEFAULT, per_track=1),
    "two crops a track": replace(DEFAULT, per_track=2),
    "four crops a track": replace(DEFAULT, per_track=4),
    "twelve crops a track, twice as often": replace(DEFAULT, per_track=12, window_s=0.2),
}
MAX_WAIT_S: Final = 0.2


class FirstOfStretch(Sampler):
    """Takes the first crop that passes, not the best."""

    def _keep_better(
        self, track: Track, pictures: Mapping[Any, Picture], boxes: Mapping[Any, Any]
    ) -> Flaw | None:
        return None if track.number in self._best else super()._keep_better(track, pictures, boxes)


class AnyExposure(Sampler):
    """Takes the best crop by modalities, size and sharpness alone."""

    def __init__(self, config: SampleConfig, rig: str, size: tuple[int, int]) -> None:
        super().__init__(config, rig, size)
        self._gate = _AnyExposureGate(config, size)


class _AnyExposureGate(QualityGate):
    def worth(self, crops: Mapping[Any, Picture], box: Box) -> float | None:
        found = super().worth(crops, box)
        exposed = float(np.mean([1 - clipped(crop) for crop in crops.values()]))
        return None if found is None else found / max(exposed, 1e-6)


SAMPLERS: Final[Mapping[str, type[Sampler]]] = {
    "the first crop of each stretch": FirstOfStretch,
    "the best whatever its exposure": AnyExposure,
}
"""Variants that choose by other rules than settings have."""


@dataclass
class Variant:
    """One set of rules with all that stands behind them."""

    config: SampleConfig
    make: type[Sampler]
    recogniser: Recogniser
    samplers: dict[str, Sampler] = field(default_factory=dict)
    crops: int = 0
    tracks: int = 0
    undecided: int = 0
    flaws: Counter[Flaw] = field(default_factory=Counter)

    def take(self, track: Track, sample: Sample | None) -> None:
        """Embed ``sample``, if there is one."""
        if sample is not None:
            self.crops += 1
            self.recogniser.add(track, sample)

    def end(self, rig: str, track: Track) -> None:
        """End ``track``."""
        self.take(track, self.samplers[rig].finish(track))
        self.recogniser.end(rig, track)
        self.tracks += 1
        self.undecided += self.recogniser.decision(rig, track) is None

    def follow(self, step: RigStep) -> None:
        """Choose among the views of one step."""
        sampler = self.samplers[step.rig]
        pictures = {m: frame.picture for m, frame in step.triplet.frames.items()}
        seen = [view.track for view in step.views]
        for view in step.views:
            sample = sampler.offer(view.track, seen, pictures, view.boxes)
            self.take(view.track, sample)
        for track in step.ended:
            self.end(step.rig, track)
        self.flaws += sampler.flaws()


def main(argv: Sequence[str] | None = None) -> int:
    """Watch the scenes; print one line a variant."""
    arguments = parse(
        argv,
        "Measure the rules for choosing crops.",
        "benchmarks/results/quality_gate.json and docs/quality.md",
    )
    start_logging(arguments.verbose)
    settings = configs.load(StreamConfig, in_checkout("configs/stream.yaml"))
    engines = {
        subject: open_engine(in_checkout(path), threads=1)
        for subject in SUBJECTS
        if (path := settings.models.path(subject)) is not None
    }
    scenes = [
        watch(write_scene(arguments.folder / f"scene{seed}", seed=seed), settings, engines)
        for seed in arguments.seeds
    ]
    result = {name: summed([scene[name] for scene in scenes]) for name in VARIANTS}
    rows = [row(name, figures) for name, figures in result.items()]
    for cells in (HEADER, *rows):
        print(cells[0].ljust(42), *(cell.rjust(22) for cell in cells[1:]))
    if arguments.record:
        facts = {"environment": environment(), "seeds": list(arguments.seeds)}
        write_json(RESULT, {**facts, "variants": result})
        replace_table(PAGE, "quality", HEADER, rows)
    if arguments.json:
        print_json_line(result)
    return EXIT_DONE


def watch(
    scene: Path, settings: StreamConfig, engines: Mapping[Subject, Engine]
) -> dict[str, dict[str, Any]]:
    """Return the figures of every variant on one scene."""
    cv2.setNumThreads(1)
    rigs = load_rigs(scene / "rigs.yaml")
    scorer = Scorer(read_truth(scene / "truth.jsonl"), {rig.name: rig.reference for rig in rigs})
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(len(rigs)) as pool:
        variants = {
            name: variant(
                config, SAMPLERS.get(name, Sampler), Path(folder) / str(i), settings, engines
            )
            for i, (name, config) in enumerate(VARIANTS.items())
        }
        feed = ClipFeed(rigs, settings, pool)
        watchers: dict[str, RigWatcher] = {}
        for instant in feed:
            for notice in instant.notices:
                if isinstance(notice, RigBegins):
                    watchers[notice.rig.name] = begin(notice, settings, variants)
                elif isinstance(notice, RigEnds):
                    ended, _ = watchers[notice.rig].finish()
                    for one in variants.values():
                        for track in ended:
                            one.end(notice.rig, track)
            steps = pool.map(lambda due: watchers[due.rig].step(due.triplet), instant.due)
            for step in steps:
                scorer.add(step)
                for one in variants.values():
                    one.follow(step)
            for one in variants.values():
                one.recogniser.advance(instant.now_s)
        feed.close()
    return {name: figures(one, scorer) for name, one in variants.items()}


def begin(notice: RigBegins, settings: StreamConfig, variants: Mapping[str, Variant]) -> RigWatcher:
    """Return the watcher of a rig that begins, which every variant samples."""
    size = notice.before.sizes[notice.rig.reference]
    for one in variants.values():
        one.recogniser.meet(notice.rig)
        one.samplers[notice.rig.name] = one.make(one.config, notice.rig.name, size)
    return RigWatcher(notice.rig, settings, notice.before, open_detectors(settings.detect))


def variant(
    config: SampleConfig,
    make: type[Sampler],
    folder: Path,
    settings: StreamConfig,
    engines: Mapping[Subject, Engine],
) -> Variant:
    """Return a variant with galleries of its own in ``folder``."""
    folder.mkdir(parents=True)
    identifiers = {
        subject: Identifier(
            settings.match,
            open_gallery(folder / subject, engine.spec, replace(settings.gallery, keep=False)),
            Requirement(settings.match, engine.spec),
        )
        for subject, engine in engines.items()
    }
    events = open_events(settings.sinks, folder, live=False)
    made = Recogniser(
        settings.match, engines, identifiers, events, settings.models.max_batch, MAX_WAIT_S
    )
    return Variant(config, make, made)


def figures(one: Variant, scorer: Scorer) -> dict[str, Any]:
    """Return what came of a variant."""
    scores = scorer.result(one.recogniser.sightings)
    return {
        **{k: v for k, v in scores.items() if k.startswith("identity")},
        "undecided": one.undecided, "crops": one.crops, "tracks": one.tracks,
        "flaws": dict(one.flaws),
    }  # fmt: skip


def summed(scenes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return a variant's figures over all scenes."""
    flaws: Counter[str] = sum((Counter(s["flaws"]) for s in scenes), Counter())
    counts = {key: sum(s[key] for s in scenes) for key in ("undecided", "crops", "tracks")}
    return {**counts, **pool(scenes), "flaws": dict(flaws.most_common())}


def row(name: str, figures: dict[str, Any]) -> tuple[str, ...]:
    """Return a variant's cells."""
    load = figures["crops"] / max(1, figures["tracks"])
    later, new = shown(figures["later"]), shown(figures["new"])
    return (name, later, new, str(figures["undecided"]), f"{load:.2f}")


if __name__ == "__main__":
    sys.exit(run(main))
