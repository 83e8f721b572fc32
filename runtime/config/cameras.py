"""Reading cameras: connections, clocks, and what live ones need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mambapro.cli import InputError
from runtime.config.checks import positive


@dataclass(frozen=True)
class SourceConfig:
    """How cameras are connected to and read; files know only the queue."""

    transport: Literal["tcp", "udp"] = "tcp"
    """How RTSP cameras send; `?transport=udp` in a camera's uri overrules it."""
    connect_timeout_s: float = 5.0
    """Longest wait for a camera to accept and describe its stream, s."""
    read_timeout_s: float = 5.0
    """A camera that sends nothing for this long is connected to anew, s."""
    picture_timeout_s: float = 15.0
    """So is one that sends, but nothing that gives a picture; longer than cameras' distance of key
    frames, s."""
    stalled_after_s: float = 1.0
    """A camera without a picture for this long is called stalled, s."""
    backoff_min_s: float = 0.25
    """Wait before the first new attempt; it doubles with each that fails, s."""
    backoff_max_s: float = 1.0
    """Longest wait between attempts; a camera that returns is seen again within it, s."""
    queue_frames: int = 8
    """Frames that wait for the reader; a live source drops the oldest, a file waits."""
    folder_fps: float = 25.0
    """Pictures a second of a folder whose names are no times."""

    def __post_init__(self) -> None:
        for name in ("connect_timeout_s", "read_timeout_s", "picture_timeout_s", "stalled_after_s"):
            positive(f"source.{name}", getattr(self, name))
        positive("source.backoff_min_s", self.backoff_min_s)
        positive("source.queue_frames", self.queue_frames)
        positive("source.folder_fps", self.folder_fps)
        if self.backoff_max_s < self.backoff_min_s:
            raise InputError(
                f"source.backoff_max_s must be at least backoff_min_s ({self.backoff_min_s}), "
                f"got {self.backoff_max_s}"
            )


@dataclass(frozen=True)
class SyncConfig:
    """How frames of a rig's cameras are brought together."""

    estimate: bool = True
    """Estimate each clock's offset from what moves in the pictures."""
    window_s: float = 8.0
    """Footage that the estimate looks at first, s; as much again while it is not confident."""
    max_window_s: float = 32.0
    """Most footage that the estimate looks at, s."""
    max_offset_s: float = 0.35
    """Largest offset between two cameras looked for, s."""
    max_error_s: float = 0.012
    """An estimate with a larger standard error is not used, s."""
    tolerance_s: float = 0.022
    """Largest difference of corrected times within a triplet, s; just over half a frame."""
    timeout_s: float = 2.0
    """A camera that gives nothing for this long is not waited for, s."""
    max_wait_s: float = 0.3
    """Live: longest wait for a camera after another showed the same instant, s. It has to cover the
    difference of the cameras' delays."""
    reorder_s: float = 0.1
    """Live: longest wait for a frame that a later one of its camera has overtaken, s."""
    every_s: float = 60.0
    """Live: rest between two estimates of the offsets from content, s."""
    buffer_frames: int = 32
    """Frames kept for a camera that runs ahead."""


@dataclass(frozen=True)
class LiveConfig:
    """How live cameras are watched; clips know none of this."""

    warm_up_s: float = 4.0
    """A rig begins when its reference camera has been seen for this long, s: what stands still
    then is background."""
    patience_s: float = 8.0
    """A camera that gave no picture this long after the start is reported as lost, s."""
    latency_budget_s: float = 0.4
    """Work that begins later than this after its frames arrived raises the load, s."""
    max_age_s: float = 1.0
    """Triplets that are older when their turn comes are dropped, so that no delay builds up, s."""
    remember_s: float = 300.0
    """Sightings are kept in memory for this long after their end, s."""
    drain_s: float = 10.0
    """Longest time from the signal to stop until the process has ended, s."""
    tape_s: float = 600.0
    """A recording for replay ends after this long, s."""

    def __post_init__(self) -> None:
        for name in ("warm_up_s", "latency_budget_s", "drain_s", "tape_s"):
            if not getattr(self, name) > 0:
                raise InputError(f"live.{name} must be over 0, got {getattr(self, name)}")
