"""Runs a TensorRT engine through pycuda. It has not run on a GPU yet: see docs/deploy.md.

One thread owns the context and everything in it; any thread may call ``embed``, which hands the
work over and waits. Of two sets of pinned buffers one is filled while the GPU works on the other.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from mambapro import native
from mambapro.cli import InputError, MissingError
from mambapro.contract import (
    CAMERA,
    EMBEDDING,
    IMAGES,
    MODALITIES,
    MODALITY_MASK,
    OP_DOMAIN,
    OP_NAME,
    OP_VERSION,
)
from mambapro.files import sha256
from mambapro.spec import ModelSpec
from runtime.engines.cuda import Cuda, describe_gpu, primary_context
from runtime.engines.cuda_graphs import CaptureError, GraphDriver
from runtime.engines.interface import Cameras, Embeddings, Images, Mask, check_inputs
from runtime.engines.manifest import Device, EngineManifest, Plugin, check_fits, read_manifest

if TYPE_CHECKING:
    import tensorrt as trt

_Result = TypeVar("_Result")

_DTYPES: Final[dict[str, npt.DTypeLike]] = {
    IMAGES: np.uint8,
    MODALITY_MASK: np.float32,
    CAMERA: np.int64,
    EMBEDDING: np.float32,
}
_SLOTS: Final = 2
"""Sets of pinned buffers: one is filled while the other is in use."""

_logger = logging.getLogger(__name__)


class TensorrtEngine:
    """Runs an engine of export/to_trt.py; one instance may serve several threads."""

    def __init__(self, path: str | Path, *, max_batch: int | None = None) -> None:
        """Open ``path``.

        Args:
            path: an engine; its manifest lies beside it.
            max_batch: triplets in one call; None, and at most, what the engine was built for.

        Raises:
            InputError: the file is no engine of ours, or was built for another device.
            MissingError: TensorRT, pycuda, a GPU or the plugin library is not there.
        """
        if max_batch is not None and max_batch < 1:
            raise InputError(f"max_batch must be at least 1, got {max_batch}")
        self._manifest = read_manifest(Path(path))
        self._owner = ThreadPoolExecutor(1, thread_name_prefix="tensorrt")
        self._session: _Session | None = None
        try:
            self._session = self._ask(lambda: _Session(Path(path), self._manifest, max_batch))
        except BaseException:
            self._owner.shutdown()
            raise

    @property
    def spec(self) -> ModelSpec:
        """Facts about the model, from the manifest."""
        return self._manifest.spec

    def embed(self, images: Images, mask: Mask, camera: Cameras) -> Embeddings:
        """Embed any number of triplets; see :meth:`Engine.embed`, and :func:`check_inputs`."""
        check_inputs(images, mask, camera, self.spec)
        session = self._session
        if session is None:
            raise InputError("the engine is closed")
        return self._ask(lambda: session.embed(images, mask, camera))

    def close(self) -> None:
        """Free everything on the GPU and end the thread; the second time does nothing."""
        session, self._session = self._session, None
        if session is not None:
            self._ask(session.close)
            self._owner.shutdown()

    def __enter__(self) -> TensorrtEngine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _ask(self, work: Callable[[], _Result]) -> _Result:
        """Return what ``work`` returns, or raise what it raises, in the owner's thread."""
        return self._owner.submit(work).result()


class _Session:
    """Everything that lives on the GPU. Made, used and closed by one thread."""

    def __init__(self, path: Path, manifest: EngineManifest, max_batch: int | None) -> None:
        check_fits(manifest, this_device(manifest.device.plugin is not None), path)
        self._graphs: dict[int, int] = {}
        self._contexts: dict[int, trt.IExecutionContext] = {}
        self._slots: list[_Slot] = []
        self._shapes = _shapes(manifest.spec)
        # Loops of TensorRT's own layers ask the CPU how to go on: no graph can hold them.
        self._use_graphs = manifest.device.plugin is not None
        self._driver = GraphDriver()
        self._scope = contextlib.ExitStack()
        self._cuda = self._scope.enter_context(primary_context())
        try:
            self._open(path, max_batch)
        except BaseException:
            self.close()
            raise

    def embed(self, images: Images, mask: Mask, camera: Cameras) -> Embeddings:
        """Embed checked triplets, in parts of at most the engine's batch."""
        embeddings = np.empty((len(images), *self._shapes[EMBEDDING]), np.float32)
        for turn, start in enumerate(range(0, len(images), self._most)):
            part = slice(start, start + self._most)
            slot = self._slots[turn % _SLOTS]
            slot.collect()
            rows = slot.fill(images[part], mask[part], camera[part], self._least)
            self._start(slot, rows, embeddings[part])
        for slot in self._slots:
            slot.collect()
        return embeddings

    def close(self) -> None:
        """Wait for the GPU and free what it holds, the last made first."""
        self._cuda.synchronize()
        for graph in self._graphs.values():
            self._driver.destroy(graph)
        self._graphs, self._contexts, self._slots = {}, {}, []
        self._engine: trt.ICudaEngine | None = None
        self._runtime: trt.Runtime | None = None
        self._cuda.close()
        self._scope.close()

    def _open(self, path: Path, max_batch: int | None) -> None:
        self._runtime = new_runtime()
        engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if engine is None:
            raise InputError(f"TensorRT cannot read {path}; its log says why")
        _check_tensors(engine, path)
        self._engine = engine
        self._least, _, most = (shape[0] for shape in engine.get_tensor_profile_shape(IMAGES, 0))
        self._most = min(max_batch or most, most)
        rows = max(self._least, self._most)
        self._device = {
            name: self._cuda.allocate(rows * _bytes_a_row(name, shape))
            for name, shape in self._shapes.items()
        }
        self._scratch_bytes = engine.device_memory_size_v2
        self._scratch = self._cuda.allocate(self._scratch_bytes)
        self._slots = [_Slot(self._cuda, self._shapes, rows) for _ in range(_SLOTS)]

    def _start(self, slot: _Slot, rows: int, target: Embeddings) -> None:
        """Put upload, network and download of a filled slot into the stream."""
        try:
            for name in (IMAGES, MODALITY_MASK, CAMERA):
                self._cuda.upload(slot.arrays[name][:rows], self._device[name])
            self._launch(rows)
            self._cuda.download(self._device[EMBEDDING], slot.arrays[EMBEDDING][:rows])
            slot.pending = (self._cuda.mark(), target)
        except BaseException:
            self._cuda.synchronize()  # the slot is free again only when nothing reads it
            raise

    def _launch(self, rows: int) -> None:
        """Run the network: by the graph of this batch size from the second time on."""
        if rows in self._graphs:
            self._driver.launch(self._graphs[rows], self._cuda.stream)
            return
        first = rows not in self._contexts
        context = self._context(rows)
        self._execute(context)
        if first and self._use_graphs:
            # TensorRT finishes its own preparations in the first run; only then can it be captured.
            self._cuda.synchronize()
            self._capture(rows, context)

    def _capture(self, rows: int, context: trt.IExecutionContext) -> None:
        try:
            self._graphs[rows] = self._driver.capture(
                self._cuda.stream, lambda: self._execute(context)
            )
        except CaptureError as error:
            self._use_graphs = False
            _logger.warning("no CUDA graphs, calls cost more CPU time: %s", error)

    def _context(self, rows: int) -> trt.IExecutionContext:
        """Return the context of a batch size: a graph is bound to the one it was captured from.

        They share the scratch memory, since they run one after the other in one stream.
        """
        if rows not in self._contexts:
            self._contexts[rows] = self._new_context(rows)
        return self._contexts[rows]

    def _new_context(self, rows: int) -> trt.IExecutionContext:
        import tensorrt as trt

        assert self._engine is not None
        context = self._engine.create_execution_context(
            trt.ExecutionContextAllocationStrategy.USER_MANAGED
        )
        if context is None:
            raise MissingError("the GPU has no memory for another execution context")
        context.set_device_memory(self._scratch, self._scratch_bytes)
        context.set_optimization_profile_async(0, self._cuda.stream)
        for name, address in self._device.items():
            context.set_tensor_address(name, address)
            if name != EMBEDDING:
                context.set_input_shape(name, (rows, *self._shapes[name]))
        return context

    def _execute(self, context: trt.IExecutionContext) -> None:
        if not context.execute_async_v3(self._cuda.stream):
            raise RuntimeError("TensorRT could not start the network; see its message above")


class _Slot:
    """A set of pinned buffers; it is not written while the GPU may still read it."""

    def __init__(self, cuda: Cuda, shapes: dict[str, tuple[int, ...]], rows: int) -> None:
        self.arrays = {
            name: cuda.pinned((rows, *shape), _DTYPES[name]) for name, shape in shapes.items()
        }
        self.pending: tuple[Any, Embeddings] | None = None
        """Event after the last download, and where its result belongs."""

    def fill(self, images: Images, mask: Mask, camera: Cameras, least: int) -> int:
        """Copy triplets in; return their number, at least ``least``: the first one is repeated."""
        assert self.pending is None
        rows = max(len(images), least)
        for name, values in ((IMAGES, images), (MODALITY_MASK, mask), (CAMERA, camera)):
            self.arrays[name][: len(values)] = values
            self.arrays[name][len(values) : rows] = values[:1]
        return rows

    def collect(self) -> None:
        """Wait for the result, if one is on its way, and copy it to where it belongs."""
        if self.pending is not None:
            done, target = self.pending
            done.synchronize()
            target[:] = self.arrays[EMBEDDING][: len(target)]
            self.pending = None


def this_device(with_plugin: bool = True) -> Device:
    """Return the GPU, TensorRT and plugin of this machine; MissingError names what is missing."""
    import_tensorrt()
    import tensorrt as trt

    name, capability = describe_gpu()
    plugin = load_plugin() if with_plugin else None
    return Device(name, capability, str(trt.__version__), plugin)


def import_tensorrt() -> None:
    """Raise MissingError, which says how to install it, unless TensorRT can be imported."""
    try:
        import tensorrt as trt

        trt.Runtime  # noqa: B018 - a folder of that name is not TensorRT
    except (ImportError, AttributeError) as error:
        raise MissingError(
            f"TensorRT cannot be imported ({error}); JetPack brings it along (apt install "
            "python3-libnvinfer, an environment with --system-site-packages), elsewhere: pip "
            "install tensorrt"
        ) from error


@functools.cache
def load_plugin() -> Plugin:
    """Load the plugin library into TensorRT, once in a process, and say what it is."""
    import tensorrt as trt

    library = native.require_library("tensorrt")
    try:
        trt.get_plugin_registry().load_library(str(library))
        creator = trt.get_plugin_registry().get_creator(OP_NAME, str(OP_VERSION), "")
    except RuntimeError as error:
        raise MissingError(f"{library} does not load into TensorRT: {error}") from error
    if creator is None:
        raise MissingError(
            f"{library} brings no plugin {OP_NAME}; build it again with `{native.ADVICE}`"
        )
    return Plugin(library.name, f"{OP_DOMAIN}::{OP_NAME} {OP_VERSION}", sha256(library))


def new_runtime() -> trt.Runtime:
    """Return TensorRT's runtime, whose messages go to our log."""
    import tensorrt as trt

    class Log(trt.ILogger):
        """Hands TensorRT's warnings and errors on."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
            levels = {
                trt.ILogger.Severity.WARNING: logging.WARNING,
                trt.ILogger.Severity.ERROR: logging.ERROR,
                trt.ILogger.Severity.INTERNAL_ERROR: logging.ERROR,
            }
            _logger.log(levels.get(severity, logging.DEBUG), "TensorRT: %s", msg)

    return trt.Runtime(Log())


def _shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Return each tensor's sizes after the batch."""
    slots = len(MODALITIES)
    return {
        IMAGES: (slots, *spec.image_size, 3),
        MODALITY_MASK: (slots,),
        CAMERA: (),
        EMBEDDING: (spec.embedding_dim,),
    }


def _bytes_a_row(name: str, shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64)) * np.dtype(_DTYPES[name]).itemsize


def _numpy_type(engine: trt.ICudaEngine, name: str) -> np.dtype[Any]:
    import tensorrt as trt

    return np.dtype(trt.nptype(engine.get_tensor_dtype(name)))  # type: ignore[no-untyped-call]


def _check_tensors(engine: trt.ICudaEngine, path: Path) -> None:
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    found = {name: _numpy_type(engine, name) for name in names}
    expected = {name: np.dtype(dtype) for name, dtype in _DTYPES.items()}
    if found != expected:
        raise InputError(f"{path} must have tensors {expected}, got {found}; build it again")
