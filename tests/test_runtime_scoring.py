"""Scores on hand-made truth."""

import json

import numpy as np
import pytest

from mambapro.cli import InputError
from runtime.figures.scoring import (
    Labelled,
    Scorer,
    TrueFrame,
    TrueSubject,
    iou,
    matched,
    read_truth,
    score_identities,
)
from runtime.identity.identification import Sighting
from runtime.sources import Frame
from runtime.sync.synchroniser import Triplet
from runtime.watching.rig import RigStep, TrackView
from runtime.watching.tracking import Track

PICTURE = np.zeros((2, 2, 3), np.uint8)


def line(modality, frame, time_s, subjects):
    return {
        "rig": "gate", "modality": modality, "frame": frame, "pts_s": time_s, "time_s": time_s,
        "subjects": [
            {"identity": name, "kind": "person", "box": box, "visible": visible}
            for name, box, visible in subjects
        ],
    }  # fmt: skip


def write(path, lines):
    path.write_text("".join(json.dumps(item) + "\n" for item in lines))
    return path


def step(frames, detections, tracks=()):
    triplet = Triplet(0.0, {m: Frame(PICTURE, 0.0, "pts", i, 0.0) for m, i in frames.items()}, 0.0)
    views = [
        TrackView(Track(number, 0, 0, boxes["rgb"], boxes["rgb"]), boxes)
        for number, boxes in tracks
    ]
    return RigStep("gate", triplet, np.array(detections).reshape(-1, 4), views, [], [])


def test_overlap():
    assert iou((0, 0, 10, 10), (0, 0, 10, 10)) == 1
    assert iou((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert iou((0, 0, 10, 10), (20, 0, 30, 10)) == 0


def test_each_subject_is_found_once_and_by_the_best_box():
    boxes = [(0, 0, 10, 10), (1, 0, 11, 10), (50, 0, 60, 10)]
    assert matched(boxes, [(1, 0, 11, 10), (30, 0, 40, 10)]) == {1: 0}
    assert matched([], [(0, 0, 1, 1)]) == {}


def test_recall_precision_overlap_and_sync_error(tmp_path):
    box, other, hidden = [0, 0, 10, 20], [50, 0, 60, 20], [80, 0, 90, 20]
    truth = read_truth(write(tmp_path / "truth.jsonl", [
        line("rgb", 0, 1.000, [("a", box, 1.0), ("b", other, 0.9), ("c", hidden, 0.2)]),
        line("nir", 3, 1.012, [("a", [0, 0, 10, 10], 1.0)]),
    ]))  # fmt: skip
    scorer = Scorer(truth, {"gate": "rgb"})
    tracks = [(7, {"rgb": (0, 0, 10, 20), "nir": (0, 0, 10, 20)})]
    scorer.add(step({"rgb": 0, "nir": 3}, [box, hidden, [200, 0, 210, 20]], tracks))
    scores = scorer.result([])
    assert scores["detection_recall"] == 0.5  # a, not b; c hides and need not be found
    assert scores["detection_precision"] == 0.5  # a, not the far box; c's box is no mistake
    assert scores["tracking_recall"] == 0.5
    assert scores["tracking_precision"] == 1.0
    assert scores["crop_overlap"] == {"rgb": 1.0, "nir": 0.5}
    assert scores["sync_error_p95_ms"] == pytest.approx(12.0)


def test_a_sighting_is_whom_its_track_followed_meanwhile():
    box = (0, 0, 10, 20)
    frames = {
        ("gate", "rgb", i): TrueFrame(float(i), (TrueSubject("a" if i < 6 else "b", box, 1.0),))
        for i in range(10)
    }
    scorer = Scorer(frames, {"gate": "rgb"})
    for i in range(10):
        triplet = Triplet(float(i), {"rgb": Frame(PICTURE, float(i), "pts", i, 0.0)}, 0.0)
        track = Track(3, 0, 9, box, box)
        view = TrackView(track, {"rgb": box})
        scorer.add(RigStep("gate", triplet, np.array([box]), [view], [], []))
    assert scorer.true_identity(Sighting("gate", track, "person", 0.0)) == "a"
    assert scorer.true_identity(Sighting("gate", track, "person", 0.0, left_s=5.0)) == "a"
    assert scorer.true_identity(Sighting("gate", track, "person", 6.0)) == "b"
    assert scorer.true_identity(Sighting("gate", track, "person", 9.5)) is None


def test_nothing_to_score_is_none():
    scores = Scorer({}, {"gate": "rgb"}).result([])
    assert scores["detection_recall"] is None
    assert scores["identity_accuracy_within"] is None


def test_an_identity_is_right_for_whom_it_was_opened():
    seen = [
        Labelled("a", "gate", "P1", False, 0.0),
        Labelled("b", "gate", "P2", False, 1.0),
        Labelled("a", "yard", "P1", True, 2.0),  # across, right
        Labelled("b", "yard", "P1", True, 3.0),  # across, wrong
        Labelled("a", "gate", "P1", True, 4.0),  # within, right
        Labelled("b", "gate", "P5", False, 5.0),  # within, wrong
        Labelled("b", "yard", "P1", True, 6.0),  # within, wrong: the same mistake twice
        Labelled("b", "gate", "P5", True, 6.5),  # within, right: the identity is its own
        Labelled("c", "gate", "P1", True, 7.0),  # a stranger called known
    ]
    scores = score_identities(list(reversed(seen)))
    assert scores.counts == {"within": 4, "across": 2, "new": 3}
    assert scores.within == pytest.approx(2 / 4)
    assert scores.across == 0.5
    assert scores.later == pytest.approx(3 / 6)
    assert scores.new == pytest.approx(2 / 3, abs=1e-4)


def test_calling_everybody_the_same_is_no_way_to_score():
    seen = [Labelled(who, "gate", "P1", i > 0, i) for i, who in enumerate("abcabcabc")]
    scores = score_identities(seen)
    assert scores.within == pytest.approx(2 / 6, abs=1e-4)
    assert scores.new == pytest.approx(1 / 3, abs=1e-4)


@pytest.mark.parametrize("text", ["{}\n", "no json\n", '{"rig": 1}\n'])
def test_what_is_no_truth_is_refused(tmp_path, text):
    path = tmp_path / "truth.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match="line 1"):
        read_truth(path)


def test_missing_truth_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.jsonl"):
        read_truth(tmp_path / "none.jsonl")
