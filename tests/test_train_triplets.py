"""What a draw gives: pictures, mask, camera and label, decided by seed, epoch and place alone."""

import numpy as np
import pytest
import torch

from mambapro import config as configs
from mambapro.config import ExperimentConfig
from mambapro.contract import UNKNOWN_CAMERA
from mambapro.datasets import read_dataset
from tests.training_runs import write_config, write_dataset
from train.data.triplets import TrainTriplets
from train.sampler import Draw


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("triplets")
    write_dataset(folder)
    return folder


def triplets(folder, **train):
    settings = [f"train.{key}={value}" for key, value in train.items()]
    path = write_config(folder / "tiny.yaml", folder)
    config = configs.load(ExperimentConfig, path, settings)
    return TrainTriplets(read_dataset(config.data.layout, folder).train, config)


def cameras(data, count=200):
    return np.array([int(data[Draw(0, 1, place)].camera) for place in range(count)])


def test_a_draw_decides_all_that_is_random(folder):
    data, again = (triplets(folder, modality_dropout=0.5, unknown_camera=0.5) for _ in range(2))
    for place in range(20):
        one, other = data[Draw(1, 2, place)], again[Draw(1, 2, place)]
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert not torch.equal(data[Draw(1, 2, 0)].images, data[Draw(1, 3, 0)].images)


def test_triplets_miss_modalities_after_the_last_epoch_of_training(folder):
    plain, dropping = (triplets(folder, modality_dropout=p, epochs=3) for p in (0.0, 1.0))
    for place in range(5):
        one, other = plain[Draw(1, 3, place)], dropping[Draw(1, 3, place)]
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
        further = dropping[Draw(1, 4, place)]
        assert torch.equal(further.images, plain[Draw(1, 4, place)].images)
        assert not further.mask.all()


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_of_the_triplets_is_of_an_unknown_camera(folder, share):
    data = triplets(folder, unknown_camera=share)
    known = data.records[0].camera
    seen = cameras(data)
    assert set(seen) <= {known, UNKNOWN_CAMERA}
    assert np.mean(seen == UNKNOWN_CAMERA) == pytest.approx(share, abs=0.1 if 0 < share < 1 else 0)
