"""Where events go: JSON lines, every line whole."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from pathlib import Path
from typing import Any


class JsonLinesSink:
    """A file with one JSON object a line, readable while it grows."""

    def __init__(self, path: Path) -> None:
        """Start ``path`` anew."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115 closed by close()
        self.count = 0

    def write(self, event: dict[str, Any]) -> None:
        """Append ``event``; when the disk is full, nothing of it stays and OSError is raised."""
        line = json.dumps(event, allow_nan=False).encode() + b"\n"
        start = self._file.tell()
        try:
            if self._file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        except OSError as error:
            with contextlib.suppress(OSError):  # a device cannot be cut back
                self._file.truncate(start)
            raise OSError(error.errno, error.strerror, str(self._path)) from error
        self.count += 1

    def close(self) -> None:
        """Flush to disk and close."""
        os.fsync(self._file.fileno())
        self._file.close()
