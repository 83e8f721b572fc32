"""A synthetic pattern, live: ``pattern://?size=640x360&fps=25``. A box runs over a ramp."""

from __future__ import annotations

import time
from typing import Final

import numpy as np

from mambapro.preprocess import Picture
from runtime.sources.camera import SLICE_S, Camera, Connect, Shot
from runtime.sources.uri import Uri, fps_option, size_option

SIZE: Final = (640, 360)
FPS: Final = 25.0
BOX_SHARE: Final = 5
STEP_PX: Final = 4
BOX_COLOUR: Final = (230, 60, 40)


class PatternCamera:
    """Draws a picture whenever one is due."""

    def __init__(self, size: tuple[int, int], fps: float) -> None:
        """Begin with width and height ``size``."""
        self.damaged = 0
        self._fps = fps
        self._begin_s = time.monotonic()
        self._count = 0
        width, height = size
        ramp = np.linspace(0, 255, width, dtype=np.uint8)
        self._background = np.broadcast_to(ramp[None, :, None], (height, width, 3))

    def read(self) -> list[Shot]:
        """Wait for the next picture; who comes late misses those in between."""
        due_s = self._begin_s + self._count / self._fps
        wait_s = due_s - time.monotonic()
        if wait_s > SLICE_S:
            time.sleep(SLICE_S)
            return []
        time.sleep(max(0.0, wait_s))
        now_s = time.monotonic()
        picture, pts_s = self.picture(self._count), self._count / self._fps
        self._count = max(self._count + 1, int((now_s - self._begin_s) * self._fps))
        return [Shot(picture, now_s, pts_s)]

    def picture(self, count: int) -> Picture:
        """Return picture number ``count``."""
        picture: Picture = self._background.copy()
        height, width, _ = picture.shape
        box = max(1, height // BOX_SHARE)
        left = count * STEP_PX % max(1, width - box)
        picture[height // 2 - box // 2 :, left : left + box][:box] = BOX_COLOUR
        return picture

    def close(self) -> None:
        """Nothing to let go of."""


def connector(uri: Uri) -> Connect:
    """Return what opens the pattern; InputError when an option makes no sense."""
    size, fps = size_option(uri) or SIZE, fps_option(uri) or FPS

    def connect() -> Camera:
        return PatternCamera(size, fps)

    return connect
