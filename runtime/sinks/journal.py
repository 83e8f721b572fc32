"""The durable journal: every event first goes here, every sink reads from here.

A folder of segments, ``0000000000001234.jsonl``, named by the number of their first record. A
record is a line ``crc32 json``: after a kill or a power cut it is whole or absent. Each consumer
has a cursor. Segments that all have passed are deleted; above the bound on the folder's size the
oldest one goes, and who had not read it is told how many events that skips.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mambapro.cli import InputError
from runtime.sinks.appending import append_line, cut_torn_tail, sync_folder
from runtime.sinks.cursor import Cursor, Position
from runtime.sinks.deletions import SUFFIX as ASIDE
from runtime.sinks.deletions import Deletion, rewritten
from runtime.sinks.interface import Event
from runtime.sinks.records import blank, decoded, encoded, is_blank

SUFFIX: Final = ".jsonl"
SEGMENTS: Final = 16
"""The bound on the folder is this many segments: that much of it goes when it is reached."""

log = logging.getLogger(__name__)


@dataclass
class Segment:
    """One file of the journal."""

    path: Path
    first: int
    """Number of its first record."""
    size: int
    """Bytes of whole records."""


@dataclass
class Reader:
    """What one consumer has of the journal."""

    journal: Journal
    cursor: Cursor
    skipped: int = 0
    """Records that were deleted unread."""
    _ends: list[Position] = field(default_factory=list)

    @property
    def behind(self) -> int:
        """Records that are not acknowledged."""
        return self.journal.end - self.cursor.position.record

    def read(self, most: int) -> list[Event]:
        """Return up to ``most`` events after the last one acknowledged."""
        events, self._ends = self.journal.read(self, most)
        return events

    def acknowledge(self, count: int) -> None:
        """Never return the first ``count`` events of the last `read` again."""
        if count:
            self.journal.acknowledge(self, self._ends[count - 1])
            del self._ends[:count]


class Journal:
    """Appends events, and hands them to readers in other threads."""

    def __init__(self, folder: Path, *, max_bytes: int, fsync: bool = True) -> None:
        """Open or create the journal in ``folder``; InputError when another process has it open.

        ``fsync`` flushes each event to disk before `write` returns. Without it a kill still loses
        nothing, a power cut what the kernel had not written (about half a minute).
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._fsync = folder, fsync
        self._max_bytes, self._segment_bytes = max_bytes, max(1, max_bytes // SEGMENTS)
        self._lock = threading.RLock()
        self._owner = _locked(folder)
        self._file: io.FileIO | None = None
        self._full = False
        self._readers: list[Reader] = []
        for left in folder.glob(f"*{ASIDE}"):  # by a kill within `forget`
            left.unlink()
        paths = sorted(folder.glob(f"*{SUFFIX}"))
        self._segments = [Segment(p, int(p.stem), p.stat().st_size) for p in paths]
        self.end = 0
        """Number that the next record gets."""
        if self._segments:
            last = self._segments[-1]
            last.size = cut_torn_tail(last.path)
            self.end = last.first + _lines(last.path)

    @property
    def size_bytes(self) -> int:
        """Bytes of all records on disk."""
        with self._lock:
            return sum(segment.size for segment in self._segments)

    def last(self) -> Event | None:
        """Return the newest event that is still there."""
        for segment in reversed(self._segments):
            for line in reversed(segment.path.read_bytes().splitlines(keepends=True)):
                if (event := decoded(line)) is not None:
                    return event
        return None

    def write(self, event: Event) -> None:
        """Append ``event``; on OSError nothing of it is there."""
        line = encoded(event)
        with self._lock:
            segment = self._writable()
            assert self._file is not None
            append_line(self._file, line, segment.path, fsync=self._fsync)
            segment.size += len(line)
            self.end += 1
            self._bound()

    def reader(self, name: str) -> Reader:
        """Return the reader of consumer ``name``; one that is new starts at the end."""
        with self._lock:
            end = Position(self.end, *self._place_of_end())
            reader = Reader(self, Cursor(self._folder / f"{name}.cursor", end))
            position = reader.cursor.position
            oldest = self._segments[0].first if self._segments else self.end
            if position.record < oldest:
                reader.skipped = oldest - position.record
            if not oldest <= position.record <= self.end or not self._holds(position):
                reader.cursor.move(Position(oldest, oldest, 0))
            self._readers.append(reader)
            return reader

    def read(self, reader: Reader, most: int) -> tuple[list[Event], list[Position]]:
        """Return up to ``most`` events from ``reader``'s cursor on, and the place after each."""
        events: list[Event] = []
        ends: list[Position] = []
        with self._lock:
            position = reader.cursor.position
            while len(events) < most and position.record < self.end:
                position = self._read_segment(position, most - len(events), events, ends)
            if not events:  # there were damaged and deleted records only
                reader.cursor.position = position
        return events, ends

    def acknowledge(self, reader: Reader, position: Position) -> None:
        """Move ``reader`` to ``position``; delete what everybody has read."""
        with self._lock:
            if position.record > reader.cursor.position.record:
                reader.cursor.move(position)
            oldest = min(r.cursor.position.record for r in self._readers)
            while len(self._segments) > 1 and self._segments[1].first <= oldest:
                self._segments.pop(0).path.unlink(missing_ok=True)

    def forget(self, deletion: Deletion) -> set[str]:
        """Leave only their ids of the events that ``deletion`` covers; return these.

        Who writes and reads meanwhile waits only for a file to be replaced.
        """
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None
            self._full = True  # what is written from now on goes to another segment
            segments = list(self._segments)
        ids: set[str] = set()
        for segment in segments:
            with contextlib.suppress(FileNotFoundError):  # all have read it
                aside = rewritten(segment.path, _blanking(deletion, ids))
                if aside is not None:
                    self._replace(segment, aside)
        return ids

    def close(self) -> None:
        """Close the files; the cursors go to disk."""
        with self._lock:
            for reader in self._readers:
                reader.cursor.close()
            if self._file is not None:
                self._file.close()
            self._owner.close()

    def _replace(self, segment: Segment, aside: Path) -> None:
        with self._lock:
            if segment in self._segments:
                aside.replace(segment.path)
                sync_folder(self._folder)
            else:
                aside.unlink()

    def _writable(self) -> Segment:
        """Return the last segment, open, and a new one when that is full."""
        last = self._segments[-1] if self._segments else None
        full = last is None or last.size >= self._segment_bytes or (self._full and last.size > 0)
        if last is not None and not full:
            if self._file is None:
                self._file = open(last.path, "ab", buffering=0)  # noqa: SIM115
            return last
        path = self._folder / f"{self.end:016d}{SUFFIX}"
        file = open(path, "ab", buffering=0)  # noqa: SIM115 closed by close()
        if self._file is not None:
            self._file.close()
        self._file, self._full = file, False
        self._segments.append(Segment(path, self.end, 0))
        if self._fsync:
            sync_folder(self._folder)
        return self._segments[-1]

    def _bound(self) -> None:
        while len(self._segments) > 1 and self.size_bytes > self._max_bytes:
            oldest = self._segments.pop(0)
            start = Position(self._segments[0].first, self._segments[0].first, 0)
            for reader in self._readers:
                missed = start.record - reader.cursor.position.record
                if missed > 0:
                    reader.skipped += missed
                    reader.cursor.move(start)
                    log.warning(
                        "the journal is full (%d bytes): %d events never reach %s",
                        self._max_bytes, missed, reader.cursor.name,
                    )  # fmt: skip
            oldest.path.unlink(missing_ok=True)

    def _place_of_end(self) -> tuple[int, int]:
        return (self._segments[-1].first, self._segments[-1].size) if self._segments else (0, 0)

    def _holds(self, position: Position) -> bool:
        if not self._segments:
            return position.record == self.end
        return any(
            s.first == position.segment and position.offset <= s.size for s in self._segments
        )

    def _read_segment(
        self, position: Position, most: int, events: list[Event], ends: list[Position]
    ) -> Position:
        """Read on within one segment; return the place after what was read."""
        number = max(i for i, s in enumerate(self._segments) if s.first <= position.record)
        segment = self._segments[number]
        is_last = number + 1 == len(self._segments)
        after = self.end if is_last else self._segments[number + 1].first
        offset = position.offset if position.segment == segment.first else 0
        record = position.record
        with open(segment.path, "rb") as file:
            file.seek(offset)
            while record < after and most > 0:
                line = file.readline()
                record, offset = record + 1, offset + len(line)
                if (event := decoded(line)) is None:
                    log.error("%s: record %d is damaged and left out", segment.path, record - 1)
                    continue
                if is_blank(event):
                    continue
                events.append(event)
                ends.append(Position(record, segment.first, offset))
                most -= 1
        return Position(record, segment.first, offset)


def _blanking(deletion: Deletion, ids: set[str]) -> Callable[[bytes], bytes]:
    may_cover = deletion.filter()

    def change(line: bytes) -> bytes:
        event = decoded(line) if may_cover(line) else None
        if event is None or is_blank(event) or not deletion.covers(event):
            return line
        ids.add(event["id"])
        return blank(line, event)

    return change


def _lines(path: Path) -> int:
    with open(path, "rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def _locked(folder: Path) -> io.FileIO:
    lock = open(folder / "lock", "ab", buffering=0)  # noqa: SIM115 closed by Journal.close()
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise InputError(
            f"another process writes its events to {folder}; stop it, or give another --output"
        ) from error
    return lock
