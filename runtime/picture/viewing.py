"""What the rigs see now, for whoever looks: drawn when somebody asks, once for all who do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import cv2

from mambapro.contract import Modality
from runtime.picture.drawing import Row, Strip

WIDTH_PX: Final = 960
QUALITY: Final = 80
PERIOD_S: Final = 0.2
"""Time between two pictures of a rig, s: 5 a second."""
SHARED_S: Final = 0.75 * PERIOD_S
"""A picture is given to all who ask within this, s."""


@dataclass(frozen=True)
class Shot:
    """A rig's mosaic as a JPEG."""

    time_s: float
    """Time of the triplet, Unix s."""
    jpeg: bytes


class Viewing:
    """The newest of each rig. The pipeline shows, any other thread may look."""

    def __init__(
        self,
        name_of: Callable[[str], str | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Hold nothing yet; ``name_of`` says what people call an identity, ``clock`` when it is."""
        self._name_of, self._clock = name_of, clock
        self._screens: dict[str, _Screen] = {}
        self.drawn = 0
        """Pictures drawn and encoded so far."""

    def begin(self, rig: str, sizes: Mapping[Modality, tuple[int, int]]) -> None:
        """Make room for ``rig``, whose cameras give pictures of ``sizes`` (H, W)."""
        self._screens[rig] = _Screen(Strip(WIDTH_PX, sizes))

    def end(self, rig: str) -> None:
        """Show ``rig`` no longer."""
        self._screens.pop(rig, None)

    def show(self, row: Row) -> None:
        """Keep what a rig sees; costs nothing."""
        self._screens[row.rig].row = row

    def rows(self) -> dict[str, Row]:
        """Return the newest of each rig that has shown something."""
        screens = list(self._screens.items())
        return {rig: screen.row for rig, screen in screens if screen.row is not None}

    def shot(self, rig: str) -> Shot | None:
        """Return the mosaic of ``rig``, at most SHARED_S old; None when there is none."""
        screen = self._screens.get(rig)
        if screen is None:
            return None
        with screen.lock:
            row, now_s = screen.row, self._clock()
            if row is not None and row is not screen.drawn and now_s - screen.drawn_s >= SHARED_S:
                screen.shot = Shot(row.time_s, self._encoded(screen.strip, row))
                screen.drawn, screen.drawn_s = row, now_s
                self.drawn += 1
            return screen.shot

    def _encoded(self, strip: Strip, row: Row) -> bytes:
        marks = [
            replace(mark, name=mark.identity and self._name_of(mark.identity)) for mark in row.marks
        ]
        picture = cv2.cvtColor(strip.draw(replace(row, marks=marks)), cv2.COLOR_RGB2BGR)
        _, jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        return jpeg.tobytes()


class _Screen:
    """One rig."""

    def __init__(self, strip: Strip) -> None:
        self.strip = strip
        self.row: Row | None = None
        self.lock = threading.Lock()
        self.shot: Shot | None = None
        self.drawn: Row | None = None
        self.drawn_s = float("-inf")
