"""Augmentation of a triplet, on uint8 pictures.

Normalisation stays inside the network, so noise that the paper adds to normalised pixels is added
here in the units of uint8.
"""

from __future__ import annotations

import numpy as np

from mambapro.config import DataConfig
from mambapro.contract import PIXEL_MEAN, PIXEL_STD
from mambapro.preprocess import Picture

ERASED_AREA = (0.02, 1 / 3)
"""Smallest and largest share of a picture that random erasing replaces (Zhong et al., 2020)."""
ERASED_ASPECT = (0.3, 1 / 0.3)
"""Smallest and largest height over width of the erased box."""
_ATTEMPTS = 10


def augment(images: Picture, config: DataConfig, random: np.random.Generator) -> Picture:
    """Return (M, H, W, 3) uint8: each modality flipped, shifted and erased.

    The draws are each modality's own, or the same ones for all with ``shared_augmentation``.
    """
    changed = np.empty_like(images)
    shared = int(random.integers(2**32)) if config.shared_augmentation else None
    for target, picture in zip(changed, images, strict=True):
        own = random if shared is None else np.random.default_rng(shared)
        if own.random() < config.flip:
            picture = picture[:, ::-1]
        shift(picture, own.integers(-config.pad_px, config.pad_px + 1, 2), out=target)
        if own.random() < config.erase:
            erase(target, own)
    return changed


def shift(picture: Picture, offset: np.ndarray, out: Picture) -> None:
    """Write ``picture`` (H, W, 3) moved by ``offset`` = (dy, dx) px to ``out``, black outside.

    The same as padding with black and cropping at random.
    """
    height, width = picture.shape[:2]
    dy, dx = (int(v) for v in offset)
    out[:] = 0
    rows, columns = slice(max(dy, 0), height + min(dy, 0)), slice(max(dx, 0), width + min(dx, 0))
    source_rows = slice(max(-dy, 0), height + min(-dy, 0))
    source_columns = slice(max(-dx, 0), width + min(-dx, 0))
    out[rows, columns] = picture[source_rows, source_columns]


def erase(picture: Picture, random: np.random.Generator) -> None:
    """Replace a random box of ``picture`` (H, W, 3) by noise, each pixel and channel on its own.

    The noise is standard normal after normalisation. A box that does not fit is drawn again.
    """
    height, width = picture.shape[:2]
    low, high = np.log(ERASED_ASPECT)
    for _ in range(_ATTEMPTS):
        area = random.uniform(*ERASED_AREA) * height * width
        aspect = np.exp(random.uniform(low, high))
        h, w = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
        if 0 < h < height and 0 < w < width:
            top, left = random.integers(height - h + 1), random.integers(width - w + 1)
            noise = random.standard_normal((h, w, 3), np.float32) * PIXEL_STD + PIXEL_MEAN
            picture[top : top + h, left : left + w] = np.clip(noise * 255, 0, 255)
            return


def dropout_mask(probability: float, modalities: int, random: np.random.Generator) -> np.ndarray:
    """Return (M,) float32, 1 = present.

    With ``probability`` it is an incomplete subset, each one drawn as often: at least one modality
    is present, at least one is missing.
    """
    mask = np.ones(modalities, np.float32)
    if random.random() < probability:
        subset = int(random.integers(1, 2**modalities - 1))
        mask[:] = [subset >> i & 1 for i in range(modalities)]
    return mask
