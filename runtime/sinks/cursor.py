"""How far one consumer of the journal has come, kept on disk.

The file is one line of fixed length that is overwritten in place: that needs no space on a full
disk. It is not flushed: after a power cut it may be old or damaged, and events are sent again,
with the ids they had.
"""

from __future__ import annotations

import logging
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Position:
    """A place in the journal, between two records."""

    record: int
    """Records before it."""
    segment: int
    """Number of the first record of the segment that ``offset`` counts in."""
    offset: int
    """Bytes."""


class Cursor:
    """A position with a file."""

    def __init__(self, path: Path, new: Position) -> None:
        """Read ``path``; without it start at ``new``, and at the very start when it is damaged."""
        self.name = path.stem
        self._path = path
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        text = os.pread(self._handle, 256, 0)
        self.position = new if not text else _parsed(text) or Position(0, 0, 0)
        if not text:
            self.move(new)

    def move(self, position: Position) -> None:
        """Go to ``position``; when the disk refuses, a restart finds the place before."""
        self.position = position
        try:
            os.pwrite(self._handle, _formatted(position), 0)
        except OSError as error:
            log.warning("%s: %s", self._path, error.strerror)

    def close(self) -> None:
        """Flush to disk and close; a thread that was left behind then moves nothing on disk."""
        os.fsync(self._handle)
        os.close(self._handle)
        self._handle = -1  # the number may soon be another file's


def _formatted(position: Position) -> bytes:
    text = b"%016d %016d %016d" % (position.record, position.segment, position.offset)
    return b"%s %08x\n" % (text, zlib.crc32(text))


def _parsed(text: bytes) -> Position | None:
    values, _, checksum = text.rstrip(b"\n").rpartition(b" ")
    if checksum != b"%08x" % zlib.crc32(values):
        return None
    record, segment, offset = map(int, values.split())
    return Position(record, segment, offset)
