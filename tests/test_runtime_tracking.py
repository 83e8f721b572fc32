"""Tracks keep their numbers, through gaps and crossings; what does not travel is no track."""

import numpy as np
import pytest

from mambapro.cli import InputError
from runtime.config import DetectConfig, TrackConfig
from runtime.watching.detectors.interface import Detections
from runtime.watching.tracking import Tracker

PERIOD_S = 0.04


def detections(boxes):
    array = np.array(boxes, np.float32).reshape(-1, 4)
    return Detections(array, np.ones(len(array), np.float32))


def told(*seen, scores=None):
    """Detections of a detector that tells persons and vehicles: (subject, box) each."""
    boxes = np.array([box for _, box in seen], np.float32).reshape(-1, 4)
    scores = np.ones(len(boxes)) if scores is None else np.array(scores)
    return Detections(boxes, scores.astype(np.float32), tuple(subject for subject, _ in seen))


def follow(frames, **settings):
    """Return all tracks of frames of :func:`told`."""
    tracker = Tracker(TrackConfig(**settings), DetectConfig(), 25.0, (360, 640))
    ended = [t for i, found in enumerate(frames) for t in tracker.update(found, i * PERIOD_S)[1]]
    return ended + tracker.finish()


def walker(i, start=0.0, speed=3.0, row=100.0, size=(30.0, 90.0)):
    x = start + speed * i
    return [x, row, x + size[0], row + size[1]]


def run(frames, **settings):
    """Return (tracks seen by frame, all tracks that ended)."""
    tracker = Tracker(TrackConfig(**settings), DetectConfig(), 25.0, (360, 640))
    seen, ended = [], []
    for i, boxes in enumerate(frames):
        tracks, over = tracker.update(detections(boxes), i * PERIOD_S)
        seen.append({t.number: t.box for t in tracks if t.confirmed})
        ended += over
    return seen, ended + tracker.finish()


@pytest.mark.parametrize("algorithm", ["bytetrack", "ocsort", "sort", "botsort", "cbiou"])
def test_two_walkers_keep_their_numbers(algorithm):
    frames = [[walker(i), walker(i, 500, -3, row=220)] for i in range(80)]
    seen, ended = run(frames, algorithm=algorithm)
    assert len(ended) == 2
    upper = {n for boxes in seen for n, box in boxes.items() if box[1] < 160}
    lower = {n for boxes in seen for n, box in boxes.items() if box[1] > 160}
    assert len(upper) == len(lower) == 1
    assert upper != lower
    assert all(track.subject == "person" for track in ended)


def test_a_short_gap_does_not_end_a_track():
    frames = [[walker(i)] if not 40 <= i < 50 else [] for i in range(90)]
    _, ended = run(frames)
    assert len(ended) == 1
    assert ended[0].end_s == pytest.approx(89 * PERIOD_S)


def test_a_long_gap_does():
    frames = [[walker(i)] if not 40 <= i < 75 else [] for i in range(120)]
    _, ended = run(frames, lost_s=0.6)
    assert len({track.number for track in ended}) == 2
    assert ended[0].end_s == pytest.approx(39 * PERIOD_S)


def test_a_swaying_tree_is_no_track():
    frames = [[walker(0, 200 + 8 * np.sin(i / 5))] for i in range(120)]
    _, ended = run(frames)
    assert ended == []


def test_one_blob_over_two_walkers_keeps_both():
    frames = []
    for i in range(100):
        a, b = walker(i), walker(i, 297, -3)
        if a[2] > b[0] and b[2] > a[0]:  # they touch: motion sees one blob
            frames.append([[min(a[0], b[0]), 100, max(a[2], b[2]), 190]])
        else:
            frames.append([a, b])
    seen, ended = run(frames)
    assert len(ended) == 2
    directions = {}
    for boxes in seen:
        for number, box in boxes.items():
            directions.setdefault(number, []).append(box[0])
    slopes = sorted(np.polyfit(range(len(x)), x, 1)[0] for x in directions.values())
    assert slopes == pytest.approx([-3, 3], abs=0.3)


def test_a_car_that_comes_in_behind_a_walker_is_a_track_of_its_own():
    frames = []
    for i in range(110):
        walk, car = walker(i, 100, 2), walker(i - 40, -90, 8, row=110, size=(180.0, 80.0))
        car[0], car[2] = max(car[0], 0.0), min(car[2], 640.0)
        if car[2] <= 0:
            frames.append([walk])
        elif car[2] > walk[0] and walk[2] > car[0]:  # they touch: motion sees one blob
            frames.append([[min(walk[0], car[0]), 100, max(walk[2], car[2]), 190]])
        else:
            frames.append([walk, car] if car[2] > car[0] else [walk])
    seen, ended = run(frames)
    first = min(seen[30])
    assert seen[-1][first][0] == pytest.approx(walker(109, 100, 2)[0], abs=6)
    assert sorted(track.subject for track in ended) == ["person", "vehicle"]


def test_who_comes_out_where_another_went_out_is_another():
    """At the edge of the picture one leaves behind one who enters: its number is not handed on."""
    frames = []
    for i in range(110):
        leaves, enters = 150 - 3 * i, 3 * (i - 48)
        if i < 40:
            frames.append([[leaves, 100, leaves + 30, 190]])
        elif i < 58:
            frames.append([[0, 100, max(leaves, enters) + 30, 190]])
        else:
            frames.append([[enters, 100, enters + 30, 190]])
    seen, ended = run(frames)
    (first,), (last,) = seen[30], seen[100]
    assert first != last
    assert next(t for t in ended if t.number == first).end_s < 60 * PERIOD_S


def test_guesses_are_marked():
    tracker = Tracker(TrackConfig(), DetectConfig(), 25.0, (360, 640))
    for i in range(40):
        tracks, _ = tracker.update(detections([walker(i), walker(i, 270, -3)]), i * PERIOD_S)
    assert [track.guessed for track in tracks] == [False, False]
    blob = [110, 100, 190, 190]
    tracks, _ = tracker.update(detections([blob]), 40 * PERIOD_S)
    assert [track.guessed for track in tracks] == [True, True]


def test_most_boxes_decide_what_it_is():
    frames = [[walker(i, size=(150, 80) if i > 10 else (30, 80))] for i in range(60)]
    _, ended = run(frames, min_iou=0.05)
    assert ended[-1].subject == "vehicle"


def test_who_comes_in_where_another_left_is_another():
    out = [[walker(i, 400, 4)] for i in range(60)]  # leaves on the right after 60 frames
    out = [[[b[0], b[1], min(b[2], 640), b[3]] for b in boxes if b[0] < 636] for boxes in out]
    back = [[[640 - 3 * i, 100, min(670 - 3 * i, 640), 190]] for i in range(2, 60)]
    _, ended = run([*out, *[[]] * 10, *back])
    assert len(ended) == 2
    assert ended[0].end_s < ended[1].start_s


def test_no_detections_at_all():
    assert run([[]] * 10) == ([{}] * 10, [])


@pytest.mark.parametrize("algorithm", ["bytetrack", "ocsort", "sort", "botsort", "cbiou"])
def test_who_gets_into_a_car_is_not_handed_its_number(algorithm):
    """A person's box ends where a car's of almost the same box begins: two tracks, by class."""
    frames = [told(("person" if i < 40 else "vehicle", walker(i))) for i in range(80)]
    assert sorted(track.subject for track in follow(frames, algorithm=algorithm)) == [
        "person", "vehicle",
    ]  # fmt: skip
    one = [told(("person", walker(i))) for i in range(80)]
    assert len(follow(one, algorithm=algorithm)) == 1


def test_what_a_detector_says_rules_over_shapes():
    wide = [told(("person", walker(i, size=(150.0, 80.0)))) for i in range(40)]
    assert [track.subject for track in follow(wide)] == ["person"]


def test_a_car_behind_a_person_is_one_box_to_a_detector():
    """Motion's blobs are split where they cover a track; the boxes of a detector are not."""
    frames = [
        told(("person", walker(i, 300, 0)), ("vehicle", walker(i, -150, 8, size=(200.0, 95.0))))
        for i in range(60)
    ]
    tracks = follow(frames)
    assert sorted(track.subject for track in tracks) == ["person", "vehicle"]
    assert [len(track.areas) for track in tracks] == [57, 57]


def test_who_stands_still_is_a_track_of_a_detector_and_none_of_motion():
    still = [walker(0, 200)] * 30
    (track,) = follow([told(("person", box)) for box in still])
    assert track.subject == "person"
    assert run([[box] for box in still])[1] == []
    assert follow([told(("person", box)) for box in still], min_travel=0.5) == []


@pytest.mark.parametrize("algorithm", ["bytetrack", "sort", "botsort", "cbiou"])
def test_a_low_score_goes_on_with_a_track_and_starts_none(algorithm):
    sure = [told(("person", walker(i)), scores=[0.9]) for i in range(20)]
    unsure = [told(("person", walker(i)), scores=[0.4]) for i in range(20, 60)]
    (track,) = follow(sure + unsure, algorithm=algorithm)
    assert track.end_s == pytest.approx(59 * PERIOD_S)
    assert follow(unsure, algorithm=algorithm) == []


def test_detections_that_do_not_fit_together_are_refused():
    boxes = np.zeros((2, 4), np.float32)
    with pytest.raises(InputError, match=r"must give boxes \(N, 4\)"):
        Detections(boxes, np.ones(3, np.float32))
    with pytest.raises(InputError, match="must be person or vehicle, got 'dog'"):
        Detections(boxes, np.ones(2, np.float32), ("person", "dog"))
