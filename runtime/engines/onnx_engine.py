"""Runs a model file in ONNX Runtime, on the CPU or by another execution provider."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime

from mambapro import native
from mambapro.cli import InputError, MissingError
from mambapro.contract import CAMERA, EMBEDDING, IMAGES, MODALITY_MASK
from mambapro.spec import ModelSpec, spec_from_metadata
from runtime.engines.interface import Cameras, Embeddings, Images, Mask, check_inputs
from runtime.engines.tensorrt_provider import TENSORRT, prepare

DEFAULT_PROVIDERS: Final = ("CPUExecutionProvider",)
DEFAULT_MAX_BATCH: Final = 16

_logger = logging.getLogger(__name__)

_INPUT_TYPES: Final = {
    IMAGES: "tensor(uint8)",
    MODALITY_MASK: "tensor(float)",
    CAMERA: "tensor(int64)",
}
_INSTALL: Final = {
    "CUDAExecutionProvider": "onnxruntime-gpu",
    TENSORRT: "onnxruntime-gpu and TensorRT",
    "OpenVINOExecutionProvider": "onnxruntime-openvino",
}


class OnnxEngine:
    """Runs a model file in ONNX Runtime; one instance may serve several threads."""

    def __init__(
        self,
        path: str | Path,
        *,
        threads: int | None = None,
        providers: Sequence[str] | None = None,
        max_batch: int = DEFAULT_MAX_BATCH,
        native_scan: bool = True,
    ) -> None:
        """Open ``path``, which export/to_onnx.py wrote.

        Args:
            path: a model file.
            threads: threads of one call; None takes ONNX Runtime's choice, every core.
            providers: execution providers in order of preference; None is the CPU's.
            max_batch: triplets in one call; larger batches are split.
            native_scan: run the selective scan by the operator of plugins/onnxruntime where it is
                built, rather than by the loop in the file; says once in the log which one runs.

        Raises:
            InputError: the file is not a model file of ours, or an argument is out of range.
            MissingError: a provider is not there; nothing slower is taken in its place.
        """
        if max_batch < 1 or (threads is not None and threads < 1):
            raise InputError(
                f"max_batch and threads must be at least 1, got {max_batch} and {threads}"
            )
        self.max_batch = max_batch
        chosen = tuple(providers or DEFAULT_PROVIDERS)
        self._session = _open_session(Path(path), threads, chosen, native_scan, max_batch)
        metadata = self._session.get_modelmeta().custom_metadata_map
        self._spec = spec_from_metadata(metadata, str(path))
        _check_signature(self._session, str(path))

    @property
    def spec(self) -> ModelSpec:
        """Facts that the exporter wrote into the file."""
        return self._spec

    def embed(self, images: Images, mask: Mask, camera: Cameras) -> Embeddings:
        """Embed any number of triplets; see :meth:`Engine.embed`, and :func:`check_inputs`."""
        check_inputs(images, mask, camera, self._spec)
        embeddings = np.empty((len(images), self._spec.embedding_dim), np.float32)
        for start in range(0, len(images), self.max_batch):
            part = slice(start, start + self.max_batch)
            feed = {IMAGES: images[part], MODALITY_MASK: mask[part], CAMERA: camera[part]}
            (embeddings[part],) = self._session.run([EMBEDDING], feed)
        return embeddings


def _open_session(
    path: Path, threads: int | None, providers: tuple[str, ...], native_scan: bool, max_batch: int
) -> onnxruntime.InferenceSession:
    if not path.is_file():
        raise InputError(f"there is no model file {path}; write one with export/to_onnx.py")
    check_providers(providers)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Idle workers of ONNX Runtime spin; decoding and tracking need those cores.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # ORT 1.31 fuses a bias of an INT8 product before it looks for Q/DQ, and then multiplies floats.
    options.add_session_config_entry("optimization.disable_specified_optimizers", "MatMulAddFusion")
    if threads is not None:
        options.intra_op_num_threads = threads
    model: str | bytes = str(path)
    settings: list[dict[str, str]] = [{} for _ in providers]
    if providers[0] == TENSORRT:
        model, settings[0] = prepare(path, _plugin(native_scan), max_batch)
    elif native_scan:
        _register_scan(options, providers)
    try:
        session = onnxruntime.InferenceSession(
            model, options, providers=list(providers), provider_options=settings
        )
    except Exception as error:  # ORT 1.31 has a class for each status, with no public base
        raise InputError(f"{path} is not an ONNX model that runs here: {_line(error)}") from error
    # ORT 1.31 warns and goes on with the CPU when a provider's own libraries do not load.
    lost = [name for name in providers if name not in session.get_providers()]
    if lost:
        raise MissingError(f"{lost[0]} did not start: its libraries or its device are missing")
    return session


def _plugin(native_scan: bool) -> Path | None:
    """Return the plugin for the TensorRT provider; says which path the scan takes."""
    library = native.find_library("tensorrt") if native_scan else None
    if library is None:
        why = native.missing("tensorrt") if native_scan else "as asked"
        _announce(f"selective scan: a loop of TensorRT's layers; {why}")
    else:
        _announce(f"selective scan: plugin, {library}")
    return library


def _register_scan(options: onnxruntime.SessionOptions, providers: tuple[str, ...]) -> None:
    """Add the native selective scan if it serves the first provider; others keep the loop."""
    library = native.find_library("onnxruntime")
    if library is None:
        _announce(
            "selective scan: the loop in the file, ten times slower than the native operator; "
            + native.missing("onnxruntime")
        )
        return
    if providers[0] not in native.providers(library):
        _announce(
            f"selective scan: the loop in the file, since {library} has no kernel for "
            f"{providers[0]}"
        )
        return
    try:
        options.register_custom_ops_library(str(library))
    except Exception as error:  # ORT 1.31 has a class for each status, with no public base
        raise MissingError(
            f"{library} does not load: {_line(error)}; build it again with `{native.ADVICE}`, "
            f"or set {native.SWITCH}=off"
        ) from error
    _announce(f"selective scan: native operator, {library}")


@functools.cache
def _announce(message: str) -> None:
    """Log once in a process."""
    _logger.info(message)


def check_providers(providers: tuple[str, ...]) -> None:
    """Raise MissingError for a provider that this ONNX Runtime has not."""
    available = onnxruntime.get_available_providers()
    for name in providers:
        if name not in available:
            raise MissingError(
                f"this onnxruntime has no provider {name}, only {', '.join(available)}; "
                f"install {_INSTALL.get(name, 'a build of onnxruntime with it')}"
            )


def _check_signature(session: onnxruntime.InferenceSession, name: str) -> None:
    types = {item.name: item.type for item in session.get_inputs()}
    outputs = [item.name for item in session.get_outputs()]
    if types != _INPUT_TYPES or outputs != [EMBEDDING]:
        raise InputError(
            f"{name} must have inputs {_INPUT_TYPES} and output {EMBEDDING}, "
            f"got {types} and {outputs}"
        )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
