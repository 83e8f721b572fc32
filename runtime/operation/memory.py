"""Memory that a run of months gives back: what is large goes to the system as soon as it is free.

glibc raises the size from which it asks the system for a block of its own, up to 32 MiB, whenever
such a block is freed. Pictures and the arrays of clock estimates then come out of its heaps, among
small things that live longer, and what lies between those stays with the process
(docs/decisions/0054-large-blocks-go-back.md).
"""

from __future__ import annotations

import ctypes
from typing import Final

M_MMAP_THRESHOLD: Final = -3
"""`mallopt` of glibc; <malloc.h>."""
LARGE_BYTES: Final = 1 << 20
"""To map a block costs 0.2 us a kB: a picture of 640x360 stays below, one of full HD does not."""


def give_back_large_blocks() -> bool:
    """Let blocks from LARGE_BYTES on be mapped one by one, from now on in the whole process.

    Returns whether the C library could be told; others than glibc know no such setting.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGE_BYTES))
