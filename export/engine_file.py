"""A model file -> an engine and its manifest, on the device: both appear whole, checked, or not."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx

from export.verify import cases
from mambapro import native
from mambapro.cli import CheckError, MissingError
from mambapro.environment import environment
from mambapro.files import replacing, sha256, write_json
from mambapro.metrics import paired_cosines
from mambapro.spec import ModelSpec
from runtime.engines import Engine, OnnxEngine, TensorrtEngine
from runtime.engines.cuda import describe_gpu
from runtime.engines.manifest import Device, EngineManifest, manifest_path
from runtime.engines.tensorrt_engine import import_tensorrt, this_device

if TYPE_CHECKING:
    from export.trt_build import Built

LEAST_COSINE: Final = 0.99
"""Smallest cosine of an engine's embeddings to those of ONNX Runtime for the same file."""
TIMING_CACHE: Final = "tensorrt.timing-cache"

_log = logging.getLogger("to_trt")


@dataclass(frozen=True)
class Request:
    """What to build."""

    onnx: Path
    spec: ModelSpec
    batch: tuple[int, int, int]
    """Least, usual and most triplets."""
    workspace_mb: int | None
    """Most memory of a layer, megabytes; None is no limit."""
    output: Path


def missing_parts() -> dict[str, str]:
    """Return what this machine lacks for building an engine, and what to do about each."""
    needed = {"TensorRT": import_tensorrt, "GPU": describe_gpu, "plugin": _require_plugin}
    missing = {}
    for name, find in needed.items():
        try:
            find()
        except MissingError as error:
            missing[name] = str(error)
    return missing


def build_engine(request: Request) -> EngineManifest:
    """Build the engine and put it and its manifest in place; CheckError if it computes otherwise.

    ``MAMBAPRO_NATIVE=off`` asks for an engine without our plugin: the scan is a loop, and slow.
    """
    from export import trt_build

    device = this_device(with_plugin=native.enabled())
    cache = request.output.with_name(TIMING_CACHE)
    options = trt_build.Options(
        batch=trt_build.Batch(*request.batch),
        image_size=request.spec.image_size,
        workspace_bytes=None if request.workspace_mb is None else request.workspace_mb * 10**6,
        timing_cache=cache.read_bytes() if cache.is_file() else b"",
    )
    model = request.onnx if device.plugin is None else without_functions(request.onnx)
    _log.info("building for %s with TensorRT %s; this takes minutes", device.gpu, device.tensorrt)
    built = trt_build.build(model, options)
    with replacing(cache) as aside:
        aside.write_bytes(built.timing_cache)
    return _put_in_place(request, built, device)


def without_functions(path: Path) -> bytes:
    """Return the file without the scan's body, so that TensorRT takes the plugin in any version."""
    model = onnx.load(str(path))
    del model.functions[:]
    return bytes(model.SerializeToString())


def agreement(engine: Engine, reference: Engine) -> float:
    """Return the least cosine of two engines' embeddings, over every case of export/verify.py."""
    least = 1.0
    for case in cases(reference.spec):
        inputs = case.images, case.mask, case.camera
        cosines = paired_cosines(reference.embed(*inputs), engine.embed(*inputs))
        least = min(least, float(cosines.min()))
    return least


def _require_plugin() -> None:
    if native.enabled():
        native.require_library("tensorrt")


def _put_in_place(request: Request, built: Built, device: Device) -> EngineManifest:
    """Write both files into a folder beside the target, check the engine there, move them."""
    output = request.output
    with tempfile.TemporaryDirectory(prefix=".engine-", dir=output.parent) as folder:
        staged = Path(folder) / output.name
        with replacing(staged) as aside:
            aside.write_bytes(built.plan)
        manifest = _manifest(request, built, device, sha256(staged))
        write_json(manifest_path(staged), manifest.to_dict())
        _check_engine(staged, request.onnx)
        manifest_path(staged).replace(manifest_path(output))
        staged.replace(output)
    return manifest


def _check_engine(staged: Path, source: Path) -> None:
    _log.info("comparing the engine with ONNX Runtime")
    with TensorrtEngine(staged) as engine:
        cosine = agreement(engine, OnnxEngine(source))
    if not np.isfinite(cosine) or cosine < LEAST_COSINE:
        raise CheckError(
            f"the engine differs from {source} in ONNX Runtime: least cosine {cosine:.4f}, allowed "
            f"{LEAST_COSINE}; nothing was written"
        )


def _manifest(request: Request, built: Built, device: Device, engine_sha256: str) -> EngineManifest:
    from export.trt_build import count_precisions

    return EngineManifest(
        device=device,
        spec=request.spec,
        source=request.onnx.name,
        source_sha256=sha256(request.onnx),
        engine_sha256=engine_sha256,
        batch=request.batch,
        workspace_bytes=None if request.workspace_mb is None else request.workspace_mb * 10**6,
        build_s=round(built.build_s, 1),
        layers_by_precision=count_precisions(built.layers),
        layer_precision={layer.name: layer.precision for layer in built.layers},
        environment=environment(),
    )
