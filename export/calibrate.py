"""From a float32 file to ranges: which pictures, what they show, and whether that fits."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import onnx

from calibration.cache import Cache, Wanted, activations_of, read_cache, write_cache
from calibration.images import CalibrationSet, choose, from_recorded, from_records
from calibration.ranges import Method, Range, Tap, observe, ranges
from export.holdout import Judge, check_domain, divide, read_training_split
from export.layers import Layer, groups, int8_layers, labels_of
from export.model_file import open_source
from export.qdq import without_gemm
from export.range_figure import draw_ranges
from mambapro.cli import InputError
from mambapro.config import ExperimentConfig, from_record
from mambapro.contract import PIXEL_MEAN, PIXEL_STD
from mambapro.datasets import Dataset, Split
from mambapro.files import replacing
from mambapro.spec import ModelSpec

_DOMAIN_TRIPLETS: Final = 32
"""Held-out triplets that show whether the calibration pictures are of the model's domain."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """How to calibrate, and what may be lost."""

    data: Path | None = None
    """Folder that contains the dataset; None: data.root of the training config."""
    recorded: Path | None = None
    """Folder of triplets that the stream recorded, to calibrate on in place of the dataset."""
    images: int = 128
    """Triplets to calibrate on."""
    seed: int = 0
    """Seed of what is chosen and of what is held out."""
    method: Method = "percentile"
    """How ranges are chosen."""
    percent: float = 99.999
    """For method percentile: share of each modality's values inside the range, percent."""
    cache: Path | None = None
    """Cache that must fit; None: the one beside the model, made anew when it does not fit."""
    held_out: int = 240
    """Triplets of the training split that do not calibrate but judge; 0 judges nothing."""
    max_map_drop: float = 0.5
    """Largest drop of mAP on them that passes, percentage points."""
    keep_float: tuple[str, ...] = ()
    """Layer groups that stay float32."""

    def __post_init__(self) -> None:
        if not 0 < self.percent <= 100 or self.held_out < 0:
            raise InputError(
                "percent must be above 0 and at most 100, held_out at least 0, got "
                f"{self.percent:g} and {self.held_out}"
            )


@dataclass(frozen=True)
class Calibrated:
    """A float32 model with all that is needed to write it in INT8."""

    source: Path
    model: onnx.ModelProto
    """The graph, each Gemm as MatMul and Add."""
    spec: ModelSpec
    layers: list[Layer]
    """Layers that may become INT8."""
    cache: Cache
    judge: Judge | None
    """Ranks the held-out triplets; None when none are held out."""
    outside: float | None
    """Mean share of an activation's held-out values that is clipped for being new."""

    @property
    def groups(self) -> list[str]:
        """Layer groups in graph order."""
        return groups(self.layers)

    @property
    def labels(self) -> dict[str, str]:
        """What to call each activation."""
        return labels_of(self.layers)

    def work(self, layer: Layer) -> int:
        """Return the multiplications of a layer for one triplet."""
        return self.cache.activations[layer.activation].values * layer.outputs

    def int8_share(self, keep_float: tuple[str, ...]) -> float:
        """Return the share of the layers' work that is INT8 when some groups stay float32."""
        total = sum(map(self.work, self.layers))
        kept = sum(self.work(layer) for layer in self.layers if layer.group in keep_float)
        return 1 - kept / total


def calibrate(source: Path, settings: Settings) -> Calibrated:
    """Return the model of ``source`` with ranges, from the cache where that fits.

    New ranges are written to :func:`cache_path` and drawn beside it. Raises as
    :func:`export.to_int8.quantize` says.
    """
    model, spec = open_source(source)
    model = without_gemm(model)
    layers = int8_layers(model)
    if not layers:
        raise InputError(f"{source} has no layer that INT8 serves")
    dataset, calibrating, held_out = _splits(spec, settings)
    chosen = _choose(spec, settings, calibrating)
    cache = _cache(source, model, spec, layers, chosen, settings)
    if not len(held_out):
        _log.warning("no triplets are held out: nobody looks at what INT8 does to ranking")
        return Calibrated(source, model, spec, layers, cache, None, None)
    assert dataset is not None
    outside = _outside(model, spec, layers, cache, held_out, settings)
    judge = Judge(source, dataset, held_out)
    return Calibrated(source, model, spec, layers, cache, judge, outside)


def cache_path(source: Path) -> Path:
    """Return where the calibration cache of a model file is by default."""
    return source.with_name(f"{source.stem}.calibration.json")


def _splits(spec: ModelSpec, settings: Settings) -> tuple[Dataset | None, Split, Split]:
    """Return the dataset, and its training split as (calibrating, held out)."""
    if settings.recorded is not None and not settings.held_out:
        return None, Split(()), Split(())
    config = from_record(ExperimentConfig, spec.training)
    try:
        dataset = read_training_split(config, settings.data)
    except InputError as error:
        raise InputError(
            f"{error}. INT8 needs the training split: give --data, or --recorded FOLDER with "
            "--held-out 0"
        ) from error
    return dataset, *divide(dataset.train, settings.held_out, settings.seed)


def _choose(spec: ModelSpec, settings: Settings, calibrating: Split) -> CalibrationSet:
    if settings.recorded is not None:
        triplets = from_recorded(settings.recorded, spec.subject, spec.cameras)
        source = f"crops recorded in {settings.recorded.name}"
    else:
        triplets = from_records(calibrating.records)
        source = f"training split, {len(calibrating.identities)} identities"
    chosen = choose(triplets, settings.images, settings.seed, source)
    if len(chosen.chosen) < settings.images:
        _log.warning("%d triplets calibrate, not %d", len(chosen.chosen), settings.images)
    return chosen


def _cache(
    source: Path,
    model: onnx.ModelProto,
    spec: ModelSpec,
    layers: list[Layer],
    chosen: CalibrationSet,
    settings: Settings,
) -> Cache:
    """Return the cache that was given or is beside the model, or a new one if that does not fit."""
    path = settings.cache or cache_path(source)
    wanted = Wanted(spec.weights_hash, chosen.list_hash, settings.method, settings.percent)
    names = [layer.activation for layer in layers]
    fitting = _fitting_cache(path, wanted, names, required=settings.cache is not None)
    if fitting is not None:
        return fitting
    _log.info("observing %d activations on %d triplets", len(set(names)), len(chosen.chosen))
    histograms = observe(model, _taps(layers), chosen.batches(spec.image_size))
    limits = ranges(histograms, settings.method, settings.percent) | _pixel_ranges(layers)
    activations = activations_of(histograms, limits, len(chosen.chosen))
    cache = Cache(wanted, activations, chosen.manifest())
    write_cache(path, cache)
    with replacing(path.with_name(f"{source.stem}.ranges.png")) as aside:
        title = f"{settings.method}, {chosen.source}"
        draw_ranges(histograms, limits, labels_of(layers), title, aside)
    return cache


def _fitting_cache(path: Path, wanted: Wanted, names: list[str], required: bool) -> Cache | None:
    """Return the cache in ``path``; None, or InputError if it is ``required``, if it is another."""
    if not required and not path.exists():
        return None
    try:
        cache = read_cache(path)
        cache.check(wanted, names)
    except InputError as error:
        if required:
            raise InputError(f"the calibration cache {path} is refused: {error}") from error
        _log.info("calibrating again, the cache %s is refused: %s", path, error)
        return None
    _log.info("ranges from %s", path)
    return cache


def _pixel_ranges(layers: list[Layer]) -> dict[str, Range]:
    """Normalised pixels have the same range in every picture, seen or not."""
    limits = (0 - PIXEL_MEAN) / PIXEL_STD, (1 - PIXEL_MEAN) / PIXEL_STD
    return {layer.activation: limits for layer in layers if layer.reads_pixels}


def _taps(layers: list[Layer]) -> list[Tap]:
    return list({layer.activation: layer.tap for layer in layers}.values())


def _outside(
    model: onnx.ModelProto,
    spec: ModelSpec,
    layers: list[Layer],
    cache: Cache,
    held_out: Split,
    settings: Settings,
) -> float:
    triplets = from_records(held_out.records)
    shown = choose(triplets, _DOMAIN_TRIPLETS, settings.seed, "held-out identities", least=1)
    histograms = observe(model, _taps(layers), shown.batches(spec.image_size))
    return check_domain(histograms, cache.activations, labels_of(layers))
