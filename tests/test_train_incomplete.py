"""Modality dropout: what learns, what stays, and that a run goes on as if never interrupted."""

import json

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mambapro import config as configs
from mambapro.cli import InputError, run
from mambapro.config import ExperimentConfig, TrainConfig
from mambapro.contract import EXIT_DONE
from mambapro.datasets import read_dataset
from mambapro.model.network import normalise
from mambapro.model.weights import load_checkpoint
from tests.training_runs import write_config, write_dataset
from train.data.triplets import Batch, TrainTriplets
from train.engine import BEST, LAST
from train.experiment import RESULT
from train.incomplete import LEARNED, distance, further_epochs
from train.main import main
from train.sampler import Draw

DROPOUT = "train.modality_dropout=0.5"


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("incomplete")
    write_dataset(folder)
    return write_config(folder / "tiny.yaml", folder)


def train(config_file, output, *arguments):
    command = ["--config", config_file, "--output", output, "--device", "cpu", *arguments]
    assert run(main, [str(part) for part in command]) == EXIT_DONE
    return load_checkpoint(output / BEST)


@pytest.fixture(scope="module")
def pair(config_file, tmp_path_factory):
    """Checkpoints of the same training without and with dropout."""
    folder = tmp_path_factory.mktemp("pair")
    plain = train(config_file, folder / "plain")
    with pytest.MonkeyPatch.context() as patch:  # epochs enough to see what they do
        patch.setattr("train.incomplete.further_epochs", lambda config: range(4, 16))
        taught = train(config_file, folder / "taught", "--set", DROPOUT)
    return plain, taught, folder


def test_only_the_aggregation_differs(pair):
    plain, taught, folder = pair
    learned = {name for name, _ in plain.network.aggregation.named_parameters(prefix="aggregation")}
    other = taught.network.state_dict()
    changed = {n for n, v in plain.network.state_dict().items() if not torch.equal(v, other[n])}
    assert changed
    assert changed <= learned  # no statistics, no centre, nothing of the tower
    torch.testing.assert_close(taught.heads, plain.heads, rtol=0, atol=0)
    last = [load_checkpoint(folder / name / LAST) for name in ("plain", "taught")]
    states = [checkpoint.network.state_dict() for checkpoint in last]
    torch.testing.assert_close(states[1], states[0], rtol=0, atol=0)
    assert "subsets" in json.loads((folder / "taught" / RESULT).read_text())


def test_a_finished_run_does_not_learn_twice(pair, config_file):
    _, taught, folder = pair
    assert taught.training[LEARNED]
    again = train(config_file, folder / "taught", "--set", DROPOUT, "--resume")
    before, after = taught.network.state_dict(), again.network.state_dict()
    torch.testing.assert_close(after, before, rtol=0, atol=0)


@torch.no_grad()
def test_the_distance_is_between_what_inference_gives(pair):
    network = pair[0].network
    random = np.random.default_rng(0)
    images = torch.from_numpy(
        random.integers(0, 256, (3, 3, *network.config.image_size, 3), np.uint8)
    )
    mask, camera = torch.tensor([[1.0, 0, 0], [0, 1, 1], [1, 1, 1]]), torch.tensor([0, 1, -1])
    batch = Batch(images, mask, camera, torch.zeros(3, dtype=torch.int64))
    seen, complete = (
        network(normalise(images, m), camera).embedding() for m in (mask, torch.ones(3, 3))
    )
    expected = torch.linalg.vector_norm(seen - complete, dim=1)
    assert expected[2] == 0
    torch.testing.assert_close(distance(network, network, batch), expected.mean())


@torch.no_grad()
def test_incomplete_triplets_come_nearer_to_the_complete(pair):
    plain, taught, _ = pair
    dataset = read_dataset(plain.config.data.layout, plain.config.data.root)
    data = TrainTriplets(dataset.train, taught.config)
    unseen = [data[Draw(record, 16, record)] for record in range(16)]
    batch = next(iter(DataLoader(unseen, batch_size=16)))
    before, after = (distance(c.network, plain.network, batch) for c in (plain, taught))
    assert after < before


def test_a_quarter_as_many_epochs_follow():
    assert further_epochs(TrainConfig(epochs=44)) == range(45, 56)
    assert further_epochs(TrainConfig(epochs=1)) == range(2, 3)


def test_dropout_without_aggregation_is_refused(config_file):
    with pytest.raises(InputError, match="modality_dropout needs model"):
        configs.load(ExperimentConfig, config_file, [DROPOUT, "model.ma=false"])
