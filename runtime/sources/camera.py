"""What stands behind a live source: an open connection to a camera, of whatever kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from mambapro.preprocess import Picture

SLICE_S: Final = 0.2
"""A camera that can be interrupted looks up this often, s."""


class CameraLost(Exception):  # noqa: N818 it is an event of every day, not an error of ours
    """The camera cannot be reached, or no longer; the message is one line without credentials."""


class CameraRefused(CameraLost):
    """The camera knows no such user; asking again and again makes cameras lock the account."""


@dataclass(frozen=True)
class Shot:
    """One picture as a camera gave it."""

    picture: Picture
    """(H, W, 3) uint8, R, G, B."""
    arrival_s: float
    """`time.monotonic()` when its packet arrived."""
    pts_s: float | None = None
    """The stream's time stamp, s from an origin that nobody knows; None when it has none."""
    wallclock_s: float | None = None
    """Unix time of its capture by the camera's clock, when the camera tells it."""


class Camera(Protocol):
    """An open connection; used by the one thread that opened it."""

    damaged: int
    """Pictures and packets that could not be used so far."""

    def read(self) -> list[Shot]:
        """Return what came, nothing after about SLICE_S without a picture; CameraLost when over."""

    def close(self) -> None:
        """Let go of the camera."""


Connect = Callable[[], Camera]
"""Opens the connection; CameraLost when that fails, in the time that the settings allow."""
