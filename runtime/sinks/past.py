"""Read the events on disk, the newest first, while the stream writes more of them."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from runtime.sinks.ids import order, started_s
from runtime.sinks.interface import Event

BLOCK: Final = 1 << 16
LONGEST_LINE: Final = 1 << 20
MOST_BYTES: Final = 16 << 20
"""What one call looks through at most, so that none takes long."""
SLACK_S: Final = 600.0
"""An event is written at most this long after the moment that it tells of, s."""


@dataclass(frozen=True)
class Wanted:
    """Which events; None is any."""

    since_s: float | None = None
    """From this moment on, Unix seconds."""
    until_s: float | None = None
    """Before this moment."""
    rig: str | None = None
    """Of this rig."""
    identities: frozenset[str] | None = None
    """Of one of these names."""
    kind: str | None = None
    """What docs/events.md calls so."""
    before: str | None = None
    """Written before the event with this id."""

    def takes(self, event: Event) -> bool:
        """Return whether ``event`` is one of them."""
        return (
            (self.since_s is None or event["time_s"] >= self.since_s)
            and (self.until_s is None or event["time_s"] < self.until_s)
            and (self.rig is None or event.get("rig") == self.rig)
            and (self.identities is None or event.get("identity") in self.identities)
            and (self.kind is None or event["event"] == self.kind)
        )

    def may_take(self) -> Callable[[bytes], bool]:
        """Return a quick look at a line: False when the event on it is none of them."""
        words = [[self.rig], [self.kind], self.identities or [None]]
        some = [[json.dumps(w).encode() for w in any_of if w] for any_of in words]
        return lambda line: all(any(w in line for w in any_of) for any_of in some if any_of)

    def ends_at(self, event: Event) -> bool:
        """Return whether nothing written before ``event`` is wanted.

        What tells of a time before its run began was dated by a clock that was wrong.
        """
        if self.since_s is None or event["time_s"] >= self.since_s - SLACK_S:
            return False
        begun_s = started_s(event["id"])
        return begun_s is None or event["time_s"] >= begun_s - SLACK_S


@dataclass
class Found:
    """Events, the newest first."""

    events: list[Event] = field(default_factory=list)
    """Those that were wanted."""
    before: str | None = None
    """There may be more before the event with this id; None when there are not."""


def read_back(path: Path, wanted: Wanted, most: int, most_bytes: int = MOST_BYTES) -> Found:
    """Return up to ``most`` events of ``path`` and its old files that are ``wanted``.

    Looks at ``most_bytes`` at most, and says where it stopped. Whoever writes is not disturbed.
    """
    found, looked = Found(), 0
    may_take = wanted.may_take()
    with contextlib.ExitStack() as owner:
        for file in _files(path, owner):
            for line in _lines(file, _end(file, wanted.before)):
                looked += len(line)
                if looked <= most_bytes and not may_take(line):
                    continue
                if (event := _event(line)) is None:
                    continue
                if wanted.ends_at(event):
                    return found
                if wanted.takes(event):
                    found.events.append(event)
                if len(found.events) == most or looked > most_bytes:
                    found.before = event["id"]
                    return found
    return found


def _files(path: Path, owner: contextlib.ExitStack) -> Iterator[io.BufferedReader]:
    """Open the newest file, then the old ones; a file that is renamed meanwhile comes once."""
    old = len(list(path.parent.glob(f"{path.name}.[0-9]*"))) + 1  # one more by a rotation
    seen = set()
    for number in range(old + 1):
        name = f"{path.name}.{number}" if number else path.name
        with contextlib.suppress(FileNotFoundError):
            file = owner.enter_context(path.with_name(name).open("rb"))
            if (inode := os.fstat(file.fileno()).st_ino) not in seen:
                seen.add(inode)
                yield file


def _lines(file: io.BufferedReader, end: int) -> Iterator[bytes]:
    """Yield the whole lines before ``end``, the last one first."""
    rest: bytes | None = None  # what came after; at first the line that is being written
    while end > 0:
        start = max(0, end - BLOCK)
        file.seek(start)
        first, *lines = (file.read(end - start) + (rest or b"")).split(b"\n")
        if rest is None and lines:
            lines.pop()
        yield from filter(None, reversed(lines))
        rest, end = first if len(first) <= LONGEST_LINE else b"", start
    if rest:
        yield rest


def _end(file: io.BufferedReader, before: str | None) -> int:
    """Return where the events that were written before the one called ``before`` end."""
    size = file.seek(0, io.SEEK_END)
    if before is None:
        return size
    low, high = 0, size  # the first line that begins at or after high is not before
    while low < high:
        middle = (low + high) // 2
        event = _first_event(file, middle)
        if event is None or _place(event["id"]) >= _place(before):
            high = middle
        else:
            low = middle + 1
    return _line_start(file, low)


def _first_event(file: io.BufferedReader, offset: int) -> Event | None:
    """Return the first intact event of a line that begins at or after ``offset``."""
    _line_start(file, offset)
    for line in file:
        if (event := _event(line)) is not None:
            return event
    return None


def _line_start(file: io.BufferedReader, offset: int) -> int:
    """Go to where the first line begins that begins at or after ``offset``."""
    file.seek(max(0, offset - 1))
    if offset:
        file.readline()
    return file.tell()


def _event(line: bytes) -> Event | None:
    with contextlib.suppress(ValueError):
        event: Any = json.loads(line)
        if isinstance(event, dict) and {"event", "id", "time_s"} <= event.keys():
            return event
    return None


def _place(identifier: str) -> tuple[str, int]:
    """Return what sorts ids as they were written; clips came before the cameras."""
    return order(identifier) if started_s(identifier) is not None else ("", 0)
