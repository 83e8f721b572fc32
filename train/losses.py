"""Identity loss and triplet loss of each (logits, feature) pair of the heads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mambapro.config import TrainConfig

Pair = tuple[Tensor, Tensor]


def pair_losses(
    pairs: Sequence[Pair],
    labels: Tensor,
    label_smoothing: float = 0.1,
) -> list[tuple[Tensor, Tensor]]:
    """Return (identity loss, triplet loss) of each pair.

    A pair is logits (B, identities) and the feature (B, F) before its neck; ``labels`` is (B,).
    """
    return [
        (
            F.cross_entropy(logits, labels, label_smoothing=label_smoothing),
            triplet(feature, labels),
        )
        for logits, feature in pairs
    ]


def total_loss(pairs: Sequence[Pair], labels: Tensor, config: TrainConfig) -> Tensor:
    """Return the weighted sum of the losses of all pairs, a scalar."""
    losses = pair_losses(pairs, labels, config.label_smoothing)
    return torch.stack(
        [config.identity_weight * i + config.triplet_weight * t for i, t in losses]
    ).sum()


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
