"""Delete what the events tell of an identity: on disk first as a task, then for certain.

A task is a line of ``deletions.jsonl``. Whoever deletes an identity, in this process or another,
adds one before the gallery forgets; the event log works them off, and again from the start if it is
killed meanwhile. Files are rewritten beside themselves and then replaced.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from runtime.sinks.appending import append_line, cut_torn_tail, sync_folder
from runtime.sinks.interface import Event

SUFFIX: Final = ".part"


@dataclass(frozen=True)
class Deletion:
    """Which events go."""

    identities: frozenset[str] = frozenset()
    """Those that name one of these."""
    events: frozenset[str] = frozenset()
    """Those with one of these ids."""

    def __bool__(self) -> bool:
        return bool(self.identities or self.events)

    def __or__(self, other: Deletion) -> Deletion:
        return Deletion(self.identities | other.identities, self.events | other.events)

    def covers(self, event: Event) -> bool:
        """Return whether ``event`` goes."""
        return event.get("identity") in self.identities or event.get("id") in self.events

    def filter(self) -> Callable[[bytes], bool]:
        """Return a quick look at a line of JSON: False when nothing of this is in it."""
        words = [json.dumps(word).encode() for word in sorted(self.identities | self.events)]
        return lambda line: any(word in line for word in words)


class Deletions:
    """The tasks, and who does them."""

    def __init__(self, path: Path, steps: Sequence[Callable[[Deletion], None]]) -> None:
        """Keep tasks in ``path``; each of ``steps`` deletes somewhere, and may be repeated."""
        self._path, self._steps = path, steps

    def add(self, identities: Collection[str], events: Collection[str]) -> None:
        """Note a task; it outlives a power cut. An OSError means that it is not noted."""
        names = {"identities": sorted(filter(None, identities)), "events": sorted(events)}
        line = json.dumps(names).encode() + b"\n"
        with open(self._path, "ab", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            cut_torn_tail(self._path)
            append_line(file, line, self._path, fsync=True)
        sync_folder(self._path.parent)

    def run(self, first: Callable[[Deletion], None] = lambda deletion: None) -> None:
        """Do what there is to do, ``first`` first; after an OSError all of it is still to do."""
        deletion, size = self._read()
        if deletion:
            for step in (first, *self._steps):
                step(deletion)
            self._finish(size)

    def _read(self) -> tuple[Deletion, int]:
        if not self._path.is_file():
            return Deletion(), 0
        lines = [x for x in self._path.read_bytes().splitlines(keepends=True) if x.endswith(b"\n")]
        deletion = Deletion()
        for task in map(json.loads, lines):
            deletion |= Deletion(frozenset(task["identities"]), frozenset(task["events"]))
        return deletion, sum(map(len, lines))

    def _finish(self, size: int) -> None:
        """Empty the list, unless somebody has added to it: then all is done once more."""
        with open(self._path, "r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if file.seek(0, os.SEEK_END) == size:
                file.truncate(0)
                os.fsync(file.fileno())


def rewritten(path: Path, change: Callable[[bytes], bytes]) -> Path | None:
    """Write ``path`` beside itself with each line changed; return where, None when all stay."""
    with open(path, "rb") as old:
        if all(change(line) == line for line in old):
            return None
        old.seek(0)
        aside = path.with_name(path.name + SUFFIX)
        try:
            with open(aside, "wb") as new:
                new.writelines(map(change, old))
                new.flush()
                os.fsync(new.fileno())
        except OSError:
            aside.unlink(missing_ok=True)
            raise
    return aside


def without(deletion: Deletion, event_of: Callable[[Event], Event]) -> Callable[[bytes], bytes]:
    """Return what takes the lines of JSON away whose event is covered by ``deletion``.

    ``event_of`` finds the event in what a line says.
    """
    may_cover = deletion.filter()

    def change(line: bytes) -> bytes:
        return b"" if may_cover(line) and deletion.covers(event_of(json.loads(line))) else line

    return change
