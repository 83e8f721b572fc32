"""Which engine runs a file: its suffix says so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from runtime.engines.interface import Engine
from runtime.engines.onnx_engine import DEFAULT_MAX_BATCH, OnnxEngine
from runtime.engines.tensorrt_engine import TensorrtEngine

ENGINE_SUFFIX: Final = ".engine"


def open_engine(
    path: str | Path,
    *,
    threads: int | None = None,
    providers: Sequence[str] | None = None,
    max_batch: int = DEFAULT_MAX_BATCH,
    native_scan: bool = True,
) -> Engine:
    """Open a ``.engine`` file in TensorRT, any other file in ONNX Runtime.

    ``threads``, ``providers`` and ``native_scan`` are ONNX Runtime's. Errors are those of
    :class:`TensorrtEngine` and :class:`OnnxEngine`.
    """
    if Path(path).suffix == ENGINE_SUFFIX:
        return TensorrtEngine(path, max_batch=max_batch)
    return OnnxEngine(
        path, threads=threads, providers=providers, max_batch=max_batch, native_scan=native_scan
    )
