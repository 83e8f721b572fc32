"""The benchmarks of detection and tracking sort and score as they say."""

import numpy as np
import pytest

from benchmarks.pedestrians import Seen, compared
from benchmarks.tracking import ALGORITHMS, TrueBox, Watch, score
from runtime.watching.detectors.interface import Detections, View

ALONE = (100.0, 100.0, 140.0, 200.0)
GROUP = (300.0, 100.0, 400.0, 200.0)
PICTURE = np.zeros((576, 768, 3), np.uint8)


@pytest.mark.parametrize(
    ("motion", "hog", "kinds"),
    [
        ([ALONE], [(102, 98, 143, 203)], ["agree"]),
        ([GROUP], [(302, 100, 342, 200), (358, 100, 398, 200)],
         ["agree", "hog: in a group"]),
        ([], [ALONE], ["hog: still"]),
        ([(0, 100, 40, 200)], [], ["motion: at the edge"]),
        ([(100, 100, 130, 160)], [], ["motion: small"]),
        ([(100, 100, 300, 200)], [], ["motion: wide"]),
        ([ALONE], [], ["motion: other"]),
        ([(100, 100, 260, 260)], [(110, 110, 150, 200)],
         ["hog: part of a box", "motion: group"]),
    ],
)  # fmt: skip
def test_disagreements_are_sorted(motion, hog, kinds):
    frame = Seen(0, PICTURE, motion, hog)
    assert [v.kind for v in compared(frame, [motion])] == kinds


def watch(swap=False):
    """Two who walk in parallel; with ``swap`` the boxes of a frame in the middle are lost."""
    watch = Watch(View("rgb", (360, 640), {"rgb": np.eye(3)}, 25.0))
    for i in range(60):
        boxes = [(20 + 4 * i, 50, 50 + 4 * i, 140), (20 + 4 * i, 200, 50 + 4 * i, 290)]
        watch.times_s.append(i / 25)
        watch.truth.append([TrueBox(n, "person", box, 1.0) for n, box in enumerate(boxes)])
        shown = [] if swap and 25 <= i < 55 else boxes
        array = np.array(shown, np.float32).reshape(-1, 4)
        watch.detections.append(
            Detections(array, np.ones(len(array), np.float32), ("person",) * len(array))
        )
    return watch


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_right_tracks_score_full_marks_but_for_their_first_frames(algorithm):
    figures = score([watch()], lambda w: w.detections, algorithm)
    assert figures["tracks"] == 2
    assert figures["switches"] == 0
    assert figures["IDF1"] > 0.95
    assert figures["HOTA"] > 0.9
    worse = score([watch(swap=True)], lambda w: w.detections, algorithm)
    assert worse["HOTA"] < figures["HOTA"] - 0.15
