"""Subjects in a camera's pixels: carried there, laid over the picture, measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mambapro.contract import Modality
from mambapro.synthetic.buffers import Bytes, Mask, Plane
from mambapro.synthetic.imaging import to_bytes
from mambapro.synthetic.rigs import Homography
from mambapro.synthetic.routes import Actor

BLUR_PX: dict[Modality, float] = {"rgb": 0.45, "nir": 0.6, "tir": 1.0}
"""Sharpness of each camera's lens, standard deviation."""


@dataclass(frozen=True)
class Sprite:
    """A subject as one camera sees it: a rectangle of its pixels, which may leave the picture."""

    x: int
    y: int
    colour: Plane
    alpha: Plane
    shadow: Plane
    """Factor on the grey levels behind, 1 outside the cast shadow."""


def to_camera(
    colour: Plane, alpha: Plane, shadow: Plane, matrix: Homography, modality: Modality
) -> Sprite:
    """Carry a canvas into a camera's pixels; colour is premultiplied by alpha."""
    height, width = alpha.shape
    corners = np.array([[[0, 0], [width, 0], [width, height], [0, height]]], np.float64)
    placed = cv2.perspectiveTransform(corners, matrix)[0]
    x0, y0 = np.floor(placed.min(axis=0)).astype(int).tolist()
    x1, y1 = np.ceil(placed.max(axis=0)).astype(int).tolist()
    local = np.array([[1, 0, -x0], [0, 1, -y0], [0, 0, 1]], np.float64) @ matrix
    size = (x1 - x0, y1 - y0)
    blur = BLUR_PX[modality]
    premultiplied = cv2.GaussianBlur(colour * _like(alpha, colour), (0, 0), blur)
    soft = cv2.GaussianBlur(alpha, (0, 0), blur)
    shade = cv2.warpPerspective(shadow, local, size, borderValue=1.0)
    return Sprite(
        x0,
        y0,
        warp(premultiplied, local, size),
        warp(soft, local, size),
        np.asarray(shade, np.float32),
    )


def _like(alpha: Plane, colour: Plane) -> Plane:
    return alpha[..., None] if colour.ndim == 3 else alpha


def blend(picture: Bytes, sprite: Sprite) -> None:
    """Lay a sprite and its shadow over the picture, in place."""
    overlap = _overlap(sprite, (picture.shape[1], picture.shape[0]))
    if overlap is None:
        return
    window, inner = overlap
    behind = picture[window].astype(np.float32)
    factor = sprite.shadow[inner] * (1 - sprite.alpha[inner])
    picture[window] = to_bytes(behind * _like(factor, behind) + sprite.colour[inner])


def _overlap(
    sprite: Sprite, size: tuple[int, int]
) -> tuple[tuple[slice, slice], tuple[slice, slice]] | None:
    """Return the sprite's part inside the picture, as windows of the picture and of the sprite."""
    height, width = sprite.alpha.shape
    x0, x1 = max(0, sprite.x), min(size[0], sprite.x + width)
    y0, y1 = max(0, sprite.y), min(size[1], sprite.y + height)
    if x0 >= x1 or y0 >= y1:
        return None
    inner = (slice(y0 - sprite.y, y1 - sprite.y), slice(x0 - sprite.x, x1 - sprite.x))
    return (slice(y0, y1), slice(x0, x1)), inner


def truth_of(
    actor: Actor, sprites: list[Sprite], i: int, size: tuple[int, int]
) -> dict[str, Any] | None:
    """Return box and visible share of the i-th subject; nearer ones come later in ``sprites``."""
    sprite = sprites[i]
    overlap = _overlap(sprite, size)
    solid: Mask = sprite.alpha > 0.5
    total = int(np.count_nonzero(solid))
    if overlap is None or total == 0:
        return None
    window, inner = overlap
    shown = solid[inner].copy()
    x, y, width, height = cv2.boundingRect(shown.astype(np.uint8))
    if width == 0:
        return None
    for other in sprites[i + 1 :]:
        _hide(shown, window, other, size)
    left, top = window[1].start + x, window[0].start + y
    return {
        "identity": actor.identity,
        "kind": actor.kind,
        "box": [left, top, left + width, top + height],
        "visible": round(int(np.count_nonzero(shown)) / total, 4),
    }


def _hide(shown: Mask, window: tuple[slice, slice], other: Sprite, size: tuple[int, int]) -> None:
    """Clear the pixels of ``shown`` (placed at ``window`` of the picture) that ``other`` covers."""
    overlap = _overlap(other, size)
    if overlap is None:
        return
    theirs = overlap[0]
    y0, y1 = max(window[0].start, theirs[0].start), min(window[0].stop, theirs[0].stop)
    x0, x1 = max(window[1].start, theirs[1].start), min(window[1].stop, theirs[1].stop)
    if x0 >= x1 or y0 >= y1:
        return
    cover = other.alpha[y0 - other.y : y1 - other.y, x0 - other.x : x1 - other.x] > 0.5
    shown[
        y0 - window[0].start : y1 - window[0].start, x0 - window[1].start : x1 - window[1].start
    ] &= ~cover


def warp(
    picture: NDArray[Any], matrix: Homography, size: tuple[int, int], replicate: bool = False
) -> Plane:
    """Return a picture carried by a homography onto ``size`` (width, height) pixels."""
    border = cv2.BORDER_REPLICATE if replicate else cv2.BORDER_CONSTANT
    return np.asarray(cv2.warpPerspective(picture, matrix, size, borderMode=border), np.float32)
