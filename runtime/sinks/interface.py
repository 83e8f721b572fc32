"""What the parts of `runtime.sinks` agree on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Event = dict[str, Any]
"""What docs/events.md describes; JSON-able."""


class Sink(Protocol):
    """Takes events on this machine."""

    def write(self, event: Event) -> None:
        """Keep ``event``; OSError means that nothing of it was kept."""

    def close(self) -> None:
        """Flush and close."""


class SendError(Exception):
    """Events were not taken, and may be if they are sent again: one line without credentials."""


class Sender(Protocol):
    """Brings events to their receiver, from one thread."""

    @property
    def connected(self) -> bool:
        """Whether the receiver is there."""

    refused: int
    """Events that the receiver will never take, so far."""

    def connect(self) -> None:
        """Make the connection if there is none; raises SendError or OSError."""

    def send(self, events: Sequence[Event]) -> int:
        """Send ``events``; return how many, from the first on, the receiver has acknowledged.

        Raises SendError or OSError when it is none, and has to be tried again.
        """

    def close(self) -> None:
        """Say goodbye and close; never raises."""


@dataclass(frozen=True)
class SinkStatus:
    """How one sink is doing."""

    name: str
    """jsonlines, mqtt or webhook."""
    connected: bool
    """Whether its last attempt reached the receiver."""
    behind: int
    """Events in the journal that it has not brought to its receiver."""
    sent: int
    """Events acknowledged since the start."""
    refused: int
    """Events that the receiver will never take; they were set aside in a file."""
    skipped: int
    """Events that were lost to it because the journal reached its bound."""
    last_error: str | None
    """Why the last attempt failed; None when it did not."""
