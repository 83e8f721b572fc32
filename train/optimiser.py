"""Adam with a rate of its own for biases, and the learning rate of each epoch."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from mambapro.config import TrainConfig

WARMUP_START = 0.01
"""The warm-up starts at this share of train.lr, for biases too."""
FINAL_LR = 1e-3
"""The cosine ends at this share of train.lr, for biases too."""


def build_optimiser(modules: Iterable[nn.Module], config: TrainConfig) -> torch.optim.Adam:
    """Return Adam over the trainable parameters, weights in group 0 and biases in group 1."""
    named = [item for module in modules for item in module.named_parameters()]
    weights = [p for name, p in named if p.requires_grad and "bias" not in name]
    biases = [p for name, p in named if p.requires_grad and "bias" in name]
    groups = [
        {"params": weights, "base_lr": config.lr},
        {"params": biases, "base_lr": config.lr * config.bias_lr_factor},
    ]
    return torch.optim.Adam(groups, lr=config.lr, weight_decay=config.weight_decay, fused=True)


def set_learning_rate(optimiser: torch.optim.Optimizer, epoch: int, config: TrainConfig) -> None:
    """Give each group its learning rate for ``epoch``, counted from 1."""
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(epoch, group["base_lr"], config)


def learning_rate(epoch: int, base_lr: float, config: TrainConfig) -> float:
    """Return the rate of a group whose full rate is ``base_lr`` in ``epoch``, counted from 1.

    Linear warm-up over ``warmup_epochs``, then the cosine of the whole run's length.
    """
    if epoch < config.warmup_epochs:
        start = WARMUP_START * config.lr
        return start + (base_lr - start) * epoch / config.warmup_epochs
    final = FINAL_LR * config.lr
    return final + (base_lr - final) * 0.5 * (1 + math.cos(math.pi * epoch / config.epochs))
