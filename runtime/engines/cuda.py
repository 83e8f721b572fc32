"""One GPU through pycuda: its primary context, memory and one stream, for one owner thread."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mambapro.cli import MissingError

GPU: Final = 0
"""The GPU that is used; CUDA_VISIBLE_DEVICES chooses another."""

Shape = tuple[int, ...]


@contextlib.contextmanager
def primary_context() -> Iterator[Cuda]:
    """Yield the GPU, current in this thread until the block ends.

    The primary context is the one that PyTorch and ONNX Runtime share; it is made here and not
    when pycuda is imported, since a context belongs to a thread.
    """
    driver = _driver()
    context = driver.Device(GPU).retain_primary_context()
    context.push()
    try:
        yield Cuda(driver)
    finally:
        driver.Context.pop()


def describe_gpu() -> tuple[str, tuple[int, int]]:
    """Return name and compute capability of the GPU; MissingError when there is none."""
    device = _driver().Device(GPU)
    major, minor = device.compute_capability()
    return str(device.name()), (int(major), int(minor))


class Cuda:
    """Memory and a stream of the context that is current in this thread."""

    def __init__(self, driver: Any) -> None:
        """Use ``driver``, the module ``pycuda.driver``."""
        self._driver = driver
        self._stream = driver.Stream()
        self._device_memory: list[Any] = []
        self._pinned: list[Any] = []

    @property
    def stream(self) -> int:
        """Handle of the stream that everything runs in."""
        return int(self._stream.handle)

    def allocate(self, size_bytes: int) -> int:
        """Return the address of new memory of the GPU."""
        memory = self._driver.mem_alloc(max(1, size_bytes))
        self._device_memory.append(memory)
        return int(memory)

    def pinned(self, shape: Shape, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return page-locked memory, which the GPU reads and writes while the CPU goes on."""
        array: npt.NDArray[Any] = self._driver.pagelocked_empty(shape, np.dtype(dtype))
        self._pinned.append(array)
        return array

    def upload(self, source: npt.NDArray[Any], target: int) -> None:
        """Copy pinned memory to the GPU, when the stream comes to it."""
        self._driver.memcpy_htod_async(target, source, self._stream)

    def download(self, source: int, target: npt.NDArray[Any]) -> None:
        """Copy from the GPU to pinned memory, when the stream comes to it."""
        self._driver.memcpy_dtoh_async(target, source, self._stream)

    def mark(self) -> Any:
        """Return an event at the present end of the stream; ``synchronize()`` waits for it."""
        event = self._driver.Event()
        event.record(self._stream)
        return event

    def synchronize(self) -> None:
        """Wait for all that was put into the stream."""
        self._stream.synchronize()

    def close(self) -> None:
        """Wait, then free all memory; arrays of :meth:`pinned` must not be used any more."""
        self.synchronize()
        for memory in self._device_memory:
            memory.free()
        for array in self._pinned:
            array.base.free()
        self._device_memory, self._pinned = [], []
        self._stream = None


def _driver() -> Any:
    """Return ``pycuda.driver``, ready for use; MissingError says what there is not."""
    try:
        import pycuda.driver as driver
    except ImportError as error:
        raise MissingError(
            f"pycuda cannot be imported ({error}); install it with: pip install pycuda"
        ) from error
    try:
        driver.init()
        count = driver.Device.count()
    except driver.Error as error:
        raise MissingError(f"the CUDA driver does not start: {error}") from error
    if count == 0:
        raise MissingError("the CUDA driver sees no GPU; see CUDA_VISIBLE_DEVICES")
    return driver
