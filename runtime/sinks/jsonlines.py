"""JSON lines: one event a line, every line whole, in a file that is replaced when it is full."""

from __future__ import annotations

import contextlib
import io
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from runtime.sinks.appending import append_line, cut_torn_tail, sync_folder
from runtime.sinks.deletions import SUFFIX as ASIDE
from runtime.sinks.deletions import Deletion, rewritten, without
from runtime.sinks.interface import Event


@dataclass(frozen=True)
class Rotation:
    """When a file is full, and how many are kept."""

    max_bytes: int
    """A line that would make the file longer goes to a new one."""
    max_age_s: float
    """The file is changed when it is older than this."""
    keep: int
    """Most old files: events.jsonl.1 is the newest of them."""


class JsonLinesSink:
    """A file with one JSON object a line, readable while it grows."""

    def __init__(
        self,
        path: Path,
        *,
        append: bool = False,
        rotation: Rotation | None = None,
        fsync: bool = False,
    ) -> None:
        """Start ``path`` anew, or ``append`` to it, a torn last line cut off."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._rotation, self._fsync = path, rotation, fsync
        if append and path.is_file():
            cut_torn_tail(path)
        self._file = _opened(path, "ab" if append else "wb")
        self._begun_s = _first_time_s(path)
        self.count = 0

    def write(self, event: Event) -> None:
        """Append ``event``; when the disk is full, nothing of it stays and OSError is raised."""
        line = json.dumps(event, allow_nan=False).encode() + b"\n"
        if self._rotation is not None and self._is_full(self._rotation, len(line)):
            self._rotate(self._rotation.keep)
        append_line(self._file, line, self._path, fsync=self._fsync)
        self.count += 1

    def last(self) -> Event | None:
        """Return the newest event that is there, in this file or the one before it."""
        for path in (self._path, _old(self._path, 1)):
            if path.is_file() and (lines := path.read_bytes().splitlines()):
                event: Event = json.loads(lines[-1])
                return event
        return None

    def forget(
        self, deletion: Deletion, event_of: Callable[[Event], Event] = lambda line: line
    ) -> None:
        """Take the lines whose event ``deletion`` covers out of this file and the old ones."""
        folder, name = self._path.parent, self._path.name
        for left in folder.glob(f"{name}*{ASIDE}"):  # by a kill within this
            left.unlink()
        change = without(deletion, event_of)
        for path in [self._path, *folder.glob(f"{name}.[0-9]*")]:
            if (aside := rewritten(path, change)) is not None:
                file = _opened(aside, "ab")
                aside.replace(path)
                sync_folder(folder)
                if path == self._path:
                    self._file, file = file, self._file
                file.close()

    def close(self) -> None:
        """Flush to disk and close."""
        os.fsync(self._file.fileno())
        self._file.close()

    def _is_full(self, rotation: Rotation, more_bytes: int) -> bool:
        size = self._file.seek(0, os.SEEK_END)
        age_s = time.time() - self._begun_s
        return size > 0 and (size + more_bytes > rotation.max_bytes or age_s > rotation.max_age_s)

    def _rotate(self, keep: int) -> None:
        if self._path.exists():  # else the last try got this far
            for number in range(keep, 0, -1):
                newer = self._path if number == 1 else _old(self._path, number - 1)
                if newer.exists():
                    newer.replace(_old(self._path, number))
        file = _opened(self._path, "ab" if keep else "wb")
        self.close()
        self._file, self._begun_s = file, time.time()


def _opened(path: Path, mode: str) -> io.FileIO:
    file = open(path, mode, buffering=0)  # noqa: SIM115 closed by close()
    assert isinstance(file, io.FileIO)
    return file


def _old(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def _first_time_s(path: Path) -> float:
    """Return the Unix time of the first event in ``path``, or now."""
    if path.is_file():
        with open(path, "rb") as file, contextlib.suppress(ValueError, KeyError):
            return float(json.loads(file.readline())["time_s"])
    return time.time()
