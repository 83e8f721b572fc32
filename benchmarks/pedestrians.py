"""Motion against an independent pedestrian detector on real footage: ``benchmarks/pedestrians.py``.

Runs the default detector over vtest.avi of Debian's opencv-doc (``tests/fetch_vtest.sh``) and holds
its boxes, every few frames, against those of OpenCV 4's HOG detector, which has an environment of
its own (``make opencv4``). There is no truth: where the two disagree is sorted by what can be told
from the boxes, and drawn, to be looked at. Writes runs/pedestrians/disagreements.png; ``--record``
writes benchmarks/results/pedestrians.json and the table of docs/detectors.md too.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import cv2
import numpy as np

from benchmarks.readme import replace_table
from mambapro.cli import MissingError, add_common_arguments, print_json_line, run, start_logging
from mambapro.contract import EXIT_DONE
from mambapro.environment import environment
from mambapro.files import in_checkout, write_json
from mambapro.preprocess import Picture
from runtime.config import StreamConfig, one_camera_rig
from runtime.feeds.clips import ClipIntake
from runtime.feeds.preflight import preflight
from runtime.figures.scoring import iou
from runtime.watching.detectors.interface import View
from runtime.watching.detectors.opening import open_detectors
from runtime.watching.tracking import Box

RESULT: Final = in_checkout("benchmarks/results/pedestrians.json")
SCALE: Final = 1.5
"""HOG's window holds somebody 107 px tall; so much larger, it finds who is 72 px tall."""
SMALLEST_PX: Final = 72.0
SURE: Final = 0.3
"""HOG's score from which a box counts; OpenCV's samples use 0 to 0.5."""
AGREE: Final = 0.4
"""Overlap from which two boxes mean the same; HOG's are of fixed proportions."""
EDGE_PX: Final = 4
INSIDE: Final = 0.6
NEARBY_FRAMES: Final = 15
CELL: Final = 150
COLUMNS: Final = 10

KINDS: Final = {
    "agree": "both found the same box",
    "hog: in a group": "HOG only: inside one motion box that holds several",
    "hog: part of a box": "HOG only: inside a motion box of other proportions",
    "hog: still": "HOG only: nothing moves there",
    "hog: other": "HOG only: motion has other boxes there",
    "motion: small": "motion only: lower than HOG's window",
    "motion: at the edge": "motion only: cut off by the picture's edge",
    "motion: group": "motion only: holds a HOG box, and more",
    "motion: wide": "motion only: wider than a person",
    "motion: other": "motion only: a person's size and shape",
}
"""What a box is, and how that reads."""


@dataclass(frozen=True)
class Seen:
    """What both detectors found in one frame."""

    number: int
    picture: Picture
    motion: list[Box]
    hog: list[Box]


@dataclass(frozen=True)
class Verdict:
    """One box and what became of it."""

    kind: str
    box: Box
    frame: Seen


def main(argv: Sequence[str] | None = None) -> int:
    """Compare, draw, and count."""
    arguments = parse(argv)
    start_logging(arguments.verbose)
    folder = in_checkout("runs/pedestrians")
    hog = hog_boxes(arguments, folder)
    frames, touched = watched(arguments.video, hog)
    verdicts = [v for frame in frames for v in compared(frame, touched)]
    counts = Counter(verdict.kind for verdict in verdicts)
    draw([v for v in verdicts if v.kind != "agree"], folder / "disagreements.png")
    rows = [(text, str(counts[kind])) for kind, text in KINDS.items()]
    for text, count in rows:
        print(f"{count:>6}  {text}")
    result = {
        "frames": len(frames), "every": arguments.every, "hog_scale": SCALE, "hog_sure": SURE,
        "agree_iou": AGREE, "motion_boxes": sum(len(f.motion) for f in frames),
        "hog_boxes": sum(len(f.hog) for f in frames), "counts": {k: counts[k] for k in KINDS},
    }  # fmt: skip
    if arguments.record:
        write_json(RESULT, {"environment": environment(), **result})
        replace_table(in_checkout("docs/detectors.md"), "pedestrians", ("what", "boxes"), rows)
    if arguments.json:
        print_json_line(result)
    return EXIT_DONE


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description="Motion against HOG on real pedestrians.")
    parser.add_argument(
        "--video", type=Path, default=in_checkout("build/vtest/vtest.avi"),
        help="the footage (default: build/vtest/vtest.avi)",
    )  # fmt: skip
    parser.add_argument(
        "--python", type=Path, default=in_checkout("build/opencv4/bin/python"),
        help="a Python with OpenCV 4 (default: build/opencv4/bin/python, by make opencv4)",
    )  # fmt: skip
    parser.add_argument(
        "--every", type=int, default=5, help="compare every so many frames (default: 5)"
    )
    parser.add_argument(
        "--record", action="store_true",
        help="write benchmarks/results/pedestrians.json and the table of docs/detectors.md "
        "(default: off)",
    )  # fmt: skip
    add_common_arguments(parser)
    return parser.parse_args(argv)


def hog_boxes(arguments: argparse.Namespace, folder: Path) -> dict[int, list[Box]]:
    """Return HOG's boxes by frame; what is in ``folder`` from another time is used again."""
    file = folder / f"hog-{arguments.every}-{SCALE}.json"
    if not file.exists():
        if not arguments.python.exists() or not arguments.video.exists():
            raise MissingError(
                f"{arguments.python} or {arguments.video} is not there: run make opencv4 and "
                f"tests/fetch_vtest.sh {arguments.video.parent}"
            )
        script = Path(__file__).with_name("hog.py")
        command = [arguments.python, script, arguments.video, str(arguments.every), str(SCALE)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        write_json(file, json.loads(done.stdout))
    found = json.loads(file.read_text(encoding="utf-8"))
    return {
        int(number): [(b[0], b[1], b[2], b[3]) for b in boxes if b[4] >= SURE]
        for number, boxes in found.items()
    }


def watched(video: Path, hog: dict[int, list[Box]]) -> tuple[list[Seen], list[list[Box]]]:
    """Run the default detector; return the frames that HOG saw, and motion's boxes in all."""
    config, rig = StreamConfig(), one_camera_rig(str(video))
    with ThreadPoolExecutor(1) as pool:
        before = preflight(rig, config, pool)
    view = View("rgb", before.sizes["rgb"], {"rgb": np.eye(3)}, before.frame_rate)
    detector = open_detectors(config.detect)(view)
    detector.prime(before.backgrounds)
    frames, every = [], []
    intake = ClipIntake(rig, config.sync, before)
    try:
        while (triplet := intake.next()) is not None:
            frame = triplet.frames["rgb"]
            boxes = [tuple(box) for box in detector.detect({"rgb": frame.picture}).boxes.tolist()]
            every.append(boxes)
            if frame.index in hog:
                frames.append(Seen(frame.index, frame.picture.copy(), boxes, hog[frame.index]))
    finally:
        intake.close()
    return frames, every


def compared(frame: Seen, touched: Sequence[Sequence[Box]]) -> list[Verdict]:
    """Return what became of each box of ``frame``; ``touched`` are motion's boxes by frame."""
    pairs = agreed(frame.motion, frame.hog)
    near = touched[max(0, frame.number - NEARBY_FRAMES) : frame.number + NEARBY_FRAMES + 1]
    verdicts = [Verdict("agree", frame.motion[i], frame) for i in pairs]
    verdicts += [
        Verdict(hog_alone(box, frame, near), box, frame)
        for j, box in enumerate(frame.hog)
        if j not in pairs.values()
    ]
    height, width = frame.picture.shape[:2]
    verdicts += [
        Verdict(motion_alone(box, frame.hog, (height, width)), box, frame)
        for i, box in enumerate(frame.motion)
        if i not in pairs
    ]
    return verdicts


def agreed(motion: Sequence[Box], hog: Sequence[Box]) -> dict[int, int]:
    """Return pairs of boxes that mean the same, the best first."""
    overlaps = sorted(
        ((iou(a, b), i, j) for i, a in enumerate(motion) for j, b in enumerate(hog)), reverse=True
    )
    pairs: dict[int, int] = {}
    for overlap, i, j in overlaps:
        if overlap >= AGREE and i not in pairs and j not in pairs.values():
            pairs[i] = j
    return pairs


def hog_alone(box: Box, frame: Seen, near: Sequence[Sequence[Box]]) -> str:
    """Return why motion has no such box."""
    around = [m for m in frame.motion if covered(box, m) >= INSIDE]
    if any(sum(covered(h, m) >= INSIDE for h in frame.hog) > 1 for m in around):
        return "hog: in a group"
    if around:
        return "hog: part of a box"
    moves = any(covered(box, m) > 0.1 for boxes in near for m in boxes)
    return "hog: other" if moves else "hog: still"


def motion_alone(box: Box, hog: Sequence[Box], size: tuple[int, int]) -> str:
    """Return why HOG has no such box."""
    x0, y0, x1, y1 = box
    if x0 < EDGE_PX or y0 < EDGE_PX or x1 > size[1] - EDGE_PX or y1 > size[0] - EDGE_PX:
        return "motion: at the edge"
    if any(covered(h, box) >= INSIDE for h in hog):
        return "motion: group"
    if y1 - y0 < SMALLEST_PX:
        return "motion: small"
    return "motion: wide" if x1 - x0 > 0.75 * (y1 - y0) else "motion: other"


def covered(box: Box, by: Box) -> float:
    """Return the share of ``box`` that lies in ``by``."""
    width, height = min(box[2], by[2]) - max(box[0], by[0]), min(box[3], by[3]) - max(box[1], by[1])
    return max(0.0, width) * max(0.0, height) / ((box[2] - box[0]) * (box[3] - box[1]))


def draw(verdicts: Sequence[Verdict], file: Path) -> None:
    """Write a sheet of up to two rows a kind, drawn at random: motion green, HOG red."""
    rng, rows = np.random.default_rng(1), []
    for kind in KINDS:
        own = [v for v in verdicts if v.kind == kind]
        chosen = [own[i] for i in sorted(rng.permutation(len(own))[: 2 * COLUMNS])]
        for start in range(0, len(chosen), COLUMNS):
            cells = [cell(verdict) for verdict in chosen[start : start + COLUMNS]]
            cells += [np.zeros((CELL, CELL, 3), np.uint8)] * (COLUMNS - len(cells))
            title = np.full((16, CELL * COLUMNS, 3), 30, np.uint8)
            text = f"{KINDS[kind]} ({len(own)})"
            cv2.putText(title, text, (4, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 255), 1)
            rows += [title, np.concatenate(cells, axis=1)]
    file.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(file), cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR))


def cell(verdict: Verdict) -> Picture:
    """Return the surroundings of a box, (CELL, CELL, 3)."""
    shown, frame = verdict.frame.picture.copy(), verdict.frame
    for boxes, colour in ((frame.motion, (0, 255, 0)), (frame.hog, (255, 0, 0))):
        for box in boxes:
            left, top, right, bottom = (round(v) for v in box)
            cv2.rectangle(shown, (left, top), (right, bottom), colour, 1)
    x0, y0, x1, y1 = verdict.box
    half = 0.5 * max(x1 - x0, y1 - y0) + 25
    middle = np.array([[(x0 + x1) / 2, (y0 + y1) / 2]])
    matrix = np.array([[1, 0, half - middle[0, 0]], [0, 1, half - middle[0, 1]]]) * CELL / 2 / half
    return np.asarray(cv2.warpAffine(shown, matrix, (CELL, CELL)), np.uint8)


if __name__ == "__main__":
    sys.exit(run(main))
