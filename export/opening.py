"""How to open what is compared: enough to do it in another process, too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mambapro import native
from mambapro.cli import InputError
from runtime.engines import DEFAULT_PROVIDERS, Engine, open_engine
from runtime.engines.manifest import read_manifest
from runtime.engines.opening import ENGINE_SUFFIX
from runtime.engines.tensorrt_provider import TENSORRT

if TYPE_CHECKING:
    from mambapro.model.weights import Checkpoint

Scan = Literal["operator", "function"]
"""What computes the selective scan: our compiled operator, or the function in the file."""


@dataclass(frozen=True)
class Opening:
    """An engine that is not open yet."""

    path: Path
    """A checkpoint, a model file or an engine file."""
    checkpoint: bool = False
    """Whether PyTorch opens it."""
    threads: int | None = None
    """Threads of one call; None is every core."""
    providers: tuple[str, ...] = DEFAULT_PROVIDERS
    """Execution providers of ONNX Runtime."""
    native_scan: bool = True
    """Whether ONNX Runtime may take the operator library."""

    @property
    def is_onnx(self) -> bool:
        """Whether ONNX Runtime opens it."""
        return not self.checkpoint and self.path.suffix != ENGINE_SUFFIX

    def open(self) -> Engine:
        """Open the engine; errors are those of :func:`read_checkpoint` and ``open_engine``."""
        if self.checkpoint:
            return self._open_in_pytorch()
        return open_engine(
            self.path,
            threads=self.threads,
            providers=self.providers,
            native_scan=self.native_scan,
        )

    def scan(self) -> Scan | None:
        """Return what computes the scan; None for PyTorch, which has paths of its own."""
        if self.checkpoint:
            return None
        if self.is_onnx:
            return "operator" if self.native_scan and has_operator(self.providers) else "function"
        return "function" if read_manifest(self.path).device.plugin is None else "operator"

    def _open_in_pytorch(self) -> Engine:
        # Here, not above: a process that measures ONNX Runtime has no torch in it.
        import torch

        from export.torch_engine import TorchEngine

        if self.threads is not None:
            torch.set_num_threads(self.threads)
        loaded = read_checkpoint(self.path)
        return TorchEngine(loaded.config, loaded.network)


def read_checkpoint(path: Path) -> Checkpoint:
    """Return the checkpoint; InputError says how to make one."""
    from mambapro.model.weights import load_checkpoint

    if not path.is_file():
        raise InputError(
            f"there is no checkpoint {path}; train one with train/main.py or give --checkpoint"
        )
    return load_checkpoint(path)


def scan_library(providers: Sequence[str]) -> native.Part:
    """Return which of our libraries computes the scan for the first of ``providers``."""
    return "tensorrt" if providers[0] == TENSORRT else "onnxruntime"


def has_operator(providers: Sequence[str]) -> bool:
    """Whether our operator is compiled for the first of ``providers``."""
    part = scan_library(providers)
    library = native.find_library(part)
    if library is None or part == "tensorrt":
        return library is not None
    return providers[0] in native.providers(library)
