"""The test split, read and resized as the runtime does it, and embedded by any engines."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mambapro.config import ExperimentConfig
from mambapro.contract import MODALITIES, Modality
from mambapro.datasets import Dataset, Record, Split, drop_unreadable, load_triplet, read_dataset
from mambapro.files import in_checkout
from mambapro.preprocess import stack
from runtime.engines import Cameras, Embeddings, Engine, Images, Mask

Subset = tuple[Modality, ...]
"""Modalities that are there."""

_CHUNK: Final = 32
"""Triplets held in memory at once."""


class Embedded(NamedTuple):
    """What one engine makes of a test split; unit length, rows in the order of the records."""

    query: Embeddings
    gallery: Embeddings

    def all_rows(self) -> Embeddings:
        """Return query and gallery together; only one where they are the same records."""
        return self.query if self.gallery is self.query else np.concatenate(self)


def read_test_split(config: ExperimentConfig, root: str | Path | None = None) -> Dataset:
    """Return the checked test split the checkpoint was trained for, from ``root`` or data.root.

    The training split of the result is a copy of the queries: its pictures are not wanted here.
    """
    dataset = read_dataset(config.data.layout, root or in_checkout(config.data.root))
    dataset = dataclasses.replace(dataset, train=dataset.query)
    dataset.check_cameras(config.model.cameras)
    return drop_unreadable(dataset, config.data.max_unreadable_share)


def embed_test_split(engines: Sequence[Engine], dataset: Dataset) -> list[Embedded]:
    """Embed queries and gallery by each engine; pictures are read once."""
    return embed_subsets(engines, dataset, [MODALITIES])[MODALITIES]


def embed_subsets(
    engines: Sequence[Engine], dataset: Dataset, subsets: Sequence[Subset]
) -> dict[Subset, list[Embedded]]:
    """Embed queries and gallery as if only the modalities of each subset were there.

    Each subset has one entry an engine; pictures are read once.
    """
    query = _embed(engines, dataset.query, subsets)
    shared = dataset.gallery is dataset.query
    gallery = query if shared else _embed(engines, dataset.gallery, subsets)
    return {
        subset: [Embedded(*pair) for pair in zip(query[subset], gallery[subset], strict=True)]
        for subset in subsets
    }


def batches(
    split: Split, size: tuple[int, int], count: int = _CHUNK
) -> Iterator[tuple[Images, Mask, Cameras]]:
    """Yield images (n, 3, H, W, 3), mask (n, 3) and camera (n,) of ``count`` records each."""
    for start in range(0, len(split), count):
        records = split.records[start : start + count]
        images, masks = zip(*(_load(record, size) for record in records), strict=True)
        yield np.stack(images), np.stack(masks), np.array([record.camera for record in records])


def _load(record: Record, size: tuple[int, int]) -> tuple[npt.NDArray[np.uint8], Mask]:
    pictures = load_triplet(record)
    return stack({modality: pictures[modality] for modality in MODALITIES}, size)


def _embed(
    engines: Sequence[Engine], split: Split, subsets: Sequence[Subset]
) -> dict[Subset, list[Embeddings]]:
    parts: dict[Subset, list[list[Embeddings]]] = {
        subset: [[] for _ in engines] for subset in subsets
    }
    for images, mask, camera in batches(split, engines[0].spec.image_size):
        for subset, by_engine in parts.items():
            present = np.array([modality in subset for modality in MODALITIES], np.float32)
            for engine, embedded in zip(engines, by_engine, strict=True):
                embedded.append(engine.embed(images, mask * present, camera))
    return {
        subset: [np.concatenate(embedded) for embedded in by_engine]
        for subset, by_engine in parts.items()
    }
