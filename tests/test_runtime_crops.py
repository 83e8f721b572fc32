"""Crops follow the homography; only clear views are taken as samples."""

from collections import Counter

import cv2
import numpy as np
import pytest

from runtime.config import SampleConfig
from runtime.watching.crops import Sampler, registered_boxes, visible_share, warp_box
from runtime.watching.tracking import Track
from tests.runtime_scenes import HOMOGRAPHIES, Walk, picture

SIZE = (360, 640)


def track(box, number=1, time_s=0.0, areas=None, subject="person"):
    area = (box[2] - box[0]) * (box[3] - box[1])
    votes = Counter({subject: 1})
    return Track(number, 0.0, time_s, box, box, confirmed=True, votes=votes, areas=areas or [area])


def test_a_registered_crop_shows_the_subject():
    walk = Walk("a", 0.0)
    for modality in ("nir", "tir"):
        box = warp_box(walk.box(2.0), HOMOGRAPHIES[modality])
        empty, seen = picture(modality, [], 2.0), picture(modality, [walk], 2.0)
        changed = np.abs(seen.astype(int) - empty).max(axis=2) > 12
        x, y, w, h = cv2.boundingRect(cv2.findNonZero(changed.astype(np.uint8)))
        assert box == pytest.approx((x, y, x + w, y + h), abs=2.5)


def test_a_crop_outside_the_picture_is_dropped():
    homographies = {"rgb": np.eye(3), "nir": np.array([[1, 0, -300], [0, 1, 0], [0, 0, 1.0]])}
    sizes = {"rgb": SIZE, "nir": SIZE}
    left, right = (20.0, 50.0, 60.0, 150.0), (400.0, 50.0, 440.0, 150.0)
    assert list(registered_boxes(left, homographies, sizes, 0.85)) == ["rgb"]
    assert list(registered_boxes(right, homographies, sizes, 0.85)) == ["rgb", "nir"]
    assert list(registered_boxes(right, homographies, {"nir": SIZE}, 0.85)) == ["nir"]


def test_visible_share():
    assert visible_share((-10, 0, 10, 10), (100, 100)) == pytest.approx(0.5)
    assert visible_share((200, 0, 210, 10), (100, 100)) == 0.0


def offer(sampler, tracked, others=(), modalities=("rgb",), seed=0):
    rng = np.random.default_rng(seed)
    pictures = {m: rng.integers(0, 255, (*SIZE, 3), np.uint8) for m in modalities}
    boxes = dict.fromkeys(modalities, tracked.box)
    return sampler.offer(tracked, [tracked, *others], pictures, boxes)


def take(box, others=(), **settings):
    sampler = Sampler(SampleConfig(**settings), "gate", SIZE)
    for i in range(20):
        if (sample := offer(sampler, track(box, time_s=i * 0.04), others)) is not None:
            return sample
    return None


GOOD = (100.0, 100.0, 140.0, 200.0)


def test_a_clear_view_is_taken_and_owns_its_pixels():
    sample = take(GOOD)
    assert sample is not None
    assert sample.crops["rgb"].shape == (100, 40, 3)
    assert sample.crops["rgb"].base is None
    assert (sample.rig, sample.track) == ("gate", 1)


def test_a_vehicle_may_be_as_wide_as_it_is():
    sampler = Sampler(SampleConfig(), "gate", SIZE)
    wide = (100.0, 100.0, 300.0, 200.0)
    views = [track(wide, time_s=i * 0.04, subject="vehicle") for i in range(20)]
    assert any(offer(sampler, view) is not None for view in views)


@pytest.mark.parametrize(
    "box",
    [
        (0.0, 100.0, 40.0, 200.0),  # cut off on the left
        (100.0, 260.0, 140.0, 360.0),  # and below
        (100.0, 100.0, 180.0, 200.0),  # two side by side
        (100.0, 100.0, 110.0, 125.0),  # too small
    ],
)
def test_bad_views_are_not_taken(box):
    assert take(box) is None


def test_a_covered_view_is_not_taken():
    assert take(GOOD, [track((120.0, 100.0, 160.0, 200.0), number=2)]) is None
    assert take(GOOD, [track((139.0, 100.0, 180.0, 200.0), number=2)]) is not None


def test_a_box_that_suddenly_grew_is_not_taken():
    sampler = Sampler(SampleConfig(), "gate", SIZE)
    for i in range(20):
        grown = track((100.0, 100.0, 180.0, 200.0), time_s=i * 0.04, areas=[4000.0] * 20 + [8000.0])
        assert offer(sampler, grown) is None


def test_a_blurred_view_loses_against_a_sharp_one():
    sampler = Sampler(SampleConfig(window_s=0.2), "gate", SIZE)
    sharp = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), np.uint8)
    blurred = cv2.GaussianBlur(sharp, (0, 0), 5)
    for i, image in enumerate([blurred, sharp, blurred, blurred, blurred, blurred]):
        seen = track(GOOD, time_s=i * 0.04)
        sample = sampler.offer(seen, [seen], {"rgb": image}, {"rgb": GOOD})
    assert sample is not None
    assert sample.time_s == pytest.approx(0.04)


def test_samples_are_few_and_spread():
    sampler = Sampler(SampleConfig(per_track=4, window_s=0.4), "gate", SIZE)
    times = [
        sample.time_s
        for i in range(400)
        if (sample := offer(sampler, track(GOOD, time_s=i * 0.04), seed=i)) is not None
    ]
    assert len(times) == 4
    assert times[-1] - times[0] > 1.5


def test_a_short_track_gives_its_best_crop_at_its_end():
    sampler = Sampler(SampleConfig(), "gate", SIZE)
    seen = track(GOOD)
    assert offer(sampler, seen) is None
    assert sampler.finish(seen) is not None
    assert sampler.finish(seen) is None


def test_a_first_good_crop_is_taken_once_when_the_track_has_moved_a_little():
    sampler = Sampler(SampleConfig(glimpse_travel=0.2), "gate", SIZE)
    pictures = {"rgb": np.random.default_rng(0).integers(0, 255, (*SIZE, 3), np.uint8)}
    walker = track((100.0, 50.0, 130.0, 150.0), time_s=0.5)

    def look(box):
        walker.box = box
        return sampler.glimpse(walker, [walker], pictures, {"rgb": box})

    assert look(walker.box) is None
    walker.travel = 0.25
    assert look((0.0, 50.0, 30.0, 150.0)) is None  # cut off
    sample = look((130.0, 50.0, 160.0, 150.0))
    assert (sample.rig, sample.track, sample.time_s) == ("gate", 1, 0.5)
    assert sample.crops["rgb"].shape == (100, 30, 3)
    assert look(walker.box) is None
    off = Sampler(SampleConfig(glimpse_travel=None), "gate", SIZE)
    fresh = track(walker.box)
    fresh.travel = 1.0
    assert off.glimpse(fresh, [fresh], pictures, {"rgb": fresh.box}) is None


@pytest.mark.parametrize("unclear", ["cut off", "crossing"])
def test_who_is_not_clear_for_long_is_glimpsed_as_he_is_and_again_when_clear(unclear):
    sampler = Sampler(SampleConfig(glimpse_travel=0.2), "gate", SIZE)
    pictures = {"rgb": np.random.default_rng(0).integers(0, 255, (*SIZE, 3), np.uint8)}
    late = track((0.0 if unclear == "cut off" else 100.0, 50.0, 130.0, 150.0))
    late.travel, late.guessed = 0.25, unclear == "crossing"
    taken_s = []
    for time_s in np.arange(0.0, 2.0, 0.04):
        late.end_s = time_s
        if time_s > 1.5:
            late.box, late.guessed, late.areas = (100.0, 50.0, 130.0, 150.0), False, [3000.0]
        if sampler.glimpse(late, [late], pictures, {"rgb": late.box}) is not None:
            taken_s.append(float(time_s))
    assert taken_s == pytest.approx([0.6, 1.52])
