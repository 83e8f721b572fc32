"""A calibrated model in INT8: its graph, and what the file says of itself."""

from __future__ import annotations

import onnx

from export.calibrate import Calibrated
from export.qdq import Target, insert
from mambapro.spec import ModelSpec


def int8_model(
    calibrated: Calibrated, target: Target, keep_float: tuple[str, ...] = ()
) -> onnx.ModelProto:
    """Return the graph with all layers in INT8 but those of the groups ``keep_float``."""
    layers = [layer for layer in calibrated.layers if layer.group not in keep_float]
    return insert(calibrated.model, layers, calibrated.cache.ranges, target)


def int8_spec(
    calibrated: Calibrated, target: Target, keep_float: tuple[str, ...] = ()
) -> ModelSpec:
    """Return the facts of the INT8 file: those of the float32 file, and how it was calibrated."""
    cache = calibrated.cache
    facts = {
        "target": target,
        "method": cache.made_for.method,
        "percent": cache.made_for.percent,
        "source": cache.manifest["source"],
        "seed": cache.manifest["seed"],
        "list_hash": cache.made_for.list_hash,
        "images": [image["files"][0] for image in cache.manifest["images"]],
        "ranges": {name: list(limits) for name, limits in cache.ranges.items()},
        "keep_float": list(keep_float),
        "int8_share": calibrated.int8_share(keep_float),
    }
    return calibrated.spec.replace(precision="int8", calibration=facts)
