"""Pictures from strangers: looked at before they are decoded, and then decoded as all others."""

from __future__ import annotations

import io
from typing import Final

import numpy as np
from PIL import Image

from mambapro.cli import InputError
from mambapro.preprocess import Picture, decode_picture

FORMATS: Final = ("JPEG", "PNG")
MOST_BYTES: Final = 8 << 20
"""Longest file of a picture."""
MOST_PIXELS: Final = 16 << 20
"""Most pixels of a picture: it is 48 MiB when it is decoded."""


class FormatError(InputError):
    """A file of another kind."""


def picture_of(name: str, data: bytes) -> Picture:
    """Decode an upload called ``name`` into (H, W, 3) uint8 R, G, B.

    FormatError when it is of no known format, InputError when it is too large or damaged. Pillow
    reads the size from its header, before anything is decoded, and refuses what is cut off; cv2,
    which would fill that in with grey, gives the pixels, as it does for training.
    """
    if len(data) > MOST_BYTES:
        raise InputError(f"{name} may have {MOST_BYTES} bytes, it has {len(data)}")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception as error:  # Pillow 12: damaged headers raise many kinds
        raise FormatError(f"{name} must be a JPEG or PNG file, it is neither") from error
    with image:
        if image.width * image.height > MOST_PIXELS:
            raise InputError(
                f"{name} may have {MOST_PIXELS} pixels, it has {image.width} x {image.height}; "
                "send the crop of one subject"
            )
        try:
            image.load()
            picture = decode_picture(np.frombuffer(data, np.uint8))
        except Exception as error:  # Pillow 12: damaged files raise many kinds; cv2 has its own
            raise InputError(f"{name} is damaged: {error}") from error
    if picture is None:
        raise InputError(f"{name} cannot be decoded ({len(data)} bytes)")
    return picture
