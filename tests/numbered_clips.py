"""Clips whose pictures carry their number, so that a test knows which frames it got."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.runtime_scenes import write_clip

BITS = 10
CELL_PX = 16
FPS = 25


def numbered(number: int, size: tuple[int, int] = (160, 96)) -> np.ndarray:
    """Return a picture of (width, height) ``size`` that shows ``number`` in white cells."""
    width, height = size
    picture = np.full((height, width, 3), 90, np.uint8)
    for bit in range(BITS):
        if number >> bit & 1:
            picture[:CELL_PX, bit * CELL_PX : (bit + 1) * CELL_PX] = 230
    picture[CELL_PX + number % 32 : CELL_PX + number % 32 + 24, 20:60] = (200, 40, 60)
    return picture


def number_of(picture: np.ndarray) -> int:
    """Return the number that a picture shows."""
    cells = picture[4 : CELL_PX - 4, : BITS * CELL_PX, 1].reshape(CELL_PX - 8, BITS, CELL_PX)
    white = cells[:, :, 4:-4].mean(axis=(0, 2)) > 160
    return int((white << np.arange(BITS)).sum())


def numbered_clip(path: Path, frames: int = 250, size: tuple[int, int] = (160, 96)) -> Path:
    """Write a clip of ``frames`` pictures, 0 first, at FPS; return its path."""
    pictures = [numbered(number, size) for number in range(frames)]
    return write_clip(path, pictures, [number / FPS for number in range(frames)])
