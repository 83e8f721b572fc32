"""Ranking quality of a network on the test split, for every subset of modalities."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from mambapro.config import ExperimentConfig
from mambapro.contract import MODALITIES, UNKNOWN_CAMERA, Modality
from mambapro.datasets import Dataset, Split
from mambapro.metrics import PROTOCOLS, Ranking, evaluate_embeddings
from mambapro.model.network import MambaPro
from train.data.triplets import Pictures

Subset = tuple[Modality, ...]

ALL: Final[Subset] = MODALITIES
SUBSETS: Final[tuple[Subset, ...]] = tuple(
    subset for size in (3, 1, 2) for subset in itertools.combinations(MODALITIES, size)
)
"""All modalities first, then each alone, then each pair."""

FUSED: Final = "+".join(ALL)
"""Name of the subset that misses nothing."""

ELSEWHERE: Final = f"{FUSED}, camera unknown"
"""Name of the ranking that misses nothing but which camera it was, as at rigs never seen."""

BATCH: Final = 64
"""Triplets embedded at once."""


class Evaluator:
    """The test split of a dataset, decoded once."""

    def __init__(self, dataset: Dataset, config: ExperimentConfig, device: torch.device):
        self.dataset, self.device = dataset, device
        self.protocol = PROTOCOLS[dataset.layout]
        size, cache_mb = config.model.image_size, config.data.cache_mb
        self.query = Pictures(dataset.query.records, size, cache_mb)
        shared = dataset.gallery is dataset.query
        self.gallery = self.query if shared else Pictures(dataset.gallery.records, size, cache_mb)

    def rank(
        self, network: MambaPro, subsets: Sequence[Subset] = (ALL,), cameras: bool = True
    ) -> dict[str, Ranking]:
        """Score ``network`` when it sees only the modalities of each subset.

        Without ``cameras`` it is not told which camera saw a triplet. The result is keyed as
        ``rgb+nir+tir``, ``rgb``, ... The network's mode is restored.
        """
        training = network.training
        network.eval()
        query = self._embed(network, self.query, self.dataset.query, subsets, cameras)
        gallery = query
        if self.gallery is not self.query:
            gallery = self._embed(network, self.gallery, self.dataset.gallery, subsets, cameras)
        network.train(training)
        labels = self.dataset.query.labels(), self.dataset.gallery.labels()
        return {
            "+".join(subset): evaluate_embeddings((q, g), *labels, self.protocol)
            for subset, q, g in zip(subsets, query, gallery, strict=True)
        }

    def rank_everything(self, network: MambaPro) -> dict[str, Ranking]:
        """Score every subset of modalities, then all modalities of unknown cameras."""
        elsewhere = self.rank(network, cameras=False)
        return {**self.rank(network, SUBSETS), ELSEWHERE: elsewhere[FUSED]}

    @torch.inference_mode()
    def _embed(
        self,
        network: MambaPro,
        pictures: Pictures,
        split: Split,
        subsets: Sequence[Subset],
        cameras: bool = True,
    ) -> list[np.ndarray]:
        """Return the (n, M*C) embeddings of each subset."""
        parts: list[list[Tensor]] = [[] for _ in subsets]
        for images, camera in batches(pictures, split, self.device):
            camera = camera if cameras else torch.full_like(camera, UNKNOWN_CAMERA)
            for subset, embeddings in zip(subsets, parts, strict=True):
                present = [float(modality in subset) for modality in MODALITIES]
                mask = torch.tensor(present, device=self.device).expand(len(images), -1)
                embeddings.append(network.embed(images, mask, camera).float().cpu())
        return [torch.cat(embeddings).numpy() for embeddings in parts]


def batches(
    pictures: Pictures, split: Split, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images (B, M, H, W, 3) uint8 and cameras (B,) int64 of a split, in its order."""
    cameras = torch.from_numpy(split.labels().camera)
    for start in range(0, len(pictures), BATCH):
        rows = range(start, min(start + BATCH, len(pictures)))
        images = torch.from_numpy(np.stack([pictures[row] for row in rows]))
        yield images.to(device), cameras[rows.start : rows.stop].to(device)


def table(rankings: Mapping[str, Ranking]) -> str:
    """Return the rankings as lines of text, figures in percent."""
    width = max(map(len, ("modalities", *rankings)))
    lines = [f"{'modalities':<{width}} {'mAP':>6} {'R-1':>6} {'R-5':>6} {'R-10':>6} {'mINP':>6}"]
    for name, r in rankings.items():
        figures: Sequence[float] = (r.map, r.rank(1), r.rank(5), r.rank(10), r.minp)
        lines.append(f"{name:<{width}} " + " ".join(f"{100 * figure:6.1f}" for figure in figures))
    return "\n".join(lines)


def summary(rankings: Mapping[str, Ranking]) -> dict[str, object]:
    """Return what ``--json`` and metrics.json say of the rankings; shares from 0 to 1."""
    fused = rankings[FUSED]
    subsets = {name: ranking.map for name, ranking in rankings.items() if name != ELSEWHERE}
    incomplete = [value for name, value in subsets.items() if name != FUSED]
    return {
        "map": fused.map,
        "r1": fused.rank(1),
        "r5": fused.rank(5),
        "r10": fused.rank(10),
        "minp": fused.minp,
        "queries": fused.queries,
        "subsets": subsets,
        "incomplete_map": sum(incomplete) / len(incomplete),
        "unknown_camera_map": rankings[ELSEWHERE].map,
    }
