"""Is a crop worth embedding? What is wrong with its box, and what its pictures show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal

import cv2
import numpy as np

from mambapro.contract import MODALITIES, Modality
from mambapro.preprocess import Picture
from runtime.config import SampleConfig
from runtime.watching.tracking import Box, Track

Flaw = Literal["guessed", "truncated", "unsteady", "small", "wide", "covered", "blurred", "flat"]
"""Why a crop is not embedded: its box was not seen but guessed, is cut off by the border, differs
in area from the track's (it has merged or lost a part), is too small, holds two persons, is covered
by another's; its reference picture is blurred, or no modality shows anything."""

STEADY_AREA: Final = (0.6, 1.6)
"""Legal area of a box over the median of the track's recent ones."""
RECENT: Final = 25
"""Boxes that count as recent."""
RANGE: Final = (5, 95)
"""Percentiles of a picture's grey levels between which its contrast is measured."""
CLIPPED: Final = (2, 253)
"""Grey levels outside of which a pixel is under- or overexposed."""

Crops = dict[Modality, Picture]


class QualityGate:
    """Judges the boxes and crops of one rig's tracks."""

    def __init__(self, config: SampleConfig, size: tuple[int, int]) -> None:
        """Judge on reference pictures of ``size`` = (H, W)."""
        self._config, self._size = config, size

    def flaw(self, track: Track, others: Sequence[Track]) -> Flaw | None:
        """Return what is wrong with the track's box in this instant, if anything."""
        width, height = track.box[2] - track.box[0], track.box[3] - track.box[1]
        low, high = STEADY_AREA
        if track.guessed:
            return "guessed"
        if not self._inside(track.box):
            return "truncated"
        if not low <= track.areas[-1] / float(np.median(track.areas[-RECENT:])) <= high:
            return "unsteady"
        if height < self._config.min_height_px:
            return "small"
        if track.subject == "person" and width > self._config.max_person_aspect * height:
            return "wide"
        if self._covered(track, others) > self._config.max_overlap:
            return "covered"
        return None

    def shown(self, crops: Mapping[Modality, Picture]) -> Crops:
        """Return the crops that show anything; a covered lens's or dead sensor's is missing."""
        least = self._config.min_contrast
        return {m: c for m, c in crops.items() if least <= 0 or contrast(c) >= least}

    def worth(self, crops: Mapping[Modality, Picture], box: Box) -> float | None:
        """Return how good a crop is, larger is better; None when it is blurred.

        More modalities, more pixels, a sharper and better exposed reference picture are better.
        ``crops`` holds at least one modality, the reference first.
        """
        sharp = sharpness(next(iter(crops.values())))
        if sharp < self._config.min_sharpness:
            return None
        exposed = float(np.mean([1 - clipped(c) for c in crops.values()]))
        return len(crops) / len(MODALITIES) * area(box) * float(np.sqrt(sharp + 1)) * exposed

    def _inside(self, box: Box) -> bool:
        x0, y0, x1, y1 = box
        border, (height, width) = self._config.border_px, self._size
        return x0 >= border and y0 >= border and x1 <= width - border and y1 <= height - border

    def _covered(self, track: Track, others: Sequence[Track]) -> float:
        return max(
            (common_area(track.box, o.box) / area(track.box) for o in others if o is not track),
            default=0.0,
        )


def sharpness(picture: Picture) -> float:
    """Return the variance of the Laplacian of the grey picture; blur lowers it, noise raises it."""
    return float(cv2.Laplacian(_grey(picture), cv2.CV_32F).var())


def contrast(picture: Picture) -> float:
    """Return the range of the middle nine tenths of the grey levels, 0 to 255."""
    low, high = np.percentile(_grey(picture)[::2, ::2], RANGE)
    return float(high - low)


def clipped(picture: Picture) -> float:
    """Return the share of the pixels that are under- or overexposed."""
    grey = _grey(picture)
    return float(np.mean((grey < CLIPPED[0]) | (grey > CLIPPED[1])))


def area(box: Box) -> float:
    """Return the area of ``box``, at least a pixel."""
    return max(1.0, (box[2] - box[0]) * (box[3] - box[1]))


def common_area(a: Box, b: Box) -> float:
    """Return the area that two boxes share."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, width) * max(0.0, height)


def _grey(picture: Picture) -> Picture:
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8)
