"""Which tracker follows best: ``python benchmarks/tracking.py``.

Runs detection once over scenes that nothing was tuned on, then every tracker of ``track.algorithm``
on the same boxes, and scores the tracks that count by HOTA, IDF1 and MOTA (``trackers.eval``).
Besides motion there are the scenes' true boxes made worse, as a network would give them, with
classes. ``--record`` writes benchmarks/results/tracking.json and the table of docs/detectors.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import typing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from trackers.eval import (
    aggregate_clear_metrics,
    aggregate_hota_metrics,
    aggregate_identity_metrics,
    box_iou,
    compute_clear_metrics,
    compute_hota_metrics,
    compute_identity_metrics,
)

from benchmarks.readme import replace_table
from mambapro.cli import add_common_arguments, print_json_line, run, start_logging
from mambapro.contract import EXIT_DONE, Subject
from mambapro.environment import environment
from mambapro.files import in_checkout, write_json
from mambapro.synthetic.scenes import write_scene
from runtime.config import DetectConfig, RigConfig, StreamConfig, TrackConfig, load_rigs
from runtime.feeds.clips import ClipFeed
from runtime.feeds.interface import Due, RigBegins
from runtime.feeds.preflight import homographies
from runtime.figures.scoring import MIN_VISIBLE, matched
from runtime.watching.detectors.interface import Detections, View
from runtime.watching.detectors.opening import open_detectors
from runtime.watching.tracking import Box, Tracker

RESULT: Final = in_checkout("benchmarks/results/tracking.json")
SEEDS: Final = (201, 202, 203, 204)
ALGORITHMS: Final = typing.get_args(typing.get_type_hints(TrackConfig)["algorithm"])
LOST: Final = 0.1
"""Share of true boxes that the simulated network does not see."""
JITTER: Final = 0.04
"""Standard deviation of its boxes' edges, share of their size."""
HEADER: Final = ("boxes", "tracker", "HOTA", "DetA", "AssA", "IDF1", "MOTA", "switches", "tracks")


@dataclass(frozen=True)
class TrueBox:
    """One true subject in one frame."""

    identity: int
    subject: Subject
    box: Box
    visible: float


@dataclass
class Watch:
    """What one rig saw from the beginning to the end of a scene."""

    view: View
    times_s: list[float] = field(default_factory=list)
    truth: list[list[TrueBox]] = field(default_factory=list)
    detections: list[Detections] = field(default_factory=list)
    """Of motion."""


def main(argv: Sequence[str] | None = None) -> int:
    """Score every tracker on both kinds of boxes; print one table."""
    arguments = parse(argv)
    start_logging(arguments.verbose)
    sequences = [s for seed in arguments.seeds for s in watched(seed, arguments.folder)]
    kinds: dict[str, Callable[[Watch], list[Detections]]] = {
        "motion": lambda sequence: sequence.detections,
        "simulated network": simulated,
    }
    results = [
        {"boxes": kind, "algorithm": name, **score(sequences, boxes, name)}
        for kind, boxes in kinds.items()
        for name in ALGORITHMS
    ]
    rows = [row(result) for result in results]
    for line in (HEADER, *rows):
        print("  ".join(cell.rjust(max(9, len(n))) for n, cell in zip(HEADER, line, strict=True)))
    if arguments.record:
        settings = {"seeds": arguments.seeds, "lost": LOST, "jitter": JITTER}
        write_json(RESULT, {"environment": environment(), **settings, "results": results})
        replace_table(in_checkout("docs/detectors.md"), "tracking", HEADER, rows)
    if arguments.json:
        print_json_line({"results": results})
    return EXIT_DONE


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description="Score the trackers on the synthetic scenes.")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=list(SEEDS),
        help=f"seeds of the scenes (default: {' '.join(map(str, SEEDS))})",
    )  # fmt: skip
    parser.add_argument(
        "--folder", type=Path, default=in_checkout("runs/scenes"),
        help="folder for clips; what is there is used again (default: runs/scenes)",
    )  # fmt: skip
    parser.add_argument(
        "--record", action="store_true",
        help="write benchmarks/results/tracking.json and the table of docs/detectors.md "
        "(default: off)",
    )  # fmt: skip
    add_common_arguments(parser)
    return parser.parse_args(argv)


def watched(seed: int, folder: Path) -> list[Watch]:
    """Run motion detection over the scene ``seed``; return a sequence a rig."""
    scene = write_scene(folder / f"scene{seed}", seed=seed)
    rigs = load_rigs(scene / "rigs.yaml")
    truth = read_people(scene / "truth.jsonl", {rig.name: rig for rig in rigs})
    config, sequences, detectors = StreamConfig(), {}, {}
    make = open_detectors(config.detect)
    with ThreadPoolExecutor(2) as pool:
        feed = ClipFeed(rigs, config, pool)
        for instant in feed:
            for notice in instant.notices:
                if isinstance(notice, RigBegins):
                    rig, before = notice.rig, notice.before
                    size = before.sizes[rig.reference]
                    view = View(rig.reference, size, homographies(rig), before.frame_rate)
                    sequences[rig.name] = Watch(view)
                    detectors[rig.name] = make(view)
                    detectors[rig.name].prime(before.backgrounds)
            found = pool.map(lambda due: detectors[due.rig].detect(pictures(due)), instant.due)
            for due, detections in zip(instant.due, found, strict=True):
                sequence = sequences[due.rig]
                frame = due.triplet.frames.get(sequence.view.reference)
                people = [] if frame is None else truth.get((due.rig, frame.index), [])
                sequence.times_s.append(due.triplet.time_s)
                sequence.truth.append(people)
                sequence.detections.append(detections)
        feed.close()
    return list(sequences.values())


def pictures(due: Due) -> dict[Any, Any]:
    """Return the pictures of a triplet by modality."""
    return {m: frame.picture for m, frame in due.triplet.frames.items()}


def read_people(path: Path, rigs: dict[str, RigConfig]) -> dict[tuple[str, int], list[TrueBox]]:
    """Return who is in each frame of the rigs' reference cameras."""
    people = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if record["modality"] == rigs[record["rig"]].reference:
            people[record["rig"], record["frame"]] = [
                TrueBox(
                    2 * s["identity"] + (s["kind"] == "vehicle"),
                    s["kind"],
                    tuple(s["box"]),
                    s["visible"],
                )
                for s in record["subjects"]
            ]
    return people


def simulated(sequence: Watch) -> list[Detections]:
    """Return true boxes as a network would give them: some lost, none exact, each with a class."""
    rng = np.random.default_rng(1)
    return [worse(people, rng) for people in sequence.truth]


def worse(people: Sequence[TrueBox], rng: np.random.Generator) -> Detections:
    """Return the boxes of whom a network would see."""
    seen = [p for p in people if p.visible >= 0.3 and rng.random() >= LOST]
    boxes = np.array([p.box for p in seen], np.float32).reshape(-1, 4)
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    moved = boxes + rng.normal(0, JITTER, boxes.shape) * sides
    scores = rng.normal(0.8, 0.12, len(seen)).clip(0.3, 1)
    subjects = tuple(p.subject for p in seen)
    return Detections(moved.astype(np.float32), scores.astype(np.float32), subjects)


def score(
    sequences: Sequence[Watch],
    boxes: Callable[[Watch], list[Detections]],
    algorithm: Any,
) -> dict[str, Any]:
    """Follow ``boxes`` of all sequences by ``algorithm``; return the figures over all of them."""
    clear, hota, identity, tracks = [], [], [], 0
    for sequence in sequences:
        frames = list(followed(sequence, boxes(sequence), TrackConfig(algorithm=algorithm)))
        ids, numbers, overlaps = (list(part) for part in zip(*frames, strict=True))
        clear.append(compute_clear_metrics(ids, numbers, overlaps))
        hota.append(compute_hota_metrics(ids, numbers, overlaps))
        identity.append(compute_identity_metrics(ids, numbers, overlaps))
        tracks += len({n for frame in numbers for n in frame.tolist()})
    figures = {
        **aggregate_hota_metrics(hota),
        **aggregate_clear_metrics(clear),
        **aggregate_identity_metrics(identity),
    }
    shares = {n: round(float(figures[n]), 4) for n in ("HOTA", "DetA", "AssA", "IDF1", "MOTA")}
    return {**shares, "switches": int(figures["IDSW"]), "tracks": tracks}


def followed(
    sequence: Watch, found: Sequence[Detections], config: TrackConfig
) -> Iterator[tuple[Any, Any, Any]]:
    """Yield true identities, track numbers and their overlaps (true, tracks) of each frame.

    Who hardly shows need not be followed, and following them is no mistake.
    """
    view = sequence.view
    tracker = Tracker(config, DetectConfig(), view.frame_rate, view.size)
    for time_s, people, detections in zip(sequence.times_s, sequence.truth, found, strict=True):
        tracks, _ = tracker.update(detections, time_s)
        tracks = [track for track in tracks if track.confirmed]
        clear = [p.visible >= MIN_VISIBLE for p in people]
        pairs = matched([t.box for t in tracks], [p.box for p in people])
        tracks = [t for i, t in enumerate(tracks) if i not in pairs or clear[pairs[i]]]
        shown = [p for p, is_clear in zip(people, clear, strict=True) if is_clear]
        true = np.array([p.box for p in shown], float).reshape(-1, 4)
        boxes = np.array([t.box for t in tracks], float).reshape(-1, 4)
        yield (
            np.array([p.identity for p in shown], int),
            np.array([t.number for t in tracks], int),
            box_iou(true, boxes) if len(true) and len(boxes) else np.zeros((len(true), len(boxes))),
        )


def row(result: dict[str, Any]) -> tuple[str, ...]:
    """Return one line of the table."""
    shares = (f"{100 * result[name]:.1f} %" for name in ("HOTA", "DetA", "AssA", "IDF1", "MOTA"))
    return (
        result["boxes"], result["algorithm"], *shares, str(result["switches"]),
        str(result["tracks"]),
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(run(main))
