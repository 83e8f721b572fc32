import dataclasses
import itertools
from collections import Counter

import numpy as np
import pytest

from mambapro.config import DataConfig
from train.augment import augment, dropout_mask, erase, shift

OFF = DataConfig(flip=0, pad_px=0, erase=0)


def random(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture
def images():
    """Three equal pictures, so that differences come from the draws alone."""
    return np.repeat(random().integers(0, 256, (1, 32, 16, 3), np.uint8), 3, axis=0)


def test_switched_off_nothing_changes(images):
    np.testing.assert_array_equal(augment(images, OFF, random()), images)


def test_shape_and_type_stay_and_the_source_is_not_touched(images):
    before = images.copy()
    changed = augment(images, DataConfig(flip=1, pad_px=10, erase=1), random())
    assert (changed.shape, changed.dtype) == (images.shape, np.uint8)
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize("only", [{"flip": 0.5}, {"pad_px": 4}, {"erase": 0.5}])
def test_modalities_are_drawn_each_on_its_own(images, only):
    config = dataclasses.replace(OFF, **only)
    draws = [augment(images, config, random(seed)) for seed in range(20)]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert any((d[first] != d[second]).any() for d in draws)
        if "pad_px" not in only:
            assert any((d[first] == d[second]).all() for d in draws)


def test_same_draws_same_picture(images):
    config = DataConfig()
    np.testing.assert_array_equal(
        augment(images, config, random(3)), augment(images, config, random(3))
    )


def test_flip_is_horizontal(images):
    flipped = augment(images, dataclasses.replace(OFF, flip=1), random())
    np.testing.assert_array_equal(flipped, images[:, :, ::-1])


@pytest.mark.parametrize("offset", [(0, 0), (3, -2), (-3, 2), (5, 5), (-32, 16)])
def test_shift_is_pad_and_crop(images, offset):
    picture, pad = images[0], 32
    moved = np.empty_like(picture)
    shift(picture, np.array(offset), out=moved)
    padded = np.pad(picture, ((pad, pad), (pad, pad), (0, 0)))
    top, left = pad - offset[0], pad - offset[1]
    np.testing.assert_array_equal(moved, padded[top : top + 32, left : left + 16])


def test_erased_box_has_the_legal_size_and_noise_in_every_pixel():
    shares = []
    for seed in range(50):
        picture = np.full((64, 64, 3), 77, np.uint8)
        erase(picture, random(seed))
        rows, columns = np.nonzero((picture != 77).any(axis=2))
        box = picture[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        shares.append(box.shape[0] * box.shape[1] / 64**2)
        assert (box == 77).all(axis=2).mean() < 0.05
        assert len(np.unique(box)) > 20
    assert 0.015 < min(shares) < 0.1
    assert 0.2 < max(shares) < 0.36


def test_dropped_modalities_leave_every_incomplete_subset_as_often():
    assert dropout_mask(0, 3, random()).tolist() == [1, 1, 1]
    draws = random()
    counts = Counter(tuple(dropout_mask(1, 3, draws)) for _ in range(1200))
    incomplete = set(itertools.product((0.0, 1.0), repeat=3)) - {(0, 0, 0), (1, 1, 1)}
    assert set(counts) == incomplete
    assert min(counts.values()) > 150


def test_a_share_of_the_triplets_is_complete():
    draws = random()
    complete = np.mean([dropout_mask(0.3, 3, draws).all() for _ in range(500)])
    assert complete == pytest.approx(0.7, abs=0.06)


def test_shared_augmentation_changes_modalities_alike(images):
    config = DataConfig(flip=0.5, pad_px=4, erase=0.5, shared_augmentation=True)
    draws = [augment(images, config, random(seed)) for seed in range(10)]
    for changed in draws:
        assert (changed == changed[:1]).all()
    assert len({changed.tobytes() for changed in draws}) == 10
