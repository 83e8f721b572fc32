"""Pictures from strangers: looked at before they are decoded, and then decoded as all others."""

from __future__ import annotations

import io
from typing import Final

import numpy as np
from PIL import Image
from starlette.exceptions import HTTPException

from mambapro.preprocess import Picture, decode_picture

FORMATS: Final = ("JPEG", "PNG")
MOST_BYTES: Final = 8 << 20
"""Longest file of a picture."""
MOST_PIXELS: Final = 16 << 20
"""Most pixels of a picture: it is 48 MiB when it is decoded."""


def picture_of(name: str, data: bytes) -> Picture:
    """Decode an upload called ``name`` into (H, W, 3) uint8 R, G, B.

    Refused with 415 when it is of no known format, 413 when it is too long, 422 when it has too
    many pixels or is damaged. Pillow reads the size from its header, before anything is decoded,
    and refuses what is cut off; cv2, which would fill that in with grey, gives the pixels, as it
    does for training.
    """
    if len(data) > MOST_BYTES:
        raise HTTPException(413, f"{name} may have {MOST_BYTES} bytes, it has more")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise HTTPException(422, f"{name} may have {MOST_PIXELS} pixels: {error}") from error
    except Exception as error:  # Pillow 12: damaged headers raise many kinds
        words = f"{name} must be a JPEG or PNG file, it is neither"
        raise HTTPException(415, words) from error
    with image:
        if image.width * image.height > MOST_PIXELS:
            raise HTTPException(
                422,
                f"{name} may have {MOST_PIXELS} pixels, it has {image.width} x {image.height}; "
                "send the crop of one subject",
            )
        try:
            image.load()
            picture = decode_picture(np.frombuffer(data, np.uint8))
        except Exception as error:  # Pillow 12: damaged files raise many kinds; cv2 has its own
            raise HTTPException(422, f"{name} is damaged: {error}") from error
    if picture is None:
        raise HTTPException(422, f"{name} cannot be decoded ({len(data)} bytes)")
    return picture
