"""Picture -> crop -> resize -> stack: one rule for training, export, calibration and runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from mambapro.cli import InputError
from mambapro.contract import MODALITIES

Picture = npt.NDArray[np.uint8]

RESIZE_RULE: Final = "pillow-bicubic"
"""Bicubic with support scaled to the reduction (antialiased), as the published checkpoints were
trained with; cv2's bicubic does not antialias. See docs/decisions/0002-one-resize-rule.md."""


def read_picture(path: str) -> Picture:
    """Read an image file as (H, W, 3) uint8, colour order R, G, B; grey files are tripled.

    Raises InputError when the file is missing or cannot be decoded.
    """
    try:
        encoded = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise InputError(f"cannot read image {path}: {error.strerror}") from error
    picture = decode_picture(encoded)
    if picture is None:
        raise InputError(f"cannot decode image {path} ({encoded.size} bytes)")
    return picture


def decode_picture(encoded: npt.NDArray[np.uint8]) -> Picture | None:
    """Return an image file's bytes as (H, W, 3) uint8 R, G, B; None when they cannot be decoded."""
    picture = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if encoded.size else None
    return None if picture is None else np.ascontiguousarray(picture[:, :, ::-1])


def crop(picture: Picture, box: Sequence[float]) -> Picture:
    """Cut ``box`` = (x0, y0, x1, y1) px out of ``picture`` (H, W, 3); the part outside is cut off.

    Returns at least one pixel, also for a box that lies outside.
    """
    height, width = picture.shape[:2]
    x0, y0 = (
        int(np.clip(round(v), 0, n - 1)) for v, n in zip(box[:2], (width, height), strict=True)
    )
    x1 = int(np.clip(round(box[2]), x0 + 1, width))
    y1 = int(np.clip(round(box[3]), y0 + 1, height))
    return picture[y0:y1, x0:x1]


def resize(picture: Picture, size: tuple[int, int]) -> Picture:
    """Resize (h, w, 3) uint8 to ``size`` = (H, W) by RESIZE_RULE."""
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise InputError(f"a picture must be (H, W, 3) uint8, got {picture.shape} {picture.dtype}")
    if picture.shape[:2] == size:
        return picture
    image = Image.fromarray(np.ascontiguousarray(picture))
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BICUBIC))


def stack(
    crops: Mapping[str, Picture | None], size: tuple[int, int]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Resize and stack the crops of one subject by modality; a missing one is None or absent.

    Returns images (3, H, W, 3) uint8 in the order of MODALITIES and mask (3,) float32, 1 = present.
    """
    unknown = set(crops) - set(MODALITIES)
    if unknown:
        raise InputError(
            f"modalities are {', '.join(MODALITIES)}, got {', '.join(sorted(unknown))}"
        )
    images = np.zeros((len(MODALITIES), *size, 3), np.uint8)
    mask = np.zeros(len(MODALITIES), np.float32)
    for slot, modality in enumerate(MODALITIES):
        picture = crops.get(modality)
        if picture is not None:
            images[slot], mask[slot] = resize(picture, size), 1.0
    return images, mask
