"""Identity loss and metric loss of each (logits, feature) pair of the heads."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mambapro.config import TrainConfig

Pair = tuple[Tensor, Tensor]


def pair_losses(
    pairs: Sequence[Pair],
    labels: Tensor,
    label_smoothing: float = 0.1,
    metric: str = "triplet",
) -> list[tuple[Tensor, Tensor]]:
    """Return (identity loss, metric loss) of each pair.

    A pair is logits (B, identities) and the feature (B, F) before its neck; ``labels`` is (B,).
    ``metric`` is a value of train.metric_loss.
    """
    loss = metric_loss(metric)
    return [
        (
            F.cross_entropy(logits, labels, label_smoothing=label_smoothing),
            loss(feature, labels),
        )
        for logits, feature in pairs
    ]


def total_loss(
    pairs: Sequence[Pair],
    labels: Tensor,
    config: TrainConfig,
) -> Tensor:
    """Return the weighted sum of the losses of all pairs, a scalar."""
    losses = pair_losses(pairs, labels, config.label_smoothing, config.metric_loss)
    return torch.stack(
        [config.identity_weight * i + config.triplet_weight * m for i, m in losses]
    ).sum()


def metric_loss(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the loss on features (B, F) and labels (B,) of that name; see train.metric_loss."""
    return triplet if name == "triplet" else _circle()


@functools.cache
def _circle() -> Callable[[Tensor, Tensor], Tensor]:
    from pytorch_metric_learning.losses import CircleLoss

    loss = CircleLoss()  # the published scale and margin
    return lambda features, labels: loss(features.float(), labels)


def triplet(features: Tensor, labels: Tensor) -> Tensor:
    """Batch-hard triplet loss with a soft margin (Hermans et al., 2017), on Euclidean distances.

    ``features`` (B, F) are taken as they are; each is compared with the farthest of its label and
    the nearest of another.
    """
    distances = pairwise_distances(features.float())
    same = labels[:, None] == labels[None]
    # A feature's distance to itself is the root of a rounding error.
    others = same ^ torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    farthest = distances.masked_fill(~others, 0).amax(1)
    nearest = distances.masked_fill(same, torch.inf).amin(1)
    return F.softplus(farthest - nearest).mean()


def pairwise_distances(features: Tensor) -> Tensor:
    """Return the (B, B) Euclidean distances between rows of (B, F)."""
    squares = features.square().sum(1)
    squared = squares[:, None] + squares[None] - 2 * features @ features.T
    return squared.clamp(min=1e-12).sqrt()
