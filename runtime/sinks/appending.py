"""Append to a file so that each line is whole or absent, whatever happens to disk or process."""

from __future__ import annotations

import contextlib
import errno
import io
import os
from pathlib import Path

BLOCK = 1 << 16


def append_line(file: io.FileIO, line: bytes, path: Path, *, fsync: bool) -> None:
    """Append ``line``; on OSError, which names ``path``, the file is as long as before."""
    start = file.seek(0, os.SEEK_END)
    try:
        if file.write(line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        if fsync:
            os.fsync(file.fileno())
    except OSError as error:
        with contextlib.suppress(OSError):  # a device cannot be cut back
            file.truncate(start)
        raise OSError(error.errno, error.strerror, str(path)) from error


def cut_torn_tail(path: Path) -> int:
    """Cut off what follows the last whole line; return the size in bytes that is left."""
    with open(path, "r+b") as file:
        size = end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - BLOCK)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            file.truncate(end)
    return end


def sync_folder(folder: Path) -> None:
    """Flush the names in ``folder`` to disk: a new file outlives a power cut only then."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
