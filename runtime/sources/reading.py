"""What a source gives and says: the types that every kind of source shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from mambapro.preprocess import Picture

TimeSource = Literal["rtcp", "pts", "frame_rate", "arrival"]
"""Where a capture time came from: the camera's own clock as its RTCP sender reports tell it, the
time stamps of the stream, the count of frames over their rate, or the arrival of the packet."""

State = Literal["connecting", "live", "stalled", "lost", "ended"]
"""Not one picture yet, pictures come, no picture for a while on an open connection, connection
broken or refused and tried again, closed or read to its end."""


@dataclass(frozen=True)
class Frame:
    """One picture and when it was taken."""

    picture: Picture
    """(H, W, 3) uint8, R, G, B."""
    time_s: float
    """Capture time, s: of a live source since 1970, of a file by the file's own time stamps."""
    time_source: TimeSource
    """Where the time came from."""
    index: int
    """Count of frames before this one in its source, over all its connections."""
    arrival_s: float
    """Live: `time.monotonic()` when its packet arrived. Files: the same as `time_s`."""
    connection: int = 0
    """Counts up with each reconnection and each jump of the time stamps: clocks start anew."""


@dataclass(frozen=True)
class NothingYet:
    """The source has not given a frame within the timeout; it may later."""


@dataclass(frozen=True)
class End:
    """The source has given its last frame."""

    frames: int
    """How many it gave."""


@dataclass(frozen=True)
class Failure:
    """The source broke and cannot heal; it gives no more frames."""

    reason: str
    """One line that names the source."""


Reading = Frame | NothingYet | End | Failure


@dataclass(frozen=True)
class SourceStatus:
    """How a source is, for logs, health and metrics."""

    state: State
    """What it does now."""
    reason: str
    """One line that says why, without credentials; empty when there is nothing to say."""
    since_s: float
    """Unix time at which this state began, s."""
    frames: int
    """Pictures decoded so far."""
    dropped: int
    """Pictures that nobody got: the reader was too slow, or they came damaged. 0 for files."""
    reconnects: int
    """Connections after the first that gave a picture."""
    time_source: TimeSource | None
    """Where the latest capture time came from; None before the first picture."""


class Source(Protocol):
    """One camera, whatever is behind it."""

    @property
    def live(self) -> bool:
        """Whether it goes on by itself: a live source drops its oldest frames, a file waits."""

    def read(self, timeout_s: float) -> Reading:
        """Return the next frame, or why there is none; waits at most ``timeout_s``."""

    def status(self) -> SourceStatus:
        """Return how the source is; safe to call from any thread."""

    def close(self) -> None:
        """Stop, at any moment, within a second; the reader gets no more frames."""
