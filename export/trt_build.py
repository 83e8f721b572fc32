"""ONNX -> TensorRT: the one place that parses and builds, for the real thing and for the check.

Needs TensorRT and the standard library only: export/trt_check.py runs it where nothing else is
installed, with TensorRT-RTX in TensorRT's place.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import tensorrt as trt

from mambapro.cli import CheckError, InputError
from mambapro.contract import CAMERA, IMAGES, MODALITIES, MODALITY_MASK

_SHOW_EVERY_S: Final = 0.5

_NAMES: Final = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16"}
"""TensorRT's name of an element type -> ours; others keep theirs, in small letters."""

_MOVERS: Final = frozenset({"SHUFFLE", "UNSQUEEZE", "SQUEEZE", "IDENTITY"})
"""Kinds of layers between a DequantizeLinear and the product it serves that compute nothing."""

_PRODUCTS: Final = frozenset({"MATRIX_MULTIPLY", "CONVOLUTION"})


class Batch(NamedTuple):
    """Batch sizes of the optimisation profile."""

    least: int
    usual: int
    most: int


@dataclass(frozen=True)
class Layer:
    """One layer of the parsed network."""

    name: str
    kind: str
    precision: str
    """Element type it computes in: int8 for a product whose both inputs are quantised."""


@dataclass(frozen=True)
class Options:
    """How to build."""

    batch: Batch
    image_size: tuple[int, int]
    """Height and width of a crop, px."""
    workspace_bytes: int | None = None
    """Most memory a layer may use while it runs; None is all that the device has."""
    timing_cache: bytes = b""
    """Measurements of an earlier build on this device; saves time, changes nothing else."""


@dataclass(frozen=True)
class Built:
    """A serialised engine and what is known of it."""

    plan: bytes
    layers: list[Layer]
    timing_cache: bytes
    parse_s: float
    build_s: float


def build(model: bytes | Path, options: Options) -> Built:
    """Build an engine of ``model``, an ONNX file or its bytes; types are those of the file.

    Plugin libraries must be loaded already. An interrupt ends the build.

    Raises:
        InputError: TensorRT does not read the model.
        CheckError: TensorRT reads it and cannot build it.
    """
    messages = Messages()
    builder = trt.Builder(messages)
    flag = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flag)
    started = time.perf_counter()
    parser = trt.OnnxParser(network, messages)  # owns the weights: must outlive the build
    _parse(parser, model)
    layers = list(network_layers(network))
    parsed = time.perf_counter()
    progress = Progress()
    config = _configure(builder, options, progress)
    plan = _build_aside(builder, network, config, progress)
    if plan is None:
        raise CheckError(f"TensorRT {trt.__version__} cannot build the model: {messages.last()}")
    cache = config.get_timing_cache()
    return Built(
        plan=bytes(plan),
        layers=layers,
        timing_cache=bytes(cache.serialize()) if cache else b"",
        parse_s=parsed - started,
        build_s=time.perf_counter() - parsed,
    )


def count_precisions(layers: list[Layer]) -> dict[str, int]:
    """Return how many layers compute in each element type, the most frequent first."""
    return dict(Counter(item.precision for item in layers).most_common())


def count_products(layers: list[Layer]) -> dict[str, int]:
    """Return how many matrix products and convolutions compute in each element type."""
    return count_precisions([item for item in layers if item.kind in _PRODUCTS])


def network_layers(network: trt.INetworkDefinition) -> Iterator[Layer]:
    """Yield the layers of a strongly typed network; its types are binding for the engine."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    makers = {
        layer.get_output(index).name: layer
        for layer in layers
        for index in range(layer.num_outputs)
    }
    for layer in layers:
        yield Layer(layer.name, layer.type.name, _precision(layer, makers))


@dataclass
class _Phase:
    steps: int
    done: int = 0


class Progress(trt.IProgressMonitor):
    """Shows the build's phases on stderr and ends the build when ``cancelled`` is set.

    TensorRT calls it from several threads.
    """

    def __init__(self) -> None:
        trt.IProgressMonitor.__init__(self)
        self.cancelled = threading.Event()
        self._phases: dict[str, _Phase] = {}
        self._lock = threading.Lock()
        self._shown_s = 0.0

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        """Note a phase of ``num_steps`` steps."""
        with self._lock:
            self._phases[phase_name] = _Phase(num_steps)
        self._show()

    def step_complete(self, phase_name: str, step: int) -> bool:
        """Note a finished step; False ends the build."""
        with self._lock:
            self._phases[phase_name].done = step + 1
        self._show()
        return not self.cancelled.is_set()

    def phase_finish(self, phase_name: str) -> None:
        """Forget a phase."""
        with self._lock:
            self._phases.pop(phase_name, None)
            over = not self._phases
        if over and sys.stderr.isatty():
            print(file=sys.stderr)

    def _show(self) -> None:
        """Print the running phases, outermost first: over the last line on a terminal."""
        with self._lock:
            now = time.monotonic()
            if now - self._shown_s < (_SHOW_EVERY_S if sys.stderr.isatty() else 10):
                return
            self._shown_s = now
            phases = [f"{name} {p.done}/{p.steps}" for name, p in self._phases.items()]
        start, end = ("\r\x1b[K", "") if sys.stderr.isatty() else ("", "\n")
        print(f"{start}{' > '.join(phases)[:100]}", end=end, file=sys.stderr, flush=True)


@dataclass
class _Record:
    lines: list[str] = field(default_factory=list)


class Messages(trt.ILogger):
    """Keeps TensorRT's errors for our own message; warnings and notes are dropped."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self._errors = _Record()

    def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
        """Keep an error."""
        if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
            self._errors.lines.append(" ".join(msg.split()))

    def last(self) -> str:
        """Return the last error."""
        return self._errors.lines[-1] if self._errors.lines else "it gave no reason"


def _parse(parser: trt.OnnxParser, model: bytes | Path) -> None:
    read = parser.parse(model) if isinstance(model, bytes) else parser.parse_from_file(str(model))
    if not read:
        first = parser.get_error(0)
        raise InputError(
            f"TensorRT {trt.__version__} does not read the model, node {first.node_name()!r}: "
            f"{' '.join(first.desc().split())}"
        )


def _configure(builder: trt.Builder, options: Options, progress: Progress) -> trt.IBuilderConfig:
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.progress_monitor = progress
    config.clear_flag(trt.BuilderFlag.TF32)  # float32 means float32
    if options.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    config.set_timing_cache(config.create_timing_cache(options.timing_cache), False)
    profile = builder.create_optimization_profile()
    for name, tail in _tails(options.image_size).items():
        least, usual, most = (trt.Dims([size, *tail]) for size in options.batch)
        profile.set_shape(name, least, usual, most)
    config.add_optimization_profile(profile)
    return config


def _tails(image_size: tuple[int, int]) -> Mapping[str, tuple[int, ...]]:
    """Return each input's sizes after the batch."""
    slots = len(MODALITIES)
    return {IMAGES: (slots, *image_size, 3), MODALITY_MASK: (slots,), CAMERA: ()}


def _build_aside(
    builder: trt.Builder,
    network: trt.INetworkDefinition,
    config: trt.IBuilderConfig,
    progress: Progress,
) -> trt.IHostMemory | None:
    """Build in a thread, so that this one hears an interrupt at once and can end the build."""
    with ThreadPoolExecutor(1, thread_name_prefix="tensorrt-build") as pool:
        plan = pool.submit(builder.build_serialized_network, network, config)
        try:
            return plan.result()
        except BaseException:
            progress.cancelled.set()
            raise


def _precision(layer: trt.ILayer, makers: Mapping[str, trt.ILayer]) -> str:
    if layer.type.name in _PRODUCTS and all(
        _is_quantised(layer.get_input(index), makers) for index in range(min(2, layer.num_inputs))
    ):
        return "int8"
    return _type_name(layer.get_output(0)) if layer.num_outputs else "none"


def _is_quantised(tensor: trt.ITensor | None, makers: Mapping[str, trt.ILayer]) -> bool:
    """Whether ``tensor`` comes out of a DequantizeLinear, moved at most."""
    maker = makers.get(tensor.name) if tensor is not None else None
    while maker is not None and maker.type.name in _MOVERS:
        source = maker.get_input(0)
        maker = makers.get(source.name) if source is not None else None
    return maker is not None and maker.type.name == "DEQUANTIZE"


def _type_name(tensor: trt.ITensor) -> str:
    name = str(tensor.dtype.name)
    return _NAMES.get(name, name.lower())
