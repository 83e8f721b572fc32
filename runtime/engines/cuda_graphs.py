"""CUDA graphs by the driver's own C functions: pycuda 2026.1 does not wrap them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, Final

from mambapro.cli import MissingError

LIBRARY: Final = "libcuda.so.1"

_Handle = ctypes.c_void_p
_Result = ctypes.POINTER(ctypes.c_void_p)

PROTOTYPES: Final[dict[str, tuple[Any, ...]]] = {
    "cuStreamBeginCapture_v2": (_Handle, ctypes.c_int),
    "cuStreamEndCapture": (_Handle, _Result),
    "cuGraphInstantiateWithFlags": (_Result, _Handle, ctypes.c_ulonglong),
    "cuGraphLaunch": (_Handle, _Handle),
    "cuGraphExecDestroy": (_Handle,),
    "cuGraphDestroy": (_Handle,),
}
"""Types of the arguments; each returns an int, 0 for success. All are there since CUDA 11.4."""

CAPTURE_THREAD_LOCAL: Final = 1
"""CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: what other threads do meanwhile does not matter."""


class CaptureError(Exception):
    """The work cannot be captured."""


class GraphDriver:
    """Captures what is put into a stream, and puts it there again in one call."""

    def __init__(self) -> None:
        """Open the driver; MissingError when there is none."""
        try:
            self._library = ctypes.CDLL(LIBRARY)
            for name, types in PROTOTYPES.items():
                getattr(self._library, name).argtypes = types
        except (OSError, AttributeError) as error:
            raise MissingError(f"the CUDA driver cannot be used: {error}") from error

    def capture(self, stream: int, work: Callable[[], None]) -> int:
        """Return a graph of what ``work`` puts into ``stream``; CaptureError if it has none.

        Nothing of it runs. The graph must be destroyed.
        """
        self._call("cuStreamBeginCapture_v2", stream, CAPTURE_THREAD_LOCAL)
        graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
        try:
            work()
        finally:  # a stream that goes on capturing is lost
            ended = self._library.cuStreamEndCapture(stream, ctypes.byref(graph))
        if ended != 0 or not graph.value:
            raise CaptureError(f"cuStreamEndCapture failed with error {ended}")
        try:
            self._call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, 0)
        finally:
            self._call("cuGraphDestroy", graph)
        assert executable.value is not None
        return executable.value

    def launch(self, graph: int, stream: int) -> None:
        """Put the work of ``graph`` into ``stream``."""
        self._call("cuGraphLaunch", graph, stream)

    def destroy(self, graph: int) -> None:
        """Free ``graph``, which must not be running."""
        self._call("cuGraphExecDestroy", graph)

    def _call(self, name: str, *arguments: Any) -> None:
        error = getattr(self._library, name)(*arguments)
        if error != 0:
            raise CaptureError(f"{name} failed with error {error}")
