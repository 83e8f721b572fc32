"""Ranking on identities that were trained on but do not calibrate: what INT8 is decided by."""

from __future__ import annotations

import dataclasses
import random
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnx

from calibration.cache import Activation
from calibration.ranges import Histogram
from export.evaluation_data import Embedded, batches
from export.measure import Quality, quality
from export.model_file import save
from mambapro.cli import CheckError, InputError
from mambapro.config import ExperimentConfig
from mambapro.contract import MODALITIES
from mambapro.datasets import Dataset, Split, drop_unreadable, read_dataset
from mambapro.files import in_checkout
from mambapro.metrics import degeneracies
from mambapro.spec import ModelSpec
from runtime.engines import Engine, OnnxEngine

MAX_NEW: Final = 0.0005
"""Share of an activation's held-out values that may be clipped for being new, on average. The
demo's own pictures reach a fifth of that; without NIR and TIR, noise or black two to ten times."""


@dataclass(frozen=True)
class Harm:
    """What quantisation did to the embeddings of the held-out triplets."""

    map: float
    """mAP, 0 to 1."""
    map_drop_points: float
    """How much worse that is than float32's, percentage points."""
    r1: float
    """Share of queries whose first entry is right."""
    cosine_mean: float
    """Mean cosine to float32's embedding."""
    cosine_min: float
    """Smallest cosine to float32's embedding."""
    overlap_at_10: float
    """Mean share of common entries among the first ten."""


def read_training_split(config: ExperimentConfig, root: Path | None) -> Dataset:
    """Return the dataset of ``config`` with nothing but the readable part of its training split.

    The test splits are not even opened: calibration must not know them.
    """
    dataset = read_dataset(config.data.layout, root or in_checkout(config.data.root))
    dataset = dataclasses.replace(dataset, query=dataset.train, gallery=dataset.train)
    dataset.check_cameras(config.model.cameras)
    return drop_unreadable(dataset, config.data.max_unreadable_share)


def divide(split: Split, held_out: int, seed: int) -> tuple[Split, Split]:
    """Return (calibrating, held out): identities are drawn until ``held_out`` triplets are there.

    InputError when fewer than two identities would be left on either side.
    """
    identities = list(split.identities)
    random.Random(seed).shuffle(identities)
    drawn: set[int] = set()
    while identities and sum(r.identity in drawn for r in split.records) < held_out:
        drawn.add(identities.pop())
    sides = [
        Split(tuple(r for r in split.records if (r.identity in drawn) == out)) for out in (0, 1)
    ]
    if held_out and min(len(side.identities) for side in sides) < 2:
        raise InputError(
            f"{held_out} triplets cannot be held out of {len(split)} of "
            f"{len(split.identities)} identities; hold out fewer"
        )
    return sides[0], sides[1]


class Judge:
    """Ranks the held-out triplets by any model and holds the result against float32."""

    def __init__(self, source: Path, dataset: Dataset, held_out: Split) -> None:
        self._dataset = dataclasses.replace(
            dataset, train=held_out, query=held_out, gallery=held_out
        )
        reference = OnnxEngine(source)
        self._inputs = list(batches(held_out, reference.spec.image_size))
        self._reference = self._embed(reference)
        self.float32_map = self._quality(self._reference).ranking.map

    def model(self, model: onnx.ModelProto, spec: ModelSpec) -> Harm:
        """Return the harm of a model that is not on disk."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            save(model, spec, path)
            return self.file(path)

    def file(self, path: Path) -> Harm:
        """Return the harm of a model file; CheckError when its embeddings are degenerate."""
        own = self._embed(OnnxEngine(path))
        problems = degeneracies(own.all_rows())
        if problems:
            raise CheckError(f"INT8 breaks the embeddings: {'; '.join(problems)}")
        return self._harm(own)

    def _embed(self, engine: Engine) -> Embedded:
        embeddings = np.concatenate([engine.embed(*batch) for batch in self._inputs])
        return Embedded(embeddings, embeddings)

    def _quality(self, own: Embedded) -> Quality:
        figures = quality(own, self._reference, self._dataset)
        if figures is None:
            raise CheckError("float32 embeddings of the held-out triplets hold NaN or infinity")
        return figures

    def _harm(self, own: Embedded) -> Harm:
        figures = self._quality(own)
        return Harm(
            map=figures.ranking.map,
            map_drop_points=100 * (self.float32_map - figures.ranking.map),
            r1=figures.ranking.rank(1),
            cosine_mean=figures.parity.cosine_mean,
            cosine_min=figures.parity.cosine_min,
            overlap_at_10=figures.parity.overlap_at_10,
        )


def check_domain(
    histograms: Mapping[str, Histogram],
    activations: Mapping[str, Activation],
    labels: Mapping[str, str],
) -> float:
    """Return the mean share of an activation's held-out values that is clipped for being new.

    ``histograms`` are those of held-out triplets; what is clipped of the calibration pictures too
    does not count. Raises CheckError above MAX_NEW: the pictures are of another domain.
    """
    excess = {name: _excess(histograms[name], activations[name]) for name in activations}
    mean = sum(excess.values()) / len(excess)
    if mean > MAX_NEW:
        worst = max(excess, key=lambda name: excess[name])
        raise CheckError(
            f"calibration pictures are of another domain than the training split: on held-out "
            f"triplets {mean:.2%} of the values lie beyond the range of the calibration pictures "
            f"(allowed {MAX_NEW:.2%}), most at {labels[worst]}; calibrate on others"
        )
    return mean


def _excess(histogram: Histogram, activation: Activation) -> float:
    clipped = histogram.clipped(activation.range)
    known = [
        activation.spreads[modality].clipped if modality in activation.spreads else 0.0
        for modality in MODALITIES
    ]
    return float((clipped - known).max())
