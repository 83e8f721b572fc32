"""MambaPro (Wang et al., AAAI 2025): tower, aggregation, embedding and training heads."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mambapro.config import ModelConfig
from mambapro.contract import MODALITIES, PIXEL_MEAN, PIXEL_STD
from mambapro.model.clip import VisualTower
from mambapro.model.mamba import MambaAggregation

ADAPTED = frozenset({"prompts", "adapter", "cv_embed"})
"""Parts of the tower that CLIP has not; they alone learn when it is frozen."""


class Features(NamedTuple):
    """What the network sees in a batch, before the neck."""

    class_tokens: Tensor
    """(M, B, C), one class token a modality."""
    fused: Tensor | None
    """(B, M*C) from Mamba Aggregation, None without it."""

    def embedding(self) -> Tensor:
        """Return the feature used for retrieval, (B, M*C), not normalised."""
        return concatenate(self.class_tokens) if self.fused is None else self.fused


class MambaPro(nn.Module):
    """The network: three modalities, one stacked pass."""

    centre: Tensor | None
    """(M*C,) mean feature of the training data; None when embeddings are not centred."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.tower = VisualTower(config)
        self.aggregation = MambaAggregation(config) if config.ma else None
        centre = torch.zeros(config.embedding_dim) if config.centred else None
        self.register_buffer("centre", centre)
        if config.frozen:
            for name, parameter in self.tower.named_parameters():
                parameter.requires_grad_(bool(ADAPTED.intersection(name.split("."))))

    def forward(self, pixels: Tensor, camera: Tensor) -> Features:
        """Map normalised pixels (M, B, 3, H, W) float and cameras (B,) int64 to features."""
        tokens = self.tower(pixels, camera)  # (M, B, 1+P, C)
        fused = None if self.aggregation is None else self.aggregation(tokens)
        return Features(tokens[:, :, 0], fused)

    def embed(self, images: Tensor, mask: Tensor, camera: Tensor) -> Tensor:
        """Map crops to embeddings of unit length; this is the graph that is exported.

        Args:
            images: (B, M, H, W, 3) uint8, colour order R, G, B.
            mask: (B, M) float32, 1 = present, 0 = missing.
            camera: (B,) int64, -1 = unknown.

        Returns:
            (B, M*C) float32.
        """
        feature = self(normalise(images, mask), camera).embedding()
        if self.centre is not None:
            feature = feature - self.centre
        return F.normalize(feature, dim=-1)


class Neck(nn.Module):
    """BNNeck (Luo et al., 2019): batch normalisation without shift, then a classifier."""

    def __init__(self, channels: int, identities: int):
        super().__init__()
        self.bottleneck = nn.BatchNorm1d(channels)
        self.bottleneck.bias.requires_grad_(False)
        self.classifier = nn.Linear(channels, identities, bias=False)
        nn.init.normal_(self.classifier.weight, std=0.001)

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Map a feature (B, C) to (logits (B, identities), the feature itself)."""
        return self.classifier(self.bottleneck(feature)), feature

    def mean(self) -> Tensor:
        """Return the running mean (C,) of the features."""
        assert self.bottleneck.running_mean is not None
        return self.bottleneck.running_mean


class Heads(nn.Module):
    """Training heads on class tokens and on the fused feature."""

    def __init__(self, config: ModelConfig, identities: int):
        super().__init__()
        self.direct = config.direct
        channels = config.embedding_dim if config.direct else config.output_dim
        self.tokens = Neck(channels, identities)
        self.fused = Neck(config.embedding_dim, identities) if config.ma else None

    def forward(self, features: Features) -> list[tuple[Tensor, Tensor]]:
        """Return (logits, feature before the neck) of each pair that is trained."""
        tokens = features.class_tokens
        inputs = [concatenate(tokens)] if self.direct else list(tokens)
        pairs = [self.tokens(feature) for feature in inputs]
        if self.fused is not None:
            pairs.append(self.fused(features.fused))
        return pairs

    def mean_feature(self) -> Tensor:
        """Return the running mean (M*C,) of the feature used for retrieval; the neck tracks it."""
        if self.fused is not None:
            return self.fused.mean()
        return self.tokens.mean() if self.direct else self.tokens.mean().repeat(len(MODALITIES))


def normalise(images: Tensor, mask: Tensor) -> Tensor:
    """Map images (B, M, H, W, 3) uint8 and mask (B, M) to normalised pixels (M, B, 3, H, W)."""
    pixels = images.permute(1, 0, 4, 2, 3).to(mask.dtype) / 255
    return (pixels - PIXEL_MEAN) / PIXEL_STD * mask.T[:, :, None, None, None]


def concatenate(per_modality: Tensor) -> Tensor:
    """Map (M, B, C) to (B, M*C), modalities in order."""
    return torch.cat(list(per_modality.unbind(0)), dim=-1)


def parameter_groups(network: MambaPro) -> dict[str, int]:
    """Count the parameters of PFA, SRP, MA and the rest of the tower."""
    counts = {"PFA": 0, "SRP": 0, "MA": 0, "tower": 0}
    for name, parameter in network.named_parameters():
        parts = name.split(".")
        key = (
            "MA" if parts[0] == "aggregation" else "PFA" if "adapter" in parts else
            "SRP" if "prompts" in parts else "tower"
        )  # fmt: skip
        counts[key] += parameter.numel()
    return counts


assert len(MODALITIES) == 3  # the slots of the prompts and the order r, n, t rely on it
