"""Keep subjects apart that cross: one blob over several known tracks becomes a box for each."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from runtime.watching.detectors.interface import Boxes, Detections

MEMORY: Final = 12
"""Boxes that a track's speed is fitted to."""
MIN_MEMORY: Final = 5
INSIDE: Final = 0.6
"""Share of a track's expected box that has to lie in the blob."""
LARGER: Final = 1.2
"""A blob over several subjects is at least this much larger than each."""
HIDDEN_S: Final = 0.2
STRAYED: Final = 0.8
"""Who was not seen alone for HIDDEN_S and then is this many widths off its course is another."""
ANOTHER: Final = 2.2
"""A blob this much larger than the one track in it holds somebody who came into view there."""


@dataclass
class Course:
    """Where one track has been seen on its own, and where it is heading."""

    seen: deque[tuple[float, Boxes]] = field(default_factory=lambda: deque(maxlen=MEMORY))
    """Time and box (4,) of each sight."""

    def expected(self, time_s: float) -> Boxes:
        """Return the box (4,) at ``time_s`` if size and speed stay as they were."""
        times = np.array([t for t, _ in self.seen])
        boxes = np.stack([box for _, box in self.seen])  # (n, 4)
        middles = (boxes[:, :2] + boxes[:, 2:]) / 2
        size = np.median(boxes[:, 2:] - boxes[:, :2], axis=0)
        slope, start = np.polyfit(times - times[-1], middles, 1)
        middle = start + slope * (time_s - times[-1])
        return np.concatenate([middle - size / 2, middle + size / 2]).astype(np.float32)


class Crossings:
    """Remembers the courses of a rig's tracks and splits blobs by them."""

    def __init__(self, longest_s: float) -> None:
        """Carry a merged track on for at most ``longest_s``."""
        self._longest_s = longest_s
        self._courses: dict[int, Course] = {}

    def split(self, detections: Detections, time_s: float) -> tuple[Detections, set[int]]:
        """Replace a blob that covers several tracks by their expected boxes.

        Returns the detections and which of them are guesses.
        """
        expected = [
            course.expected(time_s)
            for course in self._courses.values()
            if len(course.seen) >= MIN_MEMORY and time_s - course.seen[-1][0] <= self._longest_s
        ]
        boxes: list[Boxes] = []
        scores: list[float] = []
        guesses: set[int] = set()
        for blob, sure in zip(detections.boxes, detections.scores, strict=True):
            covered = [_within(box, blob) for box in expected if _covers(blob, box, LARGER)]
            if len(covered) == 1 and any(_covers(blob, box, ANOTHER) for box in expected):
                covered.append(blob)
            if len(covered) < 2:
                covered = [blob]
            else:
                guesses.update(range(len(boxes), len(boxes) + len(covered)))
            boxes += covered
            scores += [float(sure)] * len(covered)
        stacked = np.array(boxes, np.float32).reshape(-1, 4)
        return Detections(stacked, np.array(scores, np.float32)), guesses

    def saw(self, track: int, box: Boxes, time_s: float) -> None:
        """Remember where ``track`` was seen on its own."""
        self._courses.setdefault(track, Course()).seen.append((time_s, box))

    def strayed(self, track: int, box: Boxes, time_s: float) -> bool:
        """Return whether ``box`` (4,), seen alone again, is too far off the course of ``track``."""
        course = self._courses.get(track)
        if course is None or len(course.seen) < MIN_MEMORY:
            return False
        if time_s - course.seen[-1][0] <= HIDDEN_S:
            return False
        expected = course.expected(time_s)
        off = abs(float((box[0] + box[2]) - (expected[0] + expected[2]))) / 2
        return off > STRAYED * float(expected[2] - expected[0])

    def drop(self, track: int) -> None:
        """Forget ``track``."""
        self._courses.pop(track, None)

    def forget(self, tracks: set[int]) -> None:
        """Drop every track but ``tracks``."""
        self._courses = {n: course for n, course in self._courses.items() if n in tracks}


def _covers(blob: Boxes, box: Boxes, larger: float) -> bool:
    """Return whether ``box`` lies in a ``blob`` that is ``larger`` times its size or more."""
    common = np.minimum(blob[2:], box[2:]) - np.maximum(blob[:2], box[:2])
    size = np.prod(box[2:] - box[:2])
    return bool(
        (common > 0).all()
        and np.prod(common) >= INSIDE * size
        and np.prod(blob[2:] - blob[:2]) >= larger * size
    )


def _within(box: Boxes, blob: Boxes) -> Boxes:
    return np.concatenate([np.maximum(box[:2], blob[:2]), np.minimum(box[2:], blob[2:])])
