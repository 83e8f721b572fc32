"""A record of the journal: a line ``crc32 json``."""

from __future__ import annotations

import json
import zlib
from typing import Any, Final

from runtime.sinks.interface import Event

_FRAME_BYTES: Final = len("01234567 \n")


def encoded(event: Event) -> bytes:
    """Return ``event`` as a record."""
    return _framed(json.dumps(event, allow_nan=False).encode())


def decoded(line: bytes) -> Event | None:
    """Return the event of a record, None when the record is damaged."""
    checksum, _, text = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(text):
        return None
    event: dict[str, Any] = json.loads(text)
    return event


def blank(line: bytes, event: Event) -> bytes:
    """Return a record as long as ``line``, so that no cursor moves, that holds only an id."""
    text = json.dumps({"id": event["id"], "deleted": True}).encode()
    return _framed(text.ljust(len(line) - _FRAME_BYTES))


def is_blank(event: Event) -> bool:
    """Return whether this is what is left of an event that was deleted."""
    return "deleted" in event


def _framed(text: bytes) -> bytes:
    return b"%08x %s\n" % (zlib.crc32(text), text)
