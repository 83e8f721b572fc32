"""What a network makes of the test split, before and after Mamba Aggregation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F

from mambapro.config import ExperimentConfig
from mambapro.contract import MODALITIES
from mambapro.datasets import Dataset, Split
from mambapro.metrics import (
    PROTOCOLS,
    Floats,
    Mask,
    Ranking,
    dropped_pairs,
    evaluate_embeddings,
)
from mambapro.model.network import concatenate, normalise
from mambapro.model.weights import Checkpoint
from train.data.triplets import Pictures
from train.evaluation import batches

BEFORE: Final = "before MA"
AFTER: Final = "after MA"


@dataclass(frozen=True)
class View:
    """One split, its pictures and its features."""

    split: Split
    pictures: Pictures
    features: dict[str, Floats]
    """:data:`BEFORE`, the class tokens, and :data:`AFTER`, the embedding, unless the network has no
    MA: (n, M*C) of unit length."""

    def __len__(self) -> int:
        return len(self.split)


@dataclass(frozen=True)
class Views:
    """The queries and the gallery, the same object where one folder serves as both."""

    query: View
    gallery: View
    dropped: Mask
    """(Q, G), True where the protocol leaves a pair out."""
    same: Mask
    """(Q, G), True for two triplets of one identity."""
    rankings: dict[str, Ranking]
    """Ranking quality of each kind of features."""

    @property
    def last(self) -> str:
        """The kind of features that is used for retrieval."""
        return list(self.query.features)[-1]


def view(checkpoint: Checkpoint, dataset: Dataset, device: torch.device) -> Views:
    """Show ``checkpoint`` the queries and the gallery of ``dataset``."""
    query = see(checkpoint, dataset.query, device)
    shared = dataset.gallery is dataset.query
    gallery = query if shared else see(checkpoint, dataset.gallery, device)
    labels = dataset.query.labels(), dataset.gallery.labels()
    protocol = PROTOCOLS[dataset.layout]
    rankings = {
        stage: evaluate_embeddings(
            (query.features[stage], gallery.features[stage]), *labels, protocol
        )
        for stage in query.features
    }
    same = labels[0].identity[:, None] == labels[1].identity[None]
    return Views(query, gallery, dropped_pairs(*labels, protocol), same, rankings)


@torch.inference_mode()
def see(checkpoint: Checkpoint, split: Split, device: torch.device) -> View:
    """Return the split with its features; a centred network's class tokens are centred too."""
    config, network = checkpoint.config, checkpoint.network.to(device).eval()
    pictures = read_pictures(split, config)
    means = {BEFORE: token_mean(checkpoint).to(device), AFTER: network.centre}
    parts: dict[str, list[Floats]] = {BEFORE: [], AFTER: []}
    for images, camera in batches(pictures, split, device):
        mask = torch.ones(len(images), len(MODALITIES), device=device)
        seen = network(normalise(images, mask), camera)
        for stage, feature in ((BEFORE, concatenate(seen.class_tokens)), (AFTER, seen.fused)):
            if feature is not None:
                mean = means[stage] if config.model.centred else None
                centred = feature if mean is None else feature - mean
                parts[stage].append(F.normalize(centred, dim=-1).cpu().numpy())
    return View(split, pictures, {name: np.concatenate(p) for name, p in parts.items() if p})


def read_pictures(split: Split, config: ExperimentConfig) -> Pictures:
    """Return the split's pictures as the network takes them."""
    return Pictures(split.records, config.model.image_size, config.data.cache_mb)


def token_mean(checkpoint: Checkpoint) -> torch.Tensor:
    """Return the mean (M*C,) of the class tokens in training, which their neck tracks."""
    mean = checkpoint.heads["tokens.bottleneck.running_mean"]
    return mean if checkpoint.config.model.direct else mean.repeat(len(MODALITIES))
