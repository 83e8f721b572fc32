"""Crops in, embeddings out: runs model files and engines. Needs no torch."""

from runtime.engines.interface import (
    Cameras,
    Embeddings,
    Engine,
    Images,
    Mask,
    check_inputs,
)
from runtime.engines.onnx_engine import DEFAULT_MAX_BATCH, DEFAULT_PROVIDERS, OnnxEngine
from runtime.engines.opening import open_engine
from runtime.engines.tensorrt_engine import TensorrtEngine

__all__ = [
    "DEFAULT_MAX_BATCH",
    "DEFAULT_PROVIDERS",
    "Cameras",
    "Embeddings",
    "Engine",
    "Images",
    "Mask",
    "OnnxEngine",
    "TensorrtEngine",
    "check_inputs",
    "open_engine",
]
