import json
from pathlib import Path

import pytest
import torch
from torch import nn

from mambapro.config import TrainConfig
from train.optimiser import build_optimiser, set_learning_rate

GOLDEN = json.loads((Path(__file__).parent / "golden" / "reference_training.json").read_text())


def test_published_learning_rates():
    config = TrainConfig()
    optimiser = build_optimiser([nn.Linear(2, 2)], config)
    expected = GOLDEN["lr_per_epoch_weight_bias"]
    assert len(expected) == config.epochs
    for epoch, rates in enumerate(expected, start=1):
        set_learning_rate(optimiser, epoch, config)
        assert [group["lr"] for group in optimiser.param_groups] == pytest.approx(rates, rel=1e-9)


def test_published_weight_decay():
    optimiser = build_optimiser([nn.Linear(2, 2)], TrainConfig())
    decays = [group["weight_decay"] for group in optimiser.param_groups]
    assert decays == GOLDEN["weight_decay_weight_bias"]


def test_groups_hold_weights_biases_and_nothing_frozen():
    layer, frozen = nn.Linear(3, 2), nn.Linear(3, 2).requires_grad_(False)
    weights, biases = build_optimiser([layer, frozen], TrainConfig()).param_groups
    assert [id(p) for p in weights["params"]] == [id(layer.weight)]
    assert [id(p) for p in biases["params"]] == [id(layer.bias)]


def test_step_moves_biases_twice_as_far():
    config = TrainConfig(weight_decay=0)
    layer = nn.Linear(1, 1)
    before = layer.weight.item(), layer.bias.item()
    optimiser = build_optimiser([layer], config)
    set_learning_rate(optimiser, config.warmup_epochs, config)
    layer(torch.ones(1, 1)).sum().backward()
    optimiser.step()
    moved = [abs(p.item() - b) for p, b in zip((layer.weight, layer.bias), before, strict=True)]
    assert moved[1] / moved[0] == pytest.approx(2, rel=1e-2)
