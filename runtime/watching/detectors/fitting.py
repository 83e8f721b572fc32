"""A picture of any size as the input of a network, and boxes on it back to the picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import cv2
import numpy as np

from mambapro.preprocess import Picture
from runtime.watching.detectors.interface import Boxes

GREY: Final = 114
"""Borders of a letterboxed picture, as YOLO is trained with."""


@dataclass(frozen=True)
class Fit:
    """Where a picture lies in a network's input: input = picture * scale + shift."""

    scale: tuple[float, float]
    """Of x and y."""
    shift: tuple[int, int]
    """Of x and y, input px."""

    def back(self, boxes: Boxes) -> Boxes:
        """Return ``boxes`` (N, 4) x0, y0, x1, y1 of the input in the picture's pixels."""
        shift, scale = (np.array((*pair, *pair), np.float32) for pair in (self.shift, self.scale))
        return np.asarray((boxes - shift) / scale, np.float32)


def fit_for(
    size: tuple[int, int], into: tuple[int, int], how: Literal["letterbox", "stretch"]
) -> Fit:
    """Return how a picture of ``size`` = (H, W) lies in an input of ``into`` = (H, W)."""
    (height, width), (rows, columns) = size, into
    if how == "stretch":
        return Fit((columns / width, rows / height), (0, 0))
    ratio = min(columns / width, rows / height)
    inner = max(1, round(width * ratio)), max(1, round(height * ratio))
    shift = (columns - inner[0]) // 2, (rows - inner[1]) // 2
    return Fit((inner[0] / width, inner[1] / height), shift)


def fitted(picture: Picture, fit: Fit, into: tuple[int, int]) -> Picture:
    """Return ``picture`` (H, W, 3) laid into an input of ``into`` = (H, W) by ``fit``."""
    height, width = picture.shape[:2]
    inner = round(width * fit.scale[0]), round(height * fit.scale[1])
    shrinks = inner[0] < width
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    canvas = np.full((*into, 3), GREY, np.uint8)
    (left, top), (columns, rows) = fit.shift, inner
    canvas[top : top + rows, left : left + columns] = cv2.resize(picture, inner, interpolation=how)
    return canvas
