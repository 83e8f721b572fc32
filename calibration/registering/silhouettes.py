"""What moves in front of a camera: silhouettes against its own background, whatever its light."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from calibration.registering.footage import Shot, reduced
from calibration.registering.geometry import Size
from mambapro.preprocess import Picture

WIDTH: Final = 320
"""Columns of the reduced pictures that silhouettes are found in."""
CHUNK_S: Final = 8.0
"""Stretch over which the background is taken to be constant; who stands longer belongs to it."""
BACKGROUND_FRAMES: Final = 40
FEWEST_FRAMES: Final = 50
SOLID: Final = 100
"""What differs this surely from the background (0 to 255) belongs to a silhouette."""
SMALLEST: Final = 0.001
"""Smallest silhouette, as a share of the picture."""
LARGEST: Final = 0.4
"""More than this share of a picture that moves at once is a change of light."""
PLATE_SHOTS: Final = 9

Grey = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Motion:
    """What moved in front of one camera."""

    times: npt.NDArray[np.float64]
    """(n,) seconds on the camera's clock, rising."""
    surely: Grey
    """(n, h, w) 0 to 255: how surely each reduced pixel differs from the background."""
    masks: Grey
    """(n, h, w) 0 or 1: silhouettes."""
    size: Size
    """Height and width of the camera's own pictures, px."""
    plate: Picture
    """(H, W, 3) the scene without anybody."""

    @property
    def small(self) -> Size:
        """Height and width of the reduced pictures."""
        return self.masks.shape[1], self.masks.shape[2]


def watch(shots: Iterable[Shot]) -> Motion | None:
    """Return what moves in a camera's pictures; None when there are too few to tell.

    Pictures whose time does not rise, or whose size changes, are left out.
    """
    times: list[float] = []
    plates: list[Picture] = []
    surely: list[Grey] = []
    chunk: list[Grey] = []
    for time_s, picture in shots:
        same = not plates or picture.shape == plates[0].shape
        if not same or (times and time_s <= times[-1]):
            continue
        if not plates or (time_s - times[0] >= len(plates) and len(plates) < PLATE_SHOTS):
            plates.append(picture)
        times.append(time_s)
        chunk.append(reduced(picture, WIDTH))
        if time_s - times[len(surely)] >= CHUNK_S:
            surely += _against_background(chunk)
            chunk = []
    if len(times) < FEWEST_FRAMES:
        return None
    surely += _against_background(chunk) if len(chunk) >= FEWEST_FRAMES else []
    plate = np.median(np.stack(plates), axis=0).astype(np.uint8)
    masks = np.stack([_solid(item) for item in surely])
    size = (plate.shape[0], plate.shape[1])
    return Motion(np.asarray(times[: len(surely)]), np.stack(surely), masks, size, plate)


def _against_background(greys: Sequence[Grey]) -> list[Grey]:
    """Return (h, w) 0 to 255 a picture: how surely pixels differ from what they usually show."""
    few = greys[:: max(1, len(greys) // BACKGROUND_FRAMES)]
    background = np.median(np.stack(few), axis=0).astype(np.float32)
    residues = [_residue(item, background) for item in few]
    noise = 1.4826 * np.median(residues, axis=0).astype(np.float32) + 2.0
    gain = np.asarray(64.0 / cv2.GaussianBlur(noise, (0, 0), 1.5), np.float32)
    return [_surely(_residue(item, background), gain) for item in greys]


def _surely(residue: Floats, gain: Floats) -> Grey:
    smooth = cv2.multiply(cv2.GaussianBlur(residue, (0, 0), 1.0), gain)
    return np.asarray(np.clip(np.asarray(smooth) - 96.0, 0, 255), np.uint8)


def _residue(grey: Grey, background: Floats) -> Floats:
    """Return the difference from the background but for what changed everywhere, the light."""
    residue = grey - background
    residue -= np.median(residue[::4, ::4])
    return np.asarray(np.abs(residue, out=residue))


def _solid(surely: Grey) -> Grey:
    """Return the silhouettes of one picture, (h, w) 0 or 1."""
    mask = (surely > SOLID).astype(np.uint8)
    mask = np.asarray(cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)), np.uint8)
    if mask.mean() > LARGEST:
        return np.zeros_like(mask)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    keep = np.zeros(count, np.uint8)
    keep[1:] = stats[1:, cv2.CC_STAT_AREA] >= SMALLEST * mask.size
    return np.asarray(keep[labels], np.uint8)
