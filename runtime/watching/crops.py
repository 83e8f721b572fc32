"""Cut one subject out of all cameras of a rig, and choose which crops of a track are worth it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from mambapro.contract import MODALITIES, Modality
from mambapro.preprocess import Picture, crop
from runtime.config import SampleConfig
from runtime.sync.offsets import Matrix
from runtime.watching.tracking import Box, Track

GLIMPSE_S: Final = 0.6
"""After this long a glimpse makes do with a crop that is not quite clear, s."""
STEADY_AREA: tuple[float, float] = (0.6, 1.6)
"""A box whose area differs more from the track's recent median has merged or lost a part."""


@dataclass(frozen=True)
class Sample:
    """One subject at one instant, cut out of each camera that shows it."""

    rig: str
    """Name of the rig."""
    track: int
    """Number of the track within the rig."""
    time_s: float
    """When, s."""
    crops: dict[Modality, Picture]
    """Crops by modality; a missing one is absent."""
    quality: float
    """Larger is better; comparable within a track."""


def warp_box(box: Box, homography: Matrix) -> Box:
    """Return the bounding box of ``box`` after ``homography``."""
    x0, y0, x1, y1 = box
    corners = np.array([[[x0, y0], [x1, y0], [x1, y1], [x0, y1]]], np.float64)
    warped = cv2.perspectiveTransform(corners, homography)[0]
    (left, top), (right, bottom) = warped.min(axis=0).tolist(), warped.max(axis=0).tolist()
    return left, top, right, bottom


def visible_share(box: Box, size: tuple[int, int]) -> float:
    """Return the share of ``box`` that lies in a picture of ``size`` = (H, W)."""
    width = min(box[2], size[1]) - max(box[0], 0)
    height = min(box[3], size[0]) - max(box[1], 0)
    return max(0.0, width) * max(0.0, height) / area(box)


def area(box: Box) -> float:
    """Return the area of ``box``, at least a pixel."""
    return max(1.0, (box[2] - box[0]) * (box[3] - box[1]))


def registered_boxes(
    box: Box,
    homographies: Mapping[Modality, Matrix],
    sizes: Mapping[Modality, tuple[int, int]],
    min_visible: float,
) -> dict[Modality, Box]:
    """Return ``box`` (reference px) in the pixels of every camera that shows it.

    ``homographies`` map reference pixels to a camera's (identity for the reference); ``sizes`` are
    (H, W) of the cameras that gave a picture; others are left out.
    """
    boxes = {m: warp_box(box, homographies[m]) for m in sizes}
    return {m: b for m, b in boxes.items() if visible_share(b, sizes[m]) >= min_visible}


class Sampler:
    """Takes the best crop of each stretch of a rig's tracks; stretches grow as a track goes on."""

    def __init__(self, config: SampleConfig, rig: str, size: tuple[int, int]) -> None:
        """Sample tracks on reference pictures of ``size`` = (H, W)."""
        self._config, self._rig, self._size = config, rig, size
        self._best: dict[int, Sample] = {}
        self._opened_s: dict[int, float] = {}
        self._taken: dict[int, int] = {}

    def offer(
        self,
        track: Track,
        others: Sequence[Track],
        pictures: Mapping[Modality, Picture],
        boxes: Mapping[Modality, Box],
        thrift: float = 1.0,
    ) -> Sample | None:
        """Look at ``track`` in this instant; return a sample when its stretch is over.

        ``boxes`` are the track's box in each camera's pixels; stretches are ``thrift`` times as
        long as configured.
        """
        taken = self._taken.get(track.number, 0)
        if taken >= self._config.per_track:
            return None
        if boxes and self._good(track, others):
            self._keep_better(track, {m: crop(pictures[m], boxes[m]) for m in boxes})
        opened_s = self._opened_s.setdefault(track.number, track.end_s)
        if track.end_s - opened_s < thrift * self._config.window_s * (1 + taken / 2):
            return None
        return self._close(track)

    def glimpse(
        self,
        track: Track,
        others: Sequence[Track],
        pictures: Mapping[Modality, Picture],
        boxes: Mapping[Modality, Box],
    ) -> Sample | None:
        """Return the first good crop of ``track``, once, before it is sure to be a subject."""
        early = self._config.glimpse_travel
        if early is None or track.glimpsed or track.travel < early:
            return None
        waited = track.end_s - track.start_s >= GLIMPSE_S and not track.guessed
        if not boxes or not (waited or self._good(track, others)):
            return None
        track.glimpsed = True
        crops = {m: crop(pictures[m], boxes[m]).copy() for m in boxes}
        return Sample(self._rig, track.number, track.end_s, crops, 0.0)

    def finish(self, track: Track) -> Sample | None:
        """Return the best crop of a track's last, unfinished stretch, and forget the track."""
        sample = self._best.pop(track.number, None)
        self._opened_s.pop(track.number, None)
        self._taken.pop(track.number, None)
        return sample

    def _close(self, track: Track) -> Sample | None:
        sample = self._best.pop(track.number, None)
        self._opened_s[track.number] = track.end_s
        self._taken[track.number] = self._taken.get(track.number, 0) + (sample is not None)
        return sample

    def _keep_better(self, track: Track, crops: dict[Modality, Picture]) -> None:
        sharp = _sharpness(next(iter(crops.values())))
        quality = len(crops) / len(MODALITIES) * area(track.box) * math.sqrt(sharp + 1.0)
        best = self._best.get(track.number)
        if sharp >= self._config.min_sharpness and (best is None or quality > best.quality):
            own = {m: c.copy() for m, c in crops.items()}  # or it would keep whole pictures alive
            self._best[track.number] = Sample(self._rig, track.number, track.end_s, own, quality)

    def _good(self, track: Track, others: Sequence[Track]) -> bool:
        x0, y0, x1, y1 = track.box
        border = self._config.border_px
        inside = (
            x0 >= border
            and y0 >= border
            and x1 <= self._size[1] - border
            and y1 <= self._size[0] - border
        )
        low, high = STEADY_AREA
        steady = low <= track.areas[-1] / float(np.median(track.areas[-25:])) <= high
        tall = y1 - y0 >= self._config.min_height_px
        slim = track.subject == "vehicle" or x1 - x0 <= self._config.max_person_aspect * (y1 - y0)
        clear = not track.guessed and inside and steady and tall and slim
        return clear and self._alone(track, others)

    def _alone(self, track: Track, others: Sequence[Track]) -> bool:
        covered = max(
            (_intersection(track.box, other.box) for other in others if other is not track),
            default=0.0,
        )
        return covered <= self._config.max_overlap * area(track.box)


def _intersection(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, width) * max(0.0, height)


def _sharpness(picture: Picture) -> float:
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    return float(cv2.Laplacian(grey, cv2.CV_32F).var())
