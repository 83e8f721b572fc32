"""What is wrong with a crop is named; a modality that shows nothing counts as missing."""

from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pytest

from mambapro.cli import InputError
from runtime.config import MatchConfig, SampleConfig
from runtime.watching.crops import Sampler
from runtime.watching.quality import QualityGate, clipped, contrast, sharpness
from runtime.watching.tracking import Track

SIZE = (360, 640)
GOOD = (100.0, 100.0, 140.0, 200.0)
NOISE = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), np.uint8)
BLACK = np.zeros_like(NOISE)


def track(box=GOOD, number=1, areas=None, time_s=0.0):
    area = (box[2] - box[0]) * (box[3] - box[1])
    votes = Counter({"person": 1})
    return Track(number, 0.0, time_s, box, box, confirmed=True, votes=votes, areas=areas or [area])


def flaw(tracked, others=()):
    return QualityGate(SampleConfig(), SIZE).flaw(tracked, [tracked, *others])


@pytest.mark.parametrize(
    ("tracked", "named"),
    [
        (track(), None),
        (replace(track(), guessed=True), "guessed"),
        (track((0.0, 100.0, 40.0, 200.0)), "truncated"),
        (track(areas=[4000.0] * 20 + [8000.0]), "unsteady"),
        (track(areas=[4000.0] * 20 + [2000.0]), "unsteady"),
        (track((100.0, 100.0, 110.0, 125.0)), "small"),
        (track((100.0, 100.0, 180.0, 200.0)), "wide"),
    ],
)
def test_what_is_wrong_with_a_box_is_named(tracked, named):
    assert flaw(tracked) == named


def test_a_covered_box_is_named():
    assert flaw(track(), [track((120.0, 100.0, 160.0, 200.0), number=2)]) == "covered"
    assert flaw(track(), [track((141.0, 100.0, 180.0, 200.0), number=2)]) is None


def test_figures_of_a_picture():
    grey = np.full((40, 20, 3), 100, np.uint8)
    half = grey.copy()
    half[:20] = 255
    assert contrast(grey) == 0
    assert contrast(half) == 155
    assert clipped(grey) == 0
    assert clipped(half) == 0.5
    assert sharpness(NOISE) > sharpness(cv2.GaussianBlur(NOISE, (0, 0), 2)) > sharpness(grey) == 0


def watch(pictures, **settings):
    """Return the first sample of a track that stands in ``pictures``, and the flaws meanwhile."""
    sampler = Sampler(SampleConfig(**settings), "gate", SIZE)
    boxes = dict.fromkeys(pictures, GOOD)
    for i in range(20):
        seen = track(time_s=i * 0.04)
        if (sample := sampler.offer(seen, [seen], pictures, boxes)) is not None:
            return sample, sampler.flaws()
    return None, sampler.flaws()


def test_a_covered_lens_counts_as_missing():
    sample, flaws = watch({"rgb": BLACK, "nir": NOISE, "tir": NOISE})
    assert list(sample.crops) == ["nir", "tir"]
    assert not flaws
    sample, _ = watch({"rgb": BLACK, "nir": NOISE}, min_contrast=0.0)
    assert list(sample.crops) == ["rgb", "nir"]


def test_a_rig_that_sees_nothing_gives_nothing_and_says_why():
    sample, flaws = watch({"rgb": BLACK, "nir": BLACK})
    assert sample is None
    assert flaws == {"flat": 20}


def test_a_blurred_track_gives_nothing_and_says_why():
    blurred = cv2.GaussianBlur(NOISE, (0, 0), 5)
    limit = (sharpness(blurred) + sharpness(NOISE)) / 2
    assert watch({"rgb": NOISE}, min_sharpness=limit)[0] is not None
    sample, flaws = watch({"rgb": blurred}, min_sharpness=limit)
    assert sample is None
    assert flaws == {"blurred": 20}


def test_a_dazzled_picture_loses_against_a_well_exposed_one():
    sampler = Sampler(SampleConfig(window_s=0.2), "gate", SIZE)
    dazzled = NOISE.copy()
    dazzled[150:] = 255
    for i, image in enumerate([dazzled, NOISE, dazzled, dazzled, dazzled, dazzled]):
        seen = track(time_s=i * 0.04)
        sample = sampler.offer(seen, [seen], {"rgb": image}, {"rgb": GOOD})
    assert sample.time_s == pytest.approx(0.04)


def test_flaws_are_told_once():
    sampler = Sampler(SampleConfig(), "gate", SIZE)
    cut = track((0.0, 100.0, 40.0, 200.0))
    sampler.offer(cut, [cut], {"rgb": NOISE}, {"rgb": cut.box})
    assert sampler.flaws() == {"truncated": 1}
    assert not sampler.flaws()


@pytest.mark.parametrize(
    ("make", "setting", "value", "legal"),
    [
        (SampleConfig, "per_track", 0, "at least 1"),
        (SampleConfig, "window_s", 0.0, "over 0"),
        (SampleConfig, "min_contrast", 300.0, "from 0 to 255"),
        (SampleConfig, "min_contrast", float("nan"), "from 0 to 255"),
        (SampleConfig, "min_sharpness", -1.0, "at least 0"),
        (SampleConfig, "min_visible", 1.5, "from 0 to 1"),
        (MatchConfig, "top", 0, "at least 1"),
        (MatchConfig, "decide_after", 0, "at least 1"),
        (MatchConfig, "person_threshold", 1.2, "from -1 to 1"),
    ],
)
def test_settings_that_take_or_decide_nothing_are_refused(make, setting, value, legal):
    with pytest.raises(InputError, match=rf"{setting} must be {legal}, got {value:g}"):
        make(**{setting: value})
