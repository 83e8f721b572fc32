"""The picture to look at: each camera laid on the reference, before and after."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from calibration.registering.geometry import Matrix, Points, project
from calibration.registering.silhouettes import Motion
from mambapro.files import replacing
from mambapro.preprocess import Picture

WIDTH: Final = 640
BAND_PX: Final = 26
GREEN: Final = (90, 255, 90)
MAGENTA: Final = (255, 60, 255)
INSTANTS: Final = 4
CROWDED: Final = 5
"""A pixel that somebody drawn before covers costs as much as so many new ones gain."""


def panel(reference: Picture, other: Picture, homography: Matrix, title: str) -> Picture:
    """Return the reference in orange with ``other`` in blue on it, and a line of text above.

    Where both show the same structure there is grey; what is displaced has coloured fringes.
    """
    height, width = reference.shape[:2]
    back = cv2.warpPerspective(
        _levelled(other), homography, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    )
    ours = _levelled(reference)
    blend = np.stack([ours, ours // 2 + back // 2, back], axis=2)
    return titled(blend, title)


def titled(picture: Picture, title: str) -> Picture:
    """Return ``picture`` with a line of text above."""
    band = np.zeros((BAND_PX, picture.shape[1], 3), np.uint8)
    cv2.putText(
        band, title, (6, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA
    )
    return np.vstack([band, picture])


def draw_points(picture: Picture, ours: Points, theirs: Points, homography: Matrix) -> None:
    """Mark matched points below the title: the reference's green, the other's magenta, in place."""
    back = project(np.asarray(np.linalg.inv(homography), np.float64), theirs)
    for points, colour, radius in ((ours, GREEN, 4), (back, MAGENTA, 2)):
        for x, y in points[np.abs(points).max(axis=1) < 1e4]:
            cv2.circle(picture, (round(x), round(y) + BAND_PX), radius, colour, 1, cv2.LINE_AA)


def draw_silhouettes(
    picture: Picture, reference: Motion, other: Motion, homography: Matrix, lag_s: float
) -> None:
    """Outline what moved at some instants: the reference's green, the other's magenta, in place."""
    for index in _instants(reference, other, lag_s):
        at = int(np.abs(other.times - reference.times[index] - lag_s).argmin())
        theirs = _full(other.masks[at], other.size)
        back = cv2.warpPerspective(
            theirs,
            homography,
            (reference.size[1], reference.size[0]),
            flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
        )
        for mask, colour in (
            (_full(reference.masks[index], reference.size), GREEN),
            (back, MAGENTA),
        ):
            found, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
            cv2.drawContours(picture, found, -1, colour, 1, cv2.LINE_AA, offset=(0, BAND_PX))


def _instants(reference: Motion, other: Motion, lag_s: float) -> list[int]:
    """Return pictures of the reference that both saw, with the most moving beside each other."""
    both = (reference.times + lag_s > other.times[0]) & (reference.times + lag_s < other.times[-1])
    masks = reference.masks[both].astype(bool)
    free = np.ones(masks.shape[1:], bool)
    chosen: list[int] = []
    while len(masks) and len(chosen) < INSTANTS:
        gained = (masks & free).sum(axis=(1, 2)) - CROWDED * (masks & ~free).sum(axis=(1, 2))
        best = int(gained.argmax())
        if gained[best] <= 0:
            break
        chosen.append(int(np.flatnonzero(both)[best]))
        free &= ~masks[best]
    return chosen


def write_sheet(path: Path, rows: Sequence[Sequence[Picture]]) -> None:
    """Write panels of one size, a row a camera, as PNG."""
    sheet = np.vstack([np.hstack([_narrow(picture) for picture in row]) for row in rows])
    with replacing(path) as aside:
        if not cv2.imwrite(str(aside), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR)):
            raise OSError(f"cannot write {path}")


def _narrow(picture: Picture) -> Picture:
    if picture.shape[1] <= WIDTH:
        return picture
    rows = round(picture.shape[0] * WIDTH / picture.shape[1])
    return np.asarray(cv2.resize(picture, (WIDTH, rows), interpolation=cv2.INTER_AREA), np.uint8)


def _levelled(picture: Picture) -> Picture:
    """Return grey (H, W) with its contrast evened out: night and thermal are flat."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.createCLAHE(3.0, (8, 8)).apply(grey), np.uint8)


def _full(mask: Picture, size: tuple[int, int]) -> Picture:
    """Return a reduced mask at the camera's own size, 0 or 1, with smooth outlines."""
    grown = cv2.resize(mask * 255, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(grown > 127, np.uint8)
