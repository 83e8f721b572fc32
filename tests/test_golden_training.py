"""One training step against the authors' implementation: losses, gradients, what gets none."""

import dataclasses

import numpy as np
import pytest
import torch

from mambapro.config import ModelConfig, TrainConfig
from mambapro.model.names import authors_head_names, authors_network_names
from mambapro.model.network import Heads, MambaPro
from mambapro.model.weights import load_authors
from tests import golden
from tests.tolerances import GOLDEN_TRAINING, GRADIENT_ZERO
from train.losses import pair_losses, total_loss


@pytest.fixture(scope="module")
def reference():
    return golden.read_json("reference_training.json")


def step(direct: bool, reference):
    """One forward and backward pass in training mode with the reference's weights and images."""
    config = dataclasses.replace(ModelConfig(), direct=direct)
    network, heads = MambaPro(config), Heads(config, identities=20)
    load_authors(network, golden.authors_state(), "golden", heads)
    network.train()
    heads.train()
    labels = torch.tensor(reference["labels"])
    pixels = golden.pixels("train", len(labels))
    pairs = heads(network(pixels, torch.tensor(reference["cameras"])))
    return network, heads, pairs, labels


@pytest.fixture(scope="module")
def direct_step(reference):
    network, heads, pairs, labels = step(True, reference)
    total = total_loss(pairs, labels, TrainConfig())
    total.backward()
    with torch.no_grad():
        losses = pair_losses(pairs, labels)
    return network, heads, losses, float(total.detach())


def gradients(network, heads) -> dict[str, torch.Tensor | None]:
    """Gradients of all trainable parameters under the authors' names, stacked ones apart."""
    found = {}
    for name, parameter in network.named_parameters():
        theirs = authors_network_names(name)
        if not parameter.requires_grad:
            continue
        if isinstance(theirs, str):
            found[theirs] = parameter.grad
        else:
            slices = [None] * len(theirs) if parameter.grad is None else parameter.grad
            found.update(zip(theirs, slices, strict=True))
    for name, parameter in heads.named_parameters():
        if parameter.requires_grad:
            found[authors_head_names(name, heads.direct)] = parameter.grad
    return found


def test_losses(direct_step, reference):
    losses = [[float(i), float(t)] for i, t in direct_step[2]]
    np.testing.assert_allclose(losses, reference["losses"], rtol=GOLDEN_TRAINING)
    np.testing.assert_allclose(direct_step[3], reference["total"], rtol=GOLDEN_TRAINING)


def test_gradient_norms(direct_step, reference):
    found = gradients(*direct_step[:2])
    norms = {name: float(found[name].norm()) for name in reference["grad_norms"]}
    for name, expected in reference["grad_norms"].items():
        assert norms[name] == pytest.approx(expected, rel=GOLDEN_TRAINING, abs=GRADIENT_ZERO), name


def test_parameters_without_gradient(direct_step, reference):
    # The authors' checkpoints hold both kinds of heads; ours hold the one that is trained.
    unused_heads = {"BACKBONE.bottleneck.weight", "BACKBONE.classifier.weight"}
    without = {
        name
        for name, gradient in gradients(*direct_step[:2]).items()
        if gradient is None or not gradient.any()
    }
    assert without == set(reference["trainable_without_gradient"]) - unused_heads


def test_losses_of_one_shared_head(reference):
    with torch.no_grad():
        _, _, pairs, labels = step(False, reference)
    losses = [[float(i), float(t)] for i, t in pair_losses(pairs, labels)]
    np.testing.assert_allclose(losses, reference["direct0_losses"], rtol=GOLDEN_TRAINING)
