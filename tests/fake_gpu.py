"""A GPU, pycuda, the CUDA driver's graphs and TensorRT, in Python: strict where they are.

Nothing that is put into a stream happens before somebody waits for it, as late as can be. Each rule
of the real thing that our engine must keep is an assertion here: a context belongs to the thread
that pushed it, pinned memory must not change while a copy is on its way, results are not there
before they were waited for, freed memory is gone, a capture runs nothing and follows a first run.
"""

import ctypes
import enum
import json
import threading
import types
from collections.abc import Callable

import numpy as np

from mambapro.contract import CAMERA, EMBEDDING, IMAGES, MODALITY_MASK

VERSION = "10.3.0.30"
GPU_NAME, CAPABILITY = "Orin", (8, 7)
DTYPES = {IMAGES: np.uint8, MODALITY_MASK: np.float32, CAMERA: np.int64, EMBEDDING: np.float32}
FAILED = 901
"""CUDA_ERROR_STREAM_CAPTURE_INVALIDATED."""


def network(images: np.ndarray, mask: np.ndarray, camera: np.ndarray) -> np.ndarray:
    """What the fake engine computes: (n, 9) means by modality and colour, moved by the camera."""
    means = images.astype(np.float32).mean(axis=(2, 3)) * mask[:, :, None]
    return (means.reshape(len(means), 9) + camera[:, None]).astype(np.float32)


class Gpu:
    """State of the one device, and what was done with it."""

    def __init__(self) -> None:
        self.memory: dict[int, np.ndarray] = {}
        self.pinned: set[int] = set()
        self.streams: dict[int, Stream] = {}
        self.graphs: dict[int, list] = {}
        self.contexts: list[int] = []
        """Threads that pushed the primary context and have not popped it."""
        self.threads: set[int] = set()
        """Threads that used the device."""
        self.calls: list[str] = []
        self.next = 0x1000
        self.count = 1
        self.refuse_capture = False

    def use(self, name: str, *, capturable: bool = False) -> None:
        """Note a call; it must come from a thread in which the context is current."""
        assert threading.get_ident() in self.contexts, f"{name}: no context in this thread"
        capturing = [s for s in self.streams.values() if s.captured is not None]
        assert capturable or not capturing, f"{name} during a capture"
        self.threads.add(threading.get_ident())
        self.calls.append(name)

    def new(self) -> int:
        self.next += 0x1000
        return self.next

    def at(self, address: int) -> np.ndarray:
        assert address in self.memory, "memory was freed or never allocated"
        return self.memory[address]

    def view(self, address: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
        size = int(np.prod(shape)) * np.dtype(DTYPES[name]).itemsize
        return self.at(address)[:size].view(DTYPES[name]).reshape(shape)

    def assert_clean(self) -> None:
        """Everything was given back."""
        left = (self.memory, self.pinned, self.graphs, self.contexts)
        assert not any(left), left


class Stream:
    def __init__(self, gpu: Gpu) -> None:
        gpu.use("Stream")
        self.gpu, self.handle = gpu, gpu.new()
        self.work: list[Callable[[], None]] = []
        self.captured: list | None = None
        gpu.streams[self.handle] = self

    def put(self, work: Callable[[], None]) -> None:
        (self.work if self.captured is None else self.captured).append(work)

    def synchronize(self) -> None:
        self.gpu.use("Stream.synchronize")
        self.run(len(self.work))

    def run(self, count: int) -> None:
        for _ in range(count):
            self.work.pop(0)()


class Event:
    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self.done = True

    def record(self, stream: Stream) -> "Event":
        self.gpu.use("Event.record")
        self.done, self.stream = False, stream
        stream.put(self._finish)
        return self

    def synchronize(self) -> "Event":
        self.gpu.use("Event.synchronize")
        while not self.done:
            self.stream.run(1)
        return self

    def _finish(self) -> None:
        self.done = True


class DeviceAllocation:
    def __init__(self, gpu: Gpu, size: int) -> None:
        gpu.use("mem_alloc")
        self.gpu, self.address = gpu, gpu.new()
        gpu.memory[self.address] = np.full(size, 0xAB, np.uint8)

    def __int__(self) -> int:
        return self.address

    def free(self) -> None:
        self.gpu.use("DeviceAllocation.free")
        del self.gpu.memory[self.address]


class HostAllocation:
    def __init__(self, gpu: Gpu, shape: tuple[int, ...], dtype: np.dtype) -> None:
        gpu.use("pagelocked_empty")
        self.gpu, self.key = gpu, gpu.new()
        self.array = np.full(shape, 77, dtype)
        self.__array_interface__ = self.array.__array_interface__
        gpu.pinned.add(self.key)

    def free(self) -> None:
        self.gpu.use("HostAllocation.free")
        self.gpu.pinned.remove(self.key)


def fake_pycuda(gpu: Gpu) -> types.ModuleType:
    """Return ``pycuda.driver``."""
    driver = types.ModuleType("pycuda.driver")

    class Error(Exception):
        pass

    class Context:
        def push(self) -> None:
            gpu.contexts.append(threading.get_ident())

        @staticmethod
        def pop() -> None:
            assert gpu.contexts[-1] == threading.get_ident(), "popped in another thread"
            gpu.contexts.pop()

    class Device:
        def __init__(self, index: int) -> None:
            assert index < gpu.count

        @staticmethod
        def count() -> int:
            return gpu.count

        def name(self) -> str:
            return GPU_NAME

        def compute_capability(self) -> tuple[int, int]:
            return CAPABILITY

        def retain_primary_context(self) -> Context:
            return Context()

    def upload(dest: int, src: np.ndarray, stream: Stream) -> None:
        gpu.use("memcpy_htod_async", capturable=True)
        assert src.flags.c_contiguous
        sent = src.copy()

        def copy() -> None:
            assert np.array_equal(src, sent), "pinned memory was overwritten while in flight"
            gpu.at(dest)[: src.nbytes] = src.reshape(-1).view(np.uint8)

        stream.put(copy)

    def download(dest: np.ndarray, src: int, stream: Stream) -> None:
        gpu.use("memcpy_dtoh_async", capturable=True)
        assert dest.flags.c_contiguous
        dest.fill(np.nan)  # what is read too early is seen

        def copy() -> None:
            assert np.isnan(dest).all(), "pinned memory was overwritten while in flight"
            dest.reshape(-1).view(np.uint8)[:] = gpu.at(src)[: dest.nbytes]

        stream.put(copy)

    driver.Error, driver.Device, driver.Context = Error, Device, Context
    driver.init = lambda: None
    driver.Stream, driver.Event = lambda: Stream(gpu), lambda: Event(gpu)
    driver.mem_alloc = lambda size: DeviceAllocation(gpu, size)
    driver.pagelocked_empty = lambda shape, dtype: np.asarray(HostAllocation(gpu, shape, dtype))
    driver.memcpy_htod_async, driver.memcpy_dtoh_async = upload, download
    return driver


class FakeDriver:
    """``libcuda.so.1`` as far as ctypes sees it: functions that return an error code."""

    def __init__(self, gpu: Gpu) -> None:
        def begin(stream: int, mode: int) -> int:
            gpu.use("cuStreamBeginCapture_v2")
            gpu.streams[stream].captured = []
            return 0

        def end(stream: int, graph) -> int:
            gpu.use("cuStreamEndCapture", capturable=True)
            captured, gpu.streams[stream].captured = gpu.streams[stream].captured, None
            if gpu.refuse_capture or not captured:
                return FAILED
            graph._obj.value = gpu.new()
            gpu.graphs[graph._obj.value] = captured
            return 0

        def instantiate(executable, graph: ctypes.c_void_p, flags: int) -> int:
            gpu.use("cuGraphInstantiateWithFlags")
            executable._obj.value = gpu.new()
            gpu.graphs[executable._obj.value] = gpu.graphs[graph.value]
            return 0

        def launch(graph: int, stream: int) -> int:
            gpu.use("cuGraphLaunch")
            for work in gpu.graphs[graph]:
                gpu.streams[stream].put(work)
            return 0

        def destroy(graph) -> int:
            gpu.use("destroy")
            del gpu.graphs[getattr(graph, "value", graph)]
            return 0

        self.cuStreamBeginCapture_v2, self.cuStreamEndCapture = begin, end
        self.cuGraphInstantiateWithFlags, self.cuGraphLaunch = instantiate, launch
        self.cuGraphDestroy = lambda graph: destroy(graph)
        self.cuGraphExecDestroy = lambda graph: destroy(graph)


def plan(batch: tuple[int, int, int], size: tuple[int, int], **changes) -> bytes:
    """Return an engine file that the fake TensorRT reads."""
    return json.dumps({"batch": batch, "size": size, **changes}).encode()


class FakeEngine:
    def __init__(self, gpu: Gpu, facts: dict) -> None:
        self.gpu, self.facts = gpu, facts
        self.names = list(facts.get("tensors", DTYPES))
        self.num_io_tensors, self.device_memory_size_v2 = len(self.names), 64

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_dtype(self, name: str) -> str:
        return name

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        assert name == IMAGES
        assert profile == 0
        return [(rows, 3, *self.facts["size"], 3) for rows in self.facts["batch"]]

    def create_execution_context(self, strategy: str) -> "FakeContext":
        assert strategy == "user managed"
        return FakeContext(self)


class FakeContext:
    def __init__(self, engine: FakeEngine) -> None:
        self.engine, self.gpu = engine, engine.gpu
        self.addresses: dict[str, int] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.scratch: int | None = None
        self.profile: int | None = None
        self.runs = 0

    def set_device_memory(self, memory: int, size: int) -> None:
        assert size >= self.engine.device_memory_size_v2
        assert len(self.gpu.at(memory)) >= size
        self.scratch = memory

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        self.profile = index
        return stream in self.gpu.streams

    def set_tensor_address(self, name: str, address: int) -> None:
        assert not self.runs, "a captured context was changed"
        self.addresses[name] = address

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> None:
        least, _, most = self.engine.facts["batch"]
        assert least <= shape[0] <= most, "outside of the profile"
        assert not self.runs, "a captured context was changed"
        self.shapes[name] = shape

    def execute_async_v3(self, handle: int) -> bool:
        self.gpu.use("execute_async_v3", capturable=True)
        if self.engine.facts.get("fails"):
            return False
        assert self.profile == 0
        assert self.scratch is not None
        assert set(self.addresses) == set(DTYPES)
        stream = self.gpu.streams[handle]
        if stream.captured is not None:
            assert self.runs, "captured before the first run"
            assert not stream.work, "captured while the first run goes on"
        self.runs += 1
        stream.put(self._compute)
        return True

    def _compute(self) -> None:
        inputs = [
            self.gpu.view(self.addresses[name], name, self.shapes[name])
            for name in (IMAGES, MODALITY_MASK, CAMERA)
        ]
        result = network(*inputs)
        self.gpu.view(self.addresses[EMBEDDING], EMBEDDING, result.shape)[:] = result


def fake_tensorrt(gpu: Gpu) -> types.ModuleType:
    """Return ``tensorrt``."""
    module = types.ModuleType("tensorrt")
    loaded: list[str] = []

    class ILogger:
        Severity = enum.Enum("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE")

    class Runtime:
        def __init__(self, logger: ILogger) -> None:
            assert isinstance(logger, ILogger)
            self.logger = logger

        def deserialize_cuda_engine(self, serialized: bytes) -> FakeEngine | None:
            gpu.use("deserialize_cuda_engine")
            try:
                return FakeEngine(gpu, json.loads(serialized))
            except ValueError:
                self.logger.log(ILogger.Severity.ERROR, "magic tag does not match")
                return None

    class Registry:
        def load_library(self, path: str) -> int:
            loaded.append(path)
            return len(loaded)

        def get_creator(self, name: str, version: str, namespace: str) -> str | None:
            return name if loaded else None

    module.__version__ = VERSION
    module.ILogger, module.Runtime = ILogger, Runtime
    module.ExecutionContextAllocationStrategy = types.SimpleNamespace(USER_MANAGED="user managed")
    module.nptype = lambda dtype: DTYPES.get(dtype, np.float16)
    registry = Registry()
    module.get_plugin_registry = lambda: registry
    module.loaded = loaded
    return module
