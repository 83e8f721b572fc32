"""Write a float32 model file in INT8: ``python export/to_int8.py``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import onnx

from calibration.ranges import METHODS
from export.calibrate import Calibrated, Settings, calibrate
from export.holdout import Harm
from export.model_file import DEFAULT_SOURCE, add_source_arguments, save
from export.qdq import TARGETS, Target, insert
from mambapro.cli import (
    CheckError,
    InputError,
    add_common_arguments,
    print_json_line,
    run,
    start_logging,
)
from mambapro.config import to_dict
from mambapro.files import replacing
from mambapro.spec import ModelSpec

NAMES: Final[dict[Target, str]] = {"tensorrt": "model.int8.onnx", "cpu": "model.int8-cpu.onnx"}
"""File of each target, beside the float32 file."""

_log = logging.getLogger("to_int8")


@dataclass(frozen=True)
class Quantized:
    """What was written."""

    path: Path
    spec: ModelSpec
    target: Target
    source_bytes: int
    bytes: int
    int8_share: float
    """Share of the work of all layers that could be INT8 that is."""
    keep_float: tuple[str, ...]
    """Layer groups that stayed float32."""
    harm: Harm | None
    """What it did to the held-out triplets; None when none were held out."""
    outside: float | None
    """Largest share of an activation's values on held-out triplets beyond its range."""


def quantize(
    source: Path = DEFAULT_SOURCE,
    output: Path | None = None,
    target: Target = "tensorrt",
    settings: Settings | None = None,
) -> Quantized:
    """Write ``source`` in INT8 for ``target`` to ``output``, by default NAMES beside it.

    The ranges go to ``<source>.calibration.json`` beside the source. Raises InputError when
    ``source`` is no float32 model file of ours, when pictures are missing or too few, or when
    ``settings.cache`` was made for something else; CheckError, and writes no file, when the
    pictures are of another domain or mAP drops too far.
    """
    settings = settings or Settings()
    calibrated = calibrate(source, settings)
    return write(calibrated, output or source.with_name(NAMES[target]), target, settings)


def write(calibrated: Calibrated, output: Path, target: Target, settings: Settings) -> Quantized:
    """Write the INT8 file; CheckError, and no file, when ranking suffers too much."""
    kept = settings.keep_float
    _check_groups(calibrated, kept)
    model = int8_model(calibrated, target, kept)
    spec = int8_spec(calibrated, target, kept)
    harm = None
    with replacing(output) as aside:
        save(model, spec, aside)
        if calibrated.judge is not None:
            harm = calibrated.judge.file(aside)
            _check_harm(harm, settings.max_map_drop)
    return Quantized(
        path=output,
        spec=spec,
        target=target,
        source_bytes=calibrated.source.stat().st_size,
        bytes=output.stat().st_size,
        int8_share=calibrated.int8_share(kept),
        keep_float=kept,
        harm=harm,
        outside=calibrated.outside,
    )


def int8_model(
    calibrated: Calibrated, target: Target, keep_float: tuple[str, ...]
) -> onnx.ModelProto:
    """Return the graph with all layers in INT8 but the groups ``keep_float``."""
    layers = [layer for layer in calibrated.layers if layer.group not in keep_float]
    return insert(calibrated.model, layers, calibrated.cache.ranges, target)


def int8_spec(calibrated: Calibrated, target: Target, keep_float: tuple[str, ...]) -> ModelSpec:
    """Return what the INT8 file says of itself."""
    cache = calibrated.cache
    facts = {
        "target": target,
        "method": cache.method,
        "percent": cache.percent,
        "source": cache.manifest["source"],
        "seed": cache.manifest["seed"],
        "list_hash": cache.list_hash,
        "images": [image["files"][0] for image in cache.manifest["images"]],
        "ranges": {name: list(limits) for name, limits in cache.ranges.items()},
        "keep_float": list(keep_float),
        "int8_share": calibrated.int8_share(keep_float),
    }
    return calibrated.spec.replace(precision="int8", calibration=facts)


def _check_groups(calibrated: Calibrated, names: Sequence[str]) -> None:
    unknown = [name for name in names if name not in calibrated.groups]
    if unknown:
        raise InputError(
            f"no layer group is called {unknown[0]}; groups are {', '.join(calibrated.groups)}"
        )


def _check_harm(harm: Harm, allowed: float) -> None:
    if not harm.map_drop_points <= allowed:
        raise CheckError(
            f"INT8 lowers mAP on held-out triplets by {harm.map_drop_points:.2f} points, allowed "
            f"are {allowed:g}"
        )


if __name__ == "__main__":
    print(quantize(target=sys.argv[1]).harm)
    sys.exit(0)
