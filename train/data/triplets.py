"""Triplets of a split as tensors."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mambapro.config import ExperimentConfig
from mambapro.contract import MODALITIES, UNKNOWN_CAMERA
from mambapro.datasets import Record, Split, load_triplet
from mambapro.preprocess import Picture, stack
from train.augment import augment, dropout_mask
from train.sampler import Draw, IdentitySampler


class Batch(NamedTuple):
    """What the loop needs of a batch."""

    images: Tensor
    """(B, M, H, W, 3) uint8."""
    mask: Tensor
    """(B, M) float32, 1 = present."""
    camera: Tensor
    """(B,) int64."""
    label: Tensor
    """(B,) int64 class labels."""

    def to(self, device: torch.device) -> Batch:
        """Return the batch on ``device``."""
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in self))


class Pictures:
    """Resized triplets (M, H, W, 3) uint8 of records, kept in memory when they fit."""

    def __init__(self, records: Sequence[Record], size: tuple[int, int], cache_mb: int):
        self.records, self.size = records, size
        needed_mb = len(records) * len(MODALITIES) * size[0] * size[1] * 3 / 1e6
        self.kept: Picture | None = self._read_all() if needed_mb <= cache_mb else None

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Picture:
        return self._read(index) if self.kept is None else self.kept[index]

    def _read(self, index: int) -> Picture:
        images, _ = stack(load_triplet(self.records[index]), self.size)
        return images

    def _read_all(self) -> Picture:
        with ThreadPoolExecutor() as pool:
            return np.stack(list(pool.map(self._read, range(len(self.records)))))


class TrainTriplets(Dataset[Batch]):
    """Augmented triplets, keyed by a :class:`Draw`, which decides all that is random."""

    def __init__(self, split: Split, config: ExperimentConfig):
        self.config = config
        self.records = split.records
        self.labels = split.class_labels()
        self.pictures = Pictures(split.records, config.model.image_size, config.data.cache_mb)

    def __getitem__(self, draw: Draw) -> Batch:
        random = np.random.default_rng([self.config.train.seed, draw.epoch, 1 + draw.position])
        images = augment(self.pictures[draw.record], self.config.data, random)
        further = draw.epoch > self.config.train.epochs  # see train/incomplete.py
        dropout = self.config.train.modality_dropout if further else 0.0
        mask = dropout_mask(dropout, len(MODALITIES), random)
        known = random.random() >= self.config.train.unknown_camera
        camera = self.records[draw.record].camera if known else UNKNOWN_CAMERA
        return Batch(*map(torch.as_tensor, (images, mask, camera, self.labels[draw.record])))


def train_loader(
    triplets: TrainTriplets, sampler: IdentitySampler, device: torch.device
) -> DataLoader[Batch]:
    """Return the loader of training batches; its order and content depend on the sampler alone."""
    workers = triplets.config.data.workers
    return DataLoader(
        triplets,
        batch_sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
        worker_init_fn=_ignore_interrupt,
    )


def _ignore_interrupt(worker: int) -> None:
    """Leave Ctrl-C to the training process, which still needs its workers for the current step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
