"""Modality dropout: after training, the network learns to do without a modality.

Mamba Aggregation alone learns, and from one loss: the feature of a triplet that misses modalities
shall be that of the complete one, which the network as trained gives. What is complete among the
triplets keeps it where it is. See docs/decisions/0022.
"""

from __future__ import annotations

import copy
import logging
import statistics
from typing import Final

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LinearLR

from mambapro.config import TrainConfig
from mambapro.model.network import Features, Heads, MambaPro, normalise
from mambapro.model.weights import load_checkpoint, save_checkpoint
from train.data.triplets import Batch
from train.engine import BEST, Trainer

LEARNED: Final = "learned_incomplete"
"""Key in the training state of a checkpoint that has been through this."""
LR_FACTOR: Final = 0.5
"""Learning rate at the start, over train.lr; it falls to 0 in a line."""

_log = logging.getLogger("train")


def learn_incomplete(trainer: Trainer) -> None:
    """Let the best network of a finished training learn, unless it has; rewrites best.pt."""
    world, path = trainer.world, trainer.output / BEST
    best = world.leader_first(lambda: load_checkpoint(path))
    if LEARNED in best.training:
        return
    _learn(best.network.to(trainer.device), trainer)
    if world.leads:
        heads = Heads(best.config.model, best.identities)
        heads.load_state_dict(best.heads)
        training = {**best.training, LEARNED: True}
        save_checkpoint(path, best.config, best.network, heads, training)


def _learn(network: MambaPro, trainer: Trainer) -> None:
    """Train the aggregation of ``network``, in eval mode: statistics stay as they are."""
    assert network.aggregation is not None
    teacher = copy.deepcopy(network)
    network.requires_grad_(False)
    network.aggregation.requires_grad_(True)
    epochs = further_epochs(trainer.config.train)
    steps = len(epochs) * len(trainer.sampler.batches())
    optimiser = torch.optim.Adam(
        network.aggregation.parameters(), LR_FACTOR * trainer.config.train.lr
    )
    schedule = LinearLR(optimiser, 1.0, 0.0, steps)
    student = trainer.world.wrap(network)
    for trainer.sampler.epoch in epochs:
        trainer.sampler.done, losses = 0, []
        for batch in trainer.loader:
            loss = distance(student, teacher, batch.to(trainer.device))
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        mean = statistics.fmean(losses)
        _log.info("modality dropout, epoch %d of %d: %.3f", trainer.sampler.epoch, epochs[-1], mean)


def further_epochs(config: TrainConfig) -> range:
    """Return the epochs of this, counted on from those of training: a quarter as many."""
    return range(config.epochs + 1, config.epochs + 1 + -(-config.epochs // 4))


def distance(student: nn.Module, teacher: MambaPro, batch: Batch) -> Tensor:
    """Return the mean distance from the features of triplets as they are to the complete ones'."""
    with torch.no_grad():
        pixels = normalise(batch.images, torch.ones_like(batch.mask))
        complete = teacher(pixels, batch.camera).embedding()
    features: Features = student(normalise(batch.images, batch.mask), batch.camera)
    apart: Tensor = torch.linalg.vector_norm(features.embedding() - complete, dim=1)
    return apart.mean()
